/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - the event loop: timers, deferred calls, worker threads, posts, signals, stall histogram
 *
 * Theory of operation. One thread owns one loop and everything that hangs on it; every function
 * here must be called on that thread, except av_loop_post(). Callbacks never run inside the call
 * that asked for them, so a caller may finish its own bookkeeping first.
 *
 * Timers, deferred calls and posts are intrusive: the caller embeds the struct, starting cannot
 * fail and allocates nothing, and stopping is synchronous, so that the object around it may be
 * freed at once (libuv's own timers need an asynchronous close). All timers share one uv_timer_t
 * and lie in a pairing heap; moving a deadline later, what idle timers do with every packet, only
 * writes a field.
 *
 * Stalls: each iteration's time outside of epoll_wait is put in a histogram. That is the delay
 * an event that has just arrived may see; 5 ms is the budget of a callback (longer work goes to
 * av_loop_work()) and 50 ms fails a test.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/macros.h"

struct uv_loop_s;
struct av_loop;
struct av_watch;
struct av_signal;

/* -ENOMEM, -EMFILE and what else libuv's start reports. */
int av_loop_new(struct av_loop **ret) AV_MUST_CHECK;
/* Closes what is left on the loop and frees it. Everything built on the loop (servers, clients,
 * watches, signals) must have been freed before; their asynchronous closes are finished here.
 * Blocks for work items that run. NULL is allowed. */
void av_loop_free(struct av_loop *l);
/* Runs until av_loop_stop(). Returns 0. */
int av_loop_run(struct av_loop *l);
/* Makes av_loop_run() return after this iteration. May be called before it too. */
void av_loop_stop(struct av_loop *l);
/* One iteration, waiting at most timeout_ms for an event (for tests). */
void av_loop_run_once(struct av_loop *l, unsigned int timeout_ms);
/* The loop below, for modules that bring their own handles; borrowed. */
struct uv_loop_s *av_loop_uv(struct av_loop *l);
/* CLOCK_MONOTONIC at the start of this iteration, milliseconds. */
uint64_t av_loop_now_ms(const struct av_loop *l);

/* ---- timers ---- */

struct av_timer {
	struct av_loop *loop;
	void (*on_fire)(void *ctx);
	void *ctx;
	uint64_t due_ms;  /* place in the heap */
	uint64_t want_ms; /* when it fires; >= due_ms while active */
	struct av_timer *child, *next,
	    *prev; /* pairing heap; prev is the parent for a first child */
	bool active;
};

/* Does not start it. ctx is borrowed until the timer is stopped for good. */
void av_timer_init(struct av_timer *t, struct av_loop *l, void (*on_fire)(void *ctx), void *ctx);
/* Fires once after delay_ms (0: in the next iteration); restarts if it is running. on_fire may
 * start it again or free it. Deadlines over a year away are cut to a year. */
void av_timer_start(struct av_timer *t, uint64_t delay_ms);
/* Harmless when it is not running, and on one that is all zero. */
void av_timer_stop(struct av_timer *t);
static inline bool av_timer_active(const struct av_timer *t)
{
	return t->active;
}

/* ---- deferred calls: after the callbacks of this iteration, before the loop sleeps ---- */

struct av_defer {
	struct av_list link;
	void (*fn)(void *ctx);
	void *ctx;
};

void av_defer_init(struct av_defer *d, void (*fn)(void *ctx), void *ctx);
/* Runs fn once; does nothing more when it is waiting already. */
void av_defer_start(struct av_defer *d, struct av_loop *l);
void av_defer_stop(struct av_defer *d);

/* ---- work on the thread pool ---- */

#define AV_LOOP_WORK_MAX 4096 /* waiting and running; more is -EAGAIN */

/* Runs work(ctx) on a pool thread, then done(ctx, 0) on the loop; done(ctx, -ECANCELED) without
 * work having run when the loop is freed first. ctx belongs to the work until done is called.
 * done may be NULL. -ENOMEM, -EAGAIN (too many waiting): then neither is called. */
int av_loop_work(struct av_loop *l, void (*work)(void *ctx), void (*done)(void *ctx, int status),
    void *ctx) AV_MUST_CHECK;

/* ---- posts from other threads ---- */

struct av_post {
	struct av_post *next;
	void (*fn)(void *ctx);
	void *ctx;
};

/* Thread safe, never fails, allocates nothing: fn(ctx) runs on the loop. The struct belongs to the
 * loop until fn is called (fn may free or post it again); it must not be posted twice meanwhile.
 * Posts run in the order of the calls. What is posted after av_loop_free() began is lost, so stop
 * the posting threads before. */
void av_loop_post(struct av_loop *l, struct av_post *p);

/* ---- descriptors of other modules (seqpacket sockets, pidfds, pipes) ---- */

#define AV_WATCH_READ  1
#define AV_WATCH_WRITE 2

/* Level-triggered. fd is borrowed, must be non-blocking where the caller reads or writes it, and
 * must be closed only after av_watch_free(). on_event(ctx, events) gets what is ready; errors and
 * hang-ups count as ready for what was asked, the read or write then says what it is. Starts with
 * no events. -ENOMEM, -EPERM (not pollable), -EEXIST (watched already). */
int av_watch_new(struct av_loop *l, int fd, void (*on_event)(void *ctx, int events), void *ctx,
    struct av_watch **ret) AV_MUST_CHECK;
/* Any of AV_WATCH_READ and AV_WATCH_WRITE, 0 for none. */
int av_watch_set(struct av_watch *w, int events);
/* No callback comes after this. NULL is allowed; so is a call from inside on_event. */
void av_watch_free(struct av_watch *w);

/* on_signal(ctx, signum) runs on the loop each time the signal arrives. */
int av_signal_new(struct av_loop *l, int signum, void (*on_signal)(void *ctx, int signum),
    void *ctx, struct av_signal **ret) AV_MUST_CHECK;
void av_signal_free(struct av_signal *s);

/* ---- metrics ---- */

/* Upper bounds of the buckets in microseconds; the last bucket has none. */
#define AV_LOOP_STALL_BUCKETS 11
extern const uint32_t av_loop_stall_bound_us[AV_LOOP_STALL_BUCKETS - 1];

struct av_loop_metrics {
	uint64_t iterations;
	uint64_t stall_count[AV_LOOP_STALL_BUCKETS]; /* not cumulative */
	uint64_t stall_sum_us;
	uint64_t stall_max_us;
	uint64_t work_started;
	uint64_t work_pending; /* now: waiting and running */
};

/* Borrowed, changes with the loop. */
const struct av_loop_metrics *av_loop_metrics(const struct av_loop *l);
