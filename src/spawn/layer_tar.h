/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_tar.h - layers of templates as members of a tar archive, out and in
 *
 * Theory of operation. The archive is POSIX.1-2001 (pax), so that tar(1) lists it and unpacks it;
 * sparse files are GNU's format 1.0, attributes are SCHILY.xattr records. Three things are ours:
 * a directory is written twice, empty of metadata before its entries and with it after them
 * (AVIARY.end), so that a reader keeps no list; a file with several names comes as a member
 * links/<inode> before the first of them, and every name is a link to that; a socket is an empty
 * file with AVIARY.type=socket. What is in a tree was made by a guest: names, depth, sizes and
 * attributes are its choice, and are read as layer.h says.
 *
 * The reader takes what the writer writes and nothing else: each member lies directly in the
 * directory that is open, no name has a second component, links point to links/ only, no device
 * but overlay's whiteout is made. So a foreign or torn archive makes no file outside of the
 * directory it is unpacked in.
 *
 * Ceilings: TAR_META_MAX bytes of pax records for one member, TAR_EXTENTS_MAX pieces of data in a
 * sparse file, TAR_LINKED_MAX files with several names in a layer; the writer refuses what has
 * more with -E2BIG. Blocking; for processes of their own. Functions return 0 or -errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"
#include "base/macros.h"
#include "spawn/layer.h"

#define TAR_BLOCK       512
#define TAR_META_MAX    ((size_t)2 * 1024 * 1024)
#define TAR_EXTENTS_MAX ((size_t)1 << 20)
#define TAR_LINKED_MAX  ((size_t)1 << 20)

/* ---- writing: layer_tar.c ---- */

struct tar_out;

/* fd: borrowed, blocking. NULL: no memory. */
struct tar_out *tar_out_new(int fd);
void tar_out_free(struct tar_out *t);
/* A plain file of root's, mode 0600. */
int tar_out_file(struct tar_out *t, const char *path, const void *bytes, size_t size) AV_MUST_CHECK;
/* The tree below dirfd with its own metadata as member `path`, and what has several names in it as
 * `links`/<inode>; both without '/' at the end. */
int tar_out_tree(struct tar_out *t, int dirfd, const char *path, const char *links) AV_MUST_CHECK;
/* What waits goes out. */
int tar_out_flush(struct tar_out *t) AV_MUST_CHECK;

/* ---- reading: layer_untar.c ---- */

struct tar_in;

struct tar_member {
	char type; /* '0' file, '1' link, '2' symbolic link, '3' device, '5' directory, '6' FIFO */
	bool end;  /* of a directory: its metadata */
	bool socket; /* with '0' */
	bool sparse; /* with '0': content begins with a map */
	uint32_t mode, uid, gid;
	uint32_t major, minor;
	uint64_t size;      /* of the content in the archive */
	uint64_t real_size; /* of the file */
	struct timespec mtime;
	const char *path, *link; /* borrowed until the next member; without '/' at the end */
	const char *xattrs;      /* borrowed: name NUL, value's size (size_t), value; again … */
	size_t xattrs_size;
};

/* fd: borrowed. NULL: no memory. */
struct tar_in *tar_in_new(int fd);
void tar_in_free(struct tar_in *t);
/* The next member; what was not read of the one before is skipped. 1; 0: the archive's end;
 * -EBADMSG with *err: it is torn or was not written by Aviary; or read(2)'s error. */
int tar_in_next(struct tar_in *t, struct tar_member *ret, struct av_err *err) AV_MUST_CHECK;
/* Up to size bytes of the member's content; 0 at its end. */
ssize_t tar_in_read(struct tar_in *t, void *p, size_t size) AV_MUST_CHECK;
/* What is wrong with an archive that something else than was expected came out of: -EBADMSG, with
 * *err saying that it ends too early where it did, else `what`. */
int tar_in_bad(const struct tar_in *t, const char *what, struct av_err *err);
/* BLAKE2b-256 of all blocks before the member that came last. */
void tar_in_hash_before(const struct tar_in *t, uint8_t ret[static LAYER_HASH_SIZE]);

/* A directory that members of one template are unpacked into. */
struct untar;
/* top: borrowed, empty. Members begin with `prefix`, which is borrowed. NULL: no memory. */
struct untar *untar_new(int top, const char *prefix, bool rootless);
void untar_free(struct untar *u);
/* Makes what the member is, reading its content. -EBADMSG, or an error of a system call, with
 * *err. */
int untar_member(struct untar *u, struct tar_in *t, const struct tar_member *m,
    struct av_err *err) AV_MUST_CHECK;
/* After the last one: every directory was ended. Removes links/. */
int untar_finish(struct untar *u, struct av_err *err) AV_MUST_CHECK;
