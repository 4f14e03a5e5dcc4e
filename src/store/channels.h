/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channels.h - channels of teams, and events that wait to be told to them, as the store keeps them
 *
 * Rules of store.h. An event is written together with what it tells: store_announce() attaches it
 * to the next request, and both are in one savepoint, so that a daemon that is killed has either
 * both or neither. Each channel of the team that wants the event and is not disabled gets a
 * delivery of its own. A channel holds STORE_PENDING_MAX waiting ones at most; one more drops the
 * oldest, which is counted.
 */
#pragma once

#include "store/store.h"

#define STORE_PENDING_MAX       1000 /* deliveries of a channel that wait */
#define STORE_LOG_MAX           500  /* those that are over, about */
#define STORE_CHANNEL_NAME_SIZE 72
#define STORE_EVENTS_SIZE       512
#define STORE_EVENT_SIZE        40
#define STORE_UUID_SIZE         40

struct store_channel {
	char id[AV_ID_SIZE];
	char team_id[AV_ID_SIZE];
	char name[STORE_CHANNEL_NAME_SIZE];
	char provider[16];
	char events[STORE_EVENTS_SIZE]; /* " a b " */
	char disabled_reason[256];
	int64_t created_ms, updated_ms;
	int64_t disabled_ms, failing_ms, delivered_ms; /* real time; 0: not */
	int64_t dropped, pending;
	const char *config; /* JSON, its values sealed */
};
typedef void store_channels_fn(
    void *ctx, const struct store_channel *v, size_t n, const struct av_err *err);
/* Oldest first. team_id NULL: of every team. */
int store_channel_list(struct store *s, const char *team_id, store_channels_fn *fn, void *ctx);
/* CONFLICT when the team has one of that name. */
int store_channel_insert(
    struct store *s, const struct store_channel *rec, store_done_fn *fn, void *ctx);
/* Writes name, events, config, updated_ms, disabled_ms and disabled_reason; pending and those after
 * are not looked at. When it is disabled what is pending is dropped; when it was and is not any
 * more failing_ms becomes 0. CONFLICT as above; NOT_FOUND. */
int store_channel_update(
    struct store *s, const struct store_channel *rec, store_done_fn *fn, void *ctx);
/* With its deliveries. Absent: fine. */
int store_channel_delete(struct store *s, const char *id, store_done_fn *fn, void *ctx);

#define STORE_NOTICES_MAX 4 /* with one request */

struct store_notice {
	const char *team_id;
	const char *event; /* under STORE_EVENT_SIZE bytes */
	const char *body;
	int64_t at_ms;
};
/* Written with the next request that is made of this store, whichever it is, if that succeeds;
 * copied. May be called several times for one request. With too little
 * memory the next request fails instead. NULL: none of what was given goes with the next one. */
void store_announce(struct store *s, const struct store_notice *notice);
/* What there is no other record of. fn may be NULL. */
int store_notice_put(
    struct store *s, const struct store_notice *notice, store_done_fn *fn, void *ctx);

struct store_delivery {
	int64_t seq;
	char channel_id[AV_ID_SIZE];
	char id[STORE_UUID_SIZE];
	char event[STORE_EVENT_SIZE];
	char state[12];
	char error[256];
	int64_t attempts, tries;
	int64_t created_ms, next_ms, last_ms, duration_ms;
	int64_t status;
	const char *body; /* of the next pending one; else NULL */
};
typedef void store_deliveries_fn(
    void *ctx, const struct store_delivery *v, size_t n, const struct av_err *err);
/* The first that is pending, if any (n is 0 or 1). */
int store_delivery_next(
    struct store *s, const char *channel_id, store_deliveries_fn *fn, void *ctx);
/* Writes state, error, attempts, tries, next_ms, last_ms, duration_ms, status of the one with this
 * channel and id, and the channel's failing_ms and (state "delivered") delivered_ms; answers as
 * store_delivery_next. */
int store_delivery_finish(struct store *s, const struct store_delivery *d, int64_t failing_ms,
    store_deliveries_fn *fn, void *ctx);
/* At most limit (1 to 1000) older than before_seq, newest first. */
int store_delivery_page(struct store *s, const char *channel_id, int64_t before_seq, size_t limit,
    store_deliveries_fn *fn, void *ctx);
/* One that is over waits again, behind all that wait. NOT_FOUND; INVALID_STATE when it waits. */
int store_delivery_again(
    struct store *s, const char *channel_id, const char *id, store_done_fn *fn, void *ctx);
