/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.c - GET /metrics: processor, memory and disk of the sandbox
 *
 * A sandbox sees its own cgroup read-only at /sys/fs/cgroup where that is v2, its controllers below
 * it where they are v1, or nothing; then /proc is asked, which the jail makes agree with the
 * limits.
 */
#include "agent/metrics.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/handlers.h"
#include "base/avtime.h"
#include "base/fd.h"
#include "base/num.h"

#include "base/banned.h"

#define CGROUP "/sys/fs/cgroup"

/* The number a file consists of. */
static bool read_number(const char *path, uint64_t *ret)
{
	char text[64];
	ssize_t n = av_read_file_at(AT_FDCWD, path, text, sizeof(text));

	while (n > 0 && text[n - 1] == '\n')
		n--;
	return n > 0 && av_parse_u64(av_str_n(text, (size_t)n), 0, UINT64_MAX, ret) == 0;
}

/* The first number behind "key" at the start of a line of a file such as memory.stat or meminfo. */
static bool read_field(const char *path, const char *key, uint64_t *ret)
{
	char text[8192];
	ssize_t n = av_read_file_at(AT_FDCWD, path, text, sizeof(text));
	struct av_str rest = av_str_n(text, n > 0 ? (size_t)n : 0), want = av_str_c(key);

	for (bool more = rest.n > 0; more;) {
		struct av_str line, number;

		more = av_str_cut(&rest, '\n', &line);
		if (!av_str_starts(line, want))
			continue;
		line = av_str_trim(av_str_n(line.p + want.n, line.n - want.n));
		av_str_cut(&line, ' ', &number);
		if (av_parse_u64(number, 0, UINT64_MAX, ret) == 0)
			return true;
	}
	return false;
}

uint64_t metrics_memory_total(void)
{
	uint64_t kib = 0, total, limit;

	read_field("/proc/meminfo", "MemTotal:", &kib);
	total = kib * 1024;
	if (!read_number(CGROUP "/memory.max", &limit) &&
	    !read_number(CGROUP "/memory/memory.limit_in_bytes", &limit))
		return total;
	/* v1 says "no limit" with a number near 2^63. */
	return total == 0 || limit < total ? limit : total;
}

static void memory_use(uint64_t total, uint64_t *ret_used, uint64_t *ret_cache)
{
	uint64_t used, cache = 0, available = 0;

	if (read_number(CGROUP "/memory.current", &used)) {
		read_field(CGROUP "/memory.stat", "file ", &cache);
	} else if (read_number(CGROUP "/memory/memory.usage_in_bytes", &used)) {
		read_field(CGROUP "/memory/memory.stat", "total_cache ", &cache);
	} else {
		read_field("/proc/meminfo", "MemAvailable:", &available);
		read_field("/proc/meminfo", "Cached:", &cache);
		cache *= 1024;
		available *= 1024;
		*ret_used = total > available ? total - available : 0;
		*ret_cache = cache;
		return;
	}
	*ret_used = used > cache ? used - cache : 0;
	*ret_cache = cache;
}

/* Processors the sandbox may use, in thousandths. */
static uint64_t cpu_milli(void)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t milli = online > 0 ? (uint64_t)online * 1000 : 1000, quota = 0, period = 0;
	char text[64];
	ssize_t n = av_read_file_at(AT_FDCWD, CGROUP "/cpu.max", text, sizeof(text));
	struct av_str rest = av_str_n(text, n > 0 ? (size_t)n : 0), head;

	while (rest.n && rest.p[rest.n - 1] == '\n')
		rest.n--;
	av_str_cut(&rest, ' ', &head);
	if (av_parse_u64(head, 1, UINT32_MAX, &quota) < 0 ||
	    av_parse_u64(rest, 1, UINT32_MAX, &period) < 0) {
		if (!read_number(CGROUP "/cpu/cpu.cfs_quota_us", &quota) ||
		    !read_number(CGROUP "/cpu/cpu.cfs_period_us", &period) || period == 0)
			return milli;
	}
	quota = quota * 1000 / period;
	return quota && quota < milli ? quota : milli;
}

/* Processor time used so far by the sandbox, microseconds. */
static bool cpu_usage(uint64_t *ret_usec)
{
	uint64_t ns;

	if (read_field(CGROUP "/cpu.stat", "usage_usec ", ret_usec))
		return true;
	if (!read_number(CGROUP "/cpuacct/cpuacct.usage", &ns) &&
	    !read_number(CGROUP "/cpu/cpuacct.usage", &ns))
		return false;
	*ret_usec = ns / 1000;
	return true;
}

/* Share of all its processors used since the last call, in hundredths of a per cent. */
static uint64_t cpu_used(struct agent *a, uint64_t milli)
{
	uint64_t usec = 0, used = 0;
	int64_t now = av_mono_ns(), passed;

	if (!cpu_usage(&usec))
		return 0;
	passed = now - a->cpu_seen_ns;
	if (a->cpu_seen_ns && passed > 0 && usec > a->cpu_seen_usec && milli)
		used = (uint64_t)((double)(usec - a->cpu_seen_usec) * 1e3 / (double)passed * 1e4 /
		                  ((double)milli / 1e3));
	a->cpu_seen_usec = usec;
	a->cpu_seen_ns = now;
	return used < 10000 ? used : 10000;
}

void system_metrics(struct request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);
	uint64_t total = metrics_memory_total(), used, cache, milli = cpu_milli(), pct;
	uint64_t disk_total = 0, disk_used = 0;
	struct statvfs fs;

	memory_use(total, &used, &cache);
	pct = cpu_used(rq->agent, milli);
	if (statvfs("/", &fs) == 0) {
		disk_total = (uint64_t)fs.f_blocks * fs.f_frsize;
		disk_used = (uint64_t)(fs.f_blocks - fs.f_bfree) * fs.f_frsize;
	}
	av_buf_printf(&out, "{\"ts\":%lld,\"cpu_count\":%llu,\"cpu_used_pct\":%llu.%02llu,",
	    (long long)(av_real_ms() / 1000), (unsigned long long)((milli + 999) / 1000),
	    (unsigned long long)(pct / 100), (unsigned long long)(pct % 100));
	av_buf_printf(&out,
	    "\"mem_total_mib\":%llu,\"mem_used_mib\":%llu,\"mem_total\":%llu,"
	    "\"mem_used\":%llu,\"mem_cache\":%llu,",
	    (unsigned long long)(total / AV_MIB), (unsigned long long)(used / AV_MIB),
	    (unsigned long long)total, (unsigned long long)used, (unsigned long long)cache);
	av_buf_printf(&out,
	    "\"disk_used\":%llu,\"disk_total\":%llu,\"processes\":%zu,"
	    "\"processes_started\":%llu}",
	    (unsigned long long)disk_used, (unsigned long long)disk_total,
	    rq->agent->processes.nlive, (unsigned long long)rq->agent->processes.started);
	request_reply(rq, 200, AV_AGENT_CT_JSON, av_buf_str(&out));
}
