/* SPDX-License-Identifier: Apache-2.0 */
/*
 * info.c - writing and reading the file `info` of a save
 */
#include "vm/info.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/num.h"
#include "vm/vm_wire.h"
#include "base/banned.h"

#define FIRST    "aviary-vm-save 1"
#define HEAD_MAX 2048
/* "block <up to 7 digits> <64 hex> <16 hex>\n" */
#define BLOCK_LINE_MAX 100
#define BLOCK_LINE_MIN (6 + 1 + 1 + 64 + 1 + 16 + 1)

static size_t blocks_of(uint64_t memory_bytes)
{
	return (size_t)(memory_bytes / VM_INFO_BLOCK);
}

static size_t text_max(uint64_t memory_bytes)
{
	return HEAD_MAX + blocks_of(memory_bytes) * BLOCK_LINE_MAX;
}

void vm_info_clear(struct vm_info *info)
{
	free(info->blocks);
	memset(info, 0, sizeof(*info));
}

/* ---- what is allowed, both ways ---- */

static bool text_allowed(struct av_str s)
{
	if (s.n == 0 || s.n >= VM_INFO_TEXT_MAX || s.p[0] == ' ' || s.p[s.n - 1] == ' ')
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < ' ' || s.p[i] > '~')
			return false;
	return true;
}

static bool shape_allowed(const struct vm_info *info)
{
	return info->vcpus >= 1 && info->vcpus <= VM_INFO_VCPUS_MAX && info->memory_bytes > 0 &&
	       info->memory_bytes <= VM_INFO_MEMORY_MAX && info->memory_bytes % VM_INFO_BLOCK == 0;
}

static uint64_t pages_of(const struct vm_info_block *b)
{
	uint64_t n = 0;
	for (size_t i = 0; i < VM_INFO_BLOCK_WORDS; i++)
		n += (uint64_t)__builtin_popcountll(b->pages[i]);
	return n;
}

/* Ascending, within the memory, none without a page; what is counted is what they say. */
static bool blocks_allowed(const struct vm_info *info)
{
	uint64_t pages = 0;
	for (size_t i = 0; i < info->n_blocks; i++) {
		const struct vm_info_block *b = &info->blocks[i];
		if (b->index >= blocks_of(info->memory_bytes) || pages_of(b) == 0 ||
		    (i > 0 && b->index <= info->blocks[i - 1].index))
			return false;
		pages += pages_of(b);
	}
	return pages == info->pages;
}

/* ---- writing ---- */

static const char *accel_name(uint32_t accel)
{
	return accel == VM_ACCEL_TCG ? "tcg" : accel == VM_ACCEL_KVM ? "kvm" : NULL;
}

static const char *wrong_member(const struct vm_info *info)
{
	const struct {
		const char *name, *value;
	} texts[] = {{"qemu", info->qemu}, {"machine", info->machine}, {"cpu", info->cpu},
	    {"kernel", info->kernel}, {"base", info->base}};
	for (size_t i = 0; i < AV_ARRAY_LEN(texts); i++)
		if (!text_allowed(
		        av_str_n(texts[i].value, strnlen(texts[i].value, VM_INFO_TEXT_MAX))))
			return texts[i].name;
	if (!shape_allowed(info))
		return "shape";
	if (!accel_name(info->accel))
		return "accel";
	return blocks_allowed(info) ? NULL : "block";
}

int vm_info_encode(struct av_buf *dst, const struct vm_info *info, struct av_err *err)
{
	const char *wrong = wrong_member(info);
	if (wrong)
		return av_err_set(err, AV_ERR_INVALID,
		    "the value of \"%s\" is none that the record of a save can hold", wrong);
	size_t before = dst->n;
	(void)av_buf_printf(dst,
	    FIRST "\nshape %" PRIu32 " %" PRIu64 "\naccel %s\nqemu %s\nmachine %s\ncpu %s\n"
	          "kernel %s\nbase %s\npage %u\nstate %" PRIu64 " %016" PRIx64 "\ndisk %" PRIu64
	          "\nmemory %" PRIu64 " %zu\n",
	    info->vcpus, info->memory_bytes, accel_name(info->accel), info->qemu, info->machine,
	    info->cpu, info->kernel, info->base, VM_INFO_PAGE, info->state_bytes, info->state_sum,
	    info->disk_bytes, info->pages, info->n_blocks);
	for (size_t i = 0; i < info->n_blocks; i++) {
		const struct vm_info_block *b = &info->blocks[i];
		(void)av_buf_printf(dst,
		    "block %" PRIu32 " %016" PRIx64 "%016" PRIx64 "%016" PRIx64 "%016" PRIx64
		    " %016" PRIx64 "\n",
		    b->index, b->pages[3], b->pages[2], b->pages[1], b->pages[0], b->sum);
	}
	int r = av_buf_error(dst);
	if (r == 0) {
		struct av_str all = av_buf_str(dst);
		r = av_buf_printf(
		    dst, "end %016" PRIx64 "\n", XXH3_64bits(all.p + before, all.n - before));
	}
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "the record of a save cannot be made")
	             : 0;
}

int vm_info_write(const char *path, const struct vm_info *info, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(text_max(info->memory_bytes));
	int r = vm_info_encode(&text, info, err);
	if (r < 0)
		return r;
	AV_CLEANUP(av_closep)
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "\"%s\" cannot be made", path);
	struct av_str all = av_buf_str(&text);
	r = av_write_full(fd, all.p, all.n);
	if (r < 0) {
		(void)unlink(path);
		return av_err_sys(err, AV_ERR_INTERNAL, r, "\"%s\" cannot be written", path);
	}
	return 0;
}

/* ---- reading ---- */

struct reader {
	struct av_str rest;
	unsigned int line;
	const char *key; /* that was looked for last */
};

/* The values behind a key, which must be the next line's. */
static int next_line(struct reader *r, const char *key, struct av_str *ret)
{
	struct av_str line, word;
	r->line++;
	r->key = key;
	if (!av_str_cut(&r->rest, '\n', &line))
		return -EPROTO;
	if (!av_str_cut(&line, ' ', &word) || !av_str_eq_c(word, key))
		return -EPROTO;
	*ret = line;
	return 0;
}

static int read_text(struct reader *r, const char *key, char dst[static VM_INFO_TEXT_MAX])
{
	struct av_str s;
	if (next_line(r, key, &s) < 0 || !text_allowed(s))
		return -EPROTO;
	return av_str_copy(dst, VM_INFO_TEXT_MAX, s) < 0 ? -EPROTO : 0;
}

/* As we write it: no leading zeros. */
static int number(struct av_str s, uint64_t max, uint64_t *ret)
{
	if (s.n > 1 && s.p[0] == '0')
		return -EPROTO;
	return av_parse_u64(s, 0, max, ret) < 0 ? -EPROTO : 0;
}

static int hex(struct av_str s, uint64_t *ret)
{
	if (s.n != 16)
		return -EPROTO;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] >= 'A' && s.p[i] <= 'F')
			return -EPROTO;
	return av_parse_hex_u64(s, UINT64_MAX, ret) < 0 ? -EPROTO : 0;
}

static int read_number(struct reader *r, const char *key, uint64_t max, uint64_t *ret)
{
	struct av_str s;
	return next_line(r, key, &s) < 0 ? -EPROTO : number(s, max, ret);
}

static int read_two(
    struct reader *r, const char *key, struct av_str *ret_first, struct av_str *ret_second)
{
	struct av_str s, first;
	if (next_line(r, key, &s) < 0 || !av_str_cut(&s, ' ', &first))
		return -EPROTO;
	*ret_first = first;
	*ret_second = s;
	return 0;
}

static int read_shape(struct reader *r, struct vm_info *info)
{
	struct av_str vcpus, memory, accel;
	uint64_t n;
	if (read_two(r, "shape", &vcpus, &memory) < 0 || number(vcpus, VM_INFO_VCPUS_MAX, &n) < 0 ||
	    number(memory, VM_INFO_MEMORY_MAX, &info->memory_bytes) < 0)
		return -EPROTO;
	info->vcpus = (uint32_t)n;
	if (!shape_allowed(info) || next_line(r, "accel", &accel) < 0)
		return -EPROTO;
	info->accel = av_str_eq_c(accel, "tcg")   ? VM_ACCEL_TCG
	              : av_str_eq_c(accel, "kvm") ? VM_ACCEL_KVM
	                                          : 0;
	return info->accel ? 0 : -EPROTO;
}

static int read_sizes(struct reader *r, struct vm_info *info)
{
	struct av_str bytes, sum, pages, blocks;
	uint64_t n;
	if (read_number(r, "page", VM_INFO_PAGE, &n) < 0 || n != VM_INFO_PAGE ||
	    read_two(r, "state", &bytes, &sum) < 0 ||
	    number(bytes, INT64_MAX, &info->state_bytes) < 0 || hex(sum, &info->state_sum) < 0 ||
	    read_number(r, "disk", INT64_MAX, &info->disk_bytes) < 0 ||
	    read_two(r, "memory", &pages, &blocks) < 0 ||
	    number(pages, info->memory_bytes / VM_INFO_PAGE, &info->pages) < 0 ||
	    number(blocks,
	        AV_MIN(
	            (uint64_t)blocks_of(info->memory_bytes), (uint64_t)r->rest.n / BLOCK_LINE_MIN),
	        &n) < 0)
		return -EPROTO;
	info->n_blocks = (size_t)n;
	return 0;
}

static int read_block(struct reader *r, struct vm_info_block *b)
{
	struct av_str index, rest, mask;
	uint64_t n;
	if (read_two(r, "block", &index, &rest) < 0 || number(index, UINT32_MAX, &n) < 0 ||
	    !av_str_cut(&rest, ' ', &mask) || mask.n != 64 || hex(rest, &b->sum) < 0)
		return -EPROTO;
	b->index = (uint32_t)n;
	for (size_t i = 0; i < VM_INFO_BLOCK_WORDS; i++)
		if (hex(av_str_n(mask.p + 48 - 16 * i, 16), &b->pages[i]) < 0)
			return -EPROTO;
	return 0;
}

static int read_blocks(struct reader *r, struct vm_info *info)
{
	if (info->n_blocks == 0)
		return info->pages == 0 ? 0 : -EPROTO;
	/* No more than what was read can hold. */
	info->blocks = calloc(info->n_blocks, sizeof(*info->blocks));
	if (!info->blocks)
		return -ENOMEM;
	for (size_t i = 0; i < info->n_blocks; i++)
		if (read_block(r, &info->blocks[i]) < 0)
			return -EPROTO;
	return blocks_allowed(info) ? 0 : -EPROTO;
}

static int read_first(struct reader *r)
{
	struct av_str line;
	r->line++;
	r->key = "aviary-vm-save";
	return av_str_cut(&r->rest, '\n', &line) && av_str_eq_c(line, FIRST) ? 0 : -EPROTO;
}

static int read_end(struct reader *r, struct av_str text)
{
	struct av_str before = av_str_n(text.p, text.n - r->rest.n), s;
	uint64_t sum;
	if (next_line(r, "end", &s) < 0 || hex(s, &sum) < 0 || r->rest.n != 0)
		return -EPROTO;
	return sum == XXH3_64bits(before.p, before.n) ? 0 : -EBADMSG;
}

static int read_all(struct reader *r, struct vm_info *info, struct av_str text)
{
	int e = read_first(r);
	if (e == 0)
		e = read_shape(r, info);
	if (e == 0)
		e = read_text(r, "qemu", info->qemu);
	if (e == 0)
		e = read_text(r, "machine", info->machine);
	if (e == 0)
		e = read_text(r, "cpu", info->cpu);
	if (e == 0)
		e = read_text(r, "kernel", info->kernel);
	if (e == 0)
		e = read_text(r, "base", info->base);
	if (e == 0)
		e = read_sizes(r, info);
	if (e == 0)
		e = read_blocks(r, info);
	return e == 0 ? read_end(r, text) : e;
}

int vm_info_decode(struct av_str text, struct vm_info *ret, struct av_err *err)
{
	struct reader r = {.rest = text};
	struct vm_info info = {0};
	int e = read_all(&r, &info, text);
	if (e == 0) {
		*ret = info;
		return 0;
	}
	vm_info_clear(&info);
	if (e == -ENOMEM)
		return av_err_sys(err, AV_ERR_INTERNAL, e, "the record of a save cannot be read");
	if (e == -EBADMSG)
		return av_err_set(err, AV_ERR_CHECKSUM,
		    "the record of a save is not what was written: its checksum differs");
	return av_err_set(err, AV_ERR_CHECKSUM,
	    "the record of a save is damaged, or another version's: line %u is not what \"%s\" "
	    "can say",
	    r.line, r.key);
}

/* Into dst, whose ceiling is what the largest machine's has. */
static int read_file(const char *path, struct av_buf *dst, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return av_err_sys(err, errno == ENOENT ? AV_ERR_NOT_FOUND : AV_ERR_INTERNAL, errno,
		    "the record \"%s\" of a save cannot be opened", path);
	char *room;
	if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size > dst->max)
		return av_err_set(err, AV_ERR_CHECKSUM, "\"%s\" is not the record of a save", path);
	int r = av_buf_reserve(dst, (size_t)st.st_size + 1, &room);
	ssize_t n = r < 0 ? r : av_read_full(fd, room, (size_t)st.st_size);
	if (n < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, (int)n,
		    "the record \"%s\" of a save cannot be read", path);
	av_buf_commit(dst, (size_t)n);
	return 0;
}

int vm_info_read(const char *path, struct vm_info *ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(text_max(VM_INFO_MEMORY_MAX));
	int r = read_file(path, &text, err);
	if (r == 0) {
		r = vm_info_decode(av_buf_str(&text), ret, err);
		if (r < 0)
			av_err_prefix(err, "\"%s\"", path);
	}
	return r;
}
