/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shim_bytes.h - the preloaded object (shim/preload.c), made at build time; for shim.c
 */
#pragma once

#include <stddef.h>

extern const unsigned char vm_shim_bytes[];
extern const size_t vm_shim_size;
