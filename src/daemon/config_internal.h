/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_internal.h - shared by config.c, config_show.c and launch.c
 */
#pragma once

#include "daemon/config.h"

/* What a value may be long; the configuration file as a whole bounds it. */
#define DAEMON_VALUE_MAX ((size_t)80 << 10)

#define DAEMON_CONFIG_INIT                                                                         \
	((struct daemon_config){                                                                   \
	    .credentials_fd = -1, .notify_fd = -1, .lend_fd = -1, .warnings = AV_BUF_INIT(4096)})

enum daemon_scope { DAEMON_SCOPE_USER, DAEMON_SCOPE_FLAG, DAEMON_SCOPE_PRIVATE };

/* As in options.def. */
struct daemon_opt_info {
	const char *name;
	const char *meta; /* NULL: a switch */
	enum daemon_scope scope;
	const char *text; /* default */
	const char *help;
};
static inline bool daemon_opt_in_file(const struct daemon_opt_info *o)
{
	return o->scope == DAEMON_SCOPE_USER;
}
/* Constant. opt below DAEMON_OPT_COUNT. */
const struct daemon_opt_info *daemon_opt_info(int opt);

/* Reads a file; each error goes to on_error and the reading goes on, or without on_error ends it.
 */
int daemon_config_load_file(struct daemon_config *c, const char *path,
    void (*on_error)(void *ctx, const struct av_err *err), void *ctx, struct av_err *err);
/* Fills defaults in and converts; may be called again after a value was taken out. */
int daemon_config_finish(struct daemon_config *c, struct av_err *err);
