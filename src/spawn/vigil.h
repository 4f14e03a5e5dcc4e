/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vigil.h - how worker and daemon are, as the supervisor tells systemd
 *
 * Theory of operation. Each of the two gets a pipe of its own, into which it writes a byte a second
 * from its event loop (base/notify.h); the daemon also says there when it serves. The supervisor
 * reads bytes, compares them with three it knows, and remembers when the last one came. While both
 * are well it sends WATCHDOG=1 three times per period of the watchdog; when a program is silent for
 * a whole period it sends no more, and systemd ends the service and starts it again. So whatever
 * hangs, supervisor included, is noticed within two periods.
 *
 * A program that starts has START_NS until its first byte, counted from its last: whoever dies
 * again and again without ever running is a hang, too.
 *
 * Before READY=1 each byte asks systemd for more time (EXTEND_TIMEOUT_USEC): a start that takes up
 * a thousand sandboxes is slow, one that hangs is ended by the unit's TimeoutStartSec.
 *
 * Without $NOTIFY_SOCKET there are no pipes, and all of this does nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/notify.h"

enum vigil_who { VIGIL_WORKER, VIGIL_DAEMON, VIGIL_N };

struct vigil {
	struct av_notify notify;
	struct {
		int fd;          /* owned; read end, non-blocking; -1: none */
		int64_t last_ns; /* when the last byte came */
		bool beating;    /* one came since its start */
		bool wanted;     /* it was started at least once */
	} of[VIGIL_N];
	int64_t next_ns; /* when WATCHDOG=1 is due; 0: no watchdog */
	bool ready, silent;
};

void vigil_open(struct vigil *v);
void vigil_close(struct vigil *v);
/* Before a program is started: the end of the pipe that it writes into, the caller's to close, or
 * -1 when nobody wants to know (or there are no descriptors left: then it is silent). */
int vigil_start(struct vigil *v, enum vigil_who who);
/* To be polled for reading; may be -1. */
static inline int vigil_fd(const struct vigil *v, enum vigil_who who)
{
	return v->of[who].fd;
}
/* Takes what is there, without waiting. */
void vigil_read(struct vigil *v, enum vigil_who who);
/* When vigil_tick() has something to do, on the monotonic clock; 0: never. */
static inline int64_t vigil_due_ns(const struct vigil *v)
{
	return v->next_ns;
}
void vigil_tick(struct vigil *v);
/* One line for `systemctl status`. */
void vigil_status(const struct vigil *v, const char *text);
/* SIGHUP was passed on; the daemon's AV_BEAT_RELOADED ends it. */
void vigil_reloading(const struct vigil *v);
/* The stop has begun and may take this long. */
void vigil_stopping(const struct vigil *v, int64_t at_most_ns);
