/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_keep.c - keeps rootless sandboxes connected: pasta is started, watched and started again
 *
 * Theory of operation. pasta is a foreign program that may be killed, by the kernel for want of
 * memory to begin with, while its sandbox lives. Its interface goes with it. So its end is watched:
 * while the sandbox is being made, the create fails; later a new one is started after a pause that
 * doubles from one end to the next, and is short again once one has lived for a while. The rules in
 * the sandbox's namespace name no interface and were there before the first: they hold for every
 * one that comes.
 *
 * The child of a create gives the first interface its address and brings it up (net_child.h). For
 * later ones a forked child of the worker enters the sandbox's user and network namespace, through
 * the agent's pidfd, and does the same; nothing of it touches files of the sandbox.
 *
 * Only the worker that made a sandbox can do so: a rootless worker has rights over the user
 * namespaces below its own, and one that took its place has another. It watches and ends the pasta
 * of a sandbox that it found, and says so when that ends by itself.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/log.h"
#include "spawn/net_child.h"
#include "spawn/sandbox.h"
#include "base/banned.h"

#define PAUSE_FIRST_NS (100 * AV_NS_PER_MS)
#define PAUSE_MAX_NS   (30 * AV_NS_PER_S)
#define LIVED_NS       (60 * AV_NS_PER_S) /* then the next pause is short again */

static void start_again(void *ctx);

static bool wanted(const struct sandbox *s)
{
	return s->pidfd >= 0 && s->state != SANDBOX_DESTROYING;
}

static void retry_later(struct sandbox *s)
{
	struct net_keep *k = &s->keep;
	k->pause_ns = k->pause_ns ? AV_MIN(2 * k->pause_ns, (int64_t)PAUSE_MAX_NS) : PAUSE_FIRST_NS;
	loop_timer_start(&s->sp->loop, &k->retry, k->pause_ns);
}

static void pasta_died(void *ctx, uint32_t events)
{
	struct sandbox *s = ctx;
	struct net_keep *k = &s->keep;
	(void)events;
	waitid(P_PIDFD, (id_t)k->pidfd, &(siginfo_t){0}, WEXITED | WNOHANG);
	loop_remove(&s->sp->loop, &k->death);
	av_close_fd(&k->pidfd);
	chore_cancel(&k->up);
	if (s->state == SANDBOX_CREATING) {
		av_pidfd_send_signal(s->jail.pidfd, SIGKILL);
		return;
	}
	if (!wanted(s))
		return;
	if (k->found) {
		av_log(AV_LOG_WARN,
		    "pasta ended: the sandbox has no internet access any more, as it was made by "
		    "an earlier worker",
		    "id", s->id, NULL);
		return;
	}
	if (av_mono_ns() - k->started_ns >= LIVED_NS)
		k->pause_ns = 0;
	retry_later(s);
	char text[24];
	snprintf(text, sizeof(text), "%lld", (long long)(k->pause_ns / AV_NS_PER_MS));
	av_log(AV_LOG_WARN,
	    "pasta ended: the sandbox has no internet access until it is started again", "id",
	    s->id, "in_ms", text, NULL);
}

/* Takes pidfd over on success. */
static int watch(struct sandbox *s, int pidfd)
{
	s->keep.death = (struct loop_source){.fd = -1, .on_ready = pasta_died, .ctx = s};
	int r = loop_add(&s->sp->loop, &s->keep.death, pidfd, EPOLLIN);
	if (r == 0)
		s->keep.pidfd = pidfd;
	return r;
}

int net_keep_start(struct sandbox *s, pid_t pid, struct av_err *err)
{
	struct spawner *sp = s->sp;
	struct pasta_process p;
	int pidfd;
	uint32_t resolver = sp->net.rules.n_resolvers ? sp->net.rules.resolvers[0] : 0;
	int r = pasta_start(sp->mounts.proc_fd, pid, resolver, &p, &pidfd);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot start pasta");
	if ((r = watch(s, pidfd)) < 0) {
		av_pidfd_send_signal(pidfd, SIGKILL);
		close(pidfd);
		return av_err_sys(err, AV_ERR_INTERNAL, r, "epoll");
	}
	s->keep.started_ns = av_mono_ns();
	r = rundir_write_pasta(sp->mounts.run_fd, s->id, &p);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot record pasta") : 0;
}

/* ---- again ---- */

/* In the forked child. */
static int bring_up(void *arg, struct chore_result *res, struct av_err *err)
{
	const struct sandbox *s = arg;
	(void)res;
	if (setns(s->pidfd, CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "cannot enter the sandbox's network namespace");
	int r = net_child_up(NET_ROOTLESS);
	if (r < 0 && r != -EEXIST)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot bring the interface up");
	return 0;
}

static void end_pasta(struct sandbox *s)
{
	if (s->keep.pidfd >= 0)
		av_pidfd_send_signal(s->keep.pidfd, SIGKILL);
}

static void on_up(void *ctx, int error, const struct chore_result *res)
{
	struct sandbox *s = ctx;
	if (error == 0) {
		av_log(AV_LOG_INFO, "the sandbox's internet access is there", "id", s->id, NULL);
		return;
	}
	if (s->keep.pidfd >= 0 && wanted(s))
		av_log(AV_LOG_WARN, "internet access", "id", s->id, "error", res->text, NULL);
	end_pasta(s); /* and its end starts another */
}

static int connect_again(struct sandbox *s, struct av_err *err)
{
	/* The host's name server may have changed. */
	int r = net_prepare(&s->sp->net, err);
	if (r == 0)
		r = net_keep_start(s, s->who.pid, err);
	if (r == 0 && (r = chore_start(&s->keep.up, &s->sp->loop, bring_up, s, on_up, s)) < 0)
		av_err_sys(err, AV_ERR_INTERNAL, r, "fork");
	return r;
}

static void start_again(void *ctx)
{
	struct sandbox *s = ctx;
	struct av_err err = {0};
	if (!wanted(s))
		return;
	/* The one before is about to end. */
	if (!chore_runs(&s->keep.up) && connect_again(s, &err) == 0)
		return;
	if (err.message[0])
		av_log(AV_LOG_WARN, "internet access", "id", s->id, "error", err.message, NULL);
	end_pasta(s);
	if (s->keep.pidfd < 0)
		retry_later(s);
}

/* ---- life ---- */

void net_keep_init(struct sandbox *s)
{
	s->keep = (struct net_keep){.pidfd = -1, .death = {.fd = -1}, .up = CHORE_INIT};
	loop_timer_init(&s->keep.retry, start_again, s);
}

void net_keep_recover(struct sandbox *s)
{
	struct pasta_process p;
	if (!s->sp->net.rootless || rundir_read_pasta(s->sp->mounts.run_fd, s->id, &p) < 0)
		return;
	int pidfd = pasta_open(s->sp->mounts.proc_fd, &p);
	if (pidfd >= 0 && watch(s, pidfd) < 0)
		close(pidfd);
	s->keep.found = true;
}

void net_keep_end(struct sandbox *s)
{
	loop_timer_stop(&s->keep.retry);
	chore_cancel(&s->keep.up);
	end_pasta(s);
}

void net_keep_clear(struct sandbox *s)
{
	loop_timer_stop(&s->keep.retry);
	chore_clear(&s->keep.up);
	loop_remove(&s->sp->loop, &s->keep.death);
	av_close_fd(&s->keep.pidfd);
}
