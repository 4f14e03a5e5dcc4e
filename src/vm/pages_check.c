/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages_check.c - whether a saved memory is what was saved; and how much of it is whose
 */
#include "vm/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fd.h"
#include "base/num.h"
#include "vm/pages_internal.h"
#include "base/banned.h"

#define PAGE     VM_INFO_PAGE
#define ROLL_MAX 8192
/* Pages between two that were written, which are read with them: a read less. */
#define GAP 8

uint64_t pages_sum(const void *p, size_t n)
{
	return XXH3_64bits(p, n);
}

/* ---- checking ---- */

static int open_part(const char *path, uint64_t bytes, int *ret, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return av_err_sys(err, errno == ENOENT ? AV_ERR_CHECKSUM : AV_ERR_INTERNAL, errno,
		    "\"%s\" of a save cannot be opened", path);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != bytes)
		return av_err_set(err, AV_ERR_CHECKSUM,
		    "\"%s\" is not what was saved: it has %lld bytes instead of %llu", path,
		    (long long)st.st_size, (unsigned long long)bytes);
	*ret = AV_TAKE_FD(fd);
	return 0;
}

static int read_at(int fd, char *buf, size_t n, uint64_t at)
{
	for (size_t done = 0; done < n;) {
		ssize_t got = pread(fd, buf + done, n - done, (off_t)(at + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		done += (size_t)got;
	}
	return 0;
}

static bool has(const struct vm_info_block *b, unsigned int i)
{
	return b->pages[i / 64] >> (i % 64) & 1;
}

/* Reads the pages that were written, each to its place of the buffer, and some between them. */
static int read_block(int fd, const struct vm_info_block *b, char *buf)
{
	uint64_t start = (uint64_t)b->index * VM_INFO_BLOCK;
	for (unsigned int i = 0; i < PAGES_PER_BLOCK;) {
		if (!has(b, i)) {
			i++;
			continue;
		}
		unsigned int end = i + 1;
		for (unsigned int k = end; k < PAGES_PER_BLOCK && k < end + GAP; k++)
			if (has(b, k))
				end = k + 1;
		int r = read_at(fd, buf + (size_t)i * PAGE, (size_t)(end - i) * PAGE,
		    start + (uint64_t)i * PAGE);
		if (r < 0)
			return r;
		i = end;
	}
	return 0;
}

static uint64_t sum_block(const struct vm_info_block *b, const char *buf)
{
	uint64_t sums[PAGES_PER_BLOCK];
	size_t n = 0;
	for (unsigned int i = 0; i < PAGES_PER_BLOCK; i++)
		if (has(b, i))
			sums[n++] = pages_sum(buf + (size_t)i * PAGE, PAGE);
	return pages_sum(sums, n * sizeof(*sums));
}

static int check_memory(const char *path, const struct vm_info *info, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = -1;
	int r = open_part(path, info->memory_bytes, &fd, err);
	if (r < 0)
		return r;
	AV_CLEANUP(av_freep) char *buf = malloc(VM_INFO_BLOCK);
	if (!buf)
		return av_err_sys(err, AV_ERR_INTERNAL, ENOMEM, "\"%s\" cannot be checked", path);
	for (size_t i = 0; i < info->n_blocks; i++) {
		const struct vm_info_block *b = &info->blocks[i];
		r = read_block(fd, b, buf);
		if (r < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, r,
			    "\"%s\" cannot be read at MiB %u", path, b->index);
		if (sum_block(b, buf) != b->sum)
			return av_err_set(err, AV_ERR_CHECKSUM,
			    "\"%s\" is not what was saved: its MiB %u differs", path, b->index);
	}
	return 0;
}

static int sum_fd(int fd, uint64_t *ret_bytes, uint64_t *ret_sum)
{
	XXH3_state_t *state = XXH3_createState();
	char *buf = malloc(VM_INFO_BLOCK);
	uint64_t all = 0;
	int r = state && buf && XXH3_64bits_reset(state) == XXH_OK ? 0 : -ENOMEM;
	while (r == 0) {
		ssize_t n = av_read_full(fd, buf, VM_INFO_BLOCK);
		if (n < 0)
			r = (int)n;
		if (n <= 0)
			break;
		(void)XXH3_64bits_update(state, buf, (size_t)n);
		all += (uint64_t)n;
	}
	if (r == 0) {
		*ret_bytes = all;
		*ret_sum = XXH3_64bits_digest(state);
	}
	free(buf);
	(void)XXH3_freeState(state);
	return r;
}

int vm_pages_sum_file(const char *path, uint64_t *ret_bytes, uint64_t *ret_sum, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	int r = fd < 0 ? -errno : sum_fd(fd, ret_bytes, ret_sum);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "\"%s\" cannot be read", path) : 0;
}

int vm_pages_check(
    const char *memory, const char *state, const struct vm_info *info, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = -1;
	uint64_t bytes, sum;
	int r = open_part(state, info->state_bytes, &fd, err);
	if (r < 0)
		return r;
	r = sum_fd(fd, &bytes, &sum);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "\"%s\" cannot be read", state);
	if (bytes != info->state_bytes || sum != info->state_sum)
		return av_err_set(err, AV_ERR_CHECKSUM,
		    "\"%s\" is not what was saved: its checksum differs", state);
	return check_memory(memory, info, err);
}

/* ---- how much is whose ---- */

int pages_parse_kib(struct av_str text, const char *key, uint64_t *ret)
{
	struct av_str line, name;
	while (text.n > 0) {
		(void)av_str_cut(&text, '\n', &line);
		if (!av_str_cut(&line, ':', &name) || !av_str_eq_c(name, key))
			continue;
		line = av_str_trim(line);
		uint64_t n;
		if (!av_str_ends(line, AV_STR(" kB")))
			return -EPROTO;
		line = av_str_trim(av_str_n(line.p, line.n - 3));
		if (av_parse_u64(line, 0, UINT64_MAX / 1024, &n) < 0)
			return -EPROTO;
		*ret = n * 1024;
		return 0;
	}
	return -EPROTO;
}

/* Anonymous memory of the whole process, there or swapped. */
static int read_anonymous(pid_t pid, uint64_t *ret)
{
	char path[64], buf[ROLL_MAX];
	uint64_t there, swapped;
	(void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	ssize_t n = av_read_file_at(AT_FDCWD, path, buf, sizeof(buf));
	if (n < 0)
		return (int)n;
	struct av_str text = av_str_n(buf, (size_t)n);
	if (pages_parse_kib(text, "Anonymous", &there) < 0 ||
	    pages_parse_kib(text, "Swap", &swapped) < 0)
		return -EPROTO;
	*ret = there + swapped;
	return 0;
}

int vm_pages_usage(
    pid_t pid, const char *base, uint64_t bytes, struct vm_pages_usage *ret, struct av_err *err)
{
	struct pages_map map;
	struct pages_set set = {0};
	uint64_t all = 0;
	int r = pages_map_open(pid, base, bytes, &map, err);
	if (r < 0)
		return r;
	if (pages_set_init(&set, bytes) < 0)
		r = av_err_sys(err, AV_ERR_INTERNAL, ENOMEM, "memory cannot be looked at");
	if (r == 0)
		r = pages_map_scan(&map, &set, err);
	if (r == 0) {
		int e = read_anonymous(pid, &all);
		if (e < 0)
			r = av_err_sys(err, AV_ERR_INTERNAL, e,
			    "what memory QEMU (process %d) has cannot be read", (int)pid);
	}
	if (r == 0) {
		uint64_t own = pages_set_count(&set) * PAGE;
		*ret = (struct vm_pages_usage){
		    .private_bytes = own, .overhead_bytes = all > own ? all - own : 0};
	}
	pages_set_clear(&set);
	pages_map_clear(&map);
	return r;
}
