/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer.h - a tree of files that becomes part of a template: its checksum, and copying it
 *
 * Theory of operation. What is read here was made by a guest, as root of its sandbox: names, depth,
 * sizes, links and attributes are its choice. So a name is only ever opened below the descriptor of
 * its own directory, by openat2 without links, without magic links, without leaving the mount; a
 * path of two components is never given to the kernel. Only regular files and directories are
 * opened at all; pipes, sockets and whiteouts are looked at, never opened. Nothing grows with the
 * number of entries; depth is limited by LAYER_DEPTH_MAX, which no path name reaches.
 *
 * The checksum of an entry is BLAKE2b-256 over its metadata, name and content; that of a directory
 * takes in the sum (four 64-bit lanes) of its entries', so that the order in which a file system
 * lists them does not matter and no list is kept. It notices truncation, flipped bits, changed
 * owners, modes, times and links. It is no proof against somebody who can write as root: he can
 * write the record of the checksum as well.
 *
 * Blocking; for forked children. Functions return 0 or -errno.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"

#define LAYER_HASH_SIZE 32
#define LAYER_DEPTH_MAX 1024

struct layer_sum {
	uint8_t hash[LAYER_HASH_SIZE];
	uint64_t bytes;   /* allocated on disk, files only */
	uint64_t entries; /* below the top directory */
};

/* dirfd: the top directory, open for reading. -ELOOP: deeper than LAYER_DEPTH_MAX. */
int layer_sum(int dirfd, struct layer_sum *ret) AV_MUST_CHECK;

struct layer_copy_options {
	bool rootless;          /* one id: owners are not set */
	uid_t ids_from;         /* what is subtracted from every owner */
	uid_t ids_to;           /* what is added then */
	bool user_xattr;        /* overlay's marks are user.overlay.*, not trusted.overlay.* */
	int (*room)(void *ctx); /* asked again and again; not 0 ends the copy with that */
	void *ctx;
};

/* Copies what is in `from`, and its own metadata, into the empty directory `to`: hard links, holes,
 * whiteouts, opaque marks, capabilities and lists of access rights stay; blocks are shared where
 * the file system can. `links` is an empty directory on the same file system as `to`, for hard
 * links; what it holds afterwards is the caller's to remove. */
int layer_copy(int from, int to, int links, const struct layer_copy_options *opt) AV_MUST_CHECK;

/* The content of one file alone, as there; of opt only room and ctx. */
int layer_copy_content(
    int from, int to, off_t size, const struct layer_copy_options *opt) AV_MUST_CHECK;

/* Removes such a directory: links is open, and named LAYER_LINKS_DIR in dir. In it is a name for
 * each file that has several, and nothing else. */
int layer_remove_links(int dir, int links) AV_MUST_CHECK;
#define LAYER_LINKS_DIR "links"

/* openat2 of one name below dirfd as said above; flags as for open(2). Shared with snapshot.c. */
int layer_open(int dirfd, const char *name, int flags);
