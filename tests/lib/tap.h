/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tap.h - Test Anything Protocol for the C tests; one process per test file
 *
 * A test file calls ok()/is_*() any number of times and ends with `return tap_done();`. A failed
 * check prints where and what; the exit status is 1 if any failed or none ran. tap_skip_all() ends
 * the process for a test that cannot run here and says why; with CI in the environment and
 * privileged = true that is a failure instead.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

static int tap_count_, tap_failed_;

__attribute__((unused, format(printf, 4, 5))) static bool tap_check_(
    bool good, const char *file, int line, const char *fmt, ...)
{
	va_list ap;
	tap_count_++;
	if (!good)
		tap_failed_++;
	printf("%s %d - ", good ? "ok" : "not ok", tap_count_);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	if (!good)
		printf("# failed at %s:%d\n", file, line);
	fflush(stdout);
	return good;
}

__attribute__((unused)) static bool tap_int_(
    long long got, long long want, const char *what, const char *file, int line)
{
	bool good = tap_check_(got == want, file, line, "%s", what);
	if (!good)
		printf("#   got %lld, wanted %lld\n", got, want);
	return good;
}

__attribute__((unused)) static bool tap_str_(
    struct av_str got, struct av_str want, const char *what, const char *file, int line)
{
	bool good = tap_check_(av_str_eq(got, want), file, line, "%s", what);
	if (!good)
		printf("#   got \"%.*s\" (%zu bytes), wanted \"%.*s\" (%zu bytes)\n",
		    AV_STR_ARG(got), got.n, AV_STR_ARG(want), want.n);
	return good;
}

/* ok(cond, "what %d", n) */
#define ok(cond, ...) tap_check_((cond), __FILE__, __LINE__, __VA_ARGS__)
#define is_int(got, want, what)                                                                    \
	tap_int_((long long)(got), (long long)(want), (what), __FILE__, __LINE__)
/* C strings; NULL compares as the empty string. */
#define is_str(got, want, what) tap_str_(av_str_c(got), av_str_c(want), (what), __FILE__, __LINE__)
/* struct av_str against a C string, and against another struct av_str. */
#define is_avstr(got, want, what) tap_str_((got), av_str_c(want), (what), __FILE__, __LINE__)
#define is_bytes(got, want, what) tap_str_((got), (want), (what), __FILE__, __LINE__)
#define diag(...)                 (printf("# " __VA_ARGS__), printf("\n"), fflush(stdout))

__attribute__((unused, noreturn, format(printf, 2, 3))) static void tap_skip_all(
    bool privileged, const char *fmt, ...)
{
	va_list ap;
	bool fail = privileged && getenv("CI");
	printf("%s", fail ? "not ok 1 - must run in CI: " : "1..0 # SKIP ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("%s", fail ? "\n1..1\n" : "\n");
	exit(fail ? 1 : 0);
}

__attribute__((unused)) static int tap_done(void)
{
	printf("1..%d\n", tap_count_);
	if (tap_count_ == 0)
		printf("Bail out! no test ran\n");
	return tap_failed_ || tap_count_ == 0;
}
