/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.c - the driver for virtual machines: its table, its abilities, its end
 *
 * Theory of operation. A virtual machine lives in a jail like any other; its first process is
 * aviary-vm, which starts QEMU. So what a jail can (limits, network, adoption, evidence of its end)
 * is asked of the same worker by the same words, and what a machine can besides is asked of
 * aviary-vm (vm/vm_wire.h). The agent answers on the jail's agent.sock, as if there were no machine
 * between. box.c makes sandboxes, ops.c changes them, layers.c and make.c have what they start
 * from.
 */
#include "node/vm/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/avtime.h"
#include "node/vm/vm_internal.h"
#include "proto/agent_api.h"

#include "base/banned.h"

/* Of the id, as a jail has it: prompts stay short. */
#define HOSTNAME_LEN 12

static struct vm *of(struct driver *d)
{
	return AV_CONTAINER_OF(d, struct vm, base);
}

uint32_t vm_spec_vcpus(const struct vm *v, const struct driver_spec *spec)
{
	uint32_t n = spec->cpu_milli / 1000 + (spec->cpu_milli % 1000 != 0);
	uint32_t max = worker_caps(v->worker)->host_cpus;

	/* A snapshot's machine has what it had. */
	if (!spec->saved && max)
		n = AV_MIN(n, max);
	return AV_MAX(n, 1u);
}

uint64_t vm_overhead(uint32_t accel)
{
	return accel == VM_ACCEL_KVM ? OVERHEAD_KVM_BYTES : OVERHEAD_TCG_BYTES;
}

void vm_fill_identity(struct vm_identity *dst, const struct driver_spec *spec, uint32_t slot)
{
	*dst = (struct vm_identity){
	    .number = slot,
	    .flags = (spec->internet ? (uint32_t)VM_INTERNET : 0u) |
	             (spec->sudo ? 0u : (uint32_t)VM_NO_SUDO),
	    .pids_max = spec->pids_max,
	    .disk_bytes = spec->disk_bytes,
	};
	static_assert(sizeof(dst->id) >= AV_ID_SIZE, "an id fits");
	memcpy(dst->id, spec->id, sizeof(spec->id));
	memcpy(dst->hostname, spec->id, HOSTNAME_LEN);
}

/* ---- the table ---- */

static bool vm_is_ready(struct driver *d)
{
	return worker_is_ready(of(d)->worker);
}

static const struct driver_caps *vm_caps(struct driver *d)
{
	struct vm *v = of(d);

	v->caps = *worker_caps(v->worker);
	v->caps.flags |= DRIVER_SUDO | DRIVER_FREEZE | DRIVER_MEMORY_SNAPSHOT;
	return &v->caps;
}

static void vm_about(struct driver *d, struct driver_about *ret)
{
	struct vm *v = of(d);
	const struct worker_vm *w = worker_vm(v->worker);
	const char *reason = "";

	ret->ready = worker_is_ready(v->worker);
	ret->available = ret->ready && w->can;
	if (!ret->ready)
		reason = "the aviary-spawn worker cannot be reached";
	else if (!w->can)
		reason = w->no_vm;
	else if (!w->can_kvm)
		reason = w->no_kvm;
	else if (v->accel == VM_ACCEL_TCG)
		reason = v->why_tcg;
	if (ret->available && (!w->can_kvm || v->accel))
		memcpy(ret->accelerator, w->can_kvm && v->accel == VM_ACCEL_KVM ? "kvm" : "tcg", 4);
	if (av_str_copy(ret->reason, sizeof(ret->reason), av_str_c(reason)) < 0)
		ret->reason[0] = '\0';
}

static bool vm_has(struct driver *d, const char *id)
{
	return vm_box_find(of(d), id) != NULL;
}

static bool vm_is_own(struct driver *d, const char *id)
{
	const struct vm_make *m;

	AV_LIST_FOREACH(m, &of(d)->makes, const struct vm_make, link)
	if (strcmp(m->jail_id, id) == 0)
		return true;
	return false;
}

static size_t vm_makings(struct driver *d, struct driver_making *v, size_t max)
{
	const struct vm_make *m;
	size_t n = 0;

	AV_LIST_FOREACH(m, &of(d)->makes, const struct vm_make, link)
	{
		if (n == max)
			break;
		v[n] = (struct driver_making){.percent = m->percent,
		    .waiting = av_list_count(&m->waiters),
		    .since_ns = m->since_ns};
		memcpy(v[n].template_id, m->spec.template_id, sizeof(v[n].template_id));
		memcpy(v[n].stage, m->stage, sizeof(v[n].stage));
		n++;
	}
	return n;
}

static int vm_create(
    struct driver *d, const struct driver_spec *spec, driver_alive_fn *fn, void *ctx)
{
	return vm_box_create(of(d), spec, fn, ctx);
}

static int vm_adopt(struct driver *d, const char *id, const struct driver_evidence *ev,
    driver_alive_fn *fn, void *ctx)
{
	return vm_box_adopt(of(d), id, ev, fn, ctx);
}

static int vm_hold(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	return vm_op_ask(of(d), id, OP_HOLD, fn, ctx);
}

static int vm_take(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	return vm_op_ask(of(d), id, OP_TAKE, fn, ctx);
}

static int vm_freeze(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	return vm_op_ask(of(d), id, OP_FREEZE, fn, ctx);
}

static int vm_thaw(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	return vm_op_ask(of(d), id, OP_THAW, fn, ctx);
}

static int vm_destroy(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	return vm_op_destroy(of(d), id, fn, ctx);
}

static int vm_snapshot(struct driver *d, const char *id, const char *template_id, bool stop,
    driver_snapshot_fn *fn, void *ctx)
{
	return vm_op_snapshot(of(d), id, template_id, stop, fn, ctx);
}

static int vm_list(struct driver *d, driver_list_fn *fn, void *ctx)
{
	return worker_list(of(d)->worker, fn, ctx);
}

static void vm_template_gone(struct driver *d, const char *template_id)
{
	vm_layers_template_gone(of(d), template_id);
}

static void vm_stats(struct driver *d, struct driver_stats *ret)
{
	worker_stats(of(d)->worker, ret);
}

static int vm_agent_connect(struct driver *d, const char *id, int *ret_fd, struct av_err *err)
{
	return worker_connect(of(d)->worker, id, "agent.sock", SOCK_STREAM,
	    "the sandbox's virtual machine", ret_fd, err);
}

static void on_worker_closed(void *ctx)
{
	struct vm *v = ctx;
	void (*on_closed)(void *c) = v->on_closed;
	void *closed_ctx = v->on_closed_ctx;
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_CANCELED, "Aviary is shutting down");
	vm_inspections_clear(v, &err);
	vm_boxes_clear(v, &err);
	vm_layers_clear(v, &err);
	free(v);
	on_closed(closed_ctx);
}

static void vm_close(struct driver *d, void (*on_closed)(void *ctx), void *ctx)
{
	struct vm *v = of(d);

	v->on_closed = on_closed;
	v->on_closed_ctx = ctx;
	v->base.on_ready = NULL;
	worker_close(v->worker, on_worker_closed, v);
}

static const struct driver_ops table = {
    .isolation = "vm",
    .is_ready = vm_is_ready,
    .caps = vm_caps,
    .about = vm_about,
    .has = vm_has,
    .is_own = vm_is_own,
    .makings = vm_makings,
    .create = vm_create,
    .destroy = vm_destroy,
    .adopt = vm_adopt,
    .hold = vm_hold,
    .take = vm_take,
    .inspect = vm_inspect,
    .list = vm_list,
    .freeze = vm_freeze,
    .thaw = vm_thaw,
    .stats = vm_stats,
    .snapshot = vm_snapshot,
    .template_gone = vm_template_gone,
    .agent_connect = vm_agent_connect,
    .close = vm_close,
};

static void on_worker_ready(void *ctx)
{
	struct vm *v = ctx;

	v->listed = false; /* another worker may have found other things */
	av_timer_start(&v->serve, 0);
	if (v->base.on_ready)
		v->base.on_ready(v->base.on_ready_ctx);
}

int vm_driver_new(const struct vm_config *config, struct driver **ret, struct av_err *err)
{
	struct vm *v = calloc(1, sizeof(*v));
	const struct worker_config wc = {
	    .loop = config->loop,
	    .spawn_socket = config->spawn_socket,
	    .run_dir = config->run_dir,
	    .on_ready = on_worker_ready,
	    .ctx = v,
	};
	int r;

	if (!v)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	v->loop = config->loop;
	v->goldens_max = config->goldens_max ? config->goldens_max : VM_GOLDENS_DEFAULT;
	v->silence_ms = config->silence_ms ? config->silence_ms : SILENCE_MS;
	av_map_init(&v->by_id);
	av_list_init(&v->boxes);
	av_list_init(&v->inspections);
	vm_layers_init(v);
	r = worker_new(&wc, &v->worker, err);
	if (r < 0) {
		free(v);
		return r;
	}
	v->base.ops = &table;
	*ret = &v->base;
	return 0;
}
