/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk.c - goes through a directory tree by descriptors, depth first, with bounded memory
 */
#include "tree/walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

#include "base/banned.h"

#define BLOCK_BYTES ((size_t)32 * 1024) /* of one getdents64 */
#define FRAMES_STEP 16

/* Linux' own layout (getdents64(2)). */
struct linux_dirent64 {
	uint64_t d_ino;
	int64_t d_off;
	unsigned short d_reclen;
	unsigned char d_type;
	char d_name[];
};

struct walk_frame {
	int fd;
	char *names;     /* owned: type, name, NUL; one after the other */
	uint32_t *index; /* owned: where each begins, in the order they are given out */
	size_t names_n, names_cap, index_n, index_cap, at;
	size_t path_n; /* length of the walk's path for this directory */
	bool read_all;
};

static size_t frame_bytes(const struct walk_frame *f)
{
	return f->names_cap + f->index_cap * sizeof(*f->index);
}

static void frame_clear(struct walk *w, struct walk_frame *f)
{
	w->bytes -= frame_bytes(f);
	av_close_fd(&f->fd);
	free(f->names);
	free(f->index);
}

/* Room for one more name of n bytes with its NUL. */
static int frame_grow(struct walk *w, struct walk_frame *f, size_t n)
{
	size_t names_cap = f->names_cap, index_cap = f->index_cap;
	void *p;

	if (f->names_n + n + 1 > names_cap)
		names_cap = names_cap ? names_cap * 2 : 1024;
	if (f->index_n == index_cap)
		index_cap = index_cap ? index_cap * 2 : 64;
	if (names_cap > UINT32_MAX ||
	    w->bytes - frame_bytes(f) + names_cap + index_cap * sizeof(*f->index) > WALK_BYTES_MAX)
		return -E2BIG;
	w->bytes -= frame_bytes(f);
	p = names_cap == f->names_cap ? f->names : realloc(f->names, names_cap);
	if (p) {
		f->names = p;
		f->names_cap = names_cap;
		p = index_cap == f->index_cap ? f->index
		                              : realloc(f->index, index_cap * sizeof(*f->index));
	}
	if (p) {
		f->index = p;
		f->index_cap = index_cap;
	}
	w->bytes += frame_bytes(f);
	return p ? 0 : -ENOMEM;
}

static int frame_add(struct walk *w, struct walk_frame *f, const struct linux_dirent64 *d)
{
	size_t n = strlen(d->d_name) + 1;
	int r;

	if (n == 1 || n > AV_NAME_MAX + 1 || av_str_eq_c(av_str_n(d->d_name, n - 1), ".") ||
	    av_str_eq_c(av_str_n(d->d_name, n - 1), ".."))
		return 0;
	r = frame_grow(w, f, n);
	if (r < 0)
		return r;
	f->index[f->index_n++] = (uint32_t)f->names_n;
	f->names[f->names_n++] = (char)d->d_type;
	memcpy(f->names + f->names_n, d->d_name, n);
	f->names_n += n;
	return 0;
}

static int compare_names(const void *a, const void *b, void *names)
{
	const char *p = names;

	return strcmp(p + *(const uint32_t *)a + 1, p + *(const uint32_t *)b + 1);
}

/* One block of names. */
static int frame_read(struct walk *w, struct walk_frame *f)
{
	_Alignas(struct linux_dirent64) char block[BLOCK_BYTES];
	long n = syscall(SYS_getdents64, f->fd, block, sizeof(block));

	if (n < 0)
		return -errno;
	f->read_all = n == 0;
	for (long at = 0; at < n;) {
		const struct linux_dirent64 *d = (const void *)(block + at);
		int r = frame_add(w, f, d);

		if (r < 0)
			return r;
		at += d->d_reclen;
	}
	return 0;
}

/* Refills a frame whose names are all given out. */
static int frame_fill(struct walk *w, struct walk_frame *f)
{
	int r = 0;

	f->names_n = f->index_n = f->at = 0;
	do {
		r = frame_read(w, f);
	} while (r == 0 && !f->read_all && (w->order == WALK_SORTED || f->index_n == 0));
	if (r == 0 && w->order == WALK_SORTED && f->index_n)
		qsort_r(f->index, f->index_n, sizeof(*f->index), compare_names, f->names);
	return r;
}

static int push(struct walk *w, int fd, size_t path_n)
{
	struct walk_frame *p;

	if (w->depth == w->cap) {
		if (w->cap >= WALK_DEPTH_MAX)
			return -E2BIG;
		p = realloc(w->frames, (w->cap + FRAMES_STEP) * sizeof(*p));
		if (!p)
			return -ENOMEM;
		w->frames = p;
		w->cap += FRAMES_STEP;
	}
	w->frames[w->depth++] = (struct walk_frame){.fd = fd, .path_n = path_n};
	return 0;
}

int walk_open(struct walk *w, int root_fd, enum walk_order order)
{
	int r;

	*w = (struct walk){.order = order};
	r = push(w, root_fd, 0);
	if (r < 0)
		av_close_fd(&root_fd);
	return r;
}

void walk_close(struct walk *w)
{
	while (w->depth)
		frame_clear(w, &w->frames[--w->depth]);
	free(w->frames);
	*w = (struct walk){0};
}

int walk_root(const struct walk *w)
{
	return w->frames[0].fd;
}

int walk_top(const struct walk *w)
{
	return w->frames[w->depth - 1].fd;
}

static void fill_item(const struct walk *w, bool leave, const struct walk_frame *dir, size_t depth,
    struct walk_item *ret)
{
	const char *entry = dir->names + dir->index[dir->at - 1];

	*ret = (struct walk_item){
	    .leave = leave,
	    .dirfd = dir->fd,
	    .name = entry + 1,
	    .path = av_str_c(w->path),
	    .type = (unsigned char)entry[0],
	    .depth = depth,
	};
}

/* The directory on top is done: 1 and its LEAVE, or 0 for the root. */
static int leave(struct walk *w, struct walk_item *ret)
{
	struct walk_frame *f = &w->frames[w->depth - 1];

	if (w->depth == 1)
		return 0;
	w->path[f->path_n] = '\0';
	frame_clear(w, f);
	w->depth--;
	fill_item(w, true, f - 1, w->depth, ret);
	return 1;
}

int walk_next(struct walk *w, struct walk_item *ret)
{
	struct walk_frame *f = &w->frames[w->depth - 1];
	const char *name;
	size_t n;
	int r;

	if (f->at == f->index_n && !f->read_all) {
		r = frame_fill(w, f);
		if (r < 0)
			return r;
	}
	if (f->at == f->index_n)
		return leave(w, ret);
	name = f->names + f->index[f->at++] + 1;
	n = f->path_n ? f->path_n + 1 : 0;
	if (n + strlen(name) > AV_PATH_MAX)
		return -ENAMETOOLONG;
	if (n)
		w->path[n - 1] = '/';
	memcpy(w->path + n, name, strlen(name) + 1);
	fill_item(w, false, f, w->depth, ret);
	return 1;
}

int walk_enter(struct walk *w)
{
	struct walk_frame *f = &w->frames[w->depth - 1];
	const char *name = f->names + f->index[f->at - 1] + 1;
	int fd = openat(
	    f->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int r;

	if (fd < 0)
		return errno == ELOOP ? -ENOTDIR : -errno;
	r = push(w, fd, strlen(w->path));
	if (r < 0)
		av_close_fd(&fd);
	return r;
}
