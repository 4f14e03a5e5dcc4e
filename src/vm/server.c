/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server.c - vm.sock: one client at a time, requests in, answers out (see server.h)
 */
#include "vm/server.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/fd.h"

#include "base/banned.h"

struct server {
	uv_poll_t listener;
	int listen_fd;
	struct client *client; /* NULL: none */
	uint64_t clients;      /* so far: the number of the newest */
	const struct server_ops *ops;
	void *ctx;
};

struct client {
	uv_poll_t poll;
	int fd;
	struct server *server;
};

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void client_close(struct client *c)
{
	if (c->server->client == c)
		c->server->client = NULL;
	uv_close((uv_handle_t *)&c->poll, on_closed);
	av_close_fd(&c->fd);
}

static void on_client(uv_poll_t *poll, int status, int events)
{
	struct client *c = poll->data;
	struct server *s = c->server;
	struct vm_request q;
	ssize_t n;

	(void)events;
	/* MSG_TRUNC: the length that it has, so that a longer one is not taken for ours. */
	n = status < 0 ? -1 : recv(c->fd, &q, sizeof(q), MSG_TRUNC);
	if (status == 0 && n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof(q) || q.seq == 0) {
		client_close(c);
		return;
	}
	s->ops->on_request(s->ctx, s->clients, &q);
}

static int client_new(struct server *s, int fd)
{
	struct client *c = calloc(1, sizeof(*c));
	int r = c ? uv_poll_init(s->listener.loop, &c->poll, fd) : -ENOMEM;

	if (r < 0) {
		free(c);
		return r;
	}
	c->poll.data = c;
	c->fd = fd;
	c->server = s;
	if (s->client)
		client_close(s->client);
	s->client = c;
	s->clients++;
	/* From here on the descriptor is the client's. */
	if (uv_poll_start(&c->poll, UV_READABLE, on_client) < 0)
		client_close(c);
	return 0;
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
	struct server *s = poll->data;
	int fd;

	(void)status;
	(void)events;
	fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0 && client_new(s, fd) < 0)
		av_close_fd(&fd);
}

int server_new(
    uv_loop_t *loop, int listener, const struct server_ops *ops, void *ctx, struct server **ret)
{
	struct server *s = calloc(1, sizeof(*s));
	int r = s ? av_set_nonblock(listener, true) : -ENOMEM;

	if (r == 0)
		r = uv_poll_init(loop, &s->listener, listener);
	if (r < 0) {
		free(s);
		return r;
	}
	s->listener.data = s;
	s->listen_fd = listener;
	s->ops = ops;
	s->ctx = ctx;
	uv_poll_start(&s->listener, UV_READABLE, on_listener);
	*ret = s;
	return 0;
}

void server_answer(struct server *s, uint64_t client, const struct vm_reply *reply)
{
	if (s->client && s->clients == client)
		(void)!send(s->client->fd, reply, sizeof(*reply), MSG_NOSIGNAL | MSG_DONTWAIT);
}
