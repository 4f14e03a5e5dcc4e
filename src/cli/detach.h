/* SPDX-License-Identifier: Apache-2.0 */
/*
 * detach.h - a sequence of keys that is for us and not for the program in the sandbox
 *
 * Bytes that may begin the sequence are held back until the next one decides: Ctrl-P alone reaches
 * the program with the key after it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

#define DETACH_KEYS_MAX 8

struct detach_keys {
	unsigned char key[DETACH_KEYS_MAX];
	size_t n;    /* 0: there are none */
	size_t seen; /* of them, held back */
};

/* "ctrl-p,ctrl-q", "a", "ctrl-]"; "none". */
int detach_keys_parse(struct detach_keys *k, const char *text, struct av_err *err) AV_MUST_CHECK;
/* Appends what of the input is for the program. True: the sequence was typed; the rest of the input
 * is dropped. */
bool detach_keys_filter(struct detach_keys *k, const char *in, size_t n, struct av_buf *out);
