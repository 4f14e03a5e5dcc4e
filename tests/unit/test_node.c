/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node.c - conversations with agents: an honest one, many lying ones, and what a death says
 *
 * The agent is an HTTP/2 server in the same loop that does what the command's name says.
 */
#include <sys/socket.h>

#include "base/avtime.h"
#include "base/json.h"
#include "fake_driver.h"
#include "lib/tap.h"
#include "net/http_server.h"
#include "proto/agent_api.h"
#include "proto/frame.h"

#include "base/banned.h"

static struct av_loop *loop;
static struct av_http_server *server;
static struct fake_machine machine;
static struct fake_driver *driver;
static struct node *node;
static struct node_sandbox *sandbox;
static int inits, connections, activities;
static int init_status = 204;
static bool raw_garbage;
static char init_body[512];

/* ---- the agent ---- */

struct stream {
	struct av_req *req;
	struct av_frame_dec dec;
	char cmd[32];
	bool begun;
	size_t flood_left, got;
};

static void frame(struct av_buf *b, enum av_frame_channel ch, struct av_str payload)
{
	if (av_frame_write(b, ch, payload) < 0)
		abort();
}

static void send_frame(struct stream *s, enum av_frame_channel ch, struct av_str payload)
{
	struct av_buf b = AV_BUF_INIT(AV_FRAME_CONTROL_MAX + 16);

	frame(&b, ch, payload);
	(void)av_res_write(s->req, av_buf_str(&b));
	av_buf_clear(&b);
}

static void control_frame(struct stream *s, const char *json)
{
	send_frame(s, AV_FRAME_CONTROL, av_str_c(json));
}

static void pump_flood(struct stream *s)
{
	static char block[32768];

	while (s->flood_left) {
		struct av_buf b = AV_BUF_INIT(65536);
		size_t n = AV_MIN(s->flood_left, sizeof(block));
		int r;

		frame(&b, AV_FRAME_STDOUT, av_str_n(block, n));
		r = av_res_write(s->req, av_buf_str(&b));
		av_buf_clear(&b);
		s->flood_left -= n;
		if (r != 0)
			return;
	}
	control_frame(s, "{\"end\":{\"exitCode\":0,\"exited\":true,\"status\":\"exit status 0\"}}");
	(void)av_res_end(s->req);
}

static const char start_event[] = "{\"start\":{\"pid\":7,\"tag\":\"t\"}}";

/* cmd -> what comes back, as frames; then the answer ends. NULL ends the list. */
static const struct script {
	const char *cmd;
	bool start;
	enum av_frame_channel channel;
	const char *data, *control;
} scripts[] = {
    {"hello", true, AV_FRAME_STDOUT, "hello",
        "{\"end\":{\"exitCode\":3,\"exited\":true,\"status\":\"exit status 3\"}}"},
    {"killed", true, AV_FRAME_STDERR, "oops",
        "{\"end\":{\"exitCode\":-1,\"exited\":false,\"signal\":9,\"coreDumped\":true,"
        "\"timedOut\":true,\"status\":\"signal: killed\"}}"},
    {"sigkill", true, AV_FRAME_STDERR, "",
        "{\"end\":{\"exitCode\":-1,\"exited\":false,\"signal\":9}}"},
    {"child", true, AV_FRAME_STDERR, "", "{\"end\":{\"exitCode\":137,\"exited\":true}}"},
    {"refused", false, AV_FRAME_CONTROL, NULL,
        "{\"error\":{\"code\":\"not_found\",\"message\":\"no such cwd\"}}"},
    {"cut", true, AV_FRAME_STDOUT, "half", NULL},
    {"nothing", false, AV_FRAME_CONTROL, NULL, NULL},
    {"early", false, AV_FRAME_STDOUT, "before the start", "{\"end\":{\"exited\":true}}"},
    {"twice", true, AV_FRAME_CONTROL, start_event, "{\"end\":{\"exited\":true}}"},
    {"input", true, AV_FRAME_STDIN, "from the wrong side", "{\"end\":{\"exited\":true}}"},
    {"badpid", false, AV_FRAME_CONTROL, "{\"start\":{\"pid\":-4}}", "{\"end\":{\"exited\":true}}"},
    {"badend", true, AV_FRAME_CONTROL, NULL, "{\"end\":{\"exitCode\":99999,\"exited\":true}}"},
    {"nojson", true, AV_FRAME_CONTROL, "hello", "{\"end\":{\"exited\":true}}"},
    {"newer", true, AV_FRAME_CONTROL, "{\"somethingNew\":{}}",
        "{\"end\":{\"exitCode\":0,\"exited\":true}}"},
    {"gap", true, AV_FRAME_CONTROL, "{\"gap\":{\"dropped\":12}}",
        "{\"end\":{\"exitCode\":0,\"exited\":true}}"},
};

static void run_script(struct stream *s, const struct script *p)
{
	if (p->start)
		control_frame(s, start_event);
	if (p->data)
		send_frame(s, p->channel, av_str_c(p->data));
	if (p->control)
		control_frame(s, p->control);
	(void)av_res_end(s->req);
}

static void begin(struct stream *s)
{
	static const struct av_http_header type = {
	    AV_STR("content-type"), AV_STR(AV_AGENT_CT_FRAMES)};

	if (strcmp(s->cmd, "status404") == 0) {
		(void)av_res_send(s->req, 404, NULL, 0,
		    AV_STR("{\"code\":\"not_found\",\"message\":\"no such process\"}"));
		return;
	}
	if (strcmp(s->cmd, "abort") == 0) {
		av_res_abort(s->req);
		return;
	}
	if (strcmp(s->cmd, "hang") == 0)
		return;
	(void)av_res_start(s->req, 200, &type, 1, -1);
	for (size_t i = 0; i < AV_ARRAY_LEN(scripts); i++)
		if (strcmp(scripts[i].cmd, s->cmd) == 0) {
			run_script(s, &scripts[i]);
			return;
		}
	if (strcmp(s->cmd, "huge") == 0) {
		control_frame(s, start_event);
		(void)av_res_write(s->req, av_str_n("\x7f\xff\xff\xff\x02", 5));
		return;
	}
	control_frame(s, start_event);
	if (strcmp(s->cmd, "flood") == 0) {
		s->flood_left = 8 * 1024 * 1024;
		pump_flood(s);
	}
}

static int on_control(void *ctx, struct av_str payload)
{
	struct stream *s = ctx;
	AV_CLEANUP(av_json_decrefp) json_t *j = av_json_parse_object(payload, NULL);
	const char *cmd = json_string_value(json_object_get(json_object_get(j, "process"), "cmd"));

	if (s->begun) {
		/* Signals and sizes come back as output, for the test to look at. */
		send_frame(s, AV_FRAME_STDOUT, payload);
		return 0;
	}
	s->begun = true;
	(void)snprintf(s->cmd, sizeof(s->cmd), "%s", cmd ? cmd : "hello");
	begin(s);
	return 0;
}

static int on_input(void *ctx, enum av_frame_channel ch, const uint8_t *p, size_t n, bool last)
{
	struct stream *s = ctx;

	(void)last;
	s->got += n;
	if (strcmp(s->cmd, "cat") != 0)
		return 0;
	if (n) {
		send_frame(s, ch == AV_FRAME_PTY ? AV_FRAME_PTY : AV_FRAME_STDOUT,
		    av_str_n((const char *)p, n));
	} else {
		control_frame(s, "{\"end\":{\"exitCode\":0,\"exited\":true}}");
		(void)av_res_end(s->req);
	}
	return 0;
}

static void on_body(void *ctx, struct av_req *req, struct av_str data)
{
	static const struct av_frame_events events = {
	    .on_control = on_control, .on_data = on_input};
	struct stream *s = ctx;

	(void)req;
	if (av_frame_dec_feed(&s->dec, data.p, data.n, &events, s) < 0)
		ok(false, "the daemon sends good frames");
}

static void on_drain(void *ctx, struct av_req *req)
{
	(void)req;
	if (strcmp(((struct stream *)ctx)->cmd, "flood") == 0)
		pump_flood(ctx);
}

static void on_close(void *ctx, struct av_req *req, int status)
{
	struct stream *s = ctx;

	(void)req;
	(void)status;
	av_frame_dec_clear(&s->dec);
	free(s);
}

static const struct av_req_handler frames_handler = {
    .on_body = on_body, .on_drain = on_drain, .on_close = on_close};

static void serve_frames(struct av_req *req)
{
	struct stream *s = calloc(1, sizeof(*s));

	s->req = req;
	av_frame_dec_init(&s->dec);
	av_req_set_handler(req, &frames_handler, s);
	(void)av_req_body_start(req, UINT64_MAX);
}

static void on_init_body(void *ctx, struct av_req *req, struct av_str data)
{
	(void)ctx;
	(void)req;
	(void)snprintf(init_body, sizeof(init_body), "%.*s", AV_STR_ARG(data));
}

static void on_init_end(void *ctx, struct av_req *req)
{
	(void)ctx;
	(void)av_res_send(req, init_status, NULL, 0, AV_STR(""));
}

static const struct av_req_handler init_handler = {
    .on_body = on_init_body, .on_body_end = on_init_end};

static size_t sink_bytes;

static void on_sink(void *ctx, struct av_req *req, struct av_str data)
{
	(void)ctx;
	(void)req;
	sink_bytes += data.n;
}

static void on_sink_end(void *ctx, struct av_req *req)
{
	(void)ctx;
	(void)av_res_send_json(req, 200, AV_STR("[]"));
}

static const struct av_req_handler sink_handler = {.on_body = on_sink, .on_body_end = on_sink_end};

static const char *list_answer = "{\"processes\":[{\"config\":{\"cmd\":\"sh\",\"args\":[\"-c\"]},"
                                 "\"pid\":5,\"tag\":\"x\"}]}";

static void on_request(void *ctx, struct av_req *req)
{
	struct av_str path = av_req_path(req);

	(void)ctx;
	if (av_str_eq_c(path, AV_AGENT_PATH_INIT)) {
		inits++;
		av_req_set_handler(req, &init_handler, NULL);
		(void)av_req_body_start(req, 65536);
	} else if (av_str_eq_c(path, AV_AGENT_PATH_START) ||
	           av_str_eq_c(path, AV_AGENT_PATH_CONNECT)) {
		serve_frames(req);
	} else if (av_str_eq_c(path, AV_AGENT_PATH_LIST)) {
		(void)av_res_send_json(req, 200, av_str_c(list_answer));
	} else if (av_str_eq_c(path, AV_AGENT_PATH_SIGNAL)) {
		(void)av_res_send_json(req, 404,
		    AV_STR(
		        "{\"code\":\"not_found\",\"message\":\"process with pid 9 not found\"}"));
	} else if (av_str_eq_c(path, AV_AGENT_PATH_FILES) && av_req_has_body(req)) {
		av_req_set_handler(req, &sink_handler, NULL);
		(void)av_req_body_start(req, UINT64_MAX);
	} else if (av_str_eq_c(path, AV_AGENT_PATH_FILES)) {
		(void)av_res_send_json(
		    req, 404, AV_STR("{\"code\":404,\"message\":\"path '/x' does not exist\"}"));
	} else {
		(void)av_res_send(req, 200, NULL, 0, AV_STR("plain"));
	}
}

/* The node's end of a fresh connection. */
static int connect_agent(const char *id)
{
	int pair[2];

	(void)id;
	connections++;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -1;
	if (raw_garbage) {
		(void)!write(
		    pair[1], "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\nand more of it\n", 56);
		close(pair[1]);
	} else if (av_http_server_adopt(server, pair[1]) < 0) {
		return -1;
	}
	return pair[0];
}

/* ---- the node's side ---- */

static bool run_until(const bool *flag)
{
	int64_t end = av_mono_ns() + 10 * AV_NS_PER_S;

	while (!*flag && av_mono_ns() < end)
		av_loop_run_once(loop, 50);
	if (!*flag)
		ok(false, "it came to an end in time");
	return *flag;
}

static void run_for(int64_t ms)
{
	int64_t end = av_mono_ns() + ms * AV_NS_PER_MS;

	while (av_mono_ns() < end)
		av_loop_run_once(loop, 5);
}

struct seen {
	bool ended, started, drained;
	int calls;
	uint32_t pid;
	char tag[16];
	char text[512];
	size_t bytes, gap, frames, frame_bytes;
	bool has_end;
	struct node_exec_end end;
	struct av_err err;
	int status;
	struct node_exec *exec;
	bool cancel_on_output;
};

static void on_start(void *ctx, uint32_t pid, const char *tag)
{
	struct seen *s = ctx;

	s->started = true;
	s->pid = pid;
	(void)snprintf(s->tag, sizeof(s->tag), "%s", tag);
}

static void on_output(void *ctx, enum node_channel ch, struct av_str data)
{
	struct seen *s = ctx;
	size_t have = strlen(s->text);

	(void)ch;
	s->bytes += data.n;
	(void)snprintf(s->text + have, sizeof(s->text) - have, "%.*s", AV_STR_ARG(data));
	if (s->cancel_on_output)
		node_exec_cancel(s->exec);
}

static void on_gap(void *ctx, uint64_t dropped)
{
	((struct seen *)ctx)->gap = dropped;
}

static void on_exec_drain(void *ctx)
{
	((struct seen *)ctx)->drained = true;
}

static void take(struct seen *s, const struct av_err *err)
{
	s->calls++;
	s->ended = true;
	if (err)
		s->err = *err;
}

static void on_exec_end(void *ctx, const struct node_exec_end *end, const struct av_err *err)
{
	struct seen *s = ctx;

	take(s, err);
	s->has_end = end != NULL;
	if (end)
		s->end = *end;
}

static bool frames_say_oom;

static void on_frame(void *ctx, struct av_str header, struct av_str payload)
{
	struct seen *s = ctx;

	if (memmem(payload.p, payload.n, "oomKilled", 9))
		frames_say_oom = true;

	s->frames++;
	s->frame_bytes += header.n + payload.n;
	if (header.n != 5 || av_get_be32(header.p) != payload.n)
		ok(false, "each frame is whole");
}

static const struct node_exec_events exec_events = {
    .on_start = on_start,
    .on_output = on_output,
    .on_gap = on_gap,
    .on_drain = on_exec_drain,
    .on_end = on_exec_end,
};
static const struct node_exec_events raw_events = {.on_frame = on_frame, .on_end = on_exec_end};

static struct seen run(const char *cmd)
{
	struct seen s = {0};
	struct node_exec_spec spec = {.cmd = cmd, .tag = "t"};

	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, &s.err) < 0)
		s.ended = true;
	(void)run_until(&s.ended);
	return s;
}

static void test_exec(void)
{
	struct seen s = run("hello");

	ok(s.has_end && s.end.exited && s.end.exit_code == 3, "an exit code arrives");
	is_str(s.text, "hello", "output arrives");
	ok(s.started && s.pid == 7 && strcmp(s.tag, "t") == 0, "the start says pid and tag");
	is_str(s.end.status, "exit status 3", "the status is for people");
	is_int(inits, 1, "the agent was configured first");
	ok(strstr(init_body, "\"X\":\"1\"") && strstr(init_body, "envVars"),
	    "with the environment: %s", init_body);
	s = run("killed");
	ok(!s.end.exited && s.end.signal == 9 && s.end.exit_code == 137 && s.end.core_dumped &&
	        s.end.timed_out,
	    "a kill arrives with all its flags");
	s = run("gap");
	is_int(s.gap, 12, "a gap is told");
	s = run("newer");
	ok(s.has_end, "events of newer agents are passed over");
	s = run("refused");
	ok(!s.has_end && s.err.kind == AV_ERR_NOT_FOUND && strstr(s.err.message, "no such cwd"),
	    "an error of the agent arrives");
	s = run("status404");
	ok(s.err.kind == AV_ERR_NOT_FOUND && strstr(s.err.message, "no such process"),
	    "an HTTP error too");
	is_int(connections, 1, "all over one connection");
	ok(activities > 0, "it counts as activity");
}

static void test_lies(void)
{
	static const char *const lies[] = {"cut", "nothing", "early", "twice", "input", "badpid",
	    "badend", "nojson", "huge", "abort"};

	for (size_t i = 0; i < AV_ARRAY_LEN(lies); i++) {
		struct seen s = run(lies[i]);

		ok(!s.has_end && s.err.kind == AV_ERR_AGENT && s.calls == 1, "%s: %s", lies[i],
		    s.err.message);
	}
	ok(run("hello").has_end, "honest streams still work");
}

static void test_input(void)
{
	struct seen s = {0};
	struct node_exec_spec spec = {.cmd = "cat", .stdin_open = true};
	static char big[300000];
	bool more = true, any_full = false;

	memset(big, 'x', sizeof(big));
	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL) < 0)
		abort();
	for (int i = 0; i < 8; i++) {
		more = node_exec_send(s.exec, NODE_CH_STDIN, av_str_n(big, sizeof(big)));
		any_full = any_full || !more;
	}
	ok(any_full, "a full queue says stop");
	(void)run_until(&s.drained);
	ok(node_exec_close_stdin(s.exec), "after on_drain there is room");
	(void)run_until(&s.ended);
	is_int(s.bytes, 8 * sizeof(big), "every byte comes back");

	memset(&s, 0, sizeof(s));
	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL) < 0)
		abort();
	(void)run_until(&s.started);
	(void)node_exec_resize(s.exec, 132, 50);
	(void)node_exec_signal(s.exec, SIGTERM, true);
	(void)node_exec_close_stdin(s.exec);
	(void)run_until(&s.ended);
	is_str(s.text,
	    "{\"resize\":{\"cols\":132,\"rows\":50}}{\"signal\":\"SIGTERM\",\"scope\":\"group\"}",
	    "sizes and signals are sent");
}

static void test_raw(void)
{
	struct seen s = {0};
	struct av_buf b = AV_BUF_INIT(1024);
	bool more;

	if (node_exec_open_raw(sandbox, AV_STR("{\"process\":{\"cmd\":\"cat\"}}"), &raw_events, &s,
	        &s.exec, NULL) < 0)
		abort();
	frame(&b, AV_FRAME_STDIN, AV_STR("abc"));
	frame(&b, AV_FRAME_STDIN, AV_STR(""));
	is_int(node_exec_send_frames(s.exec, av_str_n("\0\0\0\5\1ab", 7), &more), -EINVAL,
	    "half a frame is refused");
	is_int(node_exec_send_frames(s.exec, av_str_n("\0\0\0\1\2a", 6), &more), -EINVAL,
	    "a frame of the agent's own channels too");
	is_int(node_exec_send_frames(s.exec, av_str_n("\xff\xff\xff\xff\1a", 6), &more), -EINVAL,
	    "and one that is too long");
	is_int(node_exec_send_frames(s.exec, av_buf_str(&b), &more), 0, "whole ones pass");
	(void)run_until(&s.ended);
	ok(s.has_end && s.frames == 3, "start, data and end come as frames");
	ok(node_exec_open_raw(sandbox, AV_STR("[]"), &raw_events, &s, &s.exec, &s.err) < 0 &&
	        s.err.kind == AV_ERR_INVALID,
	    "a first frame that is no object is refused");
	ok(node_exec_open_raw(
	       sandbox, AV_STR("{\"process\":{}}"), &raw_events, &s, &s.exec, &s.err) < 0,
	    "and one without a command");
	memset(&s, 0, sizeof(s));
	is_int(node_exec_open_raw(sandbox,
	           AV_STR("{\"connect\":{\"process\":{\"pid\":7}},\"replay\":true}"), &raw_events,
	           &s, &s.exec, NULL),
	    0, "a connect passes");
	(void)run_until(&s.ended);
	av_buf_clear(&b);
}

static void test_backpressure(void)
{
	struct seen s = {0};
	struct node_exec_spec spec = {.cmd = "flood"};
	size_t held;

	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL) < 0)
		abort();
	node_exec_pause(s.exec, true);
	run_for(200);
	held = s.bytes;
	ok(held <= 300 * 1024, "a paused reader gets no more than the window (%zu bytes)", held);
	run_for(50);
	is_int(s.bytes, held, "and then nothing");
	ok(run("hello").has_end, "others are not held up by it");
	node_exec_pause(s.exec, false);
	(void)run_until(&s.ended);
	is_int(s.bytes, 8 * 1024 * 1024, "then everything");
}

static void test_cancel(void)
{
	struct seen s = {0};
	struct node_exec_spec spec = {.cmd = "hang"};

	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL) < 0)
		abort();
	run_for(20);
	is_int(node_sandbox_busy(sandbox), 1, "an open conversation keeps the sandbox busy");
	node_exec_cancel(s.exec);
	is_int(node_sandbox_busy(sandbox), 0, "until it is cancelled");
	spec.cmd = "flood";
	s.cancel_on_output = true;
	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL) < 0)
		abort();
	run_for(100);
	ok(s.bytes > 0 && s.bytes <= 65536 && s.calls == 0,
	    "cancelling inside a callback ends it there");
}

static void on_result(void *ctx, const struct node_exec_result *r, const struct av_err *err)
{
	struct seen *s = ctx;

	take(s, err);
	if (r) {
		s->end = r->end;
		s->has_end = true;
		s->bytes = r->out.n;
		s->gap = r->out_truncated;
		(void)snprintf(s->text, sizeof(s->text), "%.*s", AV_STR_ARG(r->out));
	}
}

static void on_started(void *ctx, uint32_t pid, const char *tag, const struct av_err *err)
{
	struct seen *s = ctx;

	(void)tag;
	take(s, err);
	s->pid = pid;
}

static void test_collect(void)
{
	struct node_exec_spec spec = {.cmd = "hello"};
	struct node_call *call = NULL;
	struct seen s = {0};

	(void)node_exec_collect(sandbox, &spec, on_result, &s, NULL, NULL);
	(void)run_until(&s.ended);
	ok(s.has_end && s.end.exit_code == 3 && strcmp(s.text, "hello") == 0,
	    "an exec is collected");
	memset(&s, 0, sizeof(s));
	spec.cmd = "flood";
	(void)node_exec_collect(sandbox, &spec, on_result, &s, NULL, NULL);
	(void)run_until(&s.ended);
	ok(s.bytes == 1024 * 1024 && s.gap, "what is over the limit is dropped and said");
	memset(&s, 0, sizeof(s));
	spec.cmd = "hang";
	(void)node_exec_collect(sandbox, &spec, on_result, &s, &call, NULL);
	run_for(20);
	node_call_cancel(call);
	run_for(20);
	is_int(s.calls, 0, "a cancelled one is silent");
	spec.cmd = "cat";
	(void)node_exec_background(sandbox, &spec, on_started, &s, NULL, NULL);
	(void)run_until(&s.ended);
	is_int(s.pid, 7, "a background process answers when it runs");
	memset(&s, 0, sizeof(s));
	spec.cmd = "refused";
	(void)node_exec_background(sandbox, &spec, on_started, &s, NULL, NULL);
	(void)run_until(&s.ended);
	is_int(s.err.kind, AV_ERR_NOT_FOUND, "or says why not");
	spec.cmd = NULL;
	ok(node_exec_collect(sandbox, &spec, on_result, &s, NULL, &s.err) < 0 &&
	        s.err.kind == AV_ERR_INVALID,
	    "no command, no exec");
}

static void on_processes(
    void *ctx, const struct node_process *v, size_t n, const struct av_err *err)
{
	struct seen *s = ctx;

	take(s, err);
	s->bytes = n;
	if (n) {
		s->pid = v[0].pid;
		(void)snprintf(s->text, sizeof(s->text), "%s %s", v[0].cmd, v[0].tag);
	}
}

static void on_done(void *ctx, const struct av_err *err)
{
	take(ctx, err);
}

static void test_calls(void)
{
	static const char *const bad[] = {"[]", "{\"processes\":7}", "{\"processes\":[7]}",
	    "{\"processes\":[{\"pid\":0,\"config\":{\"cmd\":\"a\"}}]}",
	    "{\"processes\":[{\"pid\":4,\"config\":{\"cmd\":\"a\",\"args\":5}}]}", "", "{"};
	struct seen s = {0};

	(void)node_processes(sandbox, on_processes, &s, NULL, NULL);
	(void)run_until(&s.ended);
	ok(s.bytes == 1 && s.pid == 5 && strcmp(s.text, "sh x") == 0, "processes are listed");
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++) {
		memset(&s, 0, sizeof(s));
		list_answer = bad[i];
		(void)node_processes(sandbox, on_processes, &s, NULL, NULL);
		(void)run_until(&s.ended);
		ok(s.err.kind == AV_ERR_AGENT && s.calls == 1, "%s: %s", bad[i], s.err.message);
	}
	memset(&s, 0, sizeof(s));
	(void)node_process_signal(
	    sandbox, &(struct node_selector){.pid = 9}, SIGKILL, on_done, &s, NULL, NULL);
	(void)run_until(&s.ended);
	is_int(s.err.kind, AV_ERR_NOT_FOUND, "a signal to nobody: not found");
	ok(node_process_signal(
	       sandbox, &(struct node_selector){.pid = 9}, SIGUSR1, on_done, &s, NULL, &s.err) < 0,
	    "other signals are refused");
}

static void on_head(void *ctx, int status, const struct node_header *h, size_t n)
{
	(void)h;
	(void)n;
	((struct seen *)ctx)->status = status;
}

static void on_stream_data(void *ctx, struct av_str data)
{
	((struct seen *)ctx)->bytes += data.n;
}

static void on_stream_end(void *ctx, const struct av_err *err)
{
	take(ctx, err);
}

static void test_streams(void)
{
	static const struct node_stream_events ev = {.on_head = on_head,
	    .on_data = on_stream_data,
	    .on_drain = on_exec_drain,
	    .on_end = on_stream_end};
	struct node_stream_request rq = {
	    .method = "GET", .path = AV_STR("/files?path=/x"), .map_errors = true};
	struct node_stream *st = NULL;
	static char block[65536];
	struct seen s = {0};

	(void)node_stream_open(sandbox, &rq, &ev, &s, &st, NULL);
	(void)run_until(&s.ended);
	ok(s.err.kind == AV_ERR_NOT_FOUND && strstr(s.err.message, "does not exist") && !s.status,
	    "a missing file is not found");
	memset(&s, 0, sizeof(s));
	rq.map_errors = false;
	(void)node_stream_open(sandbox, &rq, &ev, &s, &st, NULL);
	(void)run_until(&s.ended);
	ok(s.err.kind == 0 && s.status == 404 && s.bytes > 0,
	    "unmapped, the answer passes through");
	memset(&s, 0, sizeof(s));
	rq.method = "POST";
	rq.has_body = true;
	(void)node_stream_open(sandbox, &rq, &ev, &s, &st, NULL);
	for (int i = 0; i < 64; i++)
		if (!node_stream_send(st, av_str_n(block, sizeof(block)))) {
			s.drained = false;
			(void)run_until(&s.drained);
		}
	node_stream_finish(st);
	(void)run_until(&s.ended);
	ok(s.status == 200 && sink_bytes == 64 * sizeof(block), "a body is streamed");
	rq.path = av_str_n(block, sizeof(block));
	ok(node_stream_open(sandbox, &rq, &ev, &s, &st, &s.err) < 0, "a path too long is refused");
}

/* ---- connections and deaths ---- */

static bool died;
static enum node_death death;

static void on_death(void *ctx, const char *id, enum node_death why, const char *detail)
{
	(void)ctx;
	(void)id;
	(void)detail;
	died = true;
	death = why;
}

static void on_activity(void *ctx, const char *id)
{
	(void)ctx;
	(void)id;
	activities++;
}

static void on_ready(void *ctx)
{
	(void)ctx;
}

static uint64_t oom_kills, oom_more;

static void on_oom(void *ctx, const char *id, uint64_t kills, uint64_t more)
{
	(void)ctx;
	(void)id;
	oom_kills = kills;
	oom_more = more;
}

static const struct node_events node_events = {
    .on_death = on_death, .on_activity = on_activity, .on_oom = on_oom, .on_ready = on_ready};

static bool made;

static void on_sandbox(
    void *ctx, struct node_sandbox *sb, const struct driver_evidence *ev, const struct av_err *err)
{
	(void)ctx;
	(void)ev;
	made = true;
	sandbox = sb;
	if (err)
		diag("%s", err->message);
}

static void make_sandbox(void)
{
	struct driver_spec spec = {.memory_bytes = 1};

	made = false;
	av_id_make(spec.id, AV_ID_SANDBOX);
	(void)node_create(node, &spec, &(struct node_agent_config){.envs_json = "{\"X\":\"1\"}"},
	    on_sandbox, NULL);
	(void)run_until(&made);
	ok(sandbox != NULL, "a sandbox is made");
}

static struct fake_box *box_of(const struct node_sandbox *sb)
{
	for (struct av_list *n = machine.boxes.next; n != &machine.boxes; n = n->next) {
		struct fake_box *b = AV_CONTAINER_OF(n, struct fake_box, link);

		if (node_find(node, b->id) == sb)
			return b;
	}
	abort();
}

/* Opens it, then the kernel kills so many more, then the process ends as the script says. */
static struct seen run_oom(const char *cmd, uint64_t kills)
{
	struct seen s = {0};
	struct node_exec_spec spec = {.cmd = cmd, .tag = "t"};

	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, &s.err) < 0)
		abort();
	box_of(sandbox)->oom_kills += kills;
	(void)run_until(&s.ended);
	return s;
}

static void test_oom(void)
{
	struct node_exec_spec spec = {.cmd = "sigkill"};
	struct seen s = {0};

	ok(!run_oom("sigkill", 0).end.oom_killed, "a kill alone is no OOM kill");
	s = run_oom("sigkill", 2);
	ok(s.end.oom_killed && s.end.signal == 9 && s.calls == 1, "an OOM kill is told");
	ok(oom_kills == 2 && oom_more == 2, "and the node's owner hears of it");
	ok(!run_oom("sigkill", 0).end.oom_killed, "the next kill is none again");
	ok(run_oom("child", 1).end.oom_killed, "exit status 137 is a kill too");
	ok(oom_kills == 3 && oom_more == 1, "with what is new");
	ok(!run_oom("hello", 1).end.oom_killed, "who ended by itself was not killed");
	(void)run_oom("sigkill", 0);
	is_int(oom_kills, 4, "what others noticed late");

	memset(&s, 0, sizeof(s));
	(void)node_exec_open_raw(
	    sandbox, AV_STR("{\"process\":{\"cmd\":\"sigkill\"}}"), &raw_events, &s, &s.exec, NULL);
	box_of(sandbox)->oom_kills++;
	(void)run_until(&s.ended);
	ok(s.has_end && s.end.oom_killed && frames_say_oom, "the end frame says it");

	machine.hold = true;
	memset(&s, 0, sizeof(s));
	(void)node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL);
	run_for(300);
	is_int(s.calls, 0, "the end waits for the machine's answer");
	node_exec_cancel(s.exec);
	s = run_oom("sigkill", 1);
	ok(s.has_end && !s.end.oom_killed, "but not for long");
	machine.hold = false;
	av_timer_start(&driver->timer, 0);
	run_for(50);
	is_int(s.calls, 1, "late answers are for nobody");
	is_int(oom_kills, 6, "but are news");
}

static bool froze;

static void on_freezer(void *ctx, const struct av_err *err)
{
	froze = true;
	*(enum av_err_kind *)ctx = err ? err->kind : AV_ERR_NONE;
}

static enum av_err_kind freezer(int (*fn)(struct node *, const char *, node_done_fn *, void *))
{
	enum av_err_kind kind = AV_ERR_NONE;

	froze = false;
	(void)fn(node, box_of(sandbox)->id, on_freezer, &kind);
	(void)run_until(&froze);
	return kind;
}

static void on_count(void *ctx, size_t n, const struct av_err *err)
{
	struct seen *s = ctx;

	take(s, err);
	s->bytes = n;
}

static void test_freeze(void)
{
	struct node_exec_spec spec = {.cmd = "hang", .timeout_ms = 1};
	struct seen s = {0}, count = {0};
	struct av_err why;
	int before = activities;

	make_sandbox();
	machine.fail_freeze = AV_ERR_UNAVAILABLE;
	is_int(freezer(node_freeze), AV_ERR_UNAVAILABLE, "a freeze may fail");
	machine.fail_freeze = AV_ERR_NONE;
	is_int(freezer(node_freeze), AV_ERR_NONE, "or not");
	ok(box_of(sandbox)->frozen, "the driver froze it");
	(void)node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL);
	(void)av_err_set(&why, AV_ERR_NO_SPACE, "no thaw today");
	node_fail_waiting(sandbox, &why);
	is_int(s.calls, 0, "nobody is called from inside");
	(void)run_until(&s.ended);
	is_int(s.err.kind, AV_ERR_NO_SPACE, "who waits for a thaw hears that there is none");
	is_int(freezer(node_thaw), AV_ERR_NONE, "thawed");
	ok(!box_of(sandbox)->frozen, "the driver thawed it");
	memset(&s, 0, sizeof(s));
	(void)node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL);
	node_fail_waiting(sandbox, &why);
	run_for(20);
	is_int(s.calls, 0, "who waits for no thaw is left alone");
	node_exec_cancel(s.exec);

	list_answer = "{\"processes\":[{\"pid\":5,\"config\":{\"cmd\":\"a\"}}]}";
	run_for(1100);
	before = activities;
	(void)node_count_processes(sandbox, on_count, &count, NULL, NULL);
	is_int(node_sandbox_busy(sandbox), 0, "a count keeps nothing busy");
	(void)run_until(&count.ended);
	ok(count.bytes == 1 && count.err.kind == AV_ERR_NONE, "processes are counted");
	is_int(activities, before, "and is no activity");
}

static void test_hostile_connections(void)
{
	struct seen s;

	raw_garbage = true;
	make_sandbox();
	s = run("hello");
	raw_garbage = false;
	ok(s.err.kind == AV_ERR_AGENT, "an agent that speaks no HTTP/2: %s", s.err.message);
	ok(run("hello").has_end, "the next connection is tried afresh");
	init_status = 400;
	make_sandbox();
	s = run("hang");
	init_status = 204;
	ok(s.err.kind == AV_ERR_AGENT && s.calls == 1, "one that refuses its configuration: %s",
	    s.err.message);
}

static void test_death(void)
{
	struct node_exec_spec spec = {.cmd = "hang"};
	struct seen s = {0};
	char id[AV_ID_SIZE];

	make_sandbox();
	(void)node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL);
	for (struct av_list *n = machine.boxes.next; n != &machine.boxes; n = n->next) {
		struct fake_box *b = AV_CONTAINER_OF(n, struct fake_box, link);

		if (node_find(node, b->id) == sandbox) {
			memcpy(id, b->id, AV_ID_SIZE);
			b->oom_kills = 1;
			(void)kill(b->pid, SIGKILL);
		}
	}
	(void)run_until(&died);
	is_int(death, NODE_DEATH_OOM, "a death comes with its reason");
	ok(s.calls == 1 && s.err.kind == AV_ERR_INVALID_STATE && strstr(s.err.message, "memory"),
	    "and so do its conversations: %s", s.err.message);
	ok(node_find(node, id) == NULL, "it is gone from the node");
}

static void set_flag(void *ctx)
{
	bool *flag = ctx;

	*flag = true;
}

int main(void)
{
	const struct av_http_server_config config = {.on_request = on_request};
	struct node_config nc = {.collect_max = 1024 * 1024};
	struct node_exec_spec spec = {.cmd = "hang"};
	struct seen s = {0};
	bool closed = false;

	if (av_loop_new(&loop) < 0 || av_http_server_new(loop, &config, &server) < 0)
		return 1;
	fake_machine_init(&machine, "boot");
	driver = fake_driver_new(loop, &machine);
	driver->connect = connect_agent;
	nc.loop = loop;
	nc.driver = &driver->base;
	if (node_new(&nc, &node, NULL) < 0)
		return 1;
	node_set_events(node, &node_events, NULL);
	make_sandbox();
	test_exec();
	test_lies();
	test_input();
	test_raw();
	test_oom();
	test_backpressure();
	test_cancel();
	test_collect();
	test_calls();
	test_streams();
	test_freeze();
	test_hostile_connections();
	test_death();
	make_sandbox();
	(void)node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL);
	run_for(20);
	node_close(node, set_flag, &closed);
	(void)run_until(&closed);
	ok(s.calls == 1 && s.err.kind == AV_ERR_UNAVAILABLE &&
	        strstr(s.err.message, "shutting down"),
	    "closing ends conversations and says so: %s", s.err.message);
	ok(!av_list_empty(&machine.boxes), "and leaves sandboxes running");
	av_http_server_free(server);
	fake_machine_clear(&machine);
	av_loop_free(loop);
	return tap_done();
}
