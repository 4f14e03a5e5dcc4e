/* SPDX-License-Identifier: Apache-2.0 */
/*
 * create.c - making a sandbox: what was asked for, record, driver, record again, answer
 *
 * Order, so that a daemon killed anywhere loses no answered create and leaves no orphan: the record
 * with the evidence (state running) is committed before anybody is answered, so that whatever was
 * answered is adopted. The first record (state starting) is written while the driver already works:
 * what is made without a record is removed at the next start, and nobody sees the sandbox before
 * its record is on disk. Only with an idempotency key does the record come first, as it may turn
 * out that nothing is to be made. A record that says starting at the next start was never answered:
 * it is taken down, and its idempotency key released.
 *
 *   insert queued ──────────────> recorded ─┐
 *        └─> driver asked ──────> made ─────┴─> running queued ──> committed ──> answered
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "control/isolations_internal.h"
#include "control/main_command.h"

#include "base/banned.h"

/* ---- creations ---- */

static void creation_free(struct creation *cr)
{
	struct control *c = cr->c;

	if (cr->idem_key && av_map_get(&c->creations, av_str_c(cr->idem_key)) == cr)
		(void)av_map_remove(&c->creations, av_str_c(cr->idem_key));
	if (cr->sb) {
		cr->sb->creation = NULL;
		sandbox_end_release(cr->sb);
	}
	sandbox_texts_clear(&cr->texts);
	setup_free(cr->setup);
	templates_unused(c);
	free(cr->idem_key);
	av_list_remove(&cr->link);
	free(cr);
	control_check_stopped(c);
}

static void answer_all(
    struct creation *cr, const struct sandbox_info *info, const struct av_err *err)
{
	struct sandbox_info copy;
	struct waiter *w;

	if (info)
		copy = *info;
	while ((w = AV_LIST_FIRST(&cr->waiters, struct waiter, link))) {
		av_list_remove(&w->link);
		if (info)
			copy.replayed = w->replayed;
		w->fn.sandbox(w->ctx, info ? &copy : NULL, err);
		waiter_free(w);
	}
}

void creation_fail(struct creation *cr, const struct av_err *err)
{
	cr->c->stats.create_failed++;
	if (cr->sb)
		event_sandbox(
		    cr->sb, CONTROL_EVENT_SANDBOX_CREATE, cr->actor_id, SANDBOX_REASON_NONE, err);
	answer_all(cr, NULL, err);
	creation_free(cr);
}

/* To channels, with the request that follows. */
static void announce(const struct creation *cr, const char *event)
{
	channels_announce(cr->c, cr->rec.team_id, event, "capsule", cr->rec.id, cr->actor_id, NULL);
}

/* It runs as soon as it is recorded. */
static bool is_instant(const struct creation *cr)
{
	return cr->pooled && !cr->setup && !isolation_is_vm(cr->rec.isolation);
}

static enum control_timing timing_of(const struct creation *cr)
{
	if (isolation_is_vm(cr->rec.isolation))
		return cr->pooled ? CONTROL_TIMING_CREATE_VM_POOL : CONTROL_TIMING_CREATE_VM;
	if (cr->pooled)
		return CONTROL_TIMING_CREATE_POOL;
	return cr->rec.internet ? CONTROL_TIMING_CREATE_INTERNET : CONTROL_TIMING_CREATE_COLD;
}

/* The record says running. */
static void on_running(void *ctx, const struct av_err *err)
{
	struct creation *cr = ctx;
	struct sandbox *sb = cr->sb;
	struct control *c = cr->c;
	struct sandbox_info info;
	struct av_err why;

	if (sb->ending) {
		(void)av_err_set(&why, AV_ERR_INVALID_STATE,
		    "sandbox %s was stopped while it was being made: %s", sb->rec.id,
		    sandbox_reason_why(sb->end_reason));
		creation_fail(cr, &why);
		return;
	}
	if (err) {
		why = *err;
		sandbox_end(sb, SANDBOX_REASON_CREATE_FAILED, true, err->message);
		creation_fail(cr, &why);
		return;
	}
	if (cr->step_ns)
		control_timed(c, CONTROL_TIMING_COMMIT, &cr->trace, cr->step_ns, NULL, sb->rec.id);
	control_timed(c, timing_of(cr), &cr->trace, cr->asked_ns, NULL, NULL);
	(void)av_failpoint("create.committed");
	if (is_instant(cr))
		event_state(sb, SANDBOX_STARTING);
	else
		sandbox_committed(sb, &cr->rec);
	event_sandbox(sb, CONTROL_EVENT_SANDBOX_CREATE, cr->actor_id, SANDBOX_REASON_NONE, NULL);
	c->stats.created++;
	c->next_deadline_ns = 0;
	control_wake(c, 0);
	sandbox_describe(sb, &info);
	answer_all(cr, &info, NULL);
	start_command_run(c, &sb->rec);
	main_watch(sb);
	(void)av_failpoint("create.answered");
	creation_free(cr);
}

void create_take_evidence(struct store_evidence *dst, const struct driver_evidence *ev)
{
	static_assert(sizeof(dst->boot_id) == sizeof(ev->boot_id), "same size in both layers");
	dst->pid = ev->pid;
	dst->start_ticks = ev->start_ticks;
	dst->pidns_inode = ev->pidns_inode;
	memcpy(dst->boot_id, ev->boot_id, sizeof(dst->boot_id));
}

/* What was made ahead of time learns whose it is. */
static int configure(struct creation *cr, struct node_sandbox *handle)
{
	struct node_agent_config agent = {0};
	char *envs = NULL;
	int r = sandbox_agent_envs(cr->c, &cr->sb->rec, &envs);

	agent.envs_json = envs;
	template_agent_defaults(cr->c, &cr->sb->rec, &agent);
	if (r == 0)
		r = node_configure(handle, &agent);
	free(envs);
	return r;
}

/* It is recorded, and the driver made it or could not. */
static void proceed(struct creation *cr)
{
	struct sandbox *sb = cr->sb;
	struct node_sandbox *handle = node_find(cr->c->node, sb->rec.id);
	struct av_err why;

	if (sb->ending) {
		on_running(cr, NULL);
		return;
	}
	if (cr->made_err.kind == AV_ERR_NONE && !handle)
		(void)av_err_set(&cr->made_err, AV_ERR_AGENT, "it ended while it was being made");
	if (cr->made_err.kind == AV_ERR_NONE && cr->pooled && !cr->set_up &&
	    configure(cr, handle) < 0)
		(void)av_err_set(&cr->made_err, AV_ERR_NO_MEMORY, "out of memory");
	if (cr->made_err.kind != AV_ERR_NONE) {
		why = cr->made_err;
		/* The driver closes: whether it was made is for the next start to find out. */
		if (why.kind != AV_ERR_CANCELED)
			sandbox_end(sb, SANDBOX_REASON_CREATE_FAILED, true, why.message);
		creation_fail(cr, &why);
		return;
	}
	(void)av_failpoint("create.made");
	if (is_instant(cr)) {
		on_running(cr, NULL);
		return;
	}
	if (cr->setup && !cr->set_up) {
		setup_begin(cr);
		return;
	}
	if (main_is_running(sb))
		main_write(sb);
	cr->rec = sb->rec;
	cr->rec.evidence = cr->evidence;
	sandbox_set_state(&cr->rec, SANDBOX_RUNNING);
	cr->rec.started_ms = cr->rec.updated_ms = cr->rec.last_active_ms = control_real_ms(cr->c);
	cr->rec.last_active_boot_ns = control_boot_ns(cr->c);
	cr->step_ns = av_mono_ns();
	announce(cr, "capsule.running");
	if (store_sandbox_update(cr->c->store, &cr->rec, on_running, cr) < 0) {
		channels_withdraw(cr->c);
		(void)av_err_set(&why, AV_ERR_UNAVAILABLE, "the database takes no more requests");
		on_running(cr, &why);
	}
}

void creation_set_up(struct creation *cr, const struct av_err *err)
{
	cr->set_up = true;
	if (err)
		cr->made_err = *err;
	/* The next start takes down what this one leaves. */
	if (err && cr->c->stopping && err->kind == AV_ERR_UNAVAILABLE)
		cr->made_err.kind = AV_ERR_CANCELED;
	proceed(cr);
}

static void on_discarded(void *ctx, const struct av_err *err)
{
	(void)ctx;
	(void)err; /* a sweep finds what is left */
}

/* What was made for it goes away. */
static void unmake(struct creation *cr)
{
	struct node *n = cr->c->node;
	struct node_sandbox *handle = node_find(n, cr->rec.id);
	struct av_err why;

	if (!cr->requested || !cr->made || cr->made_err.kind != AV_ERR_NONE)
		return;
	(void)av_err_set(&why, AV_ERR_INVALID_STATE, "the sandbox was not recorded");
	if (handle)
		node_forget(handle, &why);
	(void)node_destroy(n, cr->rec.id, on_discarded, NULL);
}

/* There will be no record: what was or will be made goes away. Frees cr when the driver is done. */
static void discard(struct creation *cr)
{
	cr->discarded = true;
	if (cr->requested && !cr->made)
		return;
	unmake(cr);
	creation_free(cr);
}

static void on_made(void *ctx, struct node_sandbox *handle, const struct driver_evidence *ev,
    const struct av_err *err)
{
	struct creation *cr = ctx;

	(void)handle;
	cr->made = true;
	control_timed(cr->c, CONTROL_TIMING_SPAWN, &cr->trace, cr->step_ns, err, cr->rec.id);
	cr->step_ns = 0;
	if (err)
		cr->made_err = *err;
	if (err && (err->kind == AV_ERR_QUOTA || err->kind == AV_ERR_NO_SPACE ||
	               err->kind == AV_ERR_NO_MEMORY))
		pool_relieve(cr->c);
	if (!err)
		create_take_evidence(&cr->evidence, ev);
	if (cr->discarded)
		discard(cr);
	else if (cr->sb)
		proceed(cr);
}

/* Takes one that is made already, if there is one of this shape: then the record can say from the
 * beginning that it runs. */
static void take_pooled(struct creation *cr)
{
	struct store_sandbox *rec = &cr->rec;
	struct driver_spec spec;

	create_spec_of(cr->c, rec, &spec);
	if (!pool_take(cr->c, &spec, rec->id, &rec->evidence))
		return;
	cr->pooled = cr->requested = cr->made = true;
	cr->evidence = rec->evidence;
	if (!is_instant(cr))
		return;
	sandbox_set_state(rec, SANDBOX_RUNNING);
	rec->started_ms = rec->created_ms;
}

static void on_taken(void *ctx, const struct av_err *err)
{
	struct creation *cr = ctx;

	cr->made = true;
	control_timed(cr->c, CONTROL_TIMING_SPAWN, &cr->trace, cr->step_ns, err, cr->rec.id);
	cr->step_ns = 0;
	if (err)
		cr->made_err = *err;
	if (cr->discarded)
		discard(cr);
	else if (cr->sb)
		proceed(cr);
}

/* A machine of the pool stands still until it is told who it is. */
static void let_go(struct creation *cr)
{
	int r;

	cr->made = false;
	cr->step_ns = av_mono_ns();
	r = node_take(cr->c->node, cr->rec.id, on_taken, cr);
	if (r == 0)
		return;
	cr->made = true;
	if (r != -EALREADY)
		(void)av_err_set(&cr->made_err, AV_ERR_NO_MEMORY, "out of memory");
}

/* Asks the node for it. */
static void request(struct creation *cr)
{
	const struct store_sandbox *rec = &cr->rec;
	struct driver_spec spec;
	struct node_agent_config agent = {0};
	char *envs = NULL;
	int r;

	create_spec_of(cr->c, rec, &spec);
	r = sandbox_agent_envs(cr->c, rec, &envs);
	agent.envs_json = envs;
	template_agent_defaults(cr->c, rec, &agent);
	agent.trace = cr->trace;
	cr->step_ns = av_mono_ns();
	if (r == 0)
		r = node_create(cr->c->node, &spec, &agent, on_made, cr);
	free(envs);
	if (r < 0) {
		cr->made = true;
		(void)av_err_set(&cr->made_err, AV_ERR_NO_MEMORY, "out of memory");
		return;
	}
	cr->requested = true;
	(void)av_failpoint("create.requested");
}

/* The key was used before: the first one's sandbox, if the request is the same. */
static void answer_existing(struct creation *cr, const struct store_idempotency *existing)
{
	struct control *c = cr->c;
	struct waiter *w;
	struct av_err err;

	if (memcmp(existing->request_hash, cr->request_hash, STORE_HASH_SIZE) != 0) {
		(void)av_err_set(&err, AV_ERR_CONFLICT,
		    "this Idempotency-Key was used before for another request; use a new key");
		answer_all(cr, NULL, &err);
		discard(cr);
		return;
	}
	c->stats.idempotent_hits++;
	while ((w = AV_LIST_FIRST(&cr->waiters, struct waiter, link))) {
		av_list_remove(&w->link);
		w->replayed = true;
		w->kind = WAIT_GET;
		memcpy(w->id, existing->sandbox_id, AV_ID_SIZE);
		memcpy(w->team_id, cr->rec.team_id, AV_ID_SIZE);
		waiter_defer(w);
	}
	discard(cr);
}

static void on_recorded(
    void *ctx, const struct store_idempotency *existing, const struct av_err *err)
{
	struct creation *cr = ctx;
	struct control *c = cr->c;
	struct av_err why;

	control_timed(c, CONTROL_TIMING_RECORD, &cr->trace, cr->insert_ns, err, cr->rec.id);
	if (existing) {
		answer_existing(cr, existing);
		return;
	}
	if (err && cr->refused.kind != AV_ERR_NONE && err->kind == AV_ERR_NOT_FOUND) {
		quota_count_refusal(c, cr->refusal);
		answer_all(cr, NULL, &cr->refused);
		discard(cr);
		return;
	}
	if (err) {
		c->stats.create_failed++;
		answer_all(cr, NULL, err);
		discard(cr);
		return;
	}
	(void)av_failpoint("create.recorded");
	if (sandbox_add(c, &cr->rec, &cr->texts, &cr->sb) < 0) {
		/* The record stays behind as "starting"; the next start takes it down. */
		(void)av_err_set(&why, AV_ERR_NO_MEMORY, "out of memory");
		c->stats.create_failed++;
		answer_all(cr, NULL, &why);
		discard(cr);
		return;
	}
	cr->sb->creation = cr;
	if (cr->orphan) {
		sandbox_end(cr->sb, SANDBOX_REASON_DELETED, false, "its team was deleted");
		cr->made = cr->made || !cr->requested;
	}
	if (!cr->requested && !cr->made)
		request(cr);
	if (cr->made)
		proceed(cr);
}

/* ---- the request ---- */

static struct waiter *add_waiter(
    struct creation *cr, sandbox_fn *fn, void *ctx, bool replayed, struct node_call **ret)
{
	struct waiter *w = waiter_new(cr->c, WAIT_CREATE, ctx);

	if (!w)
		return NULL;
	w->fn.sandbox = fn;
	w->replayed = replayed;
	av_list_append(&cr->waiters, &w->link);
	if (ret)
		*ret = &w->call;
	return w;
}

/* A duplicate of one that is still being made waits for it. 1: it does; 0: there is none. */
static int join(
    struct creation *cr, sandbox_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct creation *first =
	    cr->idem_key ? av_map_get(&cr->c->creations, av_str_c(cr->idem_key)) : NULL;

	if (!first)
		return 0;
	if (memcmp(first->request_hash, cr->request_hash, STORE_HASH_SIZE) != 0)
		return av_err_set(err, AV_ERR_CONFLICT,
		    "this Idempotency-Key is in use for another request; use a new key");
	if (!add_waiter(first, fn, ctx, true, ret))
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	cr->c->stats.idempotent_hits++;
	return 1;
}

/* The caller frees cr when this fails. */
static int begin(
    struct creation *cr, sandbox_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct control *c = cr->c;
	struct store_idempotency idem = {0};
	struct waiter *w;
	int r;

	if (cr->idem_key) {
		if (av_map_put(&c->creations, av_str_c(cr->idem_key), cr) < 0)
			return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		idem.key = cr->idem_key + AV_ID_LEN + 1;
		memcpy(idem.request_hash, cr->request_hash, STORE_HASH_SIZE);
	}
	w = add_waiter(cr, fn, ctx, false, ret);
	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	idem.only_look = cr->refused.kind != AV_ERR_NONE;
	if (!idem.only_look)
		take_pooled(cr);
	cr->insert_ns = av_mono_ns();
	announce(cr, "capsule.created");
	if (is_instant(cr))
		announce(cr, "capsule.running");
	r = store_sandbox_insert(c->store, &cr->rec, cr->idem_key ? &idem : NULL,
	    c->config.idempotency_ms, on_recorded, cr);
	if (r < 0) {
		channels_withdraw(c);
		waiter_free(w);
		unmake(cr);
		return av_err_sys(
		    err, AV_ERR_UNAVAILABLE, r, "the database takes no more requests");
	}
	/* With a key it may turn out that nothing is to be made. */
	if (cr->pooled && isolation_is_vm(cr->rec.isolation))
		let_go(cr);
	else if (!cr->idem_key && !cr->pooled)
		request(cr);
	return 0;
}

bool control_knows(const struct control *c, const char *id)
{
	const struct creation *cr;

	AV_LIST_FOREACH(cr, &c->creating, const struct creation, link)
	if (strcmp(cr->rec.id, id) == 0)
		return true;
	return pool_knows(c, id) || av_map_get(&c->sandboxes, av_str_c(id)) != NULL;
}

/* What is refused may be the repetition of a create that was not: the store knows. */
static int check_quota(struct control *c, struct creation *cr, struct av_err *err)
{
	int r = quota_check_create(c, cr, err);

	if (r < 0 && cr->idem_key) {
		cr->refused = *err;
		return 0;
	}
	if (r < 0)
		quota_count_refusal(c, cr->refusal);
	return r;
}

int control_create(struct control *c, const struct control_actor *a, const struct sandbox_params *p,
    sandbox_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct av_err own;
	struct creation *cr;
	int r = control_check_open(c, err);

	if (r < 0)
		return r;
	err = err ? err : &own;
	cr = calloc(1, sizeof(*cr));
	if (!cr)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	cr->c = c;
	cr->trace = a->trace;
	cr->asked_ns = av_mono_ns();
	av_list_append(&c->creating, &cr->link);
	av_list_init(&cr->waiters);
	r = create_take_params(cr, a, p, err);
	if (r == 0)
		r = join(cr, fn, ctx, ret, err);
	if (r == 0)
		r = check_quota(c, cr, err);
	if (r == 0) {
		(void)av_failpoint("create.validated");
		r = begin(cr, fn, ctx, ret, err);
		if (r == 0)
			return 0;
	}
	creation_free(cr);
	return r < 0 ? r : 0;
}
