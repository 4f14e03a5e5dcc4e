/* SPDX-License-Identifier: Apache-2.0 */
/*
 * series.c - what one sandbox used over time (see series.h)
 */
#include "control/series.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

#define RING_FIRST 8
#define SET_BACK_S 60
#define CPU_MAX    10000

static const struct {
	uint16_t max;
	uint16_t step_s;
} tiers[SERIES_TIERS] = {
    {SERIES_FINE_MAX, 1},
    {SERIES_MIDDLE_MAX, 30},
    {SERIES_COARSE_MAX, 300},
};

int64_t series_step_s(unsigned int tier)
{
	return tiers[tier].step_s;
}

void series_clear(struct series *s)
{
	for (size_t i = 0; i < SERIES_TIERS; i++)
		free(s->ring[i].v);
	memset(s, 0, sizeof(*s));
}

/* The i-th oldest. */
static const struct series_point *at(const struct series_ring *r, size_t i)
{
	return &r->v[(r->next + r->cap - r->n + i) % r->cap];
}

/* As long as a ring is not at its maximum nothing was overwritten: it begins at 0. */
static int grow(struct series_ring *r, uint16_t max)
{
	uint16_t cap = r->cap ? (uint16_t)AV_MIN(2 * r->cap, (int)max) : RING_FIRST;
	struct series_point *v = reallocarray(r->v, cap, sizeof(*v));

	if (!v)
		return -ENOMEM;
	r->v = v;
	r->cap = cap;
	r->next = r->n;
	return 0;
}

static int push(struct series_ring *r, uint16_t max, const struct series_point *p)
{
	if (r->n == r->cap && r->cap < max) {
		int e = grow(r, max);

		if (e < 0)
			return e;
	}
	if (!r->v || !r->cap)
		return -ENOMEM;
	r->v[r->next] = *p;
	r->next = (uint16_t)((r->next + 1) % r->cap);
	if (r->n < r->cap)
		r->n++;
	return 0;
}

static struct series_point bucket_point(const struct series_bucket *b)
{
	struct series_point p = b->max;

	p.cpu = (uint16_t)(b->cpu_sum / b->count);
	return p;
}

static int bucket_add(struct series *s, unsigned int tier, const struct series_point *p)
{
	struct series_bucket *b = &s->bucket[tier];
	uint32_t begin = p->at_s - p->at_s % tiers[tier].step_s;
	int r = 0;

	if (b->count && b->max.at_s != begin) {
		struct series_point done = bucket_point(b);

		r = push(&s->ring[tier], tiers[tier].max, &done);
		*b = (struct series_bucket){0};
	}
	b->max.at_s = begin;
	b->max.memory_4k = AV_MAX(b->max.memory_4k, p->memory_4k);
	b->max.disk_4k = AV_MAX(b->max.disk_4k, p->disk_4k);
	b->cpu_sum += p->cpu;
	b->count++;
	return r;
}

uint32_t series_last_s(const struct series *s)
{
	const struct series_ring *fine = &s->ring[SERIES_FINE], *coarse = &s->ring[SERIES_COARSE];

	if (fine->n)
		return at(fine, (size_t)fine->n - 1)->at_s;
	return coarse->n ? at(coarse, (size_t)coarse->n - 1)->at_s : 0;
}

int series_add(struct series *s, const struct series_point *p)
{
	uint32_t last = series_last_s(s);
	int r = 0;

	if (p->at_s <= last) {
		if (last - p->at_s <= SET_BACK_S)
			return 0;
		series_clear(s);
	}
	for (unsigned int i = 0; i < SERIES_TIERS; i++) {
		int one =
		    i == SERIES_FINE ? push(&s->ring[i], tiers[i].max, p) : bucket_add(s, i, p);

		r = r < 0 ? r : one;
	}
	return r;
}

size_t series_count(const struct series *s, unsigned int tier)
{
	return s->ring[tier].n + (s->bucket[tier].count ? 1u : 0u);
}

size_t series_copy(const struct series *s, unsigned int tier, struct series_point *v)
{
	const struct series_ring *r = &s->ring[tier];
	size_t n = 0;

	while (n < r->n) {
		v[n] = *at(r, n);
		n++;
	}
	if (s->bucket[tier].count)
		v[n++] = bucket_point(&s->bucket[tier]);
	return n;
}

int series_restore(struct series *s, const struct series_point *v, size_t n)
{
	struct series_point now[SERIES_COARSE_MAX + 1];
	size_t n_now = s->ring[SERIES_COARSE].n;
	struct series_ring fresh = {0};
	uint32_t last = 0, limit = UINT32_MAX;
	int r = 0;

	for (size_t i = 0; i < n_now; i++)
		now[i] = *at(&s->ring[SERIES_COARSE], i);
	if (n_now)
		limit = now[0].at_s;
	else if (s->bucket[SERIES_COARSE].count)
		limit = s->bucket[SERIES_COARSE].max.at_s;
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (v[i].at_s <= last || v[i].at_s >= limit || v[i].cpu > CPU_MAX)
			continue;
		last = v[i].at_s;
		r = push(&fresh, tiers[SERIES_COARSE].max, &v[i]);
	}
	for (size_t i = 0; r == 0 && i < n_now; i++)
		r = push(&fresh, tiers[SERIES_COARSE].max, &now[i]);
	if (r < 0) {
		free(fresh.v);
		return r;
	}
	free(s->ring[SERIES_COARSE].v);
	s->ring[SERIES_COARSE] = fresh;
	return 0;
}
