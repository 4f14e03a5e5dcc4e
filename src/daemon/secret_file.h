/* SPDX-License-Identifier: Apache-2.0 */
/*
 * secret_file.h - a secret that an option names the file of: one line, not for everybody's eyes
 */
#pragma once

#include <stddef.h>

#include "base/err.h"
#include "daemon/config.h"

#define SECRET_FILE_MAX 512 /* bytes, without the newline at its end */

/* Reads it as the daemon's user. INVALID naming the option: it cannot be read, everybody can, or it
 * is not one line. The caller wipes ret. Blocks; for the start. */
int secret_file_read(enum daemon_opt opt, const char *path, char ret[static SECRET_FILE_MAX + 2],
    struct av_err *err);
