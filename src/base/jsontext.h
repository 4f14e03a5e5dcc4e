/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jsontext.h - writing and checking JSON text, for what does not need it as objects
 */
#pragma once

#include "base/buf.h"

/* Appends the quoted, escaped string; bytes that are not UTF-8 become U+FFFD. Returns the buffer's
 * (sticky) error or 0. */
int av_json_write_str(struct av_buf *out, struct av_str s);
/* The same without the quotes: part of a string. */
int av_json_write_part(struct av_buf *out, struct av_str s);

/* Appends JSON text with every character over 0x7f as escapes (surrogate pairs included), so that
 * any cut between bytes is a cut between characters. s is valid UTF-8. */
int av_json_write_ascii(struct av_buf *out, struct av_str s);

/* How deep av_json_valid() goes. */
#define AV_JSON_TEXT_DEPTH 64

/* True if s is one JSON value (RFC 8259) in UTF-8, with white space around it: what may be put into
 * a document as it is. Deeper than AV_JSON_TEXT_DEPTH is not valid. Keys may occur twice, and
 * escapes may name lone surrogates. More than 1 GB/s where strings are long; allocates nothing. */
bool av_json_valid(struct av_str s);
