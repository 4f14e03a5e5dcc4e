/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ws.h - WebSocket (RFC 6455) over wslay: handshake helpers and a message codec, no I/O
 *
 * Received messages are collected (fragments joined) up to max_message bytes; text is checked to be
 * UTF-8. PING is answered and a CLOSE is answered by the codec itself. No extensions: a frame with
 * a reserved bit is a protocol error.
 *
 * Backpressure: receiving stops when av_ws_pause() was called in on_message (av_ws_recv reports
 * what it consumed) and on its own while more than `high_mark` bytes of output wait, so that a peer
 * that sends PINGs and reads nothing cannot grow our memory. Sending: look at av_ws_buffered().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "proto/http_msg.h"

#define AV_WS_KEY_SIZE    25 /* 24 characters of base64 and NUL */
#define AV_WS_ACCEPT_SIZE 29 /* 28 characters of base64 and NUL */

enum av_ws_opcode { AV_WS_TEXT = 1, AV_WS_BINARY = 2, AV_WS_PING = 9, AV_WS_PONG = 10 };

#define AV_WS_CLOSE_NORMAL      1000
#define AV_WS_CLOSE_GOING_AWAY  1001
#define AV_WS_CLOSE_PROTOCOL    1002
#define AV_WS_CLOSE_UNSUPPORTED 1003
#define AV_WS_CLOSE_NO_STATUS   1005 /* received only: a CLOSE without a code */
#define AV_WS_CLOSE_ABNORMAL    1006 /* never sent */
#define AV_WS_CLOSE_BAD_DATA    1007
#define AV_WS_CLOSE_POLICY      1008
#define AV_WS_CLOSE_TOO_BIG     1009
#define AV_WS_CLOSE_INTERNAL    1011
#define AV_WS_CLOSE_TRY_AGAIN   1013

/* Handshake. */

/* A random Sec-WebSocket-Key. */
void av_ws_make_key(char dst[static AV_WS_KEY_SIZE]);
/* Sec-WebSocket-Accept for a key (RFC 6455 section 4.2.2). */
void av_ws_accept_key(char dst[static AV_WS_ACCEPT_SIZE], struct av_str key);
/* Server: checks a request head (GET, Upgrade, Connection, version 13, a well-formed key, no body).
 * AV_ERR_INVALID says what is missing; for a wrong version answer 426 with "sec-websocket-version:
 * 13" (*err is AV_ERR_UNSUPPORTED). */
int av_ws_check_request(const struct av_http_head *request, struct av_err *err) AV_MUST_CHECK;
/* True if protocol is one of those the client offers. */
bool av_ws_offers_protocol(const struct av_http_head *request, const char *protocol);
/* Server: the 101 head that answers a checked request. protocol may be NULL. -ENOMEM. */
int av_ws_accept_head(struct av_http_head *ret, const struct av_http_head *request,
    const char *protocol) AV_MUST_CHECK;
/* Client: adds the upgrade headers to a GET head. protocol may be NULL. -ENOMEM. */
int av_ws_request_head(struct av_http_head *h, const char key[static AV_WS_KEY_SIZE],
    const char *protocol) AV_MUST_CHECK;
/* Client: checks the 101. */
int av_ws_check_response(const struct av_http_head *response, const char key[static AV_WS_KEY_SIZE],
    struct av_err *err) AV_MUST_CHECK;

/* The codec. */

struct av_ws;
struct av_ws_events {
	/* TEXT or BINARY, valid until return. */
	void (*on_message)(void *ctx, enum av_ws_opcode op, const uint8_t *p, size_t n);
	/* The peer's CLOSE: code (1005 without one) and reason. The answer is queued. May be NULL.
	 */
	void (*on_close)(void *ctx, uint16_t code, struct av_str reason);
	/* A PONG. May be NULL. */
	void (*on_pong)(void *ctx, const uint8_t *p, size_t n);
};
struct av_ws_config {
	bool client; /* masks what it sends; a server refuses unmasked frames, a client masked */
	size_t max_message; /* bytes; larger ones end the connection with 1009 */
	size_t high_mark;   /* bytes of waiting output at which receiving stops */
};
#define AV_WS_CONFIG_SERVER ((struct av_ws_config){.max_message = 1048576, .high_mark = 1048576})

/* NULL: out of memory. events and ctx are borrowed until av_ws_free. */
struct av_ws *av_ws_new(
    const struct av_ws_config *config, const struct av_ws_events *events, void *ctx);
void av_ws_free(struct av_ws *w);
/* Another max_message, for frames that begin from now on. */
void av_ws_set_max_message(struct av_ws *w, size_t bytes);

/* Events come from here only; they may call everything except av_ws_recv and av_ws_free. Returns
 * the bytes consumed: less than n after av_ws_pause(), above the high mark, or behind a CLOSE. On a
 * violation -EPROTO, -EMSGSIZE (message too big), -EILSEQ (text not UTF-8), -ENOMEM: the fitting
 * CLOSE is queued; flush, then close the transport. */
ssize_t av_ws_recv(struct av_ws *w, const void *p, size_t n) AV_MUST_CHECK;
/* av_ws_recv returns after the present message, or those that came with it in the same 4 KiB.
 * av_ws_resume() before feeding on; then feed at least once, if only zero bytes. */
void av_ws_pause(struct av_ws *w);
void av_ws_resume(struct av_ws *w);

/* Queues one message (one frame). Copied. TEXT must be UTF-8 (the caller's duty). PING and PONG at
 * most 125 bytes. -EPIPE after a CLOSE was queued, -ENOMEM, -EINVAL. */
int av_ws_send(struct av_ws *w, enum av_ws_opcode op, const void *p, size_t n) AV_MUST_CHECK;
/* As av_ws_send, the message being head followed by body. */
int av_ws_send2(
    struct av_ws *w, enum av_ws_opcode op, struct av_str head, struct av_str body) AV_MUST_CHECK;
#define AV_WS_HEADER_MAX 14
/* For a server that writes a message itself, without a copy, when no output waits and no CLOSE was
 * queued: what to write before the n bytes of the message (unmasked); how many bytes that is. What
 * the transport did not take follows with av_ws_append() before anything else. */
size_t av_ws_header(uint8_t dst[static AV_WS_HEADER_MAX], enum av_ws_opcode op, size_t n);
int av_ws_append(struct av_ws *w, struct av_str bytes) AV_MUST_CHECK;
/* Queues a CLOSE, once (later calls do nothing). The reason is cut to 123 bytes. code 0: without.
 */
int av_ws_close(struct av_ws *w, uint16_t code, const char *reason);

/* Bytes to write; valid until the next call on w. */
struct av_str av_ws_output(const struct av_ws *w);
void av_ws_output_done(struct av_ws *w, size_t n);
size_t av_ws_buffered(const struct av_ws *w);
/* A CLOSE was sent (or queued) and one received: flush, then close the transport. */
bool av_ws_done(const struct av_ws *w);
bool av_ws_close_sent(const struct av_ws *w);
bool av_ws_close_received(const struct av_ws *w);
