/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foreground.h - run a command, collect its output, answer with both
 */
#pragma once

#include "api/pieces.h"
#include "control/exec.h"

#define FOREGROUND_OUTPUT_MAX ((size_t)16 << 20)  /* kept of each output of one command */
#define FOREGROUND_TOTAL_MAX  ((size_t)256 << 20) /* kept of all commands and code together */

/* On success rq is answered later. */
int native_exec_foreground(
    struct api_request *rq, const struct node_exec_spec *spec, struct av_err *err);

/* ---- for tests: the answer's parts ---- */

struct foreground_output {
	struct av_buf kept;
	bool truncated;
	bool binary;    /* not UTF-8 */
	size_t checked; /* bytes of kept that are known to be whole characters */
	size_t escaped; /* bytes these will have as JSON */
};

struct foreground_answer {
	const char *sandbox_id, *cmd; /* borrowed */
	struct node_exec_end end;
	int64_t duration_ms;
	struct foreground_output out, err;
	struct av_buf head, tail; /* before and after the outputs; all zero until begin */
	struct api_pieces pieces;
};

/* Takes data in, at most room bytes; returns how many. */
size_t foreground_output_add(struct foreground_output *o, struct av_str data, size_t room);
/* When both outputs are complete: fills pieces. -ENOMEM. */
int foreground_answer_begin(struct foreground_answer *a);
void foreground_answer_clear(struct foreground_answer *a);
