/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.c - the newest output of a process that nobody is attached to
 */
#include "agent/ring.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

#include "base/banned.h"

#define RING_MIN    ((size_t)8 * 1024)
#define RECORD_HEAD 5 /* u32 length in host order, u8 channel */
#define NO_LAST     UINT64_MAX

void ring_init(struct ring *r, struct ring_budget *budget, size_t max)
{
	assert(max >= RING_MIN && (max & (max - 1)) == 0);
	*r = (struct ring){.budget = budget, .max = max, .last = NO_LAST};
}

void ring_clear(struct ring *r)
{
	free(r->p);
	r->budget->used -= r->cap;
	ring_init(r, r->budget, r->max);
}

/* Copies between the ring at an absolute position and plain memory, around the edge. */
static void copy_in(struct ring *r, uint64_t pos, const void *src, size_t n)
{
	size_t at = (size_t)(pos & (r->cap - 1)), first = AV_MIN(n, r->cap - at);

	memcpy(r->p + at, src, first);
	memcpy(r->p, (const char *)src + first, n - first);
}

static void copy_out(const struct ring *r, uint64_t pos, void *dst, size_t n)
{
	size_t at = (size_t)(pos & (r->cap - 1)), first = AV_MIN(n, r->cap - at);

	memcpy(dst, r->p + at, first);
	memcpy((char *)dst + first, r->p, n - first);
}

static uint32_t record_head(const struct ring *r, uint64_t pos, uint8_t *ret_channel)
{
	char head[RECORD_HEAD];
	uint32_t len;

	copy_out(r, pos, head, sizeof(head));
	memcpy(&len, head, sizeof(len));
	*ret_channel = (uint8_t)head[4];
	assert(len <= RING_RECORD_MAX && pos + RECORD_HEAD + len <= r->end);
	return len;
}

static void put_record_head(struct ring *r, uint64_t pos, uint8_t channel, size_t n)
{
	char head[RECORD_HEAD];
	uint32_t len = (uint32_t)n;

	memcpy(head, &len, sizeof(len));
	head[4] = (char)channel;
	copy_in(r, pos, head, sizeof(head));
}

/* Doubles until need more bytes fit, as far as ceiling and budget allow. */
static void grow(struct ring *r, size_t need)
{
	size_t used = (size_t)(r->end - r->start), cap = r->cap ? r->cap : RING_MIN;
	char *p;

	while (cap < r->max && cap < used + need)
		cap *= 2;
	if (cap == r->cap || cap - r->cap > r->budget->max - r->budget->used)
		return;
	p = malloc(cap);
	if (!p)
		return;
	if (used) {
		size_t at = (size_t)(r->start & (cap - 1)), first = AV_MIN(used, cap - at);

		copy_out(r, r->start, p + at, first);
		copy_out(r, r->start + first, p, used - first);
	}
	free(r->p);
	r->budget->used += cap - r->cap;
	r->p = p;
	r->cap = cap;
}

static void drop_oldest(struct ring *r)
{
	uint8_t channel;
	uint32_t len = record_head(r, r->start, &channel);

	if (r->last == r->start)
		r->last = NO_LAST;
	r->start += RECORD_HEAD + len;
	r->dropped += len;
}

/* n is small enough for one record of the present ring. */
static void append_piece(struct ring *r, uint8_t channel, const char *p, size_t n)
{
	uint8_t last_channel = 0;
	uint32_t last_len = 0;
	bool extend = false;

	if (r->last != NO_LAST) {
		last_len = record_head(r, r->last, &last_channel);
		extend = last_channel == channel && last_len + n <= RING_RECORD_MAX &&
		         last_len + n <= r->cap / 2;
	}
	while (r->cap - (size_t)(r->end - r->start) < n + (extend ? 0 : RECORD_HEAD)) {
		drop_oldest(r);
		extend = extend && r->last != NO_LAST;
	}
	if (extend) {
		put_record_head(r, r->last, channel, last_len + n);
	} else {
		r->last = r->end;
		put_record_head(r, r->end, channel, n);
		r->end += RECORD_HEAD;
	}
	copy_in(r, r->end, p, n);
	r->end += n;
}

void ring_append(struct ring *r, uint8_t channel, const void *p, size_t n)
{
	const char *src = p;

	if (n == 0)
		return;
	if (r->cap < r->max && r->cap - (size_t)(r->end - r->start) < n + RECORD_HEAD)
		grow(r, n + RECORD_HEAD * (1 + n / RING_RECORD_MAX));
	if (r->cap == 0) {
		r->dropped += n;
		return;
	}
	while (n) {
		size_t most = AV_MIN(RING_RECORD_MAX, r->cap / 2), piece = AV_MIN(n, most);

		append_piece(r, channel, src, piece);
		src += piece;
		n -= piece;
	}
}

enum ring_read ring_read(
    struct ring *r, struct ring_cursor *c, uint8_t *ret_channel, char *dst, uint64_t *ret_n)
{
	uint32_t len;

	/* Bytes are dropped at the front only, so r->dropped is also how many came before r->start.
	 */
	if (c->seen < r->dropped) {
		*ret_n = r->dropped - c->seen;
		c->pos = r->start;
		c->seen = r->dropped;
		return RING_GAP;
	}
	if (c->pos == r->end)
		return RING_END;
	len = record_head(r, c->pos, ret_channel);
	copy_out(r, c->pos + RECORD_HEAD, dst, len);
	/* A record that somebody has read may not grow any more: the reader stands behind it. */
	if (c->pos == r->last)
		r->last = NO_LAST;
	c->pos += RECORD_HEAD + len;
	c->seen += len;
	*ret_n = len;
	return RING_RECORD;
}
