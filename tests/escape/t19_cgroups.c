/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t19_cgroups.c - T19: cgroup files: own limits may be read, nothing may be written
 *
 * Arguments: [noseccomp] memory_mib - the limit the sandbox was created with.
 */
#include <ftw.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "attack.h"

static int writable;

static int try_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	if (type != FTW_F)
		return 0;
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return 0;
	/* Opened; a write that the kernel takes would be the escape. */
	if (write(fd, "1\n", 2) == 2) {
		printf("# %s took a write\n", path);
		writable++;
	}
	close(fd);
	return 0;
}

static void test_nothing_is_writable(void)
{
	writable = 0;
	nftw("/sys/fs/cgroup", try_file, 16, FTW_PHYS);
	ok(writable == 0, "no file below /sys/fs/cgroup takes a write");
	refused(mkdir("/sys/fs/cgroup/evil", 0755), "making a cgroup");
	refused(mkdir("/sys/fs/cgroup/memory/evil", 0755), "making a memory cgroup");
	cannot_open("/sys/fs/cgroup/release_agent", O_WRONLY);
	cannot_open("/sys/fs/cgroup/memory/release_agent", O_WRONLY);
	mkdir("/tmp/cg", 0755);
	refused(mount("cgroup2", "/tmp/cg", "cgroup2", 0, NULL), "mounting cgroup2");
	refused(
	    mount("cgroup", "/tmp/cg", "cgroup", 0, "memory"), "mounting the memory controller");
	refused(mount("cgroup", "/tmp/cg", "cgroup", 0, "none,name=evil"),
	    "mounting a named hierarchy");
}

/* The paths in /proc/self/cgroup are relative to the sandbox's own root. */
static void test_namespace_hides_the_host(void)
{
	char text[4096];
	int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	ok(n >= 0, "/proc/self/cgroup can be read");
	text[n > 0 ? n : 0] = '\0';
	/* Names of hierarchies ("name=aviary-…") are the machine's; paths must be "/". */
	ok(!strstr(text, "/aviary-") && !strstr(text, ":/sb"),
	    "it does not tell where the sandbox lies on the host");
	if (fd >= 0)
		close(fd);
}

static void test_own_limit_shows(const char *memory_mib)
{
	char text[4096];
	int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	const char *p = strstr(text, "MemTotal:");
	long kib = p ? strtol(p + 9, NULL, 10) : 0;
	ok(kib == strtol(memory_mib, NULL, 10) * 1024, "MemTotal is the sandbox's limit (%ld KiB)",
	    kib);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	attack_init(argc, argv);
	test_nothing_is_writable();
	test_namespace_hides_the_host();
	if (argc > 1 && argv[argc - 1][0] >= '0' && argv[argc - 1][0] <= '9')
		test_own_limit_shows(argv[argc - 1]);
	return tap_done();
}
