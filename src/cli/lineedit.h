/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lineedit.h - a line from the terminal, with editing keys and history (libedit)
 */
#pragma once

#include "base/macros.h"

struct lineedit;

/* NULL without memory, without libedit, or when the terminal cannot be used. */
struct lineedit *lineedit_new(void);
void lineedit_free(struct lineedit *e);
/* A line with its newline, borrowed until the next call; NULL: -EINTR (Ctrl-C, or another signal),
 * or 0 at the end (Ctrl-D) in *ret. The terminal is as before when this returns. */
const char *lineedit_read(struct lineedit *e, const char *prompt, int *ret);
/* Remembers what was typed, of any number of lines. */
void lineedit_remember(struct lineedit *e, const char *text);
