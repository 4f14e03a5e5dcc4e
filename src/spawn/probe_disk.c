/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_disk.c - which ways of limiting disks this machine has
 *
 * Only looks; disk_new() is what tries. So the fact says what will be attempted, and its cure what
 * would make a better way possible.
 */
#include "spawn/probe_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

#define DEFAULT_STATE   "/var/lib/aviary"
#define OVERLAYFS_MAGIC 0x794c7630

/* The deepest directory of path that exists. */
static void existing_parent(const char *path, char *dst, size_t size)
{
	struct av_str s = av_str_c(path);
	while (av_str_copy(dst, size, s) < 0 || access(dst, F_OK) < 0) {
		struct av_str up = av_path_dir(s);
		if (up.n >= s.n)
			break;
		s = up;
	}
}

static bool has_program(const char *name)
{
	static const char *const folders[] = {"/usr/sbin", "/usr/bin", "/sbin", "/bin"};
	char path[64];
	for (size_t i = 0; i < AV_ARRAY_LEN(folders); i++)
		if (av_path_printf(path, sizeof(path), "%s/%s", folders[i], name) == 0 &&
		    access(path, X_OK) == 0)
			return true;
	return false;
}

/* Whether the kernel has a file system: in it already, or as a module on the disk. */
static bool has_or_loads(const char *name)
{
	char path[256], release[128];
	if (probe_has_filesystem(name))
		return true;
	ssize_t n =
	    av_read_file_at(AT_FDCWD, "/proc/sys/kernel/osrelease", release, sizeof(release));
	if (n <= 0)
		return false;
	release[n - 1] = 0;
	return av_path_printf(path, sizeof(path), "/lib/modules/%s/kernel/fs/%s", release, name) ==
	           0 &&
	       access(path, F_OK) == 0;
}

/* Project quotas in the options of the mount that holds dir (by device number in mountinfo). */
static bool has_prjquota(const char *dir)
{
	static char text[256 * 1024];
	struct stat st;
	char dev[32];
	ssize_t n = av_read_file_at(AT_FDCWD, "/proc/self/mountinfo", text, sizeof(text));
	if (n < 0 || stat(dir, &st) < 0)
		return false;
	(void)snprintf(dev, sizeof(dev), " %u:%u ", major(st.st_dev), minor(st.st_dev));
	struct av_str rest = av_str_n(text, (size_t)n), line;
	while (rest.n > 0) {
		av_str_cut(&rest, '\n', &line);
		if (memmem(line.p, line.n, dev, strlen(dev)) != NULL &&
		    (memmem(line.p, line.n, "prjquota", 8) != NULL ||
		        memmem(line.p, line.n, "pquota", 6) != NULL))
			return true;
	}
	return false;
}

static void way(struct probe *p, const char *dir)
{
	struct probe_fact *f = probe_add(p, "disk_limit", "disk limit", PROBE_OK);
	bool loop = access("/dev/loop-control", F_OK) == 0;
	if (!p->root) {
		f->state = PROBE_WEAK;
		PROBE_FOUND(f, "tmpfs");
		PROBE_REASON(f, "disks of sandboxes are memory, lost when the machine restarts");
		PROBE_CURE(f, "start aviaryd as root");
	} else if (has_prjquota(dir)) {
		PROBE_FOUND(f, "project quotas of the file system of %s", dir);
	} else if (loop && has_or_loads("btrfs") && has_program("mkfs.btrfs")) {
		PROBE_FOUND(f, "btrfs image with qgroups");
	} else if (loop && has_or_loads("ext4") && has_program("mkfs.ext4")) {
		f->state = PROBE_WEAK;
		PROBE_FOUND(f, "one ext4 image per sandbox");
		PROBE_REASON(f, "creating takes longer, and disk space is promised in full");
		PROBE_CURE(f, "apt-get install btrfs-progs");
	} else {
		f->state = PROBE_WEAK;
		PROBE_FOUND(f, "none");
		PROBE_REASON(f, "a sandbox can fill the disk of %s: %s", dir,
		    loop ? "no project quotas, no mkfs.btrfs, no mkfs.ext4"
		         : "no project quotas and no loop devices (/dev/loop-control)");
		PROBE_CURE(f, "%s",
		    loop ? "apt-get install btrfs-progs"
		         : "modprobe loop; in a container, give it /dev/loop-control "
		           "and loop devices");
	}
}

static void space(struct probe *p, const char *dir)
{
	struct statvfs v;
	char a[24], b[24];
	if (statvfs(dir, &v) < 0)
		return;
	uint64_t have = (uint64_t)v.f_bavail * v.f_frsize;
	uint64_t want = AV_MAX((uint64_t)v.f_blocks * v.f_frsize / 20, (uint64_t)(2 * AV_GIB));
	struct probe_fact *f = probe_add(p, "disk_space", "disk space", PROBE_OK);
	PROBE_FOUND(f, "%s free at %s", av_format_size(have, a), dir);
	if (have >= want)
		return;
	f->state = p->root ? PROBE_FATAL : PROBE_WEAK;
	PROBE_REASON(
	    f, "creates are refused below %s (5 %%, at least 2 GiB)", av_format_size(want, b));
	PROBE_CURE(f, "free space, or choose another state directory with --state");
}

static void kind(struct probe *p, const char *dir)
{
	struct statfs s;
	if (!p->root || statfs(dir, &s) < 0 || s.f_type != OVERLAYFS_MAGIC)
		return;
	struct probe_fact *f = probe_add(p, "state_fs", "state directory", PROBE_WEAK);
	PROBE_FOUND(f, "%s is on an overlay (a container's own layer)", dir);
	PROBE_REASON(
	    f, "layers of sandboxes cannot lie on another overlay; only the disk image can");
	PROBE_CURE(f, "mount a volume of the host at the state directory");
}

void probe_disk(struct probe *p, const char *state_dir)
{
	char dir[512];
	existing_parent(state_dir != NULL ? state_dir : DEFAULT_STATE, dir, sizeof(dir));
	kind(p, dir);
	way(p, dir);
	space(p, dir);
}
