/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template.h - the layers of a template, kept open
 *
 * `host` follows the machine: before it is used its fingerprint is compared (at most once a
 * second), and when that has changed a forked child makes the new generation while creates of it
 * wait.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/macros.h"
#include "spawn/host_template.h"
#include "spawn/ids.h"
#include "spawn/loop.h"
#include "spawn/mounts.h"

struct template_store {
	struct loop *loop;           /* borrowed */
	const struct mounts *mounts; /* borrowed */
	struct host_template_options host_options;
	struct host_template host;
	int usr_fd;         /* owned: the host's /usr in the worker's tree */
	int64_t checked_ns; /* when the fingerprint was compared */
	int maker_pidfd;    /* owned: the child that makes a generation; -1: none */
	struct loop_source maker;
	struct av_list waiters; /* struct template_waiter */
};

/* Embedded in who waits; its owner may remove the node at any time. */
struct template_waiter {
	struct av_list node;
	void (*on_made)(void *ctx, int result);
	void *ctx;
};

/* Opens template host if there is one. */
int template_init(struct template_store *t, struct loop *loop, const struct mounts *m,
    uid_t id_shift, struct av_err *err) AV_MUST_CHECK;
/* Begins to make template host if it is missing or no longer fits, so that the first create waits
 * for it less. */
int template_refresh(struct template_store *t, struct av_err *err) AV_MUST_CHECK;
void template_clear(struct template_store *t);

struct template_layers {
	struct mounts_layers root, usr;
	bool has_usr;
};
/* Layers of the template (borrowed until the next call). -EAGAIN: being made, template_wait() says
 * when; -ENOENT: no such template. */
int template_layers(struct template_store *t, const char *id, struct template_layers *ret,
    struct av_err *err) AV_MUST_CHECK;
/* Calls on_made once when the child that makes a generation has ended; result 0 or -errno. */
void template_wait(struct template_store *t, struct template_waiter *w);
