/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path.h - paths as text; nothing here touches the file system
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

/* POSIX limits, checked before any system call. */
#define AV_PATH_MAX 4095
#define AV_NAME_MAX 255

/* Lexical cleaning as Go's path.Clean: collapses "//", "." and "..", never above "/", no trailing
 * slash except for "/". base must be absolute; a relative path is taken from it. Refuses NUL, an
 * empty path, more than AV_PATH_MAX bytes or a component over AV_NAME_MAX with AV_ERR_INVALID that
 * quotes the path (control characters escaped). Appends to out. */
int av_path_clean(struct av_buf *out, struct av_str base, struct av_str path, struct av_err *err);
/* Last component ("/" for the root), and everything before it ("/" or "." when there is nothing).
 */
struct av_str av_path_base(struct av_str path);
struct av_str av_path_dir(struct av_str path);
/* snprintf with the truncation turned into -ENAMETOOLONG. */
int av_path_printf(char *dst, size_t size, const char *fmt, ...) AV_PRINTF(3, 4) AV_MUST_CHECK;
