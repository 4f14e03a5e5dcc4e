/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_btrfs_ioctl.c - subvolumes and qgroups by ioctl (linux/btrfs.h, linux/btrfs_tree.h)
 *
 * Numbers in tree items are little-endian, as are the machines we run on (x86-64, aarch64); items
 * are copied out before they are read, as they have no alignment.
 */
#include "spawn/disk_btrfs.h"

#include <errno.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/path.h"
#include "base/banned.h"

#ifndef BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT
#define BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT (1ULL << 2)
#endif

static int call(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

static int qgroup_make(int fd, uint64_t qgroup, bool create)
{
	struct btrfs_ioctl_qgroup_create_args a = {.create = create, .qgroupid = qgroup};
	return call(fd, BTRFS_IOC_QGROUP_CREATE, &a);
}

int btrfs_quota_setup(int fd)
{
	struct btrfs_ioctl_quota_ctl_args a = {.cmd = BTRFS_QUOTA_CTL_ENABLE};
	int r = call(fd, BTRFS_IOC_QUOTA_CTL, &a);
	if (r < 0)
		return r;
	r = qgroup_make(fd, BTRFS_PARENT_QGROUP, true);
	return r == -EEXIST ? 0 : r;
}

/* The argument by which a new subvolume is counted with the others of ours. */
union inherit {
	struct btrfs_qgroup_inherit head;
	char room[sizeof(struct btrfs_qgroup_inherit) + sizeof(uint64_t)];
};

static void inherit_init(union inherit *in)
{
	const uint64_t parent = BTRFS_PARENT_QGROUP;
	*in = (union inherit){.head = {.num_qgroups = 1}};
	memcpy(in->room + sizeof(in->head), &parent, sizeof(parent));
}

int btrfs_subvol_create(int dirfd, const char *name, uint64_t limit)
{
	union inherit inherit;
	struct btrfs_ioctl_vol_args_v2 a = {
	    .flags = BTRFS_SUBVOL_QGROUP_INHERIT,
	    .size = sizeof(inherit),
	};
	inherit_init(&inherit);
	if (limit > 0) {
		inherit.head.flags = BTRFS_QGROUP_INHERIT_SET_LIMITS;
		inherit.head.lim.flags = BTRFS_QGROUP_LIMIT_MAX_RFER;
		inherit.head.lim.max_rfer = limit;
	}
	a.qgroup_inherit = &inherit.head;
	int r = av_path_printf(a.name, sizeof(a.name), "%s", name);
	return r < 0 ? r : call(dirfd, BTRFS_IOC_SUBVOL_CREATE_V2, &a);
}

int btrfs_snapshot_create(int dirfd, const char *name, int source_fd)
{
	union inherit inherit;
	struct btrfs_ioctl_vol_args_v2 a = {
	    .fd = source_fd,
	    .flags = BTRFS_SUBVOL_RDONLY | BTRFS_SUBVOL_QGROUP_INHERIT,
	    .size = sizeof(inherit),
	};
	inherit_init(&inherit);
	a.qgroup_inherit = &inherit.head;
	int r = av_path_printf(a.name, sizeof(a.name), "%s", name);
	return r < 0 ? r : call(dirfd, BTRFS_IOC_SNAP_CREATE_V2, &a);
}

int btrfs_subvol_generation(int fd, uint64_t *ret)
{
	struct btrfs_ioctl_get_subvol_info_args a = {0};
	int r = call(fd, BTRFS_IOC_GET_SUBVOL_INFO, &a);
	if (r == 0)
		*ret = a.generation;
	return r;
}

int btrfs_subvol_destroy(int dirfd, const char *name)
{
	struct btrfs_ioctl_vol_args a = {0};
	int r = av_path_printf(a.name, sizeof(a.name), "%s", name);
	return r < 0 ? r : call(dirfd, BTRFS_IOC_SNAP_DESTROY, &a);
}

int btrfs_subvol_id(int fd, uint64_t *ret)
{
	struct btrfs_ioctl_ino_lookup_args a = {.objectid = BTRFS_FIRST_FREE_OBJECTID};
	int r = call(fd, BTRFS_IOC_INO_LOOKUP, &a);
	if (r == 0)
		*ret = a.treeid;
	return r;
}

int btrfs_qgroup_limit(int fd, uint64_t qgroup, uint64_t limit)
{
	/* All ones takes a limit away. */
	struct btrfs_ioctl_qgroup_limit_args a = {
	    .qgroupid = qgroup,
	    .lim = {.flags = BTRFS_QGROUP_LIMIT_MAX_RFER, .max_rfer = limit ? limit : UINT64_MAX},
	};
	return call(fd, BTRFS_IOC_QGROUP_LIMIT, &a);
}

int btrfs_qgroup_destroy(int fd, uint64_t qgroup)
{
	int r = qgroup_make(fd, qgroup, false);
	return r == -ENOENT ? 0 : r;
}

/* One search for up to max items between two keys (objectid, type, offset). */
static int search(int fd, struct btrfs_ioctl_search_args *a, uint64_t tree, uint64_t min_object,
    uint64_t max_object, uint32_t type, uint64_t min_offset, uint64_t max_offset, uint32_t max)
{
	memset(&a->key, 0, sizeof(a->key));
	a->key.tree_id = tree;
	a->key.min_objectid = min_object;
	a->key.max_objectid = max_object;
	a->key.min_type = a->key.max_type = type;
	a->key.min_offset = min_offset;
	a->key.max_offset = max_offset;
	a->key.max_transid = UINT64_MAX;
	a->key.nr_items = max;
	return call(fd, BTRFS_IOC_TREE_SEARCH, a);
}

/* The item that follows *pos in the answer; its data begin at the returned pointer. */
static const char *next_item(
    const struct btrfs_ioctl_search_args *a, size_t *pos, struct btrfs_ioctl_search_header *ret)
{
	if (*pos + sizeof(*ret) > sizeof(a->buf))
		return NULL;
	memcpy(ret, a->buf + *pos, sizeof(*ret));
	if (ret->len > sizeof(a->buf) - *pos - sizeof(*ret))
		return NULL;
	const char *data = a->buf + *pos + sizeof(*ret);
	*pos += sizeof(*ret) + ret->len;
	return data;
}

static int read_item(int fd, uint32_t type, uint64_t offset, void *dst, size_t size)
{
	struct btrfs_ioctl_search_args a;
	struct btrfs_ioctl_search_header h;
	size_t pos = 0;
	int r = search(fd, &a, BTRFS_QUOTA_TREE_OBJECTID, 0, 0, type, offset, offset, 1);
	if (r < 0)
		return r;
	const char *data = a.key.nr_items == 1 ? next_item(&a, &pos, &h) : NULL;
	if (data == NULL)
		return -ENOENT;
	if (h.len < size)
		return -EIO;
	memcpy(dst, data, size);
	return 0;
}

int btrfs_qgroup_read(int fd, uint64_t qgroup, uint64_t *ret_used, uint64_t *ret_limit)
{
	struct btrfs_qgroup_info_item info;
	struct btrfs_qgroup_limit_item lim = {0};
	int r = read_item(fd, BTRFS_QGROUP_INFO_KEY, qgroup, &info, sizeof(info));
	if (r < 0)
		return r;
	r = read_item(fd, BTRFS_QGROUP_LIMIT_KEY, qgroup, &lim, sizeof(lim));
	if (r < 0 && r != -ENOENT)
		return r;
	*ret_used = info.rfer;
	*ret_limit = lim.flags & BTRFS_QGROUP_LIMIT_MAX_RFER ? lim.max_rfer : 0;
	return 0;
}

int btrfs_quota_keep_consistent(int fd)
{
	struct btrfs_qgroup_status_item st;
	int r = read_item(fd, BTRFS_QGROUP_STATUS_KEY, 0, &st, sizeof(st));
	if (r < 0 || !(st.flags & BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT))
		return r;
	struct btrfs_ioctl_quota_rescan_args a = {0};
	r = call(fd, BTRFS_IOC_QUOTA_RESCAN, &a);
	return r == -EINPROGRESS ? 0 : r;
}

/* 1 when the subvolume exists and has not been deleted; one that is still being freed has no
 * references any more. */
static int has_subvol(int fd, uint64_t subvol)
{
	struct btrfs_ioctl_search_args a;
	struct btrfs_ioctl_search_header h;
	struct btrfs_root_item item = {0};
	size_t pos = 0;
	int r = search(fd, &a, BTRFS_ROOT_TREE_OBJECTID, subvol, subvol, BTRFS_ROOT_ITEM_KEY, 0,
	    UINT64_MAX, 1);
	if (r < 0)
		return r;
	const char *data = a.key.nr_items == 1 ? next_item(&a, &pos, &h) : NULL;
	if (data == NULL)
		return 0;
	/* Older kernels write a shorter item. */
	memcpy(&item, data, h.len < sizeof(item) ? h.len : sizeof(item));
	return item.refs > 0;
}

int btrfs_find_stale(int fd, int (*on_id)(void *ctx, uint64_t subvol), void *ctx)
{
	struct btrfs_ioctl_search_args a;
	uint64_t from = BTRFS_FIRST_FREE_OBJECTID;
	for (;;) {
		int r = search(fd, &a, BTRFS_QUOTA_TREE_OBJECTID, 0, 0, BTRFS_QGROUP_INFO_KEY, from,
		    (1ULL << 48) - 1, 64);
		if (r < 0 || a.key.nr_items == 0)
			return r;
		size_t pos = 0;
		struct btrfs_ioctl_search_header h;
		for (uint32_t i = 0; i < a.key.nr_items; i++) {
			if (next_item(&a, &pos, &h) == NULL)
				return -EIO;
			from = h.offset + 1;
			r = has_subvol(fd, h.offset);
			if (r == 0)
				r = on_id(ctx, h.offset);
			else if (r == 1)
				r = 0;
			if (r != 0)
				return r;
		}
	}
}

int btrfs_grow(int fd)
{
	struct btrfs_ioctl_vol_args a = {0};
	int r = av_path_printf(a.name, sizeof(a.name), "1:max");
	return r < 0 ? r : call(fd, BTRFS_IOC_RESIZE, &a);
}

int btrfs_commit_soon(int fd)
{
	uint64_t transid = 0;
	return call(fd, BTRFS_IOC_START_SYNC, &transid);
}
