/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http1_write.c - HTTP/1.1 heads, chunks and trailers as bytes
 */
#include "proto/http1.h"

#include <errno.h>
#include <stdio.h>

#include "base/banned.h"

static void write_header(struct av_buf *out, struct av_str name, struct av_str value)
{
	av_buf_append_str(out, name);
	av_buf_append_c(out, ": ");
	av_buf_append_str(out, value);
	av_buf_append_c(out, "\r\n");
}

static int write_request_line(struct av_buf *out, const struct av_http_head *h)
{
	bool connect = av_str_eq_c(h->method, "CONNECT");
	if (h->authority.n == 0 || connect != (h->target.n == 0))
		return -EINVAL;
	av_buf_append_str(out, h->method);
	av_buf_append_char(out, ' ');
	av_buf_append_str(out, connect ? h->authority : h->target);
	av_buf_append_c(out, " HTTP/1.1\r\n");
	write_header(out, AV_STR("host"), h->authority);
	return 0;
}

int av_http1_write_head(struct av_buf *out, const struct av_http_head *h)
{
	bool bodyless = h->status && (h->status < 200 || h->status == 204);
	bool chunked = h->chunked && !bodyless && h->status != 304;
	if (chunked && h->content_length >= 0)
		return -EINVAL;
	if (h->status) {
		if (h->status < 100 || h->status > 599)
			return -EINVAL;
		av_buf_printf(out, "HTTP/1.1 %d %s\r\n", h->status, av_http_reason(h->status));
	} else if (write_request_line(out, h) < 0) {
		return -EINVAL;
	}
	for (size_t i = 0; i < h->n_headers; i++)
		write_header(out, h->headers[i].name, h->headers[i].value);
	if (chunked)
		write_header(out, AV_STR("transfer-encoding"), AV_STR("chunked"));
	else if (h->content_length >= 0 && !bodyless)
		av_buf_printf(out, "content-length: %lld\r\n", (long long)h->content_length);
	if (!h->keep_alive && !av_http_head_get(h, "connection"))
		write_header(out, AV_STR("connection"), AV_STR("close"));
	return av_buf_append_c(out, "\r\n");
}

size_t av_http1_chunk_head(char dst[static 18], size_t n)
{
	static const char digits[] = "0123456789abcdef";
	size_t len = 1, i;
	for (size_t v = n; v >= 16; v /= 16)
		len++;
	for (i = len; i > 0; i--, n /= 16)
		dst[i - 1] = digits[n % 16];
	dst[len] = '\r';
	dst[len + 1] = '\n';
	return len + 2;
}

int av_http1_write_chunk(struct av_buf *out, const void *p, size_t n)
{
	char head[18];
	if (n == 0)
		return -EINVAL; /* would end the body */
	av_buf_append(out, head, av_http1_chunk_head(head, n));
	av_buf_append(out, p, n);
	return av_buf_append_c(out, "\r\n");
}

int av_http1_write_last_chunk(struct av_buf *out, const struct av_http_head *trailers)
{
	av_buf_append_c(out, "0\r\n");
	for (size_t i = 0; trailers && i < trailers->n_headers; i++)
		write_header(out, trailers->headers[i].name, trailers->headers[i].value);
	return av_buf_append_c(out, "\r\n");
}
