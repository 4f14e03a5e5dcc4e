/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_quota.c - what teams and keys may use: exact, also with many creates at once, over restarts
 * and with repetitions
 */
#include "control/quota.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/teams.h"
#include "control_world.h"
#include "base/banned.h"

#define MIB (1024 * 1024)

static struct answer set_quota(struct world *w, enum control_quota_limit limit, int64_t value)
{
	struct control_quota_update u = {.set = 1u << limit};
	struct answer a = {0};
	struct av_err err = {0};

	u.values.v[limit] = value;
	if (control_admin_team_quota(
	        w->control, &w->actor, w->actor.team_id, &u, on_done, &a, NULL, &err) < 0)
		take_err(&a, &err);
	else
		(void)run_until(w, &a.done);
	return a;
}

static struct answer change(struct world *w, const char *id,
    int (*fn)(struct control *c, const struct control_actor *a, const char *id, sandbox_fn *fn,
        void *ctx, struct node_call **ret, struct av_err *err))
{
	struct answer a = {0};
	struct av_err err = {0};

	if (fn(w->control, &w->actor, id, on_sandbox, &a, NULL, &err) < 0)
		take_err(&a, &err);
	else
		(void)run_until(w, &a.done);
	return a;
}

static const struct sandbox_params plain;

/* All asked in one turn, one place left: one gets it. */
static void test_many_at_once(struct world *w)
{
	static struct answer v[100];
	struct answer first = create(w, &plain), second = create(w, &plain);
	size_t asked = 0, made = 0, refused = 0, last = 0;

	is_int(set_quota(w, CONTROL_QUOTA_SANDBOXES, 3).kind, 0, "three sandboxes are allowed");
	for (size_t i = 0; i < AV_ARRAY_LEN(v); i++) {
		struct av_err err = {0};

		if (control_create(w->control, &w->actor, &plain, on_sandbox, &v[i], NULL, &err) <
		    0)
			take_err(&v[i], &err);
		else
			asked++;
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(v); i++) {
		(void)run_until(w, &v[i].done);
		made += v[i].kind == AV_ERR_NONE;
		refused += v[i].kind == AV_ERR_QUOTA;
		last = v[i].kind == AV_ERR_NONE ? i : last;
	}
	is_int(asked, 1, "one of a hundred is let in");
	is_int(made, 1, "and made");
	ok(refused == 99, "the others are refused: %s", v[99].message);
	is_int(control_quota_refused(w->control, CONTROL_QUOTA_OF_TEAM, CONTROL_QUOTA_SANDBOXES),
	    99, "and counted");
	(void)delete (w, v[last].id);
	first = (delete (w, first.id), first);
	second = create(w, &plain);
	is_int(second.kind, 0, "what was deleted gives room");
	(void)set_quota(w, CONTROL_QUOTA_SANDBOXES, 0);
}

static void test_processors(struct world *w)
{
	const struct sandbox_params two = {.cpu_milli = 1000};
	struct answer a, b, r;

	is_int(set_quota(w, CONTROL_QUOTA_CPU, 4000).kind, 0, "four processors");
	a = create(w, &two); /* two run from before */
	b = create(w, &two);
	is_int(b.kind, 0, "two more of one each");
	r = create(w, &two);
	ok(r.kind == AV_ERR_QUOTA && strstr(r.message, "'cpus'"), "the next is refused: %s",
	    r.message);
	is_int(change(w, a.id, control_pause).kind, 0, "one is paused");
	r = create(w, &two);
	is_int(r.kind, 0, "a paused one needs no processor");
	b = change(w, a.id, control_resume);
	ok(b.kind == AV_ERR_QUOTA, "but cannot go on then: %s", b.message);
	(void)delete (w, r.id);
	is_int(change(w, a.id, control_resume).kind, 0, "before there is room");
	(void)set_quota(w, CONTROL_QUOTA_CPU, 0);
}

static void test_memory(struct world *w)
{
	const struct sandbox_params big = {.memory_bytes = 1024LL * MIB};
	struct answer list_all = list(w, &(struct sandbox_filter){0}), a, r;
	int64_t used = (int64_t)list_all.n * 512 * MIB;

	(void)set_quota(w, CONTROL_QUOTA_MEMORY, used + 1536LL * MIB);
	a = create(w, &big);
	is_int(a.kind, 0, "a gigabyte is there");
	(void)change(w, a.id, control_pause);
	r = create(w, &big);
	ok(r.kind == AV_ERR_QUOTA && strstr(r.message, "'memory_mb'"),
	    "the memory of a paused sandbox counts: %s", r.message);
	(void)delete (w, a.id);
	(void)set_quota(w, CONTROL_QUOTA_MEMORY, 0);
}

static void test_rate(struct world *w)
{
	struct answer a, b, r = {0};
	struct av_err err = {0};

	(void)set_quota(w, CONTROL_QUOTA_CREATES, 2);
	a = create(w, &plain);
	b = create(w, &plain);
	ok(a.kind == 0 && b.kind == 0, "two creates a minute are two at once");
	ok(control_create(w->control, &w->actor, &plain, on_sandbox, &r, NULL, &err) < 0,
	    "the third is refused: %s", err.message);
	ok(err.kind == AV_ERR_QUOTA && err.retry_after_s >= 29 && err.retry_after_s <= 30,
	    "with the time to wait: %d s", err.retry_after_s);
	w->skew_ns += 31 * AV_NS_PER_S;
	(void)delete (w, b.id);
	b = create(w, &plain);
	is_int(b.kind, 0, "half a minute later there is one again");
	is_int(create(w, &plain).kind, AV_ERR_QUOTA, "and only one");
	(void)delete (w, a.id);
	(void)delete (w, b.id);
	(void)set_quota(w, CONTROL_QUOTA_CREATES, 0);
}

/* A repetition finds its sandbox, however full the team is. */
static void test_repetition(struct world *w)
{
	struct sandbox_params p = {
	    .idempotency_key = AV_STR("again"), .request_body = AV_STR("{}")};
	struct answer a = create(w, &p), b, r;

	(void)set_quota(w, CONTROL_QUOTA_SANDBOXES, 1);
	(void)set_quota(w, CONTROL_QUOTA_CREATES, 1);
	b = create(w, &p);
	ok(b.kind == 0 && b.replayed && strcmp(a.id, b.id) == 0,
	    "the same request gets the same sandbox: %s", b.message);
	p.idempotency_key = AV_STR("fresh");
	r = create(w, &p);
	ok(r.kind == AV_ERR_QUOTA, "a new one is refused: %s", r.message);
	r = create(w, &p);
	is_int(r.kind, AV_ERR_QUOTA, "again, as a refusal takes no key");
	(void)set_quota(w, CONTROL_QUOTA_SANDBOXES, 0);
	(void)set_quota(w, CONTROL_QUOTA_CREATES, 0);
	r = create(w, &p);
	ok(r.kind == 0, "and with room it is made: %s", r.message);
	p.request_body = AV_STR("{\"x\":1}");
	(void)set_quota(w, CONTROL_QUOTA_SANDBOXES, 1);
	is_int(create(w, &p).kind, AV_ERR_CONFLICT, "another request with the key is told so");
	(void)set_quota(w, CONTROL_QUOTA_SANDBOXES, 0);
	(void)delete (w, a.id);
	(void)delete (w, r.id);
}

static void on_key(void *ctx, const struct control_key *key, const struct av_err *err)
{
	struct answer *a = ctx;

	take_err(a, err);
	if (key)
		(void)snprintf(a->message, sizeof(a->message), "%s", key->secret);
}

/* Of the key alone: what others of the team made does not count. */
static void test_key(struct world *w)
{
	struct control_key_params p = {.quota = {.set = 1u << CONTROL_QUOTA_SANDBOXES}};
	struct control_actor mine = w->actor;
	struct answer k = {0}, a, r;

	p.quota.values.v[CONTROL_QUOTA_SANDBOXES] = 1;
	(void)control_key_create(w->control, &w->actor, &p, on_key, &k, NULL, NULL);
	(void)run_until(w, &k.done);
	is_int(control_key_verify(w->control, av_str_c(k.message), &w->actor, NULL), 0, "a key");
	a = create(w, &plain);
	is_int(a.kind, 0, "may have one sandbox");
	r = create(w, &plain);
	ok(r.kind == AV_ERR_QUOTA && strstr(r.message, "this API key"), "and no second: %s",
	    r.message);
	k = (struct answer){0};
	(void)control_key_create(
	    w->control, &w->actor, &(struct control_key_params){0}, on_key, &k, NULL, NULL);
	(void)run_until(w, &k.done);
	ok(k.kind == AV_ERR_FORBIDDEN, "nor a key that may: %s", k.message);
	w->actor = mine;
	is_int(create(w, &plain).kind, 0, "another key of the team may");
	(void)delete (w, a.id);
}

struct found {
	double value, used;
	char origin[16];
	const char *name, *of;
};

static void on_limit(void *ctx, const struct control_limit *l)
{
	struct found *f = ctx;

	if (strcmp(l->name, f->name) != 0 || strcmp(l->of, f->of) != 0)
		return;
	f->value = l->value;
	f->used = l->used;
	(void)snprintf(f->origin, sizeof(f->origin), "%s", l->origin);
}

/* What lives counts after a death as before. */
static void test_restart(struct world *w, struct fake_machine *m)
{
	struct found f = {.name = "sandboxes", .of = "team"};
	size_t n = list(w, &(struct sandbox_filter){0}).n;
	struct control_actor mine = w->actor;

	(void)set_quota(w, CONTROL_QUOTA_SANDBOXES, (int64_t)n + 1);
	world_close(w, false);
	world_open(w, m, NULL);
	w->actor = mine;
	control_limits_each(w->control, &w->actor, on_limit, &f);
	is_int((int64_t)f.used, (int64_t)n, "limits tell what is used");
	is_int((int64_t)f.value, (int64_t)n + 1, "of what");
	is_str(f.origin, "team", "and whose bound it is");
	is_int(create(w, &plain).kind, 0, "the last one is made");
	is_int(create(w, &plain).kind, AV_ERR_QUOTA, "and no more");
}

int main(void)
{
	struct fake_machine m;
	struct world w;

	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	(void)control_first_start(w.control, on_secret, on_first, &w);
	(void)run_until(&w, &w.stopped);
	(void)control_key_verify(w.control, av_str_c(w.secret), &w.actor, NULL);
	test_many_at_once(&w);
	test_processors(&w);
	test_memory(&w);
	test_rate(&w);
	test_repetition(&w);
	test_key(&w);
	test_restart(&w, &m);
	world_close(&w, true);
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
