/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql_accounts.c - users, teams and members, as SQL
 */
#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "store/sql.h"

#include "base/banned.h"

#define WHAT "cannot record the account"

void sql_bind_quota(sqlite3_stmt *st, int first, const struct store_quota *q)
{
	(void)sqlite3_bind_int64(st, first, q->sandboxes);
	(void)sqlite3_bind_int64(st, first + 1, q->cpu_milli);
	(void)sqlite3_bind_int64(st, first + 2, q->memory_bytes);
	(void)sqlite3_bind_int64(st, first + 3, q->disk_bytes);
	(void)sqlite3_bind_int64(st, first + 4, q->creates_per_minute);
}

void sql_read_quota(sqlite3_stmt *st, int first, struct store_quota *ret)
{
	ret->sandboxes = sqlite3_column_int64(st, first);
	ret->cpu_milli = sqlite3_column_int64(st, first + 1);
	ret->memory_bytes = sqlite3_column_int64(st, first + 2);
	ret->disk_bytes = sqlite3_column_int64(st, first + 3);
	ret->creates_per_minute = sqlite3_column_int64(st, first + 4);
}

/* ---- reading ---- */

static void read_user(sqlite3_stmt *st, void *row)
{
	struct store_user *u = row;

	sql_column_copy(u->id, sizeof(u->id), st, 0);
	sql_column_copy(u->name, sizeof(u->name), st, 1);
	sql_column_copy(u->email, sizeof(u->email), st, 2);
	sql_column_copy(u->password, sizeof(u->password), st, 3);
	sql_column_copy(u->status, sizeof(u->status), st, 4);
	sql_column_copy(u->github_id, sizeof(u->github_id), st, 5);
	u->is_admin = sqlite3_column_int(st, 6) != 0;
	u->epoch = sqlite3_column_int64(st, 7);
	u->created_ms = sqlite3_column_int64(st, 8);
	u->updated_ms = sqlite3_column_int64(st, 9);
	u->deleted_ms = sqlite3_column_int64(st, 10);
}

int sql_user_list(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_USER_LIST);

	return sql_read_rows(db, r, st, sizeof(struct store_user), read_user, "cannot read users");
}

static void read_team(sqlite3_stmt *st, void *row)
{
	struct store_team *t = row;

	sql_column_copy(t->id, sizeof(t->id), st, 0);
	sql_column_copy(t->name, sizeof(t->name), st, 1);
	sql_column_copy(t->slug, sizeof(t->slug), st, 2);
	t->is_byoc = sqlite3_column_int(st, 3) != 0;
	sql_read_quota(st, 4, &t->quota);
	t->created_ms = sqlite3_column_int64(st, 9);
	t->deleted_ms = sqlite3_column_int64(st, 10);
}

int sql_team_list(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_TEAM_LIST);

	return sql_read_rows(db, r, st, sizeof(struct store_team), read_team, "cannot read teams");
}

static void read_member(sqlite3_stmt *st, void *row)
{
	struct store_member *m = row;

	sql_column_copy(m->team_id, sizeof(m->team_id), st, 0);
	sql_column_copy(m->user_id, sizeof(m->user_id), st, 1);
	sql_column_copy(m->role, sizeof(m->role), st, 2);
	m->is_default = sqlite3_column_int(st, 3) != 0;
	m->joined_ms = sqlite3_column_int64(st, 4);
}

int sql_member_list(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_MEMBER_LIST);

	return sql_read_rows(
	    db, r, st, sizeof(struct store_member), read_member, "cannot read members");
}

/* ---- writing ---- */

static int put_user(struct store_db *db, const struct store_user *u, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, ST_USER_PUT);

	if (!st)
		return sql_error(db, err, WHAT);
	sql_bind_text(st, 1, u->id);
	sql_bind_text(st, 2, u->name);
	sql_bind_text(st, 3, u->email);
	sql_bind_text(st, 4, u->password);
	sql_bind_text(st, 5, u->status);
	sql_bind_text(st, 6, u->github_id);
	(void)sqlite3_bind_int(st, 7, u->is_admin);
	(void)sqlite3_bind_int64(st, 8, u->epoch);
	(void)sqlite3_bind_int64(st, 9, u->created_ms);
	(void)sqlite3_bind_int64(st, 10, u->updated_ms);
	(void)sqlite3_bind_int64(st, 11, u->deleted_ms);
	return sql_run(db, st, WHAT, err);
}

static int put_team(struct store_db *db, const struct store_team *t, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, ST_TEAM_PUT);

	if (!st)
		return sql_error(db, err, WHAT);
	sql_bind_text(st, 1, t->id);
	sql_bind_text(st, 2, t->name);
	sql_bind_text(st, 3, t->slug);
	(void)sqlite3_bind_int(st, 4, t->is_byoc);
	sql_bind_quota(st, 5, &t->quota);
	(void)sqlite3_bind_int64(st, 10, t->created_ms);
	(void)sqlite3_bind_int64(st, 11, t->deleted_ms);
	return sql_run(db, st, WHAT, err);
}

static int put_member(struct store_db *db, const struct store_member *m, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, ST_MEMBER_PUT);

	if (!st)
		return sql_error(db, err, WHAT);
	sql_bind_text(st, 1, m->team_id);
	sql_bind_text(st, 2, m->user_id);
	sql_bind_text(st, 3, m->role);
	(void)sqlite3_bind_int(st, 4, m->is_default);
	(void)sqlite3_bind_int64(st, 5, m->joined_ms);
	return sql_run(db, st, WHAT, err);
}

/* A statement whose parameters are one or two ids. */
static int run_ids(
    struct store_db *db, enum stmt which, const char *a, const char *b, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, which);

	if (!st)
		return sql_error(db, err, WHAT);
	sql_bind_text(st, 1, a);
	if (b)
		sql_bind_text(st, 2, b);
	return sql_run(db, st, WHAT, err);
}

static int dissolve(struct store_db *db, const char *team_id, int64_t at_ms, struct av_err *err)
{
	sqlite3_stmt *st;

	if (run_ids(db, ST_KEY_DROP_TEAM, team_id, NULL, err) < 0 ||
	    run_ids(db, ST_MEMBER_DROP_TEAM, team_id, NULL, err) < 0 ||
	    sql_channel_drop_team(db, team_id, err) < 0)
		return -EIO;
	st = sql_stmt(db, ST_TEAM_DISSOLVE);
	if (!st)
		return sql_error(db, err, WHAT);
	sql_bind_text(st, 1, team_id);
	(void)sqlite3_bind_int64(st, 2, at_ms);
	return sql_run(db, st, WHAT, err);
}

int sql_account_write(
    struct store_db *db, const struct store_account_change *ch, struct av_err *err)
{
	const struct store_member *former = &ch->former;

	if (ch->user.id[0] && put_user(db, &ch->user, err) < 0)
		return -EIO;
	if (ch->team.id[0] && put_team(db, &ch->team, err) < 0)
		return -EIO;
	if (ch->member.team_id[0] && put_member(db, &ch->member, err) < 0)
		return -EIO;
	for (size_t i = 0; i < AV_ARRAY_LEN(ch->keys); i++)
		if (ch->keys[i].id[0] && sql_key_put(db, &ch->keys[i], err) < 0)
			return -EIO;
	if (ch->gone_key[0] && run_ids(db, ST_KEY_DELETE, ch->gone_key, NULL, err) < 0)
		return -EIO;
	if (former->team_id[0] &&
	    (run_ids(db, ST_KEY_DROP_MEMBER, former->team_id, former->user_id, err) < 0 ||
	        run_ids(db, ST_MEMBER_DROP, former->team_id, former->user_id, err) < 0))
		return -EIO;
	if (ch->leave_all && (run_ids(db, ST_KEY_DROP_USER, ch->user.id, NULL, err) < 0 ||
	                         run_ids(db, ST_MEMBER_DROP_USER, ch->user.id, NULL, err) < 0))
		return -EIO;
	for (size_t i = 0; i < ch->n_dissolved; i++)
		if (dissolve(db, ch->dissolved[i], ch->at_ms, err) < 0)
			return -EIO;
	return 0;
}

int sql_account_change(struct store_db *db, struct store_req *r)
{
	return sql_account_write(db, &r->args.account, &r->err);
}

int sql_account_prune(struct store_db *db, struct store_req *r)
{
	static const enum stmt which[] = {ST_TEAM_PRUNE, ST_USER_PRUNE};
	sqlite3_stmt *st;

	for (size_t i = 0; i < AV_ARRAY_LEN(which); i++) {
		st = sql_stmt(db, which[i]);
		if (!st)
			return sql_error(db, &r->err, "cannot forget deleted accounts");
		(void)sqlite3_bind_int64(st, 1, r->args.range.from);
		(void)sqlite3_bind_int64(st, 2, r->args.range.to);
		if (sql_run(db, st, "cannot forget deleted accounts", &r->err) < 0)
			return -EIO;
	}
	return 0;
}
