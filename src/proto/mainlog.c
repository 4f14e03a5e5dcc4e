/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mainlog.c - the log of a sandbox's main command (see mainlog.h)
 */
#include "proto/mainlog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/num.h"

#include "base/banned.h"

#define TIME_MAX_US 253402300799000000LL /* the last second of the year 9999 */

static void put_be64(uint8_t *p, uint64_t v)
{
	av_put_be32(p, (uint32_t)(v >> 32));
	av_put_be32(p + 4, (uint32_t)v);
}

static uint64_t get_be64(const uint8_t *p)
{
	return (uint64_t)av_get_be32(p) << 32 | av_get_be32(p + 4);
}

static void put_head(uint8_t *dst, const struct av_mainlog_entry *e, size_t n)
{
	dst[0] = (uint8_t)e->kind;
	dst[1] = e->stream;
	dst[2] = e->flags;
	dst[3] = 0;
	av_put_be32(dst + 4, (uint32_t)n);
	put_be64(dst + 8, e->offset);
	put_be64(dst + 16, (uint64_t)e->time_us);
}

void av_mainlog_put_head(uint8_t dst[static AV_MAINLOG_HEAD], const struct av_mainlog_entry *e)
{
	put_head(dst, e, e->data.n);
}

size_t av_mainlog_put_small(
    uint8_t dst[static AV_MAINLOG_SMALL_MAX], const struct av_mainlog_entry *e)
{
	put_head(dst, e, 8);
	if (e->kind == AV_MAINLOG_GAP) {
		put_be64(dst + AV_MAINLOG_HEAD, e->dropped);
	} else {
		av_put_be32(dst + AV_MAINLOG_HEAD, e->exit_code);
		av_put_be32(dst + AV_MAINLOG_HEAD + 4, e->signal);
	}
	return AV_MAINLOG_SMALL_MAX;
}

void av_mainlog_dec_init(struct av_mainlog_dec *d)
{
	*d = (struct av_mainlog_dec){0};
}

void av_mainlog_dec_clear(struct av_mainlog_dec *d)
{
	free(d->data);
	d->data = NULL;
}

bool av_mainlog_dec_idle(const struct av_mainlog_dec *d)
{
	return d->n == 0;
}

static int bad(struct av_err *err, const char *what)
{
	(void)av_err_set(
	    err, AV_ERR_AGENT, "the sandbox's agent broke the protocol of its log: %s", what);
	return -EPROTO;
}

static size_t data_size(const struct av_mainlog_dec *d)
{
	return av_get_be32(d->head + 4);
}

static int check_head(const struct av_mainlog_dec *d, struct av_err *err)
{
	const uint8_t *h = d->head;
	bool line = h[0] == AV_MAINLOG_LINE;

	if (d->ended)
		return bad(err, "something follows its end");
	if (!line && h[0] != AV_MAINLOG_GAP && h[0] != AV_MAINLOG_END)
		return bad(err, "an unknown kind of entry");
	if (h[3] != 0 || (line && (h[1] < AV_MAINLOG_OUT || h[1] > AV_MAINLOG_ERR)) ||
	    (h[2] & ~(AV_MAINLOG_OPEN | AV_MAINLOG_CONT)) != 0)
		return bad(err, "an unknown stream or flag");
	if (line ? data_size(d) > AV_MAINLOG_LINE_MAX : data_size(d) != 8)
		return bad(err, "an entry of a wrong size");
	if (get_be64(h + 8) > INT64_MAX || get_be64(h + 16) > TIME_MAX_US)
		return bad(err, "an offset or a time that cannot be");
	return 0;
}

static int check_end(const struct av_mainlog_entry *e, struct av_err *err)
{
	if (e->exit_code > 255 || e->signal > 64 || (e->signal && e->exit_code != 128 + e->signal))
		return bad(err, "an exit status that cannot be");
	return 0;
}

/* A whole entry. */
static int give(
    struct av_mainlog_dec *d, struct av_str data, av_mainlog_fn *fn, void *ctx, struct av_err *err)
{
	const uint8_t *p = (const uint8_t *)data.p;
	struct av_mainlog_entry e = {
	    .kind = (enum av_mainlog_kind)d->head[0],
	    .stream = d->head[1],
	    .flags = d->head[2],
	    .offset = get_be64(d->head + 8),
	    .time_us = (int64_t)get_be64(d->head + 16),
	};

	if (e.kind == AV_MAINLOG_LINE)
		e.data = data;
	else if (e.kind == AV_MAINLOG_GAP)
		e.dropped = get_be64(p);
	if (e.kind == AV_MAINLOG_END) {
		e.exit_code = av_get_be32(p);
		e.signal = av_get_be32(p + 4);
		if (check_end(&e, err) < 0)
			return -EPROTO;
		d->ended = true;
	}
	d->n = 0;
	return fn(ctx, &e) ? 0 : 1;
}

/* The head is whole: its bytes, from what is here or gathered. Takes them off *bytes. */
static int take_data(struct av_mainlog_dec *d, struct av_str *bytes, av_mainlog_fn *fn, void *ctx,
    struct av_err *err)
{
	size_t size = data_size(d), have = d->n - AV_MAINLOG_HEAD;
	size_t take = AV_MIN(size - have, bytes->n);
	struct av_str all = {bytes->p, size};

	if (have == 0 && take == size) {
		*bytes = av_str_n(bytes->p + take, bytes->n - take);
		return give(d, all, fn, ctx, err);
	}
	if (!d->data && !(d->data = calloc(1, AV_MAINLOG_LINE_MAX)))
		return -ENOMEM;
	memcpy(d->data + have, bytes->p, take);
	d->n += take;
	*bytes = av_str_n(bytes->p + take, bytes->n - take);
	if (have + take < size)
		return 0;
	return give(d, av_str_n(d->data, size), fn, ctx, err);
}

/* As much of the head as is here. False: it is not whole. */
static bool take_head(struct av_mainlog_dec *d, struct av_str *bytes)
{
	size_t take = AV_MIN(AV_MAINLOG_HEAD - d->n, bytes->n);

	if (take)
		memcpy(d->head + d->n, bytes->p, take);
	d->n += take;
	*bytes = av_str_n(bytes->p + take, bytes->n - take);
	return d->n == AV_MAINLOG_HEAD;
}

int av_mainlog_feed(
    struct av_mainlog_dec *d, struct av_str bytes, av_mainlog_fn *fn, void *ctx, struct av_err *err)
{
	int r = 0;

	while (r == 0) {
		if (d->n < AV_MAINLOG_HEAD) {
			if (!take_head(d, &bytes))
				return 0;
			r = check_head(d, err);
			if (r < 0)
				return r;
		}
		if (!bytes.n && d->n - AV_MAINLOG_HEAD < data_size(d))
			return 0;
		r = take_data(d, &bytes, fn, ctx, err);
	}
	return r;
}
