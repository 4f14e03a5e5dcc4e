/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.h - what the worker needs for virtual machines: aviary-vm, QEMU on the host, /dev/kvm
 *
 * aviary-vm is loaded at start as the agent is. QEMU and the makers of file systems are the host's
 * own, below /usr, where the jails of virtual machines see them; whether they are there is looked
 * at each time that somebody asks, so that installing them needs no restart.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "spawn/options.h"
#include "spawn/vm_host.h"

#define VM_HASH_SIZE 32

struct vm_programs {
	int vm_fd;                    /* owned: the sealed aviary-vm; -1: there is none */
	int agent_fd;                 /* owned: the agent, for reading, or -1; jails get copies */
	uint8_t hash[VM_HASH_SIZE];   /* of both, and of the version */
	char missing[VM_REASON_SIZE]; /* why vm_fd is -1 */
};
#define VM_PROGRAMS_INIT ((struct vm_programs){.vm_fd = -1, .agent_fd = -1})

/* Loads aviary-vm in the host's mount namespace, with agent_fd as jail_load_program() gave it
 * (taken over). A missing one is no error: `missing` says so. */
int vm_programs_load(struct vm_programs *p, const struct spawn_options *o, int agent_fd,
    struct av_err *err) AV_MUST_CHECK;
void vm_programs_clear(struct vm_programs *p);

/* Whether a virtual machine can be made; else reason and cure. */
bool vm_possible(const struct vm_programs *p, char reason[static VM_REASON_SIZE]);
/* Of the programs and of what they use of the host now. */
void vm_environment(const struct vm_programs *p, uint8_t ret[static VM_HASH_SIZE]);
