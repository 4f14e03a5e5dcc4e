/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_http1.c - HTTP/1 parsers; every head that is accepted must survive being written and parsed
 */
#include "proto/http1.h"

#include "fuzz.h"

#include "base/banned.h"

struct run {
	struct av_http1 *p;
	bool response, nested, pause, in_message;
	unsigned heads;
	int status;
};

static const struct av_http_limits limits = AV_HTTP_LIMITS_DEFAULT;
static const struct av_http1_events events;

static void reparse(const struct run *r, const struct av_http_head *h)
{
	struct run again = {.nested = true, .response = r->response};
	struct av_buf out = AV_BUF_INIT(1 << 20);
	size_t used;
	/* Responses in HTTP/1.0 and requests without a Host cannot be sent on. */
	if (h->status == 0 && h->authority.n == 0)
		return;
	int w = av_http1_write_head(&out, h);
	FUZZ_CHECK(w == 0);
	struct av_str s = av_buf_str(&out);
	again.p = r->response ? av_http1_new_response(&limits, &events, &again)
	                      : av_http1_new_request(&limits, &events, &again);
	int st = av_http1_feed(again.p, s.p, s.n, &used, NULL);
	/* What is written may be longer than what was read, and say what was not said: up to
	 * limits. */
	FUZZ_CHECK(
	    st >= 0 || s.n > limits.head_bytes / 2 || h->n_headers + 2 >= limits.header_count);
	FUZZ_CHECK(st < 0 || (used == s.n && again.heads == 1));
	av_http1_free(again.p);
	av_buf_clear(&out);
}

static int on_head(void *ctx, struct av_http_head *h)
{
	struct run *r = ctx;
	FUZZ_CHECK(!r->in_message);
	FUZZ_CHECK(!(h->chunked && h->content_length >= 0));
	FUZZ_CHECK(r->response ? h->status >= 100 : h->method.n > 0);
	r->in_message = h->status == 0 || h->status >= 200 || h->status == 101;
	r->heads++;
	if (!r->nested)
		reparse(r, h);
	if (r->pause)
		av_http1_pause(r->p);
	return 0;
}

static int on_body(void *ctx, const uint8_t *p, size_t n)
{
	struct run *r = ctx;
	FUZZ_CHECK(r->in_message && p && n > 0);
	if (r->pause)
		av_http1_pause(r->p);
	return 0;
}

static int on_end(void *ctx, struct av_http_head *trailers)
{
	struct run *r = ctx;
	FUZZ_CHECK(r->in_message);
	FUZZ_CHECK(!trailers || trailers->n_headers > 0);
	r->in_message = false;
	return 0;
}

static const struct av_http1_events events = {on_head, on_body, on_end};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char *const methods[] = {"GET", "HEAD", "CONNECT", "POST"};
	if (n < 2)
		return 0;
	struct run r = {.response = data[0] & 1, .pause = data[0] & 2};
	uint8_t pattern = data[1];
	r.p = r.response ? av_http1_new_response(&limits, &events, &r)
	                 : av_http1_new_request(&limits, &events, &r);
	if (r.response)
		av_http1_expect(r.p, av_str_c(methods[data[0] >> 2 & 3]));
	bool go = true;
	for (size_t i = 2, k = 0, used; go && i < n; i += used, k++) {
		size_t piece = fuzz_piece(pattern, k, n - i);
		int st = av_http1_feed(r.p, data + i, piece, &used, NULL);
		FUZZ_CHECK(used <= piece);
		FUZZ_CHECK(st != AV_HTTP1_MORE || used == piece);
		FUZZ_CHECK(st < 0 || used > 0);
		go = st >= 0 && st != AV_HTTP1_TUNNEL;
	}
	if (go && av_http1_finish(r.p, NULL) >= 0)
		FUZZ_CHECK(!r.in_message);
	av_http1_free(r.p);
	return 0;
}
