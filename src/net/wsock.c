/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wsock.c - WebSocket sessions on connections of the server
 *
 * The codec (proto/ws.h) frames and collects; here are the session's timers, watermarks and the end
 * of its life. The connection owns the session; its entry points call ws_*() below.
 */
#include "net/wsock.h"

#include <errno.h>
#include <stdlib.h>

#include "net/server_internal.h"
#include "proto/ws.h"

#include "base/banned.h"

#define PING_MS        30000
#define CLOSE_MS       10000
#define PAUSED_PING_MS 10000
/* There may be hundreds of sessions whose clients do not read: less may wait than for a response.
 */
#define HIGH_MARK ((size_t)256 * 1024)
#define LOW_MARK  ((size_t)64 * 1024)
/* Messages from this size on are written at once, without a copy; smaller ones of a turn of the
 * loop leave together. */
#define DIRECT_MIN ((size_t)4096)

struct av_wsock {
	struct conn *conn;
	struct av_ws *codec; /* owned */
	const struct av_wsock_handler *handler;
	void *ctx;
	struct av_timer timer; /* open: silence of the peer; closing: patience */
	bool pinged;           /* a ping is out and nothing came since */
	bool paused;
	bool closing; /* we began to close, or the peer did */
	bool want_drain;
	bool over;      /* protocol error: flush and close */
	int close_code; /* the peer's, or ABNORMAL */
};

static size_t high_mark(const struct conn *c)
{
	return AV_MIN((size_t)c->server->cfg.high_watermark_bytes, HIGH_MARK);
}

static size_t low_mark(const struct conn *c)
{
	return AV_MIN((size_t)c->server->cfg.low_watermark_bytes, LOW_MARK);
}

/* Until the peer's silence counts. */
static void start_timer(struct av_wsock *ws)
{
	av_timer_start(&ws->timer, ws->closing ? CLOSE_MS : ws->paused ? PAUSED_PING_MS : PING_MS);
}

/* ---- events ---- */

static void on_message(void *ctx, enum av_ws_opcode op, const uint8_t *p, size_t n)
{
	struct av_wsock *ws = ctx;
	if (!ws->closing && ws->handler->on_message)
		ws->handler->on_message(
		    ws->ctx, ws, op == AV_WS_TEXT, av_str_n((const char *)p, n));
}

static void on_peer_close(void *ctx, uint16_t code, struct av_str reason)
{
	struct av_wsock *ws = ctx;
	(void)reason;
	ws->close_code = code;
	ws->closing = true;
}

static const struct av_ws_events events = {
    .on_message = on_message,
    .on_close = on_peer_close,
};

static void on_timer(void *ctx)
{
	struct av_wsock *ws = ctx;
	struct conn *c = ws->conn;
	/* While our bytes wait for the peer the write timer watches it; while we do not read, its
	 * silence says nothing. But one that has hung up waits for nothing any more, and what it
	 * sent before has had its time. */
	bool blind = ws->paused || c->blocked;
	if (ws->closing || (ws->pinged && !blind) || (blind && c->hangup)) {
		c->server->metrics.timeouts++;
		c->reset = true;
		conn_fail(c, -ETIMEDOUT);
		return;
	}
	/* While we do not read, the answer is not seen, nor is a FIN behind what the peer sent
	 * before: but the machine of a peer that is gone answers a ping with a reset. */
	if (!c->blocked && av_ws_send(ws->codec, AV_WS_PING, "", 0) == 0)
		ws->pinged = !blind;
	start_timer(ws);
	conn_schedule(c);
}

/* ---- called by the connection ---- */

void ws_hangup(struct conn *c)
{
	/* If it is read, its end is found at once; else the timer finds it. */
	if (!c->ws->closing)
		av_timer_start(&c->ws->timer, CLOSE_MS);
}

bool ws_can_read(const struct conn *c)
{
	const struct av_wsock *ws = c->ws;
	if (!ws || ws->over || c->closing)
		return false;
	return !ws->paused && av_ws_buffered(ws->codec) <= high_mark(c);
}

void ws_receive(struct conn *c, const char *p, size_t n, size_t *ret_used)
{
	struct av_wsock *ws = c->ws;
	bool was_closing = ws->closing;
	size_t used = 0;
	while (used < n && ws_can_read(c) && !c->error) {
		ssize_t r = av_ws_recv(ws->codec, p + used, n - used);
		if (r < 0) {
			c->server->metrics.protocol_errors++;
			ws->over = ws->closing = true;
			used = n;
			break;
		}
		used += (size_t)r;
		if (av_ws_close_received(ws->codec)) {
			used = n; /* RFC 6455 section 5.5.1: nothing counts after Close */
			break;
		}
		if (r == 0)
			break;
	}
	ws->pinged = false;
	if (!was_closing)
		start_timer(ws);
	*ret_used = used;
}

static void flush(struct conn *c)
{
	struct av_wsock *ws = c->ws;
	while (!c->blocked && !c->error && c->out.n == 0 && av_ws_buffered(ws->codec) > 0) {
		struct av_str out = av_ws_output(ws->codec);
		struct iovec iov = {(void *)(uintptr_t)out.p, out.n};
		ssize_t r = tp_writev(&c->tp, &iov, 1);
		if (r < 0 && r != -EAGAIN) {
			conn_fail(c, -ECONNRESET);
			return;
		}
		size_t done = r > 0 ? (size_t)r : 0;
		av_ws_output_done(ws->codec, done);
		conn_wrote(c, done, done < out.n, c->ws_write_timeout_ms);
	}
}

bool ws_step(struct conn *c)
{
	struct av_wsock *ws = c->ws;
	if (!ws)
		return false;
	flush(c);
	if (c->error)
		return false;
	size_t waiting = c->out.n + av_ws_buffered(ws->codec);
	if (waiting == 0 && (ws->over || av_ws_done(ws->codec))) {
		ws_lost(c);
		c->closing = true;
		return false;
	}
	if (ws->want_drain && waiting <= low_mark(c)) {
		ws->want_drain = false;
		if (!ws->closing && ws->handler->on_drain)
			ws->handler->on_drain(ws->ctx, ws);
		return true;
	}
	if (c->in.n > 0 && ws_can_read(c)) {
		size_t used = 0;
		ws_receive(c, c->in.p + c->in.off, c->in.n, &used);
		av_buf_consume(&c->in, used);
		return used > 0;
	}
	return false;
}

void ws_lost(struct conn *c)
{
	struct av_wsock *ws = AV_TAKE_PTR(c->ws);
	ws->closing = ws->over = true;
	av_timer_stop(&ws->timer);
	c->server->metrics.websockets_open--;
	if (ws->handler->on_close)
		ws->handler->on_close(ws->ctx, ws, ws->close_code);
	av_ws_free(ws->codec);
	free(ws);
}

void ws_stop(struct conn *c)
{
	if (c->ws)
		av_wsock_close(c->ws, AV_WS_CLOSE_GOING_AWAY, "server stops");
}

/* ---- upgrade ---- */

bool av_req_is_websocket(const struct av_req *req)
{
	return !req->stream && av_ws_check_request(&req->head, NULL) == 0;
}

bool av_req_ws_offers(const struct av_req *req, const char *subprotocol)
{
	return av_ws_offers_protocol(&req->head, subprotocol);
}

static int write_accept(struct av_req *req, const char *subprotocol)
{
	struct conn *c = req->conn;
	struct av_http_head head;
	av_http_head_init(&head);
	int rc = av_ws_accept_head(&head, &req->head, subprotocol);
	if (rc == 0)
		rc = server_headers(c->server, &head, req);
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(65536);
	if (rc == 0)
		rc = av_http1_write_head(&text, &head);
	if (rc == 0)
		rc = av_buf_append_str(&c->out, av_buf_str(&text));
	av_http_head_clear(&head);
	return rc;
}

int av_req_upgrade_ws(struct av_req *req, const char *subprotocol,
    const struct av_wsock_handler *handler, void *ctx, struct av_wsock **ret)
{
	struct conn *c = req->conn;
	if (req->dead || req->taken)
		return -EPIPE;
	if (req->status || req->ended)
		return -EALREADY;
	if (!av_req_is_websocket(req) || !req->body_complete)
		return -EPROTO;
	struct av_wsock *ws = calloc(1, sizeof(*ws));
	if (!ws)
		return -ENOMEM;
	struct av_ws_config cfg = AV_WS_CONFIG_SERVER;
	cfg.max_message = AV_WSOCK_MESSAGE_MAX;
	cfg.high_mark = high_mark(c);
	ws->codec = av_ws_new(&cfg, &events, ws);
	int rc = ws->codec ? write_accept(req, subprotocol) : -ENOMEM;
	if (rc < 0) {
		av_ws_free(ws->codec);
		free(ws);
		return rc;
	}
	ws->conn = c;
	ws->handler = handler;
	ws->ctx = ctx;
	ws->close_code = AV_WS_CLOSE_ABNORMAL;
	av_timer_init(&ws->timer, c->server->loop, on_timer, ws);
	av_timer_start(&ws->timer, PING_MS);
	c->ws = ws;
	c->ws_write_timeout_ms = c->server->cfg.write_timeout_ms;
	c->proto = CONN_WS;
	conn_set_phase(c, PHASE_NONE);
	c->server->metrics.websockets_total++;
	c->server->metrics.websockets_open++;
	c->server->metrics.responses[1]++;
	c->req = NULL;
	req_free(req);
	/* The parser stays until the connection ends: this may be one of its callers. */
	conn_schedule(c);
	if (c->server->stopping)
		ws_stop(c);
	*ret = ws;
	return 0;
}

/* ---- called by the owner ---- */

/* Writes as much as the socket takes of a message that need not wait for another; what is left is
 * copied. */
static int send_direct(
    struct av_wsock *ws, enum av_ws_opcode op, struct av_str head, struct av_str body)
{
	struct conn *c = ws->conn;
	uint8_t frame[AV_WS_HEADER_MAX];
	size_t k = av_ws_header(frame, op, head.n + body.n);
	struct av_str parts[3] = {av_str_n((const char *)frame, k), head, body};
	struct iovec iov[3];
	for (size_t i = 0; i < AV_ARRAY_LEN(parts); i++)
		iov[i] = (struct iovec){(void *)(uintptr_t)parts[i].p, parts[i].n};
	ssize_t r = tp_writev(&c->tp, iov, AV_ARRAY_LEN(iov));
	if (r < 0 && r != -EAGAIN) {
		conn_fail(c, -ECONNRESET);
		return -EPIPE;
	}
	size_t done = r > 0 ? (size_t)r : 0, left = k + head.n + body.n - done;
	conn_wrote(c, done, left > 0, c->ws_write_timeout_ms);
	if (left == 0)
		return 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(parts); i++) {
		size_t gone = AV_MIN(done, parts[i].n);
		done -= gone;
		if (av_ws_append(ws->codec, av_str_n(parts[i].p + gone, parts[i].n - gone)) < 0) {
			/* Half a message is out. */
			av_wsock_abort(ws);
			return -ENOMEM;
		}
	}
	conn_schedule(c);
	return 0;
}

int av_wsock_send2(struct av_wsock *ws, bool text, struct av_str head, struct av_str body)
{
	enum av_ws_opcode op = text ? AV_WS_TEXT : AV_WS_BINARY;
	struct conn *c = ws->conn;
	int rc;
	if (ws->closing || c->error)
		return -EPIPE;
	if (av_ws_buffered(ws->codec) + head.n + body.n > AV_RES_PENDING_MAX) {
		av_wsock_abort(ws);
		return -ENOBUFS;
	}
	if (head.n + body.n >= DIRECT_MIN && !c->blocked && av_wsock_pending(ws) == 0) {
		rc = send_direct(ws, op, head, body);
	} else {
		rc = av_ws_send2(ws->codec, op, head, body);
		conn_schedule(c);
	}
	if (rc < 0)
		return rc;
	if (av_wsock_pending(ws) <= high_mark(c))
		return 0;
	ws->want_drain = true;
	return 1;
}

int av_wsock_send(struct av_wsock *ws, bool text, struct av_str data)
{
	return av_wsock_send2(ws, text, AV_STR(""), data);
}

void av_wsock_pause(struct av_wsock *ws)
{
	if (ws->paused)
		return;
	ws->paused = true;
	av_ws_pause(ws->codec);
	if (!ws->closing)
		start_timer(ws);
}

void av_wsock_resume(struct av_wsock *ws)
{
	if (!ws->paused)
		return;
	ws->paused = false;
	av_ws_resume(ws->codec);
	ws->pinged = false;
	if (!ws->closing)
		start_timer(ws);
	conn_schedule(ws->conn);
}

void av_wsock_close(struct av_wsock *ws, int code, const char *reason)
{
	if (ws->closing)
		return;
	ws->closing = true;
	if (av_ws_close(ws->codec, (uint16_t)code, reason) < 0)
		ws->over = true;
	/* The peer's Close must be read. */
	av_wsock_resume(ws);
	av_timer_start(&ws->timer, CLOSE_MS);
	conn_schedule(ws->conn);
}

void av_wsock_set_write_timeout(struct av_wsock *ws, uint32_t timeout_ms)
{
	ws->conn->ws_write_timeout_ms = timeout_ms;
}

void av_wsock_set_message_max(struct av_wsock *ws, size_t bytes)
{
	av_ws_set_max_message(ws->codec, bytes);
}

void av_wsock_abort(struct av_wsock *ws)
{
	ws->closing = true;
	ws->conn->reset = true;
	conn_fail(ws->conn, -ECANCELED);
}

size_t av_wsock_pending(const struct av_wsock *ws)
{
	return ws->conn->out.n + av_ws_buffered(ws->codec);
}
