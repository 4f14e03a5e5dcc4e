/* SPDX-License-Identifier: Apache-2.0 */
/*
 * otlp.h - spans as OpenTelemetry's collectors read them: OTLP 1.x over HTTP, in its JSON encoding
 *
 * Only writes (ExportTraceServiceRequest) and reads one number of the answer. No I/O, no clock.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/trace.h"

struct av_otlp_resource {
	const char *service, *version; /* service.name, service.version */
	const char *instance;          /* service.instance.id */
};

/* Bytes that one span needs at most, and what is around them; for the ceiling of a buffer. */
#define AV_OTLP_SPAN_MAX ((size_t)1536)
#define AV_OTLP_HEAD_MAX ((size_t)4096)

/* Appends the request for n spans. offset_ns: what to add to their times to get nanoseconds since
 * 1970. The buffer's error or 0. */
int av_otlp_write(struct av_buf *out, const struct av_otlp_resource *resource,
    const struct av_span *v, size_t n, int64_t offset_ns);

/* How many spans the answer's body says were rejected (partialSuccess); 0 when it says nothing that
 * can be read, and never more than n. */
size_t av_otlp_rejected(struct av_str body, size_t n);
