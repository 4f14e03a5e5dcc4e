/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.h - only for libaviary: a WebSocket of the daemon, driven with everything else of its
 * client
 *
 * Theory of operation. libcurl makes the connection (names, proxies, TLS) as a transfer that only
 * connects; from then on its descriptor is ours: the handshake is written and read with
 * proto/http1, the frames with proto/ws.
 *
 *   WAITING     c->streams_max connections of streams are open: those that come first go first
 *   CONNECTING  libcurl works; then HANDSHAKE: until the 101. Together they have 2 *
 *               connect_timeout_ms. A refusal that may pass (nobody answers, 429, 502, 503) is
 *               tried again while the retry budget lasts: nothing was asked for yet. A 401 asks the
 *               credentials callback once for others
 *   RESTING     between two tries
 *   OPEN        a server that says nothing, not even a pong, for silence_timeout_ms is lost; a
 * third of that before, it is asked with a ping. A stream that is paused reads nothing, so that
 * what the daemon sends waits there, and its silence does not count PARTING     nobody listens any
 * more; what waits is sent, and the other side has PART_MS to close OVER        on_end was called;
 * the connection is closed from the next round of driving
 *
 * What an enemy in the server's place can make grow: one message of message_max bytes, a
 * handshake's answer of ANSWER_MAX, pongs up to HIGH_MARK (then it is not read).
 */
#pragma once

#include "client/request.h"

struct avc_stream;

/* All with the lock, from where is driven. Each may give the lock up meanwhile and may call all
 * that is below. */
struct avc_stream_events {
	void (*on_open)(void *ctx);
	/* A whole message, borrowed. */
	void (*on_message)(void *ctx, bool text, struct av_str data);
	/* There is room for output again (after avc_stream_buffered() was over AVC_STREAM_LOW). May
	 * be NULL. */
	void (*on_drain)(void *ctx);
	/* Nothing comes any more; error NULL: it was closed in order. */
	void (*on_end)(void *ctx, const aviary_error *error);
};

#define AVC_STREAM_LOW ((size_t)256 << 10)

struct avc_stream_spec {
	const char *path;       /* as in a request; copied */
	const char *protocol;   /* a literal; NULL: none */
	const char *sandbox_id; /* for errors; copied; NULL */
	size_t message_max;     /* bytes of one message of the server's */
};

/* With the lock. NULL without memory. events and ctx are borrowed until avc_stream_free or _part.
 */
struct avc_stream *avc_stream_open(aviary_client *c, const struct avc_stream_spec *spec,
    const struct avc_stream_events *events, void *ctx);
/* With the lock. No event comes any more; the connection is cut. NULL is fine. */
void avc_stream_free(struct avc_stream *s);
/* The same, but what was sent still goes out, and then a Close. */
void avc_stream_part(struct avc_stream *s);
/* Queues a binary message, from on_open on. -EPIPE: it is over; -ENOMEM. */
int avc_stream_send(struct avc_stream *s, struct av_str head, struct av_str body);
/* Queues a Close; on_end follows when the other side closes, or PART_MS later. */
void avc_stream_close(struct avc_stream *s);
void avc_stream_pause(struct avc_stream *s, bool paused);
/* Bytes that wait to be sent. */
size_t avc_stream_buffered(const struct avc_stream *s);
/* All end with AVIARY_E_CANCELED, and connections are closed. */
void avc_streams_end(aviary_client *c);

/* ---- events.c ---- */

/* Those that wait for their next stream end with AVIARY_E_CANCELED. With the lock. */
void avc_followers_end(aviary_client *c);
