/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process_internal.h - body of struct process; for process.c, process_io.c and nobody else
 */
#pragma once

#include "agent/process.h"

struct process_output {
	struct process *process;
	uv_poll_t poll;
	int fd; /* -1 when closed */
	uint8_t channel;
	bool reading; /* poll is started */
	bool grown;   /* the pipe was made larger, as it was full */
	bool limited; /* after a kill: only `left` more bytes are waited for */
	size_t left;
};

/* One process_write(), or the end of file. */
struct input_chunk {
	struct av_list node;
	process_written_fn *fn;
	void *ctx;
	bool eof;
	size_t answer; /* bytes of the whole call, for fn */
	size_t n, off; /* bytes here, and how many of them are written */
	char data[];
};

struct process_input {
	uv_poll_t poll;
	int fd; /* -1 when closed or never open */
	bool polling;
	bool eof_queued;
	struct av_list queue; /* of struct input_chunk */
};

struct process {
	struct av_list node; /* in one of the table's lists */
	struct process_table *table;
	pid_t pid;
	char *tag;    /* owned, or NULL */
	char *config; /* owned, config_n bytes */
	size_t config_n;
	bool pty, kill_group, end_at_exit, is_service;
	bool reaped; /* the kernel no longer knows the pid */
	bool killed; /* do not wait for the outputs */
	bool ended;
	bool seen;              /* somebody was told the end */
	struct process_end end; /* valid in parts from `reaped` on */
	struct process_output out[2];
	struct process_input in;
	struct av_list subs;
	struct ring ring;
	uv_timer_t timer;     /* time-out, later the grace after a kill */
	uint64_t due_ms;      /* loop time of the time-out; 0: none, or it is over */
	bool spared;          /* its time-out came late, and may turn out to be not due */
	uint64_t finished_ms; /* loop time of the end */
	int open_handles;     /* libuv handles that are not closed yet */
	bool dying;           /* freed when open_handles is 0 */
};

/* A handle of the process has been closed; frees the process with the last one when dying. */
void process_handle_closed(struct process *p);
/* Checks whether the end has come and, if so, tells everybody. */
void process_check_end(struct process *p);

/* --- process_io.c --- */

/* Takes the descriptors (closed on failure too). in_fd may be -1. */
int process_io_open(struct process *p, int in_fd, const int out_fd[2]);
void process_io_close(struct process *p);
bool process_outputs_open(const struct process *p);
/* From now on only what the pipes hold at this moment is waited for. */
void process_outputs_limit(struct process *p);
/* Starts or stops reading according to who is attached and who is full. */
void process_update_reading(struct process *p);
/* Serves one reader: replay, then the end if it has come. */
void process_pump(struct process_sub *sub);
/* Answers and frees everything that is queued for the input. */
void process_input_drop(struct process *p);
