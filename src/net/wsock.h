/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wsock.h - a WebSocket session of the server (RFC 6455), made by av_req_upgrade_ws()
 *
 * Theory of operation. The session owns its connection. Open: messages both ways. Closing, after
 * av_wsock_close() or the peer's Close frame: what was sent before still leaves, the closing
 * handshake has 10 s, then the connection is reset. The server pings after 30 s without a frame
 * from the peer; a peer silent for another 30 s is lost (unless our own bytes wait for it, which
 * the write time-out watches, or the owner paused reading). One that hangs up while it is not read
 * is lost within 20 s: what it sent before has that time to be taken. Pings are answered; a message
 * over 1 MiB closes with 1009, text that is not UTF-8 with 1007, broken framing with 1002.
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

struct av_wsock;

#define AV_WSOCK_MESSAGE_MAX (1024 * 1024)

struct av_wsock_handler {
	/* A whole message, borrowed until return. */
	void (*on_message)(void *ctx, struct av_wsock *ws, bool text, struct av_str data);
	/* Waiting bytes fell under the low watermark after a send returned 1. */
	void (*on_drain)(void *ctx, struct av_wsock *ws);
	/* code: what the peer sent (AV_WS_CLOSE_NO_STATUS without one), or AV_WS_CLOSE_ABNORMAL
	 * when the connection ended without its Close frame. Codes: proto/ws.h. */
	void (*on_close)(void *ctx, struct av_wsock *ws, int code);
};

/* Sends one unfragmented message; data is copied as far as the kernel does not take it at once.
 * Text must be UTF-8 (the caller's promise). 0: go on; 1: taken, but wait for on_drain; -EPIPE:
 * closing or lost; -ENOMEM; -ENOBUFS: over AV_RES_PENDING_MAX waiting, the session is reset. */
int av_wsock_send(struct av_wsock *ws, bool text, struct av_str data);
/* The same, the message being head followed by body. */
int av_wsock_send2(struct av_wsock *ws, bool text, struct av_str head, struct av_str body);
/* Stops reading from the socket (no on_message) and starts it again. While paused the peer's death
 * is noticed only by pings and writes. */
void av_wsock_pause(struct av_wsock *ws);
void av_wsock_resume(struct av_wsock *ws);
/* Starts the closing handshake; reason (at most 123 bytes, cut) may be NULL. Later sends are
 * -EPIPE, messages that still come are dropped. Again: ignored. */
void av_wsock_close(struct av_wsock *ws, int code, const char *reason);
/* How long the peer may leave what waits unread before the connection is reset; 0: for ever. The
 * server's write_timeout_ms when not set. */
void av_wsock_set_write_timeout(struct av_wsock *ws, uint32_t timeout_ms);
/* A longer message of the peer, from the next frame on, closes with 1009; AV_WSOCK_MESSAGE_MAX when
 * not set. */
void av_wsock_set_message_max(struct av_wsock *ws, size_t bytes);
/* Resets the connection without a Close frame. */
void av_wsock_abort(struct av_wsock *ws);
size_t av_wsock_pending(const struct av_wsock *ws);
