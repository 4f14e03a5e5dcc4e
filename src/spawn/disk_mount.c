/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_mount.c - mounting file systems by descriptor
 */
#include "spawn/disk_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>

#include "base/fd.h"
#include "base/banned.h"

int disk_mount(const char *type, const char *const *options, int *ret_fd)
{
	AV_CLEANUP(av_closep) int fs = fsopen(type, FSOPEN_CLOEXEC);
	if (fs < 0)
		return -errno;
	for (; options[0] != NULL; options += 2) {
		bool flag = options[1][0] == 0;
		if (fsconfig(fs, flag ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, options[0],
		        flag ? NULL : options[1], 0) < 0)
			return -errno;
	}
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	int fd =
	    fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int disk_mount_attach(int mount_fd, const char *path)
{
	return move_mount(mount_fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

int disk_mount_detach(const char *path)
{
	/* A worker that died may have left one below: all that are stacked here go. */
	while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		;
	return errno == EINVAL || errno == ENOENT ? 0 : -errno;
}
