/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask.h - one line from the terminal, or from standard input
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"

/* A line without its newline: on a terminal after "prompt: ", not echoed when it is secret; else
 * the next line of standard input. -EINVAL: there is none, or it does not fit. */
int ask_line(const char *prompt, bool secret, char *ret, size_t size) AV_MUST_CHECK;
