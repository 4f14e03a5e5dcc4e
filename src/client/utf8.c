/* SPDX-License-Identifier: Apache-2.0 */
/*
 * utf8.c - text whose characters are cut between two reads (see aviary/process.h)
 */
#include <aviary/process.h>

#include <string.h>

#include "base/banned.h"

/* How many bytes the character that begins with b has; 0: none begins so. */
static unsigned length_of(unsigned char b)
{
	if (b < 0x80)
		return 1;
	if (b >= 0xc2 && b <= 0xdf)
		return 2;
	if (b >= 0xe0 && b <= 0xef)
		return 3;
	return b >= 0xf0 && b <= 0xf4 ? 4 : 0;
}

/* Whether b may follow the n bytes at p (Unicode, table 3-7). */
static int may_follow(const unsigned char *p, unsigned n, unsigned char b)
{
	if (n == 1) {
		switch (p[0]) {
		case 0xe0:
			return b >= 0xa0 && b <= 0xbf;
		case 0xed:
			return b >= 0x80 && b <= 0x9f;
		case 0xf0:
			return b >= 0x90 && b <= 0xbf;
		case 0xf4:
			return b >= 0x80 && b <= 0x8f;
		default:
			break;
		}
	}
	return b >= 0x80 && b <= 0xbf;
}

static size_t put_replacement(char *out)
{
	memcpy(out, "\xef\xbf\xbd", 3);
	return 3;
}

/* One byte more. */
static size_t put(aviary_utf8 *u, unsigned char b, char *out)
{
	size_t written = 0;

	if (u->n && !may_follow(u->kept, u->n, b)) {
		written = put_replacement(out);
		u->n = 0;
	}
	if (u->n == 0 && length_of(b) == 0)
		return written + put_replacement(out + written);
	u->kept[u->n++] = b;
	if (u->n < length_of(u->kept[0]))
		return written;
	memcpy(out + written, u->kept, u->n);
	written += u->n;
	u->n = 0;
	return written;
}

size_t aviary_utf8_decode(aviary_utf8 *u, const void *data, size_t n, char *out)
{
	const unsigned char *p = data;
	size_t written = 0, i = 0;

	while (i < n) {
		size_t plain = i;

		/* Most text is plain: as it is, in one piece. */
		while (u->n == 0 && plain < n && p[plain] < 0x80)
			plain++;
		if (plain > i) {
			memcpy(out + written, p + i, plain - i);
			written += plain - i;
			i = plain;
			continue;
		}
		written += put(u, p[i++], out + written);
	}
	return written;
}

size_t aviary_utf8_finish(aviary_utf8 *u, char *out)
{
	size_t written = u->n ? put_replacement(out) : 0;

	u->n = 0;
	return written;
}
