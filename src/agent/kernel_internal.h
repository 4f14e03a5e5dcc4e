/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_internal.h - bodies of kernels and their drivers; for kernel*.c and nobody else
 */
#pragma once

#include "agent/agent.h"
#include "agent/kernel.h"

/* How a language is started. */
struct kernel_language {
	const char *name, *alias; /* alias may be "" */
	const char *program;
	char *const *argv; /* the whole command, NULL-terminated */
	const struct av_str *source;
};

/* One process of a kernel. It outlives being let go until its handles are closed. */
struct kernel_driver {
	struct kernel *kernel;   /* NULL once it was let go */
	struct process *process; /* NULL when it has ended or was let go */
	struct process_sub sub;
	struct av_kernel_dec dec;
	struct av_buf out; /* not yet written to the socket */
	uv_poll_t poll;
	uv_timer_t timer; /* start; later: end of file without an end; what was said last */
	int fd;           /* -1: closed */
	int events;       /* what poll waits for */
	bool eof;
	bool ended; /* the process; its last messages are being read */
	unsigned last_reads;
	struct process_end end;
	int open_handles;
};

struct kernel {
	struct av_list node;
	struct kernel_table *table;
	char id[KERNEL_ID_SIZE];
	const struct kernel_language *language;
	char name[KERNEL_NAME_MAX + 1];
	char shell[12];
	char cwd[AV_PATH_MAX + 1];
	bool cwd_default; /* nobody named it */
	char user[AGENT_USER_NAME_MAX + 1];
	bool user_default;
	uint64_t settings; /* of the agent, that the process knows */
	enum kernel_state state;
	struct kernel_driver *driver; /* NULL while cold */
	struct av_list queue;         /* of struct kernel_exec, those that wait */
	size_t n_queue;
	struct kernel_exec *active; /* NULL: idle, or what runs was cancelled */
	bool accepted;              /* the driver has begun with it */
	uint32_t count;
	char banner[AV_KERNEL_BANNER_MAX + 1];
	struct av_buf idle[2]; /* output between executions */
	char lost[256];        /* how the last process ended between executions, or "" */
	bool used;             /* code was sent to the process */
	bool move;             /* the process must be told cwd */
	bool interrupted;      /* before the driver accepted what it was sent */
	int64_t last_activity_ms;
};

/* ---- kernel.c, called by kernel_driver.c ---- */

void kernel_on_output(struct kernel *k, bool is_stderr, struct av_str data);
/* -EPROTO: it does not fit the state. */
int kernel_on_message(struct kernel *k, const struct av_kernel_message *m);
/* The process is gone; the driver was let go. end may be NULL. */
void kernel_on_gone(struct kernel *k, const struct process_end *end, const char *why);
/* Whether there is anybody to hear of messages. */
bool kernel_listens(const struct kernel *k);
/* Whether the one who reads can take no more. */
bool kernel_is_full(const struct kernel *k);

/* ---- kernel_driver.c ---- */

int driver_start(struct kernel *k, struct av_err *err);
/* Queues bytes for the socket; -EMSGSIZE, -ENOMEM. */
int driver_send(struct kernel_driver *d, struct av_str data);
/* Reads on, or not, as kernel_is_full() says. */
void driver_update(struct kernel_driver *d);
/* The reader has room again. */
void driver_ready(struct kernel_driver *d);
void driver_interrupt(struct kernel_driver *d);
/* Kills the group and detaches; nothing more is heard of it. */
void driver_let_go(struct kernel_driver *d);
