/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.h - only for libaviary: the inside of a process's handle (process.c: its life;
 * process_io.c: its output and input)
 *
 * Theory of operation. A process waits its turn for the sandbox, then opens a stream whose first
 * message says what to start. Output goes, as it comes, to the callback, or into `fresh` of its
 * channel, which readers take over into `front`: so what a reader looks at never moves. With
 * COLLECT it goes into `kept`, and into `fresh` only from the first read on. The stream is paused
 * while `fresh` is over its mark or the callback has said stop: then the daemon, the agent and in
 * the end the program wait. The operation is done with the end event, once a callback has had
 * everything; what is still in the buffers can be read afterwards.
 *
 * Who holds it. The handle; `pins`, while events of it are at work (they give the lock up for the
 * callback); a detached one whose handle was freed before it was started holds itself until it is,
 * or cannot be. It is freed when none of these is left: avc_process_unpin.
 *
 * Frames come from a sandbox's agent by way of the daemon: both are checked.
 */
#pragma once

#include <aviary/process.h>

#include "client/sandbox.h"
#include "client/stream.h"
#include "proto/agent_api.h"
#include "proto/frame.h"

#define AVC_CHANNELS    2
#define AVC_OUTPUT_MARK ((size_t)256 << 10) /* unread output at which the stream is paused */
#define AVC_OUTPUT_MAX  ((size_t)4 << 20)   /* what one message may add to that */
#define AVC_LINE_MAX    ((size_t)1 << 20)
#define AVC_INPUT_MARK  AVC_STREAM_LOW /* input that waits to be sent */
#define AVC_EARLY_MAX   ((size_t)64 << 10)
#define AVC_MESSAGE_MAX ((size_t)1 << 20)
#define AVC_TAG_SIZE    257

/* One output. */
struct avc_output {
	struct av_buf fresh; /* came, and nobody looked yet */
	struct av_buf front; /* what readers look at */
	size_t scanned;      /* of front: holds no newline */
	struct av_buf line;  /* given out last */
	struct av_buf kept;  /* COLLECT */
	bool truncated;      /* of kept */
	bool read;           /* COLLECT: somebody reads it as well */
};

struct aviary_process {
	struct aviary_exec_result result; /* first: aviary_exec_result_free */
	struct avc_turn turn;
	struct avc_corpse corpse;
	struct avc_timer guard;   /* its time-out and some more: the server should have said so */
	struct avc_timer deliver; /* to a callback that came later, or says go on */
	aviary_client *c;         /* NULL: the one for want of memory */
	aviary_op *op, *started;
	struct aviary_sandbox *sb;
	struct avc_stream *stream;
	struct av_frame_dec decoder;
	unsigned flags;
	bool attached;       /* it was there before us */
	json_t *first;       /* the first message, until it is sent */
	struct av_buf early; /* frames that come after it */
	size_t collect_max;
	struct avc_output outputs[AVC_CHANNELS];
	aviary_output_fn *on_output;
	void *on_output_ctx;
	bool held;         /* by the callback */
	bool lines;        /* somebody reads lines, which may be long */
	bool stdin_closed; /* by us */
	bool runs;         /* the server said so */
	bool ended;        /* its end is in result, and nothing of it comes any more */
	bool has_result;   /* callers may see it */
	bool was_shown;    /* all that was printed before it was connected to, and that was all */
	bool detaching, freed, calling;
	unsigned pins, resumes;
	int64_t pid, began_ms, timeout_ms, dropped;
	char tag[AVC_TAG_SIZE];
};

/* All with the lock. */

void avc_process_pin(aviary_process *p);
void avc_process_unpin(aviary_process *p);
/* Pauses or resumes the stream, as the buffers say. */
void avc_process_balance(aviary_process *p);
/* Output came. 0, or -errno with which the process ends. Gives the lock up for the callback. */
int avc_process_output(aviary_process *p, enum aviary_channel ch, const char *data, size_t n);
/* deliver is due: the callback gets what waits, and the operation ends when that was all. */
void avc_process_on_deliver(struct avc_timer *t);
/* The end is known: the operation ends, unless a callback has still something to get. */
void avc_process_settle(aviary_process *p);
/* Sends a frame, or keeps it until it may be sent. -EPIPE: it is over; -ENOMEM, -EMSGSIZE. */
int avc_process_send(aviary_process *p, enum av_frame_channel ch, struct av_str payload);
