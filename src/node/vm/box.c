/* SPDX-License-Identifier: Apache-2.0 */
/*
 * box.c - one sandbox with a kernel of its own: made from a golden machine, or adopted
 *
 * Theory of operation.
 *
 *   WAITING ──golden layer──> CREATING ──jail──> STARTING ──identity confirmed──> UP
 *   (a snapshot of a machine needs no golden layer: its template is what it stands on)
 *   ADOPTING ──same process, and its machine runs, stands still or is paused──> UP
 *   any ──> ENDED: everything under way is answered from the loop
 *
 * Nobody hears of a sandbox before the guest confirmed who it is. What was made for one that fails
 * is destroyed here. A machine that does not answer any more, or whose words make no sense, is
 * destroyed as well: then its first process dies, and inspect has the reason.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "node/vm/vm_internal.h"

#include "base/banned.h"

#define LOOK_MS      250
#define LOOKS_WORKER 40  /* for a worker: 10 s */
#define LOOKS_BUSY   240 /* at a busy machine: a minute */

struct vm_box *vm_box_find(const struct vm *v, const char *id)
{
	return av_map_get(&v->by_id, av_str_c(id));
}

static void box_free(struct vm_box *b)
{
	if (b->layer)
		vm_layer_release(b->layer);
	vm_call_cancel(&b->call);
	av_timer_stop(&b->next);
	av_close_fd(&b->pidfd);
	av_list_remove(&b->link);
	free(b);
}

static void on_gone(void *ctx, const struct av_err *err)
{
	(void)ctx;
	if (err && err->kind != AV_ERR_CANCELED)
		av_log(AV_LOG_WARN, "cannot remove a virtual machine that failed", "error",
		    err->message, NULL);
}

static void answer(struct vm_box *b, const struct av_err *err)
{
	driver_alive_fn *alive = AV_TAKE_PTR(b->alive);

	if (!alive)
		return;
	if (err)
		alive(b->alive_ctx, NULL, -1, err);
	else
		alive(b->alive_ctx, &b->evidence, AV_TAKE_FD(b->pidfd), NULL);
}

/* From the loop. Whatever waits hears why. */
static void finish(struct vm_box *b)
{
	vm_ops_fail(b, &b->ended);
	answer(b, &b->ended);
	if (!b->at_worker)
		box_free(b);
}

void vm_box_end(struct vm_box *b, const struct av_err *err)
{
	(void)av_map_remove(&b->vm->by_id, av_str_c(b->id));
	b->state = BOX_ENDED;
	b->ended = *err;
	vm_want_cancel(&b->want);
	vm_call_cancel(&b->call);
	av_timer_start(&b->next, 0);
}

/* What could not be made leaves nothing. */
static void fail(struct vm_box *b, const struct av_err *err)
{
	if (b->state == BOX_STARTING)
		(void)worker_destroy(b->vm->worker, b->id, on_gone, NULL);
	vm_box_end(b, err);
}

void vm_box_break(struct vm_box *b, const char *why)
{
	av_log(AV_LOG_WARN, "a virtual machine cannot be talked to: it is destroyed", "id", b->id,
	    "reason", why, NULL);
	if (av_str_copy(b->broken, sizeof(b->broken),
	        av_str_n(why, AV_MIN(strlen(why), sizeof(b->broken) - 1))) < 0)
		b->broken[0] = '?';
	(void)worker_destroy(b->vm->worker, b->id, on_gone, NULL);
}

static void up(struct vm_box *b, const struct vm_status *st)
{
	b->state = BOX_UP;
	b->memory_bytes = st->memory_bytes;
	b->vcpus = st->vcpus;
	b->paused = st->state == VM_STATE_PAUSED;
	b->held = st->state == VM_STATE_HELD;
	answer(b, NULL);
	vm_ops_run(b);
}

/* ---- making ---- */

static bool start_answer_ok(const struct vm_box *b, const struct vm_status *st, struct av_err *err)
{
	if (st->protocol == VM_PROTOCOL && st->state == VM_STATE_RUNNING &&
	    (st->accel == VM_ACCEL_TCG || st->accel == VM_ACCEL_KVM) &&
	    (!b->accel || st->accel == b->accel) && st->vcpus == vm_spec_vcpus(b->vm, &b->spec) &&
	    st->memory_bytes == b->spec.memory_bytes)
		return true;
	(void)av_err_set(err, AV_ERR_AGENT,
	    "cannot start the virtual machine: it is not what was asked for (state %u, accelerator "
	    "%u, %u processors, %llu bytes of memory)",
	    st->state, st->accel, st->vcpus, (unsigned long long)st->memory_bytes);
	return false;
}

static void on_started(struct vm_box *b, const struct vm_reply *rep, const struct av_err *err)
{
	struct av_err own;

	if (!err && !start_answer_ok(b, &rep->u.status, &own))
		err = &own;
	if (err) {
		fail(b, err);
		return;
	}
	if (rep->u.status.accel == VM_ACCEL_KVM)
		b->vm->accel = VM_ACCEL_KVM;
	b->accel = rep->u.status.accel;
	up(b, &rep->u.status);
}

static void start(struct vm_box *b)
{
	struct vm_request rq = {.op = VM_START};
	struct vm_start *s = &rq.u.start;

	b->state = BOX_STARTING;
	s->mode = VM_MODE_RESTORE;
	s->accel = b->accel;
	s->vcpus = vm_spec_vcpus(b->vm, &b->spec);
	s->memory_bytes = b->spec.memory_bytes;
	vm_fill_identity(&s->identity, &b->spec, b->evidence.slot);
	vm_call_start(&b->call, b->vm->worker, b->id, &rq, b->vm->silence_ms, RESTORE_MS);
}

static void want_layer(struct vm_box *b);

static void on_created(
    void *ctx, const struct driver_evidence *ev, int pidfd, const struct av_err *err)
{
	struct vm_box *b = ctx;
	struct vm_layer *layer = AV_TAKE_PTR(b->layer);
	bool again = err && layer && !b->remade && b->state != BOX_ENDED &&
	             (err->kind == AV_ERR_NOT_FOUND || err->kind == AV_ERR_CHECKSUM);

	b->at_worker = false;
	if (again)
		vm_layer_spoil(layer);
	if (layer)
		vm_layer_release(layer);
	if (!err) {
		b->evidence = *ev;
		b->pidfd = pidfd;
	}
	if (b->state == BOX_ENDED) {
		av_timer_start(&b->next, 0);
	} else if (again) {
		b->remade = true;
		want_layer(b);
	} else if (err) {
		fail(b, err);
	} else {
		start(b);
	}
}

static void create(struct vm_box *b)
{
	bool kvm = b->accel ? b->accel == VM_ACCEL_KVM : worker_vm(b->vm->worker)->can_kvm;
	struct spawn_create c;
	struct av_err err;

	worker_fill_create(&c, &b->spec);
	c.flags &= ~(uint32_t)SPAWN_CREATE_NO_SUDO; /* the guest's business */
	c.flags |= (uint32_t)SPAWN_CREATE_VM | (kvm ? (uint32_t)SPAWN_CREATE_KVM : 0u);
	c.pids_max = JAIL_PIDS;
	c.memory_bytes = b->spec.memory_bytes + vm_overhead(b->accel);
	/* A pause writes its memory while the one before, which it goes on from, is still there. */
	if (c.disk_bytes)
		c.disk_bytes += 2 * b->spec.memory_bytes + DISK_SLACK_BYTES;
	if (b->layer) {
		memcpy(c.template_id, b->layer->id, sizeof(b->layer->id));
		memset(c.template_seal, 0, sizeof(c.template_seal));
	}
	b->state = BOX_CREATING;
	if (worker_create(b->vm->worker, b->id, &c, on_created, b) == 0) {
		b->at_worker = true;
		return;
	}
	(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	fail(b, &err);
}

static void on_layer(struct vm_want *w, struct vm_layer *l, const struct av_err *err)
{
	struct vm_box *b = AV_CONTAINER_OF(w, struct vm_box, want);

	if (err) {
		fail(b, err);
		return;
	}
	b->layer = l;
	b->accel = w->accel;
	create(b);
}

static void want_layer(struct vm_box *b)
{
	b->state = BOX_WAITING;
	b->want.spec = &b->spec;
	b->want.on_layer = on_layer;
	vm_layers_want(b->vm, &b->want);
}

static bool spec_ok(const struct vm_box *b, struct av_err *err)
{
	const struct driver_spec *s = &b->spec;

	if (s->memory_bytes < MEMORY_MIN_BYTES || s->memory_bytes % MEMORY_STEP_BYTES ||
	    s->memory_bytes > UINT64_MAX / 4 || s->disk_bytes > UINT64_MAX / 4)
		(void)av_err_set(err, AV_ERR_INVALID,
		    "memory_mb: a virtual machine has a multiple of %llu MiB, at least %llu",
		    MEMORY_STEP_BYTES >> 20, MEMORY_MIN_BYTES >> 20);
	else if (!s->saved && !s->kernel_id[0])
		(void)av_err_set(err, AV_ERR_UNSUPPORTED,
		    "there is no kernel for virtual machines yet: run `aviary vm setup`");
	else if (!s->saved && !av_id_valid(av_str_c(s->template_id), AV_ID_TEMPLATE))
		(void)av_err_set(err, AV_ERR_UNSUPPORTED,
		    "template %s stands on this machine's own programs and cannot be a virtual "
		    "machine's: choose one that was built, such as base",
		    s->template_id);
	else
		return true;
	return false;
}

static void begin(struct vm_box *b)
{
	struct av_err err;

	if (!spec_ok(b, &err)) {
		fail(b, &err);
	} else if (!b->spec.saved) {
		want_layer(b);
	} else if (worker_is_ready(b->vm->worker) && worker_vm(b->vm->worker)->can) {
		create(b);
	} else if (worker_is_ready(b->vm->worker)) {
		(void)av_err_set(&err, AV_ERR_UNSUPPORTED,
		    "this machine cannot have virtual machines: %s",
		    worker_vm(b->vm->worker)->no_vm);
		fail(b, &err);
	} else if (++b->looks < LOOKS_WORKER) {
		av_timer_start(&b->next, LOOK_MS);
	} else {
		(void)av_err_set(&err, AV_ERR_UNAVAILABLE,
		    "cannot create the sandbox: the aviary-spawn worker cannot be reached");
		fail(b, &err);
	}
}

/* ---- adoption ---- */

static void look(struct vm_box *b)
{
	const struct vm_request rq = {.op = VM_STATUS};

	vm_call_start(&b->call, b->vm->worker, b->id, &rq, b->vm->silence_ms, STATUS_MS);
}

static void on_status(struct vm_box *b, const struct vm_reply *rep, const struct av_err *err)
{
	const struct vm_status *st = err ? NULL : &rep->u.status;
	struct av_err own;

	switch (st ? st->state : 0) {
	case VM_STATE_RUNNING:
	case VM_STATE_PAUSED:
	case VM_STATE_HELD:
		up(b, st);
		return;
	case VM_STATE_BUSY:
		if (++b->looks < LOOKS_BUSY) {
			av_timer_start(&b->next, LOOK_MS);
			return;
		}
		(void)av_err_set(&own, AV_ERR_INVALID_STATE,
		    "its virtual machine was busy with a request for too long");
		break;
	case VM_STATE_FAILED:
		(void)av_err_set(&own, AV_ERR_INVALID_STATE, "its virtual machine failed: %s",
		    rep->text[0] ? rep->text : "it does not say why");
		break;
	default:
		(void)av_err_set(&own, AV_ERR_INVALID_STATE, "its virtual machine is not there: %s",
		    err ? err->message : "it was never started");
	}
	vm_box_end(b, &own);
}

static void on_adopted(
    void *ctx, const struct driver_evidence *ev, int pidfd, const struct av_err *err)
{
	struct vm_box *b = ctx;

	b->at_worker = false;
	if (!err) {
		b->evidence = *ev;
		b->pidfd = pidfd;
	}
	if (b->state == BOX_ENDED)
		av_timer_start(&b->next, 0);
	else if (err)
		vm_box_end(b, err);
	else
		look(b);
}

/* ---- both ---- */

static void on_next(void *ctx)
{
	struct vm_box *b = ctx;

	switch (b->state) {
	case BOX_WAITING:
		begin(b);
		break;
	case BOX_ADOPTING:
		look(b);
		break;
	case BOX_UP:
		vm_ops_run(b);
		break;
	case BOX_ENDED:
		finish(b);
		break;
	case BOX_CREATING:
	case BOX_STARTING:
		break;
	}
}

static void on_answer(void *ctx, const struct vm_reply *rep, const struct av_err *err)
{
	struct vm_box *b = ctx;

	if (b->state == BOX_STARTING)
		on_started(b, rep, err);
	else if (b->state == BOX_ADOPTING)
		on_status(b, rep, err);
	else
		vm_ops_answered(b, rep, err);
}

static struct vm_box *box_new(
    struct vm *v, const char *id, enum vm_box_state state, driver_alive_fn *fn, void *ctx)
{
	struct vm_box *b = v->on_closed ? NULL : calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->vm = v;
	b->state = state;
	b->pidfd = -1;
	b->alive = fn;
	b->alive_ctx = ctx;
	if (av_str_copy(b->id, sizeof(b->id), av_str_c(id)) < 0 ||
	    av_map_put(&v->by_id, av_str_c(b->id), b) < 0) {
		free(b);
		return NULL;
	}
	av_list_init(&b->ops);
	av_list_append(&v->boxes, &b->link);
	av_timer_init(&b->next, v->loop, on_next, b);
	vm_call_init(&b->call, v->loop, NULL, on_answer, b);
	return b;
}

int vm_box_create(struct vm *v, const struct driver_spec *spec, driver_alive_fn *fn, void *ctx)
{
	struct vm_box *b = box_new(v, spec->id, BOX_WAITING, fn, ctx);

	if (!b)
		return -ENOMEM;
	b->spec = *spec;
	av_timer_start(&b->next, 0);
	return 0;
}

int vm_box_adopt(
    struct vm *v, const char *id, const struct driver_evidence *ev, driver_alive_fn *fn, void *ctx)
{
	struct vm_box *b = box_new(v, id, BOX_ADOPTING, fn, ctx);

	if (!b)
		return -ENOMEM;
	if (worker_adopt(v->worker, id, ev, on_adopted, b) < 0) {
		(void)av_map_remove(&v->by_id, av_str_c(b->id));
		box_free(b);
		return -ENOMEM;
	}
	b->at_worker = true;
	return 0;
}

void vm_boxes_clear(struct vm *v, const struct av_err *why)
{
	struct vm_box *b;

	while ((b = AV_LIST_FIRST(&v->boxes, struct vm_box, link))) {
		if (b->state != BOX_ENDED)
			vm_box_end(b, why);
		b->at_worker = false;
		finish(b);
	}
	av_map_clear(&v->by_id);
}
