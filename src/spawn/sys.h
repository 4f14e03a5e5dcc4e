/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sys.h - system calls that glibc 2.36 does not wrap, and nothing else
 *
 * Each returns as the system call does: -1 with errno.
 */
#pragma once

#include <linux/sched.h>
#include <sys/syscall.h>
#include <unistd.h>

/* clone3(2). Without CLONE_VM it returns twice, as fork does; no atfork handlers run. */
static inline long sys_clone3(struct clone_args *args)
{
	return syscall(SYS_clone3, args, sizeof(*args));
}

/* pivot_root(2). */
static inline int sys_pivot_root(const char *new_root, const char *put_old)
{
	return (int)syscall(SYS_pivot_root, new_root, put_old);
}
