/* SPDX-License-Identifier: Apache-2.0 */
/*
 * socket.h - a client WebSocket, driven by the caller's poll loop
 *
 * Opening blocks (connect and handshake, at most ten seconds); after that nothing blocks: poll
 * av_socket_fd() for reading, and for writing while av_socket_wants_write(), and call
 * av_socket_step(). Not reading is how a slow consumer slows the sender down.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "client/client.h"

struct av_socket;

struct av_socket_events {
	/* One whole message, valid until return. */
	void (*on_message)(void *ctx, bool is_text, const uint8_t *p, size_t n);
};

/* path as in av_client_call; protocol is the subprotocol asked for (the daemon must agree).
 * events and ctx are borrowed until av_socket_free. A refusal comes with the daemon's error. */
int av_socket_open(struct av_client *c, const char *path, const char *protocol,
    const struct av_socket_events *events, void *ctx, struct av_socket **ret, struct av_err *err);
/* Closes without waiting for the peer; NULL is fine. */
void av_socket_free(struct av_socket *s);

int av_socket_fd(const struct av_socket *s);
bool av_socket_wants_write(const struct av_socket *s);
/* Bytes that wait to be sent. */
size_t av_socket_buffered(const struct av_socket *s);
/* Queues a binary message made of head and body; copies. -EPIPE after a CLOSE, -ENOMEM. */
int av_socket_send(struct av_socket *s, struct av_str head, struct av_str body);
/* Queues a CLOSE with code 1000. */
void av_socket_close(struct av_socket *s);
/* Writes what waits and, if may_read, reads what is there (bounded, so that other descriptors get
 * their turn): events come from here. 0: go on; 1: the peer closed in order; negative: broken. */
int av_socket_step(struct av_socket *s, bool may_read, struct av_err *err);
/* True when decoded bytes wait inside (TLS, leftovers): step again without polling. */
bool av_socket_has_pending(const struct av_socket *s);
