/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.h - the process that makes and removes sandboxes
 */
#pragma once

#include "spawn/options.h"

/* Exit statuses that mean "starting again will not help"; the supervisor gives up on them. */
#define SPAWN_EXIT_CONFIG 78

/* Runs until SIGTERM or until the supervisor is gone; returns the exit status. Started by the
 * supervisor only: descriptors SPAWN_WORKER_*_FD are open. */
int worker_main(const struct spawn_options *o);
