/* SPDX-License-Identifier: Apache-2.0 */
/*
 * initrd.h - the first file system of a guest: the agent, and the modules that it loads
 *
 * A kernel is a directory with what its package holds: boot/vmlinuz-<release> and
 * lib/modules/<release>/ (or usr/lib/modules), its modules plain or compressed (.ko, .ko.xz,
 * .ko.zst, .ko.gz: by the program of that name on this machine). It comes from a template and
 * counts as hostile: no link leads out of it, every size is bounded, and what is read is checked.
 *
 * The file written is an uncompressed cpio archive ("newc"), the same bytes for the same input:
 *
 *   init           the agent; its argument "--guest" (AV_GUEST_INIT_ARG) comes from the kernel's
 *                  command line, behind "--"
 *   modules/<name> modules, decompressed
 *   modules/list   their names in the order in which they are to be loaded, one a line
 *
 * All functions block (some 100 ms) and may start a program; they are for a process without
 * threads.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"

#define INITRD_RELEASE_SIZE 64 /* of a kernel's release, with NUL */

/* What the guest's kernel has to be told, whatever the machine is; the console comes before it. */
#define INITRD_KERNEL_ARGS "quiet panic=-1 -- --guest"

struct initrd_info {
	char release[INITRD_RELEASE_SIZE];
	size_t modules; /* in the archive */
	uint64_t bytes; /* of the archive */
};

/* The release of the one kernel below kernel_fd; NOT_FOUND when there is none, INVALID when there
 * are several or its name is not one. */
int initrd_kernel_release(
    int kernel_fd, char ret[static INITRD_RELEASE_SIZE], struct av_err *err) AV_MUST_CHECK;

/* Opens boot/vmlinuz-<release> for reading; the caller's. NOT_FOUND; INVALID if it is no regular
 * file or larger than 256 MiB. */
int initrd_kernel_open(
    int kernel_fd, const char *release, int *ret_fd, struct av_err *err) AV_MUST_CHECK;

/* Writes the archive at the position of out_fd. agent_fd: the agent's binary, readable (its
 * position is not used); kernel_fd: the directory. Both stay the caller's. Errors name the module
 * and what is wrong with it; what was written by then is of no use. ret may be NULL. */
int initrd_write(int out_fd, int agent_fd, int kernel_fd, struct initrd_info *ret,
    struct av_err *err) AV_MUST_CHECK;
