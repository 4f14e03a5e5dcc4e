/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_loop.c - one sparse ext4 image per area, for kernels without quotas and without btrfs
 *
 * Theory of operation: <state>/sandboxes/<id>/image is bound to a loop device and mounted at
 * <mount_dir>/<id>, from disk_create() or disk_open() to disk_done(). A sandbox's own clones keep
 * the mount, and thereby the device, alive after that; a later disk_open() finds the device by its
 * backing file and mounts the same file system once more. Removing unlinks the image; its blocks
 * are free when the last mount is gone.
 *
 * An ext4 whose backing file cannot grow breaks. So the images' full sizes are promised: a create
 * that does not fit into what the host has above its reserve, less what older images may still
 * grow, is refused.
 */
#include "spawn/disk_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

#define IMAGE         "image"
#define UNLIMITED     (1024 * AV_GIB) /* an image has a size; sparse, so promised only once */
#define EXT4_OVERHEAD (8 * AV_MIB)

static const char *const mkfs_programs[] = {
    "/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4", "/bin/mkfs.ext4", NULL};

static int area_path(const struct disk *d, const char *id, char *dst, size_t size)
{
	return av_path_printf(dst, size, "%s/%s", d->mount_dir, id);
}

static void loop_done(struct disk *d, const char *id)
{
	char path[DISK_PATH_SIZE + DISK_ID_MAX + 2];
	if (area_path(d, id, path, sizeof(path)) == 0) {
		(void)disk_mount_detach(path);
		(void)rmdir(path);
	}
}

/* Mounts the image, attaches it, opens its top. */
static int mount_area(struct disk *d, const char *id, int image, int *ret_dirfd)
{
	AV_CLEANUP(av_closep) int loop = -1;
	AV_CLEANUP(av_closep) int mnt = -1;
	char dev[32], path[DISK_PATH_SIZE + DISK_ID_MAX + 2];
	bool existing;
	int r = area_path(d, id, path, sizeof(path));
	if (r == 0)
		r = disk_loop_attach(image, id, dev, &loop, &existing);
	const char *const with[] = {"source", dev, "discard", "", NULL};
	if (r == 0)
		r = disk_mount("ext4", with, &mnt);
	if (r < 0)
		return r;
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	r = disk_mount_attach(mnt, path);
	if (r < 0) {
		(void)rmdir(path);
		return r;
	}
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		r = -errno;
		loop_done(d, id);
		return r;
	}
	*ret_dirfd = fd;
	return 0;
}

static int loop_open(struct disk *d, const char *id, int *ret_dirfd, struct av_err *err)
{
	AV_CLEANUP(av_closep) int area = -1;
	int r = disk_area_open(d, id, &area, err);
	if (r < 0)
		return r;
	AV_CLEANUP(av_closep) int image = openat(area, IMAGE, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (image < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "no disk image of sandbox %s", id);
	loop_done(d, id); /* left attached by somebody: once is enough */
	r = mount_area(d, id, image, ret_dirfd);
	return r < 0 ? av_err_sys(
	                   err, AV_ERR_INTERNAL, r, "cannot mount the disk image of sandbox %s", id)
	             : 0;
}

struct promise {
	const struct disk *d;
	uint64_t bytes;
};

static int add_promise(void *ctx, const char *id, uid_t owner, bool removing)
{
	struct promise *p = ctx;
	char path[DISK_ID_MAX + 16];
	struct stat st;
	(void)owner;
	if (!removing && av_path_printf(path, sizeof(path), "%s/" IMAGE, id) == 0 &&
	    fstatat(p->d->areas_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		uint64_t has = (uint64_t)st.st_blocks * 512, may = (uint64_t)st.st_size;
		p->bytes += may > has ? may - has : 0;
	}
	return 0;
}

static int check_promises(struct disk *d, uint64_t size, struct av_err *err)
{
	struct promise p = {.d = d};
	uint64_t space = 0, total = 0;
	char a[24], b[24];
	int r = disk_area_list(d, add_promise, &p);
	if (r == 0)
		r = disk_host_space(d, &space, &total);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot see the free space");
	uint64_t taken = disk_reserve(d, total) + p.bytes;
	if (space >= taken && space - taken >= size)
		return 0;
	(void)av_err_set(err, AV_ERR_NO_SPACE,
	    "a disk of %s does not fit: %s is not promised to other sandboxes on the file system "
	    "of "
	    "%s. Ask for a smaller one (--disk), delete sandboxes, or install btrfs-progs, whose "
	    "image needs no promises",
	    av_format_size(size, a), av_format_size(space > taken ? space - taken : 0, b),
	    d->state_name);
	return -ENOSPC;
}

/* In the built, unpublished area: the image with its file system. */
static int make_image(struct disk *d, const char *id, int area, uint64_t size, uid_t owner,
    int *ret_image, struct av_err *err)
{
	char path[DISK_PATH_SIZE + DISK_ID_MAX + 32], opts[96];
	int fd = openat(area, IMAGE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
		int r = av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make a disk image");
		av_close_fd(&fd);
		return r;
	}
	int r = av_path_printf(path, sizeof(path), "%s/trash/new-%s/" IMAGE, d->state_dir, id);
	(void)snprintf(opts, sizeof(opts), "nodiscard,lazy_itable_init=1,root_owner=%u:%u",
	    (unsigned)owner, (unsigned)owner);
	char *argv[] = {(char[]){"mkfs.ext4"}, (char[]){"-q"}, (char[]){"-F"}, (char[]){"-m"},
	    (char[]){"0"}, (char[]){"-b"}, (char[]){"4096"}, (char[]){"-O"},
	    (char[]){"^resize_inode"}, (char[]){"-E"}, opts, path, NULL};
	if (r == 0)
		r = disk_run(mkfs_programs, argv);
	if (r < 0) {
		(void)av_err_sys(err, r == -ENOENT ? AV_ERR_UNSUPPORTED : AV_ERR_INTERNAL, r,
		    "mkfs.ext4 failed for sandbox %s", id);
		av_close_fd(&fd);
		return r;
	}
	*ret_image = fd;
	return 0;
}

static int make_area(
    struct disk *d, const char *id, uint64_t size, uid_t owner, int *ret_dirfd, struct av_err *err)
{
	AV_CLEANUP(av_closep) int area = -1;
	AV_CLEANUP(av_closep) int image = -1;
	AV_CLEANUP(av_closep) int top = -1;
	int r = disk_area_build(d, id, &area, err);
	if (r < 0)
		return r;
	r = make_image(d, id, area, size, owner, &image, err);
	if (r == 0) {
		r = mount_area(d, id, image, &top);
		if (r < 0)
			(void)av_err_sys(err, AV_ERR_INTERNAL, r,
			    "cannot mount the disk image of sandbox %s", id);
	}
	(void)av_failpoint("disk_image_mounted");
	if (r == 0 && (fchmod(top, 0700) < 0 || unlinkat(top, "lost+found", AT_REMOVEDIR) < 0))
		r = av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "cannot prepare the disk of sandbox %s", id);
	if (r == 0)
		r = disk_area_publish(d, id, area, owner, err);
	if (r < 0) {
		loop_done(d, id);
		d->trash_count++;
		return r;
	}
	*ret_dirfd = AV_TAKE_FD(top);
	return 0;
}

static int loop_create(
    struct disk *d, const char *id, uint64_t limit, uid_t owner, int *ret_dirfd, struct av_err *err)
{
	uint64_t size = limit > 0 ? limit + EXT4_OVERHEAD : (uint64_t)UNLIMITED;
	int r = limit > 0 ? check_promises(d, size, err) : 0;
	return r < 0 ? r : make_area(d, id, size, owner, ret_dirfd, err);
}

static int loop_usage(struct disk *d, const char *id, struct disk_usage *ret)
{
	AV_CLEANUP(av_closep) int fd = -1;
	struct statvfs v;
	int r = loop_open(d, id, &fd, NULL);
	if (r < 0)
		return r;
	if (fstatvfs(fd, &v) < 0)
		r = -errno;
	loop_done(d, id);
	if (r < 0)
		return r;
	ret->limit_bytes = (uint64_t)v.f_blocks * v.f_frsize;
	ret->used_bytes = (uint64_t)(v.f_blocks - v.f_bfree) * v.f_frsize;
	return 0;
}

static int loop_remove(struct disk *d, const char *id, struct av_err *err)
{
	loop_done(d, id);
	return disk_area_remove(d, id, err);
}

/* Makes, mounts and removes a small area: only that shows that all parts are there. */
static int loop_setup(struct disk *d, struct av_err *err)
{
	int fd = -1;
	if (d->rootless)
		return av_err_set(err, AV_ERR_UNSUPPORTED, "loop devices need root");
	int r = make_area(d, "loop-probe", DISK_LIMIT_MIN, 0, &fd, err);
	if (r == -EEXIST)
		r = loop_open(d, "loop-probe", &fd, err);
	if (r < 0)
		return r;
	av_close_fd(&fd);
	return loop_remove(d, "loop-probe", err);
}

const struct disk_ops disk_loop_ops = {
    .mode = DISK_MODE_LOOP,
    .setup = loop_setup,
    .create = loop_create,
    .open = loop_open,
    .done = loop_done,
    .usage = loop_usage,
    .remove = loop_remove,
    .step = disk_area_step,
    .list = disk_area_list,
};
