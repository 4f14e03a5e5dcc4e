/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup.h - limits, freezing, killing and counting of sandboxes by control groups
 *
 * One object per worker. It finds the machine's layout once:
 *
 *   v2      one tree with controllers
 *   v1      one tree per controller
 *   hybrid  v1 controllers, and a v2 tree without controllers that still offers cgroup.kill,
 *           cgroup.freeze and cgroup.events
 *
 * makes a parent "aviary-<tag>" in every tree it uses, and keeps descriptors of those parents. A
 * sandbox is a directory <parent>/<id> in each tree. Nothing per sandbox is kept in memory, so a
 * restarted worker goes on where the old one stopped. All paths are relative to descriptors opened
 * by cgroups_open(), which therefore may run before the worker leaves the host's mount namespace.
 *
 * Single-threaded. Calls block only as far as the kernel's cgroup lock does, except where a timeout
 * parameter says otherwise. Ids are file names the caller has checked (no '/', not "." or "..",
 * at most CGROUP_ID_MAX bytes); others get -EINVAL.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/str.h"

#define CGROUP_ID_MAX 64

enum cgroup_mode {
	CGROUP_MODE_NONE, /* no usable tree: nothing is limited; freeze, kill and stat say so */
	CGROUP_MODE_V2,
	CGROUP_MODE_V1,
	CGROUP_MODE_HYBRID,
};
/* "none", "v2", "v1", "hybrid" */
const char *cgroup_mode_name(enum cgroup_mode mode);

/* What can be enforced or done here; the numbers go over the wire in HELLO and never change. */
enum cgroup_cap {
	CGROUP_CAP_MEMORY = 1 << 0,
	CGROUP_CAP_SWAP = 1 << 1, /* memory + swap together are limited (or there is no swap) */
	CGROUP_CAP_PIDS = 1 << 2,
	CGROUP_CAP_CPU_QUOTA = 1 << 3,
	CGROUP_CAP_CPU_WEIGHT = 1 << 4,
	CGROUP_CAP_IO_WEIGHT = 1 << 5,
	CGROUP_CAP_FREEZE = 1 << 6,
	CGROUP_CAP_KILL = 1 << 7,        /* cgroup.kill: one write kills all */
	CGROUP_CAP_CLONE_INTO = 1 << 8,  /* cgroups_clone_fd() works */
	CGROUP_CAP_FAST_ATTACH = 1 << 9, /* the favordynmods hierarchy is mounted */
	CGROUP_CAP_OOM_EVENTS = 1 << 10, /* stat counts processes the OOM killer took */
	CGROUP_CAP_CPU_USAGE = 1 << 11,
};

struct cgroups_config {
	const char *tag; /* 8 hexadecimal digits that tell instances apart */
	/* The control group to make the parent in, where it exists in a tree: a path as
	 * /proc/self/cgroup has it ("/system.slice/aviary-sandboxes.service"), or "../NAME" for a
	 * neighbour of this process's own. NULL: the root of each tree, or where that may not be
	 * written, the process's own. It must be delegated to us: nobody else changes it. */
	const char *below;
	bool fast_attach; /* mount the private named hierarchy with favordynmods */
	bool ignore_v2;   /* as if only v1 trees were mounted (tests) */
	bool read_only;   /* look only (doctor): create nothing, mount nothing */
};

struct cgroup_limits {
	uint64_t memory_bytes; /* 0: no limit; memory and swap together */
	uint32_t pids_max;     /* 0: no limit */
	uint32_t cpu_milli;    /* thousandths of one CPU; 0: no quota */
	uint32_t cpu_weight;   /* 1 to 10000, 100 is usual; 0: leave the default */
	uint32_t io_weight;    /* 1 to 10000, 100 is usual; 0: leave the default */
};

#define CGROUP_CPUS_MAX 1024
/* CPUs by number. */
struct cgroup_cpus {
	uint64_t bits[CGROUP_CPUS_MAX / 64];
};
static inline bool cgroup_cpus_has(const struct cgroup_cpus *s, unsigned int cpu)
{
	return s->bits[cpu / 64] >> (cpu % 64) & 1;
}
static inline void cgroup_cpus_add(struct cgroup_cpus *s, unsigned int cpu)
{
	s->bits[cpu / 64] |= UINT64_C(1) << (cpu % 64);
}
static inline void cgroup_cpus_remove(struct cgroup_cpus *s, unsigned int cpu)
{
	s->bits[cpu / 64] &= ~(UINT64_C(1) << (cpu % 64));
}
unsigned int cgroup_cpus_count(const struct cgroup_cpus *s);
/* A list as the kernel writes it ("0-3,8\n"). Pure. */
bool cgroup_cpus_parse(struct av_str list, struct cgroup_cpus *ret);

struct cgroup_stat {
	uint64_t memory_current_bytes;
	uint64_t memory_peak_bytes; /* 0 where the kernel does not keep it (v2 before 5.19) */
	uint64_t oom_kills;
	uint64_t pids_current;
	uint64_t cpu_usec;
	bool populated; /* a live process is inside */
	bool frozen;
};

struct cgroups;

/* Whether text can be cgroups_config.below: clean, and short enough. Pure. */
bool cgroup_below_valid(const char *text);
/* Finds the layout and, unless read_only, makes the parents and enables controllers. A machine on
 * which nothing can be limited is no error: mode NONE, with cgroups_reason() saying why. Errors:
 * -ENOMEM; -EINVAL for a bad tag; -ENOENT when there is no cgroup `below`. The caller frees with
 * cgroups_free(). */
int cgroups_new(const struct cgroups_config *cfg, struct cgroups **ret, struct av_err *err);
/* Closes descriptors, and removes the parents when no sandbox is left in them. The favordynmods
 * hierarchy goes with the last holder. */
void cgroups_free(struct cgroups *cg);

enum cgroup_mode cgroups_mode(const struct cgroups *cg);
/* Or of enum cgroup_cap. */
uint32_t cgroups_caps(const struct cgroups *cg);
/* One sentence on what is missing and how to cure it, "" when nothing is. Borrowed from cg. */
const char *cgroups_reason(const struct cgroups *cg);

/* Makes the sandbox's cgroups with their limits. All or nothing. -EEXIST when one is there already.
 * A limit that cannot be enforced here is left out: check cgroups_caps(). */
int cgroups_create(struct cgroups *cg, const char *id, const struct cgroup_limits *limits,
    struct av_err *err) AV_MUST_CHECK;
/* Changes limits of an existing sandbox; fields that are 0 are left alone. */
int cgroups_set_limits(struct cgroups *cg, const char *id, const struct cgroup_limits *limits,
    struct av_err *err) AV_MUST_CHECK;
/* A descriptor (the caller's) for clone_args.cgroup. -EOPNOTSUPP without a v2 tree. */
int cgroups_clone_fd(struct cgroups *cg, const char *id, int *ret_fd) AV_MUST_CHECK;
/* Puts a process (not yet running guest code) into all the sandbox's cgroups; in_v2 when it was
 * cloned into the v2 one. 0.1 to 0.3 ms with CGROUP_CAP_FAST_ATTACH, 7 to 15 ms without. */
int cgroups_attach(
    struct cgroups *cg, const char *id, pid_t pid, bool in_v2, struct av_err *err) AV_MUST_CHECK;
/* SIGKILL to every process inside, also frozen ones. 0 when there is no such cgroup. Returns when
 * the signals are sent, not when all are gone; without CGROUP_CAP_KILL it freezes, signals, thaws
 * and may take some milliseconds. */
int cgroups_kill(struct cgroups *cg, const char *id);
/* 0 once no live process is inside (or no such cgroup), -ETIMEDOUT, -errno. timeout_ms 0 looks
 * once. */
int cgroups_wait_empty(struct cgroups *cg, const char *id, int timeout_ms);
/* Freezes or thaws and waits until it is so. -ETIMEDOUT (a frozen half is thawed again),
 * -EOPNOTSUPP without CGROUP_CAP_FREEZE, -ENOENT. */
int cgroups_freeze(
    struct cgroups *cg, const char *id, bool frozen, int timeout_ms, struct av_err *err);
/* Which CPUs sandboxes may use. -EOPNOTSUPP where they cannot be confined to some of them. */
int cgroups_cpus(struct cgroups *cg, struct cgroup_cpus *ret);
/* Confines all processes of the sandbox to these; NULL: to nothing less than all. 0 or -errno. */
int cgroups_set_cpus(struct cgroups *cg, const char *id, const struct cgroup_cpus *cpus);
/* Its quota in thousandths of a CPU; 0: none, or not known. */
uint32_t cgroups_cpu_limit(struct cgroups *cg, const char *id);
/* -ENOENT without such a cgroup. What the kernel does not count stays 0. */
int cgroups_stat(struct cgroups *cg, const char *id, struct cgroup_stat *ret);
/* What is read once a second. Starts as CGROUP_READER_INIT and holds descriptors after the first
 * cgroups_sample() until cgroup_reader_close(). */
struct cgroup_reader {
	int memory_fd, cpu_fd; /* owned; negative: not there */
	bool opened, cpu_is_v2;
};
#define CGROUP_READER_INIT ((struct cgroup_reader){.memory_fd = -1, .cpu_fd = -1})
struct cgroup_sample {
	uint64_t memory_bytes; /* page cache included */
	uint64_t cpu_usec;     /* of its whole life */
	bool has_memory, has_cpu;
};
/* Some 3 us each. -ENODATA when nothing is counted here, or the cgroup is gone. */
int cgroups_sample(
    struct cgroups *cg, const char *id, struct cgroup_reader *rd, struct cgroup_sample *ret);
void cgroup_reader_close(struct cgroup_reader *rd);
/* Removes the directories; 0 when all are gone (or were). -EBUSY while processes are inside: kill
 * and try again; what could be removed is. timeout_ms > 0 waits for that. */
int cgroups_remove(struct cgroups *cg, const char *id, int timeout_ms);
/* Whether it exists in at least one tree. */
bool cgroups_exists(struct cgroups *cg, const char *id);
/* Calls on_id once for each sandbox that has a cgroup in any tree; a non-zero answer ends the walk
 * and is returned. on_id may remove the one it is given. */
int cgroups_list(struct cgroups *cg, int (*on_id)(void *ctx, const char *id), void *ctx);
/* For `aviary cleanup`: kills and removes every sandbox and then the parents. -EBUSY when something
 * does not die within timeout_ms. */
int cgroups_cleanup(struct cgroups *cg, int timeout_ms, struct av_err *err) AV_MUST_CHECK;
/* Calls on_path with each control group of the v2 tree that has this instance's parent inside, for
 * use as cgroups_config.below; at most ten levels deep. A non-zero answer ends the walk and is
 * returned. For cleanup, which does not know the options of the daemon that died. */
int cgroups_find(const char *tag, int (*on_path)(void *ctx, const char *path), void *ctx);
/* Forks a child, attaches it to a cgroup made for that and removes both: nanoseconds of the attach.
 * For doctor and tests. */
int cgroups_measure_attach(struct cgroups *cg, int64_t *ret_ns, struct av_err *err) AV_MUST_CHECK;
