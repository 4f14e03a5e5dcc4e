/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_try.c - trying namespaces and mounts in children, as that is the only sure answer
 *
 * sysctls, AppArmor, seccomp filters of containers and masked procs all forbid these in their own
 * ways; what a child could do settles it. Everything happens in namespaces that end with the child.
 */
#include "spawn/probe_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/banned.h"

#define TRY_SECONDS 5

static bool write_text(const char *path, const char *text)
{
	return av_write_file_at(AT_FDCWD, path, av_str_c(text)) == 0;
}

static bool become(uid_t uid)
{
	if (uid == (uid_t)-1)
		return true;
	/* /proc/self is root's again once ids change, until the process is dumpable. */
	return setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
	       setresuid(uid, uid, uid) == 0 && prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0;
}

static bool make_userns(void)
{
	char map[64];
	uid_t uid = geteuid();
	gid_t gid = getegid();
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC) < 0)
		return false;
	(void)snprintf(map, sizeof(map), "0 %u 1", (unsigned)uid);
	if (!write_text("/proc/self/setgroups", "deny") || !write_text("/proc/self/uid_map", map))
		return false;
	(void)snprintf(map, sizeof(map), "0 %u 1", (unsigned)gid);
	return write_text("/proc/self/gid_map", map);
}

static bool mount_overlay(bool userxattr)
{
	if (mkdir("/tmp/l", 0700) < 0 || mkdir("/tmp/u", 0700) < 0 || mkdir("/tmp/w", 0700) < 0 ||
	    mkdir("/tmp/m", 0700) < 0)
		return false;
	return mount("overlay", "/tmp/m", "overlay", 0,
	           userxattr ? "lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w,userxattr"
	                     : "lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w") == 0;
}

/* The first process of the new pid namespace. */
static bool try_proc(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		(void)alarm(TRY_SECONDS);
		_exit(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0
		          ? 0
		          : 1);
	}
	int status = -1;
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static unsigned try_all(uid_t uid)
{
	unsigned did = 0;
	if (!become(uid) || !make_userns())
		return 0;
	did |= DID_USERNS;
	if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount("probe", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m") == 0) {
		did |= DID_MOUNT;
		if (mount_overlay(true))
			did |= DID_OVERLAY;
	}
	if (try_proc())
		did |= DID_PROC;
	return did;
}

/* Runs fn in a child; its answer, below 64, comes as exit status. */
static unsigned in_child(unsigned (*fn)(uid_t uid), uid_t uid)
{
	pid_t pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)signal(SIGALRM, SIG_DFL);
		(void)alarm(TRY_SECONDS);
		_exit((int)fn(uid));
	}
	int status = 0;
	while (pid > 0 && waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 0;
	return pid > 0 && WIFEXITED(status) ? (unsigned)WEXITSTATUS(status) : 0;
}

unsigned probe_try_userns(uid_t uid)
{
	return in_child(try_all, uid);
}

static unsigned try_overlay(uid_t uid)
{
	(void)uid;
	return unshare(CLONE_NEWNS) == 0 && mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("probe", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m") == 0 &&
	       mount_overlay(false);
}

bool probe_try_overlay(void)
{
	return in_child(try_overlay, (uid_t)-1) != 0;
}
