/* SPDX-License-Identifier: Apache-2.0 */
/*
 * local.h - what this machine is, for its record among the hosts
 */
#pragma once

#include <stdint.h>

#include "control/control.h"

/* Processors that may be used, memory, and the size of the disk that holds the state directory.
 * What cannot be found out is left 0. A few small reads. */
void daemon_local_facts(const char *state_dir, struct control_local *ret);
/* "ip:port" where others would reach what listens on host: for a wildcard, the first address of
 * this machine that is not its loopback. */
void daemon_local_address(const char *host, uint16_t port, char *dst, size_t size);
