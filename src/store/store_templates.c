/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_templates.c - requests about templates, for the queue
 */
#include <errno.h>

#include "base/str.h"
#include "store/store_internal.h"

#include "base/banned.h"

int store_template_list(struct store *s, store_templates_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_TEMPLATE_LIST, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.templates = fn;
	return store_submit(s, r, 0);
}

/* other: a user or a template; NULL: none. */
static int submit(struct store *s, enum store_op op, const struct store_template *rec,
    const char *other, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(op, ctx);
	int error = 0;

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.template.rec = *rec;
	if (other)
		error = av_str_copy(
		    r->args.template.other, sizeof(r->args.template.other), av_str_c(other));
	return store_submit(s, r, error);
}

int store_template_insert(struct store *s, const struct store_template *rec, const char *user_id,
    store_done_fn *fn, void *ctx)
{
	return submit(s, STORE_OP_TEMPLATE_INSERT, rec, user_id, fn, ctx);
}

int store_template_publish(struct store *s, const struct store_template *rec, const char *replaced,
    store_done_fn *fn, void *ctx)
{
	return submit(s, STORE_OP_TEMPLATE_PUBLISH, rec, replaced, fn, ctx);
}

static int submit_id(
    struct store *s, enum store_op op, const char *id, store_done_fn *fn, void *ctx)
{
	struct store_template rec = {0};

	if (av_str_copy(rec.id, sizeof(rec.id), av_str_c(id)) < 0)
		return -EINVAL;
	return submit(s, op, &rec, NULL, fn, ctx);
}

int store_template_mark_deleted(struct store *s, const char *id, store_done_fn *fn, void *ctx)
{
	return submit_id(s, STORE_OP_TEMPLATE_MARK, id, fn, ctx);
}

int store_template_remove(struct store *s, const char *id, store_done_fn *fn, void *ctx)
{
	return submit_id(s, STORE_OP_TEMPLATE_REMOVE, id, fn, ctx);
}
