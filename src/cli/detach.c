/* SPDX-License-Identifier: Apache-2.0 */
/*
 * detach.c - a sequence of keys that is for us and not for the program in the sandbox
 */
#include "cli/detach.h"

#include <string.h>

#include "base/str.h"

#include "base/banned.h"

/* The byte of "x" or "ctrl-x"; -1: neither. */
static int parse_key(struct av_str s)
{
	char c;

	if (s.n == 1)
		return s.p[0] > ' ' && s.p[0] < 0x7f ? s.p[0] : -1;
	if (s.n != 6 || strncmp(s.p, "ctrl-", 5) != 0)
		return -1;
	c = s.p[5];
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 1;
	return c >= '@' && c <= '_' ? c - '@' : -1;
}

int detach_keys_parse(struct detach_keys *k, const char *text, struct av_err *err)
{
	struct av_str rest = av_str_c(text), word;
	bool more = true;

	*k = (struct detach_keys){0};
	if (strcmp(text, "none") == 0)
		return 0;
	while (more) {
		int key;

		more = av_str_cut(&rest, ',', &word);
		key = parse_key(word);
		if (key < 0 || k->n == DETACH_KEYS_MAX)
			return av_err_set(err, AV_ERR_INVALID,
			    "--detach-keys: '%.60s' is not up to %d keys with commas between them, "
			    "such as "
			    "ctrl-p,ctrl-q or ctrl-], nor none",
			    text, DETACH_KEYS_MAX);
		k->key[k->n++] = (unsigned char)key;
	}
	return 0;
}

/* The longest beginning of the sequence that what was held back and c end with; what is no part of
 * it goes on. */
static void step(struct detach_keys *k, unsigned char c, struct av_buf *out)
{
	unsigned char held[DETACH_KEYS_MAX + 1];
	size_t n = k->seen + 1;

	memcpy(held, k->key, k->seen);
	held[k->seen] = c;
	for (size_t from = 0; from < n; from++)
		if (memcmp(held + from, k->key, n - from) == 0) {
			(void)av_buf_append(out, held, from);
			k->seen = n - from;
			return;
		}
	(void)av_buf_append(out, held, n);
	k->seen = 0;
}

bool detach_keys_filter(struct detach_keys *k, const char *in, size_t n, struct av_buf *out)
{
	if (k->n == 0) {
		(void)av_buf_append(out, in, n);
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		step(k, (unsigned char)in[i], out);
		if (k->seen == k->n) {
			k->seen = 0;
			return true;
		}
	}
	return false;
}
