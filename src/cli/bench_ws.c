/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ws.c - the smallest WebSocket client that can measure
 */
#include "cli/bench_ws.h"

#include <errno.h>
#include <stdio.h>

#include "base/fd.h"
#include "base/num.h"

#include "base/banned.h"

#define OP_TEXT    1
#define OP_BINARY  2
#define OP_CLOSE   8
#define OP_CONTROL 8 /* this bit */

int bench_ws_open(struct bench_http *h, const char *url, const char *key, const char *path,
    const char *protocol, struct av_err *err)
{
	int r = bench_http_open(h, url, key, err);
	if (r < 0)
		return r;
	r = bench_http_upgrade(h, path, protocol, err);
	if (r < 0)
		bench_http_close(h);
	return r;
}

int bench_ws_send(struct bench_http *h, bool text, struct av_str message, struct av_err *err)
{
	/* A mask of zeroes changes nothing. */
	char head[8] = {(char)(0x80 | (text ? OP_TEXT : OP_BINARY)), (char)(0x80 | message.n)};
	size_t n = 6;
	if (message.n > 65535)
		return av_err_set(err, AV_ERR_INVALID, "a message of bench is too long");
	if (message.n > 125) {
		head[1] = (char)(0x80 | 126);
		head[2] = (char)(message.n >> 8);
		head[3] = (char)message.n;
		n = 8;
	}
	int r = av_write_full(h->fd, head, n);
	if (r == 0)
		r = av_write_full(h->fd, message.p, message.n);
	return r < 0 ? av_err_sys(err, AV_ERR_UNAVAILABLE, r, "the daemon at %s", h->authority) : 0;
}

/* Header of the next frame: opcode, and bytes that follow. */
static int read_header(struct bench_http *h, unsigned *ret_op, uint64_t *ret_n, struct av_err *err)
{
	int r = bench_http_need(h, 2, err);
	if (r < 0)
		return r;
	struct av_str s = av_buf_str(&h->in);
	unsigned length = (unsigned char)s.p[1];
	size_t head = length == 127 ? 10 : length == 126 ? 4 : 2;
	if ((r = bench_http_need(h, head, err)) < 0)
		return r;
	s = av_buf_str(&h->in);
	*ret_op = (unsigned char)s.p[0] & 15u;
	*ret_n = length;
	for (size_t i = 2; i < head; i++)
		*ret_n = (i > 2 ? *ret_n << 8 : 0) | (unsigned char)s.p[i];
	av_buf_consume(&h->in, head);
	return 0;
}

int bench_ws_count(
    struct bench_http *h, uint64_t *ret_bytes, char *last, size_t size, struct av_err *err)
{
	uint64_t total = 0, n;
	unsigned op;
	for (;;) {
		int r = read_header(h, &op, &n, err);
		if (r < 0)
			return r;
		if (op == OP_CLOSE)
			break;
		if (!(op & OP_CONTROL)) {
			total += n;
			size_t want = (size_t)AV_MIN(n, (uint64_t)size - 1);
			if ((r = bench_http_need(h, want, err)) < 0)
				return r;
			memcpy(last, av_buf_str(&h->in).p, want);
			last[want] = '\0';
		}
		if ((r = bench_http_skip(h, n, err)) < 0)
			return r;
	}
	*ret_bytes = total;
	return 0;
}
