/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit.h - the audit log, as the store keeps it
 *
 * Rules of store.h. A record is never changed. Its number is its age as well: records are made,
 * read and forgotten in the order of their numbers, all teams' together or one team's.
 */
#pragma once

#include "store/store.h"

#define STORE_AUDIT_NAME_SIZE     256
#define STORE_AUDIT_ACTION_SIZE   48
#define STORE_AUDIT_RESOURCE_SIZE 136
#define STORE_AUDIT_FROM_SIZE     72
#define STORE_AUDIT_METADATA_SIZE 768
#define STORE_AUDIT_BATCH_MAX     256

/* How it came out. */
enum store_audit_status {
	STORE_AUDIT_SUCCESS,
	STORE_AUDIT_FAILURE,
	STORE_AUDIT_UNKNOWN, /* whoever asked went away before the answer */
};

struct store_audit {
	int64_t seq; /* real time in milliseconds << STORE_AUDIT_SEQ_SHIFT, and a part that
	                makes it unique */
	char team_id[AV_ID_SIZE]; /* empty: of no team */
	bool admin;               /* for owners and admins of the team only */
	enum store_audit_status status;
	int64_t http_status;                  /* 0: no request */
	char code[32];                        /* of the error; empty: none */
	char action[STORE_AUDIT_ACTION_SIZE]; /* "kind.what" */
	char resource_id[STORE_AUDIT_RESOURCE_SIZE];
	char actor_type[12]; /* "user", "api_key", "host", "system", "anonymous" */
	char actor_id[AV_ID_SIZE];
	char actor_name[STORE_AUDIT_NAME_SIZE];
	char user_id[AV_ID_SIZE]; /* actor_type "api_key": who made the key */
	char user_name[STORE_AUDIT_NAME_SIZE];
	char peer[STORE_AUDIT_FROM_SIZE];
	char request_id[STORE_AUDIT_FROM_SIZE];
	char metadata[STORE_AUDIT_METADATA_SIZE]; /* a JSON object; empty: none */
};

#define STORE_AUDIT_SEQ_SHIFT 20

/* All of them or none, n at most STORE_AUDIT_BATCH_MAX. A number that is taken becomes the next
 * free one. fn may be NULL. */
int store_audit_add(
    struct store *s, const struct store_audit *v, size_t n, store_done_fn *fn, void *ctx);

/* What of it is wanted; empty strings: anything. */
struct store_audit_filter {
	bool one_team; /* only records of team_id */
	char team_id[AV_ID_SIZE];
	bool no_admin;   /* none that are for owners and admins only */
	int status;      /* enum store_audit_status; -1: any */
	char types[128]; /* what stands before the '.' of an action; several between commas */
	char action[STORE_AUDIT_ACTION_SIZE]; /* whole, or what stands after the '.' */
	char resource_id[STORE_AUDIT_RESOURCE_SIZE];
	char actor[STORE_AUDIT_NAME_SIZE]; /* id or name of who did it, or of who made the key */
};

/* Looks at records one after the other, newest first from before `from` on down to `to`; oldest
 * first: from after `from` on up to `to`. Ends when `limit` of them fit, `scan` have been looked
 * at, or there are no more. */
struct store_audit_query {
	struct store_audit_filter filter;
	bool oldest_first;
	int64_t from; /* itself not included */
	int64_t to;   /* included */
	size_t limit, scan;
};
/* *last: the number of the record looked at last, where to go on; 0: there are no more. */
typedef void store_audit_fn(
    void *ctx, const struct store_audit *v, size_t n, int64_t last, const struct av_err *err);
int store_audit_read(
    struct store *s, const struct store_audit_query *q, store_audit_fn *fn, void *ctx);

struct store_audit_count {
	char team_id[AV_ID_SIZE];
	int64_t n;
};
typedef void store_audit_counts_fn(
    void *ctx, const struct store_audit_count *v, size_t n, const struct av_err *err);
/* How many each team has. Costs as much as there are: once, at the start. */
int store_audit_count(struct store *s, store_audit_counts_fn *fn, void *ctx);
/* Forgets the oldest ones, of number `before` or less, of one team (NULL: of any), at most `max`.
 * Tells whose they were; a team may come more than once. */
int store_audit_prune(struct store *s, const char *team_id, int64_t before, size_t max,
    store_audit_counts_fn *fn, void *ctx);
