/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver_seen.h - for unit tests of drivers: what came back from one, by any of its callbacks
 */
#pragma once

#include <stdio.h>
#include <unistd.h>

#include "node/driver.h"

struct seen {
	int calls;
	enum av_err_kind kind; /* of the last */
	char message[512];
	struct driver_evidence ev;
	int pidfd; /* that came; closed */
	struct driver_status st;
	struct driver_snapshot snap;
	size_t n; /* ids in a list */
	char last[AV_ID_SIZE];
};

static inline void take(struct seen *s, const struct av_err *err)
{
	s->calls++;
	s->kind = err ? err->kind : AV_ERR_NONE;
	(void)snprintf(s->message, sizeof(s->message), "%s", err ? err->message : "");
}

static inline void on_alive(
    void *ctx, const struct driver_evidence *ev, int pidfd, const struct av_err *err)
{
	struct seen *s = ctx;

	take(s, err);
	if (ev)
		s->ev = *ev;
	s->pidfd = pidfd;
	if (pidfd >= 0)
		close(pidfd);
}

static inline void on_done(void *ctx, const struct av_err *err)
{
	take(ctx, err);
}

static inline void on_status(void *ctx, const struct driver_status *st, const struct av_err *err)
{
	struct seen *s = ctx;

	take(s, err);
	if (st)
		s->st = *st;
}

static inline void on_snapshot(
    void *ctx, const struct driver_snapshot *snap, const struct av_err *err)
{
	struct seen *s = ctx;

	take(s, err);
	if (snap)
		s->snap = *snap;
}

static inline void on_list(
    void *ctx, const char (*ids)[AV_ID_SIZE], size_t n, const struct av_err *err)
{
	struct seen *s = ctx;

	take(s, err);
	s->n = n;
	if (n)
		memcpy(s->last, ids[n - 1], AV_ID_SIZE);
}
