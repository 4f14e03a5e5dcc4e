/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.c - structured log lines
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/buf.h"
#include "base/jsontext.h"
#include "base/banned.h"

#define LINE_MAX_BYTES (16 * 1024)

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* Set once by av_log_init, read afterwards. */
static struct {
	const char *program;
	enum av_log_level min;
	bool json;
} config = {.program = "aviary", .min = AV_LOG_INFO};

/* Lines that could not be written; told with the next one that can. */
static atomic_ulong dropped;

void av_log_init(const char *program, enum av_log_level min, bool json)
{
	config.program = program;
	config.min = min;
	config.json = json;
}

int av_log_level_parse(const char *s, enum av_log_level *ret)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(level_names); i++) {
		if (strcmp(s, level_names[i]) == 0) {
			*ret = (enum av_log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

static void write_fields(struct av_buf *line, va_list ap)
{
	for (const char *key; (key = va_arg(ap, const char *));) {
		const char *value = va_arg(ap, const char *);
		if (config.json) {
			av_buf_append_char(line, ',');
			av_json_write_str(line, av_str_c(key));
			av_buf_append_char(line, ':');
		} else {
			av_buf_printf(line, " %s=", key);
		}
		av_json_write_str(line, av_str_c(value));
	}
}

void av_log(enum av_log_level level, const char *message, ...)
{
	if (level < config.min)
		return;
	struct av_buf line = AV_BUF_INIT(LINE_MAX_BYTES);
	char when[32];
	av_rfc3339_ms(av_real_ms(), when);
	if (config.json) {
		av_buf_printf(&line,
		    "{\"time\":\"%s\",\"level\":\"%s\",\"program\":\"%s\",\"message\":", when,
		    level_names[level], config.program);
		av_json_write_str(&line, av_str_c(message));
	} else {
		av_buf_printf(
		    &line, "%s %-5s %s: %s", when, level_names[level], config.program, message);
	}
	va_list ap;
	va_start(ap, message);
	write_fields(&line, ap);
	va_end(ap);
	unsigned long lost = atomic_exchange(&dropped, 0);
	if (lost)
		av_buf_printf(&line,
		    config.json ? ",\"dropped_lines\":\"%lu\"" : " dropped_lines=\"%lu\"", lost);
	av_buf_append_c(&line, config.json ? "}\n" : "\n");
	struct av_str text = av_buf_str(&line);
	if (av_buf_error(&line) || write(STDERR_FILENO, text.p, text.n) != (ssize_t)text.n)
		atomic_fetch_add(&dropped, lost + 1);
	av_buf_clear(&line);
}
