/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs.h - reading the log of a sandbox's main command, while it lives and afterwards
 *
 * From the agent while there is one, else what was saved at the end. The rules of node/stream.h
 * hold: callbacks come from the loop, on_end is the last one and comes exactly once, unless the
 * reader cancelled.
 */
#pragma once

#include "control/control.h"
#include "node/main_log.h"

struct control_log;

struct control_log_query {
	uint64_t from;    /* not before this offset */
	uint64_t tail;    /* only that many lines; UINT64_MAX: all */
	int64_t since_us; /* only from this time on (since 1970); INT64_MIN: all */
	bool follow;      /* until the command, or the sandbox, has ended */
};

/* How it was left off. */
struct control_log_end {
	bool exited; /* the command has; END was among the entries */
	/* Why the sandbox is no more; "" while it lives. */
	const char *reason;
};

struct control_log_events {
	void (*on_entry)(void *ctx, const struct av_mainlog_entry *e);
	/* After some entries. */
	void (*on_flush)(void *ctx);
	void (*on_end)(void *ctx, const struct control_log_end *end, const struct av_err *err);
};

/* NOT_FOUND, and INVALID_STATE: the sandbox has no main command, or is paused and not resumed by
 * requests; they may also come with on_end, before any entry. Reading is no use of the sandbox. */
int control_log_open(struct control *c, const struct control_actor *a, const char *id,
    const struct control_log_query *q, const struct control_log_events *ev, void *ctx,
    struct control_log **ret, struct av_err *err);
/* It is the agent that answers: what there is comes at once. */
bool control_log_is_live(const struct control_log *l);
/* From within on_flush, or outside of the callbacks. */
void control_log_pause(struct control_log *l, bool paused);
void control_log_cancel(struct control_log *l);
