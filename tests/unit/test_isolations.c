/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_isolations.c - which isolation a sandbox gets, what that asks of it, and snapshots that hold
 * the memory of a machine
 */
#include "control/isolations.h"
#include "template_world.h"

#include "base/banned.h"

#define P(...) (&(struct sandbox_params){__VA_ARGS__})

static bool says(const struct answer *a, enum av_err_kind kind, const char *text)
{
	return a->kind == kind && strstr(a->message, text) != NULL;
}

static void refuse(struct world *w, const struct sandbox_params *p, enum av_err_kind kind,
    const char *text, const char *why)
{
	struct answer a = create(w, p);

	ok(says(&a, kind, text), "%s: %s", why, a.message);
}

/* What is missing is said one by one, with what to do. */
static void test_what_is_missing(struct world *w)
{
	struct control_isolation_info v[CONTROL_ISOLATIONS_MAX];
	struct answer a;

	refuse(w, P(.isolation = "gas"), AV_ERR_INVALID, "\"jail\"", "no such isolation");
	w->machine->no_vm = true;
	refuse(
	    w, P(.isolation = "vm"), AV_ERR_UNSUPPORTED, "apt-get install", "the machine cannot");
	is_int((long long)control_isolations(w->control, v), 2, "two isolations");
	ok(!v[1].available && strstr(v[1].reason, "qemu") && v[0].available && v[0].is_default,
	    "and it is said why one of them cannot be had");
	w->machine->no_vm = false;
	refuse(w, P(.isolation = "vm"), AV_ERR_UNSUPPORTED, "aviary vm setup", "nothing is built");
	refuse(w, P(.isolation = "vm", .template_name = "host"), AV_ERR_INVALID, "only a jail",
	    "the machine's own programs");
	refuse(w, P(.isolation = "vm", .template_name = "minimal"), AV_ERR_UNSUPPORTED,
	    "aviary vm setup", "a name that the machine's own programs answer for");
	a = create(w, P(.isolation = "jail"));
	is_str(a.isolation, "jail", "a jail by its name");
	(void)snapshot(w, a.id, &(struct snapshot_params){.name = "of-host", .stop = true});
	refuse(w, P(.isolation = "vm", .template_name = "of-host"), AV_ERR_INVALID, "only a jail",
	    "a template above the machine's own programs");
	build(w, "base");
	refuse(w, P(.isolation = "vm"), AV_ERR_UNSUPPORTED, "vm-kernel", "no kernel");
	(void)control_isolations(w->control, v);
	ok(v[1].lacks_kernel && !v[1].lacks_base, "which is said as well");
	build(w, "vm-kernel");
	(void)control_isolations(w->control, v);
	ok(!v[1].lacks_kernel && strcmp(v[1].accelerator, "tcg") == 0 && v[1].saves_memory,
	    "then nothing is missing");
}

static void test_shapes(struct world *w)
{
	struct answer a = create(w, P(.isolation = "vm"));
	const struct driver_spec *spec = &w->machine->last_spec;

	ok(a.kind == AV_ERR_NONE && strcmp(a.isolation, "vm") == 0, "a machine: %s", a.message);
	is_str(a.template, "base", "of base, when nothing is said");
	is_str(spec->isolation, "vm", "the driver is told");
	ok(spec->kernel_id[0] && spec->kernel_seal[0] && !spec->saved,
	    "with a kernel and its seal");
	(void)delete (w, a.id);
	a = create(w, P(.cpu_milli = 1000));
	is_str(a.isolation, "jail", "without a wish it is a jail");
	ok(!spec->kernel_id[0], "which gets no kernel");
	(void)delete (w, a.id);
	refuse(w, P(.isolation = "vm", .memory_bytes = 64 * AV_MIB), AV_ERR_INVALID, "128",
	    "too little memory");
	refuse(w, P(.isolation = "vm", .memory_bytes = 513 * AV_MIB), AV_ERR_INVALID,
	    "multiple of 2", "an odd size");
	refuse(w, P(.isolation = "vm", .disk_bytes = 64 * AV_MIB), AV_ERR_INVALID, "256",
	    "too small a disk");
}

static void test_preference(struct world *w)
{
	struct answer a = create(w, P(.template_name = "base"));
	struct seen s =
	    snapshot(w, a.id, &(struct snapshot_params){.name = "mine", .isolation = "gas"});

	ok(s.kind == AV_ERR_INVALID, "a template prefers what there is: %s", s.message);
	s = snapshot(w, a.id, &(struct snapshot_params){.name = "mine", .isolation = "vm"});
	is_str(s.isolation, "vm", "a template that prefers a machine");
	(void)delete (w, a.id);
	a = create(w, P(.template_name = "mine"));
	is_str(a.isolation, "vm", "makes one, without a wish");
	(void)delete (w, a.id);
	a = create(w, P(.template_name = "mine", .isolation = "jail"));
	is_str(a.isolation, "jail", "a wish comes first");
	(void)delete (w, a.id);
}

static void test_saved(struct world *w)
{
	struct answer a = create(
	                  w, P(.isolation = "vm", .cpu_milli = 1500, .memory_bytes = 256 * AV_MIB)),
	              b;
	struct seen s = snapshot(
	    w, a.id, &(struct snapshot_params){.name = "warm", .memory_bytes = 512 * AV_MIB});

	ok(s.kind == AV_ERR_INVALID, "memory that is kept has the size that it has: %s", s.message);
	s = snapshot(w, a.id, &(struct snapshot_params){.name = "warm", .keep_running = true});
	ok(s.kind == AV_ERR_NONE && s.saved, "a snapshot holds the memory: %s", s.message);
	is_str(s.isolation, "vm", "it goes on as a machine");
	ok(s.memory_bytes == 256 * AV_MIB && s.cpu_milli == 1500, "of its size");
	is_int(get(w, a.id).state, SANDBOX_RUNNING, "its source was not paused");
	b = create(w, P(.template_name = "warm"));
	ok(b.kind == AV_ERR_NONE && strcmp(b.isolation, "vm") == 0 &&
	        b.memory_bytes == 256 * AV_MIB,
	    "made of it without a word: %s", b.message);
	ok(w->machine->last_spec.saved && strcmp(w->machine->last_spec.template_id, s.id) == 0,
	    "the driver goes on from there");
	(void)delete (w, b.id);
	refuse(w, P(.template_name = "warm", .isolation = "jail"), AV_ERR_INVALID,
	    "holds the memory", "not as a jail");
	refuse(w, P(.template_name = "warm", .memory_bytes = 512 * AV_MIB), AV_ERR_INVALID,
	    "memory_mb is 512", "not with more memory");
	refuse(w, P(.template_name = "warm", .cpu_milli = 3000), AV_ERR_INVALID, "2 processors",
	    "not with more processors");
	s = snapshot(w, a.id, &(struct snapshot_params){.name = "then"});
	is_int(s.kind, AV_ERR_NONE, "and another one");
	is_int(get(w, a.id).state, SANDBOX_PAUSED, "after which it is paused, if nothing is said");
	s = snapshot(w, a.id, &(struct snapshot_params){.name = "last", .stop = true});
	ok(s.kind == AV_ERR_NONE && s.saved, "one that ends it: %s", s.message);
	run_for(w, 50);
	is_int(get(w, a.id).state, SANDBOX_STOPPED, "and it is over");
}

static void test_keep_running(struct world *w)
{
	struct answer a = create(w, P(.cpu_milli = 1000));
	struct seen s =
	    snapshot(w, a.id, &(struct snapshot_params){.stop = true, .keep_running = true});

	ok(s.kind == AV_ERR_INVALID, "stop and go on: %s", s.message);
	s = snapshot(w, a.id, &(struct snapshot_params){.keep_running = true});
	ok(s.kind == AV_ERR_NONE && !s.saved, "of a jail the disk: %s", s.message);
	is_int(get(w, a.id).state, SANDBOX_RUNNING, "and it goes on");
	w->machine->fail_snapshot = AV_ERR_NO_SPACE;
	s = snapshot(w, a.id, &(struct snapshot_params){.keep_running = true});
	is_int(s.kind, AV_ERR_NO_SPACE, "no room");
	is_int(get(w, a.id).state, SANDBOX_RUNNING, "it goes on all the same");
	w->machine->fail_snapshot = AV_ERR_NONE;
	(void)delete (w, a.id);
}

static void test_makings(struct world *w)
{
	struct control_making v[CONTROL_MAKINGS_MAX];
	struct control_actor other = w->actor;
	struct seen s = {0};

	control_template_get(w->control, &w->actor, "warm", on_template, &s);
	w->machine->making.percent = 40;
	w->machine->making.since_ns = av_mono_ns() - 3 * AV_NS_PER_S;
	(void)snprintf(w->machine->making.stage, sizeof(w->machine->making.stage), "packing");
	memcpy(w->machine->making.template_id, s.id, AV_ID_SIZE);
	is_int((long long)control_makings(w->control, &w->actor, v), 1, "one is being made");
	ok(v[0].percent == 40 && strcmp(v[0].template_name, "warm") == 0 && v[0].since_ms >= 3000,
	    "how far it is");
	av_id_make(other.team_id, AV_ID_TEAM);
	(void)control_makings(w->control, &other, v);
	ok(!v[0].template_name, "another team does not hear of which template");
	w->machine->making.percent = 0;
}

/* An administrator's default is no less than it says. */
static void test_default(struct world *w)
{
	struct control_isolation_info v[CONTROL_ISOLATIONS_MAX];
	struct answer a = create(w, P(.cpu_milli = 1000));

	ok(strcmp(a.isolation, "vm") == 0 && strcmp(a.template, "base") == 0,
	    "without a wish it is a machine of base: %s", a.message);
	(void)delete (w, a.id);
	refuse(w, P(.template_name = "host"), AV_ERR_INVALID, "only a jail",
	    "nothing weaker is given without being asked for");
	a = create(w, P(.template_name = "host", .isolation = "jail"));
	is_str(a.isolation, "jail", "but when it is");
	(void)delete (w, a.id);
	a = create(w, P(.template_name = "empty"));
	is_str(a.isolation, "jail", "and for building");
	(void)delete (w, a.id);
	(void)control_isolations(w->control, v);
	ok(v[1].is_default && !v[0].is_default, "the list says which is the default");
}

static struct control_pool_stats pool_stats(const struct world *w)
{
	struct control_pool_stats s;

	control_get_pool(w->control, &s);
	return s;
}

/* Machines are kept only while some are being made, and stand still until somebody takes them. */
static void test_pool(struct world *w)
{
	struct answer a, first = create(w, P(.isolation = "vm"));
	const struct fake_box *b;
	int64_t end = av_mono_ns() + 10 * AV_NS_PER_S;

	run_for(w, 100);
	is_int((long long)pool_stats(w).ready, 0, "one that was asked for once is not kept ready");
	a = create(w, P(.isolation = "vm"));
	while (pool_stats(w).ready < 2 && av_mono_ns() < end)
		av_loop_run_once(w->loop, 20);
	is_int((long long)pool_stats(w).ready, 2, "then two are, as many as there may be");
	ok(w->machine->last_spec.kernel_id[0] &&
	        fake_find(w->machine, w->machine->last_spec.id)->held,
	    "they are held");
	ok(pool_stats(w).memory_bytes >= 128 * AV_MIB, "and count for what they are");
	(void)delete (w, a.id);
	a = create(w, P(.isolation = "vm"));
	b = fake_find(w->machine, a.id);
	ok(a.kind == AV_ERR_NONE && a.state == SANDBOX_RUNNING, "a create gets one: %s", a.message);
	ok(w->machine->taken == 1 && b && !b->held, "which was let go");
	is_int((long long)pool_stats(w).hits, 1, "a hit");
	(void)delete (w, a.id);
	a = create(w, P(.cpu_milli = 1000));
	b = fake_find(w->machine, a.id);
	ok(b && !b->held && strcmp(b->spec.isolation, "jail") == 0, "jails have none of it");
	(void)delete (w, a.id);
	(void)delete (w, first.id);
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
	test_what_is_missing(&w);
	test_shapes(&w);
	test_preference(&w);
	test_saved(&w);
	test_keep_running(&w);
	test_makings(&w);
	world_close(&w, true);
	vm_pool_max = 2;
	world_open(&w, &m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	test_pool(&w);
	world_close(&w, true);
	vm_pool_max = 0;
	default_isolation = "vm";
	world_open(&w, &m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	test_default(&w);
	world_close(&w, true);
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
