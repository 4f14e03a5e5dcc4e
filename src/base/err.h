/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err.h - errors that a user can notice
 *
 * Low layers return 0 or -errno. A function whose failure a user can notice takes a last parameter
 * `struct av_err *err`: fixed size, no allocation, may be NULL. Outputs are untouched on failure.
 * A function logs an error or returns it, never both.
 */
#pragma once

#include <stdarg.h>

enum av_err_kind {
	AV_ERR_NONE = 0,
#define AV_ERR_KIND(name, code, http, exitcode, eno) AV_ERR_##name,
#include "base/errors.def"
#undef AV_ERR_KIND
	AV_ERR_KIND_COUNT
};

struct av_err {
	enum av_err_kind kind;
	int retry_after_s; /* when asking again is worth it; 0: not said. Set after av_err_set. */
	char message[480]; /* one sentence or two: what, which value, what is allowed, how to fix it
	                    */
};

/* Fills *err (if not NULL) and returns the kind's -errno. The message is cut to the buffer. */
int av_err_set(struct av_err *err, enum av_err_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As av_err_set; trying again is worth it after so many seconds, at least 1. */
int av_err_set_retry(struct av_err *err, enum av_err_kind kind, int after_s, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* As av_err_set, appending ": <strerror(eno)>"; eno may be given positive or negative.
 * ENOSPC and EDQUOT turn an INTERNAL kind into NO_SPACE, ENOMEM into NO_MEMORY. */
int av_err_sys(struct av_err *err, enum av_err_kind kind, int eno, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "prefix: " before the message that is there; keeps the kind. Does nothing if err is NULL. */
void av_err_prefix(struct av_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void av_err_clear(struct av_err *err);

/* Table look-ups; kind NONE gives "ok", 200, 0, 0. */
const char *av_err_code(enum av_err_kind kind);
int av_err_http_status(enum av_err_kind kind);
int av_err_exit_status(enum av_err_kind kind);
int av_err_errno(enum av_err_kind kind);
/* The kind with this code, or NONE. Where two kinds share a code the first in errors.def. */
enum av_err_kind av_err_from_code(const char *code);
