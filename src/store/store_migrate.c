/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_migrate.c - from the schema of an older Aviary to this one's, and the way back
 *
 * Theory of operation. All migrations that are missing run in one transaction: whatever ends the
 * daemon meanwhile, the database is of the old version or of the new one. Before the first of them
 * a copy of the database as it is goes to <path>.v<N>, N being its version, and onto the disk: that
 * is what an older Aviary is given when the upgrade is taken back (docs/operations.md). One such
 * copy is kept, the last.
 *
 * Failpoint: store.copied (the copy is there), store.migrate (after each statement),
 * store.migrated.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"
#include "store/store_copy.h"

#include "base/banned.h"

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

static int run(struct store_db *db, const char *sql, struct av_err *err)
{
	while (*sql) {
		sqlite3_stmt *st = NULL;
		int code = sqlite3_prepare_v2(db->sql, sql, -1, &st, &sql);

		while (code == SQLITE_OK && st && (code = sqlite3_step(st)) == SQLITE_ROW)
			code = SQLITE_OK;
		if (code != SQLITE_OK && code != SQLITE_DONE) {
			int r = sql_error(db, err, "cannot bring the database up to date");

			(void)sqlite3_finalize(st);
			return r;
		}
		(void)sqlite3_finalize(st);
		if (av_failpoint("store.migrate"))
			return av_err_set(err, AV_ERR_INTERNAL, "failpoint store.migrate");
	}
	return 0;
}

/* ---- the copy of before ---- */

/* The copies in the database's directory but the one of version `keep`. */
static void remove_older(const char *path, int keep)
{
	AV_CLEANUP(av_buf_clear) struct av_buf dir = AV_BUF_INIT(AV_PATH_MAX + 1);
	struct av_str base = av_path_base(av_str_c(path));
	struct dirent *e;
	DIR *d;

	(void)av_buf_append_str(&dir, av_path_dir(av_str_c(path)));
	d = av_buf_cstr(&dir) ? opendir(av_buf_cstr(&dir)) : NULL;
	while (d && (e = readdir(d))) {
		struct av_str name = av_str_c(e->d_name);
		uint64_t version;

		if (name.n <= base.n + 2 || memcmp(name.p, base.p, base.n) != 0 ||
		    memcmp(name.p + base.n, ".v", 2) != 0 ||
		    av_parse_u64(av_str_n(name.p + base.n + 2, name.n - base.n - 2), 0, INT32_MAX,
		        &version) < 0)
			continue;
		if (version != (uint64_t)keep && unlinkat(dirfd(d), e->d_name, 0) < 0)
			av_log(AV_LOG_WARN, "cannot remove the database of an earlier upgrade",
			    "file", e->d_name, "error", strerror(errno), NULL);
	}
	if (d) {
		(void)fsync(dirfd(d));
		(void)closedir(d);
	}
}

static int keep_copy(struct store_db *db, const char *path, int version, struct av_err *err)
{
	char kept[AV_PATH_MAX + 1], unfinished[AV_PATH_MAX + 1];
	struct store_copy *c = NULL;
	int r;

	if (av_path_printf(kept, sizeof(kept), "%s.v%d", path, version) < 0 ||
	    av_path_printf(unfinished, sizeof(unfinished), "%s.new", kept) < 0)
		return av_err_set(err, AV_ERR_INVALID, "the path of the database is too long");
	r = store_copy_begin(db, unfinished, &c, err);
	while (r == 0 && (r = store_copy_step(c, -1, err)) > 0)
		;
	if (r == 0)
		r = store_copy_finish(c, NULL, err);
	store_copy_free(c);
	if (r == 0 && rename(unfinished, kept) < 0)
		r = av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s", kept);
	if (r < 0) {
		(void)unlink(unfinished);
		av_err_prefix(
		    err, "before the database is brought up to date a copy of it is kept");
		return r;
	}
	remove_older(path, version);
	av_log(AV_LOG_INFO, "kept the database as it was before this upgrade", "file", kept, NULL);
	return av_failpoint("store.copied")
	           ? av_err_set(err, AV_ERR_INTERNAL, "failpoint store.copied")
	           : 0;
}

/* ---- forward ---- */

static int run_missing(struct store_db *db, size_t version, struct av_err *err)
{
	char end[64];
	int r = run(db, "BEGIN IMMEDIATE", err);

	for (size_t i = version; r == 0 && i < store_migrations_count; i++)
		r = run(db, store_migrations[i], err);
	(void)snprintf(
	    end, sizeof(end), "PRAGMA user_version = %zu; COMMIT", store_migrations_count);
	if (r == 0)
		r = run(db, end, err);
	if (r < 0 && !sqlite3_get_autocommit(db->sql))
		(void)sqlite3_exec(db->sql, "ROLLBACK", NULL, NULL, NULL);
	return r;
}

/* A database of before free pages were given back: made anew once, where there is room for it. */
static void give_back(struct store_db *db)
{
	if (sqlite3_exec(db->sql, "PRAGMA auto_vacuum = INCREMENTAL; VACUUM", NULL, NULL, NULL) !=
	    SQLITE_OK)
		av_log(AV_LOG_WARN, "the database keeps the space of what it forgets", "error",
		    sqlite3_errmsg(db->sql), NULL);
}

int store_db_migrate(struct store_db *db, const char *path, struct av_err *err)
{
	int version = 0;
	int r = read_version(db, &version, err);

	if (r < 0)
		return r;
	if (version < 0 || (size_t)version > store_migrations_count)
		return av_err_set(err, AV_ERR_CONFLICT,
		    "%s has schema version %d, and this Aviary knows versions up to %zu: it was "
		    "written by a newer Aviary. Install that one, go back to the database of "
		    "before "
		    "its first start (\"Upgrade and going back\" in docs/operations.md), or move "
		    "the "
		    "file away to start empty",
		    path, version, store_migrations_count);
	if ((size_t)version == store_migrations_count)
		return 0;
	if (version > 0)
		r = keep_copy(db, path, version, err);
	if (r == 0)
		r = run_missing(db, (size_t)version, err);
	if (r == 0 && version > 0)
		give_back(db);
	if (r == 0 && av_failpoint("store.migrated"))
		r = av_err_set(err, AV_ERR_INTERNAL, "failpoint store.migrated");
	return r;
}
