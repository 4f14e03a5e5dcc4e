/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.c - counters of the API, and the whole page (see metrics.h)
 */
#include "api/metrics.h"

#include <inttypes.h>

#include "api/metrics_text.h"
#include "api/request.h"
#include "base/avtime.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "net/otlp.h"
#include "net/tls.h"
#include "base/banned.h"

/* The statuses we send; 0 is "the client left", -1 stands for any other. */
static const int statuses[API_METRICS_STATUSES] = {0, 101, 200, 201, 202, 204, 400, 401, 403, 404,
    405, 408, 409, 413, 415, 426, 429, 431, 500, 501, 502, 503, 504, -1};

void api_metrics_request(
    struct api_metrics *m, const struct api_route *route, int status, int64_t ns)
{
	size_t r = route ? (size_t)route->id : API_ROUTE_COUNT + 1, s = 0;

	while (s < API_METRICS_STATUSES - 1 && statuses[s] != status)
		s++;
	m->requests[r][s]++;
	if (ns >= 0)
		av_hist_add(&m->latency[r], ns);
}

void api_metrics_timed(struct api_metrics *m, enum api_timing which, int64_t since_ns)
{
	av_hist_add(&m->timings[which], av_mono_ns() - since_ns);
}

/* method="GET",route="/health" */
static void route_labels(size_t r, char *dst, size_t size)
{
	if (r < API_ROUTE_COUNT)
		(void)snprintf(dst, size, "method=\"%s\",route=\"%s\"",
		    api_method_text(api_routes[r].method), api_routes[r].pattern);
	else
		(void)snprintf(dst, size, "method=\"other\",route=\"%s\"",
		    r == API_ROUTE_COUNT ? api_proxy_route.pattern : "other");
}

static void write_requests(struct av_buf *out, const struct api_metrics *m)
{
	const char *name = "aviary_http_requests_total";
	char route[160], labels[200], code[16];

	metrics_family(out, name, "counter",
	    "Requests by route and status; code 0: the client left before the answer.");
	for (size_t r = 0; r < API_METRICS_ROUTES; r++) {
		route_labels(r, route, sizeof(route));
		for (size_t s = 0; s < API_METRICS_STATUSES; s++) {
			if (m->requests[r][s] == 0)
				continue;
			(void)snprintf(code, sizeof(code), "%d", statuses[s]);
			(void)snprintf(labels, sizeof(labels), "%s,code=\"%s\"", route,
			    statuses[s] < 0 ? "other" : code);
			metrics_u64(out, name, labels, m->requests[r][s]);
		}
	}
}

static void write_latency(struct av_buf *out, const struct api_metrics *m)
{
	const char *name = "aviary_http_request_duration_seconds";
	char labels[160];

	metrics_family(out, name, "histogram",
	    "Head of the request to end of the answer, without what lasts as long as a client "
	    "likes.");
	for (size_t r = 0; r < API_METRICS_ROUTES; r++) {
		if (av_hist_total(&m->latency[r]) == 0)
			continue;
		route_labels(r, labels, sizeof(labels));
		metrics_hist(out, name, labels, &m->latency[r]);
	}
}

/* Kinds share codes: a sample for each code. */
static void write_errors(struct av_buf *out, const struct api_metrics *m)
{
	const char *name = "aviary_api_errors_total";
	char labels[64];

	metrics_family(out, name, "counter", "Errors answered, by their code.");
	for (int k = 1; k < AV_ERR_KIND_COUNT; k++) {
		const char *code = av_err_code((enum av_err_kind)k);
		uint64_t n = 0;

		if (av_err_from_code(code) != (enum av_err_kind)k)
			continue;
		for (int other = k; other < AV_ERR_KIND_COUNT; other++)
			if (strcmp(av_err_code((enum av_err_kind)other), code) == 0)
				n += m->errors[other];
		(void)snprintf(labels, sizeof(labels), "code=\"%s\"", code);
		metrics_u64(out, name, labels, n);
	}
}

static void write_tls(struct av_buf *out, const struct av_tls *tls)
{
	const struct av_tls_metrics *m = av_tls_metrics(tls);
	const char *handshakes = "aviary_tls_handshakes_total";

	metrics_family(out, "aviary_tls_certificate_expiry_seconds", "gauge",
	    "Until the certificate in force ends; negative afterwards.");
	(void)av_buf_printf(out, "aviary_tls_certificate_expiry_seconds %" PRId64 "\n",
	    av_tls_not_after(tls) - av_real_ms() / 1000);
	metrics_family(out, handshakes, "counter", "Handshakes by result.");
	metrics_u64(out, handshakes, "result=\"ok\"", m->handshakes);
	metrics_u64(out, handshakes, "result=\"failed\"", m->failures - m->evicted);
	metrics_u64(out, handshakes, "result=\"evicted\"", m->evicted);
	metrics_u64(out, handshakes, "result=\"plain_http\"", m->plain);
}

static void write_server(struct av_buf *out, const struct av_http_server *server)
{
	const struct av_http_server_metrics *s = av_http_server_metrics(server);

	metrics_counter(
	    out, "aviary_http_connections_total", "Connections accepted.", s->connections_total);
	metrics_gauge(out, "aviary_http_connections_open", "Connections now.", s->connections_open);
	metrics_gauge(out, "aviary_http_connections_limit",
	    "Connections that may be open; more are answered with 503.", s->connections_max);
	metrics_counter(out, "aviary_http_connections_refused_total", "Connections over the limit.",
	    s->connections_refused);
	metrics_counter(out, "aviary_http_protocol_errors_total", "Requests refused by the parser.",
	    s->protocol_errors);
	metrics_counter(out, "aviary_http_timeouts_total",
	    "Requests that took too long in some phase.", s->timeouts);
	metrics_counter(out, "aviary_http_client_gone_total", "Requests whose client went away.",
	    s->client_gone);
	metrics_counter(
	    out, "aviary_http_received_bytes_total", "Bytes from clients.", s->bytes_in);
	metrics_counter(out, "aviary_http_sent_bytes_total", "Bytes to clients.", s->bytes_out);
	metrics_counter(
	    out, "aviary_websockets_total", "WebSocket sessions begun.", s->websockets_total);
	metrics_gauge(out, "aviary_websockets_open", "WebSocket sessions now.", s->websockets_open);
	if (av_http_server_tls(server))
		write_tls(out, av_http_server_tls(server));
}

static void write_loop(struct av_buf *out, const struct av_loop *loop)
{
	const struct av_loop_metrics *m = av_loop_metrics(loop);
	const char *name = "aviary_loop_stall_seconds";
	uint64_t sum = 0;
	char labels[32];

	metrics_family(out, name, "histogram",
	    "Time per iteration of the event loop in which it did not look for events.");
	for (size_t b = 0; b < AV_LOOP_STALL_BUCKETS; b++) {
		sum += m->stall_count[b];
		if (b == AV_LOOP_STALL_BUCKETS - 1)
			break;
		(void)snprintf(
		    labels, sizeof(labels), "le=\"%g\"", (double)av_loop_stall_bound_us[b] / 1e6);
		metrics_u64(out, "aviary_loop_stall_seconds_bucket", labels, sum);
	}
	metrics_u64(out, "aviary_loop_stall_seconds_bucket", "le=\"+Inf\"", sum);
	metrics_seconds(out, "aviary_loop_stall_seconds_sum", "", (int64_t)m->stall_sum_us * 1000);
	metrics_u64(out, "aviary_loop_stall_seconds_count", "", sum);
	metrics_family(out, "aviary_loop_stall_max_seconds", "gauge", "The longest of them.");
	metrics_seconds(out, "aviary_loop_stall_max_seconds", "", (int64_t)m->stall_max_us * 1000);
	metrics_counter(out, "aviary_loop_work_total", "Tasks given to threads.", m->work_started);
}

static void write_streams(struct av_buf *out, const struct api_metrics *m)
{
	metrics_gauge(
	    out, "aviary_http_requests_in_flight", "Requests being answered.", m->in_flight);
	metrics_gauge(
	    out, "aviary_streams_open", "WebSocket conversations with processes.", m->streams_open);
	metrics_family(out, "aviary_stream_bytes_total", "counter",
	    "Bytes of their messages, by direction; out: to the client.");
	metrics_u64(out, "aviary_stream_bytes_total", "direction=\"in\"", m->stream_bytes_in);
	metrics_u64(out, "aviary_stream_bytes_total", "direction=\"out\"", m->stream_bytes_out);
	metrics_family(out, "aviary_transfer_bytes_total", "counter",
	    "Bytes of files and archives, by direction; in: into sandboxes.");
	metrics_u64(out, "aviary_transfer_bytes_total", "direction=\"in\"", m->upload_bytes);
	metrics_u64(out, "aviary_transfer_bytes_total", "direction=\"out\"", m->download_bytes);
	metrics_gauge(out, "aviary_proxied_requests_open",
	    "Requests to ports of sandboxes being answered, WebSockets included.", m->proxied_open);
	metrics_gauge(out, "aviary_event_streams_open", "Streams of events.", m->event_streams);
	metrics_counter(
	    out, "aviary_events_total", "Events of sandboxes and templates.", m->events);
	metrics_counter(out, "aviary_event_gaps_total",
	    "Times that a stream was told that it missed events.", m->event_gaps);
	metrics_counter(
	    out, "aviary_auth_failures_total", "Requests without a valid key.", m->auth_failures);
	metrics_counter(out, "aviary_metrics_refused_total",
	    "Requests for these metrics that were not allowed.", m->metrics_refused);
}

static void write_traces(struct av_buf *out, const struct av_otlp *otlp)
{
	struct av_tracer_stats ring = {0};
	struct av_otlp_stats sent = {0};

	if (otlp) {
		av_tracer_get_stats(av_otlp_tracer(otlp), &ring);
		av_otlp_get_stats(otlp, &sent);
	}
	metrics_family(out, "aviary_trace_spans_total", "counter",
	    "Spans by what became of them; dropped: the collector is slow, dead, or refused them.");
	metrics_u64(out, "aviary_trace_spans_total", "result=\"exported\"", sent.exported);
	metrics_u64(out, "aviary_trace_spans_total", "result=\"rejected\"", sent.rejected);
	metrics_u64(
	    out, "aviary_trace_spans_total", "result=\"dropped\"", ring.dropped + sent.dropped);
	metrics_counter(out, "aviary_trace_exports_total", "Batches sent.", sent.batches);
	metrics_counter(out, "aviary_trace_export_failures_total",
	    "Those that the collector did not take.", sent.failures);
}

int api_metrics_write(struct av_buf *out, const struct api *a, const struct driver_helper *helper)
{
	metrics_family(out, "aviary_build_info", "gauge",
	    "Always 1; the labels say which build runs, and how sandboxes are isolated.");
	(void)av_buf_printf(out, "aviary_build_info{version=\"%s\",isolation=\"%s\"} 1\n",
	    a->version, control_isolation(a->control));
	metrics_gauge(out, "aviary_ready", "Whether sandboxes can be made now.",
	    control_is_ready(a->control, NULL));
	write_requests(out, &a->metrics);
	write_latency(out, &a->metrics);
	write_errors(out, &a->metrics);
	write_streams(out, &a->metrics);
	if (a->server)
		write_server(out, a->server);
	write_loop(out, a->loop);
	write_traces(out, a->otlp);
	metrics_write_domain(out, a);
	metrics_write_queues(out, a, helper);
	metrics_write_processes(out, a, helper);
	return av_buf_error(out);
}
