/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_sign.h - URLs with which anybody may read or write one file of a sandbox for a while
 *
 * A token (sign.h) is good for one sandbox, one direction, one user and one path, exactly as they
 * stood when it was made. What the path means is decided at each use, by the sandbox and with that
 * user's rights. Synchronous, from memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/control.h"
#include "control/sign.h"

#define CONTROL_FILE_URL_MAX_S (7 * 86400)

struct control_file_url {
	const char *id;
	bool write;
	const char *user; /* "" for the sandbox's default */
	struct av_str path;
};

/* Makes a token for a sandbox of the actor's team. NOT_FOUND; INVALID for a path of 0 or more than
 * AV_PATH_MAX bytes or with a NUL. */
int control_file_sign(struct control *c, const struct control_actor *a,
    const struct control_file_url *url, int64_t expires_s, char ret[static CONTROL_TOKEN_SIZE],
    struct av_err *err);
/* FORBIDDEN when the token is not for this. Then *ret_owner is on whose behalf the file is read or
 * written; NOT_FOUND when the sandbox is gone. */
int control_file_check(struct control *c, const struct control_file_url *url, struct av_str token,
    struct control_actor *ret_owner, struct av_err *err);
