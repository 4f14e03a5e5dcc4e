/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_store_upgrade.c - a database of each version before comes forward, keeps what it was, and
 * survives death at every statement of that; copies of it while it is in use; it does not grow
 */
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"
#include "lib/tap.h"
#include "store/store_internal.h"

#include "base/banned.h"

static char dir[] = "/tmp/aviary-upgrade-XXXXXX";
static int wake_fd = -1;

static void wake(void *ctx)
{
	(void)ctx;
	(void)eventfd_write(wake_fd, 1);
}

static const char *in_dir(const char *name)
{
	static char paths[4][160];
	static unsigned int next;
	char *path = paths[next++ % 4];

	if (av_path_printf(path, sizeof(paths[0]), "%s/%s", dir, name) < 0)
		abort();
	return path;
}

static void clear_dir(void)
{
	DIR *d = opendir(dir);
	const struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			(void)unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		(void)closedir(d);
}

static struct store *open_store(struct av_err *err)
{
	const struct store_config config = {.path = in_dir("aviary.db"), .wake = wake};
	struct store *s = NULL;

	return store_open(&config, &s, err) == 0 ? s : NULL;
}

static sqlite3 *open_sql(const char *name, bool make)
{
	sqlite3 *sql = NULL;

	if (sqlite3_open_v2(in_dir(name), &sql,
	        SQLITE_OPEN_READWRITE | (make ? SQLITE_OPEN_CREATE : 0), NULL) != SQLITE_OK)
		ok(false, "%s opens: %s", name, sqlite3_errmsg(sql));
	return sql;
}

/* First column of the first row; "" when there is none. */
static const char *ask(sqlite3 *sql, const char *query)
{
	static char text[128];
	sqlite3_stmt *st = NULL;

	text[0] = '\0';
	if (sqlite3_prepare_v2(sql, query, -1, &st, NULL) == SQLITE_OK &&
	    sqlite3_step(st) == SQLITE_ROW)
		(void)snprintf(text, sizeof(text), "%s", (const char *)sqlite3_column_text(st, 0));
	(void)sqlite3_finalize(st);
	return text;
}

static int64_t ask_number(sqlite3 *sql, const char *query)
{
	int64_t n = -1;

	return av_parse_i64(av_str_c(ask(sql, query)), INT64_MIN, INT64_MAX, &n) == 0 ? n : -1;
}

/* As an Aviary of that version left it, with something in it. */
static void make_version(size_t version)
{
	sqlite3 *sql = open_sql("aviary.db", true);
	char text[64];
	int r = sqlite3_exec(sql, "PRAGMA journal_mode = WAL", NULL, NULL, NULL);

	for (size_t i = 0; i < version && r == SQLITE_OK; i++)
		r = sqlite3_exec(sql, store_migrations[i], NULL, NULL, NULL);
	(void)snprintf(text, sizeof(text), "PRAGMA user_version = %zu", version);
	if (r == SQLITE_OK)
		r = sqlite3_exec(sql, text, NULL, NULL, NULL);
	if (r == SQLITE_OK)
		r = sqlite3_exec(sql, "INSERT INTO settings (name, value) VALUES ('old', 'kept')",
		    NULL, NULL, NULL);
	if (r != SQLITE_OK)
		ok(false, "version %zu can be made: %s", version, sqlite3_errmsg(sql));
	(void)sqlite3_close(sql);
	(void)chmod(in_dir("aviary.db"), 0600);
}

/* ---- forward, and what is kept for the way back ---- */

static void check_kept(size_t version)
{
	char name[48], want[24];
	struct stat st = {0};
	sqlite3 *sql;

	(void)snprintf(name, sizeof(name), "aviary.db.v%zu", version);
	(void)snprintf(want, sizeof(want), "%zu", version);
	ok(stat(in_dir(name), &st) == 0 && (st.st_mode & 0777) == 0600,
	    "the database of before is kept, for nobody else to read");
	sql = open_sql(name, false);
	is_str(ask(sql, "PRAGMA user_version"), want, "it has the version of before");
	is_str(ask(sql, "SELECT value FROM settings WHERE name = 'old'"), "kept", "what was in it");
	is_str(ask(sql, "PRAGMA integrity_check"), "ok", "and is whole");
	(void)sqlite3_close(sql);
}

static size_t count_files(const char *part)
{
	DIR *d = opendir(dir);
	const struct dirent *e;
	size_t n = 0;

	while (d && (e = readdir(d)))
		n += strstr(e->d_name, part) != NULL;
	if (d)
		(void)closedir(d);
	return n;
}

static void test_forward(size_t version)
{
	struct av_err err = {0};
	struct store *s;
	sqlite3 *sql;
	char want[24];

	diag("from version %zu", version);
	make_version(version);
	s = open_store(&err);
	ok(s != NULL, "it is brought up to date: %s", err.message);
	store_close(s);
	sql = open_sql("aviary.db", false);
	(void)snprintf(want, sizeof(want), "%zu", store_migrations_count);
	is_str(ask(sql, "PRAGMA user_version"), want, "it has today's version");
	is_str(
	    ask(sql, "SELECT value FROM settings WHERE name = 'old'"), "kept", "nothing is lost");
	is_str(ask(sql, "PRAGMA auto_vacuum"), "2", "from now on free pages are given back");
	(void)sqlite3_close(sql);
	check_kept(version);
	is_int(count_files(".db.v"), 1, "one copy of before, the last");
	is_int(count_files(".new"), 0, "and nothing unfinished");
	s = open_store(&err);
	ok(s != NULL, "it opens again: %s", err.message);
	store_close(s);
	is_int(count_files(".db.v"), 1, "a start without an upgrade leaves the copy alone");
	/* The way back, as the manual says it. */
	char name[48];
	(void)snprintf(name, sizeof(name), "aviary.db.v%zu", version);
	ok(rename(in_dir(name), in_dir("aviary.db")) == 0, "the copy takes the database's place");
	s = open_store(&err);
	ok(s != NULL, "forward once more: %s", err.message);
	store_close(s);
	check_kept(version);
	/* For the next version: the copy of this one is there when it begins. */
	(void)unlink(in_dir("aviary.db"));
}

/* ---- death at every statement ---- */

/* Failpoints are read once in a process: another program then. */
static int upgrade(void)
{
	struct av_err err = {0};
	struct store *s;

	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s = open_store(&err);
	store_close(s);
	return s ? 0 : 1;
}

static int upgrade_in_child(const char *failpoint)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		(void)setenv("AVIARY_FAILPOINT", failpoint, 1);
		(void)execl("/proc/self/exe", "test_store_upgrade", dir, (char *)NULL);
		_exit(99);
	}
	(void)waitpid(pid, &status, 0);
	return status;
}

static bool survived(size_t version, const char *failpoint)
{
	struct av_err err = {0};
	sqlite3 *sql = open_sql("aviary.db", false);
	size_t now = (size_t)ask_number(sql, "PRAGMA user_version");
	bool whole = strcmp(ask(sql, "PRAGMA integrity_check"), "ok") == 0;
	struct store *s;

	(void)sqlite3_close(sql);
	s = open_store(&err);
	store_close(s);
	if (whole && (now == version || now == store_migrations_count) && s)
		return true;
	diag("%s: version %zu, %s, %s", failpoint, now, whole ? "whole" : "broken", err.message);
	return false;
}

static void test_death(const char *name)
{
	size_t version = store_migrations_count > 3 ? store_migrations_count - 3 : 1;
	int deaths = 0, bad = 0, status = 0;
	char failpoint[64];

	for (int n = 1; n < 500; n++) {
		clear_dir();
		make_version(version);
		(void)snprintf(failpoint, sizeof(failpoint), "%s=kill@%d", name, n);
		status = upgrade_in_child(failpoint);
		if (!WIFSIGNALED(status))
			break;
		deaths++;
		bad += !survived(version, failpoint);
	}
	ok(deaths > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0,
	    "%s: killed at each of %d places", name, deaths);
	is_int(bad, 0, "each left a whole database of the old version or of the new one");
}

static void test_error(const char *failpoint)
{
	size_t version = store_migrations_count - 1;

	clear_dir();
	make_version(version);
	int status = upgrade_in_child(failpoint);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%s: refused", failpoint);
	ok(survived(version, failpoint), "and nothing is half done");
}

/* ---- copies ---- */

struct copied {
	bool done;
	int fd;
	uint64_t bytes;
	enum av_err_kind kind;
};

static void on_copy(void *ctx, int fd, uint64_t bytes, const struct av_err *err)
{
	struct copied *c = ctx;

	c->done = true;
	c->fd = fd;
	c->bytes = bytes;
	c->kind = err ? err->kind : AV_ERR_NONE;
}

static int told;

static void on_insert(void *ctx, const struct store_idempotency *existing, const struct av_err *err)
{
	(void)ctx;
	(void)existing;
	told += err == NULL;
}

static void on_done(void *ctx, const struct av_err *err)
{
	(void)ctx;
	told += err == NULL;
}

static size_t pruned;

static void on_count(void *ctx, size_t n, const struct av_err *err)
{
	bool *done = ctx;

	*done = true;
	pruned += err ? 0 : n;
}

static void turn(struct store *s)
{
	struct pollfd p = {.fd = wake_fd, .events = POLLIN};
	eventfd_t count;

	if (poll(&p, 1, 20000) != 1)
		return;
	(void)eventfd_read(wake_fd, &count);
	store_dispatch(s);
}

static void fill_record(struct store_sandbox *rec, int i)
{
	static const char envs[] =
	    "{\"PATH\":\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin\"}";

	*rec = (struct store_sandbox){.isolation = "jail",
	    .state = "running",
	    .created_ms = i + 1,
	    .envs_json = envs,
	    .metadata_json = envs};
	(void)snprintf(rec->id, sizeof(rec->id), "sb%025d", i);
	(void)snprintf(rec->team_id, sizeof(rec->team_id), "team");
}

static bool save(int fd, const char *name)
{
	static char bytes[4096];
	ssize_t n;
	FILE *f = fopen(in_dir(name), "we");

	while (f && (n = read(fd, bytes, sizeof(bytes))) > 0)
		if (fwrite(bytes, 1, (size_t)n, f) != (size_t)n)
			break;
	return f && fclose(f) == 0;
}

static void test_copy(void)
{
	struct av_err err = {0};
	struct copied first = {.fd = -1}, second = {.fd = -1};
	struct store_sandbox rec;
	struct stat st;
	int made = 0, known = 0;
	sqlite3 *sql;

	clear_dir();
	struct store *s = open_store(&err);
	if (!s) {
		ok(false, "a database: %s", err.message);
		return;
	}
	for (; made < 4000; made++) {
		fill_record(&rec, made);
		(void)store_sandbox_insert(s, &rec, NULL, 0, on_insert, NULL);
	}
	while (told < made)
		turn(s);
	/* A moment's work before the two, so that the second is there before the first is done. */
	for (int end = made + 2000; made < end; made++) {
		fill_record(&rec, made);
		(void)store_sandbox_insert(s, &rec, NULL, 0, on_insert, NULL);
	}
	(void)store_copy(s, on_copy, &first);
	(void)store_copy(s, on_copy, &second);
	while (!first.done) {
		for (int i = 0; i < 8; i++, made++) {
			fill_record(&rec, made);
			(void)store_sandbox_insert(s, &rec, NULL, 0, on_insert, NULL);
		}
		turn(s);
		known = first.done ? known : told;
	}
	while (!second.done)
		turn(s);
	is_int(second.kind, AV_ERR_CONFLICT, "a second copy at once is refused");
	is_int(first.kind, AV_ERR_NONE, "the first is made");
	diag("while %d others were answered", known - 4000);
	is_int(count_files(".copy"), 0, "it has no name");
	ok(fstat(first.fd, &st) == 0 && (uint64_t)st.st_size == first.bytes &&
	        (st.st_mode & 0777) == 0600,
	    "its size is told, and nobody else reads it");
	ok(save(first.fd, "restored.db"), "it can be read");
	sql = open_sql("restored.db", false);
	is_str(ask(sql, "PRAGMA integrity_check"), "ok", "whole");
	is_str(ask(sql, "PRAGMA journal_mode"), "delete", "without a log beside it");
	ok(ask_number(sql, "SELECT count(*) FROM sandboxes") >= known,
	    "with all that was answered before it");
	ok(ask_number(sql, "SELECT value FROM settings WHERE name = 'restored_from_ms'") > 0,
	    "and says when it was made");
	(void)sqlite3_close(sql);
	(void)close(first.fd);
	first = (struct copied){.fd = -1};
	(void)store_copy(s, on_copy, &first);
	store_close(s);
	is_int(count_files("aviary.db.copy"), 0, "a stop in the middle leaves nothing behind");
}

/* ---- growth ---- */

static int64_t size_of(const char *name)
{
	struct stat st = {0};

	return stat(in_dir(name), &st) == 0 ? st.st_size : 0;
}

/* Creates and deletes of a day: what is kept of them is what counts, not how many there were. */
static void test_growth(void)
{
	enum { ROUNDS = 20, EACH = 1000, KEEP = 500 };
	struct av_err err = {0};
	int64_t most = 0, most_wal = 0, after_first = 0;
	struct store_sandbox rec;

	clear_dir();
	told = 0;
	struct store *s = open_store(&err);
	if (!s) {
		ok(false, "a database: %s", err.message);
		return;
	}
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < EACH; i++) {
			fill_record(&rec, round * EACH + i);
			(void)store_sandbox_insert(s, &rec, NULL, 0, on_insert, NULL);
			rec.final = true;
			rec.stopped_ms = rec.created_ms;
			(void)store_sandbox_update(s, &rec, on_done, NULL);
		}
		while (told < 2 * EACH * (round + 1))
			turn(s);
		for (size_t before = SIZE_MAX; pruned != before;) {
			bool done = false;

			before = pruned;
			(void)store_prune(s, 0, KEEP, 0, 300, on_count, &done);
			while (!done)
				turn(s);
		}
		most = AV_MAX(most, size_of("aviary.db"));
		most_wal = AV_MAX(most_wal, size_of("aviary.db-wal"));
		after_first = round == 1 ? most : after_first;
	}
	diag("database at most %lld KiB, its log %lld KiB", (long long)most / 1024,
	    (long long)most_wal / 1024);
	ok(pruned == ROUNDS * EACH - KEEP, "%d creates and deletes leave %d records", ROUNDS * EACH,
	    KEEP);
	ok(most <= after_first + AV_MIB, "the file is no larger than after the first rounds");
	ok(most_wal < 24 * AV_MIB, "nor does its log grow");
	for (int i = 0; i < 500 && size_of("aviary.db") > 2 * AV_MIB; i++)
		(void)poll(NULL, 0, 10);
	store_close(s);
	ok(size_of("aviary.db") <= 2 * AV_MIB, "free pages are given back: %lld KiB",
	    (long long)size_of("aviary.db") / 1024);
}

int main(int argc, char **argv)
{
	av_log_init("test", AV_LOG_ERROR, false);
	if (argc == 2 && strlen(argv[1]) == strlen(dir)) {
		memcpy(dir, argv[1], sizeof(dir));
		return upgrade();
	}
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wake_fd < 0 || !mkdtemp(dir))
		return 1;
	for (size_t version = 1; version < store_migrations_count; version++)
		test_forward(version);
	test_death("store.copied");
	test_death("store.migrate");
	test_death("store.migrated");
	test_error("store.copied=error");
	test_error("store.migrate=error@3");
	test_copy();
	test_growth();
	clear_dir();
	(void)rmdir(dir);
	return tap_done();
}
