/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.h - kernels: interpreters that keep their state between pieces of code
 *
 * Theory of operation
 *
 * A kernel is a name, a language and a queue of executions. Behind it stands at most one process of
 * the sandbox (struct process), an interpreter that runs a driver (src/agent/kernels/). The
 * driver's source comes on its standard input, a sealed memory file; messages go over a socket that
 * is its descriptor 3 (proto/kernel.h); what the code prints comes out of the pipes that are its
 * descriptors 1 and 2, whoever writes to them.
 *
 * One execution runs at a time, the others wait. Output belongs to the execution that runs; before
 * a message of the driver is handed on, what the pipes hold is. Output that comes between two
 * executions (threads, background programs) is kept, the newest KERNEL_IDLE_BYTES of each, and
 * given to the next one first; so is what comes after code was sent and before its ACCEPTED was
 * read, KERNEL_EARLY_BYTES of it, more than the pipes hold and what is read of them in two turns of
 * the loop: then it is the code's own, and all of it counts. A reader that is full stops the pipes
 * and the socket, and so the code.
 *
 * States: cold (no process) → starting → idle ⇄ busy. The process starts with the first execution
 * or when asked for (kernel_start). When it ends, by itself or because the driver breaks the
 * protocol, everything that waits is told (KERNEL_DIED) and the kernel is cold; the next execution
 * starts a fresh process and says so on standard error. A spare is a started kernel that nobody has
 * yet: the next kernel that fits takes it over, which saves the start of the interpreter.
 *
 * Everything that comes from a driver is hostile, as user code runs in the same process: messages
 * have ceilings and shapes, one that does not fit the state kills the process, and no number from
 * it is used for anything but showing it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "agent/process.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "base/path.h"
#include "proto/kernel.h"

#define KERNELS_MAX        32
#define KERNEL_QUEUE_MAX   64
#define KERNEL_ID_SIZE     37 /* 8-4-4-4-12 hexadecimal digits and NUL */
#define KERNEL_IDLE_BYTES  ((size_t)64 * 1024)
#define KERNEL_EARLY_BYTES ((size_t)2 * 1024 * 1024)
#define KERNEL_START_MS    60000 /* until the driver is ready */
#define KERNEL_CODE_MAX    ((size_t)4 * 1024 * 1024)
#define KERNEL_NAME_MAX    64

struct agent;
struct kernel;
struct kernel_language;

enum kernel_state { KERNEL_COLD, KERNEL_STARTING, KERNEL_IDLE, KERNEL_BUSY };

/* How an execution ended. */
enum kernel_end {
	KERNEL_OK,
	KERNEL_ERROR,     /* the code raised; the message came before */
	KERNEL_DIED,      /* the process ended under it */
	KERNEL_RESTARTED, /* somebody restarted the kernel */
	KERNEL_DELETED,   /* somebody deleted it */
	KERNEL_FAILED,    /* the process could not be started */
};

struct kernel_outcome {
	enum kernel_end end;
	uint32_t count;                    /* number of the execution; 0 before it was accepted */
	const struct process_end *process; /* DIED, where it is known how; else NULL */
	const char *message;               /* for people; not OK and not ERROR */
};

struct kernel_exec;

/* Calls to whoever has an execution run. None may free the kernel; each may cancel. */
struct kernel_exec_ops {
	/* Bytes the code or its programs wrote; borrowed. Set x->full to get no more until
	 * kernel_exec_ready(); some may still come. */
	void (*on_output)(struct kernel_exec *x, bool is_stderr, struct av_str data);
	/* ACCEPTED first, then DISPLAY, ERROR and CLEAR; borrowed. Same rule. */
	void (*on_message)(struct kernel_exec *x, const struct av_kernel_message *m);
	/* Last call; x is the caller's again. */
	void (*on_end)(struct kernel_exec *x, const struct kernel_outcome *o);
};

/* One execution; memory of the caller's, zeroed except for ops. */
struct kernel_exec {
	struct av_list node;
	const struct kernel_exec_ops *ops;
	struct kernel *kernel; /* NULL when neither waiting nor running */
	struct av_buf message; /* what will be sent to the driver */
	bool full;
	bool accepted;
};

struct kernel_params {
	const char *language; /* "python", ...; "" or NULL: python */
	const char *cwd;      /* "" or NULL: the sandbox's workdir, else the user's home */
	const char *user;     /* "" or NULL: the sandbox's */
	const char *name;     /* for whoever lists them; "" or NULL: none */
	const char *shell;    /* "auto", "plain", "ipython"; "" or NULL: auto */
};

/* Part of struct agent. */
struct kernel_table {
	struct agent *agent;
	struct av_list kernels; /* of struct kernel, oldest first */
	size_t n;
	struct kernel *spare; /* owned, or NULL */
	uint64_t executions;  /* ever; for /metrics */
};

void kernel_table_init(struct kernel_table *t, struct agent *a);

/* A new kernel, cold or made of the spare. AV_ERR_UNSUPPORTED for a language, AV_ERR_QUOTA. */
int kernel_create(struct kernel_table *t, const struct kernel_params *params, struct kernel **ret,
    struct av_err *err);
/* Makes a spare that fits params, if there is none, and starts it. */
int kernel_warm(struct kernel_table *t, const struct kernel_params *params, struct av_err *err);
/* The spare is up, or there is none. */
bool kernel_spare_ready(const struct kernel_table *t);
struct kernel *kernel_find(struct kernel_table *t, struct av_str id);
/* The oldest one of the language, and of the shell unless that is "", or NULL. */
struct kernel *kernel_default(struct kernel_table *t, struct av_str language, struct av_str shell);
/* Begin with NULL; NULL ends. */
struct kernel *kernel_next(struct kernel_table *t, struct kernel *k);

const char *kernel_id(const struct kernel *k);
const char *kernel_language(const struct kernel *k);
const char *kernel_name(const struct kernel *k); /* "" without one */
const char *kernel_cwd(const struct kernel *k);
const char *kernel_banner(const struct kernel *k); /* "python 3.11.2"; "" before it was ready */
enum kernel_state kernel_state(const struct kernel *k);
const char *kernel_state_text(enum kernel_state s);
int64_t kernel_last_activity_ms(const struct kernel *k); /* real time */
uint32_t kernel_count(const struct kernel *k);

/* Starts the process if there is none. The error of the start, once more, when it fails. */
int kernel_start(struct kernel *k, struct av_err *err);
/* SIGINT to the process group while something runs; waiting executions stay. */
void kernel_interrupt(struct kernel *k);
/* Kills the process with its group and starts a new one. */
int kernel_restart(struct kernel *k, struct av_err *err);
/* Kills and forgets. */
void kernel_delete(struct kernel *k);

/* Queues an execution: flags of proto/kernel.h, pairs as there. Events may come before this
 * returns. AV_ERR_QUOTA (too many wait), AV_ERR_TOO_LARGE. */
int kernel_execute(struct kernel *k, struct kernel_exec *x, uint8_t flags, struct av_str code,
    struct av_str pairs, struct av_err *err);
/* No more events; what runs is interrupted, what waits does not run. Harmless after the end. */
void kernel_cancel(struct kernel_exec *x);
/* The process works on it; else it waits. */
bool kernel_exec_runs(const struct kernel_exec *x);
/* There is room again. */
void kernel_exec_ready(struct kernel_exec *x);
