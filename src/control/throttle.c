/* SPDX-License-Identifier: Apache-2.0 */
/*
 * throttle.c - how often somebody may try (see throttle.h)
 */
#include "control/throttle.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/ids.h"

#include "base/banned.h"

#define MINUTE_NS (60 * AV_NS_PER_S)

/* In the order of enum throttle_rule. */
static const struct rule {
	uint32_t allowance; /* attempts without a wait */
	int64_t sinks_ns;   /* the count goes down by one in this time */
	int64_t first_ns;   /* the first wait; each further one is twice as long */
	int64_t longest_ns;
} rules[THROTTLE_RULE_COUNT] = {
    [THROTTLE_LOGIN_PAIR] = {5, 5 * MINUTE_NS, 2 * AV_NS_PER_S, 15 * MINUTE_NS},
    [THROTTLE_LOGIN_ACCOUNT] = {20, MINUTE_NS, AV_NS_PER_S, MINUTE_NS},
    [THROTTLE_LOGIN_ADDRESS] = {60, 6 * AV_NS_PER_S, AV_NS_PER_S, MINUTE_NS},
    [THROTTLE_SIGNUP_ADDRESS] = {60, MINUTE_NS / 2, 2 * AV_NS_PER_S, MINUTE_NS},
    [THROTTLE_RESET_ACCOUNT] = {3, 5 * MINUTE_NS, MINUTE_NS, 15 * MINUTE_NS},
    [THROTTLE_RESET_ADDRESS] = {30, 6 * AV_NS_PER_S, AV_NS_PER_S, MINUTE_NS},
    [THROTTLE_CREDENTIAL_ADDRESS] = {1000, AV_NS_PER_S / 10, AV_NS_PER_S, MINUTE_NS},
};

#define KEY_SIZE 16

struct throttle_entry {
	struct av_list link;
	uint8_t key[KEY_SIZE];
	uint32_t count;
	bool known;
	int64_t since_ns;   /* the count sinks from here on */
	int64_t blocked_ns; /* until then */
};

void throttle_init(struct throttle *t)
{
	av_map_init(&t->entries);
	av_list_init(&t->by_use);
	av_random(t->seed, sizeof(t->seed));
}

static void entry_drop(struct throttle *t, struct throttle_entry *e)
{
	(void)av_map_remove(&t->entries, av_str_n((const char *)e->key, KEY_SIZE));
	av_list_remove(&e->link);
	free(e);
}

void throttle_clear(struct throttle *t)
{
	struct throttle_entry *e;

	AV_LIST_FOREACH(e, &t->by_use, struct throttle_entry, link)
	entry_drop(t, e);
	av_map_clear(&t->entries);
}

size_t throttle_count(const struct throttle *t)
{
	return t->entries.n;
}

static void make_key(const struct throttle *t, enum throttle_rule rule, struct av_str who,
    struct av_str also, uint8_t ret[static KEY_SIZE])
{
	crypto_generichash_state st;
	uint8_t head[1 + sizeof(who.n)] = {(uint8_t)rule};

	/* The length of the first keeps the two apart. */
	memcpy(head + 1, &who.n, sizeof(who.n));
	(void)crypto_generichash_init(&st, t->seed, sizeof(t->seed), KEY_SIZE);
	(void)crypto_generichash_update(&st, head, sizeof(head));
	(void)crypto_generichash_update(&st, (const uint8_t *)who.p, who.n);
	(void)crypto_generichash_update(&st, (const uint8_t *)also.p, also.n);
	(void)crypto_generichash_final(&st, ret, KEY_SIZE);
}

static struct throttle_entry *find(const struct throttle *t, enum throttle_rule rule,
    struct av_str who, struct av_str also, uint8_t ret_key[static KEY_SIZE])
{
	make_key(t, rule, who, also, ret_key);
	return av_map_get(&t->entries, av_str_n((const char *)ret_key, KEY_SIZE));
}

/* Found or made, and the one used last; NULL without memory. */
static struct throttle_entry *use(struct throttle *t, enum throttle_rule rule, struct av_str who,
    struct av_str also, int64_t now_ns)
{
	uint8_t key[KEY_SIZE];
	struct throttle_entry *e = find(t, rule, who, also, key);

	if (e) {
		av_list_remove(&e->link);
		av_list_append(&t->by_use, &e->link);
		return e;
	}
	e = AV_LIST_FIRST(&t->by_use, struct throttle_entry, link);
	if (e && t->entries.n >= THROTTLE_ENTRIES_MAX)
		entry_drop(t, e);
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	memcpy(e->key, key, KEY_SIZE);
	e->since_ns = now_ns;
	if (av_map_put(&t->entries, av_str_n((const char *)e->key, KEY_SIZE), e) < 0) {
		free(e);
		return NULL;
	}
	av_list_append(&t->by_use, &e->link);
	return e;
}

static void sink(struct throttle_entry *e, const struct rule *r, int64_t now_ns)
{
	int64_t steps = (now_ns - e->since_ns) / r->sinks_ns;

	if (e->count == 0 || steps >= (int64_t)e->count) {
		e->count = 0;
		e->since_ns = now_ns;
	} else if (steps > 0) {
		e->count -= (uint32_t)steps;
		e->since_ns += steps * r->sinks_ns;
	}
}

static int64_t wait_after(const struct rule *r, uint32_t count)
{
	uint32_t over = count - r->allowance;
	int64_t wait = r->first_ns;

	while (--over > 0 && wait < r->longest_ns)
		wait *= 2;
	return AV_MIN(wait, r->longest_ns);
}

int64_t throttle_take(struct throttle *t, enum throttle_rule rule, struct av_str who,
    struct av_str also, int64_t now_ns)
{
	struct throttle_entry *e = use(t, rule, who, also, now_ns);
	const struct rule *r = &rules[rule];

	if (!e)
		return 0;
	if (now_ns < e->blocked_ns)
		return e->blocked_ns - now_ns;
	sink(e, r, now_ns);
	e->count++;
	if (e->count > r->allowance)
		e->blocked_ns = now_ns + wait_after(r, e->count);
	return 0;
}

void throttle_give_back(struct throttle *t, enum throttle_rule rule, struct av_str who,
    struct av_str also, int64_t now_ns)
{
	uint8_t key[KEY_SIZE];
	struct throttle_entry *e = find(t, rule, who, also, key);

	(void)now_ns;
	if (!e || e->count == 0)
		return;
	e->count--;
	e->blocked_ns = 0;
}

void throttle_forgive(struct throttle *t, enum throttle_rule rule, struct av_str who,
    struct av_str also, int64_t now_ns)
{
	struct throttle_entry *e = use(t, rule, who, also, now_ns);

	if (!e)
		return;
	e->count = 0;
	e->blocked_ns = 0;
	e->known = true;
}

bool throttle_knows(
    struct throttle *t, enum throttle_rule rule, struct av_str who, struct av_str also)
{
	uint8_t key[KEY_SIZE];
	const struct throttle_entry *e = find(t, rule, who, also, key);

	return e && e->known;
}

int throttle_refuse(struct av_err *err, const char *what, int64_t wait_ns)
{
	int s = (int)((wait_ns + AV_NS_PER_S - 1) / AV_NS_PER_S);

	return av_err_set_retry(
	    err, AV_ERR_RATE_LIMITED, s, "%s; try again in %d s", what, s ? s : 1);
}

/* ---- logging in ---- */

int throttle_login_begin(struct throttle *t, struct av_str account, struct av_str address,
    int64_t now_ns, struct av_err *err)
{
	const struct av_str none = AV_STR("");
	bool known = throttle_knows(t, THROTTLE_LOGIN_PAIR, account, address);
	int64_t wait = throttle_take(t, THROTTLE_LOGIN_ADDRESS, address, none, now_ns);

	if (wait)
		return throttle_refuse(err, "too many logins from your address have failed", wait);
	wait = throttle_take(t, THROTTLE_LOGIN_PAIR, account, address, now_ns);
	if (!wait && !known) {
		wait = throttle_take(t, THROTTLE_LOGIN_ACCOUNT, account, none, now_ns);
		if (wait)
			throttle_give_back(t, THROTTLE_LOGIN_PAIR, account, address, now_ns);
	}
	if (!wait)
		return 0;
	throttle_give_back(t, THROTTLE_LOGIN_ADDRESS, address, none, now_ns);
	return throttle_refuse(err, "too many logins to this account have failed", wait);
}

void throttle_login_end(struct throttle *t, struct av_str account, struct av_str address,
    int64_t now_ns, enum throttle_outcome outcome)
{
	const struct av_str none = AV_STR("");

	if (outcome == THROTTLE_BAD)
		return;
	throttle_give_back(t, THROTTLE_LOGIN_ADDRESS, address, none, now_ns);
	if (outcome == THROTTLE_UNDECIDED) {
		throttle_give_back(t, THROTTLE_LOGIN_PAIR, account, address, now_ns);
		if (!throttle_knows(t, THROTTLE_LOGIN_PAIR, account, address))
			throttle_give_back(t, THROTTLE_LOGIN_ACCOUNT, account, none, now_ns);
		return;
	}
	throttle_forgive(t, THROTTLE_LOGIN_PAIR, account, address, now_ns);
	throttle_forgive(t, THROTTLE_LOGIN_ACCOUNT, account, none, now_ns);
}
