/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.h - the newest output of a process that nobody is attached to
 *
 * Theory of operation
 *
 * A ring holds records (channel, bytes) in the order in which they were read. It begins without
 * memory, doubles as it fills up to its maximum, and from then on drops whole records, oldest
 * first, counting their bytes. Records have at most RING_RECORD_MAX bytes, so that dropping is
 * fine-grained enough and a reader needs no more room than that.
 *
 * All rings share one budget; when it is used up a ring stays at the size it has (or, at size zero,
 * drops everything), so that many silent talkers cannot fill the sandbox's memory through its
 * agent.
 *
 * Readers are cursors into an absolute byte position and do not consume: any number may read, each
 * at its own pace. A cursor overtaken by the writer learns how many bytes it missed.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define RING_RECORD_MAX ((size_t)16 * 1024)

struct ring_budget {
	size_t used, max; /* bytes over all rings */
};

struct ring {
	struct ring_budget *budget; /* borrowed; must outlive the ring */
	char *p;                    /* owned, cap bytes */
	size_t cap;                 /* 0 or a power of two */
	size_t max;                 /* ceiling of cap */
	uint64_t start, end;        /* positions of the oldest record and behind the newest one */
	uint64_t last;              /* position of the newest record while it may still grow */
	uint64_t dropped;           /* payload bytes lost so far */
};

struct ring_cursor {
	uint64_t pos;  /* begin with zeroes */
	uint64_t seen; /* payload bytes that were read or told to be missing */
};

/* max must be a power of two of at least 8 KiB. */
void ring_init(struct ring *r, struct ring_budget *budget, size_t max);
/* Frees the memory and gives it back to the budget; the ring may be used again, cursors may not. */
void ring_clear(struct ring *r);
/* Never fails: what cannot be kept is counted. */
void ring_append(struct ring *r, uint8_t channel, const void *p, size_t n);

enum ring_read {
	RING_END,    /* the cursor is at the newest byte */
	RING_GAP,    /* *ret_n bytes are missing here */
	RING_RECORD, /* *ret_n bytes of *ret_channel are in dst */
};
/* The next thing for this cursor. dst has RING_RECORD_MAX bytes. */
enum ring_read ring_read(
    struct ring *r, struct ring_cursor *c, uint8_t *ret_channel, char *dst, uint64_t *ret_n);
