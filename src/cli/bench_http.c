/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_http.c - the smallest HTTP client that can measure
 */
#include "cli/bench_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"

#include "base/banned.h"

#define PIECE    (256 * 1024)
#define BODY_MAX (64 * AV_MIB)

struct answer {
	int status;
	int64_t length; /* -1: chunked, or none */
	bool chunked;
};

int bench_http_open(struct bench_http *h, const char *url, const char *key, struct av_err *err)
{
	struct av_str rest = av_str_c(url), host = {0}, port;
	struct sockaddr_in sa = {.sin_family = AF_INET};
	uint64_t number;
	*h = (struct bench_http){
	    .fd = -1, .in = AV_BUF_INIT(4 * PIECE), .body = AV_BUF_INIT(BODY_MAX)};
	if (!av_str_starts(rest, AV_STR("http://")))
		return av_err_set(err, AV_ERR_INVALID, "bench needs an http:// URL, not %s", url);
	rest = av_str_n(rest.p + 7, rest.n - 7);
	if (av_str_ends(rest, AV_STR("/")))
		rest.n--;
	if (av_str_copy(h->authority, sizeof(h->authority), rest) < 0 ||
	    av_str_copy(h->key, sizeof(h->key), av_str_c(key)) < 0 ||
	    !av_str_cut(&rest, ':', &host) || av_parse_u64(rest, 1, 65535, &number) < 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "bench needs http://ADDRESS:PORT, not %s", url);
	port = host;
	char address[64];
	if (av_str_copy(address, sizeof(address), port) < 0 ||
	    inet_pton(AF_INET, strcmp(address, "localhost") == 0 ? "127.0.0.1" : address,
	        &sa.sin_addr) != 1)
		return av_err_set(
		    err, AV_ERR_INVALID, "bench needs a numeric IPv4 address in %s", url);
	sa.sin_port = htons((uint16_t)number);
	h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;
	struct timeval tv = {.tv_sec = 120};
	if (h->fd < 0 || connect(h->fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0)
		return av_err_sys(err, AV_ERR_UNAVAILABLE, errno, "%s", url);
	setsockopt(h->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(h->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return 0;
}

void bench_http_close(struct bench_http *h)
{
	av_close_fd(&h->fd);
	av_buf_clear(&h->in);
	av_buf_clear(&h->body);
}

static int fill(struct bench_http *h, struct av_err *err)
{
	char *p;
	if (av_buf_reserve(&h->in, PIECE, &p) < 0)
		return av_err_set(err, AV_ERR_TOO_LARGE, "an answer's head is too large");
	ssize_t n;
	do {
		n = recv(h->fd, p, PIECE, 0);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return av_err_sys(err, AV_ERR_UNAVAILABLE, n < 0 ? errno : EPIPE,
		    "the daemon at %s", h->authority);
	av_buf_commit(&h->in, (size_t)n);
	return 0;
}

/* The next line without its CR LF; valid until the next fill. */
static int next_line(struct bench_http *h, struct av_str *ret, struct av_err *err)
{
	for (;;) {
		struct av_str s = av_buf_str(&h->in);
		ptrdiff_t end = av_str_chr(s, '\n');
		if (end >= 1) {
			*ret = av_str_n(s.p, (size_t)end - 1);
			av_buf_consume(&h->in, (size_t)end + 1);
			return 0;
		}
		int r = fill(h, err);
		if (r < 0)
			return r;
	}
}

static int read_head(struct bench_http *h, struct answer *a, struct av_err *err)
{
	struct av_str line, name;
	uint64_t n;
	*a = (struct answer){.length = -1};
	int r = next_line(h, &line, err);
	if (r < 0)
		return r;
	if (line.n < 12 || av_parse_u64(av_str_n(line.p + 9, 3), 100, 599, &n) < 0)
		return av_err_set(err, AV_ERR_INTERNAL, "%s does not speak HTTP", h->authority);
	a->status = (int)n;
	for (;;) {
		if ((r = next_line(h, &line, err)) < 0)
			return r;
		if (line.n == 0)
			return 0;
		av_str_cut(&line, ':', &name);
		line = av_str_trim(line);
		if (av_str_ieq(name, AV_STR("content-length")) &&
		    av_parse_u64(line, 0, INT64_MAX, &n) == 0)
			a->length = (int64_t)n;
		else if (av_str_ieq(name, AV_STR("transfer-encoding")))
			a->chunked = true;
	}
}

/* Takes n bytes of body: into h->body if keep, else away. */
static int take(struct bench_http *h, uint64_t n, bool keep, struct av_err *err)
{
	while (n > 0) {
		int r = h->in.n ? 0 : fill(h, err);
		if (r < 0)
			return r;
		struct av_str s = av_buf_str(&h->in);
		size_t piece = (size_t)AV_MIN((uint64_t)s.n, n);
		if (keep)
			av_buf_append(&h->body, s.p, piece);
		av_buf_consume(&h->in, piece);
		n -= piece;
	}
	return 0;
}

static int read_body(struct bench_http *h, const struct answer *a, bool keep, uint64_t *ret_bytes,
    struct av_err *err)
{
	uint64_t total = 0, n;
	struct av_str line;
	int r;
	av_buf_reset(&h->body);
	if (!a->chunked) {
		n = a->length > 0 ? (uint64_t)a->length : 0;
		r = take(h, n, keep, err);
		*ret_bytes = n;
		return r;
	}
	do {
		if ((r = next_line(h, &line, err)) < 0)
			return r;
		if (av_parse_hex_u64(line, INT64_MAX, &n) < 0)
			return av_err_set(err, AV_ERR_INTERNAL, "a chunk without a size");
		if ((r = take(h, n, keep, err)) < 0 || (r = next_line(h, &line, err)) < 0)
			return r;
		total += n;
	} while (n > 0);
	*ret_bytes = total;
	return 0;
}

static int send_head(struct bench_http *h, const char *method, const char *path, uint64_t length,
    const char *json, struct av_err *err)
{
	char head[4096];
	int n = snprintf(head, sizeof(head),
	    "%s %s HTTP/1.1\r\nHost: %s\r\n%s%s%sContent-Length: %llu\r\n%s\r\n%s", method, path,
	    h->authority, h->key[0] ? "X-API-Key: " : "", h->key, h->key[0] ? "\r\n" : "",
	    (unsigned long long)length, json[0] ? "Content-Type: application/json\r\n" : "", json);
	if (n < 0 || (size_t)n >= sizeof(head))
		return av_err_set(err, AV_ERR_INVALID, "a request of bench is too long");
	int r = av_write_full(h->fd, head, (size_t)n);
	return r < 0 ? av_err_sys(err, AV_ERR_UNAVAILABLE, r, "the daemon at %s", h->authority) : 0;
}

static int finish(struct bench_http *h, bool keep, uint64_t *ret_bytes, struct av_err *err)
{
	struct answer a;
	int r = read_head(h, &a, err);
	if (r == 0)
		r = read_body(h, &a, keep || a.status >= 300, ret_bytes, err);
	return r < 0 ? r : a.status;
}

static int must(
    struct bench_http *h, int status, const char *method, const char *path, struct av_err *err)
{
	if (status < 0 || (status >= 200 && status < 300))
		return status;
	struct av_str body = av_buf_str(&h->body);
	return av_err_set(err, AV_ERR_INTERNAL, "%s %s: status %d, %.*s", method, path, status,
	    (int)AV_MIN(body.n, (size_t)300), body.p);
}

int bench_http_call(struct bench_http *h, const char *method, const char *path, const char *json,
    struct av_err *err)
{
	uint64_t bytes;
	int r = send_head(h, method, path, strlen(json), json, err);
	return r < 0 ? r : finish(h, true, &bytes, err);
}

int bench_http_must(struct bench_http *h, const char *method, const char *path, const char *json,
    struct av_err *err)
{
	return must(h, bench_http_call(h, method, path, json, err), method, path, err);
}

int bench_http_put(struct bench_http *h, const char *path, uint64_t bytes, struct av_err *err)
{
	static const char zeros[PIECE];
	uint64_t ignored;
	int r = send_head(h, "PUT", path, bytes, "", err);
	for (uint64_t left = bytes; r == 0 && left > 0;) {
		size_t n = (size_t)AV_MIN(left, (uint64_t)sizeof(zeros));
		r = av_write_full(h->fd, zeros, n);
		/* A refusal can come before the end; its text says more than EPIPE. */
		if (r == -EPIPE || r == -ECONNRESET)
			r = 0, left = n;
		else if (r < 0)
			return av_err_sys(err, AV_ERR_UNAVAILABLE, r, "upload");
		left -= n;
	}
	return r < 0 ? r : must(h, finish(h, true, &ignored, err), "PUT", path, err);
}

int bench_http_get(struct bench_http *h, const char *path, uint64_t *ret_bytes, struct av_err *err)
{
	int r = send_head(h, "GET", path, 0, "", err);
	return r < 0 ? r : must(h, finish(h, false, ret_bytes, err), "GET", path, err);
}

int bench_http_upgrade(
    struct bench_http *h, const char *path, const char *protocol, struct av_err *err)
{
	char head[4096];
	struct answer a;
	int n = snprintf(head, sizeof(head),
	    "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
	    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	    "X-API-Key: %s\r\n%s%s%s\r\n",
	    path, h->authority, h->key, protocol ? "Sec-WebSocket-Protocol: " : "",
	    protocol ? protocol : "", protocol ? "\r\n" : "");
	if (n < 0 || (size_t)n >= sizeof(head))
		return av_err_set(err, AV_ERR_INVALID, "a request of bench is too long");
	int r = av_write_full(h->fd, head, (size_t)n);
	if (r < 0)
		return av_err_sys(err, AV_ERR_UNAVAILABLE, r, "the daemon at %s", h->authority);
	if ((r = read_head(h, &a, err)) < 0)
		return r;
	return a.status == 101
	           ? 0
	           : av_err_set(err, AV_ERR_INTERNAL, "GET %s: status %d", path, a.status);
}

int bench_http_need(struct bench_http *h, size_t n, struct av_err *err)
{
	int r = 0;
	while (r == 0 && h->in.n < n)
		r = fill(h, err);
	return r;
}

int bench_http_skip(struct bench_http *h, uint64_t n, struct av_err *err)
{
	return take(h, n, false, err);
}
