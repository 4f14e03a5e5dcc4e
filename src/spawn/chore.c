/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chore.c - forked children with one result
 */
#include "spawn/chore.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/banned.h"

#define NICE 5

static void forget(struct chore *c)
{
	loop_remove(c->loop, &c->source);
	av_close_fd(&c->pidfd);
	av_close_fd(&c->pipe);
}

static void child_ended(void *ctx, uint32_t events)
{
	struct chore *c = ctx;
	struct chore_result res = {0};
	siginfo_t si = {0};
	(void)events;
	int r = waitid(P_PIDFD, (id_t)c->pidfd, &si, WEXITED) < 0 ? -errno : 0;
	/* Less than PIPE_BUF: whole or not there. */
	bool whole = read(c->pipe, &res, sizeof(res)) == sizeof(res);
	forget(c);
	if (r == 0)
		r = whole ? res.error : si.si_code == CLD_KILLED ? -ECANCELED : -EIO;
	res.text[sizeof(res.text) - 1] = '\0';
	c->on_done(c->ctx, r, &res);
}

_Noreturn static void run(int pipe, pid_t parent,
    int (*work)(void *arg, struct chore_result *res, struct av_err *err), void *arg)
{
	struct chore_result res = {0};
	struct av_err err = {0};
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != parent)
		_exit(1);
	if (setpriority(PRIO_PROCESS, 0, NICE) < 0)
		av_log(AV_LOG_DEBUG, "no lower priority for a chore", NULL);
	res.error = work(arg, &res, &err);
	if (res.error < 0) {
		const char *text = err.message[0] ? err.message : strerror(-res.error);
		memcpy(res.text, text, strnlen(text, sizeof(res.text) - 1));
	}
	_exit(av_write_full(pipe, &res, sizeof(res)) < 0);
}

int chore_start(struct chore *c, struct loop *loop,
    int (*work)(void *arg, struct chore_result *res, struct av_err *err), void *arg,
    void (*on_done)(void *ctx, int error, const struct chore_result *res), void *ctx)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	pid_t parent = getpid(), pid = fork();
	if (pid == 0)
		run(p[1], parent, work, arg);
	int r = pid < 0 ? -errno : av_pidfd_open(pid);
	close(p[1]);
	*c = (struct chore){.loop = loop, .pidfd = r, .pipe = p[0], .on_done = on_done, .ctx = ctx};
	c->source = (struct loop_source){.fd = -1, .on_ready = child_ended, .ctx = c};
	if (r >= 0)
		r = loop_add(loop, &c->source, c->pidfd, EPOLLIN);
	if (r < 0) {
		if (pid > 0)
			kill(pid, SIGKILL);
		c->pidfd = AV_MAX(c->pidfd, -1);
		forget(c);
	}
	return r;
}

bool chore_runs(const struct chore *c)
{
	return c->pidfd >= 0;
}

void chore_cancel(struct chore *c)
{
	if (c->pidfd >= 0)
		av_pidfd_send_signal(c->pidfd, SIGKILL);
}

void chore_clear(struct chore *c)
{
	if (c->pidfd < 0)
		return;
	chore_cancel(c);
	waitid(P_PIDFD, (id_t)c->pidfd, &(siginfo_t){0}, WEXITED);
	forget(c);
}
