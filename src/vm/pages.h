/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.h - the memory of a guest from outside: which pages are its own, and a file of all of it
 *
 * Theory of operation. QEMU maps the memory file of a save privately: what the guest has not
 * written since is the file's page, shared with everybody who maps it; what it has written is an
 * anonymous page of QEMU's. The kernel tells which is which (/proc/<pid>/pagemap, or the ioctl
 * PAGEMAP_SCAN from 6.7 on). So the machine's memory is the file with the private pages over it,
 * and that is what is made here: a copy of the file, which shares its blocks where the file system
 * can, and the private pages written over it. Private pages that are all zero become holes, where
 * they are many in a row. A page that was given back (free page reporting drops it) is the file's
 * again, and counts as not written: the guest's kernel does not rely on what is in it.
 *
 * The machine must stand still for what is written to be of one moment, and that time is to be
 * short: vm_pages_begin() copies the file, and with `ahead` all private pages, while the machine
 * still runs, and remembers a checksum of each page; vm_pages_finish() runs while it stands still,
 * reads all private pages again, and writes those whose checksum is another, or which are new. A
 * page that was private and is not any more is taken back to the base's. Without `ahead`, finish
 * does it all at once, which altogether is the faster way.
 *
 * QEMU is a process that may have been taken over by its guest: nothing that /proc says of it is
 * relied upon for memory safety. The mapping must be private, of this file by name, and cover it
 * exactly once; a process that lies gets an error or a useless file in its own directory.
 *
 * All functions block and are for a thread of the pool; one capture is used by one thread at a
 * time, and lets another help while it writes. Memory: 2 MiB, and 1/512 of what is private.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macros.h"
#include "vm/info.h"

struct vm_pages;

struct vm_pages_written {
	uint64_t private_bytes; /* that the machine had */
	uint64_t written_bytes; /* of them now in the file; the others are holes */
	uint64_t again_bytes;   /* written in the second pass, when there were two */
	bool shared;            /* the rest of the file shares its blocks with the base */
};

/* pid: QEMU, a child of the caller's that is not reaped. base: the file that it maps privately, by
 * the same name; bytes: its size, the memory of the guest. INVALID: there is no such mapping; the
 * message says what is there instead. */
int vm_pages_open(pid_t pid, const char *base, uint64_t bytes, struct vm_pages **ret,
    struct av_err *err) AV_MUST_CHECK;

/* Makes the file `to`, which must not exist, a copy of the base; with `ahead`, and all private
 * pages. The machine may run. Once. */
int vm_pages_begin(
    struct vm_pages *p, const char *to, bool ahead, struct av_err *err) AV_MUST_CHECK;

/* The machine stands still: the file becomes its memory. info gets blocks and pages (memory_bytes
 * too); it must be zeroed there. Once. ret may be NULL. */
int vm_pages_finish(struct vm_pages *p, struct vm_info *info, struct vm_pages_written *ret,
    struct av_err *err) AV_MUST_CHECK;

/* Ends it; a file that is not finished is removed. NULL is fine. */
void vm_pages_free(struct vm_pages *p);

/* Whether the memory file of a save, and its state, are what info says: sizes, and the sums of all
 * pages that were written. CHECKSUM with a sentence that names file and place. 50 MiB take about
 * 10 ms; the file is only read, so QEMU may map it meanwhile: the guest must not run before this
 * is done. */
int vm_pages_check(const char *memory, const char *state, const struct vm_info *info,
    struct av_err *err) AV_MUST_CHECK;

/* Size and checksum of a file (the state) for info. */
int vm_pages_sum_file(
    const char *path, uint64_t *ret_bytes, uint64_t *ret_sum, struct av_err *err) AV_MUST_CHECK;

struct vm_pages_usage {
	uint64_t private_bytes;  /* pages of the guest that are this machine's alone, or swapped */
	uint64_t overhead_bytes; /* all other anonymous memory of the process, swapped or not */
};

/* Now, while it runs; some milliseconds for each GiB of memory. */
int vm_pages_usage(pid_t pid, const char *base, uint64_t bytes, struct vm_pages_usage *ret,
    struct av_err *err) AV_MUST_CHECK;
