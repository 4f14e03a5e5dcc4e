/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.c - API keys in memory, and the first administrator (changes of keys: key_ops.c)
 *
 * A key is found by the SHA-256 of its secret, so that the time of the look-up says nothing about
 * the secret; what is found is compared in constant time all the same. 160 random bits need no slow
 * hash.
 */
#include "control/keys.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "control/accounts_internal.h"

#include "base/banned.h"

#define KEY_PREFIX       "av_"
#define KEY_SHOWN_DIGITS 7

static const char *const prefixes[] = {"av_", "wrn_", "e2b_", "cw_"};

static_assert(crypto_hash_sha256_BYTES == STORE_HASH_SIZE, "SHA-256");

static struct av_str hash_str(const uint8_t hash[static STORE_HASH_SIZE])
{
	return av_str_n((const char *)hash, STORE_HASH_SIZE);
}

int key_add(struct control *c, const struct store_key *rec)
{
	struct key *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	k->rec = *rec;
	/* What a later Aviary knew is worth nothing here. */
	if (control_scopes_parse(av_str_c(rec->scopes), &k->scopes, NULL) < 0)
		k->scopes = CONTROL_SCOPE_NONE;
	if (av_map_put(&c->keys_by_hash, hash_str(k->rec.hash), k) < 0) {
		free(k);
		return -ENOMEM;
	}
	if (av_map_put(&c->keys_by_id, av_str_c(k->rec.id), k) < 0) {
		(void)av_map_remove(&c->keys_by_hash, hash_str(k->rec.hash));
		free(k);
		return -ENOMEM;
	}
	av_list_append(&c->keys, &k->link);
	return 0;
}

struct key *key_find(const struct control *c, const char *id)
{
	return av_map_get(&c->keys_by_id, av_str_c(id));
}

bool key_is_expired(const struct control *c, const struct key *k)
{
	return k->rec.expires_ms && k->rec.expires_ms <= control_real_ms(c);
}

/* Once: whoever showed it is told nothing any more. */
static void tell_end(struct control *c, struct key *k)
{
	if (!k->ended)
		event_key_deleted(c, k->rec.id);
	k->ended = true;
}

int key_put(struct control *c, const struct store_key *rec)
{
	struct key *k = key_find(c, rec->id);

	if (!k)
		return key_add(c, rec);
	(void)snprintf(k->rec.name, sizeof(k->rec.name), "%s", rec->name);
	k->rec.expires_ms = rec->expires_ms;
	k->rec.quota = rec->quota;
	if (key_is_expired(c, k))
		tell_end(c, k);
	return 0;
}

static void key_drop(struct control *c, struct key *k)
{
	(void)av_map_remove(&c->keys_by_id, av_str_c(k->rec.id));
	(void)av_map_remove(&c->keys_by_hash, hash_str(k->rec.hash));
	av_list_remove(&k->link);
	free(k);
}

void keys_clear(struct control *c)
{
	struct key *k;

	while ((k = AV_LIST_FIRST(&c->keys, struct key, link)))
		key_drop(c, k);
}

void keys_drop(struct control *c, const char *team_id, const char *user_id)
{
	struct key *k;

	AV_LIST_FOREACH(k, &c->keys, struct key, link)
	{
		if ((team_id && strcmp(k->rec.team_id, team_id) != 0) ||
		    (user_id && strcmp(k->rec.user_id, user_id) != 0))
			continue;
		tell_end(c, k);
		key_drop(c, k);
	}
}

void key_gone(struct control *c, const char *id)
{
	struct key *k = key_find(c, id);

	if (!k)
		return;
	tell_end(c, k);
	key_drop(c, k);
}

void keys_check_ends(struct control *c)
{
	int64_t forget_ms = control_real_ms(c) - CONTROL_KEY_KEEP_MS;
	bool old = false;
	struct key *k;

	AV_LIST_FOREACH(k, &c->keys, struct key, link)
	{
		if (!key_is_expired(c, k))
			continue;
		tell_end(c, k);
		old = old || k->rec.expires_ms < forget_ms;
	}
	if (old && clock_may_forget(c))
		key_forget_old(c);
}

void keys_flush(struct control *c)
{
	struct key *k;

	AV_LIST_FOREACH(k, &c->keys, struct key, link)
	{
		if (!k->dirty)
			continue;
		if (store_key_touch(c->store, k->rec.id, k->rec.last_used_ms) < 0)
			return;
		k->dirty = false;
	}
}

/* ---- verification ---- */

static bool cut_prefix(struct av_str *s)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(prefixes); i++) {
		struct av_str p = av_str_c(prefixes[i]);

		if (av_str_starts(*s, p)) {
			s->p += p.n;
			s->n -= p.n;
			return true;
		}
	}
	return false;
}

/* The key is good; whoever made it must still be somebody. */
static int check_maker(
    const struct control *c, const struct key *k, struct control_actor *ret, struct av_err *err)
{
	const struct member *m = member_find(c, k->rec.team_id, k->rec.user_id);
	char when[32];

	if (key_is_expired(c, k)) {
		av_rfc3339_ms(k->rec.expires_ms, when);
		return av_err_set(err, AV_ERR_UNAUTHORIZED,
		    "this API key expired at %s; make another, or rotate a key before it expires",
		    when);
	}
	if (!m)
		return av_err_set(err, AV_ERR_UNAUTHORIZED,
		    "whoever made this API key does not belong to the team any more");
	if (strcmp(m->user->rec.status, "active") != 0)
		return av_err_set(err, AV_ERR_ACCOUNT_DEACTIVATED,
		    "the account that made this API key is not active; an administrator can "
		    "activate it");
	ret->role = control_role_parse(av_str_c(m->rec.role));
	ret->is_admin = m->user->rec.is_admin;
	ret->scopes = k->scopes;
	return 0;
}

int control_key_verify(
    struct control *c, struct av_str presented, struct control_actor *ret, struct av_err *err)
{
	uint8_t hash[STORE_HASH_SIZE];
	struct control_actor actor = {0};
	struct key *k = NULL;
	int r;

	if (cut_prefix(&presented) && presented.n == AV_KEY_SECRET_LEN) {
		(void)crypto_hash_sha256(hash, (const unsigned char *)presented.p, presented.n);
		k = av_map_get(&c->keys_by_hash, hash_str(hash));
	}
	if (!k || !av_str_eq_secret(hash_str(hash), hash_str(k->rec.hash))) {
		(void)av_err_set(err, AV_ERR_UNAUTHORIZED,
		    "the API key is not valid; send one that this Aviary gave out, as X-API-Key");
		return -ENOKEY;
	}
	r = check_maker(c, k, &actor, err);
	if (r < 0)
		return r;
	memcpy(actor.team_id, k->rec.team_id, AV_ID_SIZE);
	memcpy(actor.user_id, k->rec.user_id, AV_ID_SIZE);
	memcpy(actor.key_id, k->rec.id, AV_ID_SIZE);
	*ret = actor;
	k->rec.last_used_ms = control_real_ms(c);
	k->dirty = true;
	return 0;
}

/* ---- secrets ---- */

void key_secret_make(struct store_key *rec, char *secret, size_t size)
{
	uint8_t random[AV_KEY_SECRET_LEN / 2];
	char digits[AV_KEY_SECRET_LEN + 1];

	static_assert(
	    sizeof(rec->prefix) > sizeof(KEY_PREFIX) + KEY_SHOWN_DIGITS, "the prefix fits");
	av_random(random, sizeof(random));
	av_hex_encode(digits, random, sizeof(random));
	(void)crypto_hash_sha256(rec->hash, (const unsigned char *)digits, AV_KEY_SECRET_LEN);
	(void)snprintf(secret, size, "%s%s", KEY_PREFIX, digits);
	(void)snprintf(
	    rec->prefix, sizeof(rec->prefix), "%s%.*s", KEY_PREFIX, KEY_SHOWN_DIGITS, digits);
	explicit_bzero(random, sizeof(random));
	explicit_bzero(digits, sizeof(digits));
	av_id_make(rec->id, AV_ID_KEY);
}

/* ---- first start ---- */

struct first {
	struct control *c;
	int (*on_secret)(void *ctx, const char *secret);
	void (*on_done)(void *ctx, bool made, const struct av_err *err);
	void *ctx;
	struct store_first rec;
};

static void first_end(struct first *f, bool made, const struct av_err *err)
{
	f->on_done(f->ctx, made, err);
	free(f);
}

static void on_first_recorded(void *ctx, const struct av_err *err)
{
	struct first *f = ctx;
	struct store_account_change ch = {
	    .user = f->rec.user, .team = f->rec.team, .member = f->rec.member};
	struct av_err own;

	if (!err && (accounts_apply(f->c, &ch) < 0 || key_add(f->c, &f->rec.key) < 0)) {
		(void)av_err_set(&own, AV_ERR_NO_MEMORY, "out of memory");
		err = &own;
	}
	first_end(f, !err, err);
}

static int first_make(struct first *f, struct av_err *err)
{
	struct store_first *rec = &f->rec;
	int64_t now = control_real_ms(f->c);
	char secret[48] = "";
	int r;

	rec->user = (struct store_user){
	    .name = "admin", .status = "active", .is_admin = true, .created_ms = now};
	rec->team = (struct store_team){.name = "default", .created_ms = now};
	rec->member = (struct store_member){.role = "owner", .is_default = true, .joined_ms = now};
	rec->key = (struct store_key){.name = "admin", .scopes = "*", .created_ms = now};
	av_id_make(rec->user.id, AV_ID_USER);
	av_id_make(rec->team.id, AV_ID_TEAM);
	team_slug_make(rec->team.slug);
	memcpy(rec->member.user_id, rec->user.id, AV_ID_SIZE);
	memcpy(rec->member.team_id, rec->team.id, AV_ID_SIZE);
	memcpy(rec->key.user_id, rec->user.id, AV_ID_SIZE);
	memcpy(rec->key.team_id, rec->team.id, AV_ID_SIZE);
	key_secret_make(&rec->key, secret, sizeof(secret));
	r = f->on_secret(f->ctx, secret);
	explicit_bzero(secret, sizeof(secret));
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, r, "cannot hand on the administrator's first key");
	r = store_first_start(f->c->store, rec, on_first_recorded, f);
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_UNAVAILABLE, r, "the database takes no more requests");
	return 0;
}

static void on_first_asked(void *ctx, const char *value, const struct av_err *err)
{
	struct first *f = ctx;
	struct av_err own;

	if (err || value)
		first_end(f, false, err);
	else if (first_make(f, &own) < 0)
		first_end(f, false, &own);
}

int control_first_start(struct control *c, int (*on_secret)(void *ctx, const char *secret),
    void (*on_done)(void *ctx, bool made, const struct av_err *err), void *ctx)
{
	struct first *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return -ENOMEM;
	f->c = c;
	f->on_secret = on_secret;
	f->on_done = on_done;
	f->ctx = ctx;
	r = store_value_get(c->store, "first_start", on_first_asked, f);
	if (r < 0)
		free(f);
	return r;
}
