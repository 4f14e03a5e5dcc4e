/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map.c - hash map with open addressing and linear probing
 *
 * The hash is SipHash-1-3 over the key with 128 random bits per process (Aumasson, Bernstein 2012):
 * keys come from outside, and a guessable hash would let them all fall into one run of slots.
 */
#include "base/map.h"

#include <errno.h>
#include <stdlib.h>

#include "base/ids.h"
#include "base/banned.h"

struct av_map_entry {
	struct av_str key; /* borrowed */
	void *value;       /* NULL: empty or tombstone */
	uint64_t hash;
	bool tombstone;
};

static uint64_t seed[2];

static uint64_t rotl(uint64_t x, int b)
{
	return x << b | x >> (64 - b);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

static uint64_t hash_of(struct av_str key)
{
	uint64_t v[4] = {
	    seed[0] ^ 0x736f6d6570736575ull,
	    seed[1] ^ 0x646f72616e646f6dull,
	    seed[0] ^ 0x6c7967656e657261ull,
	    seed[1] ^ 0x7465646279746573ull,
	};
	size_t whole = key.n & ~(size_t)7;
	for (size_t i = 0; i < whole; i += 8) {
		uint64_t m;
		memcpy(&m, key.p + i, 8);
		v[3] ^= m;
		sip_round(v);
		v[0] ^= m;
	}
	uint64_t last = (uint64_t)key.n << 56;
	if (key.n > whole)
		memcpy(&last, key.p + whole, key.n - whole);
	last |= (uint64_t)(key.n & 0xff) << 56;
	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void av_map_init(struct av_map *m)
{
	if (seed[0] == 0 && seed[1] == 0)
		av_random(seed, sizeof(seed));
	*m = (struct av_map){0};
}

void av_map_clear(struct av_map *m)
{
	free(m->slots);
	*m = (struct av_map){0};
}

/* The slot that holds key, or NULL. */
static struct av_map_entry *find(const struct av_map *m, struct av_str key, uint64_t hash)
{
	if (m->cap == 0)
		return NULL;
	for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
		struct av_map_entry *e = &m->slots[i];
		if (!e->value && !e->tombstone)
			return NULL;
		if (e->value && e->hash == hash && av_str_eq(e->key, key))
			return e;
	}
}

static void insert(struct av_map_entry *slots, size_t cap, struct av_map_entry entry)
{
	size_t i = entry.hash & (cap - 1);
	while (slots[i].value)
		i = (i + 1) & (cap - 1);
	slots[i] = entry;
}

static int rehash(struct av_map *m)
{
	size_t cap = 16;
	while (cap < m->n * 4)
		cap *= 2;
	struct av_map_entry *slots = calloc(cap, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < m->cap; i++)
		if (m->slots[i].value)
			insert(slots, cap, m->slots[i]);
	free(m->slots);
	m->slots = slots;
	m->cap = cap;
	m->used = m->n;
	return 0;
}

void *av_map_get(const struct av_map *m, struct av_str key)
{
	const struct av_map_entry *e = find(m, key, hash_of(key));
	return e ? e->value : NULL;
}

int av_map_put(struct av_map *m, struct av_str key, void *value)
{
	assert(value);
	uint64_t hash = hash_of(key);
	if (find(m, key, hash))
		return -EEXIST;
	if ((m->used + 1) * 4 > m->cap * 3) {
		int r = rehash(m);
		if (r < 0)
			return r;
	}
	size_t i = hash & (m->cap - 1);
	while (m->slots[i].value)
		i = (i + 1) & (m->cap - 1);
	if (!m->slots[i].tombstone)
		m->used++;
	m->slots[i] = (struct av_map_entry){.key = key, .value = value, .hash = hash};
	m->n++;
	return 0;
}

void *av_map_remove(struct av_map *m, struct av_str key)
{
	struct av_map_entry *e = find(m, key, hash_of(key));
	if (!e)
		return NULL;
	void *value = e->value;
	*e = (struct av_map_entry){.tombstone = true};
	m->n--;
	return value;
}

void *av_map_next(const struct av_map *m, size_t *pos)
{
	while (*pos < m->cap) {
		void *value = m->slots[(*pos)++].value;
		if (value)
			return value;
	}
	return NULL;
}
