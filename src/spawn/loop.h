/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - the worker's event loop: descriptors and timers over epoll, one thread
 *
 * Sources and timers are the caller's storage, embedded in what they belong to. They may be
 * removed, and their memory freed, from any callback, also of another source.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/list.h"
#include "base/macros.h"

struct loop_source {
	int fd; /* borrowed while added; -1: not added */
	void (*on_ready)(void *ctx, uint32_t events);
	void *ctx;
};

struct loop_timer {
	struct av_list node; /* in loop.timers while due_ns != 0 */
	int64_t due_ns;      /* CLOCK_MONOTONIC; 0: not started */
	void (*on_due)(void *ctx);
	void *ctx;
};

#define LOOP_BATCH 64
struct loop {
	int epoll_fd; /* owned */
	bool stopping;
	struct av_list timers;
	struct epoll_event batch[LOOP_BATCH];
	int batch_n, batch_i;
};

int loop_init(struct loop *l) AV_MUST_CHECK;
void loop_clear(struct loop *l);
/* events as epoll's, level-triggered. -errno. */
int loop_add(struct loop *l, struct loop_source *s, int fd, uint32_t events) AV_MUST_CHECK;
int loop_change(struct loop *l, struct loop_source *s, uint32_t events) AV_MUST_CHECK;
/* Does nothing when it is not added. Before the descriptor is closed. */
void loop_remove(struct loop *l, struct loop_source *s);
/* Before its first start. */
void loop_timer_init(struct loop_timer *t, void (*on_due)(void *ctx), void *ctx);
/* Starts, or starts again. */
void loop_timer_start(struct loop *l, struct loop_timer *t, int64_t after_ns);
void loop_timer_stop(struct loop_timer *t);
/* Until loop_stop(). -errno when epoll fails. */
int loop_run(struct loop *l) AV_MUST_CHECK;
void loop_stop(struct loop *l);
