/* SPDX-License-Identifier: Apache-2.0 */
/*
 * child.c - from clone3 to execveat of the agent
 *
 * Theory of operation. The child is born with all capabilities in a user namespace whose maps are
 * not written yet, still in the worker's mount namespace. Three phases:
 *
 *   1. Alone, while the worker mounts the root file system on the other CPU: descriptors closed,
 *      network namespace made (the slowest single call of a create), loopback up, and whatever else
 *      needs neither ids nor mounts.
 *   2. After `staged`: ids to 0, then unshare(CLONE_NEWNS). That call is where the staged tree
 *      crosses the border of the user namespace, so that its flags and its inner mounts come out
 *      locked. pivot_root refuses a locked root, so the child clones the staged tree (the clone's
 *      root is not locked, everything below stays so), adds what belongs to its own namespaces, and
 *      leaves the old root. Meanwhile the worker attaches cgroups and makes socket and record.
 *   3. After `go`, with nothing of the outside left: filter, capabilities, descriptors, exec.
 *
 * It dies with the worker: by end of file while it waits, by PDEATHSIG from then on, cleared just
 * before the exec. The change of ids clears PDEATHSIG, so it is set after it, and the socket is
 * looked at once more in case the worker died in between.
 *
 * Paths inside the new root come from a template and may be hostile (a symbolic link at /dev): each
 * mount point is opened below the root without following links and mounts go to that descriptor.
 */
#include "spawn/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <grp.h>

#include "base/failpoint.h"
#include "base/fd.h"
#include "base/macros.h"
#include "spawn/net_child.h"
#include "spawn/seccomp.h"
#include "spawn/sys.h"
#include "base/banned.h"

/* Where the child keeps what it must not lose; all else is closed at once. What is below is the
 * program's. */
enum { FD_SOCK = 20, FD_PROGRAM, FD_FIRST_FREE };
static_assert(CHILD_FD_FIRST + CHILD_FDS_MAX <= FD_SOCK, "apart");
static_assert(CHILD_FDS_MAX <= AV_FD_PASS_MAX, "one message");

#define CAP(c) (1ull << (c))
/* What sandbox root may hold (DESIGN: processes and trust). */
#define BOUNDING_SET                                                                               \
	(CAP(CAP_CHOWN) | CAP(CAP_DAC_OVERRIDE) | CAP(CAP_FOWNER) | CAP(CAP_FSETID) |              \
	    CAP(CAP_KILL) | CAP(CAP_SETGID) | CAP(CAP_SETUID) | CAP(CAP_SETPCAP) |                 \
	    CAP(CAP_NET_BIND_SERVICE) | CAP(CAP_SYS_CHROOT) | CAP(CAP_AUDIT_WRITE) |               \
	    CAP(CAP_SETFCAP))
/* The first process of a jail around a virtual machine holds nothing. What makes an image reads the
 * files of all ids of a template; nothing else of a user's runs beside it. */
#define VM_IMAGE_SET CAP(CAP_DAC_READ_SEARCH)

const char *child_step_text(uint32_t step)
{
	static const char *const texts[] = {
#define STEP(name, word, text) [CHILD_STEP_##name] = text,
	    CHILD_STEPS(STEP)
#undef STEP
	};
	return step < AV_ARRAY_LEN(texts) ? texts[step] : "unknown step";
}

bool child_step_is_template(uint32_t step, int error)
{
	return step >= CHILD_STEP_ROOT && step <= CHILD_STEP_RUN &&
	       (error == ELOOP || error == ENOTDIR);
}

_Noreturn static void fail(enum child_step step, int error)
{
	struct child_report r = {.step = step, .error = error < 0 ? -error : error};
	/* The worker may be gone; nobody is left to tell then. */
	if (send(FD_SOCK, &r, sizeof(r), MSG_NOSIGNAL) < 0)
		_exit(126);
	_exit(125);
}

/* result: -1 with errno, -errno, or success. */
static int check(enum child_step step, long result)
{
	static const char *const names[] = {
#define STEP(name, word, text) [CHILD_STEP_##name] = "child." word,
	    CHILD_STEPS(STEP)
#undef STEP
	};
	if (result == -1)
		fail(step, errno);
	if (result < 0)
		fail(step, (int)result);
	if (av_failpoint(names[step]))
		fail(step, EIO);
	return (int)result;
}

/* The hand-over sockets of other creates are in this copy of the descriptor table too: a sibling
 * that waits for end of file would wait for ever if one stayed open here. */
static void keep_descriptors(const struct child_spec *spec, int sock)
{
	/* Neither may be overwritten while the other moves. */
	sock = fcntl(sock, F_DUPFD_CLOEXEC, FD_FIRST_FREE);
	int program = fcntl(spec->program_fd, F_DUPFD_CLOEXEC, FD_FIRST_FREE);
	check(CHILD_STEP_HANDOVER, dup3(sock, FD_SOCK, O_CLOEXEC));
	check(CHILD_STEP_HANDOVER, dup3(program, FD_PROGRAM, O_CLOEXEC));
	check(CHILD_STEP_HANDOVER, close_range(3, FD_SOCK - 1, 0));
	check(CHILD_STEP_HANDOVER, close_range(FD_FIRST_FREE, ~0u, 0));
}

static void loopback_up(void)
{
	AV_CLEANUP(av_closep) int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	check(CHILD_STEP_LOOPBACK, s);
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	check(CHILD_STEP_LOOPBACK, ioctl(s, SIOCSIFFLAGS, &ifr));
}

/* The rules before the interface that they are for; then the worker may make that. */
static void prepare_internet(const struct net_rules_sandbox *rules)
{
	const struct child_report ready = {.step = CHILD_STEP_NETRULES};
	check(CHILD_STEP_NETRULES, net_child_rules(rules));
	check(CHILD_STEP_HANDOVER, send(FD_SOCK, &ready, sizeof(ready), MSG_NOSIGNAL));
}

static void wait_for_stage(struct child_staged *ret)
{
	ssize_t got = recv(FD_SOCK, ret, sizeof(*ret), 0);
	if (got == 0)
		_exit(126); /* the worker died or gave up */
	check(CHILD_STEP_HANDOVER, got);
	if (got != sizeof(*ret))
		fail(CHILD_STEP_HANDOVER, EPROTO);
}

/* fds: -1 where the program gets none. */
static void wait_for_go(int fds[static CHILD_FDS_MAX], uint32_t *ret_address)
{
	struct child_go go;
	int got_fds[AV_FD_PASS_MAX];
	size_t n, taken = 0;
	ssize_t got = av_recv_fds(FD_SOCK, &go, sizeof(go), got_fds, &n, 0);
	if (got == 0)
		_exit(126);
	check(CHILD_STEP_HANDOVER, got);
	if (got != sizeof(go) || n != (size_t)__builtin_popcount(go.fds) ||
	    go.fds >> CHILD_FDS_MAX != 0)
		fail(CHILD_STEP_HANDOVER, EPROTO);
	for (uint32_t i = 0; i < CHILD_FDS_MAX; i++)
		fds[i] = go.fds & (1u << i) ? got_fds[taken++] : -1;
	*ret_address = go.address;
}

static void take_ids(const struct child_spec *spec)
{
	/* Rootless: setgroups is denied for good, and there is one id. */
	if (!spec->rootless)
		check(CHILD_STEP_IDS, setgroups(0, NULL));
	check(CHILD_STEP_IDS, setresgid(0, 0, 0));
	check(CHILD_STEP_IDS, setresuid(0, 0, 0));
	check(CHILD_STEP_IDS, prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
	struct pollfd p = {.fd = FD_SOCK, .events = POLLIN};
	check(CHILD_STEP_HANDOVER, poll(&p, 1, 0));
	if (p.revents & (POLLHUP | POLLERR))
		_exit(126);
}

/* A directory or file below root, reached without a link. */
static int open_below(int root, const char *path, int flags)
{
	struct open_how how = {
	    .flags = (uint64_t)(flags | O_PATH | O_CLOEXEC),
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	return (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
}

/* The directory `name` of the root, made if the template has none. */
static int open_or_make_dir(enum child_step step, int root, const char *name)
{
	int fd = open_below(root, name, O_DIRECTORY);
	if (fd < 0 && errno == ENOENT) {
		check(step, mkdirat(root, name, 0755));
		fd = open_below(root, name, O_DIRECTORY);
	}
	return check(step, fd);
}

struct fs_option {
	const char *key, *value;
};

/* A new file system of type fs, attached on the directory target. */
static void mount_fs(enum child_step step, const char *fs, const struct fs_option *options,
    unsigned int attrs, int target)
{
	AV_CLEANUP(av_closep) int ctx = fsopen(fs, FSOPEN_CLOEXEC);
	check(step, ctx);
	for (; options && options->key; options++)
		check(
		    step, options->value
		              ? fsconfig(ctx, FSCONFIG_SET_STRING, options->key, options->value, 0)
		              : fsconfig(ctx, FSCONFIG_SET_FLAG, options->key, NULL, 0));
	check(step, fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	AV_CLEANUP(av_closep) int mnt = fsmount(ctx, FSMOUNT_CLOEXEC, attrs);
	check(step, mnt);
	check(step,
	    move_mount(mnt, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

#define ATTR_COMMON (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

static void mount_dev(const struct child_spec *spec, int root)
{
	char size[32];
	uint64_t half = spec->memory_bytes ? spec->memory_bytes / 2 : 0;
	snprintf(size, sizeof(size), "%llu", (unsigned long long)half);
	const struct fs_option pts[] = {{"mode", "0620"}, {"ptmxmode", "0666"},
	    {spec->rootless ? NULL : "gid", "5"}, {NULL, NULL}};
	const struct fs_option shm[] = {
	    {"mode", "1777"}, {half ? "size" : NULL, size}, {NULL, NULL}};

	if (spec->vm)
		return; /* QEMU opens none of these */
	AV_CLEANUP(av_closep) int pts_fd = open_below(root, "dev/pts", O_DIRECTORY);
	check(CHILD_STEP_DEV, pts_fd);
	mount_fs(CHILD_STEP_DEV, "devpts", pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, pts_fd);
	AV_CLEANUP(av_closep) int shm_fd = open_below(root, "dev/shm", O_DIRECTORY);
	check(CHILD_STEP_DEV, shm_fd);
	mount_fs(CHILD_STEP_DEV, "tmpfs", shm, ATTR_COMMON, shm_fd);
	AV_CLEANUP(av_closep) int mq_fd = open_below(root, "dev/mqueue", O_DIRECTORY);
	check(CHILD_STEP_DEV, mq_fd);
	mount_fs(CHILD_STEP_DEV, "mqueue", NULL, ATTR_COMMON | MOUNT_ATTR_NOEXEC, mq_fd);
}

/* Attaches source (below the root) over target, a file. Missing targets are not an error. */
static void bind_over(enum child_step step, int root, const char *source, int target_dir,
    const char *target, bool read_only)
{
	AV_CLEANUP(av_closep) int to = open_below(target_dir, target, 0);
	if (to < 0 && (errno == ENOENT || errno == EACCES))
		return;
	check(step, to);
	AV_CLEANUP(av_closep) int at = open_below(root, source, 0);
	check(step, at);
	AV_CLEANUP(av_closep)
	int from = open_tree(at, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	check(step, from);
	if (read_only) {
		struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
		check(step, mount_setattr(from, "", AT_EMPTY_PATH, &attr, sizeof(attr)));
	}
	check(
	    step, move_mount(from, "", to, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

/* Readable by everybody and about the host, or dangerous for host root only; the id map already
 * refuses most of them (kcore, sysrq-trigger, timer_list), the mask is the second lock. */
static const char *const masked[] = {
    "kcore",
    "keys",
    "sysrq-trigger",
    "timer_list",
    "latency_stats",
    "kpagecount",
};

/* A file that the worker made in the staged /dev, over one of the kernel's. The mount holds the
 * file; its name need not be seen afterwards. */
static void bind_limit(int root, const char *source, const char *target)
{
	AV_CLEANUP(av_closep) int dev = open_below(root, "dev", O_DIRECTORY);
	check(CHILD_STEP_MASK, dev);
	bind_over(CHILD_STEP_MASK, dev, source, root, target, true);
	check(CHILD_STEP_MASK, unlinkat(dev, source, 0));
}

static void mount_proc(const struct child_staged *staged, int root)
{
	AV_CLEANUP(av_closep) int dir = open_or_make_dir(CHILD_STEP_PROC, root, "proc");
	mount_fs(CHILD_STEP_PROC, "proc", NULL, ATTR_COMMON | MOUNT_ATTR_NOEXEC, dir);
	AV_CLEANUP(av_closep) int proc = open_below(root, "proc", O_DIRECTORY);
	check(CHILD_STEP_PROC, proc);
	for (size_t i = 0; i < AV_ARRAY_LEN(masked); i++)
		bind_over(CHILD_STEP_MASK, root, "dev/null", proc, masked[i], false);
	/* No user namespace below this one: even without the filter nobody inside gets
	 * CAP_SYS_ADMIN over anything again. Then all settings are read-only; those of the network
	 * namespace would be writable for the sandbox's root. */
	check(CHILD_STEP_PROC, av_write_file_at(proc, "sys/user/max_user_namespaces", AV_STR("0")));
	bind_over(CHILD_STEP_MASK, proc, "sys", proc, "sys", true);
	if (staged->limits & CHILD_LIMITS_MEMORY)
		bind_limit(root, ".meminfo", "proc/meminfo");
	if (staged->limits & CHILD_LIMITS_CPUS) {
		bind_limit(root, ".cpuinfo", "proc/cpuinfo");
		bind_limit(root, ".stat", "proc/stat");
	}
}

static void mount_sys(const struct child_spec *spec, const struct child_staged *staged, int root)
{
	AV_CLEANUP(av_closep) int dir = open_or_make_dir(CHILD_STEP_SYS, root, "sys");
	mount_fs(CHILD_STEP_SYS, "sysfs", NULL, ATTR_COMMON | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY,
	    dir);
	if (staged->limits & CHILD_LIMITS_CPUS)
		bind_limit(root, ".online", "sys/devices/system/cpu/online");
	if (!spec->has_cgroup2)
		return;
	AV_CLEANUP(av_closep) int cg = open_below(root, "sys/fs/cgroup", O_DIRECTORY);
	check(CHILD_STEP_CGROUPFS, cg);
	mount_fs(CHILD_STEP_CGROUPFS, "cgroup2", NULL,
	    ATTR_COMMON | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY, cg);
}

static void enter_root(const struct child_spec *spec, const struct child_staged *staged)
{
	check(CHILD_STEP_MOUNTNS, unshare(CLONE_NEWNS | (spec->has_cgroup2 ? CLONE_NEWCGROUP : 0)));
	AV_CLEANUP(av_closep)
	int root =
	    open_tree(AT_FDCWD, spec->stage, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	check(CHILD_STEP_ROOT, root);
	check(
	    CHILD_STEP_ROOT, move_mount(root, "", AT_FDCWD, spec->stage, MOVE_MOUNT_F_EMPTY_PATH));
	check(CHILD_STEP_ROOT, fchdir(root));
	umask(0022);
	mount_proc(staged, root);
	if (!spec->vm)
		mount_sys(spec, staged, root);
	mount_dev(spec, root);
	AV_CLEANUP(av_closep) int run = open_or_make_dir(CHILD_STEP_RUN, root, "run");
	const struct fs_option opts[] = {{"mode", "0755"}, {"size", "16m"}, {NULL, NULL}};
	mount_fs(CHILD_STEP_RUN, "tmpfs", opts, ATTR_COMMON, run);

	/* The old root ends up on top of the new one, and is taken off. */
	check(CHILD_STEP_PIVOT, sys_pivot_root(".", "."));
	check(CHILD_STEP_PIVOT, umount2(".", MNT_DETACH));
	check(CHILD_STEP_PIVOT, chdir("/"));
}

static void lower_limit(int which, rlim_t soft, rlim_t hard)
{
	struct rlimit now;
	check(CHILD_STEP_IDENTITY, getrlimit((__rlimit_resource_t)which, &now));
	struct rlimit want = {.rlim_max = AV_MIN(hard, now.rlim_max)};
	want.rlim_cur = AV_MIN(soft, want.rlim_max);
	check(CHILD_STEP_IDENTITY, setrlimit((__rlimit_resource_t)which, &want));
}

static void take_identity(const struct child_spec *spec)
{
	char name[16];
	snprintf(name, sizeof(name), "%.12s", spec->id);
	check(CHILD_STEP_IDENTITY, sethostname(name, strlen(name)));
	if (setsid() < 0 && errno != EPERM)
		fail(CHILD_STEP_IDENTITY, errno);
	lower_limit(RLIMIT_CORE, 0, 0);
	/* As login systems set it: a soft limit that select(2) survives, room above for servers. */
	lower_limit(RLIMIT_NOFILE, 1024, 1 << 20);
	lower_limit(RLIMIT_STACK, 8 << 20, RLIM_INFINITY);
	if (spec->rlimit_data)
		lower_limit(RLIMIT_DATA, spec->rlimit_data, spec->rlimit_data);
	if (spec->rlimit_nproc)
		lower_limit(RLIMIT_NPROC, spec->rlimit_nproc, spec->rlimit_nproc);
	/* The worker's own handling is not the agent's. */
	sigset_t none;
	sigemptyset(&none);
	check(CHILD_STEP_IDENTITY, sigprocmask(SIG_SETMASK, &none, NULL));
	signal(SIGPIPE, SIG_DFL);
}

/* What an exec can give back; what the process has now stays until drop_capabilities(). */
static void limit_bounding_set(uint64_t keep)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (cap > 63 || !(keep & CAP(cap)))
			check(CHILD_STEP_CAPS, prctl(PR_CAPBSET_DROP, cap, 0, 0, 0));
	check(CHILD_STEP_CAPS, prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
}

static uint64_t capabilities(const struct child_spec *spec)
{
	if (!spec->vm)
		return BOUNDING_SET;
	return spec->vm_image ? VM_IMAGE_SET : 0;
}

/* CAP_SYS_ADMIN loads the filter (no_new_privs would end sudo): hence this order. */
static void drop_privileges(const struct child_spec *spec)
{
	const uint64_t keep = capabilities(spec);
	if (spec->no_sudo || spec->vm)
		check(CHILD_STEP_CAPS, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (!spec->no_seccomp)
		check(CHILD_STEP_SECCOMP,
		    spec->vm ? seccomp_vm_filter_load() : seccomp_filter_load());
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {
	    {.effective = (uint32_t)keep, .permitted = (uint32_t)keep},
	    {.effective = (uint32_t)(keep >> 32), .permitted = (uint32_t)(keep >> 32)},
	};
	check(CHILD_STEP_CAPS, syscall(SYS_capset, &h, d));
}

/* fds: as wait_for_go() gave them. */
static void arrange_descriptors(int fds[static CHILD_FDS_MAX])
{
	AV_CLEANUP(av_closep) int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	check(CHILD_STEP_FDS, null);
	/* Out of the way of the program's first. */
	for (size_t i = 0; i < CHILD_FDS_MAX; i++)
		if (fds[i] >= 0)
			fds[i] =
			    check(CHILD_STEP_FDS, fcntl(fds[i], F_DUPFD_CLOEXEC, FD_FIRST_FREE));
	for (int fd = 0; fd <= 2; fd++)
		check(CHILD_STEP_FDS, dup2(null, fd));
	null = -1; /* goes with the range below */
	check(CHILD_STEP_FDS, close_range(CHILD_FD_FIRST, FD_SOCK - 1, 0));
	for (int i = 0; i < CHILD_FDS_MAX; i++)
		if (fds[i] >= 0)
			check(CHILD_STEP_FDS, dup2(fds[i], CHILD_FD_FIRST + i));
	check(CHILD_STEP_FDS, close_range(FD_FIRST_FREE, ~0u, 0));
}

_Noreturn void child_main(const struct child_spec *spec, int sock)
{
	struct child_staged staged;
	int fds[CHILD_FDS_MAX];
	uint32_t address;

	/* Until the ids change; see take_ids(). */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	keep_descriptors(spec, sock);
	check(CHILD_STEP_NETNS, unshare(CLONE_NEWNET));
	loopback_up();
	if (spec->net)
		prepare_internet(spec->net);
	take_identity(spec);
	limit_bounding_set(capabilities(spec));
	wait_for_stage(&staged);
	take_ids(spec);
	enter_root(spec, &staged);
	wait_for_go(fds, &address);
	if (spec->net)
		check(CHILD_STEP_NETUP, net_child_up(address));
	/* After the cgroups were joined: its root is where the process is then. */
	if (!spec->has_cgroup2)
		check(CHILD_STEP_CGROUPNS, unshare(CLONE_NEWCGROUP));
	drop_privileges(spec);
	arrange_descriptors(fds);

	char id_env[64];
	snprintf(id_env, sizeof(id_env), "AVIARY_SANDBOX_ID=%s", spec->id);
	char agent[] = "aviary-agent", vm[] = "aviary-vm", id[64];
	snprintf(id, sizeof(id), "%s", spec->id);
	char *argv[] = {spec->vm ? vm : agent, id, NULL}, *envp[] = {id_env, NULL, NULL};
#ifdef AVIARY_FAILPOINTS
	char points[512];
	if (spec->vm && getenv("AVIARY_VM_FAILPOINT")) {
		snprintf(
		    points, sizeof(points), "AVIARY_FAILPOINT=%s", getenv("AVIARY_VM_FAILPOINT"));
		envp[1] = points;
	}
#endif
	struct child_report r = {.step = CHILD_STEP_EXEC};
	check(CHILD_STEP_EXEC, send(FD_SOCK, &r, sizeof(r), MSG_NOSIGNAL));
	check(CHILD_STEP_EXEC, prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0));
	execveat(FD_PROGRAM, "", argv, envp, AT_EMPTY_PATH);
	fail(CHILD_STEP_EXEC, errno);
}
