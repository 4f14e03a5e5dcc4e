/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op.h - an operation: something that was asked for and will be done, fail, or be cancelled
 *
 * Every call that talks to the server returns at once with an operation, and never NULL: one that
 * could not even begin has failed already (with AVIARY_E_INVALID, AVIARY_E_NO_MEMORY, ...). So
 * calls can be written one into another:
 *
 *     aviary_sandbox *sb = aviary_await_sandbox(aviary_sandbox_run(c, &spec), &error);
 *
 * An operation is freed by whoever got it, done or not; freeing one that is not done lets it run on
 * unseen: cancel it first where that is not wanted. Results are taken once and then belong to the
 * taker.
 */
#ifndef AVIARY_OP_H
#define AVIARY_OP_H

#include <aviary/base.h>

AVIARY_BEGIN_DECLS

typedef struct aviary_op aviary_op;

/* 1: done, failed or cancelled; 0: not yet. Does not drive anything. */
AVIARY_API int aviary_op_is_done(const aviary_op *op);
/* Waits until it is done, at most timeout_ms (-1: without end), driving the client unless that has
 * a thread. 0 when it succeeded, its code when it failed; AVIARY_E_AGAIN when the time was over
 * first: it goes on. AVIARY_E_STATE from inside a callback. */
AVIARY_API int aviary_op_wait(aviary_op *op, int64_t timeout_ms);
/* Its code: 0, negative, or AVIARY_E_AGAIN. */
AVIARY_API int aviary_op_code(const aviary_op *op);
/* Why it failed; code 0 when it did not (yet). Valid as long as op. */
AVIARY_API const aviary_error *aviary_op_error(const aviary_op *op);
/* The body of the server's answer as it came (JSON), with a NUL after it, also of one that is an
 * error; "" when there was none, or the operation is not a single request. *ret_size (may be NULL)
 * gets its bytes. Valid as long as op. */
AVIARY_API const char *aviary_op_body(const aviary_op *op, size_t *ret_size);
/* It ends with AVIARY_E_CANCELED, unless it is done already. What the server has begun is undone
 * where that is possible (a command is killed, a create that nobody can know of is deleted). */
AVIARY_API void aviary_op_cancel(aviary_op *op);
/* fn(op, ctx) once, when it is done: from where operations are driven; at once (from the next
 * dispatch) when it is done already; from inside this call when its client was freed. One callback
 * for an operation; the last one set counts. */
typedef void aviary_op_fn(aviary_op *op, void *ctx);
AVIARY_API void aviary_op_on_done(aviary_op *op, aviary_op_fn *fn, void *ctx);
/* Whatever the caller likes to find again. */
AVIARY_API void aviary_op_set_user(aviary_op *op, void *user);
AVIARY_API void *aviary_op_user(const aviary_op *op);
/* One more, or one less, that holds it. NULL is fine. */
AVIARY_API aviary_op *aviary_op_ref(aviary_op *op);
AVIARY_API void aviary_op_free(aviary_op *op);

/* ---- several ---- */

/* Waits until num_returns of n are done (0 or more than n: all), at most timeout_ms. Failures count
 * as done. ops is put in order in place: first those that are done, then the others, each in the
 * order in which they stood; one may stand there several times. Returns how many are done, which
 * may be more than num_returns. They may be of different clients: those without a thread of their
 * own are driven here. Negative on misuse: a NULL among them (AVIARY_E_INVALID), from inside a
 * callback (AVIARY_E_STATE), no memory; then ops is as it was. Nothing is cancelled. */
AVIARY_API int aviary_wait(aviary_op **ops, size_t n, size_t num_returns, int64_t timeout_ms);
/* Waits for all; 0, or the code of the first in order that failed, whose index *ret_failed gets
 * (may be NULL). */
AVIARY_API int aviary_results(aviary_op **ops, size_t n, size_t *ret_failed);

/* ---- awaiting: waits without end, frees op, fills *error (may be NULL; strings are copied into it
 * and hold until the next await of this thread) ---- */

AVIARY_API int aviary_await(aviary_op *op, aviary_error *error);

AVIARY_END_DECLS
#endif
