/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template.c - layers of templates for the worker
 */
#include "spawn/template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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

int template_init(struct template_store *t, struct loop *loop, const struct mounts *m,
    uid_t id_shift, struct av_err *err)
{
	*t = (struct template_store){
	    .loop = loop,
	    .mounts = m,
	    .host_options = {.rootless = m->rootless, .id_shift = id_shift},
	    .host = HOST_TEMPLATE_INIT,
	    .usr_fd = open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
	    .maker_pidfd = -1,
	    .maker = {.fd = -1},
	};
	av_list_init(&t->waiters);
	if (t->usr_fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open /usr");
	/* None yet is fine; the first look will tell whether it still fits the machine. */
	int r = reopen_host(t, err);
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
	av_close_fd(&t->maker_pidfd);
	av_close_fd(&t->usr_fd);
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
	if (r < 0)
		av_log(AV_LOG_ERROR, "cannot make a new generation of template host", "error",
		    err.message, NULL);
	t->checked_ns = av_mono_ns();
	struct template_waiter *w;
	while ((w = AV_LIST_FIRST(&t->waiters, struct template_waiter, node))) {
		av_list_remove(&w->node);
		w->on_made(w->ctx, r);
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

int template_layers(
    struct template_store *t, const char *id, struct template_layers *ret, struct av_err *err)
{
	if (strcmp(id, HOST_TEMPLATE_ID) != 0)
		return av_err_set(err, AV_ERR_NOT_FOUND, "no template %s", id);
	int r = check_host(t, err);
	if (r < 0)
		return r;
	*ret = (struct template_layers){
	    .root = {.fd = {t->host.root_fd}, .n = 1},
	    .usr = {.fd = {t->host.usr_mask_fd, t->usr_fd}, .n = 2},
	    .has_usr = true,
	};
	return 0;
}

void template_wait(struct template_store *t, struct template_waiter *w)
{
	av_list_append(&t->waiters, &w->node);
}
