/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_keep.h - keeps rootless sandboxes connected: pasta is started, watched and started again
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macros.h"
#include "spawn/chore.h"
#include "spawn/loop.h"
#include "spawn/net_pasta.h"

struct sandbox;

/* Part of struct sandbox. */
struct net_keep {
	int pidfd; /* owned: of pasta; -1: none runs, or none is needed */
	struct loop_source death;
	struct loop_timer retry;
	bool found; /* made by an earlier worker: it can be ended, but not started again */
	int64_t pause_ns, started_ns;
	struct chore up; /* brings the interface up */
};

void net_keep_init(struct sandbox *s);
/* Create: starts pasta for the namespaces of process pid. The child waits for the interface. */
int net_keep_start(struct sandbox *s, pid_t pid, struct av_err *err) AV_MUST_CHECK;
/* A sandbox that an earlier worker made: finds its pasta, if it has one. */
void net_keep_recover(struct sandbox *s);
/* Kills it for good; nothing to kill is fine. */
void net_keep_end(struct sandbox *s);
/* Forgets it; pasta lives on. */
void net_keep_clear(struct sandbox *s);
