/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor_vm.h - what doctor says of virtual machines: whether they can be made, how fast they are
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "spawn/probe.h"

struct doctor_vm {
	bool available;
	const char *speed; /* "hardware", "emulated", "unknown", "" when there are none */
	char found[200];   /* how it is, and what it means for speed */
	char reason[300];  /* why it is not better; "" */
	char cure[200];    /* what to type; "" */
};

/* has_program: aviary-vm is there. isolations: the answer of a daemon to GET /v1/isolations, or
 * NULL. What a daemon knows counts more than what this process sees: it has tried. */
void doctor_vm_judge(
    struct doctor_vm *ret, const struct probe *p, bool has_program, const json_t *isolations);
