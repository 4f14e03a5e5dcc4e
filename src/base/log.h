/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - structured logs on stderr, as text or JSON lines
 *
 * Only programs log; library code returns errors. Fields are key, value pairs of C strings ended by
 * NULL. Values may come from an attacker: a line is one line of printable ASCII in both formats,
 * whatever bytes they hold (the rest is escaped as in JSON), so that nobody can forge a line or
 * speak to a terminal; a value is cut after AV_LOG_VALUE_MAX bytes. Secrets are no values: keys,
 * tokens, bodies, query strings and headers of requests are never logged at any level
 * (links for activation are, to be handed on where no mail server is: control/links.c). Should one
 * get into a value all the same (somebody puts a key into a path), what looks like an API key ("_"
 * and 40 hexadecimal digits) or a JSON Web Token ("eyJ…") is replaced by "(hidden)".
 *
 * A log cannot be filled by repeating what is logged: of one message no more than
 * AV_LOG_BURST_WARN lines a minute are written at warn and error, and AV_LOG_BURST_INFO at info;
 * the last one says that more are left out, the next one after them how many. debug has no bound.
 *
 * Where stderr is the journal's ($JOURNAL_STREAM) each line begins with its priority, as
 * sd-daemon(3) has it. Thread safe; one write(2) a line; a full pipe drops the line and counts it.
 */
#pragma once

#include <stdbool.h>

enum av_log_level { AV_LOG_DEBUG, AV_LOG_INFO, AV_LOG_WARN, AV_LOG_ERROR };

#define AV_LOG_VALUE_MAX  1024
#define AV_LOG_BURST_WARN 30
#define AV_LOG_BURST_INFO 600

/* Before any thread starts. program must be a literal. */
void av_log_init(const char *program, enum av_log_level min, bool json);
/* Another level from now on; thread safe. */
void av_log_set_level(enum av_log_level min);
/* "debug", "info", "warn", "error"; -EINVAL otherwise. */
int av_log_level_parse(const char *s, enum av_log_level *ret);

/* av_log(AV_LOG_INFO, "sandbox created", "id", id, "template", name, NULL). The message is a
 * literal: lines are counted by it. */
void av_log(enum av_log_level level, const char *message, ...) __attribute__((sentinel));
