/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.h - the exit record: what the host learns about the agent's end (layout in agent_api.h)
 */
#pragma once

#include "proto/agent_api.h"

/* Uses fd from now on (-1: writes nowhere), and writes a record when a signal of the agent's own
 * fault (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT) ends it. */
void record_open(int fd);
/* One pwrite(2). text may be NULL. Async-signal-safe. */
void record_write(enum av_exit_reason reason, uint32_t code, const char *text);
