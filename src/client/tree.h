/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree.h - directories of a sandbox as streams of tar
 *
 * One transfer at a time on a client, and no other call on it meanwhile. The caller pulls or
 * pushes; every call blocks until it can be satisfied, and ends with AV_ERR_CANCELED when the
 * client's is_canceled says so. Memory: at most AV_TREE_BUFFER bytes and libcurl's own.
 */
#pragma once

#include "client/client.h"

#define AV_TREE_BUFFER (1024 * 1024)

struct av_tree;

/* writes: an archive goes into the directory at path, which is made when it is missing; else the
 * directory comes out as one. What the daemon refuses comes with the first read, or with a write.
 */
int av_tree_open(struct av_client *c, const char *sandbox_id, const char *path, bool writes,
    struct av_tree **ret, struct av_err *err);
/* Some bytes of the archive: valid until the next call. 0 at the end, -errno with *err. */
ssize_t av_tree_read(struct av_tree *t, const char **ret_bytes, struct av_err *err);
int av_tree_write(struct av_tree *t, const char *bytes, size_t n, struct av_err *err);
/* The archive is complete: waits until the daemon says that it is unpacked, or (reading) that there
 * was no more. */
int av_tree_finish(struct av_tree *t, struct av_err *err);
void av_tree_free(struct av_tree *t); /* breaks off what is not finished; NULL is fine */
void av_tree_freep(struct av_tree **t);
