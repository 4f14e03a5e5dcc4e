/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_json.c - foreign JSON: getters never lie about types, what is dumped parses again
 */
#include "base/json.h"

#include "fuzz.h"

#include "base/banned.h"

static void getters(const json_t *o)
{
	const char *text = NULL;
	const json_t *part = NULL;
	int64_t number = 5;
	bool flag = false;
	struct av_err err;
	if (av_json_get_str(o, "s", &text, &err) == 0 && text)
		FUZZ_CHECK(av_utf8_valid(av_str_c(text)));
	if (av_json_get_i64(o, "n", -10, 10, &number, &err) == 0)
		FUZZ_CHECK(number >= -10 && number <= 10);
	number = 0;
	if (av_json_get_seconds_ms(o, "n", 1000, &number, &err) == 0)
		FUZZ_CHECK(number <= 1000);
	int r = av_json_get_bool(o, "b", &flag, &err);
	if (av_json_get_object(o, "o", &part, &err) == 0 && part)
		FUZZ_CHECK(json_is_object(part));
	part = NULL;
	if (av_json_get_array(o, "a", 3, &part, &err) == 0 && part)
		FUZZ_CHECK(json_array_size(part) <= 3);
	r |= av_json_get_str_map(o, "o", 3, &part, &err);
	r |= av_json_get_str_array(o, "a", 3, &part, &err);
	(void)r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct av_str s = av_str_n((const char *)data, n);
	struct av_err err = {0};
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1 << 24);
	AV_CLEANUP(av_json_decrefp) json_t *j = av_json_parse_object(s, &err);
	FUZZ_CHECK(j || err.kind != AV_ERR_NONE);
	if (j) {
		getters(j);
		FUZZ_CHECK(av_json_dump(&out, j) == 0);
		AV_CLEANUP(av_json_decrefp)
		json_t *again = av_json_parse_object(av_buf_str(&out), &err);
		FUZZ_CHECK(again && json_equal(j, again));
		av_buf_reset(&out);
	}
	FUZZ_CHECK(av_json_write_str(&out, s) == 0);
	FUZZ_CHECK(av_utf8_valid(av_buf_str(&out)));
	return 0;
}
