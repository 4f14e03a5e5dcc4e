/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.h - programs in a sandbox: run, stream, feed, signal; terminals
 *
 * A process is an operation as well (aviary_process_op): done when the program is over and, with a
 * callback, all its output was given to that. Output comes as it is produced: to a callback, or to
 * aviary_process_read and its kin. What nobody reads waits in the sandbox and stops the program:
 * nothing is lost and nothing grows here (of each output about 256 KiB wait in this program). So
 * who reads one output only says what is to become of the other: AVIARY_EXEC_COLLECT,
 * AVIARY_EXEC_MERGE, or a callback.
 *
 * With AVIARY_EXEC_COLLECT both outputs are kept for the result: the first collect_max bytes of
 * each; what is more is dropped here, and said so. That does not stop the program. They can be read
 * as streams as well: from the first such call on, that output waits for its reader again.
 *
 * Threads: as of the client. A callback may free its process. aviary_process_free from another
 * thread waits until a callback that runs has returned: do not hold there what that waits for.
 */
#ifndef AVIARY_PROCESS_H
#define AVIARY_PROCESS_H

#include <aviary/sandbox.h>

AVIARY_BEGIN_DECLS

typedef struct aviary_process aviary_process;

#define AVIARY_EXEC_COLLECT   1u  /* keep both outputs for the result */
#define AVIARY_EXEC_STDIN     2u  /* it gets what aviary_process_write is given; else end of file */
#define AVIARY_EXEC_CHECK     4u  /* an exit other than 0 is AVIARY_E_EXEC_FAILED */
#define AVIARY_EXEC_PTY       8u  /* on a terminal: one output, input always */
#define AVIARY_EXEC_DETACH    16u /* it lives on when its handle, client or program ends */
#define AVIARY_EXEC_MERGE     32u /* what it writes to its stderr comes as stdout too */
#define AVIARY_EXEC_NO_REPLAY 64u /* of a connect: what was printed before is left out */
/* Of a connect: only what was printed before; then its operation ends with AVIARY_OK and no result.
 */
#define AVIARY_EXEC_NO_FOLLOW 128u

typedef struct aviary_exec_options {
	size_t struct_size;
	unsigned flags;
	aviary_strings command; /* a path, or looked up in PATH, and arguments; no shell */
	aviary_pairs envs;
	const char *cwd, *user, *tag;
	int64_t timeout_ms;  /* then it is killed with its group; 0: none */
	size_t collect_max;  /* bytes of each output; default 16 MiB; more is cut and said so */
	unsigned cols, rows; /* of a terminal; default 80x24; at most 65535 */
} aviary_exec_options;
#define AVIARY_EXEC_OPTIONS_INIT AVIARY_INITIAL(aviary_exec_options)

/* Starts; options are copied. Never NULL, as operations. Fails, by its operation, with
 * AVIARY_E_INVALID (no command, text that is not UTF-8), what the sandbox's start fails with,
 * AVIARY_E_EXEC_NOT_FOUND, AVIARY_E_EXEC_NOT_EXECUTABLE, AVIARY_E_EXEC_TIMEOUT,
 * AVIARY_E_EXEC_FAILED (with AVIARY_EXEC_CHECK), AVIARY_E_SANDBOX_TERMINATED (it ended first),
 * AVIARY_E_BROKEN and AVIARY_E_TIMEOUT (the server is gone, or silent). Connecting is tried again
 * within the retry budget; what was started once is not. Does not block. */
AVIARY_API aviary_process *aviary_sandbox_exec(
    aviary_sandbox *sb, const aviary_exec_options *options);
/* Runs it to its end, collected: NULL and *error when it failed. The result's strings and itself
 * are freed by aviary_exec_result_free. Blocks. */
typedef struct aviary_exec_result aviary_exec_result;
AVIARY_API aviary_exec_result *aviary_sandbox_exec_sync(
    aviary_sandbox *sb, const aviary_exec_options *options, aviary_error *error);
AVIARY_API void aviary_exec_result_free(aviary_exec_result *result);
/* The same for `/bin/sh -c script`, collected. */
AVIARY_API aviary_process *aviary_sandbox_shell(aviary_sandbox *sb, const char *script);
/* A terminal: AVIARY_EXEC_PTY added to the flags; without a command the login shell (bash where
 * there is one), without TERM in envs xterm-256color, without a tag one made up. With
 * AVIARY_EXEC_DETACH it goes on when the connection breaks or the handle is freed, and
 * aviary_sandbox_connect(sb, tag) takes it up again. options may be NULL. */
AVIARY_API aviary_process *aviary_sandbox_terminal(
    aviary_sandbox *sb, const aviary_exec_options *options);

/* To one that runs, or ended within 30 s, by tag or pid in digits; what was printed while nobody
 * looked comes first: the newest MiB (aviary_process_dropped says what is missing before it).
 * Freeing the handle or cancelling its operation leaves it running. AVIARY_E_EXEC_NOT_FOUND: there
 * is none. */
AVIARY_API aviary_process *aviary_sandbox_connect(aviary_sandbox *sb, const char *selector);
/* The same; of options count the flags COLLECT, CHECK, MERGE, NO_REPLAY and NO_FOLLOW, collect_max
 * and, when they are not 0, cols and rows. */
AVIARY_API aviary_process *aviary_sandbox_connect_with(
    aviary_sandbox *sb, const char *selector, const aviary_exec_options *options);

/* Lets go of it: without AVIARY_EXEC_DETACH it is killed with its group if it still runs (and what
 * was written to it may not reach it); with it, it is still started if it was not yet. Nothing of
 * it is called back any more. NULL is fine. */
AVIARY_API void aviary_process_free(aviary_process *p);
/* Lets go of one that is detached or connected to, after what was written: its operation ends with
 * AVIARY_OK and no result. AVIARY_E_STATE: it is over, not started yet, or bound to this handle. */
AVIARY_API int aviary_process_detach(aviary_process *p);

/* Done when it is over. Borrowed: lives with p; not to be freed. Cancelling it kills the process
 * with its group, also a detached one, unless p only connected to it. */
AVIARY_API aviary_op *aviary_process_op(aviary_process *p);
/* Done when it runs, and its pid is known; fails as aviary_process_op does when it could not be
 * started. The caller's, to be freed. */
AVIARY_API aviary_op *aviary_process_started(aviary_process *p);

struct aviary_exec_result {
	int exit_code; /* 128 + n when signal n killed it */
	int signal;    /* 0: none */
	int core_dumped, timed_out, oom_killed;
	const char *out, *err; /* collected; a NUL follows, which does not count */
	size_t out_size, err_size;
	int out_truncated,
	    err_truncated; /* there was more than collect_max; what came first is kept */
	int64_t duration_ms;
};
/* NULL while it is not over, and when nobody knows how it ended. Lives as long as p. */
AVIARY_API const aviary_exec_result *aviary_process_result(const aviary_process *p);
/* Waits until it is over; its result, or NULL and *error. When AVIARY_EXEC_CHECK or its timeout
 * made it fail, aviary_process_result has the result even so. */
AVIARY_API const aviary_exec_result *aviary_await_process(aviary_process *p, aviary_error *error);
/* A look, without waiting: 1 and *ret_exit_code (may be NULL) when it is over, 0 while it runs, the
 * operation's code when nobody knows how it ended. Drives the client once, outside of callbacks. */
AVIARY_API int aviary_process_poll(aviary_process *p, int *ret_exit_code);
AVIARY_API int64_t aviary_process_pid(const aviary_process *p); /* 0: not yet */
/* As given, made up (terminals), or as the server says it; "" for none. Lives with p. */
AVIARY_API const char *aviary_process_tag(const aviary_process *p);
/* Bytes of output that were dropped while nobody was connected: they are missing before the first
 * that came. */
AVIARY_API int64_t aviary_process_dropped(const aviary_process *p);

/* ---- streams ---- */

enum aviary_channel { AVIARY_STDOUT, AVIARY_STDERR };

/* Up to n bytes of an output: how many, 0 at its end, AVIARY_E_AGAIN when there is nothing within
 * timeout_ms (0: now, -1: without end), another code when it broke. Drives the client as
 * aviary_op_wait does; from inside a callback it takes what is there, else AVIARY_E_STATE. One
 * thread at a time for each channel. */
AVIARY_API int64_t aviary_process_read(
    aviary_process *p, enum aviary_channel ch, void *buf, size_t n, int64_t timeout_ms);
/* A line with its newline (the last one may have none): *ret is NUL-terminated, owned by p, valid
 * until the next call for this channel. Its length, 0 at the end, codes as above. TOO_LARGE: more
 * than 1 MiB without a newline; what there is can be had by aviary_process_read. */
AVIARY_API int64_t aviary_process_read_line(
    aviary_process *p, enum aviary_channel ch, const char **ret, int64_t timeout_ms);
/* Without a copy: how many bytes are at *ret, which stay until the next call for this channel.
 * aviary_process_consume takes the first n of them; what is not taken comes again. Codes as
 * aviary_process_read. */
AVIARY_API int64_t aviary_process_peek(
    aviary_process *p, enum aviary_channel ch, const void **ret, int64_t timeout_ms);
AVIARY_API int aviary_process_consume(aviary_process *p, enum aviary_channel ch, size_t n);
/* Called with output instead; return non-zero to get no more until aviary_process_resume. What came
 * before it was set comes first. fn NULL: none any more. */
typedef int aviary_output_fn(
    void *ctx, aviary_process *p, enum aviary_channel ch, const void *data, size_t n);
AVIARY_API void aviary_process_on_output(aviary_process *p, aviary_output_fn *fn, void *ctx);
AVIARY_API void aviary_process_resume(aviary_process *p);

/* Text whose characters are cut between two reads: keeps what is not whole. All zero at first. */
typedef struct aviary_utf8 {
	unsigned char kept[4];
	unsigned n;
} aviary_utf8;
/* Room for what n bytes may become. */
#define AVIARY_UTF8_ROOM(n) (3 * ((size_t)(n) + 4))
/* Writes the whole characters of what was kept and of the n bytes at data to out, which has
 * AVIARY_UTF8_ROOM(n) bytes and must not overlap; what is not UTF-8 becomes U+FFFD, one for each
 * longest piece that could have begun a character (as Unicode recommends). Returns how many bytes
 * were written; no NUL. */
AVIARY_API size_t aviary_utf8_decode(aviary_utf8 *u, const void *data, size_t n, char *out);
/* At the end: what is still kept is not whole. Up to 3 bytes. */
AVIARY_API size_t aviary_utf8_finish(aviary_utf8 *u, char *out);

/* Takes what fits: how many of n bytes; waits until all are taken, at most timeout_ms (0: what fits
 * now). AVIARY_E_AGAIN when nothing was; AVIARY_E_EXEC_STDIN when it was not started with
 * AVIARY_EXEC_STDIN, its input was closed, or it is over. A program that does not read stops the
 * writer, when 256 KiB wait here and what sockets on the way hold is full. */
AVIARY_API int64_t aviary_process_write(
    aviary_process *p, const void *data, size_t n, int64_t timeout_ms);
/* The end of its input, behind what was written. Does not wait; good before it runs, too. */
AVIARY_API int aviary_process_close_stdin(aviary_process *p);

/* ---- control: none of these waits; before it runs they are kept ---- */

/* To the process group; name as "SIGTERM". It comes after what was written before, which a program
 * that does not read keeps waiting: aviary_sandbox_kill overtakes that. AVIARY_E_STATE: it is over.
 */
AVIARY_API int aviary_process_signal(aviary_process *p, const char *name);
/* A terminal's size, 1 to 65535. */
AVIARY_API int aviary_process_resize(aviary_process *p, unsigned cols, unsigned rows);

/* ---- those of a sandbox ---- */

/* What was started through the API and lives; result: aviary_processes (models.h). Does not start
 * the sandbox. */
AVIARY_API aviary_op *aviary_sandbox_processes(aviary_sandbox *sb);
/* A signal to the group of one, by tag or pid in digits; signal "SIGTERM", or NULL: SIGKILL.
 * AVIARY_E_EXEC_NOT_FOUND: there is none (any more). */
AVIARY_API aviary_op *aviary_sandbox_kill(
    aviary_sandbox *sb, const char *selector, const char *signal);
AVIARY_API int aviary_sandbox_kill_sync(
    aviary_sandbox *sb, const char *selector, const char *signal, aviary_error *error);

AVIARY_END_DECLS
#endif
