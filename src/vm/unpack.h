/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unpack.h - the whole of a file, decompressed by this machine's xz, zstd or gzip
 *
 * The input counts as hostile: what comes out ends at the buffer's ceiling (a "bomb" is an error),
 * and a program that takes longer than UNPACK_SECONDS is killed.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#define UNPACK_SECONDS 30

enum unpack_format { UNPACK_PLAIN, UNPACK_XZ, UNPACK_ZSTD, UNPACK_GZIP };

/* Appends what the file has from its position on to out. Blocks. TOO_LARGE, INVALID (not what its
 * name says), NOT_FOUND (no such program here), EXEC_TIMEOUT. */
int unpack(int fd, enum unpack_format format, struct av_buf *out, struct av_err *err) AV_MUST_CHECK;
