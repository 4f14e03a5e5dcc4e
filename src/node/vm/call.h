/* SPDX-License-Identifier: Apache-2.0 */
/*
 * call.h - one request to the aviary-vm of a sandbox, and its answer
 *
 * Theory of operation. Every request has a connection of its own: aviary-vm forgets nothing when
 * one ends, and a daemon that starts anew has none to inherit. aviary-vm shares a jail with hostile
 * code, so nothing that it sends is believed: a packet of another size, a number or an op that was
 * not asked for and too many messages end the call, text is cut at its end and made printable,
 * and percentages are bounded. Whether numbers make sense is for the caller to say.
 *
 * Two clocks run: `silence_ms` begins anew with every progress message, `total_ms` never does.
 *
 *   start ──> sent ──progress──> sent ──answer──> done
 *                └── silence, lies, the connection's end ──> failed (AGENT, or the kind of its
 * errno)
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "net/loop.h"
#include "vm/vm_wire.h"

struct worker;

/* rep is NULL with err. Its text is printable and ends; nothing else was checked. May start the
 * next call or free what the call is in. */
typedef void vm_answer_fn(void *ctx, const struct vm_reply *rep, const struct av_err *err);
/* percent is 0 to 100; stage printable, valid during the call. */
typedef void vm_progress_fn(void *ctx, unsigned int percent, const char *stage);

struct vm_call {
	struct av_loop *loop;
	struct av_watch *watch; /* NULL: not under way */
	struct av_timer silence, start;
	int fd;
	uint32_t seq;
	uint32_t silence_ms;
	uint64_t end_ms; /* on the loop's clock */
	unsigned int messages;
	struct vm_request rq;
	struct av_err failed; /* why it could not be sent */
	vm_progress_fn *on_progress;
	vm_answer_fn *on_answer;
	void *ctx;
};

/* Before anything else. ctx is the one of both callbacks; on_progress may be NULL. */
void vm_call_init(struct vm_call *c, struct av_loop *loop, vm_progress_fn *on_progress,
    vm_answer_fn *on_answer, void *ctx);
/* Sends rq (its seq and protocol are set here) to the aviary-vm of sandbox id. on_answer comes
 * exactly once, from the loop, unless the call is cancelled. None may be under way. */
void vm_call_start(struct vm_call *c, const struct worker *w, const char *id,
    const struct vm_request *rq, uint32_t silence_ms, uint32_t total_ms);
/* No callback comes after this. Harmless when none is under way. */
void vm_call_cancel(struct vm_call *c);
bool vm_call_active(const struct vm_call *c);

/* "start the machine", …: what op does, for error messages. */
const char *vm_op_text(uint32_t op);
/* Makes what is not printable ASCII a question mark and ends it. */
void vm_make_printable(char *text, size_t size);
