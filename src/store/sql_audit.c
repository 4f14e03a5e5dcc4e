/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql_audit.c - the audit log, as SQL
 *
 * Filters are applied here and not in SQL: how long a request takes depends on how many records it
 * may look at, which its caller bounds, and not on how rare the wanted ones are.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "store/sql.h"

#include "base/banned.h"

#define CANNOT_READ  "cannot read the audit log"
#define CANNOT_WRITE "cannot write the audit log"
#define CANNOT_PRUNE "cannot prune the audit log"
#define SEQ_TRIES    1024

/* ---- writing ---- */

static void bind(sqlite3_stmt *st, const struct store_audit *a)
{
	const char *const texts[] = {a->code, a->action, a->resource_id, a->actor_type, a->actor_id,
	    a->actor_name, a->user_id, a->user_name, a->peer, a->request_id, a->metadata};

	(void)sqlite3_bind_int64(st, 1, a->seq);
	sql_bind_text(st, 2, a->team_id);
	(void)sqlite3_bind_int(st, 3, a->admin);
	(void)sqlite3_bind_int(st, 4, (int)a->status);
	(void)sqlite3_bind_int64(st, 5, a->http_status);
	for (size_t i = 0; i < AV_ARRAY_LEN(texts); i++)
		sql_bind_text(st, 6 + (int)i, texts[i]);
}

int sql_audit_add(struct store_db *db, struct store_req *r)
{
	struct store_audit *v = (struct store_audit *)(void *)r->text[0];
	sqlite3_stmt *st = sql_stmt(db, ST_AUDIT_ADD);
	int result;

	if (!st)
		return sql_error(db, &r->err, CANNOT_WRITE);
	for (size_t i = 0; i < r->args.audit_n; i++) {
		for (int tries = 0;; tries++) {
			bind(st, &v[i]);
			result = sql_run(db, st, CANNOT_WRITE, &r->err);
			if (result == 0)
				break;
			if (r->err.kind != AV_ERR_CONFLICT || tries >= SEQ_TRIES)
				return result;
			/* Only a clock that was set back comes here. */
			v[i].seq++;
			av_err_clear(&r->err);
		}
	}
	return 0;
}

/* ---- reading ---- */

static void read_record(sqlite3_stmt *st, struct store_audit *a)
{
	const struct {
		char *dst;
		size_t size;
	} texts[] = {{a->code, sizeof(a->code)}, {a->action, sizeof(a->action)},
	    {a->resource_id, sizeof(a->resource_id)}, {a->actor_type, sizeof(a->actor_type)},
	    {a->actor_id, sizeof(a->actor_id)}, {a->actor_name, sizeof(a->actor_name)},
	    {a->user_id, sizeof(a->user_id)}, {a->user_name, sizeof(a->user_name)},
	    {a->peer, sizeof(a->peer)}, {a->request_id, sizeof(a->request_id)},
	    {a->metadata, sizeof(a->metadata)}};

	a->seq = sqlite3_column_int64(st, 0);
	sql_column_copy(a->team_id, sizeof(a->team_id), st, 1);
	a->admin = sqlite3_column_int(st, 2) != 0;
	a->status = (enum store_audit_status)sqlite3_column_int(st, 3);
	a->http_status = sqlite3_column_int64(st, 4);
	for (size_t i = 0; i < AV_ARRAY_LEN(texts); i++)
		sql_column_copy(texts[i].dst, texts[i].size, st, 5 + (int)i);
}

static bool action_fits(const struct store_audit_filter *f, const char *text)
{
	struct av_str types = av_str_c(f->types), rest = av_str_c(text), kind, one;
	bool more = true, found = !f->types[0];

	(void)av_str_cut(&rest, '.', &kind);
	if (f->action[0] && strcmp(f->action, text) != 0 && !av_str_eq_c(rest, f->action))
		return false;
	while (more && !found) {
		more = av_str_cut(&types, ',', &one);
		found = av_str_eq(one, kind);
	}
	return found;
}

static bool fits(const struct store_audit_filter *f, const struct store_audit *a)
{
	if ((f->no_admin && a->admin) || (f->status >= 0 && (int)a->status != f->status))
		return false;
	if (f->resource_id[0] && strcmp(f->resource_id, a->resource_id) != 0)
		return false;
	if (f->actor[0] && strcmp(f->actor, a->actor_id) != 0 &&
	    strcmp(f->actor, a->actor_name) != 0 && strcmp(f->actor, a->user_id) != 0 &&
	    strcmp(f->actor, a->user_name) != 0)
		return false;
	return action_fits(f, a->action);
}

static sqlite3_stmt *read_stmt(struct store_db *db, const struct store_audit_query *q)
{
	static const enum stmt which[2][2] = {
	    {ST_AUDIT_NEWEST, ST_AUDIT_OLDEST}, {ST_AUDIT_TEAM_NEWEST, ST_AUDIT_TEAM_OLDEST}};
	sqlite3_stmt *st = sql_stmt(db, which[q->filter.one_team][q->oldest_first]);

	if (!st)
		return NULL;
	(void)sqlite3_bind_int64(st, 1, q->from);
	(void)sqlite3_bind_int64(st, 2, q->to);
	(void)sqlite3_bind_int64(st, 3, (int64_t)q->scan);
	if (q->filter.one_team)
		sql_bind_text(st, 4, q->filter.team_id);
	return st;
}

int sql_audit_read(struct store_db *db, struct store_req *r)
{
	const struct store_audit_query *q = &r->args.audit_read.query;
	sqlite3_stmt *st = read_stmt(db, q);
	struct store_audit *v = NULL;
	size_t looked = 0;
	int code = SQLITE_DONE, result = 0;

	if (!st)
		return sql_error(db, &r->err, CANNOT_READ);
	r->args.audit_read.last = 0;
	r->rows = v = calloc(q->limit, sizeof(*v));
	if (!v)
		result = av_err_set(&r->err, AV_ERR_NO_MEMORY, "out of memory");
	while (v && r->n < q->limit && (code = sqlite3_step(st)) == SQLITE_ROW) {
		read_record(st, &v[r->n]);
		r->args.audit_read.last = v[r->n].seq;
		looked++;
		if (fits(&q->filter, &v[r->n]))
			r->n++;
	}
	if (v && code != SQLITE_DONE && code != SQLITE_ROW)
		result = sql_error(db, &r->err, CANNOT_READ);
	if (code == SQLITE_DONE && looked < q->scan)
		r->args.audit_read.last = 0;
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return result;
}

/* ---- how many ---- */

static void read_count(sqlite3_stmt *st, void *row)
{
	struct store_audit_count *c = row;

	sql_column_copy(c->team_id, sizeof(c->team_id), st, 0);
	c->n = sqlite3_column_int64(st, 1);
}

int sql_audit_count(struct store_db *db, struct store_req *r)
{
	return sql_read_rows(db, r, sql_stmt(db, ST_AUDIT_COUNT), sizeof(struct store_audit_count),
	    read_count, CANNOT_READ);
}

int sql_audit_prune(struct store_db *db, struct store_req *r)
{
	bool one_team = r->args.audit_prune.one_team;
	sqlite3_stmt *st = sql_stmt(db, one_team ? ST_AUDIT_PRUNE_TEAM : ST_AUDIT_PRUNE);

	if (!st)
		return sql_error(db, &r->err, CANNOT_PRUNE);
	(void)sqlite3_bind_int64(st, 1, r->args.audit_prune.before);
	(void)sqlite3_bind_int64(st, 2, (int64_t)r->args.audit_prune.max);
	if (one_team)
		sql_bind_text(st, 3, r->args.audit_prune.team_id);
	return sql_read_rows(db, r, st, sizeof(struct store_audit_count), read_count, CANNOT_PRUNE);
}
