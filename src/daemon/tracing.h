/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tracing.h - traces, when a collector is configured
 *
 * Options: otlp-endpoint, otlp-headers-file, otlp-service, otlp-ratio; and what OpenTelemetry's own
 * programs take from the environment: OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME (as
 * defaults of these, see config.c), OTEL_EXPORTER_OTLP_HEADERS, which stays in the environment as
 * what it holds are keys, and OTEL_SDK_DISABLED.
 */
#pragma once

#include "daemon/config.h"
#include "net/otlp.h"

/* *ret is NULL when nothing is configured. fetch is borrowed until av_otlp_free. INVALID naming the
 * option. Reads a small file. */
int tracing_new(struct av_loop *loop, struct av_fetch *fetch, const struct daemon_config *config,
    struct av_otlp **ret, struct av_err *err);
