/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node_calls.c - calls and streams to agents
 */
#include "node_world.h"

#include "node/main_log.h"

#include <signal.h>

#include "lib/tap.h"
#include "base/banned.h"

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

/* ---- main commands: what an agent may say of them ---- */

struct log_seen {
	struct seen seen;
	size_t entries, most; /* most: then no more is wanted */
	bool end;
};

static bool on_log_entry(void *ctx, const struct av_mainlog_entry *e)
{
	struct log_seen *s = ctx;

	s->entries++;
	s->end = e->kind == AV_MAINLOG_END;
	return !s->most || s->entries < s->most;
}

static void on_log_end(void *ctx, const struct av_err *err)
{
	take(&((struct log_seen *)ctx)->seen, err);
}

/* The log that the agent answers with; once, and never again after its end. */
static struct log_seen read_log(struct av_str answer, size_t most)
{
	static const struct node_main_log_events ev = {
	    .on_entry = on_log_entry, .on_end = on_log_end};
	const struct node_main_log_query q = {.tail = UINT64_MAX, .since_us = INT64_MIN};
	struct log_seen s = {.most = most};
	struct node_main_log *l = NULL;

	log_answer = answer;
	if (node_main_log_open(sandbox, &q, &ev, &s, &l, NULL) < 0)
		abort();
	(void)run_until(&s.seen.ended);
	run_for(20);
	if (s.seen.calls != 1)
		ok(false, "its end was told %d times", s.seen.calls);
	return s;
}

static void test_logs(void)
{
	static const size_t lines = 400000;
	const struct av_mainlog_entry line = {.kind = AV_MAINLOG_LINE,
	    .stream = AV_MAINLOG_OUT,
	    .time_us = 1,
	    .data = AV_STR("0123456789")};
	const struct av_mainlog_entry end = {.kind = AV_MAINLOG_END, .exit_code = 3};
	uint8_t bytes[AV_MAINLOG_SMALL_MAX];
	struct av_buf b = AV_BUF_INIT(64 << 20);
	struct log_seen s;

	for (size_t i = 0; i < lines; i++) {
		av_mainlog_put_head(bytes, &line);
		(void)av_buf_append(&b, bytes, AV_MAINLOG_HEAD);
		(void)av_buf_append_str(&b, line.data);
	}
	s = read_log(av_buf_str(&b), 0);
	ok(s.entries == lines && !s.seen.err.kind && !s.end, "many lines");
	s = read_log(av_buf_str(&b), 100);
	ok(s.entries == 100 && !s.seen.err.kind, "a flood is cut where nobody wants more");
	s = read_log(av_str_n(b.p, 3 * AV_MAINLOG_HEAD), 0);
	ok(s.seen.err.kind == AV_ERR_AGENT && strstr(s.seen.err.message, "in the middle"),
	    "one that ends in the middle");
	(void)av_buf_append(&b, bytes, av_mainlog_put_small(bytes, &end));
	(void)av_buf_append_c(&b, "more");
	s = read_log(av_buf_str(&b), 0);
	ok(s.entries == lines + 1 && s.seen.err.kind == AV_ERR_AGENT, "bytes behind the end");
	(void)av_buf_append(&b, bytes, sizeof(bytes));
	s = read_log(av_buf_str(&b), 0);
	ok(s.seen.err.kind == AV_ERR_AGENT, "and more of them");
	s = read_log(AV_STR("HTTP is not what this is, nor is it a log at all"), 0);
	ok(s.seen.err.kind == AV_ERR_AGENT && s.entries == 0, "garbage");
	log_status = 500;
	s = read_log(AV_STR("{\"message\":5}"), 0);
	ok(s.seen.err.kind == AV_ERR_AGENT && s.entries == 0, "an error that is none");
	log_status = 200;
	av_buf_clear(&b);
}

static void on_main_started(void *ctx, uint32_t pid, const struct av_err *err)
{
	struct seen *s = ctx;

	take(s, err);
	s->pid = pid;
}

static struct seen start_main(const char *answer)
{
	AV_CLEANUP(av_json_decrefp)
	json_t *main_json = json_pack("{s[ss]}", "command", "sleep", "1");
	struct node_call *call = NULL;
	struct seen s = {0};

	log_answer = av_str_c(answer);
	if (node_main_start(sandbox, main_json, 65536, on_main_started, &s, &call, NULL) < 0)
		abort();
	(void)run_until(&s.ended);
	return s;
}

static void test_main_start(void)
{
	static const char *const lies[] = {"{}", "{\"pid\":0}", "{\"pid\":-7}", "{\"pid\":\"x\"}",
	    "{\"pid\":99999999999}", "[1]", "x"};
	struct seen s = start_main("{\"state\":\"running\",\"pid\":17}");

	ok(s.pid == 17 && !s.err.kind && s.calls == 1, "a main command is started");
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		s = start_main(lies[i]);
		ok(s.err.kind == AV_ERR_AGENT && s.calls == 1, "a lie: %s", lies[i]);
	}
}

int main(void)
{
	world_open();
	test_logs();
	test_main_start();
	test_collect();
	test_calls();
	test_streams();
	world_close();
	return tap_done();
}
