/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql_hosts.c - hosts, as SQL
 */
#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "store/sql.h"

#include "base/banned.h"

#define WHAT "cannot record the host"

static void bind_hash(sqlite3_stmt *st, int i, const uint8_t hash[static STORE_HASH_SIZE])
{
	(void)sqlite3_bind_blob(st, i, hash, STORE_HASH_SIZE, SQLITE_STATIC);
}

static void read_hash(sqlite3_stmt *st, int i, uint8_t ret[static STORE_HASH_SIZE])
{
	if (sqlite3_column_bytes(st, i) == STORE_HASH_SIZE)
		memcpy(ret, sqlite3_column_blob(st, i), STORE_HASH_SIZE);
}

static void read_host(sqlite3_stmt *st, void *row)
{
	struct store_host *h = row;
	const struct {
		char *dst;
		size_t size;
	} texts[] = {{h->id, sizeof(h->id)}, {h->type, sizeof(h->type)},
	    {h->team_id, sizeof(h->team_id)}, {h->provider, sizeof(h->provider)},
	    {h->zone, sizeof(h->zone)}, {h->arch, sizeof(h->arch)},
	    {h->address, sizeof(h->address)}, {h->status, sizeof(h->status)},
	    {h->tags, sizeof(h->tags)}, {h->created_by, sizeof(h->created_by)}};
	int64_t *const numbers[] = {&h->cpu_cores, &h->memory_mb, &h->disk_gb,
	    &h->registration_expires_ms, &h->refresh_expires_ms, &h->epoch, &h->created_ms,
	    &h->updated_ms, &h->heartbeat_ms};
	int col = 0;

	for (size_t i = 0; i < AV_ARRAY_LEN(texts); i++)
		sql_column_copy(texts[i].dst, texts[i].size, st, col++);
	for (size_t i = 0; i < AV_ARRAY_LEN(numbers); i++)
		*numbers[i] = sqlite3_column_int64(st, col++);
	h->is_local = sqlite3_column_int(st, col++) != 0;
	read_hash(st, col++, h->registration);
	read_hash(st, col++, h->family);
	read_hash(st, col, h->refresh);
}

int sql_host_list(struct store_db *db, struct store_req *r)
{
	return sql_read_rows(db, r, sql_stmt(db, ST_HOST_LIST), sizeof(struct store_host),
	    read_host, "cannot read hosts");
}

int sql_host_put(struct store_db *db, struct store_req *r)
{
	const struct store_host *h = &r->args.host;
	const char *const texts[] = {h->id, h->type, h->team_id, h->provider, h->zone, h->arch,
	    h->address, h->status, h->tags, h->created_by};
	const int64_t numbers[] = {h->cpu_cores, h->memory_mb, h->disk_gb,
	    h->registration_expires_ms, h->refresh_expires_ms, h->epoch, h->created_ms,
	    h->updated_ms, h->heartbeat_ms};
	sqlite3_stmt *st = sql_stmt(db, ST_HOST_PUT);
	int col = 1;

	if (!st)
		return sql_error(db, &r->err, WHAT);
	for (size_t i = 0; i < AV_ARRAY_LEN(texts); i++)
		sql_bind_text(st, col++, texts[i]);
	for (size_t i = 0; i < AV_ARRAY_LEN(numbers); i++)
		(void)sqlite3_bind_int64(st, col++, numbers[i]);
	(void)sqlite3_bind_int(st, col++, h->is_local);
	bind_hash(st, col++, h->registration);
	bind_hash(st, col++, h->family);
	bind_hash(st, col, h->refresh);
	return sql_run(db, st, WHAT, &r->err);
}

int sql_host_delete(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_HOST_DELETE);

	if (!st)
		return sql_error(db, &r->err, WHAT);
	sql_bind_text(st, 1, r->args.id);
	return sql_run(db, st, WHAT, &r->err);
}

int sql_host_touch(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_HOST_TOUCH);

	if (!st)
		return sql_error(db, &r->err, WHAT);
	sql_bind_text(st, 1, r->args.touch.id);
	(void)sqlite3_bind_int64(st, 2, r->args.touch.last_used_ms);
	return sql_run(db, st, WHAT, &r->err);
}
