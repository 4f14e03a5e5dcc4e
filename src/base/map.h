/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map.h - hash map from byte strings to pointers
 *
 * Keys are borrowed: they must live as long as the entry (usually a field of the value). Keyed
 * SipHash-like mixing with a random seed per process, so that foreign keys cannot flood a bucket.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct av_map_entry;
struct av_map {
	struct av_map_entry *slots; /* owned, open addressing */
	size_t cap;                 /* power of two, or 0 */
	size_t n;                   /* live entries */
	size_t used;                /* live entries and tombstones */
};

void av_map_init(struct av_map *m);
void av_map_clear(struct av_map *m); /* frees the table, not the values */
void *av_map_get(const struct av_map *m, struct av_str key);
/* -EEXIST when the key is there, -ENOMEM. value must not be NULL. */
int av_map_put(struct av_map *m, struct av_str key, void *value) AV_MUST_CHECK;
/* The value that was there, or NULL. */
void *av_map_remove(struct av_map *m, struct av_str key);
/* Iteration: start with *pos = 0; NULL at the end. No changes meanwhile, except removing the entry
 * just returned. */
void *av_map_next(const struct av_map *m, size_t *pos);
