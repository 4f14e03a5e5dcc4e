/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http2_queue.c - counted blocks and FIFOs of pieces of them, for output without copies
 */
#include "proto/http2_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/banned.h"

struct av_http2_block *av_http2_block_new(uint32_t cap)
{
	struct av_http2_block *b = malloc(sizeof(*b) + (size_t)cap);
	if (b)
		*b = (struct av_http2_block){.refs = 1, .cap = cap};
	return b;
}

void av_http2_block_unref(struct av_http2_block *b)
{
	if (!b)
		return;
	assert(b->refs > 0);
	if (--b->refs == 0)
		free(b);
}

int av_http2_queue_reserve(struct h2_queue *q, size_t extra)
{
	if (q->cap - q->head - q->n >= extra)
		return 0;
	if (q->head) {
		memmove(q->v, q->v + q->head, q->n * sizeof(*q->v));
		q->head = 0;
	}
	if (q->cap - q->n >= extra)
		return 0;
	size_t cap = AV_MAX(q->cap * 2, q->n + extra);
	cap = AV_MAX(cap, (size_t)4);
	struct h2_seg *v = reallocarray(q->v, cap, sizeof(*v));
	if (!v)
		return -ENOMEM;
	q->v = v;
	q->cap = cap;
	return 0;
}

void av_http2_queue_push(struct h2_queue *q, struct av_http2_block *b, const uint8_t *p, size_t n)
{
	if (n == 0)
		return;
	q->bytes += n;
	if (q->n) {
		struct h2_seg *last = &q->v[q->head + q->n - 1];
		if (last->block == b && last->p + last->n == p) {
			last->n += n;
			return;
		}
	}
	assert(q->head + q->n < q->cap);
	b->refs++;
	q->v[q->head + q->n++] = (struct h2_seg){.block = b, .p = p, .n = n};
}

void av_http2_queue_consume(struct h2_queue *q, size_t n)
{
	assert(n <= q->bytes);
	q->bytes -= n;
	while (n) {
		struct h2_seg *first = &q->v[q->head];
		size_t k = AV_MIN(n, first->n);
		first->p += k;
		first->n -= k;
		n -= k;
		if (first->n == 0) {
			av_http2_block_unref(first->block);
			q->head++;
			q->n--;
		}
	}
	if (q->n == 0)
		q->head = 0;
}

void av_http2_queue_truncate(struct h2_queue *q, size_t n)
{
	assert(n <= q->bytes);
	while (q->bytes > n) {
		struct h2_seg *last = &q->v[q->head + q->n - 1];
		size_t k = AV_MIN(q->bytes - n, last->n);
		last->n -= k;
		q->bytes -= k;
		if (last->n == 0) {
			av_http2_block_unref(last->block);
			q->n--;
		}
	}
}

void av_http2_queue_move(struct h2_queue *dst, struct h2_queue *src, size_t n)
{
	assert(n <= src->bytes);
	while (n) {
		struct h2_seg *first = &src->v[src->head];
		size_t k = AV_MIN(n, first->n);
		av_http2_queue_push(dst, first->block, first->p, k);
		av_http2_queue_consume(src, k);
		n -= k;
	}
}

size_t av_http2_queue_segments(const struct h2_queue *q, size_t n)
{
	size_t count = 0;
	for (size_t i = 0; n && i < q->n; i++, count++)
		n -= AV_MIN(n, q->v[q->head + i].n);
	return count;
}

void av_http2_queue_clear(struct h2_queue *q)
{
	for (size_t i = 0; i < q->n; i++)
		av_http2_block_unref(q->v[q->head + i].block);
	free(q->v);
	*q = (struct h2_queue){0};
}

int av_http2_queue_copy(
    struct h2_queue *q, struct av_http2_block **tail, const void *p, size_t n, size_t block_min)
{
	struct av_http2_block *old = *tail, *fresh = NULL;
	const uint8_t *from = p;
	if (n == 0)
		return 0;
	/* Nobody else points into it: start again at its beginning. */
	if (old && old->refs == 1)
		old->n = 0;
	size_t room = old ? old->cap - old->n : 0, k = AV_MIN(room, n);
	if (av_http2_queue_reserve(q, 2) < 0)
		return -ENOMEM;
	if (k < n) {
		size_t cap = AV_MAX(n - k, block_min);
		if (cap > UINT32_MAX / 2 || !(fresh = av_http2_block_new((uint32_t)cap)))
			return -ENOMEM;
	}
	if (k) {
		memcpy(old->data + old->n, from, k);
		av_http2_queue_push(q, old, old->data + old->n, k);
		old->n += (uint32_t)k;
	}
	if (fresh) {
		memcpy(fresh->data, from + k, n - k);
		av_http2_queue_push(q, fresh, fresh->data, n - k);
		fresh->n = (uint32_t)(n - k);
		av_http2_block_unref(old);
		*tail = fresh;
	}
	return 0;
}
