/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn_test.h - what the tests of a real aviary-spawn begin with, as root or as somebody else
 *
 * Their arguments are aviary-spawn's own, behind `rootless` when all of it is an ordinary user's.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/tap.h"

#define SPAWN_TEST_USER 61234

/* The arguments into options from place n on, of which there are max with the NULL behind them, and
 * which are NULL already. Returns whether `rootless` is asked for. */
static inline bool spawn_test_words(
    int argc, char **argv, const char **options, size_t n, size_t max)
{
	bool rootless = argc > 1 && strcmp(argv[1], "rootless") == 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (geteuid() != 0)
		tap_skip_all(true, "needs root");
	for (int i = rootless ? 2 : 1; i < argc && n + 1 < max; i++)
		options[n++] = argv[i];
	return rootless;
}

static inline void spawn_test_become_user(void)
{
	if (setresgid(SPAWN_TEST_USER, SPAWN_TEST_USER, SPAWN_TEST_USER) < 0 ||
	    setresuid(SPAWN_TEST_USER, SPAWN_TEST_USER, SPAWN_TEST_USER) < 0)
		tap_skip_all(true, "cannot become another user");
	if (access(getenv("AVIARY_BUILD"), X_OK) < 0)
		tap_skip_all(false, "the build lies where other users cannot look");
}
