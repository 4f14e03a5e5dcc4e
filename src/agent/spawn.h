/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn.h - starts one program in a session of its own, as a user of the sandbox
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "agent/user.h"
#include "base/err.h"

struct spawn_params {
	char *const *argv; /* NULL-terminated; argv[0] is the command, looked up in PATH of envp
	                    * unless it holds a slash */
	char *const *envp; /* NULL-terminated "KEY=VALUE" */
	const char *cwd;
	const struct agent_user *user;
	int fds[3];           /* become 0, 1, 2 of the child; all above 2 in the caller */
	int channel_fd;       /* becomes 3 of the child; above 2 in the caller; 0: none */
	bool controlling_tty; /* fds[0] is a terminal and becomes the controlling one */
};

/* Which step failed; decides how a dialect words it. */
enum spawn_step {
	SPAWN_OK,
	SPAWN_FORK,
	SPAWN_HELD,  /* spawn_hold() */
	SPAWN_GROUP, /* control group */
	SPAWN_SETUP, /* session, terminal, descriptors */
	SPAWN_IDS,   /* groups, gid, uid */
	SPAWN_CWD,
	SPAWN_EXEC,
};

struct spawn_failure {
	enum spawn_step step;
	pid_t pid;     /* of the child that is gone, or 0 if there was none */
	int error;     /* positive errno */
	int exit_code; /* what a shell would exit with: 127 not found, 126 not executable, else 125
	                */
};

/* Once, before the first spawn, after the process has arranged its own signals: remembers what has
 * to be undone in children (ignored signals, RLIMIT_NOFILE to soft_nofile) and their OOM score. */
void spawn_prepare(unsigned long soft_nofile);

/* For a guest: children join the control group whose cgroup.procs this is (borrowed, for good)
 * before they execute anything. */
void spawn_into_group(int procs_fd);
/* While it is held nothing is started: that group is frozen, and the caller would wait for a child
 * that cannot run. */
void spawn_hold(bool on);

/* Returns the pid, or a negative errno with *ret filled and err worded for people. Blocks until the
 * program has been executed (about 0.2 ms). The child has: its own session and process group, the
 * user's ids, no blocked and no ignored signals, an OOM score above the agent's, only descriptors 0
 * to 2, and 3 where a channel is given. */
pid_t spawn_process(
    const struct spawn_params *params, struct spawn_failure *ret, struct av_err *err);
