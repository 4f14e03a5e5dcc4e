/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervisor.c - keeps the worker and aviaryd running
 *
 * Theory of operation. The supervisor reads no socket and no file that others write: only its argv,
 * and at most CREDENTIALS_MAX opaque bytes that aviaryd hands over at its first start, which it
 * puts into the user's file unread. Should they be more, or not end within CREDENTIALS_NS of the
 * first, they are dropped: an aviaryd that was taken over cannot hold up the supervisor. It holds
 * what must outlive the other two: the locks, the listening socket, and, as child subreaper, the
 * agents of sandboxes whose worker has died.
 *
 * The worker is a child with all of root's rights (it limits itself), the daemon one with none.
 * Both die with the supervisor: the daemon by PDEATHSIG, the worker by the end of file of its
 * lifeline. Either is started again when it dies: at once the first time, then after 0.1 s doubling
 * to 5 s, and from the beginning after 10 s of health. An exit status of SPAWN_EXIT_CONFIG of a
 * program that never was healthy, or an end of aviaryd with status 0, ends the supervisor instead.
 *
 * With --lend it opens two files for the daemon, which may not: the certificate and the key of TLS,
 * whose names the operator gave. It does so with its own rights, each time it is asked, and reads
 * nothing of them (base/lend.h).
 *
 * SIGTERM: the daemon first (it answers what it has begun), then the worker. Sandboxes stay. SIGHUP
 * and SIGUSR1 are the daemon's, and passed on. What systemd wants to know is in vigil.h.
 */
#include "spawn/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <grp.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/lend.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"
#include "spawn/caps.h"
#include "spawn/instance.h"
#include "spawn/vigil.h"
#include "spawn/worker.h"
#include "base/banned.h"

#define CREDENTIALS_MAX  512
#define CREDENTIALS_FD   3 /* in the daemon */
#define BEAT_FD          4 /* in the daemon, with --notify-fd */
#define LEND_FD          5 /* in the daemon, with --lend-fd */
#define CREDENTIALS_NS   (5 * AV_NS_PER_S)
#define BACKOFF_FIRST_NS (100 * AV_NS_PER_MS)
#define BACKOFF_MAX_NS   (5 * AV_NS_PER_S)
#define HEALTHY_NS       (10 * AV_NS_PER_S)
#define DAEMON_GRACE_NS  (30 * AV_NS_PER_S)
#define WORKER_GRACE_NS  (10 * AV_NS_PER_S)

struct program {
	const char *name;
	pid_t pid; /* 0: not running */
	int64_t started_ns;
	int64_t start_at_ns; /* when to start it again; 0: not to be started */
	int64_t backoff_ns;
	bool proved; /* it ran well once: a failed start is no wrong configuration then */
};

struct supervisor {
	const struct spawn_options *o;
	char **argv;
	struct program worker, daemon;
	int state_lock, run_lock;
	int listener;
	int lifeline[2];                             /* [0] the worker's */
	int credentials;                             /* read end, non-blocking, or -1 */
	char credentials_bytes[CREDENTIALS_MAX + 1]; /* what came so far */
	size_t credentials_n;
	int64_t credentials_due_ns; /* then they are given up; 0: none came yet */
	int lend; /* our end of the socket the daemon asks for files with, or -1 */
	struct vigil vigil;
	int signals;
	bool stopping;
	int64_t kill_at_ns; /* while stopping: then SIGKILL */
	int status;         /* to exit with */
};

/* ---- start ---- */

/* Bound through the directory's descriptor, as <run> may be longer than a socket address. */
static int make_listener(const struct spawn_options *o, int *ret_fd, struct av_err *err)
{
	AV_CLEANUP(av_closep) int dir = open(o->run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AV_CLEANUP(av_closep) int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (dir < 0 || s < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open %s", o->run_dir);
	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/spawn.sock", dir);
	if (unlinkat(dir, "spawn.sock", 0) < 0 && errno != ENOENT)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot remove the old spawn.sock");
	if (fchmod(s, 0600) < 0 || bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    (geteuid() == 0 && fchownat(dir, "spawn.sock", o->daemon_uid, o->daemon_gid,
	                           AT_SYMLINK_NOFOLLOW) < 0) ||
	    listen(s, 16) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot listen in %s", o->run_dir);
	*ret_fd = AV_TAKE_FD(s);
	return 0;
}

/* <run>/url, where the daemon says at which address it serves: it may write this file, but make
 * none here. */
static int make_url_file(const struct spawn_options *o, struct av_err *err)
{
	char path[AV_PATH_MAX + 1];
	int r = av_path_printf(path, sizeof(path), "%s/url", o->run_dir);
	if (r < 0)
		return av_err_set(err, AV_ERR_INVALID, "--run is too long");
	AV_CLEANUP(av_closep)
	int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 || fchmod(fd, 0644) < 0 ||
	    (geteuid() == 0 && fchown(fd, o->daemon_uid, o->daemon_gid) < 0))
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s", path);
	return 0;
}

static void remove_listener(const struct spawn_options *o)
{
	char path[AV_PATH_MAX + 1];
	if (av_path_printf(path, sizeof(path), "%s/spawn.sock", o->run_dir) == 0)
		unlink(path);
}

static int open_signals(void)
{
	static const int caught[] = {SIGTERM, SIGINT, SIGCHLD, SIGHUP, SIGUSR1};
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < AV_ARRAY_LEN(caught); i++)
		sigaddset(&set, caught[i]);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static int prepare(struct supervisor *s, struct av_err *err)
{
	umask(0);
	/* First: who is told to stop while it starts stops in order. */
	s->signals = open_signals();
	if (s->signals < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, s->signals, "signalfd");
	/* Orphaned agents come here, so that none stays a zombie. */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "prctl");
	int r = instance_check_restored(s->o->state_dir, err);
	if (r == 0)
		r = instance_make_dirs(s->o, err);
	if (r == 0)
		r = instance_lock(s->o->state_dir, "--state", &s->state_lock, err);
	if (r == 0)
		r = instance_lock(s->o->run_dir, "--run", &s->run_lock, err);
	if (r == 0)
		r = instance_make_url_file(s->o, err);
	if (r == 0)
		r = make_listener(s->o, &s->listener, err);
	if (r == 0)
		r = make_url_file(s->o, err);
	if (r < 0)
		return r;
	if (pipe2(s->lifeline, O_CLOEXEC) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "pipe");
	return 0;
}

/* ---- credentials ---- */

static int write_credentials(const char *path, const char *bytes, size_t n)
{
	char temporary[AV_PATH_MAX + 1];
	int r = av_path_printf(temporary, sizeof(temporary), "%s.%d", path, getpid());
	if (r == 0)
		r = instance_make_parents(path, 0700); /* ~/.config may be missing, too */
	if (r < 0)
		return r;
	AV_CLEANUP(av_closep)
	int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = av_write_full(fd, bytes, n);
	if (r == 0 && (fsync(fd) < 0 || rename(temporary, path) < 0))
		r = -errno;
	if (r < 0)
		unlink(temporary);
	return r;
}

/* Reads no more of them, and keeps none in memory. */
static void drop_credentials(struct supervisor *s)
{
	av_close_fd(&s->credentials);
	explicit_bzero(s->credentials_bytes, sizeof(s->credentials_bytes));
	s->credentials_n = 0;
	s->credentials_due_ns = 0;
}

/* The daemon has written, closed its end, or died. Takes what is there and never waits. */
static void on_credentials(struct supervisor *s)
{
	ssize_t n = -1;
	while (s->credentials_n <= CREDENTIALS_MAX &&
	       (n = read(s->credentials, s->credentials_bytes + s->credentials_n,
	            sizeof(s->credentials_bytes) - s->credentials_n)) > 0)
		s->credentials_n += (size_t)n;
	if (s->credentials_n > CREDENTIALS_MAX) {
		av_log(AV_LOG_ERROR, "aviaryd's credentials are too long: none are written", NULL);
	} else if (n < 0 && errno == EAGAIN) {
		if (s->credentials_n && !s->credentials_due_ns)
			s->credentials_due_ns = av_mono_ns() + CREDENTIALS_NS;
		return;
	} else if (n == 0 && s->credentials_n && s->o->credentials) {
		int r =
		    write_credentials(s->o->credentials, s->credentials_bytes, s->credentials_n);
		if (r < 0)
			av_log(AV_LOG_ERROR, "cannot write the credentials", "path",
			    s->o->credentials, "error", strerror(-r), NULL);
	}
	drop_credentials(s);
}

/* ---- children ---- */

/* In the child: dup2 each pair, all else closed on exec. Sources are made high first, so that no
 * target overwrites one. */
static int place_fds(int (*pairs)[2], size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((pairs[i][0] = fcntl(pairs[i][0], F_DUPFD_CLOEXEC, 16)) < 0)
			return -errno;
	for (size_t i = 0; i < n; i++)
		if (dup2(pairs[i][0], pairs[i][1]) < 0)
			return -errno;
	return 0;
}

static void reset_signals(void)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn static void exec_worker(const struct supervisor *s, int beat)
{
	int pairs[][2] = {
	    {s->listener, SPAWN_WORKER_LISTEN_FD}, {s->lifeline[0], SPAWN_WORKER_LIFELINE_FD},
	    {beat, SPAWN_WORKER_BEAT_FD}, /* last: it may be missing */
	};
	static char flag[] = "--worker", beat_flag[] = "--beat";
	int n = s->o->own_argc;
	char **argv = calloc((size_t)n + 3, sizeof(*argv));
	if (!argv || place_fds(pairs, AV_ARRAY_LEN(pairs) - (beat < 0)) < 0)
		_exit(1);
	argv[0] = s->argv[0];
	argv[1] = flag;
	for (int i = 1; i < n; i++)
		argv[i + 1] = s->argv[i];
	argv[n + 1] = beat < 0 ? NULL : beat_flag;
	reset_signals();
	/* Not the supervisor's session: ^C on a terminal is for the supervisor to pass on. */
	setsid();
	execv("/proc/self/exe", argv);
	_exit(1);
}

static int become_daemon_user(const struct spawn_options *o)
{
	if (!o->rootless) {
		if (setgroups(0, NULL) < 0 ||
		    setresgid(o->daemon_gid, o->daemon_gid, o->daemon_gid) < 0)
			return -errno;
		/* The bounding set needs CAP_SETPCAP, so it goes before the user does. */
		int r = caps_drop_bounding();
		if (r < 0)
			return r;
		if (setresuid(o->daemon_uid, o->daemon_uid, o->daemon_uid) < 0)
			return -errno;
		r = caps_clear();
		if (r < 0)
			return r;
	}
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/* Descriptors for the daemon; -1: not given. */
struct handed {
	int credentials, beat, lend;
};

static char **daemon_argv(
    const struct supervisor *s, const char *path, const char *socket, const struct handed *h)
{
	static const char fd_text[] = "3", beat_text[] = "4", lend_text[] = "5";
	size_t n = 0;
	while (s->o->daemon_args && s->o->daemon_args[n])
		n++;
	const char **argv = calloc(n + 10, sizeof(*argv));
	if (!argv)
		return NULL;
	size_t i = 0;
	argv[i++] = path;
	argv[i++] = "--spawn-socket";
	argv[i++] = socket;
	argv[i++] = "--credentials-fd";
	argv[i++] = fd_text;
	if (h->beat >= 0) {
		argv[i++] = "--notify-fd";
		argv[i++] = beat_text;
	}
	if (h->lend >= 0) {
		argv[i++] = "--lend-fd";
		argv[i++] = lend_text;
	}
	for (size_t k = 0; k < n; k++)
		argv[i++] = s->o->daemon_args[k];
	return (char **)(uintptr_t)argv;
}

_Noreturn static void exec_daemon(const struct supervisor *s, const struct handed *h)
{
	char path[AV_PATH_MAX + 1], socket[AV_PATH_MAX + 1];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int pairs[4][2] = {{null, 0}, {h->credentials, CREDENTIALS_FD}};
	size_t n = 2;
	pid_t parent = getppid();
	if (h->beat >= 0)
		memcpy(pairs[n++], (int[2]){h->beat, BEAT_FD}, sizeof(pairs[0]));
	if (h->lend >= 0)
		memcpy(pairs[n++], (int[2]){h->lend, LEND_FD}, sizeof(pairs[0]));
	if (null < 0 || place_fds(pairs, n) < 0)
		_exit(1);
	int r = s->o->daemon_path ? av_path_printf(path, sizeof(path), "%s", s->o->daemon_path)
	                          : spawn_sibling_path(path, sizeof(path), "aviaryd", "daemon");
	if (r == 0)
		r = av_path_printf(socket, sizeof(socket), "%s/spawn.sock", s->o->run_dir);
	char **argv = r < 0 ? NULL : daemon_argv(s, path, socket, h);
	if (!argv || (r = become_daemon_user(s->o)) < 0) {
		av_log(
		    AV_LOG_ERROR, "cannot become the daemon's user", "error", strerror(-r), NULL);
		_exit(1);
	}
	reset_signals();
	umask(0022);
	/* Last: a change of user clears it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != parent)
		_exit(1);
	execv(path, argv);
	av_log(AV_LOG_ERROR, "cannot start aviaryd", "path", path, "error", strerror(errno), NULL);
	_exit(errno == ENOENT || errno == EACCES ? SPAWN_EXIT_CONFIG : 1);
}

static void started(struct program *p, pid_t pid)
{
	p->started_ns = av_mono_ns();
	p->start_at_ns = 0;
	if (pid < 0) {
		p->start_at_ns = p->started_ns + BACKOFF_MAX_NS;
		av_log(AV_LOG_ERROR, "cannot fork", "program", p->name, "error", strerror(errno),
		    NULL);
		return;
	}
	p->pid = pid;
}

static void start_worker(struct supervisor *s)
{
	int beat = vigil_start(&s->vigil, VIGIL_WORKER);
	pid_t pid = fork();
	if (pid == 0)
		exec_worker(s, beat);
	av_close_fd(&beat);
	started(&s->worker, pid);
}

/* The daemon's end, or -1: then it cannot start, and says so. */
static int start_lending(struct supervisor *s)
{
	int pair[2];
	av_close_fd(&s->lend);
	if (!s->o->lend[0])
		return -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		av_log(AV_LOG_ERROR, "cannot make a socket for the files that aviaryd reads",
		    "error", strerror(errno), NULL);
		return -1;
	}
	s->lend = pair[0];
	return pair[1];
}

static void start_daemon(struct supervisor *s)
{
	int p[2];
	if (s->credentials >= 0)
		on_credentials(s); /* its last words may not be read yet */
	drop_credentials(s);
	if (pipe2(p, O_CLOEXEC) < 0) {
		started(&s->daemon, -1);
		return;
	}
	struct handed h = {.credentials = p[1],
	    .beat = vigil_start(&s->vigil, VIGIL_DAEMON),
	    .lend = start_lending(s)};
	pid_t pid = fork();
	if (pid == 0)
		exec_daemon(s, &h);
	av_close_fd(&h.lend);
	av_close_fd(&h.beat);
	close(p[1]);
	s->credentials = p[0];
	if (fcntl(p[0], F_SETFL, O_NONBLOCK) < 0)
		drop_credentials(s);
	started(&s->daemon, pid);
}

/* ---- running ---- */

static void stop(struct supervisor *s, int status)
{
	if (!s->stopping) {
		s->status = status;
		vigil_stopping(&s->vigil, DAEMON_GRACE_NS + WORKER_GRACE_NS);
	}
	s->stopping = true;
	s->worker.start_at_ns = s->daemon.start_at_ns = 0;
	if (s->daemon.pid) {
		kill(s->daemon.pid, SIGTERM);
		s->kill_at_ns = av_mono_ns() + DAEMON_GRACE_NS;
	} else if (s->worker.pid) {
		kill(s->worker.pid, SIGTERM);
		s->kill_at_ns = av_mono_ns() + WORKER_GRACE_NS;
	}
}

static void ended(struct supervisor *s, struct program *p, int wait_status)
{
	char how[32];
	int64_t now = av_mono_ns();
	bool exited = WIFEXITED(wait_status);
	p->pid = 0;
	snprintf(how, sizeof(how), "%s %d", exited ? "exit" : "signal",
	    exited ? WEXITSTATUS(wait_status) : WTERMSIG(wait_status));
	if (s->stopping) {
		stop(s, s->status);
		return;
	}
	int status = exited ? WEXITSTATUS(wait_status) : 1;
	p->proved |= now - p->started_ns > HEALTHY_NS;
	if (exited &&
	    ((status == SPAWN_EXIT_CONFIG && !p->proved) || (status == 0 && p == &s->daemon))) {
		stop(s, status);
		return;
	}
	if (now - p->started_ns > HEALTHY_NS)
		p->backoff_ns = 0;
	p->start_at_ns = now + p->backoff_ns;
	p->backoff_ns =
	    p->backoff_ns ? AV_MIN(2 * p->backoff_ns, (int64_t)BACKOFF_MAX_NS) : BACKOFF_FIRST_NS;
	av_log(AV_LOG_WARN, "ended, starting it again", "program", p->name, "how", how, NULL);
	vigil_status(&s->vigil, p == &s->daemon ? "aviaryd ended, starting it again"
	                                        : "the worker ended, starting it again");
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == s->worker.pid)
			ended(s, &s->worker, status);
		else if (pid == s->daemon.pid)
			ended(s, &s->daemon, status);
	}
}

static void pass_on(struct supervisor *s, int signum)
{
	if (!s->daemon.pid || s->stopping)
		return;
	if (signum == SIGHUP)
		vigil_reloading(&s->vigil);
	kill(s->daemon.pid, signum);
}

static void on_signals(struct supervisor *s)
{
	struct signalfd_siginfo si;
	while (read(s->signals, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			reap(s);
		else if (si.ssi_signo == SIGHUP || si.ssi_signo == SIGUSR1)
			pass_on(s, (int)si.ssi_signo);
		else
			stop(s, 0);
	}
}

static void start_what_is_due(struct supervisor *s)
{
	int64_t now = av_mono_ns();
	if (s->worker.start_at_ns && s->worker.start_at_ns <= now)
		start_worker(s);
	if (s->daemon.start_at_ns && s->daemon.start_at_ns <= now)
		start_daemon(s);
	if (s->credentials_due_ns && s->credentials_due_ns <= now) {
		av_log(AV_LOG_ERROR, "aviaryd does not finish its credentials: none are written",
		    NULL);
		drop_credentials(s);
	}
	if (s->stopping && now >= s->kill_at_ns) {
		struct program *p = s->daemon.pid ? &s->daemon : &s->worker;
		av_log(AV_LOG_WARN, "does not stop: killing it", "program", p->name, NULL);
		if (p->pid)
			kill(p->pid, SIGKILL);
		s->kill_at_ns = now + WORKER_GRACE_NS;
	}
}

static int timeout_ms(const struct supervisor *s)
{
	int64_t first = INT64_MAX;
	const int64_t due[] = {s->worker.start_at_ns, s->daemon.start_at_ns, s->credentials_due_ns,
	    vigil_due_ns(&s->vigil), s->stopping ? s->kill_at_ns : 0};
	for (size_t i = 0; i < AV_ARRAY_LEN(due); i++)
		if (due[i])
			first = AV_MIN(first, due[i]);
	if (first == INT64_MAX)
		return -1;
	int64_t left = first - av_mono_ns();
	return left <= 0 ? 0 : (int)AV_MIN(left / AV_NS_PER_MS + 1, (int64_t)60000);
}

static void run(struct supervisor *s)
{
	while (!s->stopping || s->worker.pid || s->daemon.pid) {
		start_what_is_due(s);
		vigil_tick(&s->vigil);
		struct pollfd p[] = {
		    {.fd = s->signals, .events = POLLIN},
		    {.fd = s->credentials, .events = POLLIN},
		    {.fd = vigil_fd(&s->vigil, VIGIL_WORKER), .events = POLLIN},
		    {.fd = vigil_fd(&s->vigil, VIGIL_DAEMON), .events = POLLIN},
		    {.fd = s->lend, .events = POLLIN},
		};
		if (poll(p, AV_ARRAY_LEN(p), timeout_ms(s)) < 0 && errno != EINTR)
			return;
		if (p[1].revents)
			on_credentials(s);
		for (int i = 0; i < VIGIL_N; i++)
			if (p[2 + i].revents)
				vigil_read(&s->vigil, (enum vigil_who)i);
		if (p[2 + VIGIL_N].revents && av_lend_serve(s->lend, s->o->lend) == -EPIPE)
			av_close_fd(&s->lend);
		if (p[0].revents)
			on_signals(s);
	}
}

int supervisor_main(const struct spawn_options *o, char **argv)
{
	struct av_err err = {0};
	struct supervisor s = {
	    .o = o,
	    .argv = argv,
	    .worker = {.name = "worker"},
	    .daemon = {.name = "aviaryd"},
	    .state_lock = -1,
	    .run_lock = -1,
	    .listener = -1,
	    .lifeline = {-1, -1},
	    .credentials = -1,
	    .lend = -1,
	    .signals = -1,
	};
	vigil_open(&s.vigil);
	if (prepare(&s, &err) < 0) {
		fprintf(stderr, "aviary-spawn: %s\n", err.message);
		return SPAWN_EXIT_CONFIG;
	}
	start_worker(&s);
	if (!o->no_daemon)
		start_daemon(&s);
	/* A failpoint that kills a child would kill its successor at the same place, for ever. */
	unsetenv("AVIARY_FAILPOINT");
	run(&s);
	remove_listener(o);
	vigil_close(&s.vigil);
	return s.status;
}
