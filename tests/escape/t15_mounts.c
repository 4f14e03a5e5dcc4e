/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t15_mounts.c - T15: mounts and namespaces, by every entry the kernel has
 *
 * With the filter off, the dropped CAP_SYS_ADMIN and the limit of zero further user namespaces must
 * still refuse each of these; and no mount that came from outside may be loosened.
 */
#include <linux/mount.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "attack.h"

static int as_new_user_namespace(void)
{
	return unshare(CLONE_NEWUSER) == 0 ? 1 : 0;
}

static int as_clone(void)
{
	long r = syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNS | 17, 0, 0, 0, 0);
	if (r == 0)
		_exit(0);
	return r > 0 ? 1 : 0;
}

static int as_clone3(void)
{
	struct {
		unsigned long long flags, pidfd, child_tid, parent_tid, exit_signal, stack,
		    stack_size, tls;
	} args = {.flags = CLONE_NEWUSER, .exit_signal = 17};
	long r = syscall(SYS_clone3, &args, sizeof(args));
	if (r == 0)
		_exit(0);
	return r > 0 ? 1 : 0;
}

static void test_classic_mounts(void)
{
	mkdir("/tmp/m", 0755);
	denied(mount("tmpfs", "/tmp/m", "tmpfs", 0, NULL), "mount of a tmpfs");
	denied(mount("proc", "/tmp/m", "proc", 0, NULL), "mount of proc");
	denied(mount("/", "/tmp/m", NULL, MS_BIND | MS_REC, NULL), "bind mount");
	denied(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL), "remount of the root");
	denied(mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL), "remount of /usr");
	denied(mount(NULL, "/proc", NULL, MS_REMOUNT, NULL), "remount of /proc");
	denied(mount(NULL, "/", NULL, MS_SHARED | MS_REC, NULL), "making mounts shared");
	denied(umount2("/proc", MNT_DETACH), "umount of /proc");
	refused(umount2("/proc/keys", MNT_DETACH), "uncovering /proc/keys");
	refused(umount2("/proc/meminfo", MNT_DETACH), "uncovering /proc/meminfo");
	denied(umount2("/usr", MNT_DETACH), "umount of /usr");
	denied(syscall(SYS_pivot_root, ".", "."), "pivot_root");
}

static void test_new_mount_api(void)
{
	denied(syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | AT_RECURSIVE),
	    "open_tree clone");
	denied(
	    syscall(SYS_open_tree, AT_FDCWD, "/usr", OPEN_TREE_CLONE), "open_tree clone of /usr");
	denied(syscall(SYS_move_mount, AT_FDCWD, "/usr", AT_FDCWD, "/tmp/m", 0), "move_mount");
	denied(syscall(SYS_fsopen, "tmpfs", 0), "fsopen");
	denied(syscall(SYS_fspick, AT_FDCWD, "/", 0), "fspick");
	struct mount_attr attr = {
	    .attr_clr = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
	denied(syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &attr, sizeof(attr)), "mount_setattr");
	denied(syscall(SYS_mount_setattr, AT_FDCWD, "/usr", 0, &attr, sizeof(attr)),
	    "mount_setattr of /usr");
}

static void test_namespaces(void)
{
	denied(unshare(CLONE_NEWNS), "unshare of mounts");
	denied(unshare(CLONE_NEWNET), "unshare of the network");
	denied(unshare(CLONE_NEWPID), "unshare of pids");
	denied(unshare(CLONE_NEWCGROUP), "unshare of cgroups");
	ok(WEXITSTATUS(in_child(as_new_user_namespace)) == 0, "no new user namespace by unshare");
	ok(WEXITSTATUS(in_child(as_clone)) == 0, "no new user namespace by clone");
	ok(WEXITSTATUS(in_child(as_clone3)) == 0, "no new user namespace by clone3");
	static const char *const names[] = {"mnt", "pid", "net", "ipc", "uts", "user", "cgroup"};
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++) {
		char path[64];
		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		refused(setns(fd, 0), names[i]);
		if (fd >= 0)
			close(fd);
	}
}

/* FACTS of the design: a clone attached late could be made writable and then hold a set-uid file
 * of host root. Nothing but the overlays and own tmpfs may be writable, and the host's files least.
 */
static void test_host_files_stay_read_only(void)
{
	struct stat st;
	int fd = open("/usr/.aviary-escape", O_CREAT | O_RDWR | O_CLOEXEC, 04755);
	if (fd >= 0) {
		/* Writing into /usr is allowed: it is an overlay. The driver looks for this name on
		 * the host afterwards. */
		ok(fchmod(fd, 04755) == 0 && fstat(fd, &st) == 0 && st.st_uid == 0,
		    "a set-uid file in the sandbox's own /usr");
		close(fd);
	} else {
		ok(errno == EROFS || errno == EACCES || errno == EPERM, "/usr is read-only");
	}
}

int main(int argc, char **argv)
{
	attack_init(argc, argv);
	test_classic_mounts();
	test_new_mount_api();
	test_namespaces();
	test_host_files_stay_read_only();
	return tap_done();
}
