/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics_text.h - the text format of Prometheus (exposition format 0.0.4)
 *
 * A family is begun once, with all its samples behind it. Names, labels and help are literals of
 * ours: nothing here escapes. Errors stick in the buffer.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/hist.h"

/* HELP and TYPE ("counter", "gauge", "histogram"). */
void metrics_family(struct av_buf *out, const char *name, const char *type, const char *help);
/* One sample; labels without braces, as `queue="store"`, or "". */
void metrics_u64(struct av_buf *out, const char *name, const char *labels, uint64_t v);
void metrics_seconds(struct av_buf *out, const char *name, const char *labels, int64_t ns);
/* Buckets, sum and count of one set of labels; the family is begun before. */
void metrics_hist(
    struct av_buf *out, const char *name, const char *labels, const struct av_hist *h);
/* A family with one sample. */
void metrics_counter(struct av_buf *out, const char *name, const char *help, uint64_t v);
void metrics_gauge(struct av_buf *out, const char *name, const char *help, uint64_t v);
void metrics_histogram(
    struct av_buf *out, const char *name, const char *help, const struct av_hist *h);
