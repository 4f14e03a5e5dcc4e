/* SPDX-License-Identifier: Apache-2.0 */
/*
 * str.h - borrowed pieces of text or bytes, and checks on them
 *
 * `struct av_str` looks and never owns: valid as long as the memory it points into. Not
 * NUL-terminated; may contain NUL.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/macros.h"

struct av_str {
	const char *p;
	size_t n;
};

/* From a string literal or from a C string (NULL gives the empty string). */
#define AV_STR(lit) ((struct av_str){.p = "" lit, .n = sizeof(lit) - 1})
static inline struct av_str av_str_c(const char *s)
{
	return (struct av_str){.p = s ? s : "", .n = s ? strlen(s) : 0};
}
static inline struct av_str av_str_n(const char *p, size_t n)
{
	return (struct av_str){.p = p, .n = n};
}

/* printf("%.*s", AV_STR_ARG(s)); the length is capped at INT_MAX. */
#define AV_STR_ARG(s) (int)((s).n > 0x7fffffff ? 0x7fffffff : (s).n), (s).p

bool av_str_eq(struct av_str a, struct av_str b);
bool av_str_eq_c(struct av_str a, const char *b);
bool av_str_ieq(struct av_str a, struct av_str b); /* ASCII case folded */
bool av_str_starts(struct av_str s, struct av_str prefix);
bool av_str_ends(struct av_str s, struct av_str suffix);
/* Constant time in the bytes; the lengths are not secret. */
bool av_str_eq_secret(struct av_str a, struct av_str b);
/* Index of the first c, or -1. */
ptrdiff_t av_str_chr(struct av_str s, char c);
struct av_str av_str_trim(struct av_str s); /* spaces and tabs at both ends */
/* Cuts at the first sep: *ret_head is what stood before it; s becomes what follows. False (and the
 * whole of s in *ret_head, s empty) when there is no sep. */
bool av_str_cut(struct av_str *s, char sep, struct av_str *ret_head);
bool av_str_has_nul(struct av_str s);
/* RFC 3629: no overlongs, no surrogates, nothing above U+10FFFF. */
bool av_utf8_valid(struct av_str s);
/* Bytes of the character that s begins with; 0 when it is none, not whole, or s is empty. */
size_t av_utf8_char(struct av_str s);
/* How many bytes at the end of s begin a multi-byte character that is not complete yet (0 to 3). */
size_t av_utf8_incomplete_tail(struct av_str s);
/* A heap copy with NUL appended; NULL when out of memory. The caller frees. */
char *av_str_dup(struct av_str s) AV_MUST_CHECK;
/* The bytes alone. NULL without memory. */
void *av_mem_dup(const void *p, size_t n) AV_MUST_CHECK;
/* Copies into dst (size bytes with the NUL). -ENAMETOOLONG if it does not fit, -EINVAL on NUL. */
int av_str_copy(char *dst, size_t size, struct av_str s) AV_MUST_CHECK;

/* AV_CLEANUP(av_freep) char *x = NULL; */
void av_freep(void *pp);
