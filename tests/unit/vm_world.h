/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_world.h - a worker and the aviary-vm of every sandbox, played by the test's own loop
 *
 * For test_node_vm.c, one world a process. What goes wrong here ends the test.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "net/loop.h"
#include "node/driver.h"
#include "spawn/wire.h"
#include "vm/vm_wire.h"

/* How the next machines behave when they are asked for `lie_op` (0: for anything). */
enum lie {
	HONEST,
	SILENT,
	SHORT_PACKET,
	LONG_PACKET,
	WRONG_SEQ,
	WRONG_OP,
	FLOOD, /* of progress, without an end */
	HANGS_UP,
	LATE,       /* resumes, and hangs up instead of saying so */
	REFUSES,    /* with an errno and dirty text */
	BAD_STATE,  /* in its status */
	BAD_MEMORY, /* another size than was asked for */
	NO_KVM,     /* golden machines fail on KVM */
	HOLDS,      /* progress once, then nothing until world_release */
};

struct world {
	struct av_loop *loop;
	char dir[32], path[64];
	/* the worker */
	uint32_t can;
	char layers[32][AV_ID_SIZE]; /* ids of templates of any kind; "": free */
	uint32_t list_error;
	uint32_t create_error; /* of the next create alone */
	uint32_t delete_error;
	int creates, destroys, snapshots, deletes, hellos;
	struct spawn_create last_create;
	struct spawn_template last_snapshot;
	bool hold_snapshots;
	/* the machines */
	enum lie lie;
	uint32_t lie_op;
	uint32_t adopted_state; /* of STATUS before any START; 0: NEW */
	int busy;               /* so many times STATUS says BUSY */
	int starts, images, goldens, restores, pauses, resumes, saves, drops, holds, takes;
	struct vm_start last_start;
	struct vm_identity last_identity;
};

extern struct world world;

void world_open(void);
void world_close(void);
/* The worker ends, and another takes its place. */
void world_new_worker(void);
/* What HOLDS or hold_snapshots kept goes on. */
void world_release(void);
/* A jail with a machine that an earlier daemon made. */
void world_put(const char *id);
bool world_has(const char *id);
bool world_has_layer(const char *id);
int world_jails(void);
void run_for(int64_t ms);
/* At most 5 s. */
bool run_until(bool (*done)(const void *p), const void *p);
