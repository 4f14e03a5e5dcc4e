/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make.c - making an image or a golden machine: a jail, aviary-vm in it, and a template of what it
 * left
 *
 *   waiting ──CREATE──> START ──progress──> SNAPSHOT, its processes killed ──> DESTROY, made
 *                └────────┴──────────────────┴── failed ──> DESTROY
 *
 * Nobody else knows the jail: it has an id of its own, and a daemon that dies leaves it for the
 * next one's sweep. Few are made at once, as each keeps a processor and the disk busy.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/log.h"
#include "node/vm/vm_internal.h"

#include "base/banned.h"

#define AT_ONCE 2
/* Of the way to a first sandbox: what an image takes, the rest is the golden machine's. */
#define IMAGE_PERCENT 70u

static void set_stage(struct vm_make *m, unsigned int percent, const char *stage)
{
	m->percent = m->image ? IMAGE_PERCENT + percent * (100 - IMAGE_PERCENT) / 100
	                      : percent * IMAGE_PERCENT / 100;
	if (av_str_copy(m->stage, sizeof(m->stage), av_str_c(stage)) < 0)
		m->stage[0] = '\0';
}

static void on_gone(void *ctx, const struct av_err *err)
{
	(void)ctx;
	if (err && err->kind != AV_ERR_CANCELED)
		av_log(AV_LOG_WARN, "cannot remove what a virtual machine was made in", "error",
		    err->message, NULL);
}

static void done(struct vm_make *m, const struct av_err *err)
{
	/* Without memory a sweep finds it. */
	(void)worker_destroy(m->vm->worker, m->jail_id, on_gone, NULL);
	vm_layers_made(m, err);
}

static void out_of_memory(struct vm_make *m)
{
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	done(m, &err);
}

static void on_snapshot(void *ctx, const struct driver_snapshot *snap, const struct av_err *err)
{
	(void)snap;
	/* Made before, by a daemon that died before it heard of it. */
	done(ctx, err && err->kind == AV_ERR_CONFLICT ? NULL : err);
}

static void on_progress(void *ctx, unsigned int percent, const char *stage)
{
	set_stage(ctx, percent, stage);
}

static void on_answer(void *ctx, const struct vm_reply *rep, const struct av_err *err)
{
	struct vm_make *m = ctx;
	struct av_err own;

	if (!err && (rep->u.status.state != VM_STATE_MADE ||
	                (m->image && rep->u.status.accel != m->shape.accel))) {
		(void)av_err_set(&own, AV_ERR_AGENT,
		    "what its process says makes no sense: state %u, accelerator %u",
		    rep->u.status.state, rep->u.status.accel);
		err = &own;
	}
	if (err) {
		done(m, err);
		return;
	}
	set_stage(m, 95, "keeping it");
	if (worker_snapshot(
	        m->vm->worker, m->jail_id, m->id, SPAWN_SNAPSHOT_KILL, 0, on_snapshot, m) < 0)
		out_of_memory(m);
}

static void on_created(
    void *ctx, const struct driver_evidence *ev, int pidfd, const struct av_err *err)
{
	struct vm_make *m = ctx;
	struct vm_request rq = {.op = VM_START};
	uint32_t limit_ms = m->probes ? GOLDEN_PROBE_MS : GOLDEN_MS;

	(void)ev;
	if (err) {
		done(m, err);
		return;
	}
	av_close_fd(&pidfd);
	rq.u.start.mode = m->image ? VM_MODE_GOLDEN : VM_MODE_IMAGE;
	if (m->image) {
		rq.u.start.accel = m->shape.accel;
		rq.u.start.vcpus = m->shape.vcpus;
		rq.u.start.memory_bytes = m->shape.memory_bytes;
		rq.u.start.identity.disk_bytes = m->shape.disk_bytes;
	}
	set_stage(m, 1, m->image ? "starting the machine" : "packing the template");
	vm_call_start(&m->call, m->vm->worker, m->jail_id, &rq, m->vm->silence_ms,
	    m->image ? limit_ms : IMAGE_MS);
}

static void fill(struct spawn_create *c, const struct vm_make *m)
{
	*c = (struct spawn_create){.pids_max = JAIL_PIDS, .flags = SPAWN_CREATE_VM};
	if (!m->image) {
		c->flags |= (uint32_t)SPAWN_CREATE_VM_IMAGE;
		c->memory_bytes = MAKE_MEMORY_BYTES;
		c->disk_bytes = IMAGE_DISK_BYTES;
		memcpy(c->template_id, "vmhost", 7);
		memcpy(c->source_id, m->spec.template_id, sizeof(c->source_id));
		memcpy(c->source_seal, m->spec.template_seal, sizeof(c->source_seal));
		memcpy(c->kernel_id, m->spec.kernel_id, sizeof(c->kernel_id));
		memcpy(c->kernel_seal, m->spec.kernel_seal, sizeof(c->kernel_seal));
		return;
	}
	c->flags |= m->shape.accel == VM_ACCEL_KVM ? (uint32_t)SPAWN_CREATE_KVM : 0u;
	c->memory_bytes = m->shape.memory_bytes + vm_overhead(m->shape.accel);
	c->disk_bytes = m->shape.memory_bytes + GOLDEN_DISK_BYTES;
	memcpy(c->template_id, m->image->id, sizeof(m->image->id));
}

static void run(struct vm_make *m)
{
	struct spawn_create create;

	fill(&create, m);
	m->running = true;
	if (worker_create(m->vm->worker, m->jail_id, &create, on_created, m) < 0)
		out_of_memory(m);
}

void vm_makes_run(struct vm *v)
{
	struct vm_make *m, *next;
	unsigned int running;

	do {
		next = NULL;
		running = 0;
		AV_LIST_FOREACH(m, &v->makes, struct vm_make, link)
		{
			running += m->running;
			if (!m->running && !next)
				next = m;
		}
		if (next && running < AT_ONCE)
			run(next);
	} while (next && running + 1 < AT_ONCE);
}

struct vm_make *vm_make_new(struct vm *v, const char *id, const struct driver_spec *spec,
    struct vm_layer *image, const struct vm_shape *shape)
{
	struct vm_make *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->vm = v;
	m->spec = *spec;
	m->since_ns = av_mono_ns();
	memcpy(m->id, id, sizeof(m->id));
	av_id_make(m->jail_id, AV_ID_SANDBOX);
	av_list_init(&m->waiters);
	m->image = image;
	if (image) {
		m->shape = *shape;
		m->probes = shape->accel == VM_ACCEL_KVM && v->accel == 0;
		image->users++;
		image->doomed = false;
		image->used_ns = av_mono_ns();
	}
	vm_call_init(&m->call, v->loop, on_progress, on_answer, m);
	set_stage(m, 0, "waiting");
	av_list_append(&v->makes, &m->link);
	return m;
}

void vm_make_free(struct vm_make *m)
{
	vm_call_cancel(&m->call);
	if (m->image)
		vm_layer_release(m->image);
	av_list_remove(&m->link);
	free(m);
}
