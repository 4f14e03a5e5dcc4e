/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port.h - one virtio port on a libuv loop: connections of records, one after the other
 *
 * Theory of operation. A port is a descriptor (outside: a socket whose other end is a chardev of
 * QEMU's; inside: /dev/vport*) with the codec of proto/vlink.h on it. Messages go through
 * vlink_port_send and on_record, which is what the control port needs; bytes of a connection
 * through the relay (relay.h), which takes records from the port's own buffer without copying.
 *
 * Each direction has one buffer of fixed size. When what is to be sent does not fit the port says
 * so
 * (-EAGAIN, on_drain later); when who reads does not take what there is, the port stops reading,
 * the device's queue fills, and the other side has to wait. Nothing grows, and nobody else waits.
 *
 * Times. Outside a connection must be answered by its echo in the time given to
 * vlink_port_begin; what the guest sends in between is discarded. Once it is there nothing here
 * has a timer: whoever uses the connection knows how long to wait for what.
 *
 * Manners of the device inside. It can be opened once (EBUSY). It has no end of file: read gives 0
 * and poll says HUP for as long as nobody is connected outside, so the port looks again now and
 * then instead of being told in a loop without a pause. A write without O_NONBLOCK would spin.
 *
 * All functions belong to the loop's thread and none blocks. Callbacks come from the loop, never
 * from within a call of this header, and may call everything here, vlink_port_close too.
 */
#pragma once

#include <uv.h>

#include "proto/vlink.h"

struct vlink_port;

struct vlink_port_ops {
	/* A connection began: outside the guest answered, inside somebody outside wants one. One
	 * that was open inside has ended before, with an on_end. */
	void (*on_begin)(void *ctx);
	/* A record of the connection; valid until return. */
	void (*on_record)(void *ctx, struct av_str payload);
	/* There is room again after a -EAGAIN. NULL: not wanted. */
	void (*on_drain)(void *ctx);
	/* The connection, or its beginning, is over: 0 the other side closed it; -EPROTO it sent
	 * what is no record (which is how a next RESET begins); -ETIMEDOUT it did not answer in
	 * time; anything else: the port itself failed or ended (outside -EPIPE: QEMU is gone) and
	 * never comes back: what is left is vlink_port_close. That comes without a connection as
	 * well. */
	void (*on_end)(void *ctx, int why);
};

/* Takes the descriptor over (made non-blocking, close-on-exec) and reads from it from now on. ops
 * and ctx are borrowed until vlink_port_close. -errno: fd stays the caller's. */
int vlink_port_open(uv_loop_t *loop, int fd, enum av_vlink_role role,
    const struct vlink_port_ops *ops, void *ctx, struct vlink_port **ret) AV_MUST_CHECK;
/* No callback comes after it. Frees the port once the loop has let go of it: the loop must run on
 * for a turn. NULL is allowed. */
void vlink_port_close(struct vlink_port *p);

/* Outside: begins a connection; what was open or beginning before is over without an on_end. What
 * is sent from now on is part of it; on_begin comes when the guest answers, on_end after timeout_ms
 * if it does not. -errno: the port has failed. */
int vlink_port_begin(struct vlink_port *p, uint64_t timeout_ms) AV_MUST_CHECK;
/* Ends the connection, after what was sent before. Without one: nothing. */
void vlink_port_end(struct vlink_port *p);
/* A connection is open, or (outside) begun. */
bool vlink_port_connected(const struct vlink_port *p);
/* One record of 1 to AV_VLINK_PAYLOAD_MAX bytes: all of it or nothing. -EAGAIN: no room, on_drain
 * comes; -ENOTCONN; -ENOMEM. */
int vlink_port_send(struct vlink_port *p, struct av_str payload) AV_MUST_CHECK;
