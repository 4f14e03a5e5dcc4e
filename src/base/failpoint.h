/* SPDX-License-Identifier: Apache-2.0 */
/*
 * failpoint.h - places at which a test lets the process die, hang or fail
 *
 * AVIARY_FAILPOINT="name=action[,name=action...]" in the environment of the process; actions are
 * kill (SIGKILL to itself), stop (SIGSTOP), error (the call returns true), sleep:<ms>, each with an
 * optional "@N": only the N-th time the point is passed. Compiled out with -Dfailpoints=false.
 */
#pragma once

#include <stdbool.h>

#ifdef AVIARY_FAILPOINTS
/* True when the caller should behave as if the operation here had failed. */
bool av_failpoint(const char *name);
#else
static inline bool av_failpoint(const char *name)
{
	(void)name;
	return false;
}
#endif
