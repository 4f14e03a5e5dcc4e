/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree.h - directories of this machine as tar streams, out of and into a sandbox
 */
#pragma once

#include "cli/progress.h"
#include "client/tree.h"

/* Writes the directory at path (its contents, names beginning "./") as tar into the transfer.
 * Sockets, pipes and devices are left out with a warning. */
int tree_send(
    const char *path, struct av_tree *tree, struct progress *progress, struct av_err *err);

/* Reads tar from the transfer and makes files, directories and links of it below the existing
 * directory path, and nowhere else, whatever the stream says: see tree_receive.c. */
int tree_receive(
    struct av_tree *tree, const char *path, struct progress *progress, struct av_err *err);
