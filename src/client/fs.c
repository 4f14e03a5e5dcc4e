/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs.c - what is there in a sandbox, and changing it: stat, list, mkdir, move, remove, chmod,
 * chown, and signed URLs (see aviary/files.h)
 *
 * Each is one request.
 */
#include <string.h>

#include "client/file_internal.h"
#include "client/model_tables.h"
#include "client/resource.h"

#include "base/banned.h"

aviary_file_options avc_file_options(const aviary_file_options *options)
{
	aviary_file_options o = AVIARY_FILE_OPTIONS_INIT;

	if (options)
		memcpy(&o, options, AV_MIN(options->struct_size, sizeof(o)));
	return o;
}

aviary_op *avc_file_no_path(aviary_sandbox *sb)
{
	return avc_op_failed(sb->c, AVIARY_E_INVALID,
	    "the path is empty; name a file or directory, as /root/x or x in the home");
}

/* ---- requests ---- */

struct ask {
	const char *suffix, *path;
	json_t *body;           /* stolen; gets path and user; NULL: an empty one */
	struct avc_texts texts; /* how its making went */
	bool repeatable;
	avc_take_fn *take;
	void *ctx;
};

static aviary_op *post(aviary_sandbox *sb, struct ask *a, const aviary_file_options *o)
{
	json_t *body = a->body ? a->body : json_object();
	const struct avc_call_spec spec = {.method = "POST",
	    .path = a->suffix,
	    .sb = sb,
	    .needs_running = true,
	    .body = body,
	    .texts = &a->texts,
	    .file = a->path,
	    .timeout_ms = o->timeout_ms,
	    .repeatable = a->repeatable,
	    .take = a->take,
	    .ctx = a->ctx};

	avc_put_text(&a->texts, body, "path", a->path);
	avc_put_text(&a->texts, body, "user", o->user);
	return avc_call(sb->c, &spec);
}

/* ---- results ---- */

static int take_entry(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	(void)ctx;
	return avc_take_model(op, reply, &avc_entry);
}

static int take_entry_or_none(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	return reply->code == AVIARY_E_FILE_NOT_FOUND ? 0 : take_entry(op, reply, ctx);
}

static int take_entries(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	(void)ctx;
	return avc_take_model(op, reply, &avc_entries);
}

static int take_url(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	(void)ctx;
	return avc_take_model(op, reply, &avc_file_url);
}

/* ---- what is there ---- */

static aviary_op *stat_file(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, avc_take_fn *take)
{
	const aviary_file_options o = avc_file_options(options);

	if (!path || !*path)
		return avc_file_no_path(sb);
	return post(sb,
	    &(struct ask){.suffix = "/files/stat", .path = path, .repeatable = true, .take = take},
	    &o);
}

aviary_op *aviary_file_stat(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options)
{
	return stat_file(sb, path, options, take_entry);
}

aviary_entry *aviary_file_stat_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error)
{
	return avc_op_await(aviary_file_stat(sb, path, options), &avc_entry.type, error);
}

aviary_op *aviary_file_exists(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options)
{
	return stat_file(sb, path, options, take_entry_or_none);
}

int aviary_file_exists_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error)
{
	aviary_op *op = aviary_file_exists(sb, path, options);
	int r = aviary_op_wait(op, -1);
	aviary_entry *entry = avc_op_await(op, &avc_entry.type, error);

	if (r == 0)
		r = entry != NULL;
	aviary_entry_free(entry);
	return r;
}

aviary_op *aviary_file_list(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);
	struct ask a = {
	    .suffix = "/files/list", .path = path, .repeatable = true, .take = take_entries};

	if (!path || !*path)
		return avc_file_no_path(sb);
	if (o.depth > 1)
		a.body = json_pack("{s:I}", "depth", (json_int_t)o.depth);
	if (o.depth > 1 && !a.body)
		return avc_op_none();
	return post(sb, &a, &o);
}

aviary_entries *aviary_file_list_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error)
{
	return avc_op_await(aviary_file_list(sb, path, options), &avc_entries.type, error);
}

/* ---- changes ---- */

aviary_op *aviary_file_mkdir(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);

	if (!path || !*path)
		return avc_file_no_path(sb);
	return post(
	    sb, &(struct ask){.suffix = "/files/mkdir", .path = path, .take = take_entry}, &o);
}

int aviary_file_mkdir_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error)
{
	return aviary_await(aviary_file_mkdir(sb, path, options), error);
}

aviary_op *aviary_file_move(
    aviary_sandbox *sb, const char *from, const char *to, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);
	struct avc_texts texts = {0};
	json_t *body;

	if (!from || !*from || !to || !*to)
		return avc_file_no_path(sb);
	body = json_object();
	avc_put_text(&texts, body, "source", from);
	avc_put_text(&texts, body, "destination", to);
	avc_put_text(&texts, body, "user", o.user);
	return avc_call(sb->c, &(struct avc_call_spec){.method = "POST",
	                           .path = "/files/move",
	                           .sb = sb,
	                           .needs_running = true,
	                           .body = body,
	                           .texts = &texts,
	                           .file = from,
	                           .timeout_ms = o.timeout_ms,
	                           .take = take_entry});
}

int aviary_file_move_sync(aviary_sandbox *sb, const char *from, const char *to,
    const aviary_file_options *options, aviary_error *error)
{
	return aviary_await(aviary_file_move(sb, from, to, options), error);
}

static int take_removed(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	(void)op, (void)ctx;
	return reply->code == AVIARY_E_FILE_NOT_FOUND ? 0 : reply->code;
}

aviary_op *aviary_file_remove(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);

	if (!path || !*path)
		return avc_file_no_path(sb);
	return post(sb,
	    &(struct ask){.suffix = "/files/remove",
	        .path = path,
	        .repeatable = o.missing_ok != 0,
	        .take = o.missing_ok ? take_removed : NULL},
	    &o);
}

int aviary_file_remove_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error)
{
	return aviary_await(aviary_file_remove(sb, path, options), error);
}

static aviary_op *set_attributes(aviary_sandbox *sb, struct ask *a, const aviary_file_options *o)
{
	a->suffix = "/files/chmod";
	a->repeatable = true;
	if (o->recursive)
		avc_put(&a->texts, a->body, "recursive", json_true());
	return post(sb, a, o);
}

aviary_op *aviary_file_chmod(
    aviary_sandbox *sb, const char *path, unsigned mode, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);
	struct ask a = {.path = path};

	if (!path || !*path)
		return avc_file_no_path(sb);
	if (mode > 07777)
		return avc_op_failed(sb->c, AVIARY_E_INVALID,
		    "mode 0%o is none: at most 07777 (the permission bits)", mode);
	a.body = json_object();
	avc_put(&a.texts, a.body, "mode", json_integer((json_int_t)mode));
	return set_attributes(sb, &a, &o);
}

int aviary_file_chmod_sync(aviary_sandbox *sb, const char *path, unsigned mode,
    const aviary_file_options *options, aviary_error *error)
{
	return aviary_await(aviary_file_chmod(sb, path, mode, options), error);
}

aviary_op *aviary_file_chown(aviary_sandbox *sb, const char *path, const char *owner,
    const char *group, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);
	struct ask a = {.path = path};

	if (!path || !*path)
		return avc_file_no_path(sb);
	if (!owner && !group)
		return avc_op_failed(sb->c, AVIARY_E_INVALID, "neither owner nor group is said");
	a.body = json_object();
	avc_put_text(&a.texts, a.body, "owner", owner);
	avc_put_text(&a.texts, a.body, "group", group);
	return set_attributes(sb, &a, &o);
}

int aviary_file_chown_sync(aviary_sandbox *sb, const char *path, const char *owner,
    const char *group, const aviary_file_options *options, aviary_error *error)
{
	return aviary_await(aviary_file_chown(sb, path, owner, group, options), error);
}

/* ---- URLs ---- */

aviary_op *aviary_file_sign(aviary_sandbox *sb, const char *path, int write, int64_t lifetime_ms,
    const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);
	struct ask a = {.suffix = "/files/url", .path = path, .repeatable = true, .take = take_url};

	if (!path || !*path)
		return avc_file_no_path(sb);
	if (lifetime_ms < 0)
		return avc_op_failed(sb->c, AVIARY_E_INVALID,
		    "a URL cannot live for %lld ms: from 1000 to 604800000, 0 for an hour",
		    (long long)lifetime_ms);
	a.body = json_pack("{s:s, s:I}", "method", write ? "PUT" : "GET", "expires_sec",
	    (json_int_t)(lifetime_ms ? (lifetime_ms + 999) / 1000 : 3600));
	return a.body ? post(sb, &a, &o) : avc_op_none();
}

aviary_file_url *aviary_file_sign_sync(aviary_sandbox *sb, const char *path, int write,
    int64_t lifetime_ms, const aviary_file_options *options, aviary_error *error)
{
	return avc_op_await(
	    aviary_file_sign(sb, path, write, lifetime_ms, options), &avc_file_url.type, error);
}
