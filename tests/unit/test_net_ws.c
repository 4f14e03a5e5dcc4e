/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_net_ws.c - WebSocket sessions of the server against a client made of proto's codec
 */
#include "net_util.h"
#include "net/wsock.h"
#include "proto/ws.h"

#include "base/banned.h"

static struct av_http_server *server;
static uint16_t port;

static struct {
	struct av_wsock *ws;
	int messages, closes, drains;
	int code;
	uint64_t to_send;
	bool echo;
	bool pause_each;
} seen;

static void send_more(struct av_wsock *ws)
{
	static char block[65536];
	while (seen.to_send > 0) {
		size_t n = AV_MIN(sizeof(block), seen.to_send);
		int rc = av_wsock_send(ws, false, av_str_n(block, n));
		if (rc < 0)
			return;
		seen.to_send -= n;
		if (rc == 1)
			return;
	}
}

static void on_message(void *ctx, struct av_wsock *ws, bool text, struct av_str data)
{
	(void)ctx;
	seen.messages++;
	if (seen.echo)
		av_wsock_send(ws, text, data);
	if (seen.pause_each)
		av_wsock_pause(ws);
}

static void on_drain(void *ctx, struct av_wsock *ws)
{
	(void)ctx;
	seen.drains++;
	send_more(ws);
}

static void on_close(void *ctx, struct av_wsock *ws, int code)
{
	(void)ctx;
	(void)ws;
	seen.ws = NULL;
	seen.closes++;
	seen.code = code;
}

static const struct av_wsock_handler handler = {
    .on_message = on_message,
    .on_drain = on_drain,
    .on_close = on_close,
};

static void on_request(void *ctx, struct av_req *req)
{
	(void)ctx;
	const char *protocol = av_req_ws_offers(req, "p.v1") ? "p.v1" : NULL;
	int rc = av_req_upgrade_ws(req, protocol, &handler, NULL, &seen.ws);
	if (rc < 0)
		av_res_send(req, 426, NULL, 0, AV_STR("upgrade"));
}

/* ---- the client ---- */

static struct {
	struct av_ws *codec;
	struct av_buf got;
	int messages;
	bool text;
	int close_code;
} cl;

static void cl_message(void *ctx, enum av_ws_opcode op, const uint8_t *p, size_t n)
{
	(void)ctx;
	cl.messages++;
	cl.text = op == AV_WS_TEXT;
	av_buf_append(&cl.got, p, n);
}

static void cl_close(void *ctx, uint16_t code, struct av_str reason)
{
	(void)ctx;
	(void)reason;
	cl.close_code = code;
}

static const struct av_ws_events cl_events = {.on_message = cl_message, .on_close = cl_close};

#define UPGRADE                                                                                    \
	"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"             \
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

static struct peer dial(const char *more)
{
	struct peer p = peer_connect(port);
	peer_send(&p, UPGRADE);
	peer_send(&p, more);
	peer_send(&p, "\r\n");
	memset(&seen, 0, sizeof(seen));
	seen.echo = true;
	av_ws_free(cl.codec);
	av_buf_clear(&cl.got);
	memset(&cl, 0, sizeof(cl));
	av_buf_init(&cl.got, 256UL * 1024 * 1024);
	struct av_ws_config cfg = {
	    .client = true, .max_message = 64UL * 1024 * 1024, .high_mark = 64UL * 1024 * 1024};
	cl.codec = av_ws_new(&cfg, &cl_events, NULL);
	return p;
}

static void cl_flush(struct peer *p)
{
	while (av_ws_buffered(cl.codec) > 0) {
		struct av_str out = av_ws_output(cl.codec);
		if (!peer_send_n(p, out.p, out.n))
			return;
		av_ws_output_done(cl.codec, out.n);
	}
}

static void cl_read(struct peer *p)
{
	peer_read(p);
	if (p->in.n > 0) {
		ssize_t r = av_ws_recv(cl.codec, p->in.p + p->in.off, p->in.n);
		if (r > 0)
			av_buf_consume(&p->in, (size_t)r);
	}
	cl_flush(p);
}

#define cl_until(p, cond)                                                                          \
	({                                                                                         \
		int64_t end_ = av_mono_ns() + 5 * AV_NS_PER_S;                                     \
		while (!(cond) && av_mono_ns() < end_) {                                           \
			cl_read(p);                                                                \
			av_loop_run_once(loop, 2);                                                 \
		}                                                                                  \
		(cond);                                                                            \
	})

/* False, as a failed check, when the server has no session; then there is nothing to call. */
static bool session(void)
{
	if (!seen.ws)
		ok(false, "the session is open");
	return seen.ws;
}

static void test_echo(void)
{
	struct peer p = dial("Sec-WebSocket-Protocol: other, p.v1\r\n");
	ok(peer_expect(&p, "\r\n\r\n") && peer_find(&p, "HTTP/1.1 101 "), "101");
	ok(peer_find(&p, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the accept key of RFC 6455");
	ok(peer_find(&p, "p.v1\r\n"), "the subprotocol");
	peer_take(&p, "\r\n\r\n");
	ok(av_ws_send(cl.codec, AV_WS_TEXT, "hello", 5) == 0, "a message");
	cl_flush(&p);
	ok(cl_until(&p, cl.messages == 1) && cl.text, "comes back as text");
	is_avstr(av_buf_str(&cl.got), "hello", "unchanged");
	ok(av_ws_send(cl.codec, AV_WS_BINARY, "\x00\xff", 2) == 0, "a binary one");
	cl_flush(&p);
	ok(cl_until(&p, cl.messages == 2) && !cl.text, "too");
	av_buf_reset(&cl.got);
	static char big[900000];
	memset(big, 'b', sizeof(big));
	ok(av_ws_send(cl.codec, AV_WS_BINARY, big, sizeof(big)) == 0, "900 kB");
	cl_flush(&p);
	ok(cl_until(&p, cl.messages == 3) && cl.got.n == sizeof(big), "too");
	if (session()) {
		av_wsock_close(seen.ws, 1000, "bye");
		is_int(av_wsock_send(seen.ws, true, AV_STR("x")), -EPIPE,
		    "nothing can be sent after close");
	}
	ok(cl_until(&p, seen.closes == 1), "closed from the server's side");
	is_int(cl.close_code, 1000, "with its code");
	is_int(seen.code, 1000, "and the peer's answer");
	ok(peer_ended(&p), "the connection ends");
	peer_close(&p);
	p = dial("");
	peer_take(&p, "\r\n\r\n");
	av_ws_close(cl.codec, 4001, "later");
	cl_flush(&p);
	ok(cl_until(&p, seen.closes == 1), "closed from the client's side");
	is_int(seen.code, 4001, "with its code");
	ok(peer_ended(&p) && !p.error, "the server closes the connection");
	peer_close(&p);
}

static void test_bad(void)
{
	struct peer p = peer_connect(port);
	peer_send(&p, "GET /ws HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(peer_take(&p, "426 "), "no handshake, no session");
	peer_close(&p);
	p = dial("");
	peer_take(&p, "\r\n\r\n");
	peer_send_n(&p,
	    "\x81\x03"
	    "abc",
	    5);
	ok(cl_until(&p, seen.closes == 1) && cl_until(&p, p.eof), "an unmasked frame ends it");
	is_int(cl.close_code, 1002, "with 1002");
	peer_close(&p);
	p = dial("");
	peer_take(&p, "\r\n\r\n");
	static char big[AV_WSOCK_MESSAGE_MAX + 1];
	ok(av_ws_send(cl.codec, AV_WS_BINARY, big, sizeof(big)) == 0, "a message over the limit");
	cl_flush(&p);
	ok(cl_until(&p, cl.close_code != 0), "is refused");
	is_int(cl.close_code, 1009, "with 1009");
	is_int(seen.messages, 0, "and not delivered");
	peer_close(&p);
	pump_until(seen.closes == 1);
	p = dial("");
	peer_take(&p, "\r\n\r\n");
	peer_close(&p);
	ok(pump_until(seen.closes == 1), "a peer that vanishes");
	is_int(seen.code, AV_WS_CLOSE_ABNORMAL, "is an abnormal end");
	p = dial("");
	peer_take(&p, "\r\n\r\n");
	if (session())
		av_wsock_abort(seen.ws);
	ok(peer_ended(&p) && p.error == ECONNRESET, "abort resets");
	is_int(seen.closes, 1, "and closes");
	peer_close(&p);
}

/* Our 64 MiB to a client that reads along. */
static void download(struct peer *p)
{
	seen.to_send = 64UL * 1024 * 1024;
	int64_t t0 = av_mono_ns();
	send_more(seen.ws);
	ok(seen.to_send > 32UL * 1024 * 1024, "a sender is told to wait");
	pump(50);
	ok(seen.ws && av_wsock_pending(seen.ws) <= 2 * 1024 * 1024, "what waits is bounded");
	uint64_t got = 0;
	while (got < 64UL * 1024 * 1024 && av_mono_ns() - t0 < 20 * AV_NS_PER_S) {
		cl_read(p);
		got += cl.got.n;
		av_buf_reset(&cl.got);
		av_loop_run_once(loop, 1);
	}
	is_int(got, 64UL * 1024 * 1024, "everything arrives");
	diag("64 MiB in messages of 64 KiB, client in the same thread: %.0f MB/s",
	    67.1e9 / (double)(av_mono_ns() - t0));
	ok(seen.drains > 3, "with drains");
}

/* Pause: the client's messages stay in the kernel. */
static void upload(struct peer *p)
{
	static char block[65536];
	av_wsock_pause(seen.ws);
	seen.messages = 0;
	seen.echo = false;
	size_t sent = 0;
	int64_t end = av_mono_ns() + 200 * AV_NS_PER_MS;
	while (av_mono_ns() < end && sent < 20000000) {
		if (av_ws_buffered(cl.codec) == 0 &&
		    av_ws_send(cl.codec, AV_WS_BINARY, block, sizeof(block)) < 0)
			break;
		struct av_str out = av_ws_output(cl.codec);
		ssize_t r = send(p->fd, out.p, out.n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (r > 0) {
			av_ws_output_done(cl.codec, (size_t)r);
			sent += (size_t)r;
		}
		av_loop_run_once(loop, 1);
	}
	ok(sent < 20000000, "a paused session stops the client (%zu)", sent);
	is_int(seen.messages, 0, "and delivers nothing");
	if (!session())
		return;
	av_wsock_resume(seen.ws);
	cl_flush(p);
	ok(cl_until(p, (size_t)seen.messages >= sent / (sizeof(block) + 14)), "until it resumes");
}

/* Pauses inside one read: no byte comes that would wake the session up again. */
static void pause_inside(struct peer *p)
{
	static const char text[100];
	cl_until(p, av_ws_buffered(cl.codec) == 0);
	pump(20);
	seen.messages = 0;
	seen.pause_each = true;
	for (int i = 0; i < 300; i++)
		if (av_ws_send(cl.codec, AV_WS_BINARY, text, sizeof(text)) < 0)
			break;
	cl_flush(p);
	int resumed = 0;
	int64_t end = av_mono_ns() + 5 * AV_NS_PER_S;
	while (seen.ws && seen.messages < 300 && av_mono_ns() < end) {
		int before = seen.messages;
		av_loop_run_once(loop, 2);
		if (seen.ws && seen.messages == before) {
			av_wsock_resume(seen.ws);
			resumed++;
		}
	}
	is_int(seen.messages, 300, "messages of one read come, a pause after each");
	ok(resumed > 3, "in turns (%d)", resumed);
	seen.pause_each = false;
	if (seen.ws)
		av_wsock_resume(seen.ws);
}

static void test_flow(void)
{
	struct peer p = dial("");
	peer_take(&p, "\r\n\r\n");
	if (session())
		download(&p);
	if (session())
		upload(&p);
	if (session())
		pause_inside(&p);
	peer_close(&p);
	pump_until(seen.closes == 1);
}

static int stopped;

static void on_stopped(void *ctx)
{
	(void)ctx;
	stopped++;
}

int main(void)
{
	if (av_loop_new(&loop) < 0)
		return 1;
	struct av_http_server_config c = {.on_request = on_request};
	struct av_err err = {0};
	if (av_http_server_new(loop, &c, &server) < 0 ||
	    av_http_server_listen_tcp(server, "127.0.0.1", 0, &port, &err) < 0)
		return 1;
	test_echo();
	test_bad();
	test_flow();
	struct peer p = dial("");
	peer_take(&p, "\r\n\r\n");
	av_http_server_stop(server, 3000, on_stopped, NULL);
	ok(cl_until(&p, cl.close_code != 0), "stopping the server closes sessions");
	is_int(cl.close_code, 1001, "with 1001");
	ok(cl_until(&p, p.eof), "and ends them");
	peer_close(&p);
	ok(pump_until(stopped == 1), "and itself");
	is_int(av_http_server_metrics(server)->websockets_open, 0, "none is left");
	av_http_server_free(server);
	av_ws_free(cl.codec);
	av_buf_clear(&cl.got);
	av_loop_free(loop);
	return tap_done();
}
