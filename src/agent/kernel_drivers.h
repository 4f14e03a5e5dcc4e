/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_drivers.h - sources of the drivers (src/agent/kernels/), embedded by embed.py
 */
#pragma once

#include "base/str.h"

extern const struct av_str kernel_driver_python;
