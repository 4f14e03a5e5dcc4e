/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_internal.h - body of the loop; included by files of src/net only
 */
#pragma once

#include <pthread.h>
#include <uv.h>

#include "net/loop.h"

/* One read from a socket; the buffer is shared by all connections of the loop, since no callback
 * reads while another one holds it. */
#define LOOP_SCRATCH_BYTES (128 * 1024)

struct av_loop {
	uv_loop_t uv;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_async_t async;
	uv_timer_t timer;

	struct av_timer *heap; /* root: the earliest */
	uint64_t armed_ms;     /* when uv's timer fires; UINT64_MAX: it is stopped */
	bool firing;

	struct av_list deferred;
	struct av_list works;

	pthread_mutex_t post_lock; /* protects the two below */
	struct av_post *post_first;
	struct av_post **post_end;

	uint64_t busy_from_ns; /* when the present iteration began, and the idle time until then */
	uint64_t busy_idle_ns;
	struct av_loop_metrics metrics;

	char *scratch; /* owned, LOOP_SCRATCH_BYTES */
	bool stopped;
};

/* timer.c: fires what is due. */
void loop_timers_run(struct av_loop *l);
