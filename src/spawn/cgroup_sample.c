/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup_sample.c - reading memory and CPU time of a sandbox again and again, cheaply
 *
 * Theory of operation. Looking up a path in cgroupfs costs more than reading the number behind it:
 * so the two files stay open, and each sample is two pread(2). A file whose cgroup was removed
 * answers ENODEV, and an open descriptor does not keep the directory from being removed.
 */
#include "spawn/cgroup_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

#define TEXT_SIZE 512 /* usage_usec is the first line of cpu.stat */

static int open_file(const struct cgroup_tree *t, const char *id, const char *file)
{
	char path[CGROUP_ID_MAX + 48];
	int r = av_path_printf(path, sizeof(path), "%s/%s", id, file);
	if (r < 0)
		return r;
	int fd = openat(t->parent_fd, path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void open_reader(struct cgroups *cg, const char *id, struct cgroup_reader *rd)
{
	const struct cgroup_tree *memory = cgroup_tree_with(cg, CTL_MEMORY);
	const struct cgroup_tree *cpu = cgroup_tree_with(cg, CTL_CPUACCT);
	if (memory)
		rd->memory_fd =
		    open_file(memory, id, memory->v2 ? "memory.current" : "memory.usage_in_bytes");
	if (!cpu)
		cpu = cgroup_tree_v2(cg);
	if (!cpu)
		return;
	rd->cpu_is_v2 = cpu->v2;
	rd->cpu_fd = open_file(cpu, id, cpu->v2 ? "cpu.stat" : "cpuacct.usage");
}

void cgroup_reader_close(struct cgroup_reader *rd)
{
	av_close_fd(&rd->memory_fd);
	av_close_fd(&rd->cpu_fd);
	*rd = CGROUP_READER_INIT;
}

/* The text at the start of the file; false when it cannot be read. */
static bool read_text(int fd, char buf[static TEXT_SIZE], struct av_str *ret)
{
	ssize_t n = fd < 0 ? -1 : pread(fd, buf, TEXT_SIZE, 0);
	if (n <= 0)
		return false;
	if (buf[n - 1] == '\n')
		n--;
	*ret = av_str_n(buf, (size_t)n);
	return true;
}

int cgroups_sample(
    struct cgroups *cg, const char *id, struct cgroup_reader *rd, struct cgroup_sample *ret)
{
	struct cgroup_sample s = {0};
	char buf[TEXT_SIZE];
	struct av_str text;

	if (!rd->opened) {
		rd->opened = true;
		open_reader(cg, id, rd);
	}
	s.has_memory = read_text(rd->memory_fd, buf, &text) &&
	               av_parse_u64(text, 0, UINT64_MAX, &s.memory_bytes) == 0;
	if (read_text(rd->cpu_fd, buf, &text)) {
		if (rd->cpu_is_v2) {
			s.cpu_usec = cgroup_flat_key(text, "usage_usec");
			s.has_cpu = true;
		} else if (av_parse_u64(text, 0, UINT64_MAX, &s.cpu_usec) == 0) {
			s.cpu_usec /= 1000;
			s.has_cpu = true;
		}
	}
	*ret = s;
	return s.has_memory || s.has_cpu ? 0 : -ENODATA;
}
