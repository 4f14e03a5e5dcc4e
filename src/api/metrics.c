/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.c - counters of the API, and everything Prometheus may ask for as text (see metrics.h)
 */
#include "api/metrics.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/num.h"
#include "control/control.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "base/banned.h"

/* The statuses we send; 0 is "the client left", -1 stands for any other. */
static const int statuses[API_METRICS_STATUSES] = {0, 101, 200, 201, 202, 204, 400, 401, 403, 404,
    405, 408, 409, 413, 415, 426, 429, 431, 500, 501, 502, 503, 504, -1};

static const int64_t bucket_us[API_METRICS_BUCKETS - 1] = {
    500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 500000, 2500000, 10000000};

void api_metrics_request(
    struct api_metrics *m, const struct api_route *route, int status, int64_t ns)
{
	size_t r = route ? (size_t)route->id : API_ROUTE_COUNT + 1, s = 0, b = 0;

	while (s < API_METRICS_STATUSES - 1 && statuses[s] != status)
		s++;
	m->requests[r][s]++;
	if (ns < 0)
		return;
	while (b < API_METRICS_BUCKETS - 1 && ns > bucket_us[b] * 1000)
		b++;
	m->latency[r][b]++;
	m->latency_ns[r] += (uint64_t)ns;
}

static const char *route_label(size_t r)
{
	return r < API_ROUTE_COUNT    ? api_routes[r].pattern
	       : r == API_ROUTE_COUNT ? api_proxy_route.pattern
	                              : "other";
}

static const char *route_method(size_t r)
{
	return r < API_ROUTE_COUNT ? api_method_text(api_routes[r].method) : "other";
}

static void header(struct av_buf *out, const char *name, const char *type, const char *help)
{
	(void)av_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void counter(struct av_buf *out, const char *name, const char *help, uint64_t v)
{
	header(out, name, "counter", help);
	(void)av_buf_printf(out, "%s %" PRIu64 "\n", name, v);
}

static void gauge(struct av_buf *out, const char *name, const char *help, uint64_t v)
{
	header(out, name, "gauge", help);
	(void)av_buf_printf(out, "%s %" PRIu64 "\n", name, v);
}

static void write_requests(struct av_buf *out, const struct api_metrics *m)
{
	header(out, "aviary_http_requests_total", "counter",
	    "Requests by route and status; code 0: the client left before the answer.");
	for (size_t r = 0; r < API_METRICS_ROUTES; r++) {
		for (size_t s = 0; s < API_METRICS_STATUSES; s++) {
			char code[16] = "other";

			if (m->requests[r][s] == 0)
				continue;
			if (statuses[s] >= 0)
				(void)snprintf(code, sizeof code, "%d", statuses[s]);
			(void)av_buf_printf(out,
			    "aviary_http_requests_total{method=\"%s\",route=\"%s\",code=\"%s\"} "
			    "%" PRIu64 "\n",
			    route_method(r), route_label(r), code, m->requests[r][s]);
		}
	}
}

static void write_latency(struct av_buf *out, const struct api_metrics *m)
{
	const char *name = "aviary_http_request_duration_seconds";

	header(out, name, "histogram", "Head of the request to end of the answer.");
	for (size_t r = 0; r < API_METRICS_ROUTES; r++) {
		uint64_t sum = 0;

		for (size_t b = 0; b < API_METRICS_BUCKETS; b++)
			sum += m->latency[r][b];
		if (sum == 0)
			continue;
		sum = 0;
		for (size_t b = 0; b < API_METRICS_BUCKETS; b++) {
			char le[24] = "+Inf";

			sum += m->latency[r][b];
			if (b < API_METRICS_BUCKETS - 1)
				(void)snprintf(le, sizeof le, "%g", (double)bucket_us[b] / 1e6);
			(void)av_buf_printf(out,
			    "%s_bucket{method=\"%s\",route=\"%s\",le=\"%s\"} %" PRIu64 "\n", name,
			    route_method(r), route_label(r), le, sum);
		}
		(void)av_buf_printf(out,
		    "%s_sum{method=\"%s\",route=\"%s\"} %.6f\n%s_count{method=\"%s\",route=\"%s\"} "
		    "%" PRIu64 "\n",
		    name, route_method(r), route_label(r), (double)m->latency_ns[r] / 1e9, name,
		    route_method(r), route_label(r), sum);
	}
}

static void write_server(struct av_buf *out, const struct av_http_server *server)
{
	const struct av_http_server_metrics *s = av_http_server_metrics(server);

	counter(
	    out, "aviary_http_connections_total", "Connections accepted.", s->connections_total);
	gauge(out, "aviary_http_connections_open", "Connections now.", s->connections_open);
	counter(out, "aviary_http_connections_refused_total", "Connections over the limit.",
	    s->connections_refused);
	counter(out, "aviary_http_protocol_errors_total", "Requests refused by the parser.",
	    s->protocol_errors);
	counter(out, "aviary_http_timeouts_total", "Requests that took too long in some phase.",
	    s->timeouts);
	counter(out, "aviary_http_client_gone_total", "Requests whose client went away.",
	    s->client_gone);
	counter(out, "aviary_http_received_bytes_total", "Bytes from clients.", s->bytes_in);
	counter(out, "aviary_http_sent_bytes_total", "Bytes to clients.", s->bytes_out);
	gauge(out, "aviary_websockets_open", "WebSocket sessions now.", s->websockets_open);
}

static void write_loop(struct av_buf *out, const struct av_loop *loop)
{
	const struct av_loop_metrics *m = av_loop_metrics(loop);
	uint64_t sum = 0;

	header(out, "aviary_loop_stall_seconds", "histogram",
	    "Time per iteration of the event loop in which it did not look for events.");
	for (size_t b = 0; b < AV_LOOP_STALL_BUCKETS; b++) {
		sum += m->stall_count[b];
		if (b < AV_LOOP_STALL_BUCKETS - 1)
			(void)av_buf_printf(out,
			    "aviary_loop_stall_seconds_bucket{le=\"%g\"} %" PRIu64 "\n",
			    (double)av_loop_stall_bound_us[b] / 1e6, sum);
	}
	(void)av_buf_printf(out,
	    "aviary_loop_stall_seconds_bucket{le=\"+Inf\"} %" PRIu64
	    "\naviary_loop_stall_seconds_sum %.6f\naviary_loop_stall_seconds_count %" PRIu64 "\n",
	    sum, (double)m->stall_sum_us / 1e6, sum);
	header(out, "aviary_loop_stall_max_seconds", "gauge", "The longest of them.");
	(void)av_buf_printf(
	    out, "aviary_loop_stall_max_seconds %.6f\n", (double)m->stall_max_us / 1e6);
}

static void write_control(
    struct av_buf *out, const struct control *control, const struct av_loop *loop)
{
	struct control_stats s;

	control_get_stats(control, &s);
	header(out, "aviary_sandboxes", "gauge", "Sandboxes by state.");
	(void)av_buf_printf(out,
	    "aviary_sandboxes{state=\"pending\"} %zu\naviary_sandboxes{state=\"running\"} %zu\n"
	    "aviary_sandboxes{state=\"paused\"} %zu\naviary_sandboxes{state=\"stopping\"} %zu\n",
	    s.pending, s.running, s.paused, s.stopping);
	header(out, "aviary_sandbox_creates_total", "counter", "Creates by result.");
	(void)av_buf_printf(out,
	    "aviary_sandbox_creates_total{result=\"ok\"} %" PRIu64
	    "\naviary_sandbox_creates_total{result=\"error\"} %" PRIu64
	    "\naviary_sandbox_creates_total{result=\"replayed\"} %" PRIu64 "\n",
	    s.created, s.create_failed, s.idempotent_hits);
	header(out, "aviary_sandbox_ends_total", "counter", "Ends of sandboxes by cause.");
	(void)av_buf_printf(out,
	    "aviary_sandbox_ends_total{cause=\"deleted\"} %" PRIu64
	    "\naviary_sandbox_ends_total{cause=\"timeout\"} %" PRIu64
	    "\naviary_sandbox_ends_total{cause=\"lifetime\"} %" PRIu64
	    "\naviary_sandbox_ends_total{cause=\"died\"} %" PRIu64 "\n",
	    s.deleted, s.timed_out, s.lifetime_ended, s.died);
	counter(
	    out, "aviary_sandboxes_adopted_total", "Sandboxes taken over at start-up.", s.adopted);
	header(out, "aviary_sandbox_pauses_total", "counter", "Pauses by cause.");
	(void)av_buf_printf(out,
	    "aviary_sandbox_pauses_total{cause=\"request\"} %" PRIu64
	    "\naviary_sandbox_pauses_total{cause=\"idle\"} %" PRIu64 "\n",
	    s.pauses - s.idle_pauses, s.idle_pauses);
	counter(out, "aviary_sandbox_resumes_total", "Sandboxes resumed.", s.resumes);
	counter(out, "aviary_snapshots_total", "Templates made from sandboxes.", s.snapshots);
	counter(out, "aviary_snapshots_failed_total", "Snapshots that were begun and not made.",
	    s.snapshots_failed);
	counter(out, "aviary_execs_total", "Processes started on request.", s.execs);
	counter(out, "aviary_oom_kills_total",
	    "Processes in sandboxes that the kernel killed for memory, as far as noticed.",
	    s.oom_kills);
	counter(
	    out, "aviary_store_transactions_total", "Transactions on disk.", s.store_transactions);
	counter(out, "aviary_store_requests_total", "Requests to the store.", s.store_requests);
	counter(out, "aviary_store_errors_total", "Requests the store refused.", s.store_errors);
	header(out, "aviary_queue_length", "gauge", "What waits, by queue.");
	(void)av_buf_printf(
	    out, "aviary_queue_length{queue=\"store\"} %" PRIu64 "\n", s.store_queued);
	if (loop)
		(void)av_buf_printf(out, "aviary_queue_length{queue=\"work\"} %" PRIu64 "\n",
		    av_loop_metrics(loop)->work_pending);
}

/* Sums over all sandboxes: what one of them uses is asked for by its id (GET .../metrics), as a
 * label for each would let anybody who creates sandboxes fill the monitor's disk. */
static void write_sampling(struct av_buf *out, const struct control *control)
{
	struct control_sampling s;

	control_get_sampling(control, &s);
	gauge(out, "aviary_sampled_sandboxes", "Sandboxes in the last round of sampling.",
	    s.sandboxes);
	gauge(out, "aviary_sandboxes_memory_bytes", "Memory that running sandboxes use.",
	    s.memory_bytes);
	gauge(out, "aviary_sandboxes_disk_bytes", "Disk that running sandboxes use.", s.disk_bytes);
	header(out, "aviary_sandboxes_cpu_seconds_total", "counter",
	    "Processor time that sandboxes used, as far as sampled.");
	(void)av_buf_printf(
	    out, "aviary_sandboxes_cpu_seconds_total %.3f\n", (double)s.cpu_usec / 1e6);
	header(out, "aviary_reserved_cpus", "gauge", "Processors of running sandboxes.");
	(void)av_buf_printf(
	    out, "aviary_reserved_cpus %.3f\n", (double)s.reserved_cpu_milli / 1000);
	gauge(out, "aviary_reserved_memory_bytes",
	    "Memory limits of running sandboxes, and half of those of paused ones.",
	    s.reserved_memory_bytes);
	counter(out, "aviary_sampling_rounds_total", "Rounds of sampling.", s.rounds);
	counter(
	    out, "aviary_sampling_failures_total", "Rounds or points that were lost.", s.failures);
	header(out, "aviary_sampling_seconds_total", "counter",
	    "Time that the event loop spent on samples.");
	(void)av_buf_printf(out, "aviary_sampling_seconds_total %.6f\n", (double)s.busy_ns / 1e9);
}

static void write_pool(struct av_buf *out, const struct control *control)
{
	struct control_pool_stats s;

	control_get_pool(control, &s);
	header(out, "aviary_pool_sandboxes", "gauge", "Sandboxes made ahead of time, by state.");
	(void)av_buf_printf(out,
	    "aviary_pool_sandboxes{state=\"ready\"} %zu\n"
	    "aviary_pool_sandboxes{state=\"making\"} %zu\n",
	    s.ready, s.making);
	gauge(out, "aviary_pool_wanted", "As many as the pool would like to have ready.", s.wanted);
	gauge(out, "aviary_pool_memory_bytes", "What they count for against their bound.",
	    s.memory_bytes);
	header(out, "aviary_pool_creates_total", "counter",
	    "Creates that were given a ready sandbox, and that were not.");
	(void)av_buf_printf(out,
	    "aviary_pool_creates_total{result=\"hit\"} %" PRIu64
	    "\naviary_pool_creates_total{result=\"miss\"} %" PRIu64 "\n",
	    s.hits, s.misses);
	counter(out, "aviary_pool_made_total", "Sandboxes made for the pool.", s.made);
	counter(out, "aviary_pool_discarded_total", "Those that nobody got.", s.discarded);
	counter(out, "aviary_pool_failures_total",
	    "Tries to make one that failed, and those that died before they were given.",
	    s.failures);
}

/* Resident bytes, 0 when /proc does not say. */
static uint64_t resident_bytes(void)
{
	char text[128];
	ssize_t n = av_read_file_at(AT_FDCWD, "/proc/self/statm", text, sizeof text);
	struct av_str rest = n > 0 ? av_str_n(text, (size_t)n) : AV_STR(""), field;
	uint64_t pages = 0;

	(void)av_str_cut(&rest, ' ', &field);
	(void)av_str_cut(&rest, ' ', &field);
	if (av_parse_u64(field, 0, UINT64_MAX / 65536, &pages) < 0)
		return 0;
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	uint64_t n = 0;

	if (!d)
		return 0;
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n > 3 ? n - 3 : 0; /* ".", ".." and the directory itself */
}

static void write_process(struct av_buf *out)
{
	struct rusage use = {0};
	struct rlimit files = {0};

	gauge(out, "process_resident_memory_bytes", "Resident memory.", resident_bytes());
	gauge(out, "process_open_fds", "Open descriptors.", open_fds());
	if (getrlimit(RLIMIT_NOFILE, &files) == 0)
		gauge(out, "process_max_fds", "Most descriptors allowed.", files.rlim_cur);
	if (getrusage(RUSAGE_SELF, &use) < 0)
		return;
	header(out, "process_cpu_seconds_total", "counter", "Processor time used.");
	(void)av_buf_printf(out, "process_cpu_seconds_total %.3f\n",
	    (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
	        (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6);
}

int api_metrics_write(struct av_buf *out, const struct api_metrics_sources *s)
{
	header(out, "aviary_build_info", "gauge", "Always 1; the label says which build runs.");
	(void)av_buf_printf(out, "aviary_build_info{version=\"%s\"} 1\n", s->version);
	write_requests(out, s->api);
	write_latency(out, s->api);
	gauge(out, "aviary_http_requests_in_flight", "Requests being answered.", s->api->in_flight);
	gauge(out, "aviary_streams_open", "WebSocket conversations with processes.",
	    s->api->streams_open);
	gauge(out, "aviary_event_streams_open", "Streams of events.", s->api->event_streams);
	counter(out, "aviary_events_total", "Events of sandboxes and templates.", s->api->events);
	counter(out, "aviary_event_gaps_total",
	    "Times that a stream was told that it missed events.", s->api->event_gaps);
	counter(out, "aviary_auth_failures_total", "Requests without a valid key.",
	    s->api->auth_failures);
	if (s->server)
		write_server(out, s->server);
	if (s->loop)
		write_loop(out, s->loop);
	if (s->control) {
		write_control(out, s->control, s->loop);
		write_sampling(out, s->control);
		write_pool(out, s->control);
	}
	write_process(out);
	return av_buf_error(out);
}
