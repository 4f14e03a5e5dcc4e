/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.h - the exit record: what the host learns about the agent's end (layout in agent_api.h)
 */
#pragma once

#include "proto/agent_api.h"

/* Uses fd from now on (-1: writes nowhere), and writes a record when a signal of the agent's own
 * fault (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT) ends it. */
void record_open(int fd);
/* Gives records to fn as well, but not those of a signal; fn and ctx are borrowed for good. */
void record_send_to(void (*fn)(void *ctx, const uint8_t *record), void *ctx);
/* One pwrite(2). text may be NULL. */
void record_write(enum av_exit_reason reason, uint32_t code, const char *text);
/* How the main command ended. What is written afterwards does not replace it. */
void record_write_main(uint32_t code, uint32_t signal, const char *text);
