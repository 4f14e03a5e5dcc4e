/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_main.c - requests about main commands and their logs
 */
#include <errno.h>
#include <stdlib.h>

#include "base/str.h"
#include "store/store_internal.h"

#include "base/banned.h"

int store_main_update(struct store *s, const char *sandbox_id, const struct store_main *rec,
    store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_MAIN_UPDATE, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.main.rec = *rec;
	return store_submit(
	    s, r, av_str_copy(r->args.main.id, sizeof(r->args.main.id), av_str_c(sandbox_id)));
}

int store_log_put(struct store *s, const char *sandbox_id, const void *log, size_t size,
    int64_t total_max, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_LOG_PUT, ctx);
	int error;

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.log.size = size;
	r->args.log.total_max = total_max;
	error = av_str_copy(r->args.log.id, sizeof(r->args.log.id), av_str_c(sandbox_id));
	if (!error) {
		r->text[0] = av_mem_dup(log, size);
		error = r->text[0] ? 0 : -ENOMEM;
	}
	return store_submit(s, r, error);
}

int store_log_get(struct store *s, const char *sandbox_id, store_log_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_LOG_GET, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.log = fn;
	return store_submit(
	    s, r, av_str_copy(r->args.id, sizeof(r->args.id), av_str_c(sandbox_id)));
}
