/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_mount.c - mounts by descriptor
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/guest_internal.h"
#include "base/fd.h"

#include "base/banned.h"

int guest_open_dir(int dirfd, const char *name)
{
	struct open_how how = {
	    .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, dirfd, name, &how, sizeof(how));

	if (fd < 0 && errno == ENOENT && mkdirat(dirfd, name, 0755) == 0)
		fd = (int)syscall(SYS_openat2, dirfd, name, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

int guest_mount_new(const char *fs, const struct guest_option *options, unsigned int attrs)
{
	AV_CLEANUP(av_closep) int ctx = fsopen(fs, FSOPEN_CLOEXEC);
	int mnt;

	if (ctx < 0)
		return -errno;
	/* What tables of mounts show first. A second one would be refused. */
	if ((!options || !options->key || strcmp(options->key, "source") != 0) &&
	    fsconfig(ctx, FSCONFIG_SET_STRING, "source", fs, 0) < 0)
		return -errno;
	for (; options && options->key; options++)
		if ((options->value
		            ? fsconfig(ctx, FSCONFIG_SET_STRING, options->key, options->value, 0)
		            : fsconfig(ctx, FSCONFIG_SET_FLAG, options->key, NULL, 0)) < 0)
			return -errno;
	if (fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	mnt = fsmount(ctx, FSMOUNT_CLOEXEC, attrs);
	return mnt < 0 ? -errno : mnt;
}

int guest_attach(int mnt, int dirfd, const char *name)
{
	AV_CLEANUP(av_closep) int dir = guest_open_dir(dirfd, name);

	if (dir < 0)
		return dir;
	return move_mount(mnt, "", dir, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0
	           ? -errno
	           : 0;
}

int guest_mount_at(int dirfd, const char *name, const char *fs, const struct guest_option *options,
    unsigned int attrs)
{
	AV_CLEANUP(av_closep) int mnt = guest_mount_new(fs, options, attrs);

	return mnt < 0 ? mnt : guest_attach(mnt, dirfd, name);
}
