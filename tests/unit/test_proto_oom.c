/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_proto_oom.c - every codec with every single allocation failing: an error, no crash, no leak
 *
 * This program's malloc family replaces the C library's, also for the shared libraries below the
 * codecs. Sanitizers bring their own, so there is nothing to test with them.
 */
#include <errno.h>

#include "lib/tap.h"
#include "proto/connect.h"
#include "proto/frame.h"
#include "proto/http1.h"
#include "proto/http2.h"
#include "proto/multipart.h"
#include "proto/ws.h"

#include "base/banned.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(WITH_SANITIZER)
int main(void)
{
	tap_skip_all(false, "sanitizers have their own allocator");
}
#else

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void __libc_free(void *p);

static long live, countdown = -1;
static bool failed_one;

static bool fails(void)
{
	if (countdown < 0 || countdown-- > 0)
		return false;
	failed_one = true;
	return true;
}

void *malloc(size_t n)
{
	void *p = fails() ? NULL : __libc_malloc(n);
	live += p != NULL;
	return p;
}

void *calloc(size_t n, size_t size)
{
	void *p = fails() ? NULL : __libc_calloc(n, size);
	live += p != NULL;
	return p;
}

void *realloc(void *old, size_t n)
{
	void *p = fails() ? NULL : __libc_realloc(old, n);
	live += p != NULL && old == NULL;
	return p;
}

void *reallocarray(void *old, size_t n, size_t size)
{
	size_t total;
	return __builtin_mul_overflow(n, size, &total) ? NULL : realloc(old, total);
}

void free(void *p)
{
	live -= p != NULL;
	__libc_free(p);
}

/* ---- scenarios: run to the end whatever fails ---- */

static int h1_head(void *ctx, struct av_http_head *h)
{
	struct av_http_head *keep = ctx;
	av_http_head_move(keep, h);
	return 0;
}

static int h1_body(void *ctx, const uint8_t *p, size_t n)
{
	(void)ctx;
	(void)p;
	(void)n;
	return 0;
}

static int h1_end(void *ctx, struct av_http_head *trailers)
{
	(void)ctx;
	(void)trailers;
	return 0;
}

static void http1_scenario(void)
{
	static const struct av_http1_events events = {h1_head, h1_body, h1_end};
	static const char text[] = "POST http://a/x HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n"
	                           "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: u\r\n\r\n";
	struct av_http_limits limits = AV_HTTP_LIMITS_DEFAULT;
	AV_CLEANUP(av_http_head_clear) struct av_http_head h;
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);
	av_http_head_init(&h);
	struct av_http1 *p = av_http1_new_request(&limits, &events, &h);
	int r = 0;
	for (size_t i = 0, used; p && i < sizeof(text) - 1 && r >= 0; i += 7)
		r = av_http1_feed(
		    p, text + i, AV_MIN((size_t)7, sizeof(text) - 1 - i), &used, NULL);
	if (h.method.n)
		r = av_http1_write_head(&out, &h);
	(void)r;
	av_http1_free(p);
}

static void h2_head(void *ctx, struct av_http2_stream *s, struct av_http_head *h, bool end)
{
	struct av_http_head answer;
	(void)ctx;
	(void)end;
	if (h->status)
		return;
	av_http_head_response(&answer, 200);
	int r = av_http_head_add_c(&answer, "x", "y");
	if (r == 0)
		r = av_http2_respond(s, &answer, false);
	if (r == 0)
		r = av_http2_write(s, "0123456789", 10);
	if (r == 0)
		r = av_http2_end(s, &answer);
	if (r < 0)
		av_http2_reset(s, AV_HTTP2_INTERNAL_ERROR);
	av_http_head_clear(&answer);
}

static void h2_body(void *ctx, struct av_http2_stream *s, const uint8_t *p, size_t n)
{
	(void)ctx;
	(void)p;
	av_http2_consume(s, n);
}

static unsigned seen_closes;

static void h2_close(void *ctx, struct av_http2_stream *s, uint32_t error)
{
	(void)ctx;
	(void)s;
	(void)error;
	seen_closes++;
}

static bool h2_carry(struct av_http2 *from, struct av_http2 *to)
{
	struct iovec iov[4];
	size_t done = 0;
	int n = av_http2_output(from, iov, 4, 4096);
	for (int i = 0; i < n; i++) {
		if (av_http2_recv(to, iov[i].iov_base, iov[i].iov_len, NULL) < 0)
			return false;
		done += iov[i].iov_len;
	}
	if (n > 0)
		av_http2_output_done(from, done);
	return done > 0;
}

static void http2_scenario(void)
{
	static const struct av_http2_events events = {
	    .on_head = h2_head, .on_body = h2_body, .on_close = h2_close};
	struct av_http2_config config = AV_HTTP2_CONFIG_DEFAULT;
	struct av_http2 *c = av_http2_new_client(&config, &events, NULL);
	struct av_http2 *s = av_http2_new_server(&config, &events, NULL);
	struct av_http2_stream *stream = NULL;
	struct av_http_head h;
	av_http_head_init(&h);
	if (c && s && av_http_head_request(&h, AV_STR("POST"), AV_STR("a"), AV_STR("/")) == 0 &&
	    av_http2_request(c, &h, false, NULL, &stream) == 0) {
		int r = av_http2_write(stream, "abc", 3);
		if (r == 0)
			r = av_http2_end(stream, NULL);
		if (r < 0)
			av_http2_reset(stream, AV_HTTP2_INTERNAL_ERROR);
		for (int i = 0; i < 20; i++) {
			bool a = h2_carry(c, s), b = h2_carry(s, c);
			if (!a && !b)
				break;
		}
	}
	av_http_head_clear(&h);
	av_http2_free(c);
	av_http2_free(s);
}

static void ws_message(void *ctx, enum av_ws_opcode op, const uint8_t *p, size_t n)
{
	(void)ctx;
	(void)op;
	(void)p;
	(void)n;
}

static void ws_scenario(void)
{
	static const struct av_ws_events events = {.on_message = ws_message};
	struct av_ws_config config = AV_WS_CONFIG_SERVER;
	struct av_ws *s = av_ws_new(&config, &events, NULL);
	config.client = true;
	struct av_ws *c = av_ws_new(&config, &events, NULL);
	if (s && c) {
		int r = av_ws_send(c, AV_WS_TEXT, "hello", 5);
		r = r < 0 ? r : av_ws_send(c, AV_WS_PING, "p", 1);
		r = r < 0 ? r : av_ws_close(c, AV_WS_CLOSE_NORMAL, "bye");
		struct av_str out = av_ws_output(c);
		ssize_t n = av_ws_recv(s, out.p, out.n);
		out = av_ws_output(s);
		if (n >= 0)
			n = av_ws_recv(c, out.p, out.n);
	}
	av_ws_free(s);
	av_ws_free(c);
}

static int mp_part(void *ctx, const struct av_multipart_part *part)
{
	(void)ctx;
	(void)part;
	return 0;
}

static int frame_data(void *ctx, enum av_frame_channel ch, const uint8_t *p, size_t n, bool last)
{
	(void)ctx;
	(void)ch;
	(void)p;
	(void)n;
	(void)last;
	return 0;
}

static int frame_control(void *ctx, struct av_str payload)
{
	(void)ctx;
	(void)payload;
	return 0;
}

static int mp_end(void *ctx)
{
	(void)ctx;
	return 0;
}

static int message(void *ctx, bool end, struct av_str payload)
{
	(void)ctx;
	(void)end;
	(void)payload;
	return 0;
}

static void small_scenario(void)
{
	static const struct av_multipart_events mp = {mp_part, h1_body, mp_end};
	static const struct av_frame_events fe = {frame_control, frame_data};
	static const char text[] = "--b\r\nContent-Disposition: form-data; name=\"n\"; "
	                           "filename=\"f\"\r\n\r\nbody\r\n--b--";
	AV_CLEANUP(av_multipart_freep) struct av_multipart *m = NULL;
	struct av_frame_dec f;
	struct av_connect_dec c;
	int r = av_multipart_new(AV_STR("multipart/form-data; boundary=b"), &m, NULL);
	for (size_t i = 0; i < sizeof(text) - 1 && r == 0; i += 5)
		r = av_multipart_feed(
		    m, text + i, AV_MIN((size_t)5, sizeof(text) - 1 - i), &mp, NULL, NULL);
	av_frame_dec_init(&f);
	ssize_t n = av_frame_dec_feed(&f, "\0\0\0\4\0ab", 7, &fe, NULL);
	if (n >= 0)
		n = av_frame_dec_feed(&f, "cd", 2, &fe, NULL);
	av_frame_dec_clear(&f);
	av_connect_dec_init(&c, 64);
	n = av_connect_dec_feed(&c, "\0\0\0\0\4ab", 7, message, NULL);
	if (n >= 0)
		n = av_connect_dec_feed(&c, "cd", 2, message, NULL);
	av_connect_dec_clear(&c);
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);
	r = av_connect_write_end(&out, AV_CONNECT_INTERNAL, AV_STR("m"));
	(void)r;
}

/* tolerated: blocks that a library below may lose to one failure. */
static void each_failing(const char *what, void (*scenario)(void), long tolerated)
{
	long k;
	scenario(); /* whatever is allocated once */
	for (k = 0; k < 10000; k++) {
		long before = live;
		failed_one = false;
		countdown = k;
		scenario();
		countdown = -1;
		if (live < before || live > before + tolerated) {
			ok(false, "%s: allocation %ld failing leaks %ld blocks", what, k,
			    live - before);
			return;
		}
		if (!failed_one)
			break;
	}
	ok(k > 3 && k < 10000, "%s: %ld allocations, each failing once", what, k);
}

int main(void)
{
	each_failing("http1", http1_scenario, 0);
	each_failing("http2", http2_scenario, 0);
	/* wslay 1.1.1 loses a message of its own (PONG, CLOSE) that it cannot queue. */
	each_failing("ws", ws_scenario, 2);
	each_failing("frame, connect, multipart", small_scenario, 0);
	return tap_done();
}
#endif
