/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foreground.h - run a command, collect its output, answer with both
 */
#pragma once

#include "api/request.h"
#include "control/exec.h"

#define FOREGROUND_OUTPUT_MAX ((size_t)16 << 20)  /* kept of each output of one command */
#define FOREGROUND_TOTAL_MAX  ((size_t)256 << 20) /* kept of all commands and code together */

/* On success rq is answered later. */
int native_exec_foreground(
    struct api_request *rq, const struct node_exec_spec *spec, struct av_err *err);

/* ---- for tests: the answer's text, piece by piece ---- */

struct foreground_output {
	struct av_buf kept;
	bool truncated;
	bool binary;    /* not UTF-8 */
	bool base64;    /* decided by foreground_answer_begin, for both outputs together */
	size_t checked; /* bytes of kept that are known to be whole characters */
	size_t escaped; /* bytes these will have as JSON */
	size_t done;    /* bytes of kept that are written */
};

enum foreground_part { PART_HEAD, PART_STDOUT, PART_BETWEEN, PART_STDERR, PART_TAIL, PART_DONE };

struct foreground_answer {
	const char *sandbox_id, *cmd; /* borrowed */
	struct node_exec_end end;
	int64_t duration_ms;
	struct foreground_output out, err;
	enum foreground_part part;
};

/* Takes data in, at most room bytes; returns how many. */
size_t foreground_output_add(struct foreground_output *o, struct av_str data, size_t room);
/* When both outputs are complete. */
void foreground_answer_begin(struct foreground_answer *a);
/* Appends the next piece, made of at most 64 KiB of output. False when that was the last one. */
bool foreground_answer_next(struct foreground_answer *a, struct av_buf *out);
