/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_http2.c - an HTTP/2 session, either side, that answers, echoes and resets
 */
#include "proto/http2.h"

#include "fuzz.h"

#include "base/banned.h"

struct run {
	unsigned seen, closed;
	uint8_t mode;
};

static void on_head(void *ctx, struct av_http2_stream *s, struct av_http_head *h, bool end)
{
	struct run *r = ctx;
	struct av_http_head answer;
	(void)end;
	if (h->status)
		return;
	r->seen++;
	FUZZ_CHECK(av_http_is_target(h->target) && av_http_is_token(h->method));
	if (r->mode & 2)
		return;
	av_http_head_response(&answer, 200);
	int x = av_http2_respond(s, &answer, r->mode & 4);
	if (x == 0 && (r->mode & 8))
		av_http2_reset(s, AV_HTTP2_NO_ERROR);
}

static void on_body(void *ctx, struct av_http2_stream *s, const uint8_t *p, size_t n)
{
	struct run *r = ctx;
	FUZZ_CHECK(n > 0);
	if (av_http2_buffered(s) < 65536) {
		int x = av_http2_write(s, p, n);
		(void)x;
	}
	if (r->mode & 16)
		av_http2_consume(s, n);
	if (r->mode & 32)
		av_http2_reset(s, AV_HTTP2_CANCEL);
}

static void on_end(void *ctx, struct av_http2_stream *s, struct av_http_head *trailers)
{
	(void)ctx;
	int x = av_http2_end(s, trailers);
	(void)x;
}

static void on_close(void *ctx, struct av_http2_stream *s, uint32_t error)
{
	struct run *r = ctx;
	(void)s;
	(void)error;
	r->closed++;
}

static const struct av_http2_events events = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end, .on_close = on_close};

static void drain(struct av_http2 *h, uint8_t pattern)
{
	struct iovec iov[4];
	int n;
	for (size_t k = 0; (n = av_http2_output(h, iov, 4, pattern ? pattern : 65536)) > 0; k++)
		av_http2_output_done(h, fuzz_piece(pattern, k, iov[0].iov_len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
	struct av_http2_config config = AV_HTTP2_CONFIG_DEFAULT;
	struct run r = {0};
	if (n < 2)
		return 0;
	r.mode = data[0];
	uint8_t pattern = data[1];
	bool client = r.mode & 1;
	config.window = 20000;
	config.connection_window = 65535;
	struct av_http2 *h = client ? av_http2_new_client(&config, &events, &r)
	                            : av_http2_new_server(&config, &events, &r);
	FUZZ_CHECK(h);
	for (int i = 0; client && i < 2; i++) {
		struct av_http2_stream *s;
		struct av_http_head q;
		int x = av_http_head_request(&q, AV_STR("POST"), AV_STR("a"), AV_STR("/"));
		x = x < 0 ? x : av_http2_request(h, &q, i, NULL, &s);
		FUZZ_CHECK(x == 0);
		r.seen++;
		av_http_head_clear(&q);
	}
	int x = av_http2_recv(h, client ? preface + 24 : preface, client ? 9 : 33, NULL);
	drain(h, 0);
	for (size_t i = 2, k = 0; x == 0 && i < n; k++) {
		size_t piece = fuzz_piece(pattern, k, n - i);
		x = av_http2_recv(h, data + i, piece, NULL);
		i += piece;
		drain(h, pattern);
	}
	av_http2_free(h);
	FUZZ_CHECK(r.seen == r.closed);
	return 0;
}
