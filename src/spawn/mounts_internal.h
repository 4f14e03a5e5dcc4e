/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mounts_internal.h - shared by mounts.c and mounts_overlay.c
 */
#pragma once

#include "base/macros.h"
#include "spawn/mounts.h"

/* One letter each: the kernels that need them take options of 255 bytes. `u` is the upper. */
extern const char mounts_layer_names[MOUNTS_LAYERS_MAX + 1];

/* A clone of a directory, idmapped to the sandbox's range when userns_fd >= 0. -errno. */
int mounts_clone_layer(int dirfd, const char *path, int userns_fd, bool read_only);

/* Where what can be written lies. */
struct mounts_upper {
	int mnt;
	const char *name; /* its directories <name> and <name>-work */
};

/* An overlay for the sandbox, detached; *ret_fd is the caller's. upper NULL: read-only, nosuid,
 * noexec. Clones that are of no more use are spent (mounts.h). */
int mounts_build_overlay(struct mounts *m, const struct mounts_spec *spec,
    const struct mounts_layers *layers, const struct mounts_upper *upper,
    int *ret_fd) AV_MUST_CHECK;
void mounts_spend(struct mounts *m, const int *fds, size_t n);
