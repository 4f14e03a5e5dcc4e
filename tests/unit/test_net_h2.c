/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_net_h2.c - the HTTP/2 client over unix sockets, against the server and against hostile peers
 */
#include <fcntl.h>
#include <sys/un.h>

#include "base/num.h"
#include "net/http2_client.h"
#include "net_util.h"

#include "base/banned.h"

static struct av_http_server *server;
static struct av_h2c *conn;
static char dir[] = "/tmp/av-h2-XXXXXX", path[64];
static struct av_h2c_metrics metrics;

/* ---- server side ---- */

static struct {
	struct av_req *req;
	int requests, closes, close_status;
	uint64_t body, to_send;
	bool pause;
} srv;

static void stream_more(void *ctx, struct av_req *req)
{
	static char block[65536];
	(void)ctx;
	while (srv.to_send > 0) {
		size_t n = AV_MIN(sizeof(block), srv.to_send);
		int rc = av_res_write(req, av_str_n(block, n));
		if (rc < 0)
			return;
		srv.to_send -= n;
		if (rc == 1)
			return;
	}
	av_res_end(req);
}

static void srv_body(void *ctx, struct av_req *req, struct av_str data)
{
	(void)ctx;
	srv.body += data.n;
	if (srv.pause)
		av_req_body_pause(req);
}

static void srv_end(void *ctx, struct av_req *req)
{
	(void)ctx;
	char text[32];
	int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)srv.body);
	av_res_send(req, 200, NULL, 0, av_str_n(text, (size_t)n));
}

static void srv_close(void *ctx, struct av_req *req, int status)
{
	(void)ctx;
	if (srv.req == req)
		srv.req = NULL;
	srv.closes++;
	srv.close_status = status;
}

static const struct av_req_handler handler = {
    .on_body = srv_body,
    .on_body_end = srv_end,
    .on_drain = stream_more,
    .on_close = srv_close,
};

static void echo(void *ctx, struct av_req *req, struct av_str body)
{
	(void)ctx;
	av_res_send(req, 200, NULL, 0, body);
}

static void on_request(void *ctx, struct av_req *req)
{
	(void)ctx;
	struct av_str p = av_req_path(req);
	srv.requests++;
	srv.req = req;
	av_req_set_handler(req, &handler, NULL);
	if (av_str_eq_c(p, "/hello"))
		av_res_send(req, 200, NULL, 0, AV_STR("hello"));
	else if (av_str_eq_c(p, "/echo"))
		av_req_body_collect(req, 1000000, echo);
	else if (av_str_eq_c(p, "/count"))
		av_req_body_start(req, UINT64_MAX);
	else if (av_str_eq_c(p, "/refuse"))
		av_res_send(req, 403, NULL, 0, AV_STR("no"));
	else if (av_str_eq_c(p, "/stream") || av_str_eq_c(p, "/low")) {
		if (av_str_eq_c(p, "/low"))
			av_res_set_watermark(req, 65536);
		av_parse_u64(av_req_query(req), 0, UINT64_MAX, &srv.to_send);
		av_res_start(req, 200, NULL, 0, -1);
		stream_more(NULL, req);
	}
}

/* ---- client side ---- */

struct call {
	struct av_h2s *s;
	int status;
	uint64_t got;
	char text[64];
	int ends, closes, close_status, writables;
	bool hold; /* consume nothing */
	bool free_in_data;
};

static void on_response(void *ctx, struct av_h2s *s, const struct av_http_head *head)
{
	struct call *c = ctx;
	(void)s;
	c->status = head->status;
}

static void on_data(void *ctx, struct av_h2s *s, struct av_str data)
{
	struct call *c = ctx;
	if (c->got + data.n < sizeof(c->text))
		memcpy(c->text + c->got, data.p, data.n);
	c->got += data.n;
	if (c->free_in_data) {
		av_h2c_free(conn);
		conn = NULL;
		return;
	}
	if (!c->hold)
		av_h2s_consume(s, data.n);
}

static void on_end(void *ctx, struct av_h2s *s)
{
	struct call *c = ctx;
	(void)s;
	c->ends++;
}

static void on_writable(void *ctx, struct av_h2s *s)
{
	struct call *c = ctx;
	(void)s;
	c->writables++;
}

static void on_close(void *ctx, struct av_h2s *s, int status)
{
	struct call *c = ctx;
	(void)s;
	c->s = NULL;
	c->closes++;
	c->close_status = status;
}

static const struct av_h2s_handler calls = {
    .on_response = on_response,
    .on_data = on_data,
    .on_end = on_end,
    .on_writable = on_writable,
    .on_close = on_close,
};

static int opens, conn_closes, conn_status;

static void conn_open(void *ctx, struct av_h2c *c)
{
	(void)ctx;
	(void)c;
	opens++;
}

static void conn_close(void *ctx, struct av_h2c *c, int status)
{
	(void)ctx;
	(void)c;
	conn_closes++;
	conn_status = status;
}

static struct av_h2c_config config(void)
{
	opens = conn_closes = conn_status = 0;
	return (struct av_h2c_config){
	    .on_open = conn_open, .on_close = conn_close, .metrics = &metrics};
}

static void dial(void)
{
	struct av_h2c_config c = config();
	memset(&srv, 0, sizeof(srv));
	is_int(av_h2c_open(loop, path, &c, &conn), 0, "open");
}

static int get(struct call *c, const char *target)
{
	struct av_h2s_request r = {.method = AV_STR("GET"), .path = av_str_c(target)};
	memset(c, 0, sizeof(*c));
	return av_h2c_request(conn, &r, &calls, c, &c->s);
}

static int post(struct call *c, const char *target)
{
	struct av_h2s_request r = {
	    .method = AV_STR("POST"), .path = av_str_c(target), .has_body = true};
	memset(c, 0, sizeof(*c));
	return av_h2c_request(conn, &r, &calls, c, &c->s);
}

static void hang_up(void)
{
	av_h2c_free(conn);
	conn = NULL;
	const struct av_http_server_metrics *m = av_http_server_metrics(server);
	ok(pump_until(m->connections_open == 0 && m->requests_open == 0), "nothing is left over");
	is_int(metrics.streams_open, 0, "no stream either");
	is_int(metrics.connections_open, 0, "no connection either");
}

static void test_basics(void)
{
	struct call a, b, many[300];
	dial();
	is_int(get(&a, "/hello"), 0, "a request before the connection is open");
	is_int(a.closes, 0, "callbacks never come at once");
	ok(pump_until(a.closes), "is answered");
	is_int(opens, 1, "the connection opened");
	is_int(a.status, 200, "status");
	is_str(a.text, "hello", "body");
	is_int(a.ends, 1, "end");
	is_int(a.close_status, 0, "closed well");
	struct av_h2s_request r = {
	    .method = AV_STR("POST"), .path = AV_STR("/echo"), .body = AV_STR("a body")};
	memset(&b, 0, sizeof(b));
	is_int(av_h2c_request(conn, &r, &calls, &b, &b.s), 0, "a request with a whole body");
	ok(pump_until(b.closes) && strcmp(b.text, "a body") == 0, "is echoed");
	for (int i = 0; i < 300; i++)
		get(&many[i], "/hello");
	ok(pump_until(many[299].closes), "300 at once, more than the server's limit");
	int good = 0;
	for (int i = 0; i < 300; i++)
		good += many[i].closes == 1 && many[i].close_status == 0 && many[i].got == 5;
	is_int(good, 300, "all well");
	struct av_http_header bad = {AV_STR("x"), AV_STR("a\r\nb")};
	r = (struct av_h2s_request){
	    .method = AV_STR("GET"), .path = AV_STR("/"), .headers = &bad, .n_headers = 1};
	is_int(av_h2c_request(conn, &r, &calls, &a, &a.s), -EINVAL, "bad header bytes are refused");
	hang_up();
}

static void test_cancel(void)
{
	struct call a, b;
	dial();
	get(&a, "/hang");
	post(&b, "/hang");
	ok(pump_until(srv.requests == 2), "two that hang");
	av_h2s_cancel(a.s);
	is_int(a.closes, 0, "cancel does not call back at once");
	ok(pump_until(a.closes && srv.closes == 1), "it ends on both sides");
	is_int(a.close_status, -ECANCELED, "cancelled here");
	is_int(srv.close_status, -ECONNRESET, "client gone there");
	is_int(b.closes, 0, "the other one goes on");
	av_h2s_write(b.s, AV_STR("x"));
	ok(srv.req && av_res_send(srv.req, 200, NULL, 0, AV_STR("early")) == 0,
	    "an answer before the body's end");
	ok(pump_until(b.closes), "ends the stream, though its body goes on");
	is_str(b.text, "early", "with its body");
	is_int(b.close_status, 0, "as complete");
	get(&a, "/hang");
	pump_until(srv.requests == 3);
	if (srv.req)
		av_res_abort(srv.req);
	ok(pump_until(a.closes), "a response that is aborted");
	is_int(a.close_status, -ECONNRESET, "is a reset");
	get(&a, "/hang");
	get(&b, "/hello");
	b.free_in_data = true;
	ok(pump_until(b.closes && a.closes),
	    "freeing the connection in a callback ends all streams");
	is_int(a.close_status, -ECANCELED, "as cancelled");
	is_int(conn_closes, 0, "without on_close of the connection");
	hang_up();
}

static void test_upload(void)
{
	static char block[65536];
	struct call c;
	dial();
	post(&c, "/count");
	uint64_t sent = 0;
	int rc = 0;
	srv.pause = true;
	while (sent < 64UL * 1024 * 1024 &&
	       (rc = av_h2s_write(c.s, av_str_n(block, sizeof(block)))) == 0)
		sent += sizeof(block);
	is_int(rc, 1, "the writer is told to wait");
	pump(50);
	ok(srv.body <= 512UL * 1024, "a paused handler gets no more than a window (%llu)",
	    (unsigned long long)srv.body);
	ok(av_h2s_pending(c.s) > 0, "the rest waits here");
	srv.pause = false;
	if (srv.req)
		av_req_body_resume(srv.req);
	ok(pump_until(c.writables == 1), "writable after resume");
	sent = srv.body + av_h2s_pending(c.s);
	av_h2s_end(c.s);
	is_int(av_h2s_write(c.s, AV_STR("x")), -EPIPE, "no write after the end");
	ok(pump_until(c.closes) && c.status == 200, "complete");
	uint64_t counted = 0;
	av_parse_u64(av_str_c(c.text), 0, UINT64_MAX, &counted);
	is_int(counted, srv.body, "and counted");
	/* Nothing comes from the socket any more that would send the answer along. */
	srv.body = 0;
	srv.pause = true;
	post(&c, "/count");
	is_int(av_h2s_write(c.s, AV_STR("12345")), 0, "a short body");
	av_h2s_end(c.s);
	ok(pump_until(srv.body == 5), "whole at a handler that pauses");
	pump(20);
	is_int(c.closes, 0, "does not end");
	if (srv.req)
		av_req_body_resume(srv.req);
	ok(pump_until(c.closes) && c.status == 200, "until it resumes");
	srv.pause = false;
	post(&c, "/refuse");
	ok(pump_until(c.closes), "an upload that is refused");
	is_int(c.status, 403, "has its status");
	hang_up();
}

static void test_download(void)
{
	struct call slow, quick;
	dial();
	get(&slow, "/stream?33554432");
	slow.hold = true;
	pump(100);
	ok(slow.got >= 512UL * 1024 && slow.got <= 1024UL * 1024,
	    "without consume one window arrives (%llu)", (unsigned long long)slow.got);
	ok(srv.to_send > 28UL * 1024 * 1024, "and the sender waits");
	get(&quick, "/hello");
	ok(pump_until(quick.closes) && quick.close_status == 0, "another stream is not held back");
	slow.hold = false;
	av_h2s_consume(slow.s, slow.got);
	ok(pump_until(slow.closes), "after consume the rest comes");
	is_int(slow.got, 33554432, "all of it");
	get(&slow, "/low?8388608");
	slow.hold = true;
	pump(100);
	ok(srv.req && av_res_pending(srv.req) <= 131072 && srv.to_send > 0,
	    "one with a watermark of its own has less waiting");
	slow.hold = false;
	av_h2s_consume(slow.s, slow.got);
	ok(pump_until(slow.closes), "and goes on");
	is_int(slow.got, 8388608, "to its end");
	hang_up();
}

static void test_loss(void)
{
	struct call a, b;
	dial();
	get(&a, "/hang");
	post(&b, "/hang");
	pump_until(srv.requests == 2);
	av_http_server_free(server);
	ok(pump_until(conn_closes == 1), "the server goes away");
	is_int(conn_status, -ECONNRESET, "the connection says so");
	ok(a.closes == 1 && a.close_status == -ECONNRESET, "and its streams");
	ok(b.closes == 1 && b.close_status == -ECONNRESET, "both");
	ok(!av_h2c_usable(conn), "it is not usable");
	is_int(get(&a, "/hello"), -EPIPE, "for new requests");
	av_h2c_free(conn);
	dial();
	get(&a, "/hello");
	ok(pump_until(conn_closes == 1), "nobody listens");
	ok(conn_status == -ENOENT || conn_status == -ECONNREFUSED, "an error that says so (%d)",
	    conn_status);
	is_int(a.close_status, conn_status, "for the stream too");
	av_h2c_free(conn);
	conn = NULL;
}

/* A peer of raw bytes. */
static int raw_peer(const struct av_h2c_config *c)
{
	int fds[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	if (av_h2c_adopt(loop, fds[0], c, &conn) < 0)
		printf("Bail out! adopt\n");
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
	return fds[1];
}

static void hostile(const char *what, const void *bytes, size_t n, int want)
{
	struct call a;
	struct av_h2c_config c = config();
	int fd = raw_peer(&c);
	get(&a, "/x");
	pump(5);
	if (n > 0 && send(fd, bytes, n, MSG_NOSIGNAL) < 0)
		printf("Bail out! send\n");
	if (n > 0)
		shutdown(fd, SHUT_WR);
	ok(pump_until(a.closes), "%s: the stream ends", what);
	is_int(a.close_status, want, what);
	ok(pump_until(conn_closes == 1), "%s: so does the connection", what);
	av_h2c_free(conn);
	conn = NULL;
	close(fd);
}

#define SETTINGS "\0\0\0\4\0\0\0\0\0"

static void test_hostile(void)
{
	static const char http1[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
	static const char data_idle[] = SETTINGS "\0\0\4\0\0\0\0\0\1"
	                                         "abcd";
	static const char huge_frame[] = SETTINGS "\xff\xff\xff\0\0\0\0\0\1";
	static const char bad_hpack[] = SETTINGS "\0\0\1\1\5\0\0\0\1"
	                                         "\xff";
	static const char pushed[] = SETTINGS "\0\0\5\5\4\0\0\0\1"
	                                      "\0\0\0\2\x88";
	static const char settings[] = SETTINGS;
	hostile("HTTP/1 instead of HTTP/2", http1, sizeof(http1) - 1, -EPROTO);
	hostile("DATA before HEADERS", data_idle, sizeof(data_idle) - 1, -EPROTO);
	hostile("a frame of 16 MiB", huge_frame, sizeof(huge_frame) - 1, -EPROTO);
	hostile("bad header compression", bad_hpack, sizeof(bad_hpack) - 1, -EPROTO);
	hostile("a push that nobody asked for", pushed, sizeof(pushed) - 1, -ECONNRESET);
	hostile("only SETTINGS, then the end", settings, sizeof(settings) - 1, -ECONNRESET);

	/* Floods: the connection ends, memory stays small. */
	struct call a;
	struct av_h2c_config c = config();
	int fd = raw_peer(&c);
	get(&a, "/x");
	char ping[17] = "\0\0\10\6\0\0\0\0\0";
	ok(send(fd, SETTINGS, 9, MSG_NOSIGNAL) == 9, "settings, then a flood of pings");
	uint64_t sent = 0;
	int64_t end = av_mono_ns() + 5 * AV_NS_PER_S;
	while (!conn_closes && av_mono_ns() < end) {
		for (int i = 0; i < 500; i++)
			sent += send(fd, ping, sizeof(ping), MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
		av_loop_run_once(loop, 1);
	}
	ok(conn_closes == 1, "a peer that floods is cut off after %llu pings",
	    (unsigned long long)sent);
	av_h2c_free(conn);
	close(fd);

	/* Silence. */
	c = config();
	c.connect_timeout_ms = 100;
	fd = raw_peer(&c);
	get(&a, "/x");
	ok(pump_until(conn_closes), "a peer that never speaks");
	is_int(conn_status, -ETIMEDOUT, "times out");
	av_h2c_free(conn);
	close(fd);
	c = config();
	c.ping_interval_ms = c.ping_timeout_ms = 100;
	fd = raw_peer(&c);
	get(&a, "/x");
	ok(send(fd, SETTINGS, 9, MSG_NOSIGNAL) == 9 && pump_until(opens), "one that falls silent");
	ok(pump_until(conn_closes), "is asked, then given up");
	is_int(a.close_status, -ETIMEDOUT, "as timed out");
	av_h2c_free(conn);
	close(fd);
	conn = NULL;
}

/* What is known to be frozen has no time-outs; afterwards they count again. */
static void test_hold(void)
{
	struct call a;
	struct av_h2c_config c = config();
	int fd;

	c.connect_timeout_ms = c.ping_interval_ms = c.ping_timeout_ms = c.write_timeout_ms = 50;
	fd = raw_peer(&c);
	av_h2c_hold(conn, true);
	get(&a, "/x");
	pump(250);
	ok(!conn_closes && !a.closes, "a frozen peer may be silent while connecting");
	ok(send(fd, SETTINGS, 9, MSG_NOSIGNAL) == 9 && pump_until(opens), "it thaws and speaks");
	pump(250);
	ok(!conn_closes && !a.closes, "frozen again, it need not answer pings");
	av_h2c_hold(conn, false);
	ok(pump_until(conn_closes), "thawed, it must");
	is_int(a.close_status, -ETIMEDOUT, "or is given up");
	av_h2c_free(conn);
	close(fd);

	fd = raw_peer(&c);
	av_h2c_hold(conn, true);
	av_h2c_hold(conn, false);
	get(&a, "/x");
	ok(pump_until(conn_closes), "the connect time-out too begins anew");
	is_int(conn_status, -ETIMEDOUT, "as such");
	av_h2c_free(conn);
	close(fd);
	conn = NULL;
}

static void test_tcp_h2(void)
{
	/* The same port speaks HTTP/2 when the preface comes, in any pieces. */
	uint16_t port = 0;
	struct av_err err = {0};
	is_int(av_http_server_listen_tcp(server, "127.0.0.1", 0, &port, &err), 0, "TCP");
	struct peer p = peer_connect(port);
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" SETTINGS;
	for (size_t i = 0; i < sizeof(preface) - 1; i += 5) {
		peer_send_n(&p, preface + i, AV_MIN((size_t)5, sizeof(preface) - 1 - i));
		pump(1);
	}
	while (p.in.n < 9 && !p.eof)
		if (!peer_read(&p))
			av_loop_run_once(loop, 5);
	ok(p.in.n >= 9 && p.in.p[p.in.off + 3] == 4,
	    "the preface in pieces is answered with SETTINGS");
	peer_close(&p);
	p = peer_connect(port);
	peer_send(&p, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
	ok(peer_ended(&p) && peer_find(&p, "HTTP/1.1 400 "), "a false preface is a bad request");
	peer_close(&p);
}

static void bench(void)
{
	static char block[65536];
	struct call c;
	dial();
	get(&c, "/hello");
	pump_until(c.closes);
	int64_t t0 = av_mono_ns();
	for (int i = 0; i < 5000; i++) {
		get(&c, "/hello");
		while (!c.closes)
			av_loop_run_once(loop, 100);
	}
	diag("5000 requests one after the other: %.1f us each, both ends in one thread",
	    (double)(av_mono_ns() - t0) / 5000e3);
	t0 = av_mono_ns();
	get(&c, "/stream?1073741824");
	while (!c.closes && av_mono_ns() - t0 < 20 * AV_NS_PER_S)
		av_loop_run_once(loop, 100);
	is_int(c.got, 1073741824, "1 GiB down");
	diag("download 1 GiB: %.2f GB/s, both ends in one thread",
	    1.0737e9 / (double)(av_mono_ns() - t0));
	t0 = av_mono_ns();
	post(&c, "/count");
	srv.body = 0;
	for (uint64_t sent = 0; sent < 1073741824 && av_mono_ns() - t0 < 20 * AV_NS_PER_S;) {
		int w = c.writables;
		int rc = av_h2s_write(c.s, av_str_n(block, sizeof(block)));
		sent += sizeof(block);
		while (rc == 1 && c.writables == w && !c.closes)
			av_loop_run_once(loop, 100);
	}
	av_h2s_end(c.s);
	pump_until(c.closes);
	is_str(c.text, "1073741824", "1 GiB up");
	diag("upload 1 GiB: %.2f GB/s, both ends in one thread",
	    1.0737e9 / (double)(av_mono_ns() - t0));
	hang_up();
}

static void listen_again(void)
{
	struct av_http_server_config c = {.on_request = on_request};
	struct av_err err = {0};
	if (av_http_server_new(loop, &c, &server) < 0 ||
	    av_http_server_listen_unix(server, path, 0600, &err) < 0)
		printf("Bail out! %s\n", err.message);
}

int main(void)
{
	if (av_loop_new(&loop) < 0 || !mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/s", dir);
	listen_again();
	test_basics();
	test_cancel();
	test_upload();
	test_download();
	test_loss();
	test_hostile();
	test_hold();
	listen_again();
	test_tcp_h2();
	bench();
	av_http_server_free(server);
	av_loop_free(loop);
	rmdir(dir);
	return tap_done();
}
