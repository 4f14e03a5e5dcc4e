/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_store_scale.c - 100,000 sandboxes of the past slow nothing down: every statement finds its
 * rows by an index, pages hold each record once, and what is old goes a few at a time
 */
#include <poll.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/path.h"
#include "lib/tap.h"
#include "store/sql.h"

#include "base/banned.h"

#define RECORDS 100000

static char dir[] = "/tmp/aviary-scale-XXXXXX";
static char db_path[128];
static int wake_fd = -1;

static void wake(void *ctx)
{
	(void)ctx;
	(void)eventfd_write(wake_fd, 1);
}

/* Also applies the migrations. */
static struct store *open_store(void)
{
	struct store_config config = {.path = db_path, .wake = wake};
	struct store *s = NULL;
	struct av_err err;

	if (store_open(&config, &s, &err) < 0)
		diag("%s", err.message);
	return s;
}

static sqlite3 *open_sql(void)
{
	sqlite3 *sql = NULL;

	if (sqlite3_open_v2(db_path, &sql, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		printf("Bail out! %s\n", sqlite3_errmsg(sql));
	return sql;
}

/* Ids in no order, as random ones are; a hundred of them in each millisecond. */
static const char fill[] =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
    "INSERT INTO sandboxes (id, team_id, key_id, template_name, template_id, isolation, state, "
    "final, "
    "reason, message, cpu_milli, memory_bytes, disk_bytes, pids_max, sudo, idle_timeout_ms, "
    "max_lifetime_ms, created_ms, started_ms, last_active_ms, stopped_ms, updated_ms, "
    "created_boot_ns, "
    "last_active_boot_ns, pid, start_ticks, pidns_inode, boot_id, envs, metadata) "
    "SELECT printf('sb%025d', (i * 7919) % 1000003), CASE i % 10 WHEN 0 THEN 'other' ELSE 'team' "
    "END, "
    "'key', 'minimal', 'host', 'jail', 'stopped', 1, 'deleted', '', 1000, 536870912, 0, 1024, 1, "
    "0, 0, "
    "1000000 + i / 100, 0, 0, 2000000 + i, 0, 0, 0, 0, 0, 0, 'boot', '{}', '{}' FROM n";

static void fill_history(sqlite3 *sql)
{
	char *why = NULL;

	is_int(sqlite3_exec(sql, "BEGIN", NULL, NULL, NULL), SQLITE_OK, "begin");
	ok(sqlite3_exec(sql, fill, NULL, NULL, &why) == SQLITE_OK, "%d records: %s", RECORDS,
	    why ? why : "made");
	(void)sqlite3_exec(sql,
	    "INSERT INTO idempotency_keys (team_id, key, request_hash, sandbox_id, created_ms) "
	    "SELECT team_id, id, x'00', id, created_ms FROM sandboxes",
	    NULL, NULL, NULL);
	is_int(sqlite3_exec(sql, "COMMIT", NULL, NULL, NULL), SQLITE_OK, "in one transaction");
}

/* ---- plans ---- */

/* Tables of which there are never many rows. */
static bool is_small(const char *query)
{
	return strstr(query, " FROM api_keys") || strstr(query, " FROM users") ||
	       strstr(query, " FROM teams") || strstr(query, " FROM hosts") ||
	       strstr(query, " FROM channels WHERE ?1 =") || strstr(query, " FROM team_members") ||
	       strstr(query, " FROM templates");
}

/* A walk through a whole table. None are: the index of what lives, and the step of PRUNE_COUNT over
 * the newest records, which are as many as are to be kept. */
static bool walks(const char *step)
{
	return strncmp(step, "SCAN ", 5) == 0 && !strstr(step, "INDEX sandboxes_live") &&
	       !strstr(step, "USING INDEX sandboxes_stopped") &&
	       strcmp(step, "SCAN CONSTANT ROW") != 0;
}

static void check_plan(sqlite3 *sql, enum stmt which)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(16384);
	AV_CLEANUP(av_buf_clear) struct av_buf plan = AV_BUF_INIT(16384);
	const char *query = sql_stmt_text(which);
	sqlite3_stmt *st = NULL;
	bool bad = false;

	/* The count of the audit log is taken once, at the start. */
	if (is_small(query) || which == ST_AUDIT_COUNT)
		return;
	(void)av_buf_printf(&text, "EXPLAIN QUERY PLAN %s", query);
	if (sqlite3_prepare_v2(sql, av_buf_cstr(&text), -1, &st, NULL) != SQLITE_OK) {
		ok(false, "%s: %s", query, sqlite3_errmsg(sql));
		return;
	}
	while (sqlite3_step(st) == SQLITE_ROW) {
		const char *step = (const char *)sqlite3_column_text(st, 3);

		(void)av_buf_printf(&plan, "%s; ", step);
		/* What lives is few; all else must come out of its index in order. */
		bad |= walks(step) || (strstr(step, "TEMP B-TREE") && which != ST_SANDBOX_LIVE);
	}
	(void)sqlite3_finalize(st);
	ok(!bad, "%.60s: %s", query, bad ? av_buf_cstr(&plan) : "by an index");
}

static void test_plans(sqlite3 *sql)
{
	/* As on a database that was never analyzed, which is what Aviary has. */
	for (int i = 0; i < ST_COUNT; i++)
		if (strncmp(sql_stmt_text((enum stmt)i), "SELECT", 6) == 0 ||
		    strncmp(sql_stmt_text((enum stmt)i), "UPDATE", 6) == 0 ||
		    strncmp(sql_stmt_text((enum stmt)i), "DELETE", 6) == 0)
			check_plan(sql, (enum stmt)i);
}

/* ---- pages ---- */

struct seen {
	bool done;
	size_t n;
	int64_t created_ms;
	char id[AV_ID_SIZE];
	bool in_order;
	enum av_err_kind kind;
};

static void on_page(void *ctx, const struct store_sandbox *v, size_t n, const struct av_err *err)
{
	struct seen *s = ctx;

	s->done = true;
	s->kind = err ? err->kind : AV_ERR_NONE;
	s->n = n;
	for (size_t i = 0; i < n; i++) {
		if (s->created_ms &&
		    (v[i].created_ms > s->created_ms ||
		        (v[i].created_ms == s->created_ms && strcmp(v[i].id, s->id) >= 0)))
			s->in_order = false;
		s->created_ms = v[i].created_ms;
		memcpy(s->id, v[i].id, AV_ID_SIZE);
	}
}

static void on_count(void *ctx, size_t n, const struct av_err *err)
{
	struct seen *s = ctx;

	s->done = true;
	s->kind = err ? err->kind : AV_ERR_NONE;
	s->n = n;
}

static void wait_for(struct store *s, struct seen *seen)
{
	while (!seen->done) {
		struct pollfd p = {.fd = wake_fd, .events = POLLIN};
		eventfd_t count;

		if (poll(&p, 1, 20000) != 1) {
			ok(false, "a callback came in time");
			return;
		}
		(void)eventfd_read(wake_fd, &count);
		store_dispatch(s);
	}
	seen->done = false;
}

static void test_pages(struct store *s)
{
	struct seen seen = {.in_order = true};
	size_t total = 0, pages = 0;

	do {
		const struct store_page page = {.team_id = "team",
		    .before_ms = seen.created_ms,
		    .before_id = seen.id,
		    .limit = 1000};

		(void)store_sandbox_history(s, &page, on_page, &seen);
		wait_for(s, &seen);
		total += seen.n;
	} while (seen.n == 1000 && ++pages < 1000);
	is_int(total, RECORDS * 9 / 10, "the pages hold every record of the team");
	ok(seen.in_order, "each once, newest first");
	(void)store_sandbox_live(s, on_page, &seen);
	wait_for(s, &seen);
	is_int(seen.n, 0, "none of them lives");
}

static void test_prune(struct store *s)
{
	struct seen seen = {0};
	size_t total = 0;
	int rounds = 0;

	do {
		(void)store_prune(s, 2000000 + 1000, RECORDS - 2000, 1000000, 300, on_count, &seen);
		wait_for(s, &seen);
		ok(seen.n <= 600, "at most so many of each kind go at once: %zu", seen.n);
		total += seen.n;
	} while (seen.n > 0 && ++rounds < 100);
	is_int(total, 2000, "what is too old and too much goes");
	ok(rounds > 3, "in %d pieces", rounds);
}

/* ---- the audit log ---- */

#define AUDIT_RECORDS 100000

static const char fill_audit[] =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
    "INSERT INTO audit_log (seq, team_id, admin, status, http_status, code, action, resource_id, "
    "actor_type, actor_id, actor_name, user_id, user_name, peer, request_id, metadata) "
    "SELECT i << 20, CASE i % 10 WHEN 0 THEN 'other' ELSE 'team' END, 0, 0, 201, '', "
    "'sandbox.create', CASE i WHEN 5 THEN 'rare' ELSE 'sb' END, 'api_key', 'ke', 'key', 'us', "
    "'somebody', 'peer', 'request', '' FROM n";

struct audit_seen {
	bool done;
	size_t n;
	int64_t last, counted;
};

static void on_audit(
    void *ctx, const struct store_audit *v, size_t n, int64_t last, const struct av_err *err)
{
	struct audit_seen *s = ctx;

	(void)v;
	*s = (struct audit_seen){.done = true, .n = err ? 9999 : n, .last = last};
}

static void on_audit_counts(
    void *ctx, const struct store_audit_count *v, size_t n, const struct av_err *err)
{
	struct audit_seen *s = ctx;

	*s = (struct audit_seen){.done = true, .n = err ? 9999 : n};
	for (size_t i = 0; i < n; i++)
		s->counted += v[i].n;
}

static void wait_audit(struct store *s, struct audit_seen *seen)
{
	while (!seen->done) {
		struct pollfd p = {.fd = wake_fd, .events = POLLIN};
		eventfd_t count;

		if (poll(&p, 1, 20000) != 1) {
			ok(false, "a callback came in time");
			return;
		}
		(void)eventfd_read(wake_fd, &count);
		store_dispatch(s);
	}
	seen->done = false;
}

/* How long the store is at one step of a search that finds nothing before its end. */
static void test_audit(struct store *s)
{
	struct store_audit_query q = {
	    .filter = {.one_team = true, .team_id = "team", .status = -1, .resource_id = "rare"},
	    .from = INT64_MAX,
	    .limit = 10,
	    .scan = 1000};
	struct audit_seen seen = {0};
	int64_t longest = 0;
	size_t steps = 0;

	do {
		int64_t begin = av_mono_ns();

		(void)store_audit_read(s, &q, on_audit, &seen);
		wait_audit(s, &seen);
		longest = AV_MAX(longest, av_mono_ns() - begin);
		q.from = seen.last;
		steps++;
	} while (seen.n == 0 && seen.last != 0);
	is_int(seen.n, 1, "the one record is found");
	is_int(steps, AUDIT_RECORDS * 9 / 10 / 1000, "after so many steps");
	diag("the longest of them took %lld us", (long long)longest / 1000);
	(void)store_audit_count(s, on_audit_counts, &seen);
	wait_audit(s, &seen);
	ok(seen.n == 2 && seen.counted == AUDIT_RECORDS, "all are counted, by team");
	(void)store_audit_prune(s, "team", INT64_MAX, 200, on_audit_counts, &seen);
	wait_audit(s, &seen);
	is_int(seen.counted, 200, "at most so many go at once");
	(void)store_audit_prune(s, NULL, (int64_t)300 << 20, 1000, on_audit_counts, &seen);
	wait_audit(s, &seen);
	is_int(seen.counted, 300 - 200, "what is old goes, and no more");
}

int main(void)
{
	struct store *s;
	sqlite3 *sql;

	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wake_fd < 0 || !mkdtemp(dir) ||
	    av_path_printf(db_path, sizeof(db_path), "%s/aviary.db", dir) < 0)
		return 1;
	s = open_store();
	store_close(s);
	sql = open_sql();
	fill_history(sql);
	is_int(sqlite3_exec(sql, fill_audit, NULL, NULL, NULL), SQLITE_OK, "an audit log");
	test_plans(sql);
	(void)sqlite3_close(sql);
	s = open_store();
	if (!s)
		return 1;
	test_pages(s);
	test_prune(s);
	test_audit(s);
	store_close(s);
	for (size_t i = 0; i < 3; i++) {
		static const char *const ends[] = {"", "-wal", "-shm"};
		char path[160];

		if (av_path_printf(path, sizeof(path), "%s%s", db_path, ends[i]) == 0)
			(void)unlink(path);
	}
	(void)rmdir(dir);
	return tap_done();
}
