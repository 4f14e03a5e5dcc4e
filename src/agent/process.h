/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.h - the processes that clients started: input, output, signals, end
 *
 * Theory of operation
 *
 * A process has one input and one or two outputs (pipes, or one terminal), any number of attached
 * readers (`struct process_sub`) and a ring.
 *
 * Output. While a following reader is attached, output is read only when every such reader has
 * room: the slowest one slows the process and no byte is lost. While none is, output goes to the
 * ring, which keeps the newest and counts what it drops; once a process has a ring, the ring is fed
 * for the rest of its life. A reader that asks for a replay is served from the ring first, and the
 * process is not read meanwhile, so that it continues without a seam.
 *
 * End. A process has ended when it has exited and its outputs are at end of file: children that
 * inherited them hold the end back. After a kill through this interface or a time-out the wait is
 * cut short: what lies in the pipes at that moment is still delivered, the rest is not waited for.
 * After a time-out, a process that does not die (uninterruptible sleep) is given up after
 * KILL_GRACE_MS, so that no stream hangs.
 *
 * Memory of the dead. Ended processes are found by process_find_*() for LINGER_MS, their rings with
 * them, but at most FINISHED_MAX: those whose end somebody has seen make room first.
 *
 * States: running → exited (waiting for outputs) → ended (lingering) → freed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "agent/ring.h"
#include "agent/spawn.h"
#include "agent/user.h"
#include "base/err.h"
#include "base/list.h"
#include "base/str.h"

#define PROCESS_LIVE_MAX      1024
#define PROCESS_FINISHED_MAX  512
#define PROCESS_LINGER_MS     30000
#define PROCESS_KILL_GRACE_MS 100
#define TIMEOUT_LATE_MS       500 /* a time-out that comes so late may be one of a frozen sandbox, */
#define TIMEOUT_NEWS_MS       300 /* and waits so long to hear of it */
#define PROCESS_RING_BYTES    ((size_t)1024 * 1024)
#define PROCESS_CHUNK_PIPE    ((size_t)64 * 1024) /* most that one read of a pipe gives */
#define PROCESS_CHUNK_PTY     ((size_t)16 * 1024)
#define PROCESS_TAG_MAX       256

/* Numbered as in the binary codec. */
enum process_channel { PROCESS_STDOUT = 2, PROCESS_STDERR = 3, PROCESS_PTY = 4 };

struct agent;
struct process;
struct process_sub;

/* How it ended. */
struct process_end {
	bool exited;   /* by itself: exit_code counts; else signal does */
	int exit_code; /* 0..255 */
	int signal;    /* 0 or its number */
	bool core_dumped;
	bool timed_out;  /* its time-out fired before the end */
	bool gave_up;    /* killed, but still there when the grace was over */
	char status[48]; /* "exit status 3", "signal: killed" */
};

/* Calls to an attached reader. None may free the process; each may detach the reader. */
struct process_sub_ops {
	/* Bytes of one channel; they are borrowed for the call. The reader sets sub->full when it
	 * wants no more for now and calls process_sub_ready() when it does. */
	void (*on_output)(struct process_sub *sub, uint8_t channel, const char *p, size_t n);
	/* In a replay: dropped bytes are missing here. */
	void (*on_gap)(struct process_sub *sub, uint64_t dropped);
	/* Last call; the reader is detached already. end is NULL if the process still runs (a
	 * replay without following is over) and is borrowed for the call. */
	void (*on_end)(struct process_sub *sub, const struct process_end *end);
};

struct process_sub {
	struct av_list node;
	struct process *process; /* NULL when not attached */
	const struct process_sub_ops *ops;
	bool full;
	bool follow; /* takes part in flow control and gets live output */
	bool replay; /* still reading the ring */
	struct ring_cursor cursor;
};

/* What to start. All borrowed for the call. */
struct process_params {
	char *const *argv;
	char *const *envp;
	const char *cwd;
	const struct agent_user *user;
	const char *tag;      /* or NULL */
	struct av_str config; /* JSON of ProcessConfig for List, kept as it is */
	bool stdin_open;      /* else /dev/null */
	bool pty;
	uint16_t cols, rows; /* of the terminal */
	uint64_t timeout_ms; /* 0: none */
	bool kill_group;     /* time-out and detach-kill go to the process group */
	int stdin_fd;        /* borrowed: standard input instead of the above; 0: none */
	int channel_fd;      /* borrowed: descriptor 3 of the process; 0: none */
	bool end_at_exit;    /* what it left behind does not hold its end back */
	bool is_service;     /* ours, which waits for work: its life is no use of the sandbox */
};

/* Called when all bytes of one process_write() were taken by the pipe (status 0), or never will be
 * (-EPIPE: closed or gone). */
typedef void process_written_fn(void *ctx, size_t n, int status);

/* The table; part of struct agent. */
struct process_table {
	uv_loop_t *loop;                               /* borrowed */
	struct av_list live;                           /* of struct process: running and exited */
	struct av_list finished_seen, finished_unseen; /* ended, oldest first */
	size_t nlive, nfinished;
	struct ring_budget ring_budget;
	uv_timer_t linger;
	int null_fd;      /* /dev/null */
	char *read_buf;   /* PROCESS_CHUNK_PIPE bytes, made on first use */
	uint64_t started; /* counters for /metrics */
};

/* ring_bytes: budget of all rings together. -errno. */
int process_table_init(struct process_table *t, uv_loop_t *loop, size_t ring_bytes);
/* Takes the exit status that waitpid(2) gave; unknown pids (adopted orphans) are ignored. */
void process_table_reaped(struct process_table *t, pid_t pid, int wait_status);

/* Starts a process; sub (may be NULL) is attached before any output. On failure *ret_failure tells
 * the step. AV_ERR_QUOTA when PROCESS_LIVE_MAX run. */
int process_start(struct process_table *t, const struct process_params *params,
    struct process_sub *sub, struct process **ret, struct spawn_failure *ret_failure,
    struct av_err *err);

/* Live ones first, then the newest finished one. NULL when there is none. */
struct process *process_find_pid(struct process_table *t, pid_t pid);
struct process *process_find_tag(struct process_table *t, struct av_str tag);
/* The live processes in order of start: begin with NULL, NULL ends. */
struct process *process_next_live(struct process_table *t, struct process *p);

pid_t process_pid(const struct process *p);
const char *process_tag(const struct process *p); /* NULL if none */
struct av_str process_config(const struct process *p);
bool process_is_pty(const struct process *p);
bool process_is_service(const struct process *p);
/* Nothing ran for so long: time-outs that were running do not count it. */
void process_table_was_frozen(struct process_table *t, uint64_t frozen_ms);
bool process_is_live(const struct process *p);
/* NULL while it runs. */
const struct process_end *process_ended(const struct process *p);

/* sub must be zeroed except ops, follow and replay. Events may come only from process_sub_ready(),
 * which the caller calls once it is set up. */
void process_attach(struct process *p, struct process_sub *sub);
/* No more calls; harmless when not attached. */
void process_detach(struct process_sub *sub);
/* The reader has room: clears sub->full, goes on with the replay, with reading, or with the end. */
void process_sub_ready(struct process_sub *sub);

/* Reads what the outputs hold at this moment and delivers it, full readers or not: what was written
 * before something else that is known by now. At most the capacity of the pipes. */
void process_drain(struct process *p);

/* Queues bytes for the input. fn may be NULL. -EBADF: input off, closed or the process gone;
 * 0 otherwise, and fn is called exactly once, perhaps before this returns. */
int process_write(struct process *p, const void *data, size_t n, process_written_fn *fn, void *ctx);
/* Calls of process_write() with this ctx will not be answered; their bytes are still delivered. */
void process_forget_writer(struct process *p, const void *ctx);
/* End of file after what is queued. -EBADF as above; -ENOTTY for a terminal (send it 0x04). */
int process_close_stdin(struct process *p);
/* group: the whole process group, as far as it still exists. SIGKILL and SIGTERM cut the wait for
 * the outputs short. -ESRCH when there is nothing left to signal. */
int process_signal(struct process *p, int sig, bool group);
/* -ENOTTY when it has no terminal. */
int process_resize(struct process *p, uint16_t cols, uint16_t rows);
/* SIGKILL as its kill_group says. */
void process_kill(struct process *p);

/* Signal number by name ("SIGTERM", "TERM", "SIGNAL_SIGTERM", "15"); -EINVAL. */
int process_signal_number(struct av_str name);
