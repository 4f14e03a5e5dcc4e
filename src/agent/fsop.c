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
int fsop_become(const struct agent_user *u)
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

void fsop_become_self(void)
{
	syscall(SYS_setfsuid, geteuid());
	syscall(SYS_setfsgid, getegid());
	if (getgroups(0, NULL) > 0)
		syscall(SYS_setgroups, (size_t)0, NULL);
}

/* --- open --- */

int fsop_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	/* openat2 refuses what O_PATH would ignore. */
	int all = flags | O_CLOEXEC | (flags & O_PATH ? 0 : O_NOCTTY | O_NONBLOCK);
	struct open_how how = {
	    .flags = (uint64_t)(unsigned int)all,
	    .mode = mode,
	    .resolve = RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));

	/* Before 5.6, or refused by a filter that does not know it. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		fd = openat(dirfd, path, all, mode);
	return fd < 0 ? -errno : fd;
}

int fsop_explain(int error, const char *path, struct av_err *err)
{
	if (error < 0)
		error = -error;
	switch (error) {
	case ENOENT:
		return av_err_set(err, AV_ERR_NOT_FOUND, "path '%.300s' does not exist", path);
	case EISDIR:
		return av_err_set(err, AV_ERR_INVALID, "path is a directory: %.300s", path);
	case EEXIST:
		return av_err_set(err, AV_ERR_CONFLICT, "path '%.300s' exists already", path);
	case ENOTEMPTY:
		return av_err_set(err, AV_ERR_CONFLICT, "directory '%.300s' is not empty", path);
	case E2BIG:
		return av_err_set(err, AV_ERR_QUOTA,
		    "path '%.300s': a tree with more levels or names than can be walked at once; "
		    "take "
		    "its parts one by one",
		    path);
	case ENOTDIR:
	case ELOOP:
	case ENAMETOOLONG:
	case EINVAL:
	case ENXIO:
		return av_err_sys(err, AV_ERR_INVALID, error, "path '%.300s'", path);
	case EACCES:
	case EPERM:
	case EROFS:
		return av_err_sys(err, AV_ERR_FORBIDDEN, error, "path '%.300s'", path);
	case ETXTBSY:
		return av_err_sys(err, AV_ERR_INVALID_STATE, error, "path '%.300s'", path);
	default:
		return av_err_sys(err, AV_ERR_INTERNAL, error, "path '%.300s'", path);
	}
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
	int r = fsop_become(u);

	if (r == 0)
		r = fd = fsop_openat(AT_FDCWD, path, O_RDONLY, 0);
	fsop_become_self();
	if (r < 0)
		return fsop_explain(r, path, err);
	r = check_regular(fd, path, &st, err);
	if (r < 0)
		return r;
	if (ret_st)
		*ret_st = st;
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

int fsop_make_parents(const char *path)
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
	int fd = fsop_openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL, 0666);

	*ret_created = fd >= 0;
	if (fd == -EEXIST)
		fd = fsop_openat(AT_FDCWD, path, O_WRONLY | O_CREAT, 0666);
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

const char *fsop_fd_path(int fd, char dst[static FSOP_FD_PATH_SIZE])
{
	snprintf(dst, FSOP_FD_PATH_SIZE, "/proc/self/fd/%d", fd);
	return dst;
}

bool fsop_is_control(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC);
}

static int open_write_as(const struct agent_user *u, const char *path, int *ret_fd,
    bool *ret_created, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = create_or_open(path, ret_created);
	struct stat st;
	int r;

	if (fd == -ENOENT) {
		r = fsop_make_parents(path);
		fd = r < 0 ? r : create_or_open(path, ret_created);
	}
	if (fd < 0)
		return fsop_explain(fd, path, err);
	r = check_regular(fd, path, &st, err);
	if (r < 0)
		return r;
	if (fsop_is_control(fd))
		return av_err_set(err, AV_ERR_INVALID, "path '%s' is on procfs or sysfs", path);
	r = *ret_created ? 0 : empty(fd, st.st_size);
	if (r < 0)
		return fsop_explain(r, path, err);
	/* Exactly one change of attributes, which watchers of E2B's clients count. Somebody else's
	 * file that the user may write stays theirs. */
	if (fchown(fd, u->uid, u->gid) < 0 && errno != EPERM && errno != EINVAL)
		return fsop_explain(errno, path, err);
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

int fsop_open_write(const struct agent_user *u, const char *path, int *ret_fd, bool *ret_created,
    struct av_err *err)
{
	int r = fsop_become(u);

	if (r < 0)
		fsop_explain(r, path, err);
	else
		r = open_write_as(u, path, ret_fd, ret_created, err);
	fsop_become_self();
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
	} else if (fsop_become(u) == 0 && fstat(fd, &mine) == 0 && lstat(path, &there) == 0 &&
	           mine.st_dev == there.st_dev && mine.st_ino == there.st_ino) {
		unlink(path);
	}
	fsop_become_self();
	close(fd);
}
