/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jsontext.c - writing JSON strings without a JSON library
 *
 * Output of programs goes through here by the gigabyte, so what needs no escape is found and copied
 * sixteen bytes at a time.
 */
#include "base/jsontext.h"

#include <stdint.h>

#include "base/banned.h"

#define BLOCK      1024 /* input bytes for which room is made at once */
#define ESCAPE_MAX 6    /* output bytes of one input byte: \u001f */

/* Sixteen bytes; compilers make the processor's own vectors of it. */
typedef uint8_t vec __attribute__((vector_size(16)));
typedef uint64_t vec64 __attribute__((vector_size(16)));

/* Which byte is the first that is not ASCII or needs an escape; their number when none is. */
static size_t first_special(vec v)
{
	vec64 hit = (vec64)((v < 0x20) | (v >= 0x7f) | (v == '"') | (v == '\\'));
	static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte is the lowest");
	if (hit[0])
		return (size_t)__builtin_ctzll(hit[0]) / 8;
	return hit[1] ? 8 + (size_t)__builtin_ctzll(hit[1]) / 8 : sizeof(v);
}

static bool is_special(unsigned char c)
{
	return c < 0x20 || c >= 0x7f || c == '"' || c == '\\';
}

/* Copies what needs no escape; how many bytes. To has room for all of s. */
static size_t copy_plain(char *to, struct av_str s)
{
	size_t n = 0;
	for (vec v; n + sizeof(v) <= s.n;) {
		memcpy(&v, s.p + n, sizeof(v));
		memcpy(to + n, &v, sizeof(v));
		size_t k = first_special(v);
		n += k;
		if (k < sizeof(v))
			return n;
	}
	for (; n < s.n && !is_special((unsigned char)s.p[n]); n++)
		to[n] = s.p[n];
	return n;
}

/* One ASCII character; how many bytes were written. */
static size_t put_escape(char *to, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	char letter = c == '"' || c == '\\' ? (char)c : c == '\n' ? 'n' : c == '\t' ? 't' : 'r';
	to[0] = '\\';
	if (c == '"' || c == '\\' || c == '\n' || c == '\t' || c == '\r') {
		to[1] = letter;
		return 2;
	}
	memcpy(to + 1, "u00", 3);
	to[4] = hex[c >> 4];
	to[5] = hex[c & 15];
	return ESCAPE_MAX;
}

/* Writes n bytes of *s, which moves on; to has room for all of them escaped and three more, as a
 * character that begins within n may end behind. Returns the end of what was written. */
static char *put_block(char *to, struct av_str *s, size_t n_in)
{
	const char *end = s->p + n_in;
	while (s->p < end) {
		size_t n = copy_plain(to, av_str_n(s->p, (size_t)(end - s->p)));
		to += n;
		*s = av_str_n(s->p + n, s->n - n);
		if (s->p >= end)
			break;
		n = 1;
		if ((unsigned char)s->p[0] < 0x80) {
			to += put_escape(to, (unsigned char)s->p[0]);
		} else if ((n = av_utf8_char(*s)) > 0) {
			memcpy(to, s->p, n);
			to += n;
		} else {
			memcpy(to, "\xef\xbf\xbd", 3);
			to += 3;
			n = 1;
		}
		*s = av_str_n(s->p + n, s->n - n);
	}
	return to;
}

int av_json_write_part(struct av_buf *out, struct av_str s)
{
	while (s.n && !out->error) {
		size_t n = AV_MIN(s.n, (size_t)BLOCK), room = n * ESCAPE_MAX + 3;
		char one[ESCAPE_MAX + 3], *to = NULL;
		if (room > out->max - out->n) {
			/* Near the ceiling: no more than is needed. */
			to = put_block(one, &s, 1);
			av_buf_append(out, one, (size_t)(to - one));
		} else if (av_buf_reserve(out, room, &to) == 0) {
			av_buf_commit(out, (size_t)(put_block(to, &s, n) - to));
		}
	}
	return out->error;
}

int av_json_write_str(struct av_buf *out, struct av_str s)
{
	av_buf_append_char(out, '"');
	av_json_write_part(out, s);
	return av_buf_append_char(out, '"');
}
