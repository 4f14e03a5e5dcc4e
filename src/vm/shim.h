/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shim.h - the object that is preloaded into QEMU (shim/preload.c), embedded in this program
 *
 * What it is for: QEMU opens the file of memory-backend-file for writing even to map it privately
 * (until 8.1 always), which an overlay answers with a copy of the file; it punches holes into it
 * when the guest gives memory back; and it opens /dev/kvm by name. Within QEMU this object makes
 * the first read-only, the second nothing, and the third a duplicate of a descriptor.
 *
 * How to start QEMU with it: the descriptor of vm_shim_open() is inherited by QEMU under some
 * number N, and its environment has
 *
 *   LD_PRELOAD=/proc/self/fd/N
 *   AVIARY_VM_MEMORY=<path of the memory file, as in mem-path>     (not for a golden's boot, which
 *                                                                 writes to the file)
 *   AVIARY_VM_KVM=<number of the descriptor of /dev/kvm in QEMU>   (only with KVM)
 *
 * The object takes these three out of the environment.
 */
#pragma once

#include "base/err.h"
#include "base/macros.h"

#define VM_SHIM_ENV_MEMORY "AVIARY_VM_MEMORY"
#define VM_SHIM_ENV_KVM    "AVIARY_VM_KVM"

/* A sealed memory file with the object, O_CLOEXEC; the caller's. -errno with a sentence. */
int vm_shim_open(struct av_err *err) AV_MUST_CHECK;
