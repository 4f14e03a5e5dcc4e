/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_mainlog.c - logs of main commands: what is decoded, encoded again, is the input
 */
#include "base/buf.h"
#include "proto/mainlog.h"

#include "fuzz.h"

#include "base/banned.h"

static bool on_entry(void *ctx, const struct av_mainlog_entry *e)
{
	uint8_t bytes[AV_MAINLOG_SMALL_MAX];
	struct av_buf *out = ctx;

	if (e->kind == AV_MAINLOG_LINE) {
		FUZZ_CHECK(e->data.n <= AV_MAINLOG_LINE_MAX);
		av_mainlog_put_head(bytes, e);
		return av_buf_append(out, bytes, AV_MAINLOG_HEAD) == 0 &&
		       av_buf_append_str(out, e->data) == 0;
	}
	return av_buf_append(out, bytes, av_mainlog_put_small(bytes, e)) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct av_buf out = AV_BUF_INIT(1 << 22);
	struct av_mainlog_dec d;
	struct av_err err;
	int r = 0;

	if (n < 1)
		return 0;
	av_mainlog_dec_init(&d);
	for (size_t i = 1, k = 0; r == 0 && i < n; k++) {
		size_t piece = fuzz_piece(data[0], k, n - i);

		r = av_mainlog_feed(
		    &d, av_str_n((const char *)data + i, piece), on_entry, &out, &err);
		i += piece;
	}
	FUZZ_CHECK(out.n <= n - 1 && (out.n == 0 || memcmp(out.p, data + 1, out.n) == 0));
	FUZZ_CHECK(r != 0 || !av_mainlog_dec_idle(&d) || out.n == n - 1);
	av_mainlog_dec_clear(&d);
	av_buf_clear(&out);
	return 0;
}
