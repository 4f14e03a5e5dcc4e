/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OTLP's JSON encoding: what a collector reads of spans, the ceiling of their text, and what is
 * read of its answer.
 */
#include "proto/otlp.h"

#include "base/json.h"
#include "lib/tap.h"

static const struct av_otlp_resource resource = {
    .service = "a \"service\"\n", .version = "1.2", .instance = "i"};

static struct av_span request_span(void)
{
	struct av_span s = {.name = "request",
	    .start_ns = 10,
	    .end_ns = 20,
	    .error = AV_ERR_QUOTA,
	    .method = "POST",
	    .route = "/v1/sandboxes",
	    .request_id = "req.1",
	    .status = 429};

	memset(s.trace_id, 0xab, sizeof(s.trace_id));
	memset(s.span_id, 0x01, sizeof(s.span_id));
	return s;
}

static json_t *encode(const struct av_span *v, size_t n)
{
	AV_CLEANUP(av_buf_clear)
	struct av_buf out = AV_BUF_INIT(n * AV_OTLP_SPAN_MAX + AV_OTLP_HEAD_MAX);
	struct av_err err = {0};
	json_t *j;

	is_int(av_otlp_write(&out, &resource, v, n, 1000), 0, "written");
	j = av_json_parse_object(av_buf_str(&out), &err);
	ok(j, "it is JSON: %s", err.message);
	return j;
}

static const json_t *span_of(const json_t *j, size_t i)
{
	const json_t *rs = json_array_get(json_object_get(j, "resourceSpans"), 0);
	const json_t *ss = json_array_get(json_object_get(rs, "scopeSpans"), 0);

	return json_array_get(json_object_get(ss, "spans"), i);
}

static const char *text(const json_t *j, const char *name)
{
	return json_string_value(json_object_get(j, name));
}

static void test_spans(void)
{
	struct av_span v[2] = {request_span(), {.name = "exec", .start_ns = 12, .end_ns = 19}};
	json_t *j;

	memcpy(v[1].trace_id, v[0].trace_id, sizeof(v[1].trace_id));
	memcpy(v[1].parent_id, v[0].span_id, sizeof(v[1].parent_id));
	v[1].span_id[7] = 2;
	v[1].error = AV_ERR_AGENT;
	j = encode(v, 2);
	is_str(text(span_of(j, 0), "name"), "POST /v1/sandboxes", "a request's name");
	is_str(text(span_of(j, 0), "traceId"), "abababababababababababababababab", "its trace");
	is_str(text(span_of(j, 0), "spanId"), "0101010101010101", "its id");
	ok(!json_object_get(span_of(j, 0), "parentSpanId"), "a root has no parent");
	is_str(text(span_of(j, 0), "startTimeUnixNano"), "1010", "64-bit numbers are strings");
	is_int(json_integer_value(json_object_get(span_of(j, 0), "kind")), 2, "a server's");
	ok(!json_object_get(span_of(j, 0), "status"), "429 is not the server's error");
	is_int(json_array_size(json_object_get(span_of(j, 0), "attributes")), 5, "attributes");
	is_str(text(span_of(j, 1), "name"), "exec", "a part's name");
	is_str(text(span_of(j, 1), "parentSpanId"), "0101010101010101", "its parent");
	is_int(
	    json_integer_value(json_object_get(json_object_get(span_of(j, 1), "status"), "code")),
	    2, "a part that failed");
	json_decref(j);
	v[0].status = 503;
	v[0].method = NULL;
	j = encode(v, 1);
	is_str(text(span_of(j, 0), "name"), "/v1/sandboxes", "without a method");
	ok(json_object_get(span_of(j, 0), "status"), "503 is the server's error");
	json_decref(j);
	json_decref(encode(v, 0));
}

/* The longest of everything stays below what a buffer is made for. */
static void test_ceiling(void)
{
	struct av_span s = request_span();
	char route[257];

	memset(route, 'r', 256);
	route[256] = '\0';
	memset(s.request_id, 'x', 64);
	memset(s.sandbox_id, 's', AV_ID_LEN);
	memset(s.parent_id, 0xff, sizeof(s.parent_id));
	s.route = route;
	s.start_ns = s.end_ns = INT64_MAX - 1000;
	json_decref(encode(&s, 1));
}

static void test_rejected(void)
{
	static const struct {
		const char *body;
		size_t want;
	} cases[] = {{"", 0}, {"{}", 0}, {"not json", 0}, {"[1]", 0},
	    {"{\"partialSuccess\":{\"rejectedSpans\":\"3\"}}", 3},
	    {"{\"partialSuccess\":{\"rejectedSpans\":4}}", 4},
	    {"{\"partialSuccess\":{\"rejectedSpans\":-4}}", 0},
	    {"{\"partialSuccess\":{\"rejectedSpans\":\"999999999999999999999\"}}", 0},
	    {"{\"partialSuccess\":{\"rejectedSpans\":\"99\"}}", 10}, {"{\"partialSuccess\":7}", 0},
	    {"{\"partialSuccess\":{\"rejectedSpans\":{}}}", 0}};

	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++)
		is_int(av_otlp_rejected(av_str_c(cases[i].body), 10), cases[i].want, cases[i].body);
}

int main(void)
{
	test_spans();
	test_ceiling();
	test_rejected();
	return tap_done();
}
