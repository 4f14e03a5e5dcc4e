/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql.h - only for files of src/store that speak SQL: statements, and one function for each request
 *
 * Everything here runs on the store's thread. The functions below the line carry out one request
 * each inside a transaction that the caller (store_sqlite.c) opened, and return 0 or -errno with
 * r->err filled; what a failed one wrote is rolled back by the caller.
 */
#pragma once

#include <sqlite3.h>

#include "store/store_internal.h"

/* Statements that stay prepared. */
enum stmt {
#define STORE_STMT(name, text) ST_##name,
#include "store/statements.def"
#undef STORE_STMT
	ST_COUNT
};

struct store_db {
	sqlite3 *sql;
	sqlite3_stmt *stmts[ST_COUNT];
	bool relaxed;        /* PRAGMA synchronous is NORMAL just now */
	bool untidy;         /* something was forgotten: pages may be free */
	int64_t unsynced_ns; /* since when something is written that is not on disk; 0: nothing */
};

/* Fills err from SQLite's last error; `what` says what could not be done. */
int sql_error(struct store_db *db, struct av_err *err, const char *what);
/* Prepared at the first use; NULL when it cannot be (sql_error tells why). */
sqlite3_stmt *sql_stmt(struct store_db *db, enum stmt which);
/* The text of a statement; for tests. */
const char *sql_stmt_text(enum stmt which);
/* Runs a statement that gives no rows, and resets it with its bindings. */
int sql_run(struct store_db *db, sqlite3_stmt *st, const char *what, struct av_err *err);
/* One that takes no parameters. err may be NULL. */
int sql_run_plain(struct store_db *db, enum stmt which, struct av_err *err);
/* s must live until the statement was reset. */
void sql_bind_text(sqlite3_stmt *st, int i, const char *s);
/* Cuts what does not fit. */
void sql_column_copy(char *dst, size_t size, sqlite3_stmt *st, int i);

/* ---- requests ---- */

/* sql_sandboxes.c */
int sql_sandbox_insert(struct store_db *db, struct store_req *r);
int sql_sandbox_update(struct store_db *db, struct store_req *r);
int sql_sandbox_get(struct store_db *db, struct store_req *r);
int sql_sandbox_live(struct store_db *db, struct store_req *r);
int sql_sandbox_history(struct store_db *db, struct store_req *r);
int sql_prune(struct store_db *db, struct store_req *r);

/* Calls read(st, row) for each row of a bound statement, rows of size bytes that r->rows gets. */
int sql_read_rows(struct store_db *db, struct store_req *r, sqlite3_stmt *st, size_t size,
    void (*read)(sqlite3_stmt *st, void *row), const char *what);
void sql_bind_quota(sqlite3_stmt *st, int first, const struct store_quota *q);
void sql_read_quota(sqlite3_stmt *st, int first, struct store_quota *ret);

/* sql_accounts.c */
int sql_user_list(struct store_db *db, struct store_req *r);
int sql_team_list(struct store_db *db, struct store_req *r);
int sql_member_list(struct store_db *db, struct store_req *r);
/* What store_account_change does, inside another request. */
int sql_account_write(
    struct store_db *db, const struct store_account_change *ch, struct av_err *err);
int sql_account_change(struct store_db *db, struct store_req *r);
int sql_account_prune(struct store_db *db, struct store_req *r);

/* sql_keys.c */
int sql_key_list(struct store_db *db, struct store_req *r);
/* Makes it, or writes name, end and quota over. */
int sql_key_put(struct store_db *db, const struct store_key *k, struct av_err *err);
int sql_key_touch(struct store_db *db, struct store_req *r);
int sql_first_start(struct store_db *db, struct store_req *r);
int sql_value_get(struct store_db *db, struct store_req *r);
int sql_value_set(struct store_db *db, struct store_req *r);

/* sql_audit.c */
int sql_audit_add(struct store_db *db, struct store_req *r);
int sql_audit_read(struct store_db *db, struct store_req *r);
int sql_audit_count(struct store_db *db, struct store_req *r);
int sql_audit_prune(struct store_db *db, struct store_req *r);
/* sql_channels.c */
int sql_channel_list(struct store_db *db, struct store_req *r);
int sql_channel_insert(struct store_db *db, struct store_req *r);
int sql_channel_update(struct store_db *db, struct store_req *r);
int sql_channel_delete(struct store_db *db, struct store_req *r);
/* Inside another request: those of a team that is dissolved; an event. */
int sql_channel_drop_team(struct store_db *db, const char *team_id, struct av_err *err);
int sql_notice_put(struct store_db *db, const struct store_notice_text *n, struct av_err *err);
int sql_delivery_next(struct store_db *db, struct store_req *r);
int sql_delivery_finish(struct store_db *db, struct store_req *r);
int sql_delivery_page(struct store_db *db, struct store_req *r);
int sql_delivery_again(struct store_db *db, struct store_req *r);

/* sql_hosts.c */
int sql_host_list(struct store_db *db, struct store_req *r);
int sql_host_put(struct store_db *db, struct store_req *r);
int sql_host_delete(struct store_db *db, struct store_req *r);
int sql_host_touch(struct store_db *db, struct store_req *r);

/* sql_main.c */
void sql_read_main(sqlite3_stmt *st, int first, struct store_main *m);
int sql_main_update(struct store_db *db, struct store_req *r);
int sql_log_put(struct store_db *db, struct store_req *r);
int sql_log_get(struct store_db *db, struct store_req *r);

/* sql_usage.c */
int sql_points_put(struct store_db *db, struct store_req *r);
int sql_points_get(struct store_db *db, struct store_req *r);
int sql_usage_add(struct store_db *db, struct store_req *r);
int sql_load_list(struct store_db *db, struct store_req *r);
int sql_hour_list(struct store_db *db, struct store_req *r);
int sql_usage_prune(struct store_db *db, struct store_req *r);

/* sql_templates.c */
int sql_template_list(struct store_db *db, struct store_req *r);
int sql_template_insert(struct store_db *db, struct store_req *r);
int sql_template_publish(struct store_db *db, struct store_req *r);
int sql_template_mark(struct store_db *db, struct store_req *r);
int sql_template_remove(struct store_db *db, struct store_req *r);
