/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server.h - vm.sock: one client at a time, requests in, answers out (vm_wire.h)
 *
 * The client is the daemon: nobody else can reach the socket. It is checked all the same, as a
 * packet of another size means another build. A new connection replaces the old one. An answer that
 * the client does not take is dropped: it may ask for the status.
 */
#pragma once

#include <uv.h>

#include "base/macros.h"
#include "vm/vm_wire.h"

struct server;

struct server_ops {
	/* client tells connections apart: an answer goes to the one that asked, if it is there. */
	void (*on_request)(void *ctx, uint64_t client, const struct vm_request *q);
};

/* listener: a listening seqpacket socket, borrowed. -errno. */
int server_new(uv_loop_t *loop, int listener, const struct server_ops *ops, void *ctx,
    struct server **ret) AV_MUST_CHECK;
void server_answer(struct server *s, uint64_t client, const struct vm_reply *reply);
