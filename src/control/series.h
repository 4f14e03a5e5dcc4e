/* SPDX-License-Identifier: Apache-2.0 */
/*
 * series.h - what one sandbox used over time, in bounded memory: three rings of falling resolution
 *
 *   fine    a point each second of the last 10 minutes
 *   middle  a point for 30 seconds, 2 hours
 *   coarse  a point for 5 minutes, 24 hours; what is kept on disk
 *
 * A point of the coarser rings says the mean of the CPU and the maxima of memory and disk of its
 * time, and bears the second in which that began. Rings grow by doubling: a sandbox that lived for
 * a minute holds 1 KiB, one of a day SERIES_BYTES_MAX. Pure: no clock, no I/O.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"

struct series_point {
	uint32_t at_s;      /* since 1970 */
	uint32_t memory_4k; /* units of 4 KiB */
	uint32_t disk_4k;
	uint16_t cpu; /* 1/100 % of all its processors: 0 to 10000 */
	uint16_t reserved;
};

enum { SERIES_FINE, SERIES_MIDDLE, SERIES_COARSE, SERIES_TIERS };
#define SERIES_FINE_MAX   600
#define SERIES_MIDDLE_MAX 240
#define SERIES_COARSE_MAX 288
#define SERIES_BYTES_MAX                                                                           \
	((SERIES_FINE_MAX + SERIES_MIDDLE_MAX + SERIES_COARSE_MAX) * sizeof(struct series_point) + \
	    sizeof(struct series))

struct series_ring {
	struct series_point *v; /* owned */
	uint16_t cap, n, next;  /* next: where the next one goes */
};

/* Points that will become one of the coarser ring. */
struct series_bucket {
	struct series_point max; /* at_s: its beginning; 0: empty */
	uint32_t cpu_sum, count;
};

struct series {
	struct series_ring ring[SERIES_TIERS];
	struct series_bucket bucket[SERIES_TIERS]; /* [0] is not used */
};

/* All zero is an empty one. */
void series_clear(struct series *s);
/* Adds a point of now. One of the same second as the last is dropped; a clock that was set back by
 * more than a minute makes it begin anew. -ENOMEM: a point is lost and nothing else. */
int series_add(struct series *s, const struct series_point *p);
/* Seconds between two points. */
int64_t series_step_s(unsigned int tier);
/* Points of the tier, oldest first, into v (room for series_count); the one that is not complete
 * yet is the last. */
size_t series_count(const struct series *s, unsigned int tier);
size_t series_copy(const struct series *s, unsigned int tier, struct series_point *v);
/* The second of the newest point; 0: empty. */
uint32_t series_last_s(const struct series *s);
/* Puts older coarse points (oldest first) below what is there. Anything that is not plausible is
 * left out: the bytes come from a disk. -ENOMEM. */
int series_restore(struct series *s, const struct series_point *v, size_t n) AV_MUST_CHECK;
