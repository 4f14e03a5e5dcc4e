/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar.h - tar archives as a stream: headers out, entries in; no I/O
 *
 * Written: POSIX.1-2001, that is ustar with a pax header where a field does not fit, which GNU tar,
 * bsdtar, busybox and Python read. Read: that, GNU long names and base-256 numbers, and the
 * archives of old (v7). Refused with words: sparse files, several volumes, compressed archives,
 * links with content, types nobody knows. What a name means is the caller's business: it comes as
 * it stands in the archive, hostile.
 *
 * The decoder holds one block and, while it reads one, a pax header or long name of at most
 * AV_TAR_META_MAX bytes, whatever an archive says.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/path.h"
#include "base/str.h"

#define AV_TAR_BLOCK    512
#define AV_TAR_META_MAX ((size_t)128 * 1024)

enum av_tar_type {
	AV_TAR_FILE,
	AV_TAR_DIR,
	AV_TAR_SYMLINK,
	AV_TAR_HARDLINK,
	AV_TAR_OTHER, /* device or FIFO */
};

struct av_tar_entry {
	enum av_tar_type type;
	const char *path; /* 1 to AV_PATH_MAX bytes; a directory may end with '/' */
	const char *link; /* of links: 1 to AV_PATH_MAX bytes; else "" */
	uint64_t size;    /* bytes of content that follow; only files have some */
	uint32_t mode;    /* 07777 */
	int64_t mtime;    /* seconds since 1970 */
	/* Written only. */
	uint32_t uid, gid;
	const char *user, *group; /* may be NULL */
};

/* Appends the header of an entry (its content and av_tar_padding() zeros follow). Type OTHER cannot
 * be written: -EINVAL. The buffer's error. */
int av_tar_write(struct av_buf *out, const struct av_tar_entry *e) AV_MUST_CHECK;
/* Zeros that follow size bytes of content. */
static inline size_t av_tar_padding(uint64_t size)
{
	return (size_t)(-size % AV_TAR_BLOCK);
}
/* Appends the end of the archive. The buffer's error. */
int av_tar_write_end(struct av_buf *out) AV_MUST_CHECK;

struct av_tar_events {
	/* All return 0, or -errno with the cause in the caller's hands: feeding stops with it. */
	int (*on_entry)(void *ctx, const struct av_tar_entry *e); /* valid until return */
	int (*on_data)(void *ctx, const void *p, size_t n);
	int (*on_entry_end)(void *ctx);
};

struct av_tar_dec {
	/* private */
	int state;
	uint8_t block[AV_TAR_BLOCK];
	size_t block_n;
	uint64_t left; /* bytes of content or meta data still to come */
	size_t skip;   /* bytes of padding still to come */
	struct av_buf meta;
	char meta_type;
	char path[AV_PATH_MAX + 1],
	    link[AV_PATH_MAX + 1]; /* of GNU and pax headers; "" when none */
	bool has_size, has_mtime;
	uint64_t size;
	int64_t mtime;
	uint64_t entries; /* so far, for messages */
};

void av_tar_dec_init(struct av_tar_dec *d);
void av_tar_dec_clear(struct av_tar_dec *d);
/* Feeds n bytes; all are consumed. What follows the archive's end is ignored. 0; -EINVAL with *err
 * (AV_ERR_INVALID or AV_ERR_UNSUPPORTED), -ENOMEM with *err, or an event's error (*err untouched).
 */
int av_tar_dec_feed(struct av_tar_dec *d, const void *p, size_t n,
    const struct av_tar_events *events, void *ctx, struct av_err *err) AV_MUST_CHECK;
/* No more bytes come. -EINVAL with *err when the archive is cut off. */
int av_tar_dec_finish(const struct av_tar_dec *d, struct av_err *err) AV_MUST_CHECK;
