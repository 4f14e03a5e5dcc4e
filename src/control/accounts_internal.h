/* SPDX-License-Identifier: Apache-2.0 */
/*
 * accounts_internal.h - only for src/control/(*.c): accounts in memory, and changes taking turns
 *
 * Theory of operation. A change of accounts is a struct account_op. It waits in a queue; when it is
 * first, its `begin` looks at the accounts as they are, refuses, or fills op->change; that is
 * written, then taken over into memory (accounts_apply), then the op is answered, and the next one
 * begins. Whatever `begin` has checked is therefore still true when it is applied. Slow work that a
 * change needs (hashing a password) is done before it is queued.
 */
#pragma once

#include "control/accounts.h"
#include "control/control_internal.h"
#include "store/accounts.h"

static_assert(CONTROL_TEAMS_OWNED_MAX <= STORE_DISSOLVED_MAX, "all teams of a user can go at once");

struct user {
	struct store_user rec;
	struct av_list link;        /* c->accounts.users, oldest first */
	struct av_list memberships; /* struct member, by of_user */
};

struct team {
	struct store_team rec;
	struct av_list link;    /* c->accounts.teams, oldest first */
	struct av_list members; /* struct member, by of_team */
	int64_t creates_ns;     /* see quota.c */
	size_t n_sandboxes;     /* scratch of control_admin_teams */
};

struct member {
	struct store_member rec;
	struct user *user;
	struct team *team;
	struct av_list of_user, of_team;
};

struct account_op;
/* 0: op->change is to be written (nothing of it set: nothing is to be done). Else -errno and *err.
 */
typedef int account_begin_fn(struct account_op *op, struct av_err *err);
/* Answers whoever asked; never called when that one has cancelled. */
typedef void account_answer_fn(struct account_op *op, const struct av_err *err);

/* Embedded as the first member in what a change needs besides; owned by the queue once submitted.
 */
struct account_op {
	struct node_call call; /* first */
	struct av_list link;
	struct control *c;
	account_begin_fn *begin;
	account_answer_fn *answer;
	void (*drop)(struct account_op *op); /* frees it; NULL: free() */
	void *ctx;                           /* the asker's */
	struct control_actor actor;
	struct store_account_change change;
	bool cancelled;
	bool hidden; /* what it was about exists no more: for begin and answer */
};

/* Zeroed memory of size bytes, which begins with the op. */
void *account_op_new(
    struct control *c, size_t size, account_begin_fn *begin, account_answer_fn *answer, void *ctx);
void account_op_free(struct account_op *op);
/* Takes over op. */
void account_op_submit(struct account_op *op);

/* For begin: op->actor as things are now. UNAUTHORIZED: the key, or the member, is gone meanwhile.
 */
int account_op_actor(struct account_op *op, struct av_err *err);

void accounts_init(struct control *c);
void accounts_clear(struct control *c);
/* Begins the next op when none is under way. */
void accounts_tick(struct control *c);
#define ACCOUNTS_DELETED_MS (15LL * 24 * 3600 * 1000) /* how long the deleted are remembered */
#define ACCOUNTS_PRUNE_MAX  1000

/* Forgets accounts that nobody activated, and those deleted long ago. */
void accounts_sweep(struct control *c);
/* Those that have waited for activation longer than this. */
void accounts_forget_unactivated(struct control *c, int64_t older_ms);
/* -ENOMEM; then nothing has changed. Also what the store told at the start. */
int accounts_apply(struct control *c, const struct store_account_change *ch);

/* By e-mail address in any case; NULL. */
struct user *user_by_email(const struct control *c, struct av_str email);
/* The team a user works in, see control_home_get; NULL. */
struct member *member_home(const struct user *u);
/* "xxxxxx-yyyyyy", random hexadecimal digits. */
void team_slug_make(char ret[static 16]);
struct user *user_find(const struct control *c, const char *id);
struct team *team_find(const struct control *c, const char *id);
struct member *member_find(const struct control *c, const char *team_id, const char *user_id);
