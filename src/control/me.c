/* SPDX-License-Identifier: Apache-2.0 */
/*
 * me.c - what people change about their own account (see login.h)
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/login_internal.h"

#include "base/banned.h"

/* ---- name ---- */

static int rename_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u = actor_user(op->c, &op->actor, err);

	if (!u)
		return -EACCES;
	memcpy(user_edit(op, u)->name, f->name, sizeof(f->name));
	if (!member_home(u))
		team_of_own(op->c, &op->change);
	memcpy(f->user_id, u->rec.id, sizeof(f->user_id));
	return 0;
}

int control_me_rename(struct control *c, const struct control_actor *a, struct av_str name,
    control_login_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	char text[STORE_NAME_SIZE];
	struct flow *f;
	int r = actor_need_whole(c, a, err);

	if (r < 0 || (r = person_name_take(text, name, err)) < 0 ||
	    (r = flow_new(&f, c, a, rename_begin, flow_answer_login, ctx, err)) < 0)
		return r;
	f->fn.login = fn;
	memcpy(f->name, text, sizeof(f->name));
	flow_submit(f);
	flow_handle(f, ret);
	return 0;
}

/* ---- password ---- */

static int password_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u = actor_user(op->c, &op->actor, err);
	struct store_user *rec;

	if (!u)
		return -EACCES;
	if (strcmp(u->rec.password, f->stored) != 0)
		return av_err_set(err, AV_ERR_CONFLICT,
		    "the password was changed by somebody else meanwhile; try again");
	rec = user_edit(op, u);
	memcpy(rec->password, f->hash, sizeof(rec->password));
	rec->epoch++;
	return 0;
}

static void on_current_checked(
    struct flow *f, const struct password_result *r, const struct av_err *err)
{
	struct av_err own;

	throttle_login_end(&f->op.c->throttle, av_str_c(f->email), av_str_c(f->address),
	    control_boot_ns(f->op.c),
	    err          ? THROTTLE_UNDECIDED
	    : r->matches ? THROTTLE_GOOD
	                 : THROTTLE_BAD);
	if (!err && r->matches) {
		flow_hash_again(f, av_str_n(f->fresh, f->n_fresh), flow_take_hash);
		return;
	}
	if (!err) {
		(void)av_err_set(
		    &own, AV_ERR_WRONG_PASSWORD, "'current_password' is not your password");
		err = &own;
	}
	flow_end(f, err);
}

/* The account that is counted: its address, or its id without one. */
static void count_as(struct flow *f, const struct user *u)
{
	(void)snprintf(
	    f->email, sizeof(f->email), "%s", u->rec.email[0] ? u->rec.email : u->rec.id);
}

static int check_current(struct flow *f, struct av_str current, struct av_err *err)
{
	struct control *c = f->op.c;
	char account[STORE_EMAIL_SIZE], address[ADDRESS_SIZE];
	int r;

	if (current.n == 0 || current.n > CONTROL_PASSWORD_MAX)
		r = av_err_set(err, AV_ERR_INVALID,
		    "'current_password' is needed, as your account has a password");
	else
		r = throttle_login_begin(&c->throttle, av_str_c(f->email), av_str_c(f->address),
		    control_boot_ns(c), err);
	if (r < 0) {
		account_op_free(&f->op);
		return r;
	}
	memcpy(account, f->email, sizeof(account));
	memcpy(address, f->address, sizeof(address));
	r = flow_check(f, current, on_current_checked, err);
	if (r < 0)
		throttle_login_end(&c->throttle, av_str_c(account), av_str_c(address),
		    control_boot_ns(c), THROTTLE_UNDECIDED);
	return r;
}

int control_me_password(struct control *c, const struct control_actor *a, struct av_str current,
    struct av_str fresh, const char *address, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	const struct user *u;
	struct flow *f;
	int r = actor_need_whole(c, a, err);

	if (r < 0 || (r = password_validate("new_password", fresh, err)) < 0)
		return r;
	u = actor_user(c, a, err);
	if (!u)
		return -EACCES;
	r = flow_new(&f, c, a, password_begin, flow_answer_done, ctx, err);
	if (r < 0)
		return r;
	f->fn.done = fn;
	memcpy(f->stored, u->rec.password, sizeof(f->stored));
	(void)snprintf(f->address, sizeof(f->address), "%s", address);
	count_as(f, u);
	f->n_fresh = fresh.n;
	memcpy(f->fresh, fresh.p, fresh.n);
	r = f->stored[0] ? check_current(f, current, err)
	                 : flow_hash(f, fresh, flow_take_hash, err);
	if (r == 0)
		flow_handle(f, ret);
	return r;
}

/* ---- the end of an account ---- */

static bool has_other(const struct team *t, const struct user *u, bool owner)
{
	const struct member *m;

	AV_LIST_FOREACH(m, &t->members, const struct member, of_team)
	if (m->user != u && (!owner || strcmp(m->rec.role, "owner") == 0))
		return true;
	return false;
}

int user_may_go(const struct user *u, struct av_err *err)
{
	const struct member *m;

	AV_LIST_FOREACH(m, &u->memberships, const struct member, of_user)
	if (strcmp(m->rec.role, "owner") == 0 && has_other(m->team, u, false) &&
	    !has_other(m->team, u, true))
		return av_err_set(err, AV_ERR_OWNS_TEAM_WITH_MEMBERS,
		    "team %s (%.100s) has other members, and you are its owner; delete the team, "
		    "or "
		    "remove them first",
		    m->rec.team_id, m->team->rec.name);
	return 0;
}

void user_remove(struct account_op *op, const struct user *u)
{
	struct store_user *rec = user_edit(op, u);
	const struct member *m;

	(void)snprintf(rec->status, sizeof(rec->status), "deleted");
	memset(rec->password, 0, sizeof(rec->password));
	rec->epoch++;
	rec->deleted_ms = rec->updated_ms;
	op->change.leave_all = true;
	AV_LIST_FOREACH(m, &u->memberships, const struct member, of_user)
	if (!has_other(m->team, u, false) && op->change.n_dissolved < STORE_DISSOLVED_MAX)
		memcpy(op->change.dissolved[op->change.n_dissolved++], m->rec.team_id, AV_ID_SIZE);
}

static int delete_begin(struct account_op *op, struct av_err *err)
{
	const struct user *u = actor_user(op->c, &op->actor, err);
	int r;

	if (!u)
		return -EACCES;
	if ((r = user_keep_admin(op->c, u, err)) < 0 || (r = user_may_go(u, err)) < 0)
		return r;
	user_remove(op, u);
	return 0;
}

int control_me_delete(struct control *c, const struct control_actor *a, struct av_str confirmation,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	const struct user *u;
	struct flow *f;
	int r = actor_need_whole(c, a, err);

	if (r < 0)
		return r;
	u = actor_user(c, a, err);
	if (!u)
		return -EACCES;
	if (!av_str_ieq(
	        av_str_trim(confirmation), av_str_c(u->rec.email[0] ? u->rec.email : u->rec.id)))
		return av_err_set(err, AV_ERR_INVALID,
		    "'confirmation' must be %s of the account that is to be deleted: %.200s",
		    u->rec.email[0] ? "the e-mail address" : "the id",
		    u->rec.email[0] ? u->rec.email : u->rec.id);
	r = flow_new(&f, c, a, delete_begin, flow_answer_done, ctx, err);
	if (r < 0)
		return r;
	f->fn.done = fn;
	flow_submit(f);
	flow_handle(f, ret);
	return 0;
}
