/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon.h - the daemon proper: puts the parts together, starts them in order, stops them in order
 *
 * Start: store (opens the database) → driver and node (connect to the worker) → control (compares
 * records with the kernel, adopts) → first start (administrator's key) → listener → <run>/url and
 * "ready". Nothing is served before the reconciliation is done.
 *
 * Stop, on SIGTERM or SIGINT: control (no new work, creates under way are answered) → node (every
 * conversation ends with a message that says why; sandboxes go on running) → server (what is
 * answered still leaves, 5 s at most) → store. A second signal ends it at once.
 */
#pragma once

#include "base/err.h"
#include "daemon/config.h"

/* Blocks until stopped. 0 after a graceful stop. */
int daemon_run(const struct daemon_config *c, struct av_err *err);
