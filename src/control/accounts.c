/* SPDX-License-Identifier: Apache-2.0 */
/*
 * accounts.c - accounts in memory, and changes taking turns (see accounts_internal.h)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "control/hosts_internal.h"

#include "base/banned.h"

/* ---- looking ---- */

struct user *user_find(const struct control *c, const char *id)
{
	return av_map_get(&c->accounts.users_by_id, av_str_c(id));
}

struct team *team_find(const struct control *c, const char *id)
{
	return av_map_get(&c->accounts.teams_by_id, av_str_c(id));
}

struct member *member_find(const struct control *c, const char *team_id, const char *user_id)
{
	const struct user *u = user_find(c, user_id);
	struct member *m;

	if (!u)
		return NULL;
	AV_LIST_FOREACH(m, &u->memberships, struct member, of_user)
	if (strcmp(m->rec.team_id, team_id) == 0)
		return m;
	return NULL;
}

struct user *user_by_email(const struct control *c, struct av_str email)
{
	char lower[STORE_EMAIL_SIZE];

	if (email.n == 0 || email.n >= sizeof(lower))
		return NULL;
	for (size_t i = 0; i < email.n; i++)
		lower[i] =
		    (char)(email.p[i] >= 'A' && email.p[i] <= 'Z' ? email.p[i] | 0x20 : email.p[i]);
	return av_map_get(&c->accounts.users_by_email, av_str_n(lower, email.n));
}

struct member *member_home(const struct user *u)
{
	struct member *m, *first = NULL;

	AV_LIST_FOREACH(m, &u->memberships, struct member, of_user)
	{
		if (m->rec.is_default)
			return m;
		first = first ? first : m;
	}
	return first;
}

static void describe_user(const struct user *u, struct control_user *ret)
{
	*ret = (struct control_user){.id = u->rec.id,
	    .name = u->rec.name,
	    .email = u->rec.email,
	    .status = u->rec.status,
	    .is_admin = u->rec.is_admin,
	    .has_password = u->rec.password[0] != '\0',
	    .has_github = u->rec.github_id[0] != '\0',
	    .created_ms = u->rec.created_ms,
	    .epoch = u->rec.epoch};
}

static void describe_team(const struct team *t, struct control_team *ret)
{
	*ret = (struct control_team){.id = t->rec.id,
	    .name = t->rec.name,
	    .slug = t->rec.slug,
	    .is_byoc = t->rec.is_byoc,
	    .quota = quota_of_store(&t->rec.quota),
	    .created_ms = t->rec.created_ms};
}

static void describe_member(const struct member *m, struct control_member *ret)
{
	describe_user(m->user, &ret->user);
	describe_team(m->team, &ret->team);
	ret->role = m->rec.role;
	ret->is_default = m->rec.is_default;
	ret->joined_ms = m->rec.joined_ms;
}

bool control_user_get(const struct control *c, const char *user_id, struct control_user *ret)
{
	const struct user *u = user_find(c, user_id);

	if (u)
		describe_user(u, ret);
	return u;
}

bool control_user_by_email(const struct control *c, struct av_str email, struct control_user *ret)
{
	const struct user *u = user_by_email(c, email);

	if (u)
		describe_user(u, ret);
	return u;
}

bool control_team_get(const struct control *c, const char *team_id, struct control_team *ret)
{
	const struct team *t = team_find(c, team_id);

	if (t)
		describe_team(t, ret);
	return t;
}

bool control_member_get(
    const struct control *c, const char *team_id, const char *user_id, struct control_member *ret)
{
	const struct member *m = member_find(c, team_id, user_id);

	if (m)
		describe_member(m, ret);
	return m;
}

bool control_home_get(const struct control *c, const char *user_id, struct control_member *ret)
{
	const struct user *u = user_find(c, user_id);
	const struct member *m = u ? member_home(u) : NULL;

	if (m)
		describe_member(m, ret);
	return m;
}

void control_members_of_team(
    const struct control *c, const char *team_id, control_member_fn *fn, void *ctx)
{
	const struct team *t = team_find(c, team_id);
	struct control_member info;
	const struct member *m;

	if (!t)
		return;
	AV_LIST_FOREACH(m, &t->members, const struct member, of_team)
	{
		describe_member(m, &info);
		if (!fn(ctx, &info))
			return;
	}
}

void control_members_of_user(
    const struct control *c, const char *user_id, control_member_fn *fn, void *ctx)
{
	const struct user *u = user_find(c, user_id);
	struct control_member info;
	const struct member *m;

	if (!u)
		return;
	AV_LIST_FOREACH(m, &u->memberships, const struct member, of_user)
	{
		describe_member(m, &info);
		if (!fn(ctx, &info))
			return;
	}
}

void control_users_each(
    const struct control *c, bool (*fn)(void *ctx, const struct control_user *user), void *ctx)
{
	struct control_user info;
	const struct user *u;

	AV_LIST_FOREACH(u, &c->accounts.users, const struct user, link)
	{
		describe_user(u, &info);
		if (!fn(ctx, &info))
			return;
	}
}

void control_teams_each(
    const struct control *c, bool (*fn)(void *ctx, const struct control_team *team), void *ctx)
{
	struct control_team info;
	const struct team *t;

	AV_LIST_FOREACH(t, &c->accounts.teams, const struct team, link)
	{
		describe_team(t, &info);
		if (!fn(ctx, &info))
			return;
	}
}

void team_slug_make(char ret[static 16])
{
	uint8_t random[6];
	char digits[13];

	av_random(random, sizeof(random));
	av_hex_encode(digits, random, sizeof(random));
	(void)snprintf(ret, 16, "%.6s-%.6s", digits, digits + 6);
}

/* ---- memory ---- */

static void member_drop(struct member *m)
{
	av_list_remove(&m->of_user);
	av_list_remove(&m->of_team);
	free(m);
}

static bool is_unactivated(const struct store_user *rec)
{
	return strcmp(rec->status, "inactive") == 0;
}

static void user_drop(struct control *c, struct user *u)
{
	struct member *m;

	c->accounts.n_unactivated -= is_unactivated(&u->rec);
	AV_LIST_FOREACH(m, &u->memberships, struct member, of_user)
	member_drop(m);
	(void)av_map_remove(&c->accounts.users_by_id, av_str_c(u->rec.id));
	if (u->rec.email[0])
		(void)av_map_remove(&c->accounts.users_by_email, av_str_c(u->rec.email));
	av_list_remove(&u->link);
	explicit_bzero(u->rec.password, sizeof(u->rec.password));
	free(u);
}

static void team_drop(struct control *c, struct team *t)
{
	struct member *m;

	AV_LIST_FOREACH(m, &t->members, struct member, of_team)
	member_drop(m);
	(void)av_map_remove(&c->accounts.teams_by_id, av_str_c(t->rec.id));
	av_list_remove(&t->link);
	free(t);
}

/* What somebody opened with a session, or with a key of theirs, is closed when it counts no more.
 */
static void sessions_ended(struct control *c, const struct user *u)
{
	const struct key *k;

	event_key_deleted(c, u->rec.id);
	AV_LIST_FOREACH(k, &c->keys, const struct key, link)
	if (strcmp(u->rec.status, "active") != 0 && strcmp(k->rec.user_id, u->rec.id) == 0)
		event_key_deleted(c, k->rec.id);
}

static int user_put(struct control *c, const struct store_user *rec)
{
	struct user *u = user_find(c, rec->id), *fresh = NULL;
	bool moved, ended;

	if (!u) {
		u = fresh = calloc(1, sizeof(*u));
		if (!u)
			return -ENOMEM;
		av_list_init(&u->memberships);
		memcpy(u->rec.id, rec->id, sizeof(u->rec.id));
		if (av_map_put(&c->accounts.users_by_id, av_str_c(u->rec.id), u) < 0) {
			free(u);
			return -ENOMEM;
		}
		av_list_append(&c->accounts.users, &u->link);
	}
	moved = strcmp(u->rec.email, rec->email) != 0;
	if (moved && u->rec.email[0])
		(void)av_map_remove(&c->accounts.users_by_email, av_str_c(u->rec.email));
	ended = u->rec.epoch != rec->epoch;
	c->accounts.n_unactivated -= is_unactivated(&u->rec);
	c->accounts.n_unactivated += is_unactivated(rec);
	u->rec = *rec; /* whose address the map borrows */
	if (moved && rec->email[0] &&
	    av_map_put(&c->accounts.users_by_email, av_str_c(u->rec.email), u) < 0) {
		u->rec.email[0] = '\0';
		if (fresh)
			user_drop(c, fresh);
		return -ENOMEM;
	}
	if (ended)
		sessions_ended(c, u);
	return 0;
}

static int team_put(struct control *c, const struct store_team *rec)
{
	struct team *t = team_find(c, rec->id);

	if (!t) {
		t = calloc(1, sizeof(*t));
		if (!t)
			return -ENOMEM;
		av_list_init(&t->members);
		memcpy(t->rec.id, rec->id, sizeof(t->rec.id));
		if (av_map_put(&c->accounts.teams_by_id, av_str_c(t->rec.id), t) < 0) {
			free(t);
			return -ENOMEM;
		}
		av_list_append(&c->accounts.teams, &t->link);
	}
	t->rec = *rec;
	return 0;
}

static int member_put(struct control *c, const struct store_member *rec)
{
	struct member *m = member_find(c, rec->team_id, rec->user_id);
	struct user *u = user_find(c, rec->user_id);
	struct team *t = team_find(c, rec->team_id);

	if (!u || !t)
		return 0; /* of somebody who is deleted */
	if (!m) {
		m = calloc(1, sizeof(*m));
		if (!m)
			return -ENOMEM;
		m->user = u;
		m->team = t;
		av_list_append(&u->memberships, &m->of_user);
		av_list_append(&t->members, &m->of_team);
	}
	m->rec = *rec;
	return 0;
}

static void leave(struct control *c, const struct store_account_change *ch)
{
	struct member *m;
	struct user *u;

	if (ch->former.team_id[0]) {
		keys_drop(c, ch->former.team_id, ch->former.user_id);
		event_key_deleted(c, ch->former.user_id);
		m = member_find(c, ch->former.team_id, ch->former.user_id);
		if (m)
			member_drop(m);
	}
	if (ch->leave_all && (u = user_find(c, ch->user.id))) {
		keys_drop(c, NULL, u->rec.id);
		AV_LIST_FOREACH(m, &u->memberships, struct member, of_user)
		member_drop(m);
	}
}

int accounts_apply(struct control *c, const struct store_account_change *ch)
{
	struct user *u;
	struct team *t;

	if ((ch->user.id[0] && user_put(c, &ch->user) < 0) ||
	    (ch->team.id[0] && team_put(c, &ch->team) < 0) ||
	    (ch->member.team_id[0] && member_put(c, &ch->member) < 0))
		return -ENOMEM;
	for (size_t i = 0; i < AV_ARRAY_LEN(ch->keys); i++)
		if (ch->keys[i].id[0] && key_put(c, &ch->keys[i]) < 0)
			return -ENOMEM;
	if (ch->gone_key[0])
		key_gone(c, ch->gone_key);
	leave(c, ch);
	for (size_t i = 0; i < ch->n_dissolved; i++) {
		keys_drop(c, ch->dissolved[i], NULL);
		channels_drop_team(c, ch->dissolved[i]);
		hosts_drop_team(c, ch->dissolved[i]);
		t = team_find(c, ch->dissolved[i]);
		if (t)
			team_drop(c, t);
	}
	if (ch->n_dissolved)
		teams_sweep(c);
	u = ch->user.id[0] ? user_find(c, ch->user.id) : NULL;
	if (u && strcmp(u->rec.status, "deleted") == 0)
		user_drop(c, u);
	return 0;
}

/* ---- taking turns ---- */

static void op_cancel(struct node_call *call)
{
	struct account_op *op = AV_CONTAINER_OF(call, struct account_op, call);

	op->cancelled = true;
}

void *account_op_new(
    struct control *c, size_t size, account_begin_fn *begin, account_answer_fn *answer, void *ctx)
{
	struct account_op *op = calloc(1, size);

	if (!op)
		return NULL;
	op->call.cancel = op_cancel;
	av_list_init(&op->link);
	op->c = c;
	op->begin = begin;
	op->answer = answer;
	op->ctx = ctx;
	return op;
}

void account_op_free(struct account_op *op)
{
	if (!op)
		return;
	av_list_remove(&op->link);
	explicit_bzero(&op->change, sizeof(op->change));
	if (op->drop)
		op->drop(op);
	else
		free(op);
}

void account_op_submit(struct account_op *op)
{
	av_list_append(&op->c->accounts.queue, &op->link);
	control_wake(op->c, 0);
}

int account_op_actor(struct account_op *op, struct av_err *err)
{
	const struct control_actor *a = &op->actor;
	const struct member *m = member_find(op->c, a->team_id, a->user_id);
	const struct key *k = a->key_id[0] ? key_find(op->c, a->key_id) : NULL;

	if (!m || strcmp(m->user->rec.status, "active") != 0 ||
	    (a->key_id[0] && (!k || key_is_expired(op->c, k))))
		return av_err_set(err, AV_ERR_UNAUTHORIZED,
		    "who asked for this may do nothing in the team any more");
	op->actor.role = control_role_parse(av_str_c(m->rec.role));
	op->actor.is_admin = m->user->rec.is_admin;
	return 0;
}

static void op_end(struct account_op *op, const struct av_err *err)
{
	if (!op->cancelled)
		op->answer(op, err);
	account_op_free(op);
}

static bool change_is_empty(const struct store_account_change *ch)
{
	return !ch->user.id[0] && !ch->team.id[0] && !ch->member.team_id[0] &&
	       !ch->former.team_id[0] && !ch->keys[0].id[0] && !ch->gone_key[0] &&
	       ch->n_dissolved == 0;
}

static void on_written(void *ctx, const struct av_err *err)
{
	struct account_op *op = ctx;
	struct control *c = op->c;
	struct av_err own;

	c->accounts.under_way = NULL;
	if (!err && accounts_apply(c, &op->change) < 0) {
		(void)av_err_set(&own, AV_ERR_NO_MEMORY,
		    "out of memory; the change is recorded and holds from the next start");
		err = &own;
	}
	op_end(op, err);
	accounts_tick(c);
}

static void op_begin(struct account_op *op)
{
	struct control *c = op->c;
	struct av_err err;
	int r = control_check_open(c, &err);

	av_list_remove(&op->link);
	if (r == 0)
		r = op->begin(op, &err);
	if (r == 0 && !change_is_empty(&op->change)) {
		op->change.at_ms = control_real_ms(c);
		r = store_account_change(c->store, &op->change, on_written, op);
		if (r == 0) {
			c->accounts.under_way = op;
			return;
		}
		(void)av_err_sys(
		    &err, AV_ERR_UNAVAILABLE, r, "the database takes no more requests");
	}
	op_end(op, r < 0 ? &err : NULL);
}

void accounts_tick(struct control *c)
{
	struct account_op *op;

	while (!c->accounts.under_way &&
	       (op = AV_LIST_FIRST(&c->accounts.queue, struct account_op, link)))
		op_begin(op);
}

void accounts_init(struct control *c)
{
	struct accounts *a = &c->accounts;

	av_map_init(&a->users_by_id);
	av_map_init(&a->users_by_email);
	av_map_init(&a->teams_by_id);
	av_list_init(&a->users);
	av_list_init(&a->teams);
	av_list_init(&a->queue);
	av_list_init(&a->preparing);
}

void accounts_clear(struct control *c)
{
	struct accounts *a = &c->accounts;
	struct account_op *op;
	struct user *u;
	struct team *t;

	AV_LIST_FOREACH(op, &a->queue, struct account_op, link)
	account_op_free(op);
	AV_LIST_FOREACH(op, &a->preparing, struct account_op, link)
	account_op_free(op);
	account_op_free(AV_TAKE_PTR(a->under_way));
	AV_LIST_FOREACH(u, &a->users, struct user, link)
	user_drop(c, u);
	AV_LIST_FOREACH(t, &a->teams, struct team, link)
	team_drop(c, t);
	av_map_clear(&a->users_by_id);
	av_map_clear(&a->users_by_email);
	av_map_clear(&a->teams_by_id);
}
