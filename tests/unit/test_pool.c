/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_pool.c - sandboxes made ahead of time: given once, counted for nobody, gone with the daemon
 */
#include "control/control.h"

#include "control_world.h"
#include "lib/tap.h"

#include "base/banned.h"

static struct control_pool_stats pool_stats(struct world *w)
{
	struct control_pool_stats s;

	control_get_pool(w->control, &s);
	return s;
}

static void run_until_ready(struct world *w, size_t n)
{
	int64_t end = av_mono_ns() + 10 * AV_NS_PER_S;

	while (pool_stats(w).ready < n && av_mono_ns() < end)
		av_loop_run_once(w->loop, 20);
	ok(pool_stats(w).ready >= n, "%zu are ready", n);
}

static size_t boxes(const struct fake_machine *m)
{
	size_t n = 0;

	for (const struct av_list *b = m->boxes.next; b != &m->boxes; b = b->next)
		n++;
	return n;
}

static void test_pool_gives(struct world *w)
{
	struct sandbox_filter all = {0};
	struct sandbox_params p = {0}, odd = {.memory_bytes = 64 * AV_MIB};
	char ready[AV_ID_SIZE] = "";
	const struct fake_box *b;
	struct answer a;

	run_until_ready(w, 1);
	b = AV_LIST_FIRST(&w->machine->boxes, struct fake_box, link);
	if (b)
		memcpy(ready, b->id, AV_ID_SIZE);
	is_int((long long)list(w, &all).n, 0, "nobody is shown a member");
	is_int(get(w, ready).kind, AV_ERR_NOT_FOUND, "nor can name it");
	is_int(delete (w, ready).kind, AV_ERR_NOT_FOUND, "nor delete it");
	a = create(w, &p);
	ok(a.kind == AV_ERR_NONE && strcmp(a.id, ready) == 0, "a create gets it under its own id");
	is_int(a.state, SANDBOX_RUNNING, "running");
	is_int((long long)pool_stats(w).hits, 1, "a hit");
	is_int(get(w, ready).state, SANDBOX_RUNNING, "now it is somebody's");
	run_until_ready(w, 1);
	a = create(w, &odd);
	ok(a.kind == AV_ERR_NONE && a.memory_bytes == 64 * (int64_t)AV_MIB,
	    "another shape is made");
	is_int((long long)pool_stats(w).misses, 1, "a miss");
	is_int(delete (w, a.id).kind, AV_ERR_NONE, "deleted");
	is_int(delete (w, ready).kind, AV_ERR_NONE, "the pooled one too");
	is_int(get(w, ready).state, SANDBOX_STOPPED, "it stays so");
	ok(!fake_find(w->machine, ready), "and does not come back");
}

#define RACERS 40

static void test_pool_race(struct world *w)
{
	struct answer a[RACERS] = {0};
	struct sandbox_params p = {0};
	uint64_t hits = pool_stats(w).hits;
	size_t ready;
	bool distinct = true;

	run_until_ready(w, 1);
	ready = pool_stats(w).ready;
	for (size_t i = 0; i < RACERS; i++)
		(void)control_create(w->control, &w->actor, &p, on_sandbox, &a[i], NULL, NULL);
	for (size_t i = 0; i < RACERS; i++)
		(void)run_until(w, &a[i].done);
	for (size_t i = 0; i < RACERS; i++)
		for (size_t k = 0; k < i; k++)
			distinct =
			    distinct && a[i].kind == AV_ERR_NONE && strcmp(a[i].id, a[k].id) != 0;
	ok(distinct, "creates at the same time get different ones");
	is_int((long long)(pool_stats(w).hits - hits), (long long)ready, "each member once");
	for (size_t i = 0; i < RACERS; i++)
		(void)delete (w, a[i].id);
}

static void test_pool_death(struct world *w)
{
	struct sandbox_params p = {0};
	struct fake_box *b;
	struct answer a;

	run_until_ready(w, 1);
	AV_LIST_FOREACH(b, &w->machine->boxes, struct fake_box, link)
	(void)kill(b->pid, SIGKILL);
	run_for(w, 100);
	ok(pool_stats(w).lost >= 1, "the dead are noticed");
	a = create(w, &p);
	is_int(a.kind, AV_ERR_NONE, "and given to nobody");
	(void)delete (w, a.id);
	w->skew_ns += 3600 * AV_NS_PER_S;
	control_tick(w->control);
	run_until_ready(w, 1);
}

static void test_pool_fails(struct world *w)
{
	struct control_pool_stats s;
	int created;

	w->machine->fail_create = AV_ERR_INTERNAL;
	w->skew_ns += 3600 * AV_NS_PER_S; /* all are too old */
	for (int i = 0; i < 60; i++) {
		control_tick(w->control);
		run_for(w, 5);
		w->skew_ns += 2 * AV_NS_PER_S;
	}
	s = pool_stats(w);
	ok(s.ready == 0 && s.failures > 2 && s.failures < 30, "failures are tried again, seldom");
	created = w->machine->created;
	w->machine->fail_create = AV_ERR_NONE;
	w->skew_ns += 120 * AV_NS_PER_S;
	control_tick(w->control);
	run_until_ready(w, 1);
	ok(w->machine->created > created, "and it goes on when that is over");
}

static void test_pool(struct fake_machine *m)
{
	struct sandbox_params p = {0};
	char secret[64];
	struct answer a;
	struct world w;

	pool_max = 4;
	world_open(&w, m, NULL);
	world_first(&w);
	(void)snprintf(secret, sizeof(secret), "%s", w.secret);
	test_pool_gives(&w);
	test_pool_race(&w);
	test_pool_death(&w);
	test_pool_fails(&w);
	a = create(&w, &p);
	run_until_ready(&w, 1);
	world_close(&w, false);
	ok(boxes(m) >= 2, "a daemon that is killed leaves them");
	world_open(&w, m, NULL);
	ok(w.report.removed >= 1 && w.report.adopted == 1,
	    "the next one removes members and adopts what was given");
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	is_int(get(&w, a.id).state, SANDBOX_RUNNING, "which runs");
	run_until_ready(&w, 1);
	world_close(&w, true);
	is_int((long long)boxes(m), 1, "one that stops takes its members along");
	pool_max = 0;
	world_open(&w, m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	is_int(delete (&w, a.id).kind, AV_ERR_NONE, "deleted");
	run_for(&w, 50);
	is_int((long long)boxes(m), 0, "without a pool there is nothing");
	world_close(&w, true);
}

int main(void)
{
	struct fake_machine m;

	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	fake_machine_init(&m, "this-boot");
	test_pool(&m);
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
