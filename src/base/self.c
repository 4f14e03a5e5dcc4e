/* SPDX-License-Identifier: Apache-2.0 */
/*
 * self.c - what this process uses of its machine (see self.h)
 */
#include "base/self.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/str.h"
#include "base/banned.h"

/* Field number `which` (proc(5), from 1) of /proc/self/stat; the name in the second field may hold
 * anything, so it is counted from its last parenthesis. */
static uint64_t stat_field(struct av_str stat, int which)
{
	const char *end = memrchr(stat.p, ')', stat.n);
	struct av_str rest, field = AV_STR("");
	uint64_t v = 0;

	if (!end || (size_t)(end - stat.p) + 2 > stat.n)
		return 0;
	rest = av_str_n(end + 2, stat.n - (size_t)(end - stat.p) - 2);
	for (int i = 3; i <= which; i++)
		if (!av_str_cut(&rest, ' ', &field) && i < which)
			return 0;
	return av_parse_u64(field, 0, UINT64_MAX, &v) < 0 ? 0 : v;
}

static uint64_t count_fds(int proc_fd)
{
	struct stat st;
	uint64_t n = 0;
	int fd = openat(proc_fd, "self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d;

	if (fd < 0)
		return 0;
	/* Since Linux 6.2 the directory's size is the number; this descriptor is one of them. */
	if (fstat(fd, &st) == 0 && st.st_size > 0) {
		(void)close(fd);
		return (uint64_t)st.st_size - 1;
	}
	d = fdopendir(fd);
	if (!d) {
		(void)close(fd);
		return 0;
	}
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n > 3 ? n - 3 : 0; /* ".", ".." and the directory itself */
}

static uint64_t usec(const struct timeval *t)
{
	return (uint64_t)t->tv_sec * 1000000 + (uint64_t)t->tv_usec;
}

void av_self_read(int proc_fd, struct av_self *ret)
{
	AV_CLEANUP(av_closep)
	int own = proc_fd < 0 ? open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	struct rlimit files;
	struct rusage use;
	char text[1024];
	ssize_t n;

	memset(ret, 0, sizeof(*ret));
	if (proc_fd < 0)
		proc_fd = own;
	n = proc_fd < 0 ? -1 : av_read_file_at(proc_fd, "self/stat", text, sizeof(text));
	if (n > 0) {
		struct av_str stat = av_str_n(text, (size_t)n);
		uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK);

		ret->threads = stat_field(stat, 20);
		ret->start_boot_ns =
		    (int64_t)(stat_field(stat, 22) * ((uint64_t)AV_NS_PER_S / (hz ? hz : 100)));
		ret->virtual_bytes = stat_field(stat, 23);
		ret->resident_bytes = stat_field(stat, 24) * (uint64_t)sysconf(_SC_PAGESIZE);
	}
	if (proc_fd >= 0)
		ret->open_fds = count_fds(proc_fd);
	/* The O_PATH descriptor above. */
	if (own >= 0 && ret->open_fds)
		ret->open_fds--;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0)
		ret->max_fds = files.rlim_cur;
	if (getrusage(RUSAGE_SELF, &use) == 0)
		ret->cpu_usec = usec(&use.ru_utime) + usec(&use.ru_stime);
}

int64_t av_self_start_ms(const struct av_self *s)
{
	return av_real_ms() - (av_boot_ns() - s->start_boot_ns) / AV_NS_PER_MS;
}
