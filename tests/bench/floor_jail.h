/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor_jail.h - the pieces of the floor of a jail
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define FLOOR_ID_BASE  0x71000000u /* beside the ranges that Aviary uses */
#define FLOOR_ID_COUNT 65536u
#define FLOOR_STAGE    "/stage" /* + number, in the private tree */

/* What floors share: descriptors of the private tree. */
struct floor_tree {
	int usr;   /* /usr of the machine */
	int mask;  /* an empty layer above it, where a template hides files */
	int root;  /* lower layer of the root */
	int names; /* directory of one-letter mount points, for kernels without layer descriptors */
	bool by_name;
};

/* Enters a private mount namespace whose root holds little: /usr, /proc, /sys, /dev, /state (which
 * is dir), /stage, /disk. Exits with a message on failure, as everything here does. */
void floor_tree_enter(struct floor_tree *t, const char *dir);

/* Mounts the root of one jail at FLOOR_STAGE<n>: two overlays over upper directories in area, whose
 * ids are mapped by userns_fd, and a /dev with nodes. */
void floor_tree_stage(const struct floor_tree *t, unsigned int n, int area, int userns_fd);
void floor_tree_unstage(unsigned int n);

/* Effective ids of the jail's range, and back. */
void floor_ids_enter(unsigned int n);
void floor_ids_leave(void);

/* The cloned child: never returns. Says one byte on out when its program runs. */
_Noreturn void floor_child_main(unsigned int n, int sock, int program, int out);

/* Prints what failed with errno and exits with status 1. */
_Noreturn void floor_die(const char *what);
