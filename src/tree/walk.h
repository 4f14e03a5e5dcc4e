/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk.h - goes through a directory tree by descriptors, depth first, with bounded memory
 *
 * Theory of operation. Every directory on the way down is an open descriptor, so what a name means
 * is decided once: a directory that is renamed, or replaced by a link, while the walk is inside of
 * it changes nothing, and links are never followed. The agent runs it as the user (fsop_become).
 * Who walks may stop and go on at any entry, on any thread, one at a time; that is how long walks
 * are cut into slices.
 *
 * Memory: at most WALK_BYTES_MAX of names and WALK_DEPTH_MAX descriptors; beyond it -E2BIG.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/path.h"
#include "base/str.h"

#define WALK_DEPTH_MAX 512
#define WALK_BYTES_MAX ((size_t)32 * 1024 * 1024)
/* How long one slice of a walk may hold a thread of the pool. */
#define WALK_SLICE_NS 20000000LL

enum walk_order {
	WALK_SORTED, /* names of a directory by their bytes; all of them are held */
	WALK_AS_IS,  /* in the file system's order, a block at a time: entries may be removed */
};

struct walk_frame;

struct walk {
	struct walk_frame *frames; /* owned */
	size_t depth, cap;
	size_t bytes; /* of names, in all frames */
	enum walk_order order;
	char path[AV_PATH_MAX + 1]; /* below the root, of the entry last given out */
};

struct walk_item {
	bool leave;         /* the directory is done; its name is the one it was entered by */
	int dirfd;          /* of the directory that holds the entry; the walk's */
	const char *name;   /* both until the next call */
	struct av_str path; /* below the root: "a/b" */
	unsigned char type; /* DT_*, a hint: DT_UNKNOWN, or no longer true */
	size_t depth;       /* 1 for what is in the root */
};

/* Begins in the directory root_fd, which is taken over on success and failure. -errno. */
int walk_open(struct walk *w, int root_fd, enum walk_order order) AV_MUST_CHECK;
void walk_close(struct walk *w); /* a struct of zeros is fine */
/* The root's descriptor; the walk's. */
int walk_root(const struct walk *w);
/* The next entry: 1; 0 at the end; -errno of reading a directory, or -ENAMETOOLONG for a path that
 * no call could take. */
int walk_next(struct walk *w, struct walk_item *ret) AV_MUST_CHECK;
/* Goes into the entry last given out. -ENOTDIR (also for a link), -EACCES and so on: then it is
 * not entered, and the walk goes on behind it; -E2BIG. */
int walk_enter(struct walk *w) AV_MUST_CHECK;
/* The descriptor of the directory just entered; the walk's. */
int walk_top(const struct walk *w);
