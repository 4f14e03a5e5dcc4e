/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http2_client.h - HTTP/2 client over a unix stream socket: one connection, many streams
 *
 * Theory of operation. How the daemon talks to agents. av_h2c_open() starts to connect and returns
 * a connection on which requests may be made at once: they leave with the preface, so that the
 * first answer costs one round trip. Frames made in one iteration of the loop leave in one writev
 * at its end; bulk writes leave at once. A lost connection fails all streams with a definite
 * error; whether and when to connect again is the caller's business.
 *
 * The peer (a guest's agent) is hostile: header lists over 64 KiB, frames over the announced
 * limits, data past a window, streams it was not asked for, floods of SETTINGS, PING or RST end the
 * connection with -EPROTO. A peer that takes the connection but never answers is found by the
 * connect time-out, by PING after ping_interval of silence, and by a write stall time-out while
 * bytes wait that the socket does not take, unless av_h2c_hold() says that the peer is frozen.
 * Per-request time-outs are the caller's.
 *
 * Rules of lifetime:
 *  1. The connection belongs to the caller from av_h2c_open() until av_h2c_free(), also after
 *     on_close; a stream belongs to the caller until its on_close returns.
 *  2. A stream's on_close is called exactly once, last, never from inside a call on that
 *     connection other than av_h2c_free(): 0 after a complete response, -ECANCELED after
 *     av_h2s_cancel() and av_h2c_free(), -ECONNRESET when the connection was lost or the peer reset
 *     the stream, -EREMOTEIO when the peer refused it before doing anything (safe to try again on
 *     a new connection: REFUSED_STREAM or GOAWAY), -ECONNREFUSED, -ENOENT and so on when connecting
 *     failed, -ETIMEDOUT, -EPROTO.
 *  3. Calls on a stream that is already lost return -EPIPE and do nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/str.h"
#include "proto/http_msg.h"

struct av_loop;
struct av_h2c; /* connection */
struct av_h2s; /* stream */

struct av_h2c_metrics {
	uint64_t connects; /* begun */
	uint64_t connect_failures;
	uint64_t connections_open; /* now */
	uint64_t connections_lost; /* ended by the peer or an error */
	uint64_t streams_total;
	uint64_t streams_open; /* now */
	uint64_t protocol_errors;
	uint64_t timeouts;
	uint64_t bytes_in, bytes_out;
};

/* 0 in any number means the default behind it. */
struct av_h2c_config {
	/* Connected and the peer's SETTINGS seen. May be NULL. */
	void (*on_open)(void *ctx, struct av_h2c *c);
	/* The connection is unusable, status as rule 2; streams get their on_close before. Requests
	 * made afterwards fail with -EPIPE. Not called by av_h2c_free(). May be NULL. */
	void (*on_close)(void *ctx, struct av_h2c *c, int status);
	void *ctx;
	struct av_h2c_metrics *metrics; /* shared by many connections, may be NULL; outlives them */
	uint32_t connect_timeout_ms;    /* to the peer's SETTINGS: 5 s */
	uint32_t ping_interval_ms;      /* silence before a PING while streams are open: 15 s */
	uint32_t ping_timeout_ms;       /* until its answer: 15 s */
	uint32_t write_timeout_ms;      /* 30 s */
	uint32_t stream_window_bytes;   /* what the peer may send ahead of consume: 1 MiB */
	uint32_t connection_window_bytes; /* for all streams together: 4 * that, 4 MiB at least */
	uint32_t high_watermark_bytes;    /* request body bytes waiting per stream: 1 MiB */
	uint32_t low_watermark_bytes;     /* a quarter of the high one */
};

/* Starts connecting to the unix socket at path (under 108 bytes). Failures of connect(2) come by
 * on_close; here only -ENOMEM, -EMFILE, -ENAMETOOLONG. Does not block. */
int av_h2c_open(struct av_loop *loop, const char *path, const struct av_h2c_config *config,
    struct av_h2c **ret) AV_MUST_CHECK;
/* The same on a connected stream socket, which belongs to the connection on success. */
int av_h2c_adopt(struct av_loop *loop, int fd, const struct av_h2c_config *config,
    struct av_h2c **ret) AV_MUST_CHECK;
/* Streams that are open get on_close(-ECANCELED) during this call. May be called from any callback
 * of the same connection. NULL is allowed. */
void av_h2c_free(struct av_h2c *c);
/* The peer is known to be frozen (or is not any more): while it is, its silence proves nothing and
 * no time-out ends the connection; afterwards each begins anew. */
void av_h2c_hold(struct av_h2c *c, bool held);
/* False from the moment the connection was lost or the peer said GOAWAY. */
bool av_h2c_usable(const struct av_h2c *c);
size_t av_h2c_streams(const struct av_h2c *c);
struct av_loop *av_h2c_loop(const struct av_h2c *c);

struct av_h2s_handler {
	/* Final response head, borrowed until return. 1xx are swallowed. */
	void (*on_response)(void *ctx, struct av_h2s *s, const struct av_http_head *head);
	/* A piece of the body, borrowed until return. Every byte must be given back with
	 * av_h2s_consume(), here or later, unless the request set auto_consume. */
	void (*on_data)(void *ctx, struct av_h2s *s, struct av_str data);
	/* The response is complete (trailers, if any, dropped). The request may still be open. */
	void (*on_end)(void *ctx, struct av_h2s *s);
	/* The request body's waiting bytes fell under the low watermark after a write returned 1.
	 */
	void (*on_writable)(void *ctx, struct av_h2s *s);
	void (*on_close)(void *ctx, struct av_h2s *s, int status);
};

struct av_h2s_request {
	struct av_str method;                 /* "GET", ...; "CONNECT" takes only authority */
	struct av_str path;                   /* with query; ignored for CONNECT */
	struct av_str authority;              /* empty: "sandbox" */
	const struct av_http_header *headers; /* names in lower case */
	size_t n_headers;
	bool has_body;      /* av_h2s_write() and av_h2s_end() follow */
	struct av_str body; /* or a whole body at once, copied; has_body false */
	bool auto_consume;
};

/* Makes a stream; everything is copied. More than the peer's limit of streams wait inside until
 * others end. Members of *handler may be NULL; it is borrowed until on_close. -EPIPE: connection
 * not usable; -EINVAL: bad header bytes; -ENOMEM. */
int av_h2c_request(struct av_h2c *c, const struct av_h2s_request *request,
    const struct av_h2s_handler *handler, void *ctx, struct av_h2s **ret) AV_MUST_CHECK;
/* Copies what cannot leave at once. 0: go on; 1: taken, but wait for on_writable; -EPIPE: stream
 * or request side is over; -ENOMEM; -EINVAL: no body was announced. */
int av_h2s_write(struct av_h2s *s, struct av_str data);
/* Ends the request body. Again: ignored. */
void av_h2s_end(struct av_h2s *s);
/* Sends what was written now, as far as windows and the socket take it, since a cancel takes back
 * what has not left. Not
 * from callbacks of this connection, where it does nothing. */
void av_h2s_flush(struct av_h2s *s);
/* RST_STREAM(CANCEL); on_close(-ECANCELED) follows, nothing else before it. */
void av_h2s_cancel(struct av_h2s *s);
/* n bytes of on_data are done with: gives window back to the peer. */
void av_h2s_consume(struct av_h2s *s, size_t n);
size_t av_h2s_pending(const struct av_h2s *s);
struct av_h2c *av_h2s_conn(const struct av_h2s *s);
