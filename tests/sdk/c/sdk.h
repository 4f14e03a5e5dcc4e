/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sdk.h - what the tests of libaviary share (see run.py for how they are run)
 */
#pragma once

#include <aviary/aviary.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/tap.h"

/* A client for the daemon of this run, with a thread when that is what is tested. */
__attribute__((unused)) static aviary_client *sdk_client(void)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_client *c;

	if (getenv("AVIARY_TEST_THREADED"))
		o.flags |= AVIARY_CLIENT_THREADED;
	if (aviary_client_new(&c, &o) == 0)
		return c;
	printf("Bail out! %s\n", aviary_client_error(c)->message);
	exit(2);
}

/* A small sandbox that runs. */
__attribute__((unused)) static aviary_sandbox *sdk_sandbox(aviary_client *c)
{
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_sandbox *sb;
	aviary_error e;

	spec.memory_mb = 128;
	spec.max_lifetime_ms = 600000;
	sb = aviary_await_sandbox(aviary_sandbox_run(c, &spec), &e);
	if (sb)
		return sb;
	printf("Bail out! no sandbox: %s: %s\n", aviary_code_name(e.code), e.message);
	exit(2);
}

/* Ends it and lets go of the handle. */
__attribute__((unused)) static void sdk_remove(aviary_sandbox *sb)
{
	aviary_stop_options o = AVIARY_STOP_OPTIONS_INIT;
	aviary_error e;

	o.missing_ok = 1;
	o.grace_ms = -1;
	if (aviary_await(aviary_sandbox_stop(sb, &o), &e) < 0)
		ok(false, "stop: %s", e.message);
	aviary_sandbox_free(sb);
}

/* An operation's end: its code, by name. Frees it. */
#define is_code(op, want)                                                                          \
	do {                                                                                       \
		aviary_error error_;                                                               \
		int code_ = aviary_await((op), &error_);                                           \
		if (!ok(code_ == (want), #op " -> " #want))                                        \
			diag("%s: %s", aviary_code_name(code_), error_.message);                   \
	} while (0)
