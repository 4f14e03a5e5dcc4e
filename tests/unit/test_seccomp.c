/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_seccomp.c - the filters' answers, asked for in a child that lives under it
 *
 * Each case runs in the same filtered child, which writes one errno per case into a pipe (0 when
 * the call passed). Arguments are chosen so that an unfiltered kernel would answer something else.
 */
#include "lib/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "spawn/seccomp.h"

#define CASE(want, name, ...)                                                                      \
	{                                                                                          \
		name, want,                                                                        \
		{                                                                                  \
			__VA_ARGS__                                                                \
		}                                                                                  \
	}
#define HIGH (1L << 40) /* what a caller may put above the 32 bits that the kernel reads */

struct probe_case {
	const char *name;
	int want;
	long a[7]; /* number, arguments */
};

static const struct probe_case cases[] = {
    CASE(0, "getpid", SYS_getpid),
    CASE(0, "socket unix", SYS_socket, AF_UNIX, SOCK_STREAM, 0),
    CASE(0, "socket tcp", SYS_socket, AF_INET, SOCK_STREAM, 6),
    CASE(0, "socket udp6", SYS_socket, AF_INET6, SOCK_DGRAM, 0),
    CASE(0, "socket netlink route", SYS_socket, AF_NETLINK, SOCK_RAW, 0),
    CASE(0, "socket unix, upper half set", SYS_socket, AF_UNIX | HIGH, SOCK_STREAM, 0),
    CASE(EAFNOSUPPORT, "socket vsock", SYS_socket, AF_VSOCK, SOCK_STREAM, 0),
    CASE(EAFNOSUPPORT, "socket packet", SYS_socket, AF_PACKET, SOCK_RAW, 0),
    CASE(EAFNOSUPPORT, "socket alg", SYS_socket, AF_ALG, SOCK_SEQPACKET, 0),
    CASE(EAFNOSUPPORT, "socket vsock, upper half set", SYS_socket, AF_VSOCK | HIGH, SOCK_STREAM, 0),
    CASE(EAFNOSUPPORT, "socketpair of another family", SYS_socketpair, AF_INET, SOCK_STREAM, 0, 0),
    CASE(EPROTONOSUPPORT, "socket mptcp", SYS_socket, AF_INET, SOCK_STREAM, 262),
    CASE(EPROTONOSUPPORT, "socket sctp", SYS_socket, AF_INET6, SOCK_STREAM, 132),
    CASE(EPROTONOSUPPORT, "socket netlink audit", SYS_socket, AF_NETLINK, SOCK_RAW, 9),
    CASE(EPROTONOSUPPORT, "socket netlink netfilter", SYS_socket, AF_NETLINK, SOCK_RAW, 12),
    CASE(EPERM, "ioctl TIOCSTI", SYS_ioctl, -1, 0x5412, 0),
    CASE(EPERM, "ioctl TIOCSTI, upper half set", SYS_ioctl, -1, 0x5412 | HIGH, 0),
    CASE(EPERM, "ioctl TIOCLINUX", SYS_ioctl, -1, 0x541c, 0),
    CASE(EPERM, "ioctl TIOCSETD", SYS_ioctl, -1, 0x5423, 0),
    CASE(EBADF, "any other ioctl", SYS_ioctl, -1, 0x5401, 0),
    CASE(0, "personality query", SYS_personality, 0xffffffff),
    CASE(0, "personality without randomisation", SYS_personality, ADDR_NO_RANDOMIZE),
    CASE(0, "personality back", SYS_personality, 0),
    CASE(EPERM, "personality READ_IMPLIES_EXEC", SYS_personality, READ_IMPLIES_EXEC),
    CASE(EPERM, "personality bug-compatible", SYS_personality, 0x0100000),
    CASE(ENOSYS, "clone3", SYS_clone3, 0, 0),
    CASE(EPERM, "clone with a user namespace", SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0),
    CASE(EPERM, "clone with a mount namespace", SYS_clone, CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0),
    CASE(EPERM, "clone with a cgroup namespace", SYS_clone, CLONE_NEWCGROUP | SIGCHLD, 0, 0, 0, 0),
    CASE(EPERM, "clone with a namespace, upper half set", SYS_clone, HIGH | CLONE_NEWNET, 0, 0, 0,
        0),
    CASE(EPERM, "unshare", SYS_unshare, CLONE_NEWUSER),
    CASE(EPERM, "unshare of nothing", SYS_unshare, 0),
    CASE(EPERM, "setns", SYS_setns, -1, 0),
    CASE(EPERM, "mount", SYS_mount, 0, 0, 0, 0, 0),
    CASE(EPERM, "umount2", SYS_umount2, 0, 0),
    CASE(EPERM, "pivot_root", SYS_pivot_root, 0, 0),
    CASE(EPERM, "open_tree", SYS_open_tree, -1, 0, 0),
    CASE(EPERM, "move_mount", SYS_move_mount, -1, 0, -1, 0, 0),
    CASE(EPERM, "fsopen", SYS_fsopen, 0, 0),
    CASE(EPERM, "fsconfig", SYS_fsconfig, -1, 0, 0, 0, 0),
    CASE(EPERM, "fsmount", SYS_fsmount, -1, 0, 0),
    CASE(EPERM, "fspick", SYS_fspick, -1, 0, 0),
    CASE(EPERM, "mount_setattr", SYS_mount_setattr, -1, 0, 0, 0, 0),
    CASE(EPERM, "open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0),
    CASE(EPERM, "bpf", SYS_bpf, 0, 0, 0),
    CASE(EPERM, "perf_event_open", SYS_perf_event_open, 0, 0, -1, -1, 0),
    CASE(EPERM, "userfaultfd", SYS_userfaultfd, 0),
    CASE(EPERM, "io_uring_setup", SYS_io_uring_setup, 1, 0),
    CASE(EPERM, "io_uring_enter", SYS_io_uring_enter, -1, 0, 0, 0, 0),
    CASE(EPERM, "io_uring_register", SYS_io_uring_register, -1, 0, 0, 0),
    CASE(EPERM, "keyctl", SYS_keyctl, 0, 0, 0, 0, 0),
    CASE(EPERM, "add_key", SYS_add_key, 0, 0, 0, 0, 0),
    CASE(EPERM, "request_key", SYS_request_key, 0, 0, 0, 0),
    CASE(EPERM, "kexec_load", SYS_kexec_load, 0, 0, 0, 0),
    CASE(EPERM, "init_module", SYS_init_module, 0, 0, 0),
    CASE(EPERM, "finit_module", SYS_finit_module, -1, 0, 0),
    CASE(EPERM, "delete_module", SYS_delete_module, 0, 0),
    CASE(EPERM, "swapon", SYS_swapon, 0, 0),
    CASE(EPERM, "reboot", SYS_reboot, 0, 0, 0, 0),
    CASE(EPERM, "clock_settime", SYS_clock_settime, 0, 0),
    CASE(EPERM, "settimeofday", SYS_settimeofday, 0, 0),
    CASE(EPERM, "sethostname", SYS_sethostname, 0, 0),
    CASE(EPERM, "syslog", SYS_syslog, 0, 0, 0),
    CASE(EPERM, "kcmp", SYS_kcmp, 0, 0, 0, 0, 0),
    CASE(EPERM, "pidfd_getfd", SYS_pidfd_getfd, -1, 0, 0),
    CASE(EPERM, "fanotify_init", SYS_fanotify_init, 0, 0),
    CASE(EPERM, "quotactl", SYS_quotactl, 0, 0, 0, 0),
    CASE(EPERM, "acct", SYS_acct, 0),
    CASE(ENOSYS, "a number that does not exist", 4242),
    CASE(ENOSYS, "statmount, newer than the library", 457, 0, 0, 0, 0),
    CASE(EBADF, "close_range on, close off", SYS_close, -1),
    CASE(EFAULT, "memfd_create", SYS_memfd_create, 0, 0),
    CASE(ESRCH, "ptrace attach to nobody", SYS_ptrace, PTRACE_ATTACH, 0x3fffffff, 0, 0),
#ifdef __x86_64__
    CASE(ENOSYS, "x32 getpid", 0x40000000 | SYS_getpid),
    CASE(ENOSYS, "x32 ioctl TIOCSTI", 0x40000000 | 514, -1, 0x5412, 0),
    CASE(EPERM, "modify_ldt", SYS_modify_ldt, 0, 0, 0),
    CASE(EPERM, "iopl", SYS_iopl, 3),
#endif
};

/* What the filter around a virtual machine answers otherwise. */
static const struct probe_case vm_cases[] = {
    CASE(0, "getpid", SYS_getpid),
    CASE(0, "socket unix", SYS_socket, AF_UNIX, SOCK_STREAM, 0),
    CASE(0, "socket tcp", SYS_socket, AF_INET, SOCK_STREAM, 6),
    CASE(0, "socket udp6", SYS_socket, AF_INET6, SOCK_DGRAM, 17),
    CASE(EAFNOSUPPORT, "socket netlink route", SYS_socket, AF_NETLINK, SOCK_RAW, 0),
    CASE(EAFNOSUPPORT, "socket vsock", SYS_socket, AF_VSOCK, SOCK_STREAM, 0),
    CASE(EPROTONOSUPPORT, "socket mptcp", SYS_socket, AF_INET, SOCK_STREAM, 262),
    CASE(EBADF, "ioctl of KVM", SYS_ioctl, -1, 0xae00, 0),
    CASE(EBADF, "ioctl of KVM with an argument", SYS_ioctl, -1, 0x4020ae46, 0),
    CASE(EBADF, "ioctl FICLONE", SYS_ioctl, -1, 0x40049409, 0),
    CASE(EBADF, "ioctl PAGEMAP_SCAN", SYS_ioctl, -1, 0xc0606610, 0),
    CASE(ENOTTY, "ioctl of a network device", SYS_ioctl, -1, 0x8913, 0),
    CASE(ENOTTY, "ioctl TIOCSTI", SYS_ioctl, -1, 0x5412, 0),
    CASE(ENOTTY, "ioctl TIOCSTI, upper half set", SYS_ioctl, -1, 0x5412 | HIGH, 0),
    CASE(ENOTTY, "ioctl of vhost", SYS_ioctl, -1, 0xaf01, 0),
    CASE(EPERM, "clone of a user namespace", SYS_clone, CLONE_NEWUSER, 0, 0, 0, 0),
    CASE(EPERM, "unshare", SYS_unshare, CLONE_NEWNET),
    CASE(EPERM, "mount", SYS_mount, 0, 0, 0, 0, 0),
    CASE(EPERM, "bpf", SYS_bpf, 0, 0, 0),
    CASE(EPERM, "io_uring_setup", SYS_io_uring_setup, 1, 0),
    CASE(EPERM, "personality", SYS_personality, 0x0040000),
    CASE(ENOSYS, "ptrace", SYS_ptrace, PTRACE_ATTACH, 0x3fffffff, 0, 0),
    CASE(ENOSYS, "process_vm_writev", SYS_process_vm_writev, 0, 0, 0, 0, 0, 0),
    CASE(0, "process_vm_readv", SYS_process_vm_readv, 0, 0, 0, 0, 0, 0),
    CASE(ENOSYS, "setuid", SYS_setuid, 0),
    CASE(ENOSYS, "fchown", SYS_fchown, -1, 0, 0),
    CASE(ENOSYS, "mknodat", SYS_mknodat, -1, 0, 0, 0),
    CASE(ENOSYS, "fsetxattr", SYS_fsetxattr, -1, 0, 0, 0, 0),
    CASE(ENOSYS, "chroot", SYS_chroot, 0),
    CASE(ENOSYS, "shmget", SYS_shmget, 0, 0, 0),
    CASE(ENOSYS, "inotify_init1", SYS_inotify_init1, 0),
    CASE(ENOSYS, "io_setup", SYS_io_setup, 1, 0),
    CASE(ENOSYS, "clone3", SYS_clone3, 0, 0),
#ifdef __x86_64__
    CASE(ENOSYS, "x32 getpid", 0x40000000 | SYS_getpid),
#endif
};

static void *thread_main(void *arg)
{
	return arg;
}

static int i386_getpid(void)
{
#ifdef __x86_64__
	int r = 20;
	__asm__ volatile("int $0x80" : "+a"(r) : : "memory", "r8", "r9", "r10", "r11");
	return r;
#else
	return -ENOSYS;
#endif
}

static void ask(const struct probe_case *c, size_t n, int *answers)
{
	for (size_t i = 0; i < n; i++) {
		const long *a = c[i].a;
		long r = syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
		if (r == 0 && a[0] == SYS_clone)
			_exit(1); /* a clone that should have failed: this is its child */
		answers[i] = r < 0 ? errno : 0;
	}
}

static void under_the_filter(int out)
{
	int answers[AV_ARRAY_LEN(cases) + 4];
	size_t n = 0;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || seccomp_filter_load() != 0)
		_exit(1);
	ask(cases, AV_ARRAY_LEN(cases), answers);
	n = AV_ARRAY_LEN(cases);
	pid_t pid = fork();
	if (pid == 0)
		_exit(7);
	int status = 0;
	answers[n++] = waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7;
	pthread_t t;
	answers[n++] =
	    pthread_create(&t, NULL, thread_main, NULL) == 0 && pthread_join(t, NULL) == 0;
	pid = vfork();
	if (pid == 0) {
		(void)execl("/bin/true", "true", (char *)NULL);
		_exit(1);
	}
	answers[n++] = waitpid(pid, &status, 0) == pid && status == 0;
	pid = fork();
	if (pid == 0) /* without 32-bit support the kernel kills it, as good an answer */
		_exit(i386_getpid() == -ENOSYS ? 0 : 1);
	answers[n++] = waitpid(pid, &status, 0) == pid && (status == 0 || WIFSIGNALED(status));
	_exit(av_write_full(out, answers, sizeof(answers)) < 0);
}

static void test_vm(void)
{
	int p[2], answers[AV_ARRAY_LEN(vm_cases)] = {0};
	if (pipe2(p, O_CLOEXEC) < 0)
		return;
	pid_t pid = fork();
	if (pid == 0) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || seccomp_vm_filter_load() != 0)
			_exit(1);
		ask(vm_cases, AV_ARRAY_LEN(vm_cases), answers);
		_exit(av_write_full(p[1], answers, sizeof(answers)) < 0);
	}
	close(p[1]);
	ssize_t n = av_read_full(p[0], answers, sizeof(answers));
	int status = 0;
	(void)waitpid(pid, &status, 0);
	ok(status == 0 && n == (ssize_t)sizeof(answers), "around a virtual machine");
	for (size_t i = 0; i < AV_ARRAY_LEN(vm_cases); i++)
		is_int(answers[i], vm_cases[i].want, vm_cases[i].name);
	close(p[0]);
}

int main(void)
{
	int p[2], answers[AV_ARRAY_LEN(cases) + 4] = {0};
	size_t len;
	(void)alarm(30);
	ok(seccomp_filter(&len) != NULL && len > 100 && len <= 4096,
	    "a program of %zu instructions", len);
	if (pipe2(p, O_CLOEXEC) < 0)
		return 1;
	pid_t pid = fork();
	if (pid == 0)
		under_the_filter(p[1]);
	close(p[1]);
	ssize_t n = av_read_full(p[0], answers, sizeof(answers));
	int status = 0;
	(void)waitpid(pid, &status, 0);
	is_int(status, 0, "the child ends well");
	is_int(n, (ssize_t)sizeof(answers), "all answers came");
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++)
		is_int(answers[i], cases[i].want, cases[i].name);
	ok(answers[AV_ARRAY_LEN(cases)], "fork and exit");
	ok(answers[AV_ARRAY_LEN(cases) + 1], "a thread, although clone3 is not there");
	ok(answers[AV_ARRAY_LEN(cases) + 2], "vfork and exec");
	ok(answers[AV_ARRAY_LEN(cases) + 3], "32-bit calls are not answered");
	test_vm();
	return tap_done();
}
