/* SPDX-License-Identifier: Apache-2.0 */
/*
 * login_internal.h - only for src/control: requests about accounts that may need a password hashed
 * first
 *
 * Theory of operation. A struct flow is an account_op (accounts_internal.h) that need not be queued
 * yet. While a password is hashed or checked it is in accounts.preparing; then it is submitted, or
 * answered at once with flow_end. It has one handle all the time, &f->op.call: cancelled while it
 * is prepared it goes with its job, later it is only muted. What `begin` relies on it looks up
 * again, as the accounts may have changed while the password was being hashed.
 */
#pragma once

#include "control/accounts_internal.h"
#include "control/login.h"
#include "control/outbound.h"

#define ADDRESS_SIZE    64
#define NAME_CHARS_MAX  100
#define FIRST_NAME_PART 64

struct flow;
typedef void flow_next_fn(
    struct flow *f, const struct password_result *r, const struct av_err *err);

struct flow {
	struct account_op op;               /* first */
	struct password_job *job;           /* under way; or NULL */
	struct control_outbound_call *http; /* the same, see github.c */
	flow_next_fn *next;
	union {
		control_login_fn *login;
		node_done_fn *done;
		control_user_fn *user;
	} fn;
	bool wants_link, active, is_set_admin, is_admin, may_sign_up;
	char user_id[AV_ID_SIZE];
	char team_id[AV_ID_SIZE];
	char email[STORE_EMAIL_SIZE];
	char name[STORE_NAME_SIZE];
	char github_id[24];
	char hash[STORE_PASSWORD_SIZE];   /* that is to be stored */
	char stored[STORE_PASSWORD_SIZE]; /* that was checked */
	char address[ADDRESS_SIZE];
	char token[CONTROL_LINK_TOKEN_MAX];
	size_t n_fresh; /* a password that waits for its turn */
	char fresh[CONTROL_PASSWORD_MAX];
};

/* The actor may be NULL. UNAVAILABLE, NO_MEMORY. */
int flow_new(struct flow **ret, struct control *c, const struct control_actor *a,
    account_begin_fn *begin, account_answer_fn *answer, void *ctx, struct av_err *err);
/* next(f, result, err) comes from the loop; it submits f, hashes once more or ends f. On failure f
 * is freed, unless it was in `next` already: then next gets it as its error. */
int flow_hash(struct flow *f, struct av_str password, flow_next_fn *next, struct av_err *err);
int flow_check(struct flow *f, struct av_str password, flow_next_fn *next, struct av_err *err);
/* From inside a `next`. */
void flow_hash_again(struct flow *f, struct av_str password, flow_next_fn *next);
void flow_submit(struct flow *f);
void flow_end(struct flow *f, const struct av_err *err);
/* *ret (may be NULL) becomes its handle. */
void flow_handle(struct flow *f, struct node_call **ret);
/* The usual `next`: f->hash is what was hashed, then f is submitted. */
void flow_take_hash(struct flow *f, const struct password_result *r, const struct av_err *err);

/* The usual answers. */
void flow_answer_done(struct account_op *op, const struct av_err *err);
/* A session of f->user_id, in f->team_id or the team it works in. */
void flow_answer_login(struct account_op *op, const struct av_err *err);
/* f->user_id as it is now, with a link if f->wants_link. */
void flow_answer_user(struct account_op *op, const struct av_err *err);

/* Trimmed and in lower case. INVALID unless it looks like an address. */
int email_take(char ret[static STORE_EMAIL_SIZE], struct av_str email, struct av_err *err);
/* Trimmed. INVALID unless it has 1 to NAME_CHARS_MAX characters, none of them a control character.
 */
int person_name_take(char ret[static STORE_NAME_SIZE], struct av_str name, struct av_err *err);
/* The user's part of an address, as a name. */
void person_name_of_email(char ret[static STORE_NAME_SIZE], const char *email);

/* A team of the user's own into ch, which holds the user. */
void team_of_own(struct control *c, struct store_account_change *ch);
/* ch->user = *u, to be changed. */
struct store_user *user_edit(struct account_op *op, const struct user *u);
/* CONFLICT when u is the last administrator who can log in. */
int user_keep_admin(const struct control *c, const struct user *u, struct av_err *err);
/* OWNS_TEAM_WITH_MEMBERS. */
int user_may_go(const struct user *u, struct av_err *err);
/* The change deletes u, and the teams of which u is the only member. */
void user_remove(struct account_op *op, const struct user *u);
/* FORBIDDEN unless the actor may do all that its user may: it is a session, or a key with every
 * scope. */
int actor_need_whole(const struct control *c, const struct control_actor *a, struct av_err *err);
/* UNAUTHORIZED: the actor's user is gone. */
struct user *actor_user(const struct control *c, const struct control_actor *a, struct av_err *err);

/* ---- links.c ---- */

/* A token for the user as it is now. */
void link_token(const struct control *c, const struct user *u, enum control_link_kind kind,
    int64_t expires_s, char ret[static CONTROL_LINK_TOKEN_MAX]);
/* Whose it is; NULL: *err. ALREADY_ACTIVATED, ACCOUNT_DISABLED, INVALID_TOKEN. */
struct user *link_check(const struct control *c, struct av_str token, enum control_link_kind kind,
    int *ret_r, struct av_err *err);
/* By mail, or into the log. */
void link_send(struct control *c, const struct user *u, enum control_link_kind kind);
/* Appends the URL; its parts into *ret. */
int link_make(const struct control *c, const struct user *u, enum control_link_kind kind,
    int64_t lasts_s, struct av_buf *url, struct control_link *ret);
