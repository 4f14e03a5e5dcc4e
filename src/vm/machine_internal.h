/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_internal.h - what machine*.c share; nobody else includes it
 */
#pragma once

#include <limits.h>

#include "proto/guest.h"
#include "vlink/port.h"
#include "vm/info.h"
#include "vm/links.h"
#include "vm/machine.h"
#include "vm/pages.h"
#include "vm/qemu.h"
#include "vm/qmp.h"

#define MACHINE_MEMORY_MIN (64ull << 20)
#define MACHINE_MEMORY_MAX VM_INFO_MEMORY_MAX
#define MACHINE_VCPUS_MAX  64u
#define MACHINE_SAVES_MAX  99999u
#define MACHINE_WORDS_MAX  160
#define QMP_MS             10000 /* for a command that only has to be answered */

struct step {
	const char *doing; /* "starting the guest": for progress and for messages */
	uint32_t limit_ms;
	uint8_t percent; /* where it begins */
	void (*begin)(struct machine *m);
};

struct plan {
	const struct step *steps;
	size_t n;
	const struct plan *undo; /* NULL: nothing to be undone */
	/* Sets the state and answers; m->error says whether it failed (a plan with an undo gets
	 * here through that only). */
	void (*done)(struct machine *m);
};

/* In a thread of the pool: reads what belongs to the plan, writes m->work only. */
typedef int machine_work(struct machine *m, struct av_err *err);

struct machine {
	struct children *children;
	const struct machine_options *o;
	const struct machine_ops *ops;
	void *ctx;
	uv_loop_t *loop;
	enum vm_state state, state_before; /* before: the request under way */

	/* The request under way; plan is NULL without one. */
	const struct plan *plan;
	size_t step;
	unsigned joins;      /* how many ends the step still waits for, when more than one */
	struct av_err error; /* the first */
	uint64_t client;
	uint32_t op, seq;
	int64_t op_ns, step_ns;
	uv_timer_t limit, progress, pause, last; /* last: until QEMU is killed */
	struct child *child;                     /* mke2fs, …; NULL: none */
	uint32_t limit_ms;                       /* what limit was started with */
	bool failing, undoing, undo_failed;
	bool given_up; /* QEMU was killed, as the guest could not be brought back */

	/* Work in the pool. */
	uv_work_t work_req;
	machine_work *work_run;
	int work_result;
	bool working;
	struct av_err work_error;
	struct {
		unsigned save; /* the number that is read or written */
		struct vm_pages *pages;
		struct vm_info info;
		struct vm_pages_written written;
		uint64_t disk_copied;
	} work;

	/* What the guest is. */
	struct vm_start start; /* memory, vcpus, accel: as they are */
	struct vm_identity identity;
	uint8_t machine_id[16];
	char machine_type[VM_INFO_TEXT_MAX], version[32];
	struct av_guest_hello hello;
	uint32_t kills;        /* as the guest says */
	char memory[PATH_MAX]; /* what QEMU maps */
	uint64_t disk_bytes;   /* the size that QEMU gives the guest's disk */
	unsigned save;         /* of which it is, 0: none (a golden boots) */
	unsigned paused;       /* the save of a PAUSE that is not resumed, 0: none */
	unsigned dropping;     /* the save that DROP removes */
	bool own;              /* save is of a pause of this machine */
	bool panicked, recorded, stopping;

	/* QEMU. */
	struct qemu *qemu; /* NULL: none runs */
	struct qmp *qmp;
	struct vlink_port *control;
	struct links *links;
	bool quitting;     /* its end is what the step waits for */
	bool asked;        /* a command whose answer ends the step has none yet */
	bool stopped;      /* its processors */
	bool was_stopped;  /* by the plan under way, which lets them go on when it fails */
	bool committing;   /* a save that is complete is being named: QEMU may end */
	bool frozen;       /* users' processes in the guest */
	bool wants_resume; /* the event is what the step waits for */
	bool greeted;      /* HELLO came since the last reset of the guest's link */
	bool ended;        /* it ended within a plan; exit_status says how */
	int exit_status;
	char shutdown[32]; /* reason of its SHUTDOWN event */
	char lost[160];    /* why it was killed: what it said, or did not; empty: it was not */

	/* Its disk (machine_room.c). */
	bool starved; /* QEMU stopped it, as a write failed */
	bool no_room; /* for want of room */
	char starved_why[64];
	uv_timer_t retry;

	/* The guest. */
	uint32_t guest_seq;
	enum av_guest_type expect; /* what the step waits for, AV_GUEST_NONE: nothing */
	struct av_guest_identity told;
	int64_t told_ns;

	/* Measured. */
	struct vm_times times;
	int64_t qemu_ns, stop_ns, stopped_ns;
	uint64_t private_bytes, overhead_bytes;
	uv_work_t usage_req;
	struct vm_pages_usage usage;
	int usage_result;
	bool usage_working;
	pid_t usage_pid;
	uint64_t usage_bytes;
	char usage_memory[PATH_MAX];
	uint64_t usage_client;
	uint32_t usage_seq;
};

/* --- machine.c: plans --- */

void machine_plan(struct machine *m, const struct plan *plan);
/* The step, or one of the ends it waits for, is done. */
void machine_next(struct machine *m);
/* The step failed; err is copied. Without a plan: nothing. */
void machine_fail(struct machine *m, const struct av_err *err);
void machine_failf(struct machine *m, enum av_err_kind kind, const char *fmt, ...) AV_PRINTF(3, 4);
/* Another time limit for the step under way. */
void machine_limit(struct machine *m, uint32_t limit_ms);
/* run in the pool, then machine_next or machine_fail. */
void machine_job(struct machine *m, machine_work *run);
/* A child, then machine_next if it ends with 0; else its words are the error. */
void machine_child(struct machine *m, const struct child_spec *spec);
/* Answers the request with m->error, or success; saved may be NULL. */
void machine_answer(struct machine *m, const struct vm_saved *saved);
uint32_t machine_us(int64_t since_ns);

/* --- machine_qemu.c --- */

/* Starts QEMU for what m->start says; on m->memory, which boots or goes on from state_fd. */
void machine_qemu_start(struct machine *m, bool boot, int state_fd);
/* A command whose answer ends the step. args is taken over. */
void machine_command(struct machine *m, const char *command, json_t *args);
void machine_qemu_kill_soon(struct machine *m, uint32_t ms); /* if it still lives then */
void machine_qemu_drop(struct machine *m); /* kills it, closes all that belongs to it */
bool machine_lives(const struct machine *m);
void machine_ended(struct machine *m);       /* QEMU has, and no plan waits: the machine's end */
void machine_told_to_end(struct machine *m); /* machine_stop, once nothing of QEMU is left */
/* Steps. */
void machine_step_cont(struct machine *m); /* until the processors run */
void machine_step_stop(struct machine *m);
void machine_step_quit(struct machine *m);
void machine_step_save_state(struct machine *m); /* as saves/<work.save>/state */

/* How a machine comes to stand still, for whatever saves it, from `percent` on. */
#define STEPS_STAND_STILL(percent)                                                                 \
	{"stopping the guest", 30000, percent, machine_step_freeze},                               \
	    {"stopping the machine", 60000, (percent) + 2, machine_step_stop},                     \
	{                                                                                          \
		"saving its devices", 60000, (percent) + 4, machine_step_save_state                \
	}

/* cont, whatever comes of it. */
void machine_try_cont(struct machine *m);

/* --- machine_room.c --- */

void machine_room_init(struct machine *m);
/* QEMU's event BLOCK_IO_ERROR. */
void machine_starves(struct machine *m, const json_t *data);
void machine_fed(struct machine *m); /* its processors run, or QEMU is gone */
/* NO_SPACE or INTERNAL: it stands still. */
int machine_check_room(const struct machine *m, struct av_err *err);
void machine_undo_thaw(struct machine *m); /* a step: of a guest that need not answer now */
/* An error that does not say why becomes NO_SPACE when there is no room. */
void machine_blame_room(const struct machine *m, struct av_err *err);

/* --- machine_guest.c --- */

int machine_control_open(struct machine *m, int fd, uint64_t timeout_ms);
/* Steps. */
void machine_step_hello(struct machine *m);
void machine_step_warm(struct machine *m);
void machine_step_freeze(struct machine *m);
void machine_step_thaw(struct machine *m);
void machine_step_identity(struct machine *m);

/* --- machine_files.c: below root; all block --- */

void machine_path(const struct machine *m, char dst[static PATH_MAX], const char *fmt, ...)
    AV_PRINTF(3, 4);
int machine_mkdir(const struct machine *m, const char *path, struct av_err *err);
int machine_make_dirs(const struct machine *m, struct av_err *err); /* vm, vm/run, vm/saves */
int machine_read_current(const struct machine *m, unsigned *ret, struct av_err *err);
int machine_write_current(const struct machine *m, unsigned save, struct av_err *err);
/* The smallest number above all that are there, with its directory. */
int machine_new_save(const struct machine *m, unsigned *ret, struct av_err *err);
void machine_remove_save(const struct machine *m, unsigned save);
/* All files of a save, its directory, and the one above. */
int machine_sync_save(const struct machine *m, unsigned save, struct av_err *err);
int machine_sync(const char *path, struct av_err *err);
/* state's sum, and the file info, of m->work.info and what the machine is. */
int machine_write_info(struct machine *m, unsigned save, struct av_err *err);

/* --- the plans --- */

void machine_image(struct machine *m);   /* machine_image.c */
void machine_golden(struct machine *m);  /* machine_golden.c */
void machine_restore(struct machine *m); /* machine_restore.c */
void machine_hold(struct machine *m);
void machine_hand_over(struct machine *m);
void machine_resume(struct machine *m);
void machine_pause(struct machine *m); /* machine_save.c */
void machine_save(struct machine *m);
void machine_drop(struct machine *m);
