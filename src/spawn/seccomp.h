/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seccomp.h - the system call filters of jails
 *
 * An allow-list made at build time (gen_seccomp.c): no library and no parsing at run time. What it
 * answers: allowed calls pass; refused ones EPERM; clone3 and numbers it does not know ENOSYS, as
 * programs then fall back; other ABIs (32-bit, x32) ENOSYS; socket families EAFNOSUPPORT.
 */
#pragma once

#include <linux/filter.h>
#include <stddef.h>

#include "base/macros.h"

/* Loads the filter into the calling thread, for good and for all its descendants. Needs either
 * no_new_privs or CAP_SYS_ADMIN in the caller's user namespace, so it goes before that capability
 * leaves. 0 or -errno. Async-signal-safe: may run in a child of a raw clone. */
int seccomp_filter_load(void) AV_MUST_CHECK;
/* The narrower one of a jail around a virtual machine, in the same way. */
int seccomp_vm_filter_load(void) AV_MUST_CHECK;
/* The program itself, of static storage. */
const struct sock_filter *seccomp_filter(size_t *ret_len);
