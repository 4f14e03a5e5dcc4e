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

/* Takes on the ids of u for this thread. Followed by fsop_become_self(), also after a failure.
 * -errno. */
int fsop_become(const struct agent_user *u) AV_MUST_CHECK;
void fsop_become_self(void);

/* As a user, between the two above. */

/* openat2 without magic links; O_CLOEXEC, O_NOCTTY and O_NONBLOCK are added. The descriptor, or
 * -errno. */
int fsop_openat(int dirfd, const char *path, int flags, mode_t mode) AV_MUST_CHECK;
/* Makes every missing directory above path (absolute), 0755. 0 or -errno. */
int fsop_make_parents(const char *path) AV_MUST_CHECK;
/* "/proc/self/fd/N": what a descriptor means, for calls that take only names. */
#define FSOP_FD_PATH_SIZE 32
const char *fsop_fd_path(int fd, char dst[static FSOP_FD_PATH_SIZE]);
/* True for files of procfs and sysfs: controls, not storage, and /proc/self would be the agent. */
bool fsop_is_control(int fd);

/* Words for a failed system call on path; error is -errno or errno. Returns the kind's -errno. */
int fsop_explain(int error, const char *path, struct av_err *err);

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
