/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces: traceparent headers, sampling, the ring of spans and its bound; histograms; what this
 * process says of itself.
 */
#include <stdlib.h>

#include "base/avtime.h"
#include "base/hist.h"
#include "base/self.h"
#include "base/trace.h"
#include "lib/tap.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN  "00f067aa0ba902b7"

static size_t on_span_calls;

static void on_span(void *ctx)
{
	(void)ctx;
	on_span_calls++;
}

static struct av_tracer *tracer(double ratio)
{
	struct av_tracer *t = NULL;

	if (av_tracer_new(ratio, on_span, NULL, &t) < 0)
		abort();
	return t;
}

static void id_of(struct av_tracer *t, const char *parent, char ret[static AV_TRACE_ID_SIZE])
{
	struct av_trace_root root;

	av_trace_begin(t, av_str_c(parent), &root);
	av_trace_write_id(&root, ret);
}

static void test_parent(void)
{
	static const char *const bad[] = {"", "00", "00-" TRACE, "00-" TRACE "-" SPAN,
	    "00-" TRACE "-" SPAN "-1", "00-" TRACE "-" SPAN "-01-x", "ff-" TRACE "-" SPAN "-01",
	    "00-00000000000000000000000000000000-" SPAN "-01", "00-" TRACE "-0000000000000000-01",
	    "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01", "00_" TRACE "-" SPAN "-01",
	    "0-" TRACE "-" SPAN "-01", "00-" TRACE "g-" SPAN "-01", "gg-" TRACE "-" SPAN "-01"};
	struct av_tracer *t = tracer(0);
	struct av_trace_root root;
	char id[AV_TRACE_ID_SIZE], text[AV_TRACEPARENT_SIZE];

	id_of(t, "00-" TRACE "-" SPAN "-01", id);
	is_str(id, TRACE, "the client's trace goes on");
	id_of(t, " 00-" TRACE "-" SPAN "-00 ", id);
	is_str(id, TRACE, "also when it is not sampled");
	id_of(t, "cc-" TRACE "-" SPAN "-01-what-later-versions-add", id);
	is_str(id, TRACE, "and with what a later version adds");
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++) {
		av_trace_begin(t, av_str_c(bad[i]), &root);
		av_trace_write_id(&root, id);
		ok(strcmp(id, TRACE) != 0 && strlen(id) == 32 && !root.trace.tracer,
		    "malformed: %s", bad[i]);
	}
	av_trace_begin(t, AV_STR("00-" TRACE "-" SPAN "-01"), &root);
	av_trace_write_parent(&root, text);
	ok(strncmp(text, "00-" TRACE "-", 36) == 0 && strcmp(text + 52, "-01") == 0,
	    "what we give on: %s", text);
	ok(strncmp(text + 36, SPAN, 16) != 0, "names our span, not the client's");
	av_trace_begin(NULL, AV_STR("00-" TRACE "-" SPAN "-01"), &root);
	av_trace_write_id(&root, id);
	ok(!root.known && !root.trace.tracer && !id[0], "without a tracer there is nothing");
	av_tracer_free(t);
}

static void test_sampling(void)
{
	struct av_tracer *t = tracer(0.25), *all = tracer(1), *none = tracer(0);
	struct av_trace_root root;
	size_t n = 0;

	for (size_t i = 0; i < 4000; i++) {
		av_trace_begin(t, AV_STR(""), &root);
		n += root.trace.tracer != NULL;
	}
	ok(n > 700 && n < 1300, "a quarter of 4000 is %zu", n);
	av_trace_begin(none, AV_STR(""), &root);
	ok(!root.trace.tracer && root.known, "none, but it has an id");
	av_trace_begin(all, AV_STR("00-" TRACE "-" SPAN "-00"), &root);
	ok(!root.trace.tracer, "a client that does not want it is not traced");
	av_trace_begin(none, AV_STR("00-" TRACE "-" SPAN "-01"), &root);
	ok(root.trace.tracer && root.by_flag, "one that does is");
	ok(!av_trace_trust(&root, false).tracer, "unless nobody knows it");
	ok(av_trace_trust(&root, true).tracer == none, "with a key it is");
	av_trace_begin(all, AV_STR("00-" TRACE "-" SPAN "-01"), &root);
	ok(av_trace_trust(&root, false).tracer, "who is in the share anyhow needs no key");
	av_tracer_free(t);
	av_tracer_free(all);
	av_tracer_free(none);
}

static void test_ring(void)
{
	struct av_tracer *t = tracer(1);
	struct av_tracer_stats stats;
	struct av_trace_root root;
	struct av_span v[64],
	    request = {.name = "GET /", .start_ns = 5, .end_ns = 9, .status = 200};
	struct av_trace off = {0};

	av_trace_part(&off, "nothing", 1, 2, AV_ERR_NONE, NULL);
	av_trace_begin(t, AV_STR("00-" TRACE "-" SPAN "-01"), &root);
	av_trace_part(&root.trace, "first", 1, 2, AV_ERR_QUOTA, "sb0123456789abcdefghijklmno");
	av_trace_end(&root.trace, &root, &request);
	is_int(on_span_calls, 2, "on_span for each");
	is_int(av_tracer_take(t, v, 64), 2, "two spans");
	is_str(v[0].name, "first", "in their order");
	is_int(v[0].error, AV_ERR_QUOTA, "with its error");
	is_str(v[0].sandbox_id, "sb0123456789abcdefghijklmno", "and its sandbox");
	ok(memcmp(v[0].parent_id, v[1].span_id, 8) == 0, "the part is a child of the request");
	ok(memcmp(v[1].parent_id, "\x00\xf0\x67\xaa\x0b\xa9\x02\xb7", 8) == 0,
	    "the request one of the client's span");
	ok(memcmp(v[0].trace_id, v[1].trace_id, 16) == 0, "both of one trace");
	ok(memcmp(v[0].span_id, v[1].span_id, 8) != 0, "with ids of their own");
	av_trace_part(&root.trace, "long", 1, 2, AV_ERR_NONE,
	    "something that is far too long to be an id of ours");
	is_int(av_tracer_take(t, v, 64), 1, "one more");
	is_str(v[0].sandbox_id, "", "what is no id is left out");

	for (size_t i = 0; i < AV_SPANS_MAX + 100; i++)
		av_trace_part(&root.trace, "x", (int64_t)i, 2, AV_ERR_NONE, NULL);
	av_tracer_get_stats(t, &stats);
	is_int(stats.waiting, AV_SPANS_MAX, "no more wait than may");
	is_int(stats.dropped, 100, "the rest is counted");
	is_int(stats.recorded, AV_SPANS_MAX + 3, "and what was recorded too");
	is_int(av_tracer_take(t, v, 64), 64, "a batch");
	is_int(v[0].start_ns, 0, "the oldest first");
	is_int(v[63].start_ns, 63, "in order");
	av_trace_part(&root.trace, "x", -1, 2, AV_ERR_NONE, NULL);
	av_tracer_get_stats(t, &stats);
	is_int(stats.dropped, 100, "there is room again");
	av_tracer_free(t);
}

static void test_hist(void)
{
	struct av_hist h = {0};

	av_hist_add(&h, 0);
	av_hist_add(&h, -5);
	av_hist_add(&h, 100 * 1000);
	av_hist_add(&h, 100 * 1000 + 1);
	av_hist_add(&h, INT64_MAX);
	is_int(h.count[0], 3, "up to a bound, included");
	is_int(h.count[1], 1, "above it");
	is_int(h.count[AV_HIST_BUCKETS - 1], 1, "beyond all bounds");
	is_int(av_hist_total(&h), 5, "five in all");
	for (size_t i = 1; i < AV_HIST_BUCKETS - 1; i++)
		ok(av_hist_bound_us[i] > av_hist_bound_us[i - 1], "bound %zu rises", i);
}

static void test_self(void)
{
	struct av_self s;

	av_self_read(-1, &s);
	ok(s.resident_bytes > 100000 && s.virtual_bytes >= s.resident_bytes, "memory");
	is_int(s.threads, 1, "one thread");
	ok(s.open_fds >= 3 && s.open_fds < 64 && s.max_fds > s.open_fds, "%d descriptors",
	    (int)s.open_fds);
	ok(s.start_boot_ns > 0 && av_boot_ns() - s.start_boot_ns < 600 * AV_NS_PER_S,
	    "it began a short while ago");
}

int main(void)
{
	test_parent();
	test_sampling();
	test_ring();
	test_hist();
	test_self();
	return tap_done();
}
