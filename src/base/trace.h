/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.h - spans of a request across the layers, kept until an exporter takes them
 *
 * Theory of operation. A request that is traced has a `struct av_trace`: its trace, and the span
 * under which the parts of it are recorded. It is handed down by value (control_actor carries it);
 * each layer records what it did when that is over, as one span with its beginning and end. Nothing
 * is allocated for a span: it goes into a ring of fixed size, and when the ring is full because the
 * exporter's collector is slow or dead, the span is dropped and counted. Without a tracer, or when
 * the request is not sampled, every function here returns at once.
 *
 * Whether a request is sampled is decided once, at its beginning (W3C Trace Context, level 1): the
 * flag of a traceparent header decides where there is one, else the share in the configuration. A
 * client can thus ask for its own requests to be traced; what comes without valid credentials is
 * recorded only by the share, as strangers could fill the ring otherwise (see av_trace_trust).
 *
 * A span has attributes of fixed form only: literals of ours, numbers, an id that was checked, and
 * the id of the request, which has an alphabet of its own. There is no way to put a command, a
 * path, a file, a key or an error text into one.
 *
 * All on one thread, the loop's. Times are those of CLOCK_MONOTONIC.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ids.h"
#include "base/macros.h"
#include "base/str.h"

#define AV_TRACE_ID_BYTES   16
#define AV_SPAN_ID_BYTES    8
#define AV_TRACEPARENT_SIZE 56 /* "00-" 32 "-" 16 "-" 2 and NUL */
#define AV_TRACE_ID_SIZE    33 /* as text, with NUL */
#define AV_SPANS_MAX        2048

struct av_tracer;

/* What parts of a request are recorded under. All zero: nothing is recorded. */
struct av_trace {
	struct av_tracer *tracer; /* borrowed; NULL: not sampled */
	uint8_t trace_id[AV_TRACE_ID_BYTES];
	uint8_t span_id[AV_SPAN_ID_BYTES];
};

/* A request from outside; trace is for its parts. */
struct av_trace_root {
	struct av_trace trace;
	uint8_t parent_id[AV_SPAN_ID_BYTES]; /* the client's span; all zero: none */
	bool known;                          /* trace and span ids are set: there is a tracer */
	bool by_flag; /* sampled because the client asked for it, and for no other reason */
};

struct av_span {
	uint8_t trace_id[AV_TRACE_ID_BYTES];
	uint8_t span_id[AV_SPAN_ID_BYTES];
	uint8_t parent_id[AV_SPAN_ID_BYTES]; /* all zero: none */
	const char *name;                    /* a literal */
	int64_t start_ns, end_ns;
	enum av_err_kind error;      /* AV_ERR_NONE: it went well */
	char sandbox_id[AV_ID_SIZE]; /* empty: about none */
	/* Of requests; NULL, empty and 0 in parts of them: */
	const char *method, *route; /* literals */
	char request_id[65];        /* [A-Za-z0-9_.-] */
	int status;                 /* of HTTP; 0: the client left before the answer */
};

struct av_tracer_stats {
	uint64_t recorded, dropped;
	size_t waiting; /* at most AV_SPANS_MAX */
};

/* ratio: share of requests without a traceparent that are sampled, 0 to 1. on_span is called after
 * a span was recorded (it must not record one); may be NULL. -ENOMEM. */
int av_tracer_new(
    double ratio, void (*on_span)(void *ctx), void *ctx, struct av_tracer **ret) AV_MUST_CHECK;
/* No trace that points to it may be used any more. NULL is fine. */
void av_tracer_free(struct av_tracer *t);
/* The oldest spans, at most max; they are the caller's then. */
size_t av_tracer_take(struct av_tracer *t, struct av_span *v, size_t max);
void av_tracer_get_stats(const struct av_tracer *t, struct av_tracer_stats *ret);

/* tracer NULL: *ret is all zero. traceparent: the header's value, or empty; one that is malformed
 * counts as absent, as the standard says. */
void av_trace_begin(struct av_tracer *tracer, struct av_str traceparent, struct av_trace_root *ret);
/* What the parts of a request get: with credentials everything that is sampled, without them (not
 * `trusted`) not what is sampled by the client's flag only. */
struct av_trace av_trace_trust(const struct av_trace_root *root, bool trusted);
/* "00-...": our span, for the answer. Only when root->known. */
void av_trace_write_parent(const struct av_trace_root *root, char ret[static AV_TRACEPARENT_SIZE]);
/* The trace's id in hexadecimal; empty when there is none. */
void av_trace_write_id(const struct av_trace_root *root, char ret[static AV_TRACE_ID_SIZE]);

/* Records a part of a request that is over. name: a literal; sandbox_id: NULL or a valid id. */
void av_trace_part(const struct av_trace *t, const char *name, int64_t start_ns, int64_t end_ns,
    enum av_err_kind error, const char *sandbox_id);
/* Records the request itself: of *span everything but the three ids is filled in by the caller. t
 * is what av_trace_trust() said. */
void av_trace_end(
    const struct av_trace *t, const struct av_trace_root *root, const struct av_span *span);
