/* SPDX-License-Identifier: Apache-2.0 */
/*
 * otlp.c - spans in OTLP's JSON encoding (see otlp.h)
 *
 * Ids are hexadecimal there, unlike in other JSON encodings of protobuf, and 64-bit integers are
 * strings. Attribute names are those of OpenTelemetry's semantic conventions where there are some.
 */
#include "proto/otlp.h"

#include <inttypes.h>
#include <string.h>

#include "base/codec.h"
#include "base/json.h"
#include "base/num.h"
#include "base/banned.h"

#define KIND_INTERNAL 1
#define KIND_SERVER   2
#define STATUS_ERROR  2

static void write_id(struct av_buf *out, const char *name, const uint8_t *id, size_t n)
{
	char text[2 * AV_TRACE_ID_BYTES + 1];

	av_hex_encode(text, id, n);
	(void)av_buf_printf(out, "\"%s\":\"%s\",", name, text);
}

/* Attributes: `first` is false once one was written. */
static void write_key(struct av_buf *out, const char *key, bool *first)
{
	(void)av_buf_printf(out, "%s{\"key\":\"%s\",\"value\":{", *first ? "" : ",", key);
	*first = false;
}

static void write_text(struct av_buf *out, const char *key, const char *value, bool *first)
{
	if (!value || !value[0])
		return;
	write_key(out, key, first);
	(void)av_buf_append_c(out, "\"stringValue\":");
	(void)av_json_write_str(out, av_str_c(value));
	(void)av_buf_append_c(out, "}}");
}

static void write_number(struct av_buf *out, const char *key, int64_t value, bool *first)
{
	write_key(out, key, first);
	(void)av_buf_printf(out, "\"intValue\":\"%" PRId64 "\"}}", value);
}

static void write_attributes(struct av_buf *out, const struct av_span *s)
{
	bool first = true;

	(void)av_buf_append_c(out, "\"attributes\":[");
	write_text(out, "http.request.method", s->method, &first);
	write_text(out, "http.route", s->route, &first);
	if (s->route && s->status)
		write_number(out, "http.response.status_code", s->status, &first);
	write_text(out, "aviary.request.id", s->request_id, &first);
	write_text(out, "aviary.sandbox.id", s->sandbox_id, &first);
	if (s->error != AV_ERR_NONE)
		write_text(out, "error.type", av_err_code(s->error), &first);
	(void)av_buf_append_char(out, ']');
}

/* "GET /v1/sandboxes/{id}" of a request, else the name of the part. */
static void write_name(struct av_buf *out, const struct av_span *s)
{
	(void)av_buf_append_c(out, "\"name\":\"");
	if (s->route && s->method)
		(void)av_buf_printf(out, "%s %s", s->method, s->route);
	else
		(void)av_buf_append_c(out, s->route ? s->route : s->name);
	(void)av_buf_append_c(out, "\",");
}

/* What a client did wrong is no error of the server's span (semantic conventions for HTTP). */
static bool failed(const struct av_span *s)
{
	return s->route ? s->status >= 500 : s->error != AV_ERR_NONE;
}

static void write_span(struct av_buf *out, const struct av_span *s, int64_t offset_ns)
{
	static const uint8_t none[AV_SPAN_ID_BYTES];

	(void)av_buf_append_char(out, '{');
	write_id(out, "traceId", s->trace_id, sizeof(s->trace_id));
	write_id(out, "spanId", s->span_id, sizeof(s->span_id));
	if (memcmp(s->parent_id, none, sizeof(none)) != 0)
		write_id(out, "parentSpanId", s->parent_id, sizeof(s->parent_id));
	write_name(out, s);
	(void)av_buf_printf(out,
	    "\"kind\":%d,\"startTimeUnixNano\":\"%" PRId64 "\",\"endTimeUnixNano\":\"%" PRId64
	    "\",",
	    s->route ? KIND_SERVER : KIND_INTERNAL, s->start_ns + offset_ns, s->end_ns + offset_ns);
	write_attributes(out, s);
	if (failed(s))
		(void)av_buf_printf(out, ",\"status\":{\"code\":%d}", STATUS_ERROR);
	(void)av_buf_append_char(out, '}');
}

int av_otlp_write(struct av_buf *out, const struct av_otlp_resource *resource,
    const struct av_span *v, size_t n, int64_t offset_ns)
{
	bool first = true;

	(void)av_buf_append_c(out, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[");
	write_text(out, "service.name", resource->service, &first);
	write_text(out, "service.version", resource->version, &first);
	write_text(out, "service.instance.id", resource->instance, &first);
	(void)av_buf_append_c(
	    out, "]},\"scopeSpans\":[{\"scope\":{\"name\":\"aviary\"},\"spans\":[");
	for (size_t i = 0; i < n; i++) {
		if (i)
			(void)av_buf_append_char(out, ',');
		write_span(out, &v[i], offset_ns);
	}
	return av_buf_append_c(out, "]}]}]}");
}

size_t av_otlp_rejected(struct av_str body, size_t n)
{
	AV_CLEANUP(av_json_decrefp) json_t *answer = av_json_parse_object(body, NULL);
	const json_t *v =
	    json_object_get(json_object_get(answer, "partialSuccess"), "rejectedSpans");
	uint64_t rejected = 0;

	if (json_is_integer(v) && json_integer_value(v) > 0)
		rejected = (uint64_t)json_integer_value(v);
	else if (json_is_string(v) &&
	         av_parse_u64(av_str_c(json_string_value(v)), 0, UINT64_MAX, &rejected) < 0)
		rejected = 0;
	return AV_MIN(rejected, (uint64_t)n);
}
