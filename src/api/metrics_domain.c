/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics_domain.c - sandboxes, operations, pool, store, audit log and agents, as metrics
 *
 * Sums over all sandboxes: what one of them uses is asked for by its id (GET .../metrics), as a
 * label for each would let anybody who creates sandboxes fill the monitor's disk.
 */
#include "api/metrics.h"
#include <stdio.h>

#include "api/metrics_text.h"
#include "api/request.h"
#include "base/avtime.h"
#include "control/audit.h"
#include "control/channels.h"
#include "net/fetch.h"
#include "control/quota.h"
#include "base/banned.h"

static const char *const api_timings[API_TIMING_COUNT] = {[API_TIMING_RUN_CODE] = "run_code",
    [API_TIMING_UPLOAD] = "upload",
    [API_TIMING_DOWNLOAD] = "download"};

struct labelled {
	const char *labels;
	uint64_t v;
};

static void family(struct av_buf *out, const char *name, const char *type, const char *help,
    const struct labelled *v, size_t n)
{
	metrics_family(out, name, type, help);
	for (size_t i = 0; i < n; i++)
		metrics_u64(out, name, v[i].labels, v[i].v);
}

static void write_sandboxes(struct av_buf *out, const struct control_stats *s)
{
	const struct labelled states[] = {{"state=\"pending\"", s->pending},
	    {"state=\"running\"", s->running}, {"state=\"paused\"", s->paused},
	    {"state=\"stopping\"", s->stopping}};
	const struct labelled creates[] = {{"result=\"ok\"", s->created},
	    {"result=\"error\"", s->create_failed}, {"result=\"replayed\"", s->idempotent_hits}};
	const struct labelled ends[] = {{"cause=\"deleted\"", s->deleted},
	    {"cause=\"timeout\"", s->timed_out}, {"cause=\"lifetime\"", s->lifetime_ended},
	    {"cause=\"died\"", s->died}};
	const struct labelled pauses[] = {
	    {"cause=\"request\"", s->pauses - s->idle_pauses}, {"cause=\"idle\"", s->idle_pauses}};

	family(
	    out, "aviary_sandboxes", "gauge", "Sandboxes by state.", states, AV_ARRAY_LEN(states));
	family(out, "aviary_sandbox_creates_total", "counter", "Creates by result.", creates,
	    AV_ARRAY_LEN(creates));
	family(out, "aviary_sandbox_ends_total", "counter", "Ends of sandboxes by cause.", ends,
	    AV_ARRAY_LEN(ends));
	family(out, "aviary_sandbox_pauses_total", "counter", "Pauses by cause.", pauses,
	    AV_ARRAY_LEN(pauses));
	metrics_counter(out, "aviary_sandbox_resumes_total", "Sandboxes resumed.", s->resumes);
	metrics_counter(
	    out, "aviary_sandboxes_adopted_total", "Sandboxes taken over at start-up.", s->adopted);
	metrics_counter(
	    out, "aviary_snapshots_total", "Templates made from sandboxes.", s->snapshots);
	metrics_counter(out, "aviary_snapshots_failed_total",
	    "Snapshots that were begun and not made.", s->snapshots_failed);
	metrics_counter(out, "aviary_execs_total", "Processes started on request.", s->execs);
	metrics_counter(out, "aviary_oom_kills_total",
	    "Processes in sandboxes that the kernel killed for memory, as far as noticed.",
	    s->oom_kills);
}

static void timing(
    struct av_buf *out, const char *name, const char *label, const char *v, const struct av_hist *h)
{
	char labels[64];

	(void)snprintf(labels, sizeof(labels), "%s=\"%s\"", label, v);
	metrics_hist(out, name, labels, h);
}

static void control_timings(struct av_buf *out, const struct control *c,
    enum control_timing_family which, const char *name, const char *label)
{
	for (int i = 0; i < CONTROL_TIMING_COUNT; i++) {
		enum control_timing t = (enum control_timing)i;

		if (control_timing_family(t) == which)
			timing(out, name, label, control_timing_label(t), control_timing(c, t));
	}
}

static void write_timings(struct av_buf *out, const struct api *a, const struct node_stats *node)
{
	const char *name = "aviary_operation_duration_seconds";

	metrics_family(out, name, "histogram",
	    "How long what was asked for took, from the call to the answer; without what failed.");
	control_timings(out, a->control, CONTROL_OPERATION, name, "operation");
	timing(out, name, "operation", "exec_start", &node->exec_start);
	timing(out, name, "operation", "exec", &node->exec);
	for (size_t i = 0; i < API_TIMING_COUNT; i++)
		timing(out, name, "operation", api_timings[i], &a->metrics.timings[i]);

	name = "aviary_create_phase_duration_seconds";
	metrics_family(out, name, "histogram",
	    "Parts of creates that are not served from the pool (record: of those too). spawn has "
	    "queue, worker and child in it; record and agent run beside it.");
	control_timings(out, a->control, CONTROL_CREATE_PHASE, name, "phase");
	timing(out, name, "phase", "queue", &node->driver.queue);
	timing(out, name, "phase", "worker", &node->driver.helper);
	timing(out, name, "phase", "child", &node->driver.child);
	timing(out, name, "phase", "agent", &node->agent_ready);
}

static void write_sampling(struct av_buf *out, const struct control_sampling *s)
{
	metrics_gauge(out, "aviary_sampled_sandboxes", "Sandboxes in the last round of sampling.",
	    s->sandboxes);
	metrics_gauge(out, "aviary_sandboxes_memory_bytes",
	    "Memory that running sandboxes use, with their agents.", s->memory_bytes);
	metrics_gauge(
	    out, "aviary_sandboxes_disk_bytes", "Disk that running sandboxes use.", s->disk_bytes);
	metrics_family(out, "aviary_sandboxes_cpu_seconds_total", "counter",
	    "Processor time that sandboxes used, as far as sampled.");
	metrics_seconds(out, "aviary_sandboxes_cpu_seconds_total", "", (int64_t)s->cpu_usec * 1000);
	metrics_family(out, "aviary_reserved_cpus", "gauge", "Processors of running sandboxes.");
	metrics_seconds(
	    out, "aviary_reserved_cpus", "", (int64_t)s->reserved_cpu_milli * AV_NS_PER_MS);
	metrics_gauge(out, "aviary_reserved_memory_bytes",
	    "Memory limits of running sandboxes, and half of those of paused ones.",
	    s->reserved_memory_bytes);
	metrics_counter(out, "aviary_sampling_rounds_total", "Rounds of sampling.", s->rounds);
	metrics_counter(
	    out, "aviary_sampling_failures_total", "Rounds or points that were lost.", s->failures);
	metrics_family(out, "aviary_sampling_seconds_total", "counter",
	    "Time that the event loop spent on samples.");
	metrics_seconds(out, "aviary_sampling_seconds_total", "", (int64_t)s->busy_ns);
	metrics_histogram(out, "aviary_sampling_round_duration_seconds",
	    "From a round's question to the last of its answers.", &s->round);
}

static void write_pool(struct av_buf *out, const struct control *control)
{
	struct control_pool_stats s;

	control_get_pool(control, &s);
	const struct labelled states[] = {
	    {"state=\"ready\"", s.ready}, {"state=\"making\"", s.making}};
	const struct labelled creates[] = {
	    {"result=\"hit\"", s.hits}, {"result=\"miss\"", s.misses}};

	family(out, "aviary_pool_sandboxes", "gauge", "Sandboxes made ahead of time, by state.",
	    states, AV_ARRAY_LEN(states));
	metrics_gauge(
	    out, "aviary_pool_wanted", "As many as the pool would like to have ready.", s.wanted);
	metrics_gauge(out, "aviary_pool_memory_bytes", "What they count for against their bound.",
	    s.memory_bytes);
	family(out, "aviary_pool_creates_total", "counter",
	    "Creates that were given a ready sandbox, and that were not.", creates,
	    AV_ARRAY_LEN(creates));
	metrics_counter(out, "aviary_pool_made_total", "Sandboxes made for the pool.", s.made);
	metrics_counter(out, "aviary_pool_discarded_total", "Those that nobody got.", s.discarded);
	metrics_counter(out, "aviary_pool_failures_total",
	    "Tries to make one that failed, and those that died before they were given.",
	    s.failures);
}

static void write_store(struct av_buf *out, const struct control *control)
{
	struct store_stats s;

	control_get_store_stats(control, &s);
	const struct labelled files[] = {
	    {"file=\"database\"", s.database_bytes}, {"file=\"wal\"", s.wal_bytes}};

	metrics_counter(
	    out, "aviary_store_transactions_total", "Transactions written.", s.transactions);
	metrics_counter(out, "aviary_store_requests_total", "Requests to the store.", s.requests);
	metrics_counter(out, "aviary_store_errors_total", "Requests the store refused.", s.errors);
	metrics_counter(out, "aviary_store_syncs_total",
	    "Times that what was answered first was brought to the disk.", s.synced);
	metrics_histogram(out, "aviary_store_wait_seconds",
	    "How long requests waited for their transaction.", &s.wait);
	metrics_histogram(out, "aviary_store_transaction_duration_seconds",
	    "From begin to written, with all requests in it.", &s.transaction);
	metrics_histogram(
	    out, "aviary_store_sync_duration_seconds", "Of the syncs counted above.", &s.sync);
	family(out, "aviary_store_bytes", "gauge", "Size of the database's files.", files,
	    AV_ARRAY_LEN(files));
}

static void write_audit(struct av_buf *out, const struct control *control)
{
	struct control_audit_stats s;

	control_audit_stats(control, &s);
	metrics_gauge(out, "aviary_audit_records", "Records of the audit log.", s.kept);
	metrics_gauge(out, "aviary_audit_waiting", "Records that are not written yet.", s.waiting);
	metrics_counter(out, "aviary_audit_written_total", "Records written.", s.written);
	metrics_counter(out, "aviary_audit_omitted_total",
	    "Refusals and failures beyond the rate that is written.", s.omitted);
	metrics_counter(out, "aviary_audit_lost_total",
	    "Records lost while the database could not be written.", s.lost);
}

static void write_channels(struct av_buf *out, const struct control *control)
{
	struct control_channel_stats s;

	control_channels_stats(control, &s);
	const struct labelled states[] = {{"state=\"active\"", s.channels - s.disabled},
	    {"state=\"disabled\"", s.disabled}, {"state=\"failing\"", s.failing}};
	const struct labelled results[] = {{"result=\"delivered\"", s.delivered},
	    {"result=\"failed\"", s.failed}, {"result=\"given_up\"", s.given_up}};

	family(out, "aviary_channels", "gauge",
	    "Channels by state; failing: those whose last try failed, active ones too.", states,
	    AV_ARRAY_LEN(states));
	family(out, "aviary_channel_deliveries_total", "counter",
	    "Events for channels by what became of them; failed: a try that is made again.",
	    results, AV_ARRAY_LEN(results));
	metrics_counter(
	    out, "aviary_channel_attempts_total", "Tries to deliver an event.", s.attempts);
}

static void write_outbound(struct av_buf *out, const struct av_fetch *fetch)
{
	struct av_fetch_stats s = {0};

	if (fetch)
		av_fetch_get_stats(fetch, &s);
	metrics_counter(out, "aviary_outbound_requests_total",
	    "Requests to other servers: channels, mail, logins, traces.", s.started);
	metrics_counter(
	    out, "aviary_outbound_failures_total", "Those without an answer.", s.failed);
	metrics_counter(out, "aviary_outbound_refused_total",
	    "Those to an address that is not allowed.", s.refused);
}

static void write_agents(struct av_buf *out, const struct node_stats *s)
{
	metrics_gauge(
	    out, "aviary_agent_connections_open", "Connections to agents.", s->connections);
	metrics_gauge(out, "aviary_agent_conversations_open", "Execs, bodies and calls on them.",
	    s->conversations);
	metrics_gauge(out, "aviary_tunnels_open", "Connections to ports of sandboxes.", s->tunnels);
	metrics_gauge(out, "aviary_tunnels_sandbox_limit", "How many one sandbox may have open.",
	    s->tunnels_max);
	metrics_counter(out, "aviary_tunnels_refused_total", "Connections over that limit.",
	    s->tunnels_refused);
	metrics_counter(out, "aviary_agent_errors_total",
	    "Connections that agents broke, lost or refused, those of dying sandboxes included.",
	    s->agent_errors);
}

static void write_quotas(struct av_buf *out, const struct control *control)
{
	char labels[96];

	metrics_family(out, "aviary_quota_rejections_total", "counter",
	    "Creates and resumes that a quota refused, by whose it is.");
	for (int of = 0; of < CONTROL_QUOTA_OF_COUNT; of++)
		for (int i = 0; i < CONTROL_QUOTA_COUNT; i++) {
			(void)snprintf(labels, sizeof(labels), "of=\"%s\",quota=\"%s\"",
			    control_quota_of_text((enum control_quota_of)of),
			    control_quota_text((enum control_quota_limit)i));
			metrics_u64(out, "aviary_quota_rejections_total", labels,
			    control_quota_refused(
			        control, (enum control_quota_of)of, (enum control_quota_limit)i));
		}
}

void metrics_write_domain(struct av_buf *out, const struct api *a)
{
	struct control_stats stats;
	struct control_sampling sampling;
	struct node_stats node;

	control_get_stats(a->control, &stats);
	control_get_sampling(a->control, &sampling);
	control_get_node_stats(a->control, &node);
	write_sandboxes(out, &stats);
	write_timings(out, a, &node);
	write_sampling(out, &sampling);
	write_pool(out, a->control);
	write_store(out, a->control);
	write_quotas(out, a->control);
	write_audit(out, a->control);
	write_channels(out, a->control);
	write_outbound(out, a->fetch);
	write_agents(out, &node);
}
