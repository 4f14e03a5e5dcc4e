/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_h1.c - HTTP/1 on a connection: one request after the other
 *
 * A request is served from its head until its response has left. Only then are the next bytes
 * parsed, so pipelined requests wait in conn.in or, mostly, in the kernel. While the handler does
 * not want the body, or the body is complete, nothing is read; the peer's FIN is still seen.
 */
#include <errno.h>
#include <stdlib.h>

#include "net/server_internal.h"

#include "base/banned.h"

/* From this size a write goes to the socket at once, instead of being copied and collected. */
#define DIRECT_WRITE_BYTES (8 * 1024)

/* ---- events of the parser ---- */

static int on_head(void *ctx, struct av_http_head *head)
{
	struct conn *c = ctx;
	bool has_body = head->has_body;
	struct av_req *req = req_new(c, &h1_ops, head);
	if (!req)
		return -ENOMEM;
	req->body_complete = !has_body;
	c->req = c->fresh = req;
	/* The handler is asked before anything of the body is looked at, outside of the parser. */
	if (has_body)
		av_http1_pause(c->h1);
	return 0;
}

static int on_body(void *ctx, const uint8_t *p, size_t n)
{
	struct conn *c = ctx;
	struct av_req *req = c->req;
	if (c->discarding || !req || req->ended || req->taken) {
		c->discarded += n;
		return 0;
	}
	req_deliver(req, av_str_n((const char *)p, n));
	return 0;
}

static int on_end(void *ctx, struct av_http_head *trailers)
{
	struct conn *c = ctx;
	(void)trailers;
	if (c->req)
		c->req->body_complete = true;
	c->discarding = false;
	c->discarded = 0;
	return 0;
}

static const struct av_http1_events parser_events = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
};

int h1_begin(struct conn *c)
{
	const struct av_http_server_config *cfg = &c->server->cfg;
	struct av_http_limits limits = AV_HTTP_LIMITS_DEFAULT;
	limits.head_bytes = cfg->max_head_bytes;
	limits.header_count = cfg->max_headers;
	c->h1 = av_http1_new_request(&limits, &parser_events, c);
	if (!c->h1)
		return -ENOMEM;
	c->proto = CONN_H1;
	return 0;
}

/* ---- reading ---- */

bool h1_can_read(const struct conn *c)
{
	if (c->closing)
		return false;
	const struct av_req *req = c->req;
	if (!req)
		return true;
	/* An unread body of an ended response is dropped on the way to the next request. */
	return !req->body_complete && (req_wants_body(req) || req->ended);
}

void h1_refuse(struct conn *c, const struct av_err *err)
{
	struct av_http_server *s = c->server;
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(16384);
	struct av_http_head head;
	int status = av_err_http_status(err->kind);
	av_http_head_response(&head, status);
	head.keep_alive = false;
	int rc = server_error_json(&body, err);
	if (rc == 0)
		rc = av_http_head_add_c(&head, "content-type", "application/json");
	if (rc == 0)
		rc = server_headers(s, &head, NULL);
	head.content_length = (int64_t)body.n;
	if (rc == 0)
		rc = av_http1_write_head(&c->out, &head);
	if (rc == 0)
		rc = av_buf_append_str(&c->out, av_buf_str(&body));
	av_http_head_clear(&head);
	if (rc < 0) {
		conn_fail(c, rc);
		return;
	}
	s->metrics.responses[status / 100]++;
	c->closing = true;
}

static void violated(struct conn *c, const struct av_err *err)
{
	struct av_req *req = c->req;
	c->server->metrics.protocol_errors++;
	c->fresh = NULL;
	if (!req) {
		h1_refuse(c, err);
		return;
	}
	req->close_status = -EPROTO;
	if (req->ended)
		req->keep_alive = false;
	else if (!req_take(req, err))
		conn_fail(c, -EPROTO);
	req->body_complete = true; /* nothing more can be parsed */
	req->body_end_told = true;
}

/* What follows a feed, outside of the parser: the handler may do anything but free us. */
static void after_feed(struct conn *c)
{
	struct av_req *fresh = AV_TAKE_PTR(c->fresh);
	if (fresh) {
		c->served = true;
		conn_set_phase(c, PHASE_NONE);
		req_dispatch(fresh);
	}
	if (c->proto == CONN_H1 && c->req)
		req_deliver_end(c->req);
	if (c->discarded > SERVER_DISCARD_MAX && c->proto == CONN_H1) {
		c->closing = true;
		if (c->req)
			c->req->keep_alive = false;
	}
}

size_t h1_consume(struct conn *c, const char *p, size_t n)
{
	size_t used = 0, idle_steps = 0;
	if (c->req && c->req->tunnel) {
		if (!c->req->ended)
			req_deliver(c->req, av_str_n(p, n));
		return n;
	}
	while (used < n && c->proto == CONN_H1 && !c->error && h1_can_read(c)) {
		struct av_err err = {0};
		size_t step = 0;
		int st = av_http1_feed(c->h1, p + used, n - used, &step, &err);
		used += step;
		if (st < 0) {
			violated(c, &err);
			return n;
		}
		after_feed(c);
		idle_steps = step ? 0 : idle_steps + 1;
		if (idle_steps > 1)
			break;
	}
	return c->closing ? n : used;
}

void h1_eof(struct conn *c)
{
	if (!c->req) {
		conn_fail(c, -ECONNRESET); /* nobody to tell */
		return;
	}
	if (c->req->tunnel)
		c->req->body_complete = true; /* told by the next step; our side goes on */
	else if (!c->req->ended || !c->req->body_complete)
		conn_fail(c, -ECONNRESET);
	c->hangup = true;
}

void h1_head_timeout(struct conn *c)
{
	bool silent = c->phase == PHASE_KEEPALIVE || c->phase == PHASE_DISCARD ||
	              c->proto == CONN_DETECT || !c->h1 || av_http1_idle(c->h1);
	if (c->phase != PHASE_KEEPALIVE)
		c->server->metrics.timeouts++;
	if (silent) {
		c->closing = true;
		return;
	}
	struct av_err err = {0};
	av_err_set(&err, AV_ERR_REQUEST_TIMEOUT, "the request head was not complete after %u ms",
	    c->server->cfg.head_timeout_ms);
	h1_refuse(c, &err);
}

/* ---- the response ---- */

static int h1_start(struct av_req *req, struct av_http_head *head, bool end)
{
	struct conn *c = req->conn;
	struct av_http_server *s = c->server;
	bool http10 = req->head.minor_version == 0;
	bool unsized = !req->no_body && !end && head->content_length < 0;
	bool connect = av_str_eq_c(req->head.method, "CONNECT");
	req->chunked = unsized && !http10;
	/* A body that nobody asked for is dropped if it is small; else the connection ends. */
	bool body_in_way = !req->body_complete && !req->body_started &&
	                   (req->head.expect_continue || req->head.content_length < 0 ||
	                       req->head.content_length > SERVER_DISCARD_MAX);
	req->keep_alive = req->head.keep_alive && !s->stopping && !c->hangup && !body_in_way &&
	                  !connect && !(unsized && http10);
	head->chunked = req->chunked;
	head->keep_alive = req->keep_alive;
	int rc = 0;
	if (req->keep_alive) {
		if (http10)
			rc = av_http_head_add_c(head, "connection", "keep-alive");
		if (rc == 0)
			rc = av_http_head_add_c(head, "keep-alive", s->keep_alive);
	}
	/* A head that is refused half way must leave nothing behind. */
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(256 * 1024);
	if (rc == 0)
		rc = av_http1_write_head(&text, head);
	if (rc == 0)
		rc = av_buf_append_str(&c->out, av_buf_str(&text));
	return rc;
}

/* Skips done bytes of the pieces and appends the rest to the buffer. */
static int keep_rest(struct av_buf *out, const struct iovec *iov, int n, size_t done)
{
	for (int i = 0; i < n; i++) {
		if (done >= iov[i].iov_len) {
			done -= iov[i].iov_len;
			continue;
		}
		int rc =
		    av_buf_append(out, (const char *)iov[i].iov_base + done, iov[i].iov_len - done);
		if (rc < 0)
			return rc;
		done = 0;
	}
	return 0;
}

static int h1_write(struct av_req *req, struct av_str data)
{
	struct conn *c = req->conn;
	char chunk[18];
	struct iovec iov[3];
	int n = 0;
	if (req->chunked)
		iov[n++] = (struct iovec){chunk, av_http1_chunk_head(chunk, data.n)};
	iov[n++] = (struct iovec){(void *)(uintptr_t)data.p, data.n};
	if (req->chunked)
		iov[n++] = (struct iovec){(void *)(uintptr_t) "\r\n", 2};
	size_t done = 0;
	if (data.n >= DIRECT_WRITE_BYTES && !c->blocked && conn_flush_out(c)) {
		ssize_t r = tp_writev(&c->tp, iov, n);
		if (r < 0 && r != -EAGAIN) {
			conn_fail(c, -ECONNRESET);
			return -EPIPE;
		}
		done = r > 0 ? (size_t)r : 0;
		conn_wrote(c, done, done < data.n, req->write_timeout_ms);
	}
	if (c->error)
		return -EPIPE;
	int rc = keep_rest(&c->out, iov, n, done);
	if (rc < 0) {
		/* The framing is broken from here on. */
		conn_fail(c, rc);
		c->reset = true;
	}
	return rc;
}

int h1_tunnel(struct av_req *req, struct av_http_head *head)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(256 * 1024);
	int rc = av_http1_write_head(&text, head);
	if (rc == 0)
		rc = av_buf_append_str(&req->conn->out, av_buf_str(&text));
	if (rc < 0)
		return rc;
	req->status = 101;
	req->tunnel = true;
	req->keep_alive = false;
	/* The parser is done; what it left is the tunnel's. */
	req->body_complete = req->body_end_told = false;
	return 0;
}

static int h1_end(struct av_req *req, const struct av_http_head *trailers)
{
	if (!req->chunked)
		return 0;
	int rc = av_http1_write_last_chunk(&req->conn->out, trailers);
	if (rc < 0)
		conn_fail(req->conn, rc);
	return rc;
}

static void h1_abort(struct av_req *req, int status)
{
	conn_fail(req->conn, status);
	req->conn->reset = true;
	req->ended = true;
	conn_schedule(req->conn);
}

static size_t h1_pending(const struct av_req *req)
{
	return req->conn->out.n;
}

static int h1_proceed(struct av_req *req)
{
	if (req->head.minor_version == 0)
		return 0;
	req->head.expect_continue = false;
	return av_buf_append_c(&req->conn->out, "HTTP/1.1 100 Continue\r\n\r\n");
}

static void h1_poison(struct av_req *req)
{
	req->head.keep_alive = false;
}

const struct req_ops h1_ops = {
    .start = h1_start,
    .write = h1_write,
    .end = h1_end,
    .abort = h1_abort,
    .pending = h1_pending,
    .proceed = h1_proceed,
    .poison = h1_poison,
};

/* ---- settling ---- */

/* The response has left. */
static void finished(struct conn *c)
{
	struct av_req *req = AV_TAKE_PTR(c->req);
	bool keep = req->keep_alive && !c->server->stopping;
	c->discarding = !req->body_complete;
	req_close(req, 0);
	if (!keep)
		c->closing = true;
	else if (c->hangup && c->in.n == 0 && !c->discarding)
		c->closing = true;
}

bool h1_step(struct conn *c)
{
	struct av_req *req = c->req;
	if (req && req->want_drain && c->out.n <= req->low_mark) {
		req_drained(req);
		return true;
	}
	if (req && req->ended && c->out.n == 0 && !tp_waits(&c->tp)) {
		finished(c);
		return true;
	}
	/* The FIN of one whose body is not read now may stand behind bytes of it: gone all the
	 * same. */
	if (req && c->hangup && (req->body_complete || !req_wants_body(req)) && !req->ended &&
	    !req->tunnel) {
		conn_fail(c, -ECONNRESET);
		return false;
	}
	if (req)
		req_deliver_end(req);
	if (c->in.n > 0 && h1_can_read(c)) {
		size_t used = h1_consume(c, c->in.p + c->in.off, c->in.n);
		av_buf_consume(&c->in, AV_MIN(used, c->in.n));
		return used > 0;
	}
	if (!c->req && !c->closing) {
		if (c->discarding)
			conn_set_phase(c, PHASE_DISCARD);
		else if (c->served && av_http1_idle(c->h1))
			conn_set_phase(c, PHASE_KEEPALIVE);
		else
			conn_set_phase(c, PHASE_HEAD);
	}
	return false;
}
