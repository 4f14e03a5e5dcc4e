/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql_keys.c - API keys, the first start and settings, as SQL
 */
#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "store/sql.h"

#include "base/banned.h"

/* ---- keys ---- */

static void read_key(sqlite3_stmt *st, void *row)
{
	const void *hash = sqlite3_column_blob(st, 5);
	struct store_key *k = row;

	sql_column_copy(k->id, sizeof(k->id), st, 0);
	sql_column_copy(k->team_id, sizeof(k->team_id), st, 1);
	sql_column_copy(k->user_id, sizeof(k->user_id), st, 2);
	sql_column_copy(k->name, sizeof(k->name), st, 3);
	sql_column_copy(k->prefix, sizeof(k->prefix), st, 4);
	if (hash && sqlite3_column_bytes(st, 5) == STORE_HASH_SIZE)
		memcpy(k->hash, hash, STORE_HASH_SIZE);
	sql_column_copy(k->scopes, sizeof(k->scopes), st, 6);
	k->expires_ms = sqlite3_column_int64(st, 7);
	sql_read_quota(st, 8, &k->quota);
	k->created_ms = sqlite3_column_int64(st, 13);
	k->last_used_ms = sqlite3_column_int64(st, 14);
}

int sql_key_list(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_KEY_LIST);

	return sql_read_rows(db, r, st, sizeof(struct store_key), read_key, "cannot read keys");
}

int sql_key_put(struct store_db *db, const struct store_key *k, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, ST_KEY_PUT);

	if (!st)
		return sql_error(db, err, "cannot record the key");
	sql_bind_text(st, 1, k->id);
	sql_bind_text(st, 2, k->team_id);
	sql_bind_text(st, 3, k->user_id);
	sql_bind_text(st, 4, k->name);
	sql_bind_text(st, 5, k->prefix);
	(void)sqlite3_bind_blob(st, 6, k->hash, STORE_HASH_SIZE, SQLITE_STATIC);
	sql_bind_text(st, 7, k->scopes);
	(void)sqlite3_bind_int64(st, 8, k->expires_ms);
	sql_bind_quota(st, 9, &k->quota);
	(void)sqlite3_bind_int64(st, 14, k->created_ms);
	(void)sqlite3_bind_int64(st, 15, k->last_used_ms);
	return sql_run(db, st, "cannot record the key", err);
}

int sql_key_touch(struct store_db *db, struct store_req *r)
{
	const struct store_touch_args *a = &r->args.touch;
	sqlite3_stmt *st = sql_stmt(db, ST_KEY_TOUCH);

	if (!st)
		return sql_error(db, &r->err, "cannot record the use of a key");
	sql_bind_text(st, 1, a->id);
	(void)sqlite3_bind_int64(st, 2, a->last_used_ms);
	return sql_run(db, st, "cannot record the use of a key", &r->err);
}

/* ---- the first start ---- */

int sql_first_start(struct store_db *db, struct store_req *r)
{
	const struct store_first *f = &r->args.first;
	struct store_account_change ch = {0};
	sqlite3_stmt *st = sql_stmt(db, ST_USER_ANY);
	int code;

	if (!st)
		return sql_error(db, &r->err, "cannot look for users");
	code = sqlite3_step(st);
	(void)sqlite3_reset(st);
	if (code == SQLITE_ROW)
		return av_err_set(&r->err, AV_ERR_CONFLICT, "there is an administrator already");
	if (code != SQLITE_DONE)
		return sql_error(db, &r->err, "cannot look for users");
	ch.user = f->user;
	ch.team = f->team;
	ch.member = f->member;
	ch.keys[0] = f->key;
	if (sql_account_write(db, &ch, &r->err) < 0)
		return -EIO;
	st = sql_stmt(db, ST_VALUE_SET);
	if (!st)
		return sql_error(db, &r->err, "cannot record the first start");
	sql_bind_text(st, 1, "first_start");
	sql_bind_text(st, 2, "done");
	return sql_run(db, st, "cannot record the first start", &r->err);
}

/* ---- settings ---- */

int sql_value_get(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_VALUE_GET);
	int code, result = 0;

	if (!st)
		return sql_error(db, &r->err, "cannot read a setting");
	sql_bind_text(st, 1, r->name);
	code = sqlite3_step(st);
	if (code == SQLITE_ROW) {
		r->text[0] = av_str_dup(av_str_c((const char *)sqlite3_column_text(st, 0)));
		if (!r->text[0])
			result = av_err_set(&r->err, AV_ERR_NO_MEMORY, "out of memory");
	} else if (code != SQLITE_DONE) {
		result = sql_error(db, &r->err, "cannot read a setting");
	}
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return result;
}

int sql_value_set(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_VALUE_SET);

	if (!st)
		return sql_error(db, &r->err, "cannot record a setting");
	sql_bind_text(st, 1, r->name);
	sql_bind_text(st, 2, r->text[0]);
	return sql_run(db, st, "cannot record a setting", &r->err);
}
