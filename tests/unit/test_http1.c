/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_http1.c - the HTTP/1 codec: framing, smuggling, limits, at every split of the input
 *
 * Each input is parsed whole, in two pieces cut at every offset, and byte by byte; the log of
 * events must be the same each time.
 */
#include "proto/http1.h"

#include <errno.h>

#include "lib/tap.h"

#include "base/banned.h"

struct run {
	struct av_http1 *p;
	struct av_buf log;
	bool pause_each;
};

static int on_head(void *ctx, struct av_http_head *h)
{
	struct run *r = ctx;
	if (h->status)
		av_buf_printf(&r->log, "[%d", h->status);
	else
		av_buf_printf(&r->log, "[%.*s %.*s @%.*s", AV_STR_ARG(h->method),
		    AV_STR_ARG(h->target), AV_STR_ARG(h->authority));
	if (h->content_length >= 0)
		av_buf_printf(&r->log, " len=%lld", (long long)h->content_length);
	av_buf_append_c(&r->log, h->chunked ? " chunked" : "");
	av_buf_append_c(&r->log, h->has_body ? " body" : "");
	av_buf_append_c(&r->log, h->keep_alive ? "" : " close");
	av_buf_append_c(&r->log, h->upgrade ? " upgrade" : "");
	av_buf_append_c(&r->log, h->expect_continue ? " expect" : "");
	for (size_t i = 0; i < h->n_headers; i++)
		av_buf_printf(&r->log, " %.*s=%.*s", AV_STR_ARG(h->headers[i].name),
		    AV_STR_ARG(h->headers[i].value));
	av_buf_append_c(&r->log, "]");
	if (r->pause_each)
		av_http1_pause(r->p);
	return 0;
}

static int on_body(void *ctx, const uint8_t *p, size_t n)
{
	struct run *r = ctx;
	if (n == 0)
		av_buf_append_c(&r->log, "EMPTY");
	av_buf_append(&r->log, p, n);
	if (r->pause_each)
		av_http1_pause(r->p);
	return 0;
}

static int on_end(void *ctx, struct av_http_head *trailers)
{
	struct run *r = ctx;
	av_buf_append_c(&r->log, "$");
	for (size_t i = 0; trailers && i < trailers->n_headers; i++)
		av_buf_printf(&r->log, "{%.*s=%.*s}", AV_STR_ARG(trailers->headers[i].name),
		    AV_STR_ARG(trailers->headers[i].value));
	return 0;
}

static const struct av_http1_events events = {on_head, on_body, on_end};

static struct av_http_limits limits = {.head_bytes = 400, .header_count = 8, .target_bytes = 64};

/* Feeds one piece; stops at an error or a tunnel. False when stopped. */
static bool feed_piece(struct run *r, struct av_str s)
{
	while (s.n) {
		size_t used;
		struct av_err err = {0};
		int st = av_http1_feed(r->p, s.p, s.n, &used, &err);
		if (used > s.n) {
			av_buf_append_c(&r->log, "OVERRUN");
			return false;
		}
		s = av_str_n(s.p + used, s.n - used);
		if (st < 0) {
			av_buf_printf(&r->log, "!%s", av_err_code(err.kind));
			return false;
		}
		if (st == AV_HTTP1_TUNNEL) {
			av_buf_printf(&r->log, "~%.*s", AV_STR_ARG(s));
			return false;
		}
		if (st == AV_HTTP1_MORE && s.n) {
			av_buf_append_c(&r->log, "STUCK");
			return false;
		}
	}
	return true;
}

/* cut 0: whole; SIZE_MAX: byte by byte; else in two pieces. Log into log. */
static void parse(struct av_str s, const char *method, size_t cut, bool pause, struct av_buf *log)
{
	struct run r = {.log = AV_BUF_INIT(65536), .pause_each = pause};
	bool response = method != NULL, go = true;
	r.p = response ? av_http1_new_response(&limits, &events, &r)
	               : av_http1_new_request(&limits, &events, &r);
	if (response)
		av_http1_expect(r.p, av_str_c(method));
	size_t step = cut == SIZE_MAX ? 1 : cut ? cut : s.n;
	for (size_t i = 0; go && i < s.n;) {
		/* An exact-size copy lets ASan see reads beyond the piece. */
		size_t n = AV_MIN(step, s.n - i);
		char *copy = malloc(n);
		memcpy(copy, s.p + i, n);
		struct av_str piece = av_str_n(copy, n);
		go = feed_piece(&r, piece);
		free(copy);
		i += n;
		if (cut != SIZE_MAX)
			step = s.n;
	}
	if (go && response) {
		int st = av_http1_finish(r.p, NULL);
		if (st < 0)
			av_buf_append_c(&r.log, "!cut");
	}
	av_buf_append_str(log, av_buf_str(&r.log));
	av_buf_clear(&r.log);
	av_http1_free(r.p);
}

static void same_at_every_split(struct av_str s, const char *method, const char *want)
{
	AV_CLEANUP(av_buf_clear) struct av_buf whole = AV_BUF_INIT(65536);
	parse(s, method, 0, false, &whole);
	is_avstr(av_buf_str(&whole), want, want);
	bool tunnel = strchr(want, '~') != NULL;
	size_t bad = 0;
	for (size_t cut = 1; cut <= s.n; cut++) {
		AV_CLEANUP(av_buf_clear) struct av_buf log = AV_BUF_INIT(65536);
		parse(s, method, cut == s.n ? SIZE_MAX : cut, cut % 2, &log);
		/* The rest of a tunnel is what lay behind it in the same piece. */
		struct av_str a = av_buf_str(&log), b = av_buf_str(&whole);
		if (tunnel) {
			struct av_str rest_a = a, rest_b = b;
			av_str_cut(&rest_a, '~', &a);
			av_str_cut(&rest_b, '~', &b);
		}
		if (!av_str_eq(a, b) && bad++ == 0)
			diag("cut %zu: %.*s", cut, AV_STR_ARG(av_buf_str(&log)));
	}
	ok(bad == 0, "the same at every split");
}

static void test_requests(void)
{
	static const struct {
		const char *in, *want;
	} cases[] = {
	    {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "[GET / @a]$"},
	    {"\r\n\r\nGET /x?y=z HTTP/1.1\r\nHOST:  a:80 \r\nX-Y:\t v w \r\n\r\n",
	        "[GET /x?y=z @a:80 x-y=v w]$"},
	    {"GET / HTTP/1.0\r\n\r\n", "[GET / @ close]$"},
	    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	        "[GET / @ connection=keep-alive]$"},
	    {"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\nGET /junk",
	        "[GET / @a close connection=x, Close]$"},
	    {"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n"
	     "Host: b\r\n\r\n",
	        "[POST /p @a len=3 body]abc$[GET / @b]$"},
	    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "[POST / @a len=0]$"},
	    {"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
	        "[POST / @a len=1 body expect expect=100-continue]x$"},
	    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
	     "3\r\nabc\r\n0A;ext=\"1\"\r\n0123456789\r\n0\r\n\r\n",
	        "[POST / @a chunked body]abc0123456789$"},
	    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	     "1\r\nx\r\n0\r\nT1: v\r\nT2:w\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
	        "[POST / @a chunked body]x${t1=v}{t2=w}[GET / @b]$"},
	    {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "[OPTIONS * @a]$"},
	    {"GET http://A:1/p?q HTTP/1.1\r\nHost: a:1\r\n\r\n", "[GET /p?q @A:1]$"},
	    {"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "[GET / @a]$"},
	    {"GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", "[GET /?q @a]$"},
	    {"CONNECT a:22 HTTP/1.1\r\nHost: a:22\r\n\r\nSSH-2.0",
	        "[CONNECT  @a:22 close]$~SSH-2.0"},
	    {"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: "
	     "websocket\r\n\r\n\x81\x01",
	        "[GET /ws @a upgrade connection=Upgrade upgrade=websocket]$~\x81\x01"},
	    {"DELETE /v1/x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "[DELETE /v1/x @[::1]:80]$"},
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++)
		same_at_every_split(av_str_c(cases[i].in), NULL, cases[i].want);
}

#define H "GET / HTTP/1.1\r\nHost: a\r\n"
#define P "POST / HTTP/1.1\r\nHost: a\r\n"
#define C P "Transfer-Encoding: chunked\r\n\r\n"

static void test_refused(void)
{
	static const struct {
		struct av_str in;
		const char *want, *what;
	} cases[] = {
#define BAD(text, what) {AV_STR(text), "!invalid_request", what}
#define UNSUP(text, what)                                                                          \
	{                                                                                          \
		AV_STR(text), "!unsupported", what                                                 \
	}
	    BAD(P "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "CL and TE"),
	    BAD(P "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "TE and CL"),
	    BAD(P "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", "CL twice, equal"),
	    BAD(P "Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", "CL twice"),
	    BAD(P "Content-Length: 1, 1\r\n\r\nx", "CL list"),
	    BAD(P "Content-Length: +1\r\n\r\nx", "CL sign"),
	    BAD(P "Content-Length: 0x1\r\n\r\nx", "CL hex"),
	    BAD(P "Content-Length: 1 1\r\n\r\nx", "CL with space"),
	    BAD(P "Content-Length:\r\n\r\n", "CL empty"),
	    BAD(P "Content-Length: 99999999999999999999\r\n\r\n", "CL overflow"),
	    UNSUP(P "Transfer-Encoding: gzip\r\n\r\n", "TE gzip"),
	    UNSUP(P "Transfer-Encoding: gzip, chunked\r\n\r\n", "TE list"),
	    UNSUP(P "Transfer-Encoding: chunked, chunked\r\n\r\n", "TE chunked list"),
	    UNSUP(P "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "TE twice"),
	    UNSUP(P "Transfer-Encoding: xchunked\r\n\r\n", "TE xchunked"),
	    UNSUP(P "Transfer-Encoding: identity\r\n\r\n", "TE identity"),
	    UNSUP(P "Transfer-Encoding:\r\n\r\n", "TE empty"),
	    BAD("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "TE in 1.0"),
	    BAD(H "X: a\r\n b\r\n\r\n", "obs-fold with space"),
	    BAD(H "X: a\r\n\tb\r\n\r\n", "obs-fold with tab"),
	    BAD("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "space before the first header"),
	    BAD("GET / HTTP/1.1\nHost: a\r\n\r\n", "bare LF behind the first line"),
	    BAD(H "X: a\n\r\n", "bare LF in headers"),
	    BAD(H "\n", "bare LF at the end"),
	    BAD(H "X: a\rY: b\r\n\r\n", "bare CR in a value"),
	    BAD(H "X: a\r\r\n\r\n", "two CR"),
	    BAD("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", "CR in the target"),
	    BAD(H "X: a\0b\r\n\r\n", "NUL in a value"),
	    BAD(H "X\0: a\r\n\r\n", "NUL in a name"),
	    BAD("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", "NUL in the target"),
	    BAD(H "X: a\x7f\r\n\r\n", "DEL in a value"),
	    BAD(H "X: a\x01\r\n\r\n", "control byte in a value"),
	    BAD(H "X : a\r\n\r\n", "space before the colon"),
	    BAD(H "X\t: a\r\n\r\n", "tab before the colon"),
	    BAD(H "X Y: a\r\n\r\n", "space in a name"),
	    BAD(H ": a\r\n\r\n", "empty name"),
	    BAD(H "X\r\n\r\n", "no colon"),
	    BAD(H "X(: a\r\n\r\n", "bad byte in a name"),
	    BAD(H "\x80: a\r\n\r\n", "high byte in a name"),
	    BAD("GET / HTTP/1.1\r\n\r\n", "no Host"),
	    BAD("GET / HTTP/1.1\r\nHost:\r\n\r\n", "empty Host"),
	    BAD(H "Host: a\r\n\r\n", "Host twice, equal"),
	    BAD(H "hOST: b\r\n\r\n", "Host twice"),
	    BAD("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "space in Host"),
	    BAD("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "userinfo in Host"),
	    BAD("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "path in Host"),
	    BAD("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", "list in Host"),
	    BAD("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", "port in Host"),
	    BAD("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "absolute target, other Host"),
	    BAD("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "userinfo in the target"),
	    BAD("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "other scheme"),
	    BAD("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "relative target"),
	    BAD("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "* without OPTIONS"),
	    BAD("GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n", "high byte in the target"),
	    BAD("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", "fragment"),
	    BAD("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "two spaces"),
	    BAD("GET / x HTTP/1.1\r\nHost: a\r\n\r\n", "space in the target"),
	    BAD("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "tab"),
	    BAD(" GET / HTTP/1.1\r\nHost: a\r\n\r\n", "space in front"),
	    BAD("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "space behind"),
	    BAD("GET /\r\n\r\n", "HTTP/0.9"),
	    BAD("GET / HTTP/0.9\r\nHost: a\r\n\r\n", "version 0.9"),
	    BAD("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "version 1.2"),
	    BAD("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "version 2.0"),
	    BAD("GET / http/1.1\r\nHost: a\r\n\r\n", "lower-case version"),
	    BAD("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 preface"),
	    BAD("get / HTTP/1.1\r\nHost: a\r\n\r\n", "lower-case method"),
	    BAD("FOO / HTTP/1.1\r\nHost: a\r\n\r\n", "unknown method"),
	    BAD("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT without port"),
	    BAD("CONNECT a:1 HTTP/1.1\r\nHost: b:1\r\n\r\n", "CONNECT, other Host"),
	    BAD("CONNECT a:0 HTTP/1.1\r\nHost: a:0\r\n\r\n", "CONNECT port 0"),
	    BAD("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 2\r\n\r\n", "CONNECT body"),
	    BAD("\x16\x03\x01\x02\x00\x01", "TLS"),
#undef BAD
#undef UNSUP
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++) {
		diag("%s", cases[i].what);
		same_at_every_split(cases[i].in, NULL, cases[i].want);
	}
}

static void test_bad_chunks(void)
{
	static const struct {
		struct av_str in;
		const char *want;
	} cases[] = {
#define BAD(text, body) {AV_STR(C text), "[POST / @a chunked body]" body "!invalid_request"}
	    BAD("x\r\n", ""),
	    BAD("\r\n", ""),
	    BAD("-1\r\n", ""),
	    BAD("0x1\r\na\r\n", ""),
	    BAD(" 1\r\na\r\n", ""),
	    BAD("1 \r\na\r\n", ""),
	    BAD("1\na\r\n", ""),
	    BAD("1\r\nab\r\n", "a"),
	    BAD("1\r\na\n0\r\n\r\n", "a"),
	    BAD("1\r\na\r0\r\n\r\n", "a"),
	    BAD("1\r\na0\r\n\r\n", "a"),
	    BAD("fffffffffffffffff\r\n", ""),
	    BAD("ffffffffffffffff\r\n", ""),
	    BAD("1;a\tb\r\nx\r\n", ""),
	    BAD("1;a\nb\r\nx\r\n", ""),
	    BAD("0\r\nContent-Length: 1\r\n\r\n", ""),
	    {AV_STR(C "0\r\nTransfer-Encoding: chunked\r\n\r\n"),
	        "[POST / @a chunked body]!unsupported"},
	    BAD("0\r\nHost: b\r\n\r\n", ""),
	    BAD("0\r\nA: b\r\n c\r\n\r\n", ""),
	    BAD("0\r\nA : b\r\n\r\n", ""),
	    BAD("0\r\nA: b\n\r\n", ""),
#undef BAD
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++)
		same_at_every_split(cases[i].in, NULL, cases[i].want);
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(4096);
	av_buf_append_c(&b, C "1;");
	for (int i = 0; i < AV_HTTP1_CHUNK_LINE_MAX; i++)
		av_buf_append_char(&b, 'x');
	av_buf_append_c(&b, "\r\na\r\n");
	same_at_every_split(av_buf_str(&b), NULL, "[POST / @a chunked body]!invalid_request");
}

static void test_limits(void)
{
	static const char *const what[] = {"one long header", "many headers", "long target",
	    "endless empty lines", "long trailers"};
	for (int i = 0; i < 5; i++) {
		AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(65536);
		av_buf_append_c(&b, i == 2 ? "GET /" : i == 3 ? "" : i == 4 ? C "0\r\n" : H "X: ");
		for (int k = 0; k < 500; k++)
			av_buf_append_c(&b, i == 1   ? "\r\nY:"
			                    : i == 3 ? "\r\n"
			                    : i == 4 ? "a:b\r\n"
			                             : "y");
		diag("%s", what[i]);
		same_at_every_split(av_buf_str(&b), NULL,
		    i == 4 ? "[POST / @a chunked body]!request_head_too_large"
		           : "!request_head_too_large");
	}
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(65536);
	av_buf_append_c(&b, "GET /");
	for (int k = 0; k < 64; k++)
		av_buf_append_char(&b, 'y');
	av_buf_append_c(&b, " HTTP/1.1\r\nHost: a\r\n\r\n");
	same_at_every_split(av_buf_str(&b), NULL, "!request_head_too_large");
}

static void test_responses(void)
{
	static const struct {
		const char *method, *in, *want;
	} cases[] = {
	    {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "[200 len=2 body]hi$"},
	    {"GET", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "[200 len=0]$"},
	    {"GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "[200 len=0]$"},
	    {"GET", "HTTP/1.1 200 OK\r\n\r\nuntil the end", "[200 body close]until the end$"},
	    {"GET", "HTTP/1.1 200 OK\r\n\r\n", "[200 body close]$"},
	    {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
	        "[200 len=9]$[204]$"},
	    {"GET", "HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", "[304 len=9]$"},
	    {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "[200 chunked]$"},
	    {"GET",
	        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\n"
	        "HTTP/1.1 201 x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n",
	        "[100][103 a=b][201 chunked body]z$"},
	    {"GET", "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81",
	        "[101 close upgrade connection=upgrade upgrade=websocket]$~\x81"},
	    {"CONNECT", "HTTP/1.1 200 OK\r\n\r\nraw", "[200 close]$~raw"},
	    {"CONNECT", "HTTP/1.1 502 x\r\nContent-Length: 1\r\n\r\nx", "[502 len=1 body]x$"},
	    {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "[200 len=1 body close]x$"},
	    {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh", "[200 len=2 body]h!cut"},
	    {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
	        "[200 chunked body]hi!cut"},
	    {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
	        "!invalid_request"},
	    {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
	        "!invalid_request"},
	    {"GET", "HTTP/1.1 204 x\r\nContent-Length: 2\r\n\r\n", "!invalid_request"},
	    {"GET", "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", "!invalid_request"},
	    {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "!unsupported"},
	    {"GET", "HTTP/1.1 99 OK\r\n\r\n", "!invalid_request"},
	    {"GET", "HTTP/1.1 600 OK\r\n\r\n", "!invalid_request"},
	    {"GET", "HTTP/1.1 2000 OK\r\n\r\n", "!invalid_request"},
	    {"GET", "HTTP/2 200 OK\r\n\r\n", "!invalid_request"},
	    {"GET", "HTTP/1.1 200 OK\nA: b\r\n\r\n", "!invalid_request"},
	    {"GET", "HTTP/1.1 200 O\rK\r\n\r\n", "!invalid_request"},
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++) {
		/* A body until close may come in any number of pieces; the log joins them. */
		same_at_every_split(av_str_c(cases[i].in), cases[i].method, cases[i].want);
	}
}

static void test_pause(void)
{
	struct run r = {.log = AV_BUF_INIT(4096), .pause_each = true};
	struct av_str s =
	    AV_STR("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / "
	           "HTTP/1.1\r\nHost: b\r\n\r\n");
	size_t used, total = 0;
	r.p = av_http1_new_request(&limits, &events, &r);
	ok(av_http1_idle(r.p), "idle at first");
	is_int(
	    av_http1_feed(r.p, s.p, s.n, &used, NULL), AV_HTTP1_PAUSED, "paused behind the head");
	is_int(used, strlen("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
	    "all of it used");
	ok(av_http1_in_body(r.p) && !av_http1_idle(r.p), "in the body");
	total = used;
	is_int(
	    av_http1_feed(r.p, s.p + total, 2, &used, NULL), AV_HTTP1_PAUSED, "paused in the body");
	total += used;
	is_int(av_http1_feed(r.p, s.p + total, s.n - total, &used, NULL), AV_HTTP1_DONE,
	    "stops behind the message");
	is_int(used, 3, "and leaves the next one");
	ok(av_http1_idle(r.p), "idle between messages");
	total += used;
	is_int(
	    av_http1_feed(r.p, s.p + total, s.n - total, &used, NULL), AV_HTTP1_DONE, "the next");
	is_int(total + used, s.n, "all used");
	av_http1_free(r.p);
	av_buf_clear(&r.log);
}

static int refuse(void *ctx, struct av_http_head *h)
{
	(void)ctx;
	(void)h;
	return -ENOTSUP;
}

static void test_event_error(void)
{
	static const struct av_http1_events refusing = {refuse, on_body, on_end};
	struct av_str s = AV_STR("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
	size_t used;
	struct av_http1 *p = av_http1_new_request(&limits, &refusing, NULL);
	is_int(av_http1_feed(p, s.p, s.n, &used, NULL), -ENOTSUP, "the event's error comes back");
	is_int(av_http1_feed(p, s.p, s.n, &used, NULL), -ENOTSUP, "and again");
	av_http1_free(p);
}

static void test_write(void)
{
	AV_CLEANUP(av_http_head_clear) struct av_http_head h;
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(4096);
	is_int(
	    av_http_head_request(&h, AV_STR("GET"), AV_STR("a:1"), AV_STR("/x?y")), 0, "request");
	is_int(av_http_head_add_c(&h, "X-Key", " v "), 0, "header");
	is_int(av_http_head_add_c(&h, "x", "a\r\nb: c"), -EINVAL, "no splitting by value");
	is_int(av_http_head_add_c(&h, "x: y\r\nz", "a"), -EINVAL, "no splitting by name");
	is_int(av_http_head_add_c(&h, "Content-Length", "1"), -EINVAL, "framing is not a header");
	is_int(av_http_head_add_c(&h, "TRANSFER-ENCODING", "chunked"), -EINVAL, "nor this");
	is_int(av_http_head_add_c(&h, "Host", "b"), -EINVAL, "nor this");
	is_int(av_http1_write_head(&b, &h), 0, "written");
	is_avstr(av_buf_str(&b), "GET /x?y HTTP/1.1\r\nhost: a:1\r\nx-key: v\r\n\r\n", "bytes");
	av_buf_reset(&b);
	av_http_head_clear(&h);
	av_http_head_response(&h, 404);
	h.content_length = 2;
	h.keep_alive = false;
	is_int(av_http1_write_head(&b, &h), 0, "response");
	is_avstr(av_buf_str(&b),
	    "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\n", "bytes");
	h.chunked = true;
	is_int(av_http1_write_head(&b, &h), -EINVAL, "not both framings");
	av_buf_reset(&b);
	h.content_length = -1;
	h.status = 204;
	h.keep_alive = true;
	is_int(av_http1_write_head(&b, &h), 0, "204");
	is_avstr(av_buf_str(&b), "HTTP/1.1 204 No Content\r\n\r\n", "without framing");
	av_buf_reset(&b);
	h.status = 200;
	is_int(av_http1_write_head(&b, &h), 0, "chunked");
	is_int(av_http1_write_chunk(&b, "0123456789abcdef!", 17), 0, "chunk");
	is_int(av_http1_write_chunk(&b, "", 0), -EINVAL, "an empty chunk would be the end");
	av_http_head_clear(&h);
	is_int(av_http_head_add_c(&h, "t", "1"), 0, "trailer");
	is_int(av_http1_write_last_chunk(&b, &h), 0, "last chunk");
	is_avstr(av_buf_str(&b),
	    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
	    "11\r\n0123456789abcdef!\r\n0\r\nt: 1\r\n\r\n",
	    "bytes");
	same_at_every_split(av_buf_str(&b), "GET", "[200 chunked body]0123456789abcdef!${t=1}");
	char head[18];
	is_int(av_http1_chunk_head(head, SIZE_MAX), 18, "the largest chunk head fits");
}

/* A body of any number of chunks has one head: the lines between them are no part of it. */
static void test_many_chunks(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf in = AV_BUF_INIT(65536);
	AV_CLEANUP(av_buf_clear) struct av_buf log = AV_BUF_INIT(65536);
	AV_CLEANUP(av_buf_clear) struct av_buf want = AV_BUF_INIT(65536);
	av_buf_append_c(&in, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
	av_buf_append_c(&want, "[POST / @a chunked body]");
	for (int i = 0; i < 1000; i++) {
		av_buf_append_c(&in, "1\r\nx\r\n");
		av_buf_append_c(&want, "x");
	}
	av_buf_append_c(&in, "0\r\n\r\n");
	av_buf_append_c(&want, "$");
	parse(av_buf_str(&in), NULL, 0, false, &log);
	is_bytes(av_buf_str(&log), av_buf_str(&want), "more chunks than a head may have bytes");
}

int main(void)
{
	test_requests();
	test_refused();
	test_bad_chunks();
	test_limits();
	test_many_chunks();
	test_responses();
	test_pause();
	test_event_error();
	test_write();
	return tap_done();
}
