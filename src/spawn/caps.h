/* SPDX-License-Identifier: Apache-2.0 */
/*
 * caps.h - what the privileged processes keep of root's power
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"

/* The worker as root: bounding, permitted and effective sets become what it needs. CAP_SYS_RESOURCE
 * is not among it (mounts.c says why). -errno. */
int caps_limit_worker(void) AV_MUST_CHECK;
/* Empties the bounding and ambient sets (needs CAP_SETPCAP); then the others. Between the two a
 * process changes its user. After both no exec gives anything back. -errno. */
int caps_drop_bounding(void) AV_MUST_CHECK;
int caps_clear(void) AV_MUST_CHECK;
