/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links.h - connections to agent.sock, each carried to the guest's agent over a link of its own
 *
 * While the guest runs, and a link is free, a connection is taken from the listening socket and
 * given to that link's relay; else it waits in the socket's queue, so that who connects to a
 * machine that is held or paused is served when it goes on. A relay whose port fails is gone until
 * the next QEMU.
 *
 * All functions belong to the loop's thread and none blocks.
 */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "base/macros.h"
#include "proto/guest.h"

struct links;

/* listener: a listening stream socket, borrowed, made non-blocking. -errno. */
int links_new(uv_loop_t *loop, int listener, struct links **ret) AV_MUST_CHECK;
/* The ports of a new QEMU, taken over also on failure; those of the last one are closed. */
int links_open(struct links *l, const int fds[static AV_GUEST_LINKS]) AV_MUST_CHECK;
/* Takes connections from now on, or no more; those that are there go on. */
void links_run(struct links *l, bool on);
/* Ends all connections and closes the ports. */
void links_shut(struct links *l);
