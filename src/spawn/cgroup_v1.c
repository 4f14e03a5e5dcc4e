/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup_v1.c - one tree per controller; killing without cgroup.kill; the favordynmods mount
 *
 * Theory of operation of the favordynmods mount: moving a process takes the kernel's threadgroup
 * lock for writing, which on an idle system waits for an RCU grace period, 7 to 15 ms. While any
 * hierarchy is mounted with favordynmods (Linux 6.0 and later) the lock stays in its slow-reader,
 * fast-writer state, and the move takes 0.1 to 0.2 ms. The flag belongs to a hierarchy but its
 * effect is global, so an empty named one of our own, mounted nowhere and held by a descriptor,
 * spares us from changing the user's. It goes when the descriptor is closed.
 */
#include "spawn/cgroup_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

static void sleep_ms(int ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
	(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

static const char *weight_file(const struct cgroup_tree *t)
{
	static const char *const names[] = {"blkio.weight", "blkio.bfq.weight"};
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++)
		if (cgroup_has_file(t, ".", names[i]))
			return names[i];
	return NULL;
}

/* Which of a hierarchy's controllers are worth an attach, given what v2 already does. */
static uint32_t useful(const struct cgroups *cg, uint32_t mask)
{
	for (size_t i = 0; i < cg->n; i++)
		mask &= ~cg->tree[i].controllers;
	if (cg->caps & CGROUP_CAP_CPU_USAGE)
		mask &= ~(uint32_t)CTL_CPUACCT;
	if (cg->caps & CGROUP_CAP_FREEZE)
		mask &= ~(uint32_t)CTL_FREEZER;
	return mask;
}

static void take_caps(struct cgroups *cg, const struct cgroup_tree *t)
{
	if (t->controllers & CTL_MEMORY) {
		cg->caps |= CGROUP_CAP_MEMORY | CGROUP_CAP_OOM_EVENTS;
		cg->v1_memsw =
		    cg->read_only || cgroup_has_file(t, ".", "memory.memsw.limit_in_bytes");
		if (cg->v1_memsw)
			cg->caps |= CGROUP_CAP_SWAP;
	}
	if (t->controllers & CTL_PIDS)
		cg->caps |= CGROUP_CAP_PIDS;
	if (t->controllers & CTL_CPU)
		cg->caps |= CGROUP_CAP_CPU_WEIGHT;
	if ((t->controllers & CTL_CPU) &&
	    (cg->read_only || cgroup_has_file(t, ".", "cpu.cfs_quota_us")))
		cg->caps |= CGROUP_CAP_CPU_QUOTA;
	if (t->controllers & CTL_CPUACCT)
		cg->caps |= CGROUP_CAP_CPU_USAGE;
	if (t->controllers & CTL_FREEZER)
		cg->caps |= CGROUP_CAP_FREEZE;
	if (cg->v1_weight_file != NULL)
		cg->caps |= CGROUP_CAP_IO_WEIGHT;
}

/* systemd delegates a unit's cgroup in the trees whose controllers it uses; in the others there is
 * none, and the root is as good. */
static int open_v1_base(const char *mount, const char *below)
{
	char path[2 * CGROUP_PATH_SIZE];
	int fd = -1;
	if (below[0] && av_path_printf(path, sizeof(path), "%s%s", mount, below) == 0)
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fd = open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int open_tree_dirs(
    struct cgroups *cg, struct cgroup_tree *t, const char *path, const char *below)
{
	t->base_fd = open_v1_base(path, below);
	if (t->base_fd < 0)
		return t->base_fd;
	if (faccessat(t->base_fd, ".", W_OK, AT_EACCESS) < 0)
		return -errno;
	if (cg->read_only)
		return 0;
	if (mkdirat(t->base_fd, cg->parent, 0755) < 0 && errno != EEXIST)
		return -errno;
	t->parent_fd = openat(t->base_fd, cg->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->parent_fd < 0)
		return -errno;
	/* Kernels before 5.11 count children only when told to. */
	(void)cgroup_write(t, ".", "memory.use_hierarchy", "1");
	return 0;
}

void cgroup_v1_setup(struct cgroups *cg, const struct cgroup_layout *l)
{
	for (size_t i = 0; i < l->n_v1 && cg->n < CGROUP_TREES_MAX; i++) {
		struct cgroup_tree t = {.base_fd = -1, .parent_fd = -1};
		t.controllers = useful(cg, l->v1[i].controllers);
		if (t.controllers == 0)
			continue;
		int r = open_tree_dirs(cg, &t, l->v1[i].path, l->below);
		if (r == 0 && !cg->read_only && (t.controllers & CTL_BLKIO)) {
			cg->v1_weight_file = weight_file(&t);
			if (cg->v1_weight_file == NULL)
				t.controllers &= ~(uint32_t)CTL_BLKIO;
			if (t.controllers == 0)
				(void)unlinkat(t.base_fd, cg->parent, AT_REMOVEDIR);
		}
		if (r == 0 && !cg->read_only && (t.controllers & CTL_CPUSET) &&
		    cgroup_v1_cpuset_parent(&t) < 0) {
			t.controllers &= ~(uint32_t)CTL_CPUSET;
			if (t.controllers == 0)
				(void)unlinkat(t.base_fd, cg->parent, AT_REMOVEDIR);
		}
		if (r == 0 && !cg->read_only && (t.controllers & CTL_CPU))
			(void)cgroup_write(
			    &t, ".", "cpu.shares", "%u", CGROUP_PARENT_CPU_WEIGHT * 1024u / 100);
		/* An ordinary user is told once, not once per tree. */
		if (r < 0 && !(r == -EACCES && cg->reason[0] != 0))
			cgroup_add_reason(
			    cg, "%s cannot be used (%s)", l->v1[i].path, strerrorname_np(-r));
		if (r < 0 || t.controllers == 0) {
			av_close_fd(&t.base_fd);
			av_close_fd(&t.parent_fd);
			continue;
		}
		cg->tree[cg->n++] = t;
		take_caps(cg, &cg->tree[cg->n - 1]);
	}
}

static int limit_memory(
    struct cgroups *cg, const struct cgroup_tree *t, const char *id, unsigned long long bytes)
{
	static const char ram[] = "memory.limit_in_bytes", both[] = "memory.memsw.limit_in_bytes";
	int r = cgroup_write(t, id, ram, "%llu", bytes);
	if (!cg->v1_memsw) {
		(void)cgroup_write(t, id, "memory.swappiness", "0");
		return r;
	}
	/* The kernel wants ram <= both at every moment: when growing, both goes first. */
	if (r < 0) {
		r = cgroup_write(t, id, both, "%llu", bytes);
		return r < 0 ? r : cgroup_write(t, id, ram, "%llu", bytes);
	}
	return cgroup_write(t, id, both, "%llu", bytes);
}

int cgroup_v1_limit(struct cgroups *cg, const struct cgroup_tree *t, const char *id,
    const struct cgroup_limits *lim, struct av_err *err)
{
	int r = 0;
	const char *what = "";
	if ((t->controllers & CTL_MEMORY) && lim->memory_bytes) {
		what = "memory";
		r = limit_memory(cg, t, id, lim->memory_bytes);
	}
	if (r == 0 && (t->controllers & CTL_PIDS) && lim->pids_max)
		r = cgroup_write(t, id, what = "pids.max", "%u", lim->pids_max);
	if (r == 0 && (t->controllers & CTL_CPU) && lim->cpu_milli &&
	    (cg->caps & CGROUP_CAP_CPU_QUOTA)) {
		r = cgroup_write(
		    t, id, what = "cpu.cfs_period_us", "%u", cgroup_cpu_period_us(lim->cpu_milli));
		if (r == 0)
			r = cgroup_write(t, id, what = "cpu.cfs_quota_us", "%u",
			    cgroup_cpu_quota_us(lim->cpu_milli));
	}
	if (r == 0 && (t->controllers & CTL_CPU) && lim->cpu_weight)
		r = cgroup_write(t, id, what = "cpu.shares", "%llu",
		    AV_MAX(lim->cpu_weight * 1024ULL / 100, 2ULL));
	if (r == 0 && (t->controllers & CTL_BLKIO) && lim->io_weight) /* 10 to 1000 here */
		r = cgroup_write(t, id, what = cg->v1_weight_file, "%u",
		    lim->io_weight < 10 ? 10 : AV_MIN(lim->io_weight, 1000u));
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot set the %s limit of sandbox %s",
	                   what, id)
	             : 0;
}

void cgroup_v1_stat(const struct cgroup_tree *t, const char *id, struct cgroup_stat *st)
{
	char buf[512];
	if (t->controllers & CTL_MEMORY) {
		st->memory_current_bytes = cgroup_read_u64(t, id, "memory.usage_in_bytes");
		st->memory_peak_bytes = cgroup_read_u64(t, id, "memory.max_usage_in_bytes");
		ssize_t n = cgroup_read(t, id, "memory.oom_control", buf, sizeof(buf));
		if (n >= 0)
			st->oom_kills = cgroup_flat_key(av_str_n(buf, (size_t)n), "oom_kill");
	}
	if (t->controllers & CTL_PIDS)
		st->pids_current = cgroup_read_u64(t, id, "pids.current");
	if (t->controllers & CTL_CPUACCT)
		st->cpu_usec = cgroup_read_u64(t, id, "cpuacct.usage") / 1000;
	if ((t->controllers & CTL_FREEZER) &&
	    cgroup_read(t, id, "freezer.state", buf, sizeof(buf)) > 0)
		st->frozen = strncmp(buf, "FROZEN", 6) == 0;
}

int cgroup_v1_freeze(const struct cgroup_tree *t, const char *id, bool frozen, int timeout_ms)
{
	const char *want = frozen ? "FROZEN" : "THAWED";
	int64_t end = av_mono_ns() + timeout_ms * AV_NS_PER_MS;
	char state[32];
	for (;;) {
		/* Written again each time: a fork during freezing leaves the state at FREEZING. */
		int r = cgroup_write(t, id, "freezer.state", "%s", want);
		if (r < 0)
			return r;
		ssize_t n = cgroup_read(t, id, "freezer.state", state, sizeof(state));
		if (n < 0)
			return (int)n;
		if (strncmp(state, want, strlen(want)) == 0)
			return 0;
		if (av_mono_ns() >= end)
			break;
		sleep_ms(1);
	}
	if (frozen)
		(void)cgroup_write(t, id, "freezer.state", "THAWED");
	return -ETIMEDOUT;
}

#define BATCH 512

/* Pids of the cgroup into list; how many, at most BATCH. */
static int read_pids(const struct cgroup_tree *t, const char *id, pid_t list[static BATCH])
{
	char text[BATCH * 12];
	ssize_t n = cgroup_read(t, id, "cgroup.procs", text, sizeof(text));
	if (n == -EFBIG)
		n = (ssize_t)sizeof(text) - 1; /* the first ones; the caller comes again */
	if (n < 0)
		return (int)n;
	struct av_str rest = av_str_n(text, (size_t)n), word;
	int count = 0;
	uint64_t pid;
	while (count < BATCH && av_str_cut(&rest, '\n', &word))
		if (av_parse_u64(word, 1, INT32_MAX, &pid) == 0)
			list[count++] = (pid_t)pid;
	return count;
}

int cgroup_signal_all(const struct cgroup_tree *t, const char *id)
{
	pid_t first[BATCH], again[BATCH];
	int done = 0;
	int n = read_pids(t, id, first);
	for (int i = 0; i < n; i += 64) {
		int fds[64], m = AV_MIN(n - i, 64);
		for (int k = 0; k < m; k++)
			fds[k] = av_pidfd_open(first[i + k]);
		/* A number that is still listed after its pidfd was opened names that process, or
		 * another one of this same cgroup: never a stranger. */
		int live = read_pids(t, id, again);
		for (int k = 0; k < m; k++) {
			for (int j = 0; j < live && fds[k] >= 0; j++)
				if (again[j] == first[i + k]) {
					done += av_pidfd_send_signal(fds[k], SIGKILL) == 0;
					break;
				}
			av_close_fd(&fds[k]);
		}
	}
	return n < 0 ? n : done;
}

static int favor_mount_once(const char *name)
{
	AV_CLEANUP(av_closep) int fs = fsopen("cgroup", FSOPEN_CLOEXEC);
	if (fs < 0)
		return -errno;
	if (fsconfig(fs, FSCONFIG_SET_FLAG, "none", NULL, 0) < 0 ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "name", name, 0) < 0 ||
	    fsconfig(fs, FSCONFIG_SET_FLAG, "favordynmods", NULL, 0) < 0 ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	int fd = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

int cgroup_favor_mount(const char *name)
{
	int r = favor_mount_once(name);
	/* EBUSY: the hierarchy of a worker that just died is still being taken down, some ms. */
	for (int i = 0; i < 50 && r == -EBUSY; i++) {
		sleep_ms(2);
		r = favor_mount_once(name);
	}
	return r;
}
