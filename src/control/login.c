/* SPDX-License-Identifier: Apache-2.0 */
/*
 * login.c - logging in, and from one team to another (see login.h)
 */
#include "control/login.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/login_internal.h"

#include "base/banned.h"

/* A fresh hash, a first team: what a login may have to write. */
static int login_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u = user_find(op->c, f->user_id);
	struct store_user *rec;

	if (!u || strcmp(u->rec.status, "active") != 0)
		return av_err_set(
		    err, AV_ERR_UNAUTHORIZED, "the account has changed meanwhile; try again");
	rec = user_edit(op, u);
	if (f->hash[0] && strcmp(rec->password, f->stored) == 0)
		memcpy(rec->password, f->hash, sizeof(rec->password));
	if (!member_home(u))
		team_of_own(op->c, &op->change);
	return 0;
}

static void finish(struct flow *f, const struct user *u, const char *fresh_hash)
{
	struct av_err err;

	if (strcmp(u->rec.status, "inactive") == 0) {
		(void)av_err_set(&err, AV_ERR_ACCOUNT_NOT_ACTIVATED,
		    "this account is not activated yet; follow the link that was sent, or sign up "
		    "again after %d minutes",
		    CONTROL_ACTIVATION_S / 60);
		flow_end(f, &err);
	} else if (strcmp(u->rec.status, "active") != 0) {
		(void)av_err_set(&err, AV_ERR_ACCOUNT_DISABLED,
		    "this account was deactivated by an administrator");
		flow_end(f, &err);
	} else if (!fresh_hash && member_home(u)) {
		flow_end(f, NULL);
	} else {
		(void)snprintf(f->hash, sizeof(f->hash), "%s", fresh_hash ? fresh_hash : "");
		flow_submit(f);
	}
}

static void on_checked(struct flow *f, const struct password_result *r, const struct av_err *err)
{
	struct control *c = f->op.c;
	const struct user *u = f->user_id[0] ? user_find(c, f->user_id) : NULL;
	bool good = r && r->matches && u && strcmp(u->rec.password, f->stored) == 0;
	struct av_err own;

	throttle_login_end(&c->throttle, av_str_c(f->email), av_str_c(f->address),
	    control_boot_ns(c),
	    err    ? THROTTLE_UNDECIDED
	    : good ? THROTTLE_GOOD
	           : THROTTLE_BAD);
	if (good) {
		finish(f, u, r->hash);
		return;
	}
	if (!err) {
		(void)av_err_set(&own, AV_ERR_UNAUTHORIZED,
		    "the e-mail address or the password is wrong, or the account has no password");
		err = &own;
	}
	flow_end(f, err);
}

int control_log_in(struct control *c, struct av_str email, struct av_str password,
    const char *address, control_login_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	char account[STORE_EMAIL_SIZE];
	const struct user *u;
	struct flow *f;
	int r = flow_new(&f, c, NULL, login_begin, flow_answer_login, ctx, err);

	if (r < 0)
		return r;
	f->fn.login = fn;
	(void)snprintf(f->address, sizeof(f->address), "%s", address);
	r = email_take(f->email, email, err);
	if (r == 0 && (password.n == 0 || password.n > CONTROL_PASSWORD_MAX))
		r = av_err_set(err, AV_ERR_INVALID, "'password' must have 1 to %d bytes",
		    CONTROL_PASSWORD_MAX);
	if (r == 0)
		r = throttle_login_begin(
		    &c->throttle, av_str_c(f->email), av_str_c(address), control_boot_ns(c), err);
	if (r < 0) {
		account_op_free(&f->op);
		return r;
	}
	u = user_by_email(c, av_str_c(f->email));
	if (u) {
		memcpy(f->user_id, u->rec.id, sizeof(f->user_id));
		memcpy(f->stored, u->rec.password, sizeof(f->stored));
	}
	memcpy(account, f->email, sizeof(account));
	r = flow_check(f, password, on_checked, err);
	if (r < 0)
		throttle_login_end(&c->throttle, av_str_c(account), av_str_c(address),
		    control_boot_ns(c), THROTTLE_UNDECIDED);
	else
		flow_handle(f, ret);
	return r;
}

/* ---- teams ---- */

/* Nothing is written: it takes its turn to be answered from the loop. */
static int switch_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;

	if (member_find(op->c, f->team_id, f->user_id))
		return 0;
	return av_err_set(err, team_find(op->c, f->team_id) ? AV_ERR_FORBIDDEN : AV_ERR_NOT_FOUND,
	    team_find(op->c, f->team_id) ? "you do not belong to team %s" : "there is no team %s",
	    f->team_id);
}

int control_switch_team(struct control *c, const struct control_actor *a, const char *team_id,
    control_login_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct flow *f;
	int r = actor_need_whole(c, a, err);

	if (r == 0 && !av_id_valid(av_str_c(team_id), AV_ID_TEAM))
		r = av_err_set(err, AV_ERR_INVALID, "'%.64s' is not the id of a team", team_id);
	if (r < 0)
		return r;
	r = flow_new(&f, c, a, switch_begin, flow_answer_login, ctx, err);
	if (r < 0)
		return r;
	f->fn.login = fn;
	memcpy(f->user_id, a->user_id, sizeof(f->user_id));
	(void)snprintf(f->team_id, sizeof(f->team_id), "%s", team_id);
	flow_submit(f);
	flow_handle(f, ret);
	return 0;
}

int control_bad_credential(struct control *c, const char *address, struct av_err *err)
{
	int64_t wait = throttle_take(&c->throttle, THROTTLE_CREDENTIAL_ADDRESS, av_str_c(address),
	    AV_STR(""), control_boot_ns(c));

	return wait ? throttle_refuse(err,
	                  "too many API keys or sessions from your address are not valid", wait)
	            : 0;
}
