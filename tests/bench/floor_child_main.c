/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor_child_main.c - the child of the floor: from clone to the program
 */
#include "floor_jail.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "spawn/seccomp.h"

#define CAP(c) (1ull << (c))
#define KEEP                                                                                       \
	(CAP(CAP_CHOWN) | CAP(CAP_DAC_OVERRIDE) | CAP(CAP_FOWNER) | CAP(CAP_FSETID) |              \
	    CAP(CAP_KILL) | CAP(CAP_SETGID) | CAP(CAP_SETUID) | CAP(CAP_SETPCAP) |                 \
	    CAP(CAP_NET_BIND_SERVICE) | CAP(CAP_SYS_CHROOT) | CAP(CAP_AUDIT_WRITE) |               \
	    CAP(CAP_SETFCAP))

static int must(long r, const char *what)
{
	if (r < 0)
		floor_die(what);
	return (int)r;
}

static void loopback_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int s = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	must(ioctl(s, SIOCSIFFLAGS, &ifr), "lo");
	close(s);
}

static void mount_fs(int root, const char *type, const char *key, const char *value,
    unsigned int attrs, const char *target)
{
	int ctx = must(fsopen(type, FSOPEN_CLOEXEC), type);
	if (key)
		must(fsconfig(ctx, FSCONFIG_SET_STRING, key, value, 0), key);
	must(fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0), type);
	int mnt = must(fsmount(ctx, FSMOUNT_CLOEXEC, attrs), type);
	int at = must(openat(root, target, O_PATH | O_DIRECTORY | O_CLOEXEC), target);
	must(
	    move_mount(mnt, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH), target);
	close(ctx);
	close(mnt);
	close(at);
}

static void mask(int root, const char *target)
{
	int at = openat(root, target, O_PATH | O_CLOEXEC);
	if (at < 0)
		return;
	int from = must(open_tree(root, "dev/null", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC), "null");
	must(move_mount(from, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
	    target);
	close(from);
	close(at);
}

static void enter_root(unsigned int n)
{
	static const char *const masked[] = {"proc/kcore", "proc/keys", "proc/sysrq-trigger",
	    "proc/timer_list", "proc/latency_stats", "proc/kpagecount"};
	const unsigned int common = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
	char stage[64];
	snprintf(stage, sizeof(stage), FLOOR_STAGE "/%u", n);
	must(unshare(CLONE_NEWNS | CLONE_NEWCGROUP), "mount namespace");
	int root = must(
	    open_tree(AT_FDCWD, stage, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE), stage);
	must(move_mount(root, "", AT_FDCWD, stage, MOVE_MOUNT_F_EMPTY_PATH), stage);
	must(fchdir(root), stage);
	mount_fs(root, "proc", NULL, NULL, common | MOUNT_ATTR_NOEXEC, "proc");
	for (size_t i = 0; i < sizeof(masked) / sizeof(masked[0]); i++)
		mask(root, masked[i]);
	mount_fs(root, "sysfs", NULL, NULL, common | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY, "sys");
	mount_fs(
	    root, "devpts", "ptmxmode", "0666", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "dev/pts");
	mount_fs(root, "tmpfs", "mode", "1777", common, "dev/shm");
	mount_fs(root, "mqueue", NULL, NULL, common | MOUNT_ATTR_NOEXEC, "dev/mqueue");
	mount_fs(root, "tmpfs", "mode", "0755", common, "run");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "umount");
	must(chdir("/"), "chdir");
}

static void drop_privileges(void)
{
	struct rlimit core = {0};
	must(sethostname("floor", 5), "hostname");
	setsid();
	must(setrlimit(RLIMIT_CORE, &core), "rlimit");
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (cap > 63 || !(KEEP & CAP(cap)))
			must(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "bounding set");
	must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient set");
	must(seccomp_filter_load(), "seccomp");
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {
	    {.effective = (uint32_t)KEEP, .permitted = (uint32_t)KEEP},
	    {.effective = (uint32_t)(KEEP >> 32), .permitted = (uint32_t)(KEEP >> 32)},
	};
	must(syscall(SYS_capset, &h, d), "capset");
}

void floor_child_main(unsigned int n, int sock, int program, int out)
{
	char go, name[] = "floor_child", stay[] = "stay", *argv[] = {name, stay, NULL},
	         *envp[] = {NULL};
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	must(unshare(CLONE_NEWNET), "network namespace");
	loopback_up();
	if (recv(sock, &go, 1, 0) != 1)
		_exit(1);
	must(setgroups(0, NULL), "setgroups");
	must(setresgid(0, 0, 0), "setresgid");
	must(setresuid(0, 0, 0), "setresuid");
	/* Kept: a floor that is killed leaves no jail. */
	must(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "PDEATHSIG");
	enter_root(n);
	drop_privileges();
	int null = must(open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null");
	int keep = must(fcntl(program, F_DUPFD_CLOEXEC, 100), "program");
	must(dup2(null, 0), "dup2");
	must(dup2(out, 1), "dup2");
	must(dup2(null, 2), "dup2");
	must(close_range(3, 99, 0), "close_range");
	must(close_range((unsigned int)keep + 1, ~0u, 0), "close_range");
	syscall(SYS_execveat, keep, "", argv, envp, AT_EMPTY_PATH);
	_exit(1);
}
