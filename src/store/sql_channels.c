/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql_channels.c - channels and their deliveries, as SQL
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "store/channels.h"
#include "store/sql.h"

#include "base/banned.h"

#define PRUNE_ONE_OF 64 /* changes of a log, by chance: seq is of all channels */

/* ---- channels ---- */

static void read_channel(sqlite3_stmt *st, void *row)
{
	struct store_channel *c = row;

	sql_column_copy(c->id, sizeof(c->id), st, 0);
	sql_column_copy(c->team_id, sizeof(c->team_id), st, 1);
	sql_column_copy(c->name, sizeof(c->name), st, 2);
	sql_column_copy(c->provider, sizeof(c->provider), st, 3);
	sql_column_copy(c->events, sizeof(c->events), st, 4);
	/* Owned by the request; NULL (out of memory) is a config that cannot be read. */
	c->config = av_str_dup(av_str_c((const char *)sqlite3_column_text(st, 5)));
	c->created_ms = sqlite3_column_int64(st, 6);
	c->updated_ms = sqlite3_column_int64(st, 7);
	c->disabled_ms = sqlite3_column_int64(st, 8);
	sql_column_copy(c->disabled_reason, sizeof(c->disabled_reason), st, 9);
	c->failing_ms = sqlite3_column_int64(st, 10);
	c->delivered_ms = sqlite3_column_int64(st, 11);
	c->dropped = sqlite3_column_int64(st, 12);
	c->pending = sqlite3_column_int64(st, 13);
}

int sql_channel_list(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_CHANNEL_LIST);

	if (st)
		sql_bind_text(st, 1, r->args.id);
	return sql_read_rows(
	    db, r, st, sizeof(struct store_channel), read_channel, "cannot read channels");
}

static int taken(struct store_req *r)
{
	return av_err_set(&r->err, AV_ERR_CONFLICT,
	    "your team has a channel named %s already; take another name", r->args.channel.name);
}

int sql_channel_insert(struct store_db *db, struct store_req *r)
{
	const struct store_channel *c = &r->args.channel;
	sqlite3_stmt *st = sql_stmt(db, ST_CHANNEL_INSERT);

	if (!st)
		return sql_error(db, &r->err, "cannot record the channel");
	sql_bind_text(st, 1, c->id);
	sql_bind_text(st, 2, c->team_id);
	sql_bind_text(st, 3, c->name);
	sql_bind_text(st, 4, c->provider);
	sql_bind_text(st, 5, c->events);
	sql_bind_text(st, 6, r->text[0]);
	(void)sqlite3_bind_int64(st, 7, c->created_ms);
	if (sql_run(db, st, "cannot record the channel", &r->err) < 0)
		return -EIO;
	return sqlite3_changes(db->sql) == 1 ? 0 : taken(r);
}

static int run_id(struct store_db *db, enum stmt which, const char *id, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, which);

	if (!st)
		return sql_error(db, err, "cannot record the channel");
	sql_bind_text(st, 1, id);
	return sql_run(db, st, "cannot record the channel", err);
}

static int count_dropped(struct store_db *db, const char *id, int n, struct av_err *err)
{
	sqlite3_stmt *st = n ? sql_stmt(db, ST_CHANNEL_DROPPED) : NULL;

	if (!n)
		return 0;
	if (!st)
		return sql_error(db, err, "cannot record the channel");
	sql_bind_text(st, 1, id);
	(void)sqlite3_bind_int(st, 2, n);
	return sql_run(db, st, "cannot record the channel", err);
}

int sql_channel_update(struct store_db *db, struct store_req *r)
{
	const struct store_channel *c = &r->args.channel;
	sqlite3_stmt *st = sql_stmt(db, ST_CHANNEL_UPDATE);

	if (!st)
		return sql_error(db, &r->err, "cannot record the channel");
	sql_bind_text(st, 1, c->id);
	sql_bind_text(st, 2, c->name);
	sql_bind_text(st, 3, c->events);
	sql_bind_text(st, 4, r->text[0]);
	(void)sqlite3_bind_int64(st, 5, c->updated_ms);
	(void)sqlite3_bind_int64(st, 6, c->disabled_ms);
	sql_bind_text(st, 7, c->disabled_reason);
	if (sql_run(db, st, "cannot record the channel", &r->err) < 0)
		return r->err.kind == AV_ERR_CONFLICT ? taken(r) : -EIO;
	if (sqlite3_changes(db->sql) != 1)
		return av_err_set(&r->err, AV_ERR_NOT_FOUND, "there is no such channel any more");
	if (!c->disabled_ms)
		return 0;
	if (run_id(db, ST_DELIVERY_DROP_ALL, c->id, &r->err) < 0)
		return -EIO;
	return count_dropped(db, c->id, sqlite3_changes(db->sql), &r->err);
}

int sql_channel_delete(struct store_db *db, struct store_req *r)
{
	if (run_id(db, ST_DELIVERY_DELETE, r->args.id, &r->err) < 0)
		return -EIO;
	return run_id(db, ST_CHANNEL_DELETE, r->args.id, &r->err);
}

int sql_channel_drop_team(struct store_db *db, const char *team_id, struct av_err *err)
{
	if (run_id(db, ST_DELIVERY_DELETE_TEAM, team_id, err) < 0)
		return -EIO;
	return run_id(db, ST_CHANNEL_DELETE_TEAM, team_id, err);
}

/* ---- notices ---- */

/* Now and then: what is over and too old goes. */
static int prune_log(struct store_db *db, const char *id, struct av_err *err)
{
	sqlite3_stmt *st;
	uint8_t chance;

	sqlite3_randomness(sizeof(chance), &chance);
	if (chance % PRUNE_ONE_OF != 0)
		return 0;
	st = sql_stmt(db, ST_DELIVERY_PRUNE);
	if (!st)
		return sql_error(db, err, "cannot record the delivery");
	sql_bind_text(st, 1, id);
	(void)sqlite3_bind_int(st, 2, STORE_LOG_MAX);
	return sql_run(db, st, "cannot record the delivery", err);
}

/* The oldest of those that are too many. */
static int drop_oldest(struct store_db *db, const char *id, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, ST_DELIVERY_TOO_MANY);
	int64_t seq = 0;
	int code;

	if (!st)
		return sql_error(db, err, "cannot record the event");
	sql_bind_text(st, 1, id);
	(void)sqlite3_bind_int(st, 2, STORE_PENDING_MAX);
	code = sqlite3_step(st);
	if (code == SQLITE_ROW)
		seq = sqlite3_column_int64(st, 0);
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	if (code != SQLITE_ROW)
		return code == SQLITE_DONE ? 0 : sql_error(db, err, "cannot record the event");
	st = sql_stmt(db, ST_DELIVERY_DROP);
	if (!st)
		return sql_error(db, err, "cannot record the event");
	sql_bind_text(st, 1, id);
	(void)sqlite3_bind_int64(st, 2, seq);
	if (sql_run(db, st, "cannot record the event", err) < 0 ||
	    count_dropped(db, id, sqlite3_changes(db->sql), err) < 0)
		return -EIO;
	return prune_log(db, id, err);
}

int sql_notice_put(struct store_db *db, const struct store_notice_text *n, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, ST_NOTICE_PUT), *ids;
	int code, r = 0;

	if (!st)
		return sql_error(db, err, "cannot record the event");
	sql_bind_text(st, 1, n->team_id);
	sql_bind_text(st, 2, n->event);
	sql_bind_text(st, 3, n->body);
	(void)sqlite3_bind_int64(st, 4, n->at_ms);
	if (sql_run(db, st, "cannot record the event", err) < 0)
		return -EIO;
	if (sqlite3_changes(db->sql) == 0)
		return 0;
	ids = sql_stmt(db, ST_CHANNEL_OF_EVENT);
	if (!ids)
		return sql_error(db, err, "cannot record the event");
	sql_bind_text(ids, 1, n->team_id);
	sql_bind_text(ids, 2, n->event);
	while (r == 0 && (code = sqlite3_step(ids)) == SQLITE_ROW)
		r = drop_oldest(db, (const char *)sqlite3_column_text(ids, 0), err);
	if (r == 0 && code != SQLITE_DONE)
		r = sql_error(db, err, "cannot record the event");
	(void)sqlite3_reset(ids);
	(void)sqlite3_clear_bindings(ids);
	return r;
}

/* ---- deliveries ---- */

static void read_delivery(sqlite3_stmt *st, void *row)
{
	struct store_delivery *d = row;

	d->seq = sqlite3_column_int64(st, 0);
	sql_column_copy(d->channel_id, sizeof(d->channel_id), st, 1);
	sql_column_copy(d->id, sizeof(d->id), st, 2);
	sql_column_copy(d->event, sizeof(d->event), st, 3);
	sql_column_copy(d->state, sizeof(d->state), st, 4);
	sql_column_copy(d->error, sizeof(d->error), st, 5);
	d->attempts = sqlite3_column_int64(st, 6);
	d->tries = sqlite3_column_int64(st, 7);
	d->created_ms = sqlite3_column_int64(st, 8);
	d->next_ms = sqlite3_column_int64(st, 9);
	d->last_ms = sqlite3_column_int64(st, 10);
	d->duration_ms = sqlite3_column_int64(st, 11);
	d->status = sqlite3_column_int64(st, 12);
}

static void read_next(sqlite3_stmt *st, void *row)
{
	struct store_delivery *d = row;

	read_delivery(st, row);
	d->body = av_str_dup(av_str_c((const char *)sqlite3_column_text(st, 13)));
}

int sql_delivery_next(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_DELIVERY_NEXT);

	if (st)
		sql_bind_text(st, 1, r->args.delivery.rec.channel_id);
	return sql_read_rows(
	    db, r, st, sizeof(struct store_delivery), read_next, "cannot read deliveries");
}

int sql_delivery_page(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_DELIVERY_PAGE);

	if (st) {
		sql_bind_text(st, 1, r->args.delivery.rec.channel_id);
		(void)sqlite3_bind_int64(st, 2, r->args.delivery.rec.seq);
		(void)sqlite3_bind_int64(st, 3, r->args.delivery.limit);
	}
	return sql_read_rows(
	    db, r, st, sizeof(struct store_delivery), read_delivery, "cannot read deliveries");
}

static int write_health(
    struct store_db *db, const struct store_delivery *d, int64_t failing_ms, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, ST_CHANNEL_HEALTH);

	if (!st)
		return sql_error(db, err, "cannot record the delivery");
	sql_bind_text(st, 1, d->channel_id);
	(void)sqlite3_bind_int64(st, 2, failing_ms);
	(void)sqlite3_bind_int64(st, 3, strcmp(d->state, "delivered") == 0 ? d->last_ms : 0);
	return sql_run(db, st, "cannot record the delivery", err);
}

int sql_delivery_finish(struct store_db *db, struct store_req *r)
{
	const struct store_delivery *d = &r->args.delivery.rec;
	const int64_t numbers[] = {
	    d->attempts, d->tries, d->next_ms, d->last_ms, d->duration_ms, d->status};
	sqlite3_stmt *st = sql_stmt(db, ST_DELIVERY_FINISH);

	if (!st)
		return sql_error(db, &r->err, "cannot record the delivery");
	sql_bind_text(st, 1, d->channel_id);
	sql_bind_text(st, 2, d->id);
	sql_bind_text(st, 3, d->state);
	sql_bind_text(st, 4, d->error);
	for (size_t i = 0; i < AV_ARRAY_LEN(numbers); i++)
		(void)sqlite3_bind_int64(st, 5 + (int)i, numbers[i]);
	if (sql_run(db, st, "cannot record the delivery", &r->err) < 0 ||
	    write_health(db, d, r->args.delivery.failing_ms, &r->err) < 0)
		return -EIO;
	if (prune_log(db, d->channel_id, &r->err) < 0)
		return -EIO;
	return sql_delivery_next(db, r);
}

int sql_delivery_again(struct store_db *db, struct store_req *r)
{
	const struct store_delivery *d = &r->args.delivery.rec;
	static const enum stmt steps[] = {ST_DELIVERY_AGAIN, ST_DELIVERY_FIND};

	for (size_t i = 0; i < AV_ARRAY_LEN(steps); i++) {
		sqlite3_stmt *st = sql_stmt(db, steps[i]);
		int code;

		if (!st)
			return sql_error(db, &r->err, "cannot record the delivery");
		sql_bind_text(st, 1, d->channel_id);
		sql_bind_text(st, 2, d->id);
		code = sqlite3_step(st);
		(void)sqlite3_reset(st);
		(void)sqlite3_clear_bindings(st);
		if (code != SQLITE_ROW && code != SQLITE_DONE)
			return sql_error(db, &r->err, "cannot record the delivery");
		if (i == 0 && sqlite3_changes(db->sql) == 1)
			return drop_oldest(db, d->channel_id, &r->err);
		if (i == 1 && code == SQLITE_ROW)
			return av_err_set(&r->err, AV_ERR_INVALID_STATE,
			    "delivery %s is waiting to be sent already", d->id);
	}
	return av_err_set(
	    &r->err, AV_ERR_NOT_FOUND, "the channel has no delivery %.64s (any more)", d->id);
}
