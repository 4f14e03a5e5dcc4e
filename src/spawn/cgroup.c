/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup.c - the sandboxes' control groups over whatever trees there are
 *
 * Theory of operation: cgroups_new() collects up to seven trees, v2 first, each with the
 * controllers that are used in it. Every operation then walks the trees. What belongs to processes
 * rather than to a controller (kill, freeze, "is anybody in there") is done in the v2 tree when
 * there is one, and else in the v1 freezer's. Nothing is remembered per sandbox: the directories
 * are the state.
 */
#include "spawn/cgroup_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"
#include "spawn/probe.h"
#include "base/banned.h"

const char *cgroup_mode_name(enum cgroup_mode mode)
{
	static const char *const names[] = {"none", "v2", "v1", "hybrid"};
	return (size_t)mode < AV_ARRAY_LEN(names) ? names[mode] : "none";
}

void cgroup_add_reason(struct cgroups *cg, const char *fmt, ...)
{
	size_t n = strlen(cg->reason);
	va_list ap;
	if (n > 0 && n + 3 < sizeof(cg->reason))
		n += (size_t)snprintf(cg->reason + n, sizeof(cg->reason) - n, "; ");
	va_start(ap, fmt);
	(void)vsnprintf(cg->reason + n, sizeof(cg->reason) - n, fmt, ap);
	va_end(ap);
}

static bool id_ok(const char *id)
{
	size_t n = strlen(id);
	return n > 0 && n <= CGROUP_ID_MAX && id[0] != '.' && strchr(id, '/') == NULL;
}

/* "." names the parent itself. */
static int file_path(char *dst, size_t size, const char *id, const char *file)
{
	return av_path_printf(dst, size, "%s/%s", id, file);
}

int cgroup_write(
    const struct cgroup_tree *t, const char *id, const char *file, const char *fmt, ...)
{
	char path[CGROUP_ID_MAX + 48], text[64];
	va_list ap;
	int r = file_path(path, sizeof(path), id, file);
	if (r < 0)
		return r;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return av_write_file_at(t->parent_fd, path, av_str_n(text, (size_t)n));
}

ssize_t cgroup_read(
    const struct cgroup_tree *t, const char *id, const char *file, char *buf, size_t size)
{
	char path[CGROUP_ID_MAX + 48];
	int r = file_path(path, sizeof(path), id, file);
	if (r < 0)
		return r;
	AV_CLEANUP(av_closep) int fd = openat(t->parent_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = av_read_full(fd, buf, size - 1);
	if (n >= 0)
		buf[n] = 0;
	return n;
}

uint64_t cgroup_read_u64(const struct cgroup_tree *t, const char *id, const char *file)
{
	char buf[64];
	uint64_t v;
	ssize_t n = cgroup_read(t, id, file, buf, sizeof(buf));
	if (n > 0 && buf[n - 1] == '\n')
		n--;
	return n > 0 && av_parse_u64(av_str_n(buf, (size_t)n), 0, UINT64_MAX, &v) == 0 ? v : 0;
}

bool cgroup_has_file(const struct cgroup_tree *t, const char *id, const char *file)
{
	char path[CGROUP_ID_MAX + 48];
	return file_path(path, sizeof(path), id, file) == 0 &&
	       faccessat(t->parent_fd, path, F_OK, 0) == 0;
}

struct cgroup_tree *cgroup_tree_with(struct cgroups *cg, uint32_t ctl)
{
	for (size_t i = 0; i < cg->n; i++)
		if (cg->tree[i].controllers & ctl)
			return &cg->tree[i];
	return NULL;
}

struct cgroup_tree *cgroup_tree_v2(struct cgroups *cg)
{
	return cg->n > 0 && cg->tree[0].v2 ? &cg->tree[0] : NULL;
}

/* The tree in which processes are looked for, frozen and killed; NULL in mode NONE. */
static struct cgroup_tree *process_tree(struct cgroups *cg)
{
	struct cgroup_tree *t = cgroup_tree_v2(cg);
	if (t == NULL)
		t = cgroup_tree_with(cg, CTL_FREEZER);
	return t != NULL || cg->n == 0 ? t : &cg->tree[0];
}

/* Set-up */

static bool machine_has_swap(void)
{
	char buf[1024];
	ssize_t n = av_read_file_at(AT_FDCWD, "/proc/swaps", buf, sizeof(buf));
	if (n < 0)
		return n == -EFBIG;
	struct av_str s = av_str_n(buf, (size_t)n), head;
	av_str_cut(&s, '\n', &head);
	return s.n > 0;
}

static void explain_missing(struct cgroups *cg)
{
	static const struct {
		uint32_t cap;
		const char *what;
	} names[] = {
	    {CGROUP_CAP_MEMORY, "memory"},
	    {CGROUP_CAP_PIDS, "processes"},
	    {CGROUP_CAP_CPU_QUOTA, "CPU time"},
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++)
		if (!(cg->caps & names[i].cap))
			cgroup_add_reason(cg,
			    "%s cannot be limited: no such cgroup controller here", names[i].what);
	if ((cg->caps & CGROUP_CAP_MEMORY) && !(cg->caps & CGROUP_CAP_SWAP))
		cgroup_add_reason(
		    cg, "swap is not counted: boot with swapaccount=1 or switch swap off");
}

/* What a read-only look cannot see because these files exist only below the root. */
static void guess_by_version(struct cgroups *cg)
{
	struct utsname u;
	unsigned major = 0, minor = 0;
	if (cgroup_tree_v2(cg) == NULL || uname(&u) < 0 ||
	    probe_parse_release(u.release, &major, &minor) < 0)
		return;
	unsigned v = major * 1000 + minor;
	cg->caps |= v >= 5014 ? (uint32_t)CGROUP_CAP_KILL : 0;
	cg->caps |= v >= 5002 ? (uint32_t)CGROUP_CAP_FREEZE : 0;
	cg->caps |= v >= 5007 ? (uint32_t)CGROUP_CAP_CLONE_INTO : 0;
	cg->caps |= v >= 6000 ? (uint32_t)CGROUP_CAP_FAST_ATTACH : 0;
}

/* Processes are attached in the order of the trees, and killed through the first: so whatever a
 * worker that died half-way attached can be found and killed. */
static void freezer_first(struct cgroups *cg)
{
	struct cgroup_tree *t = cgroup_tree_with(cg, CTL_FREEZER);
	if (t == NULL || t == cg->tree)
		return;
	struct cgroup_tree first = *t;
	*t = cg->tree[0];
	cg->tree[0] = first;
}

static int find_below(
    const struct cgroups *cg, const char *below, struct cgroup_layout *l, struct av_err *err)
{
	char text[4096];
	struct av_str own;
	ssize_t n = av_read_file_at(AT_FDCWD, "/proc/self/cgroup", text, sizeof(text));
	if (n < 0 || !cgroup_own_path(av_str_n(text, (size_t)n), &own))
		own = AV_STR("/");
	int r = cgroup_below_path(below, own, l->below, sizeof(l->below));
	if (r == 0 && (!l->v2[0] || cgroup_v2_root_populated(cg, l))) {
		/* Those that were made before are where they are. */
		av_log(AV_LOG_WARN,
		    "the control groups of sandboxes stay at the root until none runs at a start",
		    "instead_of", l->below, NULL);
		l->below[0] = '\0';
	}
	return r < 0 ? av_err_set(err, AV_ERR_INVALID,
	                   "--cgroup: \"%s\" is no control group; give a path such as "
	                   "/system.slice/aviary-sandboxes.service, or ../aviary-sandboxes.service "
	                   "for a neighbour of the service's own",
	                   below)
	             : 0;
}

/* Its limits would silently not be there. */
static int below_missing(const struct cgroup_layout *l, struct av_err *err)
{
	(void)av_err_set(err, AV_ERR_INVALID,
	    "--cgroup: there is no control group %s: `systemctl start` the unit that makes it, or "
	    "leave the option out",
	    l->below);
	return -ENOENT;
}

static int find_trees(struct cgroups *cg, const struct cgroup_layout *l, struct av_err *err)
{
	int r = l->v2[0] ? cgroup_v2_setup(cg, l) : -ENOENT;
	if (r == -ENOENT && l->v2[0] && l->below[0])
		return below_missing(l, err);
	if (r == -EACCES || r == -EPERM || r == -EROFS)
		cgroup_add_reason(cg,
		    "no cgroup of this user may be written: start from a systemd user service with "
		    "Delegate=yes, or as root");
	else if (r < 0 && l->v2[0])
		cgroup_add_reason(cg, "%s cannot be used (%s)", l->v2, strerrorname_np(-r));
	if (cgroup_tree_v2(cg) != NULL && cg->read_only)
		guess_by_version(cg);
	if (cgroup_tree_v2(cg) == NULL || l->n_v1 > 0)
		cgroup_v1_setup(cg, l);
	bool v2 = cgroup_tree_v2(cg) != NULL;
	if (!v2)
		freezer_first(cg);
	bool v1 = cg->n > (v2 ? 1u : 0u);
	cg->mode = v1 && v2 ? CGROUP_MODE_HYBRID
	           : v2     ? CGROUP_MODE_V2
	           : v1     ? CGROUP_MODE_V1
	                    : CGROUP_MODE_NONE;
	if (cg->n == 0 && cg->reason[0] == 0)
		cgroup_add_reason(cg, "no cgroup file system is mounted: mount -t cgroup2 none "
		                      "/sys/fs/cgroup");
	return 0;
}

static void favor(struct cgroups *cg)
{
	cg->favor_fd = cgroup_favor_mount(cg->parent);
	if (cg->favor_fd >= 0)
		cg->caps |= CGROUP_CAP_FAST_ATTACH;
	else
		cgroup_add_reason(cg,
		    "creating takes some 10 ms longer: favordynmods could not be set (%s)",
		    strerrorname_np(-cg->favor_fd));
}

int cgroups_new(const struct cgroups_config *cfg, struct cgroups **ret, struct av_err *err)
{
	struct av_str tag = av_str_c(cfg->tag);
	uint64_t v;
	if (tag.n == 0 || tag.n > 16 || av_parse_hex_u64(tag, UINT64_MAX, &v) < 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "cgroup tag \"%s\" is not hexadecimal", cfg->tag);
	struct cgroups *cg = calloc(1, sizeof(*cg));
	struct cgroup_layout *l = calloc(1, sizeof(*l));
	enum { TEXT_SIZE = 1 << 20 };
	char *text = malloc(TEXT_SIZE);
	if (cg == NULL || l == NULL || text == NULL) {
		free(cg);
		free(l);
		free(text);
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory for the cgroup layout");
	}
	cg->favor_fd = -1;
	cg->read_only = cfg->read_only;
	(void)snprintf(cg->parent, sizeof(cg->parent), "aviary-%s", cfg->tag);
	(void)snprintf(cg->leaf, sizeof(cg->leaf), "aviary-%s-self", cfg->tag);
	ssize_t n = av_read_file_at(AT_FDCWD, "/proc/self/mountinfo", text, TEXT_SIZE);
	cgroup_layout_parse(av_str_n(text, n < 0 ? 0 : (size_t)n), l);
	if (cfg->ignore_v2)
		l->v2[0] = 0;
	int r = cfg->below ? find_below(cg, cfg->below, l, err) : 0;
	if (r == 0)
		r = find_trees(cg, l, err);
	free(l);
	free(text);
	if (r < 0) {
		cgroups_free(cg);
		return r;
	}
	if ((cg->caps & CGROUP_CAP_MEMORY) && !machine_has_swap())
		cg->caps |= CGROUP_CAP_SWAP;
	if (cg->n > 0)
		explain_missing(cg);
	if (cfg->fast_attach && !cg->read_only && cg->n > 0)
		favor(cg);
	*ret = cg;
	return 0;
}

void cgroups_free(struct cgroups *cg)
{
	if (cg == NULL)
		return;
	for (size_t i = 0; i < cg->n; i++) {
		/* Refused by the kernel while a sandbox is left. */
		if (!cg->read_only)
			(void)unlinkat(cg->tree[i].base_fd, cg->parent, AT_REMOVEDIR);
		av_close_fd(&cg->tree[i].base_fd);
		av_close_fd(&cg->tree[i].parent_fd);
	}
	av_close_fd(&cg->favor_fd);
	free(cg);
}

enum cgroup_mode cgroups_mode(const struct cgroups *cg)
{
	return cg->mode;
}

uint32_t cgroups_caps(const struct cgroups *cg)
{
	return cg->caps;
}

const char *cgroups_reason(const struct cgroups *cg)
{
	return cg->reason;
}

/* One sandbox */

static int set_limits(
    struct cgroups *cg, const char *id, const struct cgroup_limits *lim, struct av_err *err)
{
	for (size_t i = 0; i < cg->n; i++) {
		const struct cgroup_tree *t = &cg->tree[i];
		int r = t->v2 ? cgroup_v2_limit(cg, t, id, lim, err)
		              : cgroup_v1_limit(cg, t, id, lim, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int cgroups_set_limits(
    struct cgroups *cg, const char *id, const struct cgroup_limits *limits, struct av_err *err)
{
	return id_ok(id) ? set_limits(cg, id, limits, err)
	                 : av_err_set(err, AV_ERR_INVALID, "bad sandbox id");
}

int cgroups_create(
    struct cgroups *cg, const char *id, const struct cgroup_limits *limits, struct av_err *err)
{
	size_t made = 0;
	int r = 0;
	if (!id_ok(id) || cg->read_only)
		return av_err_set(err, AV_ERR_INVALID, "bad sandbox id");
	for (; made < cg->n; made++) {
		if (mkdirat(cg->tree[made].parent_fd, id, 0755) < 0) {
			r = errno == EEXIST ? av_err_set(err, AV_ERR_CONFLICT,
			                          "sandbox %s has a cgroup already", id)
			                    : av_err_sys(err, AV_ERR_INTERNAL, errno,
			                          "cannot make the cgroup of sandbox %s", id);
			break;
		}
		if (av_failpoint("cgroup_made")) {
			made++;
			r = av_err_set(err, AV_ERR_INTERNAL, "failpoint cgroup_made");
			break;
		}
	}
	if (r == 0)
		r = set_limits(cg, id, limits, err);
	if (r == 0)
		return 0;
	while (made-- > 0)
		(void)unlinkat(cg->tree[made].parent_fd, id, AT_REMOVEDIR);
	return r;
}

int cgroups_clone_fd(struct cgroups *cg, const char *id, int *ret_fd)
{
	const struct cgroup_tree *t = cgroup_tree_v2(cg);
	if (!id_ok(id))
		return -EINVAL;
	if (t == NULL)
		return -EOPNOTSUPP;
	int fd = openat(t->parent_fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int cgroups_attach(struct cgroups *cg, const char *id, pid_t pid, bool in_v2, struct av_err *err)
{
	if (!id_ok(id))
		return av_err_set(err, AV_ERR_INVALID, "bad sandbox id");
	for (size_t i = 0; i < cg->n; i++) {
		if (cg->tree[i].v2 && in_v2)
			continue;
		int r = cgroup_write(&cg->tree[i], id, "cgroup.procs", "%d", (int)pid);
		/* A root without CAP_SYS_NICE: it is not confined then, which is no limit. */
		if (r == -EPERM && cg->tree[i].controllers == CTL_CPUSET)
			continue;
		if (r < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, r,
			    "cannot put process %d into the cgroup of sandbox %s", (int)pid, id);
	}
	return 0;
}

bool cgroups_exists(struct cgroups *cg, const char *id)
{
	for (size_t i = 0; id_ok(id) && i < cg->n; i++)
		if (cg->tree[i].parent_fd >= 0 &&
		    faccessat(cg->tree[i].parent_fd, id, F_OK, 0) == 0)
			return true;
	return false;
}

/* Without cgroup.kill: nothing forks while frozen, so that one pass gets all. The v1 freezer lets
 * them die only when thawed. Repeated for what appeared before the freeze took hold. */
static int kill_by_signals(struct cgroups *cg, const struct cgroup_tree *t, const char *id)
{
	int n = 0;
	for (int round = 0; round < 100; round++) {
		(void)cgroups_freeze(cg, id, true, 20, NULL);
		n = cgroup_signal_all(t, id);
		(void)cgroups_freeze(cg, id, false, 20, NULL);
		if (n <= 0 || cgroups_wait_empty(cg, id, 2) == 0)
			break;
	}
	return n < 0 && n != -ENOENT ? n : 0;
}

int cgroups_kill(struct cgroups *cg, const char *id)
{
	const struct cgroup_tree *t = process_tree(cg);
	int r = 0;
	if (!id_ok(id))
		return -EINVAL;
	if (t == NULL)
		return 0;
	if (t->v2 && (cg->caps & CGROUP_CAP_KILL)) {
		r = cgroup_write(t, id, "cgroup.kill", "1");
		/* ENODEV: removed between open and write. */
		r = r == -ENOENT || r == -ENODEV ? 0 : r;
	} else {
		r = kill_by_signals(cg, t, id);
	}
	return r;
}

static int wait_procs_empty(const struct cgroup_tree *t, const char *id, int timeout_ms)
{
	int64_t end = av_mono_ns() + timeout_ms * AV_NS_PER_MS;
	char c[16];
	for (;;) {
		ssize_t n = cgroup_read(t, id, "cgroup.procs", c, sizeof(c));
		if (n <= 0)
			return n == -ENOENT || n == -ENODEV ? 0 : (int)n;
		if (av_mono_ns() >= end)
			return -ETIMEDOUT;
		struct timespec ts = {.tv_nsec = 500000};
		(void)nanosleep(&ts, NULL);
	}
}

int cgroups_wait_empty(struct cgroups *cg, const char *id, int timeout_ms)
{
	const struct cgroup_tree *t = process_tree(cg);
	if (!id_ok(id))
		return -EINVAL;
	if (t == NULL)
		return 0;
	if (!t->v2)
		return wait_procs_empty(t, id, timeout_ms);
	int r = cgroup_v2_wait(t, id, "populated", 0, timeout_ms);
	return r == -ENOENT || r == -ENODEV ? 0 : r;
}

int cgroups_freeze(
    struct cgroups *cg, const char *id, bool frozen, int timeout_ms, struct av_err *err)
{
	const struct cgroup_tree *t = process_tree(cg);
	if (!id_ok(id))
		return av_err_set(err, AV_ERR_INVALID, "bad sandbox id");
	if (t == NULL || !(cg->caps & CGROUP_CAP_FREEZE)) {
		(void)av_err_set(err, AV_ERR_UNSUPPORTED, "sandboxes cannot be paused here: %s",
		    cg->reason[0] ? cg->reason : "no freezer");
		return -EOPNOTSUPP;
	}
	int r = t->v2 ? cgroup_v2_freeze(t, id, frozen, timeout_ms)
	              : cgroup_v1_freeze(t, id, frozen, timeout_ms);
	if (r < 0)
		(void)av_err_sys(err, AV_ERR_INTERNAL, r, "cannot %s sandbox %s",
		    frozen ? "pause" : "resume", id);
	return r;
}

int cgroups_stat(struct cgroups *cg, const char *id, struct cgroup_stat *ret)
{
	struct cgroup_stat st = {0};
	if (!id_ok(id))
		return -EINVAL;
	if (!cgroups_exists(cg, id))
		return -ENOENT;
	for (size_t i = 0; i < cg->n; i++) {
		if (cg->tree[i].v2)
			cgroup_v2_stat(&cg->tree[i], id, &st);
		else
			cgroup_v1_stat(&cg->tree[i], id, &st);
	}
	if (cgroup_tree_v2(cg) == NULL)
		st.populated = cgroups_wait_empty(cg, id, 0) == -ETIMEDOUT;
	*ret = st;
	return 0;
}

int cgroups_remove(struct cgroups *cg, const char *id, int timeout_ms)
{
	int64_t end = av_mono_ns() + timeout_ms * AV_NS_PER_MS;
	if (!id_ok(id))
		return -EINVAL;
	for (;;) {
		int r = 0;
		for (size_t i = cg->n; i-- > 0;) {
			(void)av_failpoint("cgroup_remove");
			if (unlinkat(cg->tree[i].parent_fd, id, AT_REMOVEDIR) < 0 &&
			    errno != ENOENT && r != -EBUSY)
				r = -errno;
		}
		if (r != -EBUSY || av_mono_ns() >= end)
			return r;
		struct timespec ts = {.tv_nsec = 500000};
		(void)nanosleep(&ts, NULL);
	}
}

/* All sandboxes */

static bool in_earlier_tree(struct cgroups *cg, size_t before, const char *id)
{
	for (size_t i = 0; i < before; i++)
		if (faccessat(cg->tree[i].parent_fd, id, F_OK, 0) == 0)
			return true;
	return false;
}

int cgroups_list(struct cgroups *cg, int (*on_id)(void *ctx, const char *id), void *ctx)
{
	int r = 0;
	for (size_t i = cg->n; i-- > 0 && r == 0;) {
		if (cg->tree[i].parent_fd < 0)
			continue;
		int fd = openat(cg->tree[i].parent_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		DIR *dir = fd < 0 ? NULL : fdopendir(fd);
		if (dir == NULL) {
			r = -errno;
			av_close_fd(&fd);
			return r;
		}
		/* Last tree first, each id reported from the first tree it is in: removing the
		 * reported one cannot make it show up again. */
		for (struct dirent *e; r == 0 && (e = readdir(dir)) != NULL;)
			if (e->d_type == DT_DIR && id_ok(e->d_name) &&
			    !in_earlier_tree(cg, i, e->d_name))
				r = on_id(ctx, e->d_name);
		closedir(dir);
	}
	return r;
}

struct cleanup {
	struct cgroups *cg;
	int timeout_ms;
	int result;
};

static int cleanup_one(void *ctx, const char *id)
{
	struct cleanup *c = ctx;
	int r = cgroups_kill(c->cg, id);
	if (c->cg->caps & CGROUP_CAP_FREEZE)
		(void)cgroups_freeze(c->cg, id, false, 0, NULL);
	if (r == 0)
		r = cgroups_wait_empty(c->cg, id, c->timeout_ms);
	if (r == 0)
		r = cgroups_remove(c->cg, id, c->timeout_ms);
	if (r < 0)
		c->result = r;
	return 0;
}

int cgroups_cleanup(struct cgroups *cg, int timeout_ms, struct av_err *err)
{
	struct cleanup c = {.cg = cg, .timeout_ms = timeout_ms};
	int r = cgroups_list(cg, cleanup_one, &c);
	for (size_t i = 0; i < cg->n; i++) {
		if (unlinkat(cg->tree[i].base_fd, cg->parent, AT_REMOVEDIR) < 0 && errno != ENOENT)
			r = -errno;
		/* We may still sit in the leaf ourselves; it goes with the service then. */
		if (cg->tree[i].v2)
			(void)unlinkat(cg->tree[i].base_fd, cg->leaf, AT_REMOVEDIR);
	}
	if (c.result < 0)
		r = c.result;
	return r < 0
	           ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot remove the cgroups %s", cg->parent)
	           : 0;
}

int cgroups_measure_attach(struct cgroups *cg, int64_t *ret_ns, struct av_err *err)
{
	const char *id = "measure";
	int gate[2];
	int r = cgroups_create(cg, id, &(struct cgroup_limits){0}, err);
	if (r < 0)
		return r;
	if (pipe2(gate, O_CLOEXEC) < 0) {
		(void)cgroups_remove(cg, id, 0);
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make a pipe");
	}
	pid_t pid = fork();
	if (pid == 0) {
		char c;
		close(gate[1]);
		_exit(read(gate[0], &c, 1) < 0);
	}
	close(gate[0]);
	if (pid < 0) {
		r = av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot fork");
	} else {
		int64_t start = av_mono_ns();
		r = cgroups_attach(cg, id, pid, false, err);
		if (r == 0)
			*ret_ns = av_mono_ns() - start;
	}
	close(gate[1]);
	if (pid > 0)
		(void)waitpid(pid, NULL, 0);
	(void)cgroups_remove(cg, id, 200);
	return r;
}
