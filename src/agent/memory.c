/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.c - keeps the agent small: how the allocator behaves, and giving memory back after work
 *
 * Blocks of transfers come from the heap rather than from mappings of their own, since mapping and
 * zeroing 256 KiB for each would cost as much as reading it. The price, a heap that has grown, is
 * paid back TRIM_MS after the last work.
 */
#include "agent/memory.h"

#include <malloc.h>

#include "agent/server.h"

#include "base/banned.h"

#define MMAP_BYTES ((size_t)2 * 1024 * 1024)
#define TRIM_BYTES ((size_t)4 * 1024 * 1024)
#define PAD_BYTES  ((size_t)16 * 1024)
#define TRIM_MS    1000

void memory_configure(void)
{
	mallopt(M_MMAP_THRESHOLD, MMAP_BYTES);
	mallopt(M_TRIM_THRESHOLD, TRIM_BYTES);
	mallopt(M_TOP_PAD, PAD_BYTES);
	/* Threads of the pool share the one arena: 2 more would cost more than they save. */
	mallopt(M_ARENA_MAX, 1);
}

void memory_init(struct agent *a)
{
	uv_timer_init(&a->loop, &a->trim);
}

static void on_trim(uv_timer_t *timer)
{
	server_trim(AV_CONTAINER_OF(timer, struct agent, trim)->server);
	malloc_trim(PAD_BYTES);
}

void memory_trim_later(struct agent *a)
{
	uv_timer_start(&a->trim, on_trim, TRIM_MS, 0);
}
