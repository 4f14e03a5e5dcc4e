/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_wire.c - what a caller and its worker in a sandbox say to each other (see remote_wire.h)
 */
#include "client/remote_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/types.h>

#include "base/banned.h"

static void put32(uint8_t *p, uint32_t n)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(n >> (8 * i));
}

static void put64(uint8_t *p, uint64_t n)
{
	put32(p, (uint32_t)n);
	put32(p + 4, (uint32_t)(n >> 32));
}

static uint32_t get32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

/* ---- to the worker ---- */

void avc_head_write(uint8_t dst[static AVC_HEAD_SIZE], const struct avc_head *h)
{
	memcpy(dst, AVC_CALLER_MAGIC, AVC_MAGIC_SIZE);
	put32(dst + 8, AVC_REMOTE_VERSION);
	put32(dst + 12, h->name_size);
	put32(dst + 16, h->build_size);
	put32(dst + 20, 0);
	put64(dst + 24, h->argument_size);
	put64(dst + 32, h->result_max);
	put64(dst + 40, h->layout);
}

int avc_head_read(const uint8_t src[static AVC_HEAD_SIZE], struct avc_head *ret)
{
	struct avc_head h = {.name_size = get32(src + 12),
	    .build_size = get32(src + 16),
	    .argument_size = get64(src + 24),
	    .result_max = get64(src + 32),
	    .layout = get64(src + 40)};

	if (memcmp(src, AVC_CALLER_MAGIC, AVC_MAGIC_SIZE) != 0 ||
	    get32(src + 8) != AVC_REMOTE_VERSION || h.name_size > AVC_NAME_MAX ||
	    h.build_size > AVC_NAME_MAX || h.argument_size > SIZE_MAX / 4)
		return -EPROTO;
	*ret = h;
	return 0;
}

/* ---- to the caller ---- */

void avc_frame_head(uint8_t dst[static AVC_FRAME_HEAD], enum avc_piece ch, size_t n)
{
	put32(dst, (uint32_t)ch);
	put32(dst + 4, (uint32_t)n);
}

void avc_result_head(
    uint8_t dst[static AVC_RESULT_HEAD], enum avc_outcome kind, int returned, uint64_t size)
{
	put32(dst, (uint32_t)kind);
	put32(dst + 4, (uint32_t)returned);
	put64(dst + 8, size);
}

void avc_end_write(uint8_t dst[static AVC_END_SIZE], const struct avc_end *e)
{
	put32(dst, (uint32_t)e->kind);
	put32(dst + 4, (uint32_t)e->exit_code);
	put32(dst + 8, (uint32_t)e->signal);
	put32(dst + 12, e->core_dumped);
	put64(dst + 16, e->cpu_us);
	put64(dst + 24, e->memory_bytes);
}

/* ---- the caller's side ---- */

void avc_worker_dec_init(struct avc_worker_dec *d, uint64_t result_max)
{
	*d = (struct avc_worker_dec){.result_max = result_max};
	av_buf_init(&d->part, AVC_END_SIZE + AVC_SENTENCE_MAX);
	/* One more: of its own for a sentence where there was to be a small value. */
	av_buf_init(&d->result, (size_t)AV_MAX(result_max, (uint64_t)AVC_SENTENCE_MAX) + 1);
}

void avc_worker_dec_clear(struct avc_worker_dec *d)
{
	av_buf_clear(&d->part);
	av_buf_clear(&d->result);
}

bool avc_worker_dec_is_whole(const struct avc_worker_dec *d)
{
	return d->has_head && d->result.n == d->size;
}

static int take_head(struct avc_worker_dec *d, const uint8_t *p)
{
	uint32_t channel = get32(p), n = get32(p + 4);

	if (channel < AVC_PIECE_OUT || channel > AVC_PIECE_MORE || n > AVC_FRAME_MAX ||
	    (channel == AVC_PIECE_MORE && n > 0) ||
	    (channel == AVC_PIECE_END && (n < AVC_END_SIZE || n > AVC_END_SIZE + AVC_SENTENCE_MAX)))
		return -EPROTO;
	d->channel = (enum avc_piece)channel;
	d->left = n;
	d->state = n ? AVC_DEC_BODY : AVC_DEC_HEAD;
	if (channel == AVC_PIECE_MORE && d->on_more)
		d->on_more(d->ctx);
	return 0;
}

static int take_result_head(struct avc_worker_dec *d, const uint8_t *p)
{
	uint32_t kind = get32(p);

	if (kind >= AVC_OUTCOME_COUNT)
		return -EPROTO;
	d->outcome = (enum avc_outcome)kind;
	d->returned = (int)get32(p + 4);
	d->size = get64(p + 8);
	d->has_head = true;
	if (kind == AVC_RETURNED && d->size > d->result_max)
		return -EMSGSIZE;
	return kind != AVC_RETURNED && d->size > AVC_SENTENCE_MAX ? -EPROTO : 0;
}

/* Of a result: its head, put together in `result`, then the value. */
static int take_result(struct avc_worker_dec *d, const char *data, size_t n)
{
	while (n > 0 && !d->has_head) {
		size_t piece = AV_MIN(n, AVC_RESULT_HEAD - d->result.n);
		int r = av_buf_append(&d->result, data, piece);

		if (r < 0)
			return r;
		data += piece;
		n -= piece;
		if (d->result.n < AVC_RESULT_HEAD)
			return 0;
		r = take_result_head(d, (const uint8_t *)d->result.p + d->result.off);
		av_buf_reset(&d->result);
		if (r < 0)
			return r;
	}
	if (n > d->size - d->result.n)
		return -EPROTO; /* more than was announced */
	return n ? av_buf_append(&d->result, data, n) : 0;
}

/* Of text that a stranger wrote: what can be shown. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || (unsigned char)*text >= 0x7f)
			*text = '?';
}

static int take_end(struct avc_worker_dec *d)
{
	const uint8_t *p = (const uint8_t *)d->part.p + d->part.off;
	size_t n = AV_MIN(d->part.n - AVC_END_SIZE, (size_t)AVC_SENTENCE_MAX - 1);
	uint32_t kind = get32(p);

	if (kind >= AVC_OUTCOME_COUNT)
		return -EPROTO;
	d->end = (struct avc_end){.kind = (enum avc_outcome)kind,
	    .exit_code = (int)(get32(p + 4) & 0xff),
	    .signal = (int)(get32(p + 8) & 0x7f),
	    .core_dumped = get32(p + 12) != 0,
	    .cpu_us = AV_MIN(get64(p + 16), (uint64_t)INT64_MAX),
	    .memory_bytes = AV_MIN(get64(p + 24), (uint64_t)INT64_MAX)};
	memcpy(d->end.sentence, p + AVC_END_SIZE, n);
	make_printable(d->end.sentence);
	d->has_end = true;
	d->state = AVC_DEC_OVER;
	return 0;
}

static int take_body(struct avc_worker_dec *d, const char *data, size_t n)
{
	int r = 0;

	d->left -= n;
	if (d->left == 0)
		d->state = AVC_DEC_HEAD;
	switch (d->channel) {
	case AVC_PIECE_OUT:
	case AVC_PIECE_ERR:
		if (d->on_output)
			d->on_output(d->ctx, d->channel == AVC_PIECE_ERR, data, n);
		return 0;
	case AVC_PIECE_RESULT:
		return take_result(d, data, n);
	case AVC_PIECE_END:
		r = av_buf_append(&d->part, data, n);
		return r == 0 && d->left == 0 ? take_end(d) : r;
	case AVC_PIECE_MORE:
		break;
	}
	return -EPROTO;
}

/* Fills `part` up to want; how many bytes of data it took. */
static ssize_t fill(struct avc_worker_dec *d, const char *data, size_t n, size_t want)
{
	size_t piece = AV_MIN(n, want - d->part.n);
	int r = av_buf_append(&d->part, data, piece);

	return r < 0 ? r : (ssize_t)piece;
}

/* One step; how many bytes it took. */
static ssize_t step(struct avc_worker_dec *d, const char *data, size_t n)
{
	size_t want = d->state == AVC_DEC_MAGIC ? AVC_MAGIC_SIZE : AVC_FRAME_HEAD;
	ssize_t took;
	int r = 0;

	if (d->state == AVC_DEC_OVER)
		return -EPROTO; /* nothing follows the end */
	if (d->state == AVC_DEC_BODY) {
		took = (ssize_t)AV_MIN(n, d->left);
		r = take_body(d, data, (size_t)took);
		return r < 0 ? r : took;
	}
	took = fill(d, data, n, want);
	if (took < 0 || d->part.n < want)
		return took;
	if (d->state == AVC_DEC_MAGIC) {
		d->is_worker = memcmp(d->part.p + d->part.off, AVC_WORKER_MAGIC, want) == 0;
		d->state = AVC_DEC_HEAD;
		r = d->is_worker ? 0 : -EPROTO;
		if (d->is_worker && d->on_more)
			d->on_more(d->ctx);
	} else {
		r = take_head(d, (const uint8_t *)d->part.p + d->part.off);
	}
	av_buf_reset(&d->part);
	return r < 0 ? r : took;
}

int avc_worker_dec_feed(struct avc_worker_dec *d, const void *data, size_t n)
{
	const char *at = data;

	while (n > 0) {
		ssize_t took = step(d, at, n);

		if (took < 0)
			return (int)took;
		at += took;
		n -= (size_t)took;
	}
	return 0;
}
