/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_child.h - internet access of sandboxes: what the child does in its own network namespace
 *
 * Called between clone and exec, while the child still has all capabilities over its namespace;
 * afterwards nobody inside has CAP_NET_ADMIN, so that what is set here stays.
 */
#pragma once

#include <stdint.h>

#include "base/macros.h"
#include "spawn/net_rules.h"

/* Loads the rules, before there is an interface that they are about. -errno. */
int net_child_rules(const struct net_rules_sandbox *rules) AV_MUST_CHECK;
/* Gives the interface its address and route and brings it up. -errno; -ENODEV when it does not
 * appear within 5 s (root's is there already; pasta's comes when pasta is ready). */
int net_child_up(uint32_t address) AV_MUST_CHECK;
