/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.c - GET /v1/events and /v1/events/stream: what happens to the team's sandboxes, templates
 * and channels, as it happens
 *
 * Theory of operation. The answer is a text/event-stream without an end (WHATWG HTML, server-sent
 * events), or, where the request is a handshake, a WebSocket (events_ws.c) with the same messages.
 * First comes `connected`, then each event as the hub (api/events.h) has it; every
 * KEEPALIVE_MS a comment, with the id up to which everything was looked at. A reader that comes
 * back with Last-Event-ID goes on behind that event, as long as the ring has it. Where something is
 * missing, because it was away or slow for too long or Aviary was restarted, there is one `gap`.
 *
 * A reader that is slow has at most WAITING_MAX bytes waiting here and catches up from the ring;
 * one that reads nothing of what waits is cut off by the server's write time-out. The last message
 * is `end`, when the key is deleted, its maker or the user leaves the team, or Aviary stops.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "api/auth.h"
#include "api/events.h"
#include "api/native/followers.h"
#include "api/request.h"
#include "base/avtime.h"
#include "base/ids.h"
#include "control/accounts.h"
#include "base/banned.h"

#define KEEPALIVE_MS 15000
#define RETRY_MS     2000 /* after which a browser comes back */
#define WAITING_MAX  (64 * 1024)
#define TURN_BYTES   ((size_t)256 * 1024)

static struct events *hub(const struct follower *f)
{
	return f->api->events;
}

static struct follower *to_follower(struct event_stream *s)
{
	return AV_CONTAINER_OF(s, struct follower, stream);
}

/* ---- to the client ---- */

static void put(struct follower *f, struct av_str text)
{
	if (!f->over && f->put(f, text) > 0)
		f->blocked = true;
}

static int put_sse(struct follower *f, struct av_str text)
{
	int r = av_res_write(f->rq->req, text);

	if (r >= 0)
		return r;
	f->over = true;
	av_res_abort(f->rq->req); /* on_gone follows from the loop */
	return 0;
}

static void finish_sse(struct follower *f)
{
	(void)av_res_end(f->rq->req);
}

/* A message of the stream itself: it has no member "event", as clients know only those of things
 * that happen. members begins with a comma. */
static void put_message(
    struct follower *f, const char *event, const char *members, const char *message)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1024);
	char at[32];

	av_rfc3339_ms(av_real_ms(), at);
	(void)av_buf_append_c(&out, "id: ");
	events_write_id(hub(f), &out, f->next - 1);
	(void)av_buf_printf(&out, "\nevent: %s\ndata: {\"timestamp\":\"%s\"%s", event, at, members);
	if (message) {
		(void)av_buf_append_c(&out, ",\"message\":");
		(void)av_json_write_str(&out, av_str_c(message));
	}
	(void)av_buf_append_c(&out, "}\n\n");
	put(f, av_buf_str(&out));
}

static void put_gap(struct follower *f, uint64_t first)
{
	char members[48] = "";

	if (!f->old)
		(void)snprintf(members, sizeof(members), ",\"dropped\":%" PRIu64, first - f->next);
	f->next = first;
	f->api->metrics.event_gaps++;
	put_message(f, "gap", members,
	    f->old
	        ? "Aviary was restarted, and what happened before is not kept; list what there is"
	        : "more has happened than is kept; list what there is");
	f->old = false;
}

static bool wanted(const struct follower *f, const struct event_item *it)
{
	if (!(f->kinds & 1u << it->kind))
		return false;
	for (size_t i = 0; i < f->n_ids; i++)
		if (strcmp(f->ids[i], it->about) == 0)
			return true;
	return f->n_ids == 0;
}

static void on_due(struct event_stream *s)
{
	struct follower *f = to_follower(s);
	const struct event_ring *ring = events_ring(s);
	const struct event_item *it;
	size_t sent = 0;

	if (f->over)
		return;
	if ((f->old || f->next < ring->first) && !f->blocked)
		put_gap(f, ring->first);
	while (
	    !f->blocked && !f->over && sent < TURN_BYTES && (it = event_ring_get(ring, f->next))) {
		f->next++;
		if (!wanted(f, it))
			continue;
		put(f, av_str_n(it->text, it->n));
		sent += it->n;
	}
	if (sent >= TURN_BYTES && !f->blocked && !f->over)
		events_again(hub(f), s);
}

static void on_end(struct event_stream *s, const char *why)
{
	struct follower *f = to_follower(s);

	if (f->over)
		return;
	put_message(f, "end", "", why);
	if (f->over)
		return;
	f->over = true;
	f->finish(f);
}

static bool may_follow(const struct follower *f)
{
	struct control_member m;

	return control_member_get(f->api->control, f->actor.team_id, f->actor.user_id, &m) &&
	       strcmp(m.user.status, "active") == 0;
}

static void on_keepalive(void *ctx)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(128);
	struct follower *f = ctx;

	av_timer_start(&f->keepalive, KEEPALIVE_MS);
	if (!may_follow(f)) {
		on_end(
		    &f->stream, "whoever opened the stream does not belong to the team any more");
		return;
	}
	if (f->blocked || f->over)
		return;
	(void)av_buf_append_c(&out, ": keepalive\nid: ");
	events_write_id(hub(f), &out, f->next - 1);
	(void)av_buf_append_c(&out, "\n\n");
	put(f, av_buf_str(&out));
}

void follower_drained(struct follower *f)
{
	f->blocked = false;
	on_due(&f->stream);
}

void follower_close(struct follower *f)
{
	av_timer_stop(&f->keepalive);
	if (f->open)
		events_close(hub(f), &f->stream);
	f->open = false;
}

static void follower_drain(struct api_request *rq)
{
	follower_drained(rq->state);
}

static void follower_gone(struct api_request *rq, int status)
{
	struct follower *f = rq->state;

	(void)status;
	follower_close(f);
	free(f);
}

/* ---- the request ---- */

static int parse_kinds(struct api_request *rq, uint32_t *ret, struct av_err *err)
{
	struct av_str rest = api_query_string(rq);
	uint32_t kinds = 0;

	for (;;) {
		AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(64);
		AV_CLEANUP(av_buf_clear) struct av_buf names = AV_BUF_INIT(512);
		enum control_event_kind kind;
		int r = api_query_next(&rest, "event", &text, err);

		if (r == -ENOENT)
			break;
		if (r < 0)
			return r;
		kind = events_kind_parse(av_buf_str(&text));
		if (kind < CONTROL_EVENT_COUNT) {
			kinds |= 1u << kind;
			continue;
		}
		for (int k = 0; k < CONTROL_EVENT_COUNT; k++)
			(void)av_buf_printf(&names, "%s%s", k ? ", " : "",
			    events_kind_text((enum control_event_kind)k));
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'event' must be one of %.*s", AV_STR_ARG(av_buf_str(&names)));
	}
	*ret = kinds ? kinds : UINT32_MAX;
	return 0;
}

static int parse_ids(struct api_request *rq, struct follower *f, struct av_err *err)
{
	struct av_str rest = api_query_string(rq);

	for (;;) {
		AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(64);
		int r = api_query_next(&rest, "sandbox_id", &text, err);

		if (r == -ENOENT)
			return 0;
		if (r < 0)
			return r;
		if (f->n_ids == FOLLOWER_IDS_MAX)
			return av_err_set(err, AV_ERR_INVALID,
			    "query parameter 'sandbox_id' may come %d times; without it the events "
			    "of "
			    "all sandboxes are sent",
			    FOLLOWER_IDS_MAX);
		if (!av_id_valid(av_buf_str(&text), AV_ID_SANDBOX))
			return av_err_set(err, AV_ERR_INVALID,
			    "query parameter 'sandbox_id' must be the id of a sandbox");
		memcpy(f->ids[f->n_ids++], text.p + text.off, AV_ID_LEN);
	}
}

/* The header, or a parameter, as browsers can set no header of a WebSocket. */
static int parse_last_id(struct api_request *rq, struct follower *f, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(sizeof(f->last_id) - 1);
	struct av_str id = {0};
	int r;

	if (!av_req_header(rq->req, "last-event-id", &id) || id.n == 0) {
		r = api_query(rq, "last_event_id", &text, err);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
		id = av_buf_str(&text);
	}
	if (av_str_copy(f->last_id, sizeof(f->last_id), id) < 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "Last-Event-ID is too long to be the id of an event");
	return 0;
}

/* Where to go on. The stream is open. */
static int find_last(struct follower *f, struct av_err *err)
{
	const struct event_ring *ring = events_ring(&f->stream);

	f->next = ring->next;
	if (!f->last_id[0])
		return 0;
	if (events_parse_id(hub(f), av_str_c(f->last_id), &f->next, &f->old) < 0 ||
	    (!f->old && f->next >= ring->next))
		return av_err_set(err, AV_ERR_INVALID,
		    "Last-Event-ID must be the id of an event of this stream, as its line 'id:' "
		    "said; "
		    "leave it out to begin with what happens from now on");
	f->next = f->old ? ring->first : f->next + 1;
	return 0;
}

int follower_parse(struct follower *f, struct api_request *rq, struct av_err *err)
{
	int r = parse_kinds(rq, &f->kinds, err);

	if (r == 0)
		r = parse_ids(rq, f, err);
	if (r == 0)
		r = parse_last_id(rq, f, err);
	return r;
}

int follower_open(struct follower *f, struct av_err *err)
{
	int r;

	f->stream.on_due = on_due;
	f->stream.on_end = on_end;
	memcpy(
	    f->stream.key_id, f->actor.key_id[0] ? f->actor.key_id : f->actor.user_id, AV_ID_SIZE);
	av_timer_init(&f->keepalive, f->api->loop, on_keepalive, f);
	r = events_open(hub(f), f->actor.team_id, &f->stream, err);
	if (r < 0)
		return r;
	f->open = true;
	r = find_last(f, err);
	if (r < 0)
		follower_close(f);
	return r;
}

void follower_start(struct follower *f)
{
	put_message(f, "connected", ",\"event\":\"connected\"", NULL);
	av_timer_start(&f->keepalive, KEEPALIVE_MS);
	events_again(hub(f), &f->stream);
}

static void start_sse(struct follower *f)
{
	const struct av_http_header headers[] = {
	    {.name = AV_STR("content-type"), .value = AV_STR("text/event-stream")},
	    {.name = AV_STR("cache-control"), .value = AV_STR("no-store")},
	    {.name = AV_STR("x-accel-buffering"), .value = AV_STR("no")},
	};
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(64);
	struct api_request *rq = f->rq;

	rq->lasting = true;
	av_res_set_watermark(rq->req, WAITING_MAX);
	api_started(rq, 200);
	(void)av_res_start(rq->req, 200, headers, AV_ARRAY_LEN(headers), -1);
	(void)av_buf_printf(&out, "retry: %d\n", RETRY_MS);
	put(f, av_buf_str(&out));
	follower_start(f);
}

void native_events(struct api_request *rq)
{
	struct follower *f = calloc(1, sizeof(*f));
	struct av_err err;
	int r;

	if (!f) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return;
	}
	*f = (struct follower){
	    .api = rq->api, .rq = rq, .actor = rq->actor, .put = put_sse, .finish = finish_sse};
	r = follower_parse(f, rq, &err);
	if (r == 0)
		r = follower_open(f, &err);
	if (r < 0) {
		free(f);
		api_send_err(rq, &err);
		return;
	}
	rq->state = f;
	rq->on_gone = follower_gone;
	rq->on_drain = follower_drain;
	start_sse(f);
}

void native_events_any(struct api_request *rq)
{
	struct av_err err;

	if (av_req_is_websocket(rq->req))
		native_events_socket(rq);
	else if (api_authenticate(rq, &err) < 0)
		api_send_err(rq, &err);
	else
		native_events(rq);
}
