/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - the streaming RPCs Start and Connect: one reader of one process
 *
 * Theory of operation
 *
 * A stream waits for its first message, which starts a process or selects one, and from then on is
 * a reader attached to it (process.h), in one of two codecs: Connect JSON for E2B's clients, binary
 * frames for ours. Errors are messages, never HTTP statuses. When the stream goes, the reader
 * detaches; the process lives on unless the client asked otherwise.
 *
 * Backpressure: output stops when REQUEST_HIGH_MARK bytes wait in the stream and goes on at
 * on_drain. Input bytes open the client's window again only when the process has taken them.
 *
 * States: waiting (opened false) → attached → finished (last message sent; the client may still
 * send, which is dropped) → closed. The struct outlives the stream until its timer is closed.
 */
#include "agent/exec.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/handlers.h"
#include "agent/process_rpc.h"
#include "base/json.h"
#include "base/num.h"

#include "base/banned.h"

#define CONNECT_MESSAGE_MAX ((size_t)4 * 1024 * 1024)
#define KEEPALIVE_DEFAULT_S 90
#define KEEPALIVE_MAX_S     86400
#define TIMEOUT_MAX_MS      (10ULL * 365 * 86400 * 1000)

static void on_timer(uv_timer_t *timer);

/* --- sending --- */

void exec_send(struct exec *e, const void *p, size_t n)
{
	if (!e->rq || e->finished)
		return;
	if (!e->begun) {
		struct av_http_head head;

		e->begun = true;
		av_http_head_response(&head, 200);
		if (av_http_head_add_c(&head, "content-type", e->codec->content_type) < 0 ||
		    !request_begin(e->rq, &head))
			request_reset(e->rq, AV_HTTP2_INTERNAL_ERROR);
		av_http_head_clear(&head);
	}
	request_send(e->rq, p, n);
	e->sent_ms = uv_now(&e->rq->agent->loop);
}

/* After the last message. */
static void finish(struct exec *e)
{
	if (e->finished || !e->rq)
		return;
	e->finished = true;
	uv_timer_stop(&e->timer);
	if (e->process) {
		process_forget_writer(e->process, e);
		process_detach(&e->sub);
		e->process = NULL;
	}
	request_consume(e->rq, av_http2_unconsumed(e->rq->stream));
	request_finish_all(e->rq);
}

static void fail(struct exec *e, const struct av_err *err, const struct spawn_failure *failure)
{
	struct process *p = e->process;

	e->opened = true;
	e->codec->error(e, err, failure);
	finish(e);
	/* A client that breaks the protocol has gone for all purposes. */
	if (p && e->kill_on_detach && process_is_live(p))
		process_kill(p);
}

/* --- the process's side --- */

static void check_full(struct exec *e)
{
	e->sub.full = !e->rq || request_is_full(e->rq);
}

static void on_output(struct process_sub *sub, uint8_t channel, const char *p, size_t n)
{
	struct exec *e = AV_CONTAINER_OF(sub, struct exec, sub);

	e->codec->output(e, channel, p, n);
	check_full(e);
}

static void on_gap(struct process_sub *sub, uint64_t dropped)
{
	struct exec *e = AV_CONTAINER_OF(sub, struct exec, sub);

	e->codec->gap(e, dropped);
	check_full(e);
}

static void on_process_end(struct process_sub *sub, const struct process_end *end)
{
	struct exec *e = AV_CONTAINER_OF(sub, struct exec, sub);

	e->codec->end(e, end);
	finish(e);
}

static const struct process_sub_ops sub_ops = {
    .on_output = on_output,
    .on_gap = on_gap,
    .on_end = on_process_end,
};

/* --- the first message --- */

/* {"replay":bool,"follow":bool}: the binary codec's additions to ConnectRequest. */
static int open_connect(
    struct exec *e, const json_t *request, struct process **ret, struct av_err *err)
{
	bool replay = false, follow = true;
	struct process *p;
	int r;

	if ((r = process_rpc_select(e->rq->agent, request, &p, err)) < 0)
		return r;
	if (e->codec == &exec_codec_frames &&
	    ((r = av_json_get_bool(request, "replay", &replay, err)) < 0 ||
	        (r = av_json_get_bool(request, "follow", &follow, err)) < 0))
		return r;
	e->sub.replay = replay;
	e->sub.follow = follow;
	process_attach(p, &e->sub);
	*ret = p;
	return 0;
}

/* Runs the timer to whichever of keep-alive and deadline comes first. */
static void arm_timer(struct exec *e)
{
	uint64_t now = uv_now(&e->rq->agent->loop), due = UINT64_MAX;

	if (e->keepalive_ms && e->codec->keepalive)
		due = e->sent_ms + e->keepalive_ms;
	if (e->deadline_ms && e->deadline_ms < due)
		due = e->deadline_ms;
	if (due != UINT64_MAX)
		uv_timer_start(&e->timer, on_timer, due > now ? due - now : 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
	struct exec *e = AV_CONTAINER_OF(timer, struct exec, timer);
	uint64_t now = uv_now(timer->loop);

	if (!e->rq || e->finished)
		return;
	if (e->deadline_ms && now >= e->deadline_ms) {
		struct av_err err;

		av_err_set(&err, AV_ERR_EXEC_TIMEOUT, "the deadline of the request has passed");
		fail(e, &err, NULL);
		return;
	}
	if (now >= e->sent_ms + e->keepalive_ms && e->keepalive_ms)
		e->codec->keepalive(e);
	arm_timer(e);
}

void exec_first_message(struct exec *e, struct av_str text)
{
	AV_CLEANUP(av_json_decrefp) json_t *request = NULL;
	struct spawn_failure failure = {0};
	struct process *p = NULL;
	struct av_err err = {0};
	int r = -EINVAL;

	e->opened = true;
	request = av_json_parse_object(text, &err);
	if (request && e->is_start)
		r = exec_launch(e, request, &p, &failure, &err);
	else if (request)
		r = open_connect(e, request, &p, &err);
	if (r < 0) {
		fail(e, &err, failure.step == SPAWN_EXEC ? &failure : NULL);
		return;
	}
	e->process = p;
	e->codec->start(e, p);
	if (!e->is_start && e->timeout_ms)
		e->deadline_ms = uv_now(&e->rq->agent->loop) + e->timeout_ms;
	arm_timer(e);
	process_sub_ready(&e->sub);
}

/* --- the client's side --- */

static void on_written(void *ctx, size_t n, int status)
{
	struct exec *e = ctx;

	(void)status;
	request_consume(e->rq, n);
}

void exec_input(struct exec *e, const void *p, size_t n)
{
	if (!e->process || n == 0)
		return;
	if (process_write(e->process, p, n, on_written, e) == 0)
		e->handed_over += n;
}

static void exec_body(struct request *rq, const uint8_t *p, size_t n)
{
	struct exec *e = rq->data;
	struct av_err err = {0};

	e->handed_over = 0;
	if (!e->finished && e->codec->feed(e, p, n, &err) < 0)
		fail(e, &err, NULL);
	/* finish() has given back everything, what is handed over included. */
	if (!e->finished)
		request_consume(rq, n - e->handed_over);
	else
		request_consume(rq, av_http2_unconsumed(rq->stream));
}

static void exec_end(struct request *rq)
{
	struct exec *e = rq->data;
	struct av_err err;

	if (e->finished || (e->opened && e->codec->idle(e)))
		return;
	av_err_set(&err, AV_ERR_INVALID,
	    e->opened ? "the request ends in the middle of a message"
	              : "the request has no message");
	fail(e, &err, NULL);
}

static void exec_drain(struct request *rq)
{
	struct exec *e = rq->data;

	if (e->process && !request_is_full(rq))
		process_sub_ready(&e->sub);
}

static void on_timer_closed(uv_handle_t *h)
{
	free(AV_CONTAINER_OF(h, struct exec, timer));
}

static void exec_close(struct request *rq, uint32_t error)
{
	struct exec *e = rq->data;

	(void)error;
	e->rq = NULL;
	if (e->process) {
		struct process *p = e->process;

		process_forget_writer(p, e);
		process_detach(&e->sub);
		e->process = NULL;
		if (e->kill_on_detach && process_is_live(p))
			process_kill(p);
	}
	if (e->codec == &exec_codec_connect)
		av_connect_dec_clear(&e->dec.connect);
	else
		av_frame_dec_clear(&e->dec.frames);
	uv_close((uv_handle_t *)&e->timer, on_timer_closed);
}

static const struct request_ops exec_ops = {
    .on_body = exec_body,
    .on_end = exec_end,
    .on_drain = exec_drain,
    .on_close = exec_close,
};

/* A header with a whole number, 0 when absent. */
static int header_number(const struct request *rq, const char *name, uint64_t max, uint64_t *ret)
{
	const struct av_str *v = av_http_head_get(&rq->head, name);

	return v ? av_parse_u64(*v, 0, max, ret) : 0;
}

static void exec_open(struct request *rq, bool is_start)
{
	const struct av_str *type = av_http_head_get(&rq->head, "content-type");
	struct av_str media = type ? av_http_media_type(*type) : AV_STR("");
	uint64_t keepalive_s = KEEPALIVE_DEFAULT_S;
	const struct exec_codec *codec;
	struct exec *e;
	struct av_err err;

	if (av_str_ieq(media, av_str_c(exec_codec_frames.content_type))) {
		codec = &exec_codec_frames;
	} else if (av_str_ieq(media, av_str_c(exec_codec_connect.content_type))) {
		codec = &exec_codec_connect;
	} else {
		request_fail(rq, 415, "content type '%.*s' is not served here; use %s or %s",
		    AV_STR_ARG(media), exec_codec_connect.content_type,
		    exec_codec_frames.content_type);
		return;
	}
	e = calloc(1, sizeof(*e));
	if (!e) {
		request_fail(rq, 503, "out of memory in the sandbox's agent");
		return;
	}
	*e = (struct exec){.rq = rq, .codec = codec, .is_start = is_start};
	e->sub.ops = &sub_ops;
	av_list_init(&e->sub.node);
	uv_timer_init(&rq->agent->loop, &e->timer);
	if (codec == &exec_codec_connect)
		av_connect_dec_init(&e->dec.connect, CONNECT_MESSAGE_MAX);
	else
		av_frame_dec_init(&e->dec.frames);
	rq->data = e;
	rq->ops = &exec_ops;
	if (header_number(rq, "connect-timeout-ms", TIMEOUT_MAX_MS, &e->timeout_ms) < 0) {
		av_err_set(&err, AV_ERR_INVALID,
		    "the Connect-Timeout-Ms header is not a number of milliseconds");
		fail(e, &err, NULL);
		return;
	}
	if (header_number(rq, "keepalive-ping-interval", KEEPALIVE_MAX_S, &keepalive_s) < 0)
		keepalive_s = KEEPALIVE_DEFAULT_S;
	e->keepalive_ms = keepalive_s * 1000;
}

void exec_start(struct request *rq)
{
	exec_open(rq, true);
}

void exec_connect(struct request *rq)
{
	exec_open(rq, false);
}
