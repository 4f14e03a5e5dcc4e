/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec.h - hexadecimal, base64 (RFC 4648 section 4), percent-encoding (RFC 3986)
 */
#pragma once

#include "base/buf.h"
#include "base/str.h"

/* dst must hold 2 * n + 1 bytes. Lower case. */
void av_hex_encode(char *dst, const void *src, size_t n);
/* dst must hold s.n / 2 bytes; -EINVAL on odd length or a bad digit. */
int av_hex_decode(void *dst, struct av_str s);
/* Standard alphabet with padding: AV_BASE64_LEN(n) characters to dst, and no NUL. */
void av_base64_write(char *dst, const void *src, size_t n);
/* The same, appended to out. */
int av_base64_encode(struct av_buf *out, const void *src, size_t n);
/* Padding required, no white space, no stray bits: -EINVAL otherwise; nothing appended on error. */
int av_base64_decode(struct av_buf *out, struct av_str s);
#define AV_BASE64_LEN(n) (((n) + 2) / 3 * 4)
/* Decodes %XX once, '+' only when plus_is_space. -EINVAL on a bad escape. */
int av_percent_decode(struct av_buf *out, struct av_str s, bool plus_is_space);
/* Encodes everything but unreserved characters (and '/' when keep_slash). */
int av_percent_encode(struct av_buf *out, struct av_str s, bool keep_slash);
