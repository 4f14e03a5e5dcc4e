/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.h - the writable area of each sandbox, with a hard limit on its size
 *
 * One interface over five ways to limit (DESIGN: disk limit):
 *
 *   quota   project quotas of the file system that holds the state directory (XFS, ext4)
 *   btrfs   one sparse image <state>/disk.img with btrfs, a subvolume and qgroup per sandbox
 *   loop    one sparse ext4 image per sandbox
 *   tmpfs   one tmpfs per sandbox (rootless: memory is the disk, lost with the machine)
 *   none    plain directories: nothing is limited, and doctor says so
 *
 * An area is a directory that only the worker can reach. Its owner is the first id of the sandbox's
 * range, so that the disk itself tells which range is in use. What is mounted (btrfs, loop, tmpfs)
 * is attached below mount_dir in the mount namespace of the caller, nosuid,nodev: call disk_new()
 * in the worker's own private mount namespace. btrfs keeps one mount there for good; loop and tmpfs
 * attach one per area only between disk_create() or disk_open() and disk_done(), since each mount
 * in the namespace makes every later clone of it slower.
 *
 * Removing takes an area out of sight at once and frees it later, in disk_step(). An area being
 * freed still owns its id range (quota counts against it) and is listed with removing = true.
 *
 * Single-threaded. Ids are checked file names, at most DISK_ID_MAX bytes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macros.h"

#define DISK_ID_MAX 64
#define DISK_LIMIT_MIN                                                                             \
	(16 * AV_MIB) /* smaller limits are raised to this (file system overhead)                  \
	               */

enum disk_mode {
	DISK_MODE_AUTO,
	DISK_MODE_QUOTA,
	DISK_MODE_BTRFS,
	DISK_MODE_LOOP,
	DISK_MODE_TMPFS,
	DISK_MODE_NONE,
};
/* "auto", "quota", "btrfs", "loop", "tmpfs", "none" */
const char *disk_mode_name(enum disk_mode mode);
/* -EINVAL for other words. */
int disk_mode_parse(const char *s, enum disk_mode *ret);

struct disk_config {
	const char *state_dir;  /* absolute, as the caller sees it; exists; owned by the caller */
	const char *state_name; /* the same for people, in messages; NULL: state_dir */
	const char *mount_dir;  /* absolute; an empty directory to mount at (btrfs) or below */
	enum disk_mode mode; /* AUTO: the first of quota, btrfs, loop that works (as root); tmpfs */
	bool rootless;       /* the caller is root only of its own user namespace */
	uint64_t
	    image_bytes; /* size of the btrfs image; 0: 80 % of what is free above the reserve */
	uint64_t reserve_bytes; /* what the host file system keeps; 0: max(5 %, 2 GiB) */
};

struct disk_usage {
	uint64_t used_bytes;  /* btrfs: as of the last commit, up to 30 s ago */
	uint64_t limit_bytes; /* 0: unlimited */
};

struct disk;

/* Chooses the mode, makes or mounts what it needs (mkfs.btrfs runs only when there is no image yet:
 * up to a second), finds what an earlier worker left. A mode that was asked for by name and does
 * not work is an error that says why and what to do; AUTO falls through to the next.
 * The caller frees with disk_free(). */
int disk_new(const struct disk_config *cfg, struct disk **ret, struct av_err *err) AV_MUST_CHECK;
/* Closes descriptors; mounts stay with the mount namespace. */
void disk_free(struct disk *d);

enum disk_mode disk_mode(const struct disk *d);
/* False for mode none. */
bool disk_limits_enforced(const struct disk *d);
/* Why the better modes were passed over; "" when there are none. Borrowed from d. */
const char *disk_reason(const struct disk *d);

/* Makes the area, empty, owned by owner:owner, mode 0700, and gives its descriptor (the caller's;
 * O_DIRECTORY|O_CLOEXEC, good for openat, mkdirat and open_tree). All or nothing. -EEXIST; NO_SPACE
 * when the host file system is below its reserve: the message names limit and cure.
 * tmpfs takes its memory from the sandbox's memory limit. Rootless: owner is ignored. */
int disk_create(struct disk *d, const char *id, uint64_t limit_bytes, uid_t owner, int *ret_dirfd,
    struct av_err *err) AV_MUST_CHECK;
/* -ENOENT when there is none (or it is being freed). loop and tmpfs: attaches the image again after
 * a restart; a tmpfs that went with its namespace is -ESTALE. */
int disk_open(struct disk *d, const char *id, int *ret_dirfd, struct av_err *err) AV_MUST_CHECK;
/* The caller has cloned what it needs of the area's mount: loop and tmpfs detach it from the
 * namespace (open descriptors and clones keep it alive); nothing to do in the other modes. */
void disk_done(struct disk *d, const char *id);
/* -ENOENT as above. loop and tmpfs: through disk_open() and disk_done(). */
int disk_usage(struct disk *d, const char *id, struct disk_usage *ret) AV_MUST_CHECK;
/* Used bytes, where that takes microseconds (quota, btrfs, loop: what the image holds); else
 * -EOPNOTSUPP. -ENOENT as above. */
int disk_sample(struct disk *d, const char *id, uint64_t *ret_used) AV_MUST_CHECK;
/* Out of sight now, freed by disk_step(). 0 also when there is no such area. The sandbox should be
 * dead; open files keep their blocks until closed. */
int disk_remove(struct disk *d, const char *id, struct av_err *err) AV_MUST_CHECK;
/* One bounded piece (about budget_us microseconds) of background work: freeing removed areas, stale
 * qgroups, the watermark. Returns milliseconds until it wants to be called again: 0 for at once. */
int disk_step(struct disk *d, int64_t budget_us);
/* Calls on_area for each area, also those being freed; non-zero ends the walk and is returned.
 * owner is the first id of its range. on_area may remove the one it is given. */
int disk_list(struct disk *d, int (*on_area)(void *ctx, const char *id, uid_t owner, bool removing),
    void *ctx);
/* For `aviary cleanup`, with no sandbox left: removes all areas, unmounts, deletes images and the
 * directories made here. d remains to be freed. Blocks until done. */
int disk_cleanup(struct disk *d, struct av_err *err) AV_MUST_CHECK;
/* Areas removed but not freed yet. */
unsigned disk_trash_count(const struct disk *d);

/* ---- layers: read-only snapshots of areas, in the btrfs image only ---- */

/* Makes layer `name` of the area as it is now; waits for what is dirty to be written, not for its
 * size. -EOPNOTSUPP in the other modes; -EEXIST. */
int disk_layer_snapshot(struct disk *d, const char *id, const char *name) AV_MUST_CHECK;
/* An empty one that is being filled, with its top directory: root's, mode 0700. -EEXIST. */
int disk_layer_make(struct disk *d, const char *name, int *ret_dirfd) AV_MUST_CHECK;
/* Layer `name` of such a one as it is now, in the same way as of an area; `from` remains. */
int disk_layer_finish(struct disk *d, const char *from, const char *name) AV_MUST_CHECK;
/* Its top directory. -ENOENT, -EOPNOTSUPP. */
int disk_layer_open(struct disk *d, const char *name, int *ret_dirfd) AV_MUST_CHECK;
/* A number that every change of the layer moves. fd: anything in the layer. */
int disk_layer_generation(int fd, uint64_t *ret) AV_MUST_CHECK;
/* 0 also when there is none, or none can be. */
int disk_layer_remove(struct disk *d, const char *name) AV_MUST_CHECK;
int disk_layer_list(
    struct disk *d, int (*on_layer)(void *ctx, const char *name), void *ctx) AV_MUST_CHECK;
/* Moves any tree of the state directory out of sight, to be freed in disk_step(). -ENOENT. */
int disk_trash(struct disk *d, int dirfd, const char *name) AV_MUST_CHECK;

/* Free bytes of the host file system below the state directory, for ordinary users. */
uint64_t disk_free_bytes(const struct disk *d);
/* 0, or NO_SPACE with the sentence for people. What disk_create() checks first. */
int disk_check_space(struct disk *d, struct av_err *err) AV_MUST_CHECK;
