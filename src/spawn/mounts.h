/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mounts.h - the worker's private mount tree, and the root file system of a sandbox in it
 *
 * The worker lives in a mount namespace of its own whose root is a small tmpfs:
 *
 *   /state  the state directory       /run   the run directory
 *   /disk   where disk.h mounts       /usr   the host's, read-only (and its lib links)
 *   /proc /sys /dev                   the host's
 *   /stage/<number>                   a root file system under construction, for some milliseconds
 *   /l/a …  layers under short names (overlay path `names`), while one overlay is mounted
 *
 * Each create copies this tree, so nothing stays in it that need not be there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "spawn/ids.h"
#include "spawn/options.h"

#define MOUNTS_STATE      "/state"
#define MOUNTS_RUN        "/run"
#define MOUNTS_DISK       "/disk"
#define MOUNTS_LAYERS_MAX 26
#define MOUNTS_EXTRA_MAX  2

struct mounts {
	enum spawn_overlay overlay;
	bool rootless;
	bool
	    plain_lower; /* the host's /usr cannot be idmapped: its files belong to nobody inside */
	bool native_upper; /* uppers cannot be idmapped: ids on disk are those of the range */
	int host_root_fd;  /* owned: the host's root, in the host's namespace; O_PATH */
	int proc_fd;       /* owned: /proc */
	int state_fd;      /* owned: /state */
	int run_fd;        /* owned: /run */
	int names_fd;      /* owned: /l */
	/* Owned: clones of layers that overlays hold by now. Closing one waits for a grace period
	 * of the kernel, so that is left to the caller of mounts_stage() (sweeper.h), who empties
	 * it. */
	int spent[(2 + MOUNTS_EXTRA_MAX) * MOUNTS_LAYERS_MAX + 1];
	size_t n_spent;
};
#define MOUNTS_INIT                                                                                \
	((struct mounts){                                                                          \
	    .host_root_fd = -1, .proc_fd = -1, .state_fd = -1, .run_fd = -1, .names_fd = -1})

/* Into a user namespace of the caller's own, in which it is root: then the files of rootless
 * sandboxes can be read and made whatever their modes. */
int mounts_enter_userns(struct av_err *err) AV_MUST_CHECK;

/* Leaves the host's mount namespace (rootless: first into a user namespace of its own) for the tree
 * above. Once, at start; what is needed of the host is opened before. The message names the mount
 * that failed. */
int mounts_enter(struct mounts *m, const struct spawn_options *o, struct av_err *err) AV_MUST_CHECK;

/* One layer: a directory, read-only below an overlay. */
struct mounts_layers {
	int fd[MOUNTS_LAYERS_MAX]; /* borrowed; upper-most first */
	size_t n;
};

struct mounts_limits {
	uint64_t memory_bytes; /* 0: the machine's */
	uint32_t cpu_milli;    /* 0: the machine's */
};

struct mounts_spec {
	const struct ids *ids;
	uint32_t slot;
	uint32_t stage; /* any number that is no other's */
	int userns_fd;  /* of the sandbox, maps written */
	int area_fd;    /* the sandbox's disk area, as mounts_prepare_area() left it */
	const struct mounts_layers *root, *usr; /* usr may be NULL */
	/* What else is to be read there: two layers or more, at a directory of the root. */
	struct mounts_extra {
		const char *name;
		const struct mounts_layers *layers; /* NULL: nothing */
	} extra[MOUNTS_EXTRA_MAX];
	struct mounts_limits limits;
	bool vm; /* /dev has what QEMU opens, and nothing else */
};

/* What the sandbox is told about itself. */
struct mounts_identity {
	const char *hostname;
	const char *resolv_conf; /* NULL: /etc/resolv.conf is the template's */
};
/* Makes directories and files of a new, empty area: uppers, work directories, /etc/hostname,
 * /etc/hosts and /etc/resolv.conf; and the exit record, opened for writing (the caller's). */
int mounts_prepare_area(const struct mounts *m, const struct ids *ids, uint32_t slot, int area_fd,
    const struct mounts_identity *identity, int *ret_exit_fd, struct av_err *err) AV_MUST_CHECK;
#define MOUNTS_EXIT_RECORD "exit" /* its name in the area */

/* Assembles the root file system at mounts_stage_path(): root and /usr overlays, /dev with nodes,
 * what is extra (read-only, nosuid, nodev, noexec, for good). */
int mounts_stage(
    struct mounts *m, const struct mounts_spec *spec, struct av_err *err) AV_MUST_CHECK;
/* Detaches and removes it; the sandbox has its copy by then. Nothing there is fine. */
void mounts_unstage(uint32_t stage);
#define MOUNTS_STAGE_SIZE 24
void mounts_stage_path(uint32_t stage, char path[static MOUNTS_STAGE_SIZE]);

/* Whether the uppers' file system and /usr can be idmapped: sets plain_lower and native_upper.
 * area_fd: any directory on the file system of the areas; usr_fd: the host's /usr or -1. */
int mounts_probe_idmap(struct mounts *m, int userns_fd, int area_fd, int usr_fd);
