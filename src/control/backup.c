/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backup.c - what a backup is made of (see backup.h)
 */
#include "control/backup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "control/accounts.h"
#include "control/templates_internal.h"

#include "base/banned.h"

struct control_backup {
	struct control *c;
	control_backup_fn *on_copy;
	driver_stream_fn *on_stream;
	void *ctx, *stream_ctx;
	bool pending; /* the store or the node will call back */
	bool ended;   /* nobody hears it any more */
	bool rootless;
	char (*ids)[AV_ID_SIZE]; /* owned */
	size_t n;
};

static void release(struct control_backup *b)
{
	b->c->backup = NULL;
	templates_unused(b->c);
	free(b->ids);
	free(b);
}

/* A callback came: false when nobody waits for it. */
static bool arrived(struct control_backup *b)
{
	b->pending = false;
	if (!b->ended)
		return true;
	release(b);
	return false;
}

/* The image that a saved machine stands on, which is no record's own: once. */
static void note_image(struct control_backup *b, const char *id)
{
	if (!av_id_valid(av_str_c(id), AV_ID_VM_LAYER))
		return;
	for (size_t i = 0; i < b->n; i++)
		if (strcmp(b->ids[i], id) == 0)
			return;
	memcpy(b->ids[b->n++], id, AV_ID_SIZE);
}

/* Those that a record in the copy may name. Deleted ones are there as long as others stand on them.
 */
static int note_templates(struct control_backup *b)
{
	const struct template *t;
	size_t n = 0;

	AV_LIST_FOREACH(t, &b->c->templates, const struct template, link)
	n++;
	b->ids = calloc(2 * n + 1, sizeof(*b->ids));
	if (!b->ids)
		return -ENOMEM;
	AV_LIST_FOREACH(t, &b->c->templates, const struct template, link)
	if (strcmp(t->rec.state, TEMPLATE_CREATING) != 0 && !t->removing) {
		note_image(b, t->rec.parent_id);
		memcpy(b->ids[b->n++], t->rec.id, AV_ID_SIZE);
	}
	return 0;
}

static void on_copy(void *ctx, int fd, uint64_t bytes, const struct av_err *err)
{
	struct control_backup *b = ctx;
	struct av_err failure;

	if (!arrived(b)) {
		av_close_fd(&fd);
		return;
	}
	if (!err && note_templates(b) < 0) {
		(void)av_err_set(&failure, AV_ERR_NO_MEMORY, "out of memory");
		err = &failure;
		av_close_fd(&fd);
	}
	b->on_copy(b->ctx, fd, bytes, err);
}

int control_backup_begin(struct control *c, const struct control_actor *a, control_backup_fn *fn,
    void *ctx, struct control_backup **ret, struct av_err *err)
{
	struct control_backup *b;
	int r = control_need_admin(a, err);

	if (r == 0)
		r = control_check_open(c, err);
	if (r < 0)
		return r;
	if (c->backup)
		return av_err_set(err, AV_ERR_CONFLICT,
		    "another backup is being made: try again when it is done");
	if (!node_is_ready(c->node))
		return av_err_set(err, AV_ERR_UNAVAILABLE,
		    "the worker is not connected just now: try again in a moment");
	b = calloc(1, sizeof(*b));
	if (!b)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	*b = (struct control_backup){.c = c, .on_copy = fn, .ctx = ctx, .pending = true};
	b->rootless = node_caps(c->node)->flags & DRIVER_ROOTLESS;
	if (store_copy(c->store, on_copy, b) < 0) {
		free(b);
		return av_err_set(err, AV_ERR_UNAVAILABLE, "the database takes no more requests");
	}
	*ret = c->backup = b;
	return 0;
}

void control_backup_end(struct control_backup *b)
{
	if (!b)
		return;
	b->ended = true;
	if (!b->pending)
		release(b);
}

void control_backup_free(struct control *c)
{
	if (c->backup)
		free(c->backup->ids);
	free(AV_TAKE_PTR(c->backup));
}

size_t control_backup_count(const struct control_backup *b)
{
	return b->n;
}

const char *control_backup_id(const struct control_backup *b, size_t i)
{
	assert(i < b->n);
	return b->ids[i];
}

static void on_stream(void *ctx, int fd, const struct av_err *err)
{
	struct control_backup *b = ctx;

	if (arrived(b))
		b->on_stream(b->stream_ctx, fd, err);
	else
		av_close_fd(&fd);
}

int control_backup_open(struct control_backup *b, size_t i, driver_stream_fn *fn, void *ctx)
{
	assert(i < b->n && !b->pending);
	int r = node_template_export(b->c->node, b->ids[i], on_stream, b);

	if (r < 0)
		return r;
	b->pending = true;
	b->on_stream = fn;
	b->stream_ctx = ctx;
	return 0;
}

int control_backup_closed(const struct control_backup *b, const void *bytes, struct av_err *err)
{
	return node_export_end(b->c->node, bytes, err);
}

bool control_backup_rootless(const struct control_backup *b)
{
	return b->rootless;
}
