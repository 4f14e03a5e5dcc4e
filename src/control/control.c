/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.c - the one object of the domain: its clock, its waiters, starting and stopping
 */
#include "control/control.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/log.h"
#include "control/accounts_internal.h"
#include "control/audit_internal.h"
#include "control/backup.h"
#include "control/hosts_internal.h"
#include "control/main_command.h"
#include "control/templates_internal.h"

#include "base/banned.h"

#define FLUSH_NS       (10 * AV_NS_PER_S)
#define SWEEP_NS       (3600 * AV_NS_PER_S)
#define STOP_WAIT_NS   (10 * AV_NS_PER_S)
#define HISTORY_MS     (7LL * 24 * 3600 * 1000)
#define HISTORY_MAX    10000
#define LOG_MAX        (1 * AV_MIB)
#define LOGS_TOTAL_MAX (256 * AV_MIB)
#define PRUNE_AT_ONCE  200
#define IDEMPOTENCY_MS (24LL * 3600 * 1000)

/* ---- clock ---- */

int64_t control_boot_ns(const struct control *c)
{
	const struct control_clock *k = &c->config.clock;

	return k->boot_ns ? k->boot_ns(k->ctx) : av_boot_ns();
}

int64_t control_real_ms(const struct control *c)
{
	const struct control_clock *k = &c->config.clock;

	return k->real_ms ? k->real_ms(k->ctx) : av_real_ms();
}

void control_wake(struct control *c, int64_t boot_ns)
{
	if (boot_ns >= c->wake_ns)
		return;
	c->wake_ns = boot_ns;
	c->config.clock.wake_at(c->config.clock.ctx, boot_ns);
}

/* ---- waiters ---- */

static void waiter_cancel(struct node_call *call)
{
	struct waiter *w = AV_CONTAINER_OF(call, struct waiter, call);

	if (w->away)
		w->cancelled = true;
	else
		waiter_free(w);
}

struct waiter *waiter_new(struct control *c, enum waiter_kind kind, void *ctx)
{
	struct waiter *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->call.cancel = waiter_cancel;
	av_list_init(&w->link);
	w->c = c;
	w->kind = kind;
	w->ctx = ctx;
	w->asked_ns = av_mono_ns();
	return w;
}

void waiter_free(struct waiter *w)
{
	av_list_remove(&w->link);
	json_decref(w->metadata);
	json_decref(w->tags);
	stats_work_free(w->work);
	update_free(w->update);
	free(w);
}

void waiter_defer(struct waiter *w)
{
	av_list_remove(&w->link);
	av_list_append(&w->c->deferred, &w->link);
	control_wake(w->c, 0);
}

void waiter_away(struct waiter *w)
{
	w->away = true;
	av_list_remove(&w->link);
	av_list_append(&w->c->away, &w->link);
}

bool waiter_back(struct waiter *w)
{
	w->away = false;
	if (!w->cancelled)
		return true;
	waiter_free(w);
	return false;
}

/* ---- ticks ---- */

static void answer_deferred(struct control *c)
{
	struct av_list due;
	struct waiter *w;

	/* Only those that wait now: an answer may lead to the next question. */
	av_list_init(&due);
	while ((w = AV_LIST_FIRST(&c->deferred, struct waiter, link))) {
		av_list_remove(&w->link);
		av_list_append(&due, &w->link);
	}
	while ((w = AV_LIST_FIRST(&due, struct waiter, link)))
		sandbox_answer_deferred(w);
}

static void prune(struct control *c);

/* As long as there is more. */
static void on_pruned(void *ctx, size_t n, const struct av_err *err)
{
	struct control *c = ctx;

	if (!err && n > 0 && !c->stopping)
		prune(c);
}

static void prune(struct control *c)
{
	int64_t now = control_real_ms(c);

	(void)store_prune(c->store, now - c->config.history_ms, c->config.history_max,
	    now - c->config.idempotency_ms, PRUNE_AT_ONCE, on_pruned, c);
}

static void finish_stop(struct control *c)
{
	void (*on_stopped)(void *ctx) = c->on_stopped;

	c->on_stopped = NULL;
	on_stopped(c->on_stopped_ctx);
}

static void on_stop_flushed(void *ctx, const struct av_err *err)
{
	(void)err;
	finish_stop(ctx);
}

void control_check_stopped(struct control *c)
{
	struct sandbox *sb;

	if (!c->on_stopped || c->stop_flushing)
		return;
	if ((!av_list_empty(&c->creating) || c->n_ending || c->n_changes || !pool_is_idle(c)) &&
	    control_boot_ns(c) < c->stop_deadline_ns)
		return;
	c->stop_flushing = true;
	audit_flush(c);
	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	sampler_save(sb);
	usage_write(c);
	control_flush(c, true);
	/* Callbacks come in the order of the requests: after this one all is on disk. */
	if (store_value_set(c->store, "stopped", "gracefully", on_stop_flushed, c) < 0)
		finish_stop(c);
}

/* For being old. */
static void forget(struct control *c)
{
	usage_prune(c);
	accounts_sweep(c);
	prune(c);
	audit_prune_old(c);
}

static void tick_periodic(struct control *c, int64_t now)
{
	if (now >= c->next_deadline_ns)
		control_check_deadlines(c, now);
	if (now >= c->next_retry_ns)
		sandbox_end_retry(c, now);
	if (now >= c->next_flush_ns) {
		c->next_flush_ns = now + FLUSH_NS;
		clock_look(c);
		control_flush(c, false);
		keys_check_ends(c);
		if (node_is_ready(c->node))
			sandboxes_fit_unsure(c); /* there may be room again */
	}
	if (now >= templates_next_ns(c))
		templates_collect(c);
	main_tick(c, now);
	pool_tick(c, now);
	sampler_tick(c, now);
	hosts_tick(c, now);
	usage_tick(c, now);
	channels_tick(c, now);
	if (now >= c->next_sweep_ns) {
		c->next_sweep_ns = now + SWEEP_NS;
		clock_look(c);
		if (clock_may_forget(c))
			forget(c);
		control_sweep(c);
		teams_sweep(c);
	}
}

void control_tick(struct control *c)
{
	int64_t now = control_boot_ns(c), next;

	c->wake_ns = INT64_MAX;
	answer_deferred(c);
	passwords_tick(c);
	accounts_tick(c);
	audit_read_tick(c);
	hosts_work(c);
	audit_tick(c, now);
	if (c->start)
		start_tick(c);
	if (c->started && !c->stopping)
		tick_periodic(c, now);
	if (c->stopping) {
		control_check_stopped(c);
		if (c->on_stopped)
			control_wake(c, c->stop_deadline_ns);
	}
	if (c->started && !c->stopping) {
		next = AV_MIN(c->next_deadline_ns, c->next_retry_ns);
		next = AV_MIN(next, c->next_flush_ns);
		next = AV_MIN(next, c->next_main_ns);
		next = AV_MIN(next, c->next_sweep_ns);
		next = AV_MIN(next, c->sampler.next_ns);
		next = AV_MIN(next, c->pool.next_ns);
		next = AV_MIN(next, c->hosts->next_ns);
		next = AV_MIN(next, c->usage.next_ns);
		next = AV_MIN(next, c->channels.next_ns);
		next = AV_MIN(next, templates_next_ns(c));
		control_wake(c, next);
	}
}

/* ---- events of the node ---- */

static enum sandbox_reason reason_of(enum node_death why)
{
	switch (why) {
	case NODE_DEATH_OOM:
		return SANDBOX_REASON_OOM;
	case NODE_DEATH_EXITED:
		return SANDBOX_REASON_EXITED;
	case NODE_DEATH_CRASH:
		return SANDBOX_REASON_CRASH;
	case NODE_DEATH_UNKNOWN:
		break;
	}
	return SANDBOX_REASON_LOST;
}

static void on_death(void *ctx, const char *id, enum node_death why, const char *detail)
{
	struct control *c = ctx;
	struct sandbox *sb = av_map_get(&c->sandboxes, av_str_c(id));
	char text[160];

	if (pool_died(c, id) || !sb || sb->ending)
		return;
	c->stats.died++;
	if (why == NODE_DEATH_EXITED && main_how_it_ended(sb, text, sizeof(text)))
		detail = text;
	sandbox_end(sb, reason_of(why), false, detail[0] ? detail : NULL);
}

static void on_main_end(
    void *ctx, const char *id, uint32_t exit_code, uint32_t signal, int64_t real_ms)
{
	main_died(ctx, id, exit_code, signal, real_ms);
}

static void on_oom(void *ctx, const char *id, uint64_t kills, uint64_t more)
{
	struct control *c = ctx;
	struct sandbox *sb = av_map_get(&c->sandboxes, av_str_c(id));
	char text[24];

	c->stats.oom_kills += more;
	if (!sb)
		return;
	sb->oom_kills = kills;
	audit_oom(sb, more);
	(void)snprintf(text, sizeof(text), "%" PRIu64, kills);
	av_log(AV_LOG_INFO, "the kernel killed in a sandbox for memory", "id", id, "kills", text,
	    NULL);
}

static void on_activity(void *ctx, const char *id)
{
	struct control *c = ctx;
	struct sandbox *sb = av_map_get(&c->sandboxes, av_str_c(id));

	if (sb)
		sandbox_touch(sb);
}

static void on_ready(void *ctx)
{
	control_driver_ready(ctx);
}

static const struct node_events node_events = {
    .on_death = on_death,
    .on_activity = on_activity,
    .on_oom = on_oom,
    .on_main_end = on_main_end,
    .on_ready = on_ready,
};

/* ---- life ---- */

int control_new(const struct control_config *config, struct control **ret, struct av_err *err)
{
	struct control *c;

	if (sodium_init() < 0)
		return av_err_set(err, AV_ERR_INTERNAL, "libsodium cannot be initialised");
	c = calloc(1, sizeof(*c));
	if (!c)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	c->config = *config;
	c->store = config->store;
	c->node = config->node;
	c->limits = config->limits;
	if (!c->config.history_ms)
		c->config.history_ms = HISTORY_MS;
	if (!c->config.history_max)
		c->config.history_max = HISTORY_MAX;
	if (!c->config.log_max)
		c->config.log_max = LOG_MAX;
	if (!c->config.logs_total_max)
		c->config.logs_total_max = LOGS_TOTAL_MAX;
	if (!c->config.audit_max)
		c->config.audit_max = AUDIT_MAX;
	if (audit_init(c) < 0 || hosts_init(c) < 0) {
		free(c->audit);
		free(c);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	if (!c->config.idempotency_ms)
		c->config.idempotency_ms = IDEMPOTENCY_MS;
	av_map_init(&c->sandboxes);
	av_map_init(&c->creations);
	av_map_init(&c->keys_by_hash);
	av_map_init(&c->keys_by_id);
	av_list_init(&c->live);
	av_list_init(&c->creating);
	av_list_init(&c->templates);
	av_list_init(&c->keys);
	accounts_init(c);
	passwords_init(c);
	throttle_init(&c->throttle);
	channels_init(c);
	av_list_init(&c->deferred);
	av_list_init(&c->away);
	av_list_init(&c->reading);
	c->wake_ns = INT64_MAX;
	c->next_deadline_ns = c->next_retry_ns = c->next_main_ns = INT64_MAX;
	c->sampler.next_ns = c->usage.next_ns = INT64_MAX;
	av_list_init(&c->usage.teams);
	pool_init(c);
	node_set_events(c->node, &node_events, c);
	*ret = c;
	return 0;
}

static void free_waiters(struct av_list *l)
{
	struct waiter *w;

	AV_LIST_FOREACH(w, l, struct waiter, link)
	waiter_free(w);
}

void control_free(struct control *c)
{
	struct sandbox *sb;

	if (!c)
		return;
	control_backup_free(c);
	templates_clear(c);
	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	{
		free_waiters(&sb->waiters);
		free_waiters(&sb->queue);
		if (sb->change)
			change_free(sb->change);
		sandbox_drop(sb);
	}
	free_waiters(&c->deferred);
	free_waiters(&c->away);
	hosts_clear(c);
	audit_clear(c);
	keys_clear(c);
	passwords_clear(c);
	channels_clear(c);
	accounts_clear(c);
	throttle_clear(&c->throttle);
	usage_clear(c);
	pool_clear(c);
	av_map_clear(&c->sandboxes);
	av_map_clear(&c->creations);
	av_map_clear(&c->keys_by_hash);
	av_map_clear(&c->keys_by_id);
	free(c);
}

int control_stop(struct control *c, void (*on_stopped)(void *ctx), void *ctx)
{
	if (c->stopping)
		return -EALREADY;
	c->stopping = true;
	event_stopping(c);
	stop_shutdown(c);
	channels_stop(c);
	c->on_stopped = on_stopped;
	c->on_stopped_ctx = ctx;
	c->stop_deadline_ns = control_boot_ns(c) + STOP_WAIT_NS;
	pool_stop(c);
	control_wake(c, 0);
	return 0;
}

int control_check_open(const struct control *c, struct av_err *err)
{
	if (c->stopping)
		return av_err_set(err, AV_ERR_UNAVAILABLE, "Aviary is shutting down");
	if (!c->started)
		return av_err_set(err, AV_ERR_UNAVAILABLE, "Aviary is starting");
	return 0;
}

bool control_is_ready(const struct control *c, const char **ret_why)
{
	const char *why = NULL;

	if (c->stopping)
		why = "shutting down";
	else if (!node_is_ready(c->node))
		why = "the aviary-spawn worker is not connected";
	else if (!c->started)
		why = "comparing records with the machine";
	else if (node_caps(c->node)->preparing)
		why = "making template host of this machine's programs, which takes a moment the "
		      "first time";
	if (ret_why)
		*ret_why = why ? why : "";
	return !why;
}

const char *control_isolation(const struct control *c)
{
	return node_isolation(c->node);
}

const char *control_isolation_detail(const struct control *c)
{
	return node_caps(c->node)->detail;
}

void control_get_stats(const struct control *c, struct control_stats *ret)
{
	const struct sandbox *sb;

	*ret = c->stats;
	AV_LIST_FOREACH(sb, &c->live, const struct sandbox, link)
	{
		switch (sb->state) {
		case SANDBOX_PENDING:
		case SANDBOX_STARTING:
			ret->pending++;
			break;
		case SANDBOX_RUNNING:
			ret->running++;
			break;
		case SANDBOX_PAUSED:
			ret->paused++;
			break;
		default:
			ret->stopping++;
			break;
		}
	}
}

void control_get_sampling(const struct control *c, struct control_sampling *ret)
{
	const struct team_usage *t;

	*ret = c->sampler.stats;
	AV_LIST_FOREACH(t, &c->usage.teams, const struct team_usage, link)
	{
		ret->reserved_cpu_milli += (uint64_t)t->now.cpu_milli;
		ret->reserved_memory_bytes += (uint64_t)t->now.memory_kib * 1024;
	}
}
