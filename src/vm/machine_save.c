/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_save.c - a machine is saved: PAUSE, which ends QEMU, and SAVE, after which it goes on
 *
 * SAVE copies what it can while the guest runs, so that it stands still only for what has changed
 * since. PAUSE forces all of it to disk before QEMU may end: from then on it is all there is.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "vm/copy.h"
#include "vm/machine_internal.h"

#include "base/banned.h"

/* --- work in the pool --- */

static int open_pages(struct machine *m, bool ahead, struct av_err *err)
{
	char to[PATH_MAX];
	int r = machine_new_save(m, &m->work.save, err);

	if (r < 0)
		return r;
	r = vm_pages_open(qemu_pid(m->qemu), m->memory, m->start.memory_bytes, &m->work.pages, err);
	if (r < 0)
		return r;
	machine_path(m, to, "vm/saves/%u/memory", m->work.save);
	return vm_pages_begin(m->work.pages, to, ahead, err);
}

static int prepare_pause(struct machine *m, struct av_err *err)
{
	return open_pages(m, false, err);
}

/* What the guest has written to its disk goes there now, so that it has less to wait for when it is
 * stopped, which flushes. */
static int prepare_save(struct machine *m, struct av_err *err)
{
	char disk[PATH_MAX];
	int r;

	machine_path(m, disk, "vm/run/disk");
	r = machine_sync(disk, err);
	return r < 0 ? r : open_pages(m, true, err);
}

static int capture(struct machine *m, struct av_err *err)
{
	int r = vm_pages_finish(m->work.pages, &m->work.info, &m->work.written, err);

	if (r == 0) {
		vm_pages_free(m->work.pages);
		m->work.pages = NULL;
	}
	return r;
}

/* The disk is the save's from now on; a second name, so that a failure has nothing to undo. */
static int capture_pause(struct machine *m, struct av_err *err)
{
	char from[PATH_MAX], to[PATH_MAX];
	int r = capture(m, err);

	if (r < 0)
		return r;
	machine_path(m, from, "vm/run/disk");
	machine_path(m, to, "vm/saves/%u/disk", m->work.save);
	if (link(from, to) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s", to);
	r = machine_write_info(m, m->work.save, err);
	return r < 0 ? r : machine_sync_save(m, m->work.save, err);
}

static int commit(struct machine *m, struct av_err *err)
{
	return machine_write_current(m, m->work.save, err);
}

static int capture_save(struct machine *m, struct av_err *err)
{
	char from[PATH_MAX], to[PATH_MAX];
	int r = capture(m, err);

	if (r < 0)
		return r;
	machine_path(m, from, "vm/run/disk");
	machine_path(m, to, "vm/saves/%u/disk", m->work.save);
	return vm_copy(from, to, NULL, err);
}

static int write_info(struct machine *m, struct av_err *err)
{
	return machine_write_info(m, m->work.save, err);
}

/* Also after a failure: nothing is left of what was begun. */
static int remove_work(struct machine *m, struct av_err *err)
{
	(void)err;
	vm_pages_free(m->work.pages);
	m->work.pages = NULL;
	if (m->work.save)
		machine_remove_save(m, m->work.save);
	return 0;
}

/* What a pause has replaced: the disk's other name, and the memory of the pause before. */
static int tidy_pause(struct machine *m, struct av_err *err)
{
	char disk[PATH_MAX];

	(void)err;
	machine_path(m, disk, "vm/run/disk");
	unlink(disk);
	if (m->own)
		machine_remove_save(m, m->save);
	return 0;
}

/* --- steps --- */

static void step_prepare_pause(struct machine *m)
{
	machine_job(m, prepare_pause);
}

static void step_prepare_save(struct machine *m)
{
	machine_job(m, prepare_save);
}

static void step_capture_pause(struct machine *m)
{
	machine_job(m, capture_pause);
}

static void step_capture_save(struct machine *m)
{
	machine_job(m, capture_save);
}

static void step_commit(struct machine *m)
{
	m->committing = true;
	machine_job(m, commit);
}

static void step_quit(struct machine *m)
{
	m->committing = false;
	m->stopped_ns = av_mono_ns() - m->stop_ns;
	machine_step_quit(m);
}

static void step_tidy(struct machine *m)
{
	machine_job(m, tidy_pause);
}

static void step_thaw(struct machine *m)
{
	m->stopped_ns = av_mono_ns() - m->stop_ns;
	machine_step_thaw(m);
}

static void step_info(struct machine *m)
{
	machine_job(m, write_info);
}

/* --- undoing --- */

static void undo_files(struct machine *m)
{
	machine_job(m, remove_work);
}

static void undo_stop(struct machine *m)
{
	if (m->was_stopped && machine_lives(m))
		machine_step_cont(m);
	else
		machine_next(m);
}

static void undo_freeze(struct machine *m)
{
	if (m->frozen && machine_lives(m))
		machine_undo_thaw(m);
	else
		machine_next(m);
}

/* --- ends --- */

static struct vm_saved saved_of(const struct machine *m)
{
	return (struct vm_saved){
	    .save = m->work.save,
	    .stopped_us = (uint32_t)AV_MIN(m->stopped_ns / 1000, (int64_t)UINT32_MAX),
	    .memory_bytes = m->work.written.written_bytes,
	    .disk_bytes = m->work.info.disk_bytes,
	    .total_us = machine_us(m->op_ns),
	};
}

/* Undone, or not: a guest that cannot be brought back is at its end. */
static void undone(struct machine *m)
{
	m->state = VM_STATE_RUNNING;
	m->committing = false;
	if (machine_lives(m) && m->undo_failed) {
		m->given_up = true;
		qemu_kill(m->qemu);
	}
	machine_answer(m, NULL);
}

static void pause_done(struct machine *m)
{
	struct vm_saved saved = saved_of(m);

	/* Whatever became of QEMU: the save is complete, and counts. */
	m->error = (struct av_err){0};
	machine_qemu_drop(m);
	m->state = VM_STATE_PAUSED;
	m->paused = m->work.save;
	machine_answer(m, &saved);
}

static void pause_saved(struct machine *m)
{
	static const struct step steps[] = {
	    {"ending QEMU", 20000, 95, step_quit},
	    {"removing what was replaced", 60000, 98, step_tidy},
	};
	static const struct plan plan = {
	    .steps = steps, .n = AV_ARRAY_LEN(steps), .done = pause_done};

	machine_plan(m, &plan);
}

static void save_done(struct machine *m)
{
	struct vm_saved saved = saved_of(m);

	m->state = VM_STATE_RUNNING;
	machine_answer(m, &saved);
}

/* The last plan's save is nothing that this one's undoing may remove. */
static void begin(struct machine *m, const struct plan *plan)
{
	m->state = VM_STATE_BUSY;
	m->was_stopped = false;
	m->work.save = 0;
	vm_info_clear(&m->work.info);
	m->work.written = (struct vm_pages_written){0};
	machine_plan(m, plan);
}

static const struct step undo_steps[] = {
    {"letting the machine go on", 20000, 90, undo_stop},
    {"letting the guest go on", 20000, 90, undo_freeze},
    {"removing what was saved", 60000, 90, undo_files},
};
static const struct plan undo = {
    .steps = undo_steps, .n = AV_ARRAY_LEN(undo_steps), .done = undone};

static const struct step pause_steps[] = {
    {"preparing the save", 60000, 0, step_prepare_pause},
    STEPS_STAND_STILL(5),
    {"saving its memory", 540000, 20, step_capture_pause},
    {"completing the save", 60000, 94, step_commit},
};
static const struct plan pause_plan = {
    .steps = pause_steps, .n = AV_ARRAY_LEN(pause_steps), .undo = &undo, .done = pause_saved};

static const struct step save_steps[] = {
    {"copying memory", 540000, 0, step_prepare_save},
    STEPS_STAND_STILL(50),
    {"saving its memory", 540000, 56, step_capture_save},
    {"letting the machine go on", 20000, 80, machine_step_cont},
    {"letting the guest go on", 20000, 82, step_thaw},
    {"summing it up", 60000, 85, step_info},
};
static const struct plan save_plan = {
    .steps = save_steps, .n = AV_ARRAY_LEN(save_steps), .undo = &undo, .done = save_done};

void machine_pause(struct machine *m)
{
	begin(m, &pause_plan);
}

void machine_save(struct machine *m)
{
	begin(m, &save_plan);
}

/* --- DROP --- */

static int drop(struct machine *m, struct av_err *err)
{
	(void)err;
	machine_remove_save(m, m->dropping);
	return 0;
}

static void step_drop(struct machine *m)
{
	if (m->dropping == m->paused || (m->dropping == m->save && machine_lives(m)))
		machine_failf(m, AV_ERR_INVALID_STATE, "the machine needs save %u", m->dropping);
	else
		machine_job(m, drop);
}

static void drop_done(struct machine *m)
{
	m->state = m->state_before;
	machine_answer(m, NULL);
}

void machine_drop(struct machine *m)
{
	static const struct step steps[] = {{"removing a save", 60000, 0, step_drop}};
	static const struct plan plan = {
	    .steps = steps, .n = AV_ARRAY_LEN(steps), .done = drop_done};

	machine_plan(m, &plan);
}
