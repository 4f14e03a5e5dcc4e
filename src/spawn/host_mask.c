/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_mask.c - the layer that hides what not everybody on the host may read below /usr
 *
 * Theory of operation: root of a sandbox is nobody on the host, but an idmapped layer lets it read
 * what host root owns. So everything below /usr that an ordinary user of the host could not read is
 * covered by a whiteout (a character device 0:0, which any user may make). Programs that may be run
 * but not read (sudo on some distributions) are no secret and stay. A directory of this layer
 * shadows the attributes of the host's, so it gets the same owner and mode; it is made only where
 * something inside is hidden. Mounts below /usr are not followed: an overlay does not show them
 * either.
 */
#include "spawn/host_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/banned.h"

#define DEPTH_MAX 128
#define DIR_READ  (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

struct mask_dir {
	struct mask_dir *up; /* NULL for /usr itself */
	const char *name;    /* in up; borrowed while the walk is below */
	struct stat st;
	int fd; /* of the mask layer; -1 until something inside is hidden. Owned */
};

struct mask {
	const struct host_gen *g;
	dev_t dev;
	unsigned seen, masked;
};

bool host_mask_hides(mode_t mode)
{
	if (S_ISDIR(mode))
		return (mode & 0005) != 0005;
	if (S_ISREG(mode))
		return (mode & 0005) == 0;
	return !S_ISLNK(mode);
}

/* The mask layer's directory for d, made with those above it when there is none yet. */
static int materialise(const struct mask *m, struct mask_dir *d)
{
	if (d->fd >= 0)
		return 0;
	int r = materialise(m, d->up); /* the top has its descriptor from the start */
	if (r < 0)
		return r;
	if (mkdirat(d->up->fd, d->name, 0700) < 0)
		return -errno;
	d->fd = openat(d->up->fd, d->name, DIR_READ);
	if (d->fd < 0)
		return -errno;
	return host_own(m->g, d->fd, d->st.st_uid, d->st.st_gid, d->st.st_mode & 07777);
}

static int hide(struct mask *m, struct mask_dir *d, const char *name)
{
	int r = materialise(m, d);
	if (r < 0)
		return r;
	m->masked++;
	return mknodat(d->fd, name, S_IFCHR, makedev(0, 0)) < 0 ? -errno : 0;
}

static int walk(struct mask *m, struct mask_dir *d, int host_fd, int depth);

static int look(struct mask *m, struct mask_dir *d, int host_fd, const struct dirent *e, int depth)
{
	struct stat st;
	m->seen++;
	if (e->d_type == DT_LNK)
		return 0;
	if (fstatat(host_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (st.st_dev != m->dev)
		return 0;
	if (host_mask_hides(st.st_mode))
		return hide(m, d, e->d_name);
	if (!S_ISDIR(st.st_mode))
		return 0;
	if (depth >= DEPTH_MAX)
		return hide(m, d, e->d_name);
	struct mask_dir sub = {.up = d, .name = e->d_name, .st = st, .fd = -1};
	int fd = openat(host_fd, e->d_name, DIR_READ);
	if (fd < 0)
		return errno == ENOENT ? 0 : hide(m, d, e->d_name);
	int r = walk(m, &sub, fd, depth + 1);
	av_close_fd(&sub.fd);
	return r;
}

/* Takes host_fd over. */
static int walk(struct mask *m, struct mask_dir *d, int host_fd, int depth)
{
	DIR *dir = fdopendir(host_fd);
	int r = 0;
	if (dir == NULL) {
		av_close_fd(&host_fd);
		return -ENOMEM;
	}
	for (struct dirent *e; r == 0 && (e = readdir(dir)) != NULL;)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = look(m, d, host_fd, e, depth);
	closedir(dir);
	return r;
}

int host_mask_make(const struct host_gen *g, unsigned *ret_seen, unsigned *ret_masked)
{
	struct mask m = {.g = g};
	struct mask_dir top = {.fd = g->mask};
	int fd = host_open(g, "usr", O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd;
	if (fstat(fd, &top.st) < 0) {
		av_close_fd(&fd);
		return -errno;
	}
	m.dev = top.st.st_dev;
	int r = host_own(g, g->mask, top.st.st_uid, top.st.st_gid, top.st.st_mode & 07777);
	if (r == 0)
		r = walk(&m, &top, fd, 0);
	else
		av_close_fd(&fd);
	*ret_seen = m.seen;
	*ret_masked = m.masked;
	return r;
}
