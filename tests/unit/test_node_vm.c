/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node_vm.c - the driver for virtual machines against machines that are slow, lie and die
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "driver_seen.h"
#include "lib/tap.h"
#include "node/vm/names.h"
#include "node/vm/vm.h"
#include "proto/agent_api.h"
#include "vm_world.h"

#include "base/banned.h"

#define MIB (1024ULL * 1024)

static struct driver *driver;

static bool answered(const void *p)
{
	return ((const struct seen *)p)->calls > 0;
}

static void wait_for(struct seen *s)
{
	if (!run_until(answered, s))
		diag("no answer");
}

/* What is told may be before what was destroyed is gone. */
static bool jails_become(int n)
{
	for (int i = 0; i < 2000 && world_jails() != n; i++)
		run_for(5);
	return world_jails() == n;
}

static const char tp1[] = "tp0000000000000000000000001", tp2[] = "tp0000000000000000000000002";

static struct driver_spec spec_of(const char *template_id)
{
	struct driver_spec s = {.memory_bytes = 512 * MIB,
	    .cpu_milli = 1000,
	    .disk_bytes = 1024 * MIB,
	    .pids_max = 100,
	    .sudo = true,
	    .kernel_id = "tp000000000000000000000kern"};

	av_id_make(s.id, AV_ID_SANDBOX);
	memcpy(s.template_id, template_id, strlen(template_id));
	memcpy(s.isolation, "vm", 3);
	return s;
}

static struct seen create(const struct driver_spec *spec)
{
	struct seen s = {0};

	(void)driver->ops->create(driver, spec, on_alive, &s);
	wait_for(&s);
	return s;
}

static struct seen ask(
    int (*op)(struct driver *d, const char *id, driver_done_fn *fn, void *ctx), const char *id)
{
	struct seen s = {0};

	(void)op(driver, id, on_done, &s);
	wait_for(&s);
	return s;
}

static struct seen inspect(const char *id)
{
	struct seen s = {0};

	(void)driver->ops->inspect(driver, id, on_status, &s);
	wait_for(&s);
	return s;
}

static struct seen snapshot(const char *id, const char *template_id, bool stop)
{
	struct seen s = {0};

	(void)driver->ops->snapshot(driver, id, template_id, stop, on_snapshot, &s);
	wait_for(&s);
	return s;
}

static void driver_open(unsigned int goldens_max)
{
	const struct vm_config config = {.loop = world.loop,
	    .spawn_socket = world.path,
	    .run_dir = world.dir,
	    .goldens_max = goldens_max,
	    .silence_ms = 2500};
	struct av_err err;

	if (vm_driver_new(&config, &driver, &err) < 0)
		abort();
}

static void set_flag(void *ctx)
{
	*(bool *)ctx = true;
}

static void driver_close(void)
{
	bool closed = false;

	driver->ops->close(driver, set_flag, &closed);
	for (int i = 0; i < 200 && !closed; i++)
		run_for(5);
	ok(closed, "the driver closes");
}

static void put_layer(const char *id)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(world.layers); i++)
		if (!world.layers[i][0]) {
			memcpy(world.layers[i], id, AV_ID_SIZE);
			return;
		}
	abort();
}

/* ---- names ---- */

static void test_names(void)
{
	struct driver_spec a = spec_of(tp1), b = spec_of(tp2), c = spec_of(tp1);
	struct vm_shape small = {.vcpus = 1, .accel = 1, .memory_bytes = 1}, big = small;
	uint8_t here[32] = {1}, there[32] = {2};
	char ia[AV_ID_SIZE], ib[AV_ID_SIZE], ic[AV_ID_SIZE], ga[AV_ID_SIZE], gb[AV_ID_SIZE];

	vm_name_image(ia, here, &a);
	vm_name_image(ib, here, &b);
	c.kernel_seal[3] = 1;
	vm_name_image(ic, here, &c);
	ok(av_id_valid(av_str_c(ia), AV_ID_VM_LAYER), "a name is an id: %s", ia);
	ok(vm_name_same_template(ia, tp1) && !vm_name_same_template(ib, tp1),
	    "it tells the template");
	ok(vm_name_same_environment(ia, here) && !vm_name_same_environment(ia, there),
	    "and the environment");
	ok(vm_name_is_outdated(ia, ic) && !vm_name_is_outdated(ia, ia) &&
	        !vm_name_is_outdated(ib, ia),
	    "another kernel makes it outdated");
	big.memory_bytes = 2;
	vm_name_golden(ga, ia, &small);
	vm_name_golden(gb, ia, &big);
	ok(!vm_name_is_golden(ia) && vm_name_is_golden(ga) && strcmp(ga, gb) != 0,
	    "a machine's name tells its shape");
	ok(vm_name_is_outdated(ga, ic), "and goes with its image");
}

/* ---- making ---- */

static void test_first(void)
{
	struct driver_spec spec = spec_of(tp1);
	struct driver_about about = {0};
	struct seen s;

	s = create(&spec);
	ok(s.calls == 1 && s.kind == 0, "a first create succeeds: %s", s.message);
	ok(world.images == 1 && world.goldens == 1 && world.restores == 1,
	    "after an image and a machine to start from were made");
	ok(world.last_start.mode == VM_MODE_RESTORE && world.last_start.accel == VM_ACCEL_TCG &&
	        world.last_start.memory_bytes == 512 * MIB && world.last_start.vcpus == 1,
	    "it is restored in its shape");
	ok(strcmp(world.last_identity.id, spec.id) == 0 && world.last_identity.number == 42 &&
	        world.last_identity.disk_bytes == spec.disk_bytes &&
	        strlen(world.last_identity.hostname) == 12 &&
	        strncmp(world.last_identity.hostname, spec.id, 12) == 0 &&
	        world.last_identity.flags == 0 && world.last_identity.pids_max == 100,
	    "as who it is");
	ok(world.last_create.flags == SPAWN_CREATE_VM &&
	        world.last_create.memory_bytes > spec.memory_bytes &&
	        world.last_create.disk_bytes > spec.disk_bytes + spec.memory_bytes,
	    "its jail has room for more than the guest");
	ok(jails_become(1) && world.destroys == 2, "those that made it are gone");
	ok(driver->ops->has(driver, spec.id), "it is this driver's");
	driver->ops->about(driver, &about);
	ok(about.available && strcmp(about.accelerator, "tcg") == 0 &&
	        strcmp(about.reason, "no /dev/kvm") == 0,
	    "it says how fast it is, and why");

	struct driver_spec other = spec_of(tp1);
	other.sudo = false;
	other.internet = true;
	s = create(&other);
	ok(s.kind == 0 && world.images == 1 && world.goldens == 1, "the next one needs neither");
	ok(world.last_identity.flags == (VM_INTERNET | VM_NO_SUDO) &&
	        world.last_create.flags == (SPAWN_CREATE_VM | SPAWN_CREATE_INTERNET),
	    "flags are the guest's, internet also the jail's");
	other = spec_of(tp1);
	other.memory_bytes = 256 * MIB;
	s = create(&other);
	ok(s.kind == 0 && world.images == 1 && world.goldens == 2, "another shape is made anew");
}

static void test_bad_specs(void)
{
	struct driver_spec spec = spec_of(tp1);
	struct seen s;

	spec.memory_bytes = 64 * MIB;
	s = create(&spec);
	ok(s.kind == AV_ERR_INVALID, "too little memory: %s", s.message);
	spec.memory_bytes = 512 * MIB + 1;
	s = create(&spec);
	ok(s.kind == AV_ERR_INVALID, "an odd size");
	spec = spec_of("host");
	s = create(&spec);
	ok(s.kind == AV_ERR_UNSUPPORTED, "not of the machine's own programs: %s", s.message);
	spec = spec_of(tp1);
	spec.kernel_id[0] = '\0';
	s = create(&spec);
	ok(s.kind == AV_ERR_UNSUPPORTED, "not without a kernel: %s", s.message);
	ok(!driver->ops->has(driver, spec.id), "nothing is left of it");
}

static void test_together(void)
{
	struct driver_spec a = spec_of(tp2), b = spec_of(tp2), c = spec_of(tp2);
	struct seen sa = {0}, sb = {0}, sc = {0}, sd = {0};
	struct driver_making m[2];
	int images = world.images;

	world.lie = HOLDS;
	world.lie_op = VM_START;
	(void)driver->ops->create(driver, &a, on_alive, &sa);
	(void)driver->ops->create(driver, &b, on_alive, &sb);
	(void)driver->ops->create(driver, &c, on_alive, &sc);
	run_for(60);
	ok(driver->ops->makings(driver, m, 2) == 1 && m[0].waiting == 3 && m[0].percent > 30 &&
	        strcmp(m[0].stage, "halfway") == 0 && strcmp(m[0].template_id, tp2) == 0,
	    "many wait for one image, and it says how far it is");
	ok(driver->ops->makings(driver, m, 0) == 0, "as many as are asked for");
	(void)driver->ops->destroy(driver, c.id, on_done, &sd);
	wait_for(&sd);
	ok(sc.calls == 1 && sc.kind == AV_ERR_CANCELED && sd.kind == 0,
	    "one that is destroyed meanwhile does not wait on: %s", sc.message);
	world_release();
	wait_for(&sa);
	wait_for(&sb);
	ok(sa.kind == 0 && sb.kind == 0 && world.images == images + 1, "all others have it");
}

static void expect_failed(enum lie lie, enum av_err_kind kind, const char *what)
{
	struct driver_spec spec = spec_of(tp1);
	int jails = world_jails();
	struct seen s;

	world.lie = lie;
	world.lie_op = VM_START;
	s = create(&spec);
	world.lie = HONEST;
	run_for(10);
	ok(jails_become(jails) && s.calls == 1 && s.kind == kind, "%s: %s", what, s.message);
	for (const char *p = s.message; *p; p++)
		if (*p < ' ' || *p > '~')
			ok(false, "a message is printable");
}

static void test_lies(void)
{
	expect_failed(SILENT, AV_ERR_AGENT, "a machine that never answers");
	expect_failed(SHORT_PACKET, AV_ERR_AGENT, "a short packet");
	expect_failed(LONG_PACKET, AV_ERR_AGENT, "a long packet");
	expect_failed(WRONG_SEQ, AV_ERR_AGENT, "an answer to nothing");
	expect_failed(WRONG_OP, AV_ERR_AGENT, "an answer to something else");
	expect_failed(FLOOD, AV_ERR_AGENT, "endless progress");
	expect_failed(HANGS_UP, AV_ERR_AGENT, "a machine that hangs up");
	expect_failed(REFUSES, AV_ERR_INVALID, "a refusal in dirty words");
	expect_failed(BAD_STATE, AV_ERR_AGENT, "a state that there is not");
	expect_failed(BAD_MEMORY, AV_ERR_AGENT, "other memory than was asked for");
}

static void test_failed_image(void)
{
	struct driver_spec a = spec_of("tp0000000000000000000000003"), b = a;
	struct seen sa = {0}, sb = {0};
	int jails = world_jails();

	av_id_make(b.id, AV_ID_SANDBOX);
	world.lie = REFUSES;
	world.lie_op = VM_START;
	(void)driver->ops->create(driver, &a, on_alive, &sa);
	(void)driver->ops->create(driver, &b, on_alive, &sb);
	wait_for(&sa);
	wait_for(&sb);
	world.lie = HONEST;
	run_for(10);
	ok(jails_become(jails) && sa.kind == AV_ERR_INVALID && sb.kind == AV_ERR_INVALID,
	    "an image that cannot be made fails all who wait: %s", sb.message);
	sa = create(&a);
	ok(sa.kind == 0, "the next one tries again");
	(void)ask(driver->ops->destroy, a.id);
}

/* ---- a living one ---- */

static void test_pause(void)
{
	struct driver_spec spec = spec_of(tp1);
	struct seen s = create(&spec);

	s = ask(driver->ops->freeze, spec.id);
	ok(s.kind == 0 && world.pauses == 1 && inspect(spec.id).st.frozen, "it is paused");
	s = ask(driver->ops->freeze, spec.id);
	ok(s.kind == 0 && world.pauses == 1, "once");
	s = ask(driver->ops->thaw, spec.id);
	ok(s.kind == 0 && world.resumes == 1 && !inspect(spec.id).st.frozen &&
	        world.last_identity.id[0] == '\0',
	    "and goes on as who it was");
	world.lie_op = VM_PAUSE;
	world.lie = REFUSES;
	s = ask(driver->ops->freeze, spec.id);
	ok(s.kind == AV_ERR_INVALID && world_has(spec.id) && !inspect(spec.id).st.frozen,
	    "a pause that is refused leaves it");
	world.lie = SILENT;
	s = ask(driver->ops->freeze, spec.id);
	ok(s.kind == AV_ERR_AGENT && world_has(spec.id),
	    "one that is not answered too, if it says that it runs: %s", s.message);
	world.busy = 3;
	s = ask(driver->ops->freeze, spec.id);
	run_for(10);
	ok(s.kind == AV_ERR_AGENT && world_has(spec.id) && world.busy == 0,
	    "or that it is busy, and then that it runs");
	world.lie = HONEST;
	s = ask(driver->ops->freeze, spec.id);
	world.lie_op = VM_RESUME;
	world.lie = LATE;
	world.busy = 1;
	s = ask(driver->ops->thaw, spec.id);
	ok(s.kind == 0 && !inspect(spec.id).st.frozen,
	    "what is done when it is looked at counts as done: %s", s.message);
	world.lie = SILENT;
	world.lie_op = 0;
	int jails = world_jails();
	s = ask(driver->ops->freeze, spec.id);
	ok(jails_become(jails - 1) && s.kind == AV_ERR_AGENT && !world_has(spec.id),
	    "else it is destroyed");
	world.lie = HONEST;
	s = inspect(spec.id);
	struct av_exit_record rec;
	ok(s.kind == 0 && av_exit_record_decode(s.st.exit_record, s.st.exit_record_len, &rec) == 0,
	    "and dies of that: %s", rec.text);
	s = ask(driver->ops->thaw, spec.id);
	ok(s.kind == AV_ERR_INVALID_STATE, "nothing more can be asked of it");
	s = ask(driver->ops->destroy, spec.id);
	ok(s.kind == 0 && !driver->ops->has(driver, spec.id), "but its end");
}

static void test_held(void)
{
	struct driver_spec spec = spec_of(tp1);
	struct seen s = create(&spec);

	ok(s.kind == 0, "a machine: %s", s.message);
	s = ask(driver->ops->hold, spec.id);
	ok(s.kind == 0 && world.holds == 1, "one can be made to wait: %s", s.message);
	s = ask(driver->ops->hold, spec.id);
	ok(s.kind == 0 && world.holds == 1, "once");
	s = snapshot(spec.id, "tp00000000000000000000snap0", false);
	ok(s.kind == AV_ERR_INVALID_STATE, "of which there is no snapshot: %s", s.message);
	s = ask(driver->ops->take, spec.id);
	ok(s.kind == 0 && world.takes == 1 && strcmp(world.last_identity.id, spec.id) == 0,
	    "until it is taken");
	s = ask(driver->ops->take, spec.id);
	ok(s.kind == 0 && world.takes == 1, "once");
	(void)ask(driver->ops->destroy, spec.id);
}

static void test_snapshots(void)
{
	static const char t1[] = "tp00000000000000000000snap1",
	                  t2[] = "tp00000000000000000000snap2",
	                  t3[] = "tp00000000000000000000snap3";
	struct driver_spec spec = spec_of(tp1), copy = spec_of(t1);
	struct seen s = create(&spec), d = {0};

	s = snapshot(spec.id, t1, false);
	ok(s.kind == 0 && s.snap.memory_bytes == 512 * MIB && s.snap.vcpus == 1 &&
	        s.snap.seal[0] == 9,
	    "a snapshot of one that runs: %s", s.message);
	ok(world.saves == 1 && world.drops == 1 && world.last_snapshot.flags == SPAWN_SNAPSHOT_VM &&
	        world.last_snapshot.save == 2 - 1,
	    "is a save that became a layer");
	(void)ask(driver->ops->freeze, spec.id);
	s = snapshot(spec.id, t2, false);
	ok(s.kind == 0 && world.saves == 1 && world.last_snapshot.flags == 0,
	    "of a paused one its disk");
	(void)ask(driver->ops->thaw, spec.id);

	copy.saved = true;
	s = create(&copy);
	ok(s.kind == 0 && strcmp(world.last_create.template_id, t1) == 0 &&
	        world.last_start.accel == 0,
	    "one goes on from it, on what it ran on: %s", s.message);
	(void)ask(driver->ops->destroy, copy.id);
	copy = spec_of(t1);
	copy.saved = true;
	world.lie = BAD_MEMORY;
	world.lie_op = VM_START;
	s = create(&copy);
	world.lie = HONEST;
	ok(s.kind == AV_ERR_AGENT, "but not with other memory than it had");

	memset(&s, 0, sizeof(s));
	world.lie = HOLDS;
	world.lie_op = VM_PAUSE;
	(void)driver->ops->snapshot(driver, spec.id, t3, true, on_snapshot, &s);
	run_for(20);
	(void)driver->ops->destroy(driver, spec.id, on_done, &d);
	run_for(20);
	ok(s.calls == 0 && d.calls == 0, "a destroy waits for the snapshot that was promised");
	world_release();
	wait_for(&s);
	wait_for(&d);
	ok(s.kind == 0 && d.kind == 0 && world_has_layer(t3) &&
	        world.last_snapshot.flags == SPAWN_SNAPSHOT_KILL && !world_has(spec.id),
	    "both succeed");

	spec = spec_of(tp1);
	(void)create(&spec);
	memset(&s, 0, sizeof(s));
	memset(&d, 0, sizeof(d));
	world.hold_snapshots = true;
	(void)driver->ops->snapshot(
	    driver, spec.id, "tp00000000000000000000snap4", false, on_snapshot, &s);
	run_for(30);
	(void)driver->ops->destroy(driver, spec.id, on_done, &d);
	wait_for(&s);
	ok(s.kind == AV_ERR_CANCELED, "any other ends with its sandbox");
	world.hold_snapshots = false;
	wait_for(&d);
}

static void test_destroy_any_time(void)
{
	const enum lie at[] = {HOLDS, SILENT, FLOOD};

	for (size_t i = 0; i < AV_ARRAY_LEN(at); i++) {
		struct driver_spec spec = spec_of(tp1);
		struct seen c = {0}, d = {0};

		world.lie = at[i];
		world.lie_op = VM_START;
		(void)driver->ops->create(driver, &spec, on_alive, &c);
		run_for(i == 2 ? 4 : 40);
		(void)driver->ops->destroy(driver, spec.id, on_done, &d);
		ok(c.calls == 0, "no callback inside the call");
		wait_for(&c);
		wait_for(&d);
		ok(c.kind == AV_ERR_CANCELED && d.kind == 0 && !world_has(spec.id),
		    "destroyed while it starts: %s", c.message);
	}
	world.lie = HONEST;
	struct driver_spec spec = spec_of(tp1);
	struct seen c = {0}, d = {0};
	(void)driver->ops->create(driver, &spec, on_alive, &c);
	(void)driver->ops->destroy(driver, spec.id, on_done, &d);
	wait_for(&c);
	wait_for(&d);
	ok(c.kind == AV_ERR_CANCELED && d.kind == 0, "destroyed before anything was done");
}

/* ---- another daemon ---- */

static struct seen adopt(const char *id, uint32_t state)
{
	const struct driver_evidence ev = {.pid = 7, .boot_id = "boot"};
	struct seen s = {0};

	world.adopted_state = state;
	world_put(id);
	world.adopted_state = 0;
	(void)driver->ops->adopt(driver, id, &ev, on_alive, &s);
	wait_for(&s);
	return s;
}

static void test_adopt(void)
{
	static const char id1[] = "sb0000000000000000000000001",
	                  id2[] = "sb0000000000000000000000002",
	                  id3[] = "sb0000000000000000000000003",
	                  id4[] = "sb0000000000000000000000004",
	                  id5[] = "sb0000000000000000000000005";
	struct seen s = adopt(id1, VM_STATE_RUNNING);

	ok(s.kind == 0 && !inspect(id1).st.frozen, "one that runs is adopted");
	s = snapshot(id1, "tp00000000000000000000snap5", false);
	ok(s.kind == 0 && s.snap.memory_bytes == 512 * MIB, "its size is known");
	s = adopt(id2, VM_STATE_PAUSED);
	ok(s.kind == 0 && inspect(id2).st.frozen, "one that is paused too");
	s = ask(driver->ops->thaw, id2);
	ok(s.kind == 0, "and goes on");
	s = adopt(id3, VM_STATE_HELD);
	ok(s.kind == 0 && ask(driver->ops->take, id3).kind == 0, "one that waits is taken");
	s = adopt(id4, VM_STATE_FAILED);
	ok(s.kind == AV_ERR_INVALID_STATE && !driver->ops->has(driver, id4),
	    "one that failed is not adopted: %s", s.message);
	world.lie = LONG_PACKET;
	world.lie_op = 0;
	s = adopt(id5, VM_STATE_RUNNING);
	world.lie = HONEST;
	ok(s.kind == AV_ERR_INVALID_STATE, "nor one that lies: %s", s.message);
	for (int i = 1; i <= 5; i++) {
		char id[AV_ID_SIZE] = "sb0000000000000000000000000";

		id[AV_ID_LEN - 1] = (char)('0' + i);
		(void)ask(driver->ops->destroy, id);
	}
}

static void destroy_all(void)
{
	int before = world_jails();

	driver_close();
	ok(before == world_jails(), "what runs goes on running");
	world_close();
	memset(&world, 0, sizeof(world));
	world_open();
}

/* ---- what goes ---- */

static bool listed(const void *p)
{
	(void)p;
	return world.deletes > 0;
}

static void test_collect(void)
{
	struct driver_spec spec = spec_of(tp1), gone = spec_of(tp2);
	uint8_t here[32] = {7}, before[32] = {8};
	char mine[AV_ID_SIZE], old[AV_ID_SIZE], orphan[AV_ID_SIZE];
	struct seen s;

	vm_name_image(mine, here, &spec);
	vm_name_image(old, before, &spec);
	vm_name_image(orphan, here, &gone);
	put_layer(tp1);
	put_layer(mine);
	put_layer(old);
	put_layer(orphan);
	driver_open(2);
	(void)run_until(listed, NULL);
	run_for(50);
	ok(world_has_layer(mine) && !world_has_layer(old) && !world_has_layer(orphan) &&
	        world_has_layer(tp1),
	    "what was made by other programs or for a template that is gone goes");
	s = create(&spec);
	ok(s.kind == 0 && world.images == 0 && world.goldens == 1, "what fits is used");

	world.delete_error = EBUSY;
	for (unsigned int i = 1; i <= 3; i++) {
		spec = spec_of(tp1);
		spec.memory_bytes = (512 + 2 * i) * MIB;
		(void)create(&spec);
	}
	run_for(50);
	ok(world.goldens == 4 && world_has_layer(mine), "what is stood on stays");
	world.delete_error = 0;
	spec = spec_of(tp1);
	spec.memory_bytes = 640 * MIB;
	(void)create(&spec);
	run_for(100);
	int left = 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(world.layers); i++)
		left += av_id_valid(av_str_c(world.layers[i]), AV_ID_VM_LAYER) &&
		        vm_name_is_golden(world.layers[i]);
	is_int(left, 2, "of machines to start from only so many stay");
	driver->ops->template_gone(driver, tp1);
	run_for(100);
	ok(!world_has_layer(mine), "with the template all of its own go");
}

static void test_spoiled(void)
{
	struct driver_spec spec = spec_of(tp1);
	struct seen s = create(&spec);
	int goldens = world.goldens, deletes = world.deletes;

	world.create_error = EBADMSG;
	spec = spec_of(tp1);
	s = create(&spec);
	ok(s.kind == 0 && world.goldens == goldens + 1 && world.deletes > deletes,
	    "a damaged one is made anew: %s", s.message);
}

static void test_kvm(void)
{
	struct driver_spec spec = spec_of(tp1);
	struct driver_about about = {0};
	struct seen s;

	world.can |= SPAWN_CAN_KVM;
	driver_open(0);
	driver->ops->about(driver, &about);
	ok(!about.available && !about.ready, "without a worker nobody knows");
	s = create(&spec);
	memset(&about, 0, sizeof(about));
	driver->ops->about(driver, &about);
	ok(s.kind == 0 && world.last_start.accel == VM_ACCEL_KVM &&
	        world.last_create.flags & SPAWN_CREATE_KVM &&
	        strcmp(about.accelerator, "kvm") == 0 && about.reason[0] == '\0',
	    "KVM is used where it runs a guest: %s", s.message);
	destroy_all();

	world.can |= SPAWN_CAN_KVM;
	world.lie = NO_KVM;
	driver_open(0);
	s = create(&spec);
	memset(&about, 0, sizeof(about));
	driver->ops->about(driver, &about);
	ok(s.kind == 0 && world.last_start.accel == VM_ACCEL_TCG &&
	        !(world.last_create.flags & SPAWN_CREATE_KVM) &&
	        strcmp(about.accelerator, "tcg") == 0,
	    "where it runs none it is emulated");
	is_str(about.reason, "/dev/kvm is there but runs no guest: QEMU crashed (signal 6)",
	    "and people read why");
	is_int(world.images, 1, "from the same image");
	destroy_all();

	world.can = 0;
	driver_open(0);
	s = create(&spec);
	ok(s.kind == AV_ERR_UNSUPPORTED, "a machine without them says why: %s", s.message);
	memset(&about, 0, sizeof(about));
	driver->ops->about(driver, &about);
	ok(!about.available && strcmp(about.reason, "no QEMU") == 0, "also to who looks");
}

static void test_worker_dies(void)
{
	struct driver_spec spec = spec_of(tp1), next = spec_of(tp1);
	struct seen s = {0};

	driver_open(0);
	world.lie = HOLDS;
	world.lie_op = VM_START;
	(void)driver->ops->create(driver, &spec, on_alive, &s);
	run_for(80);
	world_new_worker();
	world.lie = HONEST;
	wait_for(&s);
	ok(s.calls == 1, "a worker that dies while an image is made: %s",
	    s.message[0] ? s.message : "it was made all the same");
	s = create(&next);
	ok(s.kind == 0, "the next create finds another: %s", s.message);
}

static void test_close(void)
{
	struct driver_spec a = spec_of(tp1), b = spec_of(tp2);
	struct seen sa = create(&a), sb = {0}, f = {0};

	world.lie = HOLDS;
	world.lie_op = 0;
	(void)driver->ops->freeze(driver, a.id, on_done, &f);
	(void)driver->ops->create(driver, &b, on_alive, &sb);
	run_for(40);
	(void)sa;
	driver_close();
	ok(f.calls == 1 && f.kind == AV_ERR_CANCELED && sb.calls == 1 && sb.kind == AV_ERR_CANCELED,
	    "what was under way is cancelled");
	ok(world_has(a.id), "and the sandbox lives on");
}

int main(void)
{
	world_open();
	test_names();
	put_layer(tp1);
	put_layer(tp2);
	driver_open(0);
	test_first();
	test_bad_specs();
	test_together();
	test_lies();
	test_failed_image();
	test_pause();
	test_held();
	test_snapshots();
	test_destroy_any_time();
	test_adopt();
	destroy_all();
	test_collect();
	test_spoiled();
	destroy_all();
	test_kvm();
	destroy_all();
	test_worker_dies();
	test_close();
	world_close();
	return tap_done();
}
