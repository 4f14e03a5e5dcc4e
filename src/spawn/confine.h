/* SPDX-License-Identifier: Apache-2.0 */
/*
 * confine.h - busy sandboxes keep to as many CPUs as they may use
 *
 * Theory of operation. A quota says how much CPU time a sandbox gets, not on how many CPUs at once:
 * one with the quota of a single CPU whose programs have many threads holds every CPU for a part of
 * each period, and a neighbour that wakes up meanwhile waits, on many kernels until the next timer
 * tick. So a sandbox that uses a good part of its quota from one SAMPLE to the next is confined to
 * as many CPUs as its quota is worth, rounded up, by the cpuset controller; that takes nothing from
 * it that the quota had not taken. The CPUs with the fewest confined sandboxes are chosen, and
 * evened out when one of them goes. When it has been quiet for some seconds it may run anywhere
 * again.
 *
 * What confines is the kernel; a restarted worker lets everything go and learns anew. Without the
 * controller, or with one CPU, nothing is done.
 *
 * Single-threaded; calls block as far as the kernel's cgroup lock does.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "spawn/cgroup.h"

struct confine {
	struct cgroups *cgroups; /* borrowed */
	struct cgroup_cpus all;  /* that sandboxes may use; empty: nothing is ever confined */
	uint16_t *load;          /* owned; by CPU number: sandboxes confined to it */
};

/* Of one sandbox; starts as all zero. */
struct confined {
	uint64_t cpu_usec; /* of the last note */
	int64_t at_ns;     /* 0: none yet */
	int64_t busy_ns;   /* when it was last seen busy */
	bool is;
	struct cgroup_cpus cpus; /* while it is */
};

/* Reads which CPUs there are. 0, also when nothing can be confined here, or -ENOMEM. */
int confine_open(struct confine *c, struct cgroups *cgroups);
void confine_close(struct confine *c);
/* What a sandbox that an earlier worker left may be confined to is undone. */
void confine_recover(struct confine *c, const char *id);
/* The sandbox has used cpu_usec in its life, at now_ns (CLOCK_MONOTONIC). */
void confine_note(
    struct confine *c, const char *id, struct confined *s, uint64_t cpu_usec, int64_t now_ns);
/* It is gone; its cgroup need not be there any more. */
void confine_forget(struct confine *c, struct confined *s);
