/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.h - the one virtual machine of this process, and what is done with it
 *
 * Theory of operation. A request of vm_wire.h is a plan: steps one after the other, each with a
 * name for people, a time limit and a place on the way from 0 to 100 percent. A step begins
 * something (a command to QEMU, a message to the guest, a child, work in a thread of the pool) and
 * its end begins the next one. The first failure ends the plan; what it has changed is undone by a
 * plan of its own, so that a machine whose save failed runs on, and one whose resume failed is
 * still paused. Two steps never run at once; a plan that failed waits for its work in the pool
 * first.
 *
 *   NEW --START image, golden--> MADE          RUNNING --PAUSE--> PAUSED --RESUME--> RUNNING
 *   NEW --START restore--------> RUNNING       RUNNING --SAVE---> RUNNING
 *   RUNNING --HOLD-> HELD --HAND_OVER--> RUNNING
 *   START failed: FAILED, which says why to whoever asks for more.
 *
 * QEMU's end outside of a plan is the machine's: on_gone, with a reason for the exit record. Within
 * one it fails the step under way.
 *
 * What is saved. /vm/saves/<n> is filled, and forced to disk where the machine stops living in
 * memory, before /vm/current names it by a rename. So a kill at any instruction leaves the save
 * that was there, or the new one. What a save is made of is checked before a guest runs on it.
 *
 * Users' processes in a guest stand still (FREEZE) before it is saved, and go on (THAW) only after
 * the guest has confirmed who it is: so nobody ever sees another one's identity, clock or random
 * numbers.
 *
 * All functions belong to the loop's thread and none blocks; callbacks may come from within a call.
 */
#pragma once

#include "proto/agent_api.h"
#include "vm/child.h"
#include "vm/vm_wire.h"

struct machine;

struct machine_options {
	const char *root; /* what stands before /vm, /template and /kernel in paths: "" in a jail */
	const char *qemu; /* program */
	int kvm_fd, agent_fd; /* -1: none */
	int listener;         /* of agent.sock */
};

struct machine_ops {
	void (*on_answer)(void *ctx, uint64_t client, const struct vm_reply *reply);
	/* The guest's agent told how it ended; to be kept as it is. */
	void (*on_record)(void *ctx, const uint8_t record[static AV_EXIT_RECORD_SIZE]);
	/* The machine has ended, and this process has nothing left to do. */
	void (*on_gone)(void *ctx, enum av_exit_reason reason, uint32_t code, const char *text);
};

/* options, ops and ctx are borrowed for good. */
int machine_new(struct children *children, const struct machine_options *options,
    const struct machine_ops *ops, void *ctx, struct machine **ret) AV_MUST_CHECK;
/* Answers by on_answer, once or after some VM_PROGRESS. */
void machine_request(struct machine *m, uint64_t client, const struct vm_request *q);
/* The guest is told to end, or, without one, it has ended: on_gone comes. */
void machine_stop(struct machine *m);
