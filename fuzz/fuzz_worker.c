/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_worker.c - what a worker of remote functions says: the same in one piece and in many, and no
 * more of a result than was allowed
 */
#include "client/remote_wire.h"

#include "fuzz.h"

#include "base/banned.h"

#define RESULT_MAX 100

struct run {
	struct avc_worker_dec dec;
	size_t output[2], more;
	int r;
};

static void on_output(void *ctx, bool is_stderr, const char *data, size_t n)
{
	struct run *r = ctx;

	FUZZ_CHECK(n > 0 && data);
	r->output[is_stderr] += n;
}

static void on_more(void *ctx)
{
	struct run *r = ctx;

	r->more++;
}

static void feed(struct run *r, const uint8_t *data, size_t n, uint8_t pattern)
{
	*r = (struct run){.r = 0};
	avc_worker_dec_init(&r->dec, RESULT_MAX);
	r->dec.on_output = on_output;
	r->dec.on_more = on_more;
	r->dec.ctx = r;
	for (size_t i = 0, k = 0; i < n && r->r == 0; k++) {
		size_t piece = fuzz_piece(pattern, k, n - i);

		r->r = avc_worker_dec_feed(&r->dec, data + i, piece);
		i += piece;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct run whole, pieces;

	if (n < 1)
		return 0;
	feed(&whole, data + 1, n - 1, 0);
	feed(&pieces, data + 1, n - 1, data[0]);
	FUZZ_CHECK(whole.r == pieces.r && whole.more == pieces.more);
	FUZZ_CHECK(whole.output[0] == pieces.output[0] && whole.output[1] == pieces.output[1]);
	/* Of what is refused, it may be seen earlier or later. */
	FUZZ_CHECK(whole.r != 0 ||
	           av_str_eq(av_buf_str(&whole.dec.result), av_buf_str(&pieces.dec.result)));
	FUZZ_CHECK(whole.dec.has_end == pieces.dec.has_end);
	FUZZ_CHECK(whole.dec.outcome != AVC_RETURNED || !whole.dec.has_head ||
	           whole.dec.result.n <= RESULT_MAX);
	FUZZ_CHECK(!avc_worker_dec_is_whole(&whole.dec) || whole.r != 0 ||
	           whole.dec.result.n == whole.dec.size);
	avc_worker_dec_clear(&whole.dec);
	avc_worker_dec_clear(&pieces.dec);
	return 0;
}
