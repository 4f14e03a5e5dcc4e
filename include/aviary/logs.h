/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs.h - what the main command of a sandbox printed
 *
 * The server keeps the newest part of it (a MiB, unless it is told otherwise), line by line, with
 * the time of each, also after the sandbox has ended. Reading it neither uses a sandbox nor starts
 * one, and who reads slowly slows nobody: what was dropped meanwhile is told as a gap.
 */
#ifndef AVIARY_LOGS_H
#define AVIARY_LOGS_H

#include <aviary/models.h>
#include <aviary/process.h>
#include <aviary/sandbox.h>

AVIARY_BEGIN_DECLS

typedef struct aviary_logs_options {
	size_t struct_size;
	int follow;   /* goes on until the command, or the sandbox, is over */
	int has_tail; /* only the last `tail` lines of those that are there */
	int64_t tail; /* 0: none of them, which is of use with follow */
	const char
	    *since; /* "2026-08-21T20:00:00Z", "15m" (ago), "offset:42"; NULL: all there is */
	const char *stream; /* "stdout" or "stderr"; NULL: both */
	int timestamps;     /* of aviary_sandbox_logs_text: the time before each line */
} aviary_logs_options;
#define AVIARY_LOGS_OPTIONS_INIT AVIARY_INITIAL(aviary_logs_options)

enum aviary_log_kind {
	AVIARY_LOG_LINE,
	AVIARY_LOG_GAP, /* `dropped` are missing before what comes next */
	AVIARY_LOG_END  /* the last: the command is over, or `reason` ended the sandbox first */
};

/* Lives for the call. Strings are never NULL; members that are not of its kind are zero. */
typedef struct aviary_log_entry {
	enum aviary_log_kind kind;
	int64_t offset;   /* of this piece; "offset:" and one more goes on behind it */
	int64_t time_ms;  /* since 1970 */
	const char *time; /* as the server says it, with microseconds */
	enum aviary_channel channel;
	const char *text; /* without its newline; a NUL follows, which does not count */
	size_t size;
	int partial;   /* no newline has come (yet), or the line is long: more of it follows */
	int continued; /* goes on with the piece before it */
	int64_t dropped;
	int has_exit_code, exit_code; /* 128 + n when signal n ended it */
	const char *reason;
} aviary_log_entry;

/* Takes a line, and returns 0; or AVIARY_E_AGAIN: not now, it comes again after
 * aviary_transfer_resume; or another code, with which the operation ends. Runs where operations are
 * driven, and may call everything that does not wait. */
typedef int aviary_log_fn(void *ctx, const aviary_log_entry *line);

/* Done when all was given to fn, which is not called afterwards. ctx is borrowed until then. Fails
 * with AVIARY_E_SANDBOX_NOT_FOUND, with AVIARY_E_SANDBOX_NOT_RUNNING or AVIARY_E_CONFLICT when
 * there is no main command, with AVIARY_E_BROKEN when it broke off: the offset of the last line
 * says where to go on. options may be NULL. Does not block. */
AVIARY_API aviary_op *aviary_sandbox_logs(
    aviary_sandbox *sb, const aviary_logs_options *options, aviary_log_fn *fn, void *ctx);
/* All of it as text, at most 64 MiB; follow does not count. Result: aviary_text. */
AVIARY_API aviary_op *aviary_sandbox_logs_text(
    aviary_sandbox *sb, const aviary_logs_options *options);
/* Blocks; the caller frees it (aviary_text_free). NULL: *error says why. */
AVIARY_API aviary_text *aviary_sandbox_logs_text_sync(
    aviary_sandbox *sb, const aviary_logs_options *options, aviary_error *error);

/* ---- one by one ---- */

/* The same log, read by asking for one entry after the other. A connection that breaks while the
 * log is followed is made anew, behind the last entry, up to three times without one in between. No
 * more than 1024 entries wait here: then nothing is taken from the connection. */
typedef struct aviary_log_reader aviary_log_reader;

/* Begins to read; a sandbox that was not started yet is. options (may be NULL) are copied; its
 * timestamps do not count: entries have them. NULL: no memory. Does not block. */
AVIARY_API aviary_log_reader *aviary_sandbox_read_logs(
    aviary_sandbox *sb, const aviary_logs_options *options);
/* The next entry: 1 and *ret, which lives until the next call; 0: there are no more;
 * AVIARY_E_AGAIN: none within timeout_ms (-1: without end); another code: it broke off. Drives the
 * client as aviary_op_wait does; AVIARY_E_STATE from inside a callback where there is nothing to
 * take. One thread at a time. */
AVIARY_API int aviary_log_reader_next(
    aviary_log_reader *r, const aviary_log_entry **ret, int64_t timeout_ms);
/* Why it broke off; code 0 when it did not (yet). Lives with r. */
AVIARY_API const aviary_error *aviary_log_reader_error(aviary_log_reader *r);
/* NULL is fine. */
AVIARY_API void aviary_log_reader_free(aviary_log_reader *r);

AVIARY_END_DECLS
#endif
