/* SPDX-License-Identifier: Apache-2.0 */
/*
 * certificate.h - certificate and key of the daemon: where they come from, and when they change
 *
 * Theory of operation. The daemon runs as a user who should not be able to read the key by itself
 * at any later time, and often cannot even see its directory. So the supervisor opens both files
 * with its own rights whenever it is asked (base/lend.h), and the daemon reads, checks and parses
 * them. At the start it waits for that, and refuses to run with what does not do. Later it asks
 * every LOOK_MS and on SIGHUP:
 *
 *   IDLE ─ask→ ASKED ─descriptors→ (the same files as before: IDLE)
 *                └───────────────→ LOADING, on a worker thread ─→ put in force, or refused; IDLE
 *
 * Files that have changed are looked at once more after SETTLE_MS before they are read, unless it
 * was a signal: two files are never replaced at the same moment. What is refused is told once for
 * each change, and the identity in force stays. Its end is told from 14 days before, once a day.
 */
#pragma once

#include "base/err.h"
#include "daemon/config.h"
#include "net/loop.h"

struct av_tls;
struct certificate;

/* Blocks until both are read, at most some seconds. lend_fd is taken over. INVALID names the file,
 * what is wrong with it and what to do. */
int certificate_open(struct av_loop *loop, const struct daemon_config *config, int lend_fd,
    struct certificate **ret, struct av_err *err);
/* After the server. NULL is fine. */
void certificate_close(struct certificate *c);
/* For the server; valid until certificate_close(). */
struct av_tls *certificate_tls(const struct certificate *c);
