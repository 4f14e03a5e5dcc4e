/* SPDX-License-Identifier: Apache-2.0 */
/*
 * str.c - borrowed pieces of text or bytes
 */
#include "base/str.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/banned.h"

bool av_str_eq(struct av_str a, struct av_str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool av_str_eq_c(struct av_str a, const char *b)
{
	return av_str_eq(a, av_str_c(b));
}

static char fold(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool av_str_ieq(struct av_str a, struct av_str b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (fold(a.p[i]) != fold(b.p[i]))
			return false;
	return true;
}

bool av_str_starts(struct av_str s, struct av_str prefix)
{
	return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool av_str_ends(struct av_str s, struct av_str suffix)
{
	return s.n >= suffix.n &&
	       (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}

bool av_str_eq_secret(struct av_str a, struct av_str b)
{
	if (a.n != b.n)
		return false;
	unsigned int diff = 0;
	for (size_t i = 0; i < a.n; i++)
		diff |= (unsigned int)((unsigned char)a.p[i] ^ (unsigned char)b.p[i]);
	/* The compiler must not turn the loop into an early exit. */
	__asm__ volatile("" : "+r"(diff));
	return diff == 0;
}

ptrdiff_t av_str_chr(struct av_str s, char c)
{
	const char *hit = s.n ? memchr(s.p, c, s.n) : NULL;
	return hit ? hit - s.p : -1;
}

struct av_str av_str_trim(struct av_str s)
{
	while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.n--;
	}
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

bool av_str_cut(struct av_str *s, char sep, struct av_str *ret_head)
{
	ptrdiff_t at = av_str_chr(*s, sep);
	if (at < 0) {
		*ret_head = *s;
		*s = av_str_n(s->p + s->n, 0);
		return false;
	}
	*ret_head = av_str_n(s->p, (size_t)at);
	*s = av_str_n(s->p + at + 1, s->n - (size_t)at - 1);
	return true;
}

bool av_str_has_nul(struct av_str s)
{
	return av_str_chr(s, '\0') >= 0;
}

/* Length of the sequence that a lead byte begins, 0 if it cannot begin one. */
static size_t utf8_length(unsigned char lead)
{
	if (lead < 0x80)
		return 1;
	if (lead >= 0xc2 && lead <= 0xdf)
		return 2;
	if (lead >= 0xe0 && lead <= 0xef)
		return 3;
	if (lead >= 0xf0 && lead <= 0xf4)
		return 4;
	return 0;
}

/* Whether b may be the second byte after lead (RFC 3629 section 4: E0, ED, F0, F4 narrow it). */
static bool utf8_second_ok(unsigned char lead, unsigned char b)
{
	unsigned char lo = 0x80, hi = 0xbf;
	if (lead == 0xe0)
		lo = 0xa0;
	else if (lead == 0xed)
		hi = 0x9f;
	else if (lead == 0xf0)
		lo = 0x90;
	else if (lead == 0xf4)
		hi = 0x8f;
	return b >= lo && b <= hi;
}

size_t av_utf8_char(struct av_str s)
{
	const unsigned char *p = (const unsigned char *)s.p;
	size_t len = s.n ? utf8_length(p[0]) : 0;
	if (len == 0 || len > s.n)
		return 0;
	if (len > 1 && !utf8_second_ok(p[0], p[1]))
		return 0;
	for (size_t k = 2; k < len; k++)
		if ((p[k] & 0xc0) != 0x80)
			return 0;
	return len;
}

bool av_utf8_valid(struct av_str s)
{
	while (s.n) {
		uint64_t eight;
		size_t len;
		/* Mostly it is ASCII. */
		while (s.n >= sizeof(eight)) {
			memcpy(&eight, s.p, sizeof(eight));
			if (eight & 0x8080808080808080ULL)
				break;
			s.p += sizeof(eight);
			s.n -= sizeof(eight);
		}
		if (s.n == 0)
			break;
		len = av_utf8_char(s);
		if (len == 0)
			return false;
		s.p += len;
		s.n -= len;
	}
	return true;
}

size_t av_utf8_incomplete_tail(struct av_str s)
{
	const unsigned char *p = (const unsigned char *)s.p;
	for (size_t back = 1; back <= 3 && back <= s.n; back++) {
		unsigned char c = p[s.n - back];
		if ((c & 0xc0) == 0x80)
			continue;
		size_t len = utf8_length(c);
		if (len <= back)
			return 0;
		if (back > 1 && !utf8_second_ok(c, p[s.n - back + 1]))
			return 0;
		return back;
	}
	return 0;
}

char *av_str_dup(struct av_str s)
{
	char *copy = malloc(s.n + 1);
	if (!copy)
		return NULL;
	if (s.n)
		memcpy(copy, s.p, s.n);
	copy[s.n] = '\0';
	return copy;
}

void *av_mem_dup(const void *p, size_t n)
{
	void *copy = malloc(n ? n : 1);
	if (copy && n)
		memcpy(copy, p, n);
	return copy;
}

int av_str_copy(char *dst, size_t size, struct av_str s)
{
	if (s.n >= size)
		return -ENAMETOOLONG;
	if (av_str_has_nul(s))
		return -EINVAL;
	if (s.n)
		memcpy(dst, s.p, s.n);
	dst[s.n] = '\0';
	return 0;
}

void av_freep(void *pp)
{
	void **p = pp;
	free(*p);
	*p = NULL;
}
