/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_run.h - one execution in a kernel of a sandbox, and calls about kernels
 *
 * Only files of src/api include this.
 *
 * Theory of operation. The sandbox's agent keeps the kernels (src/agent/kernel.h). An execution is
 * one request to it, answered with lines (proto/jupyter.h) that are collected here until they are
 * whole: at most AV_AGENT_LINE_MAX for each execution and KERNEL_RUN_TOTAL_MAX for all together,
 * beyond which an execution fails. Nothing of a line is trusted before it was checked. When the
 * owner goes away the agent interrupts the code. A reader that is slow pauses the stream, and so
 * the code.
 *
 * When a kernel's process was killed it is looked up whether the kernel of the machine did it for
 * memory, and `finished` waits for that, at most KERNEL_RUN_ASK_MS.
 */
#pragma once

#include "api/request.h"
#include "control/exec.h"
#include "proto/jupyter.h"

#define KERNEL_RUN_TOTAL_MAX ((size_t)256 << 20)
#define KERNEL_RUN_ASK_MS    1000

struct kernel_run;

/* What to run; borrowed for the call. */
struct kernel_run_spec {
	const char *code;
	const char *kernel_id; /* NULL: the default one of the language */
	const char *language;  /* NULL: python */
	const char *shell;     /* "plain", "ipython"; NULL: either */
	const json_t *envs;    /* object of strings, or NULL */
	const json_t *formats; /* of figures: array of strings, or NULL */
	int64_t timeout_ms;    /* 0: none */
	bool silent, no_store;
};

/* How it ended. */
struct kernel_run_end {
	const char *status;  /* "ok", "error", "died", "restarted", "deleted", "failed" */
	uint32_t count;      /* 0: it did not begin */
	const char *message; /* for people, where status is not ok or error; else "" */
	bool timed_out, oom_killed;
};

struct kernel_run_events {
	/* Never FINISHED. content is borrowed. */
	void (*on_line)(void *ctx, enum av_jupyter_line type, struct av_str content);
	/* Last call. err: it could not be run, or the sandbox is gone; else end. */
	void (*on_end)(void *ctx, const struct kernel_run_end *end, const struct av_err *err);
};

/* Callbacks never come from inside. */
int kernel_run_open(struct api *api, const struct control_actor *actor, const char *id,
    const struct kernel_run_spec *spec, const struct kernel_run_events *ev, void *ctx,
    struct kernel_run **ret, struct av_err *err);
void kernel_run_pause(struct kernel_run *run, bool paused);
/* No callback any more; the code is interrupted. */
void kernel_run_cancel(struct kernel_run *run);

/* ---- calls ---- */

/* status 200 and a JSON answer, or err. */
typedef void kernel_call_fn(void *ctx, const json_t *answer, const struct av_err *err);
struct kernel_call;

/* A request to the agent about kernels; path below "/contexts", "" for the list, whose answer is
 * {"list":[...]}; others are the agent's object, or {"list":null}. */
int kernel_call_open(struct api *api, const struct control_actor *actor, const char *id,
    const char *method, const char *path, struct av_str body, kernel_call_fn *fn, void *ctx,
    struct kernel_call **ret, struct av_err *err);
void kernel_call_cancel(struct kernel_call *call);
