/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_channels.c - requests about channels and their deliveries, for the queue
 */
#include "store/channels.h"

#include <errno.h>
#include <stdlib.h>

#include "base/str.h"
#include "store/store_internal.h"

#include "base/banned.h"

int store_channel_list(struct store *s, const char *team_id, store_channels_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_CHANNEL_LIST, ctx);
	int error = 0;

	if (!r)
		return -ENOMEM;
	r->fn.channels = fn;
	if (team_id)
		error = av_str_copy(r->args.id, sizeof(r->args.id), av_str_c(team_id));
	return store_submit(s, r, error);
}

static int submit_channel(struct store *s, enum store_op op, const struct store_channel *rec,
    store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(op, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.channel = *rec;
	r->args.channel.config = NULL;
	r->text[0] = av_str_dup(av_str_c(rec->config));
	return store_submit(s, r, r->text[0] ? 0 : -ENOMEM);
}

int store_channel_insert(
    struct store *s, const struct store_channel *rec, store_done_fn *fn, void *ctx)
{
	return submit_channel(s, STORE_OP_CHANNEL_INSERT, rec, fn, ctx);
}

int store_channel_update(
    struct store *s, const struct store_channel *rec, store_done_fn *fn, void *ctx)
{
	return submit_channel(s, STORE_OP_CHANNEL_UPDATE, rec, fn, ctx);
}

int store_channel_delete(struct store *s, const char *id, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_CHANNEL_DELETE, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	return store_submit(s, r, av_str_copy(r->args.id, sizeof(r->args.id), av_str_c(id)));
}

/* ---- notices ---- */

void store_notice_free(struct store_notice_text *n)
{
	struct store_notice_text *next;

	for (; n; n = next) {
		next = n->next;
		free(n->body);
		free(n);
	}
}

struct store_notice_text *store_notice_dup(const struct store_notice *notice)
{
	struct store_notice_text *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->at_ms = notice->at_ms;
	n->body = av_str_dup(av_str_c(notice->body));
	if (n->body &&
	    av_str_copy(n->team_id, sizeof(n->team_id), av_str_c(notice->team_id)) == 0 &&
	    av_str_copy(n->event, sizeof(n->event), av_str_c(notice->event)) == 0)
		return n;
	store_notice_free(n);
	return NULL;
}

int store_notice_put(
    struct store *s, const struct store_notice *notice, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_NOTICE, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->notice = store_notice_dup(notice);
	return store_submit(s, r, r->notice ? 0 : -ENOMEM);
}

/* ---- deliveries ---- */

static struct store_req *delivery_req(
    enum store_op op, const char *channel_id, void *ctx, int *ret_error)
{
	struct store_req *r = store_req_new(op, ctx);

	if (r)
		*ret_error = av_str_copy(r->args.delivery.rec.channel_id,
		    sizeof(r->args.delivery.rec.channel_id), av_str_c(channel_id));
	return r;
}

int store_delivery_next(struct store *s, const char *channel_id, store_deliveries_fn *fn, void *ctx)
{
	int error = 0;
	struct store_req *r = delivery_req(STORE_OP_DELIVERY_NEXT, channel_id, ctx, &error);

	if (!r)
		return -ENOMEM;
	r->fn.deliveries = fn;
	return store_submit(s, r, error);
}

int store_delivery_finish(struct store *s, const struct store_delivery *d, int64_t failing_ms,
    store_deliveries_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_DELIVERY_FINISH, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.deliveries = fn;
	r->args.delivery.rec = *d;
	r->args.delivery.rec.body = NULL;
	r->args.delivery.failing_ms = failing_ms;
	return store_submit(s, r, 0);
}

int store_delivery_page(struct store *s, const char *channel_id, int64_t before_seq, size_t limit,
    store_deliveries_fn *fn, void *ctx)
{
	int error = 0;
	struct store_req *r = delivery_req(STORE_OP_DELIVERY_PAGE, channel_id, ctx, &error);

	if (!r)
		return -ENOMEM;
	r->fn.deliveries = fn;
	r->args.delivery.rec.seq = before_seq;
	r->args.delivery.limit = (int64_t)limit;
	return store_submit(s, r, error);
}

int store_delivery_again(
    struct store *s, const char *channel_id, const char *id, store_done_fn *fn, void *ctx)
{
	int error = 0;
	struct store_req *r = delivery_req(STORE_OP_DELIVERY_AGAIN, channel_id, ctx, &error);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	if (error == 0)
		error = av_str_copy(
		    r->args.delivery.rec.id, sizeof(r->args.delivery.rec.id), av_str_c(id));
	return store_submit(s, r, error);
}
