/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql.c - prepared statements and SQLite's errors (see sql.h)
 */
#include "store/sql.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

/* In the order in which bind_sandbox and read_sandbox of sql_sandboxes.c count them. */
#define SANDBOX_COLUMNS                                                                            \
	"id, team_id, key_id, template_name, template_id, isolation, state, final, reason, "       \
	"message, cpu_milli, memory_bytes, disk_bytes, pids_max, sudo, idle_timeout_ms, "          \
	"max_lifetime_ms, created_ms, started_ms, last_active_ms, stopped_ms, updated_ms, "        \
	"created_boot_ns, last_active_boot_ns, pid, start_ticks, pidns_inode, boot_id, envs, "     \
	"metadata, idle_delete, auto_resume, internet, paused_ms, tags, public_ports"

/* In the order in which sql_read_main counts them, after those above. */
#define MAIN_COLUMNS                                                                               \
	"main, main_state, main_pid, main_exit_code, main_signal, main_started_ms, "               \
	"main_finished_ms, stop_ms, stop_snapshot, stop_by, rollback_from"

/* In the order in which sql_audit.c counts them. */
#define AUDIT_COLUMNS                                                                              \
	"seq, team_id, admin, status, http_status, code, action, resource_id, actor_type, "        \
	"actor_id, actor_name, user_id, user_name, peer, request_id, metadata"

static const char *const texts[ST_COUNT] = {
#define STORE_STMT(name, text) [ST_##name] = (text),
#include "store/statements.def"
#undef STORE_STMT
};

const char *sql_stmt_text(enum stmt which)
{
	return texts[which];
}

int sql_error(struct store_db *db, struct av_err *err, const char *what)
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

sqlite3_stmt *sql_stmt(struct store_db *db, enum stmt which)
{
	if (!db->stmts[which])
		(void)sqlite3_prepare_v3(
		    db->sql, texts[which], -1, SQLITE_PREPARE_PERSISTENT, &db->stmts[which], NULL);
	return db->stmts[which];
}

int sql_run(struct store_db *db, sqlite3_stmt *st, const char *what, struct av_err *err)
{
	int code = sqlite3_step(st);
	int r = 0;

	if (code != SQLITE_DONE && code != SQLITE_ROW)
		r = sql_error(db, err, what);
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return r;
}

int sql_read_rows(struct store_db *db, struct store_req *r, sqlite3_stmt *st, size_t size,
    void (*read)(sqlite3_stmt *st, void *row), const char *what)
{
	size_t cap = 0;
	int code, result = 0;

	if (!st)
		return sql_error(db, &r->err, what);
	while ((code = sqlite3_step(st)) == SQLITE_ROW) {
		if (r->n == cap) {
			size_t more = cap ? cap * 2 : 16;
			void *v = reallocarray(r->rows, more, size);

			if (!v) {
				result = av_err_set(&r->err, AV_ERR_NO_MEMORY, "out of memory");
				break;
			}
			r->rows = v;
			cap = more;
		}
		memset((char *)r->rows + r->n * size, 0, size);
		read(st, (char *)r->rows + r->n++ * size);
	}
	if (result == 0 && code != SQLITE_DONE)
		result = sql_error(db, &r->err, what);
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return result;
}

int sql_run_plain(struct store_db *db, enum stmt which, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, which);

	if (!st)
		return sql_error(db, err, "cannot record the change");
	return sql_run(db, st, "cannot record the change", err);
}

void sql_bind_text(sqlite3_stmt *st, int i, const char *s)
{
	(void)sqlite3_bind_text(st, i, s, -1, SQLITE_STATIC);
}

void sql_column_copy(char *dst, size_t size, sqlite3_stmt *st, int i)
{
	const char *s = (const char *)sqlite3_column_text(st, i);
	size_t n = s ? strlen(s) : 0;

	if (n >= size)
		n = size - 1;
	if (s && n)
		memcpy(dst, s, n);
	dst[n] = '\0';
}
