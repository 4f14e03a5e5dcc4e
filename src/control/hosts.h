/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts.h - machines that run sandboxes: records, tokens, who is heard of
 *
 * Theory of operation. The machine that this Aviary runs on is a host of type "regular" that
 * registers itself; all sandboxes are on it. Others can be recorded, registered with a token that
 * is good once and for an hour, and keep in touch by heartbeats; nothing is placed on them yet, and
 * who asks for that is told so (UNSUPPORTED). States:
 *
 *   pending ─register→ online ⇄ unreachable (HOST_SILENCE_S without a heartbeat)
 *      ↑                  │
 *      └─────revoked──────┘
 *
 * The local one is online while its worker is connected, else offline. Time since a heartbeat is
 * measured on the boot-time clock, and begins anew when Aviary starts.
 *
 * Tokens. A host's own token is a JSON Web Token (typ "host", HOST_TOKEN_S) under a key of its own,
 * so that it is none of a user and none of a user's is one of a host. A refresh token is 32
 * hexadecimal digits that name a family and 32 that are secret; each is good once, for the next of
 * both. One of the family that is not the last one has been used before: then somebody has a copy,
 * all tokens of the host are void, and it is pending again until an administrator makes a new
 * registration token.
 *
 * Who: type "regular" is for administrators of this Aviary; "byoc" belongs to a team and is for its
 * owner and admins, and for administrators of this Aviary. Members see the hosts of their team.
 */
#pragma once

#include "base/buf.h"
#include "control/control.h"

#define HOSTS_MAX           1000
#define HOSTS_TEAM_MAX      64
#define HOST_TAGS_MAX       32
#define HOST_TAG_MAX        64 /* visible ASCII characters, no comma */
#define HOST_TEXT_MAX       128
#define HOST_SILENCE_S      90
#define HOST_TOKEN_S        (7 * 24 * 3600)
#define HOST_REGISTRATION_S 3600
#define HOST_REFRESH_S      (60LL * 24 * 3600)
#define HOST_SECRET_SIZE    65 /* 64 hexadecimal digits and NUL */

/* Borrowed until the next callback of control. Empty strings and 0: not known, or none. */
struct control_host {
	const char *id, *type, *status;
	const char *team_id, *team_name;
	const char *provider, *zone, *arch, *address, *created_by;
	const char *tags; /* in order, between commas */
	int64_t cpu_cores, memory_mb, disk_gb;
	int64_t heartbeat_ms, created_ms, updated_ms;
	bool is_local;
};

/* Shown once. */
struct control_host_tokens {
	const char *registration; /* NULL: none was made, as the others */
	const char *token, *refresh;
};
typedef void control_host_fn(void *ctx, const struct control_host *h,
    const struct control_host_tokens *t, const struct av_err *err);

/* ---- looking ---- */

/* NOT_FOUND: there is none, or it is not for this actor. INVALID: that is no id. */
int control_host_get(const struct control *c, const struct control_actor *a, const char *id,
    struct control_host *ret, struct av_err *err);
/* Those that the actor sees, oldest first. */
void control_host_each(const struct control *c, const struct control_actor *a,
    void (*fn)(void *ctx, const struct control_host *h), void *ctx);
/* Sandboxes that keep a host from being deleted: all but paused ones. For who may delete it:
 * FORBIDDEN, NOT_FOUND, INVALID. */
int control_host_sandboxes(const struct control *c, const struct control_actor *a, const char *id,
    void (*fn)(void *ctx, const char *sandbox_id), void *ctx, struct av_err *err);
/* Whether a sandbox can be placed on the host that a request names: only on the local one.
 * UNSUPPORTED, NOT_FOUND, INVALID. */
int control_host_placement(
    const struct control *c, const struct control_actor *a, const char *id, struct av_err *err);

/* ---- changes ---- */

/* Borrowed for the call; NULL: not given. */
struct control_host_params {
	const char *type, *team_id, *provider, *zone;
};
/* With a registration token. */
int control_host_create(struct control *c, const struct control_actor *a,
    const struct control_host_params *p, control_host_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* Another registration token, which voids the one of before. INVALID: it is not pending. */
int control_host_token(struct control *c, const struct control_actor *a, const char *id,
    control_host_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* Its record and tokens are gone. The local one cannot be deleted: HOST_BUSY while sandboxes are on
 * it (unless forced), else INVALID_STATE. */
int control_host_delete(struct control *c, const struct control_actor *a, const char *id,
    bool force, control_host_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* Both idempotent. */
int control_host_tag(struct control *c, const struct control_actor *a, const char *id,
    const char *tag, bool add, control_host_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);

/* ---- of the host itself ---- */

struct control_host_facts {
	const char *address, *arch; /* arch NULL: not given */
	int64_t cpu_cores, memory_mb, disk_gb;
};
/* UNAUTHORIZED: no such token, or expired; NOT_FOUND: it was used already. */
int control_host_register(struct control *c, const char *token, const struct control_host_facts *f,
    control_host_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* UNAUTHORIZED: no such token, expired, or used already. */
int control_host_refresh(struct control *c, const char *token, control_host_fn *fn, void *ctx,
    struct node_call **ret, struct av_err *err);
/* Whose token it is; the host may have been deleted. UNAUTHORIZED. Constant time in the signature.
 */
int control_host_verify(const struct control *c, struct av_str token,
    char ret_id[static AV_ID_SIZE], struct av_err *err);
/* Synchronous. NOT_FOUND: it was deleted. */
int control_host_heartbeat(struct control *c, const char *id, struct av_err *err);

/* Where the local host serves, "ip:port"; once it does. */
void control_host_set_address(struct control *c, const char *address);
