/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup.h - what becomes of sandboxes when the program ends
 *
 * By itself the library leaves them: they live until their maximum lifetime is over. A program that
 * wants them to end with it installs clean-up, once for each client; nothing is done behind its
 * back. Tracked is every sandbox that the client creates and every one that a session adopts,
 * whether a handle is left or not, until it is stopped or detached; and creates that are under way,
 * which are asked for by their idempotency key what they made.
 *
 *     event                        with            what happens
 *     exit(), return from main     ATEXIT          all are stopped; the exit code is kept
 *     first SIGINT or SIGTERM      SIGNALS         all are stopped; then what was set before:
 *                                                  the default ends the program by that signal (its
 *                                                  parent sees 128 + n in a shell), SIG_IGN goes
 * on, a handler is called, as if the signal came now another one while stopping   SIGNALS _exit(128
 * + n) at once one after that is finished   SIGNALS         is a first one again SIGKILL, a crash,
 * _exit,     WATCHDOG        another process, which waits for this one's end, exec of another
 * program                      stops all
 *
 * Signals: the handlers are set by the install, on top of those that are there; a program that sets
 * its own later replaces them, and one that blocks the signals in all threads and takes them by
 * sigwait or signalfd has to stop its sandboxes itself. The stopping is done by a thread of the
 * library's that blocks all signals, over connections of its own: it does not matter what the
 * program is doing. A child made by fork has none of it: signals and exit in it do what they did
 * before.
 *
 * The watchdog is a program of the installation (libexec/aviary/aviary-watchdog), started by
 * posix_spawn in a session of its own, with next to no environment; it is told credentials and ids
 * over a socket. It is not a child of the program when this returns, so that wait() never finds it.
 */
#ifndef AVIARY_CLEANUP_H
#define AVIARY_CLEANUP_H

#include <aviary/sandbox.h>

AVIARY_BEGIN_DECLS

#define AVIARY_CLEANUP_ATEXIT   1u
#define AVIARY_CLEANUP_SIGNALS  2u /* SIGINT and SIGTERM */
#define AVIARY_CLEANUP_WATCHDOG 4u

typedef struct aviary_cleanup_options {
	size_t struct_size;
	unsigned flags;       /* which of the above; 0: ATEXIT and SIGNALS */
	int64_t grace_ms;     /* of each stop; default 10 s; -1: none */
	int64_t timeout_ms;   /* for all of it; default 30 s; then the program goes on ending */
	const char *watchdog; /* its path; else AVIARY_WATCHDOG, else as installed */
} aviary_cleanup_options;
#define AVIARY_CLEANUP_OPTIONS_INIT AVIARY_INITIAL(aviary_cleanup_options)

/* From now on; sandboxes that the client has created before and not stopped are tracked too.
 * options may be NULL. Looks for the credentials (callbacks run here) and starts the watchdog, for
 * which it waits up to 10 s; else it does not block. 0 or a code, with aviary_client_error: STATE
 * (installed already, or the client is closed), UNSUPPORTED (no watchdog program there), INVALID,
 * NO_MEMORY, those of credentials. It holds beyond aviary_client_free. Any thread that may use the
 * client. */
AVIARY_API int aviary_cleanup_install(
    aviary_client *c, const aviary_cleanup_options *options) AVIARY_NODISCARD;
/* No more: the client's sandboxes are left alone, the watchdog ends, and with the last client the
 * signals are as they were. Fine where nothing is installed. */
AVIARY_API void aviary_cleanup_remove(aviary_client *c);
/* It is to live on when the program ends: clean-up leaves it alone, now and after it is started.
 */
AVIARY_API void aviary_sandbox_detach(aviary_sandbox *sb);
/* How many sandboxes of the client clean-up would stop now; 0 where it is not installed. */
AVIARY_API size_t aviary_cleanup_count(aviary_client *c);
/* 1: the watchdog takes what it is told; 0: it does not any more (then it stops what it knew when
 * the program ends), or there is none. */
AVIARY_API int aviary_cleanup_is_watched(aviary_client *c);

AVIARY_END_DECLS
#endif
