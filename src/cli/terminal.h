/* SPDX-License-Identifier: Apache-2.0 */
/*
 * terminal.h - the user's terminal: raw or full-screen for a time, and itself again afterwards
 *
 * Theory of operation. What is changed is undone by terminal_restore(), by exit(3), and by the
 * signals that end a program for its faults; only SIGKILL leaves a terminal raw. There is one
 * terminal, so its state is one, in terminal.c, where a signal handler can reach it.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>

#include "base/macros.h"

/* Every key is a byte for the program: Ctrl-C too, nothing is echoed. -errno; -ENOTTY. */
int terminal_make_raw(void) AV_MUST_CHECK;
/* Keys are bytes and nothing is echoed, but Ctrl-C and Ctrl-Z do what they always do; on a screen
 * of its own, without cursor. */
int terminal_take_screen(void) AV_MUST_CHECK;
/* As it was before the first of these. Any number of times. */
void terminal_restore(void);

/* Columns and rows of the first of the standard descriptors that is a terminal, else 80 and 24. */
void terminal_size(unsigned *ret_cols, unsigned *ret_rows);

/* Blocks the signals that end, stop or resize us, and gives a descriptor that tells of them
 * (signalfd); *ret_old is what to restore. -errno. */
int terminal_signals(sigset_t *ret_old) AV_MUST_CHECK;
/* The number of the next signal of that descriptor, 0: none. SIGTSTP has been obeyed already: the
 * terminal was as before meanwhile, and SIGWINCH is what the caller sees of it. */
int terminal_next_signal(int fd);
