/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.h - keeps the agent small: how the allocator behaves, and giving memory back after work
 */
#pragma once

#include "agent/agent.h"

/* First thing in main. */
void memory_configure(void);
/* Once the loop is there. */
void memory_init(struct agent *a);
/* Gives free memory back to the kernel a little later; call when something large has ended. */
void memory_trim_later(struct agent *a);
