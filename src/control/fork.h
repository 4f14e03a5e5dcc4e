/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork.h - copies of a running virtual machine, and a sandbox that goes back to a snapshot
 */
#pragma once

#include "control/sandbox.h"

#define FORK_MAX 100

/* Zero means as the source. Borrowed for the call. */
struct fork_params {
	size_t count; /* 1 to FORK_MAX */
	bool has_idle_timeout, has_lifetime;
	int64_t idle_timeout_ms, max_lifetime_ms; /* the lifetime counts from the fork */
	const json_t *metadata;        /* object of strings; NULL: the source's, without its name */
	struct av_str idempotency_key; /* empty: none */
	struct av_str request_body;    /* what the key is bound to */
};
/* One for each copy, in any order: it runs, or why not. */
typedef void fork_item_fn(
    void *ctx, size_t i, const struct sandbox_info *sb, const struct av_err *err);
/* After the last of them; with err none was made. */
typedef void fork_done_fn(void *ctx, const struct av_err *err);

/* Makes `count` new sandboxes that go on where a running one is, memory, processes and disk, each
 * with an id, addresses and random numbers of its own; the source runs on. UNSUPPORTED for a jail,
 * INVALID_STATE unless it runs. Each counts as a create. With an idempotency key: the same key and
 * the same body → the same sandboxes. It cannot be cancelled. */
int control_fork(struct control *c, const struct control_actor *a, const char *id,
    const struct fork_params *p, fork_item_fn *item, fork_done_fn *done, void *ctx,
    struct av_err *err);

/* A running or paused sandbox becomes what `snapshot` (the name of a template) holds, under its id,
 * with its limits; what it was is gone. Of a snapshot with memory processes go on from there, else
 * it begins with the template's disk. INVALID when the template does not fit its isolation or size,
 * INVALID_STATE also with a main command. What was begun is finished by the next daemon; when the
 * template cannot be started the sandbox ends. */
int control_rollback(struct control *c, const struct control_actor *a, const char *id,
    const char *snapshot, sandbox_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
