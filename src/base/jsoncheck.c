/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jsoncheck.c - JSON text that goes on as it is: whether it is JSON, and as ASCII
 */
#include "base/jsontext.h"

#include <stdint.h>

#include "base/banned.h"

int av_json_write_ascii(struct av_buf *out, struct av_str s)
{
	const unsigned char *p = (const unsigned char *)s.p, *end = p + s.n;

	while (p < end) {
		const unsigned char *plain = p;
		uint32_t c;
		int more;

		for (uint64_t v; (size_t)(end - p) >= sizeof(v); p += sizeof(v)) {
			memcpy(&v, p, sizeof(v));
			if (v & 0x8080808080808080ULL)
				break;
		}
		while (p < end && *p < 0x80)
			p++;
		av_buf_append(out, plain, (size_t)(p - plain));
		if (p == end)
			break;
		more = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
		c = *p & (0x3fU >> more);
		for (p++; more > 0 && p < end; more--, p++)
			c = c << 6 | (*p & 0x3fU);
		if (c >= 0x10000)
			av_buf_printf(out, "\\u%04x\\u%04x", (unsigned int)(0xd7c0 + (c >> 10)),
			    (unsigned int)(0xdc00 + (c & 0x3ff)));
		else
			av_buf_printf(out, "\\u%04x", (unsigned int)c);
	}
	return av_buf_error(out);
}

/* --- checking --- */

struct checker {
	const char *p, *end;
};

static void skip_space(struct checker *c)
{
	while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r'))
		c->p++;
}

static bool skip_char(struct checker *c, char want)
{
	if (c->p == c->end || *c->p != want)
		return false;
	c->p++;
	return true;
}

static bool skip_word(struct checker *c, struct av_str word)
{
	if ((size_t)(c->end - c->p) < word.n || memcmp(c->p, word.p, word.n) != 0)
		return false;
	c->p += word.n;
	return true;
}

static bool skip_digits(struct checker *c)
{
	const char *begin = c->p;

	while (c->p < c->end && *c->p >= '0' && *c->p <= '9')
		c->p++;
	return c->p > begin;
}

static bool skip_number(struct checker *c)
{
	(void)skip_char(c, '-');
	if (!skip_char(c, '0') && !skip_digits(c))
		return false;
	if (skip_char(c, '.') && !skip_digits(c))
		return false;
	if (!skip_char(c, 'e') && !skip_char(c, 'E'))
		return true;
	if (!skip_char(c, '+'))
		(void)skip_char(c, '-');
	return skip_digits(c);
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Behind the backslash. */
static bool skip_escape(struct checker *c)
{
	char kind;

	if (c->p == c->end)
		return false;
	kind = *c->p++;
	if (kind != 'u')
		return kind && strchr("\"\\/bfnrt", kind);
	for (int i = 0; i < 4; i++)
		if (c->p == c->end || !is_hex(*c->p++))
			return false;
	return true;
}

/* Steps over bytes that mean nothing in a string, eight at a time (zero bytes are found as in
 * Hacker's Delight, section 6-1). */
static void skip_plain(struct checker *c)
{
	const uint64_t ones = 0x0101010101010101ULL, high = 0x8080808080808080ULL;
	uint64_t v, quote, backslash;

	for (; (size_t)(c->end - c->p) >= sizeof(v); c->p += sizeof(v)) {
		memcpy(&v, c->p, sizeof(v));
		quote = v ^ ones * '"';
		backslash = v ^ ones * '\\';
		if (((v - ones * 0x20) & ~v & high) | ((quote - ones) & ~quote & high) |
		    ((backslash - ones) & ~backslash & high))
			return;
	}
}

/* UTF-8 is checked for the whole text before. */
static bool skip_string(struct checker *c)
{
	if (!skip_char(c, '"'))
		return false;
	for (skip_plain(c); c->p < c->end;) {
		unsigned char ch = (unsigned char)*c->p++;

		if (ch == '"')
			return true;
		if (ch < 0x20 || (ch == '\\' && !skip_escape(c)))
			return false;
		if (ch == '\\')
			skip_plain(c);
	}
	return false;
}

static bool skip_key(struct checker *c)
{
	skip_space(c);
	if (!skip_string(c))
		return false;
	skip_space(c);
	return skip_char(c, ':');
}

static bool skip_scalar(struct checker *c)
{
	switch (*c->p) {
	case '"':
		return skip_string(c);
	case 't':
		return skip_word(c, AV_STR("true"));
	case 'f':
		return skip_word(c, AV_STR("false"));
	case 'n':
		return skip_word(c, AV_STR("null"));
	default:
		return skip_number(c);
	}
}

/* Behind a value: closes what is open and takes the comma. False if the text is wrong. */
static bool after_value(struct checker *c, const char *open, size_t *depth)
{
	for (;;) {
		skip_space(c);
		if (*depth == 0)
			return c->p == c->end;
		if (skip_char(c, ','))
			return open[*depth - 1] == ']' || skip_key(c);
		if (!skip_char(c, open[*depth - 1]))
			return false;
		--*depth;
	}
}

bool av_json_valid(struct av_str s)
{
	struct checker c = {s.p, s.p + s.n};
	char open[AV_JSON_TEXT_DEPTH]; /* the closing brackets to come */
	size_t depth = 0;

	if (!av_utf8_valid(s))
		return false;
	do {
		bool object;

		skip_space(&c);
		if (c.p == c.end)
			return false;
		object = *c.p == '{';
		if (object || *c.p == '[') {
			if (depth == sizeof(open))
				return false;
			c.p++;
			open[depth++] = object ? '}' : ']';
			skip_space(&c);
			if (c.p < c.end && *c.p == open[depth - 1]) {
				c.p++;
				depth--;
			} else if (object && !skip_key(&c)) {
				return false;
			} else {
				continue;
			}
		} else if (!skip_scalar(&c)) {
			return false;
		}
		if (!after_value(&c, open, &depth))
			return false;
	} while (c.p < c.end || depth);
	return true;
}
