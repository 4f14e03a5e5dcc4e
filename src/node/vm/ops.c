/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.c - what is asked of a living sandbox with a kernel of its own
 *
 * Theory of operation. One at a time, in the order in which they came:
 *
 *   freeze             PAUSE: memory and devices are saved, QEMU ends and its memory is free
 *   thaw               RESUME: a new QEMU goes on from there, as who it was
 *   hold, take         HOLD, HAND_OVER
 *   snapshot           SAVE ──> the save becomes a layer ──> DROP of the save
 *   … of a paused one  the disk becomes a layer: the save is in it
 *   … with stop        PAUSE, if it is not ──> all is killed, the disk becomes a layer
 *   destroy            at once, except behind a snapshot with stop: that was promised
 *
 * A request that is refused leaves the machine as it was. One that is not answered, or not in words
 * that make sense, leaves nobody who knows how the machine is: it is asked, again while it is busy,
 * and destroyed when it does not say that it runs or stands still. What it was asked for may have
 * come true by then.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/vm/vm_internal.h"

#include "base/banned.h"

#define LOOK_MS   250  /* at a busy machine */
#define LOOKS_MAX 6000 /* 25 minutes: longer than the limits of any request's steps together */

static void op_done(struct vm_box_op *op, const struct av_err *err)
{
	struct vm_box *b = op->box;

	if (b) {
		av_list_remove(&op->link);
		op->box = NULL;
		if (op->kind == OP_SNAPSHOT)
			op->fn.snapshot(op->ctx, err ? NULL : &op->snapshot, err);
		else
			op->fn.done(op->ctx, err);
		if (b->state == BOX_UP)
			av_timer_start(&b->next, 0);
	}
	if (!op->at_worker)
		free(op);
}

static void fail(struct vm_box_op *op, enum av_err_kind kind, const char *text)
{
	struct av_err err;

	(void)av_err_set(&err, kind, "%s", text);
	op_done(op, &err);
}

void vm_ops_fail(struct vm_box *b, const struct av_err *err)
{
	struct vm_box_op *op;

	while ((op = AV_LIST_FIRST(&b->ops, struct vm_box_op, link)))
		op_done(op, op->kind == OP_DESTROY ? NULL : err);
}

/* ---- asking ---- */

static void ask(struct vm_box_op *op, uint32_t what)
{
	struct vm_box *b = op->box;
	struct vm_request rq = {.op = what};
	uint32_t limit_ms = what == VM_RESUME || what == VM_HAND_OVER ? RESTORE_MS : SAVE_MS;

	if (what == VM_DROP)
		rq.u.save = op->save;
	if (what == VM_HAND_OVER && b->spec.id[0])
		vm_fill_identity(&rq.u.identity, &b->spec, b->evidence.slot);
	op->asked = what;
	vm_call_start(&b->call, b->vm->worker, b->id, &rq, b->vm->silence_ms,
	    what == VM_STATUS ? STATUS_MS : limit_ms);
}

static void snapshot_over(struct vm_box_op *op)
{
	if (op->save)
		ask(op, VM_DROP);
	else
		op_done(op, op->has_snapshot ? NULL : &op->err);
}

static void on_layer(void *ctx, const struct driver_snapshot *snap, const struct av_err *err)
{
	struct vm_box_op *op = ctx;

	op->at_worker = false;
	if (!op->box) {
		free(op);
		return;
	}
	if (err) {
		op->err = *err;
	} else {
		op->snapshot = *snap;
		op->snapshot.memory_bytes = op->box->memory_bytes;
		op->snapshot.vcpus = op->box->vcpus;
		op->snapshot.stopped_us = op->stopped_us;
		op->has_snapshot = true;
	}
	snapshot_over(op);
}

static void capture(struct vm_box_op *op, uint32_t flags)
{
	op->at_worker = worker_snapshot(op->vm->worker, op->box->id, op->template_id, flags,
	                    op->save, on_layer, op) == 0;
	if (op->at_worker)
		return;
	(void)av_err_set(&op->err, AV_ERR_NO_MEMORY, "out of memory");
	snapshot_over(op);
}

static void run_snapshot(struct vm_box_op *op)
{
	const struct vm_box *b = op->box;

	if (b->held)
		fail(op, AV_ERR_INVALID_STATE, "the virtual machine has not begun yet");
	else if (op->stop && !b->paused)
		ask(op, VM_PAUSE);
	else if (op->stop)
		capture(op, SPAWN_SNAPSHOT_KILL);
	else if (b->paused)
		capture(op, 0);
	else
		ask(op, VM_SAVE);
}

static void run_destroy(struct vm_box_op *op)
{
	struct vm_box *b = op->box;
	struct av_err err;

	if (worker_destroy(b->vm->worker, b->id, op->fn.done, op->ctx) < 0) {
		fail(op, AV_ERR_NO_MEMORY, "out of memory");
		return;
	}
	av_list_remove(&op->link);
	free(op);
	(void)av_err_set(&err, AV_ERR_CANCELED, "the sandbox was destroyed");
	vm_box_end(b, &err);
}

static void run(struct vm_box_op *op)
{
	struct vm_box *b = op->box;

	op->running = true;
	if (op->kind == OP_DESTROY) {
		run_destroy(op);
	} else if (b->broken[0]) {
		fail(op, AV_ERR_INVALID_STATE, b->broken);
	} else if (op->kind == OP_SNAPSHOT) {
		run_snapshot(op);
	} else if (op->kind == OP_FREEZE && !b->paused) {
		ask(op, VM_PAUSE);
	} else if (op->kind == OP_THAW && b->paused) {
		ask(op, VM_RESUME);
	} else if (op->kind == OP_HOLD && !b->held && !b->paused) {
		ask(op, VM_HOLD);
	} else if (op->kind == OP_TAKE && b->held) {
		ask(op, VM_HAND_OVER);
	} else {
		op_done(op, NULL); /* it is so already */
	}
}

void vm_ops_run(struct vm_box *b)
{
	struct vm_box_op *op = AV_LIST_FIRST(&b->ops, struct vm_box_op, link);

	if (op && !op->running)
		run(op);
	else if (op && op->asked == VM_STATUS && !vm_call_active(&b->call))
		ask(op, VM_STATUS);
}

/* ---- answers ---- */

static bool is_as_asked(const struct vm_box_op *op, uint32_t state)
{
	return (op->kind == OP_FREEZE && state == VM_STATE_PAUSED) ||
	       (op->kind == OP_HOLD && state == VM_STATE_HELD) ||
	       ((op->kind == OP_THAW || op->kind == OP_TAKE) && state == VM_STATE_RUNNING);
}

/* How it is after a request that was not answered. */
static void on_looked(struct vm_box_op *op, const struct vm_reply *rep, const struct av_err *err)
{
	struct vm_box *b = op->box;
	uint32_t state = err ? VM_STATE_FAILED : rep->u.status.state;

	/* It still carries the request out, and its steps have limits of their own. */
	if (state == VM_STATE_BUSY && ++op->looks < LOOKS_MAX) {
		av_timer_start(&b->next, LOOK_MS);
		return;
	}
	if (state == VM_STATE_RUNNING || state == VM_STATE_PAUSED || state == VM_STATE_HELD) {
		b->paused = state == VM_STATE_PAUSED;
		b->held = state == VM_STATE_HELD;
	} else {
		vm_box_break(b, "its virtual machine does not answer");
	}
	op_done(op, is_as_asked(op, state) ? NULL : &op->err);
}

static void on_paused(struct vm_box_op *op)
{
	op->box->paused = true;
	if (op->kind == OP_SNAPSHOT)
		capture(op, SPAWN_SNAPSHOT_KILL);
	else
		op_done(op, NULL);
}

static void nonsense(struct vm_box_op *op)
{
	(void)av_err_set(&op->err, AV_ERR_AGENT, "cannot %s: what its process says makes no sense",
	    vm_op_text(op->asked));
	ask(op, VM_STATUS);
}

static void on_held(struct vm_box_op *op, const struct vm_status *st)
{
	if (st->state != VM_STATE_HELD) {
		nonsense(op);
		return;
	}
	op->box->held = true;
	op_done(op, NULL);
}

static void on_running(struct vm_box_op *op, const struct vm_status *st)
{
	if (st->state != VM_STATE_RUNNING) {
		nonsense(op);
		return;
	}
	op->box->paused = op->box->held = false;
	op_done(op, NULL);
}

static void on_saved(struct vm_box_op *op, const struct vm_saved *saved)
{
	if (saved->save == 0) {
		fail(op, AV_ERR_AGENT,
		    "cannot save the virtual machine: what its process says makes no sense");
		return;
	}
	op->save = saved->save;
	op->stopped_us = saved->stopped_us;
	capture(op, SPAWN_SNAPSHOT_VM);
}

static void on_refused(struct vm_box_op *op, const struct av_err *err)
{
	if (op->asked == VM_DROP) {
		av_log(AV_LOG_WARN, "a save of a virtual machine stays", "id", op->box->id, "error",
		    err->message, NULL);
		op_done(op, op->has_snapshot ? NULL : &op->err);
		return;
	}
	op->err = *err;
	if (err->kind == AV_ERR_AGENT)
		ask(op, VM_STATUS);
	else
		op_done(op, err);
}

void vm_ops_answered(struct vm_box *b, const struct vm_reply *rep, const struct av_err *err)
{
	struct vm_box_op *op = AV_LIST_FIRST(&b->ops, struct vm_box_op, link);

	if (!op)
		return;
	if (op->asked == VM_STATUS) {
		on_looked(op, rep, err);
		return;
	}
	if (err) {
		on_refused(op, err);
		return;
	}
	switch (op->asked) {
	case VM_PAUSE:
		on_paused(op);
		break;
	case VM_HOLD:
		on_held(op, &rep->u.status);
		break;
	case VM_RESUME:
	case VM_HAND_OVER:
		on_running(op, &rep->u.status);
		break;
	case VM_SAVE:
		on_saved(op, &rep->u.saved);
		break;
	default:
		op_done(op, op->has_snapshot ? NULL : &op->err);
		break;
	}
}

/* ---- from above ---- */

static struct vm_box_op *op_new(struct vm *v, const char *id, enum vm_op_kind kind, void *ctx)
{
	struct vm_box *b = vm_box_find(v, id);
	struct vm_box_op *op = b ? calloc(1, sizeof(*op)) : NULL;

	if (!op)
		return NULL;
	op->vm = v;
	op->box = b;
	op->kind = kind;
	op->ctx = ctx;
	av_list_append(&b->ops, &op->link);
	if (b->state == BOX_UP)
		av_timer_start(&b->next, 0);
	return op;
}

int vm_op_ask(struct vm *v, const char *id, enum vm_op_kind kind, driver_done_fn *fn, void *ctx)
{
	struct vm_box_op *op;

	if (!vm_box_find(v, id)) /* the worker says that it is not there */
		return worker_freeze(v->worker, id, fn, ctx);
	op = op_new(v, id, kind, ctx);
	if (!op)
		return -ENOMEM;
	op->fn.done = fn;
	return 0;
}

int vm_op_snapshot(struct vm *v, const char *id, const char *template_id, bool stop,
    driver_snapshot_fn *fn, void *ctx)
{
	struct vm_box_op *op;

	if (!vm_box_find(v, id))
		return worker_snapshot(v->worker, id, template_id,
		    stop ? (uint32_t)SPAWN_SNAPSHOT_KILL : 0, 0, fn, ctx);
	op = op_new(v, id, OP_SNAPSHOT, ctx);
	if (!op)
		return -ENOMEM;
	op->fn.snapshot = fn;
	op->stop = stop;
	if (av_str_copy(op->template_id, sizeof(op->template_id), av_str_c(template_id)) < 0)
		op->template_id[0] = '\0'; /* the worker refuses it */
	return 0;
}

static bool has_promise(const struct vm_box *b)
{
	const struct vm_box_op *op;

	AV_LIST_FOREACH(op, &b->ops, const struct vm_box_op, link)
	if (op->kind == OP_SNAPSHOT && op->stop)
		return true;
	return false;
}

int vm_op_destroy(struct vm *v, const char *id, driver_done_fn *fn, void *ctx)
{
	struct vm_box *b = vm_box_find(v, id);
	struct vm_box_op *op;
	struct av_err err;

	if (b && b->state == BOX_UP && has_promise(b)) {
		op = op_new(v, id, OP_DESTROY, ctx);
		if (!op)
			return -ENOMEM;
		op->fn.done = fn;
		return 0;
	}
	if (worker_destroy(v->worker, id, fn, ctx) < 0)
		return -ENOMEM;
	if (b) {
		(void)av_err_set(&err, AV_ERR_CANCELED, "the sandbox was destroyed meanwhile");
		vm_box_end(b, &err);
		vm_layers_collect(v);
	}
	return 0;
}
