/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_discard.c - a sandbox that was made for a remote call ends (see remote.h)
 *
 * Nobody else knows of it, so what fails for want of memory is tried once more. That may have been
 * its create as well, whose answer could not be read: asked for again, it is the same one.
 */
#include <stdlib.h>

#include "client/call.h"
#include "client/flow.h"
#include "client/remote.h"

#include "base/banned.h"

struct discard {
	struct avc_flow flow; /* first */
	struct aviary_sandbox *sb;
	bool again;
};

static void discard_free(struct avc_flow *f)
{
	struct discard *d = AV_CONTAINER_OF(f, struct discard, flow);

	aviary_sandbox_free(d->sb);
	free(d);
}

static void stop(struct discard *d);

static void on_stopped(struct avc_flow *f)
{
	struct discard *d = AV_CONTAINER_OF(f, struct discard, flow);

	if (avc_flow_code(f) == AVIARY_E_NO_MEMORY && !d->again) {
		d->again = true;
		stop(d);
		return;
	}
	avc_flow_end(f);
}

static void stop(struct discard *d)
{
	aviary_stop_options o = AVIARY_STOP_OPTIONS_INIT;

	o.missing_ok = 1;
	o.grace_ms = -1;
	avc_flow_next(&d->flow, aviary_sandbox_stop(d->sb, &o), on_stopped);
}

static void on_known(struct avc_flow *f)
{
	struct discard *d = AV_CONTAINER_OF(f, struct discard, flow);

	if (d->sb->id[0])
		stop(d);
	else
		avc_flow_end(f);
}

aviary_op *avc_discard(struct aviary_sandbox *sb, int why)
{
	struct discard *d;
	aviary_op *op;

	if (!sb->id[0] && why != AVIARY_E_NO_MEMORY)
		return avc_flow_nothing(sb->c);
	avc_ship_forget(sb);
	d = calloc(1, sizeof(*d));
	if (!d)
		return avc_op_failed(sb->c, AVIARY_E_NO_MEMORY, "out of memory");
	op = avc_flow_init(&d->flow, sb->c, discard_free);
	if (!op->c) {
		free(d);
		return op;
	}
	d->sb = aviary_sandbox_ref(sb);
	avc_flow_clean(&d->flow);
	avc_flow_next(
	    &d->flow, sb->id[0] ? avc_flow_nothing(sb->c) : aviary_sandbox_start(sb), on_known);
	return op;
}
