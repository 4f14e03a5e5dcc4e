/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - aviary-vm: PID 1 in the jail around a virtual machine
 *
 * aviary-vm [--root DIR] [--qemu PROGRAM] SANDBOX_ID, with the descriptors below. It reaps every
 * child; on SIGTERM it ends QEMU and then itself. When the machine has ended it writes the exit
 * record and ends. It is not dumpable, so that QEMU, which has the same ids, can neither trace it
 * nor open its descriptors; QEMU itself is, so that this program can read the guest's memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "vm/machine.h"
#include "vm/qemu.h"
#include "vm/server.h"

#include "base/banned.h"

/* enum SPAWN_VM_FD_* of spawn/wire.h */
enum { FD_AGENT_LISTENER = 3, FD_EXIT_RECORD, FD_LISTENER, FD_KVM, FD_AGENT, FD_COUNT };

#define POOL_THREADS "2" /* one for the plan's work, one for what is asked meanwhile */
#define ROOT_MAX     1024

struct program {
	uv_loop_t loop;
	uv_poll_t signals;
	int signal_fd;
	struct children children;
	struct machine_options options;
	struct machine *machine;
	struct server *server;
};

static void write_record(const uint8_t record[static AV_EXIT_RECORD_SIZE])
{
	/* Nothing can be done about a failure here; the host then has the kernel's evidence only.
	 */
	(void)!pwrite(FD_EXIT_RECORD, record, AV_EXIT_RECORD_SIZE, 0);
}

static void write_end(enum av_exit_reason reason, uint32_t code, const char *text)
{
	uint8_t record[AV_EXIT_RECORD_SIZE];

	av_exit_record_encode(record, reason, code, (uint64_t)av_real_ms(), text);
	write_record(record);
}

_Noreturn static void fatal(const char *what, int error)
{
	char text[AV_EXIT_RECORD_TEXT + 1];

	snprintf(text, sizeof(text), "%s: %s", what, strerror(error < 0 ? -error : error));
	fprintf(stderr, "aviary-vm: %s\n", text);
	write_end(AV_EXIT_FATAL, (uint32_t)(error < 0 ? -error : error), text);
	exit(125);
}

/* --- the machine and its socket --- */

static void on_request(void *ctx, uint64_t client, const struct vm_request *q)
{
	struct program *p = ctx;

	machine_request(p->machine, client, q);
}

static void on_answer(void *ctx, uint64_t client, const struct vm_reply *reply)
{
	struct program *p = ctx;

	server_answer(p->server, client, reply);
}

static void on_record(void *ctx, const uint8_t record[static AV_EXIT_RECORD_SIZE])
{
	(void)ctx;
	write_record(record);
}

static void on_gone(void *ctx, enum av_exit_reason reason, uint32_t code, const char *text)
{
	(void)ctx;
	if (reason != AV_EXIT_NONE)
		write_end(reason, code, text);
	exit(reason == AV_EXIT_STOPPED || reason == AV_EXIT_NONE ? 0 : 1);
}

static const struct server_ops server_ops = {on_request};
static const struct machine_ops machine_ops = {on_answer, on_record, on_gone};

/* --- signals --- */

static void on_signals(uv_poll_t *poll, int status, int events)
{
	struct program *p = poll->data;
	struct signalfd_siginfo si;
	pid_t pid;
	int st;

	(void)status;
	(void)events;
	while (read(p->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT)
			machine_stop(p->machine);
	/* SIGCHLD is not queued: one may stand for many. */
	while ((pid = waitpid(-1, &st, WNOHANG)) > 0)
		children_reaped(&p->children, pid, st);
}

static int open_signals(struct program *p)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_SETMASK, &set, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return -errno;
	p->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return p->signal_fd < 0 ? -errno : 0;
}

/* --- start --- */

static void harden(void)
{
	struct rlimit none = {0, 0};

	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	/* For QEMU, which inherits it: 3 MiB less of its own, and the guest's pages come from a
	 * file anyhow. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	setrlimit(RLIMIT_CORE, &none);
	umask(077);
	/* Two threads that allocate little: no arenas of their own, and freed memory goes back. */
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_TRIM_THRESHOLD, 64 * 1024);
	setenv("UV_THREADPOOL_SIZE", POOL_THREADS, 1);
}

/* fd if it is open. */
static int given(int fd)
{
	return av_set_cloexec(fd, true) == 0 ? fd : -1;
}

_Noreturn static void run(struct program *p)
{
	int r;

	if ((r = uv_loop_init(&p->loop)) < 0)
		fatal("event loop", r);
	if ((r = open_signals(p)) < 0 ||
	    (r = uv_poll_init(&p->loop, &p->signals, p->signal_fd)) < 0)
		fatal("signals", r);
	p->signals.data = p;
	uv_poll_start(&p->signals, UV_READABLE, on_signals);
	children_init(&p->children, &p->loop);
	if ((r = machine_new(&p->children, &p->options, &machine_ops, p, &p->machine)) < 0)
		fatal("agent.sock", r);
	if ((r = server_new(&p->loop, FD_LISTENER, &server_ops, p, &p->server)) < 0)
		fatal("vm.sock", r);
	uv_run(&p->loop, UV_RUN_DEFAULT);
	fatal("event loop ended", 0);
}

/* What tests change; in a jail there are no options. */
static int take_options(int argc, char **argv, struct machine_options *o)
{
	int i = 1;

	for (; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--root") == 0 && argv[i + 1][0] == '/' &&
		    strlen(argv[i + 1]) < ROOT_MAX && !strchr(argv[i + 1], ','))
			o->root = argv[i + 1];
		else if (strcmp(argv[i], "--qemu") == 0)
			o->qemu = argv[i + 1];
		else
			break;
	}
	return i == argc - 1 && argv[i][0] != '-' ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	static struct program p = {.options = {.root = "", .qemu = QEMU_PROGRAM}};

	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("aviary-vm %s\n", AVIARY_VERSION);
		return 0;
	}
	(void)av_fill_standard_fds();
	harden();
	if (take_options(argc, argv, &p.options) < 0) {
		fprintf(stderr,
		    "usage: aviary-vm [--root DIR] [--qemu PROGRAM] SANDBOX_ID (with listening "
		    "sockets "
		    "as descriptors 3 and 5 and the exit record as 4); started by aviary-spawn\n");
		return 2;
	}
	given(FD_EXIT_RECORD);
	p.options.listener = given(FD_AGENT_LISTENER);
	p.options.kvm_fd = given(FD_KVM);
	p.options.agent_fd = given(FD_AGENT);
	if (p.options.listener < 0 || given(FD_LISTENER) < 0)
		fatal("descriptors", EBADF);
	run(&p);
}
