/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql_usage.c - points of sandboxes, loads and hours of teams, as SQL
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "store/sql.h"

#include "base/banned.h"

int sql_points_put(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_POINTS_PUT);

	if (!st)
		return sql_error(db, &r->err, "cannot record points");
	sql_bind_text(st, 1, r->args.points.id);
	(void)sqlite3_bind_blob64(st, 2, r->text[0], r->args.points.size, SQLITE_STATIC);
	return sql_run(db, st, "cannot record points", &r->err);
}

int sql_points_get(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_POINTS_GET);
	int code, result = 0;

	if (!st)
		return sql_error(db, &r->err, "cannot read points");
	sql_bind_text(st, 1, r->args.points.id);
	code = sqlite3_step(st);
	if (code == SQLITE_ROW) {
		const void *blob = sqlite3_column_blob(st, 0);
		size_t n = (size_t)sqlite3_column_bytes(st, 0);

		r->rows = malloc(n ? n : 1);
		if (!r->rows)
			result = av_err_set(&r->err, AV_ERR_NO_MEMORY, "out of memory");
		else if (n)
			memcpy(r->rows, blob, n);
		r->n = r->rows ? n : 0;
	} else if (code != SQLITE_DONE) {
		result = sql_error(db, &r->err, "cannot read points");
	}
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return result;
}

/* (team, time, three numbers): both tables of teams begin so. */
static void bind_load(sqlite3_stmt *st, const char *team_id, int64_t at, const struct store_load *l)
{
	sql_bind_text(st, 1, team_id);
	(void)sqlite3_bind_int64(st, 2, at);
	(void)sqlite3_bind_int64(st, 3, l->running);
	(void)sqlite3_bind_int64(st, 4, l->cpu_milli);
	(void)sqlite3_bind_int64(st, 5, l->memory_mib);
}

int sql_usage_add(struct store_db *db, struct store_req *r)
{
	const struct store_usage *u = &r->args.usage;
	sqlite3_stmt *st = sql_stmt(db, ST_HOUR_ADD);

	if (!st)
		return sql_error(db, &r->err, "cannot record usage");
	bind_load(st, u->team_id, u->hour, &u->peak);
	(void)sqlite3_bind_int64(st, 6, u->cpu_milli_ms);
	(void)sqlite3_bind_int64(st, 7, u->memory_mib_ms);
	if (sql_run(db, st, "cannot record usage", &r->err) < 0)
		return -EIO;
	if (!u->at_s)
		return 0;
	st = sql_stmt(db, ST_LOAD_PUT);
	if (!st)
		return sql_error(db, &r->err, "cannot record usage");
	bind_load(st, u->team_id, u->at_s, &u->load);
	return sql_run(db, st, "cannot record usage", &r->err);
}

static void read_load(sqlite3_stmt *st, void *row)
{
	*(struct store_load_row *)row = (struct store_load_row){
	    .at_s = sqlite3_column_int64(st, 0),
	    .load = {.running = sqlite3_column_int64(st, 1),
	        .cpu_milli = sqlite3_column_int64(st, 2),
	        .memory_mib = sqlite3_column_int64(st, 3)},
	};
}

int sql_load_list(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_LOAD_LIST);

	if (!st)
		return sql_error(db, &r->err, "cannot read usage");
	sql_bind_text(st, 1, r->args.range.team_id);
	(void)sqlite3_bind_int64(st, 2, r->args.range.from);
	return sql_read_rows(
	    db, r, st, sizeof(struct store_load_row), read_load, "cannot read usage");
}

static void read_hour(sqlite3_stmt *st, void *row)
{
	*(struct store_hour_row *)row = (struct store_hour_row){
	    .hour = sqlite3_column_int64(st, 0),
	    .cpu_milli_ms = sqlite3_column_int64(st, 1),
	    .memory_mib_ms = sqlite3_column_int64(st, 2),
	    .peak = {.running = sqlite3_column_int64(st, 3),
	        .cpu_milli = sqlite3_column_int64(st, 4),
	        .memory_mib = sqlite3_column_int64(st, 5)},
	};
}

int sql_hour_list(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_HOUR_LIST);

	if (!st)
		return sql_error(db, &r->err, "cannot read usage");
	sql_bind_text(st, 1, r->args.range.team_id);
	(void)sqlite3_bind_int64(st, 2, r->args.range.from);
	(void)sqlite3_bind_int64(st, 3, r->args.range.to);
	return sql_read_rows(
	    db, r, st, sizeof(struct store_hour_row), read_hour, "cannot read usage");
}

static int prune_one(struct store_db *db, enum stmt which, int64_t before, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, which);

	if (!st)
		return sql_error(db, err, "cannot prune usage");
	(void)sqlite3_bind_int64(st, 1, before);
	return sql_run(db, st, "cannot prune usage", err);
}

int sql_usage_prune(struct store_db *db, struct store_req *r)
{
	if (prune_one(db, ST_LOAD_PRUNE, r->args.range.from, &r->err) < 0 ||
	    prune_one(db, ST_HOUR_PRUNE, r->args.range.to, &r->err) < 0)
		return -EIO;
	return 0;
}
