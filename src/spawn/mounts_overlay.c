/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mounts_overlay.c - layers and the overlays made of them
 *
 * See mounts.c for what must hold of the credentials of the moment and of idmapped clones.
 */
#include "spawn/mounts_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "spawn/sys.h"
#include "base/banned.h"

#define CLONE_FLAGS (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)

const char mounts_layer_names[] = "abcdefghijklmnopqrstvwxyzA";
static_assert(sizeof(mounts_layer_names) - 1 == MOUNTS_LAYERS_MAX, "a name for each layer");

int mounts_clone_layer(int dirfd, const char *path, int userns_fd, bool read_only)
{
	AV_CLEANUP(av_closep)
	int fd = open_tree(dirfd, path, CLONE_FLAGS | (path[0] ? 0 : AT_EMPTY_PATH));
	if (fd < 0)
		return -errno;
	struct mount_attr attr = {
	    .attr_set = (read_only ? MOUNT_ATTR_RDONLY : 0) |
	                (userns_fd >= 0 ? (uint64_t)MOUNT_ATTR_IDMAP : 0),
	    .userns_fd = userns_fd >= 0 ? (uint64_t)userns_fd : 0,
	};
	if (attr.attr_set && mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return -errno;
	return AV_TAKE_FD(fd);
}

int mounts_probe_idmap(struct mounts *m, int userns_fd, int area_fd, int usr_fd)
{
	if (m->rootless || m->overlay == SPAWN_OVERLAY_SHIFTED) {
		m->native_upper = true;
		m->plain_lower = true;
		return 0;
	}
	AV_CLEANUP(av_closep) int upper = mounts_clone_layer(area_fd, "", userns_fd, false);
	if (upper < 0 && upper != -EINVAL)
		return upper;
	m->native_upper = upper < 0;
	if (usr_fd < 0)
		return 0;
	AV_CLEANUP(av_closep) int lower = mounts_clone_layer(usr_fd, "", userns_fd, true);
	if (lower < 0 && lower != -EINVAL)
		return lower;
	m->plain_lower = lower < 0;
	return 0;
}

/* An overlay being put together. */
struct overlay {
	const struct mounts *m;
	int ctx;         /* fs context */
	size_t attached; /* /l/a … are in use up to here (path `names`) */
	char lowerdir[2 * MOUNTS_LAYERS_MAX + 1];
};

static int set_string(int ctx, const char *key, const char *value)
{
	return fsconfig(ctx, FSCONFIG_SET_STRING, key, value, 0) < 0 ? -errno : 0;
}

static int add_lower(struct overlay *o, int layer_fd)
{
	if (o->m->overlay == SPAWN_OVERLAY_FD)
		return fsconfig(o->ctx, FSCONFIG_SET_FD, "lowerdir+", NULL, layer_fd) < 0 ? -errno
		                                                                          : 0;
	if (o->attached == MOUNTS_LAYERS_MAX)
		return -E2BIG;
	char name[2] = {mounts_layer_names[o->attached], '\0'};
	if (move_mount(layer_fd, "", o->m->names_fd, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	if (o->attached)
		o->lowerdir[2 * o->attached - 1] = ':';
	o->lowerdir[2 * o->attached] = name[0];
	o->attached++;
	return 0;
}

static int set_upper_fd(int ctx, const char *key, int upper_mnt, const char *dir)
{
	AV_CLEANUP(av_closep) int fd = openat(upper_mnt, dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fsconfig(ctx, FSCONFIG_SET_FD, key, NULL, fd) < 0 ? -errno : 0;
}

static int set_upper(struct overlay *o, const struct mounts_upper *u)
{
	char upper[32], work[40];
	const char *prefix = o->m->overlay == SPAWN_OVERLAY_FD ? "" : "u/";
	snprintf(upper, sizeof(upper), "%s%s", prefix, u->name);
	snprintf(work, sizeof(work), "%s%s-work", prefix, u->name);
	if (o->m->overlay == SPAWN_OVERLAY_FD) {
		int r = set_upper_fd(o->ctx, "upperdir", u->mnt, upper);
		return r < 0 ? r : set_upper_fd(o->ctx, "workdir", u->mnt, work);
	}
	int r = set_string(o->ctx, "upperdir", upper);
	return r < 0 ? r : set_string(o->ctx, "workdir", work);
}

static int set_options(struct overlay *o, bool writable)
{
	/* Without it taking an overlay down syncs the whole file system of the uppers, which is
	 * that of all sandboxes: deleting one would wait for what the others have written. The
	 * price: fsync inside does not reach the disk, which matters only when the host itself
	 * crashes. */
	if (writable && fsconfig(o->ctx, FSCONFIG_SET_FLAG, "volatile", NULL, 0) < 0)
		return -errno;
	if (o->m->rootless)
		return fsconfig(o->ctx, FSCONFIG_SET_FLAG, "userxattr", NULL, 0) < 0 ? -errno : 0;
	/* Renaming a directory of a lower layer works; redirects are trusted.* attributes, which
	 * nobody inside can write. */
	int r = set_string(o->ctx, "redirect_dir", "on");
	if (r == 0)
		r = set_string(o->ctx, "index", "off");
	return r < 0 ? r : set_string(o->ctx, "metacopy", "off");
}

static int configure_overlay(
    struct overlay *o, const int *lowers, size_t n_lowers, const struct mounts_upper *upper)
{
	int r = set_string(o->ctx, "source", "aviary");
	for (size_t i = 0; r == 0 && i < n_lowers; i++)
		r = add_lower(o, lowers[i]);
	if (r == 0 && o->attached)
		r = set_string(o->ctx, "lowerdir", o->lowerdir);
	if (r == 0 && upper)
		r = set_upper(o, upper);
	if (r == 0)
		r = set_options(o, upper != NULL);
	if (r < 0)
		return r;
	return fsconfig(o->ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ? -errno : 0;
}

/* Path `names`: relative to the working directory, looked up with the option since Linux 6.5, with
 * the creation before. */
static int create_overlay(
    struct overlay *o, const int *lowers, size_t n_lowers, const struct mounts_upper *upper)
{
	bool by_name = o->m->overlay != SPAWN_OVERLAY_FD;
	if (by_name && fchdir(o->m->names_fd) < 0)
		return -errno;
	int r = configure_overlay(o, lowers, n_lowers, upper);
	if (by_name && chdir("/") < 0 && r == 0)
		r = -errno;
	return r;
}

static void detach_names(const struct overlay *o)
{
	if (fchdir(o->m->names_fd) < 0)
		return;
	for (size_t i = 0; i < o->attached; i++) {
		char name[2] = {mounts_layer_names[i], '\0'};
		umount2(name, MNT_DETACH | UMOUNT_NOFOLLOW);
	}
	if (chdir("/") < 0)
		return;
}

/* Mounts with the ids of the range (the caller entered them); upper NULL: nothing in it can be
 * written. Detached; *ret_fd is the caller's. */
static int mount_overlay(const struct mounts *m, const int *lowers, size_t n_lowers,
    const struct mounts_upper *upper, int *ret_fd)
{
	AV_CLEANUP(av_closep) int ctx = fsopen("overlay", FSOPEN_CLOEXEC);
	if (ctx < 0)
		return -errno;
	struct overlay o = {.m = m, .ctx = ctx};
	int r = create_overlay(&o, lowers, n_lowers, upper);
	detach_names(&o);
	if (r < 0)
		return r;
	unsigned int attrs = MOUNT_ATTR_NODEV;
	if (!upper)
		attrs |= MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
	AV_CLEANUP(av_closep) int fd = fsmount(ctx, FSMOUNT_CLOEXEC, attrs);
	if (fd < 0)
		return -errno;
	struct statvfs st;
	if (fstatvfs(fd, &st) < 0)
		return -errno;
	if (upper && (st.f_flag & ST_RDONLY))
		return -EROFS; /* the kernel's log has overlayfs's reason */
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

void mounts_spend(struct mounts *m, const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		assert(m->n_spent < AV_ARRAY_LEN(m->spent));
		m->spent[m->n_spent++] = fds[i];
	}
}

static int clone_lowers(struct mounts *m, const struct mounts_layers *l, int userns_fd,
    int ret_fds[static MOUNTS_LAYERS_MAX])
{
	for (size_t i = 0; i < l->n; i++) {
		int map = m->rootless || m->overlay == SPAWN_OVERLAY_SHIFTED ? -1 : userns_fd;
		ret_fds[i] = mounts_clone_layer(l->fd[i], "", map, true);
		if (ret_fds[i] == -EINVAL && m->plain_lower)
			ret_fds[i] = mounts_clone_layer(l->fd[i], "", -1, true);
		if (ret_fds[i] < 0) {
			int r = ret_fds[i];
			mounts_spend(m, ret_fds, i);
			return r;
		}
	}
	return 0;
}

int mounts_build_overlay(struct mounts *m, const struct mounts_spec *spec,
    const struct mounts_layers *layers, const struct mounts_upper *upper, int *ret_fd)
{
	int lowers[MOUNTS_LAYERS_MAX];
	int r = clone_lowers(m, layers, spec->userns_fd, lowers);
	if (r < 0)
		return r;
	r = ids_enter(spec->ids, spec->slot);
	if (r == 0) {
		r = mount_overlay(m, lowers, layers->n, upper, ret_fd);
		ids_leave(spec->ids);
	}
	mounts_spend(m, lowers, layers->n);
	return r;
}
