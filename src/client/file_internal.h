/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_internal.h - only for the files of libaviary that deal with files of sandboxes
 */
#pragma once

#include <aviary/files.h>

#include "client/call.h"
#include "client/pipe.h"

/* What the caller says, zero where nothing is said (older headers know fewer members). */
aviary_file_options avc_file_options(const aviary_file_options *options);
/* "/files?path=...&user=..." into out. AVIARY_E_INVALID: path is NULL or empty. */
int avc_file_query(
    struct av_buf *out, const char *suffix, const char *path, const aviary_file_options *o);
/* An operation that fails as path is none. */
aviary_op *avc_file_no_path(aviary_sandbox *sb);
/* What all pipes of files have in common; path is borrowed for avc_pipe(). */
struct avc_pipe_spec avc_file_pipe(aviary_sandbox *sb, const char *method, const char *path,
    const char *suffix_and_query, const aviary_file_options *o);
