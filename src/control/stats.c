/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.c - what the domain counts, for /metrics (see stats.h)
 */
#include "control/stats.h"

#include "base/avtime.h"
#include "control/accounts.h"
#include "control/audit.h"
#include "control/audit_internal.h"
#include "control/channels.h"
#include "control/main_command.h"
#include "control/hosts.h"
#include "control/hosts_internal.h"

#include "base/banned.h"

static const struct {
	enum control_timing_family family;
	const char *label, *span;
} timings[CONTROL_TIMING_COUNT] = {
#define CONTROL_TIMING(id, family_, label_, span_)                                                 \
	[CONTROL_TIMING_##id] = {.family = CONTROL_##family_, .label = (label_), .span = (span_)},
#include "control/timings.def"
#undef CONTROL_TIMING
};

const struct av_hist *control_timing(const struct control *c, enum control_timing which)
{
	return &c->timings[which];
}

enum control_timing_family control_timing_family(enum control_timing which)
{
	return timings[which].family;
}

const char *control_timing_label(enum control_timing which)
{
	return timings[which].label;
}

void control_timed(struct control *c, enum control_timing which, const struct av_trace *trace,
    int64_t since_ns, const struct av_err *err, const char *sandbox_id)
{
	int64_t now = av_mono_ns();

	if (!since_ns)
		return;
	if (!err)
		av_hist_add(&c->timings[which], now - since_ns);
	if (timings[which].span[0])
		av_trace_part(trace, timings[which].span, since_ns, now,
		    err ? err->kind : AV_ERR_NONE, sandbox_id);
}

static size_t list_length(const struct av_list *l)
{
	size_t n = 0;

	for (const struct av_list *p = l->next; p != l; p = p->next)
		n++;
	return n;
}

void control_get_queues(const struct control *c, struct control_queues *ret)
{
	struct control_channel_stats channels;
	struct control_audit_stats audit;
	const struct sandbox *sb;

	control_channels_stats(c, &channels);
	control_audit_stats(c, &audit);
	*ret = (struct control_queues){
	    .creating = list_length(&c->creating),
	    .changes = c->n_changes,
	    .ending = c->n_ending,
	    .sandboxes_max = (size_t)c->limits.sandboxes_max,
	    .templates = list_length(&c->templates),
	    .templates_max = TEMPLATES_MAX,
	    .users = c->accounts.users_by_id.n,
	    .users_max = CONTROL_USERS_MAX,
	    .teams = c->accounts.teams_by_id.n,
	    .keys = c->keys_by_hash.n,
	    .account_changes = list_length(&c->accounts.queue) +
	                       list_length(&c->accounts.preparing) +
	                       (c->accounts.under_way != NULL),
	    .pool = c->pool.members.n,
	    .pool_max = (size_t)(c->config.pool_max + c->config.vm_pool_max),
	    .pool_memory_max =
	        (uint64_t)(c->config.pool_memory_bytes + c->config.vm_pool_memory_bytes),
	    .passwords = c->passwords.n_waiting,
	    .passwords_max = PASSWORDS_WAITING_MAX,
	    .passwords_running = c->passwords.n_running,
	    .passwords_running_max = PASSWORDS_AT_ONCE,
	    .throttled = throttle_count(&c->throttle),
	    .throttled_max = THROTTLE_ENTRIES_MAX,
	    .audit = audit.waiting,
	    .audit_max = AUDIT_WAITING_MAX,
	    .channels = channels.channels,
	    .channels_max = CHANNELS_MAX,
	    .audit_readers = c->audit->n_readers,
	    .audit_readers_max = AUDIT_READERS_MAX,
	    .hosts = c->hosts->n,
	    .hosts_max = HOSTS_MAX,
	    .host_changes = list_length(&c->hosts->queue) + (c->hosts->under_way != NULL),
	    .backups = c->backup != NULL,
	    .channels_waiting = channels.waiting,
	    .channels_sending = channels.sending,
	    .channels_sending_max = CHANNEL_SENDING_MAX,
	    .logs_saving_bytes = c->saving_bytes,
	    .logs_reading_bytes = c->reading_bytes,
	    .logs_bytes_max = MAIN_LOGS_BYTES_MAX,
	};
	AV_LIST_FOREACH(sb, &c->live, const struct sandbox, link)
	{
		ret->sandboxes++;
		ret->changes_waiting += list_length(&sb->queue);
		ret->stops += sb->stop != NULL;
		ret->ending_retries += sb->ending && sb->retry_ns;
	}
}

void control_get_store_stats(const struct control *c, struct store_stats *ret)
{
	store_get_stats(c->store, ret);
}

void control_get_node_stats(const struct control *c, struct node_stats *ret)
{
	node_get_stats(c->node, ret);
}

int control_get_helper(const struct control *c, driver_helper_fn *fn, void *ctx)
{
	return node_helper(c->node, fn, ctx);
}
