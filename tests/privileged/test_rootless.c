/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_rootless.c - disk areas and template host for an ordinary user in its own user namespace
 *
 * Run by root it becomes nobody first, so it needs no privilege of its own: only user namespaces.
 */
#include "lib/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "spawn/disk.h"
#include "spawn/host_template.h"

static struct av_err err;

static bool write_map(const char *path, unsigned id)
{
	char map[32];
	int n = snprintf(map, sizeof(map), "0 %u 1", id);
	return av_write_file_at(AT_FDCWD, path, av_str_n(map, (size_t)n)) == 0;
}

static void become_rootless(void)
{
	if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 ||
	                          setresuid(65534, 65534, 65534) < 0))
		tap_skip_all(false, "cannot become nobody: %s", strerror(errno));
	(void)prctl(PR_SET_DUMPABLE, 1);
	unsigned uid = geteuid(), gid = getegid();
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 ||
	    av_write_file_at(AT_FDCWD, "/proc/self/setgroups", AV_STR("deny")) < 0 ||
	    !write_map("/proc/self/uid_map", uid) || !write_map("/proc/self/gid_map", gid) ||
	    mount("t", "/tmp", "tmpfs", 0, "size=256m") < 0)
		tap_skip_all(true, "no user namespaces for ordinary users: %s", strerror(errno));
}

static void limited(struct disk *d, const char *id)
{
	static char block[1 << 20];
	int fd = -1;
	uint64_t n = 0;
	struct disk_usage u = {0};
	is_int(disk_create(d, id, 32 * AV_MIB, 0, &fd, &err), 0, "create");
	int f = openat(fd, "f", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (f >= 0 && n < 64 * AV_MIB && write(f, block, sizeof(block)) > 0)
		n += sizeof(block);
	ok(n >= 28 * AV_MIB && n <= 32 * AV_MIB, "the limit holds at %llu KiB",
	    (unsigned long long)n / 1024);
	close(f);
	close(fd);
	disk_done(d, id);
	is_int(disk_usage(d, id, &u), 0, "usage after the mount left the namespace");
	ok(u.limit_bytes == 32 * AV_MIB && u.used_bytes >= n, "usage is right");
	is_int(disk_open(d, id, &fd, &err), 0, "open");
	ok(faccessat(fd, "f", F_OK, 0) == 0, "the file is there");
	close(fd);
}

/* Directories that deny their own owner. */
static void locked_tree(struct disk *d)
{
	int fd = -1;
	is_int(disk_create(d, "locked", 16 * AV_MIB, 0, &fd, &err), 0, "create");
	(void)mkdirat(fd, "a", 0700);
	(void)mkdirat(fd, "a/b", 0);
	is_int(fchmodat(fd, "a", 0, 0), 0, "a directory without any rights");
	close(fd);
	disk_done(d, "locked");
	is_int(disk_remove(d, "locked", &err), 0, "remove");
}

static void disks(enum disk_mode mode)
{
	struct disk *d = NULL;
	struct disk_config cfg = {.state_dir = "/tmp/state",
	    .mount_dir = "/tmp/mnt",
	    .mode = mode,
	    .rootless = true,
	    .reserve_bytes = 1};
	if (!is_int(disk_new(&cfg, &d, &err), 0, "new"))
		return;
	diag("mode %s, reason \"%s\"", disk_mode_name(disk_mode(d)), disk_reason(d));
	if (disk_mode(d) == DISK_MODE_TMPFS)
		limited(d, "a");
	locked_tree(d);
	disk_free(d);
	d = NULL;
	is_int(disk_new(&cfg, &d, &err), 0, "a second worker");
	int fd;
	if (disk_mode(d) == DISK_MODE_TMPFS)
		is_int(disk_open(d, "a", &fd, &err), -ESTALE, "an area that went with the first");
	is_int(disk_cleanup(d, &err), 0, "cleanup");
	disk_free(d);
	is_int(rmdir("/tmp/state"), 0, "nothing is left");
	(void)mkdir("/tmp/state", 0700);
}

static void template(void)
{
	struct host_template t = HOST_TEMPLATE_INIT;
	struct host_template_options opt = {.rootless = true};
	struct stat st;
	int host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int state = open("/tmp/state", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!is_int(host_template_make(host, state, &opt, &err), 0, "make template host"))
		diag("%s", err.message);
	is_int(host_template_open(state, &t, &err), 0, "open it");
	is_int(fstatat(t.root_fd, "etc/passwd", &st, 0), 0, "/etc/passwd");
	is_int(st.st_uid, 0, "belongs to the user");
	ok(faccessat(t.root_fd, "var/lib/dpkg", F_OK, 0) == 0, "/var is there");
	host_template_clear(&t);
	close(host);
	close(state);
}

int main(void)
{
	(void)alarm(100);
	become_rootless();
	if (mkdir("/tmp/state", 0700) < 0 || mkdir("/tmp/mnt", 0700) < 0)
		return 1;
	disks(DISK_MODE_AUTO);
	disks(DISK_MODE_NONE);
	template();
	return tap_done();
}
