/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err.c - filling struct av_err, and the table behind it
 */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "base/banned.h"

static const struct {
	const char *code;
	int http_status;
	int exit_status;
	int errno_value;
} kinds[AV_ERR_KIND_COUNT] = {
    [AV_ERR_NONE] = {"ok", 200, 0, 0},
#define AV_ERR_KIND(name, code, http, exitcode, eno) [AV_ERR_##name] = {code, http, exitcode, eno},
#include "base/errors.def"
#undef AV_ERR_KIND
};

static void format_message(struct av_err *err, const char *fmt, va_list ap) AV_PRINTF(2, 0);

static void format_message(struct av_err *err, const char *fmt, va_list ap)
{
	if (vsnprintf(err->message, sizeof(err->message), fmt, ap) < 0)
		err->message[0] = '\0';
}

int av_err_set(struct av_err *err, enum av_err_kind kind, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		format_message(err, fmt, ap);
		va_end(ap);
		err->kind = kind;
		err->retry_after_s = 0;
	}
	return -av_err_errno(kind);
}

int av_err_set_retry(struct av_err *err, enum av_err_kind kind, int after_s, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		format_message(err, fmt, ap);
		va_end(ap);
		err->kind = kind;
		err->retry_after_s = after_s > 0 ? after_s : 1;
	}
	return -av_err_errno(kind);
}

int av_err_sys(struct av_err *err, enum av_err_kind kind, int eno, const char *fmt, ...)
{
	if (eno < 0)
		eno = -eno;
	if (kind == AV_ERR_INTERNAL) {
		if (eno == ENOSPC || eno == EDQUOT)
			kind = AV_ERR_NO_SPACE;
		else if (eno == ENOMEM)
			kind = AV_ERR_NO_MEMORY;
	}
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		format_message(err, fmt, ap);
		va_end(ap);
		size_t n = strlen(err->message);
		snprintf(err->message + n, sizeof(err->message) - n, ": %s", strerror(eno));
		err->kind = kind;
		err->retry_after_s = 0;
	}
	return -av_err_errno(kind);
}

void av_err_prefix(struct av_err *err, const char *fmt, ...)
{
	if (!err)
		return;
	struct av_err old = *err;
	va_list ap;
	va_start(ap, fmt);
	format_message(err, fmt, ap);
	va_end(ap);
	size_t n = strlen(err->message);
	snprintf(err->message + n, sizeof(err->message) - n, ": %s", old.message);
}

void av_err_clear(struct av_err *err)
{
	if (!err)
		return;
	err->kind = AV_ERR_NONE;
	err->retry_after_s = 0;
	err->message[0] = '\0';
}

static enum av_err_kind checked(enum av_err_kind kind)
{
	assert(kind >= AV_ERR_NONE && kind < AV_ERR_KIND_COUNT);
	return kind;
}

const char *av_err_code(enum av_err_kind kind)
{
	return kinds[checked(kind)].code;
}

int av_err_http_status(enum av_err_kind kind)
{
	return kinds[checked(kind)].http_status;
}

int av_err_exit_status(enum av_err_kind kind)
{
	return kinds[checked(kind)].exit_status;
}

int av_err_errno(enum av_err_kind kind)
{
	return kinds[checked(kind)].errno_value;
}

enum av_err_kind av_err_from_code(const char *code)
{
	for (int k = AV_ERR_NONE + 1; code && k < AV_ERR_KIND_COUNT; k++)
		if (strcmp(kinds[k].code, code) == 0)
			return (enum av_err_kind)k;
	return AV_ERR_NONE;
}
