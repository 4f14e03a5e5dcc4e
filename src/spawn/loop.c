/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.c - event loop of the worker
 */
#include "spawn/loop.h"

#include <errno.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/banned.h"

int loop_init(struct loop *l)
{
	*l = (struct loop){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
	av_list_init(&l->timers);
	return l->epoll_fd < 0 ? -errno : 0;
}

void loop_clear(struct loop *l)
{
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	l->epoll_fd = -1;
}

int loop_add(struct loop *l, struct loop_source *s, int fd, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	s->fd = fd;
	return 0;
}

int loop_change(struct loop *l, struct loop_source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};
	return epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, s->fd, &ev) < 0 ? -errno : 0;
}

void loop_remove(struct loop *l, struct loop_source *s)
{
	if (s->fd < 0)
		return;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	s->fd = -1;
	/* Events of this batch that were not delivered yet. */
	for (int i = l->batch_i; i < l->batch_n; i++)
		if (l->batch[i].data.ptr == s)
			l->batch[i].data.ptr = NULL;
}

void loop_timer_init(struct loop_timer *t, void (*on_due)(void *ctx), void *ctx)
{
	*t = (struct loop_timer){.on_due = on_due, .ctx = ctx};
	av_list_init(&t->node);
}

void loop_timer_start(struct loop *l, struct loop_timer *t, int64_t after_ns)
{
	av_list_remove(&t->node);
	t->due_ns = av_mono_ns() + after_ns;
	av_list_append(&l->timers, &t->node);
}

void loop_timer_stop(struct loop_timer *t)
{
	av_list_remove(&t->node);
	t->due_ns = 0;
}

/* Runs one timer that is due; false when none is. Few are ever pending: a list will do. */
static bool run_due_timer(struct loop *l)
{
	struct loop_timer *t;
	int64_t now = av_mono_ns();
	AV_LIST_FOREACH(t, &l->timers, struct loop_timer, node)
	if (t->due_ns <= now) {
		loop_timer_stop(t);
		t->on_due(t->ctx);
		return true;
	}
	return false;
}

static int timeout_ms(const struct loop *l)
{
	struct loop_timer *t;
	int64_t first = INT64_MAX;
	AV_LIST_FOREACH(t, &l->timers, struct loop_timer, node)
	first = AV_MIN(first, t->due_ns);
	if (first == INT64_MAX)
		return -1;
	int64_t left = first - av_mono_ns();
	return left <= 0 ? 0
	                 : (int)AV_MIN((left + AV_NS_PER_MS - 1) / AV_NS_PER_MS, (int64_t)60000);
}

int loop_run(struct loop *l)
{
	while (!l->stopping) {
		for (int i = 0; i < LOOP_BATCH && run_due_timer(l); i++)
			;
		int n = epoll_wait(l->epoll_fd, l->batch, LOOP_BATCH, timeout_ms(l));
		if (n < 0 && errno != EINTR)
			return -errno;
		l->batch_n = n < 0 ? 0 : n;
		for (l->batch_i = 0; l->batch_i < l->batch_n;) {
			const struct epoll_event ev = l->batch[l->batch_i++];
			struct loop_source *s = ev.data.ptr;
			if (s)
				s->on_ready(s->ctx, ev.events);
		}
		l->batch_n = 0;
	}
	return 0;
}

void loop_stop(struct loop *l)
{
	l->stopping = true;
}
