/* SPDX-License-Identifier: Apache-2.0 */
/*
 * info.h - the file `info` of a save: what machine it is of, and checksums of what it stored
 *
 * Lines of text, each "<key> <value>…\n", all of them, in this order and in no other form:
 *
 *   aviary-vm-save 1
 *   shape <vcpus> <memory bytes>
 *   accel tcg|kvm
 *   qemu <version>
 *   machine <type of QEMU, with its version>
 *   cpu <model>
 *   kernel <release of the guest's>
 *   base <what the memory was a private mapping of; "-": nothing, it is all there>
 *   page <bytes>
 *   state <bytes> <sum>
 *   disk <bytes>
 *   memory <pages that were written> <blocks with such pages>
 *   block <number> <which of its pages, 64 hex digits> <sum>      (ascending numbers)
 *   end <sum of all that stands before this line>
 *
 * Sums are XXH3 of 64 bits, 16 hex digits: they notice accidents (a disk that lost or mixed up
 * blocks, a file that was cut), not malice; who can write here is the machine itself.
 *
 * A block is 1 MiB of guest memory, its sum is taken over the sums of those of its pages that were
 * written (in order), and the other pages are the base's: a golden snapshot or a snapshot, whose
 * layers are summed and sealed as all templates are. Bit i of the mask is page i; the first of the
 * 64 digits holds pages 255 to 252.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/str.h"

#define VM_INFO_PAGE        4096u
#define VM_INFO_BLOCK       (1u << 20)
#define VM_INFO_BLOCK_WORDS 4 /* of 64 pages each */
/* The largest machine that has a save: 1 TiB of memory. */
#define VM_INFO_MEMORY_MAX (1ull << 40)
#define VM_INFO_VCPUS_MAX  1024u
#define VM_INFO_TEXT_MAX   96

struct vm_info_block {
	uint32_t index; /* its place is index * VM_INFO_BLOCK */
	uint64_t pages[VM_INFO_BLOCK_WORDS];
	uint64_t sum;
};

/* Text: printable ASCII, at least one character, no space at either end. */
struct vm_info {
	uint32_t vcpus;
	uint32_t accel; /* enum vm_accel of vm_wire.h */
	uint64_t memory_bytes;
	char qemu[VM_INFO_TEXT_MAX];
	char machine[VM_INFO_TEXT_MAX];
	char cpu[VM_INFO_TEXT_MAX];
	char kernel[VM_INFO_TEXT_MAX];
	char base[VM_INFO_TEXT_MAX];
	uint64_t state_bytes, state_sum;
	uint64_t disk_bytes;
	uint64_t pages;               /* how many bits are set in blocks */
	struct vm_info_block *blocks; /* owned; NULL when there are none */
	size_t n_blocks;
};

/* Frees the blocks and zeroes the struct. */
void vm_info_clear(struct vm_info *info);

/* Writes the file, which must not exist. On failure there is none. INVALID: a text that may not be
 * in it. Blocking. */
int vm_info_write(const char *path, const struct vm_info *info, struct av_err *err) AV_MUST_CHECK;

/* The other way; *ret needs vm_info_clear. CHECKSUM: not such a file, cut, or changed; the message
 * names path and line. Blocking. */
int vm_info_read(const char *path, struct vm_info *ret, struct av_err *err) AV_MUST_CHECK;

/* The codec alone. Decode takes any bytes. */
struct av_buf;
int vm_info_encode(
    struct av_buf *dst, const struct vm_info *info, struct av_err *err) AV_MUST_CHECK;
int vm_info_decode(struct av_str text, struct vm_info *ret, struct av_err *err) AV_MUST_CHECK;
