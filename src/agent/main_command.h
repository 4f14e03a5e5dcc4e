/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main_command.h - the main command of the sandbox: one process, its log, and how it ended
 *
 * Theory of operation
 *
 * The daemon starts it once (POST /main). It is a process like any other (process.h), with one
 * reader that is never full and takes all of its output into the log (main_log.h); so nobody who
 * reads the log slows it. What it leaves behind when it ends does not hold its end back. From then
 * on, and as long as the agent lives, the answer to how it ended stays; it is also the agent's exit
 * record, which outlives it.
 *
 * Readers (GET /main/log) are cursors into the log. Who falls behind what is kept is told how much
 * is missing.
 *
 * States: none → running → ended.
 */
#pragma once

#include "agent/main_log.h"
#include "agent/process.h"
#include "base/list.h"

struct agent;
struct av_buf;

/* Somebody to be told that there is more in the log, or that it has ended. */
struct main_reader {
	struct av_list node;
	void (*on_more)(struct main_reader *r);
};

struct main_command {
	struct process *process; /* NULL when it has ended */
	struct process_sub sub;
	struct main_log log;
	uv_timer_t flush; /* lines without an end become entries */
	pid_t pid;
	int64_t started_us, finished_us; /* real time */
	uint32_t exit_code, signal;      /* when ended */
	struct av_list readers;          /* struct main_reader */
};

/* CONFLICT when there was one already. log_bytes: AV_MAINLOG_MIN to AV_MAINLOG_MAX. Otherwise as
 * process_start(). */
int main_command_start(struct agent *a, const struct process_params *params, size_t log_bytes,
    struct spawn_failure *ret_failure, struct av_err *err);
/* Its state for GET /main as JSON; m may be NULL. */
int main_command_describe(const struct main_command *m, struct av_buf *out);
/* To its group. -ESRCH: it has ended. */
int main_command_signal(struct main_command *m, int sig);
bool main_command_has_ended(const struct main_command *m);
