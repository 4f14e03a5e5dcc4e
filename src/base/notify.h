/* SPDX-License-Identifier: Apache-2.0 */
/*
 * notify.h - telling the service manager how the service is: the protocol of sd_notify(3)
 *
 * Datagrams of lines ("READY=1\nSTATUS=…") to the socket that $NOTIFY_SOCKET names: a path, or
 * "@name" for an abstract one. Where there is none, everything here does nothing. Nothing blocks: a
 * manager that does not read loses the message, as the watchdog's next one comes anyhow.
 */
#pragma once

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/macros.h"

struct av_notify {
	int fd; /* owned; -1: nobody listens */
	struct sockaddr_un addr;
	socklen_t addr_size;
	int64_t watchdog_ns; /* the manager wants WATCHDOG=1 at least this often; 0: it does not */
};

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (another process's: no watchdog) and takes
 * them out of the environment, so that no child speaks for us. Never fails: what is malformed
 * counts as absent. */
void av_notify_open(struct av_notify *n);
void av_notify_close(struct av_notify *n);
/* One datagram of at most 512 bytes, longer ones are not sent. */
void av_notify(const struct av_notify *n, const char *fmt, ...) AV_PRINTF(2, 3);

/* What worker and daemon tell the supervisor over a pipe of their own, a byte each; it tells the
 * manager. Other bytes mean nothing. */
enum av_beat {
	AV_BEAT_ALIVE = '.',    /* the event loop turns; every AV_BEAT_MS */
	AV_BEAT_READY = 'r',    /* requests are served */
	AV_BEAT_RELOADED = 'l', /* what SIGHUP asked for is done */
};
#define AV_BEAT_MS 1000

/* Writes one; fd is non-blocking, and one that does not fit is lost. fd -1 does nothing. */
void av_beat(int fd, enum av_beat beat);
