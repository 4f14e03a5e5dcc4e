/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_world.h - for unit tests of control: a real database, a driver whose sandboxes only
 * sleep, a clock that the test turns; and its calls as functions that wait for their answers
 */
#pragma once

#include <signal.h>
#include <sys/stat.h>

#include "base/avtime.h"
#include "base/json.h"
#include "base/path.h"
#include "control/control.h"
#include "control/exec.h"
#include "control/keys.h"
#include "control/sandbox.h"
#include "fake_driver.h"
#include "lib/run_loop.h"
#include "lib/tap.h"
#include "store/store.h"

static char dir[] = "/tmp/aviary-control-XXXXXX";
static char db[128];
/* Of the worlds opened from now on. */
__attribute__((unused)) static int64_t pool_max, vm_pool_max;
__attribute__((unused)) static bool with_vm;                  /* isolation vm is there as well */
__attribute__((unused)) static const char *default_isolation; /* NULL: jail */
__attribute__((unused)) static const struct control_outbound *outbound;

__attribute__((unused)) static int64_t audit_max; /* the same */

/* ---- one daemon's insides ---- */

struct world {
	struct av_loop *loop;
	struct store *store;
	struct av_post post;
	struct fake_machine *machine;
	struct fake_driver *driver, *vm;
	struct node *node;
	struct control *control;
	struct av_timer tick;
	int64_t skew_ns; /* how far the test turned the clock */
	int64_t real_skew_ms;
	struct control_limits limits;
	struct control_start_report report;
	bool started, stopped, closed, made;
	struct av_err start_err;
	char secret[64];
	struct control_actor actor;
};

static inline void on_post(void *ctx)
{
	struct world *w = ctx;

	if (w->store)
		store_dispatch(w->store);
}

static inline void wake(void *ctx)
{
	struct world *w = ctx;

	av_loop_post(w->loop, &w->post);
}

static inline int64_t boot_ns(void *ctx)
{
	struct world *w = ctx;

	return av_boot_ns() + w->skew_ns;
}

static inline int64_t real_ms(void *ctx)
{
	struct world *w = ctx;

	return av_real_ms() + w->real_skew_ms;
}

static inline void on_tick(void *ctx)
{
	struct world *w = ctx;

	control_tick(w->control);
}

static inline void wake_at(void *ctx, int64_t at)
{
	struct world *w = ctx;
	int64_t ms = (at - boot_ns(w)) / AV_NS_PER_MS;

	if (at == INT64_MAX)
		av_timer_stop(&w->tick);
	else
		av_timer_start(&w->tick, ms > 0 ? (uint64_t)ms : 0);
}

/* Runs the loop until *flag, at most 10 s. */
static inline bool run_until(struct world *w, const bool *flag)
{
	int64_t end = av_mono_ns() + 10 * AV_NS_PER_S;

	while (!*flag && av_mono_ns() < end)
		av_loop_run_once(w->loop, 50);
	if (!*flag)
		ok(false, "it came to an end in time");
	return *flag;
}

static inline void on_value(void *ctx, const char *value, const struct av_err *err)
{
	(void)value;
	(void)err;
	*(bool *)ctx = true;
}

/* Until the store has answered all, and all that followed from that: a disk may be slow. */
static inline void settle(struct world *w)
{
	struct store_stats before, after;

	/* Rounds in which only this was asked: the answers of the first may lead to more. */
	for (int quiet = 0; w->store && quiet < 2;) {
		bool answered = false;

		store_get_stats(w->store, &before);
		if (store_value_get(w->store, "settle", on_value, &answered) < 0 ||
		    !run_until(w, &answered))
			return;
		store_get_stats(w->store, &after);
		quiet = after.requests == before.requests + 1 ? quiet + 1 : 0;
	}
}

/* So long at least, and until nothing is under way in the store. */
static inline void run_for(struct world *w, int64_t ms)
{
	run_loop_for(w->loop, ms);
	settle(w);
}

static inline void on_started(
    void *ctx, const struct control_start_report *r, const struct av_err *err)
{
	struct world *w = ctx;

	w->started = true;
	w->report = *r;
	if (err)
		w->start_err = *err;
}

static inline int on_secret(void *ctx, const char *secret)
{
	struct world *w = ctx;

	(void)snprintf(w->secret, sizeof(w->secret), "%s", secret);
	return 0;
}

static inline void on_first(void *ctx, bool made, const struct av_err *err)
{
	struct world *w = ctx;

	w->made = made;
	w->stopped = true;
	is_int(err ? err->kind : 0, 0, "the first start succeeds");
}

static inline void world_open(
    struct world *w, struct fake_machine *m, const struct control_limits *limits)
{
	struct node_config nc = {0};
	struct control_config cc = {
	    .clock = {.ctx = w, .boot_ns = boot_ns, .real_ms = real_ms, .wake_at = wake_at}};
	struct store_config sc = {.path = db, .wake = wake, .wake_ctx = w};
	struct av_err err = {0};

	memset(w, 0, sizeof(*w));
	w->machine = m;
	if (av_loop_new(&w->loop) < 0)
		abort();
	w->post = (struct av_post){.fn = on_post, .ctx = w};
	av_timer_init(&w->tick, w->loop, on_tick, w);
	w->driver = fake_driver_new(w->loop, m);
	nc.loop = w->loop;
	nc.drivers[0] = &w->driver->base;
	if (with_vm) {
		w->vm = fake_vm_driver_new(w->loop, m);
		nc.drivers[1] = &w->vm->base;
	}
	if (store_open(&sc, &w->store, &err) < 0 || node_new(&nc, &w->node, &err) < 0) {
		diag("%s", err.message);
		abort();
	}
	cc.store = w->store;
	cc.node = w->node;
	cc.outbound = outbound;
	cc.isolation = default_isolation;
	cc.pool_max = pool_max;
	cc.vm_pool_max = vm_pool_max;
	cc.vm_pool_memory_bytes = 256 * AV_MIB;
	cc.audit_max = audit_max;
	cc.audit_days = audit_max ? 10 : 0;
	cc.pool_untried = true;
	cc.pool_memory_bytes = 64 * AV_MIB;
	control_limits_init(&cc.limits);
	if (limits)
		cc.limits = *limits;
	if (control_new(&cc, &w->control, &err) < 0 || control_start(w->control, on_started, w) < 0)
		abort();
	(void)run_until(w, &w->started);
	is_int(w->start_err.kind, 0, "control starts");
}

static inline void set_flag(void *ctx)
{
	bool *flag = ctx;

	*flag = true;
}

/* graceful: as SIGTERM; else as if the process had been killed, as far as one can within it. */
static inline void world_close(struct world *w, bool graceful)
{
	struct store *store = w->store;

	w->stopped = w->closed = false;
	if (graceful) {
		(void)control_stop(w->control, set_flag, &w->stopped);
		(void)run_until(w, &w->stopped);
	}
	av_timer_stop(&w->tick); /* the node goes first, and nobody may ask it anything then */
	w->store = NULL;         /* nobody is called any more: what would be asks the node */
	node_close(w->node, set_flag, &w->closed);
	(void)run_until(w, &w->closed);
	control_free(w->control);
	store_close(store);
	av_timer_stop(&w->tick);
	av_loop_free(w->loop);
}

/* The first daemon of all makes a key; w->actor is who has it, w->secret what it is. */
static inline void world_first(struct world *w)
{
	w->stopped = false;
	(void)control_first_start(w->control, on_secret, on_first, w);
	(void)run_until(w, &w->stopped);
	(void)control_key_verify(w->control, av_str_c(w->secret), &w->actor, NULL);
}

/* ---- answers ---- */

struct answer {
	bool done;
	int calls;
	enum av_err_kind kind;
	char message[512];
	char id[AV_ID_SIZE];
	enum sandbox_state state;
	enum sandbox_reason reason;
	bool replayed;
	int64_t memory_bytes, idle_timeout_ms;
	bool auto_resume;
	char isolation[8], template[72];
	char meta[64], tags[64], ports[64];
	size_t n;
	char next[80], last_id[AV_ID_SIZE];
};

static inline void take_err(struct answer *a, const struct av_err *err)
{
	a->done = true;
	a->calls++;
	a->kind = err ? err->kind : AV_ERR_NONE;
	(void)snprintf(a->message, sizeof(a->message), "%s", err ? err->message : "");
}

static inline void show(char *dst, size_t size, const json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT);

	(void)snprintf(dst, size, "%s", text ? text : "");
	free(text);
}

static inline void on_sandbox(void *ctx, const struct sandbox_info *sb, const struct av_err *err)
{
	struct answer *a = ctx;
	const char *meta = sb ? json_string_value(json_object_get(sb->metadata, "who")) : NULL;

	take_err(a, err);
	if (!sb)
		return;
	memcpy(a->id, sb->id, AV_ID_SIZE);
	a->state = sb->state;
	a->reason = sb->reason;
	a->replayed = sb->replayed;
	a->memory_bytes = sb->memory_bytes;
	a->idle_timeout_ms = sb->idle_timeout_ms;
	a->auto_resume = sb->auto_resume;
	(void)snprintf(a->isolation, sizeof(a->isolation), "%s", sb->isolation);
	(void)snprintf(a->template, sizeof(a->template), "%s", sb->template_name);
	(void)snprintf(a->meta, sizeof(a->meta), "%s", meta ? meta : "");
	show(a->tags, sizeof(a->tags), sb->tags);
	show(a->ports, sizeof(a->ports), sb->ports);
}

static inline void on_sandboxes(
    void *ctx, const struct sandbox_info *v, size_t n, const char *next, const struct av_err *err)
{
	struct answer *a = ctx;

	take_err(a, err);
	a->n = n;
	(void)snprintf(a->next, sizeof(a->next), "%s", next ? next : "");
	if (n)
		memcpy(a->last_id, v[n - 1].id, AV_ID_SIZE);
	if (n)
		memcpy(a->id, v[0].id, AV_ID_SIZE);
}

static inline void on_done(void *ctx, const struct av_err *err)
{
	take_err(ctx, err);
}

static inline struct answer create(struct world *w, const struct sandbox_params *p)
{
	struct answer a = {0};
	struct av_err err = {0};

	if (control_create(w->control, &w->actor, p, on_sandbox, &a, NULL, &err) < 0)
		take_err(&a, &err);
	else
		(void)run_until(w, &a.done);
	return a;
}

static inline struct answer get(struct world *w, const char *id)
{
	struct answer a = {0};
	struct av_err err = {0};

	if (control_get(w->control, &w->actor, id, on_sandbox, &a, NULL, &err) < 0)
		take_err(&a, &err);
	else
		(void)run_until(w, &a.done);
	return a;
}

static inline struct answer delete (struct world *w, const char *id)
{
	struct answer a = {0};
	struct av_err err = {0};

	if (control_delete(w->control, &w->actor, id, on_done, &a, NULL, &err) < 0)
		take_err(&a, &err);
	else
		(void)run_until(w, &a.done);
	return a;
}

static inline struct answer list(struct world *w, const struct sandbox_filter *f)
{
	struct answer a = {0};
	struct av_err err = {0};

	if (control_list(w->control, &w->actor, f, on_sandboxes, &a, NULL, &err) < 0)
		take_err(&a, &err);
	else
		(void)run_until(w, &a.done);
	return a;
}

/* Waits until it is in this state. */
static inline bool becomes(struct world *w, const char *id, enum sandbox_state state)
{
	int64_t end = av_mono_ns() + 10 * AV_NS_PER_S;

	while (get(w, id).state != state && av_mono_ns() < end)
		run_for(w, 5);
	return get(w, id).state == state;
}

/* Waits until it is over. */
static inline enum sandbox_reason ends(struct world *w, const char *id)
{
	(void)becomes(w, id, SANDBOX_STOPPED);
	return get(w, id).reason;
}
