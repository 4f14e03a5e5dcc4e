/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http2_internal.h - only for http2*.c: the session, its streams, and queues of byte segments
 */
#pragma once

#include <nghttp2/nghttp2.h>

#include "base/list.h"
#include "proto/http2.h"

/* A FIFO of pieces of blocks. Each segment holds a reference to its block. */
struct h2_seg {
	struct av_http2_block *block;
	const uint8_t *p;
	size_t n;
};
struct h2_queue {
	struct h2_seg *v; /* owned; live: v[head] .. v[head + n - 1] */
	size_t head, n, cap;
	size_t bytes;
};

/* Room for extra more segments, so that pushes cannot fail. -ENOMEM. */
int av_http2_queue_reserve(struct h2_queue *q, size_t extra) AV_MUST_CHECK;
/* Appends (joined to the last segment where the bytes are neighbours); takes a new reference. Room
 * must have been reserved. */
void av_http2_queue_push(struct h2_queue *q, struct av_http2_block *b, const uint8_t *p, size_t n);
/* Drops n bytes at the front. */
void av_http2_queue_consume(struct h2_queue *q, size_t n);
/* Drops what is behind the first n bytes. */
void av_http2_queue_truncate(struct h2_queue *q, size_t n);
/* Moves n bytes from the front of src to the end of dst, which has reserved enough. */
void av_http2_queue_move(struct h2_queue *dst, struct h2_queue *src, size_t n);
/* How many segments hold the first n bytes. */
size_t av_http2_queue_segments(const struct h2_queue *q, size_t n);
void av_http2_queue_clear(struct h2_queue *q);
/* Copies p, n to the end of q, using *tail (a block only q appends to, or NULL) as far as it has
 * room. -ENOMEM, nothing taken. */
int av_http2_queue_copy(struct h2_queue *q, struct av_http2_block **tail, const void *p, size_t n,
    size_t block_min) AV_MUST_CHECK;

struct av_http2_stream {
	struct av_list link;       /* in session->streams */
	struct av_list drain_link; /* in session->drained, or alone */
	struct av_http2 *session;
	void *user;
	int32_t id;
	struct av_http_head *head;     /* owned; while headers are being received */
	struct av_http_head *trailers; /* owned; ours, until sent */
	size_t head_bytes;
	struct h2_queue sendq;
	struct av_http2_block *tail; /* owned reference: last block of copies in sendq */
	size_t unconsumed;
	size_t promised; /* bytes of sendq that nghttp2 has put into a frame not sent yet */
	uint32_t reset_code;
	bool hidden : 1; /* the owner never saw it: no on_close */
	bool responded : 1;
	bool local_ended : 1; /* the owner called end */
	bool end_sent : 1;    /* END_STREAM is in the output */
	bool remote_ended : 1;
	bool has_source : 1; /* a data provider was submitted */
	bool deferred : 1;
	bool reset : 1; /* by us */
	bool reset_after_end : 1;
	bool drain_armed : 1;
	bool got_head : 1;
	bool head_too_large : 1;
	bool head_invalid : 1;
};

struct av_http2 {
	nghttp2_session *ng; /* owned */
	struct av_http2_config config;
	const struct av_http2_events *events; /* borrowed */
	void *ctx;
	struct av_list streams, drained;
	size_t n_streams;
	struct h2_queue out;
	struct av_http2_block *out_tail; /* owned reference: frames that are not DATA payload */
	size_t out_limit;
	uint32_t resets, idle_frames;
	int failed; /* 0 or -errno: no more events of new streams */
	bool server : 1;
	bool dead : 1;        /* transport gone */
	bool goaway_sent : 1; /* by us, or one with an error by nghttp2 */
	bool goaway_received : 1;
	bool ready : 1;
};

/* http2.c */
void av_http2_stream_gone(struct av_http2_stream *s, uint32_t error);
/* http2_recv.c, http2_send.c: fill in their callbacks. */
void av_http2_recv_callbacks(nghttp2_session_callbacks *cbs);
void av_http2_send_callbacks(nghttp2_session_callbacks *cbs);
/* http2_recv.c: a stream of this session, linked; NULL: out of memory. */
struct av_http2_stream *av_http2_stream_new(struct av_http2 *h, int32_t id);
