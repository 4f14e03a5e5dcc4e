/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_util.h - a raw client and a server to talk to, in one process and on one loop; included by
 * test_net_*.c only
 *
 * The client's socket does not block: each wait runs the loop of the server under test.
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/buf.h"
#include "lib/run_loop.h"
#include "lib/tap.h"
#include "net/http_server.h"
#include "net/loop.h"

static struct av_loop *loop;

/* A machine may stand still for seconds. Yet less than any of the server's own time-outs, so that
 * a test which sets a short one does not pass because of the usual one. */
#define PATIENCE_NS (9 * AV_NS_PER_S)

struct peer {
	int fd;
	struct av_buf in;
	bool eof;
	int error; /* errno of a failed read or write */
};

__attribute__((unused)) static void pump(unsigned ms)
{
	run_loop_for(loop, ms);
}

/* Runs the loop until cond holds; false when patience ends. */
#define pump_until(cond)                                                                           \
	({                                                                                         \
		int64_t end_ = av_mono_ns() + PATIENCE_NS;                                         \
		while (!(cond) && av_mono_ns() < end_)                                             \
			av_loop_run_once(loop, 5);                                                 \
		(cond);                                                                            \
	})

__attribute__((unused)) static struct peer peer_on(int fd)
{
	struct peer p = {.fd = fd};
	av_buf_init(&p.in, 512UL * 1024 * 1024);
	return p;
}

__attribute__((unused)) static struct peer peer_connect(uint16_t port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (struct sockaddr *)&in, sizeof(in)) < 0)
		printf("Bail out! connect: %s\n", strerror(errno));
	return peer_on(fd);
}

__attribute__((unused)) static void peer_close(struct peer *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	av_buf_clear(&p->in);
}

/* Reads what is there; false when nothing was. */
__attribute__((unused)) static bool peer_read(struct peer *p)
{
	static char buf[256 * 1024];
	if (p->eof || p->error)
		return false;
	ssize_t r = recv(p->fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (r < 0 && errno == EAGAIN)
		return false;
	if (r < 0)
		p->error = errno;
	else if (r == 0)
		p->eof = true;
	else
		av_buf_append(&p->in, buf, (size_t)r);
	return r > 0;
}

/* Sends all, running the loop while the socket is full; false when patience ends. */
__attribute__((unused)) static bool peer_send_n(struct peer *p, const void *data, size_t n)
{
	const char *s = data;
	int64_t patience = av_mono_ns() + PATIENCE_NS;
	while (n > 0) {
		ssize_t r = send(p->fd, s, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (r < 0 && errno != EAGAIN) {
			p->error = errno;
			return false;
		}
		if (r < 0) {
			if (av_mono_ns() > patience)
				return false;
			av_loop_run_once(loop, 2);
			continue;
		}
		s += r;
		n -= (size_t)r;
	}
	return true;
}

__attribute__((unused)) static bool peer_send(struct peer *p, const char *s)
{
	return peer_send_n(p, s, strlen(s));
}

/* Position behind needle in what was received, or 0. */
__attribute__((unused)) static size_t peer_find(const struct peer *p, const char *needle)
{
	const char *hit =
	    p->in.n ? memmem(p->in.p + p->in.off, p->in.n, needle, strlen(needle)) : NULL;
	return hit ? (size_t)(hit - (p->in.p + p->in.off)) + strlen(needle) : 0;
}

/* Waits until needle was received; false when patience or the stream ends. */
__attribute__((unused)) static bool peer_expect(struct peer *p, const char *needle)
{
	int64_t end = av_mono_ns() + PATIENCE_NS;
	size_t len = strlen(needle), from = 0;
	/* Only what is new is searched: a long download must not wait for a slow client. */
	while (p->in.n < from + len ||
	       !memmem(p->in.p + p->in.off + from, p->in.n - from, needle, len)) {
		from = p->in.n >= len ? p->in.n - len + 1 : 0;
		if (!peer_read(p)) {
			if (p->eof || p->error || av_mono_ns() > end) {
				diag("wanted \"%s\" in: %.*s", needle,
				    AV_STR_ARG(av_buf_str(&p->in)));
				return false;
			}
			av_loop_run_once(loop, 5);
		}
	}
	return true;
}

/* As expect, and forgets everything up to and with the needle. */
__attribute__((unused)) static bool peer_take(struct peer *p, const char *needle)
{
	if (!peer_expect(p, needle))
		return false;
	av_buf_consume(&p->in, peer_find(p, needle));
	return true;
}

/* Waits for the end of the stream, as long as patience lasts; what came is in p->in. */
__attribute__((unused)) static bool peer_ended(struct peer *p)
{
	int64_t end = av_mono_ns() + PATIENCE_NS;
	while (!p->eof && !p->error && av_mono_ns() < end)
		if (!peer_read(p))
			av_loop_run_once(loop, 5);
	return p->eof || p->error;
}
