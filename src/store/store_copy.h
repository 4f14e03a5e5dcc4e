/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_copy.h - only for files of src/store: a copy of the database while it is in use
 *
 * Theory of operation. SQLite's backup functions copy the pages in order; what the connection that
 * they read from writes meanwhile they bring to the copy as well. So the copy is the database at
 * the moment of the last step, however many requests came between two steps, and no step starts
 * anew. A copy is one plain file, mode 0600, without a log beside it, whose name its maker removes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/sql.h"

struct store_copy;

/* Makes the file, or empties one that an earlier daemon left. NO_SPACE when the disk has less room
 * than the database takes twice: the message says how much is needed. */
int store_copy_begin(
    struct store_db *db, const char *path, struct store_copy **ret, struct av_err *err);
/* Copies up to `pages` pages (-1: all). 1: there are more; 0: all are there; -errno with *err.
 * Not between BEGIN and COMMIT. */
int store_copy_step(struct store_copy *c, int pages, struct av_err *err);
/* After the last step: the file no longer needs a log, says with the setting `mark` (NULL: none)
 * when it was made, and is on the disk. */
int store_copy_finish(struct store_copy *c, const char *mark, struct av_err *err);
/* At any time; the file stays. NULL is fine. */
void store_copy_free(struct store_copy *c);
