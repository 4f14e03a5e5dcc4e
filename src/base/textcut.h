/* SPDX-License-Identifier: Apache-2.0 */
/*
 * textcut.h - a stream of bytes cut into pieces of whole UTF-8 characters
 *
 * Bytes come in pieces of any size, and a character may begin in one and end in the next. What is
 * given out ends between characters, so that each piece can be a text of its own; together the
 * pieces are exactly the bytes that went in. Bytes that are not UTF-8 are passed on as they are.
 */
#pragma once

#include "base/str.h"

struct av_textcut {
	char p[4]; /* begun character at the end of what was fed, n bytes */
	unsigned char n;
	char lent[4]; /* what *ret_head and av_textcut_end() point at */
};

/* The text that is whole by now: *ret_head (at most 4 bytes, what was kept before with what belongs
 * to it; valid until the next call) and then the returned piece of data. Either may be empty. */
struct av_str av_textcut_feed(struct av_textcut *c, struct av_str data, struct av_str *ret_head);
/* What is still kept, when no more data comes: the beginning of a character that never ended. Valid
 * until the next call. */
struct av_str av_textcut_end(struct av_textcut *c);
