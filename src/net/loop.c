/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.c - the loop: run and stop, deferred calls, work, posts, stall histogram
 */
#include "net/loop.h"

#include <errno.h>
#include <stdlib.h>

#include "net/loop_internal.h"

#include "base/banned.h"

/* Rounds of deferred calls that start others, before the loop looks at its sockets again. */
#define DEFER_ROUNDS 16

const uint32_t av_loop_stall_bound_us[AV_LOOP_STALL_BUCKETS - 1] = {
    100,
    250,
    500,
    1000,
    2500,
    5000,
    10000,
    25000,
    50000,
    100000,
};

static void defer_run(struct av_loop *l)
{
	for (int round = 0; round < DEFER_ROUNDS && !av_list_empty(&l->deferred); round++) {
		/* What is deferred during this round waits for the next one. */
		struct av_list now;
		now.next = l->deferred.next;
		now.prev = l->deferred.prev;
		now.next->prev = now.prev->next = &now;
		av_list_init(&l->deferred);
		while (!av_list_empty(&now)) {
			struct av_defer *d = AV_LIST_FIRST(&now, struct av_defer, link);
			av_list_remove(&d->link);
			d->fn(d->ctx);
		}
	}
}

static void stall_record(struct av_loop *l)
{
	uint64_t now = uv_hrtime(), idle = uv_metrics_idle_time(&l->uv);
	if (l->busy_from_ns) {
		uint64_t span = now - l->busy_from_ns, waited = idle - l->busy_idle_ns;
		uint64_t us = span > waited ? (span - waited) / 1000 : 0;
		size_t b = 0;
		while (b < AV_LOOP_STALL_BUCKETS - 1 && us > av_loop_stall_bound_us[b])
			b++;
		l->metrics.stall_count[b]++;
		l->metrics.stall_sum_us += us;
		l->metrics.stall_max_us = AV_MAX(l->metrics.stall_max_us, us);
		l->metrics.iterations++;
	}
	l->busy_from_ns = now;
	l->busy_idle_ns = idle;
}

static void on_prepare(uv_prepare_t *h)
{
	struct av_loop *l = h->data;
	defer_run(l);
	if (!av_list_empty(&l->deferred))
		uv_async_send(&l->async); /* the poll that follows must not sleep */
	stall_record(l);
}

static void on_check(uv_check_t *h)
{
	defer_run(h->data);
}

static void on_async(uv_async_t *h)
{
	struct av_loop *l = h->data;
	pthread_mutex_lock(&l->post_lock);
	struct av_post *p = l->post_first;
	l->post_first = NULL;
	l->post_end = &l->post_first;
	pthread_mutex_unlock(&l->post_lock);
	while (p) {
		struct av_post *next = p->next;
		p->next = NULL;
		p->fn(p->ctx);
		p = next;
	}
}

static int handles_init(struct av_loop *l)
{
	int rc = uv_async_init(&l->uv, &l->async, on_async);
	if (rc < 0)
		return rc;
	uv_prepare_init(&l->uv, &l->prepare);
	uv_check_init(&l->uv, &l->check);
	uv_timer_init(&l->uv, &l->timer);
	l->async.data = l->prepare.data = l->check.data = l->timer.data = l;
	uv_prepare_start(&l->prepare, on_prepare);
	uv_check_start(&l->check, on_check);
	/* Only the async handle keeps the loop running until av_loop_stop(). */
	uv_unref((uv_handle_t *)&l->prepare);
	uv_unref((uv_handle_t *)&l->check);
	uv_unref((uv_handle_t *)&l->timer);
	return 0;
}

int av_loop_new(struct av_loop **ret)
{
	struct av_loop *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->scratch = malloc(LOOP_SCRATCH_BYTES);
	int rc = l->scratch ? uv_loop_init(&l->uv) : -ENOMEM;
	if (rc < 0) {
		free(l->scratch);
		free(l);
		return rc;
	}
	rc = uv_loop_configure(&l->uv, UV_METRICS_IDLE_TIME);
	if (rc == 0)
		rc = handles_init(l);
	if (rc < 0) {
		uv_loop_close(&l->uv);
		free(l->scratch);
		free(l);
		return rc;
	}
	l->armed_ms = UINT64_MAX;
	av_list_init(&l->deferred);
	av_list_init(&l->works);
	pthread_mutex_init(&l->post_lock, NULL);
	l->post_end = &l->post_first;
	*ret = l;
	return 0;
}

struct work {
	uv_work_t req;
	struct av_list link;
	struct av_loop *loop;
	void (*work)(void *ctx);
	void (*done)(void *ctx, int status);
	void *ctx;
};

static void close_leftover(uv_handle_t *h, void *arg)
{
	(void)arg;
	if (!uv_is_closing(h))
		uv_close(h, NULL);
}

void av_loop_free(struct av_loop *l)
{
	if (!l)
		return;
	struct work *w;
	AV_LIST_FOREACH(w, &l->works, struct work, link)
	uv_cancel((uv_req_t *)&w->req);
	/* Asynchronous closes and work in progress first, while deferred calls still run. */
	while (!av_list_empty(&l->works))
		uv_run(&l->uv, UV_RUN_ONCE);
	uv_run(&l->uv, UV_RUN_NOWAIT);
	uv_walk(&l->uv, close_leftover, NULL);
	while (uv_loop_close(&l->uv) == UV_EBUSY)
		uv_run(&l->uv, UV_RUN_DEFAULT);
	pthread_mutex_destroy(&l->post_lock);
	free(l->scratch);
	free(l);
}

int av_loop_run(struct av_loop *l)
{
	while (!l->stopped)
		uv_run(&l->uv, UV_RUN_ONCE);
	l->stopped = false;
	return 0;
}

void av_loop_stop(struct av_loop *l)
{
	l->stopped = true;
	uv_stop(&l->uv);
}

/* libuv before 1.45 runs timers ahead of the poll of the same iteration. When this one fires there,
 * as with no time-out or when the millisecond ends meanwhile, nothing is left that would end the
 * poll in time: it must not wait. The mark is gone when uv_run() returns. */
static void wake(void *ctx)
{
	struct av_loop *l = ctx;
	uv_stop(&l->uv);
}

void av_loop_run_once(struct av_loop *l, unsigned int timeout_ms)
{
	struct av_timer t;
	av_timer_init(&t, l, wake, l);
	uv_update_time(&l->uv);
	av_timer_start(&t, timeout_ms);
	uv_run(&l->uv, UV_RUN_ONCE);
	av_timer_stop(&t);
}

struct uv_loop_s *av_loop_uv(struct av_loop *l)
{
	return &l->uv;
}

uint64_t av_loop_now_ms(const struct av_loop *l)
{
	return uv_now(&l->uv);
}

void av_defer_init(struct av_defer *d, void (*fn)(void *ctx), void *ctx)
{
	av_list_init(&d->link);
	d->fn = fn;
	d->ctx = ctx;
}

void av_defer_start(struct av_defer *d, struct av_loop *l)
{
	if (av_list_empty(&d->link))
		av_list_append(&l->deferred, &d->link);
}

void av_defer_stop(struct av_defer *d)
{
	av_list_remove(&d->link);
}

static void work_run(uv_work_t *req)
{
	struct work *w = req->data;
	w->work(w->ctx);
}

static void work_done(uv_work_t *req, int status)
{
	struct work *w = req->data;
	av_list_remove(&w->link);
	w->loop->metrics.work_pending--;
	if (w->done)
		w->done(w->ctx, status < 0 ? -ECANCELED : 0);
	free(w);
}

int av_loop_work(
    struct av_loop *l, void (*work)(void *ctx), void (*done)(void *ctx, int status), void *ctx)
{
	if (l->metrics.work_pending >= AV_LOOP_WORK_MAX)
		return -EAGAIN;
	struct work *w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	*w = (struct work){.loop = l, .work = work, .done = done, .ctx = ctx};
	w->req.data = w;
	int rc = uv_queue_work(&l->uv, &w->req, work_run, work_done);
	if (rc < 0) {
		free(w);
		return rc;
	}
	av_list_append(&l->works, &w->link);
	l->metrics.work_started++;
	l->metrics.work_pending++;
	return 0;
}

void av_loop_post(struct av_loop *l, struct av_post *p)
{
	p->next = NULL;
	pthread_mutex_lock(&l->post_lock);
	bool first = !l->post_first;
	*l->post_end = p;
	l->post_end = &p->next;
	/* Under the lock, so that the loop cannot be freed between the two. */
	if (first)
		uv_async_send(&l->async);
	pthread_mutex_unlock(&l->post_lock);
}

const struct av_loop_metrics *av_loop_metrics(const struct av_loop *l)
{
	return &l->metrics;
}
