/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trees.c - directories of a sandbox as tar: to and from directories here, or raw (aviary/files.h)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/path.h"
#include "client/tree_ends.h"

#include "base/banned.h"

#define QUERY_MAX ((size_t)48 << 10)

/* ---- results ---- */

static void free_result(void *result)
{
	free(result);
}

static const struct avc_type tree_type = {"tree", free_result};

aviary_tree_result *aviary_op_take_tree_result(aviary_op *op)
{
	return avc_op_take(op, &tree_type);
}

void aviary_tree_result_free(aviary_tree_result *result)
{
	free(result);
}

static int give(aviary_op *op, const struct avc_tree_counts *counts)
{
	aviary_tree_result *r = malloc(sizeof(*r));

	if (!r)
		return AVIARY_E_NO_MEMORY;
	*r = (aviary_tree_result){
	    .entries = counts->entries, .bytes = counts->bytes, .left_out = counts->left_out};
	avc_op_give(op, &tree_type, r);
	return 0;
}

/* What the sandbox has unpacked; what was left out here is counted as well. */
static int take_sent(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	struct avc_tree_counts c = {0};
	const struct avc_tree_counts *here = ctx;

	if (reply->code < 0)
		return reply->code;
	if (av_json_get_i64(reply->json, "entries", 0, INT64_MAX, &c.entries, NULL) < 0 ||
	    av_json_get_i64(reply->json, "bytes", 0, INT64_MAX, &c.bytes, NULL) < 0 ||
	    av_json_get_i64(reply->json, "skipped", 0, INT32_MAX, &c.left_out, NULL) < 0)
		return AVIARY_E_PROTOCOL;
	c.left_out += here ? here->left_out : 0;
	return give(op, &c);
}

static int take_received(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	return reply->code < 0 ? reply->code : give(op, ctx);
}

/* ---- one request each ---- */

/* Steals end; NULL: no memory. counts: freed with the operation. */
static aviary_op *move(aviary_sandbox *sb, const char *path, struct avc_end *end, bool up,
    struct avc_tree_counts *counts, const aviary_file_options *o)
{
	AV_CLEANUP(av_buf_clear) struct av_buf query = AV_BUF_INIT(QUERY_MAX);
	struct avc_pipe_spec spec;

	if (avc_file_query(&query, "/files/tar", path, o) < 0) {
		if (end)
			end->free(end);
		free(counts);
		return avc_file_no_path(sb);
	}
	spec = avc_file_pipe(sb, up ? "PUT" : "GET", path, av_buf_cstr(&query), o);
	spec.rq.source_type = "application/x-tar";
	spec.source = up ? end : NULL;
	spec.sink = up ? NULL : end;
	spec.failed = spec.failed || !end;
	spec.take = up ? take_sent : counts ? take_received : NULL;
	spec.ctx = counts;
	spec.free_ctx = free;
	return avc_pipe(&spec);
}

static aviary_op *no_directory(aviary_sandbox *sb, const char *path)
{
	int error = errno;

	return avc_op_failed(sb->c, AVIARY_E_LOCAL, "%.300s: %s", path, strerror(error));
}

aviary_op *aviary_tree_upload(
    aviary_sandbox *sb, const char *local, const char *path, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);
	struct avc_tree_counts *counts;
	int fd = open(local, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return no_directory(sb, local);
	counts = calloc(1, sizeof(*counts));
	if (!counts) {
		close(fd);
		return avc_op_none();
	}
	return move(sb, path, avc_end_pack(fd, local, counts, &o), true, counts, &o);
}

/* The directory, or the one that it is to be made in: *ret_name, which is part of path or "". */
static int open_target(const char *path, char *dir, size_t size, const char **ret_name)
{
	struct av_str whole = av_str_c(path);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*ret_name = "";
	if (fd >= 0 || errno != ENOENT)
		return fd;
	while (whole.n > 1 && whole.p[whole.n - 1] == '/')
		whole.n--;
	if (av_str_copy(dir, size, whole) < 0) {
		errno = ENAMETOOLONG;
		return -1;
	}
	*ret_name = strrchr(dir, '/');
	if (!*ret_name) {
		*ret_name = dir;
		return open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	dir[*ret_name - dir] = '\0';
	++*ret_name;
	return open(dir[0] ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

aviary_op *aviary_tree_download(
    aviary_sandbox *sb, const char *path, const char *local, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);
	struct avc_tree_counts *counts;
	char dir[AV_PATH_MAX + 1];
	const char *name;
	int fd = open_target(local, dir, sizeof(dir), &name);

	if (fd < 0)
		return no_directory(sb, local);
	counts = calloc(1, sizeof(*counts));
	if (!counts) {
		close(fd);
		return avc_op_none();
	}
	return move(sb, path, avc_end_unpack(fd, name, counts, &o), false, counts, &o);
}

aviary_tree_result *aviary_tree_upload_sync(aviary_sandbox *sb, const char *local, const char *path,
    const aviary_file_options *options, aviary_error *error)
{
	return avc_op_await(aviary_tree_upload(sb, local, path, options), &tree_type, error);
}

aviary_tree_result *aviary_tree_download_sync(aviary_sandbox *sb, const char *path,
    const char *local, const aviary_file_options *options, aviary_error *error)
{
	return avc_op_await(aviary_tree_download(sb, path, local, options), &tree_type, error);
}

/* ---- raw ---- */

aviary_op *aviary_tar_upload(aviary_sandbox *sb, const char *path, aviary_read_fn *fn, void *ctx,
    const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);

	return move(sb, path, avc_end_reader(fn, ctx), true, NULL, &o);
}

aviary_op *aviary_tar_upload_fd(
    aviary_sandbox *sb, const char *path, int fd, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);
	int64_t size;

	return move(sb, path, avc_end_fd_source(fd, &size), true, NULL, &o);
}

aviary_op *aviary_tar_download(aviary_sandbox *sb, const char *path, aviary_write_fn *fn, void *ctx,
    const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);

	return move(sb, path, avc_end_writer(fn, ctx), false, NULL, &o);
}

aviary_op *aviary_tar_download_fd(
    aviary_sandbox *sb, const char *path, int fd, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);

	return move(sb, path, avc_end_fd_sink(fd), false, NULL, &o);
}
