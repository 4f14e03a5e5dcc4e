/* SPDX-License-Identifier: Apache-2.0 */
/*
 * transport.c - sockets on uv_poll
 */
#include "net/transport.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/loop_internal.h"

#include "base/banned.h"

struct tp_poll {
	uv_poll_t handle;
	struct transport *owner; /* NULL once closed */
};

static void poll_closed(uv_handle_t *h)
{
	free(h->data);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
	struct tp_poll *p = h->data;
	struct transport *t = p->owner;
	if (!t)
		return;
	int ready = 0;
	if (status < 0) {
		t->mask = 0; /* libuv has stopped the handle */
		t->on_ready(t->ctx, TP_ERROR);
		return;
	}
	ready |= events & UV_READABLE ? TP_READ : 0;
	ready |= events & UV_WRITABLE ? TP_WRITE : 0;
	ready |= events & UV_DISCONNECT ? TP_HANGUP : 0;
	if (ready & TP_HANGUP)
		tp_want(t, t->mask & ~TP_HANGUP);
	if (ready)
		t->on_ready(t->ctx, ready);
}

int tp_open(struct transport *t, struct av_loop *l, int fd, void (*on_ready)(void *ctx, int ready),
    void *ctx)
{
	struct tp_poll *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	int rc = uv_poll_init(&l->uv, &p->handle, fd);
	if (rc < 0) {
		free(p);
		return rc;
	}
	p->handle.data = p;
	p->owner = t;
	*t = (struct transport){.fd = fd, .poll = p, .on_ready = on_ready, .ctx = ctx};
	return 0;
}

void tp_want(struct transport *t, int mask)
{
	if (t->fd < 0 || mask == t->mask)
		return;
	t->mask = mask;
	int events = (mask & TP_READ ? UV_READABLE : 0) | (mask & TP_WRITE ? UV_WRITABLE : 0) |
	             (mask & TP_HANGUP ? UV_DISCONNECT : 0);
	if (events)
		uv_poll_start(&t->poll->handle, events, on_poll);
	else
		uv_poll_stop(&t->poll->handle);
}

ssize_t tp_read(struct transport *t, void *p, size_t n)
{
	ssize_t r;
	do
		r = recv(t->fd, p, n, 0);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

ssize_t tp_writev(struct transport *t, const struct iovec *iov, int n)
{
	/* sendmsg(2) does not change the vector. */
	struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n};
	ssize_t r;
	do
		r = sendmsg(t->fd, &m, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

void tp_shutdown(struct transport *t)
{
	if (t->fd >= 0)
		shutdown(t->fd, SHUT_WR);
}

void tp_close(struct transport *t, bool reset)
{
	if (t->fd < 0)
		return;
	if (reset) {
		struct linger l = {.l_onoff = 1, .l_linger = 0};
		setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	}
	/* libuv leaves the descriptor to us and lets go of it inside uv_close(). */
	t->poll->owner = NULL;
	uv_close((uv_handle_t *)&t->poll->handle, poll_closed);
	t->poll = NULL;
	close(t->fd);
	t->fd = -1;
}
