/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame.c - the binary codec between daemon and agent
 */
#include "proto/frame.h"

#include <errno.h>

#include "base/num.h"

#include "base/banned.h"

static uint32_t channel_max(enum av_frame_channel ch)
{
	return ch == AV_FRAME_CONTROL ? AV_FRAME_CONTROL_MAX : AV_FRAME_DATA_MAX;
}

void av_frame_header(uint8_t dst[static AV_FRAME_HEADER], enum av_frame_channel ch, size_t n)
{
	assert(n <= channel_max(ch));
	av_put_be32(dst, (uint32_t)n);
	dst[4] = (uint8_t)ch;
}

int av_frame_write(struct av_buf *out, enum av_frame_channel ch, struct av_str payload)
{
	uint8_t header[AV_FRAME_HEADER];
	int r = av_buf_error(out);
	if (r < 0)
		return r;
	if (payload.n > channel_max(ch) || payload.n > SIZE_MAX - AV_FRAME_HEADER)
		return -EMSGSIZE;
	char *p;
	if ((r = av_buf_reserve(out, AV_FRAME_HEADER + payload.n, &p)) < 0)
		return r;
	av_frame_header(header, ch, payload.n);
	memcpy(p, header, sizeof(header));
	if (payload.n)
		memcpy(p + sizeof(header), payload.p, payload.n);
	av_buf_commit(out, AV_FRAME_HEADER + payload.n);
	return 0;
}

void av_frame_dec_init(struct av_frame_dec *d)
{
	*d = (struct av_frame_dec){.control = AV_BUF_INIT(AV_FRAME_CONTROL_MAX)};
}

void av_frame_dec_clear(struct av_frame_dec *d)
{
	av_buf_clear(&d->control);
	av_frame_dec_init(d);
}

bool av_frame_dec_idle(const struct av_frame_dec *d)
{
	return d->header_n == 0;
}

/* A piece of a CONTROL payload: whole ones go up from the caller's memory, others are collected. */
static int control_piece(
    struct av_frame_dec *d, struct av_str piece, const struct av_frame_events *ev, void *ctx)
{
	struct av_str whole = piece;
	d->left -= (uint32_t)piece.n;
	if (d->left || d->control.n) {
		int r = av_buf_append_str(&d->control, piece);
		if (r < 0)
			return r;
		if (d->left)
			return 0;
		whole = av_buf_str(&d->control);
	}
	d->header_n = 0;
	int r = ev->on_control(ctx, whole);
	/* Controls are rare: their memory goes back at once. */
	av_buf_clear(&d->control);
	return r;
}

static int data_piece(
    struct av_frame_dec *d, struct av_str piece, const struct av_frame_events *ev, void *ctx)
{
	d->left -= (uint32_t)piece.n;
	if (d->left == 0)
		d->header_n = 0;
	return ev->on_data(ctx, (enum av_frame_channel)d->header[4], (const uint8_t *)piece.p,
	    piece.n, d->left == 0);
}

static int header_done(struct av_frame_dec *d)
{
	if (d->header[4] >= AV_FRAME_CHANNEL_COUNT)
		return -EPROTO;
	d->left = av_get_be32(d->header);
	return d->left > channel_max((enum av_frame_channel)d->header[4]) ? -EMSGSIZE : 0;
}

ssize_t av_frame_dec_feed(struct av_frame_dec *d, const void *data, size_t n,
    const struct av_frame_events *events, void *ctx)
{
	const char *p = data;
	size_t used = 0;
	while (used < n) {
		int r;
		if (d->header_n < AV_FRAME_HEADER) {
			size_t k = AV_MIN((size_t)(AV_FRAME_HEADER - d->header_n), n - used);
			memcpy(d->header + d->header_n, p + used, k);
			d->header_n = (uint8_t)(d->header_n + k);
			used += k;
			if (d->header_n < AV_FRAME_HEADER)
				break;
			if ((r = header_done(d)) < 0)
				return r;
			if (d->left && used == n)
				break;
		}
		struct av_str piece = av_str_n(p + used, AV_MIN((size_t)d->left, n - used));
		used += piece.n;
		if (d->header[4] == AV_FRAME_CONTROL)
			r = control_piece(d, piece, events, ctx);
		else
			r = data_piece(d, piece, events, ctx);
		if (r < 0)
			return r;
		if (r > 0)
			break;
	}
	return (ssize_t)used;
}
