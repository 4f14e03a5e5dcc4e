/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn.c - starts one program in a session of its own, as a user of the sandbox
 *
 * Theory of operation
 *
 * The child is made with clone(CLONE_VM | CLONE_VFORK): no page table is copied and the caller sleeps
 * until the program is executed or the child has exited, so that the child can report its failure in
 * shared memory. In return the child must not touch anything of the C library that keeps state: it
 * allocates nothing, takes no lock, and changes its ids with the bare system calls (the library's
 * wrappers would tell the caller's threads). All that it needs is computed before.
 *
 * It shares memory with PID 1 while it already has the user's ids. Nobody can exploit that, as the
 * agent is not dumpable and the memory's flag goes for both: no ptrace, no /proc/PID/mem.
 *
 * Every signal is blocked around the clone, since a handler run in the child would run in the
 * caller's memory. The agent installs no handlers (it reads a signalfd), so it is enough to set what
 * it ignores back to the default and to empty the mask just before execve(2).
 */
#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"

#include "base/banned.h"

#define STACK_BYTES      (32 * 1024)
#define PATH_ENTRIES_MAX 64
#define DEFAULT_PATH     "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define SIGNALS          64

/* The kernel's struct sigaction, for signals that the C library keeps to itself (32, 33). */
struct kernel_sigaction {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

/* What spawn_prepare() found; written once. */
struct spawn_defaults {
	uint64_t ignored; /* bit n - 1 for signal n */
	bool reset_oom_score;
	bool groups_denied; /* user namespace that may not call setgroups(2) */
	unsigned long soft_nofile;
};
static struct spawn_defaults defaults;

/* All that the child looks at; lives on the caller's stack. */
struct child {
	const struct spawn_params *params;
	char *const *paths;        /* candidates for execve(2), NULL-terminated */
	char **shell_argv;         /* {"sh", path, args..., NULL} for files without "#!" */
	bool set_ids;
	volatile enum spawn_step step;
	volatile int error;
};

void spawn_prepare(unsigned long soft_nofile)
{
	char text[64];

	defaults.soft_nofile = soft_nofile;
	for (int sig = 1; sig <= SIGNALS; sig++) {
		struct kernel_sigaction sa = {0};

		if (syscall(SYS_rt_sigaction, sig, NULL, &sa, sizeof(sa.mask)) == 0 &&
		    sa.handler == (void *)SIG_IGN)
			defaults.ignored |= 1ULL << (sig - 1);
	}
	if (av_read_file_at(AT_FDCWD, "/proc/self/oom_score_adj", text, sizeof(text)) > 0)
		defaults.reset_oom_score = text[0] != '0';
	if (av_read_file_at(AT_FDCWD, "/proc/self/setgroups", text, sizeof(text)) > 0)
		defaults.groups_denied = text[0] == 'd';
}

/* --- in the child: system calls and shared memory only --- */

static int child_fail(struct child *c, enum spawn_step step)
{
	c->step = step;
	c->error = errno;
	_exit(127);
}

static void child_reset_oom_score(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	/* Best effort: where /proc is not there the child keeps the agent's score. */
	if (fd >= 0) {
		ssize_t n = write(fd, "0", 1);

		(void)n;
		close(fd);
	}
}

static void child_reset_limits(void)
{
	struct rlimit rl;

	if (syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &rl) == 0 &&
	    rl.rlim_cur != defaults.soft_nofile && defaults.soft_nofile <= rl.rlim_max) {
		rl.rlim_cur = defaults.soft_nofile;
		syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &rl, NULL);
	}
}

static void child_session(struct child *c)
{
	const struct spawn_params *p = c->params;

	if (setsid() < 0)
		child_fail(c, SPAWN_SETUP);
	for (int i = 0; i < 3; i++)
		if (dup2(p->fds[i], i) < 0)
			child_fail(c, SPAWN_SETUP);
	if (p->controlling_tty && ioctl(0, TIOCSCTTY, 0) < 0)
		child_fail(c, SPAWN_SETUP);
	/* All of ours are O_CLOEXEC; this is the second lock. */
	syscall(SYS_close_range, 3U, ~0U, 0U);
}

static void child_ids(struct child *c)
{
	const struct agent_user *u = c->params->user;

	if (!c->set_ids)
		return;
	if (!defaults.groups_denied && syscall(SYS_setgroups, u->ngroups, u->groups) < 0)
		child_fail(c, SPAWN_IDS);
	if (syscall(SYS_setresgid, u->gid, u->gid, u->gid) < 0)
		child_fail(c, SPAWN_IDS);
	if (syscall(SYS_setresuid, u->uid, u->uid, u->uid) < 0)
		child_fail(c, SPAWN_IDS);
}

static void child_signals(void)
{
	struct kernel_sigaction dfl = {0};
	uint64_t none = 0;

	for (int sig = 1; sig <= SIGNALS; sig++)
		if (defaults.ignored & 1ULL << (sig - 1))
			syscall(SYS_rt_sigaction, sig, &dfl, NULL, sizeof(dfl.mask));
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
}

/* As execvp(3): the first candidate that is there decides, but one that may not be executed only if
 * no later one may. */
static void child_exec(struct child *c)
{
	int error = ENOENT;

	for (char *const *path = c->paths; *path; path++) {
		execve(*path, c->params->argv, c->params->envp);
		if (errno == ENOEXEC) {
			c->shell_argv[1] = *path;
			execve("/bin/sh", c->shell_argv, c->params->envp);
			errno = ENOEXEC;
		}
		if (errno != ENOENT && errno != ENOTDIR && errno != EACCES) {
			error = errno;
			break;
		}
		if (errno == EACCES)
			error = EACCES;
	}
	errno = error;
	child_fail(c, SPAWN_EXEC);
}

/* The sanitizers must not instrument code that runs in a borrowed address space. */
__attribute__((no_sanitize("address", "undefined"))) static int child_main(void *arg)
{
	struct child *c = arg;

	child_session(c);
	if (defaults.reset_oom_score)
		child_reset_oom_score();
	child_reset_limits();
	child_ids(c);
	if (chdir(c->params->cwd) < 0)
		child_fail(c, SPAWN_CWD);
	child_signals();
	child_exec(c);
	return 127;
}

/* --- in the caller --- */

static const char *env_get(char *const *envp, const char *key)
{
	size_t n = strlen(key);

	for (; *envp; envp++)
		if (strncmp(*envp, key, n) == 0 && (*envp)[n] == '=')
			return *envp + n + 1;
	return NULL;
}

static void free_paths(char ***pp)
{
	if (!*pp)
		return;
	for (char **p = *pp; *p; p++)
		free(*p);
	free(*pp);
}

/* The candidates for the command, in order; *ret is freed with free_paths(). */
static int find_paths(const char *cmd, const char *path_env, char ***ret)
{
	AV_CLEANUP(free_paths) char **paths = calloc(PATH_ENTRIES_MAX + 1, sizeof(*paths));
	struct av_str path = av_str_c(path_env ? path_env : DEFAULT_PATH);
	size_t n = 0;

	if (!paths)
		return -ENOMEM;
	if (strchr(cmd, '/')) {
		paths[0] = av_str_dup(av_str_c(cmd));
		if (!paths[0])
			return -ENOMEM;
		*ret = AV_TAKE_PTR(paths);
		return 0;
	}
	for (bool more = true; more && n < PATH_ENTRIES_MAX;) {
		char full[AV_PATH_MAX + 1];
		struct av_str dir;
		int r;

		more = av_str_cut(&path, ':', &dir);
		if (dir.n == 0)
			dir = AV_STR(".");
		r = av_path_printf(full, sizeof(full), "%.*s/%s", AV_STR_ARG(dir), cmd);
		if (r < 0)
			continue;
		paths[n] = av_str_dup(av_str_c(full));
		if (!paths[n++])
			return -ENOMEM;
	}
	*ret = AV_TAKE_PTR(paths);
	return 0;
}

/* {"sh", <slot>, args..., NULL} */
static char **make_shell_argv(char *const *argv)
{
	static char sh[] = "sh";
	size_t n = 0;
	char **v;

	while (argv[n])
		n++;
	v = calloc(n + 2, sizeof(*v));
	if (!v)
		return NULL;
	v[0] = sh;
	for (size_t i = 1; i < n; i++)
		v[i + 1] = argv[i];
	return v;
}

/* Whether the ids differ from ours; a sandbox that maps one uid only cannot change them at all. */
static bool ids_differ(const struct agent_user *u)
{
	return u->uid != geteuid() || u->gid != getegid() || u->ngroups > 1 || getgroups(0, NULL) > 1;
}

static int explain(const struct spawn_params *p, struct spawn_failure *f, struct av_err *err)
{
	const char *cmd = p->argv[0];

	f->exit_code = 125;
	switch (f->step) {
	case SPAWN_CWD:
		if (f->error == ENOENT)
			return av_err_set(err, AV_ERR_INVALID, "cwd '%s' does not exist", p->cwd);
		return av_err_sys(err, AV_ERR_INVALID, f->error, "cwd '%s' cannot be entered", p->cwd);
	case SPAWN_EXEC:
		f->exit_code = f->error == ENOENT || f->error == ENOTDIR ? 127 : 126;
		if (f->error == E2BIG)
			return av_err_set(err, AV_ERR_TOO_LARGE,
			    "arguments and environment of '%s' are larger than the kernel allows "
			    "(one string: 128 KiB)", cmd);
		if (f->error == ENOENT && !strchr(cmd, '/'))
			return av_err_set(err, AV_ERR_NOT_FOUND,
			    "command not found: '%s' is in no directory of PATH", cmd);
		if (f->error == ENOENT)
			return av_err_set(err, AV_ERR_NOT_FOUND, "command not found: '%s'", cmd);
		return av_err_sys(err, f->exit_code == 127 ? AV_ERR_NOT_FOUND : AV_ERR_FORBIDDEN, f->error,
		    "cannot execute '%s'", cmd);
	case SPAWN_IDS:
		return av_err_sys(err, AV_ERR_UNSUPPORTED, f->error, "cannot become user '%s' (uid %u)",
		    p->user->name, (unsigned int)p->user->uid);
	case SPAWN_FORK:
		if (f->error == EAGAIN)
			return av_err_set(err, AV_ERR_QUOTA,
			    "the sandbox has reached its limit of processes; end some or create it with a "
			    "higher limit");
		return av_err_sys(err, AV_ERR_INTERNAL, f->error, "cannot start '%s'", cmd);
	case SPAWN_SETUP:
	case SPAWN_OK:
		break;
	}
	return av_err_sys(err, AV_ERR_INTERNAL, f->error, "cannot start '%s'", cmd);
}

/* Runs child_main() with every signal blocked; returns the pid or -errno. */
static pid_t clone_child(struct child *c)
{
	static char stack[STACK_BYTES] __attribute__((aligned(16)));
	uint64_t all = ~0ULL, old;
	pid_t pid;
	int e;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	pid = clone(child_main, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, c);
	e = errno;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
	return pid < 0 ? -e : pid;
}

pid_t spawn_process(const struct spawn_params *params, struct spawn_failure *ret, struct av_err *err)
{
	AV_CLEANUP(free_paths) char **paths = NULL;
	AV_CLEANUP(av_freep) char **shell_argv = make_shell_argv(params->argv);
	struct child c = {.params = params, .set_ids = ids_differ(params->user)};
	struct spawn_failure f = {0};
	pid_t pid;
	int r;

	r = find_paths(params->argv[0], env_get(params->envp, "PATH"), &paths);
	if (r == 0 && !shell_argv)
		r = -ENOMEM;
	c.paths = paths;
	c.shell_argv = shell_argv;
	pid = r < 0 ? r : clone_child(&c);
	if (pid < 0) {
		f = (struct spawn_failure){.step = SPAWN_FORK, .error = -pid};
	} else if (c.step != SPAWN_OK) {
		/* The child is dead already (CLONE_VFORK), and nobody else waits for it. */
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		f = (struct spawn_failure){.step = c.step, .pid = pid, .error = c.error};
	} else {
		return pid;
	}
	r = explain(params, &f, err);
	*ret = f;
	return r;
}
