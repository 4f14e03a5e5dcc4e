/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_store.c - the database: records survive, batches isolate failures, broken disks are told
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"
#include "store/accounts.h"
#include "store/store.h"
#include "lib/tap.h"

#include "base/banned.h"

static int wake_fd;
static char dir[] = "/tmp/aviary-store-XXXXXX";

static void wake(void *ctx)
{
	(void)ctx;
	(void)eventfd_write(wake_fd, 1);
}

static const char *db_path(const char *name)
{
	static char path[256];

	if (av_path_printf(path, sizeof(path), "%s/%s", dir, name) < 0)
		abort();
	return path;
}

static struct store *open_store(const char *path, struct av_err *err)
{
	struct store *s = NULL;
	struct store_config config = {.path = path, .wake = wake};

	return store_open(&config, &s, err) == 0 ? s : NULL;
}

/* What callbacks saw. */
struct seen {
	int calls, failures;
	enum av_err_kind kind;
	char message[512];
	char existing[AV_ID_SIZE];
	size_t n;
	char first_id[AV_ID_SIZE];
	struct store_sandbox rec;
	char envs[256], tags[64], ports[64], metadata[64];
	struct store_key key;
	char value[64];
};

static void note(struct seen *s, const struct av_err *err)
{
	s->calls++;
	s->kind = err ? err->kind : AV_ERR_NONE;
	if (err) {
		s->failures++;
		(void)snprintf(s->message, sizeof(s->message), "%s", err->message);
	}
}

static void on_done(void *ctx, const struct av_err *err)
{
	note(ctx, err);
}

static void on_insert(void *ctx, const struct store_idempotency *existing, const struct av_err *err)
{
	struct seen *s = ctx;

	note(s, err);
	if (existing)
		memcpy(s->existing, existing->sandbox_id, AV_ID_SIZE);
}

static void on_sandboxes(
    void *ctx, const struct store_sandbox *v, size_t n, const struct av_err *err)
{
	struct seen *s = ctx;

	note(s, err);
	s->n = n;
	if (n) {
		s->rec = v[0];
		memcpy(s->first_id, v[0].id, AV_ID_SIZE);
		(void)snprintf(s->envs, sizeof(s->envs), "%s", v[0].envs_json);
		(void)snprintf(s->metadata, sizeof(s->metadata), "%s", v[0].metadata_json);
		(void)snprintf(s->tags, sizeof(s->tags), "%s", v[0].tags_json);
		(void)snprintf(s->ports, sizeof(s->ports), "%s", v[0].ports_json);
	}
}

static void on_count(void *ctx, size_t n, const struct av_err *err)
{
	struct seen *s = ctx;

	note(s, err);
	s->n = n;
}

static void on_keys(void *ctx, const struct store_key *v, size_t n, const struct av_err *err)
{
	struct seen *s = ctx;

	note(s, err);
	s->n = n;
	if (n)
		s->key = v[0];
}

static void on_value(void *ctx, const char *value, const struct av_err *err)
{
	struct seen *s = ctx;

	note(s, err);
	(void)snprintf(s->value, sizeof(s->value), "%s", value ? value : "(none)");
}

/* Until `calls` callbacks came. */
static void wait_for(struct store *s, const struct seen *seen, int calls)
{
	while (seen->calls < calls) {
		struct pollfd p = {.fd = wake_fd, .events = POLLIN};
		eventfd_t count;

		if (poll(&p, 1, 10000) != 1) {
			ok(false, "a callback came in time");
			exit(tap_done());
		}
		(void)eventfd_read(wake_fd, &count);
		store_dispatch(s);
	}
}

static struct store_sandbox make_record(const char *team, int64_t created_ms)
{
	struct store_sandbox rec = {
	    .isolation = "jail",
	    .state = "starting",
	    .template_name = "minimal",
	    .template_id = "host",
	    .cpu_milli = 1000,
	    .memory_bytes = 512 << 20,
	    .pids_max = 1024,
	    .sudo = true,
	    .created_ms = created_ms,
	    .envs_json = "{\"A\":\"\\u00e9\"}",
	    .metadata_json = "{\"m\":\"1\"}",
	    .evidence = {.boot_id = "b", .start_ticks = UINT64_MAX},
	};

	av_id_make(rec.id, AV_ID_SANDBOX);
	memcpy(rec.team_id, team, AV_ID_SIZE);
	return rec;
}

static void test_sandboxes(struct store *s, const char *team)
{
	struct seen seen = {0};
	struct store_sandbox rec = make_record(team, 1000);
	struct store_sandbox second = make_record(team, 2000);

	is_int(store_sandbox_insert(s, &rec, NULL, 0, on_insert, &seen), 0, "insert is queued");
	is_int(seen.calls, 0, "no callback from inside the call");
	wait_for(s, &seen, 1);
	is_int(seen.kind, AV_ERR_NONE, "insert succeeds");
	(void)store_sandbox_insert(s, &rec, NULL, 0, on_insert, &seen);
	wait_for(s, &seen, 2);
	is_int(seen.kind, AV_ERR_CONFLICT, "the same id twice is a conflict");

	memcpy(rec.state, "running", 8);
	rec.evidence.pid = 4711;
	(void)store_sandbox_update(s, &rec, on_done, &seen);
	(void)store_sandbox_get(s, rec.id, on_sandboxes, &seen);
	wait_for(s, &seen, 4);
	is_int(seen.n, 1, "the record is found");
	is_str(seen.rec.state, "running", "the update holds");
	is_int(seen.rec.evidence.pid, 4711, "evidence is kept");
	ok(seen.rec.evidence.start_ticks == UINT64_MAX, "64-bit numbers survive");
	is_str(seen.envs, rec.envs_json, "JSON is kept as it was");
	is_str(seen.tags, "[]", "no tags is an empty array");
	ok(!seen.rec.idle_delete && !seen.rec.auto_resume && !seen.rec.internet &&
	        seen.rec.paused_ms == 0,
	    "switches are off");
	rec.idle_delete = rec.auto_resume = rec.internet = true;
	rec.paused_ms = 77;
	memcpy(rec.template_id, "tp1", 4);
	memcpy(rec.rollback_from, "host", 5);
	rec.metadata_json = "{}";
	(void)store_sandbox_update(s, &rec, on_done, &seen);
	(void)store_sandbox_get(s, rec.id, on_sandboxes, &seen);
	wait_for(s, &seen, 6);
	ok(seen.rec.idle_delete && seen.rec.auto_resume && seen.rec.internet &&
	        seen.rec.paused_ms == 77,
	    "and on");
	is_str(seen.rec.template_id, "tp1", "another template");
	is_str(seen.rec.rollback_from, "host", "and which it was before");
	is_str(seen.metadata, "{\"m\":\"1\"}", "labels stay unless they are to be written");
	rec.tags_json = "[\"t\"]";
	rec.ports_json = "[80]";
	rec.write_labels = true;
	(void)store_sandbox_update(s, &rec, on_done, &seen);
	(void)store_sandbox_get(s, rec.id, on_sandboxes, &seen);
	wait_for(s, &seen, 8);
	ok(strcmp(seen.metadata, "{}") == 0 && strcmp(seen.tags, "[\"t\"]") == 0 &&
	        strcmp(seen.ports, "[80]") == 0,
	    "then they are: %s %s %s", seen.metadata, seen.tags, seen.ports);
	seen.calls = 4;

	(void)store_sandbox_insert(s, &second, NULL, 0, on_insert, &seen);
	(void)store_sandbox_live(s, on_sandboxes, &seen);
	wait_for(s, &seen, 6);
	is_int(seen.n, 2, "both are listed");
	is_str(seen.first_id, second.id, "newest first");
	memcpy(second.state, "stopped", 8);
	second.final = true;
	second.stopped_ms = 3000;
	(void)store_sandbox_update(s, &second, on_done, &seen);
	(void)store_sandbox_live(s, on_sandboxes, &seen);
	wait_for(s, &seen, 8);
	is_int(seen.n, 1, "final records are not live");
	(void)store_sandbox_history(
	    s, &(struct store_page){.team_id = team, .limit = 5}, on_sandboxes, &seen);
	wait_for(s, &seen, 9);
	is_int(seen.n, 1, "history has one");
	(void)store_prune(s, 3001, 10, 0, 5, on_count, &seen);
	(void)store_sandbox_get(s, second.id, on_sandboxes, &seen);
	wait_for(s, &seen, 11);
	is_int(seen.n, 0, "history is forgotten in time");
	second.final = false;
	(void)store_sandbox_update(s, &second, on_done, &seen);
	wait_for(s, &seen, 12);
	is_int(seen.kind, AV_ERR_NOT_FOUND, "updating what is not there fails");
}

static void test_idempotency(struct store *s, const char *team)
{
	struct seen seen = {0};
	struct store_sandbox a = make_record(team, 10000), b = make_record(team, 10500),
	                     c = make_record(team, 20000);
	struct store_idempotency idem = {.key = "order-66", .request_hash = {1, 2, 3}};

	(void)store_sandbox_insert(s, &a, &idem, 5000, on_insert, &seen);
	(void)store_sandbox_insert(s, &b, &idem, 5000, on_insert, &seen);
	wait_for(s, &seen, 2);
	is_int(seen.kind, AV_ERR_CONFLICT, "a used key is a conflict");
	is_str(seen.existing, a.id, "and says whose it is");
	(void)store_sandbox_get(s, b.id, on_sandboxes, &seen);
	wait_for(s, &seen, 3);
	is_int(seen.n, 0, "the second sandbox was not recorded");
	(void)store_sandbox_insert(s, &c, &idem, 5000, on_insert, &seen);
	wait_for(s, &seen, 4);
	is_int(seen.kind, AV_ERR_NONE, "an old key is free again");
}

static void test_keys(struct store *s, char team[static AV_ID_SIZE])
{
	struct seen seen = {0};
	struct store_first first = {.user = {.name = "admin", .status = "active"},
	    .team = {.name = "default", .slug = "a-b"},
	    .member = {.role = "owner", .is_default = true}};
	struct store_key other = {.name = "other", .created_ms = 9}, third = {.created_ms = 10};
	struct store_account_change gone = {0};

	av_id_make(first.user.id, AV_ID_USER);
	av_id_make(first.team.id, AV_ID_TEAM);
	av_id_make(first.key.id, AV_ID_KEY);
	memcpy(first.member.team_id, first.team.id, AV_ID_SIZE);
	memcpy(first.member.user_id, first.user.id, AV_ID_SIZE);
	memcpy(first.key.team_id, first.team.id, AV_ID_SIZE);
	memcpy(first.key.user_id, first.user.id, AV_ID_SIZE);
	memcpy(first.key.scopes, "team:*", sizeof("team:*"));
	first.key.quota = (struct store_quota){1, 2, 3, 4, 5};
	memset(first.key.hash, 7, sizeof(first.key.hash));
	first.key.created_ms = 5;
	(void)store_first_start(s, &first, on_done, &seen);
	wait_for(s, &seen, 1);
	is_int(seen.kind, AV_ERR_NONE, "the first start makes user, team and key");
	(void)store_first_start(s, &first, on_done, &seen);
	wait_for(s, &seen, 2);
	is_int(seen.kind, AV_ERR_CONFLICT, "only once");
	other.hash[0] = 1;
	av_id_make(other.id, AV_ID_KEY);
	memcpy(other.team_id, first.team.id, AV_ID_SIZE);
	memcpy(other.user_id, first.user.id, AV_ID_SIZE);
	(void)store_account_change(
	    s, &(struct store_account_change){.keys = {other}}, on_done, &seen);
	(void)store_key_touch(s, first.key.id, 12345);
	(void)store_key_list(s, on_keys, &seen);
	wait_for(s, &seen, 4);
	is_int(seen.n, 2, "two keys");
	is_str(seen.key.id, first.key.id, "oldest first");
	is_int(seen.key.last_used_ms, 12345, "its use is recorded");
	is_int(seen.key.hash[31], 7, "its hash is kept");
	is_str(seen.key.scopes, "team:*", "its scopes are");
	ok(memcmp(&seen.key.quota, &first.key.quota, sizeof(first.key.quota)) == 0,
	    "and its bounds");
	third.hash[0] = 2;
	av_id_make(third.id, AV_ID_KEY);
	memcpy(third.team_id, first.team.id, AV_ID_SIZE);
	memcpy(third.user_id, first.user.id, AV_ID_SIZE);
	first.key.expires_ms = 777;
	(void)store_account_change(
	    s, &(struct store_account_change){.keys = {third, first.key}}, on_done, &seen);
	(void)store_key_list(s, on_keys, &seen);
	wait_for(s, &seen, 6);
	is_int(seen.n, 3, "a key is rotated: there are both");
	is_int(seen.key.expires_ms, 777, "and the former one ends");
	memcpy(gone.gone_key, other.id, AV_ID_SIZE);
	(void)store_account_change(s, &gone, on_done, &seen);
	(void)store_account_change(s, &gone, on_done, &seen);
	wait_for(s, &seen, 8);
	is_int(seen.failures, 1, "deleting twice is fine");
	memcpy(team, first.team.id, AV_ID_SIZE);
}

struct accounts_seen {
	struct seen seen; /* first */
	struct store_user user;
	struct store_team team;
	struct store_member member;
};

static void on_users(void *ctx, const struct store_user *v, size_t n, const struct av_err *err)
{
	struct accounts_seen *a = ctx;

	on_done(&a->seen, err);
	a->seen.n = n;
	a->user = n ? v[n - 1] : (struct store_user){0};
}

static void on_teams(void *ctx, const struct store_team *v, size_t n, const struct av_err *err)
{
	struct accounts_seen *a = ctx;

	on_done(&a->seen, err);
	a->seen.n = n;
	a->team = n ? v[n - 1] : (struct store_team){0};
}

static void on_members(void *ctx, const struct store_member *v, size_t n, const struct av_err *err)
{
	struct accounts_seen *a = ctx;

	on_done(&a->seen, err);
	a->seen.n = n;
	a->member = n ? v[n - 1] : (struct store_member){0};
}

/* After test_keys: there is one user with one team. */
static void test_accounts(struct store *s)
{
	struct accounts_seen a = {0};
	struct store_account_change ch = {.user = {.name = "Ann",
	                                      .email = "ann@example.com",
	                                      .password = "$argon2id$",
	                                      .status = "inactive",
	                                      .epoch = 3,
	                                      .created_ms = 100},
	    .team = {.name = "Ann's", .slug = "c-d", .quota = {.sandboxes = 7}, .created_ms = 100},
	    .member = {.role = "owner", .is_default = true, .joined_ms = 100}};
	struct store_account_change gone = {.leave_all = true, .n_dissolved = 1, .at_ms = 200};
	int count = 0;

	av_id_make(ch.user.id, AV_ID_USER);
	av_id_make(ch.team.id, AV_ID_TEAM);
	memcpy(ch.member.user_id, ch.user.id, AV_ID_SIZE);
	memcpy(ch.member.team_id, ch.team.id, AV_ID_SIZE);
	(void)store_account_change(s, &ch, on_done, &a);
	(void)store_user_list(s, on_users, &a);
	wait_for(s, &a.seen, count += 2);
	ok(a.seen.n == 2 && memcmp(&a.user, &ch.user, sizeof(a.user)) == 0,
	    "a user comes back as recorded");
	(void)store_team_list(s, on_teams, &a);
	wait_for(s, &a.seen, ++count);
	ok(a.seen.n == 2 && memcmp(&a.team, &ch.team, sizeof(a.team)) == 0, "a team does");
	(void)store_member_list(s, on_members, &a);
	wait_for(s, &a.seen, ++count);
	ok(a.seen.n == 2 && memcmp(&a.member, &ch.member, sizeof(a.member)) == 0, "a member does");
	memcpy(ch.user.status, "active", sizeof("active"));
	(void)store_account_change(s, &(struct store_account_change){.user = ch.user}, on_done, &a);
	(void)store_user_list(s, on_users, &a);
	wait_for(s, &a.seen, count += 2);
	is_str(a.user.status, "active", "a user is written over");
	av_id_make(ch.user.id, AV_ID_USER);
	(void)store_account_change(s, &(struct store_account_change){.user = ch.user}, on_done, &a);
	wait_for(s, &a.seen, ++count);
	is_int(a.seen.kind, AV_ERR_CONFLICT, "no two have one e-mail address");
	a.seen.kind = 0;
	gone.user = a.user;
	memcpy(gone.user.status, "deleted", sizeof("deleted"));
	gone.user.deleted_ms = 200;
	memcpy(gone.dissolved[0], ch.team.id, AV_ID_SIZE);
	(void)store_account_change(s, &gone, on_done, &a);
	(void)store_user_list(s, on_users, &a);
	wait_for(s, &a.seen, count += 2);
	is_int(a.seen.n, 1, "a deleted user is not listed");
	(void)store_team_list(s, on_teams, &a);
	wait_for(s, &a.seen, ++count);
	is_int(a.seen.n, 1, "nor the team that went along");
	(void)store_account_change(s, &(struct store_account_change){.user = ch.user}, on_done, &a);
	(void)store_account_prune(s, 201, 10, on_done, &a);
	wait_for(s, &a.seen, count += 2);
	is_int(a.seen.kind, AV_ERR_NONE, "its address is free, and it can be forgotten");
}

static void test_values(struct store *s)
{
	struct seen seen = {0};

	(void)store_value_get(s, "boot", on_value, &seen);
	wait_for(s, &seen, 1);
	is_str(seen.value, "(none)", "an unset value is NULL");
	(void)store_value_set(s, "boot", "one", on_done, &seen);
	(void)store_value_set(s, "boot", "two", on_done, &seen);
	(void)store_value_get(s, "boot", on_value, &seen);
	wait_for(s, &seen, 4);
	is_str(seen.value, "two", "the last value wins");
}

/* Many at once: fewer transactions than requests, and one bad record harms no other. */
/* ---- usage ---- */

struct rows {
	struct seen seen;
	struct store_load_row loads[8];
	struct store_hour_row hours[8];
	char points[16];
	size_t n;
};

static void on_loads(void *ctx, const struct store_load_row *v, size_t n, const struct av_err *err)
{
	struct rows *r = ctx;

	note(&r->seen, err);
	r->n = n;
	for (size_t i = 0; i < n && i < 8; i++)
		r->loads[i] = v[i];
}

static void on_hours(void *ctx, const struct store_hour_row *v, size_t n, const struct av_err *err)
{
	struct rows *r = ctx;

	note(&r->seen, err);
	r->n = n;
	for (size_t i = 0; i < n && i < 8; i++)
		r->hours[i] = v[i];
}

static void on_points(void *ctx, const void *points, size_t size, const struct av_err *err)
{
	struct rows *r = ctx;

	note(&r->seen, err);
	r->n = size;
	if (size)
		memcpy(r->points, points, size < sizeof(r->points) ? size : sizeof(r->points));
}

static void test_usage(struct store *s, const char *team)
{
	struct store_sandbox gone = make_record(team, 50);
	struct rows r = {0};
	struct store_usage u = {.hour = 100,
	    .cpu_milli_ms = 5,
	    .memory_mib_ms = 7,
	    .peak = {.running = 3, .cpu_milli = 100, .memory_mib = 10},
	    .at_s = 1000,
	    .load = {.running = 3}};

	memcpy(u.team_id, team, strnlen(team, AV_ID_LEN));
	(void)store_usage_add(s, &u, on_done, &r.seen);
	u.peak = (struct store_load){.running = 1, .cpu_milli = 400, .memory_mib = 20};
	u.at_s = 0;
	(void)store_usage_add(s, &u, on_done, &r.seen);
	u.hour = 101;
	u.at_s = 2000;
	u.load.running = 1;
	(void)store_usage_add(s, &u, on_done, &r.seen);
	(void)store_hour_list(s, team, 100, 101, on_hours, &r);
	wait_for(s, &r.seen, 4);
	is_int((long long)r.n, 1, "an hour is one row");
	ok(r.hours[0].cpu_milli_ms == 10 && r.hours[0].memory_mib_ms == 14, "sums are added up");
	ok(r.hours[0].peak.running == 3 && r.hours[0].peak.cpu_milli == 400 &&
	        r.hours[0].peak.memory_mib == 20,
	    "peaks are the larger ones");
	(void)store_load_list(s, team, 1500, on_loads, &r);
	wait_for(s, &r.seen, 5);
	ok(r.n == 2 && r.loads[0].at_s == 1000 && r.loads[0].load.running == 3,
	    "the load before the time asked for comes along");
	(void)store_load_list(s, team, 2000, on_loads, &r);
	wait_for(s, &r.seen, 6);
	ok(r.n == 1 && r.loads[0].at_s == 2000, "unless one begins at that time");
	gone.final = true;
	gone.stopped_ms = 1;
	(void)store_sandbox_insert(s, &gone, NULL, 0, on_insert, &r.seen);
	(void)store_points_put(s, gone.id, "abc", 3, on_done, &r.seen);
	(void)store_points_put(s, gone.id, "abcd", 4, on_done, &r.seen);
	(void)store_points_get(s, gone.id, on_points, &r);
	wait_for(s, &r.seen, 10);
	ok(r.n == 4 && memcmp(r.points, "abcd", 4) == 0, "points are replaced as a whole");
	is_int(store_points_put(s, gone.id, "", STORE_POINTS_MAX + 1, NULL, NULL), -EMSGSIZE,
	    "and bounded");
	(void)store_prune(s, 2, 1000, 0, 10, on_count, &r.seen);
	(void)store_usage_prune(s, 2000, 101, on_done, &r.seen);
	(void)store_points_get(s, gone.id, on_points, &r);
	wait_for(s, &r.seen, 13);
	is_int((long long)r.n, 0, "points go with their sandbox");
	(void)store_hour_list(s, team, 0, 1000, on_hours, &r);
	wait_for(s, &r.seen, 14);
	is_int((long long)r.n, 1, "and old hours");
	(void)store_load_list(s, team, 0, on_loads, &r);
	wait_for(s, &r.seen, 15);
	is_int((long long)r.n, 1, "and old loads");
	is_int(r.seen.failures, 0, "without an error");
}

/* ---- main commands ---- */

struct log_seen {
	struct seen seen;
	char text[16];
	size_t n;
};

static void on_log(void *ctx, const void *log, size_t size, const struct av_err *err)
{
	struct log_seen *l = ctx;

	l->n = size;
	memcpy(l->text, log ? log : "", size < sizeof(l->text) ? size : sizeof(l->text));
	note(&l->seen, err);
}

static size_t log_of(struct store *s, struct log_seen *l, const char *id)
{
	(void)store_log_get(s, id, on_log, l);
	wait_for(s, &l->seen, l->seen.calls + 1);
	return l->n;
}

static void test_main(struct store *s, const char *team)
{
	char other[AV_ID_SIZE];
	struct store_sandbox a = make_record(team, 61), b = make_record(team, 62);
	struct store_sandbox c;
	struct store_main got;
	const struct store_main end = {.state = "exited",
	    .pid = 7,
	    .exit_code = 137,
	    .exit_signal = 9,
	    .started_ms = 1,
	    .finished_ms = 2,
	    .stop_ms = 3,
	    .stop_snapshot = "name",
	    .stop_by = "kewho"};
	struct log_seen l = {0};
	struct seen seen = {0};

	av_id_make(other, AV_ID_TEAM);
	c = make_record(other, 63);
	a.main_json = "{\"command\":[\"true\"]}";
	memcpy(a.main.state, "starting", sizeof("starting"));
	a.final = b.final = c.final = true;
	(void)store_sandbox_insert(s, &a, NULL, 0, on_insert, &seen);
	(void)store_sandbox_insert(s, &b, NULL, 0, on_insert, &seen);
	(void)store_sandbox_get(s, b.id, on_sandboxes, &seen);
	wait_for(s, &seen, 3);
	ok(!seen.rec.main.state[0], "one without a main command");
	(void)store_sandbox_get(s, a.id, on_sandboxes, &seen);
	wait_for(s, &seen, 4);
	is_str(seen.rec.main.state, "starting", "one that has it");
	(void)store_main_update(s, a.id, &end, on_done, &seen);
	a.main = (struct store_main){.state = "running"};
	(void)store_sandbox_update(s, &a, on_done, &seen);
	(void)store_sandbox_get(s, a.id, on_sandboxes, &seen);
	wait_for(s, &seen, 7);
	got = seen.rec.main;
	ok(strcmp(got.state, end.state) == 0 && got.pid == end.pid &&
	        got.exit_code == end.exit_code && got.exit_signal == end.exit_signal &&
	        got.started_ms == end.started_ms && got.finished_ms == end.finished_ms &&
	        got.stop_ms == end.stop_ms && strcmp(got.stop_snapshot, end.stop_snapshot) == 0 &&
	        strcmp(got.stop_by, end.stop_by) == 0,
	    "how it goes on is kept, and no other change touches it");

	(void)store_sandbox_insert(s, &c, NULL, 0, on_insert, &seen);
	(void)store_log_put(s, c.id, "xyz", 3, 28, NULL, NULL);
	(void)store_log_put(s, a.id, "0123456789", 10, 28, NULL, NULL);
	(void)store_log_put(s, b.id, "abcde", 5, 28, NULL, NULL);
	ok(log_of(s, &l, a.id) == 10 && memcmp(l.text, "0123456789", 10) == 0, "a log is saved");
	(void)store_log_put(s, b.id, "ABCDEFGHIJKLMNOPQ", 17, 28, NULL, NULL);
	ok(log_of(s, &l, b.id) == 17 && log_of(s, &l, a.id) == 0,
	    "the oldest goes when all have more than they may");
	is_int((long long)log_of(s, &l, c.id), 3, "not that of a team that has less");
	(void)store_log_put(s, b.id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", 26, 28, NULL, NULL);
	ok(log_of(s, &l, b.id) == 26 && log_of(s, &l, c.id) == 0,
	    "one that leaves no room for others is alone");
	(void)store_prune(s, 100, 1000, 0, 10, on_count, &seen);
	wait_for(s, &seen, 9);
	is_int((long long)log_of(s, &l, b.id), 0, "logs go with their sandboxes");
	(void)store_log_put(s, b.id, "late", 4, 28, NULL, NULL);
	is_int((long long)log_of(s, &l, b.id), 0, "and do not come after them");
	is_int(seen.failures + l.seen.failures, 0, "without an error");
}

static void test_batch(struct store *s, const char *team)
{
	struct seen good = {0}, bad = {0};
	struct store_stats before, after;
	struct store_sandbox first = make_record(team, 1);

	store_get_stats(s, &before);
	(void)store_sandbox_insert(s, &first, NULL, 0, on_insert, &good);
	for (int i = 0; i < 1000; i++) {
		struct store_sandbox rec = make_record(team, 50000 + i);

		if (store_sandbox_insert(s, &rec, NULL, 0, on_insert, &good) < 0)
			abort();
		if (i % 100 == 50)
			(void)store_sandbox_insert(s, &first, NULL, 0, on_insert, &bad);
	}
	wait_for(s, &good, 1001);
	wait_for(s, &bad, 10);
	store_get_stats(s, &after);
	is_int(good.failures, 0, "1001 good records are written");
	is_int(bad.failures, 10, "10 bad ones are refused");
	ok(after.transactions - before.transactions < 300, "in %llu transactions",
	    (unsigned long long)(after.transactions - before.transactions));
}

/* What sandboxes do is answered first and on the disk then; the rest is on the disk when answered.
 */
static void test_sync(struct store *s, const char *team)
{
	struct seen seen = {0};
	struct store_stats before, after;
	struct store_sandbox rec = make_record(team, 90000);

	usleep(200000); /* what came before is on the disk */
	store_get_stats(s, &before);
	(void)store_value_set(s, "sync", "one", on_done, &seen);
	wait_for(s, &seen, 1);
	usleep(50000);
	store_get_stats(s, &after);
	is_int((long long)(after.synced - before.synced), 0, "a setting is not synced afterwards");
	(void)store_sandbox_insert(s, &rec, NULL, 0, on_insert, &seen);
	wait_for(s, &seen, 2);
	for (int i = 0; i < 500 && after.synced == before.synced; i++) {
		usleep(10000);
		store_get_stats(s, &after);
	}
	is_int((long long)(after.synced - before.synced), 1, "a sandbox is, once");
	is_int(seen.failures, 0, "without an error");
}

static void test_reopen(const char *path)
{
	struct av_err err = {0};
	struct seen seen = {0};
	struct store *s = open_store(path, &err);

	ok(s != NULL, "opens again: %s", err.message);
	if (!s)
		return;
	(void)store_sandbox_live(s, on_sandboxes, &seen);
	wait_for(s, &seen, 1);
	ok(seen.n > 1000, "everything is still there (%zu)", seen.n);
	store_close(s);
}

static void test_refusals(const char *path)
{
	struct av_err err = {0};
	sqlite3 *sql = NULL;
	struct store *s;

	is_int(sqlite3_open(path, &sql), SQLITE_OK, "the file is a plain database");
	is_int(sqlite3_exec(sql, "PRAGMA user_version = 4711", NULL, NULL, NULL), SQLITE_OK,
	    "a newer version is written");
	(void)sqlite3_close(sql);
	s = open_store(path, &err);
	ok(s == NULL && strstr(err.message, "newer Aviary") && strstr(err.message, "4711"),
	    "a newer schema is refused: %s", err.message);
	is_int(err.kind, AV_ERR_CONFLICT, "as what no second try mends");
	s = open_store("/nonexistent/aviary.db", &err);
	ok(s == NULL && strstr(err.message, "/nonexistent/aviary.db"), "a bad path is named: %s",
	    err.message);
	s = open_store("/etc/passwd", &err);
	ok(s == NULL, "a file that is no database is refused: %s", err.message);
}

/* A file system of 256 KiB that fills up and is emptied again. */
static int disk_full_child(void)
{
	struct av_err err = {0};
	struct seen seen = {0};
	struct store *s;
	char ballast[256], block[4096] = {0};
	int fd;

	if (unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("small", dir, "tmpfs", 0, "size=1m") < 0)
		return 77;
	s = open_store(db_path("full.db"), &err);
	if (!s || av_path_printf(ballast, sizeof(ballast), "%s/ballast", dir) < 0)
		return 1;
	fd = open(ballast, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	while (write(fd, block, sizeof(block)) > 0)
		;
	for (int i = 0; i < 64; i++) {
		struct store_sandbox rec = make_record("te0000000000000000000000000", 1);

		if (store_sandbox_insert(s, &rec, NULL, 0, on_insert, &seen) < 0)
			return 2;
	}
	wait_for(s, &seen, 64);
	if (seen.failures == 0 || seen.kind != AV_ERR_NO_SPACE || !strstr(seen.message, "space")) {
		diag("%d failures, kind %d: %s", seen.failures, seen.kind, seen.message);
		return 3;
	}
	(void)close(fd);
	(void)unlink(ballast);
	memset(&seen, 0, sizeof(seen));
	for (int i = 0; i < 16; i++) {
		struct store_sandbox rec = make_record("te0000000000000000000000000", 1);

		(void)store_sandbox_insert(s, &rec, NULL, 0, on_insert, &seen);
	}
	wait_for(s, &seen, 16);
	if (seen.failures)
		diag("%s", seen.message);
	store_close(s);
	return seen.failures ? 4 : 0;
}

/* Writes past the file size limit fail with EFBIG: an I/O error that goes away again. */
static int io_error_child(void)
{
	struct av_err err = {0};
	struct seen seen = {0};
	struct rlimit limit = {.rlim_cur = 16384, .rlim_max = RLIM_INFINITY};
	struct store *s = open_store(db_path("io.db"), &err);

	if (!s)
		return 1;
	(void)signal(SIGXFSZ, SIG_IGN);
	(void)getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = 16384;
	if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
		return 77;
	for (int i = 0; i < 64; i++) {
		struct store_sandbox rec = make_record("te0000000000000000000000000", 1);

		(void)store_sandbox_insert(s, &rec, NULL, 0, on_insert, &seen);
	}
	wait_for(s, &seen, 64);
	if (seen.failures == 0 || !seen.message[0])
		return 3;
	diag("as expected: %s", seen.message);
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_FSIZE, &limit);
	memset(&seen, 0, sizeof(seen));
	for (int i = 0; i < 16; i++) {
		struct store_sandbox rec = make_record("te0000000000000000000000000", 1);

		(void)store_sandbox_insert(s, &rec, NULL, 0, on_insert, &seen);
	}
	wait_for(s, &seen, 16);
	store_close(s);
	return seen.failures ? 4 : 0;
}

static void in_child(int (*fn)(void), const char *what)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		fflush(stdout);
		_exit(fn());
	}
	(void)waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		ok(true, "%s # SKIP not allowed here", what);
	else
		ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s (status 0x%x)", what,
		    (unsigned)status);
}

static void remove_files(void)
{
	static const char *const names[] = {"aviary.db", "aviary.db-wal", "io.db", "io.db-wal"};

	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++)
		(void)unlink(db_path(names[i]));
	(void)rmdir(dir);
}

int main(void)
{
	struct av_err err = {0};
	struct stat st;
	struct store *s;
	char team[AV_ID_SIZE] = "";

	(void)umask(0);
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!mkdtemp(dir))
		return 1;
	in_child(disk_full_child, "a full disk refuses, later writes succeed");
	in_child(io_error_child, "an I/O error refuses, later writes succeed");
	s = open_store(db_path("aviary.db"), &err);
	ok(s != NULL, "a new database opens: %s", err.message);
	if (!s)
		return tap_done();
	is_int(stat(db_path("aviary.db"), &st) == 0 ? st.st_mode & 0777 : 0, 0600,
	    "nobody else can read it");
	is_int(
	    stat(db_path("aviary.db-wal"), &st) == 0 ? st.st_mode & 0777 : 0, 0600, "nor its log");
	test_keys(s, team);
	test_sandboxes(s, team);
	test_idempotency(s, team);
	test_accounts(s);
	test_values(s);
	test_usage(s, team);
	test_main(s, team);
	test_batch(s, team);
	test_sync(s, team);
	store_close(s);
	test_reopen(db_path("aviary.db"));
	test_refusals(db_path("aviary.db"));
	remove_files();
	return tap_done();
}
