/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.h - one line on a terminal about what takes longer than a second
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool on; /* standard error is a terminal and nobody asked for quiet */
	bool shown;
	const char *what; /* borrowed: "copying" */
	int64_t start_ns, last_ns;
	uint64_t done_bytes;
	uint64_t total_bytes; /* 0: not known */
};

void progress_init(struct progress *p, bool on, const char *what);
/* So many more bytes went over. Draws at most five times a second. */
void progress_add(struct progress *p, uint64_t bytes);
/* So many bytes went over, of so many (-1: not known). */
void progress_set(struct progress *p, int64_t done_bytes, int64_t total_bytes);
/* Nothing is counted, time passes. */
void progress_wait(struct progress *p);
/* Removes the line. */
void progress_end(struct progress *p);
