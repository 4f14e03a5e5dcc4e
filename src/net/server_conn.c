/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_conn.c - a connection of the server: its socket, timers, and the one place that settles
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "net/loop_internal.h"
#include "net/server_internal.h"

#include "base/banned.h"

/* Reads of one readiness event, so that one bulk connection leaves room for the others. */
#define READS_PER_EVENT 4
#define SETTLE_ROUNDS   8

void conn_schedule(struct conn *c)
{
	av_defer_start(&c->work, c->server->loop);
}

void conn_fail(struct conn *c, int error)
{
	if (!c->error)
		c->error = error ? error : -ECONNRESET;
	conn_schedule(c);
}

uint32_t conn_write_timeout(const struct conn *c)
{
	if (c->proto == CONN_WS)
		return c->ws_write_timeout_ms;
	return c->req ? c->req->write_timeout_ms : c->server->cfg.write_timeout_ms;
}

/* ---- writing ---- */

void conn_wrote(struct conn *c, size_t n, bool left, uint32_t timeout_ms)
{
	c->server->metrics.bytes_out += n;
	c->blocked = left || tp_waits(&c->tp);
	if (!c->blocked || timeout_ms == 0)
		av_timer_stop(&c->write_timer);
	else if (n > 0 || !av_timer_active(&c->write_timer))
		av_timer_start(&c->write_timer, timeout_ms);
}

bool conn_flush_out(struct conn *c)
{
	while (c->out.n > 0 && !c->blocked && !c->error) {
		struct iovec iov = {c->out.p + c->out.off, c->out.n};
		ssize_t r = tp_writev(&c->tp, &iov, 1);
		if (r < 0 && r != -EAGAIN) {
			conn_fail(c, -ECONNRESET);
			return false;
		}
		size_t n = r > 0 ? (size_t)r : 0;
		av_buf_consume(&c->out, n);
		conn_wrote(c, n, c->out.n > 0, conn_write_timeout(c));
	}
	return c->out.n == 0;
}

/* ---- reading ---- */

static bool can_read(const struct conn *c)
{
	switch (c->proto) {
	case CONN_H1:
		return h1_can_read(c);
	case CONN_WS:
		return ws_can_read(c);
	case CONN_DETECT:
		return !c->closing;
	case CONN_H2:
	case CONN_LINGER:
		break;
	}
	return true;
}

static void detect(struct conn *c, const char *p, size_t n)
{
	enum tp_alpn alpn = tp_alpn(&c->tp);
	int is = alpn == TP_ALPN_HTTP1 ? 0 : av_http2_is_preface(p, n);
	if (is == -EAGAIN)
		return;
	/* What was agreed on holds. */
	if (!is && alpn == TP_ALPN_H2) {
		c->server->metrics.protocol_errors++;
		conn_fail(c, -EPROTO);
		return;
	}
	int rc = is ? h2_begin(c) : h1_begin(c);
	if (rc < 0)
		conn_fail(c, rc);
}

/* How many bytes were used. */
static size_t process(struct conn *c, const char *p, size_t n)
{
	size_t used = 0;
	if (c->proto == CONN_DETECT)
		detect(c, p, n);
	if (c->error || c->proto == CONN_LINGER)
		return n;
	if (c->proto == CONN_H2) {
		int rc = h2_receive(c, p, n);
		if (rc < 0)
			conn_fail(c, rc);
		return n;
	}
	if (c->proto == CONN_H1)
		used = h1_consume(c, p, n);
	if (c->proto == CONN_WS && used < n) {
		size_t more = 0;
		ws_receive(c, p + used, n - used, &more);
		used += more;
	}
	return used;
}

static void input(struct conn *c, const char *p, size_t n)
{
	if (c->in.n == 0) {
		size_t used = process(c, p, n);
		if (used < n && av_buf_append(&c->in, p + used, n - used) < 0)
			conn_fail(c, -ENOMEM);
		return;
	}
	if (av_buf_append(&c->in, p, n) < 0) {
		conn_fail(c, -ENOMEM);
		return;
	}
	size_t used = process(c, c->in.p + c->in.off, c->in.n);
	av_buf_consume(&c->in, used);
}

static void eof(struct conn *c)
{
	c->hangup = true;
	if (c->proto == CONN_H1)
		h1_eof(c);
	else
		conn_fail(c, -ECONNRESET);
}

static void read_some(struct conn *c)
{
	char *scratch = c->server->loop->scratch;
	for (int i = 0; i < READS_PER_EVENT && !c->error; i++) {
		if (!can_read(c)) {
			c->drop_read = true;
			return;
		}
		ssize_t r = tp_read(&c->tp, scratch, LOOP_SCRATCH_BYTES);
		if (r == -EAGAIN)
			return;
		if (r < 0) {
			conn_fail(c, -ECONNRESET);
			return;
		}
		if (r == 0) {
			eof(c);
			c->drop_read = true;
			return;
		}
		c->server->metrics.bytes_in += (uint64_t)r;
		input(c, scratch, (size_t)r);
		if (r < LOOP_SCRATCH_BYTES)
			return;
	}
}

/* ---- entry points ---- */

/* Somebody wrote http:// where it should be https://. */
static void refuse_plain(struct conn *c)
{
	struct av_err err = {0};
	if (c->closing)
		return;
	av_err_set(&err, AV_ERR_INVALID,
	    "this address speaks HTTPS, and a request in plain HTTP came: begin the URL with "
	    "https://");
	c->server->metrics.protocol_errors++;
	h1_refuse(c, &err);
}

/* Encrypted bytes left, or all of them did: the peer reads. */
static void tls_wrote(struct conn *c, int ready)
{
	if (ready & TP_WRITE)
		av_timer_stop(&c->write_timer);
	else if (av_timer_active(&c->write_timer))
		av_timer_start(&c->write_timer, conn_write_timeout(c));
}

static void on_ready(void *ctx, int ready)
{
	struct conn *c = ctx;
	if (ready & TP_PLAIN)
		refuse_plain(c);
	if (c->tp.tls && (ready & (TP_WRITE | TP_WROTE)))
		tls_wrote(c, ready);
	if (ready & TP_HANGUP)
		c->hangup = true;
	if ((ready & TP_HANGUP) && c->ws)
		ws_hangup(c);
	if (ready & TP_WRITE)
		c->blocked = false;
	if (ready & (TP_READ | TP_ERROR))
		read_some(c);
	if (ready & TP_ERROR)
		conn_fail(c, -ECONNRESET);
	conn_settle(c);
}

static void on_work(void *ctx)
{
	conn_settle(ctx);
}

static void on_read_timeout(void *ctx)
{
	struct conn *c = ctx;
	enum conn_phase phase = c->phase;
	c->phase = PHASE_NONE;
	if (phase == PHASE_LINGER || c->proto == CONN_LINGER) {
		conn_fail(c, -ETIMEDOUT);
	} else if (tp_is_opening(&c->tp)) {
		c->server->metrics.timeouts++;
		conn_fail(c, -ETIMEDOUT);
	} else if (c->proto == CONN_H2) {
		av_http2_goaway(c->h2, AV_HTTP2_NO_ERROR);
	} else {
		c->phase = phase;
		h1_head_timeout(c);
	}
	conn_settle(c);
}

static void on_write_timeout(void *ctx)
{
	struct conn *c = ctx;
	c->server->metrics.timeouts++;
	c->reset = true;
	conn_fail(c, -ETIMEDOUT);
	conn_settle(c);
}

void conn_set_phase(struct conn *c, enum conn_phase phase)
{
	const struct av_http_server_config *cfg = &c->server->cfg;
	if (phase == c->phase)
		return;
	c->phase = phase;
	switch (phase) {
	case PHASE_NONE:
		av_timer_stop(&c->read_timer);
		break;
	case PHASE_HEAD:
		av_timer_start(&c->read_timer, cfg->head_timeout_ms);
		break;
	case PHASE_KEEPALIVE:
		av_timer_start(&c->read_timer, cfg->keepalive_timeout_ms);
		break;
	case PHASE_DISCARD:
		av_timer_start(&c->read_timer, cfg->body_idle_timeout_ms);
		break;
	case PHASE_LINGER:
		av_timer_start(&c->read_timer, SERVER_LINGER_MS);
		break;
	}
}

static void linger(struct conn *c)
{
	if (c->hangup) {
		conn_fail(c, -ECONNRESET);
		return;
	}
	tp_shutdown(&c->tp);
	c->proto = CONN_LINGER;
	av_buf_clear(&c->in);
	av_buf_clear(&c->out);
	conn_set_phase(c, PHASE_LINGER);
}

static bool step(struct conn *c)
{
	bool flushed = conn_flush_out(c);
	switch (c->proto) {
	case CONN_H1:
		return !c->error && h1_step(c);
	case CONN_H2:
		return !c->error && h2_step(c);
	case CONN_WS:
		return !c->error && ws_step(c);
	case CONN_DETECT:
	case CONN_LINGER:
		break;
	}
	(void)flushed;
	return false;
}

/* True when something changed: the step says so, or a handler called by it made work. */
static bool step_again(struct conn *c)
{
	av_defer_stop(&c->work);
	return step(c) || !av_list_empty(&c->work.link);
}

void conn_settle(struct conn *c)
{
	int rounds = 0;
	while (!c->error && step_again(c) && ++rounds < SETTLE_ROUNDS)
		;
	av_defer_stop(&c->work);
	if (c->closing && c->out.n == 0 && !tp_waits(&c->tp) && !c->error &&
	    c->proto != CONN_LINGER && !c->req)
		linger(c);
	if (c->error) {
		conn_destroy(c, c->error);
		return;
	}
	if (rounds == SETTLE_ROUNDS)
		c->blocked = true; /* let others run: "writable" comes with the next poll */
	if (can_read(c))
		c->drop_read = false;
	tp_want(&c->tp, (c->hangup ? 0 : TP_HANGUP) | (c->drop_read ? 0 : TP_READ) |
	                    (c->blocked ? TP_WRITE : 0));
}

/* ---- birth, stop, death ---- */

static void peer_name(int fd, char *dst, size_t size)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	char ip[INET6_ADDRSTRLEN] = "";
	snprintf(dst, size, "unknown");
	if (getpeername(fd, (struct sockaddr *)&ss, &len) < 0)
		return;
	if (ss.ss_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, &ss, sizeof(in));
		inet_ntop(AF_INET, &in.sin_addr, ip, sizeof(ip));
		snprintf(dst, size, "%s:%u", ip, ntohs(in.sin_port));
	} else if (ss.ss_family == AF_INET6) {
		struct sockaddr_in6 in6;
		memcpy(&in6, &ss, sizeof(in6));
		inet_ntop(AF_INET6, &in6.sin6_addr, ip, sizeof(ip));
		snprintf(dst, size, "[%s]:%u", ip, ntohs(in6.sin6_port));
	} else if (ss.ss_family == AF_UNIX) {
		struct ucred cred;
		socklen_t n = sizeof(cred);
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0)
			snprintf(dst, size, "unix:pid=%d,uid=%u", (int)cred.pid, cred.uid);
	}
}

static void tune(int fd)
{
	/* Both fail harmlessly on unix sockets. Keep-alive finds peers that vanished without FIN
	 * while a long exec is silent: 30 s + 3 * 10 s. */
	int one = 1, idle = 30, interval = 10, count = 3;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

int conn_new(struct av_http_server *s, int fd, bool refused, struct av_tls *tls)
{
	struct conn *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	int rc = tls ? tp_open_tls(&c->tp, s->loop, fd, tls, on_ready, c)
	             : tp_open(&c->tp, s->loop, fd, on_ready, c);
	if (rc < 0) {
		free(c);
		return rc;
	}
	c->server = s;
	av_list_append(&s->conns, &c->link);
	av_list_init(&c->reqs);
	av_buf_init(&c->in, 2 * LOOP_SCRATCH_BYTES);
	/* Pending bodies are limited by res_write(); this leaves room for heads and framing. */
	av_buf_init(&c->out, AV_RES_PENDING_MAX + AV_MIB);
	av_defer_init(&c->work, on_work, c);
	av_timer_init(&c->read_timer, s->loop, on_read_timeout, c);
	av_timer_init(&c->write_timer, s->loop, on_write_timeout, c);
	tune(fd);
	peer_name(fd, c->peer, sizeof(c->peer));
	c->refused = refused;
	if (refused) {
		s->n_refused++;
		s->metrics.connections_refused++;
		struct av_err err = {0};
		av_err_set(&err, AV_ERR_UNAVAILABLE,
		    "all %u connections this server takes are in use; close idle ones or try later",
		    s->cfg.max_connections);
		h1_refuse(c, &err);
	} else {
		s->n_conns++;
		s->metrics.connections_total++;
		s->metrics.connections_open++;
		conn_set_phase(c, PHASE_HEAD);
	}
	tp_want(&c->tp, TP_READ | TP_HANGUP);
	/* The request is often there already. */
	conn_schedule(c);
	return 0;
}

void conn_destroy(struct conn *c, int status)
{
	struct av_http_server *s = c->server;
	c->error = status ? status : -ECONNRESET;
	av_list_remove(&c->link);
	av_timer_stop(&c->read_timer);
	av_timer_stop(&c->write_timer);
	/* The socket first: what handlers do in on_close must not reach it. */
	tp_close(&c->tp, c->reset);
	if (c->req)
		req_close(AV_TAKE_PTR(c->req), c->error);
	while (!av_list_empty(&c->reqs))
		req_close(AV_LIST_FIRST(&c->reqs, struct av_req, link), c->error);
	if (c->ws)
		ws_lost(c);
	av_http1_free(c->h1);
	av_http2_free(c->h2);
	av_defer_stop(&c->work);
	av_buf_clear(&c->in);
	av_buf_clear(&c->out);
	if (c->refused) {
		s->n_refused--;
	} else {
		s->n_conns--;
		s->metrics.connections_open--;
	}
	free(c);
	if (s->stopping && av_list_empty(&s->conns))
		av_defer_start(&s->stopped, s->loop);
}

void conn_stop(struct conn *c)
{
	switch (c->proto) {
	/* Idle: nothing is under way that a plain close could cut, so there is no need to linger.
	 */
	case CONN_DETECT:
		if (c->in.n == 0)
			conn_fail(c, -ECANCELED);
		break;
	case CONN_H1:
		if (!c->req && c->in.n == 0 && c->out.n == 0 && av_http1_idle(c->h1))
			conn_fail(c, -ECANCELED);
		break;
	case CONN_H2:
		av_http2_goaway(c->h2, AV_HTTP2_NO_ERROR);
		break;
	case CONN_WS:
		ws_stop(c);
		break;
	case CONN_LINGER:
		break;
	}
	conn_schedule(c);
}
