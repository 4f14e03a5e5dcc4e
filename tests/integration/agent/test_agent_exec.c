/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_agent_exec.c - processes of the real agent: both codecs, input, signals, time-outs, replay
 */
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "lib/agent_client.h"
#include "lib/tap.h"
#include "proto/agent_api.h"
#include "proto/connect.h"
#include "proto/frame.h"

#define SH(script)                                                                                 \
	"{\"process\":{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"" script "\"]},\"stdin\":false}"
#define SH_MORE(script, more)                                                                      \
	"{\"process\":{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"" script "\"]}," more "}"

static struct agent_proc agent;
static struct agent_client cl;

static void test_exec(void)
{
	struct agent_result r;

	agent_run(&cl, SH("echo out; echo err >&2; exit 3"), &r);
	ok(agent_number(&r.start, "pid") > 1, "start carries the pid");
	is_avstr(av_buf_str(&r.out), "out\n", "stdout");
	is_avstr(av_buf_str(&r.err), "err\n", "stderr");
	is_int(agent_number(&r.control, "exitCode"), 3, "exit code");
	ok(agent_has(&r.control, "\"exited\":true") && agent_has(&r.control, "exit status 3"),
	    "end event");
	agent_result_clear(&r);

	agent_run(&cl, SH("kill -SEGV $$"), &r);
	ok(agent_has(&r.control, "\"exited\":false") &&
	        agent_number(&r.control, "signal") == SIGSEGV &&
	        agent_has(&r.control, "signal: segmentation fault"),
	    "killed by a signal");
	is_int(
	    agent_number(&r.control, "exitCode"), 128 + SIGSEGV, "its exit code is 128 + signal");
	agent_result_clear(&r);

	agent_run(&cl, "{\"process\":{\"cmd\":\"no-such-program\"}}", &r);
	ok(agent_has(&r.control, "\"code\":\"not_found\"") &&
	        agent_number(&r.control, "exitCode") == 127 &&
	        agent_has(&r.control, "no-such-program"),
	    "a missing command is not_found and 127");
	agent_result_clear(&r);

	agent_run(&cl, "{\"process\":{\"cmd\":\"/etc/passwd\"}}", &r);
	is_int(agent_number(&r.control, "exitCode"), 126, "a file that cannot be executed is 126");
	agent_result_clear(&r);

	agent_run(&cl, "{\"process\":{\"cmd\":\"true\",\"cwd\":\"/no/such\"}}", &r);
	ok(agent_has(&r.control, "cwd '/no/such' does not exist"), "a missing cwd is named");
	agent_result_clear(&r);
}

static void test_child_setup(void)
{
	struct agent_result r;

	agent_run(&cl,
	    "{\"process\":{\"cmd\":\"sh\",\"args\":[\"-c\",\"pwd; echo "
	    "$A-$HOME-$AVIARY_SANDBOX_ID; "
	    "ls /proc/self/fd | wc -l; grep -E 'SigBlk|SigIgn' /proc/self/status | tr -d '\\n'; "
	    "cut -d' ' -f5,6 /proc/$$/stat | grep -c \\\"^$$ $$\\\"\"],"
	    "\"envs\":{\"A\":\"b c\"},\"cwd\":\"/usr\"},\"user\":\"root\",\"stdin\":false}",
	    &r);
	ok(agent_has(&r.out, "/usr\n"), "cwd");
	ok(agent_has(&r.out, "b c-/root-sbtest\n"), "environment");
	ok(agent_has(&r.out, "\n4\n"), "only descriptors 0, 1, 2 (and that of ls)");
	ok(agent_has(&r.out, "SigBlk:\t0000000000000000SigIgn:\t0000000000000000"),
	    "no signal blocked or ignored");
	ok(agent_has(&r.out, "1\n"), "own session and process group");
	agent_result_clear(&r);

	agent_run(&cl,
	    SH("sleep 0.02; a=$(cat /proc/$PPID/oom_score_adj) b=$(cat /proc/self/oom_score_adj); "
	       "test $b -gt $a && echo higher"),
	    &r);
	is_avstr(av_buf_str(&r.out), "higher\n", "the OOM killer takes it before the agent");
	agent_result_clear(&r);

	agent_run(&cl, "{\"process\":{\"cmd\":\"id\"},\"user\":\"no-such-user\"}", &r);
	ok(agent_has(&r.control, "invalid username: 'no-such-user'"), "unknown user");
	agent_result_clear(&r);

	if (geteuid() == 0) {
		agent_run(&cl,
		    "{\"process\":{\"cmd\":\"sh\",\"args\":[\"-c\",\"id -u; id -g; echo $USER; "
		    "grep CapEff /proc/self/status\"]},\"user\":\"nobody\"}",
		    &r);
		ok(agent_has(&r.out, "65534\n65534\nnobody\n") &&
		        agent_has(&r.out, "CapEff:\t0000000000000000"),
		    "another user, without capabilities");
		agent_result_clear(&r);
	}
}

static void test_stdin(void)
{
	struct agent_stream *s;
	struct agent_result r;
	size_t big = 3 * 1024 * 1024;
	char *data = malloc(big);

	s = agent_frames(&cl, "Start", "{\"process\":{\"cmd\":\"cat\"},\"stdin\":true}");
	agent_send_frame(s, AV_FRAME_STDIN, "hello ", 6);
	agent_send_frame(s, AV_FRAME_STDIN, "world", 5);
	agent_send_frame(s, AV_FRAME_STDIN, NULL, 0);
	agent_collect(s, &r);
	is_avstr(av_buf_str(&r.out), "hello world", "stdin reaches the process");
	is_int(agent_number(&r.control, "exitCode"), 0, "closing stdin ends it");
	agent_result_clear(&r);
	agent_stream_free(s);

	memset(data, 'x', big);
	s = agent_frames(&cl, "Start",
	    "{\"process\":{\"cmd\":\"sh\",\"args\":[\"-c\",\"sleep 0.2; wc -c\"]},\"stdin\":true}");
	for (size_t off = 0; off < big; off += 65536)
		agent_send_frame(s, AV_FRAME_STDIN, data + off, 65536);
	agent_send_frame(s, AV_FRAME_STDIN, NULL, 0);
	agent_collect(s, &r);
	is_avstr(av_buf_str(&r.out), "3145728\n", "3 MiB to a process that reads late");
	agent_result_clear(&r);
	agent_stream_free(s);

	/* A process that ends without reading must not hang the stream. */
	s = agent_frames(&cl, "Start", "{\"process\":{\"cmd\":\"true\"},\"stdin\":true}");
	for (size_t off = 0; off < big; off += 65536)
		agent_send_frame(s, AV_FRAME_STDIN, data + off, 65536);
	agent_collect(s, &r);
	ok(agent_has(&r.control, "\"end\""), "input that nobody reads");
	agent_result_clear(&r);
	agent_wait_end(s);
	agent_stream_free(s);
	free(data);
}

static void test_output(void)
{
	struct agent_stream *s;
	struct agent_result r;

	agent_run(&cl, SH("head -c 20000000 /dev/zero"), &r);
	is_int(r.out.n, 20000000, "20 MB of output arrive whole");
	agent_result_clear(&r);

	/* A reader that stops: the process must wait, then go on without loss. */
	s = agent_frames(&cl, "Start", SH("head -c 10000000 /dev/zero; echo done >&2"));
	s->hold = true;
	agent_pump_for(&cl, 300);
	ok(s->received < 4 * 1024 * 1024 && !s->ended,
	    "a slow reader holds the process back (%llu bytes)", (unsigned long long)s->received);
	s->hold = false;
	av_http2_consume(s->stream, av_http2_unconsumed(s->stream));
	agent_collect(s, &r);
	ok(r.out.n == 10000000 && agent_has(&r.err, "done"), "and no byte is lost");
	agent_result_clear(&r);
	agent_stream_free(s);
}

static void test_several_readers(void)
{
	struct agent_stream *first, *second;
	struct agent_result a, b;

	first = agent_frames(
	    &cl, "Start", SH_MORE("read x; head -c 5000000 /dev/zero; exit 6", "\"tag\":\"many\""));
	agent_skip_frames(first, 1);
	second = agent_frames(&cl, "Connect", "{\"process\":{\"tag\":\"many\"}}");
	agent_skip_frames(second, 1);
	second->hold = true;
	agent_send_frame(first, AV_FRAME_STDIN, "\n", 1);
	agent_pump_for(&cl, 300);
	ok(!first->ended && first->received < 4 * 1024 * 1024, "the slowest of two readers counts");
	second->hold = false;
	av_http2_consume(second->stream, av_http2_unconsumed(second->stream));
	agent_collect(first, &a);
	agent_collect(second, &b);
	ok(a.out.n == 5000000 && b.out.n == 5000000, "both get every byte");
	ok(agent_number(&a.control, "exitCode") == 6 && agent_number(&b.control, "exitCode") == 6,
	    "and the end");
	agent_result_clear(&a);
	agent_result_clear(&b);
	agent_stream_free(first);
	agent_stream_free(second);
}

static void test_end_rules(void)
{
	struct agent_stream *s;
	struct agent_result r;
	int64_t t = av_mono_ns();

	agent_run(&cl, SH("(sleep 0.5; echo late) & exit 0"), &r);
	ok(av_mono_ns() - t > 400 * AV_NS_PER_MS && agent_has(&r.out, "late"),
	    "a child that holds stdout holds the end back");
	agent_result_clear(&r);

	t = av_mono_ns();
	agent_run(&cl,
	    SH_MORE("sleep 30 & echo x; sleep 30", "\"timeoutMs\":200,\"killGroup\":true"), &r);
	t = (av_mono_ns() - t) / AV_NS_PER_MS;
	ok(t >= 200 && t < 400, "time-out after %d ms", (int)t);
	ok(agent_has(&r.control, "\"timedOut\":true") &&
	        agent_number(&r.control, "signal") == SIGKILL && agent_has(&r.out, "x"),
	    "it is told, with what was written before");
	agent_result_clear(&r);

	t = av_mono_ns();
	agent_run(&cl, SH_MORE("sleep 30 & exit 5", "\"timeoutMs\":200,\"killGroup\":true"), &r);
	t = (av_mono_ns() - t) / AV_NS_PER_MS;
	ok(t >= 200 && t < 400 && agent_number(&r.control, "exitCode") == 5,
	    "time-out while only a child holds the output");
	agent_result_clear(&r);

	s = agent_frames(&cl, "Start",
	    SH("trap 'echo got; exit 7' TERM; echo up; while :; do sleep 0.05; done"));
	agent_skip_frames(s, 2);
	agent_send_frame(s, AV_FRAME_CONTROL, "{\"signal\":\"SIGTERM\"}", 20);
	agent_collect(s, &r);
	ok(agent_has(&r.out, "got") && agent_number(&r.control, "exitCode") == 7,
	    "signal in the stream");
	agent_result_clear(&r);
	agent_stream_free(s);
}

static void test_detach(void)
{
	struct agent_stream *s;
	struct agent_result r;
	char json[128];
	int pid;

	s = agent_frames(&cl, "Start",
	    SH_MORE("echo first; for i in 1 2 3 4; do sleep 0.1; echo n$i; done; exit 9",
	        "\"tag\":\"bg\""));
	agent_skip_frames(s, 2);
	agent_stream_free(s);
	agent_pump_for(&cl, 700);
	s = agent_frames(&cl, "Connect", "{\"process\":{\"tag\":\"bg\"},\"replay\":true}");
	agent_collect(s, &r);
	ok(agent_has(&r.out, "n4") && agent_number(&r.control, "exitCode") == 9,
	    "a detached process goes on and its output can be replayed after its end");
	agent_result_clear(&r);
	agent_stream_free(s);

	s = agent_frames(
	    &cl, "Start", SH_MORE("exec sleep 30", "\"onDetach\":\"kill\",\"tag\":\"k\""));
	agent_wait_body(s, 20);
	agent_stream_free(s);
	agent_pump_for(&cl, 100);
	s = agent_rpc(&cl, "List", "{}");
	ok(s->status == 200 && !agent_has(&s->body, "\"k\""), "onDetach kill");
	agent_stream_free(s);

	s = agent_frames(&cl, "Start",
	    SH_MORE("head -c 3000000 /dev/zero; echo end; sleep 30", "\"tag\":\"flood\""));
	s->hold = true;
	agent_wait_body(s, 64);
	agent_reset(s);
	agent_stream_free(s);
	agent_pump_for(&cl, 300);
	s = agent_frames(
	    &cl, "Connect", "{\"process\":{\"tag\":\"flood\"},\"replay\":true,\"follow\":false}");
	agent_collect(s, &r);
	ok(r.gap > 100000 && r.out.n > 900000 && r.out.n <= 1048576 && agent_has(&r.out, "end\n"),
	    "the ring keeps the newest: %zu bytes, %llu dropped", r.out.n,
	    (unsigned long long)r.gap);
	ok(s->ended && r.control.n == 0,
	    "without following the stream ends while the process runs");
	agent_result_clear(&r);
	agent_stream_free(s);

	s = agent_frames(&cl, "Connect", "{\"process\":{\"tag\":\"flood\"}}");
	agent_wait_body(s, 20);
	pid = (int)agent_number(&s->body, "pid");
	snprintf(
	    json, sizeof(json), "{\"process\":{\"pid\":%d},\"signal\":\"SIGNAL_SIGKILL\"}", pid);
	agent_stream_free(agent_rpc(&cl, "SendSignal", json));
	agent_collect(s, &r);
	ok(agent_has(&r.control, "signal: killed"), "SendSignal");
	ok(kill(pid, 0) < 0 && errno == ESRCH, "the pid is gone at the end event");
	agent_result_clear(&r);
	agent_stream_free(s);
}

static void test_pty(void)
{
	struct agent_stream *s;
	struct agent_result r;

	s = agent_frames(&cl, "Start",
	    "{\"process\":{\"cmd\":\"sh\",\"args\":[\"-c\",\"stty size; tty; read a; echo got $a; "
	    "stty size\"]},"
	    "\"pty\":{\"size\":{\"cols\":100,\"rows\":30}}}");
	agent_skip_frames(s, 1);
	agent_wait_body(s, 13);
	agent_send_frame(s, AV_FRAME_CONTROL, "{\"resize\":{\"cols\":81,\"rows\":25}}", 32);
	agent_send_frame(s, AV_FRAME_PTY, "line\n", 5);
	agent_collect(s, &r);
	ok(agent_has(&r.out, "30 100\r\n") && agent_has(&r.out, "/dev/pts/"),
	    "a terminal of the size asked for");
	ok(agent_has(&r.out, "got line") && agent_has(&r.out, "25 81\r\n"), "input and resize");
	is_int(agent_number(&r.control, "exitCode"), 0, "its end");
	agent_result_clear(&r);
	agent_stream_free(s);
}

static struct agent_stream *connect_json(
    const char *method, const char *json, const char *const *headers)
{
	struct av_buf body = AV_BUF_INIT(65536);
	struct agent_stream *s;
	char path[64];

	snprintf(path, sizeof(path), "/process.Process/%s", method);
	if (av_connect_write(&body, 0, av_str_c(json)) < 0)
		abort();
	s = agent_request(&cl, "POST", path, headers, av_buf_str(&body), true);
	av_buf_clear(&body);
	return s;
}

static void test_connect_codec(void)
{
	static const char *const plain[] = {"content-type", "application/connect+json", NULL};
	static const char *const timed[] = {
	    "content-type", "application/connect+json", "connect-timeout-ms", "200", NULL};
	struct agent_stream *s;

	s = connect_json("Start", SH("echo hi; exit 1"), plain);
	agent_wait_end(s);
	is_int(s->status, 200, "Connect codec answers 200");
	ok(agent_has(&s->body, "{\"event\":{\"start\":{\"pid\":") &&
	        agent_has(&s->body, "{\"event\":{\"data\":{\"stdout\":\"aGkK\"}}}") &&
	        agent_has(&s->body, "{\"event\":{\"end\":{\"exitCode\":1,\"exited\":true,"
	                            "\"status\":\"exit status 1\","
	                            "\"error\":\"exit status 1\"}}}") &&
	        agent_has(&s->body, "{}"),
	    "events in E2B's shape");
	agent_stream_free(s);

	s = connect_json("Start", "{\"process\":{\"cmd\":\"no-such\"}}", plain);
	agent_wait_end(s);
	ok(agent_has(&s->body, "\"stderr\"") && agent_has(&s->body, "\"exitCode\":127"),
	    "a missing command looks like a shell's");
	agent_stream_free(s);

	s = connect_json("Start", SH("sleep 30"), timed);
	agent_wait_end(s);
	ok(agent_has(&s->body, "deadline_exceeded"), "Connect-Timeout-Ms");
	agent_stream_free(s);

	s = connect_json("Start", "{\"process\":{\"cmd\":\"true\",\"cwd\":\"/nope\"}}", plain);
	agent_wait_end(s);
	ok(agent_has(&s->body, "\"invalid_argument\"") &&
	        agent_has(&s->body, "cwd '/nope' does not exist"),
	    "errors are end messages");
	agent_stream_free(s);

	s = connect_json("Connect", "{\"process\":{\"pid\":999999}}", plain);
	agent_wait_end(s);
	ok(agent_has(&s->body, "process with pid 999999 not found"), "Connect to nothing");
	agent_stream_free(s);
}

static void test_unary(void)
{
	struct agent_stream *s, *u;
	struct agent_result r;

	s = agent_frames(&cl, "Start",
	    "{\"process\":{\"cmd\":\"cat\",\"envs\":{\"X\":\"1\"}},\"tag\":\"cat\",\"stdin\":"
	    "true}");
	agent_wait_body(s, 20);
	u = agent_rpc(&cl, "List", "{}");
	ok(agent_has(&u->body, "{\"config\":{\"cmd\":\"cat\",\"envs\":{\"X\":\"1\"}}") &&
	        agent_has(&u->body, "\"tag\":\"cat\""),
	    "List");
	agent_stream_free(u);
	u = agent_rpc(
	    &cl, "SendInput", "{\"process\":{\"tag\":\"cat\"},\"input\":{\"stdin\":\"aGVsbG8=\"}}");
	is_int(u->status, 200, "SendInput");
	agent_stream_free(u);
	u = agent_rpc(
	    &cl, "SendInput", "{\"process\":{\"tag\":\"cat\"},\"input\":{\"pty\":\"aGVsbG8=\"}}");
	ok(u->status == 500 && agent_has(&u->body, "\"internal\""), "terminal input to a pipe");
	agent_stream_free(u);
	u = agent_rpc(&cl, "SendSignal", "{\"process\":{\"tag\":\"cat\"},\"signal\":2}");
	ok(u->status == 501 && agent_has(&u->body, "invalid signal: 2"),
	    "signals E2B does not have");
	agent_stream_free(u);
	u = agent_rpc(&cl, "CloseStdin", "{\"process\":{\"tag\":\"cat\"}}");
	is_int(u->status, 200, "CloseStdin");
	agent_stream_free(u);
	agent_collect(s, &r);
	is_avstr(av_buf_str(&r.out), "hello", "input arrived");
	agent_result_clear(&r);
	agent_stream_free(s);
	u = agent_rpc(
	    &cl, "SendInput", "{\"process\":{\"tag\":\"cat\"},\"input\":{\"stdin\":\"aGVsbG8=\"}}");
	is_int(u->status, 404, "a process that has ended is not found");
	agent_stream_free(u);
	u = agent_rpc(&cl, "SendInput", "{not json");
	is_int(u->status, 400, "malformed JSON");
	agent_stream_free(u);
}

/* --- StreamInput --- */

static struct agent_stream *open_input(const char *first)
{
	static const char *const headers[] = {"content-type", AV_AGENT_CT_CONNECT, NULL};
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(65536);

	if (av_connect_write(&b, 0, av_str_c(first)) < 0)
		return NULL;
	return agent_request(&cl, "POST", AV_AGENT_PATH_STREAM, headers, av_buf_str(&b), false);
}

static void send_envelope(struct agent_stream *s, const char *json)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(1 << 20);

	if (av_connect_write(&b, 0, av_str_c(json)) == 0)
		agent_send(s, av_buf_str(&b).p, b.n);
}

static bool input_is_empty_answer(const struct agent_stream *s)
{
	return s->status == 200 &&
	       av_str_eq(av_buf_str(&s->body), AV_STR("\0\0\0\0\2{}\2\0\0\0\2{}"));
}

static void test_stream_input(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf pieces = AV_BUF_INIT(1000);
	struct agent_stream *s, *in, *u;
	struct agent_result r;

	s = agent_frames(
	    &cl, "Start", "{\"process\":{\"cmd\":\"cat\"},\"tag\":\"sink\",\"stdin\":true}");
	agent_wait_body(s, 20);
	in = open_input("{\"start\":{\"process\":{\"tag\":\"sink\"}}}");
	send_envelope(in, "{\"data\":{\"input\":{\"stdin\":\"aGVsbG8=\"}}}");
	send_envelope(in, "{\"keepalive\":{}}");
	is_int(
	    av_connect_write(&pieces, 0, AV_STR("{\"data\":{\"input\":{\"stdin\":\"IHdvcmxk\"}}}")),
	    0, "an envelope");
	for (size_t i = 0; i < pieces.n; i += 3) {
		agent_send(in, av_buf_str(&pieces).p + i, AV_MIN(pieces.n - i, (size_t)3));
		agent_pump_for(&cl, 2);
	}
	agent_pump_for(&cl, 30);
	ok(!in->ended && in->body.n == 0, "no answer before the end");
	agent_end(in);
	agent_wait_end(in);
	ok(input_is_empty_answer(in), "the empty answer");
	agent_stream_free(in);
	u = agent_rpc(&cl, "CloseStdin", "{\"process\":{\"tag\":\"sink\"}}");
	is_int(u->status, 200, "stdin was still open");
	agent_stream_free(u);
	agent_collect(s, &r);
	is_avstr(av_buf_str(&r.out), "hello world", "input arrived");
	agent_result_clear(&r);
	agent_stream_free(s);
}

static void bad_input(const char *first, const char *second, const char *wanted)
{
	struct agent_stream *in = open_input(first);

	if (second)
		send_envelope(in, second);
	agent_wait_end(in);
	ok(in->status == 200 && agent_has(&in->body, wanted), "%s: %s", wanted,
	    second ? second : first);
	agent_stream_free(in);
}

static void test_stream_input_errors(void)
{
	static const char start[] = "{\"start\":{\"process\":{\"tag\":\"sink\"}}}";
	static const char *const text[] = {"content-type", AV_AGENT_CT_JSON, NULL};
	struct agent_stream *s, *in;

	s = agent_frames(&cl, "Start",
	    "{\"process\":{\"cmd\":\"sleep\",\"args\":[\"100\"]},\"tag\":\"sink\",\"stdin\":true}");
	agent_wait_body(s, 20);
	bad_input("{\"start\":{\"process\":{\"pid\":1}}}", NULL, "\"not_found\"");
	bad_input("{\"start\":{}}", NULL, "\"invalid_argument\"");
	bad_input("{}", NULL, "\"invalid_argument\"");
	bad_input("nonsense", NULL, "\"invalid_argument\"");
	bad_input(start, start, "\"invalid_argument\"");
	bad_input("{\"data\":{\"input\":{\"stdin\":\"\"}}}", NULL, "\"invalid_argument\"");
	bad_input(start, "{\"data\":{\"input\":{\"stdin\":\"***\"}}}", "\"invalid_argument\"");
	bad_input(start, "{\"data\":{}}", "\"invalid_argument\"");
	bad_input(start, "{\"data\":{\"input\":{\"pty\":\"aGk=\"}}}", "\"internal\"");
	in = agent_call(&cl, "POST", AV_AGENT_PATH_STREAM, text, start);
	is_int(in->status, 415, "an unknown codec");
	agent_stream_free(in);
	in = open_input(start);
	agent_send(in, "\0\0\0\0\7{", 6);
	agent_end(in);
	agent_wait_end(in);
	ok(agent_has(&in->body, "within a message"), "an end within a message");
	agent_stream_free(in);
	agent_stream_free(s);
}

/* A process that does not read holds the client back; when it ends, the stream does. */
static void test_stream_input_pressure(void)
{
	static const char start[] = "{\"start\":{\"process\":{\"tag\":\"deaf\"}}}";
	AV_CLEANUP(av_buf_clear) struct av_buf message = AV_BUF_INIT(1 << 20);
	struct agent_stream *s, *in;
	uint64_t waiting;

	s = agent_frames(&cl, "Start",
	    "{\"process\":{\"cmd\":\"sleep\",\"args\":[\"100\"]},\"tag\":\"deaf\",\"stdin\":true}");
	agent_wait_body(s, 20);
	in = open_input(start);
	av_buf_append_c(&message, "{\"data\":{\"input\":{\"stdin\":\"");
	for (int i = 0; i < 40000; i++)
		av_buf_append_c(&message, "AAAA");
	av_buf_append_c(&message, "\"}}}");
	for (int i = 0; i < 20; i++)
		send_envelope(in, av_buf_cstr(&message));
	agent_pump_for(&cl, 300);
	waiting = av_http2_buffered(in->stream);
	ok(waiting > 2000000, "%llu of 3.2 million bytes wait here", (unsigned long long)waiting);
	agent_send_frame(s, AV_FRAME_CONTROL, "{\"signal\":\"SIGKILL\"}", 20);
	agent_wait_end(in);
	ok(agent_has(&in->body, "\"internal\""), "its end is told");
	agent_stream_free(in);
	agent_stream_free(s);
}

static void test_bad_streams(void)
{
	static const char *const frames[] = {"content-type", AV_AGENT_CT_FRAMES, NULL};
	static const char *const text[] = {"content-type", "text/plain", NULL};
	struct agent_stream *s;

	s = agent_call(&cl, "POST", "/process.Process/Start", text, "x");
	is_int(s->status, 415, "an unknown codec");
	agent_stream_free(s);
	s = agent_request(
	    &cl, "POST", "/process.Process/Start", frames, AV_STR("\xff\xff\xff\xff\x00"), false);
	agent_wait_end(s);
	ok(s->ended && agent_has(&s->body, "\"error\""), "a frame too large");
	agent_stream_free(s);
	s = agent_request(
	    &cl, "POST", "/process.Process/Start", frames, AV_STR("\0\0\0\1\1x"), false);
	agent_wait_end(s);
	ok(s->ended && agent_has(&s->body, "\"error\""), "data before the request");
	agent_stream_free(s);
	s = agent_call(&cl, "POST", "/process.Process/Start", frames, "");
	ok(s->ended && agent_has(&s->body, "has no message"), "no message at all");
	agent_stream_free(s);
	s = agent_call(&cl, "POST", "/process.Process/Nope", text, "");
	is_int(s->status, 404, "an unknown route");
	agent_stream_free(s);
	s = agent_call(&cl, "DELETE", "/health", NULL, NULL);
	is_int(s->status, 405, "a wrong method");
	agent_stream_free(s);
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static void measure(void)
{
	enum { N = 300 };
	static int64_t t[N];

	for (int i = 0; i < N; i++) {
		struct agent_result r;
		int64_t begin = av_mono_ns();

		agent_run(&cl, "{\"process\":{\"cmd\":\"/bin/true\"},\"stdin\":false}", &r);
		t[i] = av_mono_ns() - begin;
		if (!agent_has(&r.control, "\"exitCode\":0"))
			ok(false, "true failed");
		agent_result_clear(&r);
	}
	qsort(t, N, sizeof(t[0]), compare);
	int64_t begin = av_mono_ns();
	struct agent_result r;

	agent_run(&cl, SH("head -c 60000000 /dev/zero"), &r);
	diag("output: %d MB/s", (int)(60000000 * 1000LL / (av_mono_ns() - begin)));
	agent_result_clear(&r);
	diag("exec true: p50 %d us, p99 %d us", (int)(t[N / 2] / 1000),
	    (int)(t[N * 99 / 100] / 1000));
}

static void test_orphans(void)
{
	struct agent_result r;

	agent_run(&cl, SH("(setsid sleep 0.2 &) ; sleep 0.1"), &r);
	agent_result_clear(&r);
	agent_pump_for(&cl, 400);
	agent_run(&cl, SH("ps -o stat= --ppid $PPID | grep -c Z"), &r);
	ok(agent_has(&r.out, "0"), "orphans are reaped");
	agent_result_clear(&r);
}

int main(void)
{
	agent_proc_start(&agent);
	agent_client_open(&cl, &agent);
	test_exec();
	test_child_setup();
	test_stdin();
	test_output();
	test_several_readers();
	test_end_rules();
	test_detach();
	test_pty();
	test_connect_codec();
	test_unary();
	test_stream_input();
	test_stream_input_errors();
	test_stream_input_pressure();
	test_bad_streams();
	test_orphans();
	measure();
	agent_client_close(&cl);
	agent_proc_stop(&agent);
	return tap_done();
}
