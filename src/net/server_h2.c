/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_h2.c - HTTP/2 on a connection: many requests at once
 *
 * The codec holds response bytes and windows. A body that the handler does not want yet is kept in
 * the request (at most one stream window) and not consumed, so the peer stops by itself.
 */
#include <errno.h>
#include <stdlib.h>

#include "net/server_internal.h"

#include "base/banned.h"

#define OUTPUT_PIECES    32
#define OUTPUT_BYTES     (256 * 1024)
#define OUTPUTS_PER_STEP 4
/* A client that still sends its body may find our answer and stop by itself; some lose the answer
 * when a reset follows on its heels. */
#define UNREAD_BODY_MS 1000

static void on_stall(void *ctx)
{
	struct av_req *req = ctx;
	if (req->ended && av_http2_buffered(req->stream) == 0) {
		/* RFC 9113 section 8.1: the answer is complete, the rest of the request is not
		 * wanted. */
		av_http2_reset(req->stream, AV_HTTP2_NO_ERROR);
		conn_schedule(req->conn);
		return;
	}
	uint64_t sent = req->written - av_http2_buffered(req->stream);
	if (sent > req->sent_mark) {
		req->sent_mark = sent;
		av_timer_start(&req->write_timer, req->write_timeout_ms);
		return;
	}
	req->conn->server->metrics.timeouts++;
	req->ops->abort(req, -ETIMEDOUT);
}

/* ---- events of the codec ---- */

static void on_head(void *ctx, struct av_http2_stream *s, struct av_http_head *head, bool end)
{
	struct conn *c = ctx;
	struct av_req *req = req_new(c, &h2_ops, head);
	if (!req) {
		av_http2_reset(s, AV_HTTP2_REFUSED_STREAM);
		return;
	}
	req->stream = s;
	req->body_complete = end;
	req->head.has_body = !end;
	av_timer_init(&req->write_timer, c->server->loop, on_stall, req);
	av_http2_stream_set_user(s, req);
	av_list_append(&c->reqs, &req->link);
	c->served = true;
	conn_set_phase(c, PHASE_NONE);
	req_dispatch(req);
}

static void on_body(void *ctx, struct av_http2_stream *s, const uint8_t *p, size_t n)
{
	struct av_req *req = av_http2_stream_user(s);
	(void)ctx;
	if (!req || req->ended || req->taken) {
		/* Past the limit the peer's window closes, and it finds our answer. */
		if (!req || (req->discarded += n) <= SERVER_DISCARD_MAX)
			av_http2_consume(s, n);
		return;
	}
	if (req_wants_body(req) && req->body.n == 0) {
		req_deliver(req, av_str_n((const char *)p, n));
		av_http2_consume(s, n);
		return;
	}
	if (av_buf_append(&req->body, p, n) < 0)
		req->ops->abort(req, -ENOMEM);
}

static void on_end(void *ctx, struct av_http2_stream *s, struct av_http_head *trailers)
{
	struct av_req *req = av_http2_stream_user(s);
	(void)ctx;
	(void)trailers;
	if (!req)
		return;
	req->body_complete = true;
	if (req->body.n == 0)
		req_deliver_end(req);
}

static void on_close(void *ctx, struct av_http2_stream *s, uint32_t error)
{
	struct av_req *req = av_http2_stream_user(s);
	(void)ctx;
	if (!req)
		return;
	req_close(req, error == AV_HTTP2_NO_ERROR && req->ended ? 0 : -ECONNRESET);
}

static const struct av_http2_events events = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_close = on_close,
};

int h2_begin(struct conn *c)
{
	const struct av_http_server_config *cfg = &c->server->cfg;
	struct av_http2_config h2 = AV_HTTP2_CONFIG_DEFAULT;
	h2.limits.head_bytes = cfg->max_head_bytes;
	h2.limits.header_count = cfg->max_headers;
	h2.max_streams = cfg->max_streams;
	h2.window = SERVER_H2_WINDOW;
	h2.connection_window = SERVER_H2_CONNECTION_WINDOW;
	h2.low_mark = cfg->low_watermark_bytes;
	c->h2 = av_http2_new_server(&h2, &events, c);
	if (!c->h2)
		return -ENOMEM;
	c->proto = CONN_H2;
	return 0;
}

int h2_receive(struct conn *c, const char *p, size_t n)
{
	struct av_err err = {0};
	int rc = av_http2_recv(c->h2, p, n, &err);
	if (rc == 0)
		return 0;
	c->server->metrics.protocol_errors++;
	/* The GOAWAY that says why, if the socket takes it. */
	struct iovec iov[OUTPUT_PIECES];
	int pieces = c->blocked ? 0 : av_http2_output(c->h2, iov, OUTPUT_PIECES, OUTPUT_BYTES);
	if (pieces > 0 && tp_writev(&c->tp, iov, pieces) < 0)
		return -EPROTO;
	return rc;
}

/* ---- the response ---- */

static int h2_start(struct av_req *req, struct av_http_head *head, bool end)
{
	return av_http2_respond(req->stream, head, end);
}

static int h2_write(struct av_req *req, struct av_str data)
{
	return av_http2_write(req->stream, data.p, data.n);
}

static int h2_end(struct av_req *req, const struct av_http_head *trailers)
{
	if (av_http2_local_ended(req->stream))
		return 0;
	return av_http2_end(req->stream, trailers);
}

static void h2_abort(struct av_req *req, int status)
{
	if (!req->close_status)
		req->close_status = status;
	req->ended = true;
	req_body_timer(req);
	av_http2_reset(req->stream, AV_HTTP2_INTERNAL_ERROR);
	conn_schedule(req->conn);
}

static size_t h2_pending(const struct av_req *req)
{
	return av_http2_buffered(req->stream);
}

static int h2_proceed(struct av_req *req)
{
	(void)req; /* the stream's window is all that an HTTP/2 client waits for */
	return 0;
}

static void h2_poison(struct av_req *req)
{
	(void)req; /* other streams are not concerned */
}

const struct req_ops h2_ops = {
    .start = h2_start,
    .write = h2_write,
    .end = h2_end,
    .abort = h2_abort,
    .pending = h2_pending,
    .proceed = h2_proceed,
    .poison = h2_poison,
};

/* ---- settling ---- */

/* True when all that can be sent now was sent. */
static bool flush(struct conn *c)
{
	for (int i = 0; i < OUTPUTS_PER_STEP && !c->blocked && !c->error; i++) {
		struct iovec iov[OUTPUT_PIECES];
		int n = av_http2_output(c->h2, iov, OUTPUT_PIECES, OUTPUT_BYTES);
		if (n < 0)
			conn_fail(c, n);
		if (n <= 0)
			return n == 0;
		size_t total = 0;
		for (int k = 0; k < n; k++)
			total += iov[k].iov_len;
		ssize_t r = tp_writev(&c->tp, iov, n);
		if (r < 0 && r != -EAGAIN) {
			conn_fail(c, -ECONNRESET);
			return false;
		}
		size_t done = r > 0 ? (size_t)r : 0;
		conn_wrote(c, done, done < total, c->server->cfg.write_timeout_ms);
		av_http2_output_done(c->h2, done);
	}
	return false;
}

static void watch_stall(struct av_req *req, size_t pending)
{
	if (pending == 0 || req->write_timeout_ms == 0) {
		av_timer_stop(&req->write_timer);
	} else if (!av_timer_active(&req->write_timer)) {
		req->sent_mark = req->written - pending;
		av_timer_start(&req->write_timer, req->write_timeout_ms);
	}
}

/* True when a handler was called, who may have made more to do. */
static bool settle_req(struct av_req *req, bool flushed)
{
	size_t pending = av_http2_buffered(req->stream);
	if (!req->ended || pending > 0 || req->body_complete)
		watch_stall(req, pending);
	else if (flushed && !av_timer_active(&req->write_timer))
		av_timer_start(&req->write_timer, UNREAD_BODY_MS);
	bool again = false;
	if (req->want_drain && pending <= req->low_mark) {
		req_drained(req);
		again = true;
	}
	if (req->body.n > 0 && (req_wants_body(req) || req->ended)) {
		struct av_buf body = req->body;
		av_buf_init(&req->body, SERVER_H2_WINDOW);
		if (!req->ended)
			req_deliver(req, av_buf_str(&body));
		av_http2_consume(req->stream, body.n);
		av_buf_clear(&body);
		again = true;
	}
	if (req->body.n == 0)
		req_deliver_end(req);
	return again;
}

bool h2_step(struct conn *c)
{
	bool flushed = flush(c), again = false;
	if (c->error)
		return false;
	struct av_req *req;
	AV_LIST_FOREACH(req, &c->reqs, struct av_req, link)
	again |= settle_req(req, flushed);
	if (av_list_empty(&c->reqs)) {
		conn_set_phase(c, c->served ? PHASE_KEEPALIVE : PHASE_HEAD);
		if (flushed && av_http2_done(c->h2))
			c->closing = true;
	}
	return again || (av_http2_want_write(c->h2) && !c->blocked);
}
