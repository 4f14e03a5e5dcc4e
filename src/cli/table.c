/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.c - aligned columns for people
 */
#include "cli/table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/avtime.h"
#include "cli/cli.h"

#include "base/banned.h"

void table_init(struct table *t, size_t columns, const char *const *titles)
{
	assert(columns > 0 && columns <= TABLE_COLUMNS);
	*t =
	    (struct table){.columns = columns, .titles = titles, .cells = AV_BUF_INIT(64 * AV_MIB)};
}

void table_cell(struct table *t, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cli_make_safe(text);
	if (av_buf_append(&t->cells, text, strlen(text) + 1) == 0)
		t->n++;
}

/* Columns on a terminal: bytes that do not continue a UTF-8 character. */
static size_t width_of(const char *s)
{
	size_t n = 0;
	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void print_cell(const struct table *t, size_t column, const char *text, size_t width)
{
	int pad = (int)(width - width_of(text));
	bool is_last = column + 1 == t->columns;
	if (t->right[column])
		printf("%*s%s", pad, "", text);
	else
		printf("%s%*s", text, is_last ? 0 : pad, "");
	fputs(is_last ? "\n" : "  ", stdout);
}

void table_print(struct table *t, const char *bold, const char *plain)
{
	size_t width[TABLE_COLUMNS];
	const char *cells = av_buf_str(&t->cells).p, *p = cells;
	size_t full = t->n / t->columns * t->columns;
	for (size_t c = 0; c < t->columns; c++)
		width[c] = width_of(t->titles[c]);
	for (size_t i = 0; i < full; i++, p += strlen(p) + 1)
		width[i % t->columns] = AV_MAX(width[i % t->columns], width_of(p));

	fputs(bold, stdout);
	for (size_t c = 0; c < t->columns; c++)
		print_cell(t, c, t->titles[c], width[c]);
	fputs(plain, stdout);
	p = cells;
	for (size_t i = 0; i < full; i++, p += strlen(p) + 1)
		print_cell(t, i % t->columns, p, width[i % t->columns]);
	av_buf_clear(&t->cells);
}

void table_age(struct table *t, const char *since)
{
	int64_t ms;
	if (!since || av_rfc3339_parse(av_str_c(since), &ms) < 0) {
		table_cell(t, "-");
		return;
	}
	long long sec = AV_MAX((av_real_ms() - ms) / 1000, (int64_t)0);
	if (sec < 120)
		table_cell(t, "%llds", sec);
	else if (sec < 120 * 60)
		table_cell(t, "%lldm", sec / 60);
	else if (sec < 48 * 3600)
		table_cell(t, "%lldh", sec / 3600);
	else
		table_cell(t, "%lldd", sec / 86400);
}
