/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_foreground.c - the answer to a foreground exec, written in pieces
 */
#include "api/native/foreground.h"

#include <stdlib.h>

#include "base/codec.h"
#include "lib/tap.h"
#include "base/banned.h"

static struct foreground_answer a;
static json_t *answer;
static size_t pieces, longest;

static void begin(void)
{
	foreground_answer_clear(&a);
	a = (struct foreground_answer){.sandbox_id = "sbx", .cmd = "a\"b"};
	av_buf_init(&a.out.kept, FOREGROUND_OUTPUT_MAX);
	av_buf_init(&a.err.kept, FOREGROUND_OUTPUT_MAX);
}

static void add(struct foreground_output *o, const char *p, size_t n)
{
	(void)foreground_output_add(o, av_str_n(p, n), FOREGROUND_OUTPUT_MAX - o->kept.n);
}

static void add_c(struct foreground_output *o, const char *s)
{
	add(o, s, strlen(s));
}

static void finish(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(200 * 1024 * 1024);
	bool more = true;

	json_decref(answer);
	pieces = longest = 0;
	is_int(foreground_answer_begin(&a), 0, "it begins");
	while (more) {
		size_t before = out.n;

		more = api_pieces_next(&a.pieces, &out);
		longest = AV_MAX(longest, out.n - before);
		pieces++;
	}
	answer = json_loadb(av_buf_str(&out).p, out.n, JSON_ALLOW_NUL, NULL);
	ok(answer != NULL, "the pieces are one JSON document");
}

static const char *text(const char *field)
{
	return json_string_value(json_object_get(answer, field));
}

static void test_short(void)
{
	begin();
	add_c(&a.out, "gr\xc3\xbcn\n");
	a.end = (struct node_exec_end){.exited = true, .exit_code = 3};
	a.duration_ms = 12;
	finish();
	is_str(text("stdout"), "gr\xc3\xbcn\n", "stdout");
	is_str(text("stderr"), "", "stderr");
	is_str(text("encoding"), "utf-8", "encoding");
	is_str(text("cmd"), "a\"b", "cmd");
	is_int(json_integer_value(json_object_get(answer, "exit_code")), 3, "exit code");
	ok(!json_object_get(answer, "stdout_truncated") && !json_object_get(answer, "signal"),
	    "nothing that did not happen");
}

static void test_split_character(void)
{
	begin();
	add(&a.out, "\xe2", 1);
	add(&a.out, "\x9c", 1);
	add(&a.out, "\x93", 1);
	finish();
	is_str(text("stdout"), "\xe2\x9c\x93", "a character that came in three pieces");
	begin();
	add(&a.out, "a\xe2\x9c", 3);
	add_c(&a.err, "text");
	finish();
	is_str(text("encoding"), "base64", "a begun character at the end is not UTF-8");
	is_str(text("stdout"), "YeKc", "stdout in base64");
	is_str(text("stderr"), "dGV4dA==", "stderr too");
	begin();
	(void)foreground_output_add(&a.out, av_str_c("a\xe2\x9c\x93"), 3);
	finish();
	is_str(text("stdout"), "a", "a character cut by the limit is left out");
	ok(json_is_true(json_object_get(answer, "stdout_truncated")), "and the cut is said");
	is_int(
	    (long long)foreground_output_add(&a.out, av_str_c("b"), 100), 0, "nothing after a cut");
}

static void test_long(void)
{
	char *line = malloc(100001);
	size_t n = 0;

	/* Not a multiple of anything, so that pieces end inside characters. */
	begin();
	for (; n + 3 <= 100000; n += 3)
		memcpy(line + n, "\xe2\x9c\x93", 3);
	for (int i = 0; i < 20; i++)
		add(&a.out, line, n);
	finish();
	is_int((long long)json_string_length(json_object_get(answer, "stdout")), (long long)n * 20,
	    "all of it");
	is_str(text("encoding"), "utf-8", "as text");
	ok(pieces > 30 && longest < 400000, "in %zu pieces of at most %zu bytes", pieces, longest);
	begin();
	memset(line, 0, 100000);
	for (int i = 0; i < 20; i++)
		add(&a.out, line, 100000);
	finish();
	is_str(text("encoding"), "base64", "two million NULs are shorter in base64");
	is_int((long long)json_string_length(json_object_get(answer, "stdout")),
	    (long long)AV_BASE64_LEN(2000000), "all of it, pieces joined");
	ok(strspn(text("stdout"), "A") + 1 >= AV_BASE64_LEN(2000000) - 1, "no padding inside");
	begin();
	add(&a.out, line, 1000);
	finish();
	is_str(text("encoding"), "utf-8", "a thousand stay text");
	free(line);
}

static void test_timed_out(void)
{
	begin();
	add_c(&a.out, "so far");
	a.end = (struct node_exec_end){.timed_out = true, .signal = 9, .exit_code = 137};
	finish();
	is_str(json_string_value(json_object_get(json_object_get(answer, "error"), "code")),
	    "agent_error", "the code clients know");
	is_str(json_string_value(json_object_get(json_object_get(answer, "error"), "reason")),
	    "timeout", "the reason");
	is_str(text("stdout"), "so far", "what it printed");
}

int main(void)
{
	test_short();
	test_split_character();
	test_long();
	test_timed_out();
	json_decref(answer);
	foreground_answer_clear(&a);
	return tap_done();
}
