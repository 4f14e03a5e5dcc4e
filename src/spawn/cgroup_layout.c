/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup_layout.c - reading what the kernel says about control groups; text in, structs out
 */
#include "spawn/cgroup_internal.h"

#include <errno.h>
#include <stdio.h>

#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

static const struct {
	const char *name;
	uint32_t ctl;
} controllers[] = {
    {"memory", CTL_MEMORY},
    {"pids", CTL_PIDS},
    {"cpu", CTL_CPU},
    {"cpuacct", CTL_CPUACCT},
    {"blkio", CTL_BLKIO},
    {"io", CTL_BLKIO},
    {"freezer", CTL_FREEZER},
    {"cpuset", CTL_CPUSET},
};

static uint32_t list_controllers(struct av_str list, char sep)
{
	uint32_t mask = 0;
	struct av_str word;
	do {
		av_str_cut(&list, sep, &word);
		for (size_t i = 0; i < AV_ARRAY_LEN(controllers); i++)
			if (av_str_eq_c(word, controllers[i].name))
				mask |= controllers[i].ctl;
	} while (list.n > 0);
	return mask;
}

uint32_t cgroup_v2_controllers(struct av_str list)
{
	if (list.n > 0 && list.p[list.n - 1] == '\n')
		list.n--;
	return list_controllers(list, ' ');
}

/* mountinfo writes space, tab, newline and backslash as \ooo. False when it does not fit. */
static bool unescape(struct av_str s, char *dst, size_t size)
{
	size_t n = 0;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (c == '\\' && i + 3 < s.n) {
			c = (char)((s.p[i + 1] - '0') << 6 | (s.p[i + 2] - '0') << 3 |
			           (s.p[i + 3] - '0'));
			i += 3;
		}
		if (n + 1 >= size)
			return false;
		dst[n++] = c;
	}
	dst[n] = 0;
	return true;
}

static void parse_line(struct av_str line, struct cgroup_layout *l)
{
	struct av_str f, root = {0}, point = {0}, type, super = {0};
	for (int i = 0; i < 5; i++) {
		if (!av_str_cut(&line, ' ', &f))
			return;
		if (i == 3)
			root = f;
		if (i == 4)
			point = f;
	}
	/* Mount options and any number of tags up to a single dash. */
	do {
		if (!av_str_cut(&line, ' ', &f))
			return;
	} while (!av_str_eq_c(f, "-"));
	av_str_cut(&line, ' ', &type);
	av_str_cut(&line, ' ', &f);
	av_str_cut(&line, ' ', &super);
	if (av_str_eq_c(type, "cgroup2")) {
		if (l->v2[0] == 0 && unescape(root, l->v2_root, sizeof(l->v2_root)) &&
		    !unescape(point, l->v2, sizeof(l->v2)))
			l->v2[0] = 0;
		return;
	}
	if (!av_str_eq_c(type, "cgroup") || l->n_v1 >= AV_ARRAY_LEN(l->v1))
		return;
	uint32_t mask = list_controllers(super, ',');
	for (size_t i = 0; i < l->n_v1; i++)
		mask &= ~l->v1[i].controllers;
	if (mask != 0 && unescape(point, l->v1[l->n_v1].path, sizeof(l->v1[0].path)))
		l->v1[l->n_v1++].controllers = mask;
}

void cgroup_layout_parse(struct av_str mountinfo, struct cgroup_layout *ret)
{
	struct av_str line;
	*ret = (struct cgroup_layout){0};
	while (mountinfo.n > 0) {
		av_str_cut(&mountinfo, '\n', &line);
		parse_line(line, ret);
	}
}

bool cgroup_v2_own_path(struct av_str proc_cgroup, struct av_str *ret_path)
{
	struct av_str line;
	while (proc_cgroup.n > 0) {
		av_str_cut(&proc_cgroup, '\n', &line);
		if (av_str_starts(line, AV_STR("0::"))) {
			*ret_path = av_str_n(line.p + 3, line.n - 3);
			return true;
		}
	}
	return false;
}

bool cgroup_own_path(struct av_str proc_cgroup, struct av_str *ret_path)
{
	struct av_str rest = proc_cgroup, line, field;
	if (cgroup_v2_own_path(proc_cgroup, ret_path))
		return true;
	while (rest.n > 0) {
		av_str_cut(&rest, '\n', &line);
		av_str_cut(&line, ':', &field);
		av_str_cut(&line, ':', &field);
		if (av_str_eq_c(field, "name=systemd")) {
			*ret_path = line;
			return true;
		}
	}
	return false;
}

bool cgroup_below_valid(const char *text)
{
	struct av_str s = av_str_c(text), part;
	if (av_str_starts(s, AV_STR("../")))
		s = av_str_n(s.p + 2, s.n - 2);
	if (s.n < 2 || s.n >= CGROUP_PATH_SIZE || s.p[0] != '/')
		return false;
	s = av_str_n(s.p + 1, s.n - 1);
	for (bool more = true; more;) {
		more = av_str_cut(&s, '/', &part);
		if (part.n == 0 || av_str_eq_c(part, ".") || av_str_eq_c(part, ".."))
			return false;
	}
	return true;
}

int cgroup_below_path(const char *below, struct av_str own, char *dst, size_t size)
{
	if (!cgroup_below_valid(below))
		return -EINVAL;
	if (below[0] == '/')
		return av_path_printf(dst, size, "%s", below);
	struct av_str dir = own.n > 1 ? av_path_dir(own) : own;
	if (dir.n == 1) /* "/" */
		dir.n = 0;
	return av_path_printf(dst, size, "%.*s%s", AV_STR_ARG(dir), below + 2);
}

uint64_t cgroup_flat_key(struct av_str text, const char *key)
{
	struct av_str line, name;
	uint64_t v;
	while (text.n > 0) {
		av_str_cut(&text, '\n', &line);
		if (av_str_cut(&line, ' ', &name) && av_str_eq_c(name, key) &&
		    av_parse_u64(line, 0, UINT64_MAX, &v) == 0)
			return v;
	}
	return 0;
}
