/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.h - the driver for virtual machines: jails of aviary-spawn in which aviary-vm runs one
 */
#pragma once

#include "base/err.h"
#include "node/driver.h"

struct av_loop;

/* Machines that stand still and are kept to start others from, if nothing else is said. */
#define VM_GOLDENS_DEFAULT 16

struct vm_config {
	struct av_loop *loop;
	const char *spawn_socket; /* the worker's seqpacket socket */
	const char *run_dir;      /* <run_dir>/<id>/vm.sock and agent.sock are a sandbox's */
	unsigned int goldens_max; /* 0: VM_GOLDENS_DEFAULT */
	/* How long a machine may say nothing while it is asked for something; 0: 20 s. It sends
	 * progress every few seconds. */
	uint32_t silence_ms;
};

/* Begins to connect, and goes on trying until closed by its close function, which also frees it.
 * Strings are copied. Whether the machine can have virtual machines its about() says. */
int vm_driver_new(const struct vm_config *config, struct driver **ret, struct av_err *err);
