/* SPDX-License-Identifier: Apache-2.0 */
/*
 * execute.h - inside of POST /execute; for execute.c, execute_lines.c and nobody else
 */
#pragma once

#include "agent/kernel.h"
#include "agent/request.h"

/* How events become lines. Each appends one whole line, or nothing. */
struct execute_codec {
	const char *content_type;
	bool ascii;    /* other characters leave as escapes: readers may cut anywhere */
	uint8_t flags; /* of every execution */
	void (*output)(struct av_buf *out, bool is_stderr, struct av_str text);
	/* id: of the kernel */
	void (*message)(
	    struct av_buf *out, const struct av_kernel_message *m, const char *id, uint32_t count);
	void (*end)(struct av_buf *out, const struct kernel_outcome *o, bool timed_out);
	struct av_str keepalive; /* a line, or empty */
};

extern const struct execute_codec execute_codec_e2b;    /* JSON objects, ASCII */
extern const struct execute_codec execute_codec_aviary; /* "TYPE JSON", UTF-8 */
