/* SPDX-License-Identifier: Apache-2.0 */
/*
 * making.h - what people see while the image of a virtual machine is made
 */
#pragma once

#include "cli/cli.h"

/* For cli->look: asks the daemon what it is making, and writes that into cli->looked. */
void making_look(struct cli *cli);
