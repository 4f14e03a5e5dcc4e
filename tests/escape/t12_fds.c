/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t12_fds.c - T12: descriptors that leaked into the sandbox (CVE-2024-21626)
 */
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "attack.h"

static void test_only_standard_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	ok(d != NULL, "/proc/self/fd can be listed");
	int extra = 0;
	for (struct dirent *e; d && (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		int fd = (int)(e->d_name[0] - '0') + (e->d_name[1] ? 100 : 0);
		if (fd <= 2 || (e->d_name[1] == '\0' && fd == dirfd(d)))
			continue;
		char path[300], target[256] = "";
		snprintf(path, sizeof(path), "/proc/self/fd/%.200s", e->d_name);
		if (readlink(path, target, sizeof(target) - 1) < 0)
			target[0] = '\0';
		printf("# leaked: %s -> %s\n", e->d_name, target);
		extra++;
	}
	ok(extra == 0, "a new process has descriptors 0, 1 and 2 and no other");
	if (d)
		closedir(d);
}

static void test_working_directory(void)
{
	char cwd[4096];
	ok(getcwd(cwd, sizeof(cwd)) && cwd[0] == '/', "the working directory lies inside the root");
	ok(strncmp(cwd, "(unreachable)", 13) != 0, "and is reachable");
	for (int fd = 0; fd < 64; fd++) {
		char path[64];
		struct stat st;
		snprintf(path, sizeof(path), "/proc/self/fd/%d/../../etc", fd);
		if (fd > 2 && stat(path, &st) == 0)
			ok(false, "%s leads somewhere", path);
	}
}

/* Standing outside of a new root and walking up: the old chroot escape, CAP_SYS_CHROOT is there. */
static void test_double_chroot(void)
{
	struct stat before, after;
	ok(stat("/", &before) == 0, "stat of the root");
	mkdir("/tmp/hole", 0755);
	int up = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (chroot("/tmp/hole") == 0 && fchdir(up) == 0) {
		for (int i = 0; i < 200; i++)
			if (chdir("..") < 0)
				break;
		if (chroot(".") < 0)
			printf("# second chroot: %s\n", strerror(errno));
	}
	ok(stat("/", &after) == 0 && before.st_dev == after.st_dev && before.st_ino == after.st_ino,
	    "walking up out of a chroot ends at the sandbox's own root");
	close(up);
}

int main(int argc, char **argv)
{
	attack_init(argc, argv);
	test_only_standard_descriptors();
	test_working_directory();
	test_double_chroot();
	return tap_done();
}
