/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.c - what happens to the sandboxes of each team (see events.h)
 */
#include "api/events.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/native/shapes.h"
#include "api/request.h"
#include "base/avtime.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/map.h"
#include "base/num.h"
#include "base/banned.h"

/* A sandbox with more to say (64 KiB of metadata) is not shown with its events. */
#define SANDBOX_TEXT_MAX ((size_t)64 * 1024)
#define EVENT_TEXT_MAX   (4 * SANDBOX_TEXT_MAX)

struct event_team {
	char id[AV_ID_SIZE];
	struct event_ring ring;
	struct av_list by_use;  /* e->by_use */
	struct av_list streams; /* struct event_stream */
	size_t n_streams;
};

struct events {
	struct api *api;
	struct av_map teams;   /* id -> struct event_team; they come with users, and stay */
	struct av_list by_use; /* those of which events are kept, quiet for longest first */
	size_t bytes;          /* what their rings hold */
	struct av_list due;    /* struct event_stream, by their member due */
	struct av_timer turn;
	size_t n_streams;
	uint32_t epoch;
	bool stopping;
};

static const char *const kinds[CONTROL_EVENT_COUNT] = {
    [CONTROL_EVENT_SANDBOX_CREATE] = "capsule.create",
    [CONTROL_EVENT_SANDBOX_PAUSE] = "capsule.pause",
    [CONTROL_EVENT_SANDBOX_RESUME] = "capsule.resume",
    [CONTROL_EVENT_SANDBOX_DESTROY] = "capsule.destroy",
    [CONTROL_EVENT_SANDBOX_STATE] = "capsule.state.changed",
    [CONTROL_EVENT_TEMPLATE_CREATE] = "template.snapshot.create",
    [CONTROL_EVENT_TEMPLATE_DELETE] = "template.snapshot.delete",
    [CONTROL_EVENT_CHANNEL_DISABLE] = "channel.disable",
    [CONTROL_EVENT_HOST_UP] = "host.up",
    [CONTROL_EVENT_HOST_DOWN] = "host.down",
};

const char *events_kind_text(enum control_event_kind kind)
{
	return kinds[kind];
}

enum control_event_kind events_kind_parse(struct av_str text)
{
	int k = 0;

	while (k < CONTROL_EVENT_COUNT && !av_str_eq_c(text, kinds[k]))
		k++;
	return (enum control_event_kind)k;
}

/* ---- ids ---- */

void events_write_id(const struct events *e, struct av_buf *out, uint64_t number)
{
	(void)av_buf_printf(out, "%08" PRIx32 "-%" PRIu64, e->epoch, number);
}

int events_parse_id(const struct events *e, struct av_str id, uint64_t *ret_number, bool *ret_old)
{
	struct av_str digits = av_str_n(id.p, AV_MIN(id.n, (size_t)8));
	uint32_t epoch = 0;
	uint64_t number;

	if (id.n < 10 || id.p[8] != '-')
		return -EINVAL;
	for (size_t i = 0; i < digits.n; i++) {
		char c = digits.p[i];

		if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f'))
			return -EINVAL;
		epoch = epoch << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	if (av_parse_u64(av_str_n(id.p + 9, id.n - 9), 0, UINT64_MAX / 2, &number) < 0)
		return -EINVAL;
	*ret_number = number;
	*ret_old = epoch != e->epoch;
	return 0;
}

/* ---- as text ---- */

static void write_actor(struct av_buf *out, const struct control_event *ev)
{
	if (!ev->key_id) {
		(void)av_buf_append_c(out, ",\"actor\":{\"type\":\"system\"}");
		return;
	}
	(void)av_buf_printf(out, ",\"actor\":{\"type\":\"%s\",\"id\":",
	    av_id_valid(av_str_c(ev->key_id), AV_ID_USER) ? "user" : "api_key");
	(void)av_json_write_str(out, av_str_c(ev->key_id));
	if (ev->key_name) {
		(void)av_buf_append_c(out, ",\"name\":");
		(void)av_json_write_str(out, av_str_c(ev->key_name));
	}
	(void)av_buf_append_char(out, '}');
}

/* Strings by name, as the event needs them; the names of reasons are those that clients know. */
static void write_metadata(struct av_buf *out, const struct control_event *ev)
{
	const char *reason = ev->reason == SANDBOX_REASON_TIMEOUT ? "ttl_expired"
	                     : ev->by_request                     ? "auto_resume"
	                                                          : sandbox_reason_text(ev->reason);

	(void)av_buf_append_c(out, ",\"metadata\":{");
	if (ev->kind == CONTROL_EVENT_SANDBOX_STATE)
		(void)av_buf_printf(out, "\"from\":\"%s\",\"to\":\"%s\"%s", native_status(ev->from),
		    native_status(ev->sandbox->state), reason[0] ? "," : "");
	if (reason[0])
		(void)av_buf_printf(out, "\"reason\":\"%s\"", reason);
	(void)av_buf_append_char(out, '}');
}

static const char *resource_type(const struct control_event *ev)
{
	if (ev->kind == CONTROL_EVENT_HOST_UP || ev->kind == CONTROL_EVENT_HOST_DOWN)
		return "host";
	if (ev->kind == CONTROL_EVENT_CHANNEL_DISABLE)
		return "channel";
	return ev->sandbox ? "sandbox" : "snapshot";
}

static void write_event(struct av_buf *out, const struct control_event *ev)
{
	char at[32];

	av_rfc3339_ms(ev->at_ms, at);
	(void)av_buf_printf(out, "{\"event\":\"%s\"", kinds[ev->kind]);
	if (ev->kind != CONTROL_EVENT_SANDBOX_STATE)
		(void)av_buf_printf(out, ",\"outcome\":\"%s\"", ev->err ? "error" : "success");
	(void)av_buf_printf(out, ",\"timestamp\":\"%s\",\"team_id\":\"%s\"", at, ev->team_id);
	write_actor(out, ev);
	(void)av_buf_append_c(out, ",\"resource\":{\"id\":");
	(void)av_json_write_str(out, av_str_c(ev->resource_id));
	(void)av_buf_printf(out, ",\"type\":\"%s\"}", resource_type(ev));
	write_metadata(out, ev);
	if (ev->message) {
		(void)av_buf_append_c(out, ",\"message\":");
		(void)av_json_write_str(out, av_str_c(ev->message));
	}
	if (ev->err) {
		(void)av_buf_append_c(out, ",\"error\":");
		(void)av_json_write_str(out, av_str_c(ev->err->message));
	}
	if (ev->sandbox) {
		AV_CLEANUP(av_buf_clear) struct av_buf sb = AV_BUF_INIT(SANDBOX_TEXT_MAX);

		(void)native_write_sandbox(&sb, ev->sandbox);
		if (av_buf_error(&sb) == 0) {
			(void)av_buf_append_c(out, ",\"sandbox\":");
			(void)av_buf_append_str(out, av_buf_str(&sb));
		}
	}
	(void)av_buf_append_char(out, '}');
}

/* ---- streams ---- */

static struct event_team *team_get(struct events *e, const char *id)
{
	struct event_team *t = av_map_get(&e->teams, av_str_c(id));

	if (t)
		return t;
	t = calloc(1, sizeof(*t));
	if (!t || av_str_copy(t->id, sizeof(t->id), av_str_c(id)) < 0 ||
	    av_map_put(&e->teams, av_str_c(t->id), t) < 0) {
		free(t);
		return NULL;
	}
	event_ring_init(&t->ring);
	av_list_init(&t->by_use);
	av_list_init(&t->streams);
	return t;
}

const struct event_ring *events_ring(const struct event_stream *s)
{
	return &s->team->ring;
}

void events_again(struct events *e, struct event_stream *s)
{
	av_list_remove(&s->due);
	av_list_append(&e->due, &s->due);
	if (!av_timer_active(&e->turn))
		av_timer_start(&e->turn, 0);
}

static void on_turn(void *ctx)
{
	struct events *e = ctx;

	for (size_t i = 0; i < EVENTS_TURN && !av_list_empty(&e->due); i++) {
		struct event_stream *s = AV_LIST_FIRST(&e->due, struct event_stream, due);

		av_list_remove(&s->due);
		s->on_due(s);
	}
	if (!av_list_empty(&e->due))
		av_timer_start(&e->turn, 0);
}

int events_open(struct events *e, const char *team_id, struct event_stream *s, struct av_err *err)
{
	struct event_team *t = team_get(e, team_id);

	if (e->stopping)
		return av_err_set(err, AV_ERR_UNAVAILABLE, "Aviary is shutting down");
	if (!t)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (t->n_streams >= EVENTS_STREAMS_TEAM)
		return av_err_set(err, AV_ERR_RATE_LIMITED,
		    "%zu event streams of your team are open and %d are allowed; close some",
		    t->n_streams, EVENTS_STREAMS_TEAM);
	if (e->n_streams >= EVENTS_STREAMS_MAX)
		return av_err_set(err, AV_ERR_RATE_LIMITED,
		    "%zu event streams are open and this Aviary allows %d; try again later",
		    e->n_streams, EVENTS_STREAMS_MAX);
	s->team = t;
	av_list_init(&s->due);
	av_list_append(&t->streams, &s->link);
	t->n_streams++;
	e->n_streams++;
	e->api->metrics.event_streams++;
	return 0;
}

void events_close(struct events *e, struct event_stream *s)
{
	av_list_remove(&s->link);
	av_list_remove(&s->due);
	s->team->n_streams--;
	e->n_streams--;
	e->api->metrics.event_streams--;
}

/* ---- from control ---- */

/* Readers of a ring that is emptied are told of a gap, so those go last that have some. */
static void make_room(struct events *e, const struct event_team *but)
{
	struct event_team *t;

	for (int with_readers = 0; with_readers < 2; with_readers++)
		AV_LIST_FOREACH(t, &e->by_use, struct event_team, by_use)
		{
			if (e->bytes <= EVENTS_KEPT_BYTES)
				return;
			if (t == but || (t->n_streams > 0) != with_readers)
				continue;
			e->bytes -= event_ring_cost(&t->ring);
			event_ring_clear(&t->ring);
			av_list_remove(&t->by_use);
		}
}

static void on_event(void *ctx, const struct control_event *ev)
{
	AV_CLEANUP(av_buf_clear) struct av_buf json = AV_BUF_INIT(EVENT_TEXT_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(2 * EVENT_TEXT_MAX);
	struct events *e = ctx;
	struct event_team *t;
	struct event_stream *s;
	size_t before;

	/* The vocabulary of the dialect has one word for the two. */
	if (ev->kind == CONTROL_EVENT_SANDBOX_STATE &&
	    strcmp(native_status(ev->from), native_status(ev->sandbox->state)) == 0)
		return;
	if (!ev->team_id[0])
		return;
	t = team_get(e, ev->team_id);
	if (!t) {
		av_log(AV_LOG_WARN, "no memory to tell an event", "id", ev->resource_id, NULL);
		return;
	}
	before = event_ring_cost(&t->ring);
	write_event(&json, ev);
	(void)av_buf_append_c(&text, "id: ");
	events_write_id(e, &text, t->ring.next);
	(void)av_buf_printf(&text, "\nevent: %s\ndata: ", kinds[ev->kind]);
	/* Clients split lines at more than LF, some at U+2028 and U+0085: so none of those. */
	(void)av_json_write_ascii(&text, av_buf_str(&json));
	(void)av_buf_append_c(&text, "\n\n");
	if (av_buf_error(&json) < 0 || av_buf_error(&text) < 0) {
		av_log(AV_LOG_WARN, "no memory to tell an event", "id", ev->resource_id, NULL);
		event_ring_lose(&t->ring);
	} else {
		event_ring_push(
		    &t->ring, ev->kind, ev->sandbox ? ev->resource_id : "", av_buf_str(&text));
	}
	e->bytes = e->bytes - before + event_ring_cost(&t->ring);
	av_list_remove(&t->by_use);
	av_list_append(&e->by_use, &t->by_use);
	make_room(e, t);
	e->api->metrics.events++;
	AV_LIST_FOREACH(s, &t->streams, struct event_stream, link)
	if (av_list_empty(&s->due))
		events_again(e, s);
}

static void on_key_deleted(void *ctx, const char *key_id)
{
	struct events *e = ctx;
	struct event_team *t;
	struct event_stream *s;
	size_t pos = 0;

	while ((t = av_map_next(&e->teams, &pos)))
		AV_LIST_FOREACH(s, &t->streams, struct event_stream, link)
	if (strcmp(s->key_id, key_id) == 0)
		s->on_end(s, "the API key was deleted or has expired, or the session has ended");
}

static void on_stopping(void *ctx)
{
	struct events *e = ctx;
	struct event_team *t;
	struct event_stream *s;
	size_t pos = 0;

	e->stopping = true;
	while ((t = av_map_next(&e->teams, &pos)))
		AV_LIST_FOREACH(s, &t->streams, struct event_stream, link)
	s->on_end(s, "Aviary is shutting down; sandboxes go on running");
}

static const struct control_listener listener = {
    .on_event = on_event, .on_key_deleted = on_key_deleted, .on_stopping = on_stopping};

/* ---- life ---- */

int events_new(struct api *api, struct events **ret)
{
	struct events *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->api = api;
	av_map_init(&e->teams);
	av_list_init(&e->by_use);
	av_list_init(&e->due);
	av_timer_init(&e->turn, api->loop, on_turn, e);
	av_random(&e->epoch, sizeof(e->epoch));
	control_listen(api->control, &listener, e);
	*ret = e;
	return 0;
}

void events_free(struct events *e)
{
	struct event_team *t;
	size_t pos = 0;

	if (!e)
		return;
	assert(e->n_streams == 0);
	control_listen(e->api->control, NULL, NULL);
	av_timer_stop(&e->turn);
	while ((t = av_map_next(&e->teams, &pos))) {
		event_ring_clear(&t->ring);
		(void)av_map_remove(&e->teams, av_str_c(t->id));
		free(t);
	}
	av_map_clear(&e->teams);
	free(e);
}

void events_get_stats(const struct events *e, struct events_stats *ret)
{
	const struct event_team *t;
	size_t pos = 0;

	*ret = (struct events_stats){.streams = e->n_streams, .rings = e->teams.n};
	while ((t = av_map_next(&e->teams, &pos)))
		ret->kept += (size_t)(t->ring.next - t->ring.first);
	ret->bytes = e->bytes;
}
