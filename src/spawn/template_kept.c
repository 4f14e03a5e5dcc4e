/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_kept.c - templates on the disk: opened, compared with their checksum, kept open
 */
#include "spawn/template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"
#include "spawn/disk.h"
#include "base/banned.h"

#define KEPT_MAX (4 * TEMPLATE_DEPTH_MAX)
#define OPEN_DIR (O_RDONLY | O_DIRECTORY)

static void drop(struct template_kept *k)
{
	struct template_waiter *w;
	chore_clear(&k->check);
	while ((w = AV_LIST_FIRST(&k->waiters, struct template_waiter, node)))
		av_list_remove(&w->node);
	av_list_remove(&k->node);
	k->t->n_kept--;
	av_close_fd(&k->dir_fd);
	av_close_fd(&k->root_fd);
	av_close_fd(&k->usr_fd);
	free(k);
}

void template_kept_clear(struct template_store *t)
{
	struct template_kept *k;
	if (!t->kept.next)
		return;
	while ((k = AV_LIST_FIRST(&t->kept, struct template_kept, node)))
		drop(k);
}

/* ---- opening ---- */

static int refuse(struct av_err *err, const char *id, const char *why)
{
	(void)av_err_set(err, AV_ERR_INVALID_STATE, "template %s %s", id, why);
	return -ESTALE;
}

/* Made by an Aviary that ran in another way. */
static int check_usable(const struct template_kept *k, struct av_err *err)
{
	const struct template_meta *m = &k->meta;
	const struct template_store *t = k->t;
	bool rootless = m->flags & TEMPLATE_ROOTLESS;
	if (rootless != t->mounts->rootless)
		return refuse(err, m->id,
		    rootless ? "was made by an Aviary without root"
		             : "was made by an Aviary that ran as root");
	if (m->id_base != t->id_base)
		return refuse(err, m->id,
		    "was made on a kernel that shares one range of user ids among all sandboxes, "
		    "or this one does: make it again");
	if (m->depth == 0 || m->depth > TEMPLATE_DEPTH_MAX)
		return refuse(err, m->id, "has an impossible number of layers");
	return 0;
}

static int open_halves(struct template_kept *k, struct av_err *err)
{
	bool in_image = k->meta.flags & TEMPLATE_IN_IMAGE;
	const char *id = k->meta.id;
	AV_CLEANUP(av_closep) int top = -1;
	if (in_image) {
		int r = disk_layer_open(k->t->disk, id, &top);
		if (r == -EOPNOTSUPP)
			return refuse(err, id,
			    "lies in the btrfs image disk.img, which is not in use now (see the "
			    "option --disk)");
		if (r == 0 && (r = layer_open(top, "fs", OPEN_DIR)) >= 0) {
			av_close_fd(&top);
			top = r;
		} else {
			av_close_fd(&top);
		}
	} else {
		top = layer_open(k->dir_fd, TEMPLATE_LAYER_DIR, OPEN_DIR);
	}
	if (top >= 0)
		k->root_fd = layer_open(top, "root", OPEN_DIR);
	if (top >= 0 && (k->meta.flags & TEMPLATE_ON_HOST))
		k->usr_fd = layer_open(top, "usr", OPEN_DIR);
	if (k->root_fd >= 0 && (k->usr_fd >= 0 || !(k->meta.flags & TEMPLATE_ON_HOST)))
		return 0;
	(void)av_err_set(err, AV_ERR_CHECKSUM,
	    "checksum error: the layer of template %s is gone or was replaced; delete the template "
	    "and make it again",
	    id);
	return -EBADMSG;
}

static int load(struct template_kept *k, const char *id, struct av_err *err)
{
	k->dir_fd = layer_open(k->t->dir_fd, id, OPEN_DIR);
	if (k->dir_fd == -ENOENT)
		return av_err_set(err, AV_ERR_NOT_FOUND, "no template %s on this machine", id);
	if (k->dir_fd < 0) {
		(void)av_err_set(
		    err, AV_ERR_CHECKSUM, "checksum error: template %s is no plain directory", id);
		return -EBADMSG;
	}
	int r = template_meta_read(k->dir_fd, id, &k->meta, err);
	if (r == 0)
		r = check_usable(k, err);
	return r < 0 ? r : open_halves(k, err);
}

/* ---- the cheap mark ---- */

static int add_times(int dirfd, const char *name, int64_t ret[static 2], uint64_t *ret_inode)
{
	struct stat st;
	if (name ? fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 : fstat(dirfd, &st) < 0)
		return -errno;
	ret[0] = st.st_ctim.tv_sec;
	ret[1] = st.st_ctim.tv_nsec;
	*ret_inode += st.st_ino;
	return 0;
}

static int take_mark(const struct template_kept *k, struct template_mark *ret)
{
	struct template_mark m = {0};
	int r = add_times(k->dir_fd, TEMPLATE_META_NAME, m.times[0], &m.inode);
	if (r == 0)
		r = add_times(k->root_fd, NULL, m.times[1], &m.inode);
	if (r == 0 && k->usr_fd >= 0)
		r = add_times(k->usr_fd, NULL, m.times[2], &m.inode);
	if (r == 0 && (k->meta.flags & TEMPLATE_IN_IMAGE))
		r = disk_layer_generation(k->root_fd, &m.generation);
	if (r == 0)
		*ret = m;
	return r;
}

/* ---- comparing ---- */

static int compare(void *arg, struct chore_result *res, struct av_err *err)
{
	const struct template_kept *k = arg;
	struct layer_sum root, usr = {0};
	uint8_t content[LAYER_HASH_SIZE];
	(void)res;
	int r = layer_sum(k->root_fd, &root);
	if (r == 0 && k->usr_fd >= 0)
		r = layer_sum(k->usr_fd, &usr);
	if (r == 0) {
		template_content(&root, &usr, content);
		if (memcmp(content, k->meta.content, sizeof(content)) == 0)
			return 0;
	}
	(void)av_err_set(err, AV_ERR_CHECKSUM,
	    "checksum error: the files of template %s are not what they were when it was made%s%s; "
	    "delete the template and make it again",
	    k->meta.id, r < 0 ? ": " : "", r < 0 ? strerror(-r) : "");
	return -EBADMSG;
}

static void compared(void *ctx, int error, const struct chore_result *res)
{
	struct template_kept *k = ctx;
	struct av_list waiters;
	struct template_waiter *w;
	struct av_err err = {0};
	if (error == 0)
		k->verified = true;
	else
		av_log(AV_LOG_ERROR, "template", "id", k->meta.id, "error",
		    res->text[0] ? res->text : strerror(-error), NULL);
	if (error < 0)
		(void)av_err_set(&err, AV_ERR_INVALID_STATE, "%s",
		    res->text[0] ? res->text : "the check of the template's files was killed");
	av_list_init(&waiters);
	while ((w = AV_LIST_FIRST(&k->waiters, struct template_waiter, node))) {
		av_list_remove(&w->node);
		av_list_append(&waiters, &w->node);
	}
	if (error < 0)
		drop(k);
	while ((w = AV_LIST_FIRST(&waiters, struct template_waiter, node))) {
		av_list_remove(&w->node);
		w->on_made(w->ctx, error, &err);
	}
}

/* A subvolume of the image that nothing was written to since it was sealed; what the disk below
 * does to it btrfs's own checksums tell when it is read. */
static bool is_as_sealed(struct template_kept *k)
{
	uint64_t now = 0;
	return (k->meta.flags & TEMPLATE_IN_IMAGE) && k->meta.generation != 0 &&
	       disk_layer_generation(k->root_fd, &now) == 0 && now == k->meta.generation &&
	       take_mark(k, &k->mark) == 0;
}

static int start_compare(struct template_kept *k, struct av_err *err)
{
	int r = take_mark(k, &k->mark);
	if (r == 0)
		r = chore_start(&k->check, k->t->loop, compare, k, compared, k);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot check template %s", k->meta.id)
	             : -EAGAIN;
}

/* ---- keeping ---- */

static struct template_kept *find(struct template_store *t, const char *id)
{
	struct template_kept *k;
	AV_LIST_FOREACH(k, &t->kept, struct template_kept, node)
	if (strcmp(k->meta.id, id) == 0)
		return k;
	return NULL;
}

void template_kept_forget(struct template_store *t, const char *id)
{
	struct template_kept *k = find(t, id);
	if (!k)
		return;
	if (!chore_runs(&k->check)) {
		drop(k);
		return;
	}
	/* Somebody waits for the check; the mark no longer fits: dropped when there must be room.
	 */
	k->verified = false;
	k->mark = (struct template_mark){0};
}

static void make_room(struct template_store *t)
{
	struct template_kept *k, *oldest = NULL;
	if (t->n_kept < KEPT_MAX)
		return;
	AV_LIST_FOREACH(k, &t->kept, struct template_kept, node)
	if (!oldest && !chore_runs(&k->check))
		oldest = k;
	if (oldest)
		drop(oldest);
}

static int find_or_load(
    struct template_store *t, const char *id, struct template_kept **ret, struct av_err *err)
{
	struct template_kept *k = find(t, id);
	struct template_mark now;
	if (k && !chore_runs(&k->check) && !t->unchecked &&
	    (take_mark(k, &now) < 0 || memcmp(&now, &k->mark, sizeof(now)) != 0)) {
		drop(k);
		k = NULL;
	}
	if (!k) {
		make_room(t);
		k = calloc(1, sizeof(*k));
		if (!k)
			return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		k->t = t;
		k->dir_fd = k->root_fd = k->usr_fd = -1;
		k->check = CHORE_INIT;
		av_list_init(&k->waiters);
		av_list_append(&t->kept, &k->node);
		t->n_kept++;
		int r = load(k, id, err);
		if (r < 0) {
			drop(k);
			return r;
		}
	}
	*ret = k;
	return 0;
}

int template_kept_get(struct template_store *t, const char *id,
    const uint8_t seal[static LAYER_HASH_SIZE], const struct template_kept **ret,
    struct av_list **ret_pending, struct av_err *err)
{
	struct template_kept *k = NULL;
	int r = find_or_load(t, id, &k, err);
	if (r < 0)
		return r;
	assert(k);
	if (!template_seal_empty(seal) && memcmp(seal, k->meta.identity, LAYER_HASH_SIZE) != 0) {
		(void)av_err_set(err, AV_ERR_CHECKSUM,
		    "checksum error: what lies at the place of template %s is another one; delete "
		    "the template and make it again",
		    id);
		return -EBADMSG;
	}
	/* Used last. */
	av_list_remove(&k->node);
	av_list_append(&t->kept, &k->node);
	if (!k->verified && is_as_sealed(k))
		k->verified = true;
	if (!k->verified && !t->unchecked) {
		r = chore_runs(&k->check) ? -EAGAIN : start_compare(k, err);
		if (r == -EAGAIN)
			*ret_pending = &k->waiters;
		return r;
	}
	*ret = k;
	return 0;
}
