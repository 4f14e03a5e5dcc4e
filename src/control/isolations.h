/* SPDX-License-Identifier: Apache-2.0 */
/*
 * isolations.h - how sandboxes are kept apart here: which ways there are, and what each needs
 */
#pragma once

#include "control/sandbox.h"

#define CONTROL_ISOLATIONS_MAX 4
#define CONTROL_MAKINGS_MAX    32
/* The template that holds the kernel of virtual machines; an administrator's. */
#define CONTROL_VM_KERNEL "vm-kernel"
/* What a virtual machine is made of without a wish. */
#define CONTROL_VM_TEMPLATE "base"

struct control_isolation_info {
	const char *name; /* "jail", "vm" */
	bool available;   /* a create can succeed now, or when it is ready */
	bool ready;
	bool is_default; /* what a create without a wish gets */
	bool can_pause;
	bool saves_memory;   /* pauses and snapshots hold memory and processes, and free it */
	bool lacks_kernel;   /* template CONTROL_VM_KERNEL is not built */
	bool lacks_base;     /* template CONTROL_VM_TEMPLATE is not built */
	char accelerator[8]; /* "kvm", "tcg"; empty: it needs none, or that is not known yet */
	char reason[320];    /* why it is not available, or slower than it could be; or empty */
};
/* Returns how many; the default of the machine first. */
size_t control_isolations(
    const struct control *c, struct control_isolation_info v[static CONTROL_ISOLATIONS_MAX]);

/* What is made ahead of a first use, now. */
struct control_making {
	const char *template_name; /* borrowed from control; NULL: another team's */
	char stage[64];
	unsigned int percent;
	size_t waiting; /* requests that wait for it */
	int64_t since_ms;
};
/* Returns how many, at most CONTROL_MAKINGS_MAX. */
size_t control_makings(const struct control *c, const struct control_actor *a,
    struct control_making v[static CONTROL_MAKINGS_MAX]);

/* INVALID, naming those that there are. */
int control_isolation_check(const struct control *c, const char *name, struct av_err *err);
