/* SPDX-License-Identifier: Apache-2.0 */
/*
 * transport.c - sockets on uv_poll, and TLS sessions on sockets
 */
#include "net/transport.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/loop_internal.h"
#include "net/tls_internal.h"

#include "base/banned.h"

struct tp_poll {
	uv_poll_t handle;
	struct transport *owner; /* NULL once closed */
};

static void poll_closed(uv_handle_t *h)
{
	free(h->data);
}

static void on_poll(uv_poll_t *h, int status, int events);

/* What the socket must be asked for, so that the owner gets what it asks for. */
static int mask_of_tls(const struct transport *t)
{
	const struct tls_session *s = t->tls;
	int waits = tls_session_waits(s) ? TP_WRITE : 0;
	if (s->state == TLS_OPEN)
		return t->mask | waits;
	/* One that waits for its turn has been heard. */
	return av_list_empty(&s->turn) ? TP_READ | waits : waits;
}

static void poll_apply(struct transport *t)
{
	int mask = t->tls ? mask_of_tls(t) : t->mask;
	if (mask == t->polled)
		return;
	t->polled = mask;
	int events = (mask & TP_READ ? UV_READABLE : 0) | (mask & TP_WRITE ? UV_WRITABLE : 0) |
	             (mask & TP_HANGUP ? UV_DISCONNECT : 0);
	if (events)
		uv_poll_start(&t->poll->handle, events, on_poll);
	else
		uv_poll_stop(&t->poll->handle);
}

/* The owner must close. */
static void broken(struct transport *t)
{
	t->mask = 0;
	t->polled = 0;
	uv_poll_stop(&t->poll->handle);
	t->on_ready(t->ctx, TP_ERROR);
}

/* Turns what the socket is ready for into what the owner hears. -errno: broken. */
static int ready_of_tls(struct transport *t, int ready)
{
	struct tls_session *s = t->tls;
	bool waited = tls_session_waits(s);
	if ((ready & TP_WRITE) && waited) {
		int r = tls_session_flush(s);
		if (r < 0)
			return r;
		if (r == 0)
			ready = (ready & ~TP_WRITE) | TP_WROTE;
	}
	if (s->state == TLS_OPEN)
		return ready & (t->mask | TP_WROTE);
	if (ready & (TP_READ | TP_HANGUP))
		tls_want_turn(s);
	return 0;
}

static void on_poll(uv_poll_t *h, int status, int events)
{
	struct tp_poll *p = h->data;
	struct transport *t = p->owner;
	if (!t)
		return;
	int ready = 0;
	if (status < 0) {
		broken(t);
		return;
	}
	ready |= events & UV_READABLE ? TP_READ : 0;
	ready |= events & UV_WRITABLE ? TP_WRITE : 0;
	ready |= events & UV_DISCONNECT ? TP_HANGUP : 0;
	if (t->tls)
		ready = ready_of_tls(t, ready);
	if (ready < 0) {
		broken(t);
		return;
	}
	if (ready & TP_HANGUP)
		t->mask &= ~TP_HANGUP;
	poll_apply(t);
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

/* A step of the handshake. */
static void on_turn(void *ctx)
{
	struct transport *t = ctx;
	int r = tls_session_step(t->tls);
	if (r < 0) {
		broken(t);
		return;
	}
	if (r == TLS_STEP_PLAIN) {
		tls_session_free(t->tls, false);
		t->tls = NULL;
	}
	poll_apply(t);
	if (r == TLS_STEP_PLAIN)
		t->on_ready(t->ctx, TP_PLAIN);
	else if (r == TLS_STEP_OPEN)
		t->on_ready(t->ctx, t->mask & (TP_READ | TP_WRITE));
}

/* Plain bytes are there that the socket knows nothing of. */
static void on_again(void *ctx)
{
	struct transport *t = ctx;
	if (t->tls->more && (t->mask & TP_READ))
		t->on_ready(t->ctx, TP_READ);
}

int tp_open_tls(struct transport *t, struct av_loop *l, int fd, struct av_tls *tls,
    void (*on_ready)(void *ctx, int ready), void *ctx)
{
	struct tls_session *s = NULL;
	int rc = tls_session_new(tls, fd, on_turn, t, &s);
	if (rc < 0)
		return rc;
	rc = tp_open(t, l, fd, on_ready, ctx);
	if (rc < 0) {
		tls_session_free(s, false);
		return rc;
	}
	av_timer_init(&s->again, l, on_again, t);
	t->tls = s;
	return 0;
}

void tp_want(struct transport *t, int mask)
{
	if (t->fd < 0)
		return;
	t->mask = mask;
	if (t->tls && t->tls->more && (mask & TP_READ) && !av_timer_active(&t->tls->again))
		av_timer_start(&t->tls->again, 0);
	poll_apply(t);
}

bool tp_waits(const struct transport *t)
{
	return t->tls && tls_session_waits(t->tls);
}

bool tp_is_opening(const struct transport *t)
{
	return t->tls && t->tls->state != TLS_OPEN;
}

enum tp_alpn tp_alpn(const struct transport *t)
{
	return t->tls ? tls_session_alpn(t->tls) : TP_ALPN_NONE;
}

ssize_t tp_read(struct transport *t, void *p, size_t n)
{
	ssize_t r;
	if (t->tls)
		return tls_session_read(t->tls, p, n);
	do
		r = recv(t->fd, p, n, 0);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

ssize_t tp_writev(struct transport *t, const struct iovec *iov, int n)
{
	if (t->tls)
		return tls_session_writev(t->tls, iov, n);
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
	if (t->tls)
		tls_session_shutdown(t->tls);
	else if (t->fd >= 0)
		shutdown(t->fd, SHUT_WR);
}

void tp_close(struct transport *t, bool reset)
{
	if (t->fd < 0)
		return;
	if (t->tls)
		tls_session_free(t->tls, !reset);
	t->tls = NULL;
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
