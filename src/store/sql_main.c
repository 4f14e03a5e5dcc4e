/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql_main.c - how main commands go on, and their saved logs, as SQL
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "store/sql.h"

#include "base/banned.h"

void sql_read_main(sqlite3_stmt *st, int first, struct store_main *m)
{
	int64_t *const numbers[] = {
	    &m->pid, &m->exit_code, &m->exit_signal, &m->started_ms, &m->finished_ms, &m->stop_ms};

	sql_column_copy(m->state, sizeof(m->state), st, first);
	for (size_t i = 0; i < AV_ARRAY_LEN(numbers); i++)
		*numbers[i] = sqlite3_column_int64(st, first + 1 + (int)i);
	sql_column_copy(m->stop_snapshot, sizeof(m->stop_snapshot), st, first + 7);
	sql_column_copy(m->stop_by, sizeof(m->stop_by), st, first + 8);
}

int sql_main_update(struct store_db *db, struct store_req *r)
{
	const struct store_main *m = &r->args.main.rec;
	const int64_t numbers[] = {
	    m->pid, m->exit_code, m->exit_signal, m->started_ms, m->finished_ms, m->stop_ms};
	sqlite3_stmt *st = sql_stmt(db, ST_MAIN_UPDATE);

	if (!st)
		return sql_error(db, &r->err, "cannot record the main command");
	sql_bind_text(st, 1, r->args.main.id);
	sql_bind_text(st, 2, m->state);
	for (size_t i = 0; i < AV_ARRAY_LEN(numbers); i++)
		(void)sqlite3_bind_int64(st, 3 + (int)i, numbers[i]);
	sql_bind_text(st, 9, m->stop_snapshot);
	sql_bind_text(st, 10, m->stop_by);
	return sql_run(db, st, "cannot record the main command", &r->err);
}

/* ---- logs ---- */

static int total_size(struct store_db *db, int64_t *ret, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, ST_LOG_TOTAL);
	int code;

	if (!st)
		return sql_error(db, err, "cannot save the log");
	code = sqlite3_step(st);
	*ret = code == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
	(void)sqlite3_reset(st);
	return code == SQLITE_ROW ? 0 : sql_error(db, err, "cannot save the log");
}

/* The oldest of the team that has the most go until all together fit. */
static int make_room(struct store_db *db, int64_t max, struct av_err *err)
{
	int64_t total = 0;

	while (total_size(db, &total, err) == 0) {
		if (total <= max)
			return 0;
		if (sql_run_plain(db, ST_LOG_DROP_OLDEST, err) < 0)
			return -EIO;
		if (sqlite3_changes(db->sql) == 0)
			return av_err_set(err, AV_ERR_INTERNAL,
			    "the database counts saved logs that are not there");
	}
	return -EIO;
}

int sql_log_put(struct store_db *db, struct store_req *r)
{
	const struct store_log_args *a = &r->args.log;
	sqlite3_stmt *st;

	if (make_room(db, AV_MAX(a->total_max - (int64_t)a->size, 0), &r->err) < 0)
		return -EIO;
	st = sql_stmt(db, ST_LOG_PUT);
	if (!st)
		return sql_error(db, &r->err, "cannot save the log");
	sql_bind_text(st, 1, a->id);
	(void)sqlite3_bind_int64(st, 2, (int64_t)a->size);
	(void)sqlite3_bind_blob64(st, 3, r->text[0], a->size, SQLITE_STATIC);
	return sql_run(db, st, "cannot save the log", &r->err);
}

int sql_log_get(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_LOG_GET);
	int code, result = 0;

	if (!st)
		return sql_error(db, &r->err, "cannot read the log");
	sql_bind_text(st, 1, r->args.id);
	code = sqlite3_step(st);
	if (code == SQLITE_ROW) {
		const void *blob = sqlite3_column_blob(st, 0);

		r->n = (size_t)sqlite3_column_bytes(st, 0);
		r->rows = av_mem_dup(r->n ? blob : "", r->n);
		if (!r->rows) {
			r->n = 0;
			result = av_err_set(&r->err, AV_ERR_NO_MEMORY, "out of memory");
		}
	} else if (code != SQLITE_DONE) {
		result = sql_error(db, &r->err, "cannot read the log");
	}
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return result;
}
