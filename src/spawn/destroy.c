/* SPDX-License-Identifier: Apache-2.0 */
/*
 * destroy.c - taking a sandbox away, from whatever state it is in
 *
 * destroy_start() is called again after each wait and begins from the top: every step is idempotent
 * and looks at what is there, so that the same code finishes what an earlier worker began.
 */
#include "spawn/sandbox.h"

#include <errno.h>
#include <signal.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/log.h"
#include "spawn/rundir.h"
#include "base/banned.h"

#define RETRY_FIRST_NS (AV_NS_PER_MS / 2)
#define RETRY_MAX_NS   (200 * AV_NS_PER_MS)
/* Then the answer is an error; the sandbox stays listed and may be destroyed again. */
#define GIVE_UP_NS (20 * AV_NS_PER_S)

static struct job *current(struct sandbox *s)
{
	struct job *j = AV_LIST_FIRST(&s->jobs, struct job, node);
	assert(j);
	return j;
}

static void finish(struct sandbox *s, int error, const struct av_err *err)
{
	struct job *j = current(s);
	struct spawn_reply reply = {0};

	av_list_remove(&j->node);
	loop_timer_stop(&s->retry);
	s->retry_ns = 0;
	if (s->failure_errno) {
		/* A create that failed: the job is CREATE, the answer is why. */
		int failure = s->failure_errno;
		s->failure_errno = 0;
		if (error < 0)
			av_log(AV_LOG_ERROR, "remains of a failed create", "id", s->id, "error",
			    err ? err->message : "", NULL);
		job_fail(j, -failure, &s->failure);
	} else if (error < 0) {
		job_fail(j, error, err);
	} else {
		job_done(j, &reply, -1);
	}
	sandbox_job_end(s, error == 0);
}

static void on_retry(void *ctx)
{
	destroy_start(ctx);
}

static void wait_more(struct sandbox *s, const char *for_what, int64_t first_ns)
{
	if (av_mono_ns() - s->destroy_started_ns > GIVE_UP_NS) {
		struct av_err err = {0};
		av_err_set(&err, AV_ERR_INTERNAL, "gave up waiting for %s", for_what);
		finish(s, -ETIMEDOUT, &err);
		return;
	}
	s->retry_ns = s->retry_ns ? AV_MIN(2 * s->retry_ns, (int64_t)RETRY_MAX_NS) : first_ns;
	s->retry.on_due = on_retry;
	loop_timer_start(&s->sp->loop, &s->retry, s->retry_ns);
}

/* True when nothing of it lives any more. */
static bool kill_all(struct sandbox *s)
{
	struct spawner *sp = s->sp;
	if (s->pidfd >= 0)
		av_pidfd_send_signal(s->pidfd, SIGKILL);
	net_keep_end(s);
	/* Also thaws: on v1 a frozen process does not die. */
	int r = cgroups_kill(sp->cgroups, s->id);
	if (r < 0)
		av_log(AV_LOG_WARN, "cgroup kill", "id", s->id, NULL);
	if (av_failpoint("destroy.kill")) {
		wait_more(s, "failpoint destroy.kill", RETRY_FIRST_NS);
		return false;
	}
	if (s->pidfd >= 0) {
		/* The loop tells; this timer is for a process stuck in the kernel. */
		wait_more(s, "the agent to die", RETRY_MAX_NS);
		return false;
	}
	/* No agent known: remains of a create, whose processes are all in the cgroup. */
	if (cgroups_wait_empty(sp->cgroups, s->id, 0) == -ETIMEDOUT) {
		wait_more(s, "processes to die", RETRY_FIRST_NS);
		return false;
	}
	return true;
}

static int remove_rest(struct sandbox *s, struct av_err *err)
{
	struct spawner *sp = s->sp;
	/* Its network namespace is about to go, with interface, route and rules. */
	uint32_t address = rundir_read_net(sp->mounts.run_fd, s->id);
	if (address)
		sweeper_forget(&sp->sweeper, address);
	int r = rundir_remove(sp->mounts.run_fd, s->id);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot remove the run directory");
	if (av_failpoint("destroy.disk"))
		return av_err_set(err, AV_ERR_INTERNAL, "failpoint destroy.disk");
	r = disk_remove(sp->disk, s->id, err);
	if (r < 0)
		return r;
	if (av_failpoint("destroy.done"))
		return av_err_set(err, AV_ERR_INTERNAL, "failpoint destroy.done");
	return 0;
}

void destroy_start(struct sandbox *s)
{
	struct spawner *sp = s->sp;
	struct av_err err = {0};

	loop_timer_stop(&s->retry);
	if (!kill_all(s))
		return;
	if (av_failpoint("destroy.dead")) {
		wait_more(s, "failpoint destroy.dead", RETRY_FIRST_NS);
		return;
	}
	int r = cgroups_remove(sp->cgroups, s->id, 0);
	if (r == -EBUSY || av_failpoint("destroy.cgroup")) {
		wait_more(s, "the cgroup to empty", RETRY_FIRST_NS);
		return;
	}
	if (r < 0) {
		av_err_sys(&err, AV_ERR_INTERNAL, r, "cannot remove the cgroup");
		finish(s, r, &err);
		return;
	}
	r = remove_rest(s, &err);
	if (r == 0) {
		ids_release(&sp->ids, s->slot);
		s->slot = 0;
		loop_timer_start(&sp->loop, &sp->disk_timer, AV_NS_PER_MS);
	}
	finish(s, r, &err);
}
