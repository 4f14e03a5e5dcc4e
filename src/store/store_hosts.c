/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_hosts.c - requests about hosts, for the queue
 */
#include <errno.h>

#include "base/str.h"
#include "store/store_internal.h"

#include "base/banned.h"

int store_host_list(struct store *s, store_hosts_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_HOST_LIST, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.hosts = fn;
	return store_submit(s, r, 0);
}

int store_host_put(struct store *s, const struct store_host *rec, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_HOST_PUT, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.host = *rec;
	return store_submit(s, r, 0);
}

int store_host_delete(struct store *s, const char *id, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_HOST_DELETE, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	return store_submit(s, r, av_str_copy(r->args.id, sizeof(r->args.id), av_str_c(id)));
}

int store_host_touch(struct store *s, const char *id, int64_t heartbeat_ms)
{
	struct store_req *r = store_req_new(STORE_OP_HOST_TOUCH, NULL);

	if (!r)
		return -ENOMEM;
	r->args.touch.last_used_ms = heartbeat_ms;
	return store_submit(
	    s, r, av_str_copy(r->args.touch.id, sizeof(r->args.touch.id), av_str_c(id)));
}
