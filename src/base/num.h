/* SPDX-License-Identifier: Apache-2.0 */
/*
 * num.h - the one bounded number parser, sizes and durations for people, byte order
 */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* Decimal digits only (a leading '-' for the signed one), the whole string, within [min, max].
 * -EINVAL when it is not a number, -ERANGE outside the bounds. */
int av_parse_u64(struct av_str s, uint64_t min, uint64_t max, uint64_t *ret);
int av_parse_i64(struct av_str s, int64_t min, int64_t max, int64_t *ret);
/* Hexadecimal without prefix. */
int av_parse_hex_u64(struct av_str s, uint64_t max, uint64_t *ret);
/* A positive decimal fraction such as "1.5", result in thousandths. */
int av_parse_milli(struct av_str s, uint64_t max, uint64_t *ret);
/* "512M", "1GiB", "2048" (bytes), "10k": powers of 1024. Errors name the text and the form. */
int av_parse_size(struct av_str s, uint64_t *ret_bytes, struct av_err *err);
/* "30", "30s", "5m", "2h", "1.5s", "250ms": to milliseconds. */
int av_parse_duration_ms(struct av_str s, uint64_t *ret_ms, struct av_err *err);
/* "1.5 MiB" for people; into buf, returns buf. */
const char *av_format_size(uint64_t bytes, char buf[static 24]);

static inline uint32_t av_get_be32(const void *p)
{
	const uint8_t *b = p;
	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}
static inline void av_put_be32(void *p, uint32_t v)
{
	uint8_t *b = p;
	b[0] = (uint8_t)(v >> 24);
	b[1] = (uint8_t)(v >> 16);
	b[2] = (uint8_t)(v >> 8);
	b[3] = (uint8_t)v;
}
