/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_fork.c - copies of a running machine, and sandboxes that go back to a snapshot, also across
 * the end of a daemon
 */
#include "control/fork.h"
#include "template_world.h"

#include "base/banned.h"

#define P(...) (&(struct sandbox_params){__VA_ARGS__})

struct forked {
	bool done;
	enum av_err_kind kind, item_kind[8];
	char message[480], ids[8][AV_ID_SIZE], template[72], meta[64], isolation[8];
	bool replayed;
	int64_t idle_timeout_ms;
	size_t made, failed;
};

static void on_item(void *ctx, size_t i, const struct sandbox_info *sb, const struct av_err *err)
{
	struct forked *f = ctx;

	if (err) {
		f->item_kind[i] = err->kind;
		f->failed++;
		return;
	}
	f->made++;
	f->replayed = sb->replayed;
	f->idle_timeout_ms = sb->idle_timeout_ms;
	memcpy(f->ids[i], sb->id, AV_ID_SIZE);
	(void)snprintf(f->template, sizeof(f->template), "%s", sb->template_name);
	(void)snprintf(f->isolation, sizeof(f->isolation), "%s", sb->isolation);
	show(f->meta, sizeof(f->meta), sb->metadata);
}

static void on_forked(void *ctx, const struct av_err *err)
{
	struct forked *f = ctx;

	f->done = true;
	f->kind = err ? err->kind : AV_ERR_NONE;
	(void)snprintf(f->message, sizeof(f->message), "%s", err ? err->message : "");
}

static struct forked fork_it(struct world *w, const char *id, const struct fork_params *p)
{
	struct forked f = {0};
	struct av_err err;

	if (control_fork(w->control, &w->actor, id, p, on_item, on_forked, &f, &err) < 0)
		on_forked(&f, &err);
	else
		(void)run_until(w, &f.done);
	return f;
}

static struct answer back(struct world *w, const char *id, const char *snapshot)
{
	struct answer a = {0};
	struct av_err err;

	if (control_rollback(w->control, &w->actor, id, snapshot, on_sandbox, &a, NULL, &err) < 0)
		take_err(&a, &err);
	else
		(void)run_until(w, &a.done);
	return a;
}

/* What nobody uses goes in the background. */
static bool comes_to(struct world *w, size_t n)
{
	int64_t end = av_mono_ns() + 10 * AV_NS_PER_S;

	while (on_disk(w) != n && av_mono_ns() < end)
		av_loop_run_once(w->loop, 10);
	return on_disk(w) == n;
}

static json_t *labels(void)
{
	return json_pack("{s:s, s:s}", "name", "work", "who", "me");
}

static void test_fork(struct world *w)
{
	AV_CLEANUP(av_json_decrefp) json_t *metadata = labels();
	struct answer a =
	    create(w, P(.isolation = "vm", .metadata = metadata, .idle_timeout_ms = 7000));
	struct forked f = fork_it(w, a.id, &(struct fork_params){.count = 3});

	ok(f.kind == AV_ERR_NONE && f.made == 3 && f.failed == 0, "three copies: %s", f.message);
	ok(strcmp(f.ids[0], f.ids[1]) != 0 && strcmp(f.ids[0], a.id) != 0, "with ids of their own");
	is_str(f.isolation, "vm", "each a machine");
	is_str(f.template, "base", "of what their source is of");
	is_str(f.meta, "{\"who\":\"me\"}", "with its labels, without its name");
	is_int(f.idle_timeout_ms, 7000, "and its times");
	ok(w->machine->last_spec.saved, "the driver goes on from memory");
	is_int(get(w, a.id).state, SANDBOX_RUNNING, "the source runs on");
	is_int((long long)on_disk(w), 3, "what they stand on is there");
	(void)delete (w, f.ids[0]);
	(void)delete (w, f.ids[1]);
	run_for(w, 50);
	is_int((long long)on_disk(w), 3, "as long as one of them is");
	(void)delete (w, f.ids[2]);
	ok(comes_to(w, 2), "and goes with the last");
	f = fork_it(w, a.id,
	    &(struct fork_params){.count = 1, .has_idle_timeout = true, .idle_timeout_ms = 9000});
	is_int(f.idle_timeout_ms, 9000, "or times of its own");
	(void)delete (w, f.ids[0]);
	(void)delete (w, a.id);
}

static void test_refusals(struct world *w)
{
	struct answer a = create(w, P(.cpu_milli = 1000)), p = {0};
	struct forked f = fork_it(w, a.id, &(struct fork_params){.count = 1});

	ok(f.kind == AV_ERR_UNSUPPORTED && strstr(f.message, "jail"), "a jail: %s", f.message);
	f = fork_it(w, a.id, &(struct fork_params){.count = 101});
	ok(f.kind == AV_ERR_INVALID && strstr(f.message, "1 to 100"), "too many: %s", f.message);
	f = fork_it(w, "sb0000000000000000000000000", &(struct fork_params){.count = 1});
	is_int(f.kind, AV_ERR_NOT_FOUND, "no such sandbox");
	(void)delete (w, a.id);
	a = create(w, P(.isolation = "vm"));
	(void)control_pause(w->control, &w->actor, a.id, on_sandbox, &p, NULL, NULL);
	(void)run_until(w, &p.done);
	f = fork_it(w, a.id, &(struct fork_params){.count = 1});
	ok(f.kind == AV_ERR_INVALID_STATE && strstr(f.message, "resume"), "paused: %s", f.message);
	p = (struct answer){0};
	(void)control_resume(w->control, &w->actor, a.id, on_sandbox, &p, NULL, NULL);
	(void)run_until(w, &p.done);
	w->machine->fail_snapshot = AV_ERR_NO_SPACE;
	f = fork_it(w, a.id, &(struct fork_params){.count = 2});
	ok(f.kind == AV_ERR_NO_SPACE && f.made == 0, "no room for its memory");
	w->machine->fail_snapshot = AV_ERR_NONE;
	w->machine->fail_create = AV_ERR_NO_MEMORY;
	f = fork_it(w, a.id, &(struct fork_params){.count = 2});
	ok(f.kind == AV_ERR_NONE && f.failed == 2 && f.item_kind[1] == AV_ERR_NO_MEMORY,
	    "what fails of the copies is said of each");
	w->machine->fail_create = AV_ERR_NONE;
	ok(comes_to(w, 2), "and leaves nothing");
	(void)delete (w, a.id);
}

static void test_again(struct world *w)
{
	struct answer a = create(w, P(.isolation = "vm"));
	struct fork_params p = {
	    .count = 2, .idempotency_key = AV_STR("once"), .request_body = AV_STR("{}")};
	struct forked f = fork_it(w, a.id, &p), g;
	int created = w->machine->created;

	is_int((long long)f.made, 2, "two copies");
	g = fork_it(w, a.id, &p);
	ok(g.made == 2 && g.replayed && strcmp(f.ids[0], g.ids[0]) == 0 &&
	        strcmp(f.ids[1], g.ids[1]) == 0,
	    "the same ones, when asked again: %s", g.message);
	is_int(w->machine->created, created, "nothing was made");
	p.request_body = AV_STR("{ }");
	g = fork_it(w, a.id, &p);
	ok(g.failed == 2 && g.item_kind[0] == AV_ERR_CONFLICT, "another request with that key");
	(void)delete (w, f.ids[0]);
	(void)delete (w, f.ids[1]);
	(void)delete (w, a.id);
	run_for(w, 50);
}

static void test_rollback(struct world *w)
{
	struct answer a = create(w, P(.isolation = "vm", .memory_bytes = 256 * AV_MIB)), b;
	struct seen s =
	    snapshot(w, a.id, &(struct snapshot_params){.name = "then", .keep_running = true});
	struct answer j = create(w, P(.cpu_milli = 1000));
	int created = w->machine->created, destroyed = w->machine->destroyed;

	b = back(w, a.id, "then");
	ok(b.kind == AV_ERR_NONE && b.state == SANDBOX_RUNNING && strcmp(b.id, a.id) == 0,
	    "back under its id: %s", b.message);
	is_str(b.template, "then", "of what was asked for");
	ok(w->machine->created == created + 1 && w->machine->destroyed == destroyed + 1,
	    "destroyed once and made once");
	ok(w->machine->last_spec.saved && strcmp(w->machine->last_spec.template_id, s.id) == 0 &&
	        strcmp(w->machine->last_spec.id, a.id) == 0,
	    "from the memory");
	b = back(w, a.id, "no-such");
	is_int(b.kind, AV_ERR_NOT_FOUND, "no such snapshot");
	b = back(w, j.id, "then");
	ok(b.kind == AV_ERR_INVALID && strstr(b.message, "only be used with isolation vm"),
	    "a jail cannot go on from a machine's memory: %s", b.message);
	b = back(w, j.id, "minimal");
	ok(b.kind == AV_ERR_NONE && b.state == SANDBOX_RUNNING, "but begin again: %s", b.message);
	w->machine->fail_create = AV_ERR_NO_SPACE;
	b = back(w, j.id, "minimal");
	ok(b.kind == AV_ERR_NO_SPACE && strstr(b.message, "it is gone"), "it can fail: %s",
	    b.message);
	w->machine->fail_create = AV_ERR_NONE;
	for (int i = 0; i < 100 && get(w, j.id).state != SANDBOX_ERROR; i++)
		run_for(w, 20);
	is_int(get(w, j.id).state, SANDBOX_ERROR, "then it is over");
	(void)delete (w, a.id);
}

/* The daemon dies when the record says what is to be done, and nothing is done yet. */
static void test_restart(struct fake_machine *m, const char *secret)
{
	struct world w;
	struct answer a, b = {0};
	int created;

	world_open(&w, m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	a = create(&w, P(.cpu_milli = 1000));
	created = m->created;
	m->hold = true;
	(void)control_rollback(w.control, &w.actor, a.id, "minimal", on_sandbox, &b, NULL, NULL);
	run_for(&w, 100);
	is_int(get(&w, a.id).state, SANDBOX_STARTING, "under way");
	world_close(&w, false);
	m->hold = false;
	world_open(&w, m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	for (int i = 0; i < 100 && get(&w, a.id).state != SANDBOX_RUNNING; i++)
		run_for(&w, 20);
	is_int(get(&w, a.id).state, SANDBOX_RUNNING, "the next daemon finishes it");
	is_int(m->created, created + 1, "with what it made anew");
	a = back(&w, a.id, "minimal");
	is_int(a.kind, AV_ERR_NONE, "and it can be done again");
	(void)delete (&w, a.id);
	world_close(&w, true);
}

int main(void)
{
	struct fake_machine m;
	struct world w;
	char secret[64];

	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	fake_machine_init(&m, "this-boot");
	with_vm = true;
	world_open(&w, &m, NULL);
	world_first(&w);
	(void)snprintf(secret, sizeof(secret), "%s", w.secret);
	build(&w, "base");
	build(&w, "vm-kernel");
	test_fork(&w);
	test_refusals(&w);
	test_again(&w);
	test_rollback(&w);
	world_close(&w, true);
	test_restart(&m, secret);
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
