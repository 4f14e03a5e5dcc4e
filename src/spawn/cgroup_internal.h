/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup_internal.h - shared by cgroup.c, cgroup_layout.c, cgroup_v1.c, cgroup_v2.c and their test
 */
#pragma once

#include "base/macros.h"
#include "base/str.h"
#include "spawn/cgroup.h"

enum cgroup_ctl {
	CTL_MEMORY = 1 << 0,
	CTL_PIDS = 1 << 1,
	CTL_CPU = 1 << 2,
	CTL_CPUACCT = 1 << 3,
	CTL_BLKIO = 1 << 4, /* "io" on v2 */
	CTL_FREEZER = 1 << 5,
	CTL_CPUSET = 1 << 6,
};
#define CGROUP_TREES_MAX 8 /* v2 and seven v1 controllers */
#define CGROUP_PATH_SIZE 512

/* Where the hierarchies are mounted, as text. */
struct cgroup_layout {
	char v2[CGROUP_PATH_SIZE];      /* mount point, "" when there is none */
	char v2_root[CGROUP_PATH_SIZE]; /* which directory of the tree is mounted there */
	char below[CGROUP_PATH_SIZE];   /* cgroups_config.below resolved to a path, or "" */
	size_t n_v1;
	struct {
		char path[CGROUP_PATH_SIZE];
		uint32_t controllers;
	} v1[CGROUP_TREES_MAX];
};

/* Reads the text of /proc/<pid>/mountinfo. Pure. Lines it does not understand are skipped; of
 * several mounts of one hierarchy the first counts. */
void cgroup_layout_parse(struct av_str mountinfo, struct cgroup_layout *ret);
/* Or of enum cgroup_ctl of a v2 list ("cpu io memory pids"). Pure. */
uint32_t cgroup_v2_controllers(struct av_str list);
/* The path after "0::" in the text of /proc/<pid>/cgroup. False when there is none. Pure. */
bool cgroup_v2_own_path(struct av_str proc_cgroup, struct av_str *ret_path);
/* The same of the tree that systemd finds processes in: that one, or "name=systemd" where only v1
 * is mounted. Pure. */
bool cgroup_own_path(struct av_str proc_cgroup, struct av_str *ret_path);
/* cgroups_config.below as a path, for a process in own. -EINVAL, -ENAMETOOLONG. Pure. */
int cgroup_below_path(const char *below, struct av_str own, char *dst, size_t size);
/* The number after "key " at the start of a line of a flat-keyed file; 0 when absent. Pure. */
uint64_t cgroup_flat_key(struct av_str text, const char *key);

/* Of all sandboxes together, against any other process of the host (cpu.weight's unit; 100 is
 * usual). All of them share it, spread over the CPUs as the load is: with the usual weight a busy
 * one takes it to the CPUs where it runs, and a quiet one elsewhere stays behind every kernel
 * worker. */
enum { CGROUP_PARENT_CPU_WEIGHT = 800 };

struct cgroup_tree {
	bool v2;
	uint32_t controllers;
	int base_fd;   /* owned; directory that holds the parent */
	int parent_fd; /* owned; "aviary-<tag>", -1 when read-only */
};

struct cgroups {
	enum cgroup_mode mode;
	uint32_t caps;
	bool read_only;
	bool v1_memsw;
	bool v2_swap;
	const char *v1_weight_file; /* "blkio.weight", "blkio.bfq.weight" or NULL */
	char parent[32];            /* "aviary-<tag>" */
	char leaf[40];              /* "aviary-<tag>-self": where processes of a shared base go */
	char reason[800];
	int favor_fd; /* owned; mount with favordynmods, or -1 */
	size_t n;
	struct cgroup_tree tree[CGROUP_TREES_MAX];
};

void cgroup_add_reason(struct cgroups *cg, const char *fmt, ...) AV_PRINTF(2, 3);
/* The tree that has the controller, or NULL; v1 or v2. */
struct cgroup_tree *cgroup_tree_with(struct cgroups *cg, uint32_t ctl);
/* The v2 tree, or NULL. */
struct cgroup_tree *cgroup_tree_v2(struct cgroups *cg);
/* Writes text to <parent>/<id>/<file>. 0 or -errno. */
int cgroup_write(const struct cgroup_tree *t, const char *id, const char *file, const char *fmt,
    ...) AV_PRINTF(4, 5);
/* Reads <parent>/<id>/<file> into buf, NUL-terminated. Length or -errno. */
ssize_t cgroup_read(
    const struct cgroup_tree *t, const char *id, const char *file, char *buf, size_t size);
/* One number; 0 when absent or "max". */
uint64_t cgroup_read_u64(const struct cgroup_tree *t, const char *id, const char *file);
bool cgroup_has_file(const struct cgroup_tree *t, const char *id, const char *file);

/* Whether sandboxes run in a parent at the root of the v2 tree. */
bool cgroup_v2_root_populated(const struct cgroups *cg, const struct cgroup_layout *l);
/* Adds the v2 tree at mount point l->v2 and its caps. 0, or -errno when it is of no use. */
int cgroup_v2_setup(struct cgroups *cg, const struct cgroup_layout *l);
int cgroup_v2_limit(struct cgroups *cg, const struct cgroup_tree *t, const char *id,
    const struct cgroup_limits *lim, struct av_err *err);
void cgroup_v2_stat(const struct cgroup_tree *t, const char *id, struct cgroup_stat *st);
int cgroup_v2_freeze(const struct cgroup_tree *t, const char *id, bool frozen, int timeout_ms);
/* Waits until `key` of cgroup.events is `want`. 0, -ETIMEDOUT, -errno (-ENOENT: no such cgroup). */
int cgroup_v2_wait(
    const struct cgroup_tree *t, const char *id, const char *key, uint64_t want, int timeout_ms);

/* Adds the v1 trees whose controllers v2 does not have. */
void cgroup_v1_setup(struct cgroups *cg, const struct cgroup_layout *l);
int cgroup_v1_limit(struct cgroups *cg, const struct cgroup_tree *t, const char *id,
    const struct cgroup_limits *lim, struct av_err *err);
void cgroup_v1_stat(const struct cgroup_tree *t, const char *id, struct cgroup_stat *st);
int cgroup_v1_freeze(const struct cgroup_tree *t, const char *id, bool frozen, int timeout_ms);
/* SIGKILL to all in <id> of tree t without cgroup.kill; the caller freezes before, thaws after.
 * Returns how many were signalled, or -errno. */
int cgroup_signal_all(const struct cgroup_tree *t, const char *id);
/* v1: gives the parent the CPUs and memory nodes of its own parent, and those made below it the
 * same. 0 or -errno. */
int cgroup_v1_cpuset_parent(const struct cgroup_tree *t);
/* Mounts the private named hierarchy. A descriptor, or -errno. */
int cgroup_favor_mount(const char *name);

/* Quotas are counted over 20 ms: several threads together use up a period's quota in a part of it
 * and have every CPU meanwhile, so that the period bounds how long a neighbour waits. Small quotas
 * need the kernel's usual 100 ms, as none may be less than 1 ms. */
static inline unsigned int cgroup_cpu_period_us(uint32_t cpu_milli)
{
	return cpu_milli < 50 ? 100000 : 20000;
}
static inline unsigned int cgroup_cpu_quota_us(uint32_t cpu_milli)
{
	uint64_t us = (uint64_t)cpu_milli * cgroup_cpu_period_us(cpu_milli) / 1000;
	return us < 1000 ? 1000 : (unsigned int)us;
}
