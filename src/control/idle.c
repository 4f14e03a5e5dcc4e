/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idle.c - when a sandbox is in use, and what happens when it is not, or has lived for too long
 *
 * In use is a sandbox while a conversation with its agent is open (commands, attached streams,
 * files, tunnels), while somebody said control_activity_begin(), and while a process that was
 * started through the API runs, also one that nobody listens to. The inactivity timeout counts from
 * the last use, on the boot-time clock. When it is over and nothing is open, the agent is asked for
 * its processes; if there are none (or it does not answer: it is not trusted to keep a sandbox
 * alive by silence) the sandbox is paused, or deleted where that was asked for or where nothing can
 * be paused. A pause that fails is tried again later. While paused only the lifetime counts.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/avtime.h"
#include "base/log.h"
#include "control/hosts_internal.h"
#include "control/isolations_internal.h"

#include "base/banned.h"

#define DEADLINE_MIN_NS (100 * AV_NS_PER_MS)
#define ANSWER_NS       (5 * AV_NS_PER_S)
#define RETRY_NS        (10 * AV_NS_PER_S)

/* ---- use ---- */

bool control_activity_begin(struct control *c, const char *id)
{
	struct sandbox *sb = av_map_get(&c->sandboxes, av_str_c(id));

	if (!sb || sb->ending)
		return false;
	sb->holds++;
	sandbox_touch(sb);
	return true;
}

void control_activity_end(struct control *c, const char *id)
{
	struct sandbox *sb = av_map_get(&c->sandboxes, av_str_c(id));

	if (!sb || sb->holds == 0)
		return;
	sb->holds--;
	sandbox_touch(sb);
}

static bool is_busy(const struct sandbox *sb)
{
	const struct node_sandbox *handle = node_find(sb->c->node, sb->rec.id);

	return sb->holds || (handle && node_sandbox_busy(handle) > 0);
}

static int64_t life_end(const struct sandbox *sb)
{
	if (!sb->rec.max_lifetime_ms)
		return INT64_MAX;
	return sb->rec.created_boot_ns + sb->rec.max_lifetime_ms * AV_NS_PER_MS;
}

static int64_t idle_end(const struct sandbox *sb)
{
	if (!sb->rec.idle_timeout_ms || sb->state != SANDBOX_RUNNING)
		return INT64_MAX;
	return sb->rec.last_active_boot_ns + sb->rec.idle_timeout_ms * AV_NS_PER_MS;
}

bool sandbox_in_use(const struct sandbox *sb)
{
	return is_busy(sb) || idle_end(sb) > control_boot_ns(sb->c);
}

/* ---- not used ---- */

static void idle_is_over(struct sandbox *sb)
{
	struct control *c = sb->c;

	if (!sb->rec.idle_delete && isolation_can_pause(c, sb->rec.isolation)) {
		if (sandbox_pause_idle(sb) < 0)
			sb->idle_retry_ns = control_boot_ns(c) + RETRY_NS;
		return;
	}
	c->stats.timed_out++;
	sandbox_end(sb, SANDBOX_REASON_TIMEOUT, false, NULL);
}

void sandbox_idle_failed(struct sandbox *sb, const struct av_err *err)
{
	if (err->kind == AV_ERR_INVALID_STATE)
		return;
	av_log(AV_LOG_WARN, "cannot pause a sandbox that is not used; trying again later", "id",
	    sb->rec.id, "error", err->message, NULL);
	sb->idle_retry_ns = control_boot_ns(sb->c) + RETRY_NS;
}

static void on_count(void *ctx, size_t n, const struct av_err *err)
{
	struct sandbox *sb = ctx;
	struct control *c = sb->c;

	sb->asking = NULL;
	c->next_deadline_ns = 0;
	control_wake(c, 0);
	if (sb->ending || c->stopping || idle_end(sb) > control_boot_ns(c) ||
	    (err && err->kind == AV_ERR_UNAVAILABLE))
		return;
	if ((!err && n > 0) || is_busy(sb))
		sandbox_touch(sb);
	else
		idle_is_over(sb);
}

void sandbox_stop_asking(struct sandbox *sb)
{
	node_call_cancel(sb->asking);
	sb->asking = NULL;
}

/* Nothing is open. Returns when to look again; INT64_MAX: what follows says so itself. */
static int64_t ask(struct sandbox *sb, int64_t now_ns)
{
	struct node_sandbox *handle = node_find(sb->c->node, sb->rec.id);

	if (sb->asking && now_ns < sb->asking_until_ns)
		return sb->asking_until_ns;
	if (sb->asking) {
		sandbox_stop_asking(sb);
		idle_is_over(sb);
		return INT64_MAX;
	}
	if (!handle)
		return INT64_MAX; /* its death is about to be told */
	sb->asking_until_ns = now_ns + ANSWER_NS;
	if (node_count_processes(handle, on_count, sb, &sb->asking, NULL) == 0)
		return sb->asking_until_ns;
	idle_is_over(sb);
	return INT64_MAX;
}

/* Returns when to look at it again. */
static int64_t check_idle(struct sandbox *sb, int64_t now_ns)
{
	int64_t due = AV_MAX(idle_end(sb), sb->idle_retry_ns);

	if (due > now_ns)
		return due;
	if (is_busy(sb)) {
		sandbox_touch(sb);
		return idle_end(sb);
	}
	/* The end of the change looks again. */
	if (sb->change || !av_list_empty(&sb->queue))
		return INT64_MAX;
	sb->idle_retry_ns = 0;
	return ask(sb, now_ns);
}

void control_check_deadlines(struct control *c, int64_t now_ns)
{
	int64_t next = INT64_MAX;
	struct sandbox *sb;

	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	{
		if (sb->ending || (sb->state != SANDBOX_RUNNING && sb->state != SANDBOX_PAUSED))
			continue;
		if (life_end(sb) <= now_ns) {
			c->stats.lifetime_ended++;
			sandbox_end(sb, SANDBOX_REASON_LIFETIME, false, NULL);
			continue;
		}
		next = AV_MIN(next, life_end(sb));
		next = AV_MIN(next, check_idle(sb, now_ns));
	}
	c->next_deadline_ns = next == INT64_MAX ? next : AV_MAX(next, now_ns + DEADLINE_MIN_NS);
}

/* ---- on disk ---- */

void control_flush(struct control *c, bool all)
{
	struct sandbox *sb;

	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	{
		/* What is under way writes the record itself. */
		if (!sb->active_dirty || sb->ending || sb->creation || sb->change)
			continue;
		if (store_sandbox_update(c->store, &sb->rec, NULL, NULL) < 0)
			break;
		sb->active_dirty = false;
	}
	if (all || c->started) {
		keys_flush(c);
		hosts_flush(c);
	}
}
