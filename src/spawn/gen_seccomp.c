/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gen_seccomp.c - writes seccomp_filter.h: the jails' system call filters as BPF, for each machine
 *
 * Two filters: that of a jail, in which any program of a user's runs, and that of a jail around a
 * virtual machine, in which aviary-vm, QEMU and the makers of file systems run and nothing else
 * has a reason to.
 *
 * Runs at build time only. Each program has two parts, one after the other:
 *
 *   1. written out here: the few calls whose answer depends on arguments (clone, socket,
 * socketpair, personality, ioctl). All of these arguments are 32 bits wide in the kernel, so only
 * the low half is looked at: what a caller puts into the upper half changes nothing. Each of these
 *      calls ends in a return.
 *   2. by libseccomp, as a binary tree: the allow-list, the calls refused with EPERM, and ENOSYS
 * for all others, for clone3 and for foreign ABIs (i386, x32, 32-bit ARM).
 *
 * Part 1 answers only for the native ABI; anything else falls through to part 2. Kernel data is
 * little-endian on both machines, so the low half of an argument comes first.
 *
 * Adding a call: put its name into `allowed` (`vm_allowed`), or `refused` when EPERM is a better
 * answer than ENOSYS, with the reason if it is not obvious, and a line into
 * tests/unit/test_seccomp.c.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/banned.h"

/* Names that one of the machines lacks are skipped for it. */
/* A list by subject, not one name a line. */
/* clang-format off */
static const char *const allowed[] = {
	/* processes and threads (clone: part 1) */
	"fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "kill",
	"tkill", "tgkill", "getpid", "getppid", "gettid", "set_tid_address", "set_robust_list",
	"get_robust_list", "rseq", "membarrier", "pidfd_open", "pidfd_send_signal", "prctl",
	"arch_prctl", "getpgid", "getpgrp", "setpgid", "getsid", "setsid", "futex", "futex_waitv",
	"sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getparam", "sched_setparam",
	"sched_getscheduler", "sched_setscheduler", "sched_getattr", "sched_setattr",
	"sched_get_priority_max", "sched_get_priority_min", "sched_rr_get_interval", "getpriority",
	"setpriority", "ioprio_get", "ioprio_set", "getcpu", "get_mempolicy", "restart_syscall",
	/* debuggers, for children only: the agent is not dumpable and yama does the rest */
	"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease",
	/* ids, capabilities and more confinement of oneself */
	"getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "setuid",
	"setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid",
	"setfsgid", "capget", "capset", "seccomp", "landlock_create_ruleset", "landlock_add_rule",
	"landlock_restrict_self",
	/* signals */
	"rt_sigaction", "rt_sigprocmask", "rt_sigpending", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
	"rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "sigaltstack", "pause", "alarm",
	"signalfd", "signalfd4", "eventfd", "eventfd2",
	/* memory */
	"brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "mincore", "msync", "mlock",
	"mlock2", "munlock", "mlockall", "munlockall", "remap_file_pages", "pkey_alloc", "pkey_free",
	"pkey_mprotect", "memfd_create",
	/* files by descriptor */
	"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2",
	"pwritev2", "lseek", "close", "close_range", "dup", "dup2", "dup3", "fcntl", "flock", "fsync",
	"fdatasync", "sync", "syncfs", "sync_file_range", "truncate", "ftruncate", "fallocate",
	"fadvise64", "readahead", "sendfile", "splice", "tee", "vmsplice", "copy_file_range", "pipe",
	"pipe2", "getdents", "getdents64",
	/* files by name; who may do what is the mounts' and owners' business */
	"open", "openat", "openat2", "creat", "stat", "lstat", "fstat", "newfstatat", "statx",
	"statfs", "fstatfs", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "mkdir",
	"mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat",
	"symlink", "symlinkat", "chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown",
	"fchownat", "utime", "utimes", "utimensat", "futimesat", "umask", "chdir", "fchdir", "getcwd",
	"chroot", "mknod", "mknodat", "setxattr", "lsetxattr", "fsetxattr", "getxattr", "lgetxattr",
	"fgetxattr", "listxattr", "llistxattr", "flistxattr", "removexattr", "lremovexattr",
	"fremovexattr", "name_to_handle_at", "inotify_init", "inotify_init1", "inotify_add_watch",
	"inotify_rm_watch",
	/* waiting */
	"poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl",
	"epoll_wait", "epoll_pwait", "epoll_pwait2", "io_setup", "io_destroy", "io_submit",
	"io_cancel", "io_getevents", "io_pgetevents",
	/* time, read only */
	"time", "gettimeofday", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep",
	"getitimer", "setitimer", "times", "timer_create", "timer_settime", "timer_gettime",
	"timer_getoverrun", "timer_delete", "timerfd_create", "timerfd_settime", "timerfd_gettime",
	/* sockets (socket, socketpair: part 1) */
	"bind", "listen", "accept", "accept4", "connect", "shutdown", "getsockname", "getpeername",
	"getsockopt", "setsockopt", "sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg",
	"recvmmsg",
	/* System V and POSIX IPC, in the sandbox's own namespace */
	"shmget", "shmat", "shmdt", "shmctl", "semget", "semop", "semtimedop", "semctl", "msgget",
	"msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive",
	"mq_notify", "mq_getsetattr",
	/* limits and facts */
	"getrlimit", "setrlimit", "prlimit64", "getrusage", "uname", "sysinfo", "getrandom",
};
/* clang-format on */

/* What QEMU (TCG and KVM, -netdev user), mkfs.erofs, mke2fs and aviary-vm were seen to call, by
 * strace, and the near relatives of those calls that another version of them may choose. Not here:
 * tracing (aviary-vm reads QEMU's memory by process_vm_readv, which yama grants to a parent), other
 * ids, devices, changing roots, System V IPC, inotify, asynchronous input and output. */
/* clang-format off */
static const char *const vm_allowed[] = {
	/* processes and threads (clone: part 1) */
	"fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "kill",
	"tkill", "tgkill", "getpid", "getppid", "gettid", "set_tid_address", "set_robust_list",
	"get_robust_list", "rseq", "membarrier", "pidfd_open", "pidfd_send_signal", "prctl",
	"arch_prctl", "getpgid", "getpgrp", "setpgid", "getsid", "setsid", "futex", "futex_waitv",
	"sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getparam",
	"sched_getscheduler", "sched_get_priority_max", "sched_get_priority_min", "getpriority",
	"setpriority", "getcpu", "get_mempolicy", "restart_syscall",
	/* the memory of the guest, from beside QEMU */
	"process_vm_readv",
	/* ids are asked for; more confinement of oneself */
	"getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "capget",
	"capset", "seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
	/* signals */
	"rt_sigaction", "rt_sigprocmask", "rt_sigpending", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
	"rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "sigaltstack", "pause", "alarm",
	"signalfd", "signalfd4", "eventfd", "eventfd2",
	/* memory */
	"brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "mincore", "msync", "mlock",
	"mlock2", "munlock", "memfd_create",
	/* files by descriptor */
	"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2",
	"pwritev2", "lseek", "close", "close_range", "dup", "dup2", "dup3", "fcntl", "flock", "fsync",
	"fdatasync", "sync_file_range", "truncate", "ftruncate", "fallocate", "fadvise64",
	"readahead", "sendfile", "splice", "copy_file_range", "pipe", "pipe2", "getdents",
	"getdents64",
	/* files by name */
	"open", "openat", "openat2", "creat", "stat", "lstat", "fstat", "newfstatat", "statx",
	"statfs", "fstatfs", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "mkdir",
	"mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat",
	"symlink", "symlinkat", "chmod", "fchmod", "fchmodat", "utime", "utimes", "utimensat",
	"umask", "chdir", "fchdir", "getcwd", "getxattr", "lgetxattr", "fgetxattr", "listxattr",
	"llistxattr", "flistxattr",
	/* waiting */
	"poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl",
	"epoll_wait", "epoll_pwait", "epoll_pwait2",
	/* time, read only */
	"time", "gettimeofday", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep",
	"getitimer", "setitimer", "times", "timer_create", "timer_settime", "timer_gettime",
	"timer_getoverrun", "timer_delete", "timerfd_create", "timerfd_settime", "timerfd_gettime",
	/* sockets (socket, socketpair: part 1) */
	"bind", "listen", "accept", "accept4", "connect", "shutdown", "getsockname", "getpeername",
	"getsockopt", "setsockopt", "sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg",
	"recvmmsg",
	/* limits and facts */
	"getrlimit", "setrlimit", "prlimit64", "getrusage", "uname", "sysinfo", "getrandom",
};
/* clang-format on */

/* Known, and refused with EPERM: programs that try these expect that a container says so. */
/* A list by subject, not one name a line. */
/* clang-format off */
static const char *const refused[] = {
	/* mounts and namespaces */
	"mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount",
	"fspick", "mount_setattr", "setns", "unshare", "open_by_handle_at",
	/* kernel attack surface that no ordinary program needs */
	"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter",
	"io_uring_register", "keyctl", "add_key", "request_key", "fanotify_init", "fanotify_mark",
	"kcmp", "pidfd_getfd", "modify_ldt", "lookup_dcookie", "memfd_secret", "migrate_pages",
	"move_pages", "mbind", "set_mempolicy", "set_mempolicy_home_node", "uselib", "vhangup",
	/* the machine's own business */
	"reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module",
	"swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog", "sethostname",
	"setdomainname", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "iopl",
	"ioperm",
};
/* clang-format on */

static void die(const char *what, const char *name)
{
	(void)fprintf(stderr, "gen_seccomp: %s %s\n", what, name);
	exit(1);
}

/* Part 1 */

struct program {
	struct sock_filter insn[2048];
	size_t n;
};

static void emit(struct program *p, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	if (p->n >= AV_ARRAY_LEN(p->insn))
		die("program", "too long");
	p->insn[p->n++] = (struct sock_filter){.code = code, .k = k, .jt = jt, .jf = jf};
}

static void load(struct program *p, uint32_t offset)
{
	emit(p, BPF_LD | BPF_W | BPF_ABS, offset, 0, 0);
}

static void load_arg(struct program *p, unsigned n)
{
	load(p, (uint32_t)(offsetof(struct seccomp_data, args) + n * 8));
}

static void ret(struct program *p, uint32_t action)
{
	emit(p, BPF_RET | BPF_K, action, 0, 0);
}

static void ret_allow(struct program *p)
{
	ret(p, SECCOMP_RET_ALLOW);
}

static void ret_errno(struct program *p, int e)
{
	ret(p, SECCOMP_RET_ERRNO | (uint32_t)e);
}

/* If A == k: the one instruction that follows; else past it. */
static void if_eq(struct program *p, uint32_t k)
{
	emit(p, BPF_JMP | BPF_JEQ | BPF_K, k, 0, 1);
}

static void allow_eq(struct program *p, uint32_t k)
{
	if_eq(p, k);
	ret_allow(p);
}

static void clone_rule(struct program *p)
{
	const uint32_t ns = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
	                    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
	load_arg(p, 0);
	emit(p, BPF_JMP | BPF_JSET | BPF_K, ns, 0, 1);
	ret_errno(p, EPERM);
	ret_allow(p);
}

/* UNIX whatever its type; INET and INET6 with TCP, UDP, ICMP (ping sockets) and what "0" picks. */
static void allow_unix_and_ip(struct program *p)
{
	static const uint32_t ip[] = {0, 1, 6, 17, 58};
	load_arg(p, 0);
	allow_eq(p, AF_UNIX);
	const uint8_t ip_len = 2 + 2 * AV_ARRAY_LEN(ip);
	emit(p, BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 1, 0);
	emit(p, BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 0, ip_len);
	load_arg(p, 2);
	for (size_t i = 0; i < AV_ARRAY_LEN(ip); i++)
		allow_eq(p, ip[i]);
	ret_errno(p, EPROTONOSUPPORT);
}

/* Those, and NETLINK for routes, socket lists and device events. SCTP, DCCP, MPTCP, VSOCK, ALG,
 * PACKET and so on are a large part of the kernel's bugs, and load modules. sudo takes
 * EPROTONOSUPPORT for "no audit here", and nothing else. */
static void socket_rule(struct program *p)
{
	static const uint32_t netlink[] = {0, 4, 15};
	allow_unix_and_ip(p);
	const uint8_t netlink_len = 2 + 2 * AV_ARRAY_LEN(netlink);
	emit(p, BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, netlink_len);
	load_arg(p, 2);
	for (size_t i = 0; i < AV_ARRAY_LEN(netlink); i++)
		allow_eq(p, netlink[i]);
	ret_errno(p, EPROTONOSUPPORT);
	ret_errno(p, EAFNOSUPPORT);
}

static void socketpair_rule(struct program *p)
{
	load_arg(p, 0);
	allow_eq(p, AF_UNIX);
	ret_errno(p, EAFNOSUPPORT);
}

/* Asking (0xffffffff), the ordinary one, and without address randomisation, for gdb. */
static void personality_rule(struct program *p)
{
	load_arg(p, 0);
	allow_eq(p, 0xffffffff);
	allow_eq(p, 0);
	allow_eq(p, 0x0040000);
	ret_errno(p, EPERM);
}

/* Typing into the terminal one was started from (TIOCSTI, TIOCLINUX), taking over the console, and
 * line disciplines, which are modules. Same numbers on both machines. */
static void ioctl_rule(struct program *p)
{
	static const uint32_t bad[] = {0x5412 /* TIOCSTI */, 0x541c /* TIOCLINUX */,
	    0x541d /* TIOCCONS */, 0x5423 /* TIOCSETD */};
	load_arg(p, 1);
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++) {
		if_eq(p, bad[i]);
		ret_errno(p, EPERM);
	}
	ret_allow(p);
}

/* UNIX; and for the guest's network what a user's own connections are: TCP, UDP, ping. */
static void vm_socket_rule(struct program *p)
{
	allow_unix_and_ip(p);
	ret_errno(p, EAFNOSUPPORT);
}

static void vm_personality_rule(struct program *p)
{
	load_arg(p, 0);
	allow_eq(p, 0xffffffff);
	ret_errno(p, EPERM);
}

/* KVM's own (their type is the second byte), and a few of files; all others are what a file answers
 * that does not know them. */
static void vm_ioctl_rule(struct program *p)
{
	static const uint32_t good[] = {0x40049409 /* FICLONE */, 0x4020940d /* FICLONERANGE */,
	    0xc020660b /* FS_IOC_FIEMAP */, 0xc0606610 /* PAGEMAP_SCAN */, 0x541b /* FIONREAD */,
	    0x5421 /* FIONBIO */, 0x5450 /* FIONCLEX */, 0x5451 /* FIOCLEX */};
	load_arg(p, 1);
	for (size_t i = 0; i < AV_ARRAY_LEN(good); i++)
		allow_eq(p, good[i]);
	emit(p, BPF_ALU | BPF_AND | BPF_K, 0xff00, 0, 0);
	allow_eq(p, 0xae00);
	ret_errno(p, ENOTTY);
}

struct argument_rule {
	const char *name;
	void (*rule)(struct program *p);
};

static const struct argument_rule by_argument[] = {
    {"ioctl", ioctl_rule},
    {"clone", clone_rule},
    {"socket", socket_rule},
    {"socketpair", socketpair_rule},
    {"personality", personality_rule},
};

static const struct argument_rule vm_by_argument[] = {
    {"ioctl", vm_ioctl_rule},
    {"clone", clone_rule},
    {"socket", vm_socket_rule},
    {"socketpair", socketpair_rule},
    {"personality", vm_personality_rule},
};
static_assert(AV_ARRAY_LEN(by_argument) == AV_ARRAY_LEN(vm_by_argument), "the same calls");

struct filter_def {
	const char *name;
	const char *const *allowed;
	size_t n_allowed;
	const struct argument_rule *by_argument;
};

static const struct filter_def filters[] = {
    {"filter", allowed, AV_ARRAY_LEN(allowed), by_argument},
    {"vm_filter", vm_allowed, AV_ARRAY_LEN(vm_allowed), vm_by_argument},
};

static void part_one(
    struct program *p, const struct filter_def *f, uint32_t arch, uint32_t audit_arch)
{
	static struct program rules;
	rules.n = 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(by_argument); i++) {
		const struct argument_rule *a = &f->by_argument[i];
		int nr = seccomp_syscall_resolve_name_arch(arch, a->name);
		if (nr < 0)
			die("unknown call", a->name);
		size_t start = rules.n + 1; /* after the comparison that is put in front */
		emit(&rules, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 0);
		a->rule(&rules);
		/* Jumped over, the number is still in the accumulator for the next comparison. */
		if (rules.n - start > 255)
			die("rule too long", a->name);
		rules.insn[start - 1].jf = (uint8_t)(rules.n - start);
	}
	if (rules.n + 1 > 255)
		die("part 1", "too long");
	load(p, offsetof(struct seccomp_data, arch));
	emit(p, BPF_JMP | BPF_JEQ | BPF_K, audit_arch, 0, (uint8_t)(rules.n + 1));
	load(p, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < rules.n; i++)
		emit(p, rules.insn[i].code, rules.insn[i].k, rules.insn[i].jt, rules.insn[i].jf);
}

/* Part 2 */

static void add_rules(
    scmp_filter_ctx ctx, uint32_t arch, uint32_t action, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int nr = seccomp_syscall_resolve_name_arch(arch, names[i]);
		if (nr == __NR_SCMP_ERROR)
			(void)fprintf(
			    stderr, "gen_seccomp: this libseccomp does not know %s\n", names[i]);
		if (nr < 0)
			continue;
		/* libseccomp wants the builder's number and translates. */
		int r =
		    seccomp_rule_add_exact(ctx, action, seccomp_syscall_resolve_name(names[i]), 0);
		if (r < 0)
			die("cannot add", names[i]);
	}
}

static void part_two(struct program *p, const struct filter_def *f, uint32_t arch)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	if (ctx == NULL)
		die("libseccomp", "does not start");
	if (arch != seccomp_arch_native() &&
	    (seccomp_arch_add(ctx, arch) < 0 ||
	        seccomp_arch_remove(ctx, seccomp_arch_native()) < 0))
		die("libseccomp", "lacks an architecture");
	if (seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS)) < 0 ||
	    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2) < 0)
		die("libseccomp", "lacks an attribute");
	add_rules(ctx, arch, SCMP_ACT_ALLOW, f->allowed, f->n_allowed);
	add_rules(ctx, arch, SCMP_ACT_ERRNO(EPERM), refused, AV_ARRAY_LEN(refused));
	int fd = memfd_create("bpf", MFD_CLOEXEC);
	if (fd < 0 || seccomp_export_bpf(ctx, fd) < 0)
		die("libseccomp", "cannot export");
	size_t room = sizeof(p->insn) - p->n * sizeof(p->insn[0]);
	if (lseek(fd, 0, SEEK_SET) < 0)
		die("memfd", "seek");
	ssize_t n = av_read_full(fd, &p->insn[p->n], room);
	if (n <= 0 || (size_t)n == room || (size_t)n % sizeof(p->insn[0]) != 0)
		die("libseccomp", "wrote an odd program");
	p->n += (size_t)n / sizeof(p->insn[0]);
	close(fd);
	seccomp_release(ctx);
}

static void print_filter(const struct filter_def *f, uint32_t arch, uint32_t audit_arch)
{
	static struct program p;
	p.n = 0;
	part_one(&p, f, arch, audit_arch);
	part_two(&p, f, arch);
	printf("static const struct sock_filter %s[%zu] = {\n", f->name, p.n);
	for (size_t i = 0; i < p.n; i++)
		printf("\t{0x%02x, %u, %u, 0x%08x},\n", p.insn[i].code, p.insn[i].jt, p.insn[i].jf,
		    p.insn[i].k);
	printf("};\n");
}

static void print_machine(const char *condition, uint32_t arch, uint32_t audit_arch)
{
	printf("%s\n", condition);
	for (size_t i = 0; i < AV_ARRAY_LEN(filters); i++)
		print_filter(&filters[i], arch, audit_arch);
}

int main(void)
{
	printf("/* SPDX-License-Identifier: Apache-2.0 */\n"
	       "/* Written by gen_seccomp.c; do not edit. Included by seccomp.c alone. */\n");
	print_machine("#if defined(__x86_64__)", SCMP_ARCH_X86_64, AUDIT_ARCH_X86_64);
	print_machine("#elif defined(__aarch64__)", SCMP_ARCH_AARCH64, AUDIT_ARCH_AARCH64);
	printf("#else\n#error \"no system call filter for this machine\"\n#endif\n");
	return fflush(stdout) != 0 || ferror(stdout);
}
