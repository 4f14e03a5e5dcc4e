/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay.h - a stream socket carried over a virtio port, and at the other end made a socket again
 *
 * Theory of operation. A relay owns a port (port.h) and carries one connection at a time over it.
 * Outside (aviary-vm) it is given a connected socket; inside (the agent) it makes a pair of sockets
 * for each connection that begins, keeps one end and hands out the other. The end of either socket
 * is the end of the connection, in both directions, after the bytes that were read from it; that
 * closes the socket at the other side. Bytes are read into the record that will carry them, and
 * written from the buffer that they were received in. When either side does not take more, the
 * other one is not read, so that a relay never holds more than its two buffers (VLINK_BUFFER each).
 *
 * Thread and blocking as in port.h.
 */
#pragma once

#include <uv.h>

#include "proto/vlink.h"

#define VLINK_BUFFER ((size_t)64 * 1024) /* payload on its way, for each direction */

struct vlink_relay;

struct vlink_relay_ops {
	/* Inside: a connection began; fd (a non-blocking stream socket) is the callee's. One that
	 * was there before is over: its socket has been closed. */
	void (*on_connection)(void *ctx, int fd);
	/* Outside: the connection is over and the relay free for the next; the socket has been
	 * closed. 0, -EPROTO, -ETIMEDOUT as on_end of a port. */
	void (*on_idle)(void *ctx, struct vlink_relay *r, int why);
	/* The port is gone (why < 0) and with it the connection: what is left is vlink_relay_close.
	 */
	void (*on_gone)(void *ctx, struct vlink_relay *r, int why);
};

/* Takes port_fd over; ops and ctx are borrowed until vlink_relay_close. -errno: port_fd stays the
 * caller's. */
int vlink_relay_open(uv_loop_t *loop, int port_fd, enum av_vlink_role role,
    const struct vlink_relay_ops *ops, void *ctx, struct vlink_relay **ret) AV_MUST_CHECK;
/* No callback comes after it; socket and port are closed. The loop must run on for a turn. NULL is
 * allowed. */
void vlink_relay_close(struct vlink_relay *r);

/* Outside: carries stream_fd (taken over) until either side ends it, then on_idle. The guest must
 * answer within timeout_ms. -EBUSY: there is a connection; -errno: the port failed, or memory;
 * stream_fd stays the caller's then. */
int vlink_relay_connect(struct vlink_relay *r, int stream_fd, uint64_t timeout_ms) AV_MUST_CHECK;
/* Ends the connection at once, what is on its way with it; no on_idle. Inside: after a restore,
 * when what was open belongs to a life that is over. */
void vlink_relay_drop(struct vlink_relay *r);
bool vlink_relay_busy(const struct vlink_relay *r);
/* Payload bytes carried so far, to the port and from it. */
void vlink_relay_counts(
    const struct vlink_relay *r, uint64_t *ret_to_port, uint64_t *ret_from_port);
