/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup_v2.c - the unified tree: with controllers, or as the hybrid's tree of processes only
 *
 * Theory of operation: controllers must be enabled in the base's and in the parent's
 * cgroup.subtree_control. Only the true root of the tree may do that while it holds processes. In
 * any other base (a container's, or a subtree that systemd delegated to a user) all processes first
 * move into a leaf of ours beside the parent. A worker that starts again finds itself in that leaf,
 * and takes the directory above it as its base.
 */
#include "spawn/cgroup_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/log.h"
#include "base/path.h"
#include "base/banned.h"

#define WANTED_MAX 5
static const struct {
	const char *name;
	uint32_t ctl;
} wanted[WANTED_MAX] = {
    {"memory", CTL_MEMORY},
    {"pids", CTL_PIDS},
    {"cpu", CTL_CPU},
    {"io", CTL_BLKIO},
    {"cpuset", CTL_CPUSET},
};

/* Controllers listed in a control file of the directory. */
static uint32_t read_controllers(int dirfd, const char *file)
{
	char buf[256];
	ssize_t n = av_read_file_at(dirfd, file, buf, sizeof(buf));
	return n < 0 ? 0 : cgroup_v2_controllers(av_str_n(buf, (size_t)n));
}

static int enable(int dirfd)
{
	uint32_t have = read_controllers(dirfd, "cgroup.controllers");
	uint32_t on = read_controllers(dirfd, "cgroup.subtree_control");
	int r = 0;
	for (size_t i = 0; i < WANTED_MAX; i++) {
		if (!(have & wanted[i].ctl) || (on & wanted[i].ctl))
			continue;
		char word[16];
		int n = snprintf(word, sizeof(word), "+%s", wanted[i].name);
		int q =
		    av_write_file_at(dirfd, "cgroup.subtree_control", av_str_n(word, (size_t)n));
		if (q < 0 && r == 0)
			r = q;
	}
	return r;
}

/* Whether something is to be enabled that the directory's own processes are in the way of. The
 * kernel would let pids and cpu through and refuse only memory and io; but then the directory is
 * the root of a threaded subtree, and no process may enter its children any more. */
static bool must_move_first(int dirfd)
{
	uint32_t have = read_controllers(dirfd, "cgroup.controllers");
	uint32_t on = read_controllers(dirfd, "cgroup.subtree_control");
	/* Only the true root of the tree has no such file. */
	return (have & ~on) != 0 && faccessat(dirfd, "cgroup.type", F_OK, 0) == 0;
}

/* Moves every process of the directory into its child `leaf`. New ones may appear meanwhile. */
static int move_processes(int dirfd, const char *leaf)
{
	char to[64], list[16384];
	if (mkdirat(dirfd, leaf, 0755) < 0 && errno != EEXIST)
		return -errno;
	int r = av_path_printf(to, sizeof(to), "%s/cgroup.procs", leaf);
	if (r < 0)
		return r;
	for (int round = 0; round < 8; round++) {
		ssize_t n = av_read_file_at(dirfd, "cgroup.procs", list, sizeof(list));
		if (n <= 0)
			return (int)n;
		struct av_str rest = av_str_n(list, (size_t)n), pid;
		while (rest.n > 0) {
			av_str_cut(&rest, '\n', &pid);
			r = pid.n ? av_write_file_at(dirfd, to, pid) : 0;
			if (r < 0 && r != -ESRCH)
				return r;
		}
	}
	return 0;
}

static int open_in_tree(const struct cgroup_layout *l, struct av_str path)
{
	char full[2 * CGROUP_PATH_SIZE];
	struct av_str root = av_str_c(l->v2_root);
	if (root.n > 1) {
		if (!av_str_starts(path, root))
			return -EXDEV;
		path = av_str_n(path.p + root.n, path.n - root.n);
	}
	int r = av_path_printf(full, sizeof(full), "%s%.*s", l->v2, AV_STR_ARG(path));
	if (r < 0)
		return r;
	int fd = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

bool cgroup_v2_root_populated(const struct cgroups *cg, const struct cgroup_layout *l)
{
	char path[2 * CGROUP_PATH_SIZE], text[256];
	ssize_t n = av_path_printf(path, sizeof(path), "%s/%s/cgroup.events", l->v2, cg->parent);
	if (n == 0)
		n = av_read_file_at(AT_FDCWD, path, text, sizeof(text));
	return n > 0 && cgroup_flat_key(av_str_n(text, (size_t)n), "populated") != 0;
}

/* The directory to build in: the one that was asked for; or the root of what is mounted if we may
 * write there, else our own. */
static int open_base(const struct cgroups *cg, const struct cgroup_layout *l)
{
	if (l->below[0])
		return open_in_tree(l, av_str_c(l->below));
	int fd = open(l->v2, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || faccessat(fd, ".", W_OK, AT_EACCESS) == 0)
		return fd < 0 ? -errno : fd;
	close(fd);
	char text[2048];
	struct av_str own;
	ssize_t n = av_read_file_at(AT_FDCWD, "/proc/self/cgroup", text, sizeof(text));
	if (n < 0 || !cgroup_v2_own_path(av_str_n(text, (size_t)n), &own))
		return -ENOENT;
	if (av_str_eq_c(av_path_base(own), cg->leaf))
		own = av_path_dir(own);
	fd = open_in_tree(l, own);
	if (fd >= 0 && faccessat(fd, ".", W_OK, AT_EACCESS) < 0) {
		close(fd);
		return -EACCES;
	}
	return fd;
}

static bool is_delegated_right(int base_fd)
{
	return faccessat(base_fd, "cgroup.procs", W_OK, AT_EACCESS) == 0 &&
	       faccessat(base_fd, "cgroup.subtree_control", W_OK, AT_EACCESS) == 0;
}

static void take_caps(struct cgroups *cg, struct cgroup_tree *t)
{
	cg->caps |= CGROUP_CAP_CPU_USAGE; /* cpu.stat is there without any controller */
	if (t->controllers & CTL_MEMORY) {
		cg->caps |= CGROUP_CAP_MEMORY | CGROUP_CAP_OOM_EVENTS;
		cg->v2_swap = cg->read_only || cgroup_has_file(t, ".", "memory.swap.max");
		if (cg->v2_swap)
			cg->caps |= CGROUP_CAP_SWAP;
	}
	if (t->controllers & CTL_PIDS)
		cg->caps |= CGROUP_CAP_PIDS;
	if (t->controllers & CTL_CPU)
		cg->caps |= CGROUP_CAP_CPU_QUOTA | CGROUP_CAP_CPU_WEIGHT;
	if (cg->read_only)
		return; /* cgroups_new() guesses the rest from the kernel's version */
	if ((t->controllers & CTL_BLKIO) && cgroup_has_file(t, ".", "io.weight"))
		cg->caps |= CGROUP_CAP_IO_WEIGHT;
	if (cgroup_has_file(t, ".", "cgroup.freeze"))
		cg->caps |= CGROUP_CAP_FREEZE;
	if (cgroup_has_file(t, ".", "cgroup.kill"))
		cg->caps |= CGROUP_CAP_KILL;
	cg->caps |= CGROUP_CAP_CLONE_INTO;
}

/* The daemon, where it is in the leaf, has what the sandboxes beside it have together. */
static void weigh_leaf(const struct cgroups *cg, const struct cgroup_tree *t)
{
	char path[CGROUP_PATH_SIZE], text[16];
	int n = snprintf(text, sizeof(text), "%u", CGROUP_PARENT_CPU_WEIGHT);
	int r = av_path_printf(path, sizeof(path), "%s/cpu.weight", cg->leaf);
	if (r == 0)
		r = av_write_file_at(t->base_fd, path, av_str_n(text, (size_t)n));
	if (r < 0 && r != -ENOENT) /* no leaf */
		av_log(
		    AV_LOG_DEBUG, "cannot weigh the daemon's cgroup", "error", strerror(-r), NULL);
}

/* Makes the parent and enables what the base has. The tree's descriptors are set already. */
static int make_parent(struct cgroups *cg, struct cgroup_tree *t)
{
	int r = 0;
	if (read_controllers(t->base_fd, "cgroup.controllers") != 0) {
		if (must_move_first(t->base_fd))
			r = move_processes(t->base_fd, cg->leaf);
		if (r == 0)
			r = enable(t->base_fd);
		if (r < 0)
			cgroup_add_reason(cg, "not every cgroup controller could be enabled (%s)",
			    strerrorname_np(-r));
	}
	if (mkdirat(t->base_fd, cg->parent, 0755) < 0 && errno != EEXIST)
		return -errno;
	av_failpoint("cgroup_parent_made");
	t->parent_fd = openat(t->base_fd, cg->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->parent_fd < 0)
		return -errno;
	(void)cgroup_write(t, ".", "cpu.weight", "%u", CGROUP_PARENT_CPU_WEIGHT);
	weigh_leaf(cg, t);
	(void)enable(t->parent_fd);
	t->controllers = read_controllers(t->parent_fd, "cgroup.subtree_control");
	return 0;
}

int cgroup_v2_setup(struct cgroups *cg, const struct cgroup_layout *l)
{
	struct cgroup_tree t = {.v2 = true, .base_fd = -1, .parent_fd = -1};
	t.base_fd = open_base(cg, l);
	if (t.base_fd < 0)
		return t.base_fd;
	int r = 0;
	if (cg->read_only)
		t.controllers = read_controllers(t.base_fd, "cgroup.controllers");
	else if (!is_delegated_right(t.base_fd))
		r = -EACCES;
	else
		r = make_parent(cg, &t);
	if (r < 0) {
		av_close_fd(&t.base_fd);
		av_close_fd(&t.parent_fd);
		return r;
	}
	cg->tree[cg->n++] = t;
	take_caps(cg, &cg->tree[cg->n - 1]);
	return 0;
}

int cgroup_v2_limit(struct cgroups *cg, const struct cgroup_tree *t, const char *id,
    const struct cgroup_limits *lim, struct av_err *err)
{
	int r = 0;
	const char *file = "";
	if ((t->controllers & CTL_MEMORY) && lim->memory_bytes) {
		file = "memory.max";
		r = cgroup_write(t, id, file, "%llu", (unsigned long long)lim->memory_bytes);
		/* No swap at all keeps memory + swap within memory. */
		if (r == 0 && cg->v2_swap)
			r = cgroup_write(t, id, file = "memory.swap.max", "0");
	}
	if (r == 0 && (t->controllers & CTL_PIDS) && lim->pids_max)
		r = cgroup_write(t, id, file = "pids.max", "%u", lim->pids_max);
	if (r == 0 && (t->controllers & CTL_CPU) && lim->cpu_milli)
		r = cgroup_write(t, id, file = "cpu.max", "%u %u",
		    cgroup_cpu_quota_us(lim->cpu_milli), cgroup_cpu_period_us(lim->cpu_milli));
	if (r == 0 && (t->controllers & CTL_CPU) && lim->cpu_weight)
		r = cgroup_write(t, id, file = "cpu.weight", "%u", lim->cpu_weight);
	if (r == 0 && (cg->caps & CGROUP_CAP_IO_WEIGHT) && lim->io_weight &&
	    (t->controllers & CTL_BLKIO))
		r = cgroup_write(t, id, file = "io.weight", "%u", lim->io_weight);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot set %s of sandbox %s", file, id)
	             : 0;
}

void cgroup_v2_stat(const struct cgroup_tree *t, const char *id, struct cgroup_stat *st)
{
	char buf[4096];
	ssize_t n = cgroup_read(t, id, "cgroup.events", buf, sizeof(buf));
	if (n >= 0) {
		struct av_str s = av_str_n(buf, (size_t)n);
		st->populated = cgroup_flat_key(s, "populated") != 0;
		st->frozen = cgroup_flat_key(s, "frozen") != 0;
	}
	n = cgroup_read(t, id, "cpu.stat", buf, sizeof(buf));
	if (n >= 0)
		st->cpu_usec = cgroup_flat_key(av_str_n(buf, (size_t)n), "usage_usec");
	if (t->controllers & CTL_MEMORY) {
		st->memory_current_bytes = cgroup_read_u64(t, id, "memory.current");
		st->memory_peak_bytes = cgroup_read_u64(t, id, "memory.peak");
		n = cgroup_read(t, id, "memory.events", buf, sizeof(buf));
		if (n >= 0)
			st->oom_kills = cgroup_flat_key(av_str_n(buf, (size_t)n), "oom_kill");
	}
	if (t->controllers & CTL_PIDS)
		st->pids_current = cgroup_read_u64(t, id, "pids.current");
}

int cgroup_v2_wait(
    const struct cgroup_tree *t, const char *id, const char *key, uint64_t want, int timeout_ms)
{
	char path[CGROUP_ID_MAX + 32], buf[256];
	int r = av_path_printf(path, sizeof(path), "%s/cgroup.events", id);
	if (r < 0)
		return r;
	AV_CLEANUP(av_closep) int fd = openat(t->parent_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int64_t end = av_mono_ns() + timeout_ms * AV_NS_PER_MS;
	for (;;) {
		ssize_t n = pread(fd, buf, sizeof(buf), 0);
		if (n < 0)
			return -errno; /* ENODEV: removed meanwhile */
		if (cgroup_flat_key(av_str_n(buf, (size_t)n), key) == want)
			return 0;
		int64_t left = end - av_mono_ns();
		if (left <= 0)
			return -ETIMEDOUT;
		struct pollfd p = {.fd = fd, .events = POLLPRI};
		if (poll(&p, 1, (int)(left / AV_NS_PER_MS) + 1) < 0 && errno != EINTR)
			return -errno;
	}
}

int cgroup_v2_freeze(const struct cgroup_tree *t, const char *id, bool frozen, int timeout_ms)
{
	int r = cgroup_write(t, id, "cgroup.freeze", "%d", frozen);
	if (r == 0)
		r = cgroup_v2_wait(t, id, "frozen", frozen, timeout_ms);
	if (r == -ETIMEDOUT && frozen)
		(void)cgroup_write(t, id, "cgroup.freeze", "0");
	return r;
}
