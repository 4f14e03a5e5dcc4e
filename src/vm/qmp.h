/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qmp.h - commands to QEMU and events from it, over a connected socket
 *
 * Theory of operation. QEMU runs a hostile guest, so what it says counts as hostile too. A line has
 * at most QMP_LINE_MAX bytes and AV_JSON_DEPTH levels; it is the greeting, an answer with the id of
 * the oldest command without an answer, or an event; anything else ends the connection. Events
 * beyond QMP_EVENTS_PER_S a second end it as well, except those of blocks that could not be read or
 * written (BLOCK_IO_ERROR), of which there may be any number. Every command has a time
 * limit, and so has the greeting: QEMU that does not answer in time is not asked again, as nobody
 * knows what it does. So the end of the connection, for whatever reason, comes once, as on_end;
 * commands that are still unanswered then get no answer.
 *
 * All functions belong to the loop's thread and none blocks. Callbacks come from the loop, never
 * from within a call of this header, and may call everything here, qmp_close too.
 */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "base/err.h"
#include "base/macros.h"

#define QMP_LINE_MAX     ((size_t)64 * 1024)
#define QMP_PENDING_MAX  8 /* commands without an answer */
#define QMP_EVENTS_PER_S 1000

struct qmp;

struct qmp_version {
	uint32_t major, minor, micro;
};

struct qmp_ops {
	/* QEMU greeted and takes commands. */
	void (*on_ready)(void *ctx, const struct qmp_version *version);
	/* Text is QEMU's: not printable, not to be trusted. data: borrowed, may be NULL. */
	void (*on_event)(void *ctx, const char *name, const json_t *data);
	/* The connection is over: closed by QEMU, not understood, or too late. What is left is
	 * qmp_close. */
	void (*on_end)(void *ctx, const struct av_err *why);
};

/* err is NULL when it was done; ret is borrowed. Text of QEMU's in err is printable. */
typedef void qmp_reply_fn(void *ctx, const json_t *ret, const struct av_err *err);

/* Takes fd over (made non-blocking, close-on-exec); QEMU must greet within timeout_ms. ops and ctx
 * are borrowed until qmp_close. -errno: fd stays the caller's. */
int qmp_open(uv_loop_t *loop, int fd, uint64_t timeout_ms, const struct qmp_ops *ops, void *ctx,
    struct qmp **ret) AV_MUST_CHECK;
/* No callback comes after it. The loop must run on for a turn. NULL is allowed. */
void qmp_close(struct qmp *q);

/* Sends a command; args is taken over also on failure (NULL: none). -ENOTCONN before on_ready and
 * after the end, -EBUSY with QMP_PENDING_MAX unanswered, -ENOMEM. */
int qmp_call(struct qmp *q, const char *command, json_t *args, uint64_t timeout_ms,
    qmp_reply_fn *on_reply, void *ctx) AV_MUST_CHECK;

/* Text of QEMU's or a guest's for people: at most size - 1 bytes, what is not printable ASCII as
 * '?'. */
void qmp_printable(char *dst, size_t size, const char *text);
