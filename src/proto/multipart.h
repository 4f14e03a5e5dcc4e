/* SPDX-License-Identifier: Apache-2.0 */
/*
 * multipart.h - multipart/form-data (RFC 7578, RFC 2046 section 5.1), as a stream
 *
 * Part bodies pass through unbuffered in the pieces in which they arrive; only what might be the
 * beginning of a boundary (at most its length + 4 bytes) and the headers of a part (bounded) are
 * held. The decoder is about 500 bytes; header memory exists only within a part's head.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

#define AV_MULTIPART_BOUNDARY_MAX 70   /* RFC 2046 */
#define AV_MULTIPART_HEAD_MAX     8192 /* bytes of the headers of one part */
#define AV_MULTIPART_PARTS_MAX    10000

struct av_multipart_part {
	struct av_str name; /* decoded; empty if absent (RFC 7578 demands it, some omit it) */
	struct av_str
	    filename; /* decoded: %22, %0D and %0A of browsers, \" of curl; slashes kept */
	bool has_filename;
	struct av_str content_type; /* as sent; empty if absent */
};
struct av_multipart_events {
	/* part and its strings are valid until return; UTF-8 checked, no NUL. */
	int (*on_part)(void *ctx, const struct av_multipart_part *part);
	int (*on_data)(void *ctx, const uint8_t *p, size_t n); /* n > 0, valid until return */
	int (*on_part_end)(void *ctx);
};

struct av_multipart;

/* Boundary from a Content-Type value ("multipart/form-data; boundary=..."). -ENOMEM, or
 * AV_ERR_INVALID when it is another type, or the boundary is absent, too long or ends in space. */
int av_multipart_new(
    struct av_str content_type, struct av_multipart **ret, struct av_err *err) AV_MUST_CHECK;
void av_multipart_free(struct av_multipart *m);
void av_multipart_freep(struct av_multipart **m);
/* Parses all n bytes. Events return 0, or -errno to fail with that (*err stays the event's to set).
 * AV_ERR_INVALID with what is wrong; after an error do not feed again. Bytes after the closing
 * boundary are ignored. */
int av_multipart_feed(struct av_multipart *m, const void *p, size_t n,
    const struct av_multipart_events *events, void *ctx, struct av_err *err) AV_MUST_CHECK;
/* At the end of the body: AV_ERR_INVALID if the closing boundary was not seen. */
int av_multipart_finish(const struct av_multipart *m, struct av_err *err) AV_MUST_CHECK;
