/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql_templates.c - templates, as SQL
 */
#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "store/sql.h"

#include "base/banned.h"

static void read_template(sqlite3_stmt *st, void *row)
{
	const void *seal = sqlite3_column_blob(st, 8);
	struct store_template *t = row;

	sql_column_copy(t->id, sizeof(t->id), st, 0);
	sql_column_copy(t->team_id, sizeof(t->team_id), st, 1);
	t->platform = sqlite3_column_int(st, 2) != 0;
	sql_column_copy(t->name, sizeof(t->name), st, 3);
	sql_column_copy(t->kind, sizeof(t->kind), st, 4);
	sql_column_copy(t->state, sizeof(t->state), st, 5);
	sql_column_copy(t->sandbox_id, sizeof(t->sandbox_id), st, 6);
	sql_column_copy(t->parent_id, sizeof(t->parent_id), st, 7);
	if (seal && sqlite3_column_bytes(st, 8) == STORE_HASH_SIZE)
		memcpy(t->seal, seal, STORE_HASH_SIZE);
	sql_column_copy(t->host_fingerprint, sizeof(t->host_fingerprint), st, 9);
	sql_column_copy(t->isolation, sizeof(t->isolation), st, 10);
	t->size_bytes = sqlite3_column_int64(st, 11);
	t->depth = sqlite3_column_int64(st, 12);
	t->cpu_milli = sqlite3_column_int64(st, 13);
	t->memory_bytes = sqlite3_column_int64(st, 14);
	t->disk_bytes = sqlite3_column_int64(st, 15);
	sql_column_copy(t->default_user, sizeof(t->default_user), st, 16);
	sql_column_copy(t->workdir, sizeof(t->workdir), st, 17);
	sql_column_copy(t->envs_json, sizeof(t->envs_json), st, 18);
	sql_column_copy(t->start_command, sizeof(t->start_command), st, 19);
	t->kernel_warm = sqlite3_column_int(st, 20) != 0;
	t->created_ms = sqlite3_column_int64(st, 21);
	t->saved_vcpus = sqlite3_column_int64(st, 22);
	t->saved_memory_bytes = sqlite3_column_int64(st, 23);
	sql_column_copy(t->prefers, sizeof(t->prefers), st, 24);
}

int sql_template_list(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_TEMPLATE_LIST);

	return sql_read_rows(
	    db, r, st, sizeof(struct store_template), read_template, "cannot read templates");
}

static void bind_template(sqlite3_stmt *st, const struct store_template *t)
{
	sql_bind_text(st, 1, t->id);
	sql_bind_text(st, 2, t->team_id);
	(void)sqlite3_bind_int(st, 3, t->platform);
	sql_bind_text(st, 4, t->name);
	sql_bind_text(st, 5, t->kind);
	sql_bind_text(st, 6, t->state);
	sql_bind_text(st, 7, t->sandbox_id);
	sql_bind_text(st, 8, t->parent_id);
	(void)sqlite3_bind_blob(st, 9, t->seal, STORE_HASH_SIZE, SQLITE_STATIC);
	sql_bind_text(st, 10, t->host_fingerprint);
	sql_bind_text(st, 11, t->isolation);
	(void)sqlite3_bind_int64(st, 12, t->size_bytes);
	(void)sqlite3_bind_int64(st, 13, t->depth);
	(void)sqlite3_bind_int64(st, 14, t->cpu_milli);
	(void)sqlite3_bind_int64(st, 15, t->memory_bytes);
	(void)sqlite3_bind_int64(st, 16, t->disk_bytes);
	sql_bind_text(st, 17, t->default_user);
	sql_bind_text(st, 18, t->workdir);
	sql_bind_text(st, 19, t->envs_json);
	sql_bind_text(st, 20, t->start_command);
	(void)sqlite3_bind_int(st, 21, t->kernel_warm);
	(void)sqlite3_bind_int64(st, 22, t->created_ms);
	(void)sqlite3_bind_int64(st, 24, t->saved_vcpus);
	(void)sqlite3_bind_int64(st, 25, t->saved_memory_bytes);
	sql_bind_text(st, 26, t->prefers);
}

int sql_template_insert(struct store_db *db, struct store_req *r)
{
	sqlite3_stmt *st = sql_stmt(db, ST_TEMPLATE_INSERT);

	if (!st)
		return sql_error(db, &r->err, "cannot record the template");
	bind_template(st, &r->args.template.rec);
	sql_bind_text(st, 23, r->args.template.other);
	if (sql_run(db, st, "cannot record the template", &r->err) < 0)
		return -EIO;
	if (sqlite3_changes(db->sql) == 1)
		return 0;
	return av_err_set(&r->err, AV_ERR_FORBIDDEN,
	    "only an administrator may make a template that every team sees (platform)");
}

/* The unique indexes would tell too, but not what is wrong. */
static int check_name(struct store_db *db, struct store_req *r)
{
	const struct store_template_args *a = &r->args.template;
	sqlite3_stmt *st = sql_stmt(db, ST_TEMPLATE_TAKEN);
	int code;

	if (!st)
		return sql_error(db, &r->err, "cannot look for the template's name");
	sql_bind_text(st, 1, a->rec.name);
	sql_bind_text(st, 2, a->rec.id);
	sql_bind_text(st, 3, a->other);
	sql_bind_text(st, 4, a->rec.team_id);
	(void)sqlite3_bind_int(st, 5, a->rec.platform);
	code = sqlite3_step(st);
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	if (code == SQLITE_ROW)
		return av_err_set(
		    &r->err, AV_ERR_CONFLICT, "there is a template %s already", a->rec.name);
	return code == SQLITE_DONE ? 0
	                           : sql_error(db, &r->err, "cannot look for the template's name");
}

static int run_id(struct store_db *db, enum stmt which, const char *id, struct av_err *err)
{
	sqlite3_stmt *st = sql_stmt(db, which);

	if (!st)
		return sql_error(db, err, "cannot record the template");
	sql_bind_text(st, 1, id);
	return sql_run(db, st, "cannot record the template", err);
}

int sql_template_publish(struct store_db *db, struct store_req *r)
{
	const struct store_template_args *a = &r->args.template;
	sqlite3_stmt *st;

	bool named = strcmp(a->rec.state, "deleted") != 0;

	if (named && check_name(db, r) < 0)
		return -EEXIST;
	if (a->other[0] && run_id(db, ST_TEMPLATE_MARK, a->other, &r->err) < 0)
		return -EIO;
	st = sql_stmt(db, ST_TEMPLATE_PUBLISH);
	if (!st)
		return sql_error(db, &r->err, "cannot record the template");
	sql_bind_text(st, 1, a->rec.id);
	sql_bind_text(st, 2, a->rec.parent_id);
	(void)sqlite3_bind_blob(st, 3, a->rec.seal, STORE_HASH_SIZE, SQLITE_STATIC);
	sql_bind_text(st, 4, a->rec.host_fingerprint);
	(void)sqlite3_bind_int64(st, 5, a->rec.size_bytes);
	(void)sqlite3_bind_int64(st, 6, a->rec.depth);
	(void)sqlite3_bind_int64(st, 7, a->rec.created_ms);
	sql_bind_text(st, 8, named ? "ready" : "deleted");
	(void)sqlite3_bind_int64(st, 9, a->rec.memory_bytes);
	(void)sqlite3_bind_int64(st, 10, a->rec.cpu_milli);
	(void)sqlite3_bind_int64(st, 11, a->rec.saved_vcpus);
	(void)sqlite3_bind_int64(st, 12, a->rec.saved_memory_bytes);
	sql_bind_text(st, 13, a->rec.isolation);
	return sql_run(db, st, "cannot record the template", &r->err);
}

int sql_template_mark(struct store_db *db, struct store_req *r)
{
	return run_id(db, ST_TEMPLATE_MARK, r->args.template.rec.id, &r->err);
}

int sql_template_remove(struct store_db *db, struct store_req *r)
{
	return run_id(db, ST_TEMPLATE_REMOVE, r->args.template.rec.id, &r->err);
}
