/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.h - connections of the daemon to the worker
 *
 * Reads requests, checks their form, hands them on as jobs, sends answers (see wire.h for the
 * rules). A connection that breaks a rule is closed; its jobs go on without an answer.
 */
#pragma once

#include "base/macros.h"
#include "spawn/sandbox.h"

/* Accepts one connection from the listener if there is one; peers other than the daemon's user and
 * the worker's are turned away. */
void client_accept(struct spawner *sp, int listener);
/* Closes all connections. */
void client_close_all(struct spawner *sp);
