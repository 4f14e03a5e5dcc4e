/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sweeper.h - a process that lets mounts go, so that the worker need not wait for it
 *
 * Whoever drops the last reference to a mount waits for a grace period of the kernel: 50 us on an
 * idle machine, milliseconds on a busy one, several times per create. The sweeper is a fork of the
 * worker in the same mount namespace that receives descriptors and closes them, and unmounts
 * stages. It ends with the worker; without it the worker does the same itself.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"

struct sweeper {
	int sock; /* owned; -1: none */
};

/* After the worker entered its mount namespace, before it holds sandboxes. */
int sweeper_start(struct sweeper *s) AV_MUST_CHECK;
void sweeper_stop(struct sweeper *s);
/* Takes over and closes n descriptors. */
void sweeper_close(struct sweeper *s, int *fds, size_t n);
/* Unmounts and removes the stage of that number (mounts.h). */
/* net_forget(), together with what else comes within a second. */
void sweeper_forget(struct sweeper *s, uint32_t address);
void sweeper_unstage(struct sweeper *s, uint32_t stage);
