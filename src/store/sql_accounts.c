/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql_accounts.c - keys, users, teams and settings, as SQL
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "store/sql.h"

#include "base/banned.h"

static void read_key(sqlite3_stmt *st, struct store_key *k)
{
	const void *hash = sqlite3_column_blob(st, 5);

	memset(k, 0, sizeof(*k));
	sql_column_copy(k->id, sizeof(k->id), st, 0);
	sql_column_copy(k->team_id, sizeof(k->team_id), st, 1);
	sql_column_copy(k->user_id, sizeof(k->user_id), st, 2);
	sql_column_copy(k->name, sizeof(k->name), st, 3);
	sql_column_copy(k->prefix, sizeof(k->prefix), st, 4);
	if (hash && sqlite3_column_bytes(st, 5) == STORE_HASH_SIZE)
		memcpy(k->hash, hash, STORE_HASH_SIZE);
	k->created_ms = sqlite3_column_int64(st, 6);
	k->last_used_ms = sqlite3_column_int64(st, 7);
}

int sql_key_list(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_KEY_LIST);
	int code, result = 0;

	if (!st)
		return sql_error(db, &r->err, "cannot read keys");
	while ((code = sqlite3_step(st)) == SQLITE_ROW) {
		struct store_key *v = reallocarray(r->keys, r->n + 1, sizeof(*v));

		if (!v) {
			result = av_err_set(&r->err, AV_ERR_NO_MEMORY, "out of memory");
			break;
		}
		r->keys = v;
		read_key(st, &v[r->n++]);
	}
	if (result == 0 && code != SQLITE_DONE)
		result = sql_error(db, &r->err, "cannot read keys");
	(void)sqlite3_reset(st);
	return result;
}

static int insert_key(struct store_db *db, const struct store_key *k, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, ST_KEY_INSERT);

	if (!st)
		return sql_error(db, err, "cannot record the key");
	sql_bind_text(st, 1, k->id);
	sql_bind_text(st, 2, k->team_id);
	sql_bind_text(st, 3, k->user_id);
	sql_bind_text(st, 4, k->name);
	sql_bind_text(st, 5, k->prefix);
	(void)sqlite3_bind_blob(st, 6, k->hash, STORE_HASH_SIZE, SQLITE_STATIC);
	(void)sqlite3_bind_int64(st, 7, k->created_ms);
	(void)sqlite3_bind_int64(st, 8, k->last_used_ms);
	return sql_run(db, st, "cannot record the key", err);
}

int sql_key_insert(struct store_db *db, struct store_req *r)
{
	return insert_key(db, &r->args.key, &r->err);
}

int sql_key_delete(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_KEY_DELETE);

	if (!st)
		return sql_error(db, &r->err, "cannot delete the key");
	sql_bind_text(st, 1, r->args.id);
	return sql_run(db, st, "cannot delete the key", &r->err);
}

int sql_key_touch(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_KEY_TOUCH);

	if (!st)
		return sql_error(db, &r->err, "cannot record the use of a key");
	sql_bind_text(st, 1, r->args.touch.id);
	(void)sqlite3_bind_int64(st, 2, r->args.touch.last_used_ms);
	return sql_run(db, st, "cannot record the use of a key", &r->err);
}

/* INSERT of (text, text, number), which users, teams and members all are. */
static int insert_named(struct store_db *db, enum stmt which, const char *a, const char *b,
    int64_t at_ms, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, which);

	if (!st)
		return sql_error(db, err, "cannot record the first user");
	sql_bind_text(st, 1, a);
	sql_bind_text(st, 2, b);
	(void)sqlite3_bind_int64(st, 3, at_ms);
	return sql_run(db, st, "cannot record the first user", err);
}

int sql_first_start(struct store_db *db, struct store_req *r)
{
	const struct store_first *f = &r->args.first;
	int64_t now = f->key.created_ms;
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
	if (insert_named(db, ST_USER_INSERT, f->user_id, f->user_name, now, &r->err) < 0 ||
	    insert_named(db, ST_TEAM_INSERT, f->team_id, f->team_name, now, &r->err) < 0 ||
	    insert_named(db, ST_MEMBER_INSERT, f->team_id, f->user_id, now, &r->err) < 0)
		return -EIO;
	st = sql_stmt(db, ST_VALUE_SET);
	if (!st)
		return sql_error(db, &r->err, "cannot record the first start");
	sql_bind_text(st, 1, "first_start");
	sql_bind_text(st, 2, "done");
	if (sql_run(db, st, "cannot record the first start", &r->err) < 0)
		return -EIO;
	return insert_key(db, &f->key, &r->err);
}

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
