/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn.c - starts one program in a session of its own, as a user of the sandbox
 *
 * Theory of operation
 *
 * The child is made with clone(CLONE_VM | CLONE_VFORK): no page table is copied and the caller
 * sleeps until the program is executed or the child has exited, so that the child can report its
 * failure in shared memory. In return the child must not touch anything of the C library that keeps
 * state: it allocates nothing, takes no lock, and changes its ids with the bare system calls (the
 * library's wrappers would tell the caller's threads). All that it needs is computed before.
 *
 * It shares memory with PID 1 while it already has the user's ids. Nobody can exploit that, as the
 * agent is not dumpable and the memory's flag goes for both: no ptrace, no /proc/PID/mem.
 *
 * Every signal is blocked around the clone, since a handler run in the child would run in the
 * caller's memory. The agent installs no handlers (it reads a signalfd), so it is enough to set
 * what it ignores back to the default and to empty the mask just before execve(2).
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
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"

#include "base/banned.h"

#define STACK_BYTES      ((size_t)32 * 1024)
#define PATH_ENTRIES_MAX 64
#define DEFAULT_PATH     "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define SIGNALS          64
#define CHANNEL_FD       3   /* in the child */
#define CHILD_OOM_SCORE  100 /* above the agent's own */

/* The kernel's struct sigaction, for signals that the C library keeps to itself (32, 33). */
struct kernel_sigaction {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

/* What spawn_prepare() found, and what a guest adds to it. */
struct spawn_defaults {
	uint64_t ignored;   /* bit n - 1 for signal n */
	char oom_score[8];  /* for children; "" to leave it */
	bool groups_denied; /* user namespace that may not call setgroups(2) */
	unsigned long soft_nofile;
	int group_fd; /* cgroup.procs, or 0: children stay in our group */
	bool held;
};
static struct spawn_defaults defaults;

/* All that the child looks at; lives on the caller's stack. */
struct child {
	const struct spawn_params *params;
	char *const *paths; /* candidates for execve(2), NULL-terminated */
	char **shell_argv;  /* {"sh", path, args..., NULL} for files without "#!" */
	bool set_ids;
	volatile enum spawn_step step;
	volatile int error;
};

/* Children get a higher score than the agent, so that the OOM killer takes any of them first. The
 * other way round, an agent at -1000, would be wrong: the lowest score a process may give itself is
 * inherited too, so every program of the sandbox could make itself immune. An agent that was
 * started below 0 therefore gives that up. Its own file in /proc belongs to nobody of this user
 * namespace while it is not dumpable; it may be for a moment as long as no other process is here.
 */
static void prepare_oom_score(void)
{
	static const char path[] = "/proc/self/oom_score_adj";
	int64_t score = 0;
	char text[16];
	ssize_t n = av_read_file_at(AT_FDCWD, path, text, sizeof(text));

	while (n > 0 && text[n - 1] == '\n')
		n--;
	if (n <= 0 || av_parse_i64(av_str_n(text, (size_t)n), -1000, 1000, &score) < 0)
		return;
	if (score < 0) {
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
		/* Failing, children would be immune themselves; their higher score then decides. */
		if (av_write_file_at(AT_FDCWD, path, AV_STR("0")) == 0)
			score = 0;
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	}
	score = score + CHILD_OOM_SCORE < 1000 ? score + CHILD_OOM_SCORE : 1000;
	if (score < CHILD_OOM_SCORE)
		score = CHILD_OOM_SCORE;
	snprintf(defaults.oom_score, sizeof(defaults.oom_score), "%d", (int)score);
}

/* A namespace with one mapped id may be denied setgroups(2) for good: seen by setting what is set.
 */
static bool groups_are_denied(void)
{
	gid_t groups[AGENT_USER_GROUPS_MAX];
	int n = getgroups(AGENT_USER_GROUPS_MAX, groups);

	return n >= 0 && syscall(SYS_setgroups, (size_t)n, groups) < 0;
}

void spawn_into_group(int procs_fd)
{
	defaults.group_fd = procs_fd;
}

void spawn_hold(bool on)
{
	defaults.held = on;
}

void spawn_prepare(unsigned long soft_nofile)
{
	defaults.soft_nofile = soft_nofile;
	for (int sig = 1; sig <= SIGNALS; sig++) {
		struct kernel_sigaction sa = {0};

		if (syscall(SYS_rt_sigaction, sig, NULL, &sa, sizeof(sa.mask)) == 0 &&
		    sa.handler == (void *)SIG_IGN)
			defaults.ignored |= 1ULL << (sig - 1);
	}
	prepare_oom_score();
	defaults.groups_denied = groups_are_denied();
}

/* --- in the child: system calls and shared memory only --- */

/* The sanitizers must not instrument code that runs in a borrowed address space. */
#define IN_CHILD __attribute__((no_sanitize("address", "undefined")))

IN_CHILD static int child_fail(struct child *c, enum spawn_step step)
{
	c->step = step;
	c->error = errno;
	_exit(127);
}

IN_CHILD static void child_reset_limits(void)
{
	struct rlimit rl;

	if (syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &rl) == 0 &&
	    rl.rlim_cur != defaults.soft_nofile && defaults.soft_nofile <= rl.rlim_max) {
		rl.rlim_cur = defaults.soft_nofile;
		syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &rl, NULL);
	}
}

IN_CHILD static void child_session(struct child *c)
{
	const struct spawn_params *p = c->params;

	if (setsid() < 0)
		child_fail(c, SPAWN_SETUP);
	if (defaults.group_fd && syscall(SYS_write, defaults.group_fd, "0", 1) < 0)
		child_fail(c, SPAWN_GROUP);
	for (int i = 0; i < 3; i++)
		if (dup2(p->fds[i], i) < 0)
			child_fail(c, SPAWN_SETUP);
	if (p->controlling_tty && ioctl(0, TIOCSCTTY, 0) < 0)
		child_fail(c, SPAWN_SETUP);
	/* dup2() onto itself would leave it O_CLOEXEC. */
	if (p->channel_fd == CHANNEL_FD ? fcntl(CHANNEL_FD, F_SETFD, 0) < 0
	                                : p->channel_fd && dup2(p->channel_fd, CHANNEL_FD) < 0)
		child_fail(c, SPAWN_SETUP);
	/* All of ours are O_CLOEXEC; this is the second lock. */
	syscall(SYS_close_range, p->channel_fd ? CHANNEL_FD + 1U : 3U, ~0U, 0U);
}

IN_CHILD static void child_ids(struct child *c)
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

IN_CHILD static void child_signals(void)
{
	struct kernel_sigaction dfl = {0};
	uint64_t none = 0;

	for (int sig = 1; sig <= SIGNALS; sig++)
		if (defaults.ignored & 1ULL << (sig - 1))
			syscall(SYS_rt_sigaction, sig, &dfl, NULL, sizeof(dfl.mask));
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
}

/* A program of another processor, and no script. */
IN_CHILD static bool is_elf(const char *path)
{
	char magic[4] = "";
	long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (syscall(SYS_read, fd, magic, sizeof(magic)) < 0)
		magic[0] = '\0';
	syscall(SYS_close, fd);
	return magic[0] == 0x7f && magic[1] == 'E' && magic[2] == 'L' && magic[3] == 'F';
}

/* As execvp(3), but for programs that are no scripts: the first candidate that is there decides,
 * but one that may not be executed only if no later one may. */
IN_CHILD static void child_exec(struct child *c)
{
	int error = ENOENT;

	for (char *const *path = c->paths; *path; path++) {
		execve(*path, c->params->argv, c->params->envp);
		if (errno == ENOEXEC) {
			c->shell_argv[1] = *path;
			if (!is_elf(*path))
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

IN_CHILD static int child_main(void *arg)
{
	struct child *c = arg;

	child_session(c);
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

/* What execve(2) needs besides the parameters: where the command may be, and how sh is called. */
struct candidates {
	char *paths[PATH_ENTRIES_MAX + 1]; /* NULL-terminated; point into text */
	struct av_buf text;
	char **shell_argv; /* owned; see struct child */
};

static void candidates_free(struct candidates **pp)
{
	if (*pp) {
		av_buf_clear(&(*pp)->text);
		free((*pp)->shell_argv);
	}
	free(*pp);
	*pp = NULL;
}

/* Where the command may be, in order; NULL when out of memory. */
static struct candidates *find_candidates(const char *cmd, const char *path_env)
{
	struct av_str path = av_str_c(path_env ? path_env : DEFAULT_PATH);
	AV_CLEANUP(candidates_free) struct candidates *c = calloc(1, sizeof(*c));
	size_t starts[PATH_ENTRIES_MAX], n = 0;

	if (!c)
		return NULL;
	av_buf_init(&c->text, (size_t)PATH_ENTRIES_MAX * (AV_PATH_MAX + 1));
	for (bool more = true; more && n < PATH_ENTRIES_MAX;) {
		struct av_str dir = AV_STR("");

		starts[n] = c->text.n;
		if (strchr(cmd, '/')) {
			more = false;
		} else {
			more = av_str_cut(&path, ':', &dir);
			if (dir.n + strlen(cmd) >= AV_PATH_MAX)
				continue;
			/* An empty entry means the working directory. */
			av_buf_append_str(&c->text, dir.n ? dir : AV_STR("."));
			av_buf_append_char(&c->text, '/');
		}
		av_buf_append(&c->text, cmd, strlen(cmd) + 1);
		n++;
	}
	if (av_buf_error(&c->text) < 0)
		return NULL;
	for (size_t i = 0; i < n; i++)
		c->paths[i] = c->text.p + c->text.off + starts[i];
	return AV_TAKE_PTR(c);
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
	return u->uid != geteuid() || u->gid != getegid() || u->ngroups > 1 ||
	       getgroups(0, NULL) > 1;
}

static int explain(const struct spawn_params *p, struct spawn_failure *f, struct av_err *err)
{
	const char *cmd = p->argv[0];

	f->exit_code = 125;
	switch (f->step) {
	case SPAWN_CWD:
		if (f->error == ENOENT)
			return av_err_set(err, AV_ERR_INVALID, "cwd '%s' does not exist", p->cwd);
		return av_err_sys(
		    err, AV_ERR_INVALID, f->error, "cwd '%s' cannot be entered", p->cwd);
	case SPAWN_EXEC:
		f->exit_code = f->error == ENOENT || f->error == ENOTDIR ? 127 : 126;
		if (f->error == E2BIG)
			return av_err_set(err, AV_ERR_TOO_LARGE,
			    "arguments and environment of '%s' are larger than the kernel allows "
			    "(one string: 128 KiB)",
			    cmd);
		if (f->error == ENOENT && !strchr(cmd, '/'))
			return av_err_set(err, AV_ERR_NOT_FOUND,
			    "command not found: '%s' is in no directory of PATH", cmd);
		if (f->error == ENOENT)
			return av_err_set(err, AV_ERR_NOT_FOUND, "command not found: '%s'", cmd);
		return av_err_sys(err, f->exit_code == 127 ? AV_ERR_NOT_FOUND : AV_ERR_FORBIDDEN,
		    f->error, "cannot execute '%s'", cmd);
	case SPAWN_IDS:
		return av_err_sys(err, AV_ERR_UNSUPPORTED, f->error,
		    "cannot become user '%s' (uid %u)", p->user->name, (unsigned int)p->user->uid);
	case SPAWN_FORK:
		if (f->error == EAGAIN)
			return av_err_set(err, AV_ERR_QUOTA,
			    "the sandbox has reached its limit of processes; end some or create it "
			    "with a "
			    "higher limit");
		return av_err_sys(err, AV_ERR_INTERNAL, f->error, "cannot start '%s'", cmd);
	case SPAWN_GROUP:
		if (f->error == EAGAIN || f->error == EBUSY)
			break;
		return av_err_sys(err, AV_ERR_INTERNAL, f->error,
		    "cannot start '%s': control group user (below /sys/fs/cgroup) cannot be joined",
		    cmd);
	case SPAWN_HELD:
		return av_err_set(err, AV_ERR_INVALID_STATE,
		    "cannot start '%s' while the sandbox stands still", cmd);
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

/* From here, as the child's own file in /proc is out of its reach until it has executed something.
 * Best effort: what the child does before only makes itself a lesser victim. */
static void set_oom_score(pid_t pid)
{
	char path[48];

	if (defaults.oom_score[0] &&
	    av_path_printf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid) == 0 &&
	    av_write_file_at(AT_FDCWD, path, av_str_c(defaults.oom_score)) < 0)
		return;
}

pid_t spawn_process(
    const struct spawn_params *params, struct spawn_failure *ret, struct av_err *err)
{
	AV_CLEANUP(candidates_free)
	struct candidates *found = find_candidates(params->argv[0], env_get(params->envp, "PATH"));
	struct child c = {.params = params, .set_ids = ids_differ(params->user)};
	struct spawn_failure f = {0};
	pid_t pid = -ENOMEM;
	int r;

	if (defaults.held) {
		*ret = (struct spawn_failure){.step = SPAWN_HELD, .error = EBUSY};
		return explain(params, ret, err);
	}
	if (found && (found->shell_argv = make_shell_argv(params->argv))) {
		c.paths = found->paths;
		c.shell_argv = found->shell_argv;
		pid = clone_child(&c);
	}
	if (pid < 0) {
		f = (struct spawn_failure){.step = SPAWN_FORK, .error = -pid};
	} else if (c.step != SPAWN_OK) {
		/* The child is dead already (CLONE_VFORK), and nobody else waits for it. */
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		f = (struct spawn_failure){.step = c.step, .pid = pid, .error = c.error};
	} else {
		set_oom_score(pid);
		return pid;
	}
	r = explain(params, &f, err);
	*ret = f;
	return r;
}
