/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jail.c - the namespaces of one sandbox
 *
 * The user namespace is made with the effective id of the sandbox's own range, not root's. Kernel
 * counts that follow the owner of a user namespace (inotify instances and watches, namespaces below
 * it) are then each sandbox's own: with root as owner, 128 inotify instances would be all that the
 * sandboxes of a machine have together.
 */
#include "spawn/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "spawn/sys.h"
#include "base/banned.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U /* Linux 6.3 */
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

/* sched.h's CLONE_* and linux/sched.h's are the same numbers; the latter has the new ones. */
#define JAIL_NAMESPACES (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)

int jail_clone(const struct ids *ids, uint32_t slot, int cgroup_fd, const struct child_spec *spec,
    struct jail *ret, struct av_err *err)
{
	AV_CLEANUP(av_closep) int ours = -1;
	AV_CLEANUP(av_closep) int theirs = -1;
	int sv[2], pidfd = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "socketpair");
	ours = sv[0];
	theirs = sv[1];
	int r = ids_enter(ids, slot);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot take the ids of slot %u", slot);
	struct clone_args args = {
	    .flags =
	        JAIL_NAMESPACES | CLONE_PIDFD | (cgroup_fd >= 0 ? (uint64_t)CLONE_INTO_CGROUP : 0),
	    .pidfd = (uint64_t)(uintptr_t)&pidfd,
	    .exit_signal = SIGCHLD,
	    .cgroup = cgroup_fd >= 0 ? (uint64_t)cgroup_fd : 0,
	};
	long pid = sys_clone3(&args);
	if (pid == 0)
		child_main(spec, theirs);
	int eno = errno;
	ids_leave(ids);
	if (pid < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, eno,
		    "the kernel refused new namespaces; `aviary doctor` says why (clone3)");
	*ret = (struct jail){.pid = (pid_t)pid, .pidfd = pidfd, .userns_fd = -1};
	ret->sock = AV_TAKE_FD(ours);
	return av_set_nonblock(ret->sock, true);
}

static int write_proc(pid_t pid, const char *name, const char *text)
{
	char path[64];
	int r = av_path_printf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return r < 0 ? r : av_write_file_at(AT_FDCWD, path, av_str_c(text));
}

int jail_map(struct jail *j, const struct ids *ids, uint32_t slot, struct av_err *err)
{
	char map[64], path[64];
	uid_t base = ids_base(ids, slot);
	snprintf(map, sizeof(map), "0 %u %u", base, ids->rootless ? 1 : SPAWN_UID_COUNT);
	int r = 0;
	if (ids->rootless)
		r = write_proc(j->pid, "setgroups", "deny");
	if (r == 0)
		r = write_proc(j->pid, "uid_map", map);
	if (r == 0)
		r = write_proc(j->pid, "gid_map", map);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot map ids of slot %u", slot);
	snprintf(path, sizeof(path), "/proc/%d/ns/user", j->pid);
	j->userns_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (j->userns_fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open %s", path);
	return 0;
}

/* The child died or failed before its time; its report says more. */
static int handover_failed(struct jail *j, int error, struct av_err *err)
{
	int r = jail_result(j, err);
	return r < 0 && r != -EAGAIN
	           ? r
	           : av_err_sys(err, AV_ERR_INTERNAL, error, "cannot hand over to the child");
}

int jail_staged(struct jail *j, uint32_t limits, struct av_err *err)
{
	const struct child_staged staged = {.limits = limits};
	ssize_t n = send(j->sock, &staged, sizeof(staged), MSG_NOSIGNAL);
	return n < 0 ? handover_failed(j, errno, err) : 0;
}

int jail_go(
    struct jail *j, const int fds[static CHILD_FDS_MAX], uint32_t address, struct av_err *err)
{
	struct child_go go = {.address = address};
	int passed[CHILD_FDS_MAX];
	size_t count = 0;
	for (uint32_t i = 0; i < CHILD_FDS_MAX; i++)
		if (fds[i] >= 0) {
			go.fds |= 1u << i;
			passed[count++] = fds[i];
		}
	ssize_t n = av_send_fds(j->sock, &go, sizeof(go), passed, count, MSG_NOSIGNAL);
	return n < 0 ? handover_failed(j, (int)n, err) : 0;
}

int jail_result(struct jail *j, struct av_err *err)
{
	bool reset = false;
	for (;;) {
		struct child_report report;
		ssize_t n = recv(j->sock, &report, sizeof(report), MSG_DONTWAIT);
		/* A child that ends with our `go` unread resets the connection; the kernel says so
		 * once, before what the child sent, which is why it ended. */
		if (n < 0 && (errno == EINTR || (errno == ECONNRESET && !reset))) {
			reset = errno == ECONNRESET;
			continue;
		}
		if (n < 0 && errno == EAGAIN)
			return -EAGAIN;
		if (n == 0 && j->executing)
			return 0;
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return av_err_set(err, AV_ERR_INTERNAL,
			    "the child was killed before it executed the agent (is the memory "
			    "limit too small?)");
		if (n < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, errno, "hand-over socket");
		if (n != sizeof(report))
			return av_err_set(err, AV_ERR_INTERNAL, "hand-over: short report");
		if (report.error && child_step_is_template(report.step, report.error)) {
			(void)av_err_set(err, AV_ERR_INVALID_STATE,
			    "%s: the template has a link or a file where a directory must be: make "
			    "another template",
			    child_step_text(report.step));
			return -ESTALE;
		}
		if (report.error)
			return av_err_sys(
			    err, AV_ERR_INTERNAL, report.error, "%s", child_step_text(report.step));
		if (report.step == CHILD_STEP_NETRULES)
			j->net_ready = true;
		else
			j->executing = true;
	}
}

void jail_clear(struct jail *j)
{
	if (j->pidfd >= 0)
		av_pidfd_send_signal(j->pidfd, SIGKILL);
	av_close_fd(&j->pidfd);
	av_close_fd(&j->sock);
	av_close_fd(&j->userns_fd);
}

/* Field 22 of /proc/<pid>/stat. The second field may contain anything, up to the last ')'. */
static int parse_start_ticks(const char *stat, uint64_t *ret)
{
	const char *p = strrchr(stat, ')');
	if (!p)
		return -EINVAL;
	struct av_str rest = av_str_c(p + 1), field;
	for (int i = 2; i <= 22; i++)
		if (!av_str_cut(&rest, ' ', &field))
			return -EINVAL;
	return av_parse_u64(field, 0, UINT64_MAX, ret);
}

int jail_start_ticks(int proc_fd, pid_t pid, uint64_t *ret)
{
	char path[64], buf[1024];
	int r = av_path_printf(path, sizeof(path), "%d/stat", pid);
	if (r < 0)
		return r;
	ssize_t n = av_read_file_at(proc_fd, path, buf, sizeof(buf));
	if (n < 0)
		return n == -ENOENT ? -ESRCH : (int)n;
	return parse_start_ticks(buf, ret);
}

int jail_identify(int proc_fd, pid_t pid, struct jail_identity *ret)
{
	char path[64];
	struct jail_identity who = {.pid = pid};
	int r = jail_start_ticks(proc_fd, pid, &who.start_ticks);
	if (r < 0)
		return r;
	struct stat st;
	r = av_path_printf(path, sizeof(path), "%d/ns/pid", pid);
	if (r < 0)
		return r;
	/* A zombie has no namespaces left. */
	if (fstatat(proc_fd, path, &st, 0) < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	who.pidns_ino = st.st_ino;
	*ret = who;
	return 0;
}

int jail_open(int proc_fd, const struct jail_identity *who, int *ret_pidfd)
{
	/* The descriptor first: what is checked afterwards is then the process that it names, as
	 * long as that one lives, and signals through it cannot reach another. */
	AV_CLEANUP(av_closep) int pidfd = av_pidfd_open(who->pid);
	if (pidfd < 0)
		return pidfd;
	struct jail_identity now = {0};
	int r = jail_identify(proc_fd, who->pid, &now);
	/* Rootless, the sandboxes of an earlier worker are not below this one's user namespace, so
	 * their namespaces cannot be looked at. The start time says enough. */
	if (r == -EACCES) {
		now.pidns_ino = who->pidns_ino;
		r = jail_start_ticks(proc_fd, who->pid, &now.start_ticks);
	}
	if (r < 0)
		return r;
	if (now.start_ticks != who->start_ticks || now.pidns_ino != who->pidns_ino)
		return -ESTALE;
	*ret_pidfd = AV_TAKE_FD(pidfd);
	return 0;
}

static int copy_file(int from, int to)
{
	char buf[65536];
	for (off_t at = 0;;) {
		ssize_t n = pread(from, buf, sizeof(buf), at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		int r = av_write_full(to, buf, (size_t)n);
		if (r < 0)
			return r;
		at += n;
	}
}

static int make_memory_file(const char *name, unsigned int flags)
{
	/* Before 6.3 the flag is unknown and a memory file is executable anyway. */
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

static int seal(int fd)
{
	static const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	return fcntl(fd, F_ADD_SEALS, seals) < 0 ? -errno : 0;
}

/* A descriptor that never could do more than flags say. */
static int open_again(int fd, int flags)
{
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int again = open(path, flags | O_CLOEXEC);
	return again < 0 ? -errno : again;
}

static int make_sealed(const char *name, int from, bool rootless, int *ret_fd, int *ret_read)
{
	AV_CLEANUP(av_closep) int fd = make_memory_file(name, MFD_EXEC);
	AV_CLEANUP(av_closep) int reader = -1;
	if (fd < 0)
		return fd;
	int r = copy_file(from, fd);
	if (r < 0)
		return r;
	/* While the file's mode allows it. */
	reader = open_again(fd, O_RDONLY);
	if (reader < 0)
		return reader;
	if (fchmod(fd, 0111) < 0)
		return -errno;
	if (!rootless && fchown(fd, SPAWN_AGENT_UID, SPAWN_AGENT_UID) < 0)
		return -errno;
	r = seal(fd);
	if (r < 0)
		return r;
	int executable = open_again(fd, O_PATH);
	if (executable < 0)
		return executable;
	*ret_fd = executable;
	if (ret_read)
		*ret_read = AV_TAKE_FD(reader);
	return 0;
}

int jail_load_program(const char *name, const char *path, bool rootless, int *ret_fd, int *ret_read,
    struct av_err *err)
{
	AV_CLEANUP(av_closep) int from = open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open %s %s", name, path);
	int r = make_sealed(name, from, rootless, ret_fd, ret_read);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot seal a copy of %s", path);
	return 0;
}

int jail_copy_program(int read_fd, int *ret_fd)
{
	AV_CLEANUP(av_closep) int fd = make_memory_file("aviary-agent", MFD_NOEXEC_SEAL);
	int r = fd < 0 ? fd : copy_file(read_fd, fd);
	if (r < 0)
		return r;
	if (fchmod(fd, 0444) < 0)
		return -errno;
	r = seal(fd);
	int again = r < 0 ? r : open_again(fd, O_RDONLY);
	if (again < 0)
		return again;
	*ret_fd = again;
	return 0;
}
