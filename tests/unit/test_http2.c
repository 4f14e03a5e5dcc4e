/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_http2.c - two HTTP/2 sessions back to back: streams, windows, resets, limits, floods
 */
#include "proto/http2.h"

#include <errno.h>

#include "base/num.h"
#include "lib/tap.h"

#include "base/banned.h"

struct side {
	struct av_http2 *h;
	struct av_buf log; /* what happened, in a few letters */
	struct av_buf body;
	size_t body_n;
	struct av_http2_stream *s; /* the last stream seen */
	bool keep_window;          /* do not consume */
	bool echo;
	bool quiet;
	bool answer; /* server: 200 with "hi" at once */
	unsigned heads, ends, closes, drains, pongs;
	uint32_t close_error;
	size_t to_send; /* refilled in on_drain */
	uint8_t *chunk;
};

struct pair {
	struct side client, server;
	size_t piece;   /* bytes carried at a time; 0: any */
	bool broken[2]; /* recv failed on client, server */
};

static void note(struct side *a, const char *fmt, ...) AV_PRINTF(2, 3);
static void note(struct side *a, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!a->quiet)
		av_buf_append_c(&a->log, text);
}

static void on_head(void *ctx, struct av_http2_stream *s, struct av_http_head *h, bool end)
{
	struct side *a = ctx;
	a->heads++;
	a->s = s;
	if (h->status)
		note(a, "[%d", h->status);
	else
		note(a, "[%.*s %.*s @%.*s", AV_STR_ARG(h->method), AV_STR_ARG(h->target),
		    AV_STR_ARG(h->authority));
	if (h->content_length >= 0)
		note(a, " len=%lld", (long long)h->content_length);
	for (size_t i = 0; i < h->n_headers; i++)
		note(a, " %.*s=%.*s", AV_STR_ARG(h->headers[i].name),
		    AV_STR_ARG(h->headers[i].value));
	note(a, "%s]", end ? " end" : "");
	if (!a->answer || h->status)
		return;
	struct av_http_head r;
	av_http_head_response(&r, 200);
	if (av_http2_respond(s, &r, false) == 0 && av_http2_write(s, "hi", 2) == 0 &&
	    av_http2_end(s, NULL) < 0)
		note(a, "ANSWER");
}

static void on_body(void *ctx, struct av_http2_stream *s, const uint8_t *p, size_t n)
{
	struct side *a = ctx;
	a->body_n += n;
	if (a->body_n < 65536)
		av_buf_append(&a->body, p, n);
	if (a->echo && av_http2_write(s, p, n) < 0)
		note(a, "ECHO");
	if (!a->keep_window)
		av_http2_consume(s, n);
}

static void on_end(void *ctx, struct av_http2_stream *s, struct av_http_head *trailers)
{
	struct side *a = ctx;
	a->ends++;
	note(a, "$");
	for (size_t i = 0; trailers && i < trailers->n_headers; i++)
		note(a, "{%.*s=%.*s}", AV_STR_ARG(trailers->headers[i].name),
		    AV_STR_ARG(trailers->headers[i].value));
	if (a->echo && av_http2_end(s, NULL) < 0)
		note(a, "ECHO-END");
}

static void on_drain(void *ctx, struct av_http2_stream *s)
{
	struct side *a = ctx;
	a->drains++;
	if (!a->to_send)
		return;
	while (a->to_send && av_http2_buffered(s) < 512 * 1024) {
		size_t n = AV_MIN(a->to_send, (size_t)262144);
		struct av_http2_block *b = av_http2_block_new((uint32_t)n);
		memcpy(b->data, a->chunk, n);
		b->n = (uint32_t)n;
		a->to_send -= n;
		if (av_http2_write_block(s, b) < 0)
			note(a, "WRITE");
	}
	if (a->to_send == 0 && av_http2_end(s, NULL) < 0)
		note(a, "END");
}

static void on_close(void *ctx, struct av_http2_stream *s, uint32_t error)
{
	struct side *a = ctx;
	a->closes++;
	a->close_error = error;
	if (a->s == s)
		a->s = NULL;
	note(a, "#%u", error);
}

static void on_goaway(void *ctx, uint32_t error, int32_t last)
{
	note(ctx, "<goaway %u %d>", error, last);
}

static void on_pong(void *ctx, uint64_t opaque)
{
	struct side *a = ctx;
	a->pongs++;
	note(a, "<pong %llu>", (unsigned long long)opaque);
}

static const struct av_http2_events events = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_drain = on_drain,
    .on_close = on_close,
    .on_goaway = on_goaway,
    .on_pong = on_pong,
};

static void pair_init(struct pair *p, const struct av_http2_config *config)
{
	struct av_http2_config c = config ? *config : AV_HTTP2_CONFIG_DEFAULT;
	*p = (struct pair){0};
	struct side *sides[] = {&p->client, &p->server};
	for (size_t i = 0; i < 2; i++) {
		av_buf_init(&sides[i]->log, 1 << 20);
		av_buf_init(&sides[i]->body, 1 << 20);
	}
	p->client.h = av_http2_new_client(&c, &events, &p->client);
	p->server.h = av_http2_new_server(&c, &events, &p->server);
}

static void pair_clear(struct pair *p)
{
	struct side *sides[] = {&p->client, &p->server};
	for (size_t i = 0; i < 2; i++) {
		av_http2_free(sides[i]->h);
		av_buf_clear(&sides[i]->log);
		av_buf_clear(&sides[i]->body);
	}
}

/* Carries what one side has to write to the other. True if there was any. */
static bool carry(struct pair *p, struct side *from, struct side *to)
{
	struct iovec iov[16];
	int n = av_http2_output(from->h, iov, 16, p->piece ? p->piece : 131072);
	size_t done = 0;
	bool *broken = &p->broken[to == &p->server];
	for (int i = 0; i < n; i++) {
		const uint8_t *b = iov[i].iov_base;
		size_t step = p->piece ? p->piece : iov[i].iov_len;
		for (size_t k = 0; k < iov[i].iov_len; k += step) {
			size_t len = AV_MIN(step, iov[i].iov_len - k);
			if (!*broken && av_http2_recv(to->h, b + k, len, NULL) < 0)
				*broken = true;
		}
		done += iov[i].iov_len;
	}
	av_http2_output_done(from->h, done);
	return done > 0;
}

static void run(struct pair *p)
{
	for (int i = 0; i < 1000000; i++) {
		bool a = carry(p, &p->client, &p->server), b = carry(p, &p->server, &p->client);
		if (!a && !b)
			return;
	}
	ok(false, "the two sides never fall silent");
}

static struct av_http2_stream *request(
    struct pair *p, const char *method, const char *target, bool end)
{
	struct av_http2_stream *s = NULL;
	struct av_http_head h;
	int r = av_http_head_request(&h, av_str_c(method), AV_STR("host:1"), av_str_c(target));
	if (r == 0)
		r = av_http_head_add_c(&h, "x-test", "1");
	if (r == 0)
		r = av_http2_request(p->client.h, &h, end, NULL, &s);
	if (r < 0)
		diag("request: %d", r);
	av_http_head_clear(&h);
	return s;
}

static void respond(struct av_http2_stream *s, int status, bool end)
{
	struct av_http_head h;
	av_http_head_response(&h, status);
	is_int(av_http2_respond(s, &h, end), 0, "respond");
	av_http_head_clear(&h);
}

static void test_simple(size_t piece)
{
	struct pair p;
	pair_init(&p, NULL);
	p.piece = piece;
	p.server.answer = true;
	request(&p, "GET", "/a?b=c", true);
	run(&p);
	is_avstr(av_buf_str(&p.server.log), "[GET /a?b=c @host:1 x-test=1 end]$#0", "server");
	is_avstr(av_buf_str(&p.client.log), "[200]$#0", "client");
	is_avstr(av_buf_str(&p.client.body), "hi", "body");
	is_int(
	    av_http2_stream_count(p.client.h) + av_http2_stream_count(p.server.h), 0, "no streams");
	ok(!av_http2_want_write(p.client.h) && !av_http2_want_write(p.server.h), "silence");
	pair_clear(&p);
}

static void test_trailers(void)
{
	struct pair p;
	struct av_http_head t;
	pair_init(&p, NULL);
	struct av_http2_stream *c = request(&p, "POST", "/", false);
	is_int(av_http2_write(c, "abc", 3), 0, "write");
	run(&p);
	is_avstr(av_buf_str(&p.server.body), "abc", "the body arrives before its end");
	av_http_head_init(&t);
	is_int(av_http_head_add_c(&t, "T", "1"), 0, "trailer");
	is_int(av_http2_write(c, "de", 2), 0, "write");
	is_int(av_http2_end(c, &t), 0, "end with trailers");
	is_int(av_http2_write(c, "x", 1), -EPIPE, "no write after the end");
	struct av_http_head interim;
	av_http_head_response(&interim, 103);
	is_int(av_http2_respond(p.server.s, &interim, false), 0, "interim");
	respond(p.server.s, 204, true);
	is_int(av_http2_respond(p.server.s, &interim, false), -EALREADY, "one response only");
	run(&p);
	is_avstr(av_buf_str(&p.server.log), "[POST / @host:1 x-test=1]${t=1}#0", "server");
	is_avstr(av_buf_str(&p.server.body), "abcde", "body");
	is_avstr(av_buf_str(&p.client.log), "[204 end]$#0", "client");
	av_http_head_clear(&t);
	pair_clear(&p);
}

static void test_windows(void)
{
	struct av_http2_config config = AV_HTTP2_CONFIG_DEFAULT;
	struct pair p;
	config.window = 100000;
	config.connection_window = 150000;
	pair_init(&p, &config);
	p.server.keep_window = true;
	struct av_http2_stream *c = request(&p, "POST", "/", false);
	uint8_t *bytes = calloc(1, 300000);
	is_int(av_http2_write(c, bytes, 300000), 0, "write");
	run(&p);
	is_int(p.server.body_n, 100000, "a stream holds one window");
	is_int(av_http2_buffered(c), 200000, "the rest waits at the sender");
	is_int(p.client.drains, 0, "not drained");
	struct av_http2_stream *first = p.server.s;
	struct av_http2_stream *c2 = request(&p, "POST", "/", false);
	is_int(av_http2_write(c2, bytes, 300000), 0, "write");
	run(&p);
	is_int(p.server.body_n, 150000, "all streams together hold the connection's window");
	is_int(av_http2_unconsumed(first), 100000, "owed");
	av_http2_consume(first, 80000);
	run(&p);
	is_int(p.server.body_n, 230000, "consumed bytes open the windows again");
	av_http2_reset(p.server.s, AV_HTTP2_CANCEL);
	run(&p);
	is_int(p.server.closes, 1, "reset");
	is_int(p.client.close_error, AV_HTTP2_CANCEL, "with its code");
	p.server.keep_window = false;
	av_http2_consume(first, av_http2_unconsumed(first));
	run(&p);
	is_int(av_http2_buffered(c), 0, "what the reset stream owed came back to the connection");
	ok(p.client.drains > 0, "drained");
	pair_clear(&p);
	is_int(p.client.closes, 2, "each stream closed once");
	free(bytes);
}

static void test_own_windows(void)
{
	struct av_http2_config config = AV_HTTP2_CONFIG_DEFAULT;
	struct pair p;
	config.window = 100000;
	config.connection_window = 150000;
	config.own_windows = true;
	pair_init(&p, &config);
	p.server.keep_window = true;
	uint8_t *bytes = calloc(1, 300000);
	struct av_http2_stream *c[5];
	for (size_t i = 0; i < AV_ARRAY_LEN(c); i++) {
		c[i] = request(&p, "POST", "/", false);
		is_int(av_http2_write(c[i], bytes, 300000), 0, "write");
		run(&p);
	}
	is_int(p.server.body_n, 500000, "each stream has its window, whatever the others hold");
	struct av_http2_stream *last = p.server.s;
	av_http2_set_window(last, 250000);
	run(&p);
	is_int(p.server.body_n, 650000, "a wider window for one of them");
	av_http2_consume(last, 200000);
	run(&p);
	is_int(p.server.body_n, 700000, "consumed bytes open it again");
	is_int(av_http2_unconsumed(last), 100000, "owed");
	av_http2_reset(last, AV_HTTP2_CANCEL);
	run(&p);
	p.server.keep_window = false;
	struct av_http2_stream *next = request(&p, "POST", "/", false);
	is_int(av_http2_write(next, bytes, 300000), 0, "write");
	run(&p);
	is_int(av_http2_buffered(next), 0, "after a reset the connection still has room");
	pair_clear(&p);
	free(bytes);
}

static void test_bulk(void)
{
	struct pair p;
	enum { TOTAL = 64 << 20 };
	pair_init(&p, NULL);
	p.client.chunk = calloc(1, 262144);
	p.client.to_send = TOTAL;
	struct av_http2_stream *c = request(&p, "POST", "/", false);
	on_drain(&p.client, c);
	run(&p);
	is_int(p.server.body_n, TOTAL, "64 MiB went through");
	is_int(p.server.ends, 1, "and ended");
	respond(p.server.s, 200, true);
	run(&p);
	is_int(p.client.closes, 1, "closed");
	free(p.client.chunk);
	pair_clear(&p);
}

static void test_echo(size_t piece)
{
	struct pair p;
	pair_init(&p, NULL);
	p.piece = piece;
	p.server.echo = true;
	struct av_http2_stream *c = request(&p, "CONNECT", "", false);
	run(&p);
	is_avstr(av_buf_str(&p.server.log), "[CONNECT  @host:1 x-test=1]", "a tunnel");
	respond(p.server.s, 200, false);
	for (int i = 0; i < 300; i++) {
		char text[16];
		snprintf(text, sizeof(text), "%d,", i);
		if (av_http2_write(c, text, strlen(text)) < 0)
			ok(false, "write");
		if (i % 7 == 0)
			run(&p);
	}
	is_int(av_http2_end(c, NULL), 0, "end");
	run(&p);
	struct av_str got = av_buf_str(&p.client.body), want = av_buf_str(&p.server.body);
	ok(av_str_eq(got, want) && av_str_ends(got, AV_STR(",298,299,")), "all comes back");
	is_int(p.client.closes + p.server.closes, 2, "closed");
	pair_clear(&p);
}

static void test_reset_with_data_under_way(void)
{
	for (size_t limit = 1; limit < 60; limit += 3) {
		struct pair p;
		struct iovec iov[8];
		pair_init(&p, NULL);
		run(&p);
		struct av_http2_stream *c = request(&p, "POST", "/", false);
		if (av_http2_write(c, "0123456789", 10) < 0)
			ok(false, "write");
		/* Stops somewhere within HEADERS or DATA. */
		int n = av_http2_output(p.client.h, iov, 8, limit);
		av_http2_output_done(p.client.h, n > 0 ? AV_MIN(iov[0].iov_len, limit) : 0);
		av_http2_reset(c, AV_HTTP2_CANCEL);
		if (av_http2_write(c, "x", 1) != -EPIPE)
			ok(false, "no write after reset");
		while ((n = av_http2_output(p.client.h, iov, 8, limit)) > 0)
			av_http2_output_done(p.client.h, iov[0].iov_len);
		ok(p.client.closes == 1, "reset at %zu bytes of output closes once", limit);
		pair_clear(&p);
	}
}

static void test_early_answer(void)
{
	struct pair p;
	pair_init(&p, NULL);
	p.server.keep_window = true;
	struct av_http2_stream *c = request(&p, "POST", "/", false);
	uint8_t *bytes = calloc(1, 2 << 20);
	is_int(av_http2_write(c, bytes, 2 << 20), 0, "write");
	run(&p);
	respond(p.server.s, 413, true);
	av_http2_reset(p.server.s, AV_HTTP2_NO_ERROR);
	run(&p);
	is_avstr(
	    av_buf_str(&p.client.log), "[413 end]$#0", "the answer arrives whole, then NO_ERROR");
	is_int(p.server.closes, 1, "server too");
	free(bytes);
	pair_clear(&p);
}

static void test_many_streams(void)
{
	struct av_http2_config config = AV_HTTP2_CONFIG_DEFAULT;
	struct pair p;
	config.max_streams = 3;
	pair_init(&p, &config);
	run(&p);
	for (int i = 0; i < 10; i++)
		request(&p, "GET", "/", true);
	run(&p);
	is_int(p.server.heads, 3, "only as many as allowed are open");
	p.server.answer = true;
	respond(p.server.s, 200, true);
	run(&p);
	is_int(p.client.closes, 8, "queued ones follow");
	is_int(p.client.close_error, 0, "in order");
	pair_clear(&p);
	is_int(p.client.closes, 10, "free closes the rest");
	is_int(p.client.close_error, AV_HTTP2_CANCEL, "as cancelled");
}

static void test_goaway(void)
{
	struct pair p;
	struct av_http2_stream *s;
	struct av_http_head h;
	pair_init(&p, NULL);
	request(&p, "GET", "/", true);
	run(&p);
	av_http2_goaway(p.server.h, AV_HTTP2_NO_ERROR);
	run(&p);
	is_int(av_http_head_request(&h, AV_STR("GET"), AV_STR("a"), AV_STR("/")), 0, "head");
	is_int(av_http2_request(p.client.h, &h, true, NULL, &s), -EPIPE, "no new requests");
	ok(!av_http2_done(p.client.h) && !av_http2_done(p.server.h), "the open stream goes on");
	respond(p.server.s, 200, true);
	run(&p);
	ok(av_http2_done(p.client.h) && av_http2_done(p.server.h), "then both are done");
	is_int(p.client.close_error, 0, "and it ended well");
	av_http_head_clear(&h);
	pair_clear(&p);
}

static void test_eof(void)
{
	struct pair p;
	pair_init(&p, NULL);
	struct av_http2_stream *c = request(&p, "POST", "/", false);
	run(&p);
	is_int(av_http2_write(c, "abc", 3), 0, "write");
	av_http2_eof(p.client.h);
	is_int(p.client.closes, 1, "eof closes");
	is_int(p.client.close_error, AV_HTTP2_CANCEL, "as cancelled");
	ok(av_http2_done(p.client.h) && !av_http2_want_write(p.client.h), "nothing left to do");
	is_int(av_http2_ping(p.client.h, 1), -EPIPE, "no ping");
	pair_clear(&p);
	is_int(p.client.closes, 1, "not twice");
}

static void test_ping(void)
{
	struct pair p;
	pair_init(&p, NULL);
	is_int(av_http2_ping(p.client.h, 42), 0, "ping");
	run(&p);
	is_avstr(av_buf_str(&p.client.log), "<pong 42>", "pong");
	pair_clear(&p);
}

/* A head that the client's own checks would refuse is put together by hand: literal fields without
 * indexing (RFC 7541 section 6.2.2), short enough for one-byte lengths. */
static size_t raw_field(uint8_t *dst, const char *name, const char *value)
{
	size_t k = 0, n = strlen(name), v = strlen(value);
	dst[k++] = 0;
	dst[k++] = (uint8_t)n;
	memcpy(dst + k, name, n);
	k += n;
	dst[k++] = (uint8_t)v;
	memcpy(dst + k, value, v);
	return k + v;
}

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";

static void raw_frame(
    struct av_buf *b, uint8_t type, uint8_t flags, uint32_t id, const void *p, size_t n)
{
	uint8_t h[9] = {(uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, type, flags};
	av_put_be32(h + 5, id);
	av_buf_append(b, h, sizeof(h));
	if (n)
		av_buf_append(b, p, n);
}

static size_t raw_get(uint8_t *dst, const char *path, const char *authority)
{
	size_t n = raw_field(dst, ":method", "GET");
	n += raw_field(dst + n, ":scheme", "http");
	n += raw_field(dst + n, ":path", path);
	return n + raw_field(dst + n, ":authority", authority);
}

/* Feeds a server with the preface and these bytes; the status line of what it answers to stream 1
 * is not parsed: the client side of a pair does that. */
static void raw_server(struct pair *p, struct av_str bytes)
{
	pair_init(p, NULL);
	if (av_http2_recv(p->server.h, preface, sizeof(preface) - 1, NULL) < 0 ||
	    av_http2_recv(p->server.h, bytes.p, bytes.n, NULL) < 0)
		p->broken[1] = true;
}

static size_t drain(struct side *a, struct av_buf *out)
{
	struct iovec iov[8];
	size_t total = 0;
	int n;
	while ((n = av_http2_output(a->h, iov, 8, 65536)) > 0) {
		size_t k = 0;
		for (int i = 0; i < n; i++) {
			k += iov[i].iov_len;
			if (out)
				av_buf_append(out, iov[i].iov_base, iov[i].iov_len);
		}
		av_http2_output_done(a->h, k);
		total += k;
	}
	return total;
}

static void test_bad_heads(void)
{
	static const struct {
		const char *path, *authority, *name, *value;
		bool seen;
	} cases[] = {
	    {"/", "a", "x", "y", true},
	    {"/ b", "a", "x", "y", false},
	    {"/#b", "a", "x", "y", false},
	    {"*", "a", "x", "y", false},
	    {"b", "a", "x", "y", false},
	    {"/", "a/b", "x", "y", false},
	    {"/", "u@a", "x", "y", false},
	    {"/", "a", "host", "b", false},
	    {"/", "a", "host", "A", true},
	    {"/", "a", "transfer-encoding", "chunked", false},
	    {"/", "a", "connection", "close", false},
	    {"/", "a", "X", "y", false},
	    {"/", "a", "x", "y\r\nz: 1", false},
	    {"/", "a", "content-length", "1", false}, /* and no body */
	    {"/", "a", "te", "gzip", false},
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++) {
		struct pair p;
		uint8_t head[512];
		AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(4096);
		size_t n = raw_get(head, cases[i].path, cases[i].authority);
		n += raw_field(head + n, cases[i].name, cases[i].value);
		raw_frame(&b, 1, 5, 1, head, n);
		raw_server(&p, av_buf_str(&b));
		drain(&p.server, NULL);
		ok((p.server.heads == 1) == cases[i].seen, "%s %s %s: %.*s", cases[i].path,
		    cases[i].authority, cases[i].name, (int)strcspn(cases[i].value, "\r\n"),
		    cases[i].value);
		pair_clear(&p);
		ok(p.server.closes == p.server.heads, "closed if seen");
	}
}

static void test_large_head(void)
{
	struct av_http2_config config = AV_HTTP2_CONFIG_DEFAULT;
	struct pair p;
	struct av_http2_stream *s;
	struct av_http_head h;
	for (int i = 0; i < 3; i++) {
		pair_init(&p, &config);
		char *text = calloc(1, 40001);
		memset(text, 'x', 40000);
		int r = av_http_head_request(&h, AV_STR("GET"), AV_STR("a"), AV_STR("/"));
		if (i == 0)
			r |= av_http_head_add_c(&h, "y", text);
		for (int k = 0; i == 1 && k < 200; k++)
			r |= av_http_head_add_c(&h, "y", "z");
		if (i == 2) {
			text[9000] = '\0';
			text[0] = '/';
			h.target = av_str_c(text);
		}
		is_int(r, 0, "head");
		is_int(av_http2_request(p.client.h, &h, true, NULL, &s), 0, "request");
		run(&p);
		is_int(p.server.heads, 0, "not shown to the server's owner");
		is_avstr(av_buf_str(&p.client.log), "[431 len=0 end]$#0", "answered with 431");
		av_http_head_clear(&h);
		pair_clear(&p);
		free(text);
	}
}

static void test_rapid_reset(void)
{
	struct pair p;
	pair_init(&p, NULL);
	run(&p);
	p.client.quiet = p.server.quiet = true;
	unsigned i;
	for (i = 0; i < 1000 && !p.broken[1]; i++) {
		struct av_http2_stream *c = request(&p, "GET", "/", true);
		if (!c)
			break;
		carry(&p, &p.client, &p.server);
		if (p.client.s == c || av_http2_stream_count(p.client.h))
			av_http2_reset(c, AV_HTTP2_CANCEL);
		carry(&p, &p.client, &p.server);
	}
	ok(p.broken[1] && i >= 200 && i < 300, "streams opened and reset end the connection (%u)",
	    i);
	run(&p);
	ok(av_http2_done(p.server.h), "with a GOAWAY");
	pair_clear(&p);
	is_int(p.server.closes, p.server.heads, "every stream closed once");

	pair_init(&p, NULL);
	p.client.quiet = p.server.quiet = true;
	p.server.answer = true;
	for (i = 0; i < 1000; i++) {
		struct av_http2_stream *c = request(&p, "GET", "/", true);
		if (i % 2) {
			carry(&p, &p.client, &p.server);
			if (c && av_http2_stream_count(p.client.h))
				av_http2_reset(c, AV_HTTP2_CANCEL);
		}
		run(&p);
	}
	ok(!p.broken[1], "resets that useful streams pay for do not");
	pair_clear(&p);
}

static void test_floods(void)
{
	static const struct {
		uint8_t type, flags;
		uint32_t id;
		size_t n;
		const char *what;
	} cases[] = {
	    {6, 0, 0, 8, "PING"},
	    {4, 0, 0, 0, "SETTINGS"},
	    {4, 0, 0, 6, "SETTINGS with a value"},
	    {2, 0, 1, 5, "PRIORITY"},
	    {8, 0, 0, 4, "WINDOW_UPDATE"},
	    {0, 0, 1, 0, "empty DATA"},
	};
	static const uint8_t zero[8] = {0, 0, 0, 1};
	static const uint8_t setting[6] = {0, 3, 0, 0, 0, 1};
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++) {
		struct pair p;
		uint8_t head[256];
		AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(4096), one = AV_BUF_INIT(64);
		size_t n = raw_get(head, "/", "a");
		raw_frame(&b, 1, 4, 1, head, n);
		raw_server(&p, av_buf_str(&b));
		raw_frame(&one, cases[i].type, cases[i].flags, cases[i].id,
		    cases[i].type == 4 ? setting : zero, cases[i].n);
		unsigned k = 0;
		while (k < 30000 && !p.broken[1] && !av_http2_done(p.server.h)) {
			struct av_str s = av_buf_str(&one);
			if (av_http2_recv(p.server.h, s.p, s.n, NULL) < 0)
				p.broken[1] = true;
			if (k++ % 2)
				drain(&p.server, NULL);
		}
		drain(&p.server, NULL);
		ok(k < 30000, "a flood of %s ends the connection (%u)", cases[i].what, k);
		pair_clear(&p);
		is_int(p.server.closes, 1, "the stream there was is closed once");
	}
	struct pair p;
	AV_CLEANUP(av_buf_clear) struct av_buf one = AV_BUF_INIT(64);
	raw_frame(&one, 6, 0, 0, zero, 8);
	raw_server(&p, AV_STR(""));
	for (int i = 0; i < 30000; i++) {
		struct av_str s = av_buf_str(&one);
		if (av_http2_recv(p.server.h, s.p, s.n, NULL) < 0)
			p.broken[1] = true;
		drain(&p.server, NULL);
		if (i % 100 == 0)
			av_http2_tick(p.server.h);
	}
	ok(!p.broken[1], "slow pings are no flood");
	pair_clear(&p);
}

static void test_garbage(void)
{
	struct pair p;
	struct av_err err = {0};
	pair_init(&p, NULL);
	is_int(av_http2_recv(p.server.h, "GET / HTTP/1.1\r\n\r\n123456789", 27, &err), -EPROTO,
	    "HTTP/1 is refused");
	is_int(err.kind, AV_ERR_INVALID, "with a message");
	ok(drain(&p.server, NULL) > 0, "a GOAWAY");
	ok(av_http2_done(p.server.h), "done");
	is_int(av_http2_recv(p.server.h, "x", 1, NULL), -EPROTO, "and stays so");
	pair_clear(&p);
	/* The client as target: random bytes after real ones. */
	unsigned seed = 12345;
	for (int round = 0; round < 200; round++) {
		uint8_t junk[256];
		pair_init(&p, NULL);
		p.client.quiet = p.server.quiet = true;
		request(&p, "GET", "/", true);
		run(&p);
		for (size_t i = 0; i < sizeof(junk); i++) {
			seed = seed * 1103515245 + 12345;
			junk[i] = (uint8_t)(seed >> 16);
		}
		junk[0] = junk[1] = 0;
		junk[3] %= 11;
		if (av_http2_recv(p.client.h, junk, sizeof(junk), NULL) < 0)
			p.broken[0] = true;
		drain(&p.client, NULL);
		pair_clear(&p);
		if (p.client.closes != 1)
			ok(false, "closed once");
	}
	ok(true, "random frames leave nothing behind");
}

static void test_preface(void)
{
	is_int(av_http2_is_preface(preface, 24), 1, "preface");
	is_int(av_http2_is_preface(preface, 40), 1, "and more");
	is_int(av_http2_is_preface("PRI", 3), -EAGAIN, "too short to tell");
	is_int(av_http2_is_preface("", 0), -EAGAIN, "nothing yet");
	is_int(av_http2_is_preface("POST", 4), 0, "POST");
}

int main(void)
{
	test_simple(0);
	test_simple(1);
	test_trailers();
	test_windows();
	test_own_windows();
	test_bulk();
	test_echo(0);
	test_echo(3);
	test_reset_with_data_under_way();
	test_early_answer();
	test_many_streams();
	test_goaway();
	test_eof();
	test_ping();
	test_bad_heads();
	test_large_head();
	test_rapid_reset();
	test_floods();
	test_garbage();
	test_preface();
	return tap_done();
}
