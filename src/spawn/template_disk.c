/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_disk.c - removing templates, and what was left half-made or half-removed
 */
#include "spawn/template.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "spawn/disk.h"
#include "base/banned.h"

bool template_exists(const struct template_store *t, const char *id)
{
	return faccessat(t->dir_fd, id, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int each_name(int dirfd, int (*on_name)(void *ctx, const char *name), void *ctx)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int r = 0;
	if (!dir) {
		r = -errno;
		av_close_fd(&fd);
		return r;
	}
	while (r == 0 && (e = readdir(dir)))
		r = on_name(ctx, e->d_name);
	closedir(dir);
	return r;
}

struct lister {
	int (*on_id)(void *ctx, const char *id);
	void *ctx;
};

static int list_name(void *ctx, const char *name)
{
	const struct lister *l = ctx;
	return template_id_ok(name) ? l->on_id(l->ctx, name) : 0;
}

int template_list(
    const struct template_store *t, int (*on_id)(void *ctx, const char *id), void *ctx)
{
	struct lister l = {.on_id = on_id, .ctx = ctx};
	return each_name(t->dir_fd, list_name, &l);
}

/* ---- removing ---- */

struct child_search {
	const struct template_store *t;
	const char *parent;
};

static int stands_on(void *ctx, const char *id)
{
	const struct child_search *s = ctx;
	struct template_meta m;
	AV_CLEANUP(av_closep) int dir = layer_open(s->t->dir_fd, id, O_RDONLY | O_DIRECTORY);
	if (dir < 0 || template_meta_read(dir, id, &m, NULL) < 0)
		return 0; /* cannot be used any more itself */
	return strcmp(m.parent, s->parent) == 0;
}

int template_delete(struct template_store *t, const char *id, struct av_err *err)
{
	struct child_search s = {.t = t, .parent = id};
	int r = template_list(t, stands_on, &s);
	if (r == 1) {
		(void)av_err_set(err, AV_ERR_INVALID_STATE, "another template stands on %s", id);
		return -EBUSY;
	}
	template_kept_forget(t, id);
	r = disk_trash(t->disk, t->dir_fd, id);
	if (r < 0 && r != -ENOENT)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot remove template %s", id);
	if (av_failpoint("template.trashed"))
		return av_err_set(err, AV_ERR_INTERNAL, "failpoint template.trashed");
	r = disk_layer_remove(t->disk, id);
	return r < 0 ? av_err_sys(
	                   err, AV_ERR_INTERNAL, r, "cannot remove the layer of template %s", id)
	             : 0;
}

static void trash(struct template_store *t, const char *name)
{
	int r = disk_trash(t->disk, t->dir_fd, name);
	if (r < 0 && r != -ENOENT)
		av_log(AV_LOG_WARN, "cannot remove a half-made template", "name", name, "error",
		    strerror(-r), NULL);
}

void template_discard(struct template_store *t, const char *id)
{
	char name[TEMPLATE_ID_SIZE + sizeof(TEMPLATE_NEW)];
	if (av_path_printf(name, sizeof(name), TEMPLATE_NEW "%s", id) < 0)
		return;
	trash(t, name);
	template_settle(t, id);
	if (!template_exists(t, id) && disk_layer_remove(t->disk, id) < 0)
		av_log(AV_LOG_WARN, "cannot remove a half-made layer", "id", id, NULL);
}

void template_settle(struct template_store *t, const char *id)
{
	char name[TEMPLATE_ID_SIZE + sizeof(TEMPLATE_NEW)];
	if (av_path_printf(name, sizeof(name), TEMPLATE_NEW "%s", id) == 0 &&
	    disk_layer_remove(t->disk, name) < 0)
		av_log(AV_LOG_WARN, "cannot remove what a layer was made of", "id", id, NULL);
}

static int sweep_name(void *ctx, const char *name)
{
	struct template_store *t = ctx;
	if (strncmp(name, TEMPLATE_NEW, strlen(TEMPLATE_NEW)) == 0)
		trash(t, name);
	return 0;
}

static int sweep_layer(void *ctx, const char *id)
{
	struct template_store *t = ctx;
	if (!template_exists(t, id) && disk_layer_remove(t->disk, id) < 0)
		av_log(AV_LOG_WARN, "cannot remove a layer that no template has", "id", id, NULL);
	return 0;
}

void template_sweep(struct template_store *t)
{
	int r = each_name(t->dir_fd, sweep_name, t);
	if (r == 0)
		r = disk_layer_list(t->disk, sweep_layer, t);
	if (r < 0)
		av_log(AV_LOG_WARN, "cannot look for half-made templates", "error", strerror(-r),
		    NULL);
}
