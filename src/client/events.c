/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.c - following the events of a team (see aviary/events.h)
 *
 * Theory of operation. One stream at a time carries messages {"type", "id", "data"}. Each that is
 * an event becomes an item of `queue`; above QUEUE_MAX items the stream is paused. Items leave by
 * aviary_events_next, or by `pump`, a timer that calls the callback, one item a round. When the
 * stream ends for a reason that passes, `again` opens another one behind last_id, for patience_ms
 * after the last sign of life.
 *
 * Events are made by the server from what people and programs in sandboxes do: names and texts in
 * them are foreign, and the server itself may be anybody.
 */
#include <aviary/events.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "base/json.h"
#include "client/model_tables.h"
#include "client/stream.h"

#include "base/banned.h"

#define QUEUE_MAX   256
#define MESSAGE_MAX ((size_t)1 << 20)
#define QUERY_MAX   ((size_t)32 << 10)
#define AGAIN_MS    1000
#define PATIENCE_MS 300000

struct item {
	struct av_list link;
	aviary_news news;
	json_t *message;     /* owned: holds the strings of news */
	char *json;          /* owned: of news */
	aviary_event *event; /* owned; NULL: none */
};

struct aviary_events {
	struct av_list link; /* c->followers */
	aviary_client *c;
	aviary_op *op;
	struct avc_stream *stream; /* NULL: between two */
	char *query;               /* "?event=...": as given */
	char last_id[64];
	bool was_connected;
	int64_t patience_ms, give_up_ms; /* give_up_ms 0: it is connected */
	struct avc_timer again, pump;
	struct av_list queue; /* struct item */
	size_t n;
	struct item *given; /* by aviary_events_next, last */
	aviary_news_fn *fn;
	void *ctx;
	bool busy, freed; /* fn runs; it was freed meanwhile */
};

/* ---- items ---- */

static void item_free(struct item *it)
{
	if (!it)
		return;
	aviary_event_free(it->event);
	json_decref(it->message);
	free(it->json);
	free(it);
}

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s ? s : "";
}

/* Steals message. 0, or a code. */
static int item_new(enum aviary_news_kind kind, json_t *message, struct item **ret)
{
	const json_t *data = json_object_get(message, "data");
	const json_t *dropped = json_object_get(data, "dropped");
	struct item *it = calloc(1, sizeof(*it));
	char text[AVC_MODEL_TEXT];
	void *event = NULL;
	int r = AVIARY_E_NO_MEMORY;

	if (!it) {
		json_decref(message);
		return r;
	}
	av_list_init(&it->link);
	it->message = message;
	it->json = data ? avc_json_text(data) : NULL;
	if (!data)
		r = AVIARY_E_PROTOCOL;
	else if (it->json)
		r = kind == AVIARY_NEWS_EVENT ? avc_model_decode(&avc_event, data, &event, text)
		                              : 0;
	it->event = event;
	it->news = (aviary_news){.kind = kind,
	    .event = it->event,
	    .message = it->event ? "" : text_of(data, "message"),
	    .dropped = json_is_integer(dropped) ? (int64_t)json_integer_value(dropped) : -1,
	    .id = text_of(message, "id"),
	    .json = it->json};
	if (r < 0)
		item_free(it);
	else
		*ret = it;
	return r;
}

/* ---- giving them out ---- */

static void balance(aviary_events *e)
{
	if (e->stream)
		avc_stream_pause(e->stream, e->n >= QUEUE_MAX);
}

static struct item *pop(aviary_events *e)
{
	struct item *it = AV_LIST_FIRST(&e->queue, struct item, link);

	if (it) {
		av_list_remove(&it->link);
		e->n--;
		balance(e);
	}
	return it;
}

static void let_go(aviary_events *e);

static void on_pump(struct avc_timer *t)
{
	aviary_events *e = AV_CONTAINER_OF(t, struct aviary_events, pump);
	aviary_client *c = e->c;
	struct item *it = e->fn ? pop(e) : NULL;
	aviary_news_fn *fn = e->fn;
	void *ctx = e->ctx;

	if (!it)
		return;
	e->busy = true;
	avc_unlock(c);
	fn(ctx, e, &it->news);
	item_free(it);
	avc_lock(c);
	e->busy = false;
	if (e->freed)
		let_go(e);
	else if (e->n > 0)
		avc_timer_start(c, &e->pump, 0);
}

static void push(aviary_events *e, struct item *it)
{
	av_list_append(&e->queue, &it->link);
	e->n++;
	balance(e);
	if (e->fn && !e->busy && av_list_empty(&e->pump.link))
		avc_timer_start(e->c, &e->pump, 0);
	pthread_cond_broadcast(&e->c->changed);
}

/* ---- the stream ---- */

static void connect_again(aviary_events *e, const aviary_error *error);

static void part(aviary_events *e)
{
	avc_timer_stop(&e->again);
	avc_stream_free(AV_TAKE_PTR(e->stream));
}

static void fail(aviary_events *e, int code, const char *text)
{
	avc_op_fail(e->op, code, "%s", text && *text ? text : aviary_code_text(code));
	part(e);
}

/* Whatever is not of the stream itself is an event: there may be new ones. */
static void take_message(aviary_events *e, json_t *m)
{
	const char *type = text_of(m, "type"), *id = text_of(m, "id");
	enum aviary_news_kind kind = AVIARY_NEWS_EVENT;
	struct item *it;
	int r;

	if (id[0] && strlen(id) < sizeof(e->last_id))
		memcpy(e->last_id, id, strlen(id) + 1);
	if (strcmp(type, "connected") == 0 || strcmp(type, "error") == 0) {
		if (type[0] == 'e')
			fail(e, AVIARY_E_UNAUTHORIZED, text_of(m, "data"));
		e->was_connected = true;
		e->give_up_ms = 0;
		json_decref(m);
		return;
	}
	if (strcmp(type, "gap") == 0)
		kind = AVIARY_NEWS_GAP;
	else if (strcmp(type, "end") == 0)
		kind = AVIARY_NEWS_END;
	r = item_new(kind, m, &it);
	if (r < 0)
		fail(e, r, NULL);
	else
		push(e, it);
}

static void on_message(void *ctx, bool text, struct av_str data)
{
	int code = AVIARY_E_PROTOCOL;
	json_t *m = text ? avc_json_load(data, &code) : NULL;
	aviary_events *e = ctx;

	if (m)
		take_message(e, m);
	else
		fail(e, code,
		    code == AVIARY_E_NO_MEMORY ? NULL : "the server sent an event that is none");
}

static void on_end(void *ctx, const aviary_error *error)
{
	aviary_events *e = ctx;

	avc_stream_free(AV_TAKE_PTR(e->stream));
	connect_again(e, error);
}

static void on_open(void *ctx)
{
	(void)ctx;
}

static const struct avc_stream_events stream_events = {
    .on_open = on_open, .on_message = on_message, .on_end = on_end};

/* With the lock. */
static void open_stream(aviary_events *e)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(QUERY_MAX + 512);
	struct avc_stream_spec spec = {.message_max = MESSAGE_MAX};

	(void)av_buf_printf(&path, "/v1/events%s", e->query);
	if (e->last_id[0]) {
		(void)av_buf_printf(&path, "%clast_event_id=", e->query[0] ? '&' : '?');
		(void)av_percent_encode(&path, av_str_c(e->last_id), false);
	}
	spec.path = av_buf_cstr(&path);
	if (spec.path)
		e->stream = avc_stream_open(e->c, &spec, &stream_events, e);
	if (!e->stream)
		fail(e, AVIARY_E_NO_MEMORY, NULL);
}

static void on_again(struct avc_timer *t)
{
	open_stream(AV_CONTAINER_OF(t, struct aviary_events, again));
}

static bool passes(const aviary_error *error)
{
	return !error || aviary_error_is(error->code, AVIARY_GROUP_TRANSPORT) ||
	       error->code == AVIARY_E_TIMEOUT || error->code == AVIARY_E_UNAVAILABLE ||
	       error->code == AVIARY_E_RATE_LIMITED;
}

static void connect_again(aviary_events *e, const aviary_error *error)
{
	int64_t now = avc_now_ms();

	if (!e->give_up_ms)
		e->give_up_ms = now + e->patience_ms;
	if (e->was_connected && passes(error) && now < e->give_up_ms && !e->c->closed) {
		avc_timer_start(e->c, &e->again, AGAIN_MS);
		return;
	}
	if (error)
		avc_op_fail_with(e->op, error);
	else
		fail(e, AVIARY_E_BROKEN, "the server ended the stream of events");
	pthread_cond_broadcast(&e->c->changed);
}

void avc_followers_end(aviary_client *c)
{
	aviary_events *e;

	AV_LIST_FOREACH(e, &c->followers, struct aviary_events, link)
	{
		part(e);
		avc_op_fail(e->op, AVIARY_E_CANCELED, "the client was closed");
	}
}

/* ---- life ---- */

static void op_stop(aviary_op *op)
{
	part(op->work);
}

static void add(struct av_buf *query, const char *name, const char *value)
{
	(void)av_buf_printf(query, "%c%s=", query->n ? '&' : '?', name);
	(void)av_percent_encode(query, av_str_c(value), false);
}

/* 0, or a code. */
static int make_query(const aviary_events_options *o, char **ret)
{
	AV_CLEANUP(av_buf_clear) struct av_buf query = AV_BUF_INIT(QUERY_MAX);

	for (size_t i = 0; i < o->names.n; i++)
		add(&query, "event", o->names.items[i]);
	for (size_t i = 0; i < o->sandbox_ids.n; i++)
		add(&query, "sandbox_id", o->sandbox_ids.items[i]);
	if (av_buf_error(&query) < 0 && av_buf_error(&query) != -ENOMEM)
		return AVIARY_E_TOO_LARGE;
	*ret = av_buf_error(&query) < 0 ? NULL : av_str_dup(av_buf_str(&query));
	return *ret ? 0 : AVIARY_E_NO_MEMORY;
}

static void free_all(aviary_events *e)
{
	struct item *it;

	while ((it = AV_LIST_FIRST(&e->queue, struct item, link))) {
		av_list_remove(&it->link);
		item_free(it);
	}
	item_free(e->given);
	free(e->query);
	free(e);
}

/* With the lock, when no callback of it runs; the lock is given up at the end for a moment. */
static void let_go(aviary_events *e)
{
	aviary_client *c = e->c;
	aviary_op *op = e->op;

	part(e);
	av_list_remove(&e->link);
	avc_timer_stop(&e->pump);
	avc_op_fail(op, AVIARY_E_CANCELED, "its handle was freed");
	avc_unlock(c);
	free_all(e);
	aviary_op_free(op);
	avc_client_unref(c);
	avc_lock(c);
}

aviary_events *aviary_client_events(aviary_client *c, const aviary_events_options *options)
{
	aviary_events_options o = AVIARY_EVENTS_OPTIONS_INIT;
	aviary_events *e = calloc(1, sizeof(*e));
	int r;

	if (options)
		memcpy(&o, options, AV_MIN(options->struct_size, sizeof(o)));
	if (!e)
		return NULL;
	av_list_init(&e->link);
	av_list_init(&e->queue);
	av_list_init(&e->again.link);
	av_list_init(&e->pump.link);
	e->again.on_due = on_again;
	e->pump.on_due = on_pump;
	e->patience_ms = o.patience_ms ? AV_MIN(o.patience_ms, INT64_MAX / 4) : PATIENCE_MS;
	r = make_query(&o, &e->query);
	e->op = avc_op_new(c);
	if (!e->op->c) {
		free_all(e);
		return NULL;
	}
	e->c = avc_client_ref(c);
	avc_lock(c);
	av_list_append(&c->followers, &e->link);
	e->op->work = e;
	e->op->stop = op_stop;
	if (c->closed)
		fail(e, AVIARY_E_STATE, "the client was closed");
	else if (r < 0)
		fail(
		    e, r, r == AVIARY_E_TOO_LARGE ? "too many names and sandboxes together" : NULL);
	else if (o.last_id && av_str_copy(e->last_id, sizeof(e->last_id), av_str_c(o.last_id)) < 0)
		fail(e, AVIARY_E_INVALID, "last_id is no id of an event");
	else
		open_stream(e);
	avc_unlock(c);
	return e;
}

void aviary_events_free(aviary_events *e)
{
	aviary_client *c = e ? e->c : NULL;

	if (!c)
		return;
	avc_client_ref(c); /* for the lock */
	avc_lock(c);
	if (e->busy) {
		e->freed = true;
		e->fn = NULL;
	} else {
		let_go(e);
	}
	avc_unlock(c);
	avc_client_unref(c);
}

aviary_op *aviary_events_op(aviary_events *e)
{
	return e->op;
}

void aviary_events_on_event(aviary_events *e, aviary_news_fn *fn, void *ctx)
{
	avc_lock(e->c);
	e->fn = fn;
	e->ctx = ctx;
	if (fn && e->n > 0 && !e->busy && av_list_empty(&e->pump.link))
		avc_timer_start(e->c, &e->pump, 0);
	avc_unlock(e->c);
}

int aviary_events_next(aviary_events *e, const aviary_news **ret, int64_t timeout_ms)
{
	int64_t end_ms = avc_deadline(timeout_ms);
	bool driven = false;
	int r = 0;

	avc_lock(e->c);
	while (r == 0 && e->n == 0 && !avc_op_done(e->op))
		r = avc_drive_until(e->c, end_ms, &driven);
	if (r == 0 && e->n > 0) {
		item_free(e->given);
		e->given = pop(e);
		*ret = &e->given->news;
		r = 1;
	} else if (r == 0) {
		r = e->op->code;
	}
	avc_unlock(e->c);
	return r;
}
