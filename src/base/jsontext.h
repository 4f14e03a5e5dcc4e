/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jsontext.h - writing JSON strings, for programs that do not link a JSON library
 */
#pragma once

#include "base/buf.h"

/* Appends the quoted, escaped string; bytes that are not UTF-8 become U+FFFD. Returns the buffer's
 * (sticky) error or 0. */
int av_json_write_str(struct av_buf *out, struct av_str s);
/* The same without the quotes: part of a string. */
int av_json_write_part(struct av_buf *out, struct av_str s);
