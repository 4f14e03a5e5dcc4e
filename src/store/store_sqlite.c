/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_sqlite.c - the database: opening, migrations, transactions and the requests as SQL
 *
 * Theory of operation. One connection in exclusive locking mode, used by one thread. A batch of
 * requests is one transaction; each writing request runs between SAVEPOINT and RELEASE, and one
 * that fails is rolled back alone. Some errors (disk full, I/O) make SQLite roll the whole
 * transaction back by itself, and COMMIT can fail: then nothing of the batch holds, and every
 * request is carried out again in a transaction of its own, so that exactly those fail which cannot
 * be written.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/buf.h"
#include "base/fd.h"
#include "base/str.h"
#include "store/store_internal.h"

#include "base/banned.h"

#define LIST_MAX        100000
#define BUSY_TIMEOUT_MS 5000

/* Statements that stay prepared. */
enum stmt {
	ST_BEGIN,
	ST_COMMIT,
	ST_ROLLBACK,
	ST_SAVEPOINT,
	ST_RELEASE,
	ST_ROLLBACK_TO,
	ST_IDEM_EXPIRE,
	ST_IDEM_GET,
	ST_IDEM_INSERT,
	ST_IDEM_RELEASE,
	ST_SANDBOX_INSERT,
	ST_SANDBOX_UPDATE,
	ST_SANDBOX_GET,
	ST_SANDBOX_LIST,
	ST_PRUNE_OLD,
	ST_PRUNE_COUNT,
	ST_PRUNE_KEYS,
	ST_KEY_LIST,
	ST_KEY_INSERT,
	ST_KEY_DELETE,
	ST_KEY_TOUCH,
	ST_USER_ANY,
	ST_USER_INSERT,
	ST_TEAM_INSERT,
	ST_MEMBER_INSERT,
	ST_VALUE_GET,
	ST_VALUE_SET,
	ST_COUNT
};

#define SANDBOX_COLUMNS                                                                            \
	"id, team_id, key_id, template_name, template_id, isolation, state, final, reason, "       \
	"message, cpu_milli, memory_bytes, disk_bytes, pids_max, sudo, idle_timeout_ms, "          \
	"max_lifetime_ms, created_ms, started_ms, last_active_ms, stopped_ms, updated_ms, "        \
	"created_boot_ns, last_active_boot_ns, pid, start_ticks, pidns_inode, boot_id, envs, "     \
	"metadata"

static const char *const sql_texts[ST_COUNT] = {
    [ST_BEGIN] = "BEGIN IMMEDIATE",
    [ST_COMMIT] = "COMMIT",
    [ST_ROLLBACK] = "ROLLBACK",
    [ST_SAVEPOINT] = "SAVEPOINT one",
    [ST_RELEASE] = "RELEASE one",
    [ST_ROLLBACK_TO] = "ROLLBACK TO one",
    [ST_IDEM_EXPIRE] =
        "DELETE FROM idempotency_keys WHERE team_id = ?1 AND key = ?2 AND created_ms < ?3",
    [ST_IDEM_GET] = "SELECT request_hash, sandbox_id FROM idempotency_keys "
                    "WHERE team_id = ?1 AND key = ?2",
    [ST_IDEM_INSERT] = "INSERT INTO idempotency_keys (team_id, key, request_hash, sandbox_id, "
                       "created_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
    [ST_IDEM_RELEASE] = "DELETE FROM idempotency_keys WHERE sandbox_id = ?1",
    [ST_SANDBOX_INSERT] = "INSERT INTO sandboxes (" SANDBOX_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, "
                          "?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, "
                          "?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)",
    /* Numbered as the columns of the insert, so that one function binds both. */
    [ST_SANDBOX_UPDATE] =
        "UPDATE sandboxes SET isolation = ?6, state = ?7, final = ?8, reason = ?9, message = ?10, "
        "cpu_milli = ?11, memory_bytes = ?12, disk_bytes = ?13, pids_max = ?14, sudo = ?15, "
        "idle_timeout_ms = ?16, max_lifetime_ms = ?17, started_ms = ?19, last_active_ms = ?20, "
        "stopped_ms = ?21, updated_ms = ?22, created_boot_ns = ?23, last_active_boot_ns = ?24, "
        "pid = ?25, start_ticks = ?26, pidns_inode = ?27, boot_id = ?28 WHERE id = ?1",
    [ST_SANDBOX_GET] = "SELECT " SANDBOX_COLUMNS " FROM sandboxes WHERE id = ?1",
    [ST_SANDBOX_LIST] =
        "SELECT " SANDBOX_COLUMNS " FROM sandboxes WHERE (?1 = '' OR team_id = ?1) "
        "AND final BETWEEN ?2 AND ?3 AND (?4 = 0 OR created_ms < ?4 OR (created_ms = ?4 AND "
        "seq < (SELECT seq FROM sandboxes WHERE id = ?5))) ORDER BY created_ms DESC, seq DESC "
        "LIMIT ?6",
    [ST_PRUNE_OLD] = "DELETE FROM sandboxes WHERE final = 1 AND stopped_ms < ?1",
    [ST_PRUNE_COUNT] = "DELETE FROM sandboxes WHERE final = 1 AND stopped_ms <= (SELECT stopped_ms "
                       "FROM sandboxes WHERE final = 1 ORDER BY stopped_ms DESC LIMIT 1 OFFSET ?1)",
    [ST_PRUNE_KEYS] = "DELETE FROM idempotency_keys WHERE created_ms < ?1",
    [ST_KEY_LIST] = "SELECT id, team_id, user_id, name, prefix, hash, created_ms, last_used_ms "
                    "FROM api_keys ORDER BY created_ms, id",
    [ST_KEY_INSERT] = "INSERT INTO api_keys (id, team_id, user_id, name, prefix, hash, created_ms, "
                      "last_used_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    [ST_KEY_DELETE] = "DELETE FROM api_keys WHERE id = ?1",
    [ST_KEY_TOUCH] = "UPDATE api_keys SET last_used_ms = ?2 WHERE id = ?1 AND last_used_ms < ?2",
    [ST_USER_ANY] = "SELECT 1 FROM users LIMIT 1",
    [ST_USER_INSERT] = "INSERT INTO users (id, name, is_admin, created_ms) VALUES (?1, ?2, 1, ?3)",
    [ST_TEAM_INSERT] = "INSERT INTO teams (id, name, created_ms) VALUES (?1, ?2, ?3)",
    [ST_MEMBER_INSERT] = "INSERT INTO team_members (team_id, user_id, role, joined_ms) "
                         "VALUES (?1, ?2, 'owner', ?3)",
    [ST_VALUE_GET] = "SELECT value FROM settings WHERE name = ?1",
    [ST_VALUE_SET] = "INSERT INTO settings (name, value) VALUES (?1, ?2) "
                     "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
};

struct store_db {
	sqlite3 *sql;
	sqlite3_stmt *stmts[ST_COUNT];
};

/* ---- errors ---- */

static int sql_error(struct store_db *db, struct av_err *err, const char *what)
{
	int code = sqlite3_extended_errcode(db->sql);
	enum av_err_kind kind = AV_ERR_INTERNAL;
	int eno;

	switch (code & 0xff) {
	case SQLITE_FULL:
		return av_err_set(err, AV_ERR_NO_SPACE,
		    "%s: no space left for Aviary's database; free space on the disk that holds "
		    "the "
		    "state directory and try again",
		    what);
	case SQLITE_NOMEM:
		kind = AV_ERR_NO_MEMORY;
		break;
	case SQLITE_CONSTRAINT:
		kind = AV_ERR_CONFLICT;
		break;
	case SQLITE_IOERR:
		eno = sqlite3_system_errno(db->sql);
		if (eno == ENOSPC || eno == EDQUOT)
			kind = AV_ERR_NO_SPACE;
		return av_err_set(err, kind,
		    "%s: the disk that holds Aviary's database failed (%s%s%s); nothing was "
		    "recorded",
		    what, sqlite3_errmsg(db->sql), eno ? ", " : "", eno ? strerror(eno) : "");
	default:
		break;
	}
	return av_err_set(err, kind, "%s: database: %s (%d)", what, sqlite3_errmsg(db->sql), code);
}

/* ---- statements ---- */

static sqlite3_stmt *stmt_get(struct store_db *db, enum stmt which)
{
	if (!db->stmts[which])
		(void)sqlite3_prepare_v3(db->sql, sql_texts[which], -1, SQLITE_PREPARE_PERSISTENT,
		    &db->stmts[which], NULL);
	return db->stmts[which];
}

/* Runs a statement that gives no rows. */
static int stmt_run(struct store_db *db, sqlite3_stmt *st, const char *what, struct av_err *err)
{
	int code = sqlite3_step(st);
	int r = 0;

	if (code != SQLITE_DONE && code != SQLITE_ROW)
		r = sql_error(db, err, what);
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return r;
}

static int run_plain(struct store_db *db, enum stmt which, struct av_err *err)
{
	sqlite3_stmt *st = stmt_get(db, which);

	if (!st)
		return sql_error(db, err, "cannot record the change");
	return stmt_run(db, st, "cannot record the change", err);
}

static void bind_text(sqlite3_stmt *st, int i, const char *s)
{
	(void)sqlite3_bind_text(st, i, s, -1, SQLITE_STATIC);
}

static void column_copy(char *dst, size_t size, sqlite3_stmt *st, int i)
{
	const char *s = (const char *)sqlite3_column_text(st, i);
	size_t n = s ? strlen(s) : 0;

	if (n >= size)
		n = size - 1;
	if (n)
		memcpy(dst, s, n);
	dst[n] = '\0';
}

/* ---- sandboxes ---- */

static void bind_sandbox(sqlite3_stmt *st, const struct store_sandbox *rec)
{
	const int64_t numbers[] = {rec->cpu_milli, rec->memory_bytes, rec->disk_bytes,
	    rec->pids_max, rec->sudo, rec->idle_timeout_ms, rec->max_lifetime_ms, rec->created_ms,
	    rec->started_ms, rec->last_active_ms, rec->stopped_ms, rec->updated_ms,
	    rec->created_boot_ns, rec->last_active_boot_ns, rec->evidence.pid,
	    (int64_t)rec->evidence.start_ticks, (int64_t)rec->evidence.pidns_inode};

	bind_text(st, 1, rec->id);
	bind_text(st, 6, rec->isolation);
	bind_text(st, 7, rec->state);
	(void)sqlite3_bind_int(st, 8, rec->final);
	bind_text(st, 9, rec->reason);
	bind_text(st, 10, rec->message);
	for (size_t i = 0; i < AV_ARRAY_LEN(numbers); i++)
		(void)sqlite3_bind_int64(st, 11 + (int)i, numbers[i]);
	bind_text(st, 28, rec->evidence.boot_id);
}

static int read_sandbox(sqlite3_stmt *st, struct store_sandbox *rec)
{
	int64_t *const numbers[] = {&rec->idle_timeout_ms, &rec->max_lifetime_ms, &rec->created_ms,
	    &rec->started_ms, &rec->last_active_ms, &rec->stopped_ms, &rec->updated_ms,
	    &rec->created_boot_ns, &rec->last_active_boot_ns, &rec->evidence.pid};

	column_copy(rec->id, sizeof(rec->id), st, 0);
	column_copy(rec->team_id, sizeof(rec->team_id), st, 1);
	column_copy(rec->key_id, sizeof(rec->key_id), st, 2);
	column_copy(rec->template_name, sizeof(rec->template_name), st, 3);
	column_copy(rec->template_id, sizeof(rec->template_id), st, 4);
	column_copy(rec->isolation, sizeof(rec->isolation), st, 5);
	column_copy(rec->state, sizeof(rec->state), st, 6);
	rec->final = sqlite3_column_int(st, 7) != 0;
	column_copy(rec->reason, sizeof(rec->reason), st, 8);
	column_copy(rec->message, sizeof(rec->message), st, 9);
	rec->cpu_milli = sqlite3_column_int64(st, 10);
	rec->memory_bytes = sqlite3_column_int64(st, 11);
	rec->disk_bytes = sqlite3_column_int64(st, 12);
	rec->pids_max = sqlite3_column_int64(st, 13);
	rec->sudo = sqlite3_column_int(st, 14) != 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(numbers); i++)
		*numbers[i] = sqlite3_column_int64(st, 15 + (int)i);
	rec->evidence.start_ticks = (uint64_t)sqlite3_column_int64(st, 25);
	rec->evidence.pidns_inode = (uint64_t)sqlite3_column_int64(st, 26);
	column_copy(rec->evidence.boot_id, sizeof(rec->evidence.boot_id), st, 27);
	rec->envs_json = av_str_dup(av_str_c((const char *)sqlite3_column_text(st, 28)));
	rec->metadata_json = av_str_dup(av_str_c((const char *)sqlite3_column_text(st, 29)));
	return rec->envs_json && rec->metadata_json ? 0 : -ENOMEM;
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

static int run_sandbox_get(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = stmt_get(db, ST_SANDBOX_GET);

	if (!st)
		return sql_error(db, &r->err, "cannot read the sandbox");
	bind_text(st, 1, r->args.id);
	return read_sandboxes(db, st, r);
}

static int run_sandbox_list(struct store_db *db, struct store_req *r)
{
	const struct store_list_args *a = &r->args.list;
	sqlite3_stmt *st = stmt_get(db, ST_SANDBOX_LIST);

	if (!st)
		return sql_error(db, &r->err, "cannot list sandboxes");
	bind_text(st, 1, a->team_id);
	(void)sqlite3_bind_int(st, 2, a->final_only);
	(void)sqlite3_bind_int(st, 3, !a->live_only);
	(void)sqlite3_bind_int64(st, 4, a->created_before_ms);
	bind_text(st, 5, a->before_id);
	(void)sqlite3_bind_int64(
	    st, 6, (int64_t)(a->limit && a->limit < LIST_MAX ? a->limit : LIST_MAX));
	return read_sandboxes(db, st, r);
}

/* Returns 1 when the key is taken by another request (r->existing_*), 0 when it is free. */
static int find_idempotency(struct store_db *db, struct store_req *r, int64_t now_ms)
{
	const char *team = r->args.insert.rec.team_id;
	sqlite3_stmt *st = stmt_get(db, ST_IDEM_EXPIRE);
	int code;

	if (!st)
		return sql_error(db, &r->err, "cannot look up the idempotency key");
	bind_text(st, 1, team);
	bind_text(st, 2, r->name);
	(void)sqlite3_bind_int64(st, 3, now_ms - r->args.insert.keep_ms);
	if (stmt_run(db, st, "cannot look up the idempotency key", &r->err) < 0)
		return -EIO;
	st = stmt_get(db, ST_IDEM_GET);
	if (!st)
		return sql_error(db, &r->err, "cannot look up the idempotency key");
	bind_text(st, 1, team);
	bind_text(st, 2, r->name);
	code = sqlite3_step(st);
	if (code == SQLITE_ROW) {
		const void *hash = sqlite3_column_blob(st, 0);

		if (hash && sqlite3_column_bytes(st, 0) == STORE_HASH_SIZE)
			memcpy(r->existing_hash, hash, STORE_HASH_SIZE);
		column_copy(r->existing_id, sizeof(r->existing_id), st, 1);
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
	sqlite3_stmt *st = stmt_get(db, ST_IDEM_INSERT);

	if (!st)
		return sql_error(db, &r->err, "cannot record the idempotency key");
	bind_text(st, 1, r->args.insert.rec.team_id);
	bind_text(st, 2, r->name);
	(void)sqlite3_bind_blob(st, 3, r->args.insert.request_hash, STORE_HASH_SIZE, SQLITE_STATIC);
	bind_text(st, 4, r->args.insert.rec.id);
	(void)sqlite3_bind_int64(st, 5, r->args.insert.rec.created_ms);
	return stmt_run(db, st, "cannot record the idempotency key", &r->err);
}

static int run_sandbox_insert(struct store_db *db, struct store_req *r)
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
		if (insert_idempotency(db, r) < 0)
			return -EIO;
	}
	st = stmt_get(db, ST_SANDBOX_INSERT);
	if (!st)
		return sql_error(db, &r->err, "cannot record the sandbox");
	bind_sandbox(st, rec);
	bind_text(st, 2, rec->team_id);
	bind_text(st, 3, rec->key_id);
	bind_text(st, 4, rec->template_name);
	bind_text(st, 5, rec->template_id);
	(void)sqlite3_bind_int64(st, 18, rec->created_ms);
	bind_text(st, 29, r->text[0]);
	bind_text(st, 30, r->text[1]);
	return stmt_run(db, st, "cannot record the sandbox", &r->err);
}

static int release_idempotency(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = stmt_get(db, ST_IDEM_RELEASE);

	if (!st)
		return sql_error(db, &r->err, "cannot release the idempotency key");
	bind_text(st, 1, r->args.sandbox.id);
	return stmt_run(db, st, "cannot release the idempotency key", &r->err);
}

static int run_sandbox_update(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = stmt_get(db, ST_SANDBOX_UPDATE);

	if (!st)
		return sql_error(db, &r->err, "cannot record the sandbox's state");
	bind_sandbox(st, &r->args.sandbox);
	if (stmt_run(db, st, "cannot record the sandbox's state", &r->err) < 0)
		return -EIO;
	if (sqlite3_changes(db->sql) == 0)
		return av_err_set(
		    &r->err, AV_ERR_NOT_FOUND, "sandbox %s has no record", r->args.sandbox.id);
	return r->args.sandbox.release_key ? release_idempotency(db, r) : 0;
}

static int run_with_number(struct store_db *db, enum stmt which, int64_t value, struct av_err *err)
{
	sqlite3_stmt *st = stmt_get(db, which);

	if (!st)
		return sql_error(db, err, "cannot prune");
	(void)sqlite3_bind_int64(st, 1, value);
	return stmt_run(db, st, "cannot prune", err);
}

static int run_prune(struct store_db *db, struct store_req *r)
{
	const struct store_prune_args *a = &r->args.prune;

	if (run_with_number(db, ST_PRUNE_OLD, a->stopped_before_ms, &r->err) < 0 ||
	    run_with_number(db, ST_PRUNE_COUNT, a->keep_newest, &r->err) < 0 ||
	    run_with_number(db, ST_PRUNE_KEYS, a->keys_before_ms, &r->err) < 0)
		return -EIO;
	return 0;
}

/* ---- keys, users, settings ---- */

static void read_key(sqlite3_stmt *st, struct store_key *k)
{
	const void *hash = sqlite3_column_blob(st, 5);

	memset(k, 0, sizeof(*k));
	column_copy(k->id, sizeof(k->id), st, 0);
	column_copy(k->team_id, sizeof(k->team_id), st, 1);
	column_copy(k->user_id, sizeof(k->user_id), st, 2);
	column_copy(k->name, sizeof(k->name), st, 3);
	column_copy(k->prefix, sizeof(k->prefix), st, 4);
	if (hash && sqlite3_column_bytes(st, 5) == STORE_HASH_SIZE)
		memcpy(k->hash, hash, STORE_HASH_SIZE);
	k->created_ms = sqlite3_column_int64(st, 6);
	k->last_used_ms = sqlite3_column_int64(st, 7);
}

static int run_key_list(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = stmt_get(db, ST_KEY_LIST);
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
	sqlite3_stmt *st = stmt_get(db, ST_KEY_INSERT);

	if (!st)
		return sql_error(db, err, "cannot record the key");
	bind_text(st, 1, k->id);
	bind_text(st, 2, k->team_id);
	bind_text(st, 3, k->user_id);
	bind_text(st, 4, k->name);
	bind_text(st, 5, k->prefix);
	(void)sqlite3_bind_blob(st, 6, k->hash, STORE_HASH_SIZE, SQLITE_STATIC);
	(void)sqlite3_bind_int64(st, 7, k->created_ms);
	(void)sqlite3_bind_int64(st, 8, k->last_used_ms);
	return stmt_run(db, st, "cannot record the key", err);
}

static int run_key_delete(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = stmt_get(db, ST_KEY_DELETE);

	if (!st)
		return sql_error(db, &r->err, "cannot delete the key");
	bind_text(st, 1, r->args.id);
	return stmt_run(db, st, "cannot delete the key", &r->err);
}

static int run_key_touch(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = stmt_get(db, ST_KEY_TOUCH);

	if (!st)
		return sql_error(db, &r->err, "cannot record the use of a key");
	bind_text(st, 1, r->args.touch.id);
	(void)sqlite3_bind_int64(st, 2, r->args.touch.last_used_ms);
	return stmt_run(db, st, "cannot record the use of a key", &r->err);
}

/* INSERT of (text, text, number), which users, teams and members all are. */
static int insert_named(struct store_db *db, enum stmt which, const char *a, const char *b,
    int64_t at_ms, struct av_err *err)
{
	sqlite3_stmt *st = stmt_get(db, which);

	if (!st)
		return sql_error(db, err, "cannot record the first user");
	bind_text(st, 1, a);
	bind_text(st, 2, b);
	(void)sqlite3_bind_int64(st, 3, at_ms);
	return stmt_run(db, st, "cannot record the first user", err);
}

static int run_first_start(struct store_db *db, struct store_req *r)
{
	const struct store_first *f = &r->args.first;
	int64_t now = f->key.created_ms;
	sqlite3_stmt *st = stmt_get(db, ST_USER_ANY);
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
	st = stmt_get(db, ST_VALUE_SET);
	if (!st)
		return sql_error(db, &r->err, "cannot record the first start");
	bind_text(st, 1, "first_start");
	bind_text(st, 2, "done");
	if (stmt_run(db, st, "cannot record the first start", &r->err) < 0)
		return -EIO;
	return insert_key(db, &f->key, &r->err);
}

static int run_value_get(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = stmt_get(db, ST_VALUE_GET);
	int code, result = 0;

	if (!st)
		return sql_error(db, &r->err, "cannot read a setting");
	bind_text(st, 1, r->name);
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

static int run_value_set(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = stmt_get(db, ST_VALUE_SET);

	if (!st)
		return sql_error(db, &r->err, "cannot record a setting");
	bind_text(st, 1, r->name);
	bind_text(st, 2, r->text[0]);
	return stmt_run(db, st, "cannot record a setting", &r->err);
}

static int run_op(struct store_db *db, struct store_req *r)
{
	switch (r->op) {
	case STORE_OP_SANDBOX_INSERT:
		return run_sandbox_insert(db, r);
	case STORE_OP_SANDBOX_UPDATE:
		return run_sandbox_update(db, r);
	case STORE_OP_SANDBOX_GET:
		return run_sandbox_get(db, r);
	case STORE_OP_SANDBOX_LIST:
		return run_sandbox_list(db, r);
	case STORE_OP_PRUNE:
		return run_prune(db, r);
	case STORE_OP_KEY_LIST:
		return run_key_list(db, r);
	case STORE_OP_KEY_INSERT:
		return insert_key(db, &r->args.key, &r->err);
	case STORE_OP_KEY_DELETE:
		return run_key_delete(db, r);
	case STORE_OP_KEY_TOUCH:
		return run_key_touch(db, r);
	case STORE_OP_FIRST_START:
		return run_first_start(db, r);
	case STORE_OP_VALUE_GET:
		return run_value_get(db, r);
	case STORE_OP_VALUE_SET:
		return run_value_set(db, r);
	}
	return -EINVAL;
}

static bool op_reads(enum store_op op)
{
	return op == STORE_OP_SANDBOX_GET || op == STORE_OP_SANDBOX_LIST ||
	       op == STORE_OP_KEY_LIST || op == STORE_OP_VALUE_GET;
}

/* ---- transactions ---- */

/* One request inside the transaction. False: the transaction is gone (SQLite rolled it back). */
static bool run_isolated(struct store_db *db, struct store_req *r)
{
	if (op_reads(r->op)) {
		(void)run_op(db, r);
		return sqlite3_get_autocommit(db->sql) == 0;
	}
	if (run_plain(db, ST_SAVEPOINT, &r->err) < 0)
		return sqlite3_get_autocommit(db->sql) == 0;
	if (run_op(db, r) < 0) {
		if (sqlite3_get_autocommit(db->sql))
			return false;
		if (run_plain(db, ST_ROLLBACK_TO, NULL) < 0)
			return false;
	}
	if (run_plain(db, ST_RELEASE, &r->err) < 0)
		return false;
	return true;
}

static void roll_back(struct store_db *db)
{
	if (!sqlite3_get_autocommit(db->sql))
		(void)run_plain(db, ST_ROLLBACK, NULL);
}

/* A transaction for this one request; its error is the answer. */
static void run_alone(struct store_db *db, struct store_req *r)
{
	if (op_reads(r->op)) {
		(void)run_op(db, r);
		return;
	}
	if (run_plain(db, ST_BEGIN, &r->err) < 0)
		return;
	if (run_op(db, r) < 0 || run_plain(db, ST_COMMIT, &r->err) < 0)
		roll_back(db);
}

/* False when nothing of the list holds. */
static bool run_together(struct store_db *db, struct store_req *list)
{
	if (run_plain(db, ST_BEGIN, NULL) < 0)
		return false;
	for (struct store_req *r = list; r; r = r->next)
		if (!run_isolated(db, r)) {
			roll_back(db);
			return false;
		}
	if (run_plain(db, ST_COMMIT, NULL) < 0) {
		roll_back(db);
		return false;
	}
	return true;
}

void store_db_run(struct store_db *db, struct store_req *list)
{
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

static int read_version(struct store_db *db, int *ret, struct av_err *err)
{
	sqlite3_stmt *st = NULL;
	int r = 0;

	if (sqlite3_prepare_v2(db->sql, "PRAGMA user_version", -1, &st, NULL) != SQLITE_OK ||
	    sqlite3_step(st) != SQLITE_ROW)
		r = sql_error(db, err, "cannot read the version of the database");
	else
		*ret = sqlite3_column_int(st, 0);
	(void)sqlite3_finalize(st);
	return r;
}

static int exec(struct store_db *db, const char *sql, const char *what, struct av_err *err)
{
	if (sqlite3_exec(db->sql, sql, NULL, NULL, NULL) != SQLITE_OK)
		return sql_error(db, err, what);
	return 0;
}

static int migrate(struct store_db *db, const char *path, struct av_err *err)
{
	int version = 0;
	int r = read_version(db, &version, err);

	if (r < 0)
		return r;
	if (version < 0 || (size_t)version > store_migrations_count)
		return av_err_set(err, AV_ERR_INVALID_STATE,
		    "%s has schema version %d, and this Aviary knows versions up to %zu: it was "
		    "written by "
		    "a newer Aviary. Install that one, or move the file away to start empty",
		    path, version, store_migrations_count);
	for (size_t i = (size_t)version; i < store_migrations_count; i++) {
		struct av_buf sql = AV_BUF_INIT((size_t)AV_MIB);
		const char *text;

		(void)av_buf_printf(&sql,
		    "BEGIN IMMEDIATE;\n%s\nPRAGMA user_version = %zu;\nCOMMIT;",
		    store_migrations[i], i + 1);
		text = av_buf_cstr(&sql);
		r = text ? exec(db, text, "cannot bring the database up to date", err)
		         : av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		av_buf_clear(&sql);
		if (r < 0) {
			roll_back(db);
			return r;
		}
	}
	return 0;
}

/* The file must not be readable by others from its first moment; SQLite copies its mode to the WAL.
 */
static int touch_file(const char *path, struct av_err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

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
	    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = "
	    "FULL; "
	    "PRAGMA foreign_keys = ON; PRAGMA cache_size = -1024; PRAGMA journal_size_limit = "
	    "4194304; "
	    "PRAGMA trusted_schema = OFF; BEGIN IMMEDIATE; COMMIT;",
	    "cannot set up the database", err);
	if (r == 0)
		r = migrate(db, path, err);
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
