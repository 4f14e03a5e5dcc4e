/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits_files.c - static files of /proc and /sys that agree with the limits
 */
#include "spawn/limits_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "spawn/child.h"
#include "spawn/mounts.h"
#include "base/banned.h"

#define FILE_MAX (256 * 1024)
#define CPUS_MAX 1024

static unsigned int cpus_of_host(void)
{
	int n = get_nprocs();
	return n > 0 ? (unsigned int)n : 1;
}

/* Whole CPUs that the quota amounts to, rounded up. */
static unsigned int cpus_shown(const struct mounts_limits *l)
{
	unsigned int n = l->cpu_milli / 1000 + (l->cpu_milli % 1000 != 0);
	return AV_MIN(n, (unsigned int)CPUS_MAX);
}

uint32_t limits_files_needed(const struct mounts_limits *l)
{
	uint32_t needed = 0;
	if (l->memory_bytes)
		needed |= CHILD_LIMITS_MEMORY;
	if (l->cpu_milli && cpus_shown(l) < cpus_of_host())
		needed |= CHILD_LIMITS_CPUS;
	return needed;
}

static int write_new(int dirfd, const char *name, const char *text, size_t n)
{
	AV_CLEANUP(av_closep)
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
	if (fd < 0)
		return -errno;
	return av_write_full(fd, text, n);
}

static int write_buf(int dirfd, const char *name, const struct av_buf *b)
{
	struct av_str s = av_buf_str(b);
	return av_buf_error(b) ? av_buf_error(b) : write_new(dirfd, name, s.p, s.n);
}

static int write_meminfo(int dirfd, uint64_t bytes)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(FILE_MAX);
	struct sysinfo si;
	if (sysinfo(&si) == 0)
		bytes = AV_MIN(bytes, (uint64_t)si.totalram * si.mem_unit);
	unsigned long long kib = bytes / AV_KIB;
	av_buf_printf(&b,
	    "MemTotal:       %8llu kB\nMemFree:        %8llu kB\n"
	    "MemAvailable:   %8llu kB\n",
	    kib, kib, kib);
	static const char *const zero[] = {"Buffers:", "Cached:", "SwapCached:", "Active:",
	    "Inactive:", "SwapTotal:", "SwapFree:", "Dirty:", "Writeback:", "AnonPages:", "Mapped:",
	    "Shmem:", "Slab:", "SReclaimable:", "SUnreclaim:"};
	for (size_t i = 0; i < AV_ARRAY_LEN(zero); i++)
		av_buf_printf(&b, "%-15s %8u kB\n", zero[i], 0);
	return write_buf(dirfd, ".meminfo", &b);
}

/* The host's description of its first n processors, in buf. */
static int read_cpuinfo(unsigned int n, char *buf, size_t size, size_t *ret_n)
{
	AV_CLEANUP(av_closep) int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t got = av_read_full(fd, buf, size);
	if (got < 0)
		return (int)got;
	size_t end = 0;
	for (size_t i = 0; i + 1 < (size_t)got && n > 0; i++)
		if (buf[i] == '\n' && buf[i + 1] == '\n') {
			end = i + 2;
			n--;
		}
	*ret_n = end ? end : (size_t)got;
	return 0;
}

/* Reading it makes the kernel ask every CPU for its frequency: once per number of processors. */
static int write_cpuinfo(int dirfd, unsigned int n)
{
	static char cached[FILE_MAX];
	static size_t cached_bytes;
	static unsigned int cached_n;
	if (cached_n != n) {
		int r = read_cpuinfo(n, cached, sizeof(cached), &cached_bytes);
		if (r < 0)
			return r;
		cached_n = n;
	}
	return write_new(dirfd, ".cpuinfo", cached, cached_bytes);
}

static int write_stat(int dirfd, unsigned int n)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(FILE_MAX);
	struct timespec real, boot;
	if (clock_gettime(CLOCK_REALTIME, &real) < 0 || clock_gettime(CLOCK_BOOTTIME, &boot) < 0)
		return -errno;
	av_buf_append_c(&b, "cpu  0 0 0 0 0 0 0 0 0 0\n");
	for (unsigned int i = 0; i < n; i++)
		av_buf_printf(&b, "cpu%u 0 0 0 0 0 0 0 0 0 0\n", i);
	av_buf_printf(&b,
	    "intr 0\nctxt 0\nbtime %lld\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n",
	    (long long)(real.tv_sec - boot.tv_sec));
	return write_buf(dirfd, ".stat", &b);
}

static int write_online(int dirfd, unsigned int n)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(64);
	if (n > 1)
		av_buf_printf(&b, "0-%u\n", n - 1);
	else
		av_buf_append_c(&b, "0\n");
	return write_buf(dirfd, ".online", &b);
}

int limits_files_write(int dirfd, const struct mounts_limits *l)
{
	uint32_t needed = limits_files_needed(l);
	int r = 0;
	if (needed & CHILD_LIMITS_MEMORY)
		r = write_meminfo(dirfd, l->memory_bytes);
	if (!(needed & CHILD_LIMITS_CPUS) || r < 0)
		return r;
	unsigned int n = cpus_shown(l);
	r = write_cpuinfo(dirfd, n);
	if (r == 0)
		r = write_stat(dirfd, n);
	return r < 0 ? r : write_online(dirfd, n);
}
