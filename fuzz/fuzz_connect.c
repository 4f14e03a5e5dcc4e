/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_connect.c - Connect envelopes: what is decoded, encoded again, is the input
 */
#include "proto/connect.h"

#include "fuzz.h"

#include "base/banned.h"

static int on_message(void *ctx, bool end, struct av_str payload)
{
	return av_connect_write(ctx, end ? AV_CONNECT_FLAG_END : 0, payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct av_buf out = AV_BUF_INIT(1 << 22);
	struct av_connect_dec d;
	ssize_t x = 0;
	if (n < 1)
		return 0;
	av_connect_dec_init(&d, 65536);
	for (size_t i = 1, k = 0; x >= 0 && i < n; k++) {
		size_t piece = fuzz_piece(data[0], k, n - i);
		x = av_connect_dec_feed(&d, data + i, piece, on_message, &out);
		FUZZ_CHECK(x < 0 || (size_t)x == piece);
		i += piece;
	}
	struct av_str s = av_buf_str(&out);
	FUZZ_CHECK(s.n <= n - 1 && memcmp(s.p, data + 1, s.n) == 0);
	FUZZ_CHECK(x < 0 || !av_connect_dec_idle(&d) || s.n == n - 1);
	av_connect_dec_clear(&d);
	/* And error texts of any bytes. */
	av_buf_reset(&out);
	x = av_connect_write_end(&out, AV_CONNECT_INTERNAL, av_str_n((const char *)data, n));
	FUZZ_CHECK(x == 0 && av_utf8_valid(av_str_n(av_buf_str(&out).p + 5, out.n - 5)));
	av_buf_clear(&out);
	return 0;
}
