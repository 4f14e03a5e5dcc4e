/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main_log.c - the newest output of the main command (see main_log.h)
 */
#include "agent/main_log.h"

#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/num.h"

#include "base/banned.h"

#define FIRST_BYTES ((size_t)32 * 1024)

void main_log_init(struct main_log *l, size_t max_bytes)
{
	*l = (struct main_log){.max = max_bytes};
}

void main_log_clear(struct main_log *l)
{
	free(l->p);
	free(l->part[0].p);
	free(l->part[1].p);
	*l = (struct main_log){0};
}

/* --- the ring --- */

static size_t index_of(const struct main_log *l, uint64_t pos)
{
	size_t i = l->head + (size_t)(pos - l->start);

	return i >= l->cap ? i - l->cap : i;
}

static void copy_out(const struct main_log *l, uint64_t pos, void *dst, size_t n)
{
	size_t i = index_of(l, pos), tail = AV_MIN(n, l->cap - i);

	memcpy(dst, l->p + i, tail);
	memcpy((char *)dst + tail, l->p, n - tail);
}

static void copy_in(struct main_log *l, const void *src, size_t n)
{
	size_t i = index_of(l, l->end), tail = AV_MIN(n, l->cap - i);

	if (!n)
		return;
	memcpy(l->p + i, src, tail);
	memcpy(l->p, (const char *)src + tail, n - tail);
	l->end += n;
	l->used += n;
}

struct entry_head {
	size_t size; /* with the head */
	uint8_t flags;
	int64_t time_us;
};

static struct entry_head head_at(const struct main_log *l, uint64_t pos)
{
	uint8_t h[AV_MAINLOG_HEAD];

	copy_out(l, pos, h, sizeof(h));
	return (struct entry_head){
	    .size = sizeof(h) + av_get_be32(h + 4),
	    .flags = h[2],
	    .time_us = (int64_t)((uint64_t)av_get_be32(h + 16) << 32 | av_get_be32(h + 20)),
	};
}

static void drop_oldest(struct main_log *l)
{
	struct entry_head h = head_at(l, l->start);

	l->head = index_of(l, l->start + h.size);
	l->start += h.size;
	l->used -= h.size;
	l->first++;
	l->lines_dropped += !(h.flags & AV_MAINLOG_CONT);
}

/* False: it has all that it may have, or there is no memory. */
static bool grow(struct main_log *l)
{
	size_t cap = AV_MIN(l->cap ? l->cap * 2 : FIRST_BYTES, l->max);
	char *p = cap > l->cap ? malloc(cap) : NULL;

	if (!p)
		return false;
	if (l->used)
		copy_out(l, l->start, p, l->used);
	free(l->p);
	l->p = p;
	l->cap = cap;
	l->head = 0;
	return true;
}

static void push(struct main_log *l, const struct av_mainlog_entry *e)
{
	uint8_t head[AV_MAINLOG_HEAD];
	size_t need = sizeof(head) + e->data.n;

	while (l->used + need > l->cap && grow(l))
		;
	while (l->used && l->used + need > l->cap)
		drop_oldest(l);
	l->lines += !(e->flags & AV_MAINLOG_CONT);
	l->next++;
	if (need > l->cap) {
		l->first = l->next;
		l->lines_dropped += !(e->flags & AV_MAINLOG_CONT);
		return;
	}
	av_mainlog_put_head(head, e);
	copy_in(l, head, sizeof(head));
	copy_in(l, e->data.p, e->data.n);
}

/* --- lines --- */

static void add(struct main_log *l, uint8_t stream, struct av_str data, bool open, int64_t time_us)
{
	struct main_log_part *part = &l->part[stream - AV_MAINLOG_OUT];
	const struct av_mainlog_entry e = {
	    .kind = AV_MAINLOG_LINE,
	    .stream = stream,
	    .flags = (uint8_t)((open ? AV_MAINLOG_OPEN : 0) | (part->open ? AV_MAINLOG_CONT : 0)),
	    .offset = l->next,
	    .time_us = time_us,
	    .data = data,
	};

	part->open = open;
	push(l, &e);
}

/* The line under way as an entry. */
static void close_part(struct main_log *l, uint8_t stream, bool open)
{
	struct main_log_part *part = &l->part[stream - AV_MAINLOG_OUT];

	add(l, stream, av_str_n(part->p, part->n), open, part->time_us);
	part->n = 0;
	free(AV_TAKE_PTR(part->p));
}

/* Bytes of one line, perhaps without its end. */
static void add_piece(
    struct main_log *l, uint8_t stream, struct av_str piece, bool ends, int64_t now_us)
{
	struct main_log_part *part = &l->part[stream - AV_MAINLOG_OUT];

	while (part->n || piece.n || ends) {
		size_t take = AV_MIN(piece.n, AV_MAINLOG_LINE_MAX - part->n);
		bool whole = ends && take == piece.n;

		/* What needs not wait is not copied; without memory nothing waits. */
		if (!part->n && (whole || take == AV_MAINLOG_LINE_MAX ||
		                    !(part->p = malloc(AV_MAINLOG_LINE_MAX)))) {
			add(l, stream, av_str_n(piece.p, take), !whole, now_us);
		} else {
			if (!part->n)
				part->time_us = now_us;
			memcpy(part->p + part->n, piece.p, take);
			part->n += take;
			if (!whole && part->n < AV_MAINLOG_LINE_MAX)
				return;
			close_part(l, stream, !whole);
		}
		piece = av_str_n(piece.p + take, piece.n - take);
		if (whole || (!piece.n && !ends))
			return;
	}
}

void main_log_append(struct main_log *l, uint8_t stream, const char *p, size_t n, int64_t now_us)
{
	while (n) {
		const char *end = memchr(p, '\n', n);
		size_t take = end ? (size_t)(end - p) : n;

		add_piece(l, stream, av_str_n(p, take), end != NULL, now_us);
		take += end != NULL;
		p += take;
		n -= take;
	}
}

void main_log_flush(struct main_log *l, int64_t before_us)
{
	for (int stream = AV_MAINLOG_OUT; stream <= AV_MAINLOG_ERR; stream++) {
		const struct main_log_part *part = &l->part[stream - AV_MAINLOG_OUT];

		if (part->n && part->time_us <= before_us)
			close_part(l, (uint8_t)stream, true);
	}
}

bool main_log_is_pending(const struct main_log *l)
{
	return l->part[0].n || l->part[1].n;
}

/* --- reading --- */

void main_log_seek_end(const struct main_log *l, struct main_log_cursor *c)
{
	*c = (struct main_log_cursor){.pos = l->end, .offset = l->next};
}

void main_log_seek(
    const struct main_log *l, struct main_log_cursor *c, const struct main_log_range *range)
{
	uint64_t kept = l->lines - l->lines_dropped, skip = 0, seen = 0;

	if (range->tail == 0) {
		main_log_seek_end(l, c);
		return;
	}
	if (range->tail < kept)
		skip = kept - range->tail + 1; /* the line to begin with */
	*c = (struct main_log_cursor){.pos = l->start, .offset = l->first};
	if (range->tail == UINT64_MAX && range->since_us == INT64_MIN && range->from < l->first)
		c->dropped = l->first - range->from;
	while (c->pos < l->end) {
		struct entry_head h = head_at(l, c->pos);

		seen += !(h.flags & AV_MAINLOG_CONT);
		if (c->offset >= range->from && seen >= skip && h.time_us >= range->since_us)
			break;
		c->pos += h.size;
		c->offset++;
	}
}

static size_t put_gap(
    const struct main_log *l, struct main_log_cursor *c, char *dst, int64_t time_us)
{
	const struct av_mainlog_entry e = {
	    .kind = AV_MAINLOG_GAP, .offset = l->first, .dropped = c->dropped, .time_us = time_us};

	c->dropped = 0;
	return av_mainlog_put_small((uint8_t *)dst, &e);
}

size_t main_log_read(const struct main_log *l, struct main_log_cursor *c, char *dst, size_t size)
{
	uint64_t end;

	/* After entries that were dropped before they were in the ring offsets are ahead. */
	if (c->pos < l->start || (c->pos == l->start && c->offset < l->first)) {
		c->dropped += l->first - c->offset;
		c->pos = l->start;
		c->offset = l->first;
	}
	if (c->dropped)
		return put_gap(l, c, dst, l->used ? head_at(l, l->start).time_us : 0);
	end = c->pos;
	while (end < l->end) {
		size_t n = head_at(l, end).size;

		if (end - c->pos + n > size)
			break;
		end += n;
		c->offset++;
	}
	size = (size_t)(end - c->pos);
	if (size)
		copy_out(l, c->pos, dst, size);
	c->pos = end;
	return size;
}
