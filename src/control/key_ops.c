/* SPDX-License-Identifier: Apache-2.0 */
/*
 * key_ops.c - making, changing, rotating and deleting API keys
 *
 * Each is a change of accounts (accounts_internal.h), so that whoever asks is still a member, and
 * the key that asks is still good, at the moment that it becomes true; and so that the key does not
 * outlive its maker because the two passed each other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "control/accounts_internal.h"

#include "base/banned.h"

#define NAME_DEFAULT "Unnamed API Key"

struct key_op {
	struct account_op base; /* first */
	control_key_fn *fn;
	node_done_fn *done; /* of a deletion */
	char id[AV_ID_SIZE];
	char name[STORE_NAME_SIZE];
	bool set_name;
	uint32_t scopes;
	int64_t expires_ms, grace_ms;
	struct control_quota_update quota;
	char secret[48];
};

static struct key_op *op_of(struct account_op *op)
{
	return AV_CONTAINER_OF(op, struct key_op, base);
}

static void describe(
    const struct control *c, const struct key *k, const char *secret, struct control_key *ret)
{
	const struct user *u = user_find(c, k->rec.user_id);

	*ret = (struct control_key){
	    .id = k->rec.id,
	    .team_id = k->rec.team_id,
	    .name = k->rec.name,
	    .prefix = k->rec.prefix,
	    .created_by = k->rec.user_id,
	    .creator_email = u ? u->rec.email : "",
	    .scopes = k->rec.scopes,
	    .quota = quota_of_store(&k->rec.quota),
	    .created_ms = k->rec.created_ms,
	    .last_used_ms = k->rec.last_used_ms,
	    .expires_ms = k->rec.expires_ms,
	    .expired = key_is_expired(c, k),
	    .secret = secret,
	};
}

static bool sees(const struct control_actor *a, const struct key *k)
{
	return k && strcmp(k->rec.team_id, a->team_id) == 0 &&
	       (a->role >= CONTROL_ROLE_ADMIN || strcmp(k->rec.user_id, a->user_id) == 0);
}

static int not_found(const char *id, struct av_err *err)
{
	return av_err_set(err, AV_ERR_NOT_FOUND,
	    "there is no API key %.64s in this team, or it is another member's", id);
}

/* ---- what is allowed ---- */

bool key_has_quota(const struct key *k)
{
	const struct store_quota *q = &k->rec.quota;

	return q->sandboxes || q->cpu_milli || q->memory_bytes || q->disk_bytes ||
	       q->creates_per_minute;
}

/* What holds for every change of keys. */
static int may_change(struct account_op *op, struct av_err *err)
{
	int r = account_op_actor(op, err);
	const struct key *own;

	if (r < 0)
		return r;
	own = op->actor.key_id[0] ? key_find(op->c, op->actor.key_id) : NULL;
	if (own && key_has_quota(own))
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "an API key with a quota of its own makes, changes and rotates no keys; use "
		    "another key, or log in");
	return 0;
}

/* A new key may do no more, and no longer, than who makes it. */
static int may_make(
    const struct account_op *op, uint32_t scopes, int64_t *expires_ms, struct av_err *err)
{
	const struct control_actor *a = &op->actor;
	const struct key *own = a->key_id[0] ? key_find(op->c, a->key_id) : NULL;
	uint32_t more = scopes & ~a->scopes;
	char words[STORE_SCOPES_SIZE], when[32];

	/* "*" grows with Aviary; it is harmless with who is no administrator. */
	if (scopes != CONTROL_SCOPE_ALL && scopes & CONTROL_SCOPE_ADMIN && !a->is_admin)
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "the scope admin is for keys of administrators of this Aviary");
	if (more) {
		control_scopes_write(more, words, sizeof(words));
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "a key has no scope that the key which makes it lacks: %s; leave that out, or "
		    "log in",
		    words);
	}
	if (!own || !own->rec.expires_ms)
		return 0;
	if (*expires_ms && *expires_ms > own->rec.expires_ms) {
		av_rfc3339_ms(own->rec.expires_ms, when);
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "a key ends no later than the key that makes it, which ends at %s", when);
	}
	*expires_ms = *expires_ms ? *expires_ms : own->rec.expires_ms;
	return 0;
}

static int check_room(const struct control *c, const char *team_id, struct av_err *err)
{
	const struct key *k;
	size_t n = 0;

	AV_LIST_FOREACH(k, &c->keys, const struct key, link)
	n += strcmp(k->rec.team_id, team_id) == 0;
	if (n < CONTROL_KEYS_MAX)
		return 0;
	return av_err_set(err, AV_ERR_QUOTA,
	    "the team has %zu API keys and may have %d; delete some", n, CONTROL_KEYS_MAX);
}

/* ---- made ---- */

static void op_drop(struct account_op *base)
{
	struct key_op *op = op_of(base);

	explicit_bzero(op->secret, sizeof(op->secret));
	free(op);
}

static void answer_key(struct account_op *base, const struct av_err *err)
{
	struct key_op *op = op_of(base);
	const struct key *k = err ? NULL : key_find(base->c, op->id);
	struct control_key info;
	struct av_err own;

	if (!err && !k) {
		(void)not_found(op->id, &own);
		err = &own;
	}
	if (k)
		describe(base->c, k, op->secret[0] ? op->secret : NULL, &info);
	op->fn(base->ctx, k ? &info : NULL, err);
}

/* The record of a new key of who asks. */
static void fill(struct key_op *op, struct store_key *rec, uint32_t scopes, int64_t expires_ms)
{
	const struct control_actor *a = &op->base.actor;

	memcpy(rec->team_id, a->team_id, AV_ID_SIZE);
	memcpy(rec->user_id, a->user_id, AV_ID_SIZE);
	control_scopes_write(scopes, rec->scopes, sizeof(rec->scopes));
	rec->expires_ms = expires_ms;
	rec->created_ms = control_real_ms(op->base.c);
	key_secret_make(rec, op->secret, sizeof(op->secret));
	memcpy(op->id, rec->id, AV_ID_SIZE);
}

static int begin_create(struct account_op *base, struct av_err *err)
{
	struct key_op *op = op_of(base);
	struct store_key *rec = &base->change.keys[0];
	int r = may_change(base, err);

	if (r == 0)
		r = may_make(base, op->scopes, &op->expires_ms, err);
	if (r == 0)
		r = check_room(base->c, base->actor.team_id, err);
	if (r < 0)
		return r;
	memcpy(rec->name, op->name, sizeof(rec->name));
	quota_apply(&rec->quota, &op->quota);
	fill(op, rec, op->scopes, op->expires_ms);
	return 0;
}

static int take_name(struct key_op *op, struct av_str name, struct av_err *err)
{
	if (name.n == 0 || name.n >= STORE_NAME_SIZE || av_str_has_nul(name) ||
	    !av_utf8_valid(name))
		return av_err_set(err, AV_ERR_INVALID, "the name of a key is text of 1 to %d bytes",
		    STORE_NAME_SIZE - 1);
	memcpy(op->name, name.p, name.n);
	op->set_name = true;
	return 0;
}

static struct key_op *op_new(struct control *c, const struct control_actor *a, const char *id,
    account_begin_fn *begin, account_answer_fn *answer, void *ctx)
{
	struct key_op *op = account_op_new(c, sizeof(*op), begin, answer, ctx);

	if (!op)
		return NULL;
	op->base.drop = op_drop;
	op->base.actor = *a;
	if (id)
		memcpy(op->id, id, AV_ID_SIZE);
	return op;
}

static int no_memory(struct av_err *err)
{
	return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
}

static int submit(struct key_op *op, int r, struct node_call **ret)
{
	if (r < 0) {
		account_op_free(&op->base);
		return r;
	}
	if (ret)
		*ret = &op->base.call;
	account_op_submit(&op->base);
	return 0;
}

static int check_id(const char *id, struct av_err *err)
{
	if (av_id_valid(av_str_c(id), AV_ID_KEY))
		return 0;
	return av_err_set(err, AV_ERR_INVALID,
	    "'%.64s' is not the id of a key; ids are '" AV_ID_KEY
	    "' and 25 characters of 0-9 and a-z",
	    id);
}

static int check_expiry(const struct control *c, int64_t expires_ms, struct av_err *err)
{
	int64_t now = control_real_ms(c);

	if (!expires_ms || (expires_ms > now && expires_ms - now <= CONTROL_KEY_LIFE_MAX_MS))
		return 0;
	return av_err_set(err, AV_ERR_INVALID,
	    "a key expires in the future, at most %lld days from now; leave it out for one that "
	    "lasts",
	    CONTROL_KEY_LIFE_MAX_MS / (24LL * 3600 * 1000));
}

int control_key_create(struct control *c, const struct control_actor *a,
    const struct control_key_params *p, control_key_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	int r = control_check_open(c, err);
	struct key_op *op;

	if (r == 0)
		r = check_expiry(c, p->expires_ms, err);
	if (r == 0)
		r = quota_check_values(&p->quota, err);
	if (r < 0)
		return r;
	op = op_new(c, a, NULL, begin_create, answer_key, ctx);
	if (!op)
		return no_memory(err);
	op->fn = fn;
	op->scopes = p->scopes ? p->scopes : CONTROL_KEY_SCOPES_DEFAULT;
	op->expires_ms = p->expires_ms;
	op->quota = p->quota;
	return submit(op, take_name(op, p->name.n ? p->name : AV_STR(NAME_DEFAULT), err), ret);
}

/* ---- changed ---- */

static int begin_update(struct account_op *base, struct av_err *err)
{
	struct key_op *op = op_of(base);
	struct store_key *rec = &base->change.keys[0];
	const struct key *k = key_find(base->c, op->id);
	int r = may_change(base, err);

	if (r < 0)
		return r;
	if (!sees(&base->actor, k))
		return not_found(op->id, err);
	*rec = k->rec;
	if (op->set_name)
		memcpy(rec->name, op->name, sizeof(rec->name));
	quota_apply(&rec->quota, &op->quota);
	return 0;
}

int control_key_update(struct control *c, const struct control_actor *a, const char *id,
    const struct av_str *name, const struct control_quota_update *quota, control_key_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err)
{
	int r = control_check_open(c, err);
	struct key_op *op;

	if (r == 0)
		r = check_id(id, err);
	if (r == 0)
		r = quota_check_values(quota, err);
	if (r < 0)
		return r;
	op = op_new(c, a, id, begin_update, answer_key, ctx);
	if (!op)
		return no_memory(err);
	op->fn = fn;
	op->quota = *quota;
	return submit(op, name ? take_name(op, *name, err) : 0, ret);
}

/* ---- rotated ---- */

static int begin_rotate(struct account_op *base, struct av_err *err)
{
	struct key_op *op = op_of(base);
	struct store_key *fresh = &base->change.keys[0], *old = &base->change.keys[1];
	const struct key *k = key_find(base->c, op->id);
	int64_t now = control_real_ms(base->c), expires_ms = 0;
	int r = may_change(base, err);

	if (r < 0)
		return r;
	if (!sees(&base->actor, k))
		return not_found(op->id, err);
	if (strcmp(k->rec.user_id, base->actor.user_id) != 0)
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "only who made an API key may rotate it; delete it instead, or make another");
	if (key_is_expired(base->c, k))
		return av_err_set(
		    err, AV_ERR_INVALID_STATE, "API key %s has expired; make another", op->id);
	if (k->rec.expires_ms)
		expires_ms = now + k->rec.expires_ms - k->rec.created_ms;
	if (expires_ms && base->actor.key_id[0]) {
		const struct key *own = key_find(base->c, base->actor.key_id);

		if (own && own->rec.expires_ms)
			expires_ms = AV_MIN(expires_ms, own->rec.expires_ms);
	}
	r = may_make(base, k->scopes, &expires_ms, err);
	if (r == 0)
		r = check_room(base->c, base->actor.team_id, err);
	if (r < 0)
		return r;
	*old = k->rec;
	old->expires_ms = now + op->grace_ms;
	if (k->rec.expires_ms)
		old->expires_ms = AV_MIN(old->expires_ms, k->rec.expires_ms);
	memcpy(fresh->name, k->rec.name, sizeof(fresh->name));
	fresh->quota = k->rec.quota;
	fill(op, fresh, k->scopes, expires_ms);
	return 0;
}

int control_key_rotate(struct control *c, const struct control_actor *a, const char *id,
    int64_t grace_ms, control_key_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	int r = control_check_open(c, err);
	struct key_op *op;

	if (r == 0)
		r = check_id(id, err);
	if (r == 0)
		r = control_check_number(
		    err, "grace_sec", " s", 1000, grace_ms, 0, CONTROL_KEY_GRACE_MAX_MS);
	if (r < 0)
		return r;
	op = op_new(c, a, id, begin_rotate, answer_key, ctx);
	if (!op)
		return no_memory(err);
	op->fn = fn;
	op->grace_ms = grace_ms;
	return submit(op, 0, ret);
}

/* ---- gone ---- */

static void answer_done(struct account_op *base, const struct av_err *err)
{
	op_of(base)->done(base->ctx, err);
}

static int begin_delete(struct account_op *base, struct av_err *err)
{
	struct key_op *op = op_of(base);
	const struct key *k = key_find(base->c, op->id);
	int r = account_op_actor(base, err);

	if (r < 0)
		return r;
	if (!k || strcmp(k->rec.team_id, base->actor.team_id) != 0)
		return 0;
	if (!sees(&base->actor, k))
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "this API key is another member's; administrators of the team may delete it");
	memcpy(base->change.gone_key, op->id, AV_ID_SIZE);
	return 0;
}

int control_key_delete(struct control *c, const struct control_actor *a, const char *id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	int r = control_check_open(c, err);
	struct key_op *op;

	if (r == 0)
		r = check_id(id, err);
	if (r < 0)
		return r;
	op = op_new(c, a, id, begin_delete, answer_done, ctx);
	if (!op)
		return no_memory(err);
	op->done = fn;
	return submit(op, 0, ret);
}

static const struct key *find_old(const struct control *c)
{
	int64_t before_ms = control_real_ms(c) - CONTROL_KEY_KEEP_MS;
	const struct key *k;

	AV_LIST_FOREACH(k, &c->keys, const struct key, link)
	if (k->rec.expires_ms && k->rec.expires_ms < before_ms)
		return k;
	return NULL;
}

static int begin_forget(struct account_op *op, struct av_err *err)
{
	const struct key *k = find_old(op->c);

	(void)err;
	if (k)
		memcpy(op->change.gone_key, k->rec.id, AV_ID_SIZE);
	return 0;
}

static void answer_forgotten(struct account_op *op, const struct av_err *err)
{
	op->c->forgetting_keys = false;
	if (!err && find_old(op->c) && clock_may_forget(op->c))
		key_forget_old(op->c);
}

void key_forget_old(struct control *c)
{
	struct account_op *op;

	if (c->forgetting_keys)
		return;
	op = account_op_new(c, sizeof(*op), begin_forget, answer_forgotten, NULL);
	if (!op)
		return;
	c->forgetting_keys = true;
	account_op_submit(op);
}

/* ---- looking ---- */

void control_key_get(
    struct control *c, const struct control_actor *a, const char *id, control_key_fn *fn, void *ctx)
{
	const struct key *k = key_find(c, id);
	struct control_key info;
	struct av_err err;

	if (check_id(id, &err) < 0 || (!sees(a, k) && not_found(id, &err) < 0)) {
		fn(ctx, NULL, &err);
		return;
	}
	describe(c, k, NULL, &info);
	fn(ctx, &info, NULL);
}

void control_key_each(
    struct control *c, const struct control_actor *a, control_key_fn *fn, void *ctx)
{
	struct control_key info;

	for (struct av_list *n = c->keys.prev; n != &c->keys; n = n->prev) {
		const struct key *k = AV_CONTAINER_OF(n, struct key, link);

		if (!sees(a, k))
			continue;
		describe(c, k, NULL, &info);
		fn(ctx, &info, NULL);
	}
}
