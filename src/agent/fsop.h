/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsop.h - file operations as a user of the sandbox, blocking, on threads of the pool
 *
 * The thread takes on the user's file system ids and groups for the call, so the kernel's answer to
 * "may they?" is the one the user's own processes would get, symbolic links included: a link that
 * the user planted leads no further than the user could go. Magic links (/proc/PID/fd and the like)
 * are not followed, as they would mean the agent's own.
 */
#pragma once

#include <sys/stat.h>

#include "agent/user.h"
#include "base/err.h"

/* Opens a regular file for reading. *ret_st may be NULL. AV_ERR_NOT_FOUND "path '...' does not
 * exist", AV_ERR_INVALID for directories and anything else that is no file, AV_ERR_FORBIDDEN. */
int fsop_open_read(const struct agent_user *u, const char *path, int *ret_fd, struct stat *ret_st,
    struct av_err *err);

/* Opens a regular file for writing from scratch: makes missing parents (0755), creates it 0666
 * & ~umask or empties it (a large one down to one byte), and gives it to the user. *ret_created
 * tells a new file. fsop_close_write() or fsop_abandon() ends it. AV_ERR_INVALID, AV_ERR_FORBIDDEN,
 * AV_ERR_NO_SPACE. */
int fsop_open_write(const struct agent_user *u, const char *path, int *ret_fd, bool *ret_created,
    struct av_err *err);

/* Closes what fsop_open_write() opened, at the end of an upload. 0 or -errno; fd is gone in any
 * case. */
int fsop_close_write(int fd);

/* Takes back an upload that did not come to its end: a file that it created is removed (if the name
 * still means this file), one that was there before is left empty. Closes fd. */
void fsop_abandon(const struct agent_user *u, const char *path, int fd, bool created);

/* Words for a failed write. */
int fsop_write_error(int error, const char *path, struct av_err *err);
