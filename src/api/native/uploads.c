/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uploads.c - writing into a sandbox: a raw body, a tar archive, or a multipart form as a stream
 *
 * Either way the bytes go to the agent as they come, and its window sets the pace: memory does not
 * depend on the size. In a form the part "path" must therefore stand before the part "file"; other
 * parts are skipped. The file is finished only after the whole body was well-formed, so that a cut
 * upload is never answered as done.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "api/request.h"
#include "base/path.h"
#include "control/exec.h"
#include "control/sandbox.h"
#include "proto/multipart.h"
#include "base/banned.h"

#define ANSWER_MAX 4096

enum part { PART_OTHER, PART_PATH, PART_FILE };

/* rq->state of an upload. */
struct upload {
	struct api_request *rq;
	struct node_stream *stream; /* NULL before it is opened and after its end */
	bool opened;
	bool paused; /* the client waits for the agent */
	/* forms only */
	struct av_multipart *form; /* owned */
	enum part part;
	struct av_buf path;
	struct av_err err; /* of an event */
	/* archives only */
	bool tar;
	struct av_buf answer; /* the agent's */
};

static void upload_gone(struct api_request *rq, int status)
{
	struct upload *u = rq->state;

	(void)status;
	if (u->stream)
		node_stream_cancel(u->stream);
	av_multipart_free(u->form);
	av_buf_clear(&u->path);
	av_buf_clear(&u->answer);
	free(u);
}

/* The answer is an error and nothing of this upload goes on. */
static void upload_fail(struct upload *u, const struct av_err *err)
{
	if (u->stream)
		node_stream_cancel(AV_TAKE_PTR(u->stream));
	u->rq->on_body = NULL;
	u->rq->on_body_end = NULL;
	api_send_err(u->rq, err);
}

static void on_head(void *ctx, int status, const struct node_header *h, size_t n)
{
	(void)ctx;
	(void)status;
	(void)h;
	(void)n;
}

static void on_data(void *ctx, struct av_str data)
{
	struct upload *u = ctx;

	if (u->tar)
		(void)av_buf_append_str(&u->answer, data);
}

static void on_drain(void *ctx)
{
	struct upload *u = ctx;

	u->paused = false;
	av_req_body_resume(u->rq->req);
}

/* What was unpacked: three numbers, read and written anew. */
static void send_unpacked(struct upload *u)
{
	static const char *const names[] = {"entries", "bytes", "skipped"};
	AV_CLEANUP(av_json_decrefp)
	json_t *answer = av_json_parse_object(av_buf_str(&u->answer), NULL);
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(256);

	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++) {
		int64_t n = -1;

		if (!answer || av_json_get_i64(answer, names[i], 0, INT64_MAX, &n, NULL) < 0 ||
		    n < 0) {
			(void)av_err_set(&u->err, AV_ERR_AGENT,
			    "the sandbox's agent does not say what it has unpacked");
			upload_fail(u, &u->err);
			return;
		}
		(void)av_buf_printf(&out, "%c\"%s\":%" PRId64, i ? ',' : '{', names[i], n);
	}
	(void)av_buf_append_char(&out, '}');
	api_send_json(u->rq, 200, &out);
}

static void on_end(void *ctx, const struct av_err *err)
{
	struct upload *u = ctx;

	u->stream = NULL;
	if (!err)
		api_metrics_timed(
		    &u->rq->api->metrics, API_TIMING_UPLOAD, av_req_start_ns(u->rq->req));
	if (err)
		upload_fail(u, err);
	else if (u->tar)
		send_unpacked(u);
	else
		api_send_empty(u->rq, 204);
}

static const struct node_stream_events upload_events = {
    .on_head = on_head, .on_data = on_data, .on_drain = on_drain, .on_end = on_end};

static int check_path(struct av_str path, struct av_err *err)
{
	if (path.n == 0 || path.n > AV_PATH_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "'path' must name what to write, with 1 to %d bytes", AV_PATH_MAX);
	if (av_str_has_nul(path))
		return av_err_set(err, AV_ERR_INVALID, "'path' contains a NUL byte");
	return 0;
}

static int upload_open(struct upload *u, struct av_str path, const char *user, struct av_err *err)
{
	struct api_request *rq = u->rq;
	int r = check_path(path, err);

	if (r == 0)
		r = (u->tar ? control_tar_write : control_file_write)(rq->api->control, &rq->actor,
		    rq->id, path, user, &upload_events, u, &u->stream, err);
	u->opened = r == 0;
	return r;
}

static void upload_send(struct upload *u, struct av_str data)
{
	u->rq->api->metrics.upload_bytes += data.n;
	if (!u->stream || node_stream_send(u->stream, data) || u->paused)
		return;
	u->paused = true;
	av_req_body_pause(u->rq->req);
}

/* ---- raw ---- */

static void raw_body(struct api_request *rq, struct av_str data)
{
	upload_send(rq->state, data);
}

static void raw_end(struct api_request *rq)
{
	struct upload *u = rq->state;

	if (u->stream)
		node_stream_finish(u->stream);
}

/* ---- form ---- */

static int form_part(void *ctx, const struct av_multipart_part *part)
{
	struct upload *u = ctx;

	u->part = PART_OTHER;
	if (av_str_eq_c(part->name, "path")) {
		u->part = PART_PATH;
		if (u->opened || u->path.n)
			return av_err_set(&u->err, AV_ERR_INVALID,
			    "the form must have one part 'path', before the part 'file'");
	} else if (av_str_eq_c(part->name, "file")) {
		u->part = PART_FILE;
		if (u->opened)
			return av_err_set(
			    &u->err, AV_ERR_INVALID, "the form has more than one part 'file'");
		if (u->path.n == 0)
			return av_err_set(&u->err, AV_ERR_INVALID,
			    "the part 'path' must come before the part 'file'");
		return upload_open(u, av_buf_str(&u->path), NULL, &u->err);
	}
	return 0;
}

static int form_data(void *ctx, const uint8_t *p, size_t n)
{
	struct upload *u = ctx;

	if (u->part == PART_FILE)
		upload_send(u, av_str_n((const char *)p, n));
	else if (u->part == PART_PATH && av_buf_append(&u->path, p, n) < 0)
		return av_err_set(
		    &u->err, AV_ERR_INVALID, "the part 'path' has more than %d bytes", AV_PATH_MAX);
	return 0;
}

static int form_part_end(void *ctx)
{
	struct upload *u = ctx;

	return u->part == PART_PATH ? check_path(av_buf_str(&u->path), &u->err) : 0;
}

static const struct av_multipart_events form_events = {
    .on_part = form_part, .on_data = form_data, .on_part_end = form_part_end};

static void form_body(struct api_request *rq, struct av_str data)
{
	struct upload *u = rq->state;

	if (av_multipart_feed(u->form, data.p, data.n, &form_events, u, &u->err) < 0)
		upload_fail(u, &u->err);
}

static void form_end(struct api_request *rq)
{
	struct upload *u = rq->state;

	if (av_multipart_finish(u->form, &u->err) < 0) {
		upload_fail(u, &u->err);
	} else if (!u->opened) {
		(void)av_err_set(&u->err, AV_ERR_INVALID,
		    "the form has no part 'file'; send the parts 'path' and then 'file'");
		upload_fail(u, &u->err);
	} else if (u->stream) {
		node_stream_finish(u->stream);
	}
}

/* ---- starting ---- */

static struct upload *upload_new(struct api_request *rq)
{
	struct upload *u = calloc(1, sizeof *u);
	struct av_err err;

	if (!u) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return NULL;
	}
	u->rq = rq;
	av_buf_init(&u->path, AV_PATH_MAX);
	av_buf_init(&u->answer, ANSWER_MAX);
	rq->state = u;
	rq->on_gone = upload_gone;
	return u;
}

static void upload_read(struct upload *u)
{
	uint64_t limit = u->rq->match.route->limit;

	if (av_req_body_start(u->rq->req, limit ? limit : UINT64_MAX) != -EMSGSIZE)
		return;
	(void)av_err_set(&u->err, AV_ERR_TOO_LARGE,
	    "the body has %" PRId64 " bytes; at most %" PRIu64
	    " are taken here, and any number by files/stream/write",
	    av_req_content_length(u->rq->req), limit);
	upload_fail(u, &u->err);
}

/* PUT ?path=&user= */
static void upload_raw(struct api_request *rq, bool tar)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(AV_PATH_MAX + 1);
	AV_CLEANUP(av_buf_clear) struct av_buf user = AV_BUF_INIT(64);
	struct upload *u = upload_new(rq);
	int r;

	if (!u)
		return;
	u->tar = tar;
	r = api_query(rq, "path", &path, &u->err);
	if (r == 0 || r == -ENOENT)
		r = api_query(rq, "user", &user, &u->err);
	if (r == 0 || r == -ENOENT)
		r = upload_open(u, av_buf_str(&path), r == 0 ? av_buf_cstr(&user) : NULL, &u->err);
	if (r < 0) {
		upload_fail(u, &u->err);
		return;
	}
	rq->on_body = raw_body;
	rq->on_body_end = raw_end;
	upload_read(u);
}

void native_file_put(struct api_request *rq)
{
	upload_raw(rq, false);
}

void native_tar_put(struct api_request *rq)
{
	upload_raw(rq, true);
}

/* POST multipart/form-data; the limit is the route's */
void native_file_write(struct api_request *rq)
{
	struct upload *u = upload_new(rq);
	struct av_str type = AV_STR("");

	if (!u)
		return;
	(void)av_req_header(rq->req, "content-type", &type);
	/* Before anything is read: is there somebody to send it to? */
	if (av_multipart_new(type, &u->form, &u->err) < 0 ||
	    control_expect(rq->api->control, &rq->actor, rq->id, &u->err) < 0) {
		upload_fail(u, &u->err);
		return;
	}
	rq->on_body = form_body;
	rq->on_body_end = form_end;
	upload_read(u);
}
