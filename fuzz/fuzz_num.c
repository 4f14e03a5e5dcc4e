/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_num.c - numbers, sizes, durations and times keep their bounds
 */
#include "base/num.h"

#include <inttypes.h>

#include "base/avtime.h"
#include "fuzz.h"

#include "base/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct av_str s = av_str_n((const char *)data, n);
	uint64_t u = 7;
	int64_t i = 7;
	struct av_err err;
	char text[32];
	if (av_parse_u64(s, 10, 1000000, &u) == 0)
		FUZZ_CHECK(u >= 10 && u <= 1000000);
	else
		FUZZ_CHECK(u == 7);
	if (av_parse_u64(s, 0, UINT64_MAX, &u) == 0 && n && s.p[0] != '0') {
		snprintf(text, sizeof(text), "%" PRIu64, u);
		FUZZ_CHECK(av_str_eq_c(s, text));
	}
	if (av_parse_i64(s, -1000, 1000, &i) == 0)
		FUZZ_CHECK(i >= -1000 && i <= 1000);
	if (av_parse_hex_u64(s, 0xffff, &u) == 0)
		FUZZ_CHECK(u <= 0xffff);
	if (av_parse_milli(s, 64000, &u) == 0)
		FUZZ_CHECK(u <= 64000);
	int r = av_parse_size(s, &u, &err);
	r |= av_parse_duration_ms(s, &u, &err);
	(void)r;
	if (av_rfc3339_parse(s, &i) == 0) {
		int64_t again = -1;
		av_rfc3339_ms(i, text);
		FUZZ_CHECK(av_rfc3339_parse(av_str_c(text), &again) == 0);
		FUZZ_CHECK(again == i || i < 0 || i > 253402300799999);
	}
	return 0;
}
