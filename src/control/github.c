/* SPDX-License-Identifier: Apache-2.0 */
/*
 * github.c - accounts that GitHub vouches for (see login.h)
 *
 * An identity is GitHub's number of a user, never the name or address, which can pass to somebody
 * else. An address that GitHub has verified makes a new account active at once; it never opens an
 * account that exists: its owner connects the two, logged in.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/login_internal.h"

#include "base/banned.h"

static struct user *find(const struct control *c, const char *github_id)
{
	struct user *u;

	AV_LIST_FOREACH(u, &c->accounts.users, struct user, link)
	if (u->rec.github_id[0] && strcmp(u->rec.github_id, github_id) == 0)
		return u;
	return NULL;
}

static int make_user(struct flow *f, struct av_err *err)
{
	struct account_op *op = &f->op;
	struct control *c = op->c;
	const struct user *taken = user_by_email(c, av_str_c(f->email));
	int64_t now = control_real_ms(c);
	struct store_user *rec = &op->change.user;

	if (!f->may_sign_up)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "no account is connected to this GitHub user; sign up first");
	if (c->config.signup == CONTROL_SIGNUP_CLOSED)
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "sign-up is closed here: an administrator makes accounts");
	if (taken && strcmp(taken->rec.status, "inactive") != 0)
		return av_err_set(err, AV_ERR_EMAIL_TAKEN,
		    "there is an account with this address; log in and connect it to GitHub");
	if (!taken && c->accounts.users_by_id.n >= CONTROL_USERS_MAX)
		return av_err_set(err, AV_ERR_QUOTA,
		    "this Aviary has %d accounts, the most there can be", CONTROL_USERS_MAX);
	*rec = (struct store_user){.status = "active", .created_ms = now, .updated_ms = now};
	/* Whoever signed up with this address and never activated it showed less than GitHub does.
	 */
	if (taken) {
		memcpy(rec->id, taken->rec.id, sizeof(rec->id));
		rec->epoch = taken->rec.epoch + 1;
	} else {
		av_id_make(rec->id, AV_ID_USER);
	}
	memcpy(rec->email, f->email, sizeof(rec->email));
	memcpy(rec->name, f->name, sizeof(rec->name));
	memcpy(rec->github_id, f->github_id, sizeof(rec->github_id));
	if (!taken || !member_home(taken))
		team_of_own(c, &op->change);
	memcpy(f->user_id, rec->id, sizeof(f->user_id));
	return 0;
}

static int login_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u = find(op->c, f->github_id);

	if (!u)
		return make_user(f, err);
	if (strcmp(u->rec.status, "active") != 0)
		return av_err_set(err, AV_ERR_ACCOUNT_DEACTIVATED,
		    "this account was deactivated by an administrator");
	memcpy(f->user_id, u->rec.id, sizeof(f->user_id));
	if (!member_home(u)) {
		(void)user_edit(op, u);
		team_of_own(op->c, &op->change);
	}
	return 0;
}

static int take(struct flow *f, const struct control_github *g, struct av_err *err)
{
	int r;

	if (g->id.n == 0 || av_str_copy(f->github_id, sizeof(f->github_id), g->id) < 0)
		return av_err_set(err, AV_ERR_UPSTREAM, "GitHub names no user");
	if (!g->email.p)
		return 0;
	r = email_take(f->email, g->email, err);
	if (r == 0 && person_name_take(f->name, g->name, NULL) < 0)
		person_name_of_email(f->name, f->email);
	return r;
}

int control_github_log_in(struct control *c, const struct control_github *g,
    enum control_github_intent intent, const char *address, control_login_fn *fn, void *ctx,
    struct node_call **ret, struct av_err *err)
{
	struct flow *f;
	int r = flow_new(&f, c, NULL, login_begin, flow_answer_login, ctx, err);

	if (r < 0)
		return r;
	f->fn.login = fn;
	f->may_sign_up = intent == CONTROL_GITHUB_SIGNUP;
	(void)snprintf(f->address, sizeof(f->address), "%s", address);
	r = take(f, g, err);
	if (r < 0) {
		account_op_free(&f->op);
		return r;
	}
	flow_submit(f);
	flow_handle(f, ret);
	return 0;
}

/* ---- connecting ---- */

static int connect_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u = user_find(op->c, f->user_id), *other;

	if (!u || strcmp(u->rec.status, "active") != 0)
		return av_err_set(err, AV_ERR_UNAUTHORIZED, "this account does not exist any more");
	other = find(op->c, f->github_id);
	if (other && other != u)
		return av_err_set(err, AV_ERR_EMAIL_TAKEN,
		    "another account is connected to this GitHub user already");
	memcpy(user_edit(op, u)->github_id, f->github_id, sizeof(f->github_id));
	return 0;
}

int control_github_connect(struct control *c, const char *user_id, const struct control_github *g,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	const struct control_github identity = {.id = g->id};
	struct flow *f;
	int r = flow_new(&f, c, NULL, connect_begin, flow_answer_done, ctx, err);

	if (r < 0)
		return r;
	f->fn.done = fn;
	(void)snprintf(f->user_id, sizeof(f->user_id), "%s", user_id);
	r = take(f, &identity, err);
	if (r < 0) {
		account_op_free(&f->op);
		return r;
	}
	flow_submit(f);
	flow_handle(f, ret);
	return 0;
}

static int disconnect_begin(struct account_op *op, struct av_err *err)
{
	const struct user *u = actor_user(op->c, &op->actor, err);

	if (!u)
		return -EACCES;
	if (!u->rec.github_id[0])
		return av_err_set(err, AV_ERR_NOT_FOUND, "your account is not connected to GitHub");
	if (!u->rec.password[0])
		return av_err_set(err, AV_ERR_LAST_LOGIN_METHOD,
		    "GitHub is the only way into your account; set a password first");
	memset(user_edit(op, u)->github_id, 0, sizeof(u->rec.github_id));
	return 0;
}

int control_me_disconnect_github(struct control *c, const struct control_actor *a, node_done_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err)
{
	struct flow *f;
	int r = actor_need_whole(a, err);

	if (r < 0 || (r = flow_new(&f, c, a, disconnect_begin, flow_answer_done, ctx, err)) < 0)
		return r;
	f->fn.done = fn;
	flow_submit(f);
	flow_handle(f, ret);
	return 0;
}
