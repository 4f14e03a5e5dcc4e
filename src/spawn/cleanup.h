/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup.h - aviary-spawn --cleanup
 */
#pragma once

#include "spawn/options.h"

/* Kills the sandboxes of an instance whose supervisor is dead, removes cgroups and the run
 * directory and, with --all, the state directory. Refuses while the supervisor lives. Exit status.
 */
int cleanup_main(const struct spawn_options *o);
