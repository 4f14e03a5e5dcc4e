/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf.c - a growing byte buffer with a ceiling
 */
#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/banned.h"

#define MIN_CAPACITY 256

void av_buf_init(struct av_buf *b, size_t max_bytes)
{
	*b = AV_BUF_INIT(max_bytes);
}

void av_buf_clear(struct av_buf *b)
{
	free(b->p);
	*b = AV_BUF_INIT(b->max);
}

void av_buf_reset(struct av_buf *b)
{
	b->off = 0;
	b->n = 0;
	b->error = 0;
}

static int grow(struct av_buf *b, size_t need)
{
	size_t cap = b->cap ? b->cap : MIN_CAPACITY;
	while (cap < need)
		if (__builtin_mul_overflow(cap, 2, &cap))
			return -ENOMEM;
	char *p = realloc(b->p, cap);
	if (!p)
		return -ENOMEM;
	b->p = p;
	b->cap = cap;
	return 0;
}

int av_buf_reserve(struct av_buf *b, size_t n, char **ret_p)
{
	assert(b->max > 0);
	if (b->error)
		return b->error;
	size_t need;
	if (__builtin_add_overflow(b->n, n, &need) || need > b->max)
		return b->error = -EMSGSIZE;
	/* One byte more than asked, so that av_buf_cstr always has room for its NUL. */
	if (need + 1 > b->cap - b->off || !b->p) {
		if (b->p && b->off) {
			memmove(b->p, b->p + b->off, b->n);
			b->off = 0;
		}
		if (need + 1 > b->cap) {
			int r = grow(b, need + 1);
			if (r < 0)
				return b->error = r;
		}
	}
	*ret_p = b->p + b->off + b->n;
	return 0;
}

void av_buf_commit(struct av_buf *b, size_t n)
{
	assert(b->off + b->n + n <= b->cap);
	b->n += n;
}

int av_buf_append(struct av_buf *b, const void *p, size_t n)
{
	if (n == 0)
		return b->error;
	char *dst = NULL;
	int r = av_buf_reserve(b, n, &dst);
	if (r < 0)
		return r;
	if (dst)
		memcpy(dst, p, n);
	av_buf_commit(b, n);
	return 0;
}

int av_buf_append_str(struct av_buf *b, struct av_str s)
{
	return av_buf_append(b, s.p, s.n);
}

int av_buf_append_c(struct av_buf *b, const char *s)
{
	return av_buf_append(b, s, strlen(s));
}

int av_buf_append_char(struct av_buf *b, char c)
{
	return av_buf_append(b, &c, 1);
}

int av_buf_printf(struct av_buf *b, const char *fmt, ...)
{
	va_list ap, again;
	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	char *dst;
	int r = n < 0 ? -EINVAL : av_buf_reserve(b, (size_t)n, &dst);
	if (r == 0) {
		vsnprintf(dst, (size_t)n + 1, fmt, again);
		av_buf_commit(b, (size_t)n);
	} else if (!b->error) {
		b->error = r;
	}
	va_end(again);
	return r;
}

void av_buf_consume(struct av_buf *b, size_t n)
{
	assert(n <= b->n);
	b->n -= n;
	b->off = b->n ? b->off + n : 0;
}

const char *av_buf_cstr(struct av_buf *b)
{
	char *end = NULL;
	if (av_buf_reserve(b, 0, &end) < 0 || !end)
		return NULL;
	*end = '\0';
	return b->p + b->off;
}
