/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.h - API keys: 40 random hex digits, valid behind each dialect's prefix, kept only as a hash
 */
#pragma once

#include "control/control.h"

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
	const char *prefix;               /* "av_" and the first digits, to recognise it by */
	const char *created_by;           /* user id */
	int64_t created_ms, last_used_ms; /* real time; last_used 0: never */
	const char *secret;               /* only in the answer that made it; else NULL */
};
typedef void control_key_fn(void *ctx, const struct control_key *key, const struct av_err *err);

/* name NULL or "": "Unnamed API Key". */
int control_key_create(struct control *c, const struct control_actor *a, struct av_str name,
    control_key_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* The team's keys, newest first; fn is called once for each before the function returns. */
void control_key_each(
    struct control *c, const struct control_actor *a, control_key_fn *fn, void *ctx);
/* Absent: fine. A key that is deleted is refused from the answer on. */
int control_key_delete(struct control *c, const struct control_actor *a, const char *id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
