/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.h - API keys: 40 random hex digits, valid behind each dialect's prefix, kept only as a hash
 *
 * A key acts for the user who made it, in one team, within its scopes (scopes.def), until it
 * expires, is deleted, or its maker leaves. Nobody makes a key that may more than themselves: no
 * scope that they lack, no end later than that of the key they show; and a key with a quota of its
 * own makes, changes and rotates none, as its quota would end there.
 *
 * Members see and delete their own keys; administrators and the owner of a team see, change and
 * delete all of it. Only the maker may rotate a key: the new secret acts for the maker.
 *
 * A key that is deleted, or whose end has come, is refused from then on and ends streams of events
 * that were opened with it (at an end in time: within 10 s); other conversations go on until they
 * end. Expired keys are listed for CONTROL_KEY_KEEP_MS and then forgotten.
 */
#pragma once

#include "control/quota.h"

#define CONTROL_KEYS_MAX         1000 /* of a team, expired ones included */
#define CONTROL_KEY_KEEP_MS      (30LL * 24 * 3600 * 1000)
#define CONTROL_KEY_GRACE_MAX_MS CONTROL_KEY_KEEP_MS
#define CONTROL_KEY_LIFE_MAX_MS  (3660LL * 24 * 3600 * 1000)
#define CONTROL_KEY_SCOPES_DEFAULT                                                                 \
	(CONTROL_SCOPE_SANDBOXES_READ | CONTROL_SCOPE_SANDBOXES_WRITE |                            \
	    CONTROL_SCOPE_TEMPLATES_READ | CONTROL_SCOPE_TEMPLATES_WRITE)

/* "av_", "wrn_", "e2b_" or "cw_" and the digits; constant time in the secret. Synchronous, from
 * memory. UNAUTHORIZED otherwise: -ENOKEY when nobody has it, with a message that does not tell
 * which part was wrong; -EACCES when it has expired or its maker left the team. FORBIDDEN when the
 * maker's account is not active. */
int control_key_verify(
    struct control *c, struct av_str presented, struct control_actor *ret, struct av_err *err);

struct control_key {
	const char *id;
	const char *team_id;
	const char *name;
	const char *prefix;        /* "av_" and the first digits, to recognise it by */
	const char *created_by;    /* user id */
	const char *creator_email; /* "": none */
	const char *scopes;        /* words between spaces; "*": all */
	struct control_quota quota;
	int64_t created_ms, last_used_ms, expires_ms; /* real time; 0: never */
	bool expired;
	const char *secret; /* only in the answer that made it; else NULL */
};
typedef void control_key_fn(void *ctx, const struct control_key *key, const struct av_err *err);

struct control_key_params {
	struct av_str name; /* empty: "Unnamed API Key" */
	uint32_t scopes;    /* 0: CONTROL_KEY_SCOPES_DEFAULT */
	int64_t expires_ms; /* real time; 0: never, or with the key that asks for it */
	struct control_quota_update quota;
};
/* FORBIDDEN: more than the asker has; QUOTA: CONTROL_KEYS_MAX. */
int control_key_create(struct control *c, const struct control_actor *a,
    const struct control_key_params *p, control_key_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* name NULL: it stays. NOT_FOUND: none that the asker sees. */
int control_key_update(struct control *c, const struct control_actor *a, const char *id,
    const struct av_str *name, const struct control_quota_update *quota, control_key_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err);
/* A new key that is like it and lasts as long; this one ends grace_ms from now, or when it would
 * have. Answers with the new one. INVALID_STATE: it has expired. */
int control_key_rotate(struct control *c, const struct control_actor *a, const char *id,
    int64_t grace_ms, control_key_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* Absent: fine. FORBIDDEN: another member's. A key that is deleted is refused from the answer on.
 */
int control_key_delete(struct control *c, const struct control_actor *a, const char *id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);

/* Calls fn once, before it returns. NOT_FOUND. */
void control_key_get(struct control *c, const struct control_actor *a, const char *id,
    control_key_fn *fn, void *ctx);
/* Those that the asker sees, newest first; fn is called once for each before the function returns.
 */
void control_key_each(
    struct control *c, const struct control_actor *a, control_key_fn *fn, void *ctx);
