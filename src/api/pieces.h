/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pieces.h - a long JSON answer, written and sent piece by piece
 *
 * Only files of src/api include this.
 *
 * Theory of operation. What a command or code left behind may be tens of megabytes. Turned into
 * JSON and sent at once it would hold the loop, and everybody on it, for as long, and be in memory
 * three times. So an answer is a list of parts, whose bytes stay with the owner, and each turn of
 * the loop makes JSON of one piece of one part and writes it. When the client does not read,
 * nothing is made until it does: beside the parts no more than the high watermark of a response and
 * one piece are in memory. A short answer, the usual case, is sent whole, with its length.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "api/request.h"
#include "net/loop.h"

enum api_part_as {
	API_PART_RAW,  /* as it is: JSON already, or between the others */
	API_PART_TEXT, /* UTF-8, escaped as the inside of a JSON string: the quotes are around it */
	API_PART_BASE64, /* any bytes */
};

#define API_PIECES_PARTS 9

struct api_pieces {
	struct {
		struct av_str data; /* borrowed until the answer is out or stopped */
		enum api_part_as as;
	} part[API_PIECES_PARTS];
	size_t n, bytes; /* parts, and their bytes together */
	size_t at, done; /* the part next to write, and how much of it is written */
	struct api_request *rq;
	struct av_timer timer; /* next piece */
};

/* All zero is an answer without parts. At most API_PIECES_PARTS (asserted). */
void api_pieces_add(struct api_pieces *p, enum api_part_as as, struct av_str data);
/* Appends the next piece, made of at most 48 KiB. False when that was the last one. An error is
 * out's sticky one. */
bool api_pieces_next(struct api_pieces *p, struct av_buf *out);
/* Begins to answer rq with the parts (at least one). p is borrowed until rq->on_gone, which calls
 * api_pieces_stop(). rq->on_drain must call api_pieces_drain(). */
void api_pieces_send(struct api_pieces *p, struct api_request *rq, int status);
/* The client has read. Harmless before api_pieces_send(). */
void api_pieces_drain(struct api_pieces *p);
void api_pieces_stop(struct api_pieces *p);
