/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_root.c - what a sandbox expects to find mounted, as a jail has it (src/spawn/child.c)
 *
 * With two differences that users of a machine of their own count on: nothing is masked or
 * read-only, and /dev has the devices of the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/guest_internal.h"
#include "base/fd.h"

#include "base/banned.h"

#define ATTR_COMMON (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define ATTR_KERNEL (ATTR_COMMON | MOUNT_ATTR_NOEXEC)

static const struct guest_option no_options[] = {{NULL, NULL}};
static const struct guest_option pts_options[] = {
    {"mode", "0620"}, {"ptmxmode", "0666"}, {"gid", "5"}, {NULL, NULL}};
static const struct guest_option dev_options[] = {{"mode", "0755"}, {NULL, NULL}};
static const struct guest_option shm_options[] = {{"mode", "1777"}, {NULL, NULL}};
static const struct guest_option run_options[] = {{"mode", "0755"}, {"size", "20%"}, {NULL, NULL}};

static const struct {
	const char *name, *fs;
	const struct guest_option *options;
	unsigned int attrs;
	bool optional; /* a kernel may be built without it */
} mounts[] = {
    {"proc", "proc", no_options, ATTR_KERNEL, false},
    {"sys", "sysfs", no_options, ATTR_KERNEL, false},
    {"sys/fs/cgroup", "cgroup2", no_options, ATTR_KERNEL, false},
    {"dev", "devtmpfs", dev_options, MOUNT_ATTR_NOSUID, false},
    {"dev/pts", "devpts", pts_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, false},
    {"dev/shm", "tmpfs", shm_options, ATTR_COMMON, false},
    {"dev/mqueue", "mqueue", no_options, ATTR_KERNEL, true},
    {"run", "tmpfs", run_options, ATTR_COMMON, false},
};

static const char *const links[][2] = {
    {"dev/fd", "/proc/self/fd"},
    {"dev/stdin", "/proc/self/fd/0"},
    {"dev/stdout", "/proc/self/fd/1"},
    {"dev/stderr", "/proc/self/fd/2"},
};

int guest_fill_root(int root, const char **ret_step)
{
	int r;

	for (size_t i = 0; i < AV_ARRAY_LEN(mounts); i++) {
		*ret_step = mounts[i].name;
		r = guest_mount_at(
		    root, mounts[i].name, mounts[i].fs, mounts[i].options, mounts[i].attrs);
		if (r < 0 && !(mounts[i].optional && r == -ENODEV))
			return r;
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(links); i++) {
		*ret_step = links[i][0];
		if (symlinkat(links[i][1], root, links[i][0]) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}
