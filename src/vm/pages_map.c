/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages_map.c - where QEMU has the guest's memory, and which of its pages are private
 */
#include "vm/pages_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/banned.h"

#define PAGE      VM_INFO_PAGE
#define LINE_SIZE (64 * 1024)
#define MAPS_MAX  (64 * AV_MIB) /* 65,530 mappings, the kernel's default limit, are far below */
#define ENTRIES   (64 * 1024)   /* of pagemap at a time: 512 KiB, 256 MiB of memory */
#define REGIONS   1024

/* Documentation/admin-guide/mm/pagemap.rst */
#define ENTRY_FILE    (1ull << 61)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_PRESENT (1ull << 63)

/* The same, from Linux 6.7; not in the headers of older systems. */
struct scan_region {
	__u64 start, end, categories;
};
struct scan_arg {
	__u64 size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
	    category_mask, category_anyof_mask, return_mask;
};
#define SCAN_IOCTL   _IOWR('f', 16, struct scan_arg)
#define SCAN_FILE    (1u << 2)
#define SCAN_PRESENT (1u << 3)
#define SCAN_SWAPPED (1u << 4)

/* ---- sets ---- */

int pages_set_init(struct pages_set *s, uint64_t memory_bytes)
{
	s->n_words = (size_t)((memory_bytes / PAGE + 63) / 64);
	s->words = calloc(s->n_words, sizeof(*s->words));
	return s->words ? 0 : -ENOMEM;
}

void pages_set_clear(struct pages_set *s)
{
	free(s->words);
	*s = (struct pages_set){0};
}

uint64_t pages_set_count(const struct pages_set *s)
{
	uint64_t n = 0;
	for (size_t i = 0; i < s->n_words; i++)
		n += (uint64_t)__builtin_popcountll(s->words[i]);
	return n;
}

/* ---- maps ---- */

/* "<start>-<end> <perms> <offset> <dev> <inode>   <path>" */
int pages_parse_line(struct av_str line, const char *base, struct pages_range *ret)
{
	struct av_str start, end, perms, offset, dev, inode;
	uint64_t from, to, at;
	if (!av_str_cut(&line, '-', &start) || !av_str_cut(&line, ' ', &end) ||
	    !av_str_cut(&line, ' ', &perms) || !av_str_cut(&line, ' ', &offset) ||
	    !av_str_cut(&line, ' ', &dev) || !av_str_cut(&line, ' ', &inode))
		return 0;
	while (line.n > 0 && line.p[0] == ' ')
		line = av_str_n(line.p + 1, line.n - 1);
	if (!av_str_eq_c(line, base))
		return 0;
	if (perms.n != 4 || perms.p[3] != 'p' || av_parse_hex_u64(start, UINT64_MAX, &from) < 0 ||
	    av_parse_hex_u64(end, UINT64_MAX, &to) < 0 ||
	    av_parse_hex_u64(offset, INT64_MAX, &at) < 0 || from >= to || from % PAGE != 0 ||
	    to % PAGE != 0 || at % PAGE != 0)
		return -EPROTO;
	*ret = (struct pages_range){.address = from, .offset = at, .bytes = to - from};
	return 1;
}

static int by_offset(const void *a, const void *b)
{
	const struct pages_range *x = a, *y = b;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

int pages_check_ranges(struct pages_range *ranges, size_t n, uint64_t bytes)
{
	uint64_t at = 0;
	if (n > 0)
		qsort(ranges, n, sizeof(*ranges), by_offset);
	for (size_t i = 0; i < n; i++) {
		if (ranges[i].offset != at || ranges[i].bytes > bytes - at)
			return -EPROTO;
		at += ranges[i].bytes;
	}
	return at == bytes ? 0 : -EPROTO;
}

static int add_line(struct pages_map *m, struct av_str line, const char *base)
{
	struct pages_range range;
	int r = pages_parse_line(line, base, &range);
	if (r <= 0)
		return r;
	if (m->n_ranges == PAGES_RANGES_MAX)
		return -EPROTO;
	m->ranges[m->n_ranges++] = range;
	return 0;
}

/* All whole lines of what is there; the rest moves to the front. */
static int take_lines(struct pages_map *m, char *buf, size_t *n, const char *base)
{
	struct av_str rest = av_str_n(buf, *n), line;
	while (av_str_chr(rest, '\n') >= 0) {
		(void)av_str_cut(&rest, '\n', &line);
		int r = add_line(m, line, base);
		if (r < 0)
			return r;
	}
	if (rest.n == LINE_SIZE)
		return -EPROTO;
	memmove(buf, rest.p, rest.n);
	*n = rest.n;
	return 0;
}

static int read_maps(struct pages_map *m, int fd, const char *base)
{
	AV_CLEANUP(av_freep) char *buf = malloc(LINE_SIZE);
	uint64_t all = 0;
	size_t have = 0;
	int r = buf ? 0 : -ENOMEM;
	while (r == 0) {
		ssize_t n = read(fd, buf + have, LINE_SIZE - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		have += (size_t)n;
		all += (uint64_t)n;
		r = all > MAPS_MAX ? -EPROTO : take_lines(m, buf, &have, base);
	}
	return r;
}

static int open_proc(pid_t pid, const char *name)
{
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int find(struct pages_map *m, const char *base, struct av_err *err)
{
	AV_CLEANUP(av_closep) int maps = open_proc(m->pid, "maps");
	int r = maps < 0 ? maps : read_maps(m, maps, base);
	if (r < 0 && r != -EPROTO)
		return av_err_sys(err, AV_ERR_INTERNAL, r,
		    "the mappings of QEMU (process %d) cannot be read", (int)m->pid);
	if (r == 0 && m->n_ranges == 0)
		return av_err_set(err, AV_ERR_INVALID, "QEMU (process %d) does not map \"%s\"",
		    (int)m->pid, base);
	if (r < 0 || pages_check_ranges(m->ranges, m->n_ranges, m->bytes) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "QEMU (process %d) does not map all %llu bytes of \"%s\" privately and once",
		    (int)m->pid, (unsigned long long)m->bytes, base);
	return 0;
}

void pages_map_clear(struct pages_map *m)
{
	free(m->ranges);
	av_close_fd(&m->pagemap);
	*m = (struct pages_map){.pagemap = -1};
}

int pages_map_open(
    pid_t pid, const char *base, uint64_t bytes, struct pages_map *ret, struct av_err *err)
{
	struct pages_map m = {.pid = pid, .bytes = bytes, .pagemap = -1};
	if (bytes == 0 || bytes % VM_INFO_BLOCK != 0 || bytes > VM_INFO_MEMORY_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "%llu bytes are no memory of a machine: it is a multiple of 1 MiB, up to 1 TiB",
		    (unsigned long long)bytes);
	m.ranges = calloc(PAGES_RANGES_MAX, sizeof(*m.ranges));
	if (!m.ranges)
		return av_err_sys(err, AV_ERR_INTERNAL, ENOMEM, "memory cannot be looked at");
	int r = find(&m, base, err);
	if (r == 0) {
		m.pagemap = open_proc(pid, "pagemap");
		if (m.pagemap < 0)
			r = av_err_sys(err, AV_ERR_INTERNAL, m.pagemap,
			    "the page table of QEMU (process %d) cannot be read", (int)pid);
	}
	if (r < 0) {
		pages_map_clear(&m);
		return r;
	}
	*ret = m;
	return 0;
}

uint64_t pages_map_address(const struct pages_map *m, uint64_t offset, size_t *hint)
{
	size_t i = *hint < m->n_ranges && m->ranges[*hint].offset <= offset ? *hint : 0;
	while (offset - m->ranges[i].offset >= m->ranges[i].bytes)
		i++; /* they cover all of it */
	*hint = i;
	return m->ranges[i].address + (offset - m->ranges[i].offset);
}

/* ---- which pages ---- */

bool pages_is_private(uint64_t entry)
{
	return (entry & (ENTRY_PRESENT | ENTRY_SWAPPED)) != 0 && !(entry & ENTRY_FILE);
}

static int scan_entries(
    struct pages_map *m, const struct pages_range *range, uint64_t *entries, struct pages_set *set)
{
	uint64_t first = range->offset / PAGE, pages = range->bytes / PAGE;
	for (uint64_t done = 0; done < pages;) {
		size_t want = (size_t)AV_MIN(pages - done, (uint64_t)ENTRIES) * sizeof(*entries);
		off_t at = (off_t)((range->address / PAGE + done) * sizeof(*entries));
		ssize_t n = pread(m->pagemap, entries, want, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < (ssize_t)sizeof(*entries))
			return n < 0 ? -errno : -ESRCH; /* it has no memory any more */
		for (size_t i = 0; i < (size_t)n / sizeof(*entries); i++)
			if (pages_is_private(entries[i]))
				pages_set_add(set, first + done + i);
		done += (size_t)n / sizeof(*entries);
	}
	return 0;
}

static void add_region(
    const struct pages_range *range, const struct scan_region *region, struct pages_set *set)
{
	if (region->start < range->address || region->end > range->address + range->bytes)
		return;
	uint64_t to = (range->offset + (region->end - range->address)) / PAGE;
	for (uint64_t i = (range->offset + (region->start - range->address)) / PAGE; i < to; i++)
		pages_set_add(set, i);
}

/* -ENOTTY: the kernel does not know it. */
static int scan_regions(struct pages_map *m, const struct pages_range *range,
    struct scan_region *regions, struct pages_set *set)
{
	uint64_t end = range->address + range->bytes;
	for (uint64_t at = range->address; at < end;) {
		struct scan_arg arg = {.size = sizeof(arg),
		    .start = at,
		    .end = end,
		    .vec = (uintptr_t)regions,
		    .vec_len = REGIONS,
		    .category_inverted = SCAN_FILE,
		    .category_mask = SCAN_FILE,
		    .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
		    .return_mask = SCAN_PRESENT | SCAN_SWAPPED};
		int n = ioctl(m->pagemap, SCAN_IOCTL, &arg);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EINVAL ? -ENOTTY : -errno;
		for (int i = 0; i < AV_MIN(n, REGIONS); i++)
			add_region(range, &regions[i], set);
		if (arg.walk_end <= at)
			return -EPROTO;
		at = arg.walk_end;
	}
	return 0;
}

static int scan_range(
    struct pages_map *m, const struct pages_range *range, void *buf, struct pages_set *set)
{
	if (!m->no_scan) {
		int r = scan_regions(m, range, buf, set);
		if (r != -ENOTTY)
			return r;
		m->no_scan = true;
	}
	return scan_entries(m, range, buf, set);
}

int pages_map_scan(struct pages_map *m, struct pages_set *set, struct av_err *err)
{
	AV_CLEANUP(av_freep) void *buf = malloc(ENTRIES * sizeof(uint64_t));
	static_assert(REGIONS * sizeof(struct scan_region) <= ENTRIES * sizeof(uint64_t),
	    "one buffer for both ways");
	int r = buf ? 0 : -ENOMEM;
	memset(set->words, 0, set->n_words * sizeof(*set->words));
	for (size_t i = 0; r == 0 && i < m->n_ranges; i++)
		r = scan_range(m, &m->ranges[i], buf, set);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r,
		    "the page table of QEMU (process %d) cannot be read", (int)m->pid);
	return 0;
}
