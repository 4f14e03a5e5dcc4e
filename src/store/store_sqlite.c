/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_sqlite.c - the database: opening, transactions, giving back what is free
 *
 * Theory of operation. One connection in exclusive locking mode, used by one thread. A batch of
 * requests is one transaction; each writing request runs between SAVEPOINT and RELEASE, and one
 * that fails is rolled back alone. Some errors (disk full, I/O) make SQLite roll the whole
 * transaction back by itself, and COMMIT can fail: then nothing of the batch holds, and every
 * request is carried out again in a transaction of its own, so that exactly those fail which cannot
 * be written.
 *
 * A transaction that tells only what sandboxes do is not waited for until the disk has it: no
 * sandbox outlives the machine. The thread does that when it has nothing else to do, or with the
 * first transaction LAG_NS later.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/buf.h"
#include "base/fd.h"
#include "base/log.h"
#include "store/sql.h"

#include "base/banned.h"

#define BUSY_TIMEOUT_MS 5000
#define LAG_NS          (100 * AV_NS_PER_MS)
#define FREE_PAGES_KEPT 256 /* 1 MiB */

/* What is told with it is all of it (run_told). */
static int only_told(struct store_db *db, struct store_req *r)
{
	(void)db;
	(void)r;
	return 0;
}

/* A copy has the queue to itself: it never comes here. */
static int not_in_turn(struct store_db *db, struct store_req *r)
{
	(void)db;
	(void)r;
	return -EINVAL;
}

static int run_op(struct store_db *db, struct store_req *r)
{
	switch (r->op) {
#define STORE_OP(name, run, answer)                                                                \
	case STORE_OP_##name:                                                                      \
		return run(db, r);
#include "store/ops.def"
#undef STORE_OP
	}
	return -EINVAL;
}

/* With the event that goes with it. */
static int run_told(struct store_db *db, struct store_req *r)
{
	int e = run_op(db, r);

	for (const struct store_notice_text *n = r->notice; n && e == 0; n = n->next)
		e = sql_notice_put(db, n, &r->err);
	return e;
}

static bool op_reads(enum store_op op)
{
	return op == STORE_OP_SANDBOX_GET || op == STORE_OP_SANDBOX_LIVE ||
	       op == STORE_OP_SANDBOX_HISTORY || op == STORE_OP_KEY_LIST ||
	       op == STORE_OP_VALUE_GET || op == STORE_OP_LOG_GET || op == STORE_OP_POINTS_GET ||
	       op == STORE_OP_LOAD_LIST || op == STORE_OP_HOUR_LIST ||
	       op == STORE_OP_TEMPLATE_LIST || op == STORE_OP_USER_LIST ||
	       op == STORE_OP_TEAM_LIST || op == STORE_OP_MEMBER_LIST ||
	       op == STORE_OP_AUDIT_READ || op == STORE_OP_AUDIT_COUNT ||
	       op == STORE_OP_CHANNEL_LIST || op == STORE_OP_DELIVERY_NEXT ||
	       op == STORE_OP_DELIVERY_PAGE || op == STORE_OP_HOST_LIST;
}

/* ---- transactions ---- */

/* One request inside the transaction. False: the transaction is gone (SQLite rolled it back). */
static bool run_isolated(struct store_db *db, struct store_req *r)
{
	if (op_reads(r->op)) {
		(void)run_op(db, r);
		return sqlite3_get_autocommit(db->sql) == 0;
	}
	if (sql_run_plain(db, ST_SAVEPOINT, &r->err) < 0)
		return sqlite3_get_autocommit(db->sql) == 0;
	if (run_told(db, r) < 0) {
		if (sqlite3_get_autocommit(db->sql))
			return false;
		if (sql_run_plain(db, ST_ROLLBACK_TO, NULL) < 0)
			return false;
	}
	if (sql_run_plain(db, ST_RELEASE, &r->err) < 0)
		return false;
	return true;
}

static void roll_back(struct store_db *db)
{
	if (!sqlite3_get_autocommit(db->sql))
		(void)sql_run_plain(db, ST_ROLLBACK, NULL);
}

/* A transaction for this one request; its error is the answer. */
static void run_alone(struct store_db *db, struct store_req *r)
{
	if (op_reads(r->op)) {
		(void)run_op(db, r);
		return;
	}
	if (sql_run_plain(db, ST_BEGIN, &r->err) < 0)
		return;
	if (run_told(db, r) < 0 || sql_run_plain(db, ST_COMMIT, &r->err) < 0)
		roll_back(db);
}

/* False when nothing of the list holds. */
static bool run_together(struct store_db *db, struct store_req *list)
{
	if (sql_run_plain(db, ST_BEGIN, NULL) < 0)
		return false;
	for (struct store_req *r = list; r; r = r->next)
		if (!run_isolated(db, r)) {
			roll_back(db);
			return false;
		}
	if (sql_run_plain(db, ST_COMMIT, NULL) < 0) {
		roll_back(db);
		return false;
	}
	return true;
}

static bool op_may_lag(enum store_op op)
{
	return op == STORE_OP_SANDBOX_INSERT || op == STORE_OP_SANDBOX_UPDATE ||
	       op == STORE_OP_KEY_TOUCH || op == STORE_OP_POINTS_PUT || op == STORE_OP_USAGE_ADD ||
	       op == STORE_OP_AUDIT_ADD || op == STORE_OP_AUDIT_PRUNE || op == STORE_OP_NOTICE ||
	       op == STORE_OP_DELIVERY_FINISH || op == STORE_OP_HOST_TOUCH;
}

/* Says how the next transaction is written. What cannot be said is made up for by a sync after it.
 */
static void choose_sync(struct store_db *db, const struct store_req *list)
{
	bool relaxed = true, writes = false;

	for (const struct store_req *r = list; r; r = r->next) {
		writes = writes || !op_reads(r->op);
		relaxed = relaxed && (op_reads(r->op) || op_may_lag(r->op));
	}
	if (!writes)
		return;
	if (db->unsynced_ns != 0 && av_mono_ns() - db->unsynced_ns >= LAG_NS)
		store_db_sync(db);
	if (relaxed != db->relaxed &&
	    sqlite3_exec(db->sql,
	        relaxed ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL", NULL, NULL,
	        NULL) == SQLITE_OK)
		db->relaxed = relaxed;
	if (db->relaxed && db->unsynced_ns == 0)
		db->unsynced_ns = av_mono_ns();
}

bool store_db_is_behind(const struct store_db *db)
{
	return db->unsynced_ns != 0;
}

void store_db_sync(struct store_db *db)
{
	sqlite3_file *wal = NULL;

	db->unsynced_ns = 0;
	int r = sqlite3_file_control(db->sql, "main", SQLITE_FCNTL_JOURNAL_POINTER, (void *)&wal);
	if (r == SQLITE_OK && wal && wal->pMethods)
		r = wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY);
	if (r != SQLITE_OK)
		av_log(AV_LOG_ERROR,
		    "the database does not reach its disk: look at the kernel's log", "error",
		    sqlite3_errstr(r), NULL);
}

/* Pages that nothing is in: some are kept for what comes next. */
bool store_db_tidy(struct store_db *db)
{
	sqlite3_stmt *st = sql_stmt(db, ST_FREE_PAGES);
	bool more = false;

	if (st && sqlite3_step(st) == SQLITE_ROW)
		more = sqlite3_column_int64(st, 0) > FREE_PAGES_KEPT;
	(void)sqlite3_reset(st);
	if (more &&
	    sqlite3_exec(db->sql, "PRAGMA incremental_vacuum(64)", NULL, NULL, NULL) != SQLITE_OK)
		more = false;
	db->untidy = more;
	if (more && db->unsynced_ns == 0)
		db->unsynced_ns = av_mono_ns();
	return more;
}

bool store_db_is_untidy(const struct store_db *db)
{
	return db->untidy;
}

void store_db_run(struct store_db *db, struct store_req *list)
{
	choose_sync(db, list);
	for (const struct store_req *r = list; r; r = r->next)
		db->untidy = db->untidy || r->op == STORE_OP_PRUNE ||
		             r->op == STORE_OP_USAGE_PRUNE || r->op == STORE_OP_DELIVERY_FINISH ||
		             r->op == STORE_OP_CHANNEL_DELETE;
	if (list->next) {
		if (run_together(db, list))
			return;
		for (struct store_req *r = list; r; r = r->next)
			store_req_reset(r);
	}
	for (struct store_req *r = list; r; r = r->next)
		run_alone(db, r);
}

/* ---- opening ---- */

static int exec(struct store_db *db, const char *sql, const char *what, struct av_err *err)
{
	if (sqlite3_exec(db->sql, sql, NULL, NULL, NULL) != SQLITE_OK)
		return sql_error(db, err, what);
	return 0;
}

/* The file must not be readable by others from its first moment; SQLite copies its mode to the WAL.
 */
static int touch_file(const char *path, struct av_err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 && (errno == EACCES || errno == EPERM || errno == ELOOP))
		return av_err_sys(err, AV_ERR_FORBIDDEN, errno,
		    "cannot open the database %s, which must be a plain file of user %u (the one "
		    "that aviaryd runs as), group %u and mode 0600; chown and chmod it",
		    path, (unsigned int)geteuid(), (unsigned int)getegid());
	if (fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open the database %s", path);
	av_close_fd(&fd);
	return 0;
}

int store_db_open(const char *path, struct store_db **ret, struct av_err *err)
{
	struct store_db *db;
	int r = touch_file(path, err);

	if (r < 0)
		return r;
	db = calloc(1, sizeof(*db));
	if (!db)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (sqlite3_open_v2(path, &db->sql,
	        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
	        NULL) != SQLITE_OK) {
		r = db->sql ? sql_error(db, err, "cannot open the database")
		            : av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		store_db_close(db);
		return r;
	}
	(void)sqlite3_busy_timeout(db->sql, BUSY_TIMEOUT_MS);
	/* Exclusive: a second daemon on the same state is refused, and no shared memory is needed.
	 */
	r = exec(db,
	    "PRAGMA auto_vacuum = INCREMENTAL; "
	    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = "
	    "FULL; "
	    "PRAGMA foreign_keys = ON; PRAGMA cache_size = -1024; PRAGMA journal_size_limit = "
	    "4194304; "
	    "PRAGMA trusted_schema = OFF; BEGIN IMMEDIATE; COMMIT;",
	    "cannot set up the database", err);
	if (r == 0)
		r = store_db_migrate(db, path, err);
	if (r < 0) {
		av_err_prefix(err, "%s", path);
		store_db_close(db);
		return r;
	}
	*ret = db;
	return 0;
}

void store_db_close(struct store_db *db)
{
	if (!db)
		return;
	for (size_t i = 0; i < ST_COUNT; i++)
		(void)sqlite3_finalize(db->stmts[i]);
	(void)sqlite3_close(db->sql);
	free(db);
}
