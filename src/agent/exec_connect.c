/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec_connect.c - Start and Connect in Connect JSON: envelopes, output as base64
 */
#include <errno.h>

#include "agent/exec.h"
#include "base/codec.h"
#include "base/json.h"
#include "proto/agent_api.h"

#include "base/banned.h"

#define EVENT_MAX ((size_t)128 * 1024)

static void send_event(struct exec *e, const struct av_buf *json)
{
	uint8_t head[AV_CONNECT_HEADER];

	if (av_buf_error(json) < 0) {
		if (e->rq)
			request_reset(e->rq, AV_HTTP2_INTERNAL_ERROR);
		return;
	}
	av_connect_header(head, 0, (uint32_t)json->n);
	exec_send(e, head, sizeof(head));
	exec_send(e, av_buf_str(json).p, json->n);
}

static void send_end_of_stream(struct exec *e, enum av_connect_code code, const char *message)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(EVENT_MAX);

	if (av_connect_write_end(&out, code, av_str_c(message)) == 0)
		exec_send(e, av_buf_str(&out).p, out.n);
}

static void send_pid(struct exec *e, pid_t pid)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(EVENT_MAX);

	av_buf_printf(&out, "{\"event\":{\"start\":{\"pid\":%d}}}", (int)pid);
	send_event(e, &out);
}

static void connect_start(struct exec *e, const struct process *p)
{
	send_pid(e, process_pid(p));
}

static void connect_output(struct exec *e, uint8_t channel, const char *p, size_t n)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(EVENT_MAX);
	const char *name = channel == PROCESS_STDOUT   ? "stdout"
	                   : channel == PROCESS_STDERR ? "stderr"
	                                               : "pty";

	av_buf_printf(&out, "{\"event\":{\"data\":{\"%s\":\"", name);
	av_base64_encode(&out, p, n);
	av_buf_append_c(&out, "\"}}}");
	send_event(e, &out);
}

/* This dialect has no replay, so there are no gaps to tell. */
static void connect_gap(struct exec *e, uint64_t dropped)
{
	(void)e;
	(void)dropped;
}

static void connect_keepalive(struct exec *e)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(EVENT_MAX);

	av_buf_append_c(&out, "{\"event\":{\"keepalive\":{}}}");
	send_event(e, &out);
}

static void send_end_event(struct exec *e, bool exited, int exit_code, const char *status)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(EVENT_MAX);

	av_buf_printf(&out, "{\"event\":{\"end\":{\"exitCode\":%d,\"exited\":%s,\"status\":\"%s\"",
	    exit_code, exited ? "true" : "false", status);
	if (exit_code != 0)
		av_buf_printf(&out, ",\"error\":\"%s\"", status);
	av_buf_append_c(&out, "}}}");
	send_event(e, &out);
	send_end_of_stream(e, AV_CONNECT_OK, "");
}

static void connect_end(struct exec *e, const struct process_end *end)
{
	if (end && end->timed_out)
		send_end_of_stream(e, AV_CONNECT_DEADLINE_EXCEEDED,
		    "the process ran longer than its time-out and was killed");
	else if (end)
		send_end_event(e, end->exited, end->exited ? end->exit_code : -1, end->status);
	else
		send_end_of_stream(e, AV_CONNECT_OK, "");
}

/* E2B starts programs through a shell, so there a missing one is a process that ends with 127 and
 * says so on stderr; its clients expect that. */
static void connect_error(
    struct exec *e, const struct av_err *err, const struct spawn_failure *failure)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(sizeof(err->message) + 1);
	char status[32];

	if (!failure || failure->exit_code == 125) {
		send_end_of_stream(e, av_connect_code_from_err(err->kind), err->message);
		return;
	}
	send_pid(e, failure->pid);
	av_buf_printf(&text, "%s\n", err->message);
	connect_output(e, PROCESS_STDERR, av_buf_str(&text).p, text.n);
	snprintf(status, sizeof(status), "exit status %d", failure->exit_code);
	send_end_event(e, true, failure->exit_code, status);
}

/* One message counts; clients of a server stream send no others. */
static int on_message(void *ctx, bool end, struct av_str payload)
{
	struct exec *e = ctx;

	if (!end && !e->opened)
		exec_first_message(e, payload);
	return 0;
}

static int connect_feed(struct exec *e, const uint8_t *p, size_t n, struct av_err *err)
{
	ssize_t r = av_connect_dec_feed(&e->dec.connect, p, n, on_message, e);

	if (r == -EMSGSIZE)
		return av_err_set(err, AV_ERR_TOO_LARGE,
		    "the request's message is larger than %zu bytes", e->dec.connect.max);
	if (r < 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "the request is not a sequence of Connect envelopes");
	return 0;
}

static bool connect_idle(const struct exec *e)
{
	return av_connect_dec_idle(&e->dec.connect);
}

const struct exec_codec exec_codec_connect = {
    .content_type = AV_AGENT_CT_CONNECT,
    .start = connect_start,
    .output = connect_output,
    .gap = connect_gap,
    .keepalive = connect_keepalive,
    .end = connect_end,
    .error = connect_error,
    .feed = connect_feed,
    .idle = connect_idle,
};
