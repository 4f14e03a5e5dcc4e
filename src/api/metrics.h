/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.h - counters of the API, and everything Prometheus may ask for as text
 *
 * Labels are bounded: routes are those of routes.def (and "{port}-{id}" and "other"), statuses,
 * error codes, operations and queues those of fixed lists. No id, key, name or path of a client, a
 * guest or a team ever becomes a label, so that nobody can fill the monitor's disk; what one
 * sandbox or one team uses is asked for by its id (GET /v1/sandboxes/{id}/metrics).
 */
#pragma once

#include <stdint.h>

#include "api/router.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/hist.h"
#include "control/stats.h"

struct api;

#define API_METRICS_ROUTES   (API_ROUTE_COUNT + 2) /* the last two: ports; no route matched */
#define API_METRICS_STATUSES 24

/* What only the API sees the whole of; from the call to the end. */
enum api_timing { API_TIMING_RUN_CODE, API_TIMING_UPLOAD, API_TIMING_DOWNLOAD, API_TIMING_COUNT };

struct api_metrics {
	uint64_t requests[API_METRICS_ROUTES][API_METRICS_STATUSES];
	struct av_hist latency[API_METRICS_ROUTES];
	uint64_t errors[AV_ERR_KIND_COUNT]; /* answered, by their kind */
	uint64_t in_flight;
	uint64_t auth_failures;
	uint64_t streams_open; /* WebSocket conversations */
	uint64_t stream_bytes_in, stream_bytes_out;
	uint64_t event_streams; /* open now */
	uint64_t events, event_gaps;
	uint64_t proxied_open; /* requests to ports of sandboxes being answered */
	uint64_t upload_bytes, download_bytes;
	uint64_t metrics_refused;
	struct av_hist timings[API_TIMING_COUNT];
};

/* route NULL: none matched. status 0: the client went away before an answer. ns: from the request's
 * head to the end of the answer; not recorded in the histogram when negative. */
void api_metrics_request(
    struct api_metrics *m, const struct api_route *route, int status, int64_t ns);
void api_metrics_timed(struct api_metrics *m, enum api_timing which, int64_t since_ns);

/* Appends the exposition format 0.0.4. helper NULL: it did not answer. Reads /proc/self and looks
 * at two files, some small reads. */
int api_metrics_write(struct av_buf *out, const struct api *a, const struct driver_helper *helper);

/* ---- parts of it, for metrics_*.c ---- */

void metrics_write_domain(struct av_buf *out, const struct api *a);
void metrics_write_queues(
    struct av_buf *out, const struct api *a, const struct driver_helper *helper);
void metrics_write_processes(
    struct av_buf *out, const struct api *a, const struct driver_helper *helper);
