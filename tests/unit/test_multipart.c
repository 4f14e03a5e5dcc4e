/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_multipart.c - multipart/form-data at every split, names of browsers and curl, bad input
 */
#include "proto/multipart.h"

#include <errno.h>

#include "lib/tap.h"

#include "base/banned.h"

static int on_part(void *ctx, const struct av_multipart_part *p)
{
	struct av_buf *log = ctx;
	av_buf_printf(log, "[%.*s", AV_STR_ARG(p->name));
	if (p->has_filename)
		av_buf_printf(log, "|%.*s", AV_STR_ARG(p->filename));
	if (p->content_type.n)
		av_buf_printf(log, "|%.*s", AV_STR_ARG(p->content_type));
	return av_buf_append_c(log, "]");
}

static int on_data(void *ctx, const uint8_t *p, size_t n)
{
	return n ? av_buf_append(ctx, p, n) : -EBADMSG;
}

static int on_part_end(void *ctx)
{
	return av_buf_append_c(ctx, "$");
}

static const struct av_multipart_events events = {on_part, on_data, on_part_end};

static void parse(struct av_str s, size_t cut, struct av_buf *log)
{
	AV_CLEANUP(av_multipart_freep) struct av_multipart *m = NULL;
	struct av_err err = {0};
	int r = av_multipart_new(AV_STR("multipart/form-data; boundary=B-x"), &m, &err);
	for (size_t i = 0; i < s.n && r == 0;) {
		size_t n = cut == SIZE_MAX ? 1 : i == 0 && cut ? cut : s.n - i;
		char *copy = malloc(n);
		memcpy(copy, s.p + i, n);
		r = av_multipart_feed(m, copy, n, &events, log, &err);
		free(copy);
		i += n;
	}
	if (r == 0)
		r = av_multipart_finish(m, &err);
	if (r < 0)
		av_buf_printf(log, "!%s", av_err_code(err.kind));
}

static void same(struct av_str s, struct av_str want, const char *what)
{
	size_t bad = 0;
	for (size_t cut = 0; cut <= s.n; cut++) {
		AV_CLEANUP(av_buf_clear) struct av_buf log = AV_BUF_INIT(65536);
		parse(s, cut == s.n ? SIZE_MAX : cut, &log);
		if (!av_str_eq(av_buf_str(&log), want) && bad++ == 0)
			diag("cut %zu: %.*s", cut, AV_STR_ARG(av_buf_str(&log)));
	}
	ok(bad == 0, "%s", what);
}

#define CD            "Content-Disposition: form-data; "
#define ONE(cd, body) "--B-x\r\n" CD cd "\r\n\r\n" body "\r\n--B-x--\r\n"

static void test_good(void)
{
	static const struct {
		struct av_str in, want;
		const char *what;
	} cases[] = {
#define OK(in, want, what) {AV_STR(in), AV_STR(want), what}
	    OK(ONE("name=\"f\"", "hello"), "[f]hello$", "one part"),
	    OK(ONE("name=f; filename=g", "x"), "[f|g]x$", "tokens"),
	    OK("--B-x\r\n" CD "name=\"a\"\r\n\r\n1\r\n--B-x\r\ncontent-disposition: Form-Data; "
	       "name=\"b\"; filename=\"d/e.txt\"\r\nContent-Type: text/plain\r\nX: y\r\n\r\n2\r\n"
	       "--B-x--",
	        "[a]1$[b|d/e.txt|text/plain]2$", "two parts, slashes kept"),
	    OK("preamble\r\n--B-y\r\n" ONE("name=a", "x") "epilogue\r\n--B-x\r\njunk", "[a]x$",
	        "preamble and epilogue"),
	    OK("--B-x \t\r\n" CD "name=a\r\n\r\nx\r\n--B-x--", "[a]x$", "padding"),
	    OK(ONE("name=a", ""), "[a]$", "empty part"),
	    OK("--B-x\r\n" CD "name=a\r\n\r\n--B-x--", "[a]$", "empty part without CR LF"),
	    OK("--B-x--", "", "no part"),
	    OK(ONE("name=a", "\r\n"), "[a]\r\n$", "body of CR LF"),
	    OK(ONE("name=a", "\r\r\n-\r\n--B-\r\n--B-y\r\n--\r"),
	        "[a]\r\r\n-\r\n--B-\r\n--B-y\r\n--\r$", "what only looks like a boundary"),
	    OK(ONE("name=a", "--B-x"), "[a]$!invalid_request", "boundary right behind the head"),
	    OK(ONE("name=a", "x--B-x"), "[a]x--B-x$", "boundary without CR LF"),
	    OK(ONE("name=a", "\n--B-x\n"), "[a]\n--B-x\n$", "boundary with bare LF"),
	    OK(ONE("name=a", "\0\1\xff\r"), "[a]\0\1\xff\r$", "binary"),
	    OK(ONE("name=\"a%22b\"; filename=\"c%0D%0a%41\"", "x"), "[a\"b|c\r\n%41]x$",
	        "escapes of browsers, and no others"),
	    OK(ONE("name=\"a\\\"b\\\\c\"; filename=\"C:\\dir\\f\"", "x"), "[a\"b\\c|C:\\dir\\f]x$",
	        "escapes of curl; a backslash alone is itself"),
	    OK(ONE("name=\"a;filename=b\"", "x"), "[a;filename=b]x$", "a parameter in quotes"),
	    OK(ONE("filename=\"\xc3\xa4.txt\"", "x"), "[|\xc3\xa4.txt]x$", "UTF-8, no name"),
	    OK(ONE("name=a; filename=\"\"", "x"), "[a|]x$", "empty file name"),
#undef OK
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++)
		same(cases[i].in, cases[i].want, cases[i].what);
}

static void test_bad(void)
{
	static const struct {
		struct av_str in, want;
		const char *what;
	} cases[] = {
#define BAD(in, before, what) {AV_STR(in), AV_STR(before "!invalid_request"), what}
	    BAD("", "", "nothing"),
	    BAD("junk", "", "no boundary"),
	    BAD("--B-xx\r\n", "", "longer boundary"),
	    BAD("--B-x\n" CD "name=a\n\nx", "", "bare LF behind the boundary"),
	    BAD("--B-x\r\n" CD "name=a\r\n\r\nx", "[a]x", "cut in the body"),
	    BAD("--B-x\r\n" CD "name=a\r\n\r\nx\r\n--B-x-", "[a]x$", "cut at the end"),
	    BAD("--B-x\r\n" CD "name=a\r\n", "", "cut in the head"),
	    BAD("--B-x\r\n" CD "name=a\n\r\n\r\nx\r\n--B-x--", "", "bare LF in the head"),
	    BAD("--B-x\r\n\r\nx\r\n--B-x--", "", "no Content-Disposition"),
	    BAD("--B-x\r\nContent-Disposition: file; name=a\r\n\r\nx\r\n--B-x--", "",
	        "no form-data"),
	    BAD("--B-x\r\n" CD "name=a\r\n" CD "name=b\r\n\r\nx\r\n--B-x--", "", "two of them"),
	    BAD("--B-x\r\n" CD "\r\n name=a\r\n\r\nx\r\n--B-x--", "", "folded header"),
	    BAD(ONE("name=\"a", "x"), "", "open quote"),
	    BAD(ONE("name=\"\xff\"", "x"), "", "not UTF-8"),
	    BAD("--B-x\r\n" CD "name=\"a\0b\"\r\n\r\nx\r\n--B-x--", "", "NUL"),
	    BAD("--B-x\r\nbad\r\n\r\nx\r\n--B-x--", "", "no colon"),
#undef BAD
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++)
		same(cases[i].in, cases[i].want, cases[i].what);
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(65536), log = AV_BUF_INIT(65536);
	av_buf_append_c(&b, "--B-x\r\n" CD "name=\"");
	for (int i = 0; i < AV_MULTIPART_HEAD_MAX; i++)
		av_buf_append_char(&b, 'a');
	parse(av_buf_str(&b), SIZE_MAX, &log);
	is_avstr(av_buf_str(&log), "!invalid_request", "endless head");
}

static void test_boundary(void)
{
	static const struct {
		const char *type;
		int result;
	} cases[] = {
	    {"multipart/form-data; boundary=x", 0},
	    {"Multipart/Form-Data;charset=utf-8; Boundary=\"a b\"", 0},
	    {"multipart/form-data", -EINVAL},
	    {"multipart/form-data; boundary=", -EINVAL},
	    {"multipart/form-data; boundary=\"x", -EINVAL},
	    {"multipart/form-data; boundary=\"x \"", -EINVAL},
	    {"multipart/mixed; boundary=x", -EINVAL},
	    {"text/plain", -EINVAL},
	    {"multipart/form-data; boundary="
	     "12345678901234567890123456789012345678901234567890123456789012345678901",
	        -EINVAL},
	    {"multipart/form-data; boundary="
	     "1234567890123456789012345678901234567890123456789012345678901234567890",
	        0},
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++) {
		AV_CLEANUP(av_multipart_freep) struct av_multipart *m = NULL;
		is_int(av_multipart_new(av_str_c(cases[i].type), &m, NULL), cases[i].result,
		    cases[i].type);
	}
}

int main(void)
{
	test_good();
	test_bad();
	test_boundary();
	return tap_done();
}
