/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ids.c - random identifiers
 */
#include "base/ids.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/banned.h"

void av_random(void *p, size_t n)
{
	char *dst = p;
	while (n) {
		ssize_t r = getrandom(dst, n, 0);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			abort();
		dst += r;
		n -= (size_t)r;
	}
}

void av_id_make(char dst[static AV_ID_SIZE], const char prefix[static 2])
{
	static const char alphabet[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	dst[0] = prefix[0];
	dst[1] = prefix[1];
	/* 36 does not divide 256: bytes of 252 and above are drawn again, so that no character is
	 * likelier than another. 25 characters carry 129 bits. */
	uint8_t pool[64];
	size_t left = 0;
	for (size_t i = 2; i < AV_ID_LEN;) {
		if (left == 0) {
			av_random(pool, sizeof(pool));
			left = sizeof(pool);
		}
		uint8_t b = pool[--left];
		if (b < 252)
			dst[i++] = alphabet[b % 36];
	}
	dst[AV_ID_LEN] = '\0';
}

bool av_id_valid(struct av_str s, const char prefix[static 2])
{
	if (s.n != AV_ID_LEN || s.p[0] != prefix[0] || s.p[1] != prefix[1])
		return false;
	for (size_t i = 2; i < s.n; i++) {
		char c = s.p[i];
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z')))
			return false;
	}
	return true;
}
