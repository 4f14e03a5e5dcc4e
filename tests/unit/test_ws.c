/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ws.c - WebSocket: handshake, messages both ways, violations, limits, backpressure
 */
#include "proto/ws.h"

#include <errno.h>

#include "lib/tap.h"
#include "proto/http1.h"

#include "base/banned.h"

struct side {
	struct av_ws *w;
	struct av_buf log;
	bool pause;
	size_t bytes;
};

static void on_message(void *ctx, enum av_ws_opcode op, const uint8_t *p, size_t n)
{
	struct side *a = ctx;
	a->bytes += n;
	if (n < 200)
		av_buf_printf(
		    &a->log, "%s(%.*s)", op == AV_WS_TEXT ? "T" : "B", (int)n, (const char *)p);
	else
		av_buf_printf(&a->log, "%s<%zu>", op == AV_WS_TEXT ? "T" : "B", n);
	if (a->pause)
		av_ws_pause(a->w);
}

static void on_close(void *ctx, uint16_t code, struct av_str reason)
{
	struct side *a = ctx;
	av_buf_printf(&a->log, "#%u(%.*s)", code, AV_STR_ARG(reason));
}

static void on_pong(void *ctx, const uint8_t *p, size_t n)
{
	struct side *a = ctx;
	av_buf_printf(&a->log, "pong(%.*s)", (int)n, (const char *)p);
}

static const struct av_ws_events events = {on_message, on_close, on_pong};

static void side_init(struct side *a, bool client, size_t max, size_t high)
{
	struct av_ws_config c = {.client = client, .max_message = max, .high_mark = high};
	*a = (struct side){.log = AV_BUF_INIT(65536)};
	a->w = av_ws_new(&c, &events, a);
}

static void side_clear(struct side *a)
{
	av_ws_free(a->w);
	av_buf_clear(&a->log);
}

/* Carries all output of one side to the other, in pieces. The last result of recv. */
static ssize_t carry(struct side *from, struct side *to, size_t piece)
{
	ssize_t r = 0;
	while (av_ws_buffered(from->w)) {
		struct av_str s = av_ws_output(from->w);
		s.n = AV_MIN(s.n, piece);
		r = av_ws_recv(to->w, s.p, s.n);
		if (r < 0)
			break;
		av_ws_output_done(from->w, (size_t)r);
		if (r == 0)
			break;
	}
	return r;
}

static void test_handshake(void)
{
	char key[AV_WS_KEY_SIZE], accept[AV_WS_ACCEPT_SIZE];
	AV_CLEANUP(av_http_head_clear) struct av_http_head q, a;
	struct av_err err = {0};
	av_ws_accept_key(accept, AV_STR("dGhlIHNhbXBsZSBub25jZQ=="));
	is_str(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "the example of RFC 6455");
	av_ws_make_key(key);
	is_int(strlen(key), 24, "key");
	is_int(av_http_head_request(&q, AV_STR("GET"), AV_STR("h"), AV_STR("/")), 0, "request");
	is_int(av_ws_request_head(&q, key, "aviary-frames.v1"), 0, "headers");
	is_int(av_ws_check_request(&q, &err), -EINVAL, "not parsed from an upgrade");
	q.upgrade = true;
	is_int(av_ws_check_request(&q, &err), 0, "a good request");
	ok(av_ws_offers_protocol(&q, "aviary-frames.v1"), "protocol offered");
	ok(!av_ws_offers_protocol(&q, "other"), "and no other");
	is_int(av_ws_accept_head(&a, &q, "aviary-frames.v1"), 0, "answer");
	is_int(a.status, 101, "101");
	is_int(av_ws_check_response(&a, key, &err), 0, "a good answer");
	is_int(av_ws_check_response(&a, "xGhlIHNhbXBsZSBub25jZQ==", &err), -EINVAL, "another key");
	a.status = 200;
	is_int(av_ws_check_response(&a, key, &err), -EINVAL, "not a 101");
	av_http_head_remove(&q, "sec-websocket-version");
	is_int(av_http_head_add_c(&q, "Sec-WebSocket-Version", "8"), 0, "old version");
	ok(av_ws_check_request(&q, &err) < 0 && err.kind == AV_ERR_UNSUPPORTED, "unsupported");
	av_http_head_remove(&q, "sec-websocket-version");
	is_int(av_http_head_add_c(&q, "Sec-WebSocket-Version", "13"), 0, "right version");
	av_http_head_remove(&q, "sec-websocket-key");
	is_int(av_ws_check_request(&q, &err), -EINVAL, "no key");
	is_int(av_http_head_add_c(&q, "Sec-WebSocket-Key", "short"), 0, "bad key");
	is_int(av_ws_check_request(&q, &err), -EINVAL, "bad key");
}

static void test_messages(size_t piece)
{
	static const size_t sizes[] = {0, 1, 125, 126, 127, 65535, 65536, 200000};
	struct side c, s;
	side_init(&c, true, 1 << 20, 1 << 20);
	side_init(&s, false, 1 << 20, 1 << 20);
	char *text = malloc(200000);
	memset(text, 'a', 200000);
	for (size_t i = 0; i < AV_ARRAY_LEN(sizes); i++) {
		is_int(av_ws_send(c.w, AV_WS_TEXT, text, sizes[i]), 0, "send");
		is_int(av_ws_send2(s.w, AV_WS_BINARY, av_str_n(text, sizes[i] / 2),
		           av_str_n(text, sizes[i] - sizes[i] / 2)),
		    0, "send");
		ok(carry(&c, &s, piece) >= 0 && carry(&s, &c, piece) >= 0, "carried");
	}
	ok(av_str_ends(av_buf_str(&c.log), AV_STR("B<65535>B<65536>B<200000>")), "to the client");
	ok(av_str_ends(av_buf_str(&s.log), AV_STR("T<65535>T<65536>T<200000>")), "to the server");
	is_int(c.bytes, 331450, "all bytes");
	is_int(s.bytes, 331450, "all bytes");
	is_int(av_ws_buffered(c.w) + av_ws_buffered(s.w), 0, "silence");
	av_buf_reset(&c.log);
	is_int(av_ws_send(c.w, AV_WS_PING, "hello", 5), 0, "ping");
	is_int(av_ws_send(c.w, AV_WS_PING, text, 126), -EINVAL, "ping too long");
	ok(carry(&c, &s, piece) >= 0 && carry(&s, &c, piece) >= 0, "carried");
	is_avstr(av_buf_str(&c.log), "pong(hello)", "pong");
	av_buf_reset(&s.log);
	is_int(av_ws_close(c.w, AV_WS_CLOSE_NORMAL, "bye"), 0, "close");
	is_int(av_ws_send(c.w, AV_WS_TEXT, "x", 1), -EPIPE, "no message after close");
	ok(!av_ws_done(c.w), "not done");
	ok(carry(&c, &s, piece) >= 0, "carried");
	is_avstr(av_buf_str(&s.log), "#1000(bye)", "the server sees it");
	is_int(av_ws_send(s.w, AV_WS_TEXT, "x", 1), -EPIPE, "and sends no more");
	ok(carry(&s, &c, piece) >= 0, "carried");
	ok(av_ws_done(c.w) && av_ws_done(s.w), "both done");
	free(text);
	side_clear(&c);
	side_clear(&s);
}

static void test_raw(void)
{
	static const struct {
		struct av_str in;
		ssize_t result;
		const char *log, *what;
	} cases[] = {
	    /* Masked with zeros. */
	    {AV_STR("\x81\x82\0\0\0\0hi"), 8, "T(hi)", "text"},
	    {AV_STR("\x01\x81\0\0\0\0h\x89\x81\0\0\0\0p\x80\x81\0\0\0\0i"), 21, "T(hi)",
	        "fragments with a ping between"},
	    {AV_STR("\x81\x02hi"), -EPROTO, "", "not masked"},
	    {AV_STR("\xc1\x82\0\0\0\0hi"), -EPROTO, "", "reserved bit"},
	    {AV_STR("\x83\x80\0\0\0\0"), -EPROTO, "", "unknown opcode"},
	    {AV_STR("\x80\x80\0\0\0\0"), -EPROTO, "", "continuation of nothing"},
	    {AV_STR("\x01\x80\0\0\0\0\x81\x80\0\0\0\0"), -EPROTO, "", "text within text"},
	    {AV_STR("\x09\x80\0\0\0\0"), -EPROTO, "", "fragmented ping"},
	    {AV_STR("\x89\xfe\0\x7e\0\0\0\0"), -EPROTO, "", "long ping"},
	    {AV_STR("\x81\x81\0\0\0\0\xff"), -EILSEQ, "", "not UTF-8"},
	    {AV_STR("\x81\x83\0\0\0\0\xed\xa0\x80"), -EILSEQ, "", "surrogate"},
	    {AV_STR("\x81\x82\0\0\0\0\xe2\x82"), -EILSEQ, "", "cut character"},
	    {AV_STR("\x01\x82\0\0\0\0\xe2\x82\x80\x81\0\0\0\0\xac"), 15, "T(\xe2\x82\xac)",
	        "a character over two fragments"},
	    {AV_STR("\x82\xfe\x04\x01\0\0\0\0x"), -EMSGSIZE, "", "over the limit"},
	    {AV_STR("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"), -EPROTO, "",
	        "length with the highest bit"},
	    {AV_STR("\x82\xfe\0\1\0\0\0\0x"), -EPROTO, "", "length not minimal"},
	    {AV_STR("\x88\x80\0\0\0\0"), 6, "#1005()", "close without a code"},
	    {AV_STR("\x88\x81\0\0\0\0x"), -EPROTO, "", "close with half a code"},
	    {AV_STR("\x88\x82\0\0\0\0\x03\xe9"), 8, "#1001()", "close 1001"},
	    {AV_STR("\x88\x82\0\0\0\0\x00\x07"), -EPROTO, "", "close 7"},
	    {AV_STR("\x88\x83\0\0\0\0\x03\xe8\xff"), -EILSEQ, "", "reason not UTF-8"},
	    {AV_STR("\x88\x82\0\0\0\0\x03\xed"), -EPROTO, "", "close 1005 may not be sent"},
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++) {
		struct side s;
		for (int bytewise = 0; bytewise < 2; bytewise++) {
			side_init(&s, false, 1024, 65536);
			ssize_t r = 0, total = 0;
			size_t step = bytewise ? 1 : cases[i].in.n;
			for (size_t k = 0; k < cases[i].in.n && r >= 0; k += step) {
				r = av_ws_recv(s.w, cases[i].in.p + k, step);
				total += r;
			}
			is_int(r < 0 ? r : total, cases[i].result, cases[i].what);
			is_avstr(av_buf_str(&s.log), cases[i].log, cases[i].what);
			if (r < 0)
				ok(av_ws_close_sent(s.w) && av_ws_buffered(s.w) >= 2,
				    "a CLOSE is queued");
			side_clear(&s);
		}
	}
}

static void test_pause(void)
{
	struct side c, s;
	side_init(&c, true, 1 << 20, 1 << 20);
	side_init(&s, false, 1 << 20, 1 << 20);
	char text[5000] = {0};
	s.pause = true;
	for (int i = 0; i < 10; i++)
		is_int(av_ws_send(c.w, AV_WS_BINARY, text, sizeof(text)), 0, "send");
	size_t before = av_ws_buffered(c.w);
	ok(carry(&c, &s, before) >= 0, "carried");
	ok(s.bytes >= 5000 && s.bytes <= 10000, "paused after the first");
	ok(av_ws_buffered(c.w) >= before - 12288, "the rest is not consumed");
	s.pause = false;
	av_ws_resume(s.w);
	ok(carry(&c, &s, before) >= 0, "carried");
	is_int(s.bytes, 50000, "all after resume");
	side_clear(&c);
	side_clear(&s);

	/* A peer that pings and never reads. */
	side_init(&c, true, 1024, 1 << 24);
	side_init(&s, false, 1024, 10000);
	for (int i = 0; i < 20000; i++)
		if (av_ws_send(c.w, AV_WS_PING, text, 100) < 0)
			ok(false, "ping");
	ok(carry(&c, &s, 65536) >= 0, "carried");
	ok(av_ws_buffered(s.w) < 20000, "output is bounded (%zu)", av_ws_buffered(s.w));
	ok(av_ws_buffered(c.w) > 1000000, "input is left");
	side_clear(&c);
	side_clear(&s);
}

int main(void)
{
	test_handshake();
	test_messages(SIZE_MAX);
	test_messages(7);
	test_raw();
	test_pause();
	return tap_done();
}
