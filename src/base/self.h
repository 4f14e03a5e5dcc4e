/* SPDX-License-Identifier: Apache-2.0 */
/*
 * self.h - what this process uses of its machine, for /metrics
 */
#pragma once

#include <stdint.h>

struct av_self {
	uint64_t resident_bytes, virtual_bytes;
	uint64_t cpu_usec; /* user and system, of all threads */
	uint64_t threads;
	uint64_t open_fds, max_fds;
	int64_t start_boot_ns; /* CLOCK_BOOTTIME when it started */
};

/* proc_fd: a directory descriptor of a procfs in whose pid namespace this process is, or -1 for
 * /proc. What cannot be read is 0. Some small reads; before Linux 6.2 the descriptors are counted
 * one by one. Blocks no longer than that. */
void av_self_read(int proc_fd, struct av_self *ret);
/* When it started, milliseconds since 1970 by the clock of now: to be asked once and kept, as the
 * answer moves with the clock. */
int64_t av_self_start_ms(const struct av_self *s);
