/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree.h - directories of this machine as tar streams, out of and into a sandbox
 */
#pragma once

#include "cli/progress.h"
#include "cli/remote.h"

/* Writes the directory at path (its contents, names beginning "./") as tar into the program behind
 * pipe. Sockets, pipes and devices are left out with a warning. */
int tree_send(
    const char *path, struct remote_pipe *pipe, struct progress *progress, struct av_err *err);

/* Reads tar from pipe and makes files, directories and links of it below the existing directory
 * path, and nowhere else, whatever the stream says: see tree_receive.c. */
int tree_receive(
    struct remote_pipe *pipe, const char *path, struct progress *progress, struct av_err *err);
