/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.h - the agent as the first process of a virtual machine
 *
 * Theory of operation. In a jail aviary-spawn has made everything ready before the agent begins. In
 * a virtual machine the kernel starts it as /init of the initramfs that src/vm/initrd.h describes,
 * and it does that itself (guest_boot): loads the modules, mounts the template's image (erofs,
 * read-only) with the writable disk (ext4) over it, enters that root, and mounts what a sandbox
 * expects. Then it is the same agent, but its connections come through virtio ports, and one more
 * port carries the messages of proto/guest.h (guest_open): stand still, be somebody else, go on.
 *
 * What users start is in a control group of its own, `box`, whose freezer makes it stand still. The
 * agent is outside of it. While it is frozen the agent reads no requests and starts nothing, since
 * it would wait for ever for a child that cannot run; so between a restore and THAW no instruction
 * of a user is executed, whatever comes first.
 *
 * Trust. The sandbox's root is root of this kernel, with all capabilities: it can break the agent,
 * its control groups and its network. That is its own loss: what must hold is outside of the
 * machine. Nothing here waits without an end for what users have in their hands.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "proto/agent_api.h"

struct agent;
struct guest;

/* PID 1 whose last argument is AV_GUEST_INIT_ARG. */
bool guest_wanted(int argc, char **argv);

/* From the initramfs to the root file system of the sandbox. Once, as the first thing of all: there
 * are no other threads and no event loop. Blocks for some 100 ms (emulated). Does not return on
 * failure: says on the console what failed and ends, which makes the kernel panic. */
struct guest *guest_boot(void);

/* Opens the ports; a->server and the loop must be there. From now on a->id is the guest's. */
int guest_open(struct guest *g, struct agent *a) AV_MUST_CHECK;

/* A child ended: before anybody else hears of that. */
void guest_reaped(struct guest *g, pid_t pid, int wait_status);

/* Sends an exit record outside, to be kept there. */
void guest_record(struct guest *g, const uint8_t record[static AV_EXIT_RECORD_SIZE]);

/* Switches the machine off, in a moment in which the last messages leave. Returns: the loop must
 * run on. */
void guest_power_off(struct guest *g);
