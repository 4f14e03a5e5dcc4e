/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow.c - an operation that is made of several, one after the other (see flow.h)
 */
#include "client/flow.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/banned.h"

/* The caller cancels; with the lock. The step's end comes by its callback. */
static void flow_stop(aviary_op *op)
{
	struct avc_flow *f = op->work;

	if (f->step && !f->cleaning)
		avc_op_cancel(f->step);
}

static void run(struct avc_flow *f)
{
	f->running = true;
	do {
		aviary_op *step = f->step;

		f->begun = f->failed_at_once = false;
		f->go(f);
		aviary_op_free(step);
	} while (f->failed_at_once);
	if (f->begun) {
		f->running = false;
		return;
	}
	avc_flow_fail(f, AVIARY_E_STATE, "the operation ended without a result");
	aviary_op_free(f->op);
	f->end(f);
}

static void on_step(aviary_op *step, void *ctx)
{
	(void)step;
	run(ctx);
}

aviary_op *avc_flow_init(struct avc_flow *f, aviary_client *c, avc_flow_fn *end)
{
	aviary_op *op = avc_op_new(c);

	*f = (struct avc_flow){.op = op, .end = end};
	if (!op->c)
		return op;
	avc_lock(c);
	op->work = f;
	op->stop = flow_stop;
	avc_unlock(c);
	return aviary_op_ref(op);
}

void avc_flow_next(struct avc_flow *f, aviary_op *step, avc_flow_fn *go)
{
	aviary_client *c = f->op->c;

	f->begun = true;
	f->go = go;
	if (!step || !step->c) {
		/* There was no memory for it, and nobody will call back. */
		f->step = avc_op_none();
		f->failed_at_once = true;
		if (!f->running)
			run(f);
		return;
	}
	avc_lock(c);
	f->step = step;
	if (avc_op_done(f->op) && !f->cleaning)
		avc_op_cancel(step);
	avc_unlock(c);
	aviary_op_on_done(step, on_step, f);
}

int avc_flow_code(const struct avc_flow *f)
{
	return aviary_op_code(f->step);
}

void avc_flow_end(struct avc_flow *f)
{
	avc_lock(f->op->c);
	avc_op_end(f->op);
	avc_unlock(f->op->c);
}

void avc_flow_fail(struct avc_flow *f, int code, const char *format, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	avc_lock(f->op->c);
	avc_op_fail(f->op, code, "%s", text);
	avc_unlock(f->op->c);
}

void avc_flow_clean(struct avc_flow *f)
{
	avc_lock(f->op->c);
	f->cleaning = true;
	avc_unlock(f->op->c);
}

aviary_op *avc_flow_nothing(aviary_client *c)
{
	aviary_op *op = avc_op_new(c);

	if (op->c) {
		avc_lock(c);
		avc_op_end(op);
		avc_unlock(c);
	}
	return op;
}
