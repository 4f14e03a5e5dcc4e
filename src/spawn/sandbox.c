/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.c - table of sandboxes, jobs in order, and the short operations
 */
#include "spawn/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/log.h"
#include "spawn/rundir.h"
#include "base/banned.h"

/* A process that is in the kernel stops when it leaves it: the sandbox is tried again and again,
 * and the worker has time for others in between. */
#define FREEZE_TRY_MS     5
#define FREEZE_FIRST_NS   (5 * AV_NS_PER_MS)
#define FREEZE_GIVE_UP_NS (2 * AV_NS_PER_S)

static struct sandbox *find(const struct spawner *sp, const char *id)
{
	return av_map_get(&sp->sandboxes, av_str_c(id));
}

static void job_end_agent_died(void *ctx, uint32_t events);

static struct sandbox *find_or_add(struct spawner *sp, const char *id)
{
	struct sandbox *s = find(sp, id);
	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	*s = (struct sandbox){.sp = sp, .pidfd = -1, .jail = JAIL_INIT};
	s->death.fd = s->handover.fd = -1;
	for (size_t i = 0; i < AV_ARRAY_LEN(s->go_fds); i++)
		s->go_fds[i] = -1;
	net_keep_init(s);
	av_list_init(&s->jobs);
	av_list_init(&s->template_wait.node);
	loop_timer_init(&s->retry, NULL, s);
	s->reader = CGROUP_READER_INIT;
	if (av_str_copy(s->id, sizeof(s->id), av_str_c(id)) < 0 ||
	    av_map_put(&sp->sandboxes, av_str_c(s->id), s) < 0) {
		free(s);
		return NULL;
	}
	sample_add(s);
	return s;
}

static void unwatch(struct sandbox *s)
{
	if (s->pidfd < 0)
		return;
	loop_remove(&s->sp->loop, &s->death);
	av_close_fd(&s->pidfd);
	s->sp->alive--;
}

static void free_sandbox(struct sandbox *s)
{
	unwatch(s);
	sample_remove(s);
	loop_remove(&s->sp->loop, &s->handover);
	loop_timer_stop(&s->retry);
	av_list_remove(&s->template_wait.node);
	jail_clear(&s->jail);
	snapshot_clear(s);
	for (size_t i = 0; i < AV_ARRAY_LEN(s->go_fds); i++)
		av_close_fd(&s->go_fds[i]);
	net_keep_clear(s);
	av_map_remove(&s->sp->sandboxes, av_str_c(s->id));
	free(s);
}

int sandbox_watch(struct sandbox *s, int pidfd, const struct jail_identity *who)
{
	s->death = (struct loop_source){.fd = -1, .on_ready = job_end_agent_died, .ctx = s};
	int r = loop_add(&s->sp->loop, &s->death, pidfd, EPOLLIN);
	if (r < 0)
		return r;
	s->pidfd = pidfd;
	s->who = *who;
	s->sp->alive++;
	return 0;
}

/* The agent was PID 1 of its namespace: when its death can be seen here, the kernel has killed and
 * reaped every other process of the sandbox. */
static void job_end_agent_died(void *ctx, uint32_t events)
{
	struct sandbox *s = ctx;
	(void)events;
	/* ECHILD: a previous worker's child; the supervisor, as subreaper, has it. */
	waitid(P_PIDFD, (id_t)s->pidfd, &(siginfo_t){0}, WEXITED | WNOHANG);
	unwatch(s);
	net_keep_end(s);
	if (s->state == SANDBOX_DESTROYING)
		destroy_start(s);
	else if (s->state == SANDBOX_SNAPSHOTTING)
		snapshot_agent_died(s);
}

/* ---- what there is of a sandbox ---- */

static bool has_disk(struct spawner *sp, const char *id)
{
	struct disk_usage usage;
	return disk_usage(sp->disk, id, &usage) == 0;
}

static uint32_t state_bits(struct sandbox *s)
{
	uint32_t bits = 0;
	if (s->pidfd >= 0)
		bits |= SPAWN_STATE_ALIVE;
	if (rundir_exists(s->sp->mounts.run_fd, s->id))
		bits |= SPAWN_STATE_HAS_RUN;
	if (cgroups_exists(s->sp->cgroups, s->id))
		bits |= SPAWN_STATE_HAS_CGROUP;
	if (s->state == SANDBOX_CREATING)
		bits |= SPAWN_STATE_CREATING;
	if (s->state == SANDBOX_DESTROYING)
		bits |= SPAWN_STATE_DESTROYING;
	return bits;
}

static int recover_id(void *ctx, const char *id)
{
	struct spawner *sp = ctx;
	if (!av_id_valid(av_str_c(id), AV_ID_SANDBOX) || find(sp, id))
		return 0;
	struct sandbox *s = find_or_add(sp, id);
	if (!s)
		return -ENOMEM;
	net_keep_recover(s);
	s->is_vm = rundir_is_vm(sp->mounts.run_fd, id);
	if (rundir_read_template(sp->mounts.run_fd, id, &s->stands_on) < 0)
		s->stands_on = (struct rundir_template){0};
	struct jail_identity who;
	int pidfd;
	if (rundir_read_process(sp->mounts.run_fd, id, &who) < 0 ||
	    jail_open(sp->mounts.proc_fd, &who, &pidfd) < 0)
		return 0;
	int r = sandbox_watch(s, pidfd, &who);
	if (r < 0) {
		close(pidfd);
		return r;
	}
	confine_recover(&sp->confine, id);
	return 0;
}

static int recover_area(void *ctx, const char *id, uid_t owner, bool removing)
{
	struct spawner *sp = ctx;
	if (removing)
		return 0;
	int r = recover_id(sp, id);
	struct sandbox *s = r < 0 ? NULL : find(sp, id);
	if (!s)
		return r;
	s->slot = ids_slot_of(&sp->ids, owner);
	ids_mark(&sp->ids, s->slot);
	return 0;
}

int sandbox_recover(struct spawner *sp, struct av_err *err)
{
	int r = disk_list(sp->disk, recover_area, sp);
	if (r == 0)
		r = rundir_list(sp->mounts.run_fd, recover_id, sp);
	if (r == 0)
		r = cgroups_list(sp->cgroups, recover_id, sp);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot look for running sandboxes") : 0;
}

/* ---- short operations ---- */

static void read_exit_record(struct spawner *sp, const char *id, struct spawn_inspect_reply *ret)
{
	AV_CLEANUP(av_closep) int area = -1;
	if (disk_open(sp->disk, id, &area, NULL) < 0)
		return;
	AV_CLEANUP(av_closep)
	int fd = openat(area, MOUNTS_EXIT_RECORD, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	disk_done(sp->disk, id);
	if (fd < 0)
		return;
	ssize_t n = av_read_full(fd, ret->exit_record, sizeof(ret->exit_record));
	ret->exit_bytes = n > 0 ? (uint32_t)n : 0;
}

static void inspect(struct sandbox *s, struct job *j)
{
	struct spawn_reply reply = {0};
	struct spawn_inspect_reply *in = &reply.u.inspect;
	struct cgroup_stat cg;
	struct disk_usage usage;

	in->state = state_bits(s);
	in->pid = s->pidfd >= 0 ? s->who.pid : 0;
	if (cgroups_stat(s->sp->cgroups, s->id, &cg) == 0) {
		in->oom_kills = cg.oom_kills;
		in->memory_bytes = cg.memory_current_bytes;
		in->memory_peak_bytes = cg.memory_peak_bytes;
		in->cpu_usec = cg.cpu_usec;
		in->pids = (uint32_t)cg.pids_current;
		in->state |= cg.frozen ? (uint32_t)SPAWN_STATE_FROZEN : 0;
		in->state |= cg.populated ? (uint32_t)SPAWN_STATE_ALIVE : 0;
	}
	if (disk_usage(s->sp->disk, s->id, &usage) == 0) {
		in->state |= SPAWN_STATE_HAS_DISK;
		in->disk_used_bytes = usage.used_bytes;
		in->disk_limit_bytes = usage.limit_bytes;
		read_exit_record(s->sp, s->id, in);
	}
	if (!in->state) {
		job_fail(j, -ENOENT, NULL);
		return;
	}
	job_done(j, &reply, -1);
}

static void adopt(struct sandbox *s, struct job *j)
{
	const struct spawn_adopt *a = &j->request.u.adopt;
	struct spawn_reply reply = {0};
	if (s->pidfd < 0) {
		job_fail(j, -ENOENT, NULL);
		return;
	}
	if (a->pid != s->who.pid || a->start_ticks != s->who.start_ticks ||
	    a->pidns_ino != s->who.pidns_ino) {
		job_fail(j, -ESTALE, NULL);
		return;
	}
	reply.u.create.slot = s->slot;
	job_done(j, &reply, s->pidfd);
}

/* ---- freezing ---- */

static void on_freeze_retry(void *ctx);

static struct job *freeze_over(struct sandbox *s)
{
	struct job *j = AV_LIST_FIRST(&s->jobs, struct job, node);
	assert(j);
	loop_timer_stop(&s->retry);
	s->retry_ns = 0;
	av_list_remove(&j->node);
	s->state = SANDBOX_IDLE;
	return j;
}

/* The first job, FREEZE or THAW. False: it is not done yet, the timer comes back to it. */
static bool freeze_try(struct sandbox *s)
{
	struct job *j = AV_LIST_FIRST(&s->jobs, struct job, node);
	struct spawn_reply reply = {0};
	struct av_err err = {0};
	int r = av_failpoint("freeze.try")
	            ? -ETIMEDOUT
	            : cgroups_freeze(s->sp->cgroups, s->id, j->request.op == SPAWN_FREEZE,
	                  FREEZE_TRY_MS, &err);
	if (r == -ETIMEDOUT && av_mono_ns() - s->freeze_started_ns < FREEZE_GIVE_UP_NS) {
		s->retry_ns = s->retry_ns ? 2 * s->retry_ns : FREEZE_FIRST_NS;
		s->retry.on_due = on_freeze_retry;
		loop_timer_start(&s->sp->loop, &s->retry, s->retry_ns);
		return false;
	}
	j = freeze_over(s);
	if (r < 0)
		job_fail(j, r, &err);
	else
		job_done(j, &reply, -1);
	return true;
}

static void on_freeze_retry(void *ctx)
{
	struct sandbox *s = ctx;
	if (freeze_try(s))
		sandbox_job_end(s, false);
}

/* It is to be destroyed. */
static void freeze_cancel(struct sandbox *s)
{
	job_fail(freeze_over(s), -ECANCELED, NULL);
	sandbox_job_end(s, false);
}

/* ---- jobs ---- */

static void run_short(struct sandbox *s, struct job *j)
{
	switch (j->request.op) {
	case SPAWN_ADOPT:
		adopt(s, j);
		break;
	case SPAWN_INSPECT:
		inspect(s, j);
		break;
	default:
		job_fail(j, -EINVAL, NULL);
		break;
	}
}

/* Anything known of it, or found now? An entry made for a question about nothing goes again. */
static bool exists(struct sandbox *s)
{
	return s->pidfd >= 0 || state_bits(s) || has_disk(s->sp, s->id);
}

static void run_jobs(struct sandbox *s)
{
	struct job *j;
	while (s->state == SANDBOX_IDLE && (j = AV_LIST_FIRST(&s->jobs, struct job, node))) {
		if (j->request.op == SPAWN_CREATE) {
			create_start(s);
			return;
		}
		if (j->request.op == SPAWN_SNAPSHOT) {
			s->state = SANDBOX_SNAPSHOTTING;
			snapshot_start(s);
			return;
		}
		if (j->request.op == SPAWN_DESTROY) {
			s->state = SANDBOX_DESTROYING;
			s->destroy_started_ns = av_mono_ns();
			destroy_start(s);
			return;
		}
		if (j->request.op == SPAWN_FREEZE || j->request.op == SPAWN_THAW) {
			s->state = SANDBOX_FREEZING;
			s->freeze_started_ns = av_mono_ns();
			if (!freeze_try(s))
				return;
			continue;
		}
		av_list_remove(&j->node);
		run_short(s, j);
	}
	if (s->state == SANDBOX_IDLE && !exists(s))
		free_sandbox(s);
}

void sandbox_job_end(struct sandbox *s, bool gone)
{
	s->state = SANDBOX_IDLE;
	if (gone && av_list_empty(&s->jobs)) {
		free_sandbox(s);
		return;
	}
	run_jobs(s);
}

void sandbox_submit(struct spawner *sp, struct job *j)
{
	struct sandbox *s = find_or_add(sp, j->request.id);
	if (!s) {
		job_fail(j, -ENOMEM, NULL);
		return;
	}
	/* A look does not wait for the copy of a disk, or for what is slow to freeze. */
	if (j->request.op == SPAWN_INSPECT &&
	    (s->state == SANDBOX_SNAPSHOTTING || s->state == SANDBOX_FREEZING)) {
		inspect(s, j);
		return;
	}
	av_list_append(&s->jobs, &j->node);
	if (j->request.op == SPAWN_DESTROY && s->state == SANDBOX_CREATING)
		create_cancel(s);
	else if (j->request.op == SPAWN_DESTROY && s->state == SANDBOX_SNAPSHOTTING)
		snapshot_cancel(s);
	else if (j->request.op == SPAWN_DESTROY && s->state == SANDBOX_FREEZING)
		freeze_cancel(s);
	else if (s->state == SANDBOX_IDLE)
		run_jobs(s);
}

/* ---- list ---- */

void sandbox_list_insert(struct spawn_list_reply *l, const char *id)
{
	size_t at = l->count;
	while (at > 0 && strcmp(l->entries[at - 1].id, id) > 0)
		at--;
	if (at == SPAWN_LIST_MAX) {
		l->more = 1;
		return;
	}
	size_t tail = l->count - at;
	if (l->count == SPAWN_LIST_MAX) {
		l->more = 1;
		tail--;
	} else {
		l->count++;
	}
	memmove(&l->entries[at + 1], &l->entries[at], tail * sizeof(l->entries[0]));
	l->entries[at] = (struct spawn_list_entry){0};
	memcpy(l->entries[at].id, id, strlen(id));
}

int sandbox_list(struct spawner *sp, const char *after, struct spawn_list_reply *ret)
{
	/* The table misses what a failed clean-up left: look again. */
	int r = sandbox_recover(sp, NULL);
	if (r < 0)
		return r;
	struct sandbox *s;
	size_t pos = 0;
	while ((s = av_map_next(&sp->sandboxes, &pos)))
		if (strcmp(s->id, after) > 0)
			sandbox_list_insert(ret, s->id);
	for (uint32_t i = 0; i < ret->count; i++) {
		s = find(sp, ret->entries[i].id);
		ret->entries[i].state = state_bits(s);
		if (has_disk(sp, s->id))
			ret->entries[i].state |= SPAWN_STATE_HAS_DISK;
	}
	return 0;
}

bool sandbox_stands_on(const struct spawner *sp, const char *template_id)
{
	struct sandbox *s;
	size_t pos = 0;
	while ((s = av_map_next(&sp->sandboxes, &pos)))
		if (strcmp(s->stands_on.id, template_id) == 0)
			return true;
	return false;
}

bool sandbox_busy(const struct spawner *sp)
{
	struct sandbox *s;
	size_t pos = 0;
	while ((s = av_map_next(&sp->sandboxes, &pos)))
		if (s->state != SANDBOX_IDLE)
			return true;
	return false;
}

void sandbox_clear(struct spawner *sp)
{
	struct sandbox *s;
	size_t pos = 0;
	while ((s = av_map_next(&sp->sandboxes, &pos)))
		free_sandbox(s);
	av_map_clear(&sp->sandboxes);
}
