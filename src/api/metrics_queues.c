/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics_queues.c - every queue and every table with a bound, beside its bound
 *
 * A row for each: a new queue gets one here (HACKING.md), as an alert on length / limit then knows
 * it at once.
 */
#include "api/events.h"
#include "api/kernel_run.h"
#include "api/metrics.h"
#include "api/metrics_text.h"
#include "api/native/foreground.h"
#include "api/request.h"
#include "net/fetch.h"
#include "net/loop.h"
#include "net/otlp.h"
#include "base/banned.h"

#define ROWS_MAX 48

struct row {
	const char *name;
	uint64_t length, limit; /* limit 0: none of its own */
};

struct rows {
	struct row v[ROWS_MAX];
	size_t n;
};

static void add(struct rows *r, const char *name, uint64_t length, uint64_t limit)
{
	assert(r->n < ROWS_MAX);
	r->v[r->n++] = (struct row){.name = name, .length = length, .limit = limit};
}

static void write_rows(struct av_buf *out, const struct rows *r, const char *label,
    const char *length, const char *length_help, const char *limit, const char *limit_help)
{
	char labels[64];

	metrics_family(out, length, "gauge", length_help);
	for (size_t i = 0; i < r->n; i++) {
		(void)snprintf(labels, sizeof(labels), "%s=\"%s\"", label, r->v[i].name);
		metrics_u64(out, length, labels, r->v[i].length);
	}
	metrics_family(out, limit, "gauge", limit_help);
	for (size_t i = 0; i < r->n; i++) {
		if (!r->v[i].limit)
			continue;
		(void)snprintf(labels, sizeof(labels), "%s=\"%s\"", label, r->v[i].name);
		metrics_u64(out, limit, labels, r->v[i].limit);
	}
}

/* What waits for somebody. */
static void queues(struct rows *r, const struct api *a, const struct control_queues *q,
    const struct driver_helper *helper)
{
	struct av_tracer_stats spans = {0};
	struct av_fetch_stats outbound = {0};
	struct store_stats store;
	struct node_stats node;

	if (a->otlp)
		av_tracer_get_stats(av_otlp_tracer(a->otlp), &spans);
	if (a->fetch)
		av_fetch_get_stats(a->fetch, &outbound);
	control_get_store_stats(a->control, &store);
	control_get_node_stats(a->control, &node);
	add(r, "store", store.queued, STORE_QUEUE_MAX);
	add(r, "work", av_loop_metrics(a->loop)->work_pending, AV_LOOP_WORK_MAX);
	add(r, "trace_spans", spans.waiting, AV_SPANS_MAX);
	add(r, "creates", q->creating, q->sandboxes_max);
	add(r, "changes", q->changes, 0);
	add(r, "changes_waiting", q->changes_waiting, 0);
	add(r, "ending", q->ending, 0);
	add(r, "ending_retries", q->ending_retries, 0);
	add(r, "stops", q->stops, 0);
	add(r, "account_changes", q->account_changes, 0);
	add(r, "passwords", q->passwords, q->passwords_max);
	add(r, "passwords_running", q->passwords_running, q->passwords_running_max);
	add(r, "audit", q->audit, q->audit_max);
	add(r, "audit_readers", q->audit_readers, q->audit_readers_max);
	add(r, "host_changes", q->host_changes, 0);
	add(r, "backups", q->backups, 1);
	add(r, "channels_waiting", q->channels_waiting, q->channels_max);
	add(r, "channels_sending", q->channels_sending, q->channels_sending_max);
	add(r, "outbound", outbound.open, AV_FETCH_CALLS_MAX);
	add(r, "spawn_waiting", node.driver.waiting, 0);
	add(r, "spawn_sent", node.driver.sent, node.driver.sent_max);
	if (!helper)
		return;
	add(r, "worker_jobs", helper->jobs, helper->jobs_max);
	add(r, "worker_creating", helper->creating, 0);
	add(r, "worker_destroying", helper->destroying, 0);
	add(r, "worker_snapshotting", helper->snapshotting, 0);
	add(r, "worker_freezing", helper->freezing, 0);
	add(r, "worker_trash", helper->trash, 0);
}

/* What is held in memory, and what may be alive. */
static void tables(struct rows *r, const struct control_queues *q,
    const struct events_stats *events, const struct driver_helper *helper)
{
	add(r, "sandboxes", q->sandboxes, q->sandboxes_max);
	add(r, "templates", q->templates, q->templates_max);
	add(r, "users", q->users, q->users_max);
	add(r, "teams", q->teams, 0);
	add(r, "keys", q->keys, 0);
	add(r, "hosts", q->hosts, q->hosts_max);
	add(r, "channels", q->channels, q->channels_max);
	add(r, "throttled", q->throttled, q->throttled_max);
	add(r, "pool", q->pool, q->pool_max);
	add(r, "event_streams", events->streams, EVENTS_STREAMS_MAX);
	add(r, "event_rings", events->rings, 0);
	add(r, "events_kept", events->kept, events->rings * EVENT_RING_MAX);
	if (helper)
		add(r, "worker_slots", helper->sandboxes, helper->sandboxes_max);
}

static void buffers(struct rows *r, const struct api *a, const struct control_queues *q,
    const struct events_stats *events)
{
	add(r, "exec_output", a->collected_bytes, FOREGROUND_TOTAL_MAX);
	add(r, "kernel_results", a->kernel_bytes, KERNEL_RUN_TOTAL_MAX);
	add(r, "events", events->bytes, EVENTS_KEPT_BYTES);
	add(r, "logs_saving", q->logs_saving_bytes, q->logs_bytes_max);
	add(r, "logs_reading", q->logs_reading_bytes, q->logs_bytes_max);
}

void metrics_write_queues(
    struct av_buf *out, const struct api *a, const struct driver_helper *helper)
{
	struct rows waiting = {.n = 0}, held = {.n = 0}, bytes = {.n = 0};
	struct events_stats events;
	struct control_queues q;

	control_get_queues(a->control, &q);
	events_get_stats(a->events, &events);
	queues(&waiting, a, &q, helper);
	tables(&held, &q, &events, helper);
	buffers(&bytes, a, &q, &events);
	write_rows(out, &waiting, "queue", "aviary_queue_length",
	    "What waits or is under way, by queue.", "aviary_queue_limit",
	    "The bound of a queue, where it has one of its own; beyond it requests are refused.");
	write_rows(out, &held, "table", "aviary_table_entries", "What there is, by kind.",
	    "aviary_table_limit", "How many there may be.");
	write_rows(out, &bytes, "buffer", "aviary_buffer_bytes",
	    "Memory held for answers and readers.", "aviary_buffer_limit_bytes",
	    "How much it may be; what is more is cut off, and says so.");
}
