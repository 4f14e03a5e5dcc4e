/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.c - a file of the memory of a guest
 */
#include "vm/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <uv.h>

#include "base/fd.h"
#include "vm/copy.h"
#include "vm/pages_internal.h"
#include "base/banned.h"

#define PAGE          VM_INFO_PAGE
#define PAGES_FOR_TWO 1024 /* 4 MiB: with fewer a thread more costs what it gains */
#define PUNCH_LEAST   16   /* pages: fewer are written as zeros, which costs less than a hole */

struct vm_pages {
	struct pages_map map;
	char *base; /* owned: its path */
	char *path; /* owned: of the file that is made; NULL: none, or it is finished */
	int from;   /* the base, owned */
	int to;     /* owned */
	bool shared;
	struct pages_set owned;  /* private now */
	struct pages_set before; /* private in the first pass, and so in the file */
	struct pages_set data;   /* where the file has data: elsewhere it reads as zeros */
	uint64_t **sums;         /* of each block, PAGES_PER_BLOCK of them where there was one */
	size_t n_blocks;
	uint64_t again_pages;
	atomic_size_t next_block; /* that nobody has taken yet */
};

/* One of the threads that share the blocks. What is of one block is never touched by two. */
struct worker {
	struct vm_pages *p;
	char *buf; /* owned: a block */
	size_t hint;
	uint64_t again_pages;
	int error;
};

/* ---- life ---- */

void vm_pages_free(struct vm_pages *p)
{
	if (!p)
		return;
	if (p->path)
		(void)unlink(p->path);
	free(p->path);
	free(p->base);
	for (size_t i = 0; p->sums && i < p->n_blocks; i++)
		free(p->sums[i]);
	free(p->sums);
	pages_set_clear(&p->owned);
	pages_set_clear(&p->before);
	pages_set_clear(&p->data);
	pages_map_clear(&p->map);
	av_close_fd(&p->from);
	av_close_fd(&p->to);
	free(p);
}

static void freep(struct vm_pages **p)
{
	vm_pages_free(*p);
}

static int open_base(struct vm_pages *p, const char *base, struct av_err *err)
{
	struct stat st;
	p->from = open(base, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (p->from < 0 || fstat(p->from, &st) < 0)
		return av_err_sys(err, errno == ENOENT ? AV_ERR_NOT_FOUND : AV_ERR_INTERNAL, errno,
		    "the memory file \"%s\" cannot be opened", base);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != p->map.bytes)
		return av_err_set(err, AV_ERR_CHECKSUM,
		    "the memory file \"%s\" has %lld bytes instead of %llu", base,
		    (long long)st.st_size, (unsigned long long)p->map.bytes);
	return 0;
}

static int allocate(struct vm_pages *p, const char *base, uint64_t bytes)
{
	p->n_blocks = (size_t)(bytes / VM_INFO_BLOCK);
	p->base = av_str_dup(av_str_c(base));
	p->sums = calloc(p->n_blocks, sizeof(*p->sums));
	if (!p->base || !p->sums || pages_set_init(&p->owned, bytes) < 0 ||
	    pages_set_init(&p->before, bytes) < 0 || pages_set_init(&p->data, bytes) < 0)
		return -ENOMEM;
	return 0;
}

int vm_pages_open(
    pid_t pid, const char *base, uint64_t bytes, struct vm_pages **ret, struct av_err *err)
{
	AV_CLEANUP(freep) struct vm_pages *p = calloc(1, sizeof(*p));
	if (!p)
		return av_err_sys(err, AV_ERR_INTERNAL, ENOMEM, "memory cannot be saved");
	p->from = p->to = p->map.pagemap = -1;
	int r = pages_map_open(pid, base, bytes, &p->map, err);
	if (r == 0 && allocate(p, base, bytes) < 0)
		r = av_err_sys(err, AV_ERR_INTERNAL, ENOMEM, "memory cannot be saved");
	if (r == 0)
		r = open_base(p, base, err);
	if (r == 0)
		*ret = AV_TAKE_PTR(p);
	return r;
}

/* ---- blocks ---- */

/* A run of pages of one block, by their numbers in it. */
struct run {
	unsigned int first, end;
};

/* The next run of set bits from `at` on; false when there is none. */
static bool next_run(const uint64_t mask[VM_INFO_BLOCK_WORDS], unsigned int at, struct run *ret)
{
	unsigned int i = at;
	while (i < PAGES_PER_BLOCK && !(mask[i / 64] >> (i % 64) & 1))
		i++;
	if (i == PAGES_PER_BLOCK)
		return false;
	ret->first = i;
	while (i < PAGES_PER_BLOCK && (mask[i / 64] >> (i % 64) & 1))
		i++;
	ret->end = i;
	return true;
}

static void mask_set(uint64_t mask[VM_INFO_BLOCK_WORDS], unsigned int i)
{
	mask[i / 64] |= 1ull << (i % 64);
}

static bool mask_empty(const uint64_t mask[VM_INFO_BLOCK_WORDS])
{
	return !(mask[0] | mask[1] | mask[2] | mask[3]);
}

static char *page_in(struct worker *w, unsigned int i)
{
	return w->buf + (size_t)i * PAGE;
}

static bool is_zero(const char *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

/* From the machine into the buffer, each page at its place of the block. */
static int read_private(struct worker *w, size_t block, const uint64_t mask[VM_INFO_BLOCK_WORDS])
{
	struct iovec local[PAGES_PER_BLOCK], remote[PAGES_PER_BLOCK];
	unsigned long n = 0;
	size_t want = 0;
	struct run run = {0};
	static_assert(PAGES_PER_BLOCK <= 1024, "IOV_MAX");
	while (next_run(mask, run.end, &run))
		for (unsigned int i = run.first; i < run.end; i++) {
			uint64_t at = (uint64_t)block * VM_INFO_BLOCK + (uint64_t)i * PAGE;
			uint64_t address = pages_map_address(&w->p->map, at, &w->hint);
			char *here = page_in(w, i);
			want += PAGE;
			/* A run is one piece, unless the mapping comes in several. */
			if (i > run.first &&
			    (uintptr_t)remote[n - 1].iov_base + remote[n - 1].iov_len == address) {
				local[n - 1].iov_len += PAGE;
				remote[n - 1].iov_len += PAGE;
				continue;
			}
			local[n] = (struct iovec){.iov_base = here, .iov_len = PAGE};
			remote[n++] =
			    (struct iovec){.iov_base = (void *)(uintptr_t)address, .iov_len = PAGE};
		}
	ssize_t got = process_vm_readv(w->p->map.pid, local, n, remote, n, 0);
	if (got < 0)
		return -errno;
	return (size_t)got == want ? 0 : -EFAULT;
}

static int write_run(struct worker *w, size_t block, struct run run)
{
	struct vm_pages *p = w->p;
	off_t at = (off_t)(block * VM_INFO_BLOCK + (size_t)run.first * PAGE);
	size_t n = (size_t)(run.end - run.first) * PAGE;
	for (size_t done = 0; done < n;) {
		ssize_t put =
		    pwrite(p->to, page_in(w, run.first) + done, n - done, at + (off_t)done);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put < 0 ? -errno : -EIO;
		done += (size_t)put;
	}
	for (unsigned int i = run.first; i < run.end; i++)
		pages_set_add(&p->data, block * PAGES_PER_BLOCK + i);
	return 0;
}

/* Pages that the base has, and that are zero now. */
static int punch_run(struct worker *w, size_t block, struct run run)
{
	struct vm_pages *p = w->p;
	off_t at = (off_t)(block * VM_INFO_BLOCK + (size_t)run.first * PAGE);
	off_t n = (off_t)(run.end - run.first) * PAGE;
	if (run.end - run.first < PUNCH_LEAST ||
	    fallocate(p->to, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n) < 0)
		return write_run(w, block, run);
	for (unsigned int i = run.first; i < run.end; i++)
		pages_set_remove(&p->data, block * PAGES_PER_BLOCK + i);
	return 0;
}

/* The pages of the mask, from the buffer. What is zero there and in the file is left alone. */
static int write_pages(struct worker *w, size_t block, const uint64_t mask[VM_INFO_BLOCK_WORDS])
{
	struct vm_pages *p = w->p;
	uint64_t full[VM_INFO_BLOCK_WORDS] = {0}, holes[VM_INFO_BLOCK_WORDS] = {0};
	struct run run = {0};
	int r = 0;
	while (next_run(mask, run.end, &run))
		for (unsigned int i = run.first; i < run.end; i++) {
			uint64_t page = block * PAGES_PER_BLOCK + i;
			if (!is_zero(page_in(w, i)))
				mask_set(full, i);
			else if (pages_set_has(&p->before, page))
				mask_set(
				    full, i); /* just written: a hole would wait for the disk */
			else if (pages_set_has(&p->data, page))
				mask_set(holes, i);
		}
	for (run.end = 0; r == 0 && next_run(full, run.end, &run);)
		r = write_run(w, block, run);
	for (run.end = 0; r == 0 && next_run(holes, run.end, &run);)
		r = punch_run(w, block, run);
	return r;
}

/* Pages of the first pass that are the base's again. */
static int take_back(struct worker *w, size_t block, const uint64_t mask[VM_INFO_BLOCK_WORDS])
{
	struct vm_pages *p = w->p;
	struct run run = {0};
	int r = 0;
	while (r == 0 && next_run(mask, run.end, &run)) {
		off_t at = (off_t)(block * VM_INFO_BLOCK + (size_t)run.first * PAGE);
		size_t n = (size_t)(run.end - run.first) * PAGE, done = 0;
		while (r == 0 && done < n) {
			ssize_t got = pread(
			    p->from, page_in(w, run.first) + done, n - done, at + (off_t)done);
			if (got <= 0 && !(got < 0 && errno == EINTR))
				r = got < 0 ? -errno : -EIO;
			done += (size_t)AV_MAX(got, (ssize_t)0);
		}
		if (r == 0)
			r = write_run(w, block, run);
	}
	return r;
}

static int sum_pages(struct worker *w, size_t block, const uint64_t mask[VM_INFO_BLOCK_WORDS],
    uint64_t changed[VM_INFO_BLOCK_WORDS])
{
	struct vm_pages *p = w->p;
	struct run run = {0};
	if (!p->sums[block])
		p->sums[block] = calloc(PAGES_PER_BLOCK, sizeof(**p->sums));
	if (!p->sums[block])
		return -ENOMEM;
	while (next_run(mask, run.end, &run))
		for (unsigned int i = run.first; i < run.end; i++) {
			uint64_t sum = pages_sum(page_in(w, i), PAGE);
			if (!pages_set_has(&p->before, block * PAGES_PER_BLOCK + i) ||
			    p->sums[block][i] != sum)
				mask_set(changed, i);
			p->sums[block][i] = sum;
		}
	return 0;
}

/* One block, of which the pages of p->owned are private. */
static int save_block(struct worker *w, size_t block)
{
	struct vm_pages *p = w->p;
	const uint64_t *mask = &p->owned.words[block * VM_INFO_BLOCK_WORDS];
	const uint64_t *before = &p->before.words[block * VM_INFO_BLOCK_WORDS];
	uint64_t changed[VM_INFO_BLOCK_WORDS] = {0}, gone[VM_INFO_BLOCK_WORDS];
	int r = 0;
	for (size_t i = 0; i < VM_INFO_BLOCK_WORDS; i++)
		gone[i] = before[i] & ~mask[i];
	if (!mask_empty(mask)) {
		r = read_private(w, block, mask);
		if (r == 0)
			r = sum_pages(w, block, mask, changed);
		if (r == 0)
			r = write_pages(w, block, changed);
	}
	if (r == 0)
		r = take_back(w, block, gone);
	for (size_t i = 0; i < VM_INFO_BLOCK_WORDS; i++)
		w->again_pages += (uint64_t)__builtin_popcountll(changed[i]);
	return r;
}

/* Takes blocks until there are none, or one fails; the error is the worker's. */
static void work(void *arg)
{
	struct worker *w = arg;
	w->buf = malloc(VM_INFO_BLOCK);
	if (!w->buf)
		w->error = -ENOMEM;
	while (w->error == 0) {
		size_t block = atomic_fetch_add(&w->p->next_block, 1);
		if (block >= w->p->n_blocks)
			break;
		w->error = save_block(w, block);
	}
	if (w->error < 0)
		atomic_store(&w->p->next_block, w->p->n_blocks);
	free(w->buf);
}

/* Two at once: while one writes the other reads and sums up. */
static int save_blocks(struct vm_pages *p)
{
	struct worker own = {.p = p}, other = {.p = p};
	uv_thread_t thread;
	atomic_store(&p->next_block, 0);
	bool two = pages_set_count(&p->owned) >= PAGES_FOR_TWO &&
	           uv_thread_create(&thread, work, &other) == 0;
	work(&own);
	if (two)
		(void)uv_thread_join(&thread);
	p->again_pages = own.again_pages + other.again_pages;
	return own.error < 0 ? own.error : other.error;
}

static int save_all(struct vm_pages *p, struct av_err *err)
{
	int r = pages_map_scan(&p->map, &p->owned, err);
	if (r < 0)
		return r;
	r = save_blocks(p);
	if (r == -ESRCH || r == -EFAULT)
		return av_err_sys(err, AV_ERR_INTERNAL, r,
		    "the memory of QEMU (process %d) cannot be read", (int)p->map.pid);
	/* process_vm_readv on a child: nothing but Yama, or a module like it, says so. */
	if (r == -EPERM)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "the kernel does not let aviary-vm read the memory of QEMU, its child: "
		    "kernel.yama.ptrace_scope must be 0 or 1 on this machine (aviary doctor)");
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "\"%s\" cannot be written", p->path) : 0;
}

/* ---- the two steps ---- */

/* Where the copy has data. A file system that does not say has it everywhere. */
static int find_data(struct vm_pages *p)
{
	for (off_t at = 0; (uint64_t)at < p->map.bytes;) {
		off_t data = lseek(p->to, at, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		off_t hole = lseek(p->to, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		uint64_t end = AV_MIN((uint64_t)hole, p->map.bytes);
		for (uint64_t i = (uint64_t)data / PAGE; i * PAGE < end; i++)
			pages_set_add(&p->data, i);
		at = hole;
	}
	return 0;
}

int vm_pages_begin(struct vm_pages *p, const char *to, bool ahead, struct av_err *err)
{
	struct vm_copied copied;
	assert(p->to < 0);
	AV_CLEANUP(av_freep) char *path = av_str_dup(av_str_c(to));
	if (!path)
		return av_err_sys(err, AV_ERR_INTERNAL, ENOMEM, "memory cannot be saved");
	p->to = open(to, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (p->to < 0)
		return av_err_sys(err, errno == EEXIST ? AV_ERR_CONFLICT : AV_ERR_INTERNAL, errno,
		    "the memory file \"%s\" cannot be made", to);
	p->path = AV_TAKE_PTR(path);
	int r = vm_copy_fd(p->from, p->base, p->to, to, &copied, err);
	if (r < 0)
		return r;
	p->shared = copied.shared;
	r = find_data(p);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "\"%s\" cannot be looked at", to);
	if (!ahead)
		return 0;
	r = save_all(p, err);
	if (r == 0)
		memcpy(p->before.words, p->owned.words, p->owned.n_words * sizeof(uint64_t));
	return r;
}

/* What info says of what is in the file. */
static int fill_info(struct vm_pages *p, struct vm_info *info)
{
	size_t n = 0;
	uint64_t sums[PAGES_PER_BLOCK];
	for (size_t i = 0; i < p->n_blocks; i++)
		n += !mask_empty(&p->owned.words[i * VM_INFO_BLOCK_WORDS]);
	struct vm_info_block *blocks = n > 0 ? calloc(n, sizeof(*blocks)) : NULL;
	if (n > 0 && !blocks)
		return -ENOMEM;
	struct vm_info_block *b = blocks;
	for (size_t i = 0; i < p->n_blocks; i++) {
		const uint64_t *mask = &p->owned.words[i * VM_INFO_BLOCK_WORDS];
		struct run run = {0};
		size_t have = 0;
		while (next_run(mask, run.end, &run))
			for (unsigned int k = run.first; k < run.end; k++)
				sums[have++] = p->sums[i][k];
		if (have == 0 || !b)
			continue;
		b->index = (uint32_t)i;
		memcpy(b->pages, mask, sizeof(b->pages));
		b->sum = pages_sum(sums, have * sizeof(*sums));
		b++;
	}
	info->memory_bytes = p->map.bytes;
	info->pages = pages_set_count(&p->owned);
	info->blocks = blocks;
	info->n_blocks = n;
	return 0;
}

int vm_pages_finish(
    struct vm_pages *p, struct vm_info *info, struct vm_pages_written *ret, struct av_err *err)
{
	assert(p->path);
	bool again = pages_set_count(&p->before) > 0;
	int r = save_all(p, err);
	if (r < 0)
		return r;
	r = fill_info(p, info);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "memory cannot be saved");
	/* What a full disk still has to say. */
	int to = p->to;
	p->to = -1;
	if (close(to) < 0) {
		r = av_err_sys(err, AV_ERR_INTERNAL, errno, "\"%s\" cannot be written", p->path);
		free(info->blocks);
		info->blocks = NULL;
		info->n_blocks = 0;
		info->pages = 0;
		return r;
	}
	if (ret) {
		uint64_t written = 0;
		for (size_t i = 0; i < p->owned.n_words; i++)
			written +=
			    (uint64_t)__builtin_popcountll(p->owned.words[i] & p->data.words[i]);
		*ret = (struct vm_pages_written){.private_bytes = info->pages * PAGE,
		    .written_bytes = written * PAGE,
		    .again_bytes = again ? p->again_pages * PAGE : 0,
		    .shared = p->shared};
	}
	free(p->path);
	p->path = NULL;
	return 0;
}
