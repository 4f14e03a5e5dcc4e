/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.c - choosing how areas are limited, and what all ways have in common
 */
#include "spawn/disk_btrfs.h"
#include "spawn/disk_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

#define RESERVE_MIN     (2 * AV_GIB)
#define RESERVE_PERCENT 5

static const char *const mode_names[] = {"auto", "quota", "btrfs", "loop", "tmpfs", "none"};

const char *disk_mode_name(enum disk_mode mode)
{
	return (size_t)mode < AV_ARRAY_LEN(mode_names) ? mode_names[mode] : "none";
}

int disk_mode_parse(const char *s, enum disk_mode *ret)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(mode_names); i++)
		if (strcmp(s, mode_names[i]) == 0) {
			*ret = (enum disk_mode)i;
			return 0;
		}
	return -EINVAL;
}

bool disk_id_ok(const char *id)
{
	size_t n = strlen(id);
	return n > 0 && n <= DISK_ID_MAX && id[0] != '.' && strchr(id, '/') == NULL;
}

int disk_host_space(const struct disk *d, uint64_t *ret_free, uint64_t *ret_total)
{
	struct statvfs v;
	if (fstatvfs(d->state_fd, &v) < 0)
		return -errno;
	*ret_free = (uint64_t)v.f_bavail * v.f_frsize;
	*ret_total = (uint64_t)v.f_blocks * v.f_frsize;
	return 0;
}

uint64_t disk_reserve(const struct disk *d, uint64_t total)
{
	if (d->reserve_bytes > 0)
		return d->reserve_bytes;
	return AV_MAX(total / 100 * RESERVE_PERCENT, (uint64_t)RESERVE_MIN);
}

uint64_t disk_free_bytes(const struct disk *d)
{
	uint64_t space = 0, total;
	return disk_host_space(d, &space, &total) == 0 ? space : 0;
}

int disk_check_space(struct disk *d, struct av_err *err)
{
	uint64_t space = 0, total = 0;
	char a[24], b[24];
	int r = disk_host_space(d, &space, &total);
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, r, "cannot see the free space of %s", d->state_name);
	uint64_t reserve = disk_reserve(d, total);
	if (space >= reserve)
		return 0;
	(void)av_err_set(err, AV_ERR_NO_SPACE,
	    "the file system of %s has %s free, below the reserve of %s (%s) that the machine "
	    "keeps: delete sandboxes or files, or use a larger disk",
	    d->state_name, av_format_size(space, a), av_format_size(reserve, b),
	    d->reserve_bytes ? "as configured" : "5 %, at least 2 GiB");
	return -ENOSPC;
}

int disk_run(const char *const *programs, char *const argv[])
{
	static char env_path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin", env_lang[] = "LC_ALL=C";
	char *env[] = {env_path, env_lang, NULL};
	while (*programs != NULL && access(*programs, X_OK) < 0)
		programs++;
	if (*programs == NULL)
		return -ENOENT;
	posix_spawn_file_actions_t fa;
	if (posix_spawn_file_actions_init(&fa) != 0)
		return -ENOMEM;
	int r = 0;
	for (int fd = 0; fd <= 2 && r == 0; fd++)
		r = posix_spawn_file_actions_addopen(&fa, fd, "/dev/null", O_RDWR, 0);
	pid_t pid = -1;
	if (r == 0)
		r = posix_spawn(&pid, *programs, &fa, NULL, argv, env);
	posix_spawn_file_actions_destroy(&fa);
	if (r != 0)
		return -r;
	int status = 0;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status == 0 ? 0 : -EIO;
}

/* Set-up */

static int open_subdir(int state_fd, const char *name, int *ret)
{
	if (mkdirat(state_fd, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	int fd = openat(state_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret = fd;
	return fchmod(fd, 0700) < 0 ? -errno : 0;
}

static int open_dirs(struct disk *d, const struct disk_config *cfg, struct av_err *err)
{
	int r = av_path_printf(d->state_dir, sizeof(d->state_dir), "%s", cfg->state_dir);
	if (r == 0)
		r = av_path_printf(d->state_name, sizeof(d->state_name), "%s",
		    cfg->state_name ? cfg->state_name : cfg->state_dir);
	if (r == 0)
		r = av_path_printf(d->mount_dir, sizeof(d->mount_dir), "%s", cfg->mount_dir);
	if (r < 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "the path of the state directory is too long");
	d->state_fd = open(cfg->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = d->state_fd < 0 ? -errno : open_subdir(d->state_fd, "sandboxes", &d->areas_fd);
	if (r == 0)
		r = open_subdir(d->state_fd, "trash", &d->trash_fd);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot use the state directory %s",
	                   d->state_name)
	             : 0;
}

static void add_reason(struct disk *d, enum disk_mode mode, const char *message)
{
	size_t n = strlen(d->reason);
	(void)snprintf(d->reason + n, sizeof(d->reason) - n, "%sno %s: %s", n ? "; " : "",
	    disk_mode_name(mode), message);
}

static int choose(struct disk *d, const struct disk_config *cfg, struct av_err *err)
{
	static const struct disk_ops *const as_root[] = {
	    &disk_quota_ops, &disk_btrfs_ops, &disk_loop_ops, &disk_none_ops};
	static const struct disk_ops *const as_user[] = {&disk_tmpfs_ops, &disk_none_ops};
	static const struct disk_ops *const all[] = {
	    &disk_quota_ops, &disk_btrfs_ops, &disk_loop_ops, &disk_tmpfs_ops, &disk_none_ops};
	const struct disk_ops *const *list = cfg->rootless ? as_user : as_root;
	size_t n = cfg->rootless ? AV_ARRAY_LEN(as_user) : AV_ARRAY_LEN(as_root);
	if (cfg->mode != DISK_MODE_AUTO) {
		list = all;
		n = AV_ARRAY_LEN(all);
	}
	for (size_t i = 0; i < n; i++) {
		if (cfg->mode != DISK_MODE_AUTO && cfg->mode != list[i]->mode)
			continue;
		struct av_err why = {0};
		int r = list[i]->setup(d, &why);
		if (r == 0) {
			d->ops = list[i];
			return 0;
		}
		if (cfg->mode != DISK_MODE_AUTO) {
			if (err != NULL)
				*err = why;
			return r;
		}
		add_reason(d, list[i]->mode, why.message);
	}
	return av_err_set(err, AV_ERR_INVALID, "unknown disk mode");
}

int disk_new(const struct disk_config *cfg, struct disk **ret, struct av_err *err)
{
	struct disk *d = calloc(1, sizeof(*d));
	if (d == NULL)
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory for the disk module");
	d->state_fd = d->areas_fd = d->trash_fd = -1;
	d->rootless = cfg->rootless;
	d->image_bytes = cfg->image_bytes;
	d->reserve_bytes = cfg->reserve_bytes;
	d->trees = true;
	d->trash_count = 1; /* whatever is there: the first step looks */
	int r = open_dirs(d, cfg, err);
	if (r == 0)
		r = choose(d, cfg, err);
	if (r < 0) {
		disk_free(d);
		return r;
	}
	*ret = d;
	return 0;
}

void disk_free(struct disk *d)
{
	if (d == NULL)
		return;
	if (d->ops != NULL && d->ops->teardown != NULL)
		d->ops->teardown(d);
	av_close_fd(&d->areas_fd);
	av_close_fd(&d->trash_fd);
	av_close_fd(&d->state_fd);
	free(d);
}

enum disk_mode disk_mode(const struct disk *d)
{
	return d->ops->mode;
}

bool disk_limits_enforced(const struct disk *d)
{
	return d->ops->mode != DISK_MODE_NONE;
}

const char *disk_reason(const struct disk *d)
{
	return d->reason;
}

unsigned disk_trash_count(const struct disk *d)
{
	return d->trash_count;
}

/* Areas */

int disk_create(struct disk *d, const char *id, uint64_t limit_bytes, uid_t owner, int *ret_dirfd,
    struct av_err *err)
{
	if (!disk_id_ok(id))
		return av_err_set(err, AV_ERR_INVALID, "bad sandbox id");
	int r = d->ops->mode == DISK_MODE_TMPFS ? 0 : disk_check_space(d, err);
	if (r < 0)
		return r;
	if (limit_bytes > 0)
		limit_bytes = AV_MAX(limit_bytes, (uint64_t)DISK_LIMIT_MIN);
	return d->ops->create(d, id, limit_bytes, owner, ret_dirfd, err);
}

int disk_open(struct disk *d, const char *id, int *ret_dirfd, struct av_err *err)
{
	if (!disk_id_ok(id))
		return av_err_set(err, AV_ERR_INVALID, "bad sandbox id");
	return d->ops->open(d, id, ret_dirfd, err);
}

void disk_done(struct disk *d, const char *id)
{
	if (d->ops->done != NULL && disk_id_ok(id))
		d->ops->done(d, id);
}

int disk_usage(struct disk *d, const char *id, struct disk_usage *ret)
{
	return disk_id_ok(id) ? d->ops->usage(d, id, ret) : -EINVAL;
}

int disk_sample(struct disk *d, const char *id, uint64_t *ret_used)
{
	char path[DISK_ID_MAX + 16];
	struct disk_usage usage;
	struct stat st;
	int r = disk_id_ok(id) ? 0 : -EINVAL;

	if (r == 0 && d->ops->mode == DISK_MODE_LOOP) {
		r = av_path_printf(path, sizeof(path), "%s/image", id);
		if (r == 0 && fstatat(d->areas_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
			r = -errno;
		if (r == 0)
			*ret_used = (uint64_t)st.st_blocks * 512;
		return r;
	}
	if (r == 0 && d->ops->mode != DISK_MODE_QUOTA && d->ops->mode != DISK_MODE_BTRFS)
		r = -EOPNOTSUPP;
	if (r == 0)
		r = d->ops->usage(d, id, &usage);
	if (r == 0)
		*ret_used = usage.used_bytes;
	return r;
}

int disk_remove(struct disk *d, const char *id, struct av_err *err)
{
	if (!disk_id_ok(id))
		return av_err_set(err, AV_ERR_INVALID, "bad sandbox id");
	return d->ops->remove(d, id, err);
}

/* Mode btrfs counts something else as trash. */
static int step_trees(struct disk *d, int64_t deadline_ns)
{
	unsigned kept = d->trash_count;
	d->trash_count = 1;
	int ms = disk_area_step(d, deadline_ns);
	d->trees = d->trash_count > 0;
	d->trash_count = kept;
	return ms;
}

int disk_step(struct disk *d, int64_t budget_us)
{
	int64_t deadline_ns = av_mono_ns() + budget_us * 1000;
	int ms = d->ops->step(d, deadline_ns);
	if (d->ops->step == disk_area_step || !d->trees || av_mono_ns() >= deadline_ns)
		return ms;
	return AV_MIN(ms, step_trees(d, deadline_ns));
}

int disk_trash(struct disk *d, int dirfd, const char *name)
{
	int r = disk_area_trash(d, dirfd, name);
	d->trees = true;
	if (d->ops->step == disk_area_step)
		d->trash_count++;
	return r;
}

/* Layers */

int disk_layer_snapshot(struct disk *d, const char *id, const char *name)
{
	if (!d->ops->layer_snapshot)
		return -EOPNOTSUPP;
	return disk_id_ok(id) && disk_id_ok(name) ? d->ops->layer_snapshot(d, id, name) : -EINVAL;
}

int disk_layer_make(struct disk *d, const char *name, int *ret_dirfd)
{
	if (!d->ops->layer_make)
		return -EOPNOTSUPP;
	return disk_id_ok(name) ? d->ops->layer_make(d, name, ret_dirfd) : -EINVAL;
}

int disk_layer_finish(struct disk *d, const char *from, const char *name)
{
	if (!d->ops->layer_finish)
		return -EOPNOTSUPP;
	return disk_id_ok(from) && disk_id_ok(name) ? d->ops->layer_finish(d, from, name) : -EINVAL;
}

int disk_layer_open(struct disk *d, const char *name, int *ret_dirfd)
{
	if (!d->ops->layer_open)
		return -EOPNOTSUPP;
	return disk_id_ok(name) ? d->ops->layer_open(d, name, ret_dirfd) : -EINVAL;
}

int disk_layer_remove(struct disk *d, const char *name)
{
	if (!d->ops->layer_remove)
		return 0;
	return disk_id_ok(name) ? d->ops->layer_remove(d, name) : -EINVAL;
}

int disk_layer_list(struct disk *d, int (*on_layer)(void *ctx, const char *name), void *ctx)
{
	return d->ops->layer_list ? d->ops->layer_list(d, on_layer, ctx) : 0;
}

int disk_layer_generation(int fd, uint64_t *ret)
{
	return btrfs_subvol_generation(fd, ret);
}

int disk_list(struct disk *d, int (*on_area)(void *ctx, const char *id, uid_t owner, bool removing),
    void *ctx)
{
	return d->ops->list(d, on_area, ctx);
}

static int remove_one(void *ctx, const char *id, uid_t owner, bool removing)
{
	(void)owner;
	return removing ? 0 : disk_remove(ctx, id, NULL);
}

int disk_cleanup(struct disk *d, struct av_err *err)
{
	int r = disk_list(d, remove_one, d);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot remove the disk areas");
	d->trash_count = AV_MAX(d->trash_count, 1u);
	for (int i = 0; i < 60000 && disk_area_step(d, av_mono_ns() + AV_NS_PER_S) == 0; i++)
		;
	if (d->ops->cleanup != NULL) {
		r = d->ops->cleanup(d, err);
		if (r < 0)
			return r;
	}
	if ((unlinkat(d->state_fd, "sandboxes", AT_REMOVEDIR) < 0 && errno != ENOENT) ||
	    (unlinkat(d->state_fd, "trash", AT_REMOVEDIR) < 0 && errno != ENOENT))
		return av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "cannot remove what is below %s", d->state_name);
	return 0;
}
