/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_kernel_wire.c - messages of kernels' drivers, and JSON text that goes on as it is
 */
#include <errno.h>
#include <stdio.h>

#include "base/json.h"
#include "base/num.h"
#include "lib/tap.h"
#include "proto/kernel.h"

static int parse(uint8_t type, const void *p, size_t n, struct av_kernel_message *m)
{
	return av_kernel_parse(type, av_str_n(p, n), m);
}

static void test_shapes(void)
{
	static const char good[] = "\x01\x00\x0atext/plain\0\0\0\1"
	                           "2\x02\x10"
	                           "application/json\0\0\0\2{}";
	static const char document[] = "\0\2\1j\0\0\0\1}";
	static const char mime[] = "\0\0\1 \0\0\0\0";
	static const char kind[] = "\0\4\1j\0\0\0\0";
	static const char texts[] = "\0\0\0\1n\0\0\0\0";
	struct av_kernel_message m;
	struct av_kernel_item item;
	struct av_str rest;

	ok(parse('D', good, sizeof(good) - 1, &m) == 0 && m.flags == AV_KERNEL_MAIN, "a display");
	rest = m.rest;
	ok(av_kernel_next_item(&rest, &item) && av_str_eq_c(item.mime, "text/plain") &&
	        av_str_eq_c(item.data, "2"),
	    "its first item");
	ok(av_kernel_next_item(&rest, &item) && item.kind == AV_KERNEL_ITEM_DOCUMENT &&
	        !av_kernel_next_item(&rest, &item),
	    "its second and last");
	for (size_t n = 1; n < sizeof(good) - 1; n++)
		if (n != 1 && n != 18 && parse('D', good, n, &m) == 0)
			ok(0, "a display cut at %zu", n);
	is_int(parse('D', document, sizeof(document) - 1, &m), -EPROTO, "JSON that is none");
	is_int(parse('D', mime, sizeof(mime) - 1, &m), -EPROTO, "a MIME type with a space");
	is_int(parse('C', "\5", 1, &m), 0, "a clear that waits");
	is_int(parse('C', "\2", 1, &m), -EPROTO, "a clear with an unknown flag");
	is_int(parse('D', "\10", 1, &m), -EPROTO, "a display with one");
	is_int(parse('D', kind, sizeof(kind) - 1, &m), -EPROTO, "an unknown kind");
	is_int(parse('A', "\0\0\0\7", 4, &m), 0, "accepted");
	is_int(m.count, 7, "and its number");
	is_int(parse('A', "\0\0\0\7\0", 5, &m), -EPROTO, "with a byte too many");
	is_int(parse('F', "\2\0\0\0\7", 5, &m), -EPROTO, "finished, with a flag too many");
	is_int(parse('E', texts, sizeof(texts) - 1, &m), 0, "an error");
	is_int(parse('E', texts, 5, &m), -EPROTO, "an error without a value");
	is_int(parse('X', "", 0, &m), -EPROTO, "what only the agent says");
	is_int(parse(0, "", 0, &m), -EPROTO, "no type");
}

static int count_payload(void *ctx, uint8_t type, struct av_str payload)
{
	size_t *n = ctx;

	(void)type;
	*n += 1 + payload.n;
	return payload.n == 3 ? 1 : 0;
}

static void test_stream(void)
{
	static const char bytes[] = "\0\0\0\2Rab\0\0\0\0R\0\0\0\3Rabc\0\0\0\1";
	struct av_kernel_dec d;
	size_t n = 0, total = sizeof(bytes) - 1;
	uint8_t huge[AV_KERNEL_HEADER] = {0, 0, 0, 0, 'D'};

	av_kernel_dec_init(&d);
	is_int(av_kernel_dec_feed(&d, bytes, total, count_payload, &n), 20,
	    "a decoder stops where it is told to");
	is_int((intmax_t)n, 3 + 1 + 4, "after three payloads");
	av_kernel_dec_clear(&d);
	n = 0;
	for (size_t i = 0; i < total; i++)
		if (av_kernel_dec_feed(&d, bytes + i, 1, count_payload, &n) != 1)
			ok(0, "byte %zu", i);
	is_int((intmax_t)n, 3 + 1 + 4, "the same byte by byte");
	av_kernel_dec_clear(&d);
	av_put_be32(huge, AV_KERNEL_MESSAGE_MAX + 1);
	is_int(av_kernel_dec_feed(&d, huge, sizeof(huge), count_payload, &n), -EMSGSIZE,
	    "a length over the ceiling");
	av_kernel_dec_clear(&d);
}

static void test_write(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1024);

	ok(av_kernel_write_execute(&out, 5, AV_STR("1+1"), AV_STR("A\0b\0")) == 0 &&
	        av_str_eq(av_buf_str(&out), AV_STR("\0\0\0\x0cX\5\0\0\0\3"
	                                           "1+1A\0b\0")),
	    "an execution");
	av_buf_reset(&out);
	ok(av_kernel_write_setup(&out, AV_STR("/x"), AV_STR("")) == 0 &&
	        av_str_eq(av_buf_str(&out), AV_STR("\0\0\0\3S/x\0")),
	    "a setup");
	is_int(av_kernel_write_execute(&out, 0, av_str_n("", AV_KERNEL_MESSAGE_MAX), AV_STR("")),
	    -EMSGSIZE, "code that is too long");
}

static void test_json(void)
{
	static const char *const good[] = {"1", "-0.5e+10", " [ ] ", "{}", "\"\"",
	    "[1,[2,{\"a\":[]}],3]", "{\"a\":{\"b\":null},\"c\":true}", "\"\\u00e9\\n\"",
	    "\"\xc3\xa9\"", "0", "[[],[]]"};
	static const char *const bad[] = {"", " ", "01", "-", "1.", "1e", "[1,]", "[", "]",
	    "{\"a\"}", "{\"a\":}", "{a:1}", "[1 2]", "1 2", "\"", "\"\\x\"", "\"\\u12g4\"",
	    "\"\n\"", "\"\xff\"", "nul", "{\"a\":1,}", "[}", "{]", "NaN", "{,}", "\"\\"};
	char deep[2 * AV_JSON_TEXT_DEPTH + 2];
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1024);

	for (size_t i = 0; i < AV_ARRAY_LEN(good); i++)
		ok(av_json_valid(av_str_c(good[i])), "JSON: %s", good[i]);
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		ok(!av_json_valid(av_str_c(bad[i])), "bad JSON %zu", i);
	for (size_t i = 0; i < AV_JSON_TEXT_DEPTH; i++) {
		deep[i] = '[';
		deep[i + AV_JSON_TEXT_DEPTH] = ']';
	}
	ok(av_json_valid(av_str_n(deep, (size_t)2 * AV_JSON_TEXT_DEPTH)), "as deep as allowed");
	memset(deep, '[', sizeof(deep));
	ok(!av_json_valid(av_str_n(deep, sizeof(deep))), "deeper");
	ok(av_json_write_ascii(&out, AV_STR("\"a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"")) == 0,
	    "as ASCII");
	is_avstr(av_buf_str(&out), "\"a\\u00e9\\u20ac\\ud83d\\ude00\"", "every character escaped");
}

int main(void)
{
	test_shapes();
	test_stream();
	test_write();
	test_json();
	return tap_done();
}
