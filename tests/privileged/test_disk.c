/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_disk.c - areas with hard limits, in every mode that this machine has
 *
 * Runs in a mount namespace of its own, on a state directory of its own, which it removes. Loop
 * devices clear themselves with the namespace.
 */
#include "lib/tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "spawn/disk.h"

#define OWNER 0x70010000u

static struct av_err err;
static char state[64], mounts[80];

static struct disk *start(enum disk_mode mode, uint64_t reserve)
{
	struct disk *d = NULL;
	struct disk_config cfg = {
	    .state_dir = state,
	    .mount_dir = mounts,
	    .mode = mode,
	    .image_bytes = AV_GIB,
	    .reserve_bytes = reserve,
	};
	return disk_new(&cfg, &d, &err) == 0 ? d : NULL;
}

/* Bytes that could be written and synced to a file of the area before the first error. */
static uint64_t fill(int dirfd, const char *name, uint64_t max, int *ret_errno)
{
	static char block[256 * 1024];
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	uint64_t n = 0;
	*ret_errno = fd < 0 ? errno : 0;
	while (fd >= 0 && n < max) {
		ssize_t w = write(fd, block, sizeof(block));
		if (w < 0) {
			*ret_errno = errno;
			break;
		}
		n += (uint64_t)w;
	}
	if (fd >= 0)
		close(fd);
	return n;
}

struct seen {
	int live, removing;
	uid_t owner;
};

static int count(void *ctx, const char *id, uid_t owner, bool removing)
{
	struct seen *s = ctx;
	(void)id;
	s->live += !removing;
	s->removing += removing;
	s->owner = owner;
	return 0;
}

static void drain(struct disk *d)
{
	for (int i = 0; i < 100 && disk_trash_count(d) > 0; i++) {
		int ms = disk_step(d, 50000);
		if (disk_trash_count(d) > 0 && ms > 0)
			usleep((useconds_t)AV_MIN(ms, 1100) * 1000);
	}
}

static void limit_holds(struct disk *d)
{
	struct disk_usage u = {0};
	struct stat st;
	int a = -1, b = -1, e;
	is_int(disk_create(d, "a", 32 * AV_MIB, OWNER, &a, &err), 0, "create a");
	is_int(disk_create(d, "b", 32 * AV_MIB, OWNER + 65536, &b, &err), 0, "create b");
	if (a < 0 || b < 0) {
		diag("%s", err.message);
		return;
	}
	disk_done(d, "a");
	disk_done(d, "b");
	int c = -1;
	is_int(disk_create(d, "a", 32 * AV_MIB, OWNER, &c, &err), -EEXIST, "a only once");
	is_int(fstat(a, &st), 0, "stat");
	is_int(st.st_uid, OWNER, "owner");
	is_int(st.st_mode & 07777, 0700, "mode");
	uint64_t n = fill(a, "f", 256 * AV_MIB, &e);
	if (disk_limits_enforced(d)) {
		ok(e == ENOSPC || e == EDQUOT, "writing ends with %s", strerrorname_np(e));
		ok(n <= 48 * AV_MIB && n >= 24 * AV_MIB, "%llu KiB fitted into 32 MiB",
		    (unsigned long long)n / 1024);
	}
	is_int(fill(b, "f", 8 * AV_MIB, &e), 8 * AV_MIB, "b has its own room");
	(void)syncfs(a);
	is_int(disk_usage(d, "a", &u), 0, "usage");
	if (disk_limits_enforced(d))
		ok(u.used_bytes >= 24 * AV_MIB && u.limit_bytes >= 30 * AV_MIB &&
		        u.limit_bytes <= 40 * AV_MIB,
		    "usage says %llu of %llu KiB", (unsigned long long)u.used_bytes / 1024,
		    (unsigned long long)u.limit_bytes / 1024);
	close(a);
	close(b);
	is_int(disk_usage(d, "nobody", &u), -ENOENT, "usage of nothing");
	is_int(disk_remove(d, "nobody", &err), 0, "removal of nothing");
	is_int(disk_create(d, "../x", 0, OWNER, &a, &err), -EINVAL, "no paths");
}

/* As a sandbox would: a clone of the area's mount, which outlives the worker's namespace. */
static struct disk *restart(struct disk *d, enum disk_mode mode)
{
	int a = -1, e;
	struct seen s = {0};
	if (mode == DISK_MODE_TMPFS)
		return d;
	is_int(disk_open(d, "a", &a, &err), 0, "open");
	int clone = open_tree(a, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | OPEN_TREE_CLOEXEC);
	ok(clone >= 0, "a clone of the area's mount");
	disk_done(d, "a");
	close(a);
	disk_free(d);
	(void)umount2(mounts, MNT_DETACH);
	d = start(mode, AV_MIB);
	if (!ok(d != NULL, "a second worker takes over"))
		return NULL;
	is_int(disk_list(d, count, &s), 0, "list");
	is_int(s.live, 2, "both areas are there");
	a = -1;
	is_int(disk_open(d, "a", &a, &err), 0, "open after the restart");
	(void)fill(clone, "through-the-clone", 4096, &e);
	ok(faccessat(a, "through-the-clone", F_OK, 0) == 0 || e != 0,
	    "the clone and the new mount are one file system");
	ok(faccessat(a, "f", F_OK, 0) == 0, "files are there");
	disk_done(d, "a");
	close(a);
	close(clone);
	return d;
}

static void deep_tree(struct disk *d)
{
	int fd = -1;
	is_int(disk_create(d, "deep", 64 * AV_MIB, OWNER, &fd, &err), 0, "create");
	disk_done(d, "deep");
	for (int i = 0; fd >= 0 && i < 3000; i++) {
		(void)mkdirat(fd, "d", 0);
		(void)!symlinkat("/etc/passwd", fd, "link");
		int next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		close(fd);
		fd = next;
	}
	ok(fd >= 0, "a tree 3000 deep, deeper than any path");
	close(fd);
	is_int(disk_remove(d, "deep", &err), 0, "remove");
	ok(access("/etc/passwd", F_OK) == 0, "links are not followed");
}

static void removal(struct disk *d)
{
	struct seen s = {0};
	int fd;
	is_int(disk_remove(d, "a", &err), 0, "remove a");
	is_int(disk_open(d, "a", &fd, &err), -ENOENT, "a is out of sight");
	is_int(disk_remove(d, "b", &err), 0, "remove b");
	deep_tree(d);
	drain(d);
	is_int(disk_trash_count(d), 0, "all is freed");
	is_int(disk_list(d, count, &s), 0, "list");
	is_int(s.live + s.removing, 0, "nothing is listed");
}

static void cycles(struct disk *d, int n)
{
	int64_t create = 0, remove = 0, worst = 0;
	int bad = 0;
	for (int i = 0; i < n; i++) {
		int fd = -1;
		int64_t t0 = av_mono_ns();
		bad += disk_create(d, "cycle", 32 * AV_MIB, OWNER, &fd, &err) != 0;
		disk_done(d, "cycle");
		int64_t t1 = av_mono_ns();
		if (fd >= 0) {
			(void)mkdirat(fd, "upper", 0755);
			close(fd);
		}
		int64_t t2 = av_mono_ns();
		bad += disk_remove(d, "cycle", &err) != 0;
		remove += av_mono_ns() - t2;
		create += t1 - t0;
		worst = AV_MAX(worst, t1 - t0);
		(void)disk_step(d, 1000);
	}
	is_int(bad, 0, "create and remove many times");
	diag("create %.3f ms (worst %.3f), remove %.3f ms", (double)create / n / 1e6,
	    (double)worst / 1e6, (double)remove / n / 1e6);
	drain(d);
	is_int(disk_trash_count(d), 0, "nothing stale is left");
}

static void watermark(enum disk_mode mode)
{
	int fd;
	struct disk *d = start(mode, 1ULL << 60);
	if (!ok(d != NULL, "starts with a reserve larger than the disk"))
		return;
	if (mode != DISK_MODE_TMPFS) {
		is_int(disk_create(d, "w", AV_MIB, OWNER, &fd, &err), -ENOSPC, "create is refused");
		ok(strstr(err.message, "below the reserve") != NULL, "%s", err.message);
	}
	disk_free(d);
}

static void growth(void)
{
	int fd = -1, e;
	/* btrfs with an existing image: no room above the reserve, so what is there may not grow.
	 */
	struct disk *d = start(DISK_MODE_BTRFS, AV_MIB);
	if (!ok(d != NULL, "start"))
		return;
	is_int(disk_create(d, "g", 512 * AV_MIB, OWNER, &fd, &err), 0, "create");
	disk_free(d);
	(void)umount2(mounts, MNT_DETACH);
	d = start(DISK_MODE_BTRFS, 1ULL << 60);
	if (ok(d != NULL, "start with a huge reserve")) {
		(void)disk_step(d, 1000);
		uint64_t n = fill(fd, "f", 128 * AV_MIB, &e);
		ok(n < 16 * AV_MIB && e == EDQUOT, "growth ends at %llu KiB with %s",
		    (unsigned long long)n / 1024, strerrorname_np(e));
	}
	close(fd);
	disk_free(d);
	(void)umount2(mounts, MNT_DETACH);
	d = start(DISK_MODE_BTRFS, AV_MIB);
	if (ok(d != NULL, "start with room again")) {
		(void)disk_step(d, 1000);
		is_int(disk_open(d, "g", &fd, &err), 0, "open");
		is_int(fill(fd, "f2", 64 * AV_MIB, &e), 64 * AV_MIB, "and it may grow again");
		close(fd);
		is_int(disk_remove(d, "g", &err), 0, "remove");
		drain(d);
	}
	disk_free(d);
	(void)umount2(mounts, MNT_DETACH);
}

/* Run by crash() in a process of its own, which dies at the failpoint. */
static int crash_main(char **argv)
{
	enum disk_mode mode;
	int fd = -1;
	(void)alarm(30);
	if (disk_mode_parse(argv[2], &mode) < 0)
		return 2;
	(void)snprintf(state, sizeof(state), "%s", argv[3]);
	(void)snprintf(mounts, sizeof(mounts), "%s", argv[4]);
	struct disk *d = start(mode, AV_MIB);
	if (d == NULL || disk_create(d, "c", 32 * AV_MIB, OWNER, &fd, &err) < 0)
		return 3;
	(void)mkdirat(fd, "upper", 0700);
	disk_done(d, "c");
	close(fd);
	if (disk_remove(d, "c", &err) < 0)
		return 4;
	drain(d);
	return 0;
}

/* Whatever the instruction at which the worker dies: the next one finds nothing half-made. */
static void crash(enum disk_mode mode, const char *point)
{
	char env[64];
	int status = 0, fd = -1;
	struct seen s = {0};
	(void)snprintf(env, sizeof(env), "%s=kill", point);
	pid_t pid = fork();
	if (pid == 0) {
		(void)setenv("AVIARY_FAILPOINT", env, 1);
		(void)execl("/proc/self/exe", "test_disk", "--crash", disk_mode_name(mode), state,
		    mounts, (char *)NULL);
		_exit(1);
	}
	(void)waitpid(pid, &status, 0);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: died at %s",
	    disk_mode_name(mode), point);
	while (umount2(mounts, MNT_DETACH) == 0)
		;
	struct disk *d = start(mode, AV_MIB);
	if (!ok(d != NULL, "starts after it: %s", err.message))
		return;
	is_int(disk_list(d, count, &s), 0, "list");
	ok(s.live == 0 || s.owner == OWNER, "an area is there with its owner, or not at all");
	is_int(disk_remove(d, "c", &err), 0, "remove");
	drain(d);
	is_int(disk_create(d, "c", 32 * AV_MIB, OWNER, &fd, &err), 0, "create again");
	disk_done(d, "c");
	close(fd);
	is_int(disk_remove(d, "c", &err), 0, "remove again");
	drain(d);
	s = (struct seen){0};
	(void)disk_list(d, count, &s);
	is_int(s.live + s.removing, 0, "nothing is left");
	disk_free(d);
	(void)umount2(mounts, MNT_DETACH);
}

static void crashes(enum disk_mode mode)
{
#ifdef AVIARY_FAILPOINTS
	if (mode == DISK_MODE_BTRFS) {
		crash(mode, "disk_subvol_made");
		crash(mode, "disk_subvol_destroyed");
		return;
	}
	if (mode == DISK_MODE_LOOP)
		crash(mode, "disk_image_mounted");
	crash(mode, "disk_area_built");
	crash(mode, "disk_area_removed");
	crash(mode, "disk_trash_step");
#else
	(void)mode;
	(void)crash;
#endif
}

static void run(enum disk_mode mode)
{
	int64_t t0 = av_mono_ns();
	struct disk *d = start(mode, AV_MIB);
	if (d == NULL) {
		printf("ok # SKIP mode %s: %s\n", disk_mode_name(mode), err.message);
		tap_count_++;
		return;
	}
	diag("mode %s, set up in %.1f ms", disk_mode_name(mode), (double)(av_mono_ns() - t0) / 1e6);
	limit_holds(d);
	d = restart(d, mode);
	if (d == NULL)
		return;
	removal(d);
	cycles(d, mode == DISK_MODE_LOOP ? 20 : 300);
	disk_free(d);
	if (mode == DISK_MODE_BTRFS)
		(void)umount2(mounts, MNT_DETACH);
	watermark(mode);
	if (mode == DISK_MODE_BTRFS) {
		(void)umount2(mounts, MNT_DETACH);
		growth();
	}
	crashes(mode);
	d = start(mode, AV_MIB);
	if (ok(d != NULL, "start for cleanup")) {
		is_int(disk_cleanup(d, &err), 0, "cleanup");
		disk_free(d);
	}
	is_int(rmdir(state), 0, "nothing is left in the state directory");
	(void)mkdir(state, 0700);
}

/* As the worker: whoever has it effective may exceed every quota. */
static void drop_sys_resource(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct c[2];
	if (syscall(SYS_capget, &h, c) == 0) {
		c[0].effective &= ~(1u << CAP_SYS_RESOURCE);
		(void)syscall(SYS_capset, &h, c);
	}
}

/* test_disk [MODE...]: those ways only. One that is asked for by name must work. */
int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "--crash") == 0)
		return crash_main(argv);
	if (geteuid() != 0)
		tap_skip_all(true, "mounting needs root");
	(void)alarm(110);
	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		tap_skip_all(true, "no mount namespace: %s", strerror(errno));
	(void)snprintf(state, sizeof(state), "/var/tmp/aviary-disk-XXXXXX");
	if (mkdtemp(state) == NULL)
		return 1;
	(void)snprintf(mounts, sizeof(mounts), "%s.mnt", state);
	if (mkdir(mounts, 0700) < 0)
		return 1;
	enum disk_mode modes[] = {
	    DISK_MODE_NONE, DISK_MODE_TMPFS, DISK_MODE_LOOP, DISK_MODE_QUOTA, DISK_MODE_BTRFS};
	drop_sys_resource();
	for (size_t i = 0; i < AV_ARRAY_LEN(modes) && argc == 1; i++)
		run(modes[i]);
	for (int i = 1; i < argc; i++) {
		int skipped = tap_count_;
		ok(disk_mode_parse(argv[i], &modes[0]) == 0, "a way to limit: %s", argv[i]);
		run(modes[0]);
		ok(tap_count_ > skipped + 2, "%s works here", argv[i]);
	}
	(void)umount2(mounts, MNT_DETACH);
	is_int(rmdir(mounts), 0, "the mount point is empty");
	is_int(rmdir(state), 0, "the state directory is empty");
	return tap_done();
}
