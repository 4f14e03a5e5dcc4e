/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t18_devices.c - T18: device nodes
 */
#include <dirent.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "attack.h"

static void test_making_nodes(void)
{
	static const struct {
		const char *name;
		mode_t type;
		unsigned int major, minor;
	} nodes[] = {
	    {"mem", S_IFCHR, 1, 1},
	    {"kmem", S_IFCHR, 1, 2},
	    {"port", S_IFCHR, 1, 4},
	    {"kmsg", S_IFCHR, 1, 11},
	    {"null", S_IFCHR, 1, 3},
	    {"kvm", S_IFCHR, 10, 232},
	    {"fuse", S_IFCHR, 10, 229},
	    {"tun", S_IFCHR, 10, 200},
	    {"loop-control", S_IFCHR, 10, 237},
	    {"loop0", S_IFBLK, 7, 0},
	    {"sda", S_IFBLK, 8, 0},
	    {"vda", S_IFBLK, 254, 0},
	    {"vda2", S_IFBLK, 253, 0},
	    {"nvme", S_IFBLK, 259, 0},
	};
	static const char *const places[] = {"/tmp", "/dev", "/root", "/dev/shm", "/run", "/usr"};
	for (size_t p = 0; p < AV_ARRAY_LEN(places); p++) {
		int made = 0;
		for (size_t i = 0; i < AV_ARRAY_LEN(nodes); i++) {
			char path[128];
			snprintf(path, sizeof(path), "%s/evil-%s", places[p], nodes[i].name);
			if (mknod(path, nodes[i].type | 0666,
			        makedev(nodes[i].major, nodes[i].minor)) < 0)
				continue;
			int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
			if (fd >= 0) {
				printf("# %s was made and opened\n", path);
				made++;
				close(fd);
			}
			unlink(path);
		}
		ok(made == 0, "no device node made in %s can be used", places[p]);
	}
}

static void test_what_is_there(void)
{
	static const char *const allowed[] = {"null", "zero", "full", "random", "urandom", "tty",
	    "ptmx", "pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "core", "console",
	    ".", ".."};
	DIR *d = opendir("/dev");
	int extra = 0;
	for (struct dirent *e; d && (e = readdir(d));) {
		bool known = false;
		for (size_t i = 0; i < AV_ARRAY_LEN(allowed); i++)
			known |= strcmp(e->d_name, allowed[i]) == 0;
		if (!known) {
			printf("# /dev/%s\n", e->d_name);
			extra++;
		}
	}
	ok(d && extra == 0, "/dev holds nothing but harmless devices");
	if (d)
		closedir(d);
	cannot_open("/dev/mem", O_RDONLY);
	cannot_open("/dev/kmsg", O_RDONLY);
	cannot_open("/dev/kvm", O_RDWR);
	cannot_open("/dev/fuse", O_RDWR);
	cannot_open("/dev/net/tun", O_RDWR);
	cannot_open("/dev/loop-control", O_RDWR);
	cannot_open("/dev/vda", O_RDONLY);
	cannot_open("/dev/vsock", O_RDWR);
}

/* The nodes in /dev are the sandbox's own inodes: changing them is allowed and reaches nobody else.
 * The driver looks at the host's afterwards. */
static void test_own_nodes(void)
{
	struct stat st;
	chmod("/dev/null", 0600);
	if (chown("/dev/null", 1000, 1000) < 0)
		printf("# chown: %s\n", strerror(errno));
	ok(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3),
	    "/dev/null is the null device");
	refused(link("/dev/null", "/tmp/null"), "hard link to a device");
	refused(rename("/dev/null", "/root/null"), "moving a device out of /dev");
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	ok(fd >= 0 && write(fd, "x", 1) == 1, "and swallows");
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	attack_init(argc, argv);
	test_making_nodes();
	test_what_is_there();
	test_own_nodes();
	return tap_done();
}
