/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_proxy_head.c - heads through the reverse proxy: what comes out must parse to the same
 * framing, and hold nothing that may not pass
 *
 * The first byte says what follows: a request or an answer, routed by host or by headers.
 */
#include "proto/http1.h"
#include "proto/proxy_head.h"

#include "fuzz.h"

#include "base/banned.h"

struct run {
	bool response, by_header;
	bool again; /* this is what came out */
	bool upgrade;
	int64_t content_length;
	bool chunked, seen;
};

/* What comes out may be longer than what was read. */
static const struct av_http_limits limits_in = {
    .head_bytes = 16384, .header_count = 64, .target_bytes = 8192};
static const struct av_http_limits limits_out = {
    .head_bytes = 1 << 20, .header_count = 128, .target_bytes = 8192};
static const struct av_http1_events events;

static void check_out(struct run *r, const struct av_http_head *h)
{
	struct av_str value;

	r->seen = true;
	FUZZ_CHECK(h->content_length == r->content_length && h->chunked == r->chunked);
	FUZZ_CHECK(h->status || !av_proxy_cookie(h, AV_PROXY_COOKIE, 0, &value));
	FUZZ_CHECK(h->status || !av_proxy_cookie(h, AV_PROXY_COOKIE_SECURE, 0, &value));
	FUZZ_CHECK(av_http_head_count(h, "connection") <= 1);
	FUZZ_CHECK(h->status || !av_http_head_get(h, "proxy-authorization"));
	FUZZ_CHECK(h->status || av_http_head_count(h, "x-forwarded-for") == 1);
	FUZZ_CHECK(!h->status || !av_http_head_get(h, "clear-site-data"));
	FUZZ_CHECK(r->upgrade || !h->upgrade);
	for (size_t i = 0; i < h->n_headers; i++)
		FUZZ_CHECK(h->status || !av_proxy_is_key(h->headers[i].value));
}

static void parse(struct run *r, const void *p, size_t n, const struct av_http_limits *limits)
{
	struct av_http1 *parser = r->response ? av_http1_new_response(limits, &events, r)
	                                      : av_http1_new_request(limits, &events, r);
	size_t used;

	if (av_http1_feed(parser, p, n, &used, NULL) < 0)
		FUZZ_CHECK(!r->again || r->seen);
	av_http1_free(parser);
}

static void pass_on(const struct run *r, const struct av_http_head *h)
{
	const struct av_proxy_route route = {
	    .port = 3000,
	    .host = r->by_header ? AV_STR("") : AV_STR("3000-x.test:80"),
	    .scheme = "https",
	    .target = AV_STR("/"),
	    .peer_ip = AV_STR("192.0.2.1"),
	    .request_id = "id",
	    .keep_forwarded = true,
	};
	struct run again = {.response = r->response, .again = true};
	struct av_buf text = AV_BUF_INIT(1 << 20);
	struct av_http_head out;
	int st = r->response ? av_proxy_response_head(&out, h, &route)
	                     : av_proxy_request_head(&out, h, &route);

	if (st < 0)
		return;
	again.upgrade = out.upgrade || out.status == 101;
	again.content_length = out.content_length;
	again.chunked = out.chunked;
	/* As the server does it. */
	if (out.status == 101)
		FUZZ_CHECK(av_http_head_add_c(&out, "connection", "Upgrade") == 0);
	if (out.status / 100 == 1 || out.status == 204)
		again.content_length = -1;
	st = av_http1_write_head(&text, &out);
	FUZZ_CHECK(st == 0);
	parse(&again, av_buf_str(&text).p, av_buf_str(&text).n, &limits_out);
	FUZZ_CHECK(again.seen);
	av_http_head_clear(&out);
	av_buf_clear(&text);
}

static int on_head(void *ctx, struct av_http_head *h)
{
	struct run *r = ctx;

	if (r->again)
		check_out(r, h);
	else if (h->method.n == 0 || h->target.n)
		pass_on(r, h);
	return r->again ? -1 : 0;
}

static int on_body(void *ctx, const uint8_t *p, size_t n)
{
	(void)ctx;
	(void)p;
	(void)n;
	return 0;
}

static int on_end(void *ctx, struct av_http_head *trailers)
{
	(void)ctx;
	(void)trailers;
	return 0;
}

static const struct av_http1_events events = {on_head, on_body, on_end};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n < 2)
		return 0;
	struct run r = {.response = data[0] & 1, .by_header = data[0] & 2};

	parse(&r, data + 1, n - 1, &limits_in);
	return 0;
}
