/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jupyter.h - messages of Jupyter's kernel channels (protocol 5.3) as text, and the agent's lines
 *
 * Client side: a WebSocket message is one JSON object with header, parent_header, metadata, content
 * and channel. What is read of it: the header, which goes back as parent_header, and of the content
 * what the type needs. Agent side: lines "TYPE JSON\n" with TYPE as below and JSON the content of
 * that message, which is checked (it is JSON, an object, in UTF-8) and then passed on as it is:
 * neither a client nor a sandbox can break the frame around it.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

#define AV_JUPYTER_PROTOCOL   "5.3"
#define AV_JUPYTER_HEADER_MAX 4096 /* bytes of a client's header as JSON */

/* What clients ask. */
enum av_jupyter_request_type {
	AV_JUPYTER_OTHER, /* known to nobody here: to be ignored */
	AV_JUPYTER_EXECUTE,
	AV_JUPYTER_KERNEL_INFO,
	AV_JUPYTER_INTERRUPT,
	AV_JUPYTER_SHUTDOWN,
	AV_JUPYTER_COMPLETE,
	AV_JUPYTER_INSPECT,
	AV_JUPYTER_IS_COMPLETE,
	AV_JUPYTER_HISTORY,
	AV_JUPYTER_COMM_INFO,
};

struct av_jupyter_request {
	enum av_jupyter_request_type type;
	char *header;    /* JSON of the client's header; owned */
	char *session;   /* owned; never NULL */
	char *code;      /* EXECUTE, COMPLETE: owned, never NULL there */
	int64_t cursor;  /* COMPLETE */
	bool silent;     /* EXECUTE */
	bool store;      /* EXECUTE */
	bool restart;    /* SHUTDOWN */
	bool on_control; /* channel "control", else "shell" */
};

void av_jupyter_request_clear(struct av_jupyter_request *r);
/* AV_ERR_INVALID says what is wrong; nothing to clear then. */
int av_jupyter_parse(struct av_str text, struct av_jupyter_request *ret, struct av_err *err);

/* "execute_reply" for "execute_request" and so on; NULL for OTHER. */
const char *av_jupyter_reply_type(enum av_jupyter_request_type type);

/* A message to the client. */
struct av_jupyter_message {
	const char *channel; /* "shell", "iopub", "control" */
	const char *type;
	struct av_str msg_id;
	struct av_str session;
	const char *date;      /* RFC 3339 */
	struct av_str parent;  /* JSON of the parent's header */
	struct av_str content; /* JSON object */
};
int av_jupyter_write(struct av_buf *out, const struct av_jupyter_message *m);

/* ---- the agent's lines ---- */

enum av_jupyter_line {
	AV_JUPYTER_LINE_INPUT,  /* execute_input: accepted; {"execution_count","context_id"} */
	AV_JUPYTER_LINE_STREAM, /* {"name","text"} */
	AV_JUPYTER_LINE_RESULT, /* execute_result */
	AV_JUPYTER_LINE_DISPLAY,
	AV_JUPYTER_LINE_UPDATE, /* update_display_data */
	AV_JUPYTER_LINE_CLEAR,  /* clear_output */
	AV_JUPYTER_LINE_ERROR,
	AV_JUPYTER_LINE_FINISHED, /* {"status","execution_count","message","signal","timed_out"} */
	AV_JUPYTER_LINE_COUNT
};
/* The message type, which is the line's first word. */
const char *av_jupyter_line_text(enum av_jupyter_line type);
/* line without its end. content, borrowed, is an object with at least one member. -EPROTO. */
int av_jupyter_line_parse(
    struct av_str line, enum av_jupyter_line *ret_type, struct av_str *ret_content);
/* Appends the object `head` (open, such as "{\"type\":1") with the members of `content`. */
int av_jupyter_join(struct av_buf *out, struct av_str head, struct av_str content);
