/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - aviary-agent: PID 1 inside a sandbox
 *
 * aviary-agent SANDBOX_ID, with the descriptors of agent_api.h; or, as the first process of a
 * virtual machine, aviary-agent --guest (guest.h). What init must do: reap every child, its own and
 * adopted ones; on SIGTERM tell all processes to end, wait TERM_GRACE_MS, kill the rest and exit.
 * All signals are read from a signalfd, so that no handler ever runs in a child that shares this
 * memory for a moment (spawn.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/guest.h"
#include "agent/memory.h"
#include "agent/metrics.h"
#include "agent/record.h"
#include "agent/server.h"
#include "agent/spawn.h"
#include "base/fd.h"
#include "proto/agent_api.h"

#include "base/banned.h"

#define TERM_GRACE_MS      2000
#define TERM_POLL_MS       20
#define AGENT_NOFILE       16384
#define RINGS_BYTES_MAX    ((size_t)64 * 1024 * 1024)
#define RINGS_MEMORY_SHARE 4 /* rings may take a quarter of the sandbox's memory */
#define FILE_THREADS       "2"

struct init {
	struct agent agent;
	uv_poll_t signals;
	uv_timer_t term;
	int signal_fd;
	uint64_t term_deadline_ms; /* loop time; 0 while not stopping */
	struct guest *guest;       /* owned; NULL in a jail */
};

_Noreturn static void fatal(const char *what, int error)
{
	char text[AV_EXIT_RECORD_TEXT + 1];

	snprintf(text, sizeof(text), "%s: %s", what, strerror(error < 0 ? -error : error));
	fprintf(stderr, "aviary-agent: %s\n", text);
	record_write(AV_EXIT_FATAL, (uint32_t)(error < 0 ? -error : error), text);
	exit(125);
}

/* --- children and signals --- */

static void reap(struct init *in)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (in->guest)
			guest_reaped(in->guest, pid, status);
		process_table_reaped(&in->agent.processes, pid, status);
	}
}

/* Everything in the pid namespace, or, when not PID 1 of one, only what was started here. */
static void signal_all(struct init *in, int sig)
{
	struct process *p = NULL;

	if (getpid() == 1) {
		kill(-1, sig);
		return;
	}
	while ((p = process_next_live(&in->agent.processes, p)))
		kill(-process_pid(p), sig);
}

static void on_term_poll(uv_timer_t *timer)
{
	struct init *in = timer->data;
	bool late = uv_now(timer->loop) >= in->term_deadline_ms;
	siginfo_t si;

	/* ECHILD: nothing is left. WNOWAIT: reap() is the one who reaps. */
	if (!late && waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) == 0)
		return;
	signal_all(in, SIGKILL);
	record_write(AV_EXIT_STOPPED, SIGTERM, "told to end");
	if (!in->guest)
		exit(0);
	uv_timer_stop(timer);
	guest_power_off(in->guest);
}

static void on_term(struct init *in)
{
	if (in->term_deadline_ms)
		return;
	in->term_deadline_ms = uv_now(&in->agent.loop) + TERM_GRACE_MS;
	server_drain(in->agent.server);
	signal_all(in, SIGTERM);
	/* A stopped process gets its SIGTERM only when it goes on. */
	signal_all(in, SIGCONT);
	uv_timer_start(&in->term, on_term_poll, TERM_POLL_MS, TERM_POLL_MS);
}

static void on_signals(uv_poll_t *poll, int status, int events)
{
	struct init *in = poll->data;
	struct signalfd_siginfo si;

	(void)status;
	(void)events;
	while (read(in->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT)
			on_term(in);
	/* SIGCHLD is not queued: one may stand for many. */
	reap(in);
}

/* Blocks what is read from the signalfd; the rest keeps its default, which the kernel does not
 * apply to PID 1 of a namespace. */
static int open_signals(struct init *in)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	if (sigprocmask(SIG_SETMASK, &set, NULL) < 0)
		return -errno;
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return -errno;
	in->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return in->signal_fd < 0 ? -errno : 0;
}

/* --- start --- */

/* In a guest there are none, and its own may have those numbers. */
static void take_descriptors(const struct guest *guest)
{
	if (guest) {
		record_open(-1);
		return;
	}
	av_set_cloexec(AV_AGENT_FD_LISTEN, true);
	if (av_set_cloexec(AV_AGENT_FD_EXIT_RECORD, true) == 0)
		record_open(AV_AGENT_FD_EXIT_RECORD);
}

/* Room for pipes of many processes; children get back what we were given. */
static unsigned long raise_nofile(void)
{
	struct rlimit rl = {0};
	unsigned long given;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return 1024;
	given = rl.rlim_cur;
	if (rl.rlim_cur < AGENT_NOFILE) {
		rl.rlim_cur = rl.rlim_max < AGENT_NOFILE ? rl.rlim_max : AGENT_NOFILE;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	return given;
}

static size_t rings_budget(void)
{
	uint64_t share = metrics_memory_total() / RINGS_MEMORY_SHARE;

	return share && share < RINGS_BYTES_MAX ? (size_t)share : RINGS_BYTES_MAX;
}

/* Before anything else: what protects PID 1 from its sandbox. */
static void harden(void)
{
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	/* Where it is not PID 1 (tests), orphans come to it all the same. */
	if (getpid() != 1)
		prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	umask(022);
}

_Noreturn static void run(struct init *in)
{
	struct agent *a = &in->agent;
	int listen_fd = in->guest ? -1 : AV_AGENT_FD_LISTEN, r;

	if ((r = uv_loop_init(&a->loop)) < 0)
		fatal("event loop", r);
	if ((r = open_signals(in)) < 0)
		fatal("signals", r);
	spawn_prepare(raise_nofile());
	av_list_init(&a->watches);
	if ((r = process_table_init(&a->processes, &a->loop, rings_budget())) < 0)
		fatal("/dev/null", r);
	if ((r = uv_poll_init(&a->loop, &in->signals, in->signal_fd)) < 0)
		fatal("signals", r);
	uv_timer_init(&a->loop, &in->term);
	memory_init(a);
	kernel_table_init(&a->kernels, a);
	in->signals.data = in->term.data = in;
	uv_poll_start(&in->signals, UV_READABLE, on_signals);
	if ((r = server_open(a, listen_fd, &a->server)) < 0)
		fatal("listening socket", r);
	if (in->guest && (r = guest_open(in->guest, a)) < 0)
		fatal("virtio ports", r);
	/* A child of the worker's may have ended before the signalfd was there. */
	reap(in);
	uv_run(&a->loop, UV_RUN_DEFAULT);
	fatal("event loop ended", 0);
}

int main(int argc, char **argv)
{
	struct guest *guest = guest_wanted(argc, argv) ? guest_boot() : NULL;
	struct init *in;

	harden();
	(void)av_fill_standard_fds();
	memory_configure();
	setenv("UV_THREADPOOL_SIZE", FILE_THREADS, 1);
	take_descriptors(guest);
	if (!guest && argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("aviary-agent %s\n", AVIARY_VERSION);
		return 0;
	}
	if (!guest && argc != 2) {
		fprintf(stderr,
		    "usage: aviary-agent SANDBOX_ID (with a listening socket as descriptor 3 and "
		    "the exit record as 4); started by aviary-spawn\n");
		return 2;
	}
	in = calloc(1, sizeof(*in));
	if (!in)
		fatal("memory", ENOMEM);
	in->agent.id = argv[1];
	in->guest = guest;
	run(in);
}
