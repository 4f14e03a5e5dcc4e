/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_net_proxy.c - the reverse proxy over a real client socket and a channel that the test plays:
 * phases, time-outs, backpressure both ways, the end from either side
 */
#include "net/reverse_proxy.h"
#include "net_util.h"

#include "base/banned.h"

/* Time-outs of a test that waits for one, and of all others: a test that the machine holds up is
 * not to meet one. */
#define CONNECT_MS 150
#define HEAD_MS    300
#define IDLE_MS    450
#define PATIENT_MS 60000

static struct av_http_server *server;
static uint16_t port;
/* Of the next request. One is short at a time: the machine may stand still meanwhile. */
static uint32_t connect_ms = PATIENT_MS, head_ms = PATIENT_MS, idle_ms = PATIENT_MS;

/* The channel, and what happened to it. */
static struct {
	struct av_rproxy *proxy;
	struct av_req *req;
	struct av_buf sent;
	bool full; /* takes bytes, but asks to wait */
	bool paused, finished, canceled, ended;
	int errors, started, closes, close_status;
	enum av_err_kind kind;
} ch;

static bool channel_send(void *ctx, struct av_str data)
{
	(void)ctx;
	av_buf_append_str(&ch.sent, data);
	return !ch.full;
}

static void channel_finish(void *ctx)
{
	(void)ctx;
	ch.finished = true;
}

static void channel_pause(void *ctx, bool paused)
{
	(void)ctx;
	ch.paused = paused;
}

static void channel_cancel(void *ctx)
{
	(void)ctx;
	ok(!ch.canceled, "cancelled once");
	ch.canceled = true;
}

static const struct av_rproxy_channel channel = {
    .send = channel_send,
    .finish = channel_finish,
    .pause = channel_pause,
    .cancel = channel_cancel,
};

static void on_error(void *ctx, const struct av_err *err)
{
	(void)ctx;
	ch.errors++;
	ch.kind = err->kind;
	av_res_send_err(ch.req, err);
}

static void on_started(void *ctx, int status)
{
	(void)ctx;
	ch.started = status;
}

static void on_body(void *ctx, struct av_req *req, struct av_str data)
{
	(void)ctx;
	(void)req;
	av_rproxy_body(ch.proxy, data);
}

static void on_body_end(void *ctx, struct av_req *req)
{
	(void)ctx;
	(void)req;
	av_rproxy_body_end(ch.proxy);
}

static void on_drain(void *ctx, struct av_req *req)
{
	(void)ctx;
	(void)req;
	av_rproxy_drain(ch.proxy);
}

static void on_close(void *ctx, struct av_req *req, int status)
{
	(void)ctx;
	(void)req;
	ch.closes++;
	ch.close_status = status;
	av_rproxy_free(ch.proxy);
	ch.proxy = NULL;
}

static const struct av_req_handler handler = {
    .on_body = on_body, .on_body_end = on_body_end, .on_drain = on_drain, .on_close = on_close};

static void on_request(void *ctx, struct av_req *req)
{
	const struct av_rproxy_config config = {
	    .channel = &channel,
	    .on_error = on_error,
	    .on_started = on_started,
	    .connect_ms = connect_ms,
	    .head_ms = head_ms,
	    .idle_ms = idle_ms,
	};
	const struct av_proxy_route route = {
	    .port = 3000,
	    .host = AV_STR("x"),
	    .scheme = "http",
	    .target = av_req_head(req)->target,
	    .request_id = "id",
	};
	(void)ctx;
	av_req_set_handler(req, &handler, NULL);
	ch.req = req;
	is_int(av_rproxy_new(&config, &route, req, &ch.proxy), 0, "a proxy for the request");
}

/* A client that has sent this, on a new channel. */
static struct peer begin(const char *request)
{
	bool there;

	av_buf_clear(&ch.sent);
	memset(&ch, 0, sizeof(ch));
	av_buf_init(&ch.sent, 64UL * 1024 * 1024);
	struct peer p = peer_connect(port);
	peer_send(&p, request);
	there = pump_until(ch.proxy != NULL);
	ok(there, "the request is there");
	return p;
}

static struct peer connected(const char *request)
{
	struct peer p = begin(request);
	if (ch.proxy)
		av_rproxy_channel_connected(ch.proxy);
	return p;
}

static void answer(const char *text)
{
	if (ch.proxy)
		av_rproxy_channel_data(ch.proxy, av_str_c(text));
}

static void server_ends(const struct av_err *err)
{
	ch.ended = true;
	if (ch.proxy)
		av_rproxy_channel_end(ch.proxy, err);
}

static void end(struct peer *p)
{
	bool closed;

	peer_close(p);
	closed = pump_until(ch.closes == 1);
	ok(closed, "the request is over");
	ok(ch.canceled != ch.ended, "the channel was ended from one side");
}

#define GET "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"

static void test_answer(void)
{
	struct peer p = connected(GET);

	ok(memmem(ch.sent.p, ch.sent.n, "GET /a HTTP/1.1\r\nhost: x\r\n", 26), "the head is sent");
	answer("HTTP/1.1 200 OK\r\nContent-Le");
	answer("ngth: 4\r\nX-A: b\r\n\r\nda");
	ok(!ch.canceled, "not over yet");
	answer("taHTTP/1.1 200 OK\r\n\r\nsecond");
	ok(ch.canceled, "over with the message; what follows is not looked at");
	ok(peer_expect(&p, "\r\n\r\ndata"), "the answer");
	ok(!peer_find(&p, "second"), "and no other");
	end(&p);
}

/* An answer that takes twice the time that it may rest, a byte at a time; ended by the caller.
 * False when it was cut, and the machine had held up the test for about as long as it may rest
 * between two bytes: then that says nothing. */
static bool drips(struct peer *p)
{
	int64_t last, now, longest = 0;

	*p = connected(GET);
	answer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
	last = av_mono_ns();
	for (int i = 0; i < 4; i++) {
		pump(IDLE_MS / 2);
		answer("x");
		now = av_mono_ns();
		longest = AV_MAX(longest, now - last);
		last = now;
	}
	return !ch.canceled || longest < IDLE_MS * 9 / 10 * AV_NS_PER_MS;
}

static void test_timeouts(void)
{
	struct peer p;

	connect_ms = CONNECT_MS;
	p = begin(GET);
	ok(peer_expect(&p, "504 "), "nobody takes the connection");
	is_int(ch.kind, AV_ERR_EXEC_TIMEOUT, "said so");
	end(&p);
	connect_ms = PATIENT_MS;

	head_ms = HEAD_MS;
	p = connected(GET);
	for (int i = 0; i < 6 && !ch.errors; i++) {
		pump(HEAD_MS / 4);
		answer(i ? "X" : "HTTP/1.1 200 OK\r\n");
	}
	ok(peer_expect(&p, "504 "), "a head that drips");
	end(&p);
	head_ms = PATIENT_MS;

	idle_ms = IDLE_MS;
	for (int i = 0; !drips(&p) && i < 20; i++)
		end(&p);
	ok(!ch.canceled, "a body that drips may");
	ok(peer_ended(&p), "a body that stops is broken off");
	end(&p);
	idle_ms = PATIENT_MS;
}

static void test_failures(void)
{
	static const struct {
		const char *text;
		enum av_err_kind kind;
	} cases[] = {
	    {"junk\r\n\r\n", AV_ERR_UPSTREAM},
	    {"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", AV_ERR_UPSTREAM},
	};
	struct av_err err;
	struct peer p;

	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++) {
		p = connected(GET);
		answer(cases[i].text);
		is_int(ch.kind, cases[i].kind, "an answer that cannot be");
		ok(peer_expect(&p, "502 "), "answered");
		end(&p);
	}
	p = connected(GET);
	server_ends(NULL);
	ok(peer_expect(&p, "502 "), "closed without an answer");
	ok(!ch.canceled, "a channel that ended is not cancelled");
	end(&p);

	p = begin(GET);
	(void)av_err_set(&err, AV_ERR_PORT_CLOSED, "nobody");
	server_ends(&err);
	ok(peer_expect(&p, "port_not_open"), "the channel's own error");
	end(&p);

	p = begin(GET);
	answer("HTTP/1.1 200 OK\r\n\r\n");
	is_int(ch.kind, AV_ERR_AGENT, "bytes before it is connected");
	end(&p);
}

static void test_client_leaves(void)
{
	struct peer p = connected(GET);

	end(&p);
	ok(ch.canceled, "the channel too");
	p = connected(GET);
	answer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx");
	ok(peer_expect(&p, "\r\n\r\nx"), "begun");
	end(&p);
	ok(ch.canceled, "in the middle of the answer");
}

static void test_slow_client(void)
{
	static char block[65536];
	struct peer p = connected(GET);
	size_t total = 0;

	memset(block, 'b', sizeof(block));
	answer("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
	while (ch.proxy && !ch.canceled && !ch.paused && total < 64UL * 1024 * 1024) {
		av_rproxy_channel_data(ch.proxy, av_str_n(block, sizeof(block)));
		total += sizeof(block);
	}
	ok(ch.paused, "the channel is paused after %zu KiB", total / 1024);
	ok(pump_until(!ch.paused || ch.canceled || (peer_read(&p), p.eof || p.error)) && !ch.paused,
	    "and goes on when the client has read (%zu bytes; the end %d, error %d, cancelled %d)",
	    p.in.n, p.eof, p.error, ch.canceled);
	end(&p);
}

static void test_slow_server(void)
{
	struct peer p =
	    connected("POST /u HTTP/1.1\r\nHost: x\r\nContent-Length: 300000000\r\n\r\n");
	static char block[65536];
	size_t before;
	bool stopped = false;

	ch.full = true;
	for (int i = 0; i < 2000 && !stopped; i++)
		stopped = send(p.fd, block, sizeof(block), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
		          (pump(20), send(p.fd, block, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0);
	ok(stopped, "a server that does not read stops the client");
	ok(ch.sent.n < 1024UL * 1024, "at most a read is waiting (%zu bytes)", ch.sent.n);
	before = ch.sent.n;
	ch.full = false;
	ok(ch.proxy != NULL && !ch.canceled, "and nobody gives up");
	if (ch.proxy)
		av_rproxy_channel_drain(ch.proxy);
	ok(pump_until(ch.sent.n > before), "and goes on");
	end(&p);
}

static void test_chunks(void)
{
	struct peer p =
	    connected("POST /u HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	              "3\r\nabc\r\n0\r\nX-Trailer: dropped\r\n\r\n");

	ok(pump_until(ch.sent.n > 5 && memmem(ch.sent.p, ch.sent.n, "\r\n0\r\n\r\n", 7)), "ended");
	ok(memmem(ch.sent.p, ch.sent.n, "\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 17),
	    "in chunks, no trailer");
	ok(!ch.finished, "the server's input stays open");
	answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: "
	       "1\r\n\r\n");
	ok(peer_expect(&p, "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n"),
	    "answered in chunks, with the trailer");
	end(&p);
}

#define UPGRADE "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
#define SWITCH  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"

static void test_tunnel(void)
{
	struct peer p = connected(UPGRADE);

	ok(memmem(ch.sent.p, ch.sent.n, "upgrade: raw\r\n", 14), "the upgrade is passed on");
	av_buf_reset(&ch.sent);
	answer(SWITCH "first");
	is_int(ch.started, 101, "switched");
	ok(peer_take(&p, "\r\n\r\nfirst"), "bytes behind the head are the tunnel's");
	peer_send(&p, "GET / HTTP/1.1\r\n\r\n\xff");
	ok(pump_until(ch.sent.n == 19), "bytes as they are");
	answer("HTTP/1.1 200 OK\r\n\r\n");
	ok(peer_take(&p, "HTTP/1.1 200 OK\r\n\r\n"), "both ways");
	shutdown(p.fd, SHUT_WR);
	ok(pump_until(ch.finished), "the client's end is passed on");
	answer("last words");
	server_ends(NULL);
	ok(peer_take(&p, "last words"), "the server may go on");
	ok(peer_ended(&p) && p.eof, "and ends in order");
	end(&p);

	p = connected(UPGRADE);
	answer("HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno");
	ok(peer_expect(&p, "\r\n\r\nno"), "an upgrade that is refused");
	end(&p);

	idle_ms = IDLE_MS;
	p = connected(UPGRADE);
	answer(SWITCH);
	ok(peer_ended(&p), "a tunnel in which nobody speaks ends");
	ok(ch.canceled, "on both sides");
	end(&p);
	idle_ms = PATIENT_MS;
}

int main(void)
{
	const struct av_http_server_config config = {.on_request = on_request};
	struct av_err err;

	if (av_loop_new(&loop) < 0 || av_http_server_new(loop, &config, &server) < 0 ||
	    av_http_server_listen_tcp(server, "127.0.0.1", 0, &port, &err) < 0)
		return 1;
	av_buf_init(&ch.sent, 1024);
	test_answer();
	test_timeouts();
	test_failures();
	test_client_leaves();
	test_slow_client();
	test_slow_server();
	test_chunks();
	test_tunnel();
	av_http_server_free(server);
	av_loop_free(loop);
	av_buf_clear(&ch.sent);
	return tap_done();
}
