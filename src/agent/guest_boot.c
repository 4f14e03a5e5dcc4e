/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_boot.c - from the initramfs to the root file system of the sandbox
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "agent/guest_internal.h"
#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"

#include "base/banned.h"

#define DISK_WAIT_MS   10000
#define DISK_POLL_MS   2
#define MODULES_LIST   "/modules/list"
#define MODULES_LIST_N 8192

_Noreturn void guest_fatal(const char *what, int error)
{
	/* The console is what aviary-vm keeps the last lines of. */
	dprintf(2, "aviary-agent: guest: %s: %s\n", what, strerror(error < 0 ? -error : error));
	_exit(125);
}

static void must(const char *what, int r)
{
	if (r < 0)
		guest_fatal(what, r);
}

/* --- modules --- */

static int load_module(struct av_str name)
{
	AV_CLEANUP(av_closep) int fd = -1;
	char path[AV_PATH_MAX + 1];

	if (av_path_printf(path, sizeof(path), "/modules/%.*s", AV_STR_ARG(name)) < 0)
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0)
		return -errno;
	/* What it took of memory goes. */
	return unlink(path) < 0 ? -errno : 0;
}

/* One that does not load is either of no use here (ENODEV: no such processor or device), or what it
 * is for will be missed and named. */
static void load_modules(void)
{
	static char text[MODULES_LIST_N];
	ssize_t n = av_read_file_at(AT_FDCWD, MODULES_LIST, text, sizeof(text));
	struct av_str rest = av_str_n(text, n > 0 ? (size_t)n : 0), name;

	must(MODULES_LIST, (int)n);
	while (rest.n) {
		int r;

		av_str_cut(&rest, '\n', &name);
		r = name.n ? load_module(name) : 0;
		if (r < 0 && r != -EEXIST && r != -ENODEV)
			dprintf(2, "aviary-agent: guest: module %.*s: %s\n", AV_STR_ARG(name),
			    strerror(-r));
	}
	unlink(MODULES_LIST);
	rmdir("/modules");
}

/* --- disks --- */

/* The device with this serial number, or else the one with this name. */
static bool find_disk(const char *serial, const char *name, char path[static 64])
{
	char file[300], text[64], device[64];
	struct dirent *e;
	DIR *dir = opendir("/sys/block");
	bool found = false;

	while (dir && !found && (e = readdir(dir))) {
		ssize_t n;

		if (av_str_copy(device, sizeof(device), av_str_c(e->d_name)) < 0 ||
		    av_path_printf(file, sizeof(file), "/sys/block/%s/serial", device) < 0)
			continue;
		n = av_read_file_at(AT_FDCWD, file, text, sizeof(text));
		while (n > 0 && text[n - 1] == '\n')
			text[--n] = '\0';
		found = n > 0 && strcmp(text, serial) == 0 &&
		        av_path_printf(path, 64, "/dev/%s", device) == 0;
	}
	if (dir)
		closedir(dir);
	return found || (av_path_printf(path, 64, "/dev/%s", name) == 0 && access(path, F_OK) == 0);
}

/* A device is there some time after its driver was loaded. */
static void wait_for_disk(const char *serial, const char *name, char path[static 64])
{
	const struct timespec pause = {.tv_nsec = DISK_POLL_MS * 1000000L};
	int64_t deadline = av_mono_ns() + DISK_WAIT_MS * 1000000LL;

	while (!find_disk(serial, name, path)) {
		if (av_mono_ns() > deadline)
			guest_fatal(name, ENODEV);
		nanosleep(&pause, NULL);
	}
}

/* The overlay of both disks, attached at /root of the initramfs; the file system of the writable
 * one stays open in *ret_disk_fd alone. */
static void mount_disks(int *ret_disk_fd)
{
	char image[64], disk[64];

	wait_for_disk("root", "vda", image);
	wait_for_disk("disk", "vdb", disk);
	const struct guest_option image_options[] = {{"source", image}, {"ro", NULL}, {NULL, NULL}};
	/* Inode tables are made when they are used: a thread that fills them would write the whole
	 * disk in every sandbox that is made of one golden machine. */
	const struct guest_option disk_options[] = {
	    {"source", disk}, {"noinit_itable", NULL}, {"discard", NULL}, {NULL, NULL}};
	static const struct guest_option overlay_options[] = {{"lowerdir", "/image"},
	    {"upperdir", "/disk/upper"}, {"workdir", "/disk/work"}, {NULL, NULL}};

	must("mount the image (erofs)",
	    guest_mount_at(AT_FDCWD, "image", "erofs", image_options, MOUNT_ATTR_RDONLY));
	must("mount the disk (ext4)",
	    guest_mount_at(AT_FDCWD, "disk", "ext4", disk_options, MOUNT_ATTR_NOATIME));
	if (mkdir("/disk/upper", 0755) < 0 && errno != EEXIST)
		guest_fatal("fill the disk", errno);
	if (mkdir("/disk/work", 0700) < 0 && errno != EEXIST)
		guest_fatal("fill the disk", errno);
	*ret_disk_fd = open("/disk", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*ret_disk_fd < 0)
		guest_fatal("open the disk", errno);
	must("mount the root",
	    guest_mount_at(AT_FDCWD, "root", "overlay", overlay_options, MOUNT_ATTR_NOATIME));
	/* The overlay holds what it needs. */
	umount2("/image", MNT_DETACH);
	umount2("/disk", MNT_DETACH);
}

/* --- the new root --- */

/* As switch_root does: the initramfs cannot be left by pivot_root, as it is the root of all mounts;
 * so the new root is moved over it. */
static int switch_root(int *ret_root_fd)
{
	static const char *const old[] = {"/proc", "/sys", "/dev"};

	if (unlink("/init") < 0)
		return -errno;
	for (size_t i = 0; i < AV_ARRAY_LEN(old); i++)
		umount2(old[i], MNT_DETACH);
	if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		return -errno;
	*ret_root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return *ret_root_fd < 0 ? -errno : 0;
}

/* 0 and 1 on /dev/null, as in a jail. 2 stays the console, for what is fatal: children get others.
 */
static int leave_console(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC), r = fd < 0 ? -errno : 0;

	for (int i = 0; r == 0 && i < 2; i++)
		r = dup2(fd, i) < 0 ? -errno : 0;
	if (fd > 2)
		close(fd);
	return r;
}

static void set_limit(int which, rlim_t soft, rlim_t hard)
{
	const struct rlimit limit = {.rlim_cur = soft, .rlim_max = hard};

	if (setrlimit((__rlimit_resource_t)which, &limit) < 0)
		guest_fatal("resource limits", errno);
}

/* What src/spawn/child.c gives the agent of a jail. Processes are limited by their control group,
 * not by user. */
static void set_limits(void)
{
	set_limit(RLIMIT_CORE, 0, 0);
	set_limit(RLIMIT_NOFILE, 1024, 1 << 20);
	set_limit(RLIMIT_STACK, 8 << 20, RLIM_INFINITY);
	set_limit(RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY);
	set_limit(RLIMIT_SIGPENDING, RLIM_INFINITY, RLIM_INFINITY);
}

/* Free memory is given back in pieces of 128 KiB, where the kernel would do so from 2 MiB on: a
 * machine that has just booted is 80 MiB small then instead of 100, and every save of it. The file
 * exists since 5.15 or so, and a kernel without it gives back less. */
static void report_small_pieces(void)
{
	if (av_write_file_at(AT_FDCWD, "/sys/module/page_reporting/parameters/page_reporting_order",
	        AV_STR("5")) < 0)
		return;
}

static void mount_early(void)
{
	must("mount /proc", guest_mount_at(AT_FDCWD, "proc", "proc", NULL, 0));
	must("mount /sys", guest_mount_at(AT_FDCWD, "sys", "sysfs", NULL, 0));
	must("mount /dev", guest_mount_at(AT_FDCWD, "dev", "devtmpfs", NULL, 0));
	/* Without a console the kernel leaves 0 to 2 closed. */
	must("/dev/null", av_fill_standard_fds());
}

bool guest_wanted(int argc, char **argv)
{
	/* The kernel gives us the words of its command line that it does not know as well. */
	return argc >= 2 && getpid() == 1 && strcmp(argv[argc - 1], AV_GUEST_INIT_ARG) == 0;
}

struct guest *guest_boot(void)
{
	struct guest *g = calloc(1, sizeof(*g));
	const char *step = "";
	int r;

	if (!g)
		guest_fatal("memory", ENOMEM);
	*g = (struct guest){
	    .cgroup = GUEST_CGROUP_INIT, .self = {.root_fd = -1, .disk_fd = -1, .boot_id_fd = -1}};
	umask(022);
	if (chdir("/") < 0)
		guest_fatal("/", errno);
	mount_early();
	load_modules();
	report_small_pieces();
	mount_disks(&g->self.disk_fd);
	must("enter the root", switch_root(&g->self.root_fd));
	must("control groups", guest_cgroup_make(&g->cgroup));
	r = guest_fill_root(g->self.root_fd, &step);
	must(step, r);
	guest_kills_open(&g->kills);
	must("loopback", guest_net_prepare());
	if (sethostname(GUEST_DEFAULT_NAME, strlen(GUEST_DEFAULT_NAME)) < 0)
		guest_fatal("host name", errno);
	set_limits();
	guest_identity_prepare(&g->self);
	must("/dev/null", leave_console());
	return g;
}
