/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_kills.c - how many processes the guest's kernel has killed for memory
 *
 * /proc/vmstat counts them for the whole machine (oom_kill, since Linux 4.13), whichever limit was
 * the reason. Nobody inside can change it.
 */
#include <fcntl.h>
#include <unistd.h>

#include "agent/guest_internal.h"
#include "base/num.h"

#include "base/banned.h"

#define VMSTAT_MAX 16384 /* 190 lines, 5 KB in 6.1 */

void guest_kills_open(struct guest_kills *k)
{
	k->vmstat_fd = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
	k->before = 0;
}

static uint64_t value_of(struct av_str text, struct av_str name)
{
	struct av_str line, key;
	uint64_t n = 0;

	while (text.n) {
		av_str_cut(&text, '\n', &line);
		av_str_cut(&line, ' ', &key);
		if (av_str_eq(key, name) && av_parse_u64(line, 0, UINT64_MAX, &n) == 0)
			return n;
	}
	return 0;
}

static uint64_t total(const struct guest_kills *k)
{
	char text[VMSTAT_MAX];
	size_t n = 0;
	ssize_t r = 0;

	while (k->vmstat_fd >= 0 && n < sizeof(text) &&
	       (r = pread(k->vmstat_fd, text + n, sizeof(text) - n, (off_t)n)) > 0)
		n += (size_t)r;
	return value_of(av_str_n(text, n), AV_STR("oom_kill"));
}

uint32_t guest_kills(const struct guest_kills *k)
{
	uint64_t now = total(k), since = now > k->before ? now - k->before : 0;

	return since > UINT32_MAX ? UINT32_MAX : (uint32_t)since;
}

void guest_kills_forget(struct guest_kills *k)
{
	k->before = total(k);
}
