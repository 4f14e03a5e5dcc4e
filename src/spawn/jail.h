/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jail.h - the namespaces of one sandbox: clone, id maps, hand-over to the child
 *
 * A jail under construction goes jail_clone() -> jail_map() -> (the caller mounts) ->
 * jail_staged() -> (attaches to cgroups, makes the listener) -> jail_go() -> jail_result() whenever
 * `sock` is readable, until it no longer says -EAGAIN. jail_clear() at any point gives up: it kills
 * the child.
 *
 * Single-threaded; nothing blocks but the clone itself.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macros.h"
#include "spawn/child.h"
#include "spawn/ids.h"

struct jail {
	pid_t pid;
	int pidfd;      /* owned */
	int sock;       /* owned: the worker's end of the hand-over, non-blocking seqpacket */
	int userns_fd;  /* owned; for idmapped layers */
	bool net_ready; /* the child said that its network namespace has its rules */
	bool executing; /* the child said that execveat comes next */
};
#define JAIL_INIT ((struct jail){.pidfd = -1, .sock = -1, .userns_fd = -1})

/* What makes a process the one that was created. */
struct jail_identity {
	pid_t pid;
	uint64_t start_ticks;
	uint64_t pidns_ino;
};

/* Clones the child (user, pid, ipc and uts namespaces), with effective ids of the slot's range and,
 * when cgroup_fd >= 0, into that cgroup. */
int jail_clone(const struct ids *ids, uint32_t slot, int cgroup_fd, const struct child_spec *spec,
    struct jail *ret, struct av_err *err) AV_MUST_CHECK;
/* Writes the id maps and opens the user namespace. */
int jail_map(
    struct jail *j, const struct ids *ids, uint32_t slot, struct av_err *err) AV_MUST_CHECK;
/* The staged root is complete. */
int jail_staged(struct jail *j, uint32_t limits, struct av_err *err) AV_MUST_CHECK;
/* Hands over. fds: what the program finds from CHILD_FD_FIRST on, -1 for nothing; they stay the
 * caller's. address: of the interface that was made in the child's network namespace, 0 for none.
 */
int jail_go(struct jail *j, const int fds[static CHILD_FDS_MAX], uint32_t address,
    struct av_err *err) AV_MUST_CHECK;
/* 0: the agent was executed. -EAGAIN: not yet (look at net_ready). Else the construction failed and
 * err names the step.
 */
int jail_result(struct jail *j, struct av_err *err) AV_MUST_CHECK;
/* Closes, and kills a child that was not handed on (pidfd taken by the caller). */
void jail_clear(struct jail *j);

/* Start time of a living process. -ESRCH when it is gone. */
int jail_start_ticks(int proc_fd, pid_t pid, uint64_t *ret) AV_MUST_CHECK;
/* Start time and pid namespace of a living process. -ESRCH when it is gone. */
int jail_identify(int proc_fd, pid_t pid, struct jail_identity *ret) AV_MUST_CHECK;
/* A descriptor (the caller's) of the process with exactly this identity; -ESRCH when nobody has the
 * pid, -ESTALE when it is another process. */
int jail_open(int proc_fd, const struct jail_identity *who, int *ret_pidfd) AV_MUST_CHECK;

/* Copies the program at path into a sealed memory file that can be executed and not read, owned by
 * SPAWN_AGENT_UID: *ret_fd. name: how ps shows it. ret_read, may be NULL: a descriptor of it for
 * reading, which no jail must get. The caller owns both. */
int jail_load_program(const char *name, const char *path, bool rootless, int *ret_fd, int *ret_read,
    struct av_err *err) AV_MUST_CHECK;
/* A sealed memory file with the same bytes, for reading only, that a jail may have. */
int jail_copy_program(int read_fd, int *ret_fd) AV_MUST_CHECK;
