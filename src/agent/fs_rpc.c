/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_rpc.c - the unary RPCs of filesystem.Filesystem on single entries: Stat, MakeDir, Move
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "agent/entry.h"
#include "agent/fsjob.h"
#include "agent/fsop.h"
#include "agent/handlers.h"

#include "base/banned.h"

/* {"entry":{...}} of path into the answer. */
static int answer_entry(struct fsjob *j, const char *path)
{
	AV_CLEANUP(entry_names_clear) struct entry_names names = {0};
	struct entry e;
	int r = entry_look(AT_FDCWD, path, &e);

	if (r < 0)
		return fsop_explain(r, path, &j->err);
	av_buf_append_c(&j->answer, "{\"entry\":");
	entry_write(&j->answer, &e, av_str_c(path), &names);
	av_buf_append_char(&j->answer, '}');
	return 0;
}

/* --- Stat --- */

static int stat_run(struct fsjob *j)
{
	return answer_entry(j, j->path);
}

void fs_rpc_stat(struct request *rq, struct av_str body)
{
	static const struct fsjob_op op = {.run = stat_run};

	fsjob_start(rq, body, &op);
}

/* --- MakeDir --- */

static int mkdir_run(struct fsjob *j)
{
	struct stat st;
	int r = mkdir(j->path, 0755) < 0 ? -errno : 0;

	if (r == -ENOENT) {
		r = fsop_make_parents(j->path);
		if (r == 0 && mkdir(j->path, 0755) < 0)
			r = -errno;
	}
	if (r == -EEXIST && stat(j->path, &st) == 0 && S_ISDIR(st.st_mode))
		return av_err_set(
		    &j->err, AV_ERR_CONFLICT, "directory '%s' exists already", j->path);
	if (r == -EEXIST)
		return av_err_set(&j->err, AV_ERR_INVALID,
		    "path '%s' exists already and is not a directory", j->path);
	return r < 0 ? fsop_explain(r, j->path, &j->err) : answer_entry(j, j->path);
}

void fs_rpc_make_dir(struct request *rq, struct av_str body)
{
	static const struct fsjob_op op = {.needs_path = true, .run = mkdir_run};

	fsjob_start(rq, body, &op);
}

/* --- Move --- */

static int move_parse(struct fsjob *j, const json_t *body, struct av_err *err)
{
	const char *source = "", *destination = "";
	int r;

	if ((r = av_json_get_str(body, "source", &source, err)) < 0 ||
	    (r = av_json_get_str(body, "destination", &destination, err)) < 0)
		return r;
	if (!source[0] || !destination[0])
		return av_err_set(
		    err, AV_ERR_INVALID, "\"source\" and \"destination\" must both name a path");
	if ((r = fs_request_path(j->rq, &j->user, body, "source", j->path, err)) < 0)
		return r;
	return fs_request_path(j->rq, &j->user, body, "destination", j->destination, err);
}

static int move_run(struct fsjob *j)
{
	struct stat st;
	int r = rename(j->path, j->destination) < 0 ? -errno : 0;

	if (r == -ENOENT) {
		if (lstat(j->path, &st) < 0)
			return fsop_explain(errno, j->path, &j->err);
		r = fsop_make_parents(j->destination);
		if (r == 0 && rename(j->path, j->destination) < 0)
			r = -errno;
	}
	switch (r) {
	case 0:
		return answer_entry(j, j->destination);
	case -EXDEV:
		return av_err_set(&j->err, AV_ERR_INVALID,
		    "'%s' and '%s' are on different file systems of the sandbox; copy the file and "
		    "remove the old one, or run mv inside",
		    j->path, j->destination);
	case -EINVAL:
		return av_err_set(&j->err, AV_ERR_INVALID,
		    "'%s' cannot be moved into itself, to '%s'", j->path, j->destination);
	case -ENOENT:
		return fsop_explain(r, j->path, &j->err);
	default:
		return fsop_explain(r, j->destination, &j->err);
	}
}

void fs_rpc_move(struct request *rq, struct av_str body)
{
	static const struct fsjob_op op = {.parse = move_parse, .run = move_run};

	fsjob_start(rq, body, &op);
}
