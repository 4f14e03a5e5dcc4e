/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hello.h - what the worker tells about itself and the machine
 */
#pragma once

#include "spawn/sandbox.h"

/* Fills the answer to HELLO; ret is all zero before. */
void hello_fill(struct spawner *sp, struct spawn_hello_reply *ret);
