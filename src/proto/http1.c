/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http1.c - the HTTP/1 parser: a guard in front of llhttp, checks behind it
 *
 * Bytes reach llhttp in spans: in the line-oriented parts (first line, headers, chunk sizes,
 * trailers) one line at most, in body data as much as is known to be data. The guard therefore
 * knows which rules hold for each byte before llhttp sees it, and no event can come from bytes
 * behind those that the feed reports as consumed.
 */
#include "proto/http1.h"

#include <errno.h>
#include <llhttp.h>
#include <stdlib.h>

#include "base/num.h"

#include "base/banned.h"

enum phase {
	PHASE_START, /* before and in the first line */
	PHASE_HEADERS,
	PHASE_BODY, /* data_left bytes of data, or all until the peer closes */
	PHASE_CHUNK_SIZE,
	PHASE_CHUNK_DATA, /* data_left bytes of data */
	PHASE_CHUNK_END,  /* the CRLF behind them */
	PHASE_TRAILERS,
	PHASE_DONE,   /* behind a message */
	PHASE_CLOSED, /* behind a message that was the last of its connection */
	PHASE_FAILED,
};

struct av_http1 {
	llhttp_t ll;
	struct av_http_limits limits;
	const struct av_http1_events *events; /* borrowed */
	void *ctx;
	struct av_http_head head;     /* being received */
	struct av_http_head trailers; /* being received */
	struct av_buf url, field, value;
	uint64_t data_left;
	enum phase phase;
	/* guard */
	size_t head_n; /* bytes of head, or of trailers, so far */
	size_t line_n; /* bytes of the present line without CR LF */
	unsigned spaces;
	bool after_cr;
	/* what the headers said */
	unsigned n_host, n_length, n_coding;
	bool request;
	bool until_close;
	bool paused;
	bool tunnel;
	bool interim;
	bool answer_to_head, answer_to_connect;
	/* first failure */
	int failure;
	struct av_err err;
};

static int fail(struct av_http1 *p, enum av_err_kind kind, const char *text)
{
	if (p->failure == 0)
		p->failure = av_err_set(&p->err, kind, "%s", text);
	p->phase = PHASE_FAILED;
	return -1;
}

static int fail_errno(struct av_http1 *p, int r)
{
	if (r == -ENOMEM)
		return fail(p, AV_ERR_NO_MEMORY, "out of memory for the head of a message");
	if (r == -EMSGSIZE)
		return fail(p, AV_ERR_HEAD_TOO_LARGE, "the head of the message is too large");
	return fail(p, AV_ERR_INVALID, "a header has a bad name or value");
}

/* ---- guard ---- */

static int guard_byte(struct av_http1 *p, unsigned char c)
{
	if (p->after_cr != (c == '\n'))
		return fail(p, AV_ERR_INVALID, "a line must end in CR LF, both together");
	if (c == '\n')
		return 0;
	if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f)
		return fail(p, AV_ERR_INVALID, "control byte in the head of a message");
	p->after_cr = c == '\r';
	if (c == '\r')
		return 0;
	if (p->phase == PHASE_CHUNK_END)
		return fail(p, AV_ERR_INVALID, "a chunk is longer than it says");
	if (c == '\t' && (p->phase == PHASE_START || p->phase == PHASE_CHUNK_SIZE))
		return fail(p, AV_ERR_INVALID, "tab in the first line or a chunk size");
	if (p->line_n == 0 && (c == ' ' || c == '\t'))
		return fail(p, AV_ERR_INVALID, "a line begins with white space");
	p->spaces += c == ' ';
	p->line_n++;
	return 0;
}

/* Checks a span that ends at most at its first LF. */
static int guard_span(struct av_http1 *p, const unsigned char *s, size_t n)
{
	/* Framing of a body of any length, not its head: bounded line by line. */
	if (p->phase == PHASE_CHUNK_SIZE || p->phase == PHASE_CHUNK_END) {
		if (p->line_n + n > AV_HTTP1_CHUNK_LINE_MAX)
			return fail(p, AV_ERR_INVALID, "the chunk size line is too long");
	} else if ((p->head_n += n) > p->limits.head_bytes) {
		return fail(p, AV_ERR_HEAD_TOO_LARGE, "the head of the message is too large");
	}
	for (size_t i = 0; i < n; i++)
		if (guard_byte(p, s[i]) < 0)
			return -1;
	return 0;
}

/* A line has ended and llhttp has seen it. Only phases that llhttp gives no event for. */
static int guard_line_end(struct av_http1 *p, enum phase before, size_t line_n, unsigned spaces)
{
	p->after_cr = false;
	p->line_n = 0;
	p->spaces = 0;
	if (before == PHASE_START && line_n > 0 && p->phase == PHASE_START) {
		if (p->request && spaces != 2)
			return fail(
			    p, AV_ERR_INVALID, "the request line must be METHOD TARGET VERSION");
		p->phase = PHASE_HEADERS;
	} else if (before == PHASE_CHUNK_END && p->phase == PHASE_CHUNK_END) {
		p->phase = PHASE_CHUNK_SIZE;
	}
	return 0;
}

/* ---- llhttp's events ---- */

static struct av_http1 *self(llhttp_t *ll)
{
	return AV_CONTAINER_OF(ll, struct av_http1, ll);
}

static int on_url(llhttp_t *ll, const char *at, size_t n)
{
	struct av_http1 *p = self(ll);
	int r = av_buf_append(&p->url, at, n);
	return r < 0 ? fail_errno(p, r) : 0;
}

static int on_field(llhttp_t *ll, const char *at, size_t n)
{
	struct av_http1 *p = self(ll);
	int r = av_buf_append(&p->field, at, n);
	return r < 0 ? fail_errno(p, r) : 0;
}

static int on_value(llhttp_t *ll, const char *at, size_t n)
{
	struct av_http1 *p = self(ll);
	int r = av_buf_append(&p->value, at, n);
	return r < 0 ? fail_errno(p, r) : 0;
}

/* Headers that say where the message ends or whom it is for. 1 if this was one. */
static int framing_header(struct av_http1 *p, struct av_str name, struct av_str value)
{
	bool length = av_str_ieq(name, AV_STR("content-length"));
	bool coding = av_str_ieq(name, AV_STR("transfer-encoding"));
	bool host = av_str_ieq(name, AV_STR("host"));
	uint64_t n;
	if (!length && !coding && !host)
		return 0;
	if (p->phase == PHASE_TRAILERS)
		return fail(p, AV_ERR_INVALID, "a trailer may not frame or route the message");
	if (length) {
		if (p->n_length++)
			return fail(p, AV_ERR_INVALID, "more than one Content-Length");
		if (av_parse_u64(value, 0, INT64_MAX, &n) < 0)
			return fail(p, AV_ERR_INVALID, "Content-Length is not a number");
		p->head.content_length = (int64_t)n;
	} else if (coding) {
		if (p->n_coding++ || !av_str_ieq(value, AV_STR("chunked")))
			return fail(p, AV_ERR_UNSUPPORTED,
			    "the only Transfer-Encoding known is \"chunked\", once");
		p->head.chunked = true;
	} else if (p->request) {
		if (p->n_host++)
			return fail(p, AV_ERR_INVALID, "more than one Host");
		if (value.n && !av_http_is_authority(value))
			return fail(p, AV_ERR_INVALID, "Host is malformed");
		int r = av_http_head_copy(&p->head, value, &p->head.authority);
		if (r < 0)
			return fail_errno(p, r);
	}
	return 1;
}

static int on_header_complete(llhttp_t *ll)
{
	struct av_http1 *p = self(ll);
	struct av_http_head *into = p->phase == PHASE_TRAILERS ? &p->trailers : &p->head;
	struct av_str name = av_buf_str(&p->field), value = av_str_trim(av_buf_str(&p->value));
	int r = 0;
	if (into->n_headers + p->n_host + p->n_length + p->n_coding >= p->limits.header_count)
		return fail(p, AV_ERR_HEAD_TOO_LARGE, "too many headers");
	if (!av_http_is_token(name) || !av_http_is_value(value))
		return fail_errno(p, -EINVAL);
	r = framing_header(p, name, value);
	if (r == 0 && (r = av_http_head_add(into, name, value)) < 0)
		return fail_errno(p, r);
	av_buf_reset(&p->field);
	av_buf_reset(&p->value);
	return r < 0 ? -1 : 0;
}

static int check_host(struct av_http1 *p)
{
	if (p->head.minor_version == 1 && (p->n_host == 0 || p->head.authority.n == 0))
		return fail(p, AV_ERR_INVALID, "HTTP/1.1 needs a Host");
	return 0;
}

/* "http://authority/path?query" into authority and target. */
static int absolute_target(struct av_http1 *p, struct av_str url)
{
	struct av_str rest =
	    av_str_starts(url, AV_STR("http://")) ? AV_STR("http://") : AV_STR("https://");
	if (!av_str_starts(url, rest))
		return fail(p, AV_ERR_INVALID, "the request target is malformed");
	rest = av_str_n(url.p + rest.n, url.n - rest.n);
	size_t i = 0;
	while (i < rest.n && rest.p[i] != '/' && rest.p[i] != '?')
		i++;
	struct av_str authority = av_str_n(rest.p, i);
	rest = av_str_n(rest.p + i, rest.n - i);
	if (!av_http_is_authority(authority))
		return fail(p, AV_ERR_INVALID, "the request target is malformed");
	if (p->n_host && !av_str_ieq(authority, p->head.authority))
		return fail(p, AV_ERR_INVALID, "request target and Host name different hosts");
	AV_CLEANUP(av_buf_clear) struct av_buf target = AV_BUF_INIT(rest.n + 1);
	if (rest.n == 0 || rest.p[0] != '/')
		av_buf_append_char(&target, '/');
	int r = av_buf_append_str(&target, rest);
	if (r < 0 || (r = av_http_head_copy(&p->head, av_buf_str(&target), &p->head.target)) < 0 ||
	    (r = av_http_head_copy(&p->head, authority, &p->head.authority)) < 0)
		return fail_errno(p, r);
	if (!av_http_is_target(p->head.target))
		return fail(p, AV_ERR_INVALID, "the request target has bad bytes");
	return 0;
}

static int connect_target(struct av_http1 *p, struct av_str url)
{
	struct av_str host;
	uint16_t port;
	if (av_http_split_authority(url, 0, &host, &port) < 0)
		return fail(p, AV_ERR_INVALID, "CONNECT needs host:port");
	if (p->n_host && !av_str_ieq(url, p->head.authority))
		return fail(p, AV_ERR_INVALID, "request target and Host name different hosts");
	if (p->head.chunked || p->head.content_length > 0)
		return fail(p, AV_ERR_INVALID, "CONNECT with a body");
	int r = av_http_head_copy(&p->head, url, &p->head.authority);
	return r < 0 ? fail_errno(p, r) : 0;
}

static int check_request(struct av_http1 *p)
{
	struct av_http_head *h = &p->head;
	struct av_str url = av_buf_str(&p->url);
	h->method = av_str_c(llhttp_method_name((llhttp_method_t)p->ll.method));
	h->has_body = h->chunked || h->content_length > 0;
	if (url.n > p->limits.target_bytes)
		return fail(p, AV_ERR_HEAD_TOO_LARGE, "the request target is too long");
	if (check_host(p) < 0)
		return -1;
	if (av_str_eq_c(h->method, "CONNECT"))
		return connect_target(p, url);
	if (av_str_eq_c(url, "*") && !av_str_eq_c(h->method, "OPTIONS"))
		return fail(p, AV_ERR_INVALID, "the request target is malformed");
	if (url.n == 0 || (url.p[0] != '/' && url.p[0] != '*'))
		return absolute_target(p, url);
	if (!av_http_is_target(url))
		return fail(p, AV_ERR_INVALID, "the request target has bad bytes");
	int r = av_http_head_copy(h, url, &h->target);
	return r < 0 ? fail_errno(p, r) : 0;
}

static int check_response(struct av_http1 *p)
{
	struct av_http_head *h = &p->head;
	h->status = p->ll.status_code;
	if (h->status < 100 || h->status > 599)
		return fail(p, AV_ERR_INVALID, "the status is not 100 to 599");
	bool bodyless = h->status < 200 || h->status == 204;
	if (bodyless && (h->chunked || h->content_length > 0))
		return fail(p, AV_ERR_INVALID, "a response that has no body says it has one");
	p->interim = h->status < 200 && h->status != 101;
	p->tunnel = h->status == 101 || (p->answer_to_connect && h->status / 100 == 2);
	h->has_body = !bodyless && h->status != 304 && !p->answer_to_head && !p->tunnel &&
	              h->content_length != 0;
	p->until_close = h->has_body && !h->chunked && h->content_length < 0;
	return 0;
}

static void connection_fields(struct av_http1 *p)
{
	struct av_http_head *h = &p->head;
	if (h->minor_version == 1)
		h->keep_alive = !av_http_head_has_token(h, "connection", "close");
	else
		h->keep_alive = av_http_head_has_token(h, "connection", "keep-alive");
	h->upgrade = h->minor_version == 1 && av_http_head_get(h, "upgrade") &&
	             av_http_head_has_token(h, "connection", "upgrade");
	if (p->request) {
		const struct av_str *expect = av_http_head_get(h, "expect");
		bool connect = av_str_eq_c(h->method, "CONNECT");
		h->expect_continue = h->minor_version == 1 && h->has_body && expect &&
		                     av_str_ieq(*expect, AV_STR("100-continue"));
		h->keep_alive = h->keep_alive && !connect;
		p->tunnel = connect || h->upgrade;
	} else {
		h->upgrade = h->status == 101;
		h->keep_alive = h->keep_alive && !p->until_close && !p->tunnel;
	}
}

static int check_head(struct av_http1 *p)
{
	struct av_http_head *h = &p->head;
	if (p->ll.http_major != 1 || p->ll.http_minor > 1)
		return fail(p, AV_ERR_INVALID, "HTTP version is not 1.0 or 1.1");
	h->minor_version = p->ll.http_minor;
	if (h->chunked && h->content_length >= 0)
		return fail(p, AV_ERR_INVALID, "Content-Length and Transfer-Encoding together");
	if (h->chunked && h->minor_version == 0)
		return fail(p, AV_ERR_INVALID, "Transfer-Encoding in HTTP/1.0");
	if ((p->request ? check_request(p) : check_response(p)) < 0)
		return -1;
	/* Two parsers have read this head: they must agree. */
	bool ll_chunked = p->ll.flags & F_CHUNKED;
	bool ll_length = p->ll.flags & F_CONTENT_LENGTH;
	if (ll_chunked != h->chunked || ll_length != (h->content_length >= 0) ||
	    (ll_length && p->ll.content_length != (uint64_t)h->content_length))
		return fail(p, AV_ERR_INVALID, "the framing of the message is ambiguous");
	connection_fields(p);
	return 0;
}

static int event(struct av_http1 *p, int r)
{
	if (r >= 0)
		return 0;
	fail(p, AV_ERR_INTERNAL, "the message was refused");
	p->failure = r;
	return -1;
}

static int on_headers_complete(llhttp_t *ll)
{
	struct av_http1 *p = self(ll);
	bool has_body, skip;
	if (check_head(p) < 0)
		return -1;
	has_body = p->head.has_body;
	skip = !p->request && !has_body;
	if (!has_body)
		p->phase = PHASE_DONE;
	else if (p->head.chunked)
		p->phase = PHASE_CHUNK_SIZE;
	else
		p->phase = PHASE_BODY;
	p->data_left = p->until_close ? UINT64_MAX : (uint64_t)p->head.content_length;
	p->head_n = 0;
	p->n_host = p->n_length = p->n_coding = 0;
	bool keep_alive = p->head.keep_alive;
	int r = event(p, p->events->on_head(p->ctx, &p->head));
	av_http_head_clear(&p->head);
	p->head.keep_alive = keep_alive;
	if (r < 0)
		return -1;
	if (p->tunnel && !p->request)
		return 2;
	return skip ? 1 : 0;
}

static int on_body(llhttp_t *ll, const char *at, size_t n)
{
	struct av_http1 *p = self(ll);
	return n ? event(p, p->events->on_body(p->ctx, (const uint8_t *)at, n)) : 0;
}

static int on_chunk_header(llhttp_t *ll)
{
	struct av_http1 *p = self(ll);
	if (ll->content_length > INT64_MAX)
		return fail(p, AV_ERR_INVALID, "a chunk is too large");
	p->data_left = ll->content_length;
	p->phase = p->data_left ? PHASE_CHUNK_DATA : PHASE_TRAILERS;
	return 0;
}

static int message_end(struct av_http1 *p)
{
	bool keep_alive = p->head.keep_alive;
	p->phase = PHASE_DONE;
	if (p->interim)
		return 0;
	int r = event(p, p->events->on_end(p->ctx, p->trailers.n_headers ? &p->trailers : NULL));
	av_http_head_clear(&p->trailers);
	if (r == 0 && !keep_alive && !p->tunnel)
		p->phase = PHASE_CLOSED;
	return r;
}

static int on_message_complete(llhttp_t *ll)
{
	return message_end(self(ll));
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_header_value_complete = on_header_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_message_complete = on_message_complete,
};

/* ---- life ---- */

static void begin_message(struct av_http1 *p)
{
	llhttp_init(&p->ll, p->request ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
	av_http_head_clear(&p->head);
	av_http_head_clear(&p->trailers);
	/* An idle connection holds no buffers. */
	av_buf_clear(&p->url);
	av_buf_clear(&p->field);
	av_buf_clear(&p->value);
	p->phase = PHASE_START;
	p->head_n = p->line_n = 0;
	p->spaces = 0;
	p->after_cr = p->until_close = p->tunnel = p->interim = false;
	p->n_host = p->n_length = p->n_coding = 0;
	p->data_left = 0;
}

static struct av_http1 *http1_new(const struct av_http_limits *limits,
    const struct av_http1_events *events, void *ctx, bool request)
{
	assert(events->on_head && events->on_body && events->on_end);
	struct av_http1 *p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->limits = *limits;
	p->events = events;
	p->ctx = ctx;
	p->request = request;
	av_buf_init(&p->url, limits->head_bytes);
	av_buf_init(&p->field, limits->head_bytes);
	av_buf_init(&p->value, limits->head_bytes);
	begin_message(p);
	return p;
}

struct av_http1 *av_http1_new_request(
    const struct av_http_limits *limits, const struct av_http1_events *events, void *ctx)
{
	return http1_new(limits, events, ctx, true);
}

struct av_http1 *av_http1_new_response(
    const struct av_http_limits *limits, const struct av_http1_events *events, void *ctx)
{
	return http1_new(limits, events, ctx, false);
}

void av_http1_free(struct av_http1 *p)
{
	if (!p)
		return;
	av_http_head_clear(&p->head);
	av_http_head_clear(&p->trailers);
	av_buf_clear(&p->url);
	av_buf_clear(&p->field);
	av_buf_clear(&p->value);
	free(p);
}

void av_http1_freep(struct av_http1 **p)
{
	av_http1_free(*p);
	*p = NULL;
}

void av_http1_expect(struct av_http1 *p, struct av_str request_method)
{
	p->answer_to_head = av_str_eq_c(request_method, "HEAD");
	p->answer_to_connect = av_str_eq_c(request_method, "CONNECT");
}

void av_http1_pause(struct av_http1 *p)
{
	p->paused = true;
}

bool av_http1_idle(const struct av_http1 *p)
{
	return p->phase == PHASE_DONE || p->phase == PHASE_CLOSED ||
	       (p->phase == PHASE_START && p->line_n == 0 && !p->interim);
}

bool av_http1_in_body(const struct av_http1 *p)
{
	return p->phase >= PHASE_BODY && p->phase <= PHASE_TRAILERS;
}

/* ---- feeding ---- */

static int execute(struct av_http1 *p, const char *s, size_t n)
{
	enum llhttp_errno e = llhttp_execute(&p->ll, s, n);
	if (p->failure)
		return -1;
	if (e == HPE_OK || (e == HPE_PAUSED_UPGRADE && p->phase >= PHASE_DONE))
		return 0;
	if (e == HPE_INVALID_TRANSFER_ENCODING)
		return fail(
		    p, AV_ERR_UNSUPPORTED, "the only Transfer-Encoding known is \"chunked\"");
	const char *reason = llhttp_get_error_reason(&p->ll);
	return fail(p, AV_ERR_INVALID, reason && *reason ? reason : "malformed HTTP");
}

/* One span: at most a line, or data. Sets *ret_n to its length. */
static int feed_span(struct av_http1 *p, const char *s, size_t n, size_t *ret_n)
{
	enum phase before = p->phase;
	if (before == PHASE_BODY || before == PHASE_CHUNK_DATA) {
		*ret_n = n = p->data_left < n ? (size_t)p->data_left : n;
		if (!p->until_close)
			p->data_left -= n;
		if (execute(p, s, n) < 0)
			return -1;
		if (before == PHASE_CHUNK_DATA && p->data_left == 0)
			p->phase = PHASE_CHUNK_END;
		return 0;
	}
	const char *lf = memchr(s, '\n', n);
	*ret_n = n = lf ? (size_t)(lf - s) + 1 : n;
	if (guard_span(p, (const unsigned char *)s, n) < 0)
		return -1;
	size_t line_n = p->line_n;
	unsigned spaces = p->spaces;
	if (execute(p, s, n) < 0)
		return -1;
	return lf ? guard_line_end(p, before, line_n, spaces) : 0;
}

static int present_state(const struct av_http1 *p)
{
	if (p->phase == PHASE_DONE || p->phase == PHASE_CLOSED)
		return p->tunnel ? AV_HTTP1_TUNNEL : AV_HTTP1_DONE;
	return p->paused ? AV_HTTP1_PAUSED : AV_HTTP1_MORE;
}

int av_http1_feed(
    struct av_http1 *p, const void *data, size_t n, size_t *ret_consumed, struct av_err *err)
{
	const char *s = data;
	size_t used = 0, span;
	*ret_consumed = 0;
	if (n == 0 && !p->failure)
		return present_state(p);
	p->paused = false;
	if (p->phase == PHASE_CLOSED) {
		/* Said to be the last message: what comes behind it is not looked at. */
		*ret_consumed = n;
		return AV_HTTP1_DONE;
	}
	if (p->phase == PHASE_DONE)
		begin_message(p);
	while (used < n && !p->failure && !p->paused) {
		if (feed_span(p, s + used, n - used, &span) < 0)
			break;
		used += span;
		if (p->phase < PHASE_DONE)
			continue;
		if (!p->interim)
			break;
		begin_message(p);
	}
	*ret_consumed = used;
	if (p->failure) {
		if (err)
			*err = p->err;
		return p->failure;
	}
	return present_state(p);
}

int av_http1_finish(struct av_http1 *p, struct av_err *err)
{
	if (p->failure == 0 && p->phase == PHASE_BODY && p->until_close)
		message_end(p);
	if (p->failure == 0 && av_http1_idle(p))
		return AV_HTTP1_DONE;
	if (p->failure) {
		if (err)
			*err = p->err;
		return p->failure;
	}
	return av_err_set(err, AV_ERR_INVALID, "the connection ended in the middle of a message");
}
