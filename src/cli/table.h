/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.h - aligned columns for people
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

#define TABLE_COLUMNS 10

struct table {
	size_t columns;
	const char *const *titles; /* borrowed */
	bool right[TABLE_COLUMNS]; /* numbers */
	struct av_buf cells;       /* owned: NUL-terminated, row by row */
	size_t n;
};

/* titles: at most TABLE_COLUMNS. */
void table_init(struct table *t, size_t columns, const char *const *titles);
/* The next cell, in printf's manner. Control characters become '?'. */
void table_cell(struct table *t, const char *fmt, ...) AV_PRINTF(2, 3);
/* The next cell: "42s", "17m", "5h", "3d" since a moment in RFC 3339, or "-". NULL is fine. */
void table_age(struct table *t, const char *since);
/* Prints titles (in bold where colours are on) and rows, and frees the table. */
void table_print(struct table *t, const char *bold, const char *plain);
