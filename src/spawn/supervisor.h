/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervisor.h - the process that a user or systemd starts
 */
#pragma once

#include "spawn/options.h"

/* Runs until SIGTERM or SIGINT, or until aviaryd ends for good; returns the exit status. argv: its
 * own, of which the part before "--" is given to the worker. */
int supervisor_main(const struct spawn_options *o, char **argv);
