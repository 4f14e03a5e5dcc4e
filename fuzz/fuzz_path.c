/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_path.c - cleaned paths are absolute, free of "." and "..", and stay as they are when cleaned
 */
#include "base/path.h"

#include "fuzz.h"

#include "base/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct av_str s = av_str_n((const char *)data, n);
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(65536), twice = AV_BUF_INIT(65536);
	struct av_err err;
	if (av_path_clean(&out, AV_STR("/home/user"), s, &err) < 0)
		return 0;
	struct av_str c = av_buf_str(&out);
	FUZZ_CHECK(c.n > 0 && c.n <= AV_PATH_MAX && c.p[0] == '/' && !av_str_has_nul(c));
	FUZZ_CHECK(c.n == 1 || c.p[c.n - 1] != '/');
	for (struct av_str rest = av_str_n(c.p + 1, c.n - 1), part; rest.n;) {
		av_str_cut(&rest, '/', &part);
		FUZZ_CHECK(part.n > 0 && part.n <= AV_NAME_MAX);
		FUZZ_CHECK(!av_str_eq_c(part, ".") && !av_str_eq_c(part, ".."));
	}
	FUZZ_CHECK(av_path_clean(&twice, AV_STR("/"), c, &err) == 0);
	FUZZ_CHECK(av_str_eq(c, av_buf_str(&twice)));
	FUZZ_CHECK(av_path_base(c).n > 0 && av_path_dir(c).n > 0);
	return 0;
}
