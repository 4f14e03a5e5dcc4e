/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy.h - copies of large sparse files: shared blocks where the file system can, else what is
 * there
 *
 * Holes stay holes. Both files may be on overlayfs. Nothing is forced to disk: a save is worth as
 * much as the machine that it belongs to, which does not outlive the kernel.
 *
 * Blocking, for a thread of the pool. No state; may run in several threads at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"

struct vm_copied {
	bool shared;         /* the two files share their blocks (FICLONE) */
	uint64_t size_bytes; /* with holes */
	uint64_t bytes;      /* that were read and written; 0 when shared */
};

/* Makes `to`, which must not exist (mode 0600), a copy of the regular file `from`. ret may be NULL.
 * On failure there is no `to`. Errors: NOT_FOUND, NO_SPACE, CONFLICT (`to` is there), INTERNAL. */
int vm_copy(
    const char *from, const char *to, struct vm_copied *ret, struct av_err *err) AV_MUST_CHECK;

/* The same from a descriptor (open for reading) into a file of size 0 that is open for writing.
 * On failure `to` holds anything. Names are for messages. */
int vm_copy_fd(int from, const char *from_name, int to, const char *to_name, struct vm_copied *ret,
    struct av_err *err) AV_MUST_CHECK;

/* Blocks of 4 KiB that are all zero become holes, where whole runs of at least 64 KiB are; the file
 * reads as before. For a file that nobody writes to meanwhile. *ret_bytes (may be NULL): what was
 * freed. A file system without holes is no error: 0 bytes. */
int vm_punch_zeros(const char *path, uint64_t *ret_bytes, struct av_err *err) AV_MUST_CHECK;
