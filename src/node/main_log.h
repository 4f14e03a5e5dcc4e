/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main_log.h - the main command of a sandbox as its agent has it: start, signal, log, end
 *
 * The rules of stream.h hold. None of these is use of the sandbox.
 */
#pragma once

#include "node/stream.h"
#include "proto/mainlog.h"

struct node_sandbox;

/* main: {"command":[...],"workdir","user"}, borrowed. INVALID: it cannot be executed; CONFLICT:
 * there was one before. */
typedef void node_main_started_fn(void *ctx, uint32_t pid, const struct av_err *err);
int node_main_start(struct node_sandbox *sb, const json_t *main, int64_t log_bytes,
    node_main_started_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* SIGTERM or SIGKILL to its process group. No error when it has ended; nobody waits. */
int node_main_signal(struct node_sandbox *sb, int signo, struct av_err *err);

/* Which entries; see agent/main_rpc.c. */
struct node_main_log_query {
	uint64_t from;    /* not before this offset */
	uint64_t tail;    /* only that many lines; UINT64_MAX: all */
	int64_t since_us; /* only from this time on; INT64_MIN: all */
	bool follow;      /* until the end of the command */
	bool end_only;    /* nothing but the END, when it comes */
};
struct node_main_log_events {
	/* Entries, END last when the command has ended. False: no more; on_end follows at once. */
	bool (*on_entry)(void *ctx, const struct av_mainlog_entry *e);
	/* After some of them: those that came together. NULL allowed. */
	void (*on_flush)(void *ctx);
	void (*on_end)(void *ctx, const struct av_err *err);
};
struct node_main_log;
int node_main_log_open(struct node_sandbox *sb, const struct node_main_log_query *q,
    const struct node_main_log_events *ev, void *ctx, struct node_main_log **ret,
    struct av_err *err);
void node_main_log_pause(struct node_main_log *l, bool paused);
void node_main_log_cancel(struct node_main_log *l);
