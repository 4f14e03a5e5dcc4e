/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch.c - readiness of descriptors and signals, with a synchronous free
 *
 * libuv closes handles asynchronously: the handle lives on the heap, is cut off from its owner by
 * the free and dies in libuv's close callback.
 */
#include <errno.h>
#include <stdlib.h>

#include "net/loop.h"
#include "net/loop_internal.h"

#include "base/banned.h"

struct av_watch {
	uv_poll_t poll;
	void (*on_event)(void *ctx, int events);
	void *ctx;
	int events;
};

static void watch_closed(uv_handle_t *h)
{
	free(h->data);
}

int av_watch_new(struct av_loop *l, int fd, void (*on_event)(void *ctx, int events), void *ctx,
    struct av_watch **ret)
{
	struct av_watch *w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	int rc = uv_poll_init(&l->uv, &w->poll, fd);
	if (rc < 0) {
		free(w);
		return rc;
	}
	w->poll.data = w;
	w->on_event = on_event;
	w->ctx = ctx;
	*ret = w;
	return 0;
}

static void on_poll(uv_poll_t *h, int status, int events)
{
	struct av_watch *w = h->data;
	int ready = 0;
	if (status < 0) {
		/* libuv stops watching on POLLERR; the owner's read or write tells the reason. */
		ready = w->events;
		w->events = 0;
	} else {
		ready |= events & UV_READABLE ? AV_WATCH_READ : 0;
		ready |= events & UV_WRITABLE ? AV_WATCH_WRITE : 0;
	}
	if (ready)
		w->on_event(w->ctx, ready);
}

int av_watch_set(struct av_watch *w, int events)
{
	if (events == w->events)
		return 0;
	int mask = (events & AV_WATCH_READ ? UV_READABLE : 0) |
	           (events & AV_WATCH_WRITE ? UV_WRITABLE : 0);
	int rc = mask ? uv_poll_start(&w->poll, mask, on_poll) : uv_poll_stop(&w->poll);
	if (rc == 0)
		w->events = events;
	return rc;
}

void av_watch_free(struct av_watch *w)
{
	if (!w)
		return;
	uv_close((uv_handle_t *)&w->poll, watch_closed);
}

struct av_signal {
	uv_signal_t handle;
	void (*on_signal)(void *ctx, int signum);
	void *ctx;
};

static void on_uv_signal(uv_signal_t *h, int signum)
{
	struct av_signal *s = h->data;
	s->on_signal(s->ctx, signum);
}

int av_signal_new(struct av_loop *l, int signum, void (*on_signal)(void *ctx, int signum),
    void *ctx, struct av_signal **ret)
{
	struct av_signal *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->on_signal = on_signal;
	s->ctx = ctx;
	int rc = uv_signal_init(&l->uv, &s->handle);
	if (rc < 0) {
		free(s);
		return rc;
	}
	s->handle.data = s;
	rc = uv_signal_start(&s->handle, on_uv_signal, signum);
	if (rc < 0) {
		av_signal_free(s);
		return rc;
	}
	*ret = s;
	return 0;
}

void av_signal_free(struct av_signal *s)
{
	if (!s)
		return;
	uv_close((uv_handle_t *)&s->handle, watch_closed);
}
