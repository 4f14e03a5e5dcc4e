/* SPDX-License-Identifier: Apache-2.0 */
/*
 * accounts.h - users, teams and who belongs to which; sessions
 *
 * All accounts are in memory, mirrored from the store: looking is synchronous. Changes take their
 * turn, one after the other: each sees what those before it have made true, so that no rule can be
 * broken by two at once.
 */
#pragma once

#include "base/buf.h"
#include "control/quota.h"

#define CONTROL_USERS_MAX        100000 /* of this Aviary */
#define CONTROL_TEAMS_OWNED_MAX  16     /* by one user */
#define CONTROL_TEAMS_JOINED_MAX 64     /* by one user */
#define CONTROL_MEMBERS_MAX      1000   /* of a team */
#define CONTROL_UNACTIVATED_MAX  1000   /* accounts that wait for activation */
#define CONTROL_PASSWORD_MIN     8      /* bytes */
#define CONTROL_PASSWORD_MAX     1024

/* "owner", "admin", "member"; NULL for NONE. */
const char *control_role_text(enum control_role role);
/* NONE when it is none of them. */
enum control_role control_role_parse(struct av_str text);

/* ---- scopes ---- */

/* "sandboxes:read"; one bit of enum control_scope. */
const char *control_scope_text(uint32_t scope);
/* Writes them as words between spaces, "*" when all. */
void control_scopes_write(uint32_t scopes, char *ret, size_t size);
/* Words between spaces: a scope, "sandboxes:*", or "*" for all. INVALID names the word and what is
 * allowed. */
int control_scopes_parse(struct av_str text, uint32_t *ret, struct av_err *err);
/* 0, or FORBIDDEN naming what the key lacks. */
int control_need_scope(const struct control_actor *a, uint32_t scope, struct av_err *err);
/* 0, or FORBIDDEN naming the role that is needed. Platform administrators are no exception. */
int control_need_role(const struct control_actor *a, enum control_role least, struct av_err *err);
/* 0, or FORBIDDEN: only for administrators of this Aviary. */
int control_need_admin(const struct control_actor *a, struct av_err *err);

/* ---- looking ---- */

/* Strings are borrowed until the next callback of control. */
struct control_user {
	const char *id, *name;
	const char *email;  /* "": none */
	const char *status; /* "inactive" (not activated yet), "active", "disabled" */
	bool is_admin, has_password, has_github;
	int64_t created_ms;
	int64_t epoch; /* a new password raises it, and voids what was signed before */
};
struct control_team {
	const char *id, *name, *slug;
	bool is_byoc;
	struct control_quota quota; /* its own bounds */
	int64_t created_ms;
};
/* Somebody in a team. */
struct control_member {
	struct control_user user;
	struct control_team team;
	const char *role;
	bool is_default; /* the team that the user works in unless another is named */
	int64_t joined_ms;
};

/* False when there is none; deleted ones are none. */
bool control_user_get(const struct control *c, const char *user_id, struct control_user *ret);
/* By e-mail address in any case. */
bool control_user_by_email(const struct control *c, struct av_str email, struct control_user *ret);
bool control_team_get(const struct control *c, const char *team_id, struct control_team *ret);
bool control_member_get(
    const struct control *c, const char *team_id, const char *user_id, struct control_member *ret);
/* The team a user works in: the default one, else the one joined first; false without any. */
bool control_home_get(const struct control *c, const char *user_id, struct control_member *ret);
/* Each calls fn until it returns false; oldest first. */
typedef bool control_member_fn(void *ctx, const struct control_member *m);
void control_members_of_team(
    const struct control *c, const char *team_id, control_member_fn *fn, void *ctx);
void control_members_of_user(
    const struct control *c, const char *user_id, control_member_fn *fn, void *ctx);
void control_users_each(
    const struct control *c, bool (*fn)(void *ctx, const struct control_user *user), void *ctx);
void control_teams_each(
    const struct control *c, bool (*fn)(void *ctx, const struct control_team *team), void *ctx);

/* ---- sessions ---- */

#define CONTROL_SESSION_S (6 * 3600)

/* Appends a token that lasts CONTROL_SESSION_S: a JSON Web Token, HS256, with sub, team_id, role,
 * email, name, is_admin, iat and exp. It ends early when the user's password changes, or the user
 * leaves the team. -ENOENT: no such member; -ENOMEM. */
int control_session_issue(
    const struct control *c, const char *team_id, const char *user_id, struct av_buf *out);
/* UNAUTHORIZED: malformed, of another Aviary, expired, void; FORBIDDEN: the account is not active.
 * Constant time in the signature. */
int control_session_verify(
    const struct control *c, struct av_str token, struct control_actor *ret, struct av_err *err);
