/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup.c - removing what a dead instance left
 *
 * Everything of an instance that lies outside its state directory is: processes in its cgroups, the
 * cgroups, a table of nftables and what forwarding it switched on, and the run directory. The disks
 * may be mounted, which the worker's namespace did: they are removed by a child in such a namespace
 * of its own.
 */
#include "spawn/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "spawn/cgroup.h"
#include "spawn/disk.h"
#include "spawn/instance.h"
#include "spawn/mounts.h"
#include "spawn/net.h"
#include "spawn/rundir.h"
#include "base/banned.h"

#define DEATH_TIMEOUT_MS 5000

/* Without cgroups the record of the agent is what finds it; it is PID 1 of the rest. */
static int kill_recorded(void *ctx, const char *id)
{
	const int *run_fd = ctx;
	struct jail_identity who;
	AV_CLEANUP(av_closep) int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AV_CLEANUP(av_closep) int pidfd = -1;
	if (rundir_read_process(*run_fd, id, &who) == 0 && jail_open(proc, &who, &pidfd) == 0) {
		struct pollfd p = {.fd = pidfd, .events = POLLIN};
		av_pidfd_send_signal(pidfd, SIGKILL);
		if (poll(&p, 1, DEATH_TIMEOUT_MS) == 0)
			return -ETIMEDOUT;
	}
	struct pasta_process pasta;
	AV_CLEANUP(av_closep) int pasta_fd = -1;
	if (rundir_read_pasta(*run_fd, id, &pasta) == 0 &&
	    (pasta_fd = pasta_open(proc, &pasta)) >= 0)
		av_pidfd_send_signal(pasta_fd, SIGKILL);
	return rundir_remove(*run_fd, id);
}

static int end_recorded(const struct spawn_options *o, struct av_err *err)
{
	AV_CLEANUP(av_closep) int run = open(o->run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (run < 0)
		return errno == ENOENT
		           ? 0
		           : av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open %s", o->run_dir);
	int r = rundir_list(run, kill_recorded, &run);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot end a sandbox in %s", o->run_dir)
	             : 0;
}

static int remove_run(const struct spawn_options *o, struct av_err *err)
{
	AV_CLEANUP(av_closep) int run = open(o->run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (run < 0)
		return 0; /* there was none, or it lay in the state directory */
	static const char *const names[] = {"spawn.sock", "url", "lock"};
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++)
		if (unlinkat(run, names[i], 0) < 0 && errno != ENOENT)
			return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot remove %s/%s",
			    o->run_dir, names[i]);
	/* A run directory that the user made, with more in it, stays. */
	if (rmdir(o->run_dir) < 0 && errno != ENOTEMPTY && errno != EBUSY)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot remove %s", o->run_dir);
	return 0;
}

struct cgroup_cleanup {
	char tag[INSTANCE_TAG_SIZE];
	struct av_err *err;
};

/* below: where the parent is; NULL: where it is by default. */
static int clean_cgroups_below(void *ctx, const char *below)
{
	struct cgroup_cleanup *c = ctx;
	const struct cgroups_config cfg = {.tag = c->tag, .below = below};
	struct cgroups *cg;
	int r = cgroups_new(&cfg, &cg, c->err);
	if (r < 0)
		return r;
	r = cgroups_cleanup(cg, DEATH_TIMEOUT_MS, c->err);
	cgroups_free(cg);
	return r;
}

static int clean_cgroups(const struct spawn_options *o, struct av_err *err)
{
	struct cgroup_cleanup c = {.err = err};
	instance_tag(o->state_dir, c.tag);
	/* Where the processes are first: v1 trees may be elsewhere. */
	int r = cgroups_find(c.tag, clean_cgroups_below, &c);
	return r < 0 ? r : clean_cgroups_below(&c, NULL);
}

/* ---- --all ---- */

/* Their layers were filled by guests, at any depth: they go the way of the sandboxes' disks. */
static int trash_templates(struct mounts *m, struct disk *d)
{
	int fd = openat(m->state_fd, "templates", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int r = 0;
	if (!dir) {
		av_close_fd(&fd);
		return 0; /* none was ever made */
	}
	while (r == 0 && (e = readdir(dir)))
		if (e->d_name[0] != '.') {
			r = disk_trash(d, fd, e->d_name);
			rewinddir(dir);
		}
	closedir(dir);
	return r;
}

static int clean_disks(const struct spawn_options *o, struct av_err *err)
{
	struct mounts m = MOUNTS_INIT;
	struct disk *d;
	int r = mounts_enter(&m, o, err);
	if (r < 0)
		return r;
	const struct disk_config cfg = {
	    .state_dir = MOUNTS_STATE,
	    .state_name = o->state_dir,
	    .mount_dir = MOUNTS_DISK,
	    .mode = o->disk,
	    .rootless = o->rootless,
	};
	r = disk_new(&cfg, &d, err);
	if (r < 0)
		return r;
	r = trash_templates(&m, d);
	if (r < 0)
		(void)av_err_sys(err, AV_ERR_INTERNAL, r, "cannot remove the templates");
	else
		r = disk_cleanup(d, err);
	disk_free(d);
	return r;
}

static int clean_disks_in_child(const struct spawn_options *o)
{
	struct av_err err = {0};
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		int r = clean_disks(o, &err);
		if (r < 0)
			fprintf(stderr, "aviary-spawn: %s\n", err.message);
		_exit(r < 0);
	}
	int status;
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

/* Depth is that of the database and its neighbours: shallow, and written by nobody but us. */
static int remove_tree(int dirfd, const char *name)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		int r = -errno;
		av_close_fd(&fd);
		return r;
	}
	struct dirent *e;
	int r = 0;
	while (r == 0 && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = remove_tree(fd, e->d_name);
	closedir(d);
	if (r == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		r = -errno;
	return r;
}

static int clean_state(const struct spawn_options *o, struct av_err *err)
{
	/* Says itself what it could not do, as areas of another mode than today's: plain files
	 * then. */
	int r = clean_disks_in_child(o);
	(void)r;
	r = remove_tree(AT_FDCWD, o->state_dir);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot remove %s", o->state_dir) : 0;
}

static int clean_net(const struct spawn_options *o, struct av_err *err)
{
	char tag[INSTANCE_TAG_SIZE];
	AV_CLEANUP(av_closep) int run = open(o->run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	instance_tag(o->state_dir, tag);
	return o->rootless ? 0 : net_cleanup(tag, run, err);
}

static int lock_if_there(const char *dir, const char *what, int *ret_fd, struct av_err *err)
{
	return access(dir, F_OK) < 0 ? 0 : instance_lock(dir, what, ret_fd, err);
}

int cleanup_main(const struct spawn_options *o)
{
	struct av_err err = {0};
	AV_CLEANUP(av_closep) int state = -1;
	AV_CLEANUP(av_closep) int run = -1;
	AV_CLEANUP(av_closep) int worker = -1;
	int r = lock_if_there(o->state_dir, "--state", &state, &err);
	if (r == 0)
		r = lock_if_there(o->run_dir, "--run", &run, &err);
	if (r == 0 && state >= 0)
		r = instance_lock_worker(o->state_dir, &worker, &err);
	if (r == 0)
		r = clean_cgroups(o, &err);
	if (r == 0)
		r = end_recorded(o, &err);
	if (r == 0)
		r = clean_net(o, &err);
	if (r == 0 && o->all && state >= 0) {
		/* The private tree takes the run directory over, so it must be there a little
		 * longer. */
		if (run < 0 && mkdir(o->run_dir, 0700) < 0)
			r = av_err_sys(&err, AV_ERR_INTERNAL, errno, "mkdir %s", o->run_dir);
		if (r == 0)
			r = clean_state(o, &err);
	}
	if (r == 0)
		r = remove_run(o, &err);
	if (r < 0)
		fprintf(stderr, "aviary-spawn: %s\n", err.message);
	return r < 0;
}
