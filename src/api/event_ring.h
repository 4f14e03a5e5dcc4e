/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event_ring.h - the newest events of a team, as text, for readers that each are somewhere in it
 *
 * Events have numbers from 1 on, without holes. The ring keeps at most EVENT_RING_MAX of them and
 * EVENT_RING_BYTES of text; what is older has gone, which readers see from the numbers. One that is
 * empty holds no memory.
 */
#pragma once

#include <stdint.h>

#include "base/ids.h"
#include "base/str.h"

#define EVENT_RING_MAX   1024
#define EVENT_RING_BYTES ((size_t)2 << 20)

struct event_item {
	char *text; /* owned */
	uint32_t n;
	uint32_t kind;
	char about[AV_ID_SIZE]; /* id of the sandbox; or empty */
};

struct event_ring {
	struct event_item *items; /* EVENT_RING_MAX, number modulo that; NULL: none are kept */
	uint64_t first, next;     /* there are first..next-1 */
	size_t bytes;             /* of text */
};

void event_ring_init(struct event_ring *r);
/* Those that are kept go; numbers go on. */
void event_ring_clear(struct event_ring *r);
/* Bytes of memory that it holds. */
size_t event_ring_cost(const struct event_ring *r);
/* As number r->next; text is copied. An event that cannot be kept (no memory, over
 * EVENT_RING_BYTES) empties the ring and takes its number all the same: who reads sees that
 * something is missing. */
void event_ring_push(struct event_ring *r, uint32_t kind, const char *about, struct av_str text);
/* One happened that cannot be written: as one that cannot be kept. */
void event_ring_lose(struct event_ring *r);
/* NULL: gone already, or not there yet. Valid until the next push. */
const struct event_item *event_ring_get(const struct event_ring *r, uint64_t number);
