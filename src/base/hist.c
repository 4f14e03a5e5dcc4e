/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hist.c - how long things took (see hist.h)
 */
#include "base/hist.h"

#include <stddef.h>

#include "base/banned.h"

const uint64_t av_hist_bound_us[AV_HIST_BUCKETS - 1] = {100, 250, 500, 1000, 2000, 3000, 5000,
    10000, 20000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 60000000,
    300000000};

void av_hist_add(struct av_hist *h, int64_t ns)
{
	uint64_t v = ns > 0 ? (uint64_t)ns : 0;
	size_t b = 0;

	while (b < AV_HIST_BUCKETS - 1 && v > av_hist_bound_us[b] * 1000)
		b++;
	h->count[b]++;
	h->sum_ns += v;
}

void av_hist_merge(struct av_hist *h, const struct av_hist *other)
{
	for (size_t b = 0; b < AV_HIST_BUCKETS; b++)
		h->count[b] += other->count[b];
	h->sum_ns += other->sum_ns;
}

uint64_t av_hist_total(const struct av_hist *h)
{
	uint64_t n = 0;

	for (size_t b = 0; b < AV_HIST_BUCKETS; b++)
		n += h->count[b];
	return n;
}
