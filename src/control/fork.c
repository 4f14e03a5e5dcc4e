/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork.c - copies of a running virtual machine
 *
 *   checked → hidden template `creating` on disk → saved by the driver
 *   → `deleted` on disk, with what it is → copies are made from it, FORK_AT_ONCE at a time
 *   → forgotten
 *
 * Theory of operation. A fork is a snapshot without a name that is used `count` times. Its record
 * says `deleted` from the moment it is complete, which means: removed when nobody uses it any more
 * (templates.c); in memory it says `creating` until the last copy is made, so that it is not
 * removed before. So whatever a crash interrupts is cleaned up by the next start, and the copies
 * that were made keep what they stand on. Each copy is a create like any other: quotas,
 * idempotency, events.
 *
 * With an idempotency key every copy has one that is derived from it. They are looked up first, so
 * that a repetition takes no snapshot when all copies are there.
 */
#include "control/fork.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/json.h"
#include "control/isolations_internal.h"

#include "base/banned.h"

#define FORK_AT_ONCE 8
#define KEY_SIZE     96

struct forking;

struct copy {
	struct forking *f;
};

struct forking {
	struct control *c;
	struct control_actor actor;
	char source_id[AV_ID_SIZE], template_id[AV_ID_SIZE];
	struct store_sandbox rec;               /* of the source; without texts */
	json_t *metadata, *envs, *tags, *ports; /* owned */
	char key[2 * STORE_HASH_SIZE + 1];      /* of what was asked; empty: none */
	struct av_buf body;                     /* what the copies' keys are bound to */
	size_t count, next, open;
	int64_t asked_ns; /* monotonic */
	fork_item_fn *item;
	fork_done_fn *done;
	void *ctx;
	struct copy copies[]; /* count */
};

static void forking_free(struct forking *f)
{
	json_decref(f->metadata);
	json_decref(f->envs);
	json_decref(f->tags);
	json_decref(f->ports);
	av_buf_clear(&f->body);
	free(f);
}

/* ---- the end ---- */

static void over(struct forking *f, const struct av_err *err)
{
	struct control *c = f->c;
	struct template *t = template_by_id(c, f->template_id);

	control_timed(c, CONTROL_TIMING_FORK, &f->actor.trace, f->asked_ns, err, f->source_id);
	if (t)
		template_set_state(t, TEMPLATE_DELETED);
	f->done(f->ctx, err);
	forking_free(f);
	templates_collect(c);
}

static void fail(struct forking *f, enum av_err_kind kind, const char *text)
{
	struct av_err err;

	(void)av_err_set(&err, kind, "%s", text);
	over(f, &err);
}

/* ---- copies ---- */

static void make_more(struct forking *f);

static void on_copy(void *ctx, const struct sandbox_info *sb, const struct av_err *err)
{
	struct copy *copy = ctx;
	struct forking *f = copy->f;

	f->item(f->ctx, (size_t)(copy - f->copies), sb, err);
	f->open--;
	make_more(f);
}

/* " i" cannot be in a key that a client sent. */
static void key_of(const struct forking *f, size_t i, char dst[static KEY_SIZE])
{
	(void)snprintf(dst, KEY_SIZE, "%s %zu", f->key, i);
}

static int make_one(struct forking *f, size_t i, const struct template *t, struct av_err *err)
{
	char key[KEY_SIZE];
	struct sandbox_params p = {.template_name = f->rec.template_name,
	    .own_template = t,
	    .cpu_milli = f->rec.cpu_milli,
	    .memory_bytes = f->rec.memory_bytes,
	    .disk_bytes = f->rec.disk_bytes,
	    .pids_max = f->rec.pids_max,
	    .no_sudo = !f->rec.sudo,
	    .idle_delete = f->rec.idle_delete,
	    .auto_resume = f->rec.auto_resume,
	    .internet = f->rec.internet,
	    .idle_timeout_ms = f->rec.idle_timeout_ms,
	    .max_lifetime_ms = f->rec.max_lifetime_ms,
	    .envs = f->envs,
	    .metadata = f->metadata,
	    .tags = f->tags,
	    .ports = f->ports,
	    .request_body = av_buf_str(&f->body)};

	if (f->key[0]) {
		key_of(f, i, key);
		p.idempotency_key = av_str_c(key);
	}
	return control_create(f->c, &f->actor, &p, on_copy, &f->copies[i], NULL, err);
}

static void make_more(struct forking *f)
{
	const struct template *t = template_by_id(f->c, f->template_id);
	struct av_err err;

	while (f->next < f->count && f->open < FORK_AT_ONCE) {
		size_t i = f->next++;

		if (make_one(f, i, t, &err) < 0)
			f->item(f->ctx, i, NULL, &err);
		else
			f->open++;
	}
	if (f->next == f->count && f->open == 0)
		over(f, NULL);
}

/* ---- the snapshot ---- */

static void on_kept(void *ctx, const struct av_err *err)
{
	struct forking *f = ctx;

	if (err) {
		over(f, err);
		return;
	}
	(void)av_failpoint("fork.kept");
	make_more(f);
}

static void on_saved(void *ctx, const struct driver_snapshot *snap, const struct av_err *err)
{
	struct forking *f = ctx;
	struct template *t = template_by_id(f->c, f->template_id);
	struct store_template next;

	if (err) {
		over(f, err);
		return;
	}
	if (!t || !snap->memory_bytes) {
		fail(f, AV_ERR_INTERNAL, "the driver saved no memory");
		return;
	}
	(void)av_failpoint("fork.saved");
	static_assert(sizeof(snap->seal) == sizeof(t->rec.seal), "same size in both layers");
	memcpy(t->rec.seal, snap->seal, sizeof(t->rec.seal));
	memcpy(t->rec.parent_id, snap->parent, sizeof(snap->parent));
	t->rec.size_bytes = (int64_t)snap->bytes;
	t->rec.depth = snap->depth;
	snapshot_take_shape(f->c, &t->rec, snap);
	next = t->rec;
	memset(next.state, 0, sizeof(next.state));
	memcpy(next.state, TEMPLATE_DELETED, sizeof(TEMPLATE_DELETED));
	if (store_template_publish(f->c->store, &next, NULL, on_kept, f) < 0)
		fail(f, AV_ERR_UNAVAILABLE, "the database takes no more requests");
}

static void on_recorded(void *ctx, const struct av_err *err)
{
	struct forking *f = ctx;
	struct sandbox *sb = sandbox_find(f->c, &f->actor, f->source_id);
	struct av_err why;

	if (err) {
		over(f, err);
		return;
	}
	(void)av_failpoint("fork.recorded");
	if (!sb || sb->ending || sb->state != SANDBOX_RUNNING) {
		(void)sandbox_not_running(f->c, &f->actor, f->source_id, sb, &why);
		over(f, &why);
		return;
	}
	if (node_snapshot(f->c->node, f->source_id, f->template_id, false, on_saved, f) < 0)
		fail(f, AV_ERR_NO_MEMORY, "out of memory");
}

static int check_room(const struct control *c, struct av_err *err)
{
	size_t n = 0;

	for (const struct av_list *l = c->templates.next; l != &c->templates; l = l->next)
		n++;
	return n < TEMPLATES_MAX ? 0
	                         : av_err_set(err, AV_ERR_QUOTA,
	                               "%zu templates exist and %d are allowed, that of a fork "
	                               "included; delete some",
	                               n, TEMPLATES_MAX);
}

static int check_source(const struct control *c, const struct control_actor *a, const char *id,
    const struct sandbox *sb, struct av_err *err)
{
	if (sb && !sb->ending && sb->state == SANDBOX_PAUSED)
		return av_err_set(err, AV_ERR_INVALID_STATE,
		    "sandbox %s is paused, not running: resume it first (a fork is of what runs)",
		    id);
	if (!sb || sb->ending || sb->state != SANDBOX_RUNNING)
		return sandbox_not_running(c, a, id, sb, err);
	if (!isolation_is_vm(sb->rec.isolation))
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "sandbox %s is a jail, whose processes cannot be copied: fork one with "
		    "isolation "
		    "vm, or take a snapshot (POST /v1/snapshots) and make sandboxes of its files",
		    id);
	return check_room(c, err);
}

/* -errno with *err: nothing was begun. */
static int take_snapshot(struct forking *f, struct sandbox *sb, struct av_err *err)
{
	struct control *c = f->c;
	struct template *t = template_new(c);
	const struct template *from;

	assert(sb); /* check_source() has seen to it */
	from = template_by_id(c, sb->rec.template_id);
	if (!t)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (from) {
		memcpy(t->rec.default_user, from->rec.default_user, sizeof(t->rec.default_user));
		memcpy(t->rec.workdir, from->rec.workdir, sizeof(t->rec.workdir));
		memcpy(t->rec.envs_json, from->rec.envs_json, sizeof(t->rec.envs_json));
	}
	av_id_make(t->rec.id, AV_ID_TEMPLATE);
	memcpy(f->template_id, t->rec.id, AV_ID_SIZE);
	memcpy(t->rec.team_id, f->actor.team_id, AV_ID_SIZE);
	memcpy(t->rec.sandbox_id, f->source_id, AV_ID_SIZE);
	static_assert(sizeof(t->rec.name) == sizeof(sb->rec.template_name), "a name of a template");
	memcpy(t->rec.name, sb->rec.template_name, sizeof(t->rec.name));
	memcpy(t->rec.kind, "snapshot", 9);
	memcpy(t->rec.isolation, ISOLATION_VM, sizeof(ISOLATION_VM));
	memcpy(t->rec.state, TEMPLATE_CREATING, sizeof(TEMPLATE_CREATING));
	t->rec.created_ms = control_real_ms(c);
	t->rec.cpu_milli = sb->rec.cpu_milli;
	t->rec.disk_bytes = sb->rec.disk_bytes;
	if (store_template_insert(c->store, &t->rec, f->actor.user_id, on_recorded, f) == 0) {
		sandbox_touch(sb);
		return 0;
	}
	template_drop(t);
	f->template_id[0] = '\0';
	return av_err_set(err, AV_ERR_UNAVAILABLE, "the database takes no more requests");
}

/* ---- repetitions ---- */

static void look_up(struct forking *f);

static void on_looked(void *ctx, const struct store_idempotency *existing, const struct av_err *err)
{
	struct forking *f = ctx;
	struct sandbox *sb = sandbox_find(f->c, &f->actor, f->source_id);
	struct av_err why;

	if (existing && f->next < f->count) {
		f->next++;
		look_up(f);
		return;
	}
	f->next = 0;
	if (err && err->kind != AV_ERR_NOT_FOUND)
		over(f, err);
	else if (check_source(f->c, &f->actor, f->source_id, sb, &why) < 0 ||
	         take_snapshot(f, sb, &why) < 0)
		over(f, &why);
}

/* All copies are there: each create only looks. */
static void answer_again(struct forking *f)
{
	f->next = 0;
	make_more(f);
}

static void look_up(struct forking *f)
{
	char key[KEY_SIZE];
	const struct store_idempotency idem = {.key = key, .only_look = true};
	struct store_sandbox rec = {.created_ms = control_real_ms(f->c)};

	if (f->next == f->count) {
		answer_again(f);
		return;
	}
	key_of(f, f->next, key);
	memcpy(rec.team_id, f->actor.team_id, AV_ID_SIZE);
	if (store_sandbox_insert(
	        f->c->store, &rec, &idem, f->c->config.idempotency_ms, on_looked, f) < 0)
		fail(f, AV_ERR_UNAVAILABLE, "the database takes no more requests");
}

/* ---- the request ---- */

static void take_key(struct forking *f, const struct fork_params *p)
{
	uint8_t hash[STORE_HASH_SIZE];

	if (!p->idempotency_key.n)
		return;
	(void)crypto_hash_sha256(
	    hash, (const unsigned char *)p->idempotency_key.p, p->idempotency_key.n);
	for (size_t i = 0; i < sizeof(hash); i++)
		(void)snprintf(f->key + 2 * i, 3, "%02x", hash[i]);
}

/* What the source is by now; it may end before its copies are made. */
static int take_source(
    struct forking *f, const struct sandbox *sb, const struct fork_params *p, struct av_err *err)
{
	const char *envs = sb->rec.envs_json;

	f->rec = sb->rec;
	f->rec.main_json = f->rec.envs_json = f->rec.metadata_json = f->rec.tags_json =
	    f->rec.ports_json = NULL;
	if (p->has_idle_timeout)
		f->rec.idle_timeout_ms = p->idle_timeout_ms;
	if (p->has_lifetime)
		f->rec.max_lifetime_ms = p->max_lifetime_ms;
	f->envs = av_json_parse_object(av_str_c(envs && envs[0] ? envs : "{}"), NULL);
	f->metadata = json_deep_copy(p->metadata ? p->metadata : sb->labels.metadata);
	f->tags = json_deep_copy(sb->labels.tags);
	f->ports = json_deep_copy(sb->labels.ports);
	if (!f->envs || !f->metadata || !f->tags || !f->ports)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (!p->metadata)
		(void)json_object_del(f->metadata, "name"); /* it means the source */
	return 0;
}

/* A repetition is answered although its source is gone. */
static int source_for(struct control *c, const struct control_actor *a, const char *id,
    const struct fork_params *p, struct sandbox **ret, struct av_err *err)
{
	*ret = sandbox_find(c, a, id);
	if (p->idempotency_key.n && *ret && isolation_is_vm((*ret)->rec.isolation))
		return 0;
	return check_source(c, a, id, *ret, err);
}

int control_fork(struct control *c, const struct control_actor *a, const char *id,
    const struct fork_params *p, fork_item_fn *item, fork_done_fn *done, void *ctx,
    struct av_err *err)
{
	struct sandbox *sb = NULL;
	struct forking *f;
	int r = control_check_open(c, err);

	if (r == 0 && (p->count < 1 || p->count > FORK_MAX))
		r = av_err_set(
		    err, AV_ERR_INVALID, "count is %zu; it may be 1 to %d", p->count, FORK_MAX);
	if (r == 0)
		r = source_for(c, a, id, p, &sb, err);
	if (r < 0)
		return r;
	assert(sb);
	f = calloc(1, sizeof(*f) + p->count * sizeof(f->copies[0]));
	if (!f)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	f->c = c;
	f->actor = *a;
	f->count = p->count;
	f->asked_ns = av_mono_ns();
	f->item = item;
	f->done = done;
	f->ctx = ctx;
	for (size_t i = 0; i < f->count; i++)
		f->copies[i].f = f;
	memcpy(f->source_id, sb->rec.id, AV_ID_SIZE);
	av_buf_init(&f->body, AV_ID_SIZE + 1 + p->request_body.n);
	(void)av_buf_printf(&f->body, "%s\n", f->source_id);
	(void)av_buf_append_str(&f->body, p->request_body);
	take_key(f, p);
	r = av_buf_error(&f->body) ? av_err_set(err, AV_ERR_NO_MEMORY, "out of memory")
	                           : take_source(f, sb, p, err);
	if (r == 0 && !f->key[0])
		r = take_snapshot(f, sb, err);
	if (r < 0) {
		forking_free(f);
		return r;
	}
	if (f->key[0])
		look_up(f);
	return 0;
}
