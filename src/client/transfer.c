/* SPDX-License-Identifier: Apache-2.0 */
/*
 * transfer.c - contents of files, whole and as streams (see aviary/files.h)
 */
#include <string.h>

#include "base/codec.h"
#include "client/call.h"
#include "client/file_internal.h"
#include "client/resource.h"

#include "base/banned.h"

#define QUERY_MAX    ((size_t)48 << 10)
#define READ_DEFAULT ((uint64_t)64 << 20)

int avc_file_query(
    struct av_buf *out, const char *suffix, const char *path, const aviary_file_options *o)
{
	if (!path || !*path)
		return AVIARY_E_INVALID;
	(void)av_buf_printf(out, "%s?path=", suffix);
	(void)av_percent_encode(out, av_str_c(path), true);
	if (o->user) {
		(void)av_buf_append_c(out, "&user=");
		(void)av_percent_encode(out, av_str_c(o->user), false);
	}
	return 0;
}

struct avc_pipe_spec avc_file_pipe(aviary_sandbox *sb, const char *method, const char *path,
    const char *suffix_and_query, const aviary_file_options *o)
{
	return (struct avc_pipe_spec){.sb = sb,
	    .rq = {.method = method,
	        .path = suffix_and_query ? suffix_and_query : "",
	        .file = path,
	        .timeout_ms = o->timeout_ms,
	        .idle_ms = o->idle_timeout_ms,
	        .source_type = "application/octet-stream"},
	    .size = -1,
	    .failed = !suffix_and_query};
}

/* ---- whole files ---- */

aviary_op *aviary_file_read(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options)
{
	AV_CLEANUP(av_buf_clear) struct av_buf query = AV_BUF_INIT(QUERY_MAX);
	const aviary_file_options o = avc_file_options(options);
	struct avc_pipe_spec spec;

	if (avc_file_query(&query, "/files", path, &o) < 0)
		return avc_file_no_path(sb);
	spec = avc_file_pipe(sb, "GET", path, av_buf_cstr(&query), &o);
	spec.rq.timeout_ms = o.timeout_ms ? o.timeout_ms : -1;
	spec.rq.watches_idle = true;
	spec.rq.reply_max = (size_t)AV_MIN(
	    o.max_bytes ? o.max_bytes : READ_DEFAULT, (uint64_t)AVC_MODEL_MAX - READ_DEFAULT / 64);
	spec.rq.opaque = true;
	spec.take = avc_take_text;
	return avc_pipe(&spec);
}

aviary_text *aviary_file_read_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error)
{
	return avc_op_await(aviary_file_read(sb, path, options), &avc_text_type, error);
}

/* ---- to the sandbox ---- */

/* Steals source; NULL: no memory. */
static aviary_op *upload(aviary_sandbox *sb, const char *path, struct avc_end *source, int64_t size,
    const aviary_file_options *options)
{
	AV_CLEANUP(av_buf_clear) struct av_buf query = AV_BUF_INIT(QUERY_MAX);
	const aviary_file_options o = avc_file_options(options);
	struct avc_pipe_spec spec;

	if (avc_file_query(&query, "/files", path, &o) < 0) {
		if (source)
			source->free(source);
		return avc_file_no_path(sb);
	}
	spec = avc_file_pipe(sb, "PUT", path, av_buf_cstr(&query), &o);
	spec.source = source;
	spec.size = size;
	spec.failed = spec.failed || !source;
	return avc_pipe(&spec);
}

aviary_op *aviary_file_write(aviary_sandbox *sb, const char *path, const void *data, size_t size,
    const aviary_file_options *options)
{
	return upload(sb, path, avc_end_memory(data, size), (int64_t)size, options);
}

int aviary_file_write_sync(aviary_sandbox *sb, const char *path, const void *data, size_t size,
    const aviary_file_options *options, aviary_error *error)
{
	return aviary_await(aviary_file_write(sb, path, data, size, options), error);
}

aviary_op *aviary_file_upload(aviary_sandbox *sb, const char *path, aviary_read_fn *fn, void *ctx,
    int64_t size, const aviary_file_options *options)
{
	return upload(sb, path, avc_end_reader(fn, ctx), size < 0 ? -1 : size, options);
}

aviary_op *aviary_file_upload_fd(
    aviary_sandbox *sb, const char *path, int fd, const aviary_file_options *options)
{
	int64_t size = -1;
	struct avc_end *source = avc_end_fd_source(fd, &size);

	return upload(sb, path, source, size, options);
}

int aviary_file_upload_fd_sync(aviary_sandbox *sb, const char *path, int fd,
    const aviary_file_options *options, aviary_error *error)
{
	return aviary_await(aviary_file_upload_fd(sb, path, fd, options), error);
}

/* ---- from the sandbox ---- */

static aviary_op *download(
    aviary_sandbox *sb, const char *path, struct avc_end *sink, const aviary_file_options *options)
{
	AV_CLEANUP(av_buf_clear) struct av_buf query = AV_BUF_INIT(QUERY_MAX);
	const aviary_file_options o = avc_file_options(options);
	struct avc_pipe_spec spec;

	if (avc_file_query(&query, "/files", path, &o) < 0) {
		if (sink)
			sink->free(sink);
		return avc_file_no_path(sb);
	}
	spec = avc_file_pipe(sb, "GET", path, av_buf_cstr(&query), &o);
	spec.sink = sink;
	spec.failed = spec.failed || !sink;
	return avc_pipe(&spec);
}

aviary_op *aviary_file_download(aviary_sandbox *sb, const char *path, aviary_write_fn *fn,
    void *ctx, const aviary_file_options *options)
{
	return download(sb, path, avc_end_writer(fn, ctx), options);
}

aviary_op *aviary_file_download_fd(
    aviary_sandbox *sb, const char *path, int fd, const aviary_file_options *options)
{
	return download(sb, path, avc_end_fd_sink(fd), options);
}

int aviary_file_download_fd_sync(aviary_sandbox *sb, const char *path, int fd,
    const aviary_file_options *options, aviary_error *error)
{
	return aviary_await(aviary_file_download_fd(sb, path, fd, options), error);
}

/* ---- from the API ---- */

static aviary_op *download_any(
    aviary_client *c, const char *path, struct avc_end *sink, const aviary_file_options *options)
{
	const aviary_file_options o = avc_file_options(options);
	const struct avc_pipe_spec spec = {.c = c,
	    .rq = {.method = "GET",
	        .path = path,
	        .timeout_ms = o.timeout_ms,
	        .idle_ms = o.idle_timeout_ms},
	    .size = -1,
	    .sink = sink,
	    .failed = !sink};

	if (avc_path_is_usable(path))
		return avc_pipe(&spec);
	if (sink)
		sink->free(sink);
	return avc_op_failed(c, AVIARY_E_INVALID,
	    "path \"%.200s\" is none: it begins with / and is percent-encoded", path ? path : "");
}

aviary_op *aviary_client_download(aviary_client *c, const char *path, aviary_write_fn *fn,
    void *ctx, const aviary_file_options *options)
{
	return download_any(c, path, avc_end_writer(fn, ctx), options);
}

aviary_op *aviary_client_download_fd(
    aviary_client *c, const char *path, int fd, const aviary_file_options *options)
{
	return download_any(c, path, avc_end_fd_sink(fd), options);
}

int aviary_client_download_fd_sync(aviary_client *c, const char *path, int fd,
    const aviary_file_options *options, aviary_error *error)
{
	return aviary_await(aviary_client_download_fd(c, path, fd, options), error);
}

/* ---- all of them ---- */

void aviary_transfer_resume(aviary_op *op)
{
	if (!op->c)
		return;
	avc_lock(op->c);
	avc_pipe_resume(op);
	avc_unlock(op->c);
}

void aviary_transfer_progress(const aviary_op *op, int64_t *ret_done, int64_t *ret_total)
{
	if (op->c)
		avc_lock(op->c);
	if (ret_done)
		*ret_done = op->moved;
	if (ret_total)
		*ret_total = op->c ? op->total : -1;
	if (op->c)
		avc_unlock(op->c);
}
