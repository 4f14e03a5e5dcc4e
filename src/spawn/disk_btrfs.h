/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_btrfs.h - the btrfs ioctls that disk_btrfs.c needs; no state of its own
 *
 * fd is any descriptor on the file system unless said otherwise. All return 0 or -errno, need
 * CAP_SYS_ADMIN and may wait for a transaction commit (milliseconds; a loaded disk longer).
 */
#pragma once

#include <stdint.h>

/* Level 1, number 1: all areas are its members. */
#define BTRFS_PARENT_QGROUP ((1ULL << 48) | 1)

/* Enables quotas (once per file system) and makes the parent qgroup. */
int btrfs_quota_setup(int fd);
/* Starts a rescan when the kernel says that its numbers are inconsistent. */
int btrfs_quota_keep_consistent(int fd);
/* dirfd's child `name`, with its qgroup a member of the parent and limited; limit 0: unlimited.
 * -EEXIST. */
int btrfs_subvol_create(int dirfd, const char *name, uint64_t limit);
/* A read-only snapshot `name` in dirfd of the subvolume that source_fd is the top of, its qgroup a
 * member of the parent. Kernels before 6.9 count everything again after it. */
int btrfs_snapshot_create(int dirfd, const char *name, int source_fd);
int btrfs_subvol_destroy(int dirfd, const char *name);
/* The number of the subvolume that fd lies in. */
int btrfs_subvol_id(int fd, uint64_t *ret);
/* Moves with each change of the subvolume that fd lies in. */
int btrfs_subvol_generation(int fd, uint64_t *ret);
/* limit 0: unlimited. */
int btrfs_qgroup_limit(int fd, uint64_t qgroup, uint64_t limit);
/* Bytes referenced as of the last commit, and the limit (0: none). -ENOENT. */
int btrfs_qgroup_read(int fd, uint64_t qgroup, uint64_t *ret_used, uint64_t *ret_limit);
/* -EBUSY while the subvolume is still being freed; 0 also when there is no such qgroup. */
int btrfs_qgroup_destroy(int fd, uint64_t qgroup);
/* Calls on_id for each level-0 qgroup whose subvolume was deleted (freed already or not); a
 * non-zero answer ends it and is returned. */
int btrfs_find_stale(int fd, int (*on_id)(void *ctx, uint64_t subvol), void *ctx);
/* The file system takes all of its device. */
int btrfs_grow(int fd);
/* Starts a commit, and after it the cleaner that frees deleted subvolumes; does not wait. */
int btrfs_commit_soon(int fd);
