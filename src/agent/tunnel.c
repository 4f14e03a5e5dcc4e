/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tunnel.c - CONNECT host:port: a raw tunnel to a TCP port on the sandbox's loopback
 *
 * host is localhost (IPv4 first, then IPv6), 127.0.0.1, 0.0.0.0 or ::1; nothing else, as a tunnel
 * is for services of the sandbox and must not become a way around its network rules. Each direction
 * ends on its own (half-close), and each is slowed by its reader: bytes from the client open its
 * window when the socket has taken them, the socket is not read while the stream is full. A server
 * that takes no more (it answered in the middle of a request and closed) may have said why: what
 * the client still sends is dropped, what the server sent is read to its end.
 *
 * States: connecting → open → closed. The struct lives until its poll handle is closed.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/handlers.h"
#include "base/fd.h"

#include "base/banned.h"

#define TUNNEL_READ  ((size_t)64 * 1024)
#define TUNNEL_QUEUE ((size_t)2 * 1024 * 1024) /* more than a stream's window can hold */

struct tunnel {
	struct request *rq; /* NULL once the stream is closed */
	uv_poll_t poll;
	bool poll_open, connected;
	int fd; /* -1 when closed */
	int events;
	uint16_t port;
	bool try_ipv6;       /* when IPv4 refuses */
	struct av_buf queue; /* from the client, for the socket */
	bool client_ended, socket_ended;
	bool deaf; /* the socket takes no more bytes */
};

static void on_socket(uv_poll_t *poll, int status, int events);
static int dial(struct tunnel *t, int family);

static void on_poll_closed(uv_handle_t *h)
{
	struct tunnel *t = AV_CONTAINER_OF(h, struct tunnel, poll);

	t->poll_open = false;
	if (t->fd < 0 && !t->rq) {
		av_buf_clear(&t->queue);
		free(t);
	} else if (t->fd < 0 && dial(t, AF_INET6) < 0) {
		request_fail(t->rq, 502, "port %u is not open in the sandbox", t->port);
		t->rq = NULL;
		av_buf_clear(&t->queue);
		free(t);
	}
}

static void close_socket(struct tunnel *t)
{
	if (t->fd < 0)
		return;
	uv_poll_stop(&t->poll);
	av_close_fd(&t->fd);
	uv_close((uv_handle_t *)&t->poll, on_poll_closed);
}

/* Ends the stream's side too; the struct goes when the poll handle is closed. */
static void give_up(struct tunnel *t, uint32_t error)
{
	struct request *rq = AV_TAKE_PTR(t->rq);

	close_socket(t);
	if (!rq)
		return;
	request_ignore_rest(rq);
	request_reset(rq, error);
}

static void update_events(struct tunnel *t)
{
	int events = 0;

	if (t->fd < 0 || !t->rq)
		return;
	if (!t->connected || t->queue.n)
		events |= UV_WRITABLE;
	if (t->connected && !t->socket_ended && !request_is_full(t->rq))
		events |= UV_READABLE;
	if (events == t->events)
		return;
	t->events = events;
	uv_poll_start(&t->poll, events, on_socket);
}

static int dial(struct tunnel *t, int family)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET,
	    .sin_port = htons(t->port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6,
	    .sin6_port = htons(t->port),
	    .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	const void *addr = family == AF_INET ? (const void *)&v4 : &v6;
	AV_CLEANUP(av_closep)
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1, r;

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, addr, family == AF_INET ? sizeof(v4) : sizeof(v6)) < 0 &&
	    errno != EINPROGRESS)
		return -errno;
	r = uv_poll_init(&t->rq->agent->loop, &t->poll, fd);
	if (r < 0)
		return r;
	t->fd = AV_TAKE_FD(fd);
	t->poll_open = true;
	t->events = 0;
	update_events(t);
	return 0;
}

/* The socket is writable for the first time, or failed. */
static void finish_connect(struct tunnel *t)
{
	struct av_http_head head;
	socklen_t n = sizeof(int);
	int error = 0;

	if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		error = errno;
	if (error && t->try_ipv6) {
		t->try_ipv6 = false;
		close_socket(t);
		return;
	}
	if (error) {
		struct request *rq = AV_TAKE_PTR(t->rq);

		close_socket(t);
		request_fail(rq, 502, "port %u is not open in the sandbox", t->port);
		return;
	}
	t->connected = true;
	av_http_head_response(&head, 200);
	request_begin(t->rq, &head);
	av_http_head_clear(&head);
}

static void end_socket_input(struct tunnel *t)
{
	if (!t->deaf && t->client_ended && t->queue.n == 0 && t->connected && t->fd >= 0)
		shutdown(t->fd, SHUT_WR);
}

/* Client's bytes into the socket. */
static void flush_queue(struct tunnel *t)
{
	while (t->queue.n) {
		struct av_str s = av_buf_str(&t->queue);
		ssize_t n = t->deaf ? (ssize_t)s.n : send(t->fd, s.p, s.n, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			t->deaf = true;
			continue;
		}
		av_buf_consume(&t->queue, (size_t)n);
		request_consume(t->rq, (size_t)n);
	}
	end_socket_input(t);
}

static bool read_socket(struct tunnel *t)
{
	struct av_http2_block *b = av_http2_block_new(TUNNEL_READ);
	ssize_t n;

	if (!b) {
		give_up(t, AV_HTTP2_INTERNAL_ERROR);
		return false;
	}
	n = read(t->fd, b->data, TUNNEL_READ);
	if (n > 0) {
		b->n = (uint32_t)n;
		return request_send_block(t->rq, b);
	}
	av_http2_block_unref(b);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n < 0) {
		give_up(t, AV_HTTP2_CONNECT_ERROR);
		return false;
	}
	t->socket_ended = true;
	request_finish(t->rq);
	return true;
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
	struct tunnel *t = AV_CONTAINER_OF(poll, struct tunnel, poll);

	if (!t->connected) {
		finish_connect(t);
	} else if (status < 0) {
		/* An error on the socket is told by the next read or write, behind what came before
		 * it; libuv has stopped watching. */
		t->events = 0;
		events = UV_READABLE | UV_WRITABLE;
	}
	if (!t->rq || t->fd < 0 || !t->connected)
		return;
	if (events & UV_WRITABLE)
		flush_queue(t);
	if ((events & UV_READABLE) && !t->socket_ended && !read_socket(t))
		return;
	update_events(t);
}

/* --- the client's side --- */

static void tunnel_body(struct request *rq, const uint8_t *p, size_t n)
{
	struct tunnel *t = rq->data;

	if (av_buf_append(&t->queue, p, n) < 0) {
		give_up(t, AV_HTTP2_INTERNAL_ERROR);
		return;
	}
	if (t->connected && t->fd >= 0)
		flush_queue(t);
	update_events(t);
}

static void tunnel_end(struct request *rq)
{
	struct tunnel *t = rq->data;

	t->client_ended = true;
	end_socket_input(t);
}

static void tunnel_drain(struct request *rq)
{
	update_events(rq->data);
}

static void tunnel_close(struct request *rq, uint32_t error)
{
	struct tunnel *t = rq->data;

	(void)error;
	t->rq = NULL;
	if (t->fd >= 0)
		close_socket(t);
	/* else the handle is closing already (between two address families) and frees it */
}

static const struct request_ops tunnel_ops = {
    .on_body = tunnel_body,
    .on_end = tunnel_end,
    .on_drain = tunnel_drain,
    .on_close = tunnel_close,
};

static bool is_loopback(struct av_str host, int *ret_family, bool *ret_both)
{
	*ret_both = av_str_ieq(host, AV_STR("localhost"));
	*ret_family = av_str_eq_c(host, "::1") ? AF_INET6 : AF_INET;
	return *ret_both || av_str_eq_c(host, "127.0.0.1") || av_str_eq_c(host, "0.0.0.0") ||
	       av_str_eq_c(host, "::1");
}

void tunnel_open(struct request *rq)
{
	struct av_str host;
	struct tunnel *t;
	uint16_t port;
	int family;
	bool both;

	if (av_http_split_authority(rq->head.authority, 0, &host, &port) < 0 || port == 0) {
		request_fail(rq, 400, "CONNECT needs host:port");
		return;
	}
	if (!is_loopback(host, &family, &both)) {
		request_fail(rq, 403,
		    "tunnels lead to the sandbox's loopback only (localhost, 127.0.0.1, ::1)");
		return;
	}
	t = calloc(1, sizeof(*t));
	if (!t) {
		request_fail(rq, 503, "out of memory in the sandbox's agent");
		return;
	}
	*t = (struct tunnel){.rq = rq, .fd = -1, .port = port, .try_ipv6 = both};
	av_buf_init(&t->queue, TUNNEL_QUEUE);
	if (dial(t, family) < 0) {
		free(t);
		request_fail(rq, 502, "port %u is not open in the sandbox", port);
		return;
	}
	rq->data = t;
	rq->ops = &tunnel_ops;
	request_bulk(rq);
}
