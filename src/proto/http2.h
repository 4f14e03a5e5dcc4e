/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http2.h - HTTP/2 with prior knowledge (RFC 9113) on nghttp2: one connection, either side, no I/O
 *
 * Theory of operation. The owner of a transport feeds what it received into av_http2_recv() and
 * writes what av_http2_output() points at. In between are streams. Both directions of a stream have
 * backpressure:
 *   - Receiving: every byte given to on_body must be given back once with av_http2_consume(), at
 *     once or later; only that opens the windows again. A peer can therefore make us hold at most
 *     `window` bytes a stream and `connection_window` bytes a connection. Where streams belong to
 *     different people, the second bound lets a few that nobody reads stop all others:
 *     `own_windows` gives the connection's share back on receipt, and the bound is then `window`
 *     times the number of streams.
 *   - Sending: av_http2_write() copies into a chain of blocks of the stream; av_http2_write_block()
 *     takes a block over without a copy. Both accept any amount; stop when av_http2_buffered()
 *     reaches your high mark, and go on at on_drain, which comes when less than `low_mark` bytes
 *     are left. DATA frames point into those blocks: from the block to writev there is no copy.
 * Memory is taken when needed: an idle session is nghttp2's few KiB (mostly HPACK tables).
 *
 * Abuse that is bounded here (all from RFC 9113 section 10.5 and known attacks): concurrent
 * streams, header bytes and count, CONTINUATION floods and SETTINGS size (nghttp2), unanswered PING
 * and SETTINGS acks (nghttp2), streams opened and reset (budget without a clock: a stream that ends
 * well pays one reset back), frames that carry nothing (PING, PRIORITY, SETTINGS, empty DATA,
 * WINDOW_UPDATE: a budget that real data pays back). Over budget the connection ends with GOAWAY
 * ENHANCE_YOUR_CALM and av_http2_recv() returns -EPROTO.
 *
 * Rules of life:
 *   1. A stream belongs to its session. It dies with on_close, which comes exactly once for every
 *      stream that the owner has seen (on_head on a server, av_http2_request on a client), last of
 *      all its events, also when the session is freed. The pointer is dead after on_close returns.
 *   2. Events come only from within av_http2_recv(), av_http2_output(), av_http2_output_done(),
 *      av_http2_eof() and av_http2_free(). An event may call anything here except these five.
 *   3. on_close of a stream with queued bytes may come while blocks of it are still in the output;
 *      the session holds them until they are written.
 *   4. After any call here except pure getters, the owner looks at av_http2_want_write() once its
 *      own work is done (usually: flush at the end of each loop callback).
 * One thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "proto/http_msg.h"

struct av_http2;
struct av_http2_stream;

/* Error codes of RFC 9113 section 7 that callers use. */
#define AV_HTTP2_NO_ERROR          0x0u
#define AV_HTTP2_PROTOCOL_ERROR    0x1u
#define AV_HTTP2_INTERNAL_ERROR    0x2u
#define AV_HTTP2_STREAM_CLOSED     0x5u
#define AV_HTTP2_REFUSED_STREAM    0x7u /* nothing was done with the request: may be tried again */
#define AV_HTTP2_CANCEL            0x8u
#define AV_HTTP2_CONNECT_ERROR     0xau
#define AV_HTTP2_ENHANCE_YOUR_CALM 0xbu

struct av_http2_config {
	struct av_http_limits limits;
	uint32_t max_streams;       /* concurrent, opened by the peer (server side) */
	uint32_t window;            /* bytes, receive window of each stream */
	uint32_t connection_window; /* bytes */
	bool own_windows;           /* what is not consumed holds back its stream, not the others */
	uint32_t max_frame;         /* bytes of a DATA frame we accept; 16384 to 1 MiB */
	size_t low_mark;       /* bytes left in a stream's send chain at which on_drain comes */
	uint32_t reset_budget; /* streams the peer may open and reset beyond those that ended well;
	                          0: any */
	uint32_t idle_frame_budget; /* frames without use beyond those that data paid for; 0: any */
};
/* Windows of 1 MiB and 4 MiB: one bulk stream runs at memory speed over a unix socket. */
#define AV_HTTP2_CONFIG_DEFAULT                                                                    \
	((struct av_http2_config){                                                                 \
	    .limits = AV_HTTP_LIMITS_DEFAULT,                                                      \
	    .max_streams = 1024,                                                                   \
	    .window = 1048576,                                                                     \
	    .connection_window = 4194304,                                                          \
	    .max_frame = 65536,                                                                    \
	    .low_mark = 65536,                                                                     \
	    .reset_budget = 200,                                                                   \
	    .idle_frame_budget = 10000,                                                            \
	})

/* All but on_head and on_close may be NULL (without on_body, bodies are consumed and dropped). */
struct av_http2_events {
	/* Server: a request. Client: the response (1xx are not shown). The head is lent: valid, and
	 * movable with av_http_head_move, until return. end: no body follows; on_end comes next.
	 * head->content_length is checked against the body by nghttp2. */
	void (*on_head)(void *ctx, struct av_http2_stream *s, struct av_http_head *head, bool end);
	/* n > 0 bytes of the peer's body, valid until return. Owed: av_http2_consume(s, n). What is
	 * owed when the stream closes is given back to the connection by the session itself. */
	void (*on_body)(void *ctx, struct av_http2_stream *s, const uint8_t *p, size_t n);
	/* The peer's side of the stream has ended. trailers: NULL or lent, only headers count. */
	void (*on_end)(void *ctx, struct av_http2_stream *s, struct av_http_head *trailers);
	/* Once after one or more writes: fewer than low_mark bytes of them are left to send. */
	void (*on_drain)(void *ctx, struct av_http2_stream *s);
	/* The stream is gone. error is AV_HTTP2_NO_ERROR when both sides ended in order (also when
	 * a server answered and then stopped reading with NO_ERROR), else the code of the
	 * RST_STREAM sent or received, CANCEL at av_http2_eof/free. */
	void (*on_close)(void *ctx, struct av_http2_stream *s, uint32_t error);
	/* The peer will take no new streams; those above last_id were not and will not be processed
	 * (their on_close with REFUSED_STREAM follows). */
	void (*on_goaway)(void *ctx, uint32_t error, int32_t last_id);
	/* The peer's first SETTINGS have come: it does speak HTTP/2. */
	void (*on_ready)(void *ctx);
	/* The answer to av_http2_ping(). */
	void (*on_pong)(void *ctx, uint64_t opaque);
};

/* A session; queues our SETTINGS (and, as client, the preface). config is copied; events and ctx
 * are borrowed until av_http2_free. NULL: out of memory. */
struct av_http2 *av_http2_new_server(
    const struct av_http2_config *config, const struct av_http2_events *events, void *ctx);
struct av_http2 *av_http2_new_client(
    const struct av_http2_config *config, const struct av_http2_events *events, void *ctx);
/* Ends every stream (on_close, CANCEL) and frees. NULL is allowed. */
void av_http2_free(struct av_http2 *h);

/* Feeds received bytes; all n are always consumed. 0, or -EPROTO / -ENOMEM with *err: then a GOAWAY
 * is queued: write the output that is there, close the transport, free. Violations that nghttp2
 * answers itself give 0 and a GOAWAY in the output, after which av_http2_done() is true. */
int av_http2_recv(struct av_http2 *h, const void *p, size_t n, struct av_err *err) AV_MUST_CHECK;
/* The transport ended or failed: every stream is closed with CANCEL (a stream whose both sides were
 * complete had its on_close before). No output comes any more. */
void av_http2_eof(struct av_http2 *h);

/* Bytes to write, as up to max_iov pieces of about max_bytes together (64 to 256 KiB keep control
 * streams quick behind bulk ones). Returns the number of pieces, 0 when there is nothing to write
 * now, -ENOMEM. The pieces stay valid and the same until av_http2_output_done(); calling again
 * first returns what is still there, and more behind it up to the limits. */
int av_http2_output(struct av_http2 *h, struct iovec *iov, int max_iov, size_t max_bytes);
/* n bytes of it were written (any number up to what was returned). */
void av_http2_output_done(struct av_http2 *h, size_t n);
/* True if av_http2_output() might return something. */
bool av_http2_want_write(const struct av_http2 *h);
/* True when the session is over (GOAWAY sent or received and no stream left, or failed): flush,
 * then close the transport. */
bool av_http2_done(const struct av_http2 *h);

/* Client: a new stream with this request. The head is copied and stays the caller's. method
 * CONNECT needs authority only and opens a tunnel: body bytes are the tunnel once the response is
 * 2xx. end: no body follows; otherwise av_http2_write() and av_http2_end(). user is
 * av_http2_stream_user() from the start. More requests than the peer allows at a time are queued.
 * -ENOMEM, -EINVAL (head), -EPIPE (the session takes no more: GOAWAY, eof). */
int av_http2_request(struct av_http2 *h, const struct av_http_head *head, bool end, void *user,
    struct av_http2_stream **ret) AV_MUST_CHECK;
/* Server: the response, once a stream. end: no body follows. A status of 100 to 199 (not 101) is an
 * interim response, before the final one. -EALREADY, -ENOMEM, -EINVAL (head), -EPIPE (our side of
 * the stream is closed: it was reset). */
int av_http2_respond(
    struct av_http2_stream *s, const struct av_http_head *head, bool end) AV_MUST_CHECK;

/* A counted block of bytes for sending without a copy. */
struct av_http2_block {
	uint32_t refs;
	uint32_t cap;
	uint32_t off; /* first byte to send */
	uint32_t n;   /* bytes to send */
	uint8_t data[];
};
/* refs 1, off and n 0. NULL: out of memory. */
struct av_http2_block *av_http2_block_new(uint32_t cap);
void av_http2_block_unref(struct av_http2_block *b);

/* Body bytes of our side, after request/respond. Copied. -ENOMEM (nothing taken), -EPIPE (our side
 * has ended, or the stream was reset: on_close follows or was). */
int av_http2_write(struct av_http2_stream *s, const void *p, size_t n) AV_MUST_CHECK;
/* As av_http2_write for b->data + off .. + n. Takes over the caller's reference, on failure too.
 * The bytes must not change until written. */
int av_http2_write_block(struct av_http2_stream *s, struct av_http2_block *b) AV_MUST_CHECK;
/* Ends our side after the bytes queued. trailers may be NULL; copied. -EPIPE, -ENOMEM, -EINVAL. */
int av_http2_end(struct av_http2_stream *s, const struct av_http_head *trailers) AV_MUST_CHECK;
/* Bytes queued in the stream that are not in frames yet. */
size_t av_http2_buffered(const struct av_http2_stream *s);
/* Gives n received bytes back to the windows (at most what on_body delivered). */
void av_http2_consume(struct av_http2_stream *s, size_t n);
/* Another receive window for this stream alone, for bulk; more than before at once, less as far as
 * the peer has not been told of more. */
void av_http2_set_window(struct av_http2_stream *s, uint32_t bytes);
/* Received and not consumed. */
size_t av_http2_unconsumed(const struct av_http2_stream *s);
/* RST_STREAM; queued bytes are dropped; of the stream only on_close follows, from
 * av_http2_output(). Harmless when the stream was reset before. NO_ERROR when our side has ended
 * means "I need no more of your body": the reset then waits until all of ours is sent. */
void av_http2_reset(struct av_http2_stream *s, uint32_t error);
/* True when our side ended (av_http2_end or end flag), resp. the peer's did (on_end was due). */
bool av_http2_local_ended(const struct av_http2_stream *s);
bool av_http2_remote_ended(const struct av_http2_stream *s);

/* Time has passed (about a second): forgives idle frames and half of the resets, so that keep-alive
 * pings of a long quiet connection never add up. Optional. */
void av_http2_tick(struct av_http2 *h);
/* Stops the session in order: no new streams are taken, those there go on. error NO_ERROR for a
 * graceful end. */
void av_http2_goaway(struct av_http2 *h, uint32_t error);
/* -ENOMEM, -EPIPE. Answered by on_pong. */
int av_http2_ping(struct av_http2 *h, uint64_t opaque) AV_MUST_CHECK;

int32_t av_http2_stream_id(const struct av_http2_stream *s);
struct av_http2 *av_http2_stream_session(const struct av_http2_stream *s);
void *av_http2_stream_user(const struct av_http2_stream *s);
void av_http2_stream_set_user(struct av_http2_stream *s, void *user);
/* Streams that are open now. */
size_t av_http2_stream_count(const struct av_http2 *h);
/* True from the first bytes if they can be an HTTP/2 client preface: 1 yes (24 bytes agree), 0 no,
 * -EAGAIN more bytes are needed to tell. */
int av_http2_is_preface(const void *p, size_t n);
