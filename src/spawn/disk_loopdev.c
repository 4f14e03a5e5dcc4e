/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_loopdev.c - loop devices
 *
 * Theory of operation: two loop devices over one file would be two caches of one file system, and
 * its end. A sandbox that outlives a worker holds a mount, and with it the loop device, so a new
 * worker first looks whether a device with this backing file (device and inode number) exists, and
 * joins that. Autoclear unbinds a device only after its last user, and an open descriptor is a
 * user: a device that still shows the file after it was opened stays. Both the search and the
 * set-up are done by one process, the worker, which the supervisor's lock makes the only one.
 */
#include "spawn/disk_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

#define TRIES 16

/* How the kernel writes a device number into lo_device. */
static uint64_t kernel_dev(dev_t dev)
{
	uint64_t ma = major(dev), mi = minor(dev);
	return (mi & 0xff) | ma << 8 | (mi & ~0xffULL) << 12;
}

static bool backs(int loop_fd, const struct stat *st)
{
	struct loop_info64 info;
	return ioctl(loop_fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == st->st_ino &&
	       info.lo_device == kernel_dev(st->st_dev);
}

static int find_existing(const struct stat *st, char path[static 32])
{
	AV_CLEANUP(av_closep) int dev = open("/dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dev < 0)
		return -errno;
	DIR *dir = fdopendir(dev);
	if (dir == NULL)
		return -errno;
	AV_TAKE_FD(dev);
	int found = -ENOENT;
	for (struct dirent *e; found < 0 && (e = readdir(dir)) != NULL;) {
		uint64_t n;
		struct av_str name = av_str_c(e->d_name);
		if (!av_str_starts(name, AV_STR("loop")) ||
		    av_parse_u64(av_str_n(name.p + 4, name.n - 4), 0, 1 << 20, &n) < 0)
			continue;
		int fd = openat(dirfd(dir), e->d_name, O_RDWR | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0 && backs(fd, st)) {
			(void)snprintf(path, 32, "/dev/loop%u", (unsigned)n);
			found = fd;
		} else {
			av_close_fd(&fd);
		}
	}
	closedir(dir);
	return found;
}

static int configure(int loop_fd, int file_fd, const char *label, bool direct)
{
	struct loop_config c = {.fd = (uint32_t)file_fd, .block_size = 4096};
	c.info.lo_flags = LO_FLAGS_AUTOCLEAR | (direct ? LO_FLAGS_DIRECT_IO : 0);
	(void)snprintf((char *)c.info.lo_file_name, sizeof(c.info.lo_file_name), "%s", label);
	return ioctl(loop_fd, LOOP_CONFIGURE, &c) < 0 ? -errno : 0;
}

int disk_loop_attach(
    int file_fd, const char *label, char path[static 32], int *ret_fd, bool *ret_existing)
{
	struct stat st;
	if (fstat(file_fd, &st) < 0)
		return -errno;
	int fd = find_existing(&st, path);
	if (fd >= 0) {
		*ret_fd = fd;
		*ret_existing = true;
		return 0;
	}
	AV_CLEANUP(av_closep) int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (ctl < 0)
		return -errno;
	int r = -EBUSY;
	for (int i = 0; i < TRIES && r == -EBUSY; i++) {
		int n = ioctl(ctl, LOOP_CTL_GET_FREE);
		if (n < 0)
			return -errno;
		(void)snprintf(path, 32, "/dev/loop%d", n);
		AV_CLEANUP(av_closep) int loop = open(path, O_RDWR | O_CLOEXEC);
		if (loop < 0)
			return -errno;
		r = configure(loop, file_fd, label, true);
		if (r == -EINVAL)
			r = configure(loop, file_fd, label, false);
		if (r == 0) {
			*ret_fd = AV_TAKE_FD(loop);
			*ret_existing = false;
		}
	}
	return r; /* EBUSY: others took each free one before us */
}

int disk_loop_resize(int loop_fd)
{
	return ioctl(loop_fd, LOOP_SET_CAPACITY, 0) < 0 ? -errno : 0;
}
