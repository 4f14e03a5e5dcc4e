/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_tree.c - the unary RPCs that go through whole trees: Remove, SetAttributes
 *
 * Both work on descriptors and names below them, never on a path a second time: a directory that a
 * process of the sandbox replaces by a link meanwhile is left alone, or the link itself is what is
 * removed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/fsjob.h"
#include "agent/fsop.h"
#include "agent/handlers.h"
#include "base/fd.h"
#include "base/num.h"

#include "base/banned.h"

#define REMOVE_ROUNDS 8 /* how often a tree that is written to meanwhile is gone through */

/* Opens the tree at path for a walk. */
static int begin_walk(struct fsjob *j, const char *path, enum walk_order order)
{
	int fd = fsop_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	int r = fd < 0 ? fd : walk_open(&j->walk, fd, order);

	j->walking = r == 0;
	return r;
}

static void end_walk(struct fsjob *j)
{
	walk_close(&j->walk);
	j->walking = false;
}

/* The path of an entry of the walk, for a message. */
static int explain_item(struct fsjob *j, int error, struct av_str item)
{
	char path[AV_PATH_MAX + 1];

	if (error == -E2BIG ||
	    av_path_printf(path, sizeof(path), "%s/%.*s",
	        av_str_eq_c(av_str_c(j->path), "/") ? "" : j->path, AV_STR_ARG(item)) < 0)
		return fsop_explain(error, j->path, &j->err);
	return fsop_explain(error, path, &j->err);
}

/* --- Remove --- */

static int remove_parse(struct fsjob *j, const json_t *body, struct av_err *err)
{
	if (av_str_eq_c(av_str_c(j->path), "/"))
		return av_err_set(err, AV_ERR_INVALID, "the root directory cannot be removed");
	return av_json_get_bool(body, "mustExist", &j->must_exist, err);
}

/* A directory too deep to go into is moved to the top of the tree, where it is met again. */
static int lift(struct fsjob *j, const struct walk_item *it)
{
	char name[32];

	snprintf(name, sizeof(name), ".aviary-removed-%u", j->lifted++);
	if (renameat(it->dirfd, it->name, walk_root(&j->walk), name) < 0)
		return errno == ENOENT ? 0 : -errno;
	j->rounds = 0;
	return 0;
}

/* What is left of a directory when somebody writes to it meanwhile is for the next round. */
static int remove_item(struct fsjob *j, const struct walk_item *it)
{
	int r = unlinkat(it->dirfd, it->name, it->leave ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;

	if (r == -ENOENT || (it->leave && r == -ENOTEMPTY))
		return 0;
	/* POSIX says EPERM, Linux EISDIR. */
	if (!it->leave && (r == -EISDIR || r == -EPERM)) {
		int d = walk_enter(&j->walk);

		r = d == -E2BIG ? lift(j, it) : d == -ENOTDIR ? r : d;
	}
	return r < 0 ? explain_item(j, r, it->path) : 0;
}

/* One slice of emptying the tree; j->again when there is more. */
static int remove_slice(struct fsjob *j)
{
	struct walk_item it;
	int r;

	while ((r = walk_next(&j->walk, &it)) == 1) {
		r = remove_item(j, &it);
		if (r < 0)
			return r;
		if (fsjob_slice_over(j)) {
			j->again = true;
			return 0;
		}
	}
	return r < 0 ? explain_item(j, r, av_str_c(j->walk.path)) : 0;
}

static int remove_run(struct fsjob *j)
{
	int r = 0;

	if (!j->walking) {
		if (unlink(j->path) == 0)
			return 0;
		r = -errno;
		if (r == -EISDIR || r == -EPERM) {
			int d = begin_walk(j, j->path, WALK_AS_IS);

			r = d == -ENOTDIR || d == -ELOOP ? r : d;
		}
		if ((r == -ENOENT || r == -ENOTDIR) && !j->must_exist)
			return 0;
		if (r < 0)
			return fsop_explain(r, j->path, &j->err);
	}
	r = remove_slice(j);
	if (r < 0 || j->again)
		return r;
	end_walk(j);
	if (rmdir(j->path) == 0 || errno == ENOENT)
		return 0;
	r = -errno;
	j->again = r == -ENOTEMPTY && ++j->rounds < REMOVE_ROUNDS;
	return j->again ? 0 : fsop_explain(r, j->path, &j->err);
}

void fs_rpc_remove(struct request *rq, struct av_str body)
{
	static const struct fsjob_op op = {
	    .needs_path = true, .parse = remove_parse, .run = remove_run};

	fsjob_start(rq, body, &op);
}

/* --- SetAttributes {"path","mode":int,"owner":str,"group":str,"recursive":bool} --- */

static int attributes_parse(struct fsjob *j, const json_t *body, struct av_err *err)
{
	const char *owner = "", *group = "";
	struct agent_user u;
	int64_t mode = -1;
	int r;

	j->uid = (uid_t)-1;
	j->gid = (gid_t)-1;
	if ((r = av_json_get_i64(body, "mode", 0, 07777, &mode, err)) < 0 ||
	    (r = av_json_get_bool(body, "recursive", &j->recursive, err)) < 0 ||
	    (r = av_json_get_str(body, "owner", &owner, err)) < 0 ||
	    (r = av_json_get_str(body, "group", &group, err)) < 0)
		return r;
	j->mode = (int)mode;
	if (owner[0]) {
		if (user_lookup(av_str_c(owner), &u, NULL) < 0)
			return av_err_set(
			    err, AV_ERR_INVALID, "the sandbox has no user '%.64s'", owner);
		j->uid = u.uid;
	}
	if (group[0] && (r = user_group_id(av_str_c(group), &j->gid, err)) < 0)
		return r;
	if (mode < 0 && !owner[0] && !group[0])
		return av_err_set(err, AV_ERR_INVALID,
		    "nothing to change: give \"mode\", \"owner\" or \"group\"");
	return 0;
}

/* fd is O_PATH: what was looked at is what is changed. */
static int set_attributes(const struct fsjob *j, int fd)
{
	char path[FSOP_FD_PATH_SIZE];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((j->uid != (uid_t)-1 || j->gid != (gid_t)-1) &&
	    fchownat(fd, "", j->uid, j->gid, AT_EMPTY_PATH) < 0)
		return -errno;
	/* A link has no mode of its own. Last, as a change of owner takes set-id bits away. */
	if (j->mode >= 0 && !S_ISLNK(st.st_mode) &&
	    chmod(fsop_fd_path(fd, path), (mode_t)j->mode) < 0)
		return -errno;
	return 0;
}

static int set_item(const struct fsjob *j, int dirfd, const char *name)
{
	AV_CLEANUP(av_closep) int fd = fsop_openat(dirfd, name, O_PATH | O_NOFOLLOW, 0);

	if (fd == -ENOENT)
		return 0;
	return fd < 0 ? fd : set_attributes(j, fd);
}

/* A directory after what is in it, so that its new mode does not shut us out. */
static int attributes_slice(struct fsjob *j)
{
	struct walk_item it;
	int r;

	while ((r = walk_next(&j->walk, &it)) == 1) {
		bool entered = false;

		if (!it.leave && (it.type == DT_DIR || it.type == DT_UNKNOWN)) {
			r = walk_enter(&j->walk);
			entered = r == 0;
			if (r < 0 && r != -ENOTDIR && r != -ENOENT)
				return explain_item(j, r, it.path);
		}
		r = entered ? 0 : set_item(j, it.dirfd, it.name);
		if (r < 0)
			return explain_item(j, r, it.path);
		if (fsjob_slice_over(j)) {
			j->again = true;
			return 0;
		}
	}
	return r < 0 ? explain_item(j, r, av_str_c(j->walk.path)) : 0;
}

static int attributes_run(struct fsjob *j)
{
	AV_CLEANUP(av_closep) int fd = -1;
	int r;

	if (j->recursive && !j->walking) {
		r = begin_walk(j, j->path, WALK_AS_IS);
		if (r < 0 && r != -ENOTDIR && r != -ELOOP)
			return fsop_explain(r, j->path, &j->err);
	}
	if (j->walking) {
		r = attributes_slice(j);
		if (r < 0 || j->again)
			return r;
		r = set_item(j, walk_root(&j->walk), ".");
		end_walk(j);
		return r < 0 ? fsop_explain(r, j->path, &j->err) : 0;
	}
	fd = fsop_openat(AT_FDCWD, j->path, O_PATH, 0);
	r = fd < 0 ? fd : set_attributes(j, fd);
	return r < 0 ? fsop_explain(r, j->path, &j->err) : 0;
}

void fs_rpc_set_attributes(struct request *rq, struct av_str body)
{
	static const struct fsjob_op op = {
	    .needs_path = true, .parse = attributes_parse, .run = attributes_run};

	fsjob_start(rq, body, &op);
}
