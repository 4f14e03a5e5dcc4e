/* SPDX-License-Identifier: Apache-2.0 */
/*
 * otlp.h - brings recorded spans to a collector: OTLP over HTTP, JSON
 *
 * Theory of operation. Spans wait in the tracer's ring (base/trace.h). A second after the first of
 * them, or as soon as OTLP_BATCH wait, a batch is taken, encoded once and sent by net/fetch.h,
 * whose thread does all that can block. One batch is under way at a time. What the collector
 * answers decides: 2xx, and it is done (what it rejected is counted); 429, 502, 503, 504 or no
 * answer, and the same batch is sent again after a second, two, four, up to OTLP_RETRY_MAX_MS, or
 * when it says so itself (Retry-After); OTLP_TRIES_MAX times, then it is dropped; anything else
 * drops it at once. Meanwhile the ring fills, and what does not fit is dropped and counted there:
 * memory is bounded by the ring, one batch and its text, whatever the collector does.
 *
 * The collector is configured by the administrator, so any address will do; its answers are not
 * trusted: 64 KiB of them are read, for 10 seconds.
 *
 * The owner is told when it begins to fail and when it works again, not of each batch.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/trace.h"

#define OTLP_BATCH        256
#define OTLP_DELAY_MS     1000
#define OTLP_TIMEOUT_MS   10000
#define OTLP_RETRY_MS     1000
#define OTLP_RETRY_MAX_MS 30000
#define OTLP_TRIES_MAX    12 /* over four minutes of outage */
#define OTLP_HEADERS_MAX  16

struct av_fetch;
struct av_loop;
struct av_otlp;

struct av_otlp_config {
	struct av_loop *loop; /* borrowed, as fetch */
	struct av_fetch *fetch;
	const char *endpoint; /* "http://127.0.0.1:4318"; /v1/traces is added unless it ends so */
	const char *service, *version;
	double ratio;              /* share of requests without a traceparent */
	const char *headers;       /* "name=value,name=value", values percent-encoded; or NULL */
	const char *headers_lines; /* "name: value" lines, '#' comments; or NULL */
	/* why: for people, valid until it returns; NULL: it works again. NULL allowed. */
	void (*on_state)(void *ctx, const char *why);
	void *ctx;
};

struct av_otlp_stats {
	uint64_t exported, dropped, rejected; /* spans; dropped: here, not in the ring */
	uint64_t batches, failures;           /* exchanges, and those that failed */
	bool failing;                         /* the last one did */
};

/* Everything is copied. INVALID naming what of the configuration is wrong; header values are never
 * in the text. */
int av_otlp_new(
    const struct av_otlp_config *config, struct av_otlp **ret, struct av_err *err) AV_MUST_CHECK;
/* Nothing is sent from now on; before fetch is freed. What is recorded afterwards is lost. NULL is
 * fine. */
void av_otlp_stop(struct av_otlp *o);
/* No trace may be used any more. Stops it if that was not done. NULL is fine. */
void av_otlp_free(struct av_otlp *o);
struct av_tracer *av_otlp_tracer(const struct av_otlp *o);
void av_otlp_get_stats(const struct av_otlp *o, struct av_otlp_stats *ret);
/* Sends what waits, and calls on_done once when that is over or failed, or after timeout_ms; at
 * once, from the loop, when the collector fails anyway. To be called once, at the end. */
void av_otlp_flush(struct av_otlp *o, uint32_t timeout_ms, void (*on_done)(void *ctx), void *ctx);
