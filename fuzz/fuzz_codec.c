/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_codec.c - base64, hexadecimal and percent-encoding: there and back; decoding is strict
 */
#include "base/codec.h"

#include "fuzz.h"

#include "base/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct av_str s = av_str_n((const char *)data, n);
	AV_CLEANUP(av_buf_clear) struct av_buf a = AV_BUF_INIT(1 << 24), b = AV_BUF_INIT(1 << 24);
	/* Anything encoded decodes to itself. */
	FUZZ_CHECK(av_base64_encode(&a, data, n) == 0 && a.n == AV_BASE64_LEN(n));
	FUZZ_CHECK(av_base64_decode(&b, av_buf_str(&a)) == 0 && av_str_eq(av_buf_str(&b), s));
	av_buf_reset(&a);
	av_buf_reset(&b);
	FUZZ_CHECK(av_percent_encode(&a, s, true) == 0);
	FUZZ_CHECK(av_percent_decode(&b, av_buf_str(&a), true) == 0);
	FUZZ_CHECK(av_str_eq(av_buf_str(&b), s));
	char *hex = malloc(2 * n + 1), *back = malloc(n + 1);
	if (hex && back) {
		av_hex_encode(hex, data, n);
		FUZZ_CHECK(av_hex_decode(back, av_str_n(hex, 2 * n)) == 0);
		FUZZ_CHECK(memcmp(back, data, n) == 0);
		if (av_hex_decode(back, s) == 0)
			FUZZ_CHECK(n % 2 == 0);
	}
	free(hex);
	free(back);
	/* Anything that decodes is what its result encodes to. */
	av_buf_reset(&a);
	av_buf_reset(&b);
	if (av_base64_decode(&a, s) == 0) {
		FUZZ_CHECK(av_base64_encode(&b, av_buf_str(&a).p, a.n) == 0);
		FUZZ_CHECK(av_str_eq(av_buf_str(&b), s));
	}
	av_buf_reset(&a);
	if (av_percent_decode(&a, s, false) == 0)
		FUZZ_CHECK(a.n <= n);
	return 0;
}
