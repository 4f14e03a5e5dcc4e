/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chore.h - a forked child that does slow work with files and reports one result
 *
 * For what must not stop the worker's loop: checksums and copies of layers. The child dies with the
 * worker, runs at a lower priority, and is the only process that reads what a guest wrote. What it
 * reports is a struct of fixed size through a pipe.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "spawn/loop.h"
#include "spawn/template_meta.h"

struct chore_result {
	int32_t error; /* 0 or -errno */
	char text[200];
	struct template_meta meta; /* of a snapshot */
};

struct chore {
	struct loop *loop;
	int pidfd; /* owned; -1: none runs */
	int pipe;  /* owned */
	struct loop_source source;
	void (*on_done)(void *ctx, int error, const struct chore_result *res);
	void *ctx;
};
#define CHORE_INIT ((struct chore){.pidfd = -1, .pipe = -1, .source = {.fd = -1}})

/* Runs work(arg, res, err) in a child; its return value and err's text become the result. arg is
 * read in the child's copy of the memory. on_done once, from the loop. -errno: nothing started. */
int chore_start(struct chore *c, struct loop *loop,
    int (*work)(void *arg, struct chore_result *res, struct av_err *err), void *arg,
    void (*on_done)(void *ctx, int error, const struct chore_result *res), void *ctx) AV_MUST_CHECK;
bool chore_runs(const struct chore *c);
/* Kills it; on_done follows with -ECANCELED or the result that was complete already. */
void chore_cancel(struct chore *c);
/* Kills and waits, without on_done: the worker ends. */
void chore_clear(struct chore *c);
