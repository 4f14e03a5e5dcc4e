/* SPDX-License-Identifier: Apache-2.0 */
/*
 * templates.c - which template a name means, who uses it, and when its files go
 *
 * Theory of operation. Every template on the disk has a record; the worker's directory says what
 * there is. A record is `creating` from before the worker is asked until the worker's answer is on
 * disk, `ready` as long as it has its name, `deleted` until nothing stands on it any more: no
 * living sandbox, no creation under way, no other template. Then the worker removes the files, and
 * after that the record goes. References are counted when somebody asks, by looking at who is
 * there: so no count can be wrong.
 *
 * At start records that say `creating` turn into `deleted` ones (nobody was answered), and what the
 * worker lists without a record is removed.
 */
#include "control/accounts.h"
#include "control/isolations_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/json.h"
#include "base/log.h"

#include "base/banned.h"

#define RETRY_NS (30 * AV_NS_PER_S)

/* Names that SDKs ask for by default, and what they mean; until that is built base answers, then
 * host. */
static const struct {
	const char *name, *means;
} aliases[] = {
    {"minimal", "base"},
    {"base", "base"},
    {"code-interpreter", "code-interpreter"},
    {"code-runner-beta", "code-interpreter"},
    {"code-interpreter-v1", "code-interpreter"},
    {"python-interpreter-v0-beta", "code-interpreter"},
};

bool template_is_ready(const struct template *t)
{
	return strcmp(t->rec.state, TEMPLATE_READY) == 0;
}

void template_set_state(struct template *t, const char *state)
{
	memset(t->rec.state, 0, sizeof(t->rec.state));
	memcpy(t->rec.state, state, strnlen(state, sizeof(t->rec.state) - 1));
}

struct template *template_by_id(const struct control *c, const char *id)
{
	struct template *t;

	AV_LIST_FOREACH(t, &c->templates, struct template, link)
	if (strcmp(t->rec.id, id) == 0)
		return t;
	return NULL;
}

struct template *template_by_name(const struct control *c, const char *team_id, const char *name)
{
	struct template *t, *found = NULL;

	AV_LIST_FOREACH(t, &c->templates, struct template, link)
	{
		if (!template_is_ready(t) || strcmp(t->rec.name, name) != 0)
			continue;
		if (strcmp(t->rec.team_id, team_id) == 0)
			return t;
		if (t->rec.platform)
			found = t;
	}
	return found;
}

bool template_name_reserved(const char *name)
{
	return strcmp(name, "host") == 0 || strcmp(name, "empty") == 0 ||
	       strcmp(name, "minimal") == 0;
}

struct template *template_new(struct control *c)
{
	struct template *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	av_list_append(&c->templates, &t->link);
	return t;
}

void template_drop(struct template *t)
{
	av_list_remove(&t->link);
	free(t);
}

void templates_clear(struct control *c)
{
	struct template *t;

	AV_LIST_FOREACH(t, &c->templates, struct template, link)
	template_drop(t);
}

/* ---- what a name means ---- */

/* NULL: it is no alias. */
static const char *meaning(const char *name)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(aliases); i++)
		if (strcmp(aliases[i].name, name) == 0)
			return aliases[i].means;
	return NULL;
}

static bool name_char(char ch, bool first)
{
	bool alnum =
	    (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');

	return alnum || (!first && (ch == '.' || ch == '_' || ch == '-'));
}

int template_name_check(const char *name, struct av_err *err)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < n; i++)
		if (!name_char(name[i], i == 0))
			n = 0;
	if (n == 0 || n > 64)
		return av_err_set(err, AV_ERR_INVALID,
		    "the name of a template has 1 to 64 characters: letters, digits, and, but not "
		    "first, '.', '_' and '-'");
	return 0;
}

int template_resolve(const struct control *c, const char *team_id, const char *name,
    const struct template **ret, const char **ret_id, struct av_err *err)
{
	const struct template *t;

	name = name && name[0] ? name : "minimal";
	*ret = NULL;
	if (strcmp(name, "host") == 0 || strcmp(name, "empty") == 0) {
		*ret_id = name;
		return 0;
	}
	const char *means = meaning(name);
	t = template_by_name(c, team_id, name);
	if (!t && means)
		t = template_by_name(c, team_id, means);
	if (!t && means)
		t = template_by_name(c, team_id, "base");
	if (!t && !means && template_name_check(name, err) < 0)
		return -EINVAL;
	if (!t && !means)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "there is no template %.72s; `aviary template ls` (GET /v1/snapshots) lists "
		    "what "
		    "there is",
		    name);
	*ret = t;
	*ret_id = t ? t->rec.id : "host";
	return 0;
}

const char *template_note(const struct store_sandbox *rec, const struct template *t)
{
	const char *means = meaning(rec->template_name);

	if (!means || (t && (strcmp(t->rec.name, means) == 0 ||
	                        strcmp(t->rec.name, rec->template_name) == 0)))
		return NULL;
	if (strcmp(means, "base") == 0)
		return "this template is not built here: the machine's own programs (template "
		       "host) "
		       "answer for it; `aviary template build base` makes one that does not change";
	if (!t)
		return "this template is not built here: the machine's own programs (template "
		       "host) "
		       "answer for it; `aviary template build code-interpreter` makes it";
	return "this template is not built here: the nearest one that is answers for it; `aviary "
	       "template build code-interpreter` makes it";
}

/* ---- what it gives ---- */

json_t *template_envs(const struct control *c, const char *id)
{
	const struct template *t = template_by_id(c, id);
	json_t *envs = NULL;

	if (t && t->rec.envs_json[0])
		envs = av_json_parse_object(av_str_c(t->rec.envs_json), NULL);
	return envs ? envs : json_object();
}

void template_agent_defaults(
    const struct control *c, const struct store_sandbox *rec, struct node_agent_config *ret)
{
	const struct template *t = template_by_id(c, rec->template_id);

	if (t && t->rec.default_user[0])
		ret->default_user = t->rec.default_user;
	if (t && t->rec.workdir[0])
		ret->default_workdir = t->rec.workdir;
}

void template_take_seal(
    const struct control *c, const struct store_sandbox *rec, struct driver_spec *ret)
{
	const struct template *t = template_by_id(c, rec->template_id);

	static_assert(sizeof(ret->template_seal) == sizeof(t->rec.seal), "same size below");
	if (t)
		memcpy(ret->template_seal, t->rec.seal, sizeof(ret->template_seal));
}

/* ---- who uses it ---- */

static size_t count_sandboxes(const struct control *c, const char *id)
{
	const struct creation *cr;
	const struct sandbox *sb;
	size_t n = 0;

	AV_LIST_FOREACH(sb, &c->live, const struct sandbox, link)
	n += strcmp(sb->rec.template_id, id) == 0 || strcmp(sb->rec.rollback_from, id) == 0 ||
	     (sb->change && strcmp(sb->change->next.template_id, id) == 0);
	AV_LIST_FOREACH(cr, &c->creating, const struct creation, link)
	n += !cr->sb && strcmp(cr->rec.template_id, id) == 0;
	return n;
}

static bool has_children(const struct control *c, const char *id)
{
	const struct template *t;

	AV_LIST_FOREACH(t, &c->templates, const struct template, link)
	if (strcmp(t->rec.parent_id, id) == 0)
		return true;
	return false;
}

/* ---- collection ---- */

struct removal {
	struct control *c;
	char id[AV_ID_SIZE];
};

static void on_row_removed(void *ctx, const struct av_err *err)
{
	struct removal *rm = ctx;
	struct template *t = template_by_id(rm->c, rm->id);

	/* A row that stays is found again at the next start. */
	if (err)
		av_log(AV_LOG_WARN, "cannot forget a template", "id", rm->id, "error", err->message,
		    NULL);
	if (t)
		template_drop(t);
	templates_collect(rm->c);
	free(rm);
}

static void on_files_removed(void *ctx, const struct av_err *err)
{
	struct removal *rm = ctx;
	struct control *c = rm->c;
	struct template *t = template_by_id(c, rm->id);

	if (err && err->kind != AV_ERR_CANCELED)
		av_log(AV_LOG_WARN, "cannot remove a template; trying again later", "id", rm->id,
		    "error", err->message, NULL);
	if (!err) {
		(void)av_failpoint("template.removed");
		if (store_template_remove(c->store, rm->id, on_row_removed, rm) == 0)
			return;
	}
	if (t) {
		t->removing = false;
		t->retry_ns = control_boot_ns(c) + RETRY_NS;
		control_wake(c, t->retry_ns);
	}
	free(rm);
}

static void remove_files(struct template *t, struct control *c)
{
	struct removal *rm = calloc(1, sizeof(*rm));

	if (!rm)
		return;
	rm->c = c;
	memcpy(rm->id, t->rec.id, AV_ID_SIZE);
	t->removing = true;
	if (node_template_delete(c->node, rm->id, on_files_removed, rm) < 0) {
		t->removing = false;
		free(rm);
	}
}

void templates_collect(struct control *c)
{
	int64_t now = control_boot_ns(c);
	struct template *t;

	c->collect_templates = false;
	/* A backup reads the files: its end looks again. */
	if (!c->started || c->stopping || c->backup)
		return;
	AV_LIST_FOREACH(t, &c->templates, struct template, link)
	{
		if (strcmp(t->rec.state, TEMPLATE_DELETED) != 0 || t->removing || now < t->retry_ns)
			continue;
		pool_forget_template(c, t->rec.id);
		if (!has_children(c, t->rec.id) && count_sandboxes(c, t->rec.id) == 0 &&
		    !pool_uses(c, t->rec.id))
			remove_files(t, c);
	}
}

void templates_unused(struct control *c)
{
	if (av_list_empty(&c->templates))
		return;
	c->collect_templates = true;
	control_wake(c, 0);
}

int64_t templates_next_ns(const struct control *c)
{
	const struct template *t;
	int64_t next = c->collect_templates ? 0 : INT64_MAX;

	AV_LIST_FOREACH(t, &c->templates, const struct template, link)
	if (t->retry_ns > 0 && !t->removing)
		next = AV_MIN(next, t->retry_ns);
	return next;
}

/* ---- start ---- */

int templates_load(struct control *c, const struct store_template *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct template *t = template_new(c);

		if (!t)
			return -ENOMEM;
		t->rec = v[i];
		if (strcmp(t->rec.state, TEMPLATE_CREATING) == 0)
			template_set_state(t, TEMPLATE_DELETED);
	}
	return 0;
}

static void on_unknown_removed(void *ctx, const struct av_err *err)
{
	(void)ctx;
	if (err && err->kind != AV_ERR_CANCELED)
		av_log(AV_LOG_WARN, "cannot remove a template without a record", "error",
		    err->message, NULL);
}

static void on_list(void *ctx, const char (*ids)[AV_ID_SIZE], size_t n, const struct av_err *err)
{
	struct control *c = ctx;

	if (err) {
		av_log(AV_LOG_WARN, "cannot list templates", "error", err->message, NULL);
		return;
	}
	for (size_t i = 0; i < n; i++)
		if (!template_by_id(c, ids[i]))
			(void)node_template_delete(c->node, ids[i], on_unknown_removed, NULL);
	templates_collect(c);
}

void templates_start(struct control *c)
{
	if (node_template_list(c->node, on_list, c) < 0)
		av_log(AV_LOG_DEBUG, "this isolation has no templates on the disk", NULL);
}

/* ---- looking ---- */

void template_describe(const struct control *c, const struct template *t, struct template_info *ret)
{
	const struct store_template *rec = &t->rec;

	*ret = (struct template_info){
	    .id = rec->id,
	    .name = rec->name,
	    .kind = rec->kind,
	    .platform = rec->platform,
	    .parent = rec->parent_id,
	    .isolation = template_isolation(c, t),
	    .saved = template_is_saved(t),
	    .size_bytes = rec->size_bytes,
	    .depth = rec->depth,
	    .cpu_milli = rec->cpu_milli,
	    .memory_bytes = rec->memory_bytes,
	    .disk_bytes = rec->disk_bytes,
	    .default_user = rec->default_user,
	    .workdir = rec->workdir,
	    .envs_json = rec->envs_json[0] ? rec->envs_json : "{}",
	    .start_command = rec->start_command,
	    .kernel_warm = rec->kernel_warm,
	    .created_ms = rec->created_ms,
	    .in_use = count_sandboxes(c, rec->id),
	};
}

static void describe_builtin(const struct control *c, const char *name, struct template_info *ret)
{
	*ret = (struct template_info){
	    .id = strcmp(name, "empty") == 0 ? name : "host",
	    .name = name,
	    .kind = "base",
	    .platform = true,
	    .parent = "",
	    .isolation = node_isolation(c->node),
	    .default_user = "",
	    .workdir = "",
	    .envs_json = "{}",
	    .start_command = "",
	};
	ret->in_use = count_sandboxes(c, ret->id);
}

void control_template_each(
    struct control *c, const struct control_actor *a, const char *kind, template_fn *fn, void *ctx)
{
	static const char *const builtin[] = {"minimal", "host"};
	struct template_info info;

	for (struct av_list *n = c->templates.prev; n != &c->templates; n = n->prev) {
		const struct template *t = AV_CONTAINER_OF(n, struct template, link);

		if (!template_is_ready(t) || (kind && strcmp(kind, t->rec.kind) != 0) ||
		    (!t->rec.platform && strcmp(t->rec.team_id, a->team_id) != 0))
			continue;
		template_describe(c, t, &info);
		fn(ctx, &info, NULL);
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(builtin); i++) {
		if (kind && strcmp(kind, "base") != 0)
			continue;
		describe_builtin(c, builtin[i], &info);
		fn(ctx, &info, NULL);
	}
}

void control_template_get(
    struct control *c, const struct control_actor *a, const char *name, template_fn *fn, void *ctx)
{
	const struct template *t = NULL;
	struct template_info info;
	const char *id = NULL;
	struct av_err err;

	if (template_resolve(c, a->team_id, name, &t, &id, &err) < 0) {
		fn(ctx, NULL, &err);
		return;
	}
	if (t)
		template_describe(c, t, &info);
	else
		describe_builtin(c, name, &info);
	fn(ctx, &info, NULL);
}

/* ---- deleting ---- */

static void on_marked(void *ctx, const struct av_err *err)
{
	struct waiter *w = ctx;
	struct control *c = w->c;
	struct template *t = template_by_id(c, w->id);

	if (!err) {
		(void)av_failpoint("template.marked");
		if (t) {
			template_set_state(t, TEMPLATE_DELETED);
			event_template(c, CONTROL_EVENT_TEMPLATE_DELETE, t->rec.team_id,
			    t->rec.name, w->key_id, NULL);
		}
		templates_collect(c);
	}
	if (!waiter_back(w))
		return;
	w->fn.done(w->ctx, err);
	waiter_free(w);
}

static int may_delete(
    const struct control_actor *a, const struct template *t, const char *name, struct av_err *err)
{
	if (template_name_reserved(name) || (t && strcmp(t->rec.team_id, a->team_id) != 0))
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "template %.72s belongs to the platform and cannot be deleted", name);
	if (!t)
		return av_err_set(err, AV_ERR_NOT_FOUND, "there is no template %.72s", name);
	return 0;
}

static int delete_it(struct control *c, const struct control_actor *a, const struct template *t,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct waiter *w = waiter_new(c, WAIT_TEMPLATE, ctx);

	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	w->fn.done = fn;
	memcpy(w->id, t->rec.id, AV_ID_SIZE);
	memcpy(w->key_id, control_actor_id(a), AV_ID_SIZE);
	waiter_away(w);
	(void)av_failpoint("template.checked");
	channels_announce(c, t->rec.team_id, "template.snapshot.deleted", "template", t->rec.name,
	    w->key_id, NULL);
	if (store_template_mark_deleted(c->store, w->id, on_marked, w) < 0) {
		channels_withdraw(c);
		waiter_free(w);
		return av_err_set(err, AV_ERR_UNAVAILABLE, "the database takes no more requests");
	}
	if (ret)
		*ret = &w->call;
	return 0;
}

int control_template_delete(struct control *c, const struct control_actor *a, const char *name,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	const struct template *t = template_by_name(c, a->team_id, name);
	int r = control_check_open(c, err);

	if (r == 0)
		r = may_delete(a, t, name, err);
	if (r < 0)
		return r;
	assert(t);
	return delete_it(c, a, t, fn, ctx, ret, err);
}

int control_admin_template_delete(struct control *c, const struct control_actor *a,
    const char *name, node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	/* "": of no team, so that only those of the platform are found. */
	const struct template *t = template_by_name(c, "", name);
	int r = control_check_open(c, err);

	if (r == 0)
		r = control_need_admin(a, err);
	if (r < 0)
		return r;
	if (template_name_reserved(name))
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "template %.72s is built in and cannot be deleted", name);
	if (!t)
		return av_err_set(
		    err, AV_ERR_NOT_FOUND, "there is no template %.72s that every team sees", name);
	return delete_it(c, a, t, fn, ctx, ret, err);
}
