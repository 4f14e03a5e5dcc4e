/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_copy.c - a copy of the database while it is in use (see store_copy.h)
 */
#include "store/store_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"

#include "base/banned.h"

#define ROOM_MIN (8 * AV_MIB)

struct store_copy {
	struct store_db *db; /* borrowed */
	sqlite3 *to;
	sqlite3_backup *backup;
	char *path;
};

static int64_t pragma(sqlite3 *sql, const char *text)
{
	sqlite3_stmt *st = NULL;
	int64_t n = 0;

	if (sqlite3_prepare_v2(sql, text, -1, &st, NULL) == SQLITE_OK &&
	    sqlite3_step(st) == SQLITE_ROW)
		n = sqlite3_column_int64(st, 0);
	(void)sqlite3_finalize(st);
	return n;
}

/* The daemon's own writes go on meanwhile, and must not be what finds the disk full. */
static int check_room(struct store_db *db, int fd, struct av_err *err)
{
	uint64_t size =
	    (uint64_t)(pragma(db->sql, "PRAGMA page_count") * pragma(db->sql, "PRAGMA page_size"));
	uint64_t need = 2 * size + ROOM_MIN;
	struct statvfs v;

	if (fstatvfs(fd, &v) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot look at the disk's space");
	if ((uint64_t)v.f_bavail * v.f_frsize >= need)
		return 0;
	return av_err_set(err, AV_ERR_NO_SPACE,
	    "a copy of the database needs %llu MiB of free space on the disk that holds the "
	    "state directory, and there are %llu MiB: free some and try again",
	    (unsigned long long)(need / AV_MIB + 1),
	    (unsigned long long)v.f_bavail * v.f_frsize / AV_MIB);
}

static int fail(struct store_copy *c, int code, struct av_err *err)
{
	enum av_err_kind kind = (code & 0xff) == SQLITE_FULL ? AV_ERR_NO_SPACE : AV_ERR_INTERNAL;

	return av_err_set(
	    err, kind, "cannot copy the database to %s: %s", c->path, sqlite3_errstr(code));
}

int store_copy_begin(
    struct store_db *db, const char *path, struct store_copy **ret, struct av_err *err)
{
	struct store_copy *c;
	int code, r;

	AV_CLEANUP(av_closep)
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return av_err_sys(err, errno == ENOSPC ? AV_ERR_NO_SPACE : AV_ERR_INTERNAL, errno,
		    "cannot make %s", path);
	r = check_room(db, fd, err);
	if (r < 0) {
		(void)unlink(path);
		return r;
	}
	c = calloc(1, sizeof(*c));
	if (c)
		c->path = strdup(path);
	if (!c || !c->path) {
		free(c);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	c->db = db;
	code = sqlite3_open_v2(path, &c->to,
	    SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
	if (code == SQLITE_OK) {
		/* Its bytes are synced once, at the end. */
		code = sqlite3_exec(
		    c->to, "PRAGMA synchronous = OFF; PRAGMA cache_size = -512", NULL, NULL, NULL);
		c->backup = sqlite3_backup_init(c->to, "main", db->sql, "main");
	}
	if (code != SQLITE_OK || !c->backup) {
		r = fail(c, code != SQLITE_OK ? code : sqlite3_extended_errcode(c->to), err);
		store_copy_free(c);
		(void)unlink(path);
		return r;
	}
	*ret = c;
	return 0;
}

int store_copy_step(struct store_copy *c, int pages, struct av_err *err)
{
	int code = sqlite3_backup_step(c->backup, pages);

	if (code == SQLITE_DONE)
		return 0;
	return code == SQLITE_OK ? 1 : fail(c, code, err);
}

static int sync_file(const char *path)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int set_mark(struct store_copy *c, const char *mark)
{
	char value[24];
	sqlite3_stmt *st = NULL;
	int code = sqlite3_prepare_v2(c->to,
	    "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET "
	    "value = excluded.value",
	    -1, &st, NULL);

	(void)snprintf(value, sizeof(value), "%" PRId64, av_real_ms());
	if (code == SQLITE_OK) {
		(void)sqlite3_bind_text(st, 1, mark, -1, SQLITE_STATIC);
		(void)sqlite3_bind_text(st, 2, value, -1, SQLITE_STATIC);
		code = sqlite3_step(st);
	}
	(void)sqlite3_finalize(st);
	return code == SQLITE_DONE ? SQLITE_OK : code;
}

int store_copy_finish(struct store_copy *c, const char *mark, struct av_err *err)
{
	int code = sqlite3_backup_finish(c->backup), r;

	c->backup = NULL;
	/* The header says that there is a log, as the original has one. */
	if (code == SQLITE_OK)
		code = sqlite3_exec(c->to, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
	if (code == SQLITE_OK && mark)
		code = set_mark(c, mark);
	if (code == SQLITE_OK)
		code = sqlite3_close(AV_TAKE_PTR(c->to));
	if (code != SQLITE_OK)
		return fail(c, code, err);
	r = sync_file(c->path);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot write %s", c->path) : 0;
}

void store_copy_free(struct store_copy *c)
{
	if (!c)
		return;
	if (c->backup)
		(void)sqlite3_backup_finish(c->backup);
	(void)sqlite3_close(c->to);
	free(c->path);
	free(c);
}
