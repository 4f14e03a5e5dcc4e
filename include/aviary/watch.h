/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch.h - what changes in a directory of a sandbox, as it happens
 *
 * A watch that nobody reads makes the sandbox wait, and then forget: AVIARY_WATCH_OVERFLOW stands
 * where more has changed than could be told, and the directory must be looked at again. It ends
 * with an error that says why (its sandbox is gone, the connection broke) or because it was freed:
 * never in silence.
 */
#ifndef AVIARY_WATCH_H
#define AVIARY_WATCH_H

#include <aviary/files.h>

AVIARY_BEGIN_DECLS

typedef struct aviary_watch aviary_watch;

enum aviary_watch_type {
	AVIARY_WATCH_UNKNOWN, /* of a later server */
	AVIARY_WATCH_STARTED, /* the first one: from now on everything is told */
	AVIARY_WATCH_CREATED, /* it is there now, also under a new name */
	AVIARY_WATCH_WRITTEN,
	AVIARY_WATCH_REMOVED,
	AVIARY_WATCH_RENAMED, /* it is gone under this name */
	AVIARY_WATCH_CHANGED, /* mode, owner or times */
	AVIARY_WATCH_OVERFLOW
};

typedef struct aviary_watch_event {
	enum aviary_watch_type type;
	const char *name; /* below the directory, "." is itself; "" of started and overflow */
} aviary_watch_event;

/* Watches the directory at path, with options->recursive also those in it, also such that appear
 * later. Starts the sandbox as the calls of files.h do. NULL without memory. */
AVIARY_API aviary_watch *aviary_file_watch(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options);
/* Ends it. NULL is fine. Also from inside its callback. */
AVIARY_API void aviary_watch_free(aviary_watch *w);

/* Done when it is over, always with an error. Borrowed: lives with w; not to be freed. */
AVIARY_API aviary_op *aviary_watch_op(aviary_watch *w);
/* 1 and *ret, whose name is w's until the next call; AVIARY_E_AGAIN when there was nothing within
 * timeout_ms (-1: without end); the code of why it is over. Drives the client as aviary_op_wait
 * does. */
AVIARY_API int aviary_watch_next(aviary_watch *w, aviary_watch_event *ret, int64_t timeout_ms);
/* Called with each event instead, from where operations are driven. Set it before anything was
 * waited for; NULL: aviary_watch_next again. */
typedef void aviary_watch_fn(void *ctx, aviary_watch *w, const aviary_watch_event *event);
AVIARY_API void aviary_watch_on_event(aviary_watch *w, aviary_watch_fn *fn, void *ctx);

AVIARY_END_DECLS
#endif
