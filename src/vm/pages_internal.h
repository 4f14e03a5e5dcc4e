/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages_internal.h - where QEMU has the guest's memory; for pages*.c and their test only
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/macros.h"
#include "base/str.h"
#include "vm/info.h"

#define PAGES_RANGES_MAX 4096
#define PAGES_PER_BLOCK  (VM_INFO_BLOCK / VM_INFO_PAGE)

/* A part of the file, and where it is mapped. */
struct pages_range {
	uint64_t address, offset, bytes;
};

/* A set of pages of the guest, one bit for each; words of 64. */
struct pages_set {
	uint64_t *words; /* owned */
	size_t n_words;
};

struct pages_map {
	pid_t pid;
	uint64_t bytes;             /* of the guest's memory, a multiple of VM_INFO_BLOCK */
	struct pages_range *ranges; /* owned; ascending by offset, without gaps from 0 to bytes */
	size_t n_ranges;
	int pagemap;  /* owned */
	bool no_scan; /* the kernel has no PAGEMAP_SCAN, or it is not to be used */
};

/* Reads /proc/<pid>/maps and opens pagemap. INVALID: no such mapping, a shared one, not all of it.
 */
int pages_map_open(pid_t pid, const char *base, uint64_t bytes, struct pages_map *ret,
    struct av_err *err) AV_MUST_CHECK;
void pages_map_clear(struct pages_map *m);

/* Which pages are private now: present or swapped, and not of a file. The set is emptied first. */
int pages_map_scan(struct pages_map *m, struct pages_set *set, struct av_err *err) AV_MUST_CHECK;

/* Where a page of the guest is in the process. The range that has it is looked for from *hint on.
 */
uint64_t pages_map_address(const struct pages_map *m, uint64_t offset, size_t *hint);

int pages_set_init(struct pages_set *s, uint64_t memory_bytes) AV_MUST_CHECK;
void pages_set_clear(struct pages_set *s);
static inline bool pages_set_has(const struct pages_set *s, uint64_t page)
{
	return s->words[page / 64] >> (page % 64) & 1;
}
static inline void pages_set_add(struct pages_set *s, uint64_t page)
{
	s->words[page / 64] |= 1ull << (page % 64);
}
static inline void pages_set_remove(struct pages_set *s, uint64_t page)
{
	s->words[page / 64] &= ~(1ull << (page % 64));
}
uint64_t pages_set_count(const struct pages_set *s);

/* ---- parsers, for the test ---- */

/* One line of maps without its newline. False: not such a line, or of another file than base.
 * Sharing is an error: -EPROTO. */
int pages_parse_line(struct av_str line, const char *base, struct pages_range *ret) AV_MUST_CHECK;
/* Sorts, and checks that they cover 0 to bytes once: 0 or -EPROTO. */
int pages_check_ranges(struct pages_range *ranges, size_t n, uint64_t bytes) AV_MUST_CHECK;
/* An entry of pagemap. */
bool pages_is_private(uint64_t entry);
/* The line "<key>   <n> kB" of smaps_rollup, in bytes; -EPROTO when there is none. */
int pages_parse_kib(struct av_str text, const char *key, uint64_t *ret) AV_MUST_CHECK;

/* The sum of one page, and of a block of which n pages were written. */
uint64_t pages_sum(const void *p, size_t n);
