/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec.c - hexadecimal, base64, percent-encoding
 */
#include "base/codec.h"

#include <errno.h>
#include <stdint.h>

#include "base/banned.h"

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

void av_hex_encode(char *dst, const void *src, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = src;
	for (size_t i = 0; i < n; i++) {
		*dst++ = digits[p[i] >> 4];
		*dst++ = digits[p[i] & 15];
	}
	*dst = '\0';
}

int av_hex_decode(void *dst, struct av_str s)
{
	unsigned char *out = dst;
	if (s.n % 2)
		return -EINVAL;
	for (size_t i = 0; i < s.n; i += 2) {
		int hi = hex_digit(s.p[i]), lo = hex_digit(s.p[i + 1]);
		if (hi < 0 || lo < 0)
			return -EINVAL;
		*out++ = (unsigned char)(hi << 4 | lo);
	}
	return 0;
}

static const char base64_alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void av_base64_write(char *dst, const void *src, size_t n)
{
	const unsigned char *p = src;
	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
		             (left > 2 ? p[i + 2] : 0);
		*dst++ = base64_alphabet[v >> 18];
		*dst++ = base64_alphabet[v >> 12 & 63];
		*dst++ = left > 1 ? base64_alphabet[v >> 6 & 63] : '=';
		*dst++ = left > 2 ? base64_alphabet[v & 63] : '=';
	}
}

int av_base64_encode(struct av_buf *out, const void *src, size_t n)
{
	char *dst;
	if (n > SIZE_MAX / 2)
		return -EMSGSIZE;
	int r = av_buf_reserve(out, AV_BASE64_LEN(n), &dst);
	if (r < 0)
		return r;
	av_base64_write(dst, src, n);
	av_buf_commit(out, AV_BASE64_LEN(n));
	return 0;
}

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int av_base64_decode(struct av_buf *out, struct av_str s)
{
	if (s.n % 4)
		return -EINVAL;
	if (s.n == 0)
		return 0;
	size_t pad = s.p[s.n - 1] != '=' ? 0 : s.p[s.n - 2] != '=' ? 1 : 2;
	size_t bytes = s.n / 4 * 3 - pad;
	char *start;
	int r = av_buf_reserve(out, s.n / 4 * 3, &start);
	if (r < 0)
		return r;
	char *dst = start;
	for (size_t i = 0; i < s.n; i += 4) {
		bool last = i + 4 == s.n;
		uint32_t v = 0;
		for (size_t k = 0; k < 4; k++) {
			int d = last && k >= 4 - pad ? 0 : base64_value(s.p[i + k]);
			if (d < 0)
				return -EINVAL;
			v = v << 6 | (uint32_t)d;
		}
		if (last && pad && (v & ((1u << (8 * pad)) - 1)))
			return -EINVAL;
		*dst++ = (char)(v >> 16);
		*dst++ = (char)(v >> 8);
		*dst++ = (char)v;
	}
	av_buf_commit(out, bytes);
	return 0;
}

int av_percent_decode(struct av_buf *out, struct av_str s, bool plus_is_space)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (c == '%') {
			int hi = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1;
			int lo = i + 2 < s.n ? hex_digit(s.p[i + 2]) : -1;
			if (hi < 0 || lo < 0)
				return -EINVAL;
			c = (char)(hi << 4 | lo);
			i += 2;
		} else if (c == '+' && plus_is_space) {
			c = ' ';
		}
		int r = av_buf_append_char(out, c);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool is_unreserved(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '.' || c == '_' || c == '~';
}

int av_percent_encode(struct av_buf *out, struct av_str s, bool keep_slash)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		int r = is_unreserved(c) || (keep_slash && c == '/')
		            ? av_buf_append_char(out, c)
		            : av_buf_printf(out, "%%%02X", (unsigned int)(unsigned char)c);
		if (r < 0)
			return r;
	}
	return 0;
}
