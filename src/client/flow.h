/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow.h - only for libaviary: an operation that is made of several, one after the other
 *
 * Theory of operation. A flow is embedded in whatever its steps need. It has the operation that the
 * caller sees, and at most one inner operation under way; when that is done, `go` is called, from
 * where is driven and without the lock: it looks at the step, takes its result, and either begins
 * the next one (avc_flow_next) or ends the flow (avc_flow_end, avc_flow_fail). A go that began
 * nothing was the last one, and the flow is freed.
 *
 * When the caller cancels, the operation is done at once and the step is cancelled; go then comes
 * as for any step that failed; what is still to be cleaned up is done by
 * steps begun after avc_flow_clean, which are not cancelled. Any other step begun after the end is
 * cancelled at once, so that no go needs to look before it begins one.
 */
#pragma once

#include "client/internal.h"

struct avc_flow;
typedef void avc_flow_fn(struct avc_flow *f);

struct avc_flow {
	aviary_op *op;    /* a reference */
	aviary_op *step;  /* a reference; while go runs the one that is done */
	avc_flow_fn *go;  /* when step is done */
	avc_flow_fn *end; /* frees what it is embedded in; without the lock */
	bool cleaning;
	bool running;        /* a go is */
	bool begun;          /* by the go that runs: a next step */
	bool failed_at_once; /* that one, for want of memory */
};

/* Makes its operation, with two references: one is the flow's, one the caller's, which is returned.
 * What avc_op_none is, where there is no memory: then free what f is embedded in. */
aviary_op *avc_flow_init(struct avc_flow *f, aviary_client *c, avc_flow_fn *end);
/* All without the lock. Steals step, which may be done or NULL (there was no memory). Once in each
 * go, and once after avc_flow_init. */
void avc_flow_next(struct avc_flow *f, aviary_op *step, avc_flow_fn *go);
/* 0, or the code with which the step that is done failed. */
int avc_flow_code(const struct avc_flow *f);
void avc_flow_end(struct avc_flow *f);
void avc_flow_fail(struct avc_flow *f, int code, const char *format, ...) AVIARY_PRINTF(3, 4);
/* From now on steps run on after a cancel. */
void avc_flow_clean(struct avc_flow *f);
/* A step that is done already. */
aviary_op *avc_flow_nothing(aviary_client *c);
