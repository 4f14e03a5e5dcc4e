/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree_ends.h - only for libaviary: directories of this machine as ends of a pipe
 */
#pragma once

#include "client/file_internal.h"

struct avc_tree_counts {
	int64_t entries, bytes, left_out;
};

/* A source: the directory at fd (taken over), path for messages, as tar. NULL: no memory. counts is
 * filled as it goes, and must live as long as the end. */
struct avc_end *avc_end_pack(
    int fd, const char *path, struct avc_tree_counts *counts, const aviary_file_options *o);
/* A sink: tar becomes what is in the directory at fd (taken over), or, with a name, in the
 * directory of that name there, made when the first byte comes. */
struct avc_end *avc_end_unpack(
    int fd, const char *name, struct avc_tree_counts *counts, const aviary_file_options *o);
