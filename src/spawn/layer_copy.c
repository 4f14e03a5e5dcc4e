/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_copy.c - copying a tree that a guest made
 */
#include "spawn/layer.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/banned.h"

#define XATTR_LIST_MAX  65536
#define XATTR_VALUE_MAX 65536
#define CHUNK           (8 * AV_MIB)

/* On the heap, as struct walk of layer_sum.c. */
struct copy {
	const struct layer_copy_options *opt;
	int links;
	unsigned int depth;
	char list[XATTR_LIST_MAX];
	char value[XATTR_VALUE_MAX];
	char link[AV_PATH_MAX + 1];
};

static int copy_dir(struct copy *c, int from, int to);

/* ---- metadata ---- */

/* Of overlay's own marks those that say what is seen; the others are about one mount's past. */
static bool wanted_xattr(const struct copy *c, const char *name)
{
	static const char *const marks[] = {"opaque", "redirect", "whiteout", "whiteouts"};
	const char *prefix = c->opt->user_xattr ? "user.overlay." : "trusted.overlay.";
	size_t n = strlen(prefix);
	if (strncmp(name, prefix, n) == 0) {
		for (size_t i = 0; i < AV_ARRAY_LEN(marks); i++)
			if (strcmp(name + n, marks[i]) == 0)
				return true;
		return false;
	}
	return strncmp(name, "user.", 5) == 0 || strcmp(name, "security.capability") == 0 ||
	       strncmp(name, "system.posix_acl_", 17) == 0;
}

static uid_t translate(const struct copy *c, uid_t id)
{
	return id - c->opt->ids_from + c->opt->ids_to;
}

/* Capabilities that were given inside of a user namespace name its root by the host's id
 * (capabilities(7), version 3): they count where that is root, as an owner does. */
static void translate_capability(struct copy *c, size_t n)
{
	struct vfs_ns_cap_data cap;
	if (c->opt->rootless || n != XATTR_CAPS_SZ_3)
		return;
	memcpy(&cap, c->value, sizeof(cap));
	if ((le32toh(cap.magic_etc) & VFS_CAP_REVISION_MASK) != VFS_CAP_REVISION_3)
		return;
	cap.rootid = htole32(translate(c, le32toh(cap.rootid)));
	memcpy(c->value, &cap, sizeof(cap));
}

static int copy_xattrs(struct copy *c, int from, int to)
{
	ssize_t n = flistxattr(from, c->list, sizeof(c->list));
	if (n < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	for (ssize_t at = 0; at < n;) {
		const char *name = c->list + at;
		at += (ssize_t)strnlen(name, (size_t)(n - at)) + 1;
		if (!wanted_xattr(c, name))
			continue;
		ssize_t v = fgetxattr(from, name, c->value, sizeof(c->value));
		if (v < 0)
			return -errno;
		if (strcmp(name, "security.capability") == 0)
			translate_capability(c, (size_t)v);
		/* Lists of access rights are lost on a file system without them; nothing else is.
		 */
		if (fsetxattr(to, name, c->value, (size_t)v, 0) < 0 &&
		    !(errno == EOPNOTSUPP && strncmp(name, "system.", 7) == 0))
			return -errno;
	}
	return 0;
}

/* Owner before mode and attributes: a change of owner takes set-uid bits and capabilities away. */
static int finish_fd(struct copy *c, int from, int to, const struct stat *st)
{
	if (!c->opt->rootless && fchown(to, translate(c, st->st_uid), translate(c, st->st_gid)) < 0)
		return -errno;
	if (fchmod(to, st->st_mode & 07777) < 0)
		return -errno;
	int r = copy_xattrs(c, from, to);
	const struct timespec times[] = {st->st_atim, st->st_mtim};
	return r < 0 ? r : futimens(to, times) < 0 ? -errno : 0;
}

static int finish_name(const struct copy *c, int to, const char *name, const struct stat *st)
{
	if (!c->opt->rootless && fchownat(to, name, translate(c, st->st_uid),
	                             translate(c, st->st_gid), AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	/* The name was made here a moment ago, in a directory that nobody else reaches. */
	if (!S_ISLNK(st->st_mode) && fchmodat(to, name, st->st_mode & 07777, 0) < 0)
		return -errno;
	const struct timespec times[] = {st->st_atim, st->st_mtim};
	return utimensat(to, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* ---- content ---- */

/* By hand, where the kernel does not copy between the two file systems. */
static ssize_t copy_bytes(struct copy *c, int from, off_t *in, int to, off_t *out, size_t want)
{
	ssize_t n = pread(from, c->value, AV_MIN(want, sizeof(c->value)), *in);
	if (n <= 0)
		return n;
	for (ssize_t done = 0; done < n;) {
		ssize_t put = pwrite(to, c->value + done, (size_t)(n - done), *out + done);
		if (put < 0 && errno != EINTR)
			return -1;
		done += AV_MAX(put, (ssize_t)0);
	}
	*in += n;
	*out += n;
	return n;
}

static bool cannot_copy_here(int error)
{
	return error == EXDEV || error == EOPNOTSUPP || error == EINVAL || error == ENOSYS;
}

static int copy_range(struct copy *c, int from, int to, off_t at, off_t end)
{
	off_t in = at, out = at;
	while (in < end) {
		int r = c->opt->room(c->opt->ctx);
		if (r != 0)
			return r;
		size_t want = (size_t)AV_MIN(end - in, (off_t)CHUNK);
		ssize_t n = copy_file_range(from, &in, to, &out, want, 0);
		if (n < 0 && cannot_copy_here(errno))
			n = copy_bytes(c, from, &in, to, &out, want);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0; /* it ended earlier than it said */
	}
	return 0;
}

/* Holes stay holes: a guest's sparse file may be larger than this disk. */
static int copy_content(struct copy *c, int from, int to, off_t size)
{
	if (size > 0 && ioctl(to, FICLONE, from) == 0)
		return 0;
	for (off_t at = 0; at < size;) {
		off_t data = lseek(from, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break;
		if (data < 0)
			return -errno;
		off_t hole = lseek(from, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		int r = copy_range(c, from, to, data, AV_MIN(hole, size));
		if (r < 0)
			return r;
		at = hole;
	}
	return ftruncate(to, size) < 0 ? -errno : 0;
}

/* 1: there already, linked; 0: to be made; -errno. */
static int link_again(
    const struct copy *c, int to, const char *name, const struct stat *st, char key[static 40])
{
	(void)snprintf(key, 40, "%llx", (unsigned long long)st->st_ino);
	if (linkat(c->links, key, to, name, 0) == 0)
		return 1;
	return errno == ENOENT ? 0 : -errno;
}

static int copy_file(struct copy *c, int from, int to, const char *name, const struct stat *st)
{
	char key[40];
	int r = st->st_nlink > 1 ? link_again(c, to, name, st, key) : 0;
	if (r != 0)
		return r < 0 ? r : 0;
	AV_CLEANUP(av_closep) int in = layer_open(from, name, O_RDONLY | O_NONBLOCK);
	AV_CLEANUP(av_closep)
	int out = openat(to, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (in < 0 || out < 0)
		return in < 0 ? in : -errno;
	struct stat now;
	if (fstat(in, &now) < 0)
		return -errno;
	if (!S_ISREG(now.st_mode) || now.st_ino != st->st_ino)
		return -ESTALE;
	r = copy_content(c, in, out, now.st_size);
	if (r == 0)
		r = finish_fd(c, in, out, &now);
	if (r == 0 && st->st_nlink > 1 && linkat(to, name, c->links, key, 0) < 0)
		r = -errno;
	return r;
}

static int copy_link(struct copy *c, int from, int to, const char *name, const struct stat *st)
{
	ssize_t n = readlinkat(from, name, c->link, sizeof(c->link) - 1);
	if (n < 0)
		return -errno;
	c->link[n] = '\0';
	if (symlinkat(c->link, to, name) < 0)
		return -errno;
	return finish_name(c, to, name, st);
}

/* Pipes, sockets, and whiteouts of overlayfs: device 0:0. No other device can come from a guest,
 * and none is made here. */
static int copy_node(const struct copy *c, int to, const char *name, const struct stat *st)
{
	bool whiteout = S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
	if (!whiteout && !S_ISFIFO(st->st_mode) && !S_ISSOCK(st->st_mode))
		return 0;
	if (mknodat(to, name, (st->st_mode & S_IFMT) | 0600, 0) < 0)
		return -errno;
	return finish_name(c, to, name, st);
}

static int copy_subdir(struct copy *c, int from, int to, const char *name)
{
	if (mkdirat(to, name, 0700) < 0)
		return -errno;
	AV_CLEANUP(av_closep) int in = layer_open(from, name, O_RDONLY | O_DIRECTORY);
	AV_CLEANUP(av_closep) int out = layer_open(to, name, O_RDONLY | O_DIRECTORY);
	if (in < 0 || out < 0)
		return in < 0 ? in : out;
	return copy_dir(c, in, out);
}

static int copy_entry(struct copy *c, int from, int to, const char *name)
{
	struct stat st;
	int r = c->opt->room(c->opt->ctx);
	if (r != 0)
		return r;
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	switch (st.st_mode & S_IFMT) {
	case S_IFDIR:
		return copy_subdir(c, from, to, name);
	case S_IFREG:
		return copy_file(c, from, to, name, &st);
	case S_IFLNK:
		return copy_link(c, from, to, name, &st);
	default:
		return copy_node(c, to, name, &st);
	}
}

static int copy_dir(struct copy *c, int from, int to)
{
	struct stat st;
	struct dirent *e;
	int r = 0;
	if (c->depth == LAYER_DEPTH_MAX)
		return -ELOOP;
	int copy = fcntl(from, F_DUPFD_CLOEXEC, 3);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir || fstat(from, &st) < 0) {
		r = -errno;
		if (dir)
			closedir(dir);
		else
			av_close_fd(&copy);
		return r;
	}
	c->depth++;
	rewinddir(dir);
	while (r == 0 && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = copy_entry(c, from, to, e->d_name);
	c->depth--;
	closedir(dir);
	/* Last: entries change its time, and its mode may forbid them. */
	return r == 0 ? finish_fd(c, from, to, &st) : r;
}

int layer_copy(int from, int to, int links, const struct layer_copy_options *opt)
{
	struct copy *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->opt = opt;
	c->links = links;
	int r = copy_dir(c, from, to);
	free(c);
	return r;
}

int layer_copy_content(int from, int to, off_t size, const struct layer_copy_options *opt)
{
	struct copy *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->opt = opt;
	c->links = -1;
	int r = copy_content(c, from, to, size);
	free(c);
	return r;
}

int layer_remove_links(int dir, int links)
{
	struct dirent *e;
	int r = 0, fd = openat(links, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		r = -errno;
		av_close_fd(&fd);
		return r;
	}
	while (r == 0 && (e = readdir(d)))
		if (e->d_name[0] != '.' && unlinkat(links, e->d_name, 0) < 0)
			r = -errno;
	closedir(d);
	return r == 0 && unlinkat(dir, LAYER_LINKS_DIR, AT_REMOVEDIR) < 0 ? -errno : r;
}
