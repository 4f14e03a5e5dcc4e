/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics_text.c - the text format of Prometheus (see metrics_text.h)
 */
#include "api/metrics_text.h"

#include <inttypes.h>

#include "base/banned.h"

void metrics_family(struct av_buf *out, const char *name, const char *type, const char *help)
{
	(void)av_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void sample(struct av_buf *out, const char *name, const char *labels)
{
	if (labels[0])
		(void)av_buf_printf(out, "%s{%s} ", name, labels);
	else
		(void)av_buf_printf(out, "%s ", name);
}

void metrics_u64(struct av_buf *out, const char *name, const char *labels, uint64_t v)
{
	sample(out, name, labels);
	(void)av_buf_printf(out, "%" PRIu64 "\n", v);
}

void metrics_seconds(struct av_buf *out, const char *name, const char *labels, int64_t ns)
{
	sample(out, name, labels);
	(void)av_buf_printf(out, "%.6f\n", (double)ns / 1e9);
}

void metrics_hist(struct av_buf *out, const char *name, const char *labels, const struct av_hist *h)
{
	const char *comma = labels[0] ? "," : "";
	const char *open = labels[0] ? "{" : "", *close = labels[0] ? "}" : "";
	uint64_t n = 0;

	for (size_t b = 0; b < AV_HIST_BUCKETS - 1; b++) {
		n += h->count[b];
		(void)av_buf_printf(out, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, labels,
		    comma, (double)av_hist_bound_us[b] / 1e6, n);
	}
	n += h->count[AV_HIST_BUCKETS - 1];
	(void)av_buf_printf(out,
	    "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n%s_sum%s%s%s %.6f\n%s_count%s%s%s %" PRIu64
	    "\n",
	    name, labels, comma, n, name, open, labels, close, (double)h->sum_ns / 1e9, name, open,
	    labels, close, n);
}

void metrics_counter(struct av_buf *out, const char *name, const char *help, uint64_t v)
{
	metrics_family(out, name, "counter", help);
	metrics_u64(out, name, "", v);
}

void metrics_gauge(struct av_buf *out, const char *name, const char *help, uint64_t v)
{
	metrics_family(out, name, "gauge", help);
	metrics_u64(out, name, "", v);
}

void metrics_histogram(
    struct av_buf *out, const char *name, const char *help, const struct av_hist *h)
{
	metrics_family(out, name, "histogram", help);
	metrics_hist(out, name, "", h);
}
