/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup_cpuset.c - which CPUs a sandbox runs on
 */
#include "spawn/cgroup_internal.h"

#include <errno.h>
#include <stdio.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

#define LIST_SIZE 4096

unsigned int cgroup_cpus_count(const struct cgroup_cpus *s)
{
	unsigned int n = 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(s->bits); i++)
		n += (unsigned int)__builtin_popcountll(s->bits[i]);
	return n;
}

bool cgroup_cpus_parse(struct av_str list, struct cgroup_cpus *ret)
{
	struct cgroup_cpus s = {0};
	struct av_str range, from;
	uint64_t a, b;
	if (list.n > 0 && list.p[list.n - 1] == '\n')
		list.n--;
	while (list.n > 0) {
		av_str_cut(&list, ',', &range);
		bool one = !av_str_cut(&range, '-', &from);
		if (av_parse_u64(from, 0, CGROUP_CPUS_MAX - 1, &a) < 0 ||
		    av_parse_u64(one ? from : range, a, CGROUP_CPUS_MAX - 1, &b) < 0)
			return false;
		for (; a <= b; a++)
			cgroup_cpus_add(&s, (unsigned int)a);
	}
	*ret = s;
	return true;
}

/* "0-3,8" of the set. Length, or -ENAMETOOLONG. */
static int format(const struct cgroup_cpus *s, char *buf, size_t size)
{
	size_t n = 0;
	buf[0] = 0;
	for (unsigned int a = 0; a < CGROUP_CPUS_MAX; a++) {
		unsigned int b = a;
		if (!cgroup_cpus_has(s, a))
			continue;
		while (b + 1 < CGROUP_CPUS_MAX && cgroup_cpus_has(s, b + 1))
			b++;
		int k = a == b ? snprintf(buf + n, size - n, "%s%u", n ? "," : "", a)
		               : snprintf(buf + n, size - n, "%s%u-%u", n ? "," : "", a, b);
		n += (size_t)k;
		if (n >= size)
			return -ENAMETOOLONG;
		a = b;
	}
	return (int)n;
}

static bool read_set(int dirfd, const char *file, struct cgroup_cpus *ret)
{
	char buf[LIST_SIZE];
	ssize_t n = av_read_file_at(dirfd, file, buf, sizeof(buf));
	return n > 0 && cgroup_cpus_parse(av_str_n(buf, (size_t)n), ret) &&
	       cgroup_cpus_count(ret) > 0;
}

int cgroup_v1_cpuset_parent(const struct cgroup_tree *t)
{
	static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
	char buf[LIST_SIZE];
	for (size_t i = 0; i < AV_ARRAY_LEN(files); i++) {
		ssize_t n = av_read_file_at(t->base_fd, files[i], buf, sizeof(buf));
		if (n < 0)
			return (int)n;
		int r = av_write_file_at(t->parent_fd, files[i], av_str_n(buf, (size_t)n));
		if (r < 0)
			return r;
	}
	/* What is made below begins with the same, as without CPUs nothing may enter. */
	return av_write_file_at(t->parent_fd, "cgroup.clone_children", AV_STR("1"));
}

int cgroups_cpus(struct cgroups *cg, struct cgroup_cpus *ret)
{
	const struct cgroup_tree *t = cgroup_tree_with(cg, CTL_CPUSET);
	if (!t || cg->read_only || !(cg->caps & CGROUP_CAP_CPU_QUOTA))
		return -EOPNOTSUPP;
	return read_set(t->parent_fd, t->v2 ? "cpuset.cpus.effective" : "cpuset.cpus", ret)
	           ? 0
	           : -ENODATA;
}

int cgroups_set_cpus(struct cgroups *cg, const char *id, const struct cgroup_cpus *cpus)
{
	const struct cgroup_tree *t = cgroup_tree_with(cg, CTL_CPUSET);
	char path[CGROUP_ID_MAX + 48], list[LIST_SIZE];
	struct cgroup_cpus all;
	int n = 1;
	int r = t ? av_path_printf(path, sizeof(path), "%s/cpuset.cpus", id) : -EOPNOTSUPP;
	if (r < 0)
		return r;
	list[0] = '\n'; /* v2: whatever the parent has */
	if (!cpus && !t->v2) {
		r = cgroups_cpus(cg, &all);
		if (r < 0)
			return r;
		cpus = &all;
	}
	if (cpus)
		n = format(cpus, list, sizeof(list));
	return n < 0 ? n : av_write_file_at(t->parent_fd, path, av_str_n(list, (size_t)n));
}

uint32_t cgroups_cpu_limit(struct cgroups *cg, const char *id)
{
	const struct cgroup_tree *t = cgroup_tree_with(cg, CTL_CPU);
	uint64_t quota = 0, period = 0;
	if (t && t->v2) {
		char buf[64];
		struct av_str rest, word;
		ssize_t n = cgroup_read(t, id, "cpu.max", buf, sizeof(buf));
		if (n <= 1)
			return 0;
		rest = av_str_n(buf, (size_t)n - 1);
		if (!av_str_cut(&rest, ' ', &word) ||
		    av_parse_u64(word, 1, UINT32_MAX, &quota) < 0 ||
		    av_parse_u64(rest, 1, UINT32_MAX, &period) < 0)
			return 0;
	} else if (t) {
		quota = cgroup_read_u64(t, id, "cpu.cfs_quota_us"); /* -1: none, and no number */
		period = cgroup_read_u64(t, id, "cpu.cfs_period_us");
	}
	uint64_t milli = period ? quota * 1000 / period : 0;
	return milli < UINT32_MAX ? (uint32_t)milli : 0;
}
