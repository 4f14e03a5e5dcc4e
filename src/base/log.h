/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - structured logs on stderr, as text or JSON lines
 *
 * Only programs log; library code returns errors. Fields are key, value pairs of C strings ended by
 * NULL; control characters and terminal escapes are escaped in both formats, so that a guest cannot
 * forge a line. Thread safe; one write(2) a line; a full pipe drops the line and counts it.
 */
#pragma once

#include <stdbool.h>

enum av_log_level { AV_LOG_DEBUG, AV_LOG_INFO, AV_LOG_WARN, AV_LOG_ERROR };

/* Before any thread starts. program must be a literal. */
void av_log_init(const char *program, enum av_log_level min, bool json);
/* "debug", "info", "warn", "error"; -EINVAL otherwise. */
int av_log_level_parse(const char *s, enum av_log_level *ret);

/* av_log(AV_LOG_INFO, "sandbox created", "id", id, "template", name, NULL) */
void av_log(enum av_log_level level, const char *message, ...) __attribute__((sentinel));
