/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.h - what happens to the sandboxes of each team, kept for a while and handed to streams
 *
 * Theory of operation. control tells each event once (control/events.h). It is written as text at
 * once, into the ring of its team, and the streams of that team become due: their on_due is called
 * by the loop, at most EVENTS_TURN of them in one turn, never from inside control. A stream has no
 * queue; it is a number in the ring. Who falls behind by more than the ring holds has missed
 * something, and is told so.
 *
 * Nothing is on disk: after a restart the ring is empty. Ids of events therefore begin with a
 * number of this daemon's, so that one of the former daemon's is recognised.
 *
 * Attacker: whoever has a key. Streams are bounded for each team and in all, what is kept is
 * bounded for each team (event_ring.h), so that a team cannot push out what others want to read.
 */
#pragma once

#include "api/event_ring.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "control/events.h"
#include "net/loop.h"

#define EVENTS_STREAMS_TEAM 64
#define EVENTS_STREAMS_MAX  512
#define EVENTS_TURN         32
/* Of all teams together; beyond it those go whose team was quiet for longest. */
#define EVENTS_KEPT_BYTES ((size_t)32 << 20)

struct api;
struct events;
struct event_team;

/* Embedded in what the handler has. */
struct event_stream {
	struct av_list link, due; /* of its team; of those to be called */
	struct event_team *team;
	char key_id[AV_ID_SIZE]; /* of the key that was shown, or of the user whose session was */
	/* There may be something to read. May call events_again and events_close. */
	void (*on_due)(struct event_stream *s);
	/* It must end; why is text for people. events_close may be called. */
	void (*on_end)(struct event_stream *s, const char *why);
};

/* Listens to the api's control until events_free. -ENOMEM. */
int events_new(struct api *api, struct events **ret);
/* No stream may be left. NULL is fine. */
void events_free(struct events *e);

/* key_id, on_due and on_end must be set. RATE_LIMITED naming the bound, UNAVAILABLE while stopping,
 * NO_MEMORY. */
int events_open(struct events *e, const char *team_id, struct event_stream *s, struct av_err *err);
void events_close(struct events *e, struct event_stream *s);
/* on_due in the next turn, or the one after. */
void events_again(struct events *e, struct event_stream *s);
const struct event_ring *events_ring(const struct event_stream *s);

struct events_stats {
	size_t streams; /* open */
	size_t rings;   /* one for each team of which something happened or was asked */
	size_t kept, bytes;
};
void events_get_stats(const struct events *e, struct events_stats *ret);

/* The id of an event: "1a2b3c4d-17". */
void events_write_id(const struct events *e, struct av_buf *out, uint64_t number);
/* -EINVAL: no such id. *ret_old: of a former daemon, whose numbers mean nothing now. */
int events_parse_id(const struct events *e, struct av_str id, uint64_t *ret_number, bool *ret_old);

/* "capsule.create"; CONTROL_EVENT_COUNT when there is none of that name. */
const char *events_kind_text(enum control_event_kind kind);
enum control_event_kind events_kind_parse(struct av_str text);
