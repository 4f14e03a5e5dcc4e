/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_btrfs.c - areas as subvolumes of one btrfs image, limited by qgroups
 *
 * Theory of operation: <state>/disk.img is a sparse file with one btrfs, bound to a loop device and
 * mounted at mount_dir in the worker's private namespace. An area is a subvolume <id> at its top.
 * One ioctl makes it together with its qgroup 0/<number> and limit; another unlinks it, and the
 * kernel's cleaner frees it later. Nothing is executed after mkfs.btrfs made the image.
 *
 * A half-made area is one that still belongs to root: giving it to its owner is the last step of
 * create, and set-up removes those that did not get that far.
 *
 * Kernels before 6.12 leave the qgroup of a deleted subvolume behind, and refuse to remove it
 * before the cleaner is done. So disk_step() tries again and again for what is in `stale`, a
 * bounded list; when it overflows, and at set-up, the quota tree is searched for qgroups without a
 * subvolume.
 *
 * Growth: all areas are members of qgroup 1/1. While the host file system has more room above its
 * reserve than the image may still grow, 1/1 is unlimited; otherwise its limit is what is used plus
 * that room, so that the host's disk is never filled from inside, and the guests get EDQUOT.
 *
 * A kernel that drops a large subvolume may stop accounting (qgroup status INCONSISTENT):
 * disk_step() starts a rescan then.
 */
#include "spawn/disk_btrfs.h"
#include "spawn/disk_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/banned.h"

#define IMAGE     "disk.img"
#define IMAGE_NEW "disk.img.new"
#define LAYERS    ".layers"
#define IMAGE_MIN (512 * AV_MIB)
#define STALE_MAX 4096
#define RETRY_MS  1000
#define SPACE_MS  2000
#define COMMIT_MS 5000
#define OPEN_DIR  (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

struct btrfs_state {
	int top_fd; /* owned; the image's top directory, on the attached mount */
	uint64_t image_size;
	uint64_t parent_limit; /* of qgroup 1/1; 0: unlimited */
	int64_t next_stale_ns, next_space_ns, next_commit_ns;
	bool search; /* stale does not hold all: search the quota tree */
	size_t n_stale;
	uint64_t stale[STALE_MAX];
};

/* Set-up */

static uint64_t wanted_size(const struct disk *d, uint64_t allocated)
{
	uint64_t space, total;
	if (d->image_bytes > 0)
		return d->image_bytes / AV_MIB * AV_MIB;
	if (disk_host_space(d, &space, &total) < 0)
		return 0;
	uint64_t reserve = disk_reserve(d, total);
	uint64_t room = space > reserve ? space - reserve : 0;
	return (allocated + room / 5 * 4) / AV_MIB * AV_MIB;
}

static int make_file_system(struct disk *d, struct av_err *err)
{
	static const char *const programs[] = {"/usr/sbin/mkfs.btrfs", "/usr/bin/mkfs.btrfs",
	    "/sbin/mkfs.btrfs", "/bin/mkfs.btrfs", NULL};
	char path[DISK_PATH_SIZE + 32];
	int r = av_path_printf(path, sizeof(path), "%s/" IMAGE_NEW, d->state_dir);
	if (r < 0)
		return av_err_set(err, AV_ERR_INVALID, "the state directory's path is too long");
	/* One copy of metadata: the image lies on a disk that has its own redundancy or has none.
	 */
	char *argv[] = {(char[]){"mkfs.btrfs"}, (char[]){"-q"}, (char[]){"-f"}, (char[]){"-m"},
	    (char[]){"single"}, (char[]){"-d"}, (char[]){"single"}, (char[]){"-L"},
	    (char[]){"aviary"}, (char[]){"--"}, path, NULL};
	r = disk_run(programs, argv);
	if (r == -ENOENT)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "mkfs.btrfs is not installed: apt-get install btrfs-progs");
	return r < 0 ? av_err_sys(
	                   err, AV_ERR_INTERNAL, r, "mkfs.btrfs failed on %s/" IMAGE, d->state_name)
	             : 0;
}

static int make_image(struct disk *d, struct av_err *err)
{
	uint64_t size = wanted_size(d, 0);
	if (size < IMAGE_MIN)
		return av_err_set(err, AV_ERR_NO_SPACE,
		    "the file system of %s is too full for a disk image of at least 512 MiB",
		    d->state_name);
	(void)unlinkat(d->state_fd, IMAGE_NEW, 0);
	AV_CLEANUP(av_closep)
	int fd = openat(d->state_fd, IMAGE_NEW, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r =
	    fd < 0 || ftruncate(fd, (off_t)size) < 0
	        ? av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s/" IMAGE, d->state_name)
	        : 0;
	if (r == 0)
		r = make_file_system(d, err);
	(void)av_failpoint("disk_image_made");
	if (r == 0 && (fsync(fd) < 0 || renameat(d->state_fd, IMAGE_NEW, d->state_fd, IMAGE) < 0))
		r = av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s/" IMAGE, d->state_name);
	if (r < 0)
		(void)unlinkat(d->state_fd, IMAGE_NEW, 0);
	return r;
}

static int mount_image(const char *dev, int *ret_fd)
{
	/* discard: what is freed inside becomes a hole in the image again. */
	const char *const with[] = {"source", dev, "discard", "async", NULL};
	const char *const without[] = {"source", dev, NULL};
	int r = disk_mount("btrfs", with, ret_fd);
	return r == -EINVAL ? disk_mount("btrfs", without, ret_fd) : r;
}

/* Binds, mounts, and grows the image when more is wanted than it has. */
static int mount_top(struct disk *d, struct btrfs_state *s, int image, struct av_err *err)
{
	AV_CLEANUP(av_closep) int loop = -1;
	AV_CLEANUP(av_closep) int mnt = -1;
	char dev[32];
	bool existing;
	struct stat st;
	int r = disk_loop_attach(image, "aviary " IMAGE, dev, &loop, &existing);
	if (r < 0)
		return av_err_sys(err, AV_ERR_UNSUPPORTED, r,
		    "no loop device for %s/" IMAGE " (needs /dev/loop-control and the loop module)",
		    d->state_name);
	r = mount_image(dev, &mnt);
	if (r == -ENODEV)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "this kernel has no btrfs (module btrfs): modprobe btrfs");
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r,
		    "%s/" IMAGE " does not mount: see dmesg; if it is beyond repair move it away, "
		    "and the disks of all sandboxes with it",
		    d->state_name);
	r = disk_mount_attach(mnt, d->mount_dir);
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, r, "cannot attach the disk image at %s", d->mount_dir);
	s->top_fd = open(d->mount_dir, OPEN_DIR);
	if (s->top_fd < 0 || fstat(image, &st) < 0 || fchmod(s->top_fd, 0700) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open the disk image");
	s->image_size = (uint64_t)st.st_size;
	uint64_t want = wanted_size(d, (uint64_t)st.st_blocks * 512);
	if (want > s->image_size + (d->image_bytes ? 0 : s->image_size / 4) &&
	    ftruncate(image, (off_t)want) == 0 && disk_loop_resize(loop) == 0 &&
	    btrfs_grow(s->top_fd) == 0)
		s->image_size = want;
	return 0;
}

/* Removes areas that never got an owner. */
static void remove_half_made(struct disk *d)
{
	struct btrfs_state *s = d->mode_state;
	int fd = openat(s->top_fd, ".", OPEN_DIR);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		av_close_fd(&fd);
		return;
	}
	for (struct dirent *e; (e = readdir(dir)) != NULL;) {
		struct stat st;
		if (e->d_type == DT_DIR && disk_id_ok(e->d_name) &&
		    fstatat(s->top_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_uid == 0)
			(void)btrfs_subvol_destroy(s->top_fd, e->d_name);
	}
	closedir(dir);
}

static int image_setup(struct disk *d, struct av_err *err)
{
	if (d->rootless)
		return av_err_set(err, AV_ERR_UNSUPPORTED, "a btrfs image needs root");
	AV_CLEANUP(av_closep) int image = openat(d->state_fd, IMAGE, O_RDWR | O_CLOEXEC);
	if (image < 0 && errno == ENOENT) {
		int r = make_image(d, err);
		if (r < 0)
			return r;
		image = openat(d->state_fd, IMAGE, O_RDWR | O_CLOEXEC);
	}
	if (image < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "cannot open %s/" IMAGE, d->state_name);
	struct btrfs_state *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory");
	s->top_fd = -1;
	d->mode_state = s;
	int r = mount_top(d, s, image, err);
	if (r == 0) {
		r = btrfs_quota_setup(s->top_fd);
		if (r < 0)
			(void)av_err_sys(
			    err, AV_ERR_UNSUPPORTED, r, "this kernel's btrfs has no qgroups");
	}
	if (r < 0) {
		(void)disk_mount_detach(d->mount_dir);
		av_close_fd(&s->top_fd);
		free(s);
		d->mode_state = NULL;
		return r;
	}
	s->search = true;
	uint64_t used;
	(void)btrfs_qgroup_read(s->top_fd, BTRFS_PARENT_QGROUP, &used, &s->parent_limit);
	remove_half_made(d);
	return 0;
}

static void image_teardown(struct disk *d)
{
	struct btrfs_state *s = d->mode_state;
	if (s == NULL)
		return;
	av_close_fd(&s->top_fd);
	free(s);
	d->mode_state = NULL;
}

/* Areas */

static int image_open(struct disk *d, const char *id, int *ret_dirfd, struct av_err *err)
{
	const struct btrfs_state *s = d->mode_state;
	int fd = openat(s->top_fd, id, OPEN_DIR);
	if (fd < 0)
		return errno == ENOENT
		           ? av_err_set(err, AV_ERR_NOT_FOUND, "sandbox %s has no disk area", id)
		           : av_err_sys(err, AV_ERR_INTERNAL, errno,
		                 "cannot open the disk area of sandbox %s", id);
	*ret_dirfd = fd;
	return 0;
}

static int image_create(
    struct disk *d, const char *id, uint64_t limit, uid_t owner, int *ret_dirfd, struct av_err *err)
{
	struct btrfs_state *s = d->mode_state;
	AV_CLEANUP(av_closep) int fd = -1;
	int r = btrfs_subvol_create(s->top_fd, id, limit);
	if (r == -EEXIST)
		return av_err_set(err, AV_ERR_CONFLICT, "sandbox %s has a disk area already", id);
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, r, "cannot make the disk area of sandbox %s", id);
	r = av_failpoint("disk_subvol_made") ? av_err_set(err, AV_ERR_INTERNAL, "failpoint") : 0;
	if (r == 0)
		r = image_open(d, id, &fd, err);
	if (r == 0 && (fchmod(fd, 0700) < 0 || fchown(fd, owner, owner) < 0))
		r = av_err_sys(err, AV_ERR_INTERNAL, errno,
		    "cannot set the owner of the disk area of sandbox %s", id);
	if (r < 0) {
		(void)btrfs_subvol_destroy(s->top_fd, id);
		s->search = true;
		return r;
	}
	*ret_dirfd = AV_TAKE_FD(fd);
	return 0;
}

static int image_usage(struct disk *d, const char *id, struct disk_usage *ret)
{
	const struct btrfs_state *s = d->mode_state;
	AV_CLEANUP(av_closep) int fd = -1;
	uint64_t subvol = 0;
	int r = image_open(d, id, &fd, NULL);
	if (r == 0)
		r = btrfs_subvol_id(fd, &subvol);
	return r < 0 ? r
	             : btrfs_qgroup_read(s->top_fd, subvol, &ret->used_bytes, &ret->limit_bytes);
}

static void remember_stale(struct btrfs_state *s, uint64_t subvol)
{
	if (s->n_stale < STALE_MAX)
		s->stale[s->n_stale++] = subvol;
	else
		s->search = true;
}

static int image_remove(struct disk *d, const char *id, struct av_err *err)
{
	struct btrfs_state *s = d->mode_state;
	AV_CLEANUP(av_closep) int fd = -1;
	uint64_t subvol = 0;
	if (image_open(d, id, &fd, NULL) == 0)
		(void)btrfs_subvol_id(fd, &subvol);
	av_close_fd(&fd);
	int r = btrfs_subvol_destroy(s->top_fd, id);
	(void)av_failpoint("disk_subvol_destroyed");
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, r, "cannot remove the disk area of sandbox %s", id);
	if (subvol != 0)
		remember_stale(s, subvol);
	d->trash_count = (unsigned)s->n_stale;
	return 0;
}

static int image_list(struct disk *d,
    int (*on_area)(void *ctx, const char *id, uid_t owner, bool removing), void *ctx)
{
	const struct btrfs_state *s = d->mode_state;
	int fd = openat(s->top_fd, ".", OPEN_DIR), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		av_close_fd(&fd);
		return -EIO;
	}
	for (struct dirent *e; r == 0 && (e = readdir(dir)) != NULL;) {
		struct stat st;
		if (e->d_type == DT_DIR && disk_id_ok(e->d_name) &&
		    fstatat(s->top_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			r = on_area(ctx, e->d_name, st.st_uid, false);
	}
	closedir(dir);
	return r;
}

/* Background work */

static int on_stale(void *ctx, uint64_t subvol)
{
	struct btrfs_state *s = ctx;
	if (s->n_stale == STALE_MAX)
		return 1;
	s->stale[s->n_stale++] = subvol;
	return 0;
}

/* Removes stale qgroups until the deadline; those still busy stay in the list. */
static void sweep_stale(struct btrfs_state *s, int64_t deadline_ns)
{
	size_t kept = 0, i = 0;
	if (s->search && s->n_stale == 0)
		s->search = btrfs_find_stale(s->top_fd, on_stale, s) == 1;
	for (; i < s->n_stale && av_mono_ns() < deadline_ns; i++)
		if (btrfs_qgroup_destroy(s->top_fd, s->stale[i]) == -EBUSY)
			s->stale[kept++] = s->stale[i];
	memmove(&s->stale[kept], &s->stale[i], (s->n_stale - i) * sizeof(s->stale[0]));
	s->n_stale -= i - kept;
}

static void watch_space(struct disk *d, struct btrfs_state *s)
{
	uint64_t space, total, used, ignored, limit = 0;
	if (disk_host_space(d, &space, &total) < 0 ||
	    btrfs_qgroup_read(s->top_fd, BTRFS_PARENT_QGROUP, &used, &ignored) < 0)
		return;
	uint64_t reserve = disk_reserve(d, total);
	uint64_t room = space > reserve ? space - reserve : 0;
	if (used + room < s->image_size)
		limit = AV_MAX(used + room, (uint64_t)AV_MIB);
	uint64_t change =
	    limit > s->parent_limit ? limit - s->parent_limit : s->parent_limit - limit;
	/* Every change is a transaction; small ones can wait while there is room. */
	if ((limit == 0) != (s->parent_limit == 0) || change > AV_MIN(room / 16, 256ULL * AV_MIB))
		if (btrfs_qgroup_limit(s->top_fd, BTRFS_PARENT_QGROUP, limit) == 0)
			s->parent_limit = limit;
	(void)btrfs_quota_keep_consistent(s->top_fd);
}

static int image_step(struct disk *d, int64_t deadline_ns)
{
	struct btrfs_state *s = d->mode_state;
	int64_t now = av_mono_ns();
	if (now >= s->next_space_ns) {
		watch_space(d, s);
		s->next_space_ns = now + SPACE_MS * AV_NS_PER_MS;
	}
	if (now >= s->next_stale_ns && (s->n_stale > 0 || s->search)) {
		sweep_stale(s, deadline_ns);
		s->next_stale_ns = now + RETRY_MS * AV_NS_PER_MS;
	}
	/* The cleaner runs after each commit; by itself that is every 30 s. */
	if (s->n_stale > 0 && now >= s->next_commit_ns) {
		(void)btrfs_commit_soon(s->top_fd);
		s->next_commit_ns = now + COMMIT_MS * AV_NS_PER_MS;
	}
	d->trash_count = (unsigned)s->n_stale + s->search;
	return d->trash_count > 0 ? RETRY_MS : SPACE_MS;
}

static int image_cleanup(struct disk *d, struct av_err *err)
{
	struct btrfs_state *s = d->mode_state;
	av_close_fd(&s->top_fd);
	int r = disk_mount_detach(d->mount_dir);
	if (r == 0 && unlinkat(d->state_fd, IMAGE, 0) < 0 && errno != ENOENT)
		r = -errno;
	d->trash_count = 0;
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot remove %s/" IMAGE, d->state_name)
	             : 0;
}

/* Layers: snapshots of areas in a directory of their own, whose name is no sandbox's. */

static int open_layers(const struct btrfs_state *s, bool make)
{
	if (make && mkdirat(s->top_fd, LAYERS, 0700) < 0 && errno != EEXIST)
		return -errno;
	int fd = openat(s->top_fd, LAYERS, OPEN_DIR);
	return fd < 0 ? -errno : fd;
}

static int image_layer_snapshot(struct disk *d, const char *id, const char *name)
{
	const struct btrfs_state *s = d->mode_state;
	AV_CLEANUP(av_closep) int layers = open_layers(s, true);
	AV_CLEANUP(av_closep) int area = -1;
	int r = layers < 0 ? layers : image_open(d, id, &area, NULL);
	return r < 0 ? r : btrfs_snapshot_create(layers, name, area);
}

static int image_layer_open(struct disk *d, const char *name, int *ret_dirfd)
{
	AV_CLEANUP(av_closep) int layers = open_layers(d->mode_state, false);
	if (layers < 0)
		return layers;
	int fd = openat(layers, name, OPEN_DIR);
	if (fd < 0)
		return -errno;
	*ret_dirfd = fd;
	return 0;
}

static int image_layer_make(struct disk *d, const char *name, int *ret_dirfd)
{
	AV_CLEANUP(av_closep) int layers = open_layers(d->mode_state, true);
	AV_CLEANUP(av_closep) int fd = -1;
	int r = layers < 0 ? layers : btrfs_subvol_create(layers, name, 0);
	if (r == 0)
		r = image_layer_open(d, name, &fd);
	if (r == 0 && fchmod(fd, 0700) < 0)
		r = -errno;
	if (r == 0)
		*ret_dirfd = AV_TAKE_FD(fd);
	return r;
}

static int image_layer_finish(struct disk *d, const char *from, const char *name)
{
	AV_CLEANUP(av_closep) int layers = open_layers(d->mode_state, false);
	AV_CLEANUP(av_closep) int fd = -1;
	int r = layers < 0 ? layers : image_layer_open(d, from, &fd);
	return r < 0 ? r : btrfs_snapshot_create(layers, name, fd);
}

static int image_layer_remove(struct disk *d, const char *name)
{
	struct btrfs_state *s = d->mode_state;
	AV_CLEANUP(av_closep) int layers = open_layers(s, false);
	AV_CLEANUP(av_closep) int fd = -1;
	uint64_t subvol = 0;
	if (layers < 0)
		return layers == -ENOENT ? 0 : layers;
	if (image_layer_open(d, name, &fd) == 0)
		(void)btrfs_subvol_id(fd, &subvol);
	av_close_fd(&fd);
	int r = btrfs_subvol_destroy(layers, name);
	if (r == 0 && subvol != 0)
		remember_stale(s, subvol);
	return r == -ENOENT ? 0 : r;
}

static int image_layer_list(struct disk *d, int (*on_layer)(void *ctx, const char *name), void *ctx)
{
	int fd = open_layers(d->mode_state, false), r = 0;
	if (fd == -ENOENT)
		return 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		av_close_fd(&fd);
		return -EIO;
	}
	for (struct dirent *e; r == 0 && (e = readdir(dir)) != NULL;)
		if (e->d_type == DT_DIR && disk_id_ok(e->d_name))
			r = on_layer(ctx, e->d_name);
	closedir(dir);
	return r;
}

const struct disk_ops disk_btrfs_ops = {
    .mode = DISK_MODE_BTRFS,
    .setup = image_setup,
    .teardown = image_teardown,
    .create = image_create,
    .open = image_open,
    .usage = image_usage,
    .remove = image_remove,
    .step = image_step,
    .list = image_list,
    .layer_snapshot = image_layer_snapshot,
    .layer_make = image_layer_make,
    .layer_finish = image_layer_finish,
    .layer_open = image_layer_open,
    .layer_remove = image_layer_remove,
    .layer_list = image_layer_list,
    .cleanup = image_cleanup,
};
