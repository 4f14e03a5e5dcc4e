/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_quota.c - areas limited by project quotas (XFS, ext4)
 *
 * Theory of operation: the project id of an area is the first id of the sandbox's range, set on the
 * area's directory with PROJINHERIT, so that all below counts. Only the first user namespace may
 * change project ids (since Linux 4.5), so no guest can move its files to another project. Whether
 * quotas are really enforced is found out by trying: root with CAP_SYS_RESOURCE is exempt, so a
 * child without it writes too much.
 *
 * The limit that was asked for is kept in an extended attribute of the area. While the host file
 * system is below its reserve, areas are held at what they use; disk_step() restores them.
 */
#include "spawn/disk_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/banned.h"

#define LIMIT_XATTR   "trusted.aviary.limit"
#define PROBE_PROJECT 0x6fff0000u
#define PROBE_ID      "quota-probe"
#define CHECK_MS      2000
#define SLACK_BYTES   (1 * AV_MIB)

struct quota_state {
	bool clamped;
	int64_t next_check_ns;
};

static int quota_ctl(int fd, unsigned cmd, uint32_t id, struct if_dqblk *q)
{
	return syscall(SYS_quotactl_fd, fd, QCMD(cmd, PRJQUOTA), id, q) < 0 ? -errno : 0;
}

static int set_project(int dirfd, uint32_t project)
{
	struct fsxattr x;
	if (ioctl(dirfd, FS_IOC_FSGETXATTR, &x) < 0)
		return -errno;
	x.fsx_projid = project;
	x.fsx_xflags |= FS_XFLAG_PROJINHERIT;
	return ioctl(dirfd, FS_IOC_FSSETXATTR, &x) < 0 ? -errno : 0;
}

static int get_project(int dirfd, uint32_t *ret)
{
	struct fsxattr x;
	if (ioctl(dirfd, FS_IOC_FSGETXATTR, &x) < 0)
		return -errno;
	*ret = x.fsx_projid;
	return 0;
}

/* One inode per 4 KiB, and never fewer than a small tree needs. */
static uint64_t inodes_for(uint64_t limit)
{
	return limit == 0 ? 0 : AV_MAX(limit / 4096, (uint64_t)4096);
}

static int set_limit(int fd, uint32_t project, uint64_t bytes, uint64_t inodes)
{
	struct if_dqblk q = {
	    .dqb_bhardlimit = (bytes + QIF_DQBLKSIZE - 1) >> QIF_DQBLKSIZE_BITS,
	    .dqb_ihardlimit = inodes,
	    .dqb_valid = QIF_LIMITS,
	};
	return quota_ctl(fd, Q_SETQUOTA, project, &q);
}

static int drop_sys_resource(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct c[2];
	if (syscall(SYS_capget, &h, c) < 0)
		return -errno;
	c[0].effective &= ~(1u << CAP_SYS_RESOURCE);
	return syscall(SYS_capset, &h, c) < 0 ? -errno : 0;
}

/* In a child: 0 when a write over the limit was refused. */
static int write_too_much(int dirfd)
{
	static const char block[64 * 1024];
	if (drop_sys_resource() < 0)
		return 1;
	int fd = openat(dirfd, "x", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	for (int i = 0; fd >= 0 && i < 16; i++)
		if (write(fd, block, sizeof(block)) < 0)
			return errno == EDQUOT || errno == ENOSPC ? 0 : 1;
	return 1;
}

static int try_for_real(int dirfd)
{
	int r = set_project(dirfd, PROBE_PROJECT);
	if (r == 0)
		r = set_limit(dirfd, PROBE_PROJECT, 128 * 1024, 0);
	if (r < 0)
		return r;
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(write_too_much(dirfd));
	int status = 0;
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	(void)set_limit(dirfd, PROBE_PROJECT, 0, 0);
	return status == 0 ? 0 : -EOPNOTSUPP;
}

static int quota_setup(struct disk *d, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = -1;
	if (d->rootless)
		return av_err_set(err, AV_ERR_UNSUPPORTED, "project quotas need root");
	int r = disk_area_build(d, PROBE_ID, &fd, err);
	if (r < 0)
		return r;
	d->trash_count++;
	r = try_for_real(fd);
	if (r < 0)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "the file system of %s enforces no project quotas (%s): mount it with prjquota",
		    d->state_name, strerrorname_np(-r));
	d->mode_state = calloc(1, sizeof(struct quota_state));
	return d->mode_state ? 0 : av_err_set(err, AV_ERR_NO_MEMORY, "no memory");
}

static void quota_teardown(struct disk *d)
{
	free(d->mode_state);
	d->mode_state = NULL;
}

static int prepare(int fd, uint64_t limit, uid_t owner)
{
	char text[24];
	int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)limit);
	if (fsetxattr(fd, LIMIT_XATTR, text, (size_t)n, 0) < 0)
		return -errno;
	/* The limit first: that of the range's last owner may be used up by what is still being
	 * freed, and then the directory could not join. */
	int r = set_limit(fd, owner, limit, inodes_for(limit));
	return r < 0 ? r : set_project(fd, owner);
}

static int quota_create(
    struct disk *d, const char *id, uint64_t limit, uid_t owner, int *ret_dirfd, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = -1;
	int r = disk_area_build(d, id, &fd, err);
	if (r == 0) {
		r = prepare(fd, limit, owner);
		if (r < 0)
			(void)av_err_sys(
			    err, AV_ERR_INTERNAL, r, "cannot set the disk quota of sandbox %s", id);
	}
	if (r == 0)
		r = disk_area_publish(d, id, fd, owner, err);
	if (r < 0) {
		d->trash_count++;
		return r;
	}
	*ret_dirfd = AV_TAKE_FD(fd);
	return 0;
}

static uint64_t asked_limit(int fd)
{
	char text[24];
	uint64_t v = 0;
	ssize_t n = fgetxattr(fd, LIMIT_XATTR, text, sizeof(text));
	return n > 0 && av_parse_u64(av_str_n(text, (size_t)n), 0, UINT64_MAX, &v) == 0 ? v : 0;
}

static int quota_usage(struct disk *d, const char *id, struct disk_usage *ret)
{
	AV_CLEANUP(av_closep) int fd = -1;
	struct if_dqblk q = {0};
	uint32_t project = 0;
	int r = disk_area_open(d, id, &fd, NULL);
	if (r == 0)
		r = get_project(fd, &project);
	if (r == 0)
		r = quota_ctl(fd, Q_GETQUOTA, project, &q);
	if (r < 0)
		return r;
	*ret = (struct disk_usage){.used_bytes = q.dqb_curspace, .limit_bytes = asked_limit(fd)};
	return 0;
}

/* Holds an area at what it uses, or gives it its limit back. */
static int clamp_one(void *ctx, const char *id, uid_t owner, bool removing)
{
	struct disk *d = ctx;
	const struct quota_state *s = d->mode_state;
	AV_CLEANUP(av_closep) int fd = -1;
	struct if_dqblk q = {0};
	if (removing || disk_area_open(d, id, &fd, NULL) < 0 ||
	    quota_ctl(fd, Q_GETQUOTA, owner, &q) < 0)
		return 0;
	uint64_t limit = asked_limit(fd), hold = q.dqb_curspace + SLACK_BYTES;
	if (s->clamped && (limit == 0 || hold < limit))
		limit = hold;
	(void)set_limit(fd, owner, limit, inodes_for(asked_limit(fd)));
	return 0;
}

static int quota_step(struct disk *d, int64_t deadline_ns)
{
	struct quota_state *s = d->mode_state;
	int64_t now = av_mono_ns();
	uint64_t space, total;
	if (now >= s->next_check_ns && disk_host_space(d, &space, &total) == 0) {
		uint64_t reserve = disk_reserve(d, total);
		bool low = space < reserve + (s->clamped ? reserve / 4 : 0);
		if (low != s->clamped) {
			s->clamped = low;
			(void)disk_area_list(d, clamp_one, d);
		}
		s->next_check_ns = now + CHECK_MS * AV_NS_PER_MS;
	}
	return AV_MIN(disk_area_step(d, deadline_ns), CHECK_MS);
}

const struct disk_ops disk_quota_ops = {
    .mode = DISK_MODE_QUOTA,
    .setup = quota_setup,
    .teardown = quota_teardown,
    .create = quota_create,
    .open = disk_area_open,
    .usage = quota_usage,
    .remove = disk_area_remove,
    .step = quota_step,
    .list = disk_area_list,
};
