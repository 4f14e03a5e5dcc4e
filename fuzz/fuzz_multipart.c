/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_multipart.c - multipart bodies: in pieces and whole, the events must be the same
 */
#include "proto/multipart.h"

#include "fuzz.h"

#include "base/banned.h"

static int on_part(void *ctx, const struct av_multipart_part *p)
{
	FUZZ_CHECK(av_utf8_valid(p->name) && av_utf8_valid(p->filename));
	FUZZ_CHECK(!av_str_has_nul(p->filename));
	return av_buf_printf(ctx, "[%.*s|%d%.*s|%.*s]", AV_STR_ARG(p->name), p->has_filename,
	    AV_STR_ARG(p->filename), AV_STR_ARG(p->content_type));
}

static int on_data(void *ctx, const uint8_t *p, size_t n)
{
	FUZZ_CHECK(n > 0);
	return av_buf_append(ctx, p, n);
}

static int on_part_end(void *ctx)
{
	return av_buf_append_c(ctx, "$");
}

static void run(const uint8_t *data, size_t n, uint8_t pattern, struct av_buf *log)
{
	static const struct av_multipart_events events = {on_part, on_data, on_part_end};
	struct av_multipart *m = NULL;
	int x = av_multipart_new(AV_STR("multipart/form-data; boundary=B"), &m, NULL);
	FUZZ_CHECK(x == 0);
	for (size_t i = 0, k = 0; x == 0 && i < n; k++) {
		size_t piece = fuzz_piece(pattern, k, n - i);
		x = av_multipart_feed(m, data + i, piece, &events, log, NULL);
		i += piece;
	}
	x = x == 0 ? av_multipart_finish(m, NULL) : x;
	av_buf_append_c(log, x < 0 ? "!" : ".");
	av_multipart_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct av_buf a = AV_BUF_INIT(1 << 23), b = AV_BUF_INIT(1 << 23);
	if (n < 1)
		return 0;
	run(data + 1, n - 1, 0, &a);
	run(data + 1, n - 1, data[0] ? data[0] : 1, &b);
	FUZZ_CHECK(av_str_eq(av_buf_str(&a), av_buf_str(&b)));
	av_buf_clear(&a);
	av_buf_clear(&b);
	/* The same bytes as a Content-Type. */
	struct av_multipart *m = NULL;
	if (av_multipart_new(av_str_n((const char *)data, n), &m, NULL) == 0)
		av_multipart_free(m);
	return 0;
}
