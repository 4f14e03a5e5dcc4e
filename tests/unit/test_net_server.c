/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_net_server.c - HTTP/1.1 server over real sockets: framing, backpressure, limits, time-outs
 */
#include <sys/stat.h>
#include <sys/un.h>

#include "base/num.h"
#include "net_util.h"

#include "base/banned.h"

static struct av_http_server *server;
static uint16_t port;

/* What the handler saw of the request under test. */
static struct {
	struct av_req *req;
	int requests, closes, ends, drains;
	int close_status;
	uint64_t body;
	uint64_t to_send; /* bytes the stream handler still has */
	int write_result;
	uint64_t max_pending;
	bool pause_each;
	char peer[64];
} seen;

static void on_close(void *ctx, struct av_req *req, int status)
{
	(void)ctx;
	if (seen.req == req)
		seen.req = NULL;
	seen.closes++;
	seen.close_status = status;
}

static void on_collected(void *ctx, struct av_req *req, struct av_str body)
{
	(void)ctx;
	seen.ends++;
	av_res_send(req, 200, NULL, 0, body);
}

static void on_late(void *ctx, struct av_req *req, struct av_str body)
{
	(void)ctx;
	(void)body;
	av_res_send(req, 200, NULL, 0, AV_STR("late"));
}

static void on_count(void *ctx, struct av_req *req, struct av_str data)
{
	(void)ctx;
	seen.body += data.n;
	if (seen.pause_each)
		av_req_body_pause(req);
}

static void on_count_end(void *ctx, struct av_req *req)
{
	(void)ctx;
	char text[32];
	int n = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)seen.body);
	seen.ends++;
	if (av_str_eq_c(av_req_path(req), "/count"))
		av_res_send(req, 200, NULL, 0, av_str_n(text, (size_t)n));
}

static void stream_more(void *ctx, struct av_req *req)
{
	static char block[65536];
	(void)ctx;
	memset(block, 's', sizeof(block));
	seen.write_result = 0;
	while (seen.to_send > 0 && seen.write_result == 0) {
		size_t n = AV_MIN(sizeof(block), seen.to_send);
		seen.write_result = av_res_write(req, av_str_n(block, n));
		if (seen.write_result < 0)
			return;
		seen.to_send -= n;
		seen.max_pending = AV_MAX(seen.max_pending, av_res_pending(req));
	}
	if (seen.to_send == 0)
		av_res_end(req);
}

static void on_drain(void *ctx, struct av_req *req)
{
	seen.drains++;
	stream_more(ctx, req);
}

static const struct av_req_handler handler = {
    .on_body = on_count,
    .on_body_end = on_count_end,
    .on_drain = on_drain,
    .on_close = on_close,
};

static void on_request(void *ctx, struct av_req *req)
{
	(void)ctx;
	struct av_str path = av_req_path(req);
	seen.requests++;
	seen.req = req;
	snprintf(seen.peer, sizeof(seen.peer), "%s", av_req_peer(req));
	av_req_set_handler(req, &handler, NULL);
	if (av_str_eq_c(path, "/hello")) {
		av_res_send(req, 200, NULL, 0, AV_STR("hello\n"));
	} else if (av_str_eq_c(path, "/query")) {
		av_res_send(req, 200, NULL, 0, av_req_query(req));
	} else if (av_str_eq_c(path, "/echo")) {
		av_req_body_collect(req, 1000, on_collected);
	} else if (av_str_eq_c(path, "/count")) {
		int rc = av_req_body_start(req, 64 * 1024 * 1024);
		if (rc < 0)
			av_res_send(req, 413, NULL, 0, AV_STR("refused"));
	} else if (av_str_eq_c(path, "/stream") || av_str_eq_c(path, "/low")) {
		if (av_str_eq_c(path, "/low"))
			av_res_set_watermark(req, 131072);
		av_parse_u64(av_req_query(req), 0, UINT64_MAX, &seen.to_send);
		av_res_start(req, 200, NULL, 0, -1);
		stream_more(NULL, req);
	} else if (av_str_eq_c(path, "/abort")) {
		av_res_start(req, 200, NULL, 0, -1);
		av_res_write(req, AV_STR("part"));
	} else if (av_str_eq_c(path, "/short")) {
		av_res_start(req, 200, NULL, 0, 10);
		is_int(av_res_write(req, AV_STR("12345678901")), -EINVAL, "more than announced");
		av_res_write(req, AV_STR("12345"));
		is_int(av_res_end(req), -EINVAL, "less than announced");
	} else if (av_str_eq_c(path, "/error")) {
		struct av_err err = {0};
		av_err_set(&err, AV_ERR_NOT_FOUND, "no \"such\" thing");
		av_res_send_err(req, &err);
	}
	/* "/hang" and others are answered by the test, or never */
}

static void start(const struct av_http_server_config *config)
{
	struct av_http_server_config c = config ? *config : (struct av_http_server_config){0};
	struct av_err err = {0};
	c.on_request = on_request;
	memset(&seen, 0, sizeof(seen));
	if (av_http_server_new(loop, &c, &server) < 0 ||
	    av_http_server_listen_tcp(server, "127.0.0.1", 0, &port, &err) < 0)
		printf("Bail out! %s\n", err.message);
}

static void stop(void)
{
	const struct av_http_server_metrics *m = av_http_server_metrics(server);
	pump_until(m->connections_open == 0);
	is_int(m->requests_open, 0, "no request is left");
	is_int(m->connections_open, 0, "no connection is left");
	av_http_server_free(server);
}

static void test_keep_alive(void)
{
	start(NULL);
	struct peer p = peer_connect(port);
	peer_send(&p, "GET /hello HTTP/1.1\r\nHost: x\r\nX-Request-Id: my-id_1\r\n\r\n");
	ok(peer_expect(&p, "hello\n"), "an answer");
	ok(peer_find(&p, "HTTP/1.1 200 OK\r\n") && peer_find(&p, "content-length: 6\r\n"),
	    "its head");
	ok(peer_find(&p, "x-request-id: my-id_1\r\n"), "the client's request id");
	ok(peer_find(&p, "keep-alive: timeout=74\r\n"), "the idle time-out is announced");
	ok(peer_find(&p, "date: ") && peer_find(&p, " GMT\r\n") &&
	        peer_find(&p, "server: aviary\r\n"),
	    "Date and Server");
	ok(peer_take(&p, "hello\n"), "taken");
	peer_send(&p, "GET /query?a=b%20c HTTP/1.1\r\nHost: x\r\nX-Request-Id: bad id\r\n\r\n");
	ok(peer_take(&p, "\r\n\r\na=b%20c"), "a second request on the same connection");
	peer_send(
	    &p, "HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(peer_take(&p, "content-length: 6\r\n"), "HEAD has the length");
	ok(peer_expect(&p, "\r\nHTTP/1.1 200") && peer_find(&p, "\r\nHTTP") == 6,
	    "but no body: the next answer follows at once");
	ok(peer_take(&p, "hello\n"), "the pipelined one");
	ok(strncmp(seen.peer, "127.0.0.1:", 10) == 0, "the peer's address (%s)", seen.peer);
	peer_send(&p, "GET /error HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(peer_take(&p, "404 Not Found\r\n") &&
	        peer_take(&p,
	            "{\"error\":{\"code\":\"not_found\",\"message\":\"no \\\"such\\\" thing\"}}"),
	    "errors are JSON");
	peer_send(&p, "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	ok(peer_take(&p, "connection: close\r\n") && peer_ended(&p), "Connection: close");
	is_int(p.error, 0, "with FIN, not RST");
	peer_close(&p);
	p = peer_connect(port);
	peer_send(&p, "GET /hello HTTP/1.0\r\n\r\n");
	ok(peer_ended(&p) && peer_find(&p, "hello\n"), "HTTP/1.0 without keep-alive ends");
	peer_close(&p);
	p = peer_connect(port);
	peer_send(&p, "GET /stream?100000 HTTP/1.0\r\n\r\n");
	ok(peer_ended(&p) && !peer_find(&p, "chunked"), "HTTP/1.0 gets no chunks");
	ok(p.in.n > 100000 && p.in.n < 101000, "but all bytes until the end");
	peer_close(&p);
	is_int(seen.requests, seen.closes, "each request was closed once");
	stop();
}

static void test_pipelining(void)
{
	start(NULL);
	struct peer p = peer_connect(port);
	for (int i = 0; i < 200; i++)
		peer_send(&p, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
		              "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
	int good = 0;
	for (int i = 0; i < 200; i++)
		good += peer_take(&p, "\r\n\r\nhello\n") && peer_take(&p, "\r\n\r\nabc");
	is_int(good, 200, "400 pipelined requests are answered in order");
	/* One that hangs holds back those behind it. */
	peer_send(
	    &p, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(pump_until(seen.requests == 401), "the slow one is there");
	pump(30);
	is_int(seen.requests, 401, "the one behind it waits");
	ok(seen.req && av_res_send(seen.req, 200, NULL, 0, AV_STR("late")) == 0, "answered late");
	ok(peer_take(&p, "late") && peer_take(&p, "hello\n"), "then the next");
	peer_close(&p);
	stop();
}

static void send_chunk(struct peer *p, const char *data, size_t n)
{
	char head[32];
	snprintf(head, sizeof(head), "%zx\r\n", n);
	peer_send(p, head);
	peer_send_n(p, data, n);
	peer_send(p, "\r\n");
}

static void test_upload(void)
{
	enum { BLOCK = 65536, BLOCKS = 320 };
	static char block[BLOCK];
	start(NULL);
	struct peer p = peer_connect(port);
	peer_send(&p, "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < BLOCKS; i++)
		send_chunk(&p, block, BLOCK);
	peer_send(&p, "0\r\nTrailer: x\r\n\r\n");
	ok(peer_take(&p, "\r\n\r\n20971520\n"), "20 MiB in chunks");

	/* Backpressure: the handler takes one piece, then nothing. */
	seen.body = 0;
	seen.pause_each = true;
	peer_send(&p, "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 20971520\r\n\r\n");
	size_t sent = 0;
	int64_t patience = av_mono_ns() + 300 * AV_NS_PER_MS;
	while (sent < (size_t)BLOCK * BLOCKS && av_mono_ns() < patience) {
		ssize_t r = send(p.fd, block, BLOCK, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (r > 0)
			sent += (size_t)r;
		else
			av_loop_run_once(loop, 5);
	}
	ok(sent < (size_t)BLOCK * BLOCKS,
	    "a paused body stops the client (%zu bytes in the kernel)", sent);
	ok(seen.body <= 256 * 1024, "no more than one read was delivered (%llu)",
	    (unsigned long long)seen.body);
	uint64_t before = seen.body;
	pump(20);
	is_int(seen.body, before, "nothing comes while paused");
	seen.pause_each = false;
	if (seen.req)
		av_req_body_resume(seen.req);
	while (sent < (size_t)BLOCK * BLOCKS && peer_send_n(&p, block, BLOCK - sent % BLOCK))
		sent += BLOCK - sent % BLOCK;
	ok(peer_take(&p, "\r\n\r\n20971520\n"), "after resume the whole body arrives");
	peer_close(&p);
	stop();
}

/* What a handler does late, when nothing comes from the socket any more, must leave at once. */
static void test_late(void)
{
	start(NULL);
	struct peer p = peer_connect(port);
	static const char *const framing[] = {
	    "Content-Length: 5\r\n\r\n12345",
	    "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(framing); i++) {
		memset(&seen, 0, sizeof(seen));
		seen.pause_each = true;
		peer_send(&p, "POST /count HTTP/1.1\r\nHost: x\r\n");
		peer_send(&p, framing[i]);
		ok(pump_until(seen.body == 5), "a body that came whole");
		pump(20);
		is_int(seen.ends, 0, "paused, it does not end");
		if (seen.req)
			av_req_body_resume(seen.req);
		ok(peer_take(&p, "\r\n\r\n5\n"), "the answer given at its end leaves");
	}
	memset(&seen, 0, sizeof(seen));
	peer_send(&p, "POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
	ok(pump_until(seen.requests == 1), "an empty body");
	pump(20);
	if (seen.req)
		av_req_body_collect(seen.req, 100, on_late);
	ok(peer_take(&p, "\r\n\r\nlate"), "asked for late, it is answered");
	peer_close(&p);
	stop();
}

static void test_body_limits(void)
{
	start(NULL);
	struct peer p = peer_connect(port);
	peer_send(&p,
	    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
	ok(peer_take(&p, "HTTP/1.1 100 Continue\r\n\r\n"), "100 Continue");
	peer_send(&p, "12345");
	ok(peer_take(&p, "\r\n\r\n12345"), "then the answer");
	peer_send(&p, "POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123456789"
	              "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(peer_take(&p, "hello\n") && peer_take(&p, "hello\n"), "a small unread body is skipped");
	peer_send(&p, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: "
	              "100-continue\r\n\r\n");
	ok(peer_take(&p, "413 ") && peer_take(&p, "\"code\":\"too_large\""),
	    "too large by its length");
	ok(peer_ended(&p) && !peer_find(&p, "100 Continue"), "without asking for the body");
	peer_close(&p);
	p = peer_connect(port);
	peer_send(&p, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
	static char block[2000];
	memset(block, 'x', sizeof(block));
	send_chunk(&p, block, 600);
	pump(5);
	send_chunk(&p, block, 600);
	ok(peer_take(&p, "413 ") && peer_ended(&p), "too large by its bytes");
	peer_close(&p);
	is_int(seen.close_status, 0, "the request ended with its answer");
	seen.closes = 0;
	p = peer_connect(port);
	peer_send(&p, "GET /short HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(peer_ended(&p), "a response that is too short breaks off");
	peer_close(&p);
	is_int(seen.close_status, -ECANCELED, "and is reported");
	stop();
}

static void test_disconnect(void)
{
	start(NULL);
	struct peer p = peer_connect(port);
	peer_send(&p, "POST /hang HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
	ok(pump_until(seen.requests == 1), "a request that takes long");
	if (seen.req)
		av_req_body_start(seen.req, 100);
	pump(20);
	is_int(seen.closes, 0, "runs");
	peer_close(&p);
	ok(pump_until(seen.closes == 1), "the client's end is noticed while nothing is sent");
	is_int(seen.close_status, -ECONNRESET, "as connection reset");

	p = peer_connect(port);
	peer_send(
	    &p, "POST /hang HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET /pipelined");
	ok(pump_until(seen.requests == 2), "with an unread body and pipelined bytes");
	if (seen.req)
		av_req_body_start(seen.req, 100);
	pump(20);
	struct linger l = {1, 0};
	setsockopt(p.fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	peer_close(&p);
	ok(pump_until(seen.closes == 2), "a reset too");

	p = peer_connect(port);
	peer_send(&p, "GET /abort HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(peer_take(&p, "\r\n\r\n4\r\npart\r\n"), "a streaming response");
	if (seen.req)
		av_res_abort(seen.req);
	ok(peer_ended(&p), "is aborted");
	is_int(p.error, ECONNRESET, "with RST");
	is_int(p.in.n, 0, "without a last chunk");
	is_int(seen.close_status, -ECANCELED, "and closed as cancelled");
	peer_close(&p);
	stop();
}

static void test_slow_reader(void)
{
	start(NULL);
	struct peer p = peer_connect(port);
	peer_send(&p, "GET /stream?60000000 HTTP/1.1\r\nHost: x\r\n\r\n");
	pump(100);
	ok(seen.write_result == 1 && seen.to_send > 0, "the writer is told to wait (%llu left)",
	    (unsigned long long)seen.to_send);
	ok(seen.max_pending <= 2 * 1024 * 1024, "at most a watermark and a write wait (%llu)",
	    (unsigned long long)seen.max_pending);
	ok(peer_expect(&p, "\r\n0\r\n\r\n"), "a reader that goes on gets everything");
	ok(p.in.n > 60000000, "all bytes");
	ok(seen.drains > 3, "drain was signalled (%d)", seen.drains);
	pump_until(seen.closes == 1);
	is_int(seen.close_status, 0, "closed in order");
	peer_close(&p);
	stop();

	struct av_http_server_config c = {.write_timeout_ms = 300};
	start(&c);
	p = peer_connect(port);
	peer_send(&p, "GET /stream?60000000 HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(pump_until(seen.closes == 1), "one that does not is cut off");
	is_int(seen.close_status, -ETIMEDOUT, "by the write time-out");
	peer_close(&p);
	stop();
}

static void test_watermark(void)
{
	start(NULL);
	struct peer p = peer_connect(port);
	peer_send(&p, "GET /low?30000000 HTTP/1.1\r\nHost: x\r\n\r\n");
	pump(50);
	ok(seen.write_result == 1 && seen.to_send > 0, "the writer is told to wait");
	ok(peer_expect(&p, "\r\n0\r\n\r\n"), "everything comes");
	/* One write of 64 KiB may go over it. */
	ok(seen.max_pending <= 131072 + 65536 + 64, "a watermark of its own (%llu)",
	    (unsigned long long)seen.max_pending);
	peer_close(&p);
	stop();
}

static void expect_refused(const char *what, const char *request, const char *status)
{
	struct peer p = peer_connect(port);
	int before = seen.requests;
	peer_send(&p, request);
	bool good = peer_expect(&p, status) && peer_expect(&p, "{\"error\":{\"code\":") &&
	            peer_ended(&p) && seen.requests == before && peer_find(&p, "connection: close");
	ok(good, "%s: %s, then closed", what, status);
	/* Nothing behind the bad message is answered. */
	ok(!peer_find(&p, "HTTP/1.1 2"), "%s: one answer only", what);
	peer_close(&p);
}

static void test_smuggling(void)
{
	start(NULL);
#define SECOND "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
	expect_refused("CL and TE",
	    "POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: "
	    "chunked\r\n\r\n"
	    "0\r\n\r\n" SECOND,
	    "HTTP/1.1 400 ");
	expect_refused("two lengths",
	    "POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: "
	    "5\r\n\r\n" SECOND,
	    "HTTP/1.1 400 ");
	expect_refused("bare LF", "GET /hello HTTP/1.1\nHost: x\n\n" SECOND, "HTTP/1.1 400 ");
	expect_refused(
	    "fold", "GET /hello HTTP/1.1\r\nHost: x\r\n y\r\n\r\n" SECOND, "HTTP/1.1 400 ");
	expect_refused("space before the colon", "GET /hello HTTP/1.1\r\nHost : x\r\n\r\n" SECOND,
	    "HTTP/1.1 400 ");
	expect_refused("no host", "GET /hello HTTP/1.1\r\n\r\n" SECOND, "HTTP/1.1 400 ");
	expect_refused("not HTTP", "\x16\x03\x01\x02\x00\x01\r\n\r\n", "HTTP/1.1 400 ");
	is_int(seen.requests, 0, "no handler saw any of them");

	/* Bad chunk after a good head: the handler had the request, the client gets the error. */
	struct peer p = peer_connect(port);
	peer_send(&p,
	    "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX" SECOND);
	ok(peer_take(&p, "HTTP/1.1 400 ") && peer_ended(&p) && !peer_find(&p, "HTTP/1.1 "),
	    "a broken chunk: 400, then closed");
	peer_close(&p);
	is_int(seen.close_status, -EPROTO, "the handler hears of a protocol error");

	char *big = malloc(100000);
	memset(big, 'a', 99999);
	big[99999] = 0;
	AV_CLEANUP(av_buf_clear) struct av_buf head = AV_BUF_INIT(200000);
	av_buf_printf(&head, "GET /hello HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", big);
	expect_refused("a head of 100 kB", av_buf_cstr(&head), "HTTP/1.1 431 ");
	av_buf_reset(&head);
	av_buf_append_c(&head, "GET /hello HTTP/1.1\r\nHost: x\r\n");
	for (int i = 0; i < 200; i++)
		av_buf_printf(&head, "X%d: y\r\n", i);
	av_buf_append_c(&head, "\r\n");
	expect_refused("200 headers", av_buf_cstr(&head), "HTTP/1.1 431 ");
	free(big);
	stop();
}

/* One short time-out each: the machine may stand still meanwhile, and then another would be first.
 */
static void test_timeouts(void)
{
	start(&(struct av_http_server_config){.head_timeout_ms = 150});
	struct peer p = peer_connect(port);
	ok(peer_ended(&p) && p.in.n == 0, "silence from the start: closed without a word");
	peer_close(&p);
	p = peer_connect(port);
	int64_t t0 = av_mono_ns();
	peer_send(&p, "GET /hello");
	for (int i = 0; i < 10 && av_mono_ns() - t0 < 140 * AV_NS_PER_MS; i++) {
		pump(12);
		peer_send(&p, "o"); /* one byte at a time does not help */
	}
	ok(peer_take(&p, "HTTP/1.1 408 ") && peer_ended(&p), "half a head and trickling: 408");
	peer_close(&p);
	ok(av_http_server_metrics(server)->timeouts >= 1, "time-outs are counted");
	stop();

	start(&(struct av_http_server_config){.body_idle_timeout_ms = 150});
	p = peer_connect(port);
	peer_send(&p, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12");
	ok(peer_take(&p, "HTTP/1.1 408 ") && peer_take(&p, "\"code\":\"request_timeout\"") &&
	        peer_ended(&p),
	    "half a body and silence: 408");
	is_int(seen.close_status, -ETIMEDOUT, "the handler hears of the time-out");
	peer_close(&p);
	is_int(av_http_server_metrics(server)->timeouts, 1, "counted");
	stop();

	start(&(struct av_http_server_config){.keepalive_timeout_ms = 200});
	p = peer_connect(port);
	peer_send(&p, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(peer_take(&p, "hello\n") && peer_ended(&p) && !p.error, "idle keep-alive ends with FIN");
	peer_close(&p);
	stop();
}

static void test_no_timeout(void)
{
	struct peer p = {.fd = -1};
	start(&(struct av_http_server_config){
	    .head_timeout_ms = 150, .body_idle_timeout_ms = 150, .keepalive_timeout_ms = 200});
	for (int i = 0; i < 20 && !seen.req; i++) {
		peer_close(&p);
		p = peer_connect(port);
		peer_send(&p, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n");
		pump(100);
	}
	pump(500);
	ok(seen.req, "a request that runs has no time-out");
	if (seen.req)
		av_res_send(seen.req, 200, NULL, 0, AV_STR("done"));
	ok(peer_take(&p, "done"), "and is answered");
	peer_close(&p);
	stop();
}

static void test_connection_limit(void)
{
	struct av_http_server_config c = {.max_connections = 4};
	start(&c);
	struct peer held[4];
	for (int i = 0; i < 4; i++) {
		held[i] = peer_connect(port);
		peer_send(&held[i], "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
		peer_take(&held[i], "hello\n");
	}
	struct peer p = peer_connect(port);
	peer_send(&p, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(peer_take(&p, "HTTP/1.1 503 ") && peer_take(&p, "all 4 connections") && peer_ended(&p),
	    "one connection too many: 503 that names the limit");
	is_int(p.error, 0, "readable to the end");
	peer_close(&p);
	peer_close(&held[0]);
	pump(20);
	p = peer_connect(port);
	peer_send(&p, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(peer_take(&p, "hello\n"), "after one has left there is room");
	peer_close(&p);
	for (int i = 1; i < 4; i++)
		peer_close(&held[i]);
	is_int(av_http_server_metrics(server)->connections_refused, 1, "counted");
	stop();
}

static int stopped;

static void on_stopped(void *ctx)
{
	(void)ctx;
	stopped++;
}

static void test_stop(void)
{
	start(NULL);
	struct peer idle = peer_connect(port), busy = peer_connect(port),
	            stuck = peer_connect(port);
	peer_send(&idle, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	peer_take(&idle, "hello\n");
	peer_send(&stuck, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n");
	pump_until(seen.requests == 2);
	peer_send(&busy, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n");
	pump_until(seen.requests == 3);
	av_http_server_stop(server, 2000, on_stopped, NULL);
	ok(peer_ended(&idle), "stop closes idle connections");
	is_int(stopped, 0, "and waits for others");
	if (seen.req)
		av_res_send(seen.req, 200, NULL, 0, AV_STR("last"));
	ok(peer_take(&busy, "connection: close\r\n") && peer_take(&busy, "last") &&
	        peer_ended(&busy),
	    "which are answered");
	peer_close(&busy);
	ok(pump_until(stopped == 1), "until the grace is over");
	ok(peer_ended(&stuck), "then they are reset");
	is_int(seen.close_status, -ECANCELED, "as cancelled");
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ok(connect(fd, (struct sockaddr *)&in, sizeof(in)) < 0, "nobody listens any more");
	close(fd);
	peer_close(&idle);
	peer_close(&stuck);
	stop();
}

static void test_unix(void)
{
	char dir[] = "/tmp/av-net-XXXXXX", path[64];
	struct av_err err = {0};
	start(NULL);
	if (!mkdtemp(dir))
		return;
	snprintf(path, sizeof(path), "%s/s", dir);
	is_int(av_http_server_listen_unix(server, path, 0600, &err), 0, "a unix socket");
	struct stat st;
	ok(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "with its mode");
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ok(connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0, "connect");
	struct peer p = peer_on(fd);
	peer_send(&p, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	ok(peer_take(&p, "hello\n"), "an answer");
	ok(strncmp(seen.peer, "unix:pid=", 9) == 0, "the peer by its credentials (%s)", seen.peer);
	peer_close(&p);
	ok(av_http_server_listen_tcp(server, "localhost", 0, NULL, &err) < 0 &&
	        strstr(err.message, "numeric"),
	    "names are not resolved");
	ok(av_http_server_listen_tcp(server, "127.0.0.1", port, NULL, &err) < 0 &&
	        strstr(err.message, "in use"),
	    "a port in use is an error that says so");
	stop();
	ok(stat(path, &st) < 0, "the socket file is gone afterwards");
	rmdir(dir);
}

static void bench(void)
{
	start(NULL);
	struct peer p = peer_connect(port);
	int64_t t0 = av_mono_ns();
	enum { N = 5000 };
	for (int i = 0; i < N; i++) {
		peer_send(&p, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
		if (!peer_take(&p, "hello\n"))
			break;
	}
	diag("%d requests one after the other: %.1f us each", N,
	    (double)(av_mono_ns() - t0) / 1000 / N);
	peer_close(&p);
	stop();
}

int main(void)
{
	if (av_loop_new(&loop) < 0)
		return 1;
	test_keep_alive();
	test_pipelining();
	test_upload();
	test_late();
	test_body_limits();
	test_disconnect();
	test_slow_reader();
	test_watermark();
	test_smuggling();
	test_timeouts();
	test_no_timeout();
	test_connection_limit();
	test_stop();
	test_unix();
	bench();
	av_loop_free(loop);
	return tap_done();
}
