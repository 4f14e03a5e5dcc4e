/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_accounts.c - requests about users, teams, members and keys, for the queue
 */
#include <errno.h>

#include "base/str.h"
#include "store/store_internal.h"

#include "base/banned.h"

int store_user_list(struct store *s, store_users_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_USER_LIST, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.users = fn;
	return store_submit(s, r, 0);
}

int store_team_list(struct store *s, store_teams_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_TEAM_LIST, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.teams = fn;
	return store_submit(s, r, 0);
}

int store_member_list(struct store *s, store_members_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_MEMBER_LIST, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.members = fn;
	return store_submit(s, r, 0);
}

int store_account_change(
    struct store *s, const struct store_account_change *ch, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_ACCOUNT_CHANGE, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.account = *ch;
	return store_submit(s, r, ch->n_dissolved > STORE_DISSOLVED_MAX ? -EINVAL : 0);
}

int store_account_prune(
    struct store *s, int64_t deleted_before_ms, size_t max, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_ACCOUNT_PRUNE, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.range.from = deleted_before_ms;
	r->args.range.to = (int64_t)max;
	return store_submit(s, r, 0);
}

int store_first_start(
    struct store *s, const struct store_first *first, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_FIRST_START, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.first = *first;
	return store_submit(s, r, 0);
}
