/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.h - what happens to the sandboxes, templates and channels of a team, as it happens
 *
 *     aviary_events *events = aviary_client_events(c, NULL);
 *     const aviary_news *news;
 *
 *     while (aviary_events_next(events, &news, -1) > 0)
 *             if (news->event)
 *                     printf("%s %s\n", news->event->event_text, news->event->resource->id);
 *     aviary_events_free(events);
 *
 * When the connection breaks, another one is made, which goes on behind the last event; what was
 * missed meanwhile comes first, or news of the kind AVIARY_NEWS_GAP say that something is missing.
 * What happens is told once, in the order in which it happened. A reader that is slow is
 * waited for: 256 events are kept here, the rest by the server as long as it has room.
 */
#ifndef AVIARY_EVENTS_H
#define AVIARY_EVENTS_H

#include <aviary/models.h>
#include <aviary/sandbox.h>

AVIARY_BEGIN_DECLS

enum aviary_news_kind {
	AVIARY_NEWS_EVENT,
	AVIARY_NEWS_GAP, /* events are missing before the next one: message, dropped */
	AVIARY_NEWS_END  /* the server ends the connection: message; it is tried again */
};

typedef struct aviary_news {
	enum aviary_news_kind kind;
	const aviary_event *event; /* NULL in the other kinds */
	const char *message;       /* why, in words; "" for an event */
	int64_t dropped;           /* of a gap: how many; -1: nobody knows */
	const char *id;            /* for aviary_events_options.last_id */
	const char *json;          /* what the server said, an object on one line */
} aviary_news;

typedef struct aviary_events_options {
	size_t struct_size;
	aviary_strings names;       /* only these, as "capsule.destroy"; none: all */
	aviary_strings sandbox_ids; /* only about these; none: all */
	const char *last_id; /* go on behind this event; NULL: with what happens from now on */
	/* How long another connection is tried for after one that was there broke: default 5 min;
	 * -1: not at all. The first one has the client's retry budget. */
	int64_t patience_ms;
} aviary_events_options;
#define AVIARY_EVENTS_OPTIONS_INIT AVIARY_INITIAL(aviary_events_options)

typedef struct aviary_events aviary_events;

/* Begins to follow; options (may be NULL) are copied. NULL: no memory. Does not block. */
AVIARY_API aviary_events *aviary_client_events(
    aviary_client *c, const aviary_events_options *options);
/* Nothing comes any more. NULL is fine. */
AVIARY_API void aviary_events_free(aviary_events *events);

/* The next news: 1 and *ret, which is valid until the next call; AVIARY_E_AGAIN when there was none
 * within timeout_ms (-1: without end); after the last one the code of aviary_events_op, never 0.
 * Drives the client as aviary_op_wait does; AVIARY_E_STATE from inside a callback when there is
 * nothing to take. One thread at a time. */
AVIARY_API int aviary_events_next(
    aviary_events *events, const aviary_news **ret, int64_t timeout_ms);
/* Called instead, from where operations are driven, with all news, also those that wait already;
 * they are valid during the call. It may free events. fn NULL: none any more. */
typedef void aviary_news_fn(void *ctx, aviary_events *events, const aviary_news *news);
AVIARY_API void aviary_events_on_event(aviary_events *events, aviary_news_fn *fn, void *ctx);

/* Borrowed: lives with events. It never succeeds: it fails with why nothing comes any more, with
 * AVIARY_E_CANCELED after aviary_op_cancel. */
AVIARY_API aviary_op *aviary_events_op(aviary_events *events);

AVIARY_END_DECLS
#endif
