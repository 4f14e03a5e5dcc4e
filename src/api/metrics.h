/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.h - counters of the API, and everything Prometheus may ask for as text
 *
 * Labels are bounded: routes are those of routes.def (and "other"), statuses those in a fixed list
 * (and "other"). No id, key or path of a client ever becomes a label.
 */
#pragma once

#include <stdint.h>

#include "api/router.h"
#include "base/buf.h"

struct av_http_server;
struct av_loop;
struct control;

#define API_METRICS_ROUTES   (API_ROUTE_COUNT + 2) /* the last two: ports; no route matched */
#define API_METRICS_STATUSES 24
#define API_METRICS_BUCKETS  12

struct api_metrics {
	uint64_t requests[API_METRICS_ROUTES][API_METRICS_STATUSES];
	uint64_t latency[API_METRICS_ROUTES][API_METRICS_BUCKETS]; /* not cumulative */
	uint64_t latency_ns[API_METRICS_ROUTES];
	uint64_t in_flight;
	uint64_t auth_failures;
	uint64_t streams_open;  /* WebSocket conversations */
	uint64_t event_streams; /* open now */
	uint64_t events, event_gaps;
};

/* route NULL: none matched. status 0: the client went away before an answer. ns: from the request's
 * head to the end of the answer; not recorded in the histogram when negative. */
void api_metrics_request(
    struct api_metrics *m, const struct api_route *route, int status, int64_t ns);

struct api_metrics_sources {
	const struct api_metrics *api;
	const struct av_http_server *server; /* NULL: left out */
	const struct av_loop *loop;          /* NULL: left out */
	const struct control *control;       /* NULL: left out */
	const char *version;
};
/* Appends the exposition format 0.0.4. Reads /proc/self, a few small reads. */
int api_metrics_write(struct av_buf *out, const struct api_metrics_sources *s);
