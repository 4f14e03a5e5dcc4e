/* SPDX-License-Identifier: Apache-2.0 */
/*
 * login.h - how people get in: sign-up, activation, login, their own account, and what
 * administrators do with accounts
 *
 * Conventions of control.h. `address` is the client's network address as text, the same text for
 * everybody whom it should be counted together with (api/client_addr.h); borrowed for the call.
 * Passwords are borrowed for the call and copied only into memory that is wiped. Names of people
 * have 1 to 100 characters, e-mail addresses are kept in lower case.
 *
 * Two kinds of links prove that somebody reads the mail of an address: one activates an account,
 * one sets a password anew. Their tokens are signed (sign.h) over what they are used up by: the
 * account's state, and its epoch, which every new password changes. So none is stored, and none
 * works twice. Where they go: to whoever the account's address belongs to, by mail; without a mail
 * server into the log, for the administrator to hand on, who can also ask for one at any time.
 */
#pragma once

#include "control/accounts.h"

/* ---- links ---- */

#define CONTROL_ACTIVATION_S   (30 * 60)
#define CONTROL_RESET_S        (15 * 60)
#define CONTROL_ADMIN_LINK_S   (24 * 3600) /* of links that an administrator asks for */
#define CONTROL_LINK_TOKEN_MAX 160

enum control_link_kind { CONTROL_LINK_ACTIVATE, CONTROL_LINK_RESET };

struct control_link {
	enum control_link_kind kind;
	const char *url;
	int64_t expires_ms;
};

/* Where links lead: "https://aviary.example.com", to which /activate?token=... and /reset?token=...
 * are appended. Copied. Until it is called, and when it is too long, links are paths alone. */
void control_set_link_base(struct control *c, const char *url);
const char *control_link_base(const struct control *c);

/* ---- getting in ---- */

/* Borrowed until the callback returns. */
struct control_login {
	const char *token; /* a session, see accounts.h */
	const char *user_id, *team_id, *email, *name;
	const char *status; /* of the account: "inactive" after a sign-up that needs a link */
};
typedef void control_login_fn(void *ctx, const struct control_login *l, const struct av_err *err);

struct control_signup {
	struct av_str email, password;
	struct av_str name; /* empty: what stands before the '@' */
	const char *address;
};
/* Makes an account and a team of its own. FORBIDDEN when the configuration has sign-up closed;
 * EMAIL_TAKEN; SIGNUP_COOLDOWN: an account of this address waits for activation since less than
 * CONTROL_ACTIVATION_S; RATE_LIMITED; BUSY. */
int control_sign_up(struct control *c, const struct control_signup *s, control_login_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err);
/* INVALID_TOKEN, ALREADY_ACTIVATED, ACCOUNT_DISABLED. */
int control_activate(struct control *c, struct av_str token, const char *address,
    control_login_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* UNAUTHORIZED: unknown, without a password, wrong, all the same and after the same work;
 * ACCOUNT_NOT_ACTIVATED and ACCOUNT_DISABLED, to who knows the password; RATE_LIMITED; BUSY.
 * Somebody without a team gets one. */
int control_log_in(struct control *c, struct av_str email, struct av_str password,
    const char *address, control_login_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* A session of the actor in another team. NOT_FOUND: no such team; FORBIDDEN: not a member, or the
 * actor is a key that may not do everything. */
int control_switch_team(struct control *c, const struct control_actor *a, const char *team_id,
    control_login_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);

/* Sends a link with which a password can be set, when there is an active account of this address;
 * the caller cannot tell. RATE_LIMITED: too many from this network address. Synchronous. */
int control_reset_request(
    struct control *c, struct av_str email, const char *address, struct av_err *err);
/* INVALID_TOKEN. All sessions end. */
int control_reset_confirm(struct control *c, struct av_str token, struct av_str password,
    const char *address, node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);

/* ---- one's own account ---- */

/* *ret: a new session in the team one works in. */
int control_me_rename(struct control *c, const struct control_actor *a, struct av_str name,
    control_login_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* current is looked at when the account has a password: WRONG_PASSWORD, RATE_LIMITED. All sessions
 * end. */
int control_me_password(struct control *c, const struct control_actor *a, struct av_str current,
    struct av_str fresh, const char *address, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* confirmation: one's own address in any case, or one's id without one. Teams of which one is the
 * only member go with all that is theirs. OWNS_TEAM_WITH_MEMBERS; CONFLICT: the last administrator.
 */
int control_me_delete(struct control *c, const struct control_actor *a, struct av_str confirmation,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* LAST_LOGIN_METHOD; NOT_FOUND: it is not connected. */
int control_me_disconnect_github(struct control *c, const struct control_actor *a, node_done_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err);

/* ---- GitHub ---- */

/* In control_config; NULL there: nobody logs in with GitHub. Borrowed as long as control lives. */
struct control_github {
	const char *client_id, *client_secret;
	const char *url, *api_url; /* "https://github.com", "https://api.github.com" */
};

/* Whether it is configured. */
bool control_github_enabled(const struct control *c);
/* Appends where to send a browser. state comes back as it is; verifier (RFC 7636) is 43 to 128
 * unreserved characters, of which the hash is sent. */
int control_github_authorize_url(const struct control *c, const char *state, const char *verifier,
    const char *redirect_uri, struct av_buf *out);

struct control_github_code {
	struct av_str code; /* that the browser brought back */
	const char *verifier, *redirect_uri;
	bool may_sign_up;    /* make an account when nobody has this identity */
	const char *user_id; /* connect this account to it instead of logging in; or NULL */
	const char *address; /* of the client, which is counted */
};
/* Asks GitHub who it was; then fn gets the login, or with user_id neither login nor error.
 * NOT_FOUND: nobody is connected to this GitHub user, and no account may be made; EMAIL_TAKEN: an
 * account with the same address is not connected, or another account is; ACCOUNT_DEACTIVATED;
 * FORBIDDEN: sign-up is closed; UPSTREAM and what outbound.h names: GitHub does not answer, or not
 * as it should. */
int control_github_finish(struct control *c, const struct control_github_code *g,
    control_login_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);

/* ---- administration; the caller has checked control_need_admin ---- */

struct control_new_user {
	struct av_str email, name;
	struct av_str password; /* empty: a link to set one comes with the answer */
	bool is_admin;
};
/* user; link: NULL, or where a password can be set. */
typedef void control_user_fn(void *ctx, const struct control_user *user,
    const struct control_link *link, const struct av_err *err);
/* The account is active at once. EMAIL_TAKEN. */
int control_user_create(struct control *c, const struct control_actor *a,
    const struct control_new_user *n, control_user_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* What is not to change has p NULL; is_admin -1. CONFLICT: the last administrator. */
struct control_user_update {
	struct av_str email, name;
	int is_admin;
};
int control_user_update(struct control *c, const struct control_actor *a, const char *user_id,
    const struct control_user_update *u, control_user_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* Deactivated, an account's sessions and keys are worth nothing until it is active again; its
 * sessions not even then. CONFLICT: one's own account, or the last administrator. */
int control_user_set_active(struct control *c, const struct control_actor *a, const char *user_id,
    bool active, node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* All sessions of that user end. */
int control_user_set_password(struct control *c, const struct control_actor *a, const char *user_id,
    struct av_str password, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* Appends a link for the user: to activate the account while that is needed, else to set a
 * password. It works for CONTROL_ADMIN_LINK_S. *ret points into url. NOT_FOUND; ACCOUNT_DISABLED.
 */
int control_user_link(struct control *c, const struct control_actor *a, const char *user_id,
    struct av_buf *url, struct control_link *ret, struct av_err *err);

/* ---- credentials that are not valid ---- */

/* Counts one from this address; RATE_LIMITED instead of *err when there were too many. */
int control_bad_credential(struct control *c, const char *address, struct av_err *err);
