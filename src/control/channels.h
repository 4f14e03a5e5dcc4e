/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channels.h - channels: a team is told of what happens, by signed webhooks or in a chat
 *
 * Theory of operation. An event is written in the transaction of the change that it tells of, as
 * one delivery for each channel of the team that wants it (store/channels.h). Each channel sends
 * its deliveries one after the other, in that order: the next one leaves when the one before has
 * arrived (an answer of 200 to 299) or was given up, so that what a receiver gets of a channel is
 * in order. A daemon that is killed goes on where it was: a delivery arrives at least once, always
 * under the same id.
 *
 * What does not arrive is tried again after 10 s, 30 s, 2, 10 and 30 minutes, 1 and 2 hours (or
 * later, up to an hour, when the receiver asks for it with Retry-After), then given up. A channel
 * to which nothing arrived for CHANNEL_FAILING_MS, or that answers 410 (gone), is disabled, what
 * waits is dropped, and its record says why; it is enabled again by changing its configuration or
 * with `enabled`. At most STORE_PENDING_MAX deliveries of a channel wait; one more drops the
 * oldest, which its record counts.
 *
 * Channels do not wait for each other, nor does anything else: at most CHANNEL_SENDING_MAX
 * deliveries are under way, CHANNEL_SENDING_TEAM of one team, each CHANNEL_TIMEOUT_MS at most.
 *
 * Secrets: every value of a configuration is sealed (XSalsa20-Poly1305) under a key derived from
 * this installation's, bound to the channel and its field; opened only to send; told to nobody but
 * whoever makes a webhook without a secret of their own, once.
 *
 * Attackers: members of a team, who write URLs (net/reach.h), and receivers, whose answers are
 * read up to CHANNEL_ANSWER_MAX bytes and told to nobody, not even to the team.
 */
#pragma once

#include <jansson.h>

#include "control/control.h"

#define CHANNELS_TEAM_MAX    32
#define CHANNELS_MAX         2000 /* of this Aviary */
#define CHANNEL_FAILING_MS   (24LL * 3600 * 1000)
#define CHANNEL_SENDING_MAX  48
#define CHANNEL_SENDING_TEAM 6
#define CHANNEL_TESTS_TEAM   2 /* under way */
#define CHANNEL_TIMEOUT_MS   10000
#define CHANNEL_ANSWER_MAX   4096

enum channel_provider {
#define CHANNEL_PROVIDER(name, text) CHANNEL_##name,
#include "control/channels.def"
#undef CHANNEL_PROVIDER
	CHANNEL_PROVIDERS
};
const char *channel_provider_text(enum channel_provider p);

/* Strings are borrowed until the callback returns. */
struct control_channel {
	const char *id, *team_id, *name, *provider;
	const char *events; /* between spaces, one at each end */
	const char *secret; /* only of a webhook that has just been made; else NULL */
	const char *disabled_reason;
	int64_t created_ms, updated_ms;
	int64_t disabled_ms, failing_ms, delivered_ms; /* 0: not */
	int64_t pending, dropped;
};
/* v is NULL with err. */
typedef void control_channels_fn(
    void *ctx, const struct control_channel *v, size_t n, const struct av_err *err);

struct control_delivery {
	const char *id, *event, *state, *error;
	int64_t seq, attempts, status;
	int64_t created_ms, last_ms, duration_ms, next_ms; /* next_ms 0: at once, or never */
};
typedef void control_deliveries_fn(
    void *ctx, const struct control_delivery *v, size_t n, const struct av_err *err);

/* What a request says; borrowed. */
struct channel_params {
	const char *name;     /* NULL: not said */
	const char *provider; /* NULL: not said */
	const json_t *config; /* an object of strings, or NULL */
	const json_t *events; /* an array of strings, or NULL */
	const bool *enabled;  /* NULL: not said */
};

/* All of these answer from the loop. Reading needs to belong to the team, changing the role admin:
 * FORBIDDEN. INVALID names the field; CONFLICT: the name is taken; QUOTA: CHANNELS_TEAM_MAX or
 * CHANNELS_MAX; INVALID_STATE: another change of the channel is under way. */

int control_channel_create(struct control *c, const struct control_actor *a,
    const struct channel_params *p, control_channels_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* id NULL: all of the team, oldest first; else that one. */
int control_channel_list(struct control *c, const struct control_actor *a, const char *id,
    control_channels_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* What is said changes: name, events, enabled; or config, as a whole, where a webhook without a
 * secret keeps the one it has, and which enables it. */
int control_channel_update(struct control *c, const struct control_actor *a, const char *id,
    const struct channel_params *p, control_channels_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
int control_channel_delete(struct control *c, const struct control_actor *a, const char *id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* Sends an event "channel.test" once, with provider and config of p. UPSTREAM and others when it
 * did not arrive. */
int control_channel_test(struct control *c, const struct control_actor *a,
    const struct channel_params *p, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* The newest first, older than the one with number before (0: from the newest on); limit 1 to 1000.
 */
int control_channel_deliveries(struct control *c, const struct control_actor *a, const char *id,
    int64_t before, size_t limit, control_deliveries_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* One that is over is sent again, under the same id, behind what waits. INVALID_STATE: it waits, or
 * the channel is disabled. */
int control_channel_redeliver(struct control *c, const struct control_actor *a, const char *id,
    const char *delivery, node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);

struct control_channel_stats {
	uint64_t channels, disabled, failing, waiting,
	    sending; /* now; waiting: channels with a delivery to send */
	uint64_t attempts, delivered, failed, given_up;
};
void control_channels_stats(const struct control *c, struct control_channel_stats *ret);
