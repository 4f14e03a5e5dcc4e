/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.h - inside of the streaming RPCs Start and Connect; for exec.c and exec_*.c and nobody else
 */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "agent/process.h"
#include "agent/request.h"
#include "proto/connect.h"
#include "proto/frame.h"

struct exec;

/* One codec of the stream. All emitters send; none closes. */
struct exec_codec {
	const char *content_type;
	void (*start)(struct exec *e, const struct process *p);
	void (*output)(struct exec *e, uint8_t channel, const char *p, size_t n);
	void (*gap)(struct exec *e, uint64_t dropped);
	void (*keepalive)(struct exec *e); /* NULL: the codec has none */
	/* The last message of a stream; end is NULL when the process still runs. */
	void (*end)(struct exec *e, const struct process_end *end);
	void (*error)(
	    struct exec *e, const struct av_err *err, const struct spawn_failure *failure);
	/* Client's bytes; -errno with err set ends the stream. */
	int (*feed)(struct exec *e, const uint8_t *p, size_t n, struct av_err *err);
	bool (*idle)(const struct exec *e); /* no message is half received */
};

struct exec {
	struct request *rq; /* NULL once the stream is closed */
	const struct exec_codec *codec;
	bool is_start; /* Start, else Connect */
	bool opened;   /* the first message was dealt with */
	bool begun;    /* response head sent */
	bool finished; /* last message sent */
	bool kill_on_detach;
	size_t handed_over; /* body bytes of the present call that process_write() owns */
	struct process_sub sub;
	struct process *process; /* attached to, borrowed until on_end or detach */
	uv_timer_t timer;        /* keep-alive and, on Connect, the deadline */
	uint64_t sent_ms;        /* loop time of the last message */
	uint64_t keepalive_ms;   /* 0: none */
	uint64_t deadline_ms;    /* loop time; 0: none */
	uint64_t timeout_ms;     /* Connect-Timeout-Ms of the head; 0: none */
	union {
		struct av_connect_dec connect;
		struct av_frame_dec frames;
	} dec;
};

extern const struct exec_codec exec_codec_connect;
extern const struct exec_codec exec_codec_frames;

/* The first message: starts or attaches. Failures are sent. */
void exec_first_message(struct exec *e, struct av_str json);
/* Sends bytes of a message, with the response head before the first. */
void exec_send(struct exec *e, const void *p, size_t n);
/* Input for the process; the bytes count as handed over. Dropped when nobody takes them. */
void exec_input(struct exec *e, const void *p, size_t n);

/* exec_start.c: parses a StartRequest and starts it with e->sub attached. */
int exec_launch(struct exec *e, const json_t *request, struct process **ret,
    struct spawn_failure *ret_failure, struct av_err *err);
