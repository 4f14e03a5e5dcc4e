/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch.h - from the program a user starts to the supervisor that starts the daemon
 *
 * aviaryd started by a user only reads its options and becomes aviary-spawn (execve, same pid):
 * that supervisor keeps the privileges, opens nothing, and starts aviaryd a second time as an
 * ordinary user with --spawn-socket. All options travel as flags, so that neither of the two reads
 * the environment or a file again.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/path.h"
#include "daemon/config.h"

/* Does not return on success. */
int daemon_launch(const struct daemon_config *c, struct av_err *err);

/* Whom the daemon runs as: --user, else the system's user "aviary". uid 0 in the result: not
 * stated, aviary-spawn has an id of its own for that, and only root has a choice. INVALID for a
 * user that does not exist, is root, or was asked for by somebody else than root. */
struct daemon_user {
	uid_t uid;
	gid_t gid;
};
int daemon_find_user(const struct daemon_config *c, struct daemon_user *ret, struct av_err *err);

/* Whether aviary-spawn takes its part of the configuration: runs it once, to look at its command
 * line only; 10 s at most. INVALID: its message, with the place the value comes from before it. */
int daemon_launch_check(const struct daemon_config *c, struct av_err *err);

/* The aviary-spawn that is used, and this program. */
int daemon_launch_programs(const struct daemon_config *c, char ret_spawn[static AV_PATH_MAX + 1],
    char ret_self[static AV_PATH_MAX + 1], struct av_err *err);

/* The command line of the supervisor: a NULL-terminated array of owned strings, for daemon_launch
 * and tests. self is the path of this program. */
int daemon_launch_argv(const struct daemon_config *c, const struct daemon_user *user,
    const char *spawn, const char *self, char ***ret_argv, struct av_err *err);
void daemon_launch_argv_free(char **argv);
