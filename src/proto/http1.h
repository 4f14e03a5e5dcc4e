/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http1.h - HTTP/1.0 and 1.1 (RFC 9112): bytes in, events out; heads and chunks in, bytes out
 *
 * Theory of operation. llhttp parses; a guard of ours walks in front of it, line by line, and a
 * check of ours stands behind it at the end of each head, so that what two parsers on a path could
 * read in two ways never passes, whatever the installed llhttp tolerates. Refused:
 *   - a bare CR or LF, NUL and other control bytes, lines that go on after a fold, white space
 *     around a header name, names that are no token;
 *   - Content-Length together with Transfer-Encoding, more than one Content-Length (even if equal),
 *     Transfer-Encoding other than exactly one "chunked", or at all in HTTP/1.0;
 *   - in requests: not exactly two spaces in the first line, HTTP/0.9, a version other than 1.0 or
 *     1.1, in 1.1 a Host that is missing, empty, repeated or malformed, an absolute target whose
 *     authority is not that of Host, a target with bytes outside visible ASCII;
 *   - chunk extensions beyond AV_HTTP1_CHUNK_LINE_MAX bytes a line; trailers beyond the head
 * limits. Nothing here does I/O, knows a clock or logs. A parser holds some hundred bytes; the head
 * that is being received is bounded by the limits and freed when its event has returned.
 *
 * Pipelining: av_http1_feed() stops behind the end of each message; the bytes it did not consume
 * are the next message's (or, after CONNECT or an upgrade, the other protocol's). Feed them when
 * the answer has been sent.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "proto/http_msg.h"

#define AV_HTTP1_CHUNK_LINE_MAX 256 /* bytes of a chunk-size line with its extensions */

struct av_http1;

/* Events. Each may call av_http1_pause(); none may free the parser or feed it. A return value other
 * than 0 (-errno) stops parsing: the feed returns it and the parser is done for. */
struct av_http1_events {
	/* A whole head. Lent: valid (and movable with av_http_head_move) until return. 1xx
	 * responses other than 101 come here too, without an on_end; the final response follows. */
	int (*on_head)(void *ctx, struct av_http_head *head);
	/* A piece of the body, chunked framing removed. Never empty. */
	int (*on_body)(void *ctx, const uint8_t *p, size_t n);
	/* The end of the message. trailers is NULL or a head of which only the headers count; lent.
	 */
	int (*on_end)(void *ctx, struct av_http_head *trailers);
};

/* A parser of requests, or of responses. events and ctx are borrowed until av_http1_free.
 * NULL: out of memory. */
struct av_http1 *av_http1_new_request(
    const struct av_http_limits *limits, const struct av_http1_events *events, void *ctx);
struct av_http1 *av_http1_new_response(
    const struct av_http_limits *limits, const struct av_http1_events *events, void *ctx);
void av_http1_free(struct av_http1 *p);
void av_http1_freep(struct av_http1 **p);

/* Responses only, before the first byte of each: what was asked decides whether a body follows. */
void av_http1_expect(struct av_http1 *p, struct av_str request_method);

enum av_http1_state {
	AV_HTTP1_MORE,   /* all bytes consumed, the message is not complete */
	AV_HTTP1_PAUSED, /* av_http1_pause was called; bytes may be left */
	AV_HTTP1_DONE,   /* a message ended; bytes may be left. Feed on for the next one */
	AV_HTTP1_TUNNEL, /* as DONE, of CONNECT, a request with `upgrade`, a 101 or a 2xx to
	                    CONNECT: what is left belongs to the other protocol. After a refused
	                    upgrade (not CONNECT) feeding on continues with HTTP */
};
/* Parses. *ret_consumed (<= n) is set on success and on error alike. Returns an av_http1_state, or
 * on a violation -errno with *err: INVALID (answer 400), HEAD_TOO_LARGE (431), UNSUPPORTED (501,
 * transfer codings), NO_MEMORY; then answer, close, and do not feed again (it returns the same).
 * n == 0 returns the present state. */
int av_http1_feed(struct av_http1 *p, const void *data, size_t n, size_t *ret_consumed,
    struct av_err *err) AV_MUST_CHECK;
/* The peer closed its side. Ends a response that is delimited by close (on_end is called); returns
 * AV_HTTP1_DONE if that happened or nothing was under way, -EINVAL with *err if a message was cut.
 */
int av_http1_finish(struct av_http1 *p, struct av_err *err) AV_MUST_CHECK;

/* From an event or between feeds: the feed returns AV_HTTP1_PAUSED before the next body piece or
 * message (events caused by the same line may still come). Feeding again resumes. */
void av_http1_pause(struct av_http1 *p);
/* True before the first byte of a message: the connection is idle. */
bool av_http1_idle(const struct av_http1 *p);
/* True once a head is complete and its body is being received. */
bool av_http1_in_body(const struct av_http1 *p);

/* Serialising. All append to out and return its error (-EMSGSIZE, -ENOMEM) or -EINVAL for a head
 * that cannot be sent. */

/* "GET /x HTTP/1.1\r\nhost: ...\r\n...\r\n\r\n" or "HTTP/1.1 200 OK\r\n...". Writes Host,
 * Content-Length and Transfer-Encoding from the fields: chunked -> "transfer-encoding: chunked";
 * content_length
 * >= 0 -> that; neither: none (a request without body; a response that ends with the connection,
 * or has none by its status). keep_alive false adds "connection: close" unless a Connection header
 * is in the list. 1xx, 204 and, in responses, 304 never get a Transfer-Encoding. */
int av_http1_write_head(struct av_buf *out, const struct av_http_head *h) AV_MUST_CHECK;

/* A chunk is av_http1_chunk_head(), n bytes of data, "\r\n". n > 0. dst gets at most 18 bytes and
 * no NUL; returns the length. For writev around data that is not copied. */
size_t av_http1_chunk_head(char dst[static 18], size_t n);
int av_http1_write_chunk(struct av_buf *out, const void *p, size_t n) AV_MUST_CHECK;
/* "0\r\n" trailers "\r\n". trailers may be NULL. */
int av_http1_write_last_chunk(
    struct av_buf *out, const struct av_http_head *trailers) AV_MUST_CHECK;
