/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow.c - requests about accounts, from a password to an answer (see login_internal.h)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/login_internal.h"

#include "base/banned.h"

static void flow_drop(struct account_op *op)
{
	struct flow *f = (struct flow *)op;

	explicit_bzero(f, sizeof(*f));
	free(f);
}

static void flow_cancel(struct node_call *call)
{
	struct flow *f = (struct flow *)AV_CONTAINER_OF(call, struct account_op, call);

	if (!f->job && !f->http) {
		f->op.cancelled = true;
		return;
	}
	if (f->job)
		password_cancel(AV_TAKE_PTR(f->job));
	if (f->http)
		f->op.c->config.outbound->cancel(AV_TAKE_PTR(f->http));
	account_op_free(&f->op);
}

int flow_new(struct flow **ret, struct control *c, const struct control_actor *a,
    account_begin_fn *begin, account_answer_fn *answer, void *ctx, struct av_err *err)
{
	int r = control_check_open(c, err);
	struct flow *f;

	static_assert(offsetof(struct flow, op) == 0, "an op is a flow");
	if (r < 0)
		return r;
	f = account_op_new(c, sizeof(*f), begin, answer, ctx);
	if (!f)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	f->op.call.cancel = flow_cancel;
	f->op.drop = flow_drop;
	if (a)
		f->op.actor = *a;
	*ret = f;
	return 0;
}

void flow_handle(struct flow *f, struct node_call **ret)
{
	if (ret)
		*ret = &f->op.call;
}

static void on_password(void *ctx, const struct password_result *r, const struct av_err *err)
{
	struct flow *f = ctx;

	f->job = NULL;
	f->next(f, r, err);
}

static int hash(struct flow *f, struct av_str password, flow_next_fn *next, struct av_err *err)
{
	f->next = next;
	return password_hash(f->op.c, password, on_password, f, &f->job, err);
}

int flow_hash(struct flow *f, struct av_str password, flow_next_fn *next, struct av_err *err)
{
	int r = hash(f, password, next, err);

	if (r < 0)
		account_op_free(&f->op);
	else
		av_list_append(&f->op.c->accounts.preparing, &f->op.link);
	return r;
}

int flow_check(struct flow *f, struct av_str password, flow_next_fn *next, struct av_err *err)
{
	int r;

	f->next = next;
	r = password_check(f->op.c, password, f->stored, on_password, f, &f->job, err);
	if (r < 0)
		account_op_free(&f->op);
	else
		av_list_append(&f->op.c->accounts.preparing, &f->op.link);
	return r;
}

void flow_hash_again(struct flow *f, struct av_str password, flow_next_fn *next)
{
	struct av_err err;

	if (hash(f, password, next, &err) < 0)
		flow_end(f, &err);
}

void flow_submit(struct flow *f)
{
	av_list_remove(&f->op.link);
	account_op_submit(&f->op);
}

void flow_end(struct flow *f, const struct av_err *err)
{
	if (!f->op.cancelled)
		f->op.answer(&f->op, err);
	account_op_free(&f->op);
}

void flow_take_hash(struct flow *f, const struct password_result *r, const struct av_err *err)
{
	if (err) {
		flow_end(f, err);
		return;
	}
	(void)snprintf(f->hash, sizeof(f->hash), "%s", r->hash);
	flow_submit(f);
}

/* ---- answers ---- */

void flow_answer_done(struct account_op *op, const struct av_err *err)
{
	struct flow *f = (struct flow *)op;

	f->fn.done(op->ctx, err);
}

void flow_answer_login(struct account_op *op, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf token = AV_BUF_INIT(4096);
	struct flow *f = (struct flow *)op;
	const struct user *u = err ? NULL : user_find(op->c, f->user_id);
	const struct member *home = u ? member_home(u) : NULL;
	const char *team = f->team_id[0] ? f->team_id : home ? home->rec.team_id : "";
	struct av_err own;

	if (!err && (!u || control_session_issue(op->c, team, f->user_id, &token) < 0 ||
	                !av_buf_cstr(&token))) {
		(void)av_err_set(&own, AV_ERR_CONFLICT,
		    "the account or its team has changed meanwhile; try again");
		err = &own;
	}
	if (err) {
		f->fn.login(op->ctx, NULL, err);
		return;
	}
	f->fn.login(op->ctx,
	    &(struct control_login){.token = av_buf_cstr(&token),
	        .user_id = u->rec.id,
	        .team_id = team,
	        .email = u->rec.email,
	        .name = u->rec.name,
	        .status = u->rec.status},
	    NULL);
	explicit_bzero(token.p, token.n);
}

void flow_answer_user(struct account_op *op, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf url = AV_BUF_INIT(1024);
	struct flow *f = (struct flow *)op;
	const struct user *u = err ? NULL : user_find(op->c, f->user_id);
	struct control_user info;
	struct control_link link;
	struct av_err own;

	if (!err && (!u || (f->wants_link && link_make(op->c, u, CONTROL_LINK_RESET,
	                                         CONTROL_ADMIN_LINK_S, &url, &link) < 0))) {
		(void)av_err_set(&own, AV_ERR_NO_MEMORY, "out of memory");
		err = &own;
	}
	if (!err)
		(void)control_user_get(op->c, f->user_id, &info);
	f->fn.user(op->ctx, err ? NULL : &info, !err && f->wants_link ? &link : NULL, err);
}

/* ---- what is given ---- */

static bool is_address_char(unsigned char ch)
{
	return ch > ' ' && ch != 0x7f && !strchr("<>()[]\\,;:\"", ch);
}

int email_take(char ret[static STORE_EMAIL_SIZE], struct av_str email, struct av_err *err)
{
	struct av_str s = av_str_trim(email), user, host;
	bool good;

	host = s;
	good = av_str_cut(&host, '@', &user) && user.n > 0 && host.n > 0 &&
	       av_str_chr(host, '@') < 0 && s.n < STORE_EMAIL_SIZE - 1 && av_utf8_valid(s);
	for (size_t i = 0; i < s.n && good; i++) {
		good = is_address_char((unsigned char)s.p[i]);
		ret[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] | 0x20 : s.p[i]);
	}
	if (!good)
		return av_err_set(err, AV_ERR_INVALID,
		    "'email' must be an e-mail address such as ada@example.com, of at most %d "
		    "bytes",
		    STORE_EMAIL_SIZE - 2);
	ret[s.n] = '\0';
	return 0;
}

int person_name_take(char ret[static STORE_NAME_SIZE], struct av_str name, struct av_err *err)
{
	struct av_str s = av_str_trim(name);
	size_t chars = 0;
	bool good = s.n > 0 && s.n < STORE_NAME_SIZE && av_utf8_valid(s);

	for (size_t i = 0; i < s.n && good; i++) {
		good = (unsigned char)s.p[i] >= ' ' && s.p[i] != 0x7f;
		chars += ((unsigned char)s.p[i] & 0xc0) != 0x80;
	}
	if (!good || chars > NAME_CHARS_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "'name' must have 1 to %d characters and at most %d bytes, without control "
		    "characters",
		    NAME_CHARS_MAX, STORE_NAME_SIZE - 1);
	return av_str_copy(ret, STORE_NAME_SIZE, s);
}

void person_name_of_email(char ret[static STORE_NAME_SIZE], const char *email)
{
	struct av_str rest = av_str_c(email), user;

	(void)av_str_cut(&rest, '@', &user);
	user.n = AV_MIN(user.n, (size_t)FIRST_NAME_PART);
	user.n -= av_utf8_incomplete_tail(user);
	(void)snprintf(ret, STORE_NAME_SIZE, "%.*s", AV_STR_ARG(user));
}

/* ---- changes ---- */

void team_of_own(struct control *c, struct store_account_change *ch)
{
	static const char suffix[] = "'s Team";
	struct av_str name = av_str_c(ch->user.name);
	int64_t now = control_real_ms(c);

	name.n = AV_MIN(name.n, sizeof(ch->team.name) - sizeof(suffix));
	name.n -= av_utf8_incomplete_tail(name);
	ch->team = (struct store_team){.created_ms = now};
	(void)snprintf(ch->team.name, sizeof(ch->team.name), "%.*s%s", AV_STR_ARG(name), suffix);
	av_id_make(ch->team.id, AV_ID_TEAM);
	team_slug_make(ch->team.slug);
	ch->member = (struct store_member){.role = "owner", .is_default = true, .joined_ms = now};
	memcpy(ch->member.team_id, ch->team.id, AV_ID_SIZE);
	memcpy(ch->member.user_id, ch->user.id, AV_ID_SIZE);
}

struct store_user *user_edit(struct account_op *op, const struct user *u)
{
	op->change.user = u->rec;
	op->change.user.updated_ms = control_real_ms(op->c);
	return &op->change.user;
}

int user_keep_admin(const struct control *c, const struct user *u, struct av_err *err)
{
	const struct user *o;

	if (!u->rec.is_admin || strcmp(u->rec.status, "active") != 0)
		return 0;
	AV_LIST_FOREACH(o, &c->accounts.users, const struct user, link)
	if (o != u && o->rec.is_admin && strcmp(o->rec.status, "active") == 0)
		return 0;
	return av_err_set(err, AV_ERR_CONFLICT,
	    "%s is the only administrator of this Aviary; make another one first", u->rec.id);
}

int actor_need_whole(const struct control *c, const struct control_actor *a, struct av_err *err)
{
	const struct key *k = a->key_id[0] ? key_find(c, a->key_id) : NULL;

	if (!a->key_id[0] ||
	    (k && a->scopes == CONTROL_SCOPE_ALL && !k->rec.expires_ms && !key_has_quota(k)))
		return 0;
	return av_err_set(err, AV_ERR_FORBIDDEN,
	    "this gives the rights of a whole account, which an API key with fewer scopes than *, "
	    "with an end or with a quota does not have; log in");
}

struct user *actor_user(const struct control *c, const struct control_actor *a, struct av_err *err)
{
	struct user *u = user_find(c, a->user_id);

	if (!u)
		(void)av_err_set(err, AV_ERR_UNAUTHORIZED, "this account does not exist any more");
	return u;
}
