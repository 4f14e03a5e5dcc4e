/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signup.c - new accounts, their activation, and passwords that were forgotten (see login.h)
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/avtime.h"
#include "control/login_internal.h"

#include "base/banned.h"

#define FORGET_NS      (60 * AV_NS_PER_S)
#define UNACTIVATED_MS (24LL * 3600 * 1000) /* how long an account waits before it is forgotten */

/* ---- signing up ---- */

/* Whether the address is free, or its account may be written over (*ret). */
static int check_address(
    const struct control *c, const char *email, const struct user **ret, struct av_err *err)
{
	const struct user *u = user_by_email(c, av_str_c(email));
	int64_t age_ms = u ? control_real_ms(c) - u->rec.created_ms : 0;

	*ret = NULL;
	if (!u)
		return 0;
	if (strcmp(u->rec.status, "inactive") != 0)
		return av_err_set(err, AV_ERR_EMAIL_TAKEN,
		    "there is an account with the address %.200s; log in, or ask for a new "
		    "password",
		    email);
	if (age_ms >= 0 && age_ms < CONTROL_ACTIVATION_S * 1000LL)
		return av_err_set(err, AV_ERR_SIGNUP_COOLDOWN,
		    "an account with this address waits for activation; follow the link that was "
		    "sent, or sign up again %d minutes after the last time",
		    CONTROL_ACTIVATION_S / 60);
	*ret = u;
	return 0;
}

static int check_room(struct control *c, struct av_err *err)
{
	if (c->accounts.users_by_id.n >= CONTROL_USERS_MAX)
		return av_err_set(err, AV_ERR_QUOTA,
		    "this Aviary has %d accounts, the most there can be; ask its administrator",
		    CONTROL_USERS_MAX);
	if (c->accounts.n_unactivated < CONTROL_UNACTIVATED_MAX)
		return 0;
	if (control_boot_ns(c) >= c->accounts.forget_ns) {
		c->accounts.forget_ns = control_boot_ns(c) + FORGET_NS;
		accounts_forget_unactivated(c, CONTROL_ACTIVATION_S * 1000LL);
	}
	return av_err_set_retry(err, AV_ERR_BUSY, 60,
	    "%d accounts wait for activation, the most there can be; try again in a minute",
	    CONTROL_UNACTIVATED_MAX);
}

static int signup_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	struct control *c = op->c;
	bool open = c->config.signup == CONTROL_SIGNUP_OPEN;
	int64_t now = control_real_ms(c);
	struct store_user *rec = &op->change.user;
	const struct user *old;
	int r = check_address(c, f->email, &old, err);

	if (r == 0 && !old)
		r = check_room(c, err);
	if (r < 0)
		return r;
	*rec = (struct store_user){.created_ms = now, .updated_ms = now};
	if (old) {
		/* Its team stays; links and sessions of the former sign-up do not. */
		memcpy(rec->id, old->rec.id, sizeof(rec->id));
		rec->epoch = old->rec.epoch + 1;
	} else {
		av_id_make(rec->id, AV_ID_USER);
	}
	memcpy(rec->name, f->name, sizeof(rec->name));
	memcpy(rec->email, f->email, sizeof(rec->email));
	memcpy(rec->password, f->hash, sizeof(rec->password));
	(void)snprintf(rec->status, sizeof(rec->status), "%s", open ? "active" : "inactive");
	if (!old || !member_home(old))
		team_of_own(c, &op->change);
	memcpy(f->user_id, rec->id, sizeof(f->user_id));
	return 0;
}

static void signup_answer(struct account_op *op, const struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u = err ? NULL : user_find(op->c, f->user_id);

	if (u && strcmp(u->rec.status, "inactive") == 0)
		link_send(op->c, u, CONTROL_LINK_ACTIVATE);
	flow_answer_login(op, err);
}

static int signup_take(
    struct control *c, struct flow *f, const struct control_signup *s, struct av_err *err)
{
	const struct user *old;
	int64_t wait;
	int r;

	if (c->config.signup == CONTROL_SIGNUP_CLOSED)
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "sign-up is closed here: an administrator makes accounts, with `aviary users "
		    "create`");
	if ((r = email_take(f->email, s->email, err)) < 0 ||
	    (r = password_validate("password", s->password, err)) < 0)
		return r;
	if (s->name.n == 0)
		person_name_of_email(f->name, f->email);
	else if ((r = person_name_take(f->name, s->name, err)) < 0)
		return r;
	wait = throttle_take(&c->throttle, THROTTLE_SIGNUP_ADDRESS, av_str_c(s->address),
	    AV_STR(""), control_boot_ns(c));
	if (wait)
		return throttle_refuse(err, "too many sign-ups from your address", wait);
	/* Again when its turn comes; here it saves the work. */
	return check_address(c, f->email, &old, err);
}

int control_sign_up(struct control *c, const struct control_signup *s, control_login_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err)
{
	struct flow *f;
	int r = flow_new(&f, c, NULL, signup_begin, signup_answer, ctx, err);

	if (r < 0)
		return r;
	f->fn.login = fn;
	r = signup_take(c, f, s, err);
	if (r < 0) {
		account_op_free(&f->op);
		return r;
	}
	r = flow_hash(f, s->password, flow_take_hash, err);
	if (r == 0)
		flow_handle(f, ret);
	return r;
}

/* ---- links ---- */

/* The token's user; counted against the address when there is none. */
static struct user *check_token(struct control *c, struct av_str token, enum control_link_kind kind,
    const char *address, int *ret_r, struct av_err *err)
{
	int64_t now = control_boot_ns(c);
	struct av_str who = av_str_c(address), none = AV_STR("");
	int64_t wait = throttle_take(&c->throttle, THROTTLE_LOGIN_ADDRESS, who, none, now);
	struct user *u;

	if (wait) {
		*ret_r = throttle_refuse(err, "too many tries from your address", wait);
		return NULL;
	}
	u = link_check(c, token, kind, ret_r, err);
	if (u || *ret_r != -av_err_errno(AV_ERR_INVALID_TOKEN))
		throttle_give_back(&c->throttle, THROTTLE_LOGIN_ADDRESS, who, none, now);
	return u;
}

/* Whoever follows a link reads the owner's mail: the guesses of others shall not keep them out. */
static void know(struct flow *f, const struct user *u)
{
	throttle_login_end(&f->op.c->throttle, av_str_c(u->rec.email), av_str_c(f->address),
	    control_boot_ns(f->op.c), THROTTLE_GOOD);
}

static int activate_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u;
	int r;

	u = link_check(op->c, av_str_c(f->token), CONTROL_LINK_ACTIVATE, &r, err);
	if (!u)
		return r;
	(void)snprintf(user_edit(op, u)->status, sizeof(u->rec.status), "active");
	if (!member_home(u))
		team_of_own(op->c, &op->change);
	memcpy(f->user_id, u->rec.id, sizeof(f->user_id));
	know(f, u);
	return 0;
}

int control_activate(struct control *c, struct av_str token, const char *address,
    control_login_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct flow *f;
	int r = 0;

	if (!check_token(c, token, CONTROL_LINK_ACTIVATE, address, &r, err))
		return r;
	r = flow_new(&f, c, NULL, activate_begin, flow_answer_login, ctx, err);
	if (r < 0)
		return r;
	f->fn.login = fn;
	(void)snprintf(f->address, sizeof(f->address), "%s", address);
	(void)snprintf(f->token, sizeof(f->token), "%.*s", AV_STR_ARG(token));
	flow_submit(f);
	flow_handle(f, ret);
	return 0;
}

int control_reset_request(
    struct control *c, struct av_str email, const char *address, struct av_err *err)
{
	int64_t now = control_boot_ns(c);
	char account[STORE_EMAIL_SIZE];
	const struct user *u;
	int64_t wait;
	int r = control_check_open(c, err);

	if (r == 0)
		r = email_take(account, email, err);
	if (r < 0)
		return r;
	wait =
	    throttle_take(&c->throttle, THROTTLE_RESET_ADDRESS, av_str_c(address), AV_STR(""), now);
	if (wait)
		return throttle_refuse(err, "too many requests from your address", wait);
	/* Nobody's mailbox is flooded; that nothing is sent is not told, as nothing is. */
	if (throttle_take(
	        &c->throttle, THROTTLE_RESET_ACCOUNT, av_str_c(account), AV_STR(""), now) != 0)
		return 0;
	u = user_by_email(c, av_str_c(account));
	if (u && strcmp(u->rec.status, "active") == 0)
		link_send(c, u, CONTROL_LINK_RESET);
	return 0;
}

static int reset_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	struct store_user *rec;
	const struct user *u;
	int r;

	u = link_check(op->c, av_str_c(f->token), CONTROL_LINK_RESET, &r, err);
	if (!u)
		return r;
	rec = user_edit(op, u);
	memcpy(rec->password, f->hash, sizeof(rec->password));
	rec->epoch++;
	know(f, u);
	return 0;
}

int control_reset_confirm(struct control *c, struct av_str token, struct av_str password,
    const char *address, node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct flow *f;
	int r = password_validate("new_password", password, err);

	if (r < 0 || !check_token(c, token, CONTROL_LINK_RESET, address, &r, err))
		return r;
	r = flow_new(&f, c, NULL, reset_begin, flow_answer_done, ctx, err);
	if (r < 0)
		return r;
	f->fn.done = fn;
	(void)snprintf(f->address, sizeof(f->address), "%s", address);
	(void)snprintf(f->token, sizeof(f->token), "%.*s", AV_STR_ARG(token));
	r = flow_hash(f, password, flow_take_hash, err);
	if (r == 0)
		flow_handle(f, ret);
	return r;
}

/* ---- forgetting ---- */

static int forget_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	struct user *u = user_find(op->c, f->user_id);

	(void)err;
	if (u && strcmp(u->rec.status, "inactive") == 0)
		user_remove(op, u);
	return 0;
}

static void forget_answer(struct account_op *op, const struct av_err *err)
{
	(void)op;
	(void)err; /* the next sweep tries again */
}

void accounts_forget_unactivated(struct control *c, int64_t older_ms)
{
	int64_t now = control_real_ms(c);
	const struct user *u;
	struct flow *f;

	AV_LIST_FOREACH(u, &c->accounts.users, const struct user, link)
	{
		if (strcmp(u->rec.status, "inactive") != 0 || now - u->rec.created_ms < older_ms)
			continue;
		if (flow_new(&f, c, NULL, forget_begin, forget_answer, NULL, NULL) < 0)
			return;
		memcpy(f->user_id, u->rec.id, sizeof(f->user_id));
		flow_submit(f);
	}
}

void accounts_sweep(struct control *c)
{
	accounts_forget_unactivated(c, UNACTIVATED_MS);
	(void)store_account_prune(
	    c->store, control_real_ms(c) - ACCOUNTS_DELETED_MS, ACCOUNTS_PRUNE_MAX, NULL, NULL);
}
