/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_audit.c - requests about the audit log, for the queue
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "store/store_internal.h"

#include "base/banned.h"

int store_audit_add(
    struct store *s, const struct store_audit *v, size_t n, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_AUDIT_ADD, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	if (n == 0 || n > STORE_AUDIT_BATCH_MAX)
		return store_submit(s, r, -EINVAL);
	r->args.audit_n = n;
	r->text[0] = av_mem_dup(v, n * sizeof(*v));
	return store_submit(s, r, r->text[0] ? 0 : -ENOMEM);
}

int store_audit_read(
    struct store *s, const struct store_audit_query *q, store_audit_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_AUDIT_READ, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.audit = fn;
	r->args.audit_read.query = *q;
	return store_submit(s, r, 0);
}

int store_audit_count(struct store *s, store_audit_counts_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_AUDIT_COUNT, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.audit_counts = fn;
	return store_submit(s, r, 0);
}

int store_audit_prune(struct store *s, const char *team_id, int64_t before, size_t max,
    store_audit_counts_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_AUDIT_PRUNE, ctx);
	int error = 0;

	if (!r)
		return -ENOMEM;
	r->fn.audit_counts = fn;
	r->args.audit_prune.one_team = team_id;
	r->args.audit_prune.before = before;
	r->args.audit_prune.max = max;
	if (team_id)
		error = av_str_copy(r->args.audit_prune.team_id,
		    sizeof(r->args.audit_prune.team_id), av_str_c(team_id));
	return store_submit(s, r, error);
}
