/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ws.h - a WebSocket session of the server (RFC 6455), made by av_req_upgrade_ws()
 *
 * Theory of operation. The session owns its connection. Open: messages both ways. Closing, after
 * av_ws_close() or the peer's Close frame: what was sent before still leaves, the closing handshake
 * has 10 s, then the connection is reset. The server pings after 30 s without a frame from the
 * peer; a peer silent for another 30 s is lost. Pings are answered; a message over 1 MiB closes
 * with 1009, text that is not UTF-8 with 1007, broken framing with 1002.
 *
 * A session is valid until on_close returns; on_close is called exactly once, last, and never from
 * inside a call that the owner makes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/str.h"

struct av_ws;

#define AV_WS_MESSAGE_MAX (1024 * 1024)

/* RFC 6455 section 7.4.1 */
#define AV_WS_NORMAL       1000
#define AV_WS_GOING_AWAY   1001
#define AV_WS_PROTOCOL     1002
#define AV_WS_UNSUPPORTED  1003
#define AV_WS_NO_STATUS    1005 /* only in on_close: the peer's Close frame had no code */
#define AV_WS_ABNORMAL     1006 /* only in on_close: ended without a Close frame */
#define AV_WS_INVALID_DATA 1007
#define AV_WS_POLICY       1008
#define AV_WS_TOO_BIG      1009
#define AV_WS_INTERNAL     1011

struct av_ws_handler {
	/* A whole message, borrowed until return. */
	void (*on_message)(void *ctx, struct av_ws *ws, bool text, struct av_str data);
	/* Waiting bytes fell under the low watermark after a send returned 1. */
	void (*on_drain)(void *ctx, struct av_ws *ws);
	/* code: what the peer sent, or AV_WS_ABNORMAL. */
	void (*on_close)(void *ctx, struct av_ws *ws, int code);
};

/* Sends one unfragmented message; data is copied as far as the kernel does not take it at once.
 * Text must be UTF-8 (the caller's promise). 0: go on; 1: taken, but wait for on_drain; -EPIPE:
 * closing or lost; -ENOMEM; -ENOBUFS: over AV_RES_PENDING_MAX waiting, the session is reset. */
int av_ws_send(struct av_ws *ws, bool text, struct av_str data);
/* Stops reading from the socket (no on_message) and starts it again. While paused the peer's death
 * is noticed only by pings and writes. */
void av_ws_pause(struct av_ws *ws);
void av_ws_resume(struct av_ws *ws);
/* Starts the closing handshake; reason (at most 123 bytes, cut) may be NULL. Later sends are
 * -EPIPE, messages that still come are dropped. Again: ignored. */
void av_ws_close(struct av_ws *ws, int code, const char *reason);
/* Resets the connection without a Close frame. */
void av_ws_abort(struct av_ws *ws);
size_t av_ws_pending(const struct av_ws *ws);
