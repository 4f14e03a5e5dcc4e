/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_cli_input.c - keys that detach, and what is a whole statement of Python
 */
#include <string.h>

#include "base/buf.h"
#include "cli/detach.h"
#include "cli/pyinput.h"
#include "lib/tap.h"

/* What of the input reaches the program; "" also when it detached, which *ret_detached says. The
 * input comes in pieces of n bytes. */
static const char *filter(
    const char *keys, const char *in, size_t n, struct av_buf *out, bool *ret_detached)
{
	struct detach_keys k;
	struct av_err err = {0};

	av_buf_reset(out);
	*ret_detached = false;
	if (detach_keys_parse(&k, keys, &err) < 0)
		return "wrong keys";
	for (size_t i = 0, all = strlen(in); i < all && !*ret_detached; i += n)
		*ret_detached = detach_keys_filter(&k, in + i, i + n > all ? all - i : n, out);
	return av_buf_cstr(out);
}

static void test_detach(void)
{
	static const struct {
		const char *keys, *in, *out;
		bool detaches;
	} cases[] = {
	    {"ctrl-p,ctrl-q", "ls\r", "ls\r", false},
	    {"ctrl-p,ctrl-q", "ls\x10\x11 never", "ls", true},
	    {"ctrl-p,ctrl-q", "\x10x\x11y", "\x10x\x11y", false},
	    {"ctrl-p,ctrl-q", "\x10\x10\x11", "\x10", true}, /* the first one was none of ours */
	    {"ctrl-p,ctrl-q", "\x10", "", false},            /* held back */
	    {"a,a,b", "aaab", "a", true},
	    {"a,b,a,c", "ababac", "ab", true},
	    {"ctrl-]", "x\x1d", "x", true},
	    {"none", "\x10\x11", "\x10\x11", false},
	};
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(100);
	struct detach_keys k;
	struct av_err err = {0};
	bool detached;

	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++)
		for (size_t n = 1; n < 4; n++) {
			const char *got = filter(cases[i].keys, cases[i].in, n, &out, &detached);
			ok(strcmp(got, cases[i].out) == 0 && detached == cases[i].detaches,
			    "keys %s, case %zu, in pieces of %zu", cases[i].keys, i, n);
		}
	static const char *const wrong[] = {"", "ctrl-", "ctrl-1", "ctrl-pp", "alt-x", "a,", ",a",
	    "a,b,c,d,e,f,g,h,i", "\x01", "None"};
	for (size_t i = 0; i < AV_ARRAY_LEN(wrong); i++)
		ok(detach_keys_parse(&k, wrong[i], &err) < 0, "refused: %s", wrong[i]);
}

static void test_statements(void)
{
	static const char *const whole[] = {
	    "1 + 1\n",
	    "x = {1: 'a:'}\n",
	    "print('it''s (')\n",
	    "f(1,\n2)\n",
	    "'''a\n(\n'''\n",
	    "if x:\n  y\n\n",
	    "@d\ndef f(): pass\n\n",
	    "x = 1 # (:\n",
	    "'unterminated\n",
	    ")\n",
	    "s = \"\\\"(\"\n",
	    "x = 1 + \\\n2\n",
	};
	static const char *const parts[] = {
	    "f(\n",
	    "[1,\n2\n",
	    "'''\n",
	    "if x:\n",
	    "if x:\n  y\n",
	    "@d\n",
	    "x = \\\n",
	    "for i in x: # all\n",
	    "class A: # b\n  def f(self):\n",
	    "x = '''a\n'b'\n",
	    "d = {\n\n",
	};

	for (size_t i = 0; i < AV_ARRAY_LEN(whole); i++)
		ok(pyinput_is_whole(whole[i]), "whole statement %zu", i);
	for (size_t i = 0; i < AV_ARRAY_LEN(parts); i++)
		ok(!pyinput_is_whole(parts[i]), "unfinished statement %zu", i);
}

int main(void)
{
	test_detach();
	test_statements();
	return tap_done();
}
