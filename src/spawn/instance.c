/* SPDX-License-Identifier: Apache-2.0 */
/*
 * instance.c - the directories and locks that make one Aviary out of its processes
 */
#include "spawn/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

enum { WORKER_END_MS = 60000, WORKER_POLL_MS = 5, OWNER_MS = 500, OWNER_POLL_MS = 5 };

int instance_make_parents(const char *path, mode_t mode)
{
	char part[AV_PATH_MAX + 1];
	for (const char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		int r = av_str_copy(part, sizeof(part), av_str_n(path, (size_t)(p - path)));
		if (r == 0 && mkdir(part, mode) < 0 && errno != EEXIST)
			r = -errno;
		if (r < 0)
			return r;
	}
	return 0;
}

static int make_dir(const char *path, mode_t mode, uid_t uid, gid_t gid, struct av_err *err)
{
	/* The daemon's user has to get through. */
	int r = instance_make_parents(path, 0711);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot make the way to %s", path);
	if (mkdir(path, mode) < 0 && errno != EEXIST)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s", path);
	/* A directory of another user at this place would hand him our sockets and disks. */
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open %s", path);
	if (st.st_uid != geteuid() && st.st_uid != uid)
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "%s belongs to user %u: choose another directory or remove it", path,
		    st.st_uid);
	if (fchmod(fd, mode) < 0 || (geteuid() == 0 && fchown(fd, uid, gid) < 0))
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot own %s", path);
	return 0;
}

int instance_check_restored(const char *state_dir, struct av_err *err)
{
	char path[AV_PATH_MAX + 1];
	int r = av_path_printf(path, sizeof(path), "%s/" INSTANCE_RESTORING, state_dir);
	if (r < 0)
		return av_err_set(err, AV_ERR_INVALID, "--state is too long");
	if (access(path, F_OK) < 0)
		return 0;
	return av_err_set(err, AV_ERR_CONFLICT,
	    "%s is being restored from a backup, or a restore did not end: wait for it, or remove "
	    "the "
	    "directory (aviary cleanup --all --state %s) and restore again",
	    state_dir, state_dir);
}

/* A restored database is root's, as is its directory so far: nobody else could put anything there.
 */
static int give_database(const struct spawn_options *o, const char *dir, struct av_err *err)
{
	struct stat st;
	AV_CLEANUP(av_closep) int d = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (o->rootless || d < 0 || fstat(d, &st) < 0 || st.st_uid != 0)
		return 0;
	AV_CLEANUP(av_closep) int db = openat(d, "aviary.db", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (db < 0)
		return 0; /* a new state */
	if (fstat(db, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1 ||
	    fchown(db, o->daemon_uid, o->daemon_gid) < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "cannot give %s to the daemon's user", dir);
	return 0;
}

int instance_make_dirs(const struct spawn_options *o, struct av_err *err)
{
	char path[AV_PATH_MAX + 1];
	bool root = !o->rootless;
	uid_t me = geteuid();
	gid_t mine = getegid();
	static const char *const own[] = {"templates", "sandboxes"};

	int r = make_dir(o->state_dir, root ? 0711 : 0700, me, mine, err);
	if (r == 0)
		r = make_dir(o->run_dir, root ? 0755 : 0700, me, mine, err);
	for (size_t i = 0; r == 0 && i < AV_ARRAY_LEN(own); i++) {
		r = av_path_printf(path, sizeof(path), "%s/%s", o->state_dir, own[i]);
		if (r == 0)
			r = make_dir(path, 0700, me, mine, err);
	}
	if (r == 0)
		r = av_path_printf(path, sizeof(path), "%s/db", o->state_dir);
	if (r == 0)
		r = give_database(o, path, err);
	return r < 0 ? r : make_dir(path, 0700, o->daemon_uid, o->daemon_gid, err);
}

/* Who holds the lock, as text. It locks before it writes, so what stands in the file may for a
 * moment be nothing, or the one before. */
static void read_owner(const char *path, char pid[static 16])
{
	const struct timespec pause = {.tv_nsec = OWNER_POLL_MS * 1000000L};
	uint64_t n;
	for (int waited = 0; waited < OWNER_MS; waited += OWNER_POLL_MS) {
		ssize_t len = av_read_file_at(AT_FDCWD, path, pid, 16);
		if (len > 0 && pid[len - 1] == '\n') {
			pid[len - 1] = '\0';
			if (av_parse_u64(av_str_c(pid), 1, INT32_MAX, &n) == 0 &&
			    (kill((pid_t)n, 0) == 0 || errno == EPERM))
				return;
		}
		(void)nanosleep(&pause, NULL);
	}
	(void)snprintf(pid, 16, "?");
}

int instance_lock(const char *dir, const char *what, int *ret_fd, struct av_err *err)
{
	char path[AV_PATH_MAX + 1], pid[16];
	int r = av_path_printf(path, sizeof(path), "%s/lock", dir);
	if (r < 0)
		return av_err_set(err, AV_ERR_INVALID, "%s is too long", what);
	AV_CLEANUP(av_closep) int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot lock %s", path);
		read_owner(path, pid);
		return av_err_set(err, AV_ERR_CONFLICT,
		    "another Aviary (process %s) uses %s: stop it, or give this one another %s",
		    pid, dir, what);
	}
	int n = snprintf(pid, sizeof(pid), "%d\n", getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot write %s", path);
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

int instance_lock_worker(const char *state_dir, int *ret_fd, struct av_err *err)
{
	char path[AV_PATH_MAX + 1];
	int r = av_path_printf(path, sizeof(path), "%s/worker.lock", state_dir);
	if (r < 0)
		return av_err_set(err, AV_ERR_INVALID, "--state is too long");
	AV_CLEANUP(av_closep) int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open %s", path);
	const struct timespec pause = {.tv_nsec = WORKER_POLL_MS * 1000000L};
	for (int waited = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; waited += WORKER_POLL_MS) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot lock %s", path);
		if (waited >= WORKER_END_MS)
			return av_err_set(err, AV_ERR_CONFLICT,
			    "a worker of %s whose supervisor is gone does not end; "
			    "look at what the disk does, and try again",
			    state_dir);
		(void)nanosleep(&pause, NULL);
	}
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

int instance_make_url_file(const struct spawn_options *o, struct av_err *err)
{
	char path[AV_PATH_MAX + 1];
	int r = av_path_printf(path, sizeof(path), "%s/url", o->run_dir);
	if (r < 0)
		return av_err_set(err, AV_ERR_INVALID, "--run is too long");
	AV_CLEANUP(av_closep)
	int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 || fchmod(fd, 0644) < 0 ||
	    (!o->rootless && fchown(fd, o->daemon_uid, o->daemon_gid) < 0))
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s", path);
	return 0;
}

uint32_t instance_number(const char *state_dir)
{
	uint32_t h = 2166136261u;
	for (const char *p = state_dir; *p; p++)
		h = (h ^ (uint8_t)*p) * 16777619u;
	return h;
}

void instance_tag(const char *state_dir, char tag[static INSTANCE_TAG_SIZE])
{
	snprintf(tag, INSTANCE_TAG_SIZE, "%08x", instance_number(state_dir));
}
