/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ports.h - who may reach a server that runs in a sandbox
 *
 * A port is private, for those who have a key of the team or a signed URL, unless it is among the
 * public ones of the sandbox. The connection itself is control_stream() with tunnel_port.
 * Synchronous, from memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/control.h"
#include "control/sign.h"

struct control_port {
	/* The team that owns the sandbox, without user and key: on whose behalf a visitor who has
	 * shown that they may is served. */
	struct control_actor owner;
	bool is_public;
};

/* For a visitor whose team is not known. NOT_FOUND; INVALID_STATE when it has ended. */
int control_port_find(
    struct control *c, const char *id, uint16_t port, struct control_port *ret, struct av_err *err);
/* Whether its servers can be asked now: UNAVAILABLE while it is made (try again), INVALID_STATE
 * when it does not run and will not by itself. */
int control_port_ready(
    struct control *c, const struct control_actor *a, const char *id, struct av_err *err);

/* The token of a signed URL for one port of one sandbox, see sign.h. */
void control_port_sign(const struct control *c, const char *id, uint16_t port, int64_t expires_s,
    char ret[static CONTROL_TOKEN_SIZE]);
int control_port_check(const struct control *c, const char *id, uint16_t port, struct av_str token,
    struct av_err *err);
