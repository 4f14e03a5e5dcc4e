/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits_files.h - /proc/meminfo, cpuinfo, stat and the list of CPUs as a sandbox's limits are
 *
 * Small files that do not change: the child binds them over the kernel's, so that programs that
 * size themselves by them (JVMs, build tools, `nproc`-likes) fit the sandbox. What is in use at the
 * moment is not in them; that is what the sandbox's cgroup and `aviary` tell.
 */
#pragma once

#include <stdint.h>

#include "base/macros.h"

struct mounts_limits;

/* Which of the files a sandbox with these limits needs: CHILD_LIMITS_* of child.h. */
uint32_t limits_files_needed(const struct mounts_limits *l);
/* Makes .meminfo, .cpuinfo, .stat and .online in the directory, as far as needed; some 10 us each.
 * -errno. */
int limits_files_write(int dirfd, const struct mounts_limits *l) AV_MUST_CHECK;
