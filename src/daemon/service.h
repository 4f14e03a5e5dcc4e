/* SPDX-License-Identifier: Apache-2.0 */
/*
 * service.h - the daemon as a service: it says that it lives, and hears SIGHUP and SIGUSR1
 *
 * A byte a second from the event loop to the supervisor (base/notify.h), when that asked for it
 * with --notify-fd. SIGHUP: what was read from files is read again without a restart (certificates;
 * everything else needs one, which sandboxes and clients that try again do not notice). SIGUSR1:
 * logs at debug; once more: as configured.
 */
#pragma once

#include "base/err.h"
#include "base/log.h"
#include "net/loop.h"

struct service {
	int beat_fd; /* owned; -1: nobody wants to know */
	struct av_timer beat;
	struct av_signal *hup, *usr1;
	enum av_log_level level; /* as configured */
	bool debugging;
};

/* The daemon holds keys: no core file, and no debugger but root's. Before the first secret. */
void service_seal_memory(void);
/* All zero but for level and beat_fd. ctx of the callbacks is s itself, which must stay. */
int service_open(struct service *s, struct av_loop *loop, struct av_err *err);
/* Requests are served. */
void service_ready(const struct service *s);
/* Harmless before service_open(). */
void service_close(struct service *s);
