/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect.c - how a sandbox is: what the worker sees of its jail, and what its guest says
 *
 * Theory of operation. The worker's evidence comes first. Where the machine runs and nobody is
 * talking to its aviary-vm, that one is asked how many processes the guest's kernel has killed for
 * memory, which nobody outside can see. aviary-vm has one connection at a time: an operation that
 * begins meanwhile takes it over, and the inspection ends with what is known. A guest may say any
 * number, so what is believed is bounded; a lie harms only who told it.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/avtime.h"
#include "node/vm/vm_internal.h"
#include "proto/agent_api.h"

#include "base/banned.h"

#define KILLS_MAX 100000U
#define ANSWER_MS 1500 /* within what an exec waits for the reason of its end (node/exec.c) */

struct inspection {
	struct av_list link; /* vm.inspections, while a machine is asked */
	struct vm *vm;
	char id[AV_ID_SIZE];
	struct vm_call call;
	struct driver_status st;
	driver_status_fn *fn;
	void *ctx;
};

static void finish(struct inspection *in, const struct av_err *err)
{
	av_list_remove(&in->link);
	vm_call_cancel(&in->call);
	in->fn(in->ctx, err ? NULL : &in->st, err);
	free(in);
}

static void on_answer(void *ctx, const struct vm_reply *rep, const struct av_err *err)
{
	struct inspection *in = ctx;

	if (!err && !rep->error)
		in->st.oom_kills += AV_MIN(rep->u.status.kills, KILLS_MAX);
	finish(in, NULL);
}

static bool may_ask(const struct vm_box *b)
{
	return b->state == BOX_UP && !b->paused && !b->held && av_list_empty(&b->ops) &&
	       !vm_call_active(&b->call);
}

static void on_evidence(void *ctx, const struct driver_status *st, const struct av_err *err)
{
	const struct vm_request rq = {.op = VM_STATUS};
	struct inspection *in = ctx;
	const struct vm_box *b = vm_box_find(in->vm, in->id);

	if (!err)
		in->st = *st;
	if (b && b->broken[0]) {
		/* It was destroyed for that; what its jail left says nothing. */
		in->st.alive = false;
		av_exit_record_encode(
		    in->st.exit_record, AV_EXIT_FATAL, 0, (uint64_t)av_real_ms(), b->broken);
		in->st.exit_record_len = AV_EXIT_RECORD_SIZE;
		err = NULL;
	} else if (b && !err) {
		in->st.frozen = b->paused;
		if (in->st.alive && may_ask(b)) {
			av_list_append(&in->vm->inspections, &in->link);
			vm_call_start(&in->call, in->vm->worker, in->id, &rq, ANSWER_MS, ANSWER_MS);
			return;
		}
	}
	finish(in, err);
}

int vm_inspect(struct driver *d, const char *id, driver_status_fn *fn, void *ctx)
{
	struct inspection *in = calloc(1, sizeof(*in));

	if (!in)
		return -ENOMEM;
	in->vm = AV_CONTAINER_OF(d, struct vm, base);
	in->fn = fn;
	in->ctx = ctx;
	av_list_init(&in->link);
	vm_call_init(&in->call, in->vm->loop, NULL, on_answer, in);
	if (av_str_copy(in->id, sizeof(in->id), av_str_c(id)) < 0 ||
	    worker_inspect(in->vm->worker, id, on_evidence, in) < 0) {
		free(in);
		return -ENOMEM;
	}
	return 0;
}

void vm_inspections_clear(struct vm *v, const struct av_err *err)
{
	while (!av_list_empty(&v->inspections))
		finish(AV_CONTAINER_OF(v->inspections.next, struct inspection, link), err);
}
