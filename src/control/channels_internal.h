/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channels_internal.h - only for src/control/(*.c): channels in memory, and what they send
 */
#pragma once

#include "base/buf.h"
#include "control/channels.h"
#include "control/control_internal.h"
#include "control/outbound.h"
#include "store/channels.h"

enum channel_step {
	CHANNEL_IDLE,
	CHANNEL_LOADING,    /* the store is asked for the next delivery */
	CHANNEL_WAITING,    /* ... which is due at next_ns */
	CHANNEL_SENDING,    /* ... and under way */
	CHANNEL_RECORDING,  /* the store is told what became of it */
	CHANNEL_UNRECORDED, /* ... which it could not take; again at next_ns */
};

struct channel {
	struct store_channel
	    rec; /* as committed; config is owned. pending is not kept up to date, nor is dropped */
	enum channel_provider provider;
	struct av_list link; /* c->channels.all */
	struct control *c;
	enum channel_step step;
	bool more;                 /* the store may have something to send */
	bool changing;             /* its record is being written */
	bool gone;                 /* deleted: freed when the store and the network have let go */
	bool gone_for_good;        /* the receiver said so (410) */
	struct store_delivery now; /* of the steps after LOADING; body is owned */
	int64_t next_ns;           /* boot time */
	struct control_outbound_call *call; /* SENDING */
};

/* One message, ready to be sent; everything is owned and wiped by message_clear. */
struct message {
	struct av_buf url, body;
	struct av_buf texts; /* of the headers */
	const char *method;
	size_t n_headers;
	struct control_http_header headers[12];
	bool guarded;
};

/* ---- channel_config.c ---- */

/* CHANNEL_PROVIDERS with *err when it is none. */
enum channel_provider channel_provider_parse(const char *text, struct av_err *err);
/* Checks config and writes it sealed as JSON (*ret, owned). A webhook without a secret gets
 * former's (a sealed configuration, or NULL) or a new one, which is written into secret if that is
 * not NULL. INVALID or FORBIDDEN naming the field. */
int channel_config_seal(struct control *c, const char *channel_id, enum channel_provider p,
    const json_t *config, const char *former, char *secret, char **ret, struct av_err *err);
/* An object of texts; wipe it with channel_config_wipe. INTERNAL when it cannot be opened. */
int channel_config_open(struct control *c, const char *channel_id, const char *sealed, json_t **ret,
    struct av_err *err);
void channel_config_wipe(json_t *config);
/* Cleans it up and checks it. INVALID. */
int channel_name_take(
    const char *name, char ret[static STORE_CHANNEL_NAME_SIZE], struct av_err *err);
int channel_events_take(
    const json_t *events, char ret[static STORE_EVENTS_SIZE], struct av_err *err);

#define CHANNEL_SECRET_SIZE 65 /* 64 digits */

/* ---- channel_message.c ---- */

/* What a delivery says to everybody: actor_id a key's, a user's, or empty; reason may be NULL. */
void channel_write_payload(struct control *c, struct av_buf *out, const char *event,
    const char *team_id, const char *type, const char *resource_id, const char *actor_id,
    const char *reason);
/* -ENOMEM, -EINVAL: what the configuration says cannot be used. payload is NUL-terminated. */
int message_make(struct control *c, enum channel_provider p, const json_t *config,
    const char *delivery_id, const char *event, const char *payload, struct message *ret);
int message_send(struct control *c, const struct message *m, control_http_fn *fn, void *ctx,
    struct control_outbound_call **ret, struct av_err *err);
void message_clear(struct message *m);

/* ---- channel_queue.c ---- */

/* It may have something to send, or something has changed. */
void channel_poke(struct channel *ch);
/* It is out of the list and sends nothing; freed now or when the store has answered. */
void channel_drop(struct channel *ch);
void channel_free(struct channel *ch);
/* It is disabled now, and what waited is dropped. */
void channel_rest(struct channel *ch);

/* ---- channels.c ---- */

#define ID_CHANNEL          "ch"
#define CHANNEL_PAYLOAD_MAX ((size_t)8 * 1024)

/* Takes rec's config over on success. ret may be NULL. -ENOMEM. */
int channel_add(struct control *c, struct store_channel *rec, struct channel **ret);
/* Of that team; NULL. */
struct channel *channel_find(struct control *c, const char *team_id, const char *id);
/* INVALID: no id of a channel; NOT_FOUND. */
int channel_not_there(const char *id, struct av_err *err);

/* Writes it as disabled. */
void channel_disable(struct channel *ch, const char *reason);

/* ---- channel_ops.c ---- */

/* Frees who still waits. */
void channel_ops_clear(struct control *c);
