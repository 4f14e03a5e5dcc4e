/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.c - start and event loop of the process that makes and removes sandboxes
 *
 * Theory of operation. One thread. Everything it holds can be found again from the kernel and the
 * disk, so dying is always allowed; it dies with the supervisor (end of file on the lifeline: a
 * parent death signal would be cleared by the first change of ids). Sandboxes do not notice.
 *
 * Order of the start: what must be seen in the host's mount namespace (cgroup trees, the agent's
 * file), the private namespace, capabilities, disk, template, what already runs, then requests.
 */
#include "spawn/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/path.h"
#include "spawn/caps.h"
#include "spawn/client.h"
#include "spawn/instance.h"
#include "spawn/net_pasta.h"
#include "spawn/probe.h"
#include "spawn/sandbox.h"
#include "spawn/sys.h"
#include "base/banned.h"

#define DISK_STEP_US    2000
#define DISK_IDLE_MS    1000
#define NET_REFRESH_NS  (5 * AV_NS_PER_S)
#define STOP_TIMEOUT_NS (5 * AV_NS_PER_S)

struct worker {
	struct spawner sp;
	struct loop_source listener, lifeline, signals;
	struct loop_timer stop_timer, beat_timer;
	int signal_fd;
	bool stopping;
};

/* ---- start ---- */

static int open_cgroups(struct spawner *sp, struct av_err *err)
{
	char tag[INSTANCE_TAG_SIZE];
	instance_tag(sp->o->state_dir, tag);
	const struct cgroups_config cfg = {
	    .tag = tag, .below = sp->o->cgroup, .fast_attach = !sp->o->rootless};
	int r = cgroups_new(&cfg, &sp->cgroups, err);
	if (r == 0 && confine_open(&sp->confine, sp->cgroups) < 0)
		r = av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return r;
}

static int load_programs(struct spawner *sp, struct av_err *err)
{
	char beside[AV_PATH_MAX + 1];
	const char *path = sp->o->agent_path;
	int reader = -1;
	if (!path) {
		int r = spawn_sibling_path(beside, sizeof(beside), "aviary-agent", "agent");
		if (r < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, r,
			    "cannot find aviary-agent; name it with --agent");
		path = beside;
	}
	int r =
	    jail_load_program("aviary-agent", path, sp->o->rootless, &sp->agent_fd, &reader, err);
	return r < 0 ? r : vm_programs_load(&sp->vm, sp->o, reader, err);
}

static int open_disk(struct spawner *sp, struct av_err *err)
{
	const struct disk_config cfg = {
	    .state_dir = MOUNTS_STATE,
	    .state_name = sp->o->state_dir,
	    .mount_dir = MOUNTS_DISK,
	    .mode = sp->o->disk,
	    .rootless = sp->o->rootless,
	    .image_bytes = sp->o->disk_image_bytes,
	};
	return disk_new(&cfg, &sp->disk, err);
}

/* A child in a user namespace with the ids of slot 1, for as long as the probe takes. */
static _Noreturn void wait_for_parent(int sock)
{
	char c;
	ssize_t n = read(sock, &c, 1);
	_exit(n != 0);
}

static int with_test_userns(struct spawner *sp, int (*fn)(struct spawner *, int userns_fd))
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
	long pid = sys_clone3(&args);
	if (pid == 0) {
		close(p[1]);
		wait_for_parent(p[0]);
	}
	int r = pid < 0 ? -errno : 0;
	close(p[0]);
	struct jail j = JAIL_INIT;
	j.pid = (pid_t)pid;
	if (r == 0)
		r = jail_map(&j, &sp->ids, 1, NULL);
	if (r == 0)
		r = fn(sp, j.userns_fd);
	close(p[1]);
	if (pid > 0)
		waitpid((pid_t)pid, NULL, 0);
	av_close_fd(&j.userns_fd);
	return r;
}

static int probe_idmap(struct spawner *sp, int userns_fd)
{
	AV_CLEANUP(av_closep)
	int areas = open(disk_mode(sp->disk) == DISK_MODE_BTRFS ? MOUNTS_DISK : MOUNTS_STATE,
	    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return areas < 0 ? -errno
	                 : mounts_probe_idmap(&sp->mounts, userns_fd, areas, sp->templates.usr_fd);
}

static void open_net(struct spawner *sp)
{
	char tag[INSTANCE_TAG_SIZE];
	instance_tag(sp->o->state_dir, tag);
	if (sp->o->rootless)
		net_open_rootless(&sp->net, &sp->o->net, pasta_missing(), sp->mounts.host_root_fd);
	else
		net_open(&sp->net, &sp->o->net, tag, sp->mounts.host_root_fd, sp->mounts.proc_fd,
		    sp->mounts.run_fd);
}

/* The kernel decides, unless an option does. */
static int choose_overlay(struct spawner *sp)
{
	struct utsname u;
	unsigned int major, minor;
	if (sp->o->overlay) {
		sp->mounts.overlay = sp->o->overlay;
		return 0;
	}
	if (uname(&u) < 0)
		return -errno;
	int r = probe_parse_release(u.release, &major, &minor);
	if (r < 0)
		return r;
	enum probe_overlay by_kernel = probe_overlay_for(major, minor, true);
	sp->mounts.overlay = by_kernel == PROBE_OVERLAY_FD ? SPAWN_OVERLAY_FD
	                     : by_kernel == PROBE_OVERLAY_PATH || sp->o->rootless
	                         ? SPAWN_OVERLAY_NAMES
	                         : SPAWN_OVERLAY_SHIFTED;
	return 0;
}

static int open_all(struct spawner *sp, struct av_err *err)
{
	int r = choose_overlay(sp);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot read the kernel's version");
	int until_death; /* no child keeps it */
	r = instance_lock_worker(sp->o->state_dir, &until_death, err);
	if (r == 0)
		r = open_cgroups(sp, err);
	if (r == 0)
		r = load_programs(sp, err);
	if (r == 0)
		r = mounts_enter(&sp->mounts, sp->o, err);
	if (r == 0 && !sp->o->rootless && (r = caps_limit_worker()) < 0)
		av_err_sys(err, AV_ERR_INTERNAL, r, "cannot limit capabilities");
	bool shared = sp->mounts.overlay == SPAWN_OVERLAY_SHIFTED;
	if (r == 0 && (r = ids_init(&sp->ids, sp->o->rootless, shared,
	                   instance_number(sp->o->state_dir))) < 0)
		av_err_sys(err, AV_ERR_INTERNAL, r, "cannot set secure bits");
	if (r == 0)
		open_net(sp);
	if (r == 0 && (r = sweeper_start(&sp->sweeper)) < 0)
		av_err_sys(err, AV_ERR_INTERNAL, r, "cannot start the sweeper");
	if (r == 0)
		r = open_disk(sp, err);
	if (r == 0)
		r = template_init(&sp->templates, &sp->loop, &sp->mounts, sp->disk,
		    shared ? ids_base(&sp->ids, 1) : 0, err);
	sp->templates.unchecked = sp->o->no_checksums;
	if (r == 0 && (r = with_test_userns(sp, probe_idmap)) < 0)
		av_err_sys(err, AV_ERR_INTERNAL, r, "cannot try idmapped mounts");
	if (r == 0)
		r = sandbox_recover(sp, err);
	return r < 0 ? r : template_refresh(&sp->templates, err);
}

/* Agents inherit our score and, worse, the lowest one that they may give themselves, which only a
 * write with CAP_SYS_RESOURCE moves: no sandbox may come out of a service with a negative one as
 * something that the kernel spares. Rootless, the lower bound stays. */
static void give_up_oom_protection(void)
{
	static const char path[] = "/proc/self/oom_score_adj";
	char text[16];
	ssize_t n = av_read_file_at(AT_FDCWD, path, text, sizeof(text));
	if (n > 0 && text[0] == '-' && av_write_file_at(AT_FDCWD, path, AV_STR("0")) < 0)
		av_log(AV_LOG_WARN, "cannot reset oom_score_adj: sandboxes inherit it", NULL);
}

/* One descriptor per sandbox, and what the sandboxes themselves may open. */
static void raise_file_limit(struct spawner *sp)
{
	struct rlimit l;
	const rlim_t want = 1 << 20;
	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return;
	struct rlimit higher = {
	    .rlim_cur = AV_MAX(want, l.rlim_max), .rlim_max = AV_MAX(want, l.rlim_max)};
	sp->files_max = higher.rlim_cur;
	if (setrlimit(RLIMIT_NOFILE, &higher) == 0)
		return;
	sp->files_max = l.rlim_cur = l.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &l) < 0)
		av_log(AV_LOG_WARN, "cannot raise the limit of open files", NULL);
}

/* ---- running ---- */

static void on_connection(void *ctx, uint32_t events)
{
	struct worker *w = ctx;
	(void)events;
	client_accept(&w->sp, SPAWN_WORKER_LISTEN_FD);
}

static void on_lifeline(void *ctx, uint32_t events)
{
	struct worker *w = ctx;
	(void)events;
	loop_stop(&w->sp.loop);
}

static void stop_when_idle(void *ctx)
{
	struct worker *w = ctx;
	static const int64_t look_again_ns = 5 * AV_NS_PER_MS;
	if (!sandbox_busy(&w->sp) || av_mono_ns() > w->stop_timer.due_ns + STOP_TIMEOUT_NS)
		loop_stop(&w->sp.loop);
	else
		loop_timer_start(&w->sp.loop, &w->stop_timer, look_again_ns);
}

static void on_signal(void *ctx, uint32_t events)
{
	struct worker *w = ctx;
	struct signalfd_siginfo si;
	(void)events;
	if (read(w->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	if (w->stopping) {
		loop_stop(&w->sp.loop);
		return;
	}
	/* No new work; what is being made or removed is finished. */
	w->stopping = true;
	loop_remove(&w->sp.loop, &w->listener);
	stop_when_idle(w);
}

static void on_disk_timer(void *ctx)
{
	struct spawner *sp = ctx;
	int ms = disk_step(sp->disk, DISK_STEP_US);
	/* Requests come first: at least a turn of the loop between two steps. */
	loop_timer_start(
	    &sp->loop, &sp->disk_timer, ms < 0 ? DISK_IDLE_MS * AV_NS_PER_MS : ms * AV_NS_PER_MS);
}

static void on_net_timer(void *ctx)
{
	struct spawner *sp = ctx;
	net_refresh(&sp->net);
	loop_timer_start(&sp->loop, &sp->net_timer, NET_REFRESH_NS);
}

/* Told to systemd (vigil.h): this loop turns. */
static void on_beat_timer(void *ctx)
{
	struct worker *w = ctx;
	av_beat(SPAWN_WORKER_BEAT_FD, AV_BEAT_ALIVE);
	loop_timer_start(&w->sp.loop, &w->beat_timer, AV_BEAT_MS * AV_NS_PER_MS);
}

static int open_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static int watch_all(struct worker *w)
{
	struct loop *l = &w->sp.loop;
	w->signal_fd = open_signals();
	if (w->signal_fd < 0)
		return w->signal_fd;
	w->listener = (struct loop_source){.fd = -1, .on_ready = on_connection, .ctx = w};
	w->lifeline = (struct loop_source){.fd = -1, .on_ready = on_lifeline, .ctx = w};
	w->signals = (struct loop_source){.fd = -1, .on_ready = on_signal, .ctx = w};
	loop_timer_init(&w->stop_timer, stop_when_idle, w);
	loop_timer_init(&w->sp.disk_timer, on_disk_timer, &w->sp);
	loop_timer_start(l, &w->sp.disk_timer, AV_NS_PER_MS);
	loop_timer_init(&w->sp.net_timer, on_net_timer, &w->sp);
	loop_timer_start(l, &w->sp.net_timer, NET_REFRESH_NS);
	loop_timer_init(&w->beat_timer, on_beat_timer, w);
	if (w->sp.o->beat)
		loop_timer_start(l, &w->beat_timer, AV_NS_PER_MS);
	int r = av_set_nonblock(SPAWN_WORKER_LISTEN_FD, true);
	if (r == 0)
		r = loop_add(l, &w->listener, SPAWN_WORKER_LISTEN_FD, EPOLLIN);
	if (r == 0)
		r = loop_add(l, &w->lifeline, SPAWN_WORKER_LIFELINE_FD, EPOLLIN);
	return r < 0 ? r : loop_add(l, &w->signals, w->signal_fd, EPOLLIN);
}

static void clear(struct worker *w)
{
	client_close_all(&w->sp);
	/* An instance without sandboxes leaves no cgroups, and no rules in the host's network. */
	bool idle = w->stopping && w->sp.sandboxes.n == 0;
	if (idle && cgroups_cleanup(w->sp.cgroups, 0, NULL) < 0)
		av_log(AV_LOG_DEBUG, "the instance's cgroups stay", NULL);
	if (idle && net_leave(&w->sp.net) < 0)
		av_log(AV_LOG_DEBUG, "the instance's rules of the network stay", NULL);
	sandbox_clear(&w->sp);
	net_close(&w->sp.net);
	sweeper_stop(&w->sp.sweeper);
	exports_clear(&w->sp.exports);
	template_clear(&w->sp.templates);
	vm_programs_clear(&w->sp.vm);
	disk_free(w->sp.disk);
	confine_close(&w->sp.confine);
	cgroups_free(w->sp.cgroups);
	loop_clear(&w->sp.loop);
}

int worker_main(const struct spawn_options *o)
{
	static struct worker w;
	struct av_err err = {0};
	w.sp = (struct spawner){.o = o,
	    .mounts = MOUNTS_INIT,
	    .agent_fd = -1,
	    .vm = VM_PROGRAMS_INIT,
	    .net = NET_INIT,
	    .sweeper = {.sock = -1}};
	w.sp.templates = TEMPLATE_STORE_INIT;
	exports_init(&w.sp.exports);
	av_map_init(&w.sp.sandboxes);
	av_list_init(&w.sp.clients);
	av_list_init(&w.sp.numbered);
	if (av_set_cloexec(SPAWN_WORKER_LISTEN_FD, true) < 0 ||
	    av_set_cloexec(SPAWN_WORKER_LIFELINE_FD, true) < 0 ||
	    (o->beat && av_set_cloexec(SPAWN_WORKER_BEAT_FD, true) < 0)) {
		av_log(AV_LOG_ERROR, "--worker is for the supervisor's use", NULL);
		return SPAWN_EXIT_CONFIG;
	}
	give_up_oom_protection();
	raise_file_limit(&w.sp);
	int r = loop_init(&w.sp.loop);
	if (r == 0)
		r = open_all(&w.sp, &err);
	if (r < 0) {
		av_log(AV_LOG_ERROR, "cannot start", "error",
		    err.message[0] ? err.message : strerror(-r), NULL);
		return SPAWN_EXIT_CONFIG;
	}
	r = watch_all(&w);
	if (r == 0) {
		av_log(AV_LOG_INFO, "worker ready", "cgroups",
		    cgroup_mode_name(cgroups_mode(w.sp.cgroups)), "disk",
		    disk_mode_name(disk_mode(w.sp.disk)), NULL);
		r = loop_run(&w.sp.loop);
	}
	if (r < 0)
		av_log(AV_LOG_ERROR, "worker", "error", strerror(-r), NULL);
	clear(&w);
	return r < 0;
}
