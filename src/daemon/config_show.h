/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_show.h - what the configuration is and where each value comes from, and what is wrong in a
 * file
 *
 * For `aviary config`, which runs `aviaryd --show-config=HOW` and `aviaryd --check-config=FILE`: so
 * it is the daemon's own reading that is shown.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "daemon/config.h"

/* Appends the configuration as how says: "text" (a table), "json" (an object), or "example" (a
 * configuration file in which every option is a comment; c may be all zero then). What may hold a
 * secret is not shown: options whose names say so (password, secret, token) and that are no files,
 * and what stands before '@' in a URL. INVALID for another how. */
int daemon_config_show(
    const struct daemon_config *c, const char *how, struct av_buf *out, struct av_err *err);

/* Reads one file by itself, with neither environment nor flags, and appends every problem as a line
 * ("FILE:LINE: …"); *ret_problems is how many. Values that aviary-spawn reads are checked by it.
 * Errors: the file cannot be read. */
int daemon_config_check(
    const char *path, struct av_buf *out, unsigned int *ret_problems, struct av_err *err);
