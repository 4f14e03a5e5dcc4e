/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup_find.c - where in the v2 tree an instance has its parent
 */
#include "spawn/cgroup_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/banned.h"

#define DEPTH_MAX      10
#define MOUNTINFO_SIZE ((size_t)1 << 20)

struct walk {
	char parent[32];
	int (*on_path)(void *ctx, const char *path);
	void *ctx;
};

/* Takes fd over. A directory that goes meanwhile is no error. */
static int look_into(const struct walk *w, int fd, const char *path, int depth)
{
	char below[CGROUP_PATH_SIZE];
	struct stat st;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	int r = 0;
	if (!dir) {
		av_close_fd(&fd);
		return 0;
	}
	if (path[0] && fstatat(dirfd(dir), w->parent, &st, AT_SYMLINK_NOFOLLOW) == 0)
		r = w->on_path(w->ctx, path);
	for (struct dirent *e; r == 0 && depth < DEPTH_MAX && (e = readdir(dir)) != NULL;)
		if (e->d_type == DT_DIR && strcmp(e->d_name, ".") != 0 &&
		    strcmp(e->d_name, "..") != 0 && strcmp(e->d_name, w->parent) != 0 &&
		    av_path_printf(below, sizeof(below), "%s/%s", path, e->d_name) == 0)
			r = look_into(w,
			    openat(dirfd(dir), e->d_name,
			        O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
			    below, depth + 1);
	closedir(dir);
	return r;
}

int cgroups_find(const char *tag, int (*on_path)(void *ctx, const char *path), void *ctx)
{
	struct walk w = {.on_path = on_path, .ctx = ctx};
	struct cgroup_layout *l = calloc(1, sizeof(*l));
	char *text = malloc(MOUNTINFO_SIZE);
	int r = l && text ? 0 : -ENOMEM;
	(void)snprintf(w.parent, sizeof(w.parent), "aviary-%s", tag);
	if (r == 0) {
		ssize_t n = av_read_file_at(AT_FDCWD, "/proc/self/mountinfo", text, MOUNTINFO_SIZE);
		cgroup_layout_parse(av_str_n(text, n < 0 ? 0 : (size_t)n), l);
	}
	/* Of a part of the tree (a container's) the paths would be others. */
	if (r == 0 && l->v2[0] && strcmp(l->v2_root, "/") == 0)
		r = look_into(&w, open(l->v2, O_RDONLY | O_DIRECTORY | O_CLOEXEC), "", 0);
	free(text);
	free(l);
	return r;
}
