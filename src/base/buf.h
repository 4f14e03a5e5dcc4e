/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf.h - a growing byte buffer with a ceiling named at birth
 *
 * Errors are sticky: after the first -ENOMEM or -EMSGSIZE (ceiling) every append does nothing and
 * returns the same, so a writer may check once at the end with av_buf_error().
 * Consumed bytes at the front are kept until compaction, so that consuming is O(1) amortised.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

struct av_buf {
	char *p; /* owned; the live bytes are p + off .. p + off + n */
	size_t off;
	size_t n; /* live bytes */
	size_t cap;
	size_t max; /* ceiling for n; must be > 0 */
	int error;  /* 0 or the sticky -errno */
};

#define AV_BUF_INIT(max_bytes) ((struct av_buf){.max = (max_bytes)})

void av_buf_init(struct av_buf *b, size_t max_bytes);
void av_buf_clear(struct av_buf *b); /* frees; the buffer may be used again, same ceiling */
void av_buf_reset(struct av_buf *b); /* empties, keeps memory, clears the sticky error */
static inline int av_buf_error(const struct av_buf *b)
{
	return b->error;
}
static inline struct av_str av_buf_str(const struct av_buf *b)
{
	return (struct av_str){.p = b->n ? b->p + b->off : "", .n = b->n};
}
int av_buf_append(struct av_buf *b, const void *p, size_t n);
int av_buf_append_str(struct av_buf *b, struct av_str s);
int av_buf_append_c(struct av_buf *b, const char *s);
int av_buf_append_char(struct av_buf *b, char c);
int av_buf_printf(struct av_buf *b, const char *fmt, ...) AV_PRINTF(2, 3);
/* Room for n more bytes; *ret_p points at it. Follow with av_buf_commit of what was written. */
int av_buf_reserve(struct av_buf *b, size_t n, char **ret_p) AV_MUST_CHECK;
void av_buf_commit(struct av_buf *b, size_t n);
/* Drops n bytes at the front; n <= b->n. */
void av_buf_consume(struct av_buf *b, size_t n);
/* The bytes with a NUL after them (not counted), or NULL on a sticky error. Valid until the next
 * change of the buffer. */
const char *av_buf_cstr(struct av_buf *b);
