/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ports.h - virtio ports of a guest: where the agent takes its connections in a virtual machine
 *
 * In a jail the agent listens on a socket. In a guest each of the ports aviary.link0, … carries one
 * connection at a time (vlink/relay.h), which becomes one of server.h; and aviary.control carries
 * the messages of proto/guest.h (vlink/port.h).
 */
#pragma once

#include "agent/agent.h"
#include "vlink/port.h"

struct ports;

/* Opens the port of that name (O_RDWR, non-blocking) found in /sys/class/virtio-ports, at /dev.
 * Ports come up some time after their driver: waits for it, blocking, for up to timeout_ms. Returns
 * the descriptor; -ENODEV: there is none of that name; -EBUSY: it is open; -errno. */
int ports_find(const char *name, unsigned timeout_ms) AV_MUST_CHECK;

/* Opens all links and gives their connections to a->server, which must be there. -errno: what was
 * opened is closed again. */
int ports_open(struct agent *a, unsigned timeout_ms, struct ports **ret) AV_MUST_CHECK;
/* Ends all connections: those who were at their other end are of a life that is over (a restore).
 */
void ports_drop(struct ports *p);

/* The control port with a life of its own: ops of vlink/port.h. */
int ports_open_control(struct agent *a, unsigned timeout_ms, const struct vlink_port_ops *ops,
    void *ctx, struct vlink_port **ret) AV_MUST_CHECK;
