/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unpack.c - a hostile tar archive made into files below one directory, blocking
 */
#include "tree/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

#include "base/banned.h"

#define TRIES       8 /* against somebody who makes again what we unlink, or renames */
#define SETTLE_MANY 1024

/* What is kept for later, behind the path and its NUL; read from the end. */
struct later {
	uint32_t path_n;
	uint32_t mode;
	int64_t mtime;
};

/* --- names --- */

static int refuse(struct unpack *u, const char *name, const char *why)
{
	return av_err_set(
	    u->err, AV_ERR_INVALID, "tar entry %" PRIu64 " '%.200s' %s", u->entries + 1, name, why);
}

/* "./a//b/." to "a/b"; "" is the directory itself. */
static int clean(struct unpack *u, const char *name, char dst[static AV_PATH_MAX + 1])
{
	struct av_str rest = av_str_c(name), part;
	size_t n = 0;

	if (name[0] == '/')
		return refuse(u, name, "is absolute; names must be relative to the directory");
	for (bool more = true; more;) {
		more = av_str_cut(&rest, '/', &part);
		if (part.n == 0 || av_str_eq_c(part, "."))
			continue;
		if (av_str_eq_c(part, ".."))
			return refuse(
			    u, name, "has \"..\" in it, which could lead out of the directory");
		if (part.n > AV_NAME_MAX)
			return refuse(u, name, "has a part over 255 bytes");
		if (n)
			dst[n++] = '/';
		memcpy(dst + n, part.p, part.n);
		n += part.n;
	}
	dst[n] = '\0';
	return 0;
}

static int explain(struct unpack *u, int error, const char *name)
{
	if (error == -EXDEV || error == -ELOOP)
		return refuse(u, name, "goes through a link that leads out of the directory");
	if (error == -EISDIR || error == -ENOTEMPTY)
		return refuse(u, name, "is not a directory, but one stands in its place");
	(void)u->o.explain(error, name, u->err);
	av_err_prefix(u->err, "tar entry %" PRIu64, u->entries + 1);
	return error;
}

/* --- directories --- */

/* Without openat2 (a filter that does not know it, a kernel before 5.6): part by part, and no link
 * is gone through at all. */
static int open_part_by_part(const struct unpack *u, struct av_str path, int flags)
{
	AV_CLEANUP(av_closep)
	int fd = openat(u->dest, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char part[AV_NAME_MAX + 1];
	int error = fd < 0 ? errno : 0;
	struct av_str name;
	struct stat st;

	while (fd >= 0 && path.n) {
		int at = AV_TAKE_FD(fd);

		(void)av_str_cut(&path, '/', &name);
		if (av_str_copy(part, sizeof(part), name) < 0) {
			close(at);
			return -ENAMETOOLONG;
		}
		fd = openat(at, part, flags | O_NOFOLLOW | O_CLOEXEC);
		error = fd < 0 ? errno : 0;
		if (error == ENOTDIR && fstatat(at, part, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISLNK(st.st_mode))
			error = ELOOP;
		close(at);
	}
	return error ? -error : AV_TAKE_FD(fd);
}

/* flags: O_PATH and O_DIRECTORY, with or without O_NOFOLLOW. */
static int open_beneath(const struct unpack *u, const char *path, int flags)
{
	struct open_how how = {
	    .flags = (uint64_t)(unsigned int)(flags | O_CLOEXEC),
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	long fd = -1;

	/* EAGAIN: something was renamed meanwhile, and the kernel cannot be sure. */
	for (int i = 0; i < TRIES; i++) {
		fd = syscall(SYS_openat2, u->dest, path[0] ? path : ".", &how, sizeof(how));
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		return open_part_by_part(u, av_str_c(path), flags);
	return fd < 0 ? -errno : (int)fd;
}

/* Opens the directory that an entry stands in, making what is missing on the way. */
static int open_parent(const struct unpack *u, const char *path, bool make)
{
	AV_CLEANUP(av_closep) int fd = open_beneath(u, path, O_PATH | O_DIRECTORY);
	char part[AV_PATH_MAX + 1];
	size_t n = 0;

	if (fd != -ENOENT || !make) {
		int r = fd;

		fd = -1;
		return r;
	}
	while (path[n]) {
		int at = open_beneath(u, "", O_PATH | O_DIRECTORY);
		size_t begin = n ? n + 1 : 0;

		if (n) {
			memcpy(part, path, n);
			part[n] = '\0';
			av_close_fd(&at);
			at = open_beneath(u, part, O_PATH | O_DIRECTORY);
		}
		if (at < 0)
			return at;
		n = begin + strcspn(path + begin, "/");
		memcpy(part, path + begin, n - begin);
		part[n - begin] = '\0';
		if (mkdirat(at, part, 0755) < 0 && errno != EEXIST) {
			int r = -errno;

			close(at);
			return r;
		}
		close(at);
	}
	return open_beneath(u, path, O_PATH | O_DIRECTORY);
}

/* The directory of u->name; *ret_base points into it. Most entries follow one of the same
 * directory. */
static int find_parent(struct unpack *u, const char **ret_base)
{
	const char *slash = strrchr(u->name, '/');
	struct av_str dir = av_str_n(u->name, slash ? (size_t)(slash - u->name) : 0);
	int fd;

	*ret_base = slash ? slash + 1 : u->name;
	if (u->parent >= 0 && av_str_eq_c(dir, u->parent_path))
		return 0;
	av_close_fd(&u->parent);
	if (av_str_copy(u->parent_path, sizeof(u->parent_path), dir) < 0)
		return -ENAMETOOLONG;
	fd = open_parent(u, u->parent_path, true);
	if (fd < 0)
		return fd;
	u->parent = fd;
	return 0;
}

/* --- entries --- */

static int make_file(struct unpack *u, const char *base)
{
	for (int i = 0; i < TRIES; i++) {
		int fd = openat(u->parent, base,
		    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);

		if (fd >= 0) {
			u->file = fd;
			return 0;
		}
		if (errno != EEXIST || (unlinkat(u->parent, base, 0) < 0 && errno != ENOENT))
			return -errno;
	}
	return -EEXIST;
}

static int make_symlink(struct unpack *u, const char *base, const char *target)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = u->mtime}};

	for (int i = 0; i < TRIES; i++) {
		if (symlinkat(target, u->parent, base) == 0) {
			/* Not all file systems keep it, and nothing depends on it. */
			(void)!utimensat(u->parent, base, times, AT_SYMLINK_NOFOLLOW);
			return 0;
		}
		if (errno != EEXIST || (unlinkat(u->parent, base, 0) < 0 && errno != ENOENT))
			return -errno;
	}
	return -EEXIST;
}

static int make_hardlink(struct unpack *u, const char *base, const char *target)
{
	AV_CLEANUP(av_closep) int dir = -1;
	char path[AV_PATH_MAX + 1], *slash;
	int r = clean(u, target, path);

	if (r < 0)
		return r;
	if (strcmp(path, u->name) == 0)
		return refuse(u, u->name, "is a hard link to itself");
	slash = strrchr(path, '/');
	if (slash)
		*slash = '\0';
	dir = open_parent(u, slash ? path : "", false);
	if (dir < 0)
		return explain(u, dir, target);
	for (int i = 0; i < TRIES; i++) {
		/* Without AT_SYMLINK_FOLLOW: a link that stands there is linked itself. */
		if (linkat(dir, slash ? slash + 1 : path, u->parent, base, 0) == 0)
			return 0;
		if (errno == ENOENT)
			return explain(u, -errno, target);
		if (errno != EEXIST || (unlinkat(u->parent, base, 0) < 0 && errno != ENOENT))
			return explain(u, -errno, u->name);
	}
	return explain(u, -EEXIST, u->name);
}

static void set_dir(const struct unpack *u, const char *path, uint32_t mode, int64_t mtime)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = mtime}};
	AV_CLEANUP(av_closep) int fd = open_beneath(u, path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
	char name[32];

	/* It was renamed or is not ours: what it holds is there all the same. */
	if (fd < 0 || av_path_printf(name, sizeof(name), "/proc/self/fd/%d", fd) < 0 ||
	    chmod(name, mode) < 0)
		return;
	(void)!utimensat(AT_FDCWD, name, times, 0);
}

static int make_dir(struct unpack *u, const char *base)
{
	struct later l = {.path_n = (uint32_t)strlen(u->name), .mode = u->mode, .mtime = u->mtime};
	struct stat st;

	for (int i = 0;; i++) {
		if (mkdirat(u->parent, base, 0700 | (u->mode & 0777)) == 0)
			break;
		if (errno != EEXIST || i == TRIES)
			return -errno;
		if (fstatat(u->parent, base, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
			break;
		if (unlinkat(u->parent, base, 0) < 0 && errno != ENOENT)
			return -errno;
	}
	if (u->later.n + l.path_n + sizeof(l) + 1 > UNPACK_LATER_MAX) {
		set_dir(u, u->name, u->mode | 0700, u->mtime);
		return 0;
	}
	av_buf_append(&u->later, u->name, l.path_n + 1);
	return av_buf_append(&u->later, &l, sizeof(l));
}

static int on_entry(void *ctx, const struct av_tar_entry *e)
{
	struct unpack *u = ctx;
	const char *base;
	int r = clean(u, e->path, u->name);

	if (r < 0)
		return r;
	u->mode = e->mode & (e->type == AV_TAR_DIR ? 01777 : 0777);
	if (e->type == AV_TAR_DIR && u->o.keep_access)
		u->mode |= 0700;
	u->mtime = e->mtime;
	/* The directory itself stays as it is. */
	if (!u->name[0] && e->type == AV_TAR_DIR)
		return 0;
	if (!u->name[0])
		return refuse(u, e->path, "names the directory itself");
	if (e->type == AV_TAR_OTHER) {
		u->skipped++;
		if (u->o.on_left_out)
			u->o.on_left_out(u->o.ctx, u->name);
		return 0;
	}
	r = find_parent(u, &base);
	if (r < 0)
		return explain(u, r, u->name);
	if (e->type == AV_TAR_HARDLINK)
		return make_hardlink(u, base, e->link);
	r = e->type == AV_TAR_FILE  ? make_file(u, base)
	    : e->type == AV_TAR_DIR ? make_dir(u, base)
	                            : make_symlink(u, base, e->link);
	return r < 0 ? explain(u, r, u->name) : 0;
}

static int on_data(void *ctx, const void *p, size_t n)
{
	struct unpack *u = ctx;
	int r = av_write_full(u->file, p, n);

	u->bytes += n;
	return r < 0 ? explain(u, r, u->name) : 0;
}

static int on_entry_end(void *ctx)
{
	struct unpack *u = ctx;
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = u->mtime}};
	int r = 0;

	if (u->file >= 0) {
		if (fchmod(u->file, u->mode) < 0 || futimens(u->file, times) < 0)
			r = -errno;
		if (close(AV_TAKE_FD(u->file)) < 0 && errno != EINTR)
			r = -errno;
	}
	u->entries++;
	return r < 0 ? explain(u, r, u->name) : 0;
}

static const struct av_tar_events events = {
    .on_entry = on_entry, .on_data = on_data, .on_entry_end = on_entry_end};

/* --- the whole --- */

void unpack_init(struct unpack *u, int dest, const struct unpack_options *options)
{
	*u = (struct unpack){.dest = dest, .parent = -1, .file = -1, .o = *options};
	av_tar_dec_init(&u->dec);
	av_buf_init(&u->later, UNPACK_LATER_MAX);
}

int unpack_feed(struct unpack *u, const void *p, size_t n, struct av_err *err)
{
	u->err = err;
	return av_tar_dec_feed(&u->dec, p, n, &events, u, err);
}

int unpack_end(struct unpack *u, struct av_err *err)
{
	return av_tar_dec_finish(&u->dec, err);
}

/* From the end: a directory before the one that it is in, which it may not be reachable through
 * afterwards. */
int unpack_settle(struct unpack *u)
{
	struct later l;

	for (int i = 0; i < SETTLE_MANY && u->later.n; i++) {
		const char *end = u->later.p + u->later.off + u->later.n;

		memcpy(&l, end - sizeof(l), sizeof(l));
		set_dir(u, end - sizeof(l) - l.path_n - 1, l.mode, l.mtime);
		u->later.n -= sizeof(l) + l.path_n + 1;
	}
	return u->later.n > 0;
}

void unpack_close(struct unpack *u)
{
	struct stat mine, there;
	const char *slash = strrchr(u->name, '/'), *base = slash ? slash + 1 : u->name;

	if (u->file >= 0 && fstat(u->file, &mine) == 0 &&
	    fstatat(u->parent, base, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	    mine.st_dev == there.st_dev && mine.st_ino == there.st_ino)
		(void)!unlinkat(u->parent, base, 0);
	av_close_fd(&u->file);
	av_close_fd(&u->parent);
	av_close_fd(&u->dest);
	av_buf_clear(&u->later);
	av_tar_dec_clear(&u->dec);
}
