/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_textcut.c - characters are never cut at borders of pieces, and no byte is lost or moved
 */
#include "base/textcut.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "lib/tap.h"

/* Every text here is cut at every place into two pieces, and into pieces of 1 to 5 bytes. */
static const char *const valid[] = {
    "",
    "plain",
    "a\xc3\xa4z",
    "\xe2\x9c\x93",
    "\xf0\x9f\x8e\x88\xf0\x9f\x8e\x88",
    "a\xc3\xa4\xe2\x9c\x93\xf0\x9f\x8e\x88\n",
    "\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf",
};
static const char *const invalid[] = {
    "\x80\x80\x80\x80\x80",               /* nothing but continuations */
    "\xe2\x9c",                           /* ends within a character */
    "\xe2\x9cz\xc3\xa4",                  /* broken off by another */
    "\xe2\x9c\xe2\x9c\x93",               /* broken off by a lead byte */
    "\xe0\x80\x80 \xed\xa0\x80 \xc0\xaf", /* overlong, surrogate */
    "\xf0\x9f\x8e\xf0\x9f\x8e\x88",
    "\xff\xfe\xf5\x80\x80\x80",
};

/* Feeds s in pieces (the first of `first` bytes, the others of `rest`); what came out is appended
 * to out. False when a piece ends within a character that s goes on with. */
static bool cut(const char *s, size_t first, size_t rest, bool is_valid, struct av_buf *out)
{
	struct av_textcut c = {0};
	size_t n = strlen(s), at = 0, want = first;
	bool good = true;
	while (at < n) {
		size_t piece = want < n - at ? want : n - at;
		/* From the heap, so that reading beyond the piece is noticed. */
		char *copy = malloc(piece);
		struct av_str head, body;
		memcpy(copy, s + at, piece);
		body = av_textcut_feed(&c, av_str_n(copy, piece), &head);
		av_buf_append_str(out, head);
		av_buf_append_str(out, body);
		good = good && (!is_valid || (av_utf8_valid(head) && av_utf8_valid(body)));
		free(copy);
		at += piece;
		want = rest;
	}
	struct av_str end = av_textcut_end(&c);
	good = good && (!is_valid || end.n == 0);
	av_buf_append_str(out, end);
	return good;
}

static void check(const char *s, bool is_valid)
{
	size_t n = strlen(s);
	bool good = true, same = true;
	for (size_t first = 1; first <= n + 1; first++)
		for (size_t rest = 1; rest <= 5; rest++) {
			AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1000);
			good = good && cut(s, first, rest, is_valid, &out);
			same = same && av_str_eq_c(av_buf_str(&out), s);
		}
	ok(good, "pieces of %s text of %zu bytes are whole", is_valid ? "valid" : "invalid", n);
	ok(same, "and together they are what went in");
}

static void test_boundaries(void)
{
	struct av_textcut c = {0};
	struct av_str head, body;
	body = av_textcut_feed(&c, AV_STR("ab\xe2\x9c"), &head);
	ok(av_str_eq_c(body, "ab") && head.n == 0, "the begun character is kept");
	body = av_textcut_feed(&c, AV_STR(""), &head);
	ok(body.n == 0 && head.n == 0, "nothing gives nothing");
	body = av_textcut_feed(&c, AV_STR("\x93yz\xf0"), &head);
	ok(av_str_eq_c(head, "\xe2\x9c\x93") && av_str_eq_c(body, "yz"),
	    "it comes with its end, and the next is kept");
	ok(av_str_eq_c(av_textcut_end(&c), "\xf0") && av_textcut_end(&c).n == 0,
	    "what never ended comes at the end, once");
}

int main(void)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(valid); i++)
		check(valid[i], true);
	for (size_t i = 0; i < AV_ARRAY_LEN(invalid); i++)
		check(invalid[i], false);
	test_boundaries();
	return tap_done();
}
