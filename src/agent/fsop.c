/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsop.c - file operations as a user of the sandbox, blocking, on threads of the pool
 */
#include "agent/fsop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"

#include "base/banned.h"

#define LARGE_BYTES (1024 * 1024) /* of a file whose old content costs something to replace */

/* --- ids of this thread --- */

/* The bare system calls, since the library's wrappers change every thread. Setting groups fails in
 * a user namespace that may not; there the process has one uid and no groups to speak of. */
static int become(const struct agent_user *u)
{
	if (u->uid == geteuid() && u->gid == getegid() && u->ngroups <= 1)
		return 0;
	if (syscall(SYS_setgroups, u->ngroups, u->groups) < 0 && errno != EPERM)
		return -errno;
	syscall(SYS_setfsgid, u->gid);
	syscall(SYS_setfsuid, u->uid);
	/* These report no errors; asking for an impossible id tells the present one. */
	if ((uid_t)syscall(SYS_setfsuid, (uid_t)-1) != u->uid ||
	    (gid_t)syscall(SYS_setfsgid, (gid_t)-1) != u->gid)
		return -EPERM;
	return 0;
}

static void become_self(void)
{
	syscall(SYS_setfsuid, geteuid());
	syscall(SYS_setfsgid, getegid());
	if (getgroups(0, NULL) > 0)
		syscall(SYS_setgroups, (size_t)0, NULL);
}

/* --- open --- */

static int open_path(const char *path, int flags, mode_t mode)
{
	struct open_how how = {
	    .flags = (uint64_t)(unsigned int)(flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK),
	    .mode = mode,
	    .resolve = RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

	/* Before 5.6, or refused by a filter that does not know it. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode);
	return fd < 0 ? -errno : fd;
}

static int explain(int error, const char *path, struct av_err *err)
{
	if (error < 0)
		error = -error;
	switch (error) {
	case ENOENT:
		return av_err_set(err, AV_ERR_NOT_FOUND, "path '%s' does not exist", path);
	case EISDIR:
		return av_err_set(err, AV_ERR_INVALID, "path is a directory: %s", path);
	case ENOTDIR:
	case ELOOP:
	case ENAMETOOLONG:
	case EINVAL:
	case ENXIO:
		return av_err_sys(err, AV_ERR_INVALID, error, "path '%s'", path);
	case EACCES:
	case EPERM:
	case EROFS:
		return av_err_sys(err, AV_ERR_FORBIDDEN, error, "path '%s'", path);
	case ETXTBSY:
		return av_err_sys(err, AV_ERR_INVALID_STATE, error, "path '%s'", path);
	default:
		return av_err_sys(err, AV_ERR_INTERNAL, error, "path '%s'", path);
	}
}

int fsop_write_error(int error, const char *path, struct av_err *err)
{
	return explain(error, path, err);
}

static int check_regular(int fd, const char *path, struct stat *ret_st, struct av_err *err)
{
	if (fstat(fd, ret_st) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "path '%s'", path);
	if (S_ISDIR(ret_st->st_mode))
		return av_err_set(err, AV_ERR_INVALID, "path '%s' is a directory", path);
	if (!S_ISREG(ret_st->st_mode))
		return av_err_set(err, AV_ERR_INVALID,
		    "path '%s' is not a regular file but a device, pipe or socket", path);
	return 0;
}

int fsop_open_read(const struct agent_user *u, const char *path, int *ret_fd, struct stat *ret_st,
    struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = -1;
	struct stat st;
	int r = become(u);

	if (r == 0)
		r = fd = open_path(path, O_RDONLY, 0);
	become_self();
	if (r < 0)
		return explain(r, path, err);
	r = check_regular(fd, path, &st, err);
	if (r < 0)
		return r;
	if (ret_st)
		*ret_st = st;
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

/* Makes every missing directory above path. 0 or -errno. */
static int make_parents(const char *path)
{
	char dir[AV_PATH_MAX + 1];
	int r = av_str_copy(dir, sizeof(dir), av_str_c(path));

	for (char *p = dir + 1; r == 0 && *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(dir, 0755) < 0 && errno != EEXIST)
			r = -errno;
		*p = '/';
	}
	return r;
}

static int create_or_open(const char *path, bool *ret_created)
{
	int fd = open_path(path, O_WRONLY | O_CREAT | O_EXCL, 0666);

	*ret_created = fd >= 0;
	if (fd == -EEXIST)
		fd = open_path(path, O_WRONLY | O_CREAT, 0666);
	return fd;
}

/* A file that is cut to nothing and written anew is written back as a whole when it is closed, by
 * btrfs and ext4, and the next one to replace it waits for that. No sandbox's disk outlives the
 * machine, so a large file keeps its first byte until it is overwritten; fsop_close_write() takes
 * away the one that is not. */
static int empty(int fd, off_t size)
{
	return ftruncate(fd, size > LARGE_BYTES ? 1 : 0) < 0 ? -errno : 0;
}

/* Files of procfs are controls, not storage, and /proc/self would be the agent. */
static bool on_procfs(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

static int open_write_as(const struct agent_user *u, const char *path, int *ret_fd,
    bool *ret_created, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = create_or_open(path, ret_created);
	struct stat st;
	int r;

	if (fd == -ENOENT) {
		r = make_parents(path);
		fd = r < 0 ? r : create_or_open(path, ret_created);
	}
	if (fd < 0)
		return explain(fd, path, err);
	r = check_regular(fd, path, &st, err);
	if (r < 0)
		return r;
	if (on_procfs(fd))
		return av_err_set(err, AV_ERR_INVALID, "path '%s' is on procfs", path);
	r = *ret_created ? 0 : empty(fd, st.st_size);
	if (r < 0)
		return explain(r, path, err);
	/* Exactly one change of attributes, which watchers of E2B's clients count. Somebody else's
	 * file that the user may write stays theirs. */
	if (fchown(fd, u->uid, u->gid) < 0 && errno != EPERM && errno != EINVAL)
		return explain(errno, path, err);
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

int fsop_open_write(const struct agent_user *u, const char *path, int *ret_fd, bool *ret_created,
    struct av_err *err)
{
	int r = become(u);

	if (r < 0)
		explain(r, path, err);
	else
		r = open_write_as(u, path, ret_fd, ret_created, err);
	become_self();
	return r;
}

int fsop_close_write(int fd)
{
	int r = lseek(fd, 0, SEEK_CUR) == 0 && ftruncate(fd, 0) < 0 ? -errno : 0;

	/* close(2) is where some file systems tell that the data did not fit. */
	if (close(fd) < 0 && errno != EINTR)
		r = r < 0 ? r : -errno;
	return r;
}

void fsop_abandon(const struct agent_user *u, const char *path, int fd, bool created)
{
	struct stat mine, there;

	if (!created) {
		/* Its old content is gone since it was opened; half of the new one must not pass
		 * for all. A disk that fails at this, too, leaves nothing else to try. */
		int r = ftruncate(fd, 0);
		(void)r;
	} else if (become(u) == 0 && fstat(fd, &mine) == 0 && lstat(path, &there) == 0 &&
	           mine.st_dev == there.st_dev && mine.st_ino == there.st_ino) {
		unlink(path);
	}
	become_self();
	close(fd);
}
