/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export.c - the layer of a template goes out as members of a tar archive (see export.h)
 */
#include "spawn/export.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "spawn/disk.h"
#include "spawn/layer_tar.h"
#include "spawn/sandbox.h"
#include "base/banned.h"

#define OPEN_DIR (O_RDONLY | O_DIRECTORY)

struct source {
	struct template_meta meta;
	int dir, layer, root, usr;
};

static void source_close(struct source *s)
{
	av_close_fd(&s->usr);
	av_close_fd(&s->root);
	av_close_fd(&s->layer);
	av_close_fd(&s->dir);
}

/* ---- in the child ---- */

static int open_top(struct spawner *sp, struct source *s)
{
	if (!(s->meta.flags & TEMPLATE_IN_IMAGE))
		return layer_open(s->dir, TEMPLATE_LAYER_DIR, OPEN_DIR);
	AV_CLEANUP(av_closep) int top = -1;
	int r = disk_layer_open(sp->disk, s->meta.id, &top);
	return r < 0 ? r : layer_open(top, "fs", OPEN_DIR);
}

static int open_source(struct exporting *e, struct source *s, struct av_err *err)
{
	s->dir = layer_open(e->sp->templates.dir_fd, e->id, OPEN_DIR);
	if (s->dir < 0)
		return av_err_set(err, AV_ERR_NOT_FOUND, "template %s has no layer here", e->id);
	int r = template_meta_read(s->dir, e->id, &s->meta, err);
	if (r < 0)
		return r;
	s->layer = open_top(e->sp, s);
	s->root = s->layer < 0 ? -1 : layer_open(s->layer, "root", OPEN_DIR);
	if (s->layer >= 0 && (s->meta.flags & TEMPLATE_ON_HOST))
		s->usr = layer_open(s->layer, "usr", OPEN_DIR);
	if (s->root < 0 || (s->usr < 0 && (s->meta.flags & TEMPLATE_ON_HOST)))
		return av_err_set(err, AV_ERR_CHECKSUM, "the layer of template %s is gone", e->id);
	return 0;
}

/* What goes out must be what was made, or a backup would be found out when it is needed. */
static int check_source(const struct source *s, struct av_err *err)
{
	struct layer_sum root, usr = {0};
	uint8_t content[LAYER_HASH_SIZE];
	uint64_t generation = 0;
	if ((s->meta.flags & TEMPLATE_IN_IMAGE) && s->meta.generation &&
	    disk_layer_generation(s->root, &generation) == 0 && generation == s->meta.generation)
		return 0;
	int r = layer_sum(s->root, &root);
	if (r == 0 && s->usr >= 0)
		r = layer_sum(s->usr, &usr);
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_CHECKSUM, r, "cannot read the layer of template %s", s->meta.id);
	template_content(&root, &usr, content);
	if (memcmp(content, s->meta.content, sizeof(content)) == 0)
		return 0;
	return av_err_set(err, AV_ERR_CHECKSUM,
	    "checksum error: the files of template %s are not what they were when it was made",
	    s->meta.id);
}

static int put_all(struct tar_out *t, const struct source *s)
{
	char prefix[TEMPLATE_ID_SIZE + 16], path[TEMPLATE_ID_SIZE + 32],
	    links[TEMPLATE_ID_SIZE + 32];
	if (av_path_printf(prefix, sizeof(prefix), "templates/%s", s->meta.id) < 0 ||
	    av_path_printf(path, sizeof(path), "%s/" TEMPLATE_META_NAME, prefix) < 0 ||
	    av_path_printf(links, sizeof(links), "%s/" LAYER_LINKS_DIR, prefix) < 0)
		return -ENAMETOOLONG;
	/* As it was sealed: in the layout of its version. */
	uint8_t record[sizeof(s->meta)];
	ssize_t n = -1;
	AV_CLEANUP(av_closep) int fd = layer_open(s->dir, TEMPLATE_META_NAME, O_RDONLY);
	if (fd >= 0)
		n = av_read_full(fd, record, template_meta_size(s->meta.version));
	int r = n != (ssize_t)template_meta_size(s->meta.version)
	            ? -ESTALE
	            : tar_out_file(t, path, record, (size_t)n);
	if (r == 0 && (r = av_path_printf(path, sizeof(path), "%s/root", prefix)) == 0)
		r = tar_out_tree(t, s->root, path, links);
	if (r == 0 && s->usr >= 0 &&
	    (r = av_path_printf(path, sizeof(path), "%s/usr", prefix)) == 0)
		r = tar_out_tree(t, s->usr, path, links);
	return r == 0 ? tar_out_flush(t) : r;
}

static int put_layer(struct exporting *e, struct av_err *err)
{
	struct source s = {.dir = -1, .layer = -1, .root = -1, .usr = -1};
	struct tar_out *t = tar_out_new(e->pipe);
	int r = t ? open_source(e, &s, err) : av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (r == 0)
		r = check_source(&s, err);
	if (r == 0 && (r = put_all(t, &s)) < 0)
		(void)(r == -E2BIG
		           ? av_err_set(err, AV_ERR_INVALID_STATE,
		                 "template %s has a file with more attributes, holes or names than "
		                 "a backup takes",
		                 e->id)
		           : av_err_sys(err, AV_ERR_INTERNAL, r,
		                 "cannot read the layer of template %s", e->id));
	tar_out_free(t);
	source_close(&s);
	return r;
}

static int export_layer(void *arg, struct chore_result *res, struct av_err *err)
{
	struct exporting *e = arg;
	struct spawn_export_end end = {.magic = SPAWN_EXPORT_MAGIC};
	(void)res;
	av_close_fd(&e->reader);
	int r = put_layer(e, err);
	if (r == -EPIPE)
		return -ECANCELED; /* nobody reads any more */
	end.error = r < 0 ? -r : 0;
	memcpy(end.text, err->message, r < 0 ? strnlen(err->message, sizeof(err->message) - 1) : 0);
	int w = av_write_full(e->pipe, &end, sizeof(end));
	return r < 0 ? r : w;
}

/* ---- in the worker ---- */

static void start(struct exporting *e, struct job *j);

static void exported(void *ctx, int error, const struct chore_result *res)
{
	struct exporting *e = ctx;
	struct job *next;
	if (error < 0 && error != -ECANCELED)
		av_log(AV_LOG_WARN, "a template does not go into the backup", "id", e->id, "error",
		    res->text[0] ? res->text : strerror(-error), NULL);
	/* One that cannot be started is answered: then it is the next one's turn. */
	while (
	    !chore_runs(&e->chore) && (next = AV_LIST_FIRST(&e->of->waiting, struct job, node))) {
		av_list_remove(&next->node);
		start(e, next);
	}
}

void exports_init(struct exports *x)
{
	av_list_init(&x->waiting);
	for (size_t i = 0; i < AV_ARRAY_LEN(x->v); i++)
		x->v[i] = (struct exporting){.chore = CHORE_INIT, .of = x, .pipe = -1};
}

void exports_clear(struct exports *x)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(x->v); i++)
		chore_clear(&x->v[i].chore);
}

static void start(struct exporting *e, struct job *j)
{
	struct spawn_reply reply = {0};
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0) {
		job_fail(j, -errno, NULL);
		return;
	}
	memcpy(e->id, j->request.u.template.template_id, sizeof(e->id));
	e->pipe = p[1];
	e->reader = p[0];
	int r = chore_start(&e->chore, &e->sp->loop, export_layer, e, exported, e);
	av_close_fd(&e->pipe);
	if (r < 0)
		job_fail(j, r, NULL);
	else
		job_done(j, &reply, p[0]);
	av_close_fd(&p[0]);
}

void export_start(struct spawner *sp, struct job *j)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(sp->exports.v); i++)
		if (!chore_runs(&sp->exports.v[i].chore)) {
			sp->exports.v[i].sp = sp;
			start(&sp->exports.v[i], j);
			return;
		}
	av_list_append(&sp->exports.waiting, &j->node);
}
