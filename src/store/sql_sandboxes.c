/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql_sandboxes.c - records of sandboxes and the idempotency keys that made them, as SQL
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "store/sql.h"

#include "base/banned.h"

#define PAGE_MAX 10000

static void bind_sandbox(sqlite3_stmt *st, const struct store_sandbox *rec)
{
	const int64_t numbers[] = {rec->cpu_milli, rec->memory_bytes, rec->disk_bytes,
	    rec->pids_max, rec->sudo, rec->idle_timeout_ms, rec->max_lifetime_ms, rec->created_ms,
	    rec->started_ms, rec->last_active_ms, rec->stopped_ms, rec->updated_ms,
	    rec->created_boot_ns, rec->last_active_boot_ns, rec->evidence.pid,
	    (int64_t)rec->evidence.start_ticks, (int64_t)rec->evidence.pidns_inode};

	sql_bind_text(st, 1, rec->id);
	sql_bind_text(st, 4, rec->template_name);
	sql_bind_text(st, 5, rec->template_id);
	sql_bind_text(st, 6, rec->isolation);
	sql_bind_text(st, 7, rec->state);
	(void)sqlite3_bind_int(st, 8, rec->final);
	sql_bind_text(st, 9, rec->reason);
	sql_bind_text(st, 10, rec->message);
	for (size_t i = 0; i < AV_ARRAY_LEN(numbers); i++)
		(void)sqlite3_bind_int64(st, 11 + (int)i, numbers[i]);
	sql_bind_text(st, 28, rec->evidence.boot_id);
	(void)sqlite3_bind_int(st, 31, rec->idle_delete);
	(void)sqlite3_bind_int(st, 32, rec->auto_resume);
	(void)sqlite3_bind_int(st, 33, rec->internet);
	(void)sqlite3_bind_int64(st, 34, rec->paused_ms);
}

static char *column_dup(sqlite3_stmt *st, int i)
{
	return av_str_dup(av_str_c((const char *)sqlite3_column_text(st, i)));
}

static int read_sandbox(sqlite3_stmt *st, struct store_sandbox *rec)
{
	int64_t *const numbers[] = {&rec->idle_timeout_ms, &rec->max_lifetime_ms, &rec->created_ms,
	    &rec->started_ms, &rec->last_active_ms, &rec->stopped_ms, &rec->updated_ms,
	    &rec->created_boot_ns, &rec->last_active_boot_ns, &rec->evidence.pid};

	sql_column_copy(rec->id, sizeof(rec->id), st, 0);
	sql_column_copy(rec->team_id, sizeof(rec->team_id), st, 1);
	sql_column_copy(rec->key_id, sizeof(rec->key_id), st, 2);
	sql_column_copy(rec->template_name, sizeof(rec->template_name), st, 3);
	sql_column_copy(rec->template_id, sizeof(rec->template_id), st, 4);
	sql_column_copy(rec->isolation, sizeof(rec->isolation), st, 5);
	sql_column_copy(rec->state, sizeof(rec->state), st, 6);
	rec->final = sqlite3_column_int(st, 7) != 0;
	sql_column_copy(rec->reason, sizeof(rec->reason), st, 8);
	sql_column_copy(rec->message, sizeof(rec->message), st, 9);
	rec->cpu_milli = sqlite3_column_int64(st, 10);
	rec->memory_bytes = sqlite3_column_int64(st, 11);
	rec->disk_bytes = sqlite3_column_int64(st, 12);
	rec->pids_max = sqlite3_column_int64(st, 13);
	rec->sudo = sqlite3_column_int(st, 14) != 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(numbers); i++)
		*numbers[i] = sqlite3_column_int64(st, 15 + (int)i);
	rec->evidence.start_ticks = (uint64_t)sqlite3_column_int64(st, 25);
	rec->evidence.pidns_inode = (uint64_t)sqlite3_column_int64(st, 26);
	sql_column_copy(rec->evidence.boot_id, sizeof(rec->evidence.boot_id), st, 27);
	rec->idle_delete = sqlite3_column_int(st, 30) != 0;
	rec->auto_resume = sqlite3_column_int(st, 31) != 0;
	rec->internet = sqlite3_column_int(st, 32) != 0;
	rec->paused_ms = sqlite3_column_int64(st, 33);
	rec->envs_json = column_dup(st, 28);
	rec->metadata_json = column_dup(st, 29);
	rec->tags_json = column_dup(st, 34);
	rec->ports_json = column_dup(st, 35);
	rec->main_json = column_dup(st, 36);
	sql_read_main(st, 37, &rec->main);
	sql_column_copy(rec->rollback_from, sizeof(rec->rollback_from), st, 46);
	return rec->envs_json && rec->metadata_json && rec->tags_json && rec->ports_json &&
	               rec->main_json
	           ? 0
	           : -ENOMEM;
}

/* Reads all rows of st into r->sandboxes. */
static int read_sandboxes(struct store_db *db, sqlite3_stmt *st, struct store_req *r)
{
	size_t cap = 0;
	int code, result = 0;

	while (result == 0 && (code = sqlite3_step(st)) == SQLITE_ROW) {
		if (r->n == cap) {
			size_t more = cap ? cap * 2 : 8;
			struct store_sandbox *v =
			    reallocarray(r->sandboxes, more, sizeof(*r->sandboxes));

			if (!v) {
				result = av_err_set(&r->err, AV_ERR_NO_MEMORY, "out of memory");
				break;
			}
			r->sandboxes = v;
			cap = more;
		}
		memset(&r->sandboxes[r->n], 0, sizeof(r->sandboxes[0]));
		if (read_sandbox(st, &r->sandboxes[r->n++]) < 0)
			result = av_err_set(&r->err, AV_ERR_NO_MEMORY, "out of memory");
	}
	if (result == 0 && code != SQLITE_DONE)
		result = sql_error(db, &r->err, "cannot read sandboxes");
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return result;
}

int sql_sandbox_get(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_SANDBOX_GET);

	if (!st)
		return sql_error(db, &r->err, "cannot read the sandbox");
	sql_bind_text(st, 1, r->args.id);
	return read_sandboxes(db, st, r);
}

int sql_sandbox_live(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_SANDBOX_LIVE);

	if (!st)
		return sql_error(db, &r->err, "cannot list sandboxes");
	return read_sandboxes(db, st, r);
}

int sql_sandbox_history(struct store_db *db, struct store_req *r)
{
	const struct store_page_args *a = &r->args.page;
	sqlite3_stmt *st = sql_stmt(db, ST_SANDBOX_HISTORY);

	if (!st)
		return sql_error(db, &r->err, "cannot list sandboxes");
	sql_bind_text(st, 1, a->team_id);
	(void)sqlite3_bind_int64(st, 2, a->before_ms);
	sql_bind_text(st, 3, a->before_id);
	(void)sqlite3_bind_int64(st, 4, (int64_t)AV_MIN(a->limit, (size_t)PAGE_MAX));
	return read_sandboxes(db, st, r);
}

/* Returns 1 when the key is taken by another request (r->existing_*), 0 when it is free. */
static int find_idempotency(struct store_db *db, struct store_req *r, int64_t now_ms)
{
	const char *team = r->args.insert.rec.team_id;
	sqlite3_stmt *st = sql_stmt(db, ST_IDEM_EXPIRE);
	int code;

	if (!st)
		return sql_error(db, &r->err, "cannot look up the idempotency key");
	sql_bind_text(st, 1, team);
	sql_bind_text(st, 2, r->name);
	(void)sqlite3_bind_int64(st, 3, now_ms - r->args.insert.keep_ms);
	if (sql_run(db, st, "cannot look up the idempotency key", &r->err) < 0)
		return -EIO;
	st = sql_stmt(db, ST_IDEM_GET);
	if (!st)
		return sql_error(db, &r->err, "cannot look up the idempotency key");
	sql_bind_text(st, 1, team);
	sql_bind_text(st, 2, r->name);
	code = sqlite3_step(st);
	if (code == SQLITE_ROW) {
		const void *hash = sqlite3_column_blob(st, 0);

		if (hash && sqlite3_column_bytes(st, 0) == STORE_HASH_SIZE)
			memcpy(r->existing_hash, hash, STORE_HASH_SIZE);
		sql_column_copy(r->existing_id, sizeof(r->existing_id), st, 1);
		r->has_existing = true;
	} else if (code != SQLITE_DONE) {
		(void)sql_error(db, &r->err, "cannot look up the idempotency key");
	}
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return code == SQLITE_ROW ? 1 : code == SQLITE_DONE ? 0 : -EIO;
}

static int insert_idempotency(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_IDEM_INSERT);

	if (!st)
		return sql_error(db, &r->err, "cannot record the idempotency key");
	sql_bind_text(st, 1, r->args.insert.rec.team_id);
	sql_bind_text(st, 2, r->name);
	(void)sqlite3_bind_blob(st, 3, r->args.insert.request_hash, STORE_HASH_SIZE, SQLITE_STATIC);
	sql_bind_text(st, 4, r->args.insert.rec.id);
	(void)sqlite3_bind_int64(st, 5, r->args.insert.rec.created_ms);
	return sql_run(db, st, "cannot record the idempotency key", &r->err);
}

int sql_sandbox_insert(struct store_db *db, struct store_req *r)
{
	const struct store_sandbox *rec = &r->args.insert.rec;
	sqlite3_stmt *st;

	if (r->name) {
		int found = find_idempotency(db, r, rec->created_ms);

		if (found < 0)
			return found;
		if (found > 0)
			return av_err_set(
			    &r->err, AV_ERR_CONFLICT, "the idempotency key was used before");
		if (r->args.insert.only_look)
			return av_err_set(
			    &r->err, AV_ERR_NOT_FOUND, "the idempotency key was not used before");
		if (insert_idempotency(db, r) < 0)
			return -EIO;
	}
	st = sql_stmt(db, ST_SANDBOX_INSERT);
	if (!st)
		return sql_error(db, &r->err, "cannot record the sandbox");
	bind_sandbox(st, rec);
	sql_bind_text(st, 2, rec->team_id);
	sql_bind_text(st, 3, rec->key_id);
	(void)sqlite3_bind_int64(st, 18, rec->created_ms);
	sql_bind_text(st, 29, r->text[0]);
	sql_bind_text(st, 30, r->text[1]);
	sql_bind_text(st, 35, r->text[2]);
	sql_bind_text(st, 36, r->text[3]);
	sql_bind_text(st, 37, r->text[4]);
	sql_bind_text(st, 38, rec->main.state);
	return sql_run(db, st, "cannot record the sandbox", &r->err);
}

static int release_idempotency(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_IDEM_RELEASE);

	if (!st)
		return sql_error(db, &r->err, "cannot release the idempotency key");
	sql_bind_text(st, 1, r->args.sandbox.id);
	return sql_run(db, st, "cannot release the idempotency key", &r->err);
}

static int write_labels(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_SANDBOX_LABELS);

	if (!st)
		return sql_error(db, &r->err, "cannot record the sandbox's labels");
	sql_bind_text(st, 1, r->args.sandbox.id);
	for (int i = 1; i <= 3; i++)
		sql_bind_text(st, 1 + i, r->text[i]);
	return sql_run(db, st, "cannot record the sandbox's labels", &r->err);
}

int sql_sandbox_update(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_SANDBOX_UPDATE);

	if (!st)
		return sql_error(db, &r->err, "cannot record the sandbox's state");
	bind_sandbox(st, &r->args.sandbox);
	sql_bind_text(st, 39, r->args.sandbox.rollback_from);
	if (sql_run(db, st, "cannot record the sandbox's state", &r->err) < 0)
		return -EIO;
	if (sqlite3_changes(db->sql) == 0)
		return av_err_set(
		    &r->err, AV_ERR_NOT_FOUND, "sandbox %s has no record", r->args.sandbox.id);
	if (r->args.sandbox.write_labels && write_labels(db, r) < 0)
		return -EIO;
	return r->args.sandbox.release_key ? release_idempotency(db, r) : 0;
}

static int prune_some(struct store_db *db, enum stmt which, int64_t bound, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, which);

	if (!st)
		return sql_error(db, &r->err, "cannot forget what is old");
	(void)sqlite3_bind_int64(st, 1, bound);
	(void)sqlite3_bind_int64(st, 2, (int64_t)r->args.prune.max);
	if (sql_run(db, st, "cannot forget what is old", &r->err) < 0)
		return -EIO;
	r->n += (size_t)sqlite3_changes(db->sql);
	return 0;
}

int sql_prune(struct store_db *db, struct store_req *r)
{
	const struct store_prune_args *a = &r->args.prune;

	if (prune_some(db, ST_PRUNE_OLD, a->stopped_before_ms, r) < 0 ||
	    prune_some(db, ST_PRUNE_COUNT, a->keep_newest, r) < 0 ||
	    prune_some(db, ST_PRUNE_KEYS, a->keys_before_ms, r) < 0)
		return -EIO;
	return 0;
}
