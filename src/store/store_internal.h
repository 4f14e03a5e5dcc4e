/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_internal.h - only for files of src/store and its tests: a request, and the database below
 *
 * The queue (store.c) knows threads and nothing of SQL; the database (store_sqlite.c, sql*.c) knows
 * SQL and runs on the store's thread only.
 */
#pragma once

#include "store/accounts.h"
#include "store/audit.h"
#include "store/channels.h"
#include "store/hosts.h"
#include "store/store.h"

enum store_op {
#define STORE_OP(name, run, answer) STORE_OP_##name,
#include "store/ops.def"
#undef STORE_OP
};

struct store_page_args {
	char team_id[AV_ID_SIZE];
	char before_id[AV_ID_SIZE];
	int64_t before_ms;
	size_t limit;
};

struct store_prune_args {
	int64_t stopped_before_ms, keep_newest, keys_before_ms;
	size_t max;
};

struct store_touch_args {
	char id[AV_ID_SIZE];
	int64_t last_used_ms;
};

struct store_points_args {
	char id[AV_ID_SIZE];
	size_t size; /* of text[0] */
};

struct store_main_args {
	char id[AV_ID_SIZE];
	struct store_main rec;
};

struct store_log_args {
	char id[AV_ID_SIZE];
	size_t size; /* of text[0] */
	int64_t total_max;
};

struct store_range_args {
	char team_id[AV_ID_SIZE];
	int64_t from, to;
};

struct store_template_args {
	struct store_template rec;
	char other[AV_ID_SIZE]; /* insert: the user; publish: what is replaced, or empty */
};

/* An event that is written with a request. */
struct store_notice_text {
	struct store_notice_text *next; /* owned */
	char team_id[AV_ID_SIZE];
	char event[STORE_EVENT_SIZE];
	char *body; /* owned */
	int64_t at_ms;
};
/* NULL: out of memory, or what it says does not fit. */
struct store_notice_text *store_notice_dup(const struct store_notice *notice);
void store_notice_free(struct store_notice_text *n);

struct store_delivery_args {
	struct store_delivery rec; /* page: seq is where to begin */
	int64_t failing_ms, limit;
};

struct store_insert_args {
	struct store_sandbox rec;
	uint8_t request_hash[STORE_HASH_SIZE];
	int64_t keep_ms;
	bool only_look; /* for the idempotency key */
};

struct store_audit_read_args {
	struct store_audit_query query;
	int64_t last;
};

struct store_audit_prune_args {
	bool one_team;
	char team_id[AV_ID_SIZE];
	int64_t before;
	size_t max;
};

/* One request on its way: arguments, then results. All pointers are owned. */
struct store_req {
	struct store_req *next;
	enum store_op op;
	int64_t queued_ns;
	union {
		store_done_fn *done;
		store_count_fn *count;
		store_insert_fn *insert;
		store_sandboxes_fn *sandboxes;
		store_keys_fn *keys;
		store_value_fn *value;
		store_points_fn *points;
		store_log_fn *log;
		store_loads_fn *loads;
		store_hours_fn *hours;
		store_templates_fn *templates;
		store_channels_fn *channels;
		store_deliveries_fn *deliveries;
		store_copy_fn *copy;
		store_users_fn *users;
		store_teams_fn *teams;
		store_members_fn *members;
		store_audit_fn *audit;
		store_hosts_fn *hosts;
		store_audit_counts_fn *audit_counts;
	} fn;
	void *ctx;

	char *text[5]; /* insert: envs, metadata, tags, ports, main; update: the three in between;
	                  settings: value; points; records of the audit log; a log */
	char *name;    /* idempotency key or name of a setting */
	union {
		struct store_insert_args insert;
		struct store_sandbox sandbox; /* update */
		char id[AV_ID_SIZE];          /* get */
		struct store_page_args page;
		struct store_prune_args prune;
		struct store_touch_args touch;
		struct store_first first;
		struct store_points_args points;
		struct store_main_args main;
		struct store_log_args log;
		struct store_usage usage;
		struct store_range_args range;
		struct store_template_args template;
		struct store_channel channel; /* its config is text[0] */
		struct store_delivery_args delivery;
		struct store_account_change account;
		struct store_host host;
		size_t audit_n; /* of text[0] */
		struct store_audit_read_args audit_read;
		struct store_audit_prune_args audit_prune;
	} args;

	struct store_notice_text *notice; /* written with it; or NULL */
	struct av_err err;
	struct store_sandbox *sandboxes; /* their JSON texts are owned by the array's entries */
	void *rows;                      /* points as bytes, or records of another kind */
	size_t n;
	int copy_fd; /* of STORE_OP_COPY: owned; -1: none */
	bool has_existing;
	uint8_t existing_hash[STORE_HASH_SIZE];
	char existing_id[AV_ID_SIZE];
};

/* Frees results and forgets the error, so that the request can be carried out again. */
void store_req_reset(struct store_req *r);

/* Queues it, or frees it when error says that it could not be filled, or the queue is full. */
struct store_req *store_req_new(enum store_op op, void *ctx);
int store_submit(struct store *s, struct store_req *r, int error);

struct store_db;

extern const char *const store_migrations[];
extern const size_t store_migrations_count;

int store_db_open(const char *path, struct store_db **ret, struct av_err *err);
void store_db_close(struct store_db *db);
/* store_migrate.c: see there. path: of the database. */
int store_db_migrate(struct store_db *db, const char *path, struct av_err *err);
/* Whether something was forgotten since store_db_tidy() last had nothing to do. */
bool store_db_is_untidy(const struct store_db *db);
/* Gives a few free pages back to the file system; false: none is to spare. Blocks for a moment. */
bool store_db_tidy(struct store_db *db);
/* Carries out the requests of the list in one transaction if it can, else each in its own. Every
 * request ends with its results or its error set. */
void store_db_run(struct store_db *db, struct store_req *list);
/* Whether something of it is written and not on disk yet. */
bool store_db_is_behind(const struct store_db *db);
/* Brings that to the disk. Blocks. A failure is logged. */
void store_db_sync(struct store_db *db);
