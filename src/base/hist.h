/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hist.h - how long things took: counts in fixed buckets, for /metrics
 *
 * All histograms of times have the same buckets, from 100 us to 5 minutes, so that they can be
 * compared and added. No allocation; whoever owns one says which thread may touch it.
 */
#pragma once

#include <stdint.h>

#define AV_HIST_BUCKETS 20 /* the last one has no upper bound */

struct av_hist {
	uint64_t count[AV_HIST_BUCKETS]; /* not cumulative */
	uint64_t sum_ns;
};

/* Upper bounds in microseconds, included. */
extern const uint64_t av_hist_bound_us[AV_HIST_BUCKETS - 1];

/* A time below 0 counts as 0. */
void av_hist_add(struct av_hist *h, int64_t ns);
/* Adds what another one has counted. */
void av_hist_merge(struct av_hist *h, const struct av_hist *other);
/* How many were added. */
uint64_t av_hist_total(const struct av_hist *h);
