/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch_rpc.c - WatchDir (a stream of events), and CreateWatcher, GetWatcherEvents, RemoveWatcher
 * for clients that ask again and again
 *
 * States of both a stream and a create: waiting for the watch to be ready → watching (a create is
 * answered with that) → over. A client that does not read holds its watch: the kernel's queue
 * fills, and what it loses is told as an overflow; to clients that do not know that message (they
 * do not say "overflow": true), as the error data_loss at the end of their stream.
 *
 * A stream ends with its client, at its deadline (Connect-Timeout-Ms), or never. An event
 * `keepalive` is sent when nothing else was for a while. The struct outlives the stream until its
 * timer is closed.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/fsjob.h"
#include "agent/handlers.h"
#include "agent/watch.h"
#include "base/num.h"

#include "base/banned.h"

#define EVENT_BYTES         ((size_t)64 * 1024)
#define EVENTS_BYTES        ((size_t)8 * 1024 * 1024)
#define KEEPALIVE_DEFAULT_S 90
#define KEEPALIVE_MAX_S     86400
#define DEADLINE_MAX_MS     (10ULL * 365 * 86400 * 1000)

struct watching {
	struct request *rq; /* NULL once it is over */
	struct watch *watch;
	bool stream; /* WatchDir; else CreateWatcher */
	bool include_entry;
	bool tells_overflow;
	uv_timer_t timer;
	uint64_t keepalive_ms, deadline_ms; /* loop time of the latter; 0: none */
	uint64_t sent_ms;
};

/* --- what an event says --- */

/* {"name":...,"type":...,"entry":{...}} */
static void write_event(
    struct av_buf *out, struct watch *w, const struct watch_event *ev, bool include_entry)
{
	static const char *const types[] = {
	    [WATCH_CREATE] = "CREATE",
	    [WATCH_WRITE] = "WRITE",
	    [WATCH_REMOVE] = "REMOVE",
	    [WATCH_RENAME] = "RENAME",
	    [WATCH_CHMOD] = "CHMOD",
	};
	char path[AV_PATH_MAX + 1];
	struct entry e;

	av_buf_append_c(out, "{\"name\":");
	av_json_write_str(out, av_str_c(ev->name));
	av_buf_printf(out, ",\"type\":\"EVENT_TYPE_%s\"", types[ev->type]);
	if (include_entry && ev->type != WATCH_REMOVE && ev->type != WATCH_RENAME &&
	    watch_look(w, ev, &e, path) == 0) {
		av_buf_append_c(out, ",\"entry\":");
		entry_write(out, &e, av_str_c(path), watch_names(w));
	}
	av_buf_append_char(out, '}');
}

/* --- life --- */

static void on_timer_closed(uv_handle_t *h)
{
	free(AV_CONTAINER_OF(h, struct watching, timer));
}

/* The request is answered or gone; so is the watch, unless somebody polls it. */
static void over(struct watching *g, bool keep_watch)
{
	if (g->watch && keep_watch)
		watch_set_polled(g->watch);
	else if (g->watch)
		watch_close(g->watch);
	g->watch = NULL;
	if (g->rq)
		g->rq->data = NULL;
	g->rq = NULL;
	uv_timer_stop(&g->timer);
	uv_close((uv_handle_t *)&g->timer, on_timer_closed);
}

/* --- the stream's messages --- */

static void send_json(struct watching *g, const struct av_buf *json)
{
	uint8_t head[AV_CONNECT_HEADER];

	av_connect_header(head, 0, (uint32_t)json->n);
	if (av_buf_error(json) < 0)
		request_reset(g->rq, AV_HTTP2_INTERNAL_ERROR);
	else if (request_send(g->rq, head, sizeof(head)))
		request_send(g->rq, av_buf_str(json).p, json->n);
	g->sent_ms = uv_now(&g->rq->agent->loop);
}

static void send_message(struct watching *g, const char *text)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(256);

	av_buf_append_c(&out, text);
	send_json(g, &out);
}

/* The last message, and the end. */
static void end_stream(struct watching *g, enum av_connect_code code, const char *message)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(EVENT_BYTES);
	struct request *rq = g->rq;

	if (av_connect_write_end(&out, code, av_str_c(message)) < 0)
		request_reset(rq, AV_HTTP2_INTERNAL_ERROR);
	else if (request_send(rq, av_buf_str(&out).p, out.n))
		request_finish_all(rq);
	over(g, false);
	request_ignore_rest(rq);
}

static void send_events(struct watching *g)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(EVENT_BYTES);
	struct watch_event *ev;

	while (!request_is_full(g->rq) && (ev = watch_take(g->watch))) {
		av_buf_append_c(&out, "{\"filesystem\":");
		write_event(&out, g->watch, ev, g->include_entry);
		av_buf_append_char(&out, '}');
		free(ev);
		send_json(g, &out);
		av_buf_reset(&out);
	}
	watch_hold(g->watch, request_is_full(g->rq));
	if (request_is_full(g->rq) || !watch_take_overflow(g->watch))
		return;
	if (g->tells_overflow)
		send_message(g, "{\"overflow\":{}}");
	else
		end_stream(g, AV_CONNECT_DATA_LOSS, "more has changed than could be told");
}

static void arm_timer(struct watching *g);

static void on_timer(uv_timer_t *timer)
{
	struct watching *g = AV_CONTAINER_OF(timer, struct watching, timer);
	uint64_t now = uv_now(timer->loop);

	if (g->deadline_ms && now >= g->deadline_ms) {
		end_stream(
		    g, AV_CONNECT_DEADLINE_EXCEEDED, "the deadline of the request has passed");
		return;
	}
	if (now >= g->sent_ms + g->keepalive_ms)
		send_message(g, "{\"keepalive\":{}}");
	arm_timer(g);
}

static void arm_timer(struct watching *g)
{
	uint64_t now = uv_now(&g->rq->agent->loop), due = g->sent_ms + g->keepalive_ms;

	if (g->deadline_ms && g->deadline_ms < due)
		due = g->deadline_ms;
	uv_timer_start(&g->timer, on_timer, due > now ? due - now : 0, 0);
}

static void begin_stream(struct watching *g)
{
	struct av_http_head head;

	av_http_head_response(&head, 200);
	if (av_http_head_add_c(&head, "content-type", AV_AGENT_CT_CONNECT) < 0 ||
	    !request_begin(g->rq, &head))
		request_reset(g->rq, AV_HTTP2_INTERNAL_ERROR);
	av_http_head_clear(&head);
}

/* --- of the watch --- */

static void fail(struct watching *g, const struct av_err *err)
{
	struct request *rq = g->rq;

	if (g->stream) {
		begin_stream(g);
		end_stream(g, av_connect_code_from_err(err->kind), err->message);
		return;
	}
	over(g, false);
	request_rpc_fail_err(rq, err);
}

static void on_ready(void *ctx, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(256);
	struct watching *g = ctx;
	struct request *rq = g->rq;

	if (err) {
		fail(g, err);
	} else if (g->stream) {
		begin_stream(g);
		send_message(g, "{\"start\":{}}");
		arm_timer(g);
	} else {
		av_buf_printf(&out, "{\"watcherId\":\"%s\"}", watch_id(g->watch));
		over(g, true);
		request_reply(rq, 200, AV_AGENT_CT_JSON, av_buf_str(&out));
	}
}

static void on_events(void *ctx)
{
	send_events(ctx);
}

static const struct watch_ops watch_ops = {.on_ready = on_ready, .on_events = on_events};

/* --- of the request --- */

static void on_body(struct request *rq, const uint8_t *p, size_t n)
{
	(void)p;
	request_consume(rq, n);
}

static void on_drain(struct request *rq)
{
	send_events(rq->data);
}

static void on_close(struct request *rq, uint32_t error)
{
	struct watching *g = rq->data;

	(void)error;
	g->rq = NULL;
	over(g, false);
}

static const struct request_ops watching_ops = {
    .on_body = on_body, .on_drain = on_drain, .on_close = on_close};

static int header_number(struct request *rq, const char *name, uint64_t max, uint64_t *ret)
{
	const struct av_str *h = av_http_head_get(&rq->head, name);

	return h ? av_parse_u64(*h, 0, max, ret) : -ENOENT;
}

static int read_headers(struct watching *g, struct av_err *err)
{
	uint64_t timeout_ms = 0, keepalive_s = KEEPALIVE_DEFAULT_S;
	int r = header_number(g->rq, "connect-timeout-ms", DEADLINE_MAX_MS, &timeout_ms);

	if (r < 0 && r != -ENOENT)
		return av_err_set(err, AV_ERR_INVALID,
		    "the Connect-Timeout-Ms header is not a number of milliseconds");
	if (header_number(g->rq, "keepalive-ping-interval", KEEPALIVE_MAX_S, &keepalive_s) < 0 ||
	    keepalive_s == 0)
		keepalive_s = KEEPALIVE_DEFAULT_S;
	g->keepalive_ms = keepalive_s * 1000;
	if (g->stream && timeout_ms)
		g->deadline_ms = uv_now(&g->rq->agent->loop) + timeout_ms;
	return 0;
}

static int open_watch(struct watching *g, struct av_str body, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *json = av_json_parse_object(body, err);
	char path[AV_PATH_MAX + 1];
	struct agent_user user;
	bool recursive = false;
	int r;

	if (!json)
		return -EINVAL;
	if ((r = fs_request_user(g->rq, json, &user, err)) < 0 ||
	    (r = fs_request_path(g->rq, &user, json, "path", path, err)) < 0 ||
	    (r = av_json_get_bool(json, "recursive", &recursive, err)) < 0 ||
	    (r = av_json_get_bool(json, "includeEntry", &g->include_entry, err)) < 0 ||
	    (r = av_json_get_bool(json, "overflow", &g->tells_overflow, err)) < 0 ||
	    (r = read_headers(g, err)) < 0)
		return r;
	return watch_open(g->rq->agent, &user, path, recursive, &watch_ops, g, &g->watch, err);
}

static void begin(struct request *rq, struct av_str body, bool stream)
{
	struct watching *g = calloc(1, sizeof(*g));
	struct av_err err = {0};

	if (!g) {
		request_rpc_fail(
		    rq, AV_CONNECT_RESOURCE_EXHAUSTED, "out of memory in the sandbox's agent");
		return;
	}
	g->rq = rq;
	g->stream = stream;
	uv_timer_init(&rq->agent->loop, &g->timer);
	rq->data = g;
	rq->ops = &watching_ops;
	if (open_watch(g, stream ? fs_unframe(body) : body, &err) < 0)
		fail(g, &err);
	else if (!stream)
		watch_include_entry(g->watch, g->include_entry);
}

void watch_rpc_stream(struct request *rq, struct av_str body)
{
	begin(rq, body, true);
}

void watch_rpc_create(struct request *rq, struct av_str body)
{
	begin(rq, body, false);
}

/* --- polling --- */

/* The watch that the request names; answers when there is none. */
static struct watch *find(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *json = NULL;
	struct av_err err = {0};
	const char *id = "";
	struct watch *w;

	json = av_json_parse_object(body, &err);
	if (!json || av_json_get_str(json, "watcherId", &id, &err) < 0) {
		request_rpc_fail_err(rq, &err);
		return NULL;
	}
	w = watch_find(rq->agent, av_str_c(id));
	if (!w)
		request_rpc_fail(rq, AV_CONNECT_NOT_FOUND, "watcher with id %.64s not found", id);
	return w;
}

/* The whole request was there before what it asks is answered, so that what the client did before
 * is in it. */
void watch_rpc_events(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(EVENTS_BYTES);
	struct watch *w = find(rq, body);
	struct watch_event *ev;
	bool first = true;

	if (!w)
		return;
	watch_catch_up(rq->agent);
	if (watch_take_overflow(w)) {
		while ((ev = watch_take(w)))
			free(ev);
		request_rpc_fail(rq, AV_CONNECT_DATA_LOSS, "more has changed than could be told");
		return;
	}
	av_buf_append_c(&out, "{\"events\":[");
	/* What does not fit into one answer waits for the next. */
	while (out.n < EVENTS_BYTES - 2 * EVENT_BYTES && (ev = watch_take(w))) {
		if (!first)
			av_buf_append_char(&out, ',');
		first = false;
		write_event(&out, w, ev, watch_includes_entry(w));
		free(ev);
	}
	av_buf_append_c(&out, "]}");
	if (av_buf_error(&out) < 0)
		request_rpc_fail(
		    rq, AV_CONNECT_RESOURCE_EXHAUSTED, "out of memory in the sandbox's agent");
	else
		request_reply(rq, 200, AV_AGENT_CT_JSON, av_buf_str(&out));
}

void watch_rpc_remove(struct request *rq, struct av_str body)
{
	struct watch *w = find(rq, body);

	if (!w)
		return;
	watch_close(w);
	request_reply(rq, 200, AV_AGENT_CT_JSON, AV_STR("{}"));
}
