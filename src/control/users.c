/* SPDX-License-Identifier: Apache-2.0 */
/*
 * users.c - what administrators do with accounts (see login.h)
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/login_internal.h"

#include "base/banned.h"

static struct user *find(const struct control *c, const char *id, struct av_err *err)
{
	struct user *u = user_find(c, id);

	if (!u)
		(void)av_err_set(err, AV_ERR_NOT_FOUND, "there is no user %.64s", id);
	return u;
}

/* A key whose scopes are only those of administration does not become an administrator's whole
 * account. */
static int need_over(const struct control *c, const struct control_actor *a, const struct user *u,
    struct av_err *err)
{
	return u->rec.is_admin ? actor_need_whole(c, a, err) : 0;
}

static int check_free(
    const struct control *c, const char *email, const struct user *but, struct av_err *err)
{
	const struct user *u = user_by_email(c, av_str_c(email));

	return u && u != but
	           ? av_err_set(err, AV_ERR_EMAIL_TAKEN,
	                 "there is an account with the address %.200s: %s", email, u->rec.id)
	           : 0;
}

/* ---- making ---- */

static int create_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	struct store_user *rec = &op->change.user;
	int64_t now = control_real_ms(op->c);
	int r = check_free(op->c, f->email, NULL, err);

	if (r == 0 && op->c->accounts.users_by_id.n >= CONTROL_USERS_MAX)
		r = av_err_set(err, AV_ERR_QUOTA,
		    "this Aviary has %d accounts, the most there can be; delete some first",
		    CONTROL_USERS_MAX);
	if (r < 0)
		return r;
	*rec = (struct store_user){
	    .status = "active", .is_admin = f->is_admin, .created_ms = now, .updated_ms = now};
	av_id_make(rec->id, AV_ID_USER);
	memcpy(rec->email, f->email, sizeof(rec->email));
	memcpy(rec->name, f->name, sizeof(rec->name));
	memcpy(rec->password, f->hash, sizeof(rec->password));
	team_of_own(op->c, &op->change);
	memcpy(f->user_id, rec->id, sizeof(f->user_id));
	return 0;
}

int control_user_create(struct control *c, const struct control_actor *a,
    const struct control_new_user *n, control_user_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct flow *f;
	int r = flow_new(&f, c, a, create_begin, flow_answer_user, ctx, err);

	if (r < 0)
		return r;
	f->fn.user = fn;
	f->is_admin = n->is_admin;
	f->wants_link = n->password.n == 0;
	r = n->is_admin ? actor_need_whole(c, a, err) : 0;
	if (r == 0)
		r = email_take(f->email, n->email, err);
	if (r == 0 && n->name.n)
		r = person_name_take(f->name, n->name, err);
	else if (r == 0)
		person_name_of_email(f->name, f->email);
	if (r == 0 && n->password.n)
		r = password_validate("password", n->password, err);
	if (r == 0)
		r = check_free(c, f->email, NULL, err);
	if (r < 0) {
		account_op_free(&f->op);
		return r;
	}
	if (n->password.n)
		r = flow_hash(f, n->password, flow_take_hash, err);
	else
		flow_submit(f);
	if (r == 0)
		flow_handle(f, ret);
	return r;
}

/* ---- changing ---- */

static int change_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u = find(op->c, f->user_id, err);
	struct store_user *rec;
	int r = 0;

	if (!u)
		return -ENOENT;
	if (f->email[0])
		r = check_free(op->c, f->email, u, err);
	if (r == 0)
		r = f->is_set_admin ? actor_need_whole(op->c, &op->actor, err)
		                    : need_over(op->c, &op->actor, u, err);
	if (r == 0 && f->is_set_admin && !f->is_admin)
		r = user_keep_admin(op->c, u, err);
	if (r < 0)
		return r;
	rec = user_edit(op, u);
	/* A link that was sent to the former address is void. */
	if (f->email[0] && strcmp(f->email, rec->email) != 0)
		rec->epoch++;
	if (f->email[0])
		memcpy(rec->email, f->email, sizeof(rec->email));
	if (f->name[0])
		memcpy(rec->name, f->name, sizeof(rec->name));
	if (f->is_set_admin)
		rec->is_admin = f->is_admin;
	return 0;
}

int control_user_update(struct control *c, const struct control_actor *a, const char *user_id,
    const struct control_user_update *up, control_user_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct flow *f;
	int r = flow_new(&f, c, a, change_begin, flow_answer_user, ctx, err);

	if (r < 0)
		return r;
	f->fn.user = fn;
	f->is_set_admin = up->is_admin >= 0;
	f->is_admin = up->is_admin > 0;
	if (!find(c, user_id, err))
		r = -ENOENT;
	else
		(void)snprintf(f->user_id, sizeof(f->user_id), "%s", user_id);
	if (r == 0 && up->email.p)
		r = email_take(f->email, up->email, err);
	if (r == 0 && up->name.p)
		r = person_name_take(f->name, up->name, err);
	if (r < 0) {
		account_op_free(&f->op);
		return r;
	}
	flow_submit(f);
	flow_handle(f, ret);
	return 0;
}

static int active_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u = find(op->c, f->user_id, err);
	bool is_active = u && strcmp(u->rec.status, "active") == 0;
	struct store_user *rec;
	int r;

	if (!u)
		return -ENOENT;
	if (is_active == f->active && strcmp(u->rec.status, "inactive") != 0)
		return 0;
	if (!f->active && strcmp(u->rec.id, op->actor.user_id) == 0)
		return av_err_set(err, AV_ERR_CONFLICT,
		    "this is your own account; another administrator can deactivate it");
	if (!f->active && (r = user_keep_admin(op->c, u, err)) < 0)
		return r;
	rec = user_edit(op, u);
	(void)snprintf(rec->status, sizeof(rec->status), f->active ? "active" : "disabled");
	if (!f->active)
		rec->epoch++;
	return 0;
}

int control_user_set_active(struct control *c, const struct control_actor *a, const char *user_id,
    bool active, node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct flow *f;
	int r;

	if (!find(c, user_id, err))
		return -ENOENT;
	r = flow_new(&f, c, a, active_begin, flow_answer_done, ctx, err);
	if (r < 0)
		return r;
	f->fn.done = fn;
	f->active = active;
	(void)snprintf(f->user_id, sizeof(f->user_id), "%s", user_id);
	flow_submit(f);
	flow_handle(f, ret);
	return 0;
}

static int set_password_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u = find(op->c, f->user_id, err);
	struct store_user *rec;
	int r = 0;

	if (!u || (r = need_over(op->c, &op->actor, u, err)) < 0)
		return u ? r : -ENOENT;
	rec = user_edit(op, u);
	memcpy(rec->password, f->hash, sizeof(rec->password));
	rec->epoch++;
	return 0;
}

int control_user_set_password(struct control *c, const struct control_actor *a, const char *user_id,
    struct av_str password, node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct flow *f;
	int r = password_validate("new_password", password, err);

	if (r < 0)
		return r;
	if (!find(c, user_id, err))
		return -ENOENT;
	r = flow_new(&f, c, a, set_password_begin, flow_answer_done, ctx, err);
	if (r < 0)
		return r;
	f->fn.done = fn;
	(void)snprintf(f->user_id, sizeof(f->user_id), "%s", user_id);
	r = flow_hash(f, password, flow_take_hash, err);
	if (r == 0)
		flow_handle(f, ret);
	return r;
}

int control_user_link(struct control *c, const struct control_actor *a, const char *user_id,
    struct av_buf *url, struct control_link *ret, struct av_err *err)
{
	const struct user *u = find(c, user_id, err);
	enum control_link_kind kind;
	int r;

	if (!u)
		return -ENOENT;
	r = need_over(c, a, u, err);
	if (r < 0)
		return r;
	if (strcmp(u->rec.status, "disabled") == 0)
		return av_err_set(err, AV_ERR_ACCOUNT_DISABLED,
		    "user %s is deactivated; activate the account first", u->rec.id);
	kind = strcmp(u->rec.status, "inactive") == 0 ? CONTROL_LINK_ACTIVATE : CONTROL_LINK_RESET;
	if (link_make(c, u, kind, CONTROL_ADMIN_LINK_S, url, ret) < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return 0;
}
