/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_internal.h - shared by disk.c and disk_*.c
 *
 * All modes but btrfs keep one directory <state>/sandboxes/<id> per area and remove it by renaming
 * it into <state>/trash, where disk_area_step() takes it apart. A new area is built in trash as
 * well and renamed into sandboxes when it is complete: so what a crash leaves half-made is trash
 * already.
 */
#pragma once

#include "base/macros.h"
#include "spawn/disk.h"

#define DISK_PATH_SIZE 512

struct disk_ops {
	enum disk_mode mode;
	/* Prepares the mode. On failure it leaves nothing behind and says why in err. */
	int (*setup)(struct disk *d, struct av_err *err);
	void (*teardown)(struct disk *d);
	int (*create)(struct disk *d, const char *id, uint64_t limit, uid_t owner, int *ret_dirfd,
	    struct av_err *err);
	int (*open)(struct disk *d, const char *id, int *ret_dirfd, struct av_err *err);
	void (*done)(struct disk *d, const char *id);
	int (*usage)(struct disk *d, const char *id, struct disk_usage *ret);
	int (*remove)(struct disk *d, const char *id, struct av_err *err);
	int (*step)(struct disk *d, int64_t deadline_ns);
	int (*list)(struct disk *d,
	    int (*on_area)(void *ctx, const char *id, uid_t owner, bool removing), void *ctx);
	/* Layers; NULL where there are none. */
	int (*layer_snapshot)(struct disk *d, const char *id, const char *name);
	int (*layer_make)(struct disk *d, const char *name, int *ret_dirfd);
	int (*layer_finish)(struct disk *d, const char *from, const char *name);
	int (*layer_open)(struct disk *d, const char *name, int *ret_dirfd);
	int (*layer_remove)(struct disk *d, const char *name);
	int (*layer_list)(struct disk *d, int (*on_layer)(void *ctx, const char *name), void *ctx);
	/* Unmounts and deletes what setup made; areas are gone already. */
	int (*cleanup)(struct disk *d, struct av_err *err);
};

extern const struct disk_ops disk_quota_ops, disk_btrfs_ops, disk_loop_ops, disk_tmpfs_ops,
    disk_none_ops;

struct disk {
	const struct disk_ops *ops;
	char state_dir[DISK_PATH_SIZE];
	char state_name[DISK_PATH_SIZE];
	char mount_dir[DISK_PATH_SIZE];
	bool rootless;
	uint64_t image_bytes;
	uint64_t reserve_bytes;
	char reason[1000];
	int state_fd; /* owned */
	int areas_fd; /* owned; <state>/sandboxes */
	int trash_fd; /* owned; <state>/trash */
	unsigned trash_count;
	bool trees;            /* mode btrfs: there may be plain trees in the trash */
	uint64_t trash_serial; /* names of what disk_area_step() moves up */
	void *mode_state;      /* owned by the mode: setup to teardown */
};

/* disk.c */
bool disk_id_ok(const char *id);
/* Free and total bytes for ordinary users of the state directory's file system. */
int disk_host_space(const struct disk *d, uint64_t *ret_free, uint64_t *ret_total);
/* What the host file system keeps free. */
uint64_t disk_reserve(const struct disk *d, uint64_t total);
/* Runs the first of the NULL-terminated programs that exists, standard streams at /dev/null, and
 * waits. -ENOENT when none does, -EIO when it fails. */
int disk_run(const char *const *programs, char *const argv[]);

/* disk_area.c: plain directories. See the head of this file. */
/* An empty directory <trash>/new-<id>, root's, and its descriptor. */
int disk_area_build(struct disk *d, const char *id, int *ret_dirfd, struct av_err *err);
/* Gives it to owner and renames it to <areas>/<id>. -EEXIST. On failure it stays in the trash. */
int disk_area_publish(struct disk *d, const char *id, int dirfd, uid_t owner, struct av_err *err);
/* build and publish in one. */
int disk_area_create(
    struct disk *d, const char *id, uid_t owner, int *ret_dirfd, struct av_err *err);
int disk_area_open(struct disk *d, const char *id, int *ret_dirfd, struct av_err *err);
int disk_area_remove(struct disk *d, const char *id, struct av_err *err);
/* Frees trash until deadline_ns (monotonic). Milliseconds until it wants to go on. */
int disk_area_step(struct disk *d, int64_t deadline_ns);
/* Moves a tree into the trash under a fresh name. */
int disk_area_trash(struct disk *d, int dirfd, const char *name);
int disk_area_list(struct disk *d,
    int (*on_area)(void *ctx, const char *id, uid_t owner, bool removing), void *ctx);

/* disk_mount.c: mounts by descriptor. Options are key, value pairs ended by NULL; an empty value is
 * a flag. The mount is nosuid,nodev,noatime. Descriptors are the caller's. */
int disk_mount(const char *type, const char *const *options, int *ret_fd);
int disk_mount_attach(int mount_fd, const char *path);
/* Lazily; 0 when nothing is mounted there. */
int disk_mount_detach(const char *path);

/* disk_loopdev.c */
/* The loop device whose backing file is file_fd: an existing one if there is (a sandbox may hold it
 * since before a restart), else a new one that clears itself after the last user. path gets
 * "/dev/loopN" (32 bytes). The descriptor keeps it until it is mounted. */
int disk_loop_attach(
    int file_fd, const char *label, char path[static 32], int *ret_fd, bool *ret_existing);
/* The device takes over a new size of its file. */
int disk_loop_resize(int loop_fd);
