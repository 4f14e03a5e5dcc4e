/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_pasta.h - internet access of rootless sandboxes: pasta of passt, one process per sandbox
 *
 * An ordinary user may make no interface on the host, so that pasta translates between a tap device
 * in the sandbox's network namespace and sockets of its own in the host's. It is started by the
 * worker and forwards nothing to the sandbox, nor the host's loopback to it; what the sandbox may
 * reach is decided by the rules in its namespace alone. It outlives the worker, as the sandbox
 * does, and is found again by its record (rundir.h). It ends with the sandbox: by the worker that
 * sees the agent die, or by DESTROY. When it ends before, it is started again (net_keep.h).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"

/* "" or why there is none, and the cure. */
const char *pasta_missing(void);

struct pasta_process {
	pid_t pid;
	uint64_t start_ticks;
};
/* Starts pasta for the namespaces of process pid; name queries go to resolver (0: nowhere). *ret_fd
 * is its pidfd, the caller's. -errno. The interface appears in the namespace a little later. */
int pasta_start(int proc_fd, pid_t pid, uint32_t resolver, struct pasta_process *ret,
    int *ret_fd) AV_MUST_CHECK;
/* A pidfd of the process, if it still is that one: -ESRCH, -ESTALE. */
int pasta_open(int proc_fd, const struct pasta_process *p) AV_MUST_CHECK;
