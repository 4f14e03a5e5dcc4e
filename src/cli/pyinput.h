/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pyinput.h - whether lines of Python typed so far are a whole statement
 *
 * As Python's own prompt: what is inside brackets or a long string, or ends in a backslash, goes
 * on; a block (its line ends in a colon, or a decorator began it) goes on until an empty line.
 */
#pragma once

#include <stdbool.h>

/* text: all lines so far, each with its newline. */
bool pyinput_is_whole(const char *text);
