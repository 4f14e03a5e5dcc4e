/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream_input.c - the client-streaming RPC StreamInput: one process, any number of inputs
 *
 * Theory of operation
 *
 * The request is a sequence of Connect envelopes: {"start":{"process":selector}} first, then
 * {"data":{"input":...}} and {"keepalive":{}} in any number. The answer, one empty message, comes
 * after the client's end, when the process has taken everything; an error comes at once. Input
 * stays open afterwards.
 *
 * Backpressure: the client's window opens only while no input waits for the process, so at most one
 * window and one message (MESSAGE_MAX) are held.
 *
 * The process may be forgotten while the stream goes on, and its pid be another's then. A reader
 * that never reads (process_sub, not following, always full) hears of it.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/handlers.h"
#include "agent/process_rpc.h"
#include "base/json.h"

#include "base/banned.h"

#define MESSAGE_MAX ((size_t)4 * 1024 * 1024)

struct input_stream {
	struct request *rq;
	struct av_connect_dec dec;
	struct process_sub sub; /* of the process, once it is selected */
	bool started;           /* it was */
	bool feeding;           /* on the stack: failures are told when it returns */
	bool ended;             /* the client's side */
	bool gone;              /* the process takes no more */
	size_t waiting;         /* inputs the process has not taken */
	size_t owed;            /* bytes not given back to the window */
};

static void on_forgotten(struct process_sub *sub, const struct process_end *end)
{
	(void)sub;
	(void)end;
}

static void on_output(struct process_sub *sub, uint8_t channel, const char *p, size_t n)
{
	(void)sub;
	(void)channel;
	(void)p;
	(void)n;
}

static const struct process_sub_ops sub_ops = {.on_output = on_output, .on_end = on_forgotten};

static void input_free(struct input_stream *in)
{
	if (in->sub.process) {
		process_forget_writer(in->sub.process, in);
		process_detach(&in->sub);
	}
	av_connect_dec_clear(&in->dec);
	free(in);
}

/* Ends the stream: with the empty answer when code is OK. in is gone. */
static void answer(struct input_stream *in, enum av_connect_code code, const char *message)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(8192);
	struct request *rq = in->rq;
	int r = code == AV_CONNECT_OK ? av_connect_write(&out, 0, AV_STR("{}")) : 0;

	if (r == 0)
		r = av_connect_write_end(&out, code, av_str_c(message));
	input_free(in);
	if (r < 0)
		request_reset(rq, AV_HTTP2_INTERNAL_ERROR);
	else
		request_reply(rq, 200, AV_AGENT_CT_CONNECT, av_buf_str(&out));
}

/* What follows from the state; in may be gone afterwards. */
static void proceed(struct input_stream *in)
{
	if (in->gone) {
		answer(in, AV_CONNECT_INTERNAL,
		    "the process has ended, or its stdin is not open (start it with stdin: true)");
		return;
	}
	if (in->waiting)
		return;
	request_consume(in->rq, in->owed);
	in->owed = 0;
	if (in->ended)
		answer(in, AV_CONNECT_OK, "");
}

static void on_written(void *ctx, size_t n, int status)
{
	struct input_stream *in = ctx;

	(void)n;
	in->waiting--;
	in->gone = in->gone || status < 0;
	if (!in->feeding)
		proceed(in);
}

/* --- messages --- */

static int take_start(struct input_stream *in, const json_t *start, struct av_err *err)
{
	struct process *p = NULL;
	int r;

	if (in->started)
		return av_err_set(err, AV_ERR_INVALID, "the process was selected before");
	if ((r = process_rpc_select(in->rq->agent, start, &p, err)) < 0)
		return r;
	if (!process_is_live(p))
		return av_err_set(
		    err, AV_ERR_NOT_FOUND, "process with pid %d not found", (int)process_pid(p));
	in->started = true;
	process_attach(p, &in->sub);
	return 0;
}

static int take_data(struct input_stream *in, const json_t *data, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf bytes = AV_BUF_INIT(MESSAGE_MAX);
	struct process *p = in->sub.process;
	int r;

	if (!in->started)
		return av_err_set(err, AV_ERR_INVALID,
		    "the first message must select the process: "
		    "{\"start\":{\"process\":{\"pid\":1}}}");
	if (!p) {
		in->gone = true;
		return 0;
	}
	if ((r = process_rpc_input(data, p, &bytes, err)) < 0)
		return r;
	in->waiting++;
	if (process_write(p, av_buf_str(&bytes).p, bytes.n, on_written, in) < 0) {
		in->waiting--;
		in->gone = true;
	}
	return 0;
}

static int take_message(struct input_stream *in, struct av_str text, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = av_json_parse_object(text, err);
	const json_t *v = NULL;
	int r;

	if (!j)
		return -EINVAL;
	if ((r = av_json_get_object(j, "start", &v, err)) < 0)
		return r;
	if (v)
		return take_start(in, v, err);
	if ((r = av_json_get_object(j, "data", &v, err)) < 0)
		return r;
	if (v)
		return take_data(in, v, err);
	if ((r = av_json_get_object(j, "keepalive", &v, err)) < 0 || v)
		return r;
	return av_err_set(err, AV_ERR_INVALID, "a message has one of start, data and keepalive");
}

struct feeding {
	struct input_stream *in;
	struct av_err *err;
	bool failed; /* err is set */
};

static int on_message(void *ctx, bool end, struct av_str payload)
{
	struct feeding *f = ctx;

	/* The end of a request is the end of its body; an envelope that says so is no message. */
	if (end || f->in->gone)
		return 0;
	f->failed = take_message(f->in, payload, f->err) < 0;
	return f->failed ? 1 : 0;
}

/* --- the request --- */

static void input_body(struct request *rq, const uint8_t *p, size_t n)
{
	struct input_stream *in = rq->data;
	struct av_err err = {0};
	struct feeding f = {.in = in, .err = &err};
	ssize_t r;

	in->owed += n;
	in->feeding = true;
	r = av_connect_dec_feed(&in->dec, p, n, on_message, &f);
	in->feeding = false;
	if (f.failed)
		answer(in, av_connect_code_from_err(err.kind), err.message);
	else if (r == -EMSGSIZE)
		answer(in, AV_CONNECT_INVALID_ARGUMENT, "a message is larger than 4 MiB");
	else if (r == -ENOMEM)
		answer(in, AV_CONNECT_RESOURCE_EXHAUSTED, "out of memory in the sandbox's agent");
	else if (r < 0)
		answer(in, AV_CONNECT_INVALID_ARGUMENT,
		    "the request is not a sequence of Connect envelopes");
	else
		proceed(in);
}

static void input_end(struct request *rq)
{
	struct input_stream *in = rq->data;

	in->ended = true;
	if (!av_connect_dec_idle(&in->dec))
		answer(in, AV_CONNECT_INVALID_ARGUMENT, "the request ends within a message");
	else if (!in->started)
		answer(in, AV_CONNECT_INVALID_ARGUMENT, "the request has no start message");
	else
		proceed(in);
}

static void input_close(struct request *rq, uint32_t error)
{
	(void)error;
	input_free(rq->data);
}

static const struct request_ops input_ops = {
    .on_body = input_body, .on_end = input_end, .on_close = input_close};

void stream_input(struct request *rq)
{
	const struct av_str *type = av_http_head_get(&rq->head, "content-type");
	struct av_str media = type ? av_http_media_type(*type) : AV_STR("");
	struct input_stream *in;

	if (!av_str_ieq(media, av_str_c(AV_AGENT_CT_CONNECT))) {
		request_fail(rq, 415, "content type '%.*s' is not served here; use %s",
		    AV_STR_ARG(media), AV_AGENT_CT_CONNECT);
		return;
	}
	in = calloc(1, sizeof(*in));
	if (!in) {
		request_fail(rq, 503, "out of memory in the sandbox's agent");
		return;
	}
	in->rq = rq;
	in->sub.ops = &sub_ops;
	av_list_init(&in->sub.node);
	av_connect_dec_init(&in->dec, MESSAGE_MAX);
	rq->data = in;
	rq->ops = &input_ops;
}
