/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz.h - what every fuzz target has: the entry point, a check that stays on, pieces of input
 *
 * Built with -Dfuzz=true (clang) a target is a libFuzzer program. Without, replay.c's main runs it
 * on every file of its corpus, as a regression test. A finding becomes a file in
 * fuzz/corpus/<target>.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define FUZZ_CHECK(cond)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #cond);       \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* The length of the next piece: the pattern of a byte of the input, repeated. 0 means all. */
static inline size_t fuzz_piece(uint8_t pattern, size_t i, size_t left)
{
	size_t n = pattern % 16;
	if (pattern == 0)
		n = left;
	else if (n == 0)
		n = 1 + i * pattern % 97;
	return AV_MIN(n, left);
}
