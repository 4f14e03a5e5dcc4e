/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_copy.c - copying public files of the host into the skeleton, and nothing else
 */
#include "spawn/host_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/banned.h"

#define DEPTH_MAX 24
#define SCAN_MAX                                                                                   \
	(4 * AV_MIB) /* larger files of /etc are left out: they cannot be looked through           \
	              */
#define FILE_READ (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
#define DIR_READ  (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

int host_open(const struct host_gen *g, const char *path, int flags)
{
	struct open_how how = {
	    .flags = (uint64_t)(flags | O_CLOEXEC),
	    .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, g->host, path, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

int host_own(const struct host_gen *g, int fd, uid_t uid, gid_t gid, mode_t mode)
{
	if (!g->opt.rootless && fchown(fd, g->opt.id_shift + uid, g->opt.id_shift + gid) < 0)
		return -errno;
	return fchmod(fd, mode) < 0 ? -errno : 0;
}

int host_mkdir(const struct host_gen *g, const char *path, uid_t owner, mode_t mode)
{
	if (mkdirat(g->root, path, 0700) < 0 && errno != EEXIST)
		return -errno;
	AV_CLEANUP(av_closep) int fd = openat(g->root, path, DIR_READ);
	return fd < 0 ? -errno : host_own(g, fd, owner, owner, mode);
}

int host_write(
    const struct host_gen *g, const char *path, struct av_str text, gid_t group, mode_t mode)
{
	(void)unlinkat(g->root, path, 0);
	AV_CLEANUP(av_closep)
	int fd = openat(g->root, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int r = av_write_full(fd, text.p, text.n);
	return r < 0 ? r : host_own(g, fd, 0, group, mode);
}

int host_symlink(const struct host_gen *g, const char *target, const char *path)
{
	if (symlinkat(target, g->root, path) < 0 && errno != EEXIST)
		return -errno;
	if (!g->opt.rootless && g->opt.id_shift != 0 &&
	    fchownat(g->root, path, g->opt.id_shift, g->opt.id_shift, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

static bool url_has_user(struct av_str rest)
{
	for (size_t i = 0; i < rest.n && i < 512; i++) {
		char c = rest.p[i];
		if (c == '@')
			return i > 0;
		if (c <= ' ' || c == '/' || c == '"' || c == '\'' || c == '<' || c == '>')
			return false;
	}
	return false;
}

bool host_text_has_secret(struct av_str text)
{
	static const char key[] = "PRIVATE KEY-----";
	if (memmem(text.p, text.n, key, sizeof(key) - 1) != NULL)
		return true;
	while (text.n > 3) {
		const char *at = memmem(text.p, text.n, "://", 3);
		if (at == NULL)
			return false;
		text = av_str_n(at + 3, text.n - (size_t)(at + 3 - text.p));
		if (url_has_user(text))
			return true;
	}
	return false;
}

static int copy_bytes(int from, int to, uint64_t size)
{
	while (size > 0) {
		ssize_t n = copy_file_range(from, NULL, to, NULL, size, 0);
		if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP))
			break;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		size -= (uint64_t)n;
	}
	char buf[65536];
	while (size > 0) {
		ssize_t n = av_read_full(from, buf, AV_MIN(size, sizeof(buf)));
		if (n <= 0)
			return (int)n;
		int r = av_write_full(to, buf, (size_t)n);
		if (r < 0)
			return r;
		size -= (uint64_t)n;
	}
	return 0;
}

static int has_secret(int fd, uint64_t size)
{
	char *text = malloc(size + 1);
	if (text == NULL)
		return -ENOMEM;
	ssize_t n = pread(fd, text, size, 0);
	int r = n < 0 ? -errno : host_text_has_secret(av_str_n(text, (size_t)n));
	free(text);
	return r;
}

static int copy_open_file(
    const struct host_gen *g, int from, const struct stat *st, int to_dir, const char *to_name)
{
	AV_CLEANUP(av_closep)
	int to = openat(to_dir, to_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (to < 0)
		return errno == EEXIST ? 0 : -errno;
	int r = copy_bytes(from, to, (uint64_t)st->st_size);
	if (r == 0)
		r = host_own(g, to, 0, 0, st->st_mode & 0755);
	struct timespec times[2] = {st->st_mtim, st->st_mtim};
	(void)futimens(to, times);
	return r;
}

static int copy_file(const struct host_gen *g, int from_dir, const char *name, int to_dir)
{
	struct stat st;
	AV_CLEANUP(av_closep) int fd = openat(from_dir, name, FILE_READ);
	if (fd < 0 || fstat(fd, &st) < 0)
		return errno == EACCES || errno == ENOENT || errno == ELOOP ? 0 : -errno;
	if (!S_ISREG(st.st_mode) || !(st.st_mode & 0004) || st.st_size > SCAN_MAX)
		return 0;
	int r = has_secret(fd, (uint64_t)st.st_size);
	return r != 0 ? AV_MIN(r, 0) : copy_open_file(g, fd, &st, to_dir, name);
}

static int copy_link(const struct host_gen *g, int from_dir, const char *name, int to_dir)
{
	char target[AV_PATH_MAX + 1];
	ssize_t n = readlinkat(from_dir, name, target, sizeof(target) - 1);
	if (n < 0)
		return errno == ENOENT ? 0 : -errno;
	target[n] = 0;
	if (symlinkat(target, to_dir, name) < 0 && errno != EEXIST)
		return -errno;
	if (!g->opt.rootless && g->opt.id_shift != 0 &&
	    fchownat(to_dir, name, g->opt.id_shift, g->opt.id_shift, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

static int copy_any(
    const struct host_gen *g, int from_dir, const char *name, int to_dir, int depth);

static int copy_dir(const struct host_gen *g, int from_dir, const char *name, int to_dir, int depth)
{
	struct stat st;
	if (depth >= DEPTH_MAX)
		return -ELOOP;
	int from = openat(from_dir, name, DIR_READ);
	DIR *dir = from < 0 ? NULL : fdopendir(from);
	if (dir == NULL) {
		int e = errno;
		av_close_fd(&from);
		return e == EACCES || e == ENOENT ? 0 : -e;
	}
	AV_CLEANUP(av_closep) int to = -1;
	int r = fstat(from, &st) < 0 ? -errno : 0;
	/* Ends quietly at a directory that not everybody may list. */
	bool wanted = r == 0 && (st.st_mode & 0005) == 0005;
	if (wanted && mkdirat(to_dir, name, 0700) < 0 && errno != EEXIST)
		r = -errno;
	if (wanted && r == 0) {
		to = openat(to_dir, name, DIR_READ);
		r = to < 0 ? -errno : 0;
	}
	for (struct dirent *e; wanted && r == 0 && (e = readdir(dir)) != NULL;)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = copy_any(g, from, e->d_name, to, depth + 1);
	if (wanted && r == 0)
		r = host_own(g, to, 0, 0, st.st_mode & 0755);
	closedir(dir);
	return r;
}

static int copy_any(const struct host_gen *g, int from_dir, const char *name, int to_dir, int depth)
{
	struct stat st;
	if (fstatat(from_dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT || errno == EACCES ? 0 : -errno;
	if (S_ISREG(st.st_mode))
		return copy_file(g, from_dir, name, to_dir);
	if (S_ISLNK(st.st_mode))
		return copy_link(g, from_dir, name, to_dir);
	return S_ISDIR(st.st_mode) ? copy_dir(g, from_dir, name, to_dir, depth) : 0;
}

/* Directories that lead to path, as public ones of root's. */
static int make_parents(const struct host_gen *g, const char *path)
{
	char part[256];
	for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		struct stat st;
		int r = av_str_copy(part, sizeof(part), av_str_n(path, (size_t)(slash - path)));
		if (r == 0 && fstatat(g->root, part, &st, AT_SYMLINK_NOFOLLOW) < 0)
			r = host_mkdir(g, part, 0, 0755);
		if (r < 0)
			return r;
	}
	return 0;
}

int host_copy(const struct host_gen *g, const char *path)
{
	char parent[256], name[NAME_MAX + 1];
	struct av_str whole = av_str_c(path);
	if (av_str_copy(parent, sizeof(parent), av_path_dir(whole)) < 0 ||
	    av_str_copy(name, sizeof(name), av_path_base(whole)) < 0)
		return -ENAMETOOLONG;
	AV_CLEANUP(av_closep) int from = host_open(g, parent, O_RDONLY | O_DIRECTORY);
	struct stat st;
	if (from < 0 || fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	int r = make_parents(g, path);
	if (r < 0)
		return r;
	AV_CLEANUP(av_closep) int to = openat(g->root, parent, DIR_READ);
	return to < 0 ? -errno : copy_any(g, from, name, to, 0);
}

int host_copy_data(const struct host_gen *g, const char *from, const char *to)
{
	struct stat st;
	AV_CLEANUP(av_closep) int fd = host_open(g, from, O_RDONLY | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !(st.st_mode & 0004))
		return 0;
	int r = make_parents(g, to);
	return r < 0 ? r : copy_open_file(g, fd, &st, g->root, to);
}
