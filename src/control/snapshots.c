/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshots.c - a sandbox's disk becomes a template
 *
 *   checked → record `creating` → sandbox paused → driver took the disk → record `ready` → answered
 *
 * With `stop` a jail is not paused but ended once the driver has been asked: the driver kills
 * it first and does what ends it afterwards. A machine is saved with its memory: with `stop` it is
 * paused and ended when all is done, with `keep_running` it is saved while it runs; a jail is
 * resumed then, and so is whatever was paused for a snapshot that fails. A daemon that dies before
 * `ready` is on disk answered nobody: the next one finds `creating` and removes what there is. What
 * was overwritten loses its name in the same transaction in which the new one gets it, so there is
 * always exactly one.
 *
 * Whatever fails after the first record leaves a record that says `deleted` in memory; collection
 * (templates.c) removes files and record.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/json.h"
#include "base/log.h"
#include "control/isolations_internal.h"
#include "control/main_command.h"

#include "base/banned.h"

struct taking {
	struct control *c;
	struct waiter *w; /* away; answered at the end */
	struct control_actor actor;
	char sandbox_id[AV_ID_SIZE];
	char template_id[AV_ID_SIZE];
	bool overwrite, stop;
	bool in_flight;             /* taken while it runs */
	bool end_after;             /* the sandbox ends when the template is there */
	bool resume_after;          /* the sandbox was paused for it, and goes on */
	bool paused;                /* by this */
	struct av_err failed;       /* to be answered when it has been resumed */
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
	/* In saved memory what it started runs already. */
	if (isolation_is_vm(sb->rec.isolation))
		return;
	memcpy(rec->start_command, from->rec.start_command, sizeof(rec->start_command));
	rec->kernel_warm = from->rec.kernel_warm;
}

/* A machine whose memory is kept has the size that it has. */
static int check_saved(
    const struct sandbox *sb, const struct snapshot_params *p, struct av_err *err)
{
	const char *what = NULL;

	if (!isolation_is_vm(sb->rec.isolation))
		return 0;
	if (p->memory_bytes && p->memory_bytes != sb->rec.memory_bytes)
		what = "memory_mb";
	else if (p->cpu_milli &&
	         isolation_vcpus(p->cpu_milli) != isolation_vcpus(sb->rec.cpu_milli))
		what = "cpus";
	else if (p->disk_bytes && p->disk_bytes < sb->rec.disk_bytes)
		what = "disk_mb";
	else if (p->isolation && !isolation_is_vm(p->isolation))
		what = "isolation";
	if (!what)
		return 0;
	return av_err_set(err, AV_ERR_INVALID,
	    "'%s' cannot be another one: a snapshot of a virtual machine holds its memory, and "
	    "goes "
	    "on as the machine it was",
	    what);
}

static int take_params(const struct control *c, const struct sandbox *sb,
    const struct snapshot_params *p, struct store_template *rec, struct av_err *err)
{
	if ((p->isolation && control_isolation_check(c, p->isolation, err) < 0) ||
	    check_saved(sb, p, err) < 0)
		return err ? -av_err_errno(err->kind) : -EINVAL;
	inherit(c, sb, rec);
	if (p->isolation)
		memcpy(rec->prefers, p->isolation,
		    AV_MIN(strlen(p->isolation), sizeof(rec->prefers) - 1));
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

static void answer(struct taking *k, const struct av_err *err)
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

static void on_resumed(void *ctx, const struct sandbox_info *info, const struct av_err *err)
{
	struct taking *k = ctx;

	(void)info;
	/* INVALID_STATE: somebody else resumed or deleted it meanwhile. */
	if (err && err->kind != AV_ERR_INVALID_STATE) {
		size_t n = strlen(k->failed.message);

		av_log(AV_LOG_WARN, "cannot resume a sandbox after its snapshot", "id",
		    k->sandbox_id, "error", err->message, NULL);
		if (k->failed.kind)
			(void)snprintf(k->failed.message + n, sizeof(k->failed.message) - n,
			    "; the sandbox stays paused");
	}
	answer(k, k->failed.kind ? &k->failed : NULL);
}

static void over(struct taking *k, const struct av_err *err)
{
	const struct sandbox *sb = find(k);

	if ((k->resume_after || (err && k->paused)) && sb && sb->state == SANDBOX_PAUSED) {
		if (err)
			k->failed = *err;
		if (control_resume(k->c, &k->actor, k->sandbox_id, on_resumed, k, NULL, NULL) == 0)
			return;
	}
	answer(k, err);
}

static void end_source(struct taking *k, const char *why)
{
	struct sandbox *sb = find(k);

	if (!sb)
		return;
	memcpy(sb->end_key_id, control_actor_id(&k->actor), AV_ID_SIZE);
	if (sb->stop)
		sandbox_end(sb, SANDBOX_REASON_STOPPED, false, NULL);
	else
		sandbox_end(sb, SANDBOX_REASON_DELETED, false, why);
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
	if (k->end_after)
		end_source(k, "stopped for a snapshot of it");
	over(k, NULL);
	(void)av_failpoint("snapshot.answered");
}

void snapshot_take_shape(
    struct control *c, struct store_template *rec, const struct driver_snapshot *snap)
{
	if (snap->stopped_us)
		av_hist_add(
		    &c->timings[CONTROL_TIMING_SNAPSHOT_STOPPED], (int64_t)snap->stopped_us * 1000);
	rec->saved_memory_bytes = (int64_t)snap->memory_bytes;
	rec->saved_vcpus = snap->memory_bytes ? snap->vcpus : 0;
	if (rec->saved_memory_bytes)
		rec->memory_bytes = rec->saved_memory_bytes;
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
	snapshot_take_shape(c, &k->next, snap);
	k->next.created_ms = control_real_ms(c);
	memcpy(k->next.state, TEMPLATE_READY, sizeof(TEMPLATE_READY));
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
	if (k->stop)
		end_source(k, "stopped for a snapshot of its disk");
}

static void on_paused(void *ctx, const struct sandbox_info *info, const struct av_err *err)
{
	struct taking *k = ctx;
	const struct sandbox *sb = find(k);

	(void)info;
	k->paused = !err;
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
	if (k->stop || k->in_flight || !sb || sb->state != SANDBOX_RUNNING) {
		k->resume_after = false;
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
	if (p->stop && p->keep_running)
		return av_err_set(err, AV_ERR_INVALID,
		    "'stop' and 'keep_running' say the opposite; give one of them");
	if (!p->stop && sb->state == SANDBOX_RUNNING && !isolation_can_pause(c, sb->rec.isolation))
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

int snapshot_check(
    struct sandbox *sb, const struct control_actor *a, const char *name, struct av_err *err)
{
	const struct snapshot_params p = {.name = name, .stop = true};
	struct store_template rec = {0};

	if (check(sb->c, a, sb->rec.id, sb, &p, err) < 0 ||
	    take_params(sb->c, sb, &p, &rec, err) < 0)
		return err ? -av_err_errno(err->kind) : -EINVAL;
	return check_name_free(sb->c, a, &p, &rec, err);
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
	*k = (struct taking){.c = c, .w = w, .actor = *a, .overwrite = p->overwrite};
	k->stop = p->stop && !isolation_is_vm(sb->rec.isolation);
	k->end_after = p->stop && !k->stop;
	k->in_flight = p->keep_running && isolation_is_vm(sb->rec.isolation);
	k->resume_after = p->keep_running && !k->in_flight;
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
