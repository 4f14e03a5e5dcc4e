/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch.c - what changes in a directory of a sandbox (see aviary/watch.h)
 *
 * Theory of operation. A watch waits its turn for the sandbox, then opens a stream. Events are kept
 * until they are taken; from QUEUE_HIGH on the stream rests, so that the sandbox's agent waits and
 * in the end the kernel there drops, which it tells as an overflow. A handle may be freed from
 * inside its callback: what that still needs is kept by a second reference.
 */
#include <aviary/watch.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "base/json.h"
#include "client/file_internal.h"
#include "client/stream.h"

#include "client/model.h"

#include "base/banned.h"

#define QUEUE_HIGH  512
#define QUEUE_LOW   128
#define MESSAGE_MAX ((size_t)128 << 10)
#define QUERY_MAX   ((size_t)48 << 10)

struct event {
	struct av_list link;
	enum aviary_watch_type type;
	char name[];
};

struct aviary_watch {
	struct avc_turn turn; /* first */
	atomic_uint refs;
	aviary_client *c;
	aviary_op *op;
	struct aviary_sandbox *sb;
	struct avc_stream *stream;
	char *query, *path;
	struct av_list events;
	size_t n_events;
	struct event *given; /* to the caller of aviary_watch_next */
	aviary_watch_fn *fn;
	void *ctx;
};

static void clear_events(aviary_watch *w)
{
	struct event *e;

	while ((e = AV_LIST_FIRST(&w->events, struct event, link))) {
		av_list_remove(&e->link);
		free(e);
	}
	free(w->given);
}

static void watch_unref(aviary_watch *w)
{
	aviary_client *c = w->c;

	if (atomic_fetch_sub(&w->refs, 1) > 1)
		return;
	clear_events(w);
	aviary_op_free(w->op);
	aviary_sandbox_free(w->sb);
	free(w->query);
	free(w->path);
	free(w);
	avc_client_unref(c);
}

/* With the lock: nothing comes any more. */
static void let_go(aviary_watch *w)
{
	avc_turn_cancel(&w->turn);
	avc_stream_free(AV_TAKE_PTR(w->stream));
}

static void op_stop(aviary_op *op)
{
	let_go(op->work);
}

static void fail(aviary_watch *w, int code, const char *name, const char *text)
{
	const aviary_error e = {.code = code,
	    .retry_after_ms = -1,
	    .message = text && *text ? text : aviary_code_text(code),
	    .server_code = name ? name : "",
	    .sandbox_id = w->sb->id,
	    .request_id = "",
	    .path = w->path};

	avc_op_fail_with(w->op, &e);
	let_go(w);
}

/* ---- what comes ---- */

static enum aviary_watch_type type_of(const char *text)
{
	static const struct {
		const char *text;
		enum aviary_watch_type type;
	} types[] = {
	    {"start", AVIARY_WATCH_STARTED},
	    {"create", AVIARY_WATCH_CREATED},
	    {"write", AVIARY_WATCH_WRITTEN},
	    {"remove", AVIARY_WATCH_REMOVED},
	    {"rename", AVIARY_WATCH_RENAMED},
	    {"chmod", AVIARY_WATCH_CHANGED},
	    {"overflow", AVIARY_WATCH_OVERFLOW},
	};

	for (size_t i = 0; i < AV_ARRAY_LEN(types); i++)
		if (strcmp(text, types[i].text) == 0)
			return types[i].type;
	return AVIARY_WATCH_UNKNOWN;
}

static void deliver(aviary_watch *w, enum aviary_watch_type type, const char *name)
{
	const aviary_watch_event event = {.type = type, .name = name};
	aviary_watch_fn *fn = w->fn;
	void *ctx = w->ctx;

	atomic_fetch_add(&w->refs, 1);
	avc_unlock(w->c);
	fn(ctx, w, &event);
	watch_unref(w);
}

static void keep(aviary_watch *w, enum aviary_watch_type type, const char *name)
{
	size_t n = strlen(name) + 1;
	struct event *e = malloc(sizeof(*e) + n);

	if (!e) {
		fail(w, AVIARY_E_NO_MEMORY, NULL, NULL);
		return;
	}
	e->type = type;
	memcpy(e->name, name, n);
	av_list_append(&w->events, &e->link);
	if (++w->n_events >= QUEUE_HIGH)
		avc_stream_pause(w->stream, true);
	pthread_cond_broadcast(&w->c->changed);
}

static void on_message(void *ctx, bool text, struct av_str data)
{
	int loaded = 0;
	AV_CLEANUP(av_json_decrefp) json_t *j = avc_json_load(data, &loaded);
	const char *type = json_string_value(json_object_get(j, "type"));
	const char *name = json_string_value(json_object_get(j, "name"));
	const char *why = json_string_value(json_object_get(j, "data"));
	const char *code = json_string_value(json_object_get(j, "code"));
	aviary_watch *w = ctx;
	aviary_client *c = w->c;

	(void)text;
	if (avc_op_done(w->op))
		return;
	if (!type) {
		fail(w, loaded ? loaded : AVIARY_E_PROTOCOL, NULL, NULL);
	} else if (strcmp(type, "error") == 0) {
		fail(w, avc_code_of_file(code, 400, why), code, why);
	} else if (w->fn) {
		deliver(w, type_of(type), name ? name : "");
		avc_lock(c);
	} else {
		keep(w, type_of(type), name ? name : "");
	}
}

static void on_open(void *ctx)
{
	(void)ctx;
}

static void on_end(void *ctx, const aviary_error *error)
{
	aviary_watch *w = ctx;

	if (avc_op_done(w->op))
		return;
	if (error)
		avc_op_fail_with(w->op, error);
	else
		avc_op_fail(w->op, AVIARY_E_SANDBOX_TERMINATED,
		    "the sandbox ended, and its watches with it");
	let_go(w);
}

static const struct avc_stream_events stream_events = {
    .on_open = on_open, .on_message = on_message, .on_end = on_end};

static void go(struct avc_turn *t, const aviary_error *error)
{
	aviary_watch *w = AV_CONTAINER_OF(t, struct aviary_watch, turn);
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(QUERY_MAX + 256);
	struct avc_stream_spec spec = {.sandbox_id = w->sb->id, .message_max = MESSAGE_MAX};

	if (error) {
		avc_op_fail_with(w->op, error);
		return;
	}
	(void)av_buf_printf(&path, "/v1/sandboxes/%s%s", w->sb->id, w->query);
	spec.path = av_buf_cstr(&path);
	w->stream = spec.path ? avc_stream_open(w->c, &spec, &stream_events, w) : NULL;
	if (!w->stream)
		fail(w, AVIARY_E_NO_MEMORY, NULL, NULL);
}

/* ---- handles ---- */

static aviary_watch *watch_new(aviary_sandbox *sb, const char *path, const aviary_file_options *o)
{
	AV_CLEANUP(av_buf_clear) struct av_buf query = AV_BUF_INIT(QUERY_MAX);
	aviary_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	atomic_init(&w->refs, 1);
	w->c = avc_client_ref(sb->c);
	w->sb = aviary_sandbox_ref(sb);
	av_list_init(&w->turn.link);
	av_list_init(&w->events);
	(void)avc_file_query(&query, "/files/watch", path, o);
	if (o->recursive)
		(void)av_buf_append_c(&query, "&recursive=true");
	w->query = av_buf_cstr(&query) ? av_str_dup(av_buf_str(&query)) : NULL;
	w->path = av_str_dup(av_str_c(path));
	w->op = avc_op_new(sb->c);
	if (w->query && w->path && w->op->c)
		return w;
	if (w->op->c) {
		avc_lock(w->c);
		avc_op_fail(w->op, AVIARY_E_NO_MEMORY, "out of memory");
		avc_unlock(w->c);
	}
	watch_unref(w);
	return NULL;
}

aviary_watch *aviary_file_watch(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);
	aviary_watch *w = watch_new(sb, path ? path : "", &o);

	if (!w)
		return NULL;
	avc_lock(w->c);
	w->op->work = w;
	w->op->stop = op_stop;
	if (!w->path[0]) {
		fail(w, AVIARY_E_INVALID, NULL, "the path is empty; name a directory");
	} else if (w->c->closed) {
		fail(w, AVIARY_E_STATE, NULL, "the client was closed");
	} else {
		w->turn.go = go;
		w->turn.give_up_ms = avc_deadline(sb->start_timeout_ms);
		avc_sandbox_need(sb, &w->turn);
	}
	avc_unlock(w->c);
	return w;
}

void aviary_watch_free(aviary_watch *w)
{
	if (!w)
		return;
	avc_lock(w->c);
	if (!avc_op_done(w->op))
		fail(w, AVIARY_E_CANCELED, NULL, "the watch was freed");
	avc_unlock(w->c);
	watch_unref(w);
}

aviary_op *aviary_watch_op(aviary_watch *w)
{
	return w->op;
}

void aviary_watch_on_event(aviary_watch *w, aviary_watch_fn *fn, void *ctx)
{
	avc_lock(w->c);
	w->fn = fn;
	w->ctx = ctx;
	avc_unlock(w->c);
}

/* There is one. */
static void take(aviary_watch *w, aviary_watch_event *ret)
{
	free(w->given);
	w->given = AV_CONTAINER_OF(w->events.next, struct event, link);
	av_list_remove(&w->given->link);
	if (--w->n_events == QUEUE_LOW && w->stream)
		avc_stream_pause(w->stream, false);
	*ret = (aviary_watch_event){.type = w->given->type, .name = w->given->name};
}

int aviary_watch_next(aviary_watch *w, aviary_watch_event *ret, int64_t timeout_ms)
{
	int64_t end_ms = avc_deadline(timeout_ms);
	bool driven = false;
	int r = 0;

	avc_lock(w->c);
	while (r == 0 && av_list_empty(&w->events))
		r = avc_op_done(w->op) ? w->op->code : avc_drive_until(w->c, end_ms, &driven);
	if (r == 0) {
		take(w, ret);
		r = 1;
	}
	avc_unlock(w->c);
	return r;
}
