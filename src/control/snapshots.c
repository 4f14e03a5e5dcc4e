/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshots.c - a sandbox's disk becomes a template
 *
 *   checked → record `creating` → sandbox paused → driver took the disk → record `ready` → answered
 *
 * With `stop` the sandbox is not paused but ended once the driver has been asked: the driver kills
 * it first and does what ends it afterwards. A daemon that dies before `ready` is on disk answered
 * nobody: the next one finds `creating` and removes what there is. What was overwritten loses its
 * name in the same transaction in which the new one gets it, so there is always exactly one.
 *
 * Whatever fails after the first record leaves a record that says `deleted` in memory; collection
 * (templates.c) removes files and record.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/json.h"
#include "base/log.h"
#include "control/templates_internal.h"

#include "base/banned.h"

struct taking {
	struct control *c;
	struct waiter *w; /* away; answered at the end */
	struct control_actor actor;
	char sandbox_id[AV_ID_SIZE];
	char template_id[AV_ID_SIZE];
	bool overwrite, stop;
	struct store_template next; /* to be published */
};

/* ---- what a request says ---- */

static int take_name(const char *name, struct store_template *rec, struct av_err *err)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char random[4];

	if (!name) {
		av_random(random, sizeof(random));
		memcpy(rec->name, "template-", 9);
		for (size_t i = 0; i < sizeof(random); i++) {
			rec->name[9 + 2 * i] = digits[random[i] >> 4];
			rec->name[10 + 2 * i] = digits[random[i] & 15];
		}
		return 0;
	}
	if (template_name_check(name, err) < 0)
		return err ? -av_err_errno(err->kind) : -EINVAL;
	if (template_name_reserved(name))
		return av_err_set(err, AV_ERR_CONFLICT,
		    "the name %s belongs to the platform; choose another", name);
	return av_str_copy(rec->name, sizeof(rec->name), av_str_c(name));
}

static int take_text(
    const char *field, const char *text, char *dst, size_t size, struct av_err *err)
{
	size_t n = text ? strlen(text) : 0;

	if (n >= size)
		return av_err_set(err, AV_ERR_INVALID, "%s has %zu bytes; at most %zu are allowed",
		    field, n, size - 1);
	if (n)
		memcpy(dst, text, n);
	return 0;
}

static int take_envs(const json_t *envs, struct store_template *rec, struct av_err *err)
{
	char *text = NULL;
	int r;

	if (!envs)
		return 0;
	r = labels_take_envs(envs, &text, err);
	if (r == 0)
		r = take_text("envs", text, rec->envs_json, sizeof(rec->envs_json), err);
	free(text);
	return r;
}

/* What the sandbox's own template gave it holds for the new one as well, unless the request says
 * otherwise. What its creator gave it (envs) does not: it may be secret. */
static void inherit(const struct control *c, const struct sandbox *sb, struct store_template *rec)
{
	const struct template *from = template_by_id(c, sb->rec.template_id);

	rec->cpu_milli = sb->rec.cpu_milli;
	rec->memory_bytes = sb->rec.memory_bytes;
	rec->disk_bytes = sb->rec.disk_bytes;
	if (!from)
		return;
	memcpy(rec->default_user, from->rec.default_user, sizeof(rec->default_user));
	memcpy(rec->workdir, from->rec.workdir, sizeof(rec->workdir));
	memcpy(rec->envs_json, from->rec.envs_json, sizeof(rec->envs_json));
	memcpy(rec->start_command, from->rec.start_command, sizeof(rec->start_command));
	rec->kernel_warm = from->rec.kernel_warm;
}

static int take_params(const struct control *c, const struct sandbox *sb,
    const struct snapshot_params *p, struct store_template *rec, struct av_err *err)
{
	inherit(c, sb, rec);
	if (p->default_user)
		rec->default_user[0] = '\0';
	if (p->workdir)
		rec->workdir[0] = '\0';
	if (p->start_command)
		rec->start_command[0] = '\0';
	if (p->workdir && p->workdir[0] && p->workdir[0] != '/')
		return av_err_set(
		    err, AV_ERR_INVALID, "workdir must be an absolute path, such as /home/user");
	if (take_name(p->name, rec, err) < 0 ||
	    take_text("user", p->default_user, rec->default_user, sizeof(rec->default_user), err) <
	        0 ||
	    take_text("workdir", p->workdir, rec->workdir, sizeof(rec->workdir), err) < 0 ||
	    take_text("start_command", p->start_command, rec->start_command,
	        sizeof(rec->start_command), err) < 0 ||
	    take_envs(p->envs, rec, err) < 0)
		return err ? -av_err_errno(err->kind) : -EINVAL;
	rec->cpu_milli = p->cpu_milli ? p->cpu_milli : rec->cpu_milli;
	rec->memory_bytes = p->memory_bytes ? p->memory_bytes : rec->memory_bytes;
	rec->disk_bytes = p->disk_bytes ? p->disk_bytes : rec->disk_bytes;
	rec->kernel_warm = p->kernel_warm || rec->kernel_warm;
	rec->platform = p->platform;
	memcpy(rec->kind, p->is_base ? "base" : "snapshot", p->is_base ? 5 : 9);
	memcpy(rec->isolation, sb->rec.isolation, sizeof(rec->isolation));
	return 0;
}

static int check_name_free(const struct control *c, const struct control_actor *a,
    const struct snapshot_params *p, const struct store_template *rec, struct av_err *err)
{
	const struct template *t = template_by_name(c, a->team_id, rec->name);

	if (!t)
		return 0;
	if (strcmp(t->rec.team_id, a->team_id) != 0)
		return av_err_set(err, AV_ERR_CONFLICT,
		    "the platform has a template %s; choose another name", rec->name);
	if (!p->overwrite)
		return av_err_set(err, AV_ERR_CONFLICT,
		    "there is a template %s already; choose another name, delete it, or overwrite "
		    "it "
		    "(?overwrite=true)",
		    rec->name);
	return 0;
}

static struct sandbox *find(struct taking *k)
{
	struct sandbox *sb = sandbox_find(k->c, &k->actor, k->sandbox_id);

	return sb && !sb->ending ? sb : NULL;
}

/* ---- the end ---- */

static void over(struct taking *k, const struct av_err *err)
{
	struct control *c = k->c;
	struct template *t = template_by_id(c, k->template_id);
	struct template_info info;

	if (err && t)
		template_set_state(t, TEMPLATE_DELETED);
	if (t)
		event_template(c, CONTROL_EVENT_TEMPLATE_CREATE, t->rec.team_id, t->rec.name,
		    control_actor_id(&k->actor), err);
	control_timed(
	    c, CONTROL_TIMING_SNAPSHOT, &k->actor.trace, k->w->asked_ns, err, k->sandbox_id);
	if (err)
		c->stats.snapshots_failed++;
	else
		c->stats.snapshots++;
	if (waiter_back(k->w)) {
		if (!err && t)
			template_describe(c, t, &info);
		k->w->fn.template(k->w->ctx, err ? NULL : &info, err);
		waiter_free(k->w);
	}
	free(k);
	templates_collect(c);
}

static void fail(struct taking *k, enum av_err_kind kind, const char *text)
{
	struct av_err err;

	(void)av_err_set(&err, kind, "%s", text);
	over(k, &err);
}

/* True when a step failed, or the template is not there any more: then it is answered. */
static bool is_over(struct taking *k, const struct template *t, const struct av_err *err)
{
	if (err)
		over(k, err);
	else if (!t)
		fail(k, AV_ERR_INTERNAL, "the template has gone meanwhile");
	return err || !t;
}

static void on_published(void *ctx, const struct av_err *err)
{
	struct taking *k = ctx;
	struct template *t = template_by_id(k->c, k->template_id), *old;

	if (is_over(k, t, err))
		return;
	(void)av_failpoint("snapshot.published");
	old = template_by_name(k->c, t->rec.team_id, t->rec.name);
	if (old && strcmp(old->rec.team_id, t->rec.team_id) == 0)
		template_set_state(old, TEMPLATE_DELETED);
	t->rec = k->next;
	template_set_state(t, TEMPLATE_READY);
	over(k, NULL);
	(void)av_failpoint("snapshot.answered");
}

static void on_taken(void *ctx, const struct driver_snapshot *snap, const struct av_err *err)
{
	struct taking *k = ctx;
	struct control *c = k->c;
	const struct template *t = template_by_id(c, k->template_id), *old;

	if (err && err->kind == AV_ERR_CANCELED && !find(k)) {
		fail(k, AV_ERR_INVALID_STATE, "the sandbox was stopped during its snapshot");
		return;
	}
	if (is_over(k, t, err))
		return;
	(void)av_failpoint("snapshot.captured");
	k->next = t->rec;
	static_assert(sizeof(snap->seal) == sizeof(k->next.seal), "same size in both layers");
	memcpy(k->next.seal, snap->seal, sizeof(k->next.seal));
	memcpy(k->next.parent_id, snap->parent, sizeof(snap->parent));
	memcpy(k->next.host_fingerprint, snap->host_fingerprint, sizeof(snap->host_fingerprint));
	k->next.size_bytes = (int64_t)snap->bytes;
	k->next.depth = snap->depth;
	k->next.created_ms = control_real_ms(c);
	old = template_by_name(c, t->rec.team_id, t->rec.name);
	if (old && (!k->overwrite || strcmp(old->rec.team_id, t->rec.team_id) != 0))
		old = NULL; /* the store refuses the name */
	channels_announce(c, t->rec.team_id, "template.snapshot.created", "template", t->rec.name,
	    control_actor_id(&k->actor), NULL);
	if (store_template_publish(c->store, &k->next, old ? old->rec.id : NULL, on_published, k) <
	    0) {
		channels_withdraw(c);
		fail(k, AV_ERR_UNAVAILABLE, "the database takes no more requests");
	}
}

/* ---- the beginning ---- */

static void take(struct taking *k)
{
	struct sandbox *sb = find(k);
	int r;

	if (!sb) {
		fail(k, AV_ERR_INVALID_STATE, "the sandbox was stopped before its snapshot");
		return;
	}
	r = node_snapshot(k->c->node, k->sandbox_id, k->template_id, k->stop, on_taken, k);
	if (r < 0) {
		fail(k, r == -EOPNOTSUPP ? AV_ERR_UNSUPPORTED : AV_ERR_NO_MEMORY,
		    r == -EOPNOTSUPP ? "this isolation makes no snapshots" : "out of memory");
		return;
	}
	(void)av_failpoint("snapshot.requested");
	if (k->stop) {
		memcpy(sb->end_key_id, control_actor_id(&k->actor), AV_ID_SIZE);
		sandbox_end(
		    sb, SANDBOX_REASON_DELETED, false, "stopped for a snapshot of its disk");
	}
}

static void on_paused(void *ctx, const struct sandbox_info *info, const struct av_err *err)
{
	struct taking *k = ctx;
	const struct sandbox *sb = find(k);

	(void)info;
	/* Somebody else paused it meanwhile. */
	if (err && err->kind == AV_ERR_INVALID_STATE && sb && sb->state == SANDBOX_PAUSED)
		err = NULL;
	if (err)
		over(k, err);
	else
		take(k);
}

static void on_recorded(void *ctx, const struct av_err *err)
{
	struct taking *k = ctx;
	struct sandbox *sb = find(k);
	struct av_err why;

	if (err) {
		over(k, err);
		return;
	}
	(void)av_failpoint("snapshot.recorded");
	if (k->stop || !sb || sb->state != SANDBOX_RUNNING) {
		take(k);
		return;
	}
	if (control_pause(k->c, &k->actor, k->sandbox_id, on_paused, k, NULL, &why) < 0)
		over(k, &why);
}

static int check(const struct control *c, const struct control_actor *a, const char *id,
    const struct sandbox *sb, const struct snapshot_params *p, struct av_err *err)
{
	size_t n = 0;
	int r = control_check_open(c, err);

	if (r < 0)
		return r;
	if (!sb || sb->ending || (sb->state != SANDBOX_RUNNING && sb->state != SANDBOX_PAUSED))
		return sandbox_not_running(c, a, id, sb, err);
	if (!p->stop && sb->state == SANDBOX_RUNNING && !control_can_pause(c))
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "sandboxes cannot be paused here, as a snapshot needs it: the kernel's freezer "
		    "cannot be used ('aviary doctor' says why); with \"stop\": true the sandbox is "
		    "killed first and deleted afterwards");
	for (const struct av_list *l = c->templates.next; l != &c->templates; l = l->next)
		n++;
	if (n >= TEMPLATES_MAX)
		return av_err_set(err, AV_ERR_QUOTA,
		    "%zu templates exist and %d are allowed; delete some", n, TEMPLATES_MAX);
	return 0;
}

int control_snapshot(struct control *c, const struct control_actor *a, const char *sandbox_id,
    const struct snapshot_params *p, template_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct sandbox *sb = sandbox_find(c, a, sandbox_id);
	struct store_template rec = {0};
	struct taking *k = NULL;
	struct template *t = NULL;
	struct waiter *w = NULL;
	int r = check(c, a, sandbox_id, sb, p, err);

	if (r == 0)
		r = take_params(c, sb, p, &rec, err);
	if (r == 0)
		r = check_name_free(c, a, p, &rec, err);
	if (r < 0)
		return r;
	(void)av_failpoint("snapshot.checked");
	av_id_make(rec.id, AV_ID_TEMPLATE);
	memcpy(rec.team_id, a->team_id, AV_ID_SIZE);
	memcpy(rec.sandbox_id, sandbox_id, AV_ID_SIZE);
	memcpy(rec.state, TEMPLATE_CREATING, sizeof(TEMPLATE_CREATING));
	rec.created_ms = control_real_ms(c);
	k = calloc(1, sizeof(*k));
	w = waiter_new(c, WAIT_TEMPLATE, ctx);
	t = template_new(c);
	if (!k || !w || !t) {
		r = av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		goto fail;
	}
	*k = (struct taking){
	    .c = c, .w = w, .actor = *a, .overwrite = p->overwrite, .stop = p->stop};
	memcpy(k->sandbox_id, sandbox_id, AV_ID_SIZE);
	memcpy(k->template_id, rec.id, AV_ID_SIZE);
	t->rec = rec;
	w->fn.template = fn;
	if (store_template_insert(c->store, &rec, a->user_id, on_recorded, k) < 0) {
		r = av_err_set(err, AV_ERR_UNAVAILABLE, "the database takes no more requests");
		goto fail;
	}
	waiter_away(w);
	if (ret)
		*ret = &w->call;
	return 0;
fail:
	free(k);
	if (w)
		waiter_free(w);
	if (t)
		template_drop(t);
	return r;
}
