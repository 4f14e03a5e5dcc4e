/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main_log.h - the newest output of the main command, by lines with their times
 *
 * Theory of operation
 *
 * Entries (proto/mainlog.h) lie one behind the other in a ring of bytes, as they are sent. It
 * begins without memory, doubles as it fills up to its maximum, and from then on drops whole
 * entries, oldest first. Offsets go on counting, so a reader sees how many it missed. When there is
 * no memory to grow, it stays as it is.
 *
 * A line becomes an entry when its newline comes, when it has AV_MAINLOG_LINE_MAX bytes, or when
 * main_log_flush() says that it has waited for long enough. Each stream has its own line under way;
 * its time is that of its first byte.
 */
#pragma once

#include "proto/mainlog.h"

struct main_log_part {
	char *p; /* owned; AV_MAINLOG_LINE_MAX bytes while n > 0 */
	size_t n;
	int64_t time_us;
	bool open; /* the entry before it had no newline */
};

struct main_log {
	char *p; /* owned, cap bytes */
	size_t cap, max;
	size_t head, used;             /* where the oldest entry begins in p, and bytes of all */
	uint64_t start, end;           /* the same as positions that only grow */
	uint64_t first, next;          /* offsets: of the oldest entry, of the next one */
	uint64_t lines, lines_dropped; /* entries that begin a line */
	struct main_log_part part[2];  /* stdout, stderr */
};

struct main_log_cursor {
	uint64_t pos, offset;
	uint64_t dropped; /* to be told first */
};

void main_log_init(struct main_log *l, size_t max_bytes);
void main_log_clear(struct main_log *l);
/* Never fails: what cannot be kept is dropped and counted. stream: AV_MAINLOG_OUT or _ERR. */
void main_log_append(struct main_log *l, uint8_t stream, const char *p, size_t n, int64_t now_us);
/* Lines under way that began at before_us or earlier become entries as they are. */
void main_log_flush(struct main_log *l, int64_t before_us);
bool main_log_is_pending(const struct main_log *l);

/* Where to begin: not before entry `from`, nor before the last `tail` lines (UINT64_MAX: all), nor
 * before the first entry that is not older than since_us. */
struct main_log_range {
	uint64_t from, tail;
	int64_t since_us;
};
void main_log_seek(
    const struct main_log *l, struct main_log_cursor *c, const struct main_log_range *range);
/* Behind the newest. */
void main_log_seek_end(const struct main_log *l, struct main_log_cursor *c);

#define MAIN_LOG_READ_MIN ((size_t)AV_MAINLOG_HEAD + AV_MAINLOG_LINE_MAX)
/* Whole entries, a GAP where something is missing, in size bytes (at least MAIN_LOG_READ_MIN).
 * Returns how many; 0 at the end. */
size_t main_log_read(const struct main_log *l, struct main_log_cursor *c, char *dst, size_t size);
