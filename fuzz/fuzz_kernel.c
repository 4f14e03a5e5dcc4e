/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_kernel.c - messages of a kernel's driver: cut anywhere, what is accepted can be walked
 */
#include "proto/kernel.h"

#include "base/json.h"
#include "fuzz.h"

#include "base/banned.h"

struct run {
	uint32_t sum;
	size_t n;
};

static void walk(const struct av_kernel_message *m)
{
	struct av_str rest = m->rest, text;
	struct av_kernel_item item;
	size_t n = 0;

	if (m->type == AV_KERNEL_DISPLAY) {
		while (av_kernel_next_item(&rest, &item)) {
			FUZZ_CHECK(item.mime.n >= 1 && item.mime.n <= 255);
			FUZZ_CHECK(
			    item.kind != AV_KERNEL_ITEM_DOCUMENT || av_json_valid(item.data));
			n++;
		}
		FUZZ_CHECK(n <= AV_KERNEL_ITEMS_MAX && rest.n == 0);
	} else if (m->type == AV_KERNEL_ERROR) {
		while (av_kernel_next_text(&rest, &text))
			n++;
		FUZZ_CHECK(n >= 2 && n <= AV_KERNEL_LINES_MAX && rest.n == 0);
	} else if (m->type != AV_KERNEL_READY) {
		FUZZ_CHECK(rest.n == 0);
	}
}

static int on_payload(void *ctx, uint8_t type, struct av_str payload)
{
	struct av_kernel_message m;
	struct run *r = ctx;

	r->n++;
	r->sum = r->sum * 31 + type + (uint32_t)payload.n;
	if (av_kernel_parse(type, payload, &m) == 0)
		walk(&m);
	return 0;
}

static ssize_t run(const uint8_t *data, size_t n, uint8_t seed, struct run *r)
{
	struct av_kernel_dec d;
	ssize_t x = 0;

	av_kernel_dec_init(&d);
	for (size_t i = 0, k = 0; x >= 0 && i < n; k++) {
		size_t piece = seed ? fuzz_piece(seed, k, n - i) : n;

		x = av_kernel_dec_feed(&d, data + i, piece, on_payload, r);
		FUZZ_CHECK(x < 0 || (size_t)x == piece);
		i += piece;
	}
	av_kernel_dec_clear(&d);
	return x < 0 ? x : 0;
}

/* What jansson takes is valid here too, but for NUL bytes, over which it steps behind words. */
static void check_json(struct av_str s)
{
	struct av_err err;
	AV_CLEANUP(av_json_decrefp) json_t *j = av_json_parse_object(s, &err);

	if (j && !av_str_has_nul(s))
		FUZZ_CHECK(av_json_valid(s));
	if (av_json_valid(s)) {
		AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1 << 24);

		FUZZ_CHECK(av_json_write_ascii(&out, s) == 0);
		FUZZ_CHECK(av_json_valid(av_buf_str(&out)));
		for (size_t i = 0; i < out.n; i++)
			FUZZ_CHECK(!((unsigned char)out.p[out.off + i] & 0x80));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct run whole = {0}, cut = {0};

	if (n < 1)
		return 0;
	check_json(av_str_n((const char *)data + 1, n - 1));
	FUZZ_CHECK(
	    run(data + 1, n - 1, 0, &whole) == run(data + 1, n - 1, (uint8_t)(data[0] | 1), &cut));
	FUZZ_CHECK(whole.n == cut.n && whole.sum == cut.sum);
	return 0;
}
