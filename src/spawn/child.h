/* SPDX-License-Identifier: Apache-2.0 */
/*
 * child.h - what runs between clone3 and the agent's first instruction
 *
 * Only jail.c calls this. The steps are one list: the child reports the one that failed by number,
 * the worker names it in its answer, failpoints are "child.<name>".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "spawn/net_rules.h"
#include "spawn/wire.h"

#define CHILD_STEPS(STEP)                                                                          \
	STEP(HANDOVER, "handover", "waiting for the worker")                                       \
	STEP(NETNS, "netns", "making the network namespace")                                       \
	STEP(LOOPBACK, "loopback", "bringing the loopback device up")                              \
	STEP(NETRULES, "netrules", "loading the rules of the network")                             \
	STEP(IDENTITY, "identity", "setting host name, session and limits")                        \
	STEP(IDS, "ids", "taking the ids of the sandbox")                                          \
	STEP(MOUNTNS, "mountns", "making the mount namespace")                                     \
	STEP(ROOT, "root", "attaching the root file system")                                       \
	STEP(PROC, "proc", "mounting /proc")                                                       \
	STEP(SYS, "sys", "mounting /sys")                                                          \
	STEP(DEV, "dev", "mounting below /dev")                                                    \
	STEP(RUN, "run", "mounting /run")                                                          \
	STEP(MASK, "mask", "masking files of /proc")                                               \
	STEP(CGROUPFS, "cgroupfs", "mounting the cgroup")                                          \
	STEP(PIVOT, "pivot", "changing the root")                                                  \
	STEP(CGROUPNS, "cgroupns", "making the cgroup namespace")                                  \
	STEP(NETUP, "netup", "bringing the network interface up")                                  \
	STEP(SECCOMP, "seccomp", "loading the system call filter")                                 \
	STEP(CAPS, "caps", "dropping capabilities")                                                \
	STEP(FDS, "fds", "arranging descriptors")                                                  \
	STEP(EXEC, "exec", "executing the agent")

enum child_step {
#define STEP(name, word, text) CHILD_STEP_##name,
	CHILD_STEPS(STEP)
#undef STEP
	    CHILD_STEP_COUNT
};

/* Child to worker. error 0 with CHILD_STEP_NETRULES: its network namespace is there and has its
 * rules. error 0 with CHILD_STEP_EXEC: execveat is next; end of file after it is success. Otherwise
 * the step that failed and its errno; the child exits. */
struct child_report {
	uint32_t step;
	int32_t error;
};

/* Worker to child, first: the staged root is complete. The child mounts the rest while the worker
 * makes what the second message carries. */
struct child_staged {
	uint32_t limits; /* CHILD_LIMITS_*: which files of /proc come from the staged /dev */
};
/* Second: the record is written, the process is in its cgroups, execute the agent. Carries the
 * descriptors that fds says, in this order. */
struct child_go {
	uint32_t address; /* of its interface, which is there; 0: it has none */
	uint32_t fds;     /* bit n: the program finds one as descriptor CHILD_FD_FIRST + n */
};
/* What the first process gets: an agent the first two, aviary-vm what spawn_vm_fd of wire.h says.
 */
enum { CHILD_FD_FIRST = 3, CHILD_FDS_MAX = SPAWN_VM_FD_COUNT - CHILD_FD_FIRST };
enum {
	CHILD_LIMITS_MEMORY = 1 << 0, /* .meminfo */
	CHILD_LIMITS_CPUS = 1 << 1,   /* .cpuinfo, .stat, .online */
};

/* What the child knows from before the clone; borrowed, read in its copy of the worker's memory. */
struct child_spec {
	const char *id;
	const char *stage; /* path of the staged root in the worker's mount namespace */
	bool rootless;
	bool no_sudo;
	bool no_seccomp;
	bool has_cgroup2; /* in a cgroup v2 with controllers before `staged`: show it read-only */
	bool vm;          /* it is aviary-vm: no capability, another filter, fewer mounts */
	bool vm_image;    /* with vm: may read all files, to make an image of them */
	int program_fd;   /* the agent or aviary-vm: executable, read-only, sealed */
	uint64_t memory_bytes;
	/* Where no cgroup limits: per process, which is weaker, and said so. 0: not. */
	uint64_t rlimit_data;
	uint32_t rlimit_nproc;
	const struct net_rules_sandbox *net; /* NULL: loopback only */
};

/* Never returns: executes the agent or reports and exits. sock is the child's end. */
_Noreturn void child_main(const struct child_spec *spec, int sock);

/* Whether that failure comes from what a template has at a mount point. */
bool child_step_is_template(uint32_t step, int error);
/* "mounting /proc"; never NULL. */
const char *child_step_text(uint32_t step);
