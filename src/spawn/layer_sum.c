/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_sum.c - the checksum of a tree
 *
 * For each entry BLAKE2b-256 over: the record below, the name, the attributes' sum, and the hash of
 * the body: a file's blocks of 64 KiB that are not all zero, each after its offset; a link's text;
 * a directory's sum of entries.
 */
#include "spawn/layer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sodium/crypto_generichash_blake2b.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "spawn/sys.h"
#include "base/banned.h"

#define XATTR_LIST_MAX  65536
#define XATTR_VALUE_MAX 65536
#define READ_SIZE       (64 * 1024) /* part of the checksum's definition */

typedef crypto_generichash_blake2b_state hash_state;

struct record {
	uint32_t mode, uid, gid, major, minor, name_len;
	uint64_t size; /* of a file or a link; else 0 */
	int64_t mtime_s;
	uint32_t mtime_ns, reserved;
};
static_assert(sizeof(struct record) == 48, "no padding");

struct sum {
	uint64_t lane[LAYER_HASH_SIZE / 8];
};

/* On the heap: nothing large may lie in the frames of a recursion that a guest drives. */
struct walk {
	struct layer_sum total;
	unsigned int depth;
	char buf[READ_SIZE];
	char list[XATTR_LIST_MAX];
	char value[XATTR_VALUE_MAX];
	char link[AV_PATH_MAX + 1];
};

int layer_open(int dirfd, const char *name, int flags)
{
	struct open_how how = {
	    .flags = (uint64_t)(flags | O_NOFOLLOW | O_CLOEXEC),
	    .resolve =
	        RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};
	int fd = (int)syscall(SYS_openat2, dirfd, name, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

static void hash_begin(hash_state *h)
{
	crypto_generichash_blake2b_init(h, NULL, 0, LAYER_HASH_SIZE);
}

static void hash_add(hash_state *h, const void *p, size_t n)
{
	crypto_generichash_blake2b_update(h, p, n);
}

static void add_to_sum(struct sum *s, hash_state *h)
{
	struct sum one;
	crypto_generichash_blake2b_final(h, (uint8_t *)one.lane, LAYER_HASH_SIZE);
	for (size_t i = 0; i < AV_ARRAY_LEN(s->lane); i++)
		s->lane[i] += one.lane[i];
}

/* Attributes of an open file or directory. */
static int sum_xattrs(struct walk *w, int fd, struct sum *ret)
{
	ssize_t n = flistxattr(fd, w->list, sizeof(w->list));
	if (n < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	for (ssize_t at = 0; at < n;) {
		const char *name = w->list + at;
		size_t len = strnlen(name, (size_t)(n - at));
		hash_state h;
		ssize_t v = fgetxattr(fd, name, w->value, sizeof(w->value));
		at += (ssize_t)len + 1;
		if (v < 0 && errno != ENODATA)
			return -errno;
		hash_begin(&h);
		hash_add(&h, name, len + 1);
		hash_add(&h, w->value, v < 0 ? 0 : (size_t)v);
		add_to_sum(ret, &h);
	}
	return 0;
}

static bool is_zero(const char *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* The number of bytes at offset, as many as there should be. */
static int read_block(int fd, char *buf, size_t want, uint64_t offset)
{
	for (size_t got = 0; got < want;) {
		ssize_t n = pread(fd, buf + got, want - got, (off_t)(offset + got));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG; /* shorter than it says */
		got += (size_t)n;
	}
	return 0;
}

/* Blocks of zeros are left out, whether they are holes or not: a guest's sparse file may have more
 * of them than anybody wants to read. */
static int hash_file(struct walk *w, int fd, uint64_t size, hash_state *h)
{
	for (uint64_t at = 0; at < size;) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		at = (uint64_t)data / READ_SIZE * READ_SIZE;
		if (at >= size)
			break;
		size_t n = (size_t)AV_MIN(size - at, (uint64_t)READ_SIZE);
		int r = read_block(fd, w->buf, n, at);
		if (r < 0)
			return r;
		if (!is_zero(w->buf, n)) {
			hash_add(h, &at, sizeof(at));
			hash_add(h, w->buf, n);
		}
		at += READ_SIZE;
	}
	return 0;
}

static int hash_dir(struct walk *w, int fd, hash_state *h);

static int hash_body(struct walk *w, int dirfd, const char *name, const struct stat *st,
    struct sum *xattrs, hash_state *body)
{
	if (S_ISLNK(st->st_mode)) {
		ssize_t n = readlinkat(dirfd, name, w->link, sizeof(w->link));
		if (n < 0)
			return -errno;
		hash_add(body, w->link, (size_t)n);
		return 0;
	}
	if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
		return 0;
	AV_CLEANUP(av_closep)
	int fd = layer_open(
	    dirfd, name, O_RDONLY | O_NONBLOCK | (S_ISDIR(st->st_mode) ? O_DIRECTORY : 0));
	struct stat now;
	if (fd < 0)
		return fd;
	if (fstat(fd, &now) < 0)
		return -errno;
	if (now.st_ino != st->st_ino || now.st_mode != st->st_mode)
		return -EBADMSG; /* it changes while it is looked at */
	int r = sum_xattrs(w, fd, xattrs);
	if (r < 0)
		return r;
	return S_ISDIR(st->st_mode) ? hash_dir(w, fd, body)
	                            : hash_file(w, fd, (uint64_t)st->st_size, body);
}

static void hash_head(const struct stat *st, const char *name, hash_state *h)
{
	bool sized = S_ISREG(st->st_mode) || S_ISLNK(st->st_mode);
	struct record r = {
	    .mode = st->st_mode,
	    .uid = st->st_uid,
	    .gid = st->st_gid,
	    .major = major(st->st_rdev),
	    .minor = minor(st->st_rdev),
	    .name_len = (uint32_t)strlen(name),
	    .size = sized ? (uint64_t)st->st_size : 0,
	    .mtime_s = st->st_mtim.tv_sec,
	    .mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
	};
	hash_add(h, &r, sizeof(r));
	hash_add(h, name, r.name_len);
}

static int hash_entry(struct walk *w, int dirfd, const char *name, struct sum *ret)
{
	struct stat st;
	struct sum xattrs = {0};
	hash_state h, body;
	uint8_t digest[LAYER_HASH_SIZE];
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	hash_begin(&body);
	int r = hash_body(w, dirfd, name, &st, &xattrs, &body);
	if (r < 0)
		return r;
	crypto_generichash_blake2b_final(&body, digest, sizeof(digest));
	hash_begin(&h);
	hash_head(&st, name, &h);
	hash_add(&h, &xattrs, sizeof(xattrs));
	hash_add(&h, digest, sizeof(digest));
	add_to_sum(ret, &h);
	w->total.entries++;
	if (S_ISREG(st.st_mode))
		w->total.bytes += (uint64_t)st.st_blocks * 512;
	return 0;
}

static int hash_dir(struct walk *w, int fd, hash_state *h)
{
	struct sum children = {0};
	struct dirent *e;
	int r = 0, copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (w->depth == LAYER_DEPTH_MAX) {
		av_close_fd(&copy);
		return -ELOOP;
	}
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir) {
		r = -errno;
		av_close_fd(&copy);
		return r;
	}
	w->depth++;
	rewinddir(dir);
	while (r == 0 && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = hash_entry(w, fd, e->d_name, &children);
	w->depth--;
	closedir(dir);
	hash_add(h, &children, sizeof(children));
	return r;
}

static int sum_top(struct walk *w, int dirfd)
{
	struct sum xattrs = {0};
	struct stat st;
	hash_state h;
	if (fstat(dirfd, &st) < 0)
		return -errno;
	hash_begin(&h);
	hash_head(&st, "", &h);
	int r = sum_xattrs(w, dirfd, &xattrs);
	if (r < 0)
		return r;
	hash_add(&h, &xattrs, sizeof(xattrs));
	r = hash_dir(w, dirfd, &h);
	crypto_generichash_blake2b_final(&h, w->total.hash, sizeof(w->total.hash));
	return r;
}

int layer_sum(int dirfd, struct layer_sum *ret)
{
	struct walk *w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	int r = sum_top(w, dirfd);
	if (r == 0)
		*ret = w->total;
	free(w);
	return r;
}
