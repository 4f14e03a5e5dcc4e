/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_tmpfs.c - one tmpfs per area, for the rootless worker
 *
 * Theory of operation: the only file system with a size that a user namespace may mount. Its pages
 * count against the memory limit of whoever writes them. The mount is attached at <mount_dir>/<id>
 * until disk_done(); after that a descriptor in `areas` lets this worker, and clones let the
 * sandbox, reach it. A worker that starts again cannot: the directory <state>/sandboxes/<id> then
 * still tells that the area exists, and opening it is -ESTALE.
 */
#include "spawn/disk_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/list.h"
#include "base/path.h"
#include "base/banned.h"

struct tmpfs_area {
	struct av_list link;
	int fd; /* owned; top of the tmpfs */
	char id[DISK_ID_MAX + 1];
};

struct tmpfs_state {
	struct av_list areas;
};

static struct tmpfs_area *find(struct disk *d, const char *id)
{
	struct tmpfs_state *s = d->mode_state;
	struct tmpfs_area *a;
	AV_LIST_FOREACH(a, &s->areas, struct tmpfs_area, link)
	if (strcmp(a->id, id) == 0)
		return a;
	return NULL;
}

static void forget(struct tmpfs_area *a)
{
	av_list_remove(&a->link);
	av_close_fd(&a->fd);
	free(a);
}

static int area_path(const struct disk *d, const char *id, char *dst, size_t size)
{
	return av_path_printf(dst, size, "%s/%s", d->mount_dir, id);
}

static void tmpfs_done(struct disk *d, const char *id)
{
	char path[DISK_PATH_SIZE + DISK_ID_MAX + 2];
	if (area_path(d, id, path, sizeof(path)) == 0) {
		(void)disk_mount_detach(path);
		(void)rmdir(path);
	}
}

static int mount_area(struct disk *d, const char *id, uint64_t limit, int *ret_dirfd)
{
	AV_CLEANUP(av_closep) int mnt = -1;
	char path[DISK_PATH_SIZE + DISK_ID_MAX + 2], size[32], inodes[32];
	int r = area_path(d, id, path, sizeof(path));
	if (r < 0)
		return r;
	(void)snprintf(size, sizeof(size), "%llu", (unsigned long long)limit);
	(void)snprintf(inodes, sizeof(inodes), "%llu", (unsigned long long)limit / 4096);
	const char *const limited[] = {
	    "source", "aviary", "mode", "0700", "size", size, "nr_inodes", inodes, NULL};
	const char *const open_ended[] = {"source", "aviary", "mode", "0700", "size", "50%", NULL};
	r = disk_mount("tmpfs", limit > 0 ? limited : open_ended, &mnt);
	if (r < 0)
		return r;
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	r = disk_mount_attach(mnt, path);
	if (r == 0) {
		int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0) {
			*ret_dirfd = fd;
			return 0;
		}
		r = -errno;
	}
	tmpfs_done(d, id);
	return r;
}

static int tmpfs_create(
    struct disk *d, const char *id, uint64_t limit, uid_t owner, int *ret_dirfd, struct av_err *err)
{
	struct tmpfs_state *s = d->mode_state;
	AV_CLEANUP(av_closep) int area = -1;
	AV_CLEANUP(av_closep) int top = -1;
	struct tmpfs_area *a = calloc(1, sizeof(*a));
	if (a == NULL)
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory for sandbox %s", id);
	av_list_init(&a->link);
	a->fd = -1;
	(void)snprintf(a->id, sizeof(a->id), "%s", id);
	int r = mount_area(d, id, limit, &top);
	if (r == 0 && !d->rootless && fchown(top, owner, owner) < 0)
		r = -errno;
	if (r == 0 && (a->fd = fcntl(top, F_DUPFD_CLOEXEC, 3)) < 0)
		r = -errno;
	if (r < 0)
		(void)av_err_sys(
		    err, AV_ERR_INTERNAL, r, "cannot mount a tmpfs for sandbox %s", id);
	else
		r = disk_area_create(d, id, owner, &area, err);
	if (r < 0) {
		tmpfs_done(d, id);
		forget(a);
		return r;
	}
	av_list_append(&s->areas, &a->link);
	*ret_dirfd = AV_TAKE_FD(top);
	return 0;
}

static int tmpfs_open(struct disk *d, const char *id, int *ret_dirfd, struct av_err *err)
{
	AV_CLEANUP(av_closep) int area = -1;
	int r = disk_area_open(d, id, &area, err);
	if (r < 0)
		return r;
	const struct tmpfs_area *a = find(d, id);
	if (a == NULL) {
		(void)av_err_set(err, AV_ERR_INTERNAL,
		    "the disk of sandbox %s went with the worker that made it", id);
		return -ESTALE;
	}
	int fd = fcntl(a->fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open the disk of %s", id);
	*ret_dirfd = fd;
	return 0;
}

static int tmpfs_usage(struct disk *d, const char *id, struct disk_usage *ret)
{
	AV_CLEANUP(av_closep) int fd = -1;
	struct statvfs v;
	int r = tmpfs_open(d, id, &fd, NULL);
	if (r < 0)
		return r;
	if (fstatvfs(fd, &v) < 0)
		return -errno;
	ret->limit_bytes = (uint64_t)v.f_blocks * v.f_frsize;
	ret->used_bytes = (uint64_t)(v.f_blocks - v.f_bfree) * v.f_frsize;
	return 0;
}

static int tmpfs_remove(struct disk *d, const char *id, struct av_err *err)
{
	struct tmpfs_area *a = find(d, id);
	tmpfs_done(d, id);
	if (a != NULL)
		forget(a);
	return disk_area_remove(d, id, err);
}

static void tmpfs_teardown(struct disk *d)
{
	struct tmpfs_state *s = d->mode_state;
	struct tmpfs_area *a;
	if (s == NULL)
		return;
	while ((a = AV_LIST_FIRST(&s->areas, struct tmpfs_area, link)) != NULL)
		forget(a);
	free(s);
	d->mode_state = NULL;
}

static int tmpfs_setup(struct disk *d, struct av_err *err)
{
	int fd = -1;
	struct tmpfs_state *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory");
	av_list_init(&s->areas);
	d->mode_state = s;
	int r = mount_area(d, "tmpfs-probe", DISK_LIMIT_MIN, &fd);
	av_close_fd(&fd);
	tmpfs_done(d, "tmpfs-probe");
	if (r < 0) {
		tmpfs_teardown(d);
		return av_err_sys(err, AV_ERR_UNSUPPORTED, r, "a tmpfs cannot be mounted");
	}
	return 0;
}

const struct disk_ops disk_tmpfs_ops = {
    .mode = DISK_MODE_TMPFS,
    .setup = tmpfs_setup,
    .teardown = tmpfs_teardown,
    .create = tmpfs_create,
    .open = tmpfs_open,
    .done = tmpfs_done,
    .usage = tmpfs_usage,
    .remove = tmpfs_remove,
    .step = disk_area_step,
    .list = disk_area_list,
};
