/* SPDX-License-Identifier: Apache-2.0 */
/*
 * create.c - making a sandbox
 *
 * One synchronous stretch from the cgroup to the child's go, then the loop turns until the child
 * has executed the agent. The child is cloned as early as possible: its network namespace, the
 * slowest piece, is made on another CPU while the worker mounts.
 */
#include "spawn/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/path.h"
#include "spawn/caps.h"
#include "spawn/limits_files.h"
#include "spawn/rundir.h"
#include "base/banned.h"

#define HOSTNAME_LEN     12
#define CHILD_TIMEOUT_NS (10 * AV_NS_PER_S)

/* What a create is made of. */
struct plan {
	struct template_layers layers;
	struct mounts_limits limits;
	/* Of a virtual machine: the template with its image; id empty when there is none. */
	struct rundir_template image;
	bool makes_image;
	struct template_layers source, kernel; /* with makes_image */
	struct av_list *pending;               /* with -EAGAIN: what to wait for */
};

static struct job *current(struct sandbox *s)
{
	struct job *j = AV_LIST_FIRST(&s->jobs, struct job, node);
	assert(j);
	return j;
}

static int failpoint(const char *name, struct av_err *err)
{
	return av_failpoint(name) ? av_err_set(err, AV_ERR_INTERNAL, "failpoint %s", name) : 0;
}

static void unstage(struct sandbox *s)
{
	if (s->stage)
		sweeper_unstage(&s->sp->sweeper, s->stage);
	s->stage = 0;
}

static void close_go_fds(struct sandbox *s)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(s->go_fds); i++)
		av_close_fd(&s->go_fds[i]);
}

/* Where the descriptor is kept that the first process will find as `number`. */
static int *go_fd(struct sandbox *s, int number)
{
	return &s->go_fds[number - CHILD_FD_FIRST];
}

/* Removes what there is, then answers with the failure (destroy.c sees failure_errno). */
static void give_up(struct sandbox *s, int error)
{
	s->failure_errno = s->canceled ? ECANCELED : error < 0 ? -error : EIO;
	if (s->canceled)
		av_err_set(&s->failure, AV_ERR_CANCELED, "deleted while it was being made");
	s->canceled = false;
	loop_timer_stop(&s->retry);
	loop_remove(&s->sp->loop, &s->handover);
	unstage(s);
	av_close_fd(&s->jail.sock);
	av_close_fd(&s->jail.userns_fd);
	close_go_fds(s);
	if (s->jail.pidfd >= 0) {
		av_pidfd_send_signal(s->jail.pidfd, SIGKILL);
		const struct jail_identity who = {.pid = s->jail.pid};
		if (sandbox_watch(s, s->jail.pidfd, &who) == 0)
			s->jail.pidfd = -1;
	}
	jail_clear(&s->jail);
	s->state = SANDBOX_DESTROYING;
	s->destroy_started_ns = av_mono_ns();
	destroy_start(s);
}

static void answer(struct sandbox *s)
{
	struct job *j = current(s);
	int64_t now = av_mono_ns();
	struct spawn_reply reply = {.u.create = {
	                                .pid = s->who.pid,
	                                .slot = s->slot,
	                                .start_ticks = s->who.start_ticks,
	                                .pidns_ino = s->who.pidns_ino,
	                                .worker_us = (uint32_t)((now - j->started_ns) / 1000),
	                                .child_us = (uint32_t)((now - s->cloned_ns) / 1000),
	                            }};
	av_list_remove(&j->node);
	job_done(j, &reply, s->pidfd);
	sandbox_job_end(s, false);
}

/* The hand-over then ends with its death. */
static void child_too_slow(void *ctx)
{
	struct sandbox *s = ctx;
	av_pidfd_send_signal(s->jail.pidfd, SIGKILL);
}

/* With internet access: the child's network namespace is there, so it can be connected. */
static int connect_net(struct sandbox *s, struct net_link *ret, struct av_err *err)
{
	struct spawner *sp = s->sp;
	if (sp->net.rootless) {
		int started = net_keep_start(s, s->jail.pid, err);
		*ret = (struct net_link){.address = NET_ROOTLESS};
		return started < 0 ? started : failpoint("create.net", err);
	}
	int r = net_connect(&sp->net, s->jail.pid, ret, err);
	if (r < 0)
		return r;
	r = rundir_write_net(sp->mounts.run_fd, s->id, ret);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot record the network interface");
	return failpoint("create.net", err);
}

/* The last thing that the child waits for. */
static int go(struct sandbox *s, struct av_err *err)
{
	struct net_link link = {0};
	int r = s->wants_net ? connect_net(s, &link, err) : 0;
	if (r == 0)
		r = jail_go(&s->jail, s->go_fds, link.address, err);
	close_go_fds(s);
	s->went = true;
	return r < 0 ? r : failpoint("create.go", err);
}

static void handover_ready(void *ctx, uint32_t events)
{
	struct sandbox *s = ctx;
	(void)events;
	struct av_err err = {0};
	int r = jail_result(&s->jail, &err);
	if (r == -EAGAIN && !s->went && s->jail.net_ready)
		r = go(s, &err);
	if (r == -EAGAIN || (r == 0 && !s->jail.executing))
		return;
	if (r == 0)
		r = failpoint("create.done", &err);
	if (r == 0) {
		loop_remove(&s->sp->loop, &s->handover);
		unstage(s);
		r = sandbox_watch(s, s->jail.pidfd, &s->who);
	}
	if (r < 0) {
		s->failure = err;
		give_up(s, r);
		return;
	}
	s->jail.pidfd = -1;
	jail_clear(&s->jail);
	loop_timer_stop(&s->retry);
	s->canceled = false;
	answer(s);
}

/* ---- the steps ---- */

static uint32_t pids_max(const struct sandbox *s, const struct spawn_create *c)
{
	return c->pids_max ? c->pids_max : s->sp->o->pids_default;
}

static int make_cgroup(struct sandbox *s, const struct spawn_create *c, struct av_err *err)
{
	const struct cgroup_limits limits = {
	    .memory_bytes = c->memory_bytes,
	    .pids_max = pids_max(s, c),
	    .cpu_milli = c->cpu_milli,
	};
	int r = cgroups_create(s->sp->cgroups, s->id, &limits, err);
	return r < 0 ? r : failpoint("create.cgroup", err);
}

/* QEMU sets address space aside that it never fills: stacks of threads, translated code. */
static uint64_t rlimit_data(const struct sandbox *s, const struct spawn_create *c)
{
	return c->memory_bytes && s->is_vm ? c->memory_bytes + AV_GIB : c->memory_bytes;
}

static int clone_child(
    struct sandbox *s, const struct spawn_create *c, bool *ret_in_v2, struct av_err *err)
{
	struct spawner *sp = s->sp;
	uint32_t caps = cgroups_caps(sp->cgroups);
	char stage[MOUNTS_STAGE_SIZE];
	s->stage = ++sp->last_stage;
	mounts_stage_path(s->stage, stage);
	AV_CLEANUP(av_closep) int cgroup_fd = -1;
	if (caps & CGROUP_CAP_CLONE_INTO) {
		int r = cgroups_clone_fd(sp->cgroups, s->id, &cgroup_fd);
		if (r < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot open the cgroup");
	}
	*ret_in_v2 = cgroup_fd >= 0;
	struct net_rules_sandbox rules;
	if (s->wants_net)
		net_sandbox_rules(&sp->net, s->is_vm, &rules);
	const struct child_spec spec = {
	    .id = s->id,
	    .stage = stage,
	    .rootless = sp->mounts.rootless,
	    .no_sudo = c->flags & SPAWN_CREATE_NO_SUDO,
	    .no_seccomp = sp->o->no_seccomp,
	    .has_cgroup2 = cgroups_mode(sp->cgroups) == CGROUP_MODE_V2,
	    .vm = s->is_vm,
	    .vm_image = c->flags & SPAWN_CREATE_VM_IMAGE,
	    .program_fd = s->is_vm ? sp->vm.vm_fd : sp->agent_fd,
	    .memory_bytes = c->memory_bytes,
	    .rlimit_data = caps & CGROUP_CAP_MEMORY ? 0 : rlimit_data(s, c),
	    .rlimit_nproc = caps & CGROUP_CAP_PIDS ? 0 : pids_max(s, c),
	    .net = s->wants_net ? &rules : NULL,
	};
	s->cloned_ns = av_mono_ns();
	int r = jail_clone(&sp->ids, s->slot, cgroup_fd, &spec, &s->jail, err);
	return r < 0 ? r : failpoint("create.clone", err);
}

static int make_disk(
    struct sandbox *s, const struct spawn_create *c, int *ret_area, struct av_err *err)
{
	struct spawner *sp = s->sp;
	char hostname[HOSTNAME_LEN + 1], resolv_conf[NET_RESOLV_SIZE];
	if (s->wants_net)
		net_resolv_conf(&sp->net, resolv_conf);
	const struct mounts_identity identity = {
	    .hostname = hostname, .resolv_conf = s->wants_net ? resolv_conf : NULL};
	snprintf(hostname, sizeof(hostname), "%.*s", HOSTNAME_LEN, s->id);
	uint64_t bytes = c->disk_bytes ? c->disk_bytes : sp->o->disk_default_bytes;
	int r = disk_create(sp->disk, s->id, bytes, ids_base(&sp->ids, s->slot), ret_area, err);
	if (r == 0)
		r = mounts_prepare_area(&sp->mounts, &sp->ids, s->slot, *ret_area, &identity,
		    go_fd(s, SPAWN_VM_FD_EXIT_RECORD), err);
	return r < 0 ? r : failpoint("create.disk", err);
}

static int stage(struct sandbox *s, const struct plan *plan, int area, struct av_err *err)
{
	struct spawner *sp = s->sp;
	const struct template_layers *layers = &plan->layers;
	int r = jail_map(&s->jail, &sp->ids, s->slot, err);
	if (r == 0)
		r = failpoint("create.map", err);
	if (r < 0)
		return r;
	const struct mounts_spec spec = {
	    .ids = &sp->ids,
	    .slot = s->slot,
	    .stage = s->stage,
	    .userns_fd = s->jail.userns_fd,
	    .area_fd = area,
	    .root = &layers->root,
	    .usr = layers->has_usr ? &layers->usr : NULL,
	    .extra = {{"template", plan->makes_image ? &plan->source.root : NULL},
	        {"kernel", plan->makes_image ? &plan->kernel.root : NULL}},
	    .limits = plan->limits,
	    .vm = s->is_vm,
	};
	r = mounts_stage(&sp->mounts, &spec, err);
	if (r == 0)
		r = jail_staged(&s->jail, limits_files_needed(&plan->limits), err);
	av_close_fd(&s->jail.userns_fd);
	sweeper_close(&sp->sweeper, sp->mounts.spent, sp->mounts.n_spent);
	sp->mounts.n_spent = 0;
	disk_done(sp->disk, s->id);
	return r < 0 ? r : failpoint("create.stage", err);
}

static int attach(struct sandbox *s, bool in_v2, struct av_err *err)
{
	struct spawner *sp = s->sp;
	int r = cgroups_attach(sp->cgroups, s->id, s->jail.pid, in_v2, err);
	return r < 0 ? r : failpoint("create.attach", err);
}

static int hand_over(struct sandbox *s, const struct rundir_template *image, struct av_err *err)
{
	struct spawner *sp = s->sp;
	uid_t owner = sp->o->rootless ? (uid_t)-1 : sp->o->daemon_uid;
	int r = rundir_create(sp->mounts.run_fd, s->id, owner, sp->o->daemon_gid,
	    go_fd(s, SPAWN_VM_FD_AGENT_LISTENER), s->is_vm ? go_fd(s, SPAWN_VM_FD_LISTENER) : NULL);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot make the agent's socket");
	if ((r = failpoint("create.rundir", err)) < 0)
		return r;
	r = rundir_write_template(sp->mounts.run_fd, s->id, &s->stands_on);
	if (r == 0 && image->id[0])
		r = rundir_write_image(sp->mounts.run_fd, s->id, image);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot record the template");
	r = jail_identify(sp->mounts.proc_fd, s->jail.pid, &s->who);
	if (r == 0)
		r = rundir_write_process(sp->mounts.run_fd, s->id, &s->who);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot record the agent's process");
	if ((r = failpoint("create.record", err)) < 0)
		return r;
	s->handover = (struct loop_source){.fd = -1, .on_ready = handover_ready, .ctx = s};
	r = loop_add(&sp->loop, &s->handover, s->jail.sock, EPOLLIN);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "epoll");
	s->retry.on_due = child_too_slow;
	loop_timer_start(&sp->loop, &s->retry, CHILD_TIMEOUT_NS);
	if (!s->wants_net)
		return go(s, err);
	/* As a rule its namespace is there by now; else handover_ready() goes on. */
	r = jail_result(&s->jail, err);
	return r == -EAGAIN ? (s->jail.net_ready ? go(s, err) : 0) : r;
}

/* Before anything is made. */
static int plan_net(struct sandbox *s, const struct spawn_create *c, struct av_err *err)
{
	s->wants_net = c->flags & SPAWN_CREATE_INTERNET;
	s->went = false;
	return s->wants_net ? net_prepare(&s->sp->net, err) : 0;
}

/* The descriptors that only a virtual machine gets. */
static int open_vm_fds(struct sandbox *s, const struct spawn_create *c, struct av_err *err)
{
	char reason[VM_REASON_SIZE];
	int r = 0;
	if (c->flags & SPAWN_CREATE_KVM) {
		r = vm_host_open_kvm(false, go_fd(s, SPAWN_VM_FD_KVM), reason);
		if (r < 0) {
			(void)av_err_set(err, AV_ERR_UNSUPPORTED, "%s", reason);
			return -ENODEV;
		}
	}
	if (c->flags & SPAWN_CREATE_VM_IMAGE)
		r = jail_copy_program(s->sp->vm.agent_fd, go_fd(s, SPAWN_VM_FD_AGENT));
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot copy the agent") : 0;
}

static int plan_vm(struct sandbox *s, const struct spawn_create *c, struct av_err *err)
{
	char reason[VM_REASON_SIZE];
	s->is_vm = c->flags & SPAWN_CREATE_VM;
	return !s->is_vm || vm_possible(&s->sp->vm, reason)
	           ? 0
	           : av_err_set(err, AV_ERR_UNSUPPORTED, "%s", reason);
}

static int build(struct sandbox *s, const struct plan *plan, struct av_err *err)
{
	const struct spawn_create *c = &current(s)->request.u.create;
	AV_CLEANUP(av_closep) int area = -1;
	bool in_v2 = false;
	int r = open_vm_fds(s, c, err);
	if (r < 0)
		return r;
	r = ids_take(&s->sp->ids, &s->slot);
	if (r < 0)
		return av_err_set(err, AV_ERR_QUOTA,
		    "all %u id ranges of this machine are in use: delete sandboxes first",
		    SPAWN_SLOTS - 1);
	r = failpoint("create.slot", err);
	if (r == 0)
		r = make_cgroup(s, c, err);
	if (r == 0)
		r = clone_child(s, c, &in_v2, err);
	if (r == 0)
		r = make_disk(s, c, &area, err);
	/* The child mounts its cgroup v2 as soon as it is staged. */
	bool attach_first = cgroups_mode(s->sp->cgroups) == CGROUP_MODE_V2 && !in_v2;
	if (r == 0 && attach_first)
		r = attach(s, in_v2, err);
	if (r == 0)
		r = stage(s, plan, area, err);
	if (r == 0 && !attach_first)
		r = attach(s, in_v2, err);
	if (r == 0)
		r = hand_over(s, &plan->image, err);
	return r;
}

static void refuse(struct sandbox *s, int error, const struct av_err *err)
{
	struct job *j = current(s);
	av_list_remove(&j->node);
	job_fail(j, error, err);
	sandbox_job_end(s, false);
}

static void template_made(void *ctx, int result, const struct av_err *err)
{
	struct sandbox *s = ctx;
	if (result == 0)
		create_start(s);
	else
		refuse(s, result, err);
}

/* For a snapshot of it, later. */
static void remember_template(struct sandbox *s, const struct template_layers *layers)
{
	struct rundir_template *t = &s->stands_on;
	*t = (struct rundir_template){.depth = layers->depth};
	static_assert(sizeof(t->id) == SPAWN_TEMPLATE_SIZE, "the same ids");
	memcpy(t->id, current(s)->request.u.create.template_id, sizeof(t->id));
	memcpy(t->seal, layers->seal, sizeof(t->seal));
	if (layers->has_usr && !layers->is_vm)
		memcpy(
		    t->host_fingerprint, s->sp->templates.host.fingerprint, HOST_TEMPLATE_FP_SIZE);
}

/* A template that an image can be made of, or a kernel, which is one like others. */
static int source_layers(struct sandbox *s, const char *id,
    const uint8_t seal[static LAYER_HASH_SIZE], struct template_layers *ret, struct av_err *err)
{
	int r = template_layers(&s->sp->templates, id, seal, ret, err);
	if (r < 0 || (!ret->has_usr && ret->depth > 0))
		return r;
	(void)av_err_set(err, AV_ERR_INVALID,
	    "%s%s: a virtual machine needs a template of its own, as `aviary template build base` "
	    "makes one",
	    id,
	    ret->is_vm        ? " is a virtual machine's already"
	    : ret->depth == 0 ? " is only for jails"
	                      : " stands on this machine's own programs");
	return -EINVAL;
}

/* All layers that the create is made of. */
static int plan_layers(struct sandbox *s, struct plan *p, struct av_err *err)
{
	const struct spawn_create *c = &current(s)->request.u.create;
	int r =
	    template_layers(&s->sp->templates, c->template_id, c->template_seal, &p->layers, err);
	p->pending = p->layers.pending;
	if (r < 0)
		return r;
	if (p->layers.is_vm != s->is_vm) {
		(void)av_err_set(err, AV_ERR_INVALID, "template %s is %s virtual machines",
		    c->template_id, s->is_vm ? "not for" : "only for");
		return -EINVAL;
	}
	memcpy(p->image.id, p->layers.image.id, sizeof(p->image.id));
	memcpy(p->image.seal, p->layers.image.seal, sizeof(p->image.seal));
	p->image.depth = p->layers.image.depth;
	if (!s->is_vm)
		p->limits = (struct mounts_limits){
		    .memory_bytes = c->memory_bytes, .cpu_milli = c->cpu_milli};
	p->makes_image = c->flags & SPAWN_CREATE_VM_IMAGE;
	if (!p->makes_image)
		return 0;
	r = source_layers(s, c->source_id, c->source_seal, &p->source, err);
	p->pending = p->source.pending;
	if (r < 0)
		return r;
	r = source_layers(s, c->kernel_id, c->kernel_seal, &p->kernel, err);
	p->pending = p->kernel.pending;
	return r;
}

static bool is_there_already(struct sandbox *s)
{
	struct disk_usage usage;
	return s->pidfd >= 0 || rundir_exists(s->sp->mounts.run_fd, s->id) ||
	       cgroups_exists(s->sp->cgroups, s->id) || disk_usage(s->sp->disk, s->id, &usage) == 0;
}

void create_start(struct sandbox *s)
{
	struct av_err err = {0};
	struct plan plan = {0};
	s->state = SANDBOX_CREATING;
	if (is_there_already(s)) {
		av_err_set(&err, AV_ERR_CONFLICT, "a sandbox %s exists", s->id);
		refuse(s, -EEXIST, &err);
		return;
	}
	const struct spawn_create *c = &current(s)->request.u.create;
	int r = plan_vm(s, c, &err);
	if (r == 0)
		r = plan_net(s, c, &err);
	if (r < 0) {
		refuse(s, -EOPNOTSUPP, &err);
		return;
	}
	r = plan_layers(s, &plan, &err);
	if (r == -EAGAIN) {
		s->template_wait.on_made = template_made;
		s->template_wait.ctx = s;
		template_wait(plan.pending, &s->template_wait);
		return;
	}
	if (r < 0) {
		refuse(s, r, &err);
		return;
	}
	s->failure_errno = 0;
	remember_template(s, &plan.layers);
	r = build(s, &plan, &err);
	if (r < 0) {
		s->failure = err;
		give_up(s, r);
	}
}

void create_cancel(struct sandbox *s)
{
	/* Waiting for a template: not begun. */
	if (!av_list_empty(&s->template_wait.node)) {
		av_list_remove(&s->template_wait.node);
		refuse(s, -ECANCELED, NULL);
		return;
	}
	s->canceled = true;
	if (s->jail.pidfd >= 0)
		av_pidfd_send_signal(s->jail.pidfd, SIGKILL);
}
