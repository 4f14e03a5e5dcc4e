/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_restore.c - a machine goes on: from a save (START, RESUME), or where it was held (HOLD,
 * HAND_OVER)
 *
 * QEMU comes up and loads the devices' state while the save's memory is compared with its
 * checksums; the processors run only when both are done. The guest is given its identity in the
 * same moment.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "vm/copy.h"
#include "vm/machine_internal.h"

#include "base/banned.h"

/* Without reflinks all that is on the guest's disk is copied. */
#define READ_MS 540000

/* --- what is saved --- */

/* "7.2" of "7.2.22": what a machine type is named after. */
static size_t series(const char *version)
{
	const char *dot = strchr(version, '.');

	dot = dot ? strchr(dot + 1, '.') : NULL;
	return dot ? (size_t)(dot - version) : strlen(version);
}

static const char *accel_name(uint32_t accel)
{
	return accel == VM_ACCEL_KVM ? "KVM" : "emulation";
}

/* What START asked for must be what was saved; 0 asks for that. */
static int fits(const struct machine *m, const struct vm_info *info, struct av_err *err)
{
	const struct vm_start *s = &m->start;

	if ((s->memory_bytes && s->memory_bytes != info->memory_bytes) ||
	    (s->vcpus && s->vcpus != info->vcpus))
		return av_err_set(err, AV_ERR_INVALID,
		    "the machine was saved with %u processors and %llu MiB of memory, and goes on "
		    "with no others",
		    info->vcpus, (unsigned long long)(info->memory_bytes >> 20));
	if (s->accel && s->accel != info->accel)
		return av_err_set(err, AV_ERR_INVALID,
		    "the machine was saved under %s and cannot go on under %s",
		    accel_name(info->accel), accel_name(s->accel));
	if (info->accel == VM_ACCEL_KVM && m->o->kvm_fd < 0)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "the machine was saved under KVM, which is not to be had here now");
	return 0;
}

static int read_info(struct machine *m, struct av_err *err)
{
	char path[PATH_MAX];
	int r;

	vm_info_clear(&m->work.info);
	machine_path(m, path, "vm/saves/%u/info", m->work.save);
	r = vm_info_read(path, &m->work.info, err);
	return r < 0 ? r : fits(m, &m->work.info, err);
}

static int copy_disk(struct machine *m, struct av_err *err)
{
	char from[PATH_MAX], to[PATH_MAX];
	struct vm_copied copied;
	struct stat st;
	int r;

	machine_path(m, from, "vm/saves/%u/disk", m->work.save);
	machine_path(m, to, "vm/run/disk");
	if (stat(from, &st) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot read %s", from);
	if ((uint64_t)st.st_size != m->work.info.disk_bytes)
		return av_err_set(err, AV_ERR_CHECKSUM, "%s is not as long as it was", from);
	unlink(to);
	r = vm_copy(from, to, &copied, err);
	if (r == 0)
		m->work.disk_copied = copied.bytes;
	return r;
}

static int read_save(struct machine *m, struct av_err *err)
{
	int r = machine_make_dirs(m, err);

	if (r == 0)
		r = read_info(m, err);
	return r < 0 ? r : copy_disk(m, err);
}

static int read_current(struct machine *m, struct av_err *err)
{
	int r = machine_read_current(m, &m->work.save, err);

	return r < 0 ? r : read_save(m, err);
}

static int check(struct machine *m, struct av_err *err)
{
	char state[PATH_MAX];

	machine_path(m, state, "vm/saves/%u/state", m->work.save);
	return vm_pages_check(m->memory, state, &m->work.info, err);
}

/* --- steps --- */

static void step_read_current(struct machine *m)
{
	machine_job(m, read_current);
}

static void step_read(struct machine *m)
{
	m->work.save = m->paused;
	machine_job(m, read_save);
}

static void step_qemu(struct machine *m)
{
	const struct vm_info *info = &m->work.info;
	char path[PATH_MAX];
	AV_CLEANUP(av_closep) int state = -1;

	m->start.vcpus = info->vcpus;
	m->start.memory_bytes = info->memory_bytes;
	m->start.accel = info->accel;
	snprintf(m->machine_type, sizeof(m->machine_type), "%s", info->machine);
	machine_path(m, m->memory, "vm/saves/%u/memory", m->work.save);
	machine_path(m, path, "vm/saves/%u/state", m->work.save);
	state = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (state < 0) {
		machine_failf(m, AV_ERR_INTERNAL, "cannot open %s: %s", path, strerror(errno));
		return;
	}
	m->joins = 2;
	m->frozen = true; /* as it was when it was saved */
	machine_job(m, check);
	machine_qemu_start(m, false, state);
}

static void step_load(struct machine *m)
{
	const char *saved = m->work.info.qemu;

	if (series(saved) != series(m->version) || strncmp(saved, m->version, series(saved)) != 0) {
		machine_failf(m, AV_ERR_UNSUPPORTED,
		    "the machine was saved by QEMU %s, and cannot go on with QEMU %s", saved,
		    m->version);
		return;
	}
	m->disk_bytes = m->work.info.disk_bytes;
	machine_step_cont(m);
}

static void step_grow(struct machine *m)
{
	if (!m->times.load_us)
		m->times.load_us = machine_us(m->qemu_ns) - m->times.qemu_us;
	if (m->identity.disk_bytes <= m->disk_bytes) {
		machine_next(m);
		return;
	}
	m->disk_bytes = m->identity.disk_bytes;
	machine_command(m, "block_resize",
	    json_pack("{s:s,s:I}", "device", "disk", "size", (json_int_t)m->identity.disk_bytes));
}

/* --- ends --- */

static void running(struct machine *m)
{
	m->save = m->work.save;
	m->state = VM_STATE_RUNNING;
	m->times.total_us = machine_us(m->op_ns);
	links_run(m->links, true);
}

static void start_done(struct machine *m)
{
	if (m->error.kind) {
		machine_qemu_drop(m);
		m->state = VM_STATE_FAILED;
	} else {
		running(m);
	}
	machine_answer(m, NULL);
}

static void hold_done(struct machine *m)
{
	if (m->error.kind) {
		machine_qemu_drop(m);
		m->state = VM_STATE_FAILED;
	} else {
		m->state = VM_STATE_HELD;
		links_run(m->links, false);
	}
	machine_answer(m, NULL);
}

/* The save may go, but for its memory, which is what QEMU maps. What names it goes first. */
static int forget(struct machine *m, struct av_err *err)
{
	static const char *const files[] = {"info", "state", "disk"};
	char path[PATH_MAX];

	(void)err;
	machine_path(m, path, "vm/current");
	unlink(path);
	for (size_t i = 0; i < AV_ARRAY_LEN(files); i++) {
		machine_path(m, path, "vm/saves/%u/%s", m->work.save, files[i]);
		unlink(path);
	}
	return 0;
}

static void step_forget(struct machine *m)
{
	machine_job(m, forget);
}

/* The guest goes on: whatever became of the files of its save. */
static void resumed(struct machine *m)
{
	m->error = (struct av_err){0};
	m->paused = 0;
	m->own = true;
	running(m);
	machine_answer(m, NULL);
}

static void resume_done(struct machine *m)
{
	static const struct step steps[] = {{"removing what was saved", 20000, 98, step_forget}};
	static const struct plan plan = {.steps = steps, .n = AV_ARRAY_LEN(steps), .done = resumed};
	char disk[PATH_MAX];

	if (!m->error.kind) {
		machine_plan(m, &plan);
		return;
	}
	/* As it was: the save has not been touched. */
	machine_qemu_drop(m);
	machine_path(m, disk, "vm/run/disk");
	unlink(disk);
	m->state = VM_STATE_PAUSED;
	machine_answer(m, NULL);
}

/* --- plans --- */

#define STEPS_LOAD                                                                                 \
	{"starting QEMU", 60000, 10, step_qemu},                                                   \
	{                                                                                          \
		"restoring the machine", 60000, 50, step_load                                      \
	}
#define STEPS_IDENTITY                                                                             \
	{"giving the guest its disk", 20000, 70, step_grow},                                       \
	    {"giving the guest its identity", 30000, 75, machine_step_identity},                   \
	    {"waiting for the guest", 20000, 90, machine_step_hello},                              \
	{                                                                                          \
		"letting the guest go on", 20000, 92, machine_step_thaw                            \
	}

void machine_restore(struct machine *m)
{
	static const struct step steps[] = {
	    {"reading the saved machine", READ_MS, 0, step_read_current},
	    STEPS_LOAD,
	    STEPS_IDENTITY,
	};
	static const struct plan plan = {
	    .steps = steps, .n = AV_ARRAY_LEN(steps), .done = start_done};

	m->state = VM_STATE_BUSY;
	machine_plan(m, &plan);
}

void machine_hold(struct machine *m)
{
	static const struct step steps[] = {
	    {"stopping the guest", 20000, 0, machine_step_freeze},
	    {"stopping the machine", 20000, 80, machine_step_stop},
	};
	static const struct plan plan = {
	    .steps = steps, .n = AV_ARRAY_LEN(steps), .done = hold_done};

	m->state = VM_STATE_BUSY;
	machine_plan(m, &plan);
}

void machine_hand_over(struct machine *m)
{
	static const struct step steps[] = {
	    {"letting the machine go on", 20000, 0, machine_step_cont},
	    STEPS_IDENTITY,
	};
	static const struct plan plan = {
	    .steps = steps, .n = AV_ARRAY_LEN(steps), .done = start_done};

	m->state = VM_STATE_BUSY;
	machine_plan(m, &plan);
}

void machine_resume(struct machine *m)
{
	static const struct step steps[] = {
	    {"reading the saved machine", READ_MS, 0, step_read},
	    STEPS_LOAD,
	    STEPS_IDENTITY,
	};
	static const struct plan plan = {
	    .steps = steps, .n = AV_ARRAY_LEN(steps), .done = resume_done};

	m->state = VM_STATE_BUSY;
	machine_plan(m, &plan);
}
