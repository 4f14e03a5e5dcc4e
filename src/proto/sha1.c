/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sha1.c - SHA-1 (RFC 3174), only for the WebSocket handshake
 */
#include "proto/sha1.h"

#include "base/num.h"

#include "base/banned.h"

static uint32_t rotate(uint32_t x, unsigned n)
{
	return x << n | x >> (32 - n);
}

static void sha1_block(uint32_t h[static 5], const uint8_t *p)
{
	uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
	for (size_t i = 0; i < 16; i++)
		w[i] = av_get_be32(p + 4 * i);
	for (unsigned i = 16; i < 80; i++)
		w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
	for (unsigned i = 0; i < 80; i++) {
		uint32_t f, k;
		if (i < 20) {
			f = (b & c) | (~b & d);
			k = 0x5a827999;
		} else if (i < 40) {
			f = b ^ c ^ d;
			k = 0x6ed9eba1;
		} else if (i < 60) {
			f = (b & c) | (b & d) | (c & d);
			k = 0x8f1bbcdc;
		} else {
			f = b ^ c ^ d;
			k = 0xca62c1d6;
		}
		uint32_t t = rotate(a, 5) + f + e + k + w[i];
		e = d;
		d = c;
		c = rotate(b, 30);
		b = a;
		a = t;
	}
	h[0] += a;
	h[1] += b;
	h[2] += c;
	h[3] += d;
	h[4] += e;
}

void av_sha1(uint8_t dst[static 20], struct av_str s)
{
	uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
	uint8_t last[128] = {0};
	size_t whole = s.n / 64 * 64, rest = s.n - whole;
	size_t padded = rest < 56 ? 64 : 128;
	for (size_t i = 0; i < whole; i += 64)
		sha1_block(h, (const uint8_t *)s.p + i);
	if (rest)
		memcpy(last, s.p + whole, rest);
	last[rest] = 0x80;
	av_put_be32(last + padded - 4, (uint32_t)s.n * 8);
	for (size_t i = 0; i < padded; i += 64)
		sha1_block(h, last + i);
	for (size_t i = 0; i < 5; i++)
		av_put_be32(dst + 4 * i, h[i]);
}
