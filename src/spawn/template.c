/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template.c - layers of templates for the worker: host, empty, and stacks of kept ones
 */
#include "spawn/template.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/banned.h"

#define CHECK_EVERY_NS AV_NS_PER_S

static int check_host(struct template_store *t, struct av_err *err);

static int reopen_host(struct template_store *t, struct av_err *err)
{
	struct host_template fresh = HOST_TEMPLATE_INIT;
	int r = host_template_open(t->mounts->state_fd, &fresh, err);
	if (r < 0)
		return r;
	host_template_clear(&t->host);
	t->host = fresh;
	return 0;
}

/* A root file system with nothing in it but the places where things get mounted. */
static int make_empty(struct template_store *t, int dir)
{
	static const char *const dirs[] = {"dev", "proc", "sys", "run", "tmp", "usr", "etc"};
	for (size_t i = 0; i < AV_ARRAY_LEN(dirs); i++) {
		mode_t mode = strcmp(dirs[i], "tmp") == 0 ? 01777 : 0755;
		if (mkdirat(dir, dirs[i], mode) < 0 && errno != EEXIST)
			return -errno;
		if (!t->mounts->rootless &&
		    fchownat(dir, dirs[i], t->id_base, t->id_base, AT_SYMLINK_NOFOLLOW) < 0)
			return -errno;
	}
	return !t->mounts->rootless && fchown(dir, t->id_base, t->id_base) < 0 ? -errno : 0;
}

static int open_empty(struct template_store *t)
{
	if (mkdirat(t->dir_fd, TEMPLATE_ID_EMPTY, 0755) < 0 && errno != EEXIST)
		return -errno;
	AV_CLEANUP(av_closep)
	int fd = layer_open(t->dir_fd, TEMPLATE_ID_EMPTY, O_RDONLY | O_DIRECTORY);
	int r = fd < 0 ? fd : make_empty(t, fd);
	if (r == 0)
		t->empty_fd = AV_TAKE_FD(fd);
	return r;
}

int template_init(struct template_store *t, struct loop *loop, const struct mounts *m,
    struct disk *disk, uid_t id_shift, struct av_err *err)
{
	*t = TEMPLATE_STORE_INIT;
	t->loop = loop;
	t->mounts = m;
	t->disk = disk;
	t->id_base = id_shift;
	t->host_options =
	    (struct host_template_options){.rootless = m->rootless, .id_shift = id_shift};
	t->maker.fd = -1;
	av_list_init(&t->waiters);
	av_list_init(&t->kept);
	t->usr_fd = open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->usr_fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open /usr");
	t->dir_fd = openat(m->state_fd, "templates", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = t->dir_fd < 0 ? -errno : open_empty(t);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot open the templates");
	template_sweep(t);
	/* None yet is fine; the first look will tell whether it still fits the machine. */
	r = reopen_host(t, err);
	return r == -ENOENT ? 0 : r;
}

int template_refresh(struct template_store *t, struct av_err *err)
{
	int r = check_host(t, err);
	return r == -EAGAIN ? 0 : r;
}

void template_clear(struct template_store *t)
{
	if (t->maker_pidfd >= 0)
		loop_remove(t->loop, &t->maker);
	template_kept_clear(t);
	av_close_fd(&t->maker_pidfd);
	av_close_fd(&t->usr_fd);
	av_close_fd(&t->empty_fd);
	av_close_fd(&t->dir_fd);
	host_template_clear(&t->host);
}

static void maker_ended(void *ctx, uint32_t events)
{
	struct template_store *t = ctx;
	siginfo_t si = {0};
	(void)events;
	int r = waitid(P_PIDFD, (id_t)t->maker_pidfd, &si, WEXITED) < 0 ? -errno : 0;
	if (r == 0 && (si.si_code != CLD_EXITED || si.si_status != 0))
		r = -EIO;
	loop_remove(t->loop, &t->maker);
	av_close_fd(&t->maker_pidfd);
	struct av_err err = {0};
	if (r == 0)
		r = reopen_host(t, &err);
	if (r < 0) {
		av_log(AV_LOG_ERROR, "cannot make a new generation of template host", "error",
		    err.message, NULL);
		av_err_sys(&err, AV_ERR_INTERNAL, r, "template host could not be made again");
	} else {
		char ms[24];
		int64_t took_ms = (av_mono_ns() - t->maker_since_ns) / AV_NS_PER_MS;
		snprintf(ms, sizeof(ms), "%" PRId64, took_ms);
		av_log(AV_LOG_INFO, "made template host", "ms", ms, NULL);
	}
	t->checked_ns = av_mono_ns();
	struct template_waiter *w;
	while ((w = AV_LIST_FIRST(&t->waiters, struct template_waiter, node))) {
		av_list_remove(&w->node);
		w->on_made(w->ctx, r, &err);
	}
}

static int start_maker(struct template_store *t)
{
	pid_t parent = getpid(), pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		struct av_err err = {0};
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		if (getppid() != parent)
			_exit(1);
		int r = host_template_make(
		    t->mounts->host_root_fd, t->mounts->state_fd, &t->host_options, &err);
		if (r < 0)
			av_log(AV_LOG_ERROR, "template host", "error", err.message, NULL);
		_exit(r < 0);
	}
	t->maker_since_ns = av_mono_ns();
	t->maker_pidfd = av_pidfd_open(pid);
	if (t->maker_pidfd < 0)
		return t->maker_pidfd;
	t->maker = (struct loop_source){.fd = -1, .on_ready = maker_ended, .ctx = t};
	return loop_add(t->loop, &t->maker, t->maker_pidfd, EPOLLIN);
}

/* Whether the host is still what the generation was made from. */
static int check_host(struct template_store *t, struct av_err *err)
{
	if (t->maker_pidfd >= 0)
		return -EAGAIN;
	int64_t now = av_mono_ns();
	bool is_open = t->host.root_fd >= 0;
	if (is_open && t->checked_ns && now - t->checked_ns < CHECK_EVERY_NS)
		return 0;
	char fp[HOST_TEMPLATE_FP_SIZE];
	int r = host_template_fingerprint(t->mounts->host_root_fd, fp);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot look at the host's files");
	t->checked_ns = now;
	if (is_open && !strcmp(fp, t->host.fingerprint))
		return 0;
	av_log(AV_LOG_INFO,
	    is_open ? "the host's programs changed: making template host again"
	            : "making template host",
	    NULL);
	r = start_maker(t);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot make template host") : -EAGAIN;
}

static int add_host(struct template_store *t, struct template_layers *l, struct av_err *err)
{
	int r = check_host(t, err);
	if (r == -EAGAIN)
		l->pending = &t->waiters;
	if (r < 0)
		return r;
	l->root.fd[l->root.n++] = t->host.root_fd;
	l->usr.fd[l->usr.n++] = t->host.usr_mask_fd;
	l->usr.fd[l->usr.n++] = t->usr_fd;
	l->has_usr = true;
	return 0;
}

static void add_empty(struct template_store *t, struct template_layers *l)
{
	l->root.fd[l->root.n++] = t->empty_fd;
}

/* The host moved on under a snapshot that was made on it. */
static int check_fits(
    struct template_store *t, const char *id, const struct template_meta *m, struct av_err *err)
{
	if (strcmp(m->host_fingerprint, t->host.fingerprint) == 0)
		return 0;
	(void)av_err_set(err, AV_ERR_INVALID_STATE,
	    "template %s stands on this machine's own programs, which were changed since it was "
	    "made: build the template base (`aviary template build base`) and make it again on "
	    "that",
	    id);
	return -ESTALE;
}

static int add_bottom(struct template_store *t, const char *id, const struct template_meta *bottom,
    struct template_layers *l, struct av_err *err)
{
	if (!(bottom->flags & (TEMPLATE_ON_HOST | TEMPLATE_VM))) {
		add_empty(t, l);
		return 0;
	}
	l->is_vm = bottom->flags & TEMPLATE_VM;
	int r = add_host(t, l, err);
	return r < 0 || l->is_vm ? r : check_fits(t, id, bottom, err);
}

static void find_image(struct template_layers *l, const struct template_meta *m)
{
	struct template_image *i = &l->image;
	if (i->id[0] || !(m->flags & TEMPLATE_VM_IMAGE))
		return;
	memcpy(i->id, m->id, sizeof(i->id));
	memcpy(i->seal, m->identity, sizeof(i->seal));
	i->depth = m->depth;
}

static int add_kept(struct template_store *t, const char *id,
    const uint8_t seal[static LAYER_HASH_SIZE], struct template_layers *l, struct av_err *err)
{
	const struct template_kept *k = NULL;
	struct template_meta bottom = {0};
	char next[TEMPLATE_ID_SIZE];
	uint8_t next_seal[LAYER_HASH_SIZE];
	memcpy(next_seal, seal, sizeof(next_seal));
	if (av_str_copy(next, sizeof(next), av_str_c(id)) < 0)
		return -ENOENT;
	while (template_id_ok(next)) {
		if (l->root.n == TEMPLATE_DEPTH_MAX)
			return av_err_set(
			    err, AV_ERR_INTERNAL, "template %s has too many layers", id);
		int r = template_kept_get(t, next, next_seal, &k, &l->pending, err);
		if (r < 0)
			return r;
		if (l->root.n == 0)
			memcpy(l->seal, k->meta.identity, sizeof(l->seal));
		l->root.fd[l->root.n++] = k->root_fd;
		if (k->usr_fd >= 0)
			l->usr.fd[l->usr.n++] = k->usr_fd;
		bottom = k->meta;
		find_image(l, &bottom);
		memcpy(next, bottom.parent, sizeof(next));
		memcpy(next_seal, bottom.parent_seal, sizeof(next_seal));
	}
	l->depth = (uint32_t)l->root.n;
	return add_bottom(t, id, &bottom, l, err);
}

int template_layers(struct template_store *t, const char *id,
    const uint8_t seal[static LAYER_HASH_SIZE], struct template_layers *ret, struct av_err *err)
{
	*ret = (struct template_layers){0};
	ret->is_vm = strcmp(id, TEMPLATE_ID_VMHOST) == 0;
	if (ret->is_vm || strcmp(id, HOST_TEMPLATE_ID) == 0)
		return add_host(t, ret, err);
	if (strcmp(id, TEMPLATE_ID_EMPTY) == 0) {
		add_empty(t, ret);
		return 0;
	}
	if (!template_id_ok(id))
		return av_err_set(err, AV_ERR_NOT_FOUND, "no template %s", id);
	return add_kept(t, id, seal, ret, err);
}

void template_wait(struct av_list *pending, struct template_waiter *w)
{
	av_list_append(pending, &w->node);
}
