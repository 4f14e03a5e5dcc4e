/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_area.c - areas as plain directories, and taking apart what a guest left in them
 *
 * Theory of operation of the trash: names, depth and number of files are the guest's choice. Trees
 * may be deeper than any path or stack, so nothing recurses: a directory found inside another is
 * renamed up to the top of its area, and when a directory has no entries left it is removed. Two
 * descriptors are enough. The area's own directory goes last, since its owner and its name say that
 * the id range is not free yet. Entries are only ever unlinked or renamed by name below a
 * descriptor, never followed. Each call does what fits into its time.
 */
#include "spawn/disk_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/banned.h"

#define NEW_PREFIX "new-"
#define OPEN_DIR   (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

static int build_name(char *dst, size_t size, const char *id)
{
	return av_path_printf(dst, size, NEW_PREFIX "%s", id);
}

int disk_area_trash(struct disk *d, int dirfd, const char *name)
{
	char other[40];
	int r = -EEXIST;
	for (int i = 0; i < 1000 && r == -EEXIST; i++) {
		(void)snprintf(other, sizeof(other), "t-%" PRIu64, d->trash_serial++);
		r = renameat2(dirfd, name, d->trash_fd, other, RENAME_NOREPLACE) < 0 ? -errno : 0;
	}
	return r;
}

int disk_area_build(struct disk *d, const char *id, int *ret_dirfd, struct av_err *err)
{
	char name[DISK_ID_MAX + 16];
	int r = build_name(name, sizeof(name), id);
	if (r < 0)
		return av_err_set(err, AV_ERR_INVALID, "bad sandbox id");
	r = mkdirat(d->trash_fd, name, 0700);
	if (r < 0 && errno == EEXIST && disk_area_trash(d, d->trash_fd, name) == 0)
		r = mkdirat(d->trash_fd, name, 0700);
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "cannot make the disk area of sandbox %s", id);
	int fd = openat(d->trash_fd, name, OPEN_DIR);
	if (fd < 0) {
		r = av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "cannot open the disk area of sandbox %s", id);
		(void)unlinkat(d->trash_fd, name, AT_REMOVEDIR);
		return r;
	}
	*ret_dirfd = fd;
	return 0;
}

int disk_area_publish(struct disk *d, const char *id, int dirfd, uid_t owner, struct av_err *err)
{
	char name[DISK_ID_MAX + 16];
	int r = build_name(name, sizeof(name), id);
	if (r < 0)
		return av_err_set(err, AV_ERR_INVALID, "bad sandbox id");
	if (!d->rootless && fchown(dirfd, owner, owner) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno,
		    "cannot set the owner of the disk area of sandbox %s", id);
	if (av_failpoint("disk_area_built"))
		return av_err_set(err, AV_ERR_INTERNAL, "failpoint disk_area_built");
	if (renameat2(d->trash_fd, name, d->areas_fd, id, RENAME_NOREPLACE) < 0)
		return errno == EEXIST ? av_err_set(err, AV_ERR_CONFLICT,
		                             "sandbox %s has a disk area already", id)
		                       : av_err_sys(err, AV_ERR_INTERNAL, errno,
		                             "cannot publish the disk area of sandbox %s", id);
	return 0;
}

int disk_area_create(
    struct disk *d, const char *id, uid_t owner, int *ret_dirfd, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = -1;
	int r = disk_area_build(d, id, &fd, err);
	if (r == 0)
		r = disk_area_publish(d, id, fd, owner, err);
	if (r < 0) {
		d->trash_count++; /* look there again */
		return r;
	}
	*ret_dirfd = AV_TAKE_FD(fd);
	return 0;
}

int disk_area_open(struct disk *d, const char *id, int *ret_dirfd, struct av_err *err)
{
	int fd = openat(d->areas_fd, id, OPEN_DIR);
	if (fd < 0)
		return errno == ENOENT
		           ? av_err_set(err, AV_ERR_NOT_FOUND, "sandbox %s has no disk area", id)
		           : av_err_sys(err, AV_ERR_INTERNAL, errno,
		                 "cannot open the disk area of sandbox %s", id);
	*ret_dirfd = fd;
	return 0;
}

int disk_area_remove(struct disk *d, const char *id, struct av_err *err)
{
	int r = renameat2(d->areas_fd, id, d->trash_fd, id, RENAME_NOREPLACE);
	if (r < 0 && errno == EEXIST && disk_area_trash(d, d->trash_fd, id) == 0)
		r = renameat2(d->areas_fd, id, d->trash_fd, id, RENAME_NOREPLACE);
	if (r < 0 && errno == ENOENT)
		return 0;
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "cannot remove the disk area of sandbox %s", id);
	(void)av_failpoint("disk_area_removed");
	d->trash_count++;
	return 0;
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* A directory of the guest's may deny its owner everything; root does not mind, rootless does. */
static void unlock_dir(const struct disk *d, int dirfd, const char *name)
{
	if (d->rootless && fchmodat(dirfd, name, 0700, 0) < 0)
		return; /* then what follows says why */
}

/* Moves a directory of dirfd up to the top of its area, under a fresh name. */
static int move_up(struct disk *d, int area, int dirfd, const char *name)
{
	char up[40];
	unlock_dir(d, dirfd, name);
	for (int i = 0; i < 1000; i++) {
		(void)snprintf(up, sizeof(up), "t-%" PRIu64, d->trash_serial++);
		if (renameat2(dirfd, name, area, up, RENAME_NOREPLACE) == 0)
			return 0;
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

struct emptying {
	struct disk *d;
	int64_t deadline_ns;
	unsigned done;
	int area; /* descriptor of the area's top */
};

/* Calls on_entry for each entry of the directory parent/name. 0, its error, or -EAGAIN when the
 * time is up. */
static int each_entry(struct emptying *x, int parent, const char *name,
    int (*on_entry)(struct emptying *x, int dirfd, const struct dirent *e))
{
	unlock_dir(x->d, parent, name);
	int fd = openat(parent, name, OPEN_DIR), r = 0;
	if (fd < 0)
		return -errno;
	DIR *dir = fdopendir(fd);
	if (dir == NULL) {
		av_close_fd(&fd);
		return -ENOMEM;
	}
	for (struct dirent *e; r == 0 && (e = readdir(dir)) != NULL;) {
		if (is_dots(e->d_name))
			continue;
		r = on_entry(x, fd, e);
		if (r == 0 && ++x->done % 32 == 0 && av_mono_ns() >= x->deadline_ns)
			r = -EAGAIN;
	}
	closedir(dir);
	return r;
}

static int unlink_file(int dirfd, const char *name)
{
	return unlinkat(dirfd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

/* Below the top: files go, empty directories go, others move up. */
static int empty_below(struct emptying *x, int dirfd, const struct dirent *e)
{
	if (e->d_type != DT_DIR)
		return unlink_file(dirfd, e->d_name);
	if (unlinkat(dirfd, e->d_name, AT_REMOVEDIR) == 0)
		return 0;
	return move_up(x->d, x->area, dirfd, e->d_name);
}

static int empty_top(struct emptying *x, int dirfd, const struct dirent *e)
{
	if (e->d_type != DT_DIR)
		return unlink_file(dirfd, e->d_name);
	if (unlinkat(dirfd, e->d_name, AT_REMOVEDIR) == 0)
		return 0;
	x->area = dirfd;
	int r = each_entry(x, dirfd, e->d_name, empty_below);
	if (r == 0 && unlinkat(dirfd, e->d_name, AT_REMOVEDIR) < 0 && errno != ENOTEMPTY)
		r = -errno;
	return r;
}

/* The name of anything in the trash; -ENOENT when it is empty. */
static int any_trash(struct disk *d, char *dst, size_t size, bool *ret_is_dir)
{
	int fd = openat(d->trash_fd, ".", OPEN_DIR);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		av_close_fd(&fd);
		return -EIO;
	}
	int r = -ENOENT;
	for (struct dirent *e; r == -ENOENT && (e = readdir(dir)) != NULL;) {
		if (is_dots(e->d_name))
			continue;
		r = av_path_printf(dst, size, "%s", e->d_name);
		*ret_is_dir = e->d_type == DT_DIR;
	}
	closedir(dir);
	return r;
}

int disk_area_step(struct disk *d, int64_t deadline_ns)
{
	char name[NAME_MAX + 1];
	bool is_dir = false;
	while (d->trash_count > 0) {
		int r = any_trash(d, name, sizeof(name), &is_dir);
		if (r == -ENOENT) {
			d->trash_count = 0;
			break;
		}
		if (r == 0 && is_dir) {
			struct emptying x = {.d = d, .deadline_ns = deadline_ns, .area = -1};
			r = each_entry(&x, d->trash_fd, name, empty_top);
			if (r == 0 && unlinkat(d->trash_fd, name, AT_REMOVEDIR) < 0)
				r = -errno;
		} else if (r == 0 && unlinkat(d->trash_fd, name, 0) < 0) {
			r = -errno;
		}
		(void)av_failpoint("disk_trash_step");
		if (r == -EAGAIN || (r == 0 && av_mono_ns() >= deadline_ns))
			return 0;
		if (r == 0 && d->trash_count > 1)
			d->trash_count--;
		if (r < 0 && r != -ENOTEMPTY)
			return 1000; /* not ours to cure now; later perhaps */
	}
	return 60000;
}

static int list_dir(int dirfd, bool removing,
    int (*on_area)(void *ctx, const char *id, uid_t owner, bool removing), void *ctx)
{
	int fd = openat(dirfd, ".", OPEN_DIR), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		av_close_fd(&fd);
		return -EIO;
	}
	for (struct dirent *e; r == 0 && (e = readdir(dir)) != NULL;) {
		struct stat st;
		if (e->d_type != DT_DIR || !disk_id_ok(e->d_name))
			continue;
		if (removing && strncmp(e->d_name, NEW_PREFIX, strlen(NEW_PREFIX)) == 0)
			continue; /* never complete: nobody's */
		if (fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			r = on_area(ctx, e->d_name, st.st_uid, removing);
	}
	closedir(dir);
	return r;
}

int disk_area_list(struct disk *d,
    int (*on_area)(void *ctx, const char *id, uid_t owner, bool removing), void *ctx)
{
	int r = list_dir(d->areas_fd, false, on_area, ctx);
	return r != 0 ? r : list_dir(d->trash_fd, true, on_area, ctx);
}
