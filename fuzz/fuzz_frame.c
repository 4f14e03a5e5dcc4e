/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_frame.c - agent frames: what is decoded, encoded again, is the input
 */
#include "proto/frame.h"

#include "fuzz.h"

#include "base/banned.h"

struct run {
	struct av_buf out, frame;
	bool bad;
};

static int on_control(void *ctx, struct av_str payload)
{
	struct run *r = ctx;
	return av_frame_write(&r->out, AV_FRAME_CONTROL, payload);
}

static int on_data(void *ctx, enum av_frame_channel ch, const uint8_t *p, size_t n, bool last)
{
	struct run *r = ctx;
	int x = av_buf_append(&r->frame, p, n);
	if (x < 0 || !last)
		return x;
	x = av_frame_write(&r->out, ch, av_buf_str(&r->frame));
	av_buf_reset(&r->frame);
	return x;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct av_frame_events events = {on_control, on_data};
	struct run r = {.out = AV_BUF_INIT(1 << 22), .frame = AV_BUF_INIT(1 << 20)};
	struct av_frame_dec d;
	ssize_t x = 0;
	if (n < 1)
		return 0;
	av_frame_dec_init(&d);
	for (size_t i = 1, k = 0; x >= 0 && i < n; k++) {
		size_t piece = fuzz_piece(data[0], k, n - i);
		x = av_frame_dec_feed(&d, data + i, piece, &events, &r);
		FUZZ_CHECK(x < 0 || (size_t)x == piece);
		i += piece;
	}
	struct av_str s = av_buf_str(&r.out);
	FUZZ_CHECK(s.n <= n - 1 && memcmp(s.p, data + 1, s.n) == 0);
	FUZZ_CHECK(x < 0 || !av_frame_dec_idle(&d) || s.n == n - 1);
	av_frame_dec_clear(&d);
	av_buf_clear(&r.out);
	av_buf_clear(&r.frame);
	return 0;
}
