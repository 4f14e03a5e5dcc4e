/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.c - reading a file or a tree out of a sandbox, at the pace of the client
 *
 * The agent's answer flows through: what the client does not take fills its watermark, then the
 * agent's HTTP/2 window, then the agent stops reading. A file that breaks off in the middle breaks
 * the connection off, so that nobody takes a part for the whole.
 */
#include "api/native/native.h"

#include <errno.h>
#include <stdlib.h>

#include "api/request.h"
#include "base/codec.h"
#include "base/num.h"
#include "base/path.h"
#include "control/exec.h"
#include "base/banned.h"

#define DISPOSITION_MAX (3 * AV_NAME_MAX + 64)

/* rq->state of a download. */
struct download {
	struct node_stream *stream; /* NULL after its end */
	bool tar;
	/* For who has no key but a signed URL, likely in a browser: to be saved under this name. */
	struct av_buf disposition;
};

static void download_gone(struct api_request *rq, int status)
{
	struct download *d = rq->state;

	(void)status;
	if (d->stream)
		node_stream_cancel(d->stream);
	av_buf_clear(&d->disposition);
	free(d);
}

static int64_t content_length(const struct node_header *h, size_t n)
{
	uint64_t v;

	for (size_t i = 0; i < n; i++)
		if (av_str_eq_c(h[i].name, "content-length") &&
		    av_parse_u64(h[i].value, 0, INT64_MAX, &v) == 0)
			return (int64_t)v;
	return -1;
}

static void on_head(void *ctx, int status, const struct node_header *h, size_t n)
{
	struct api_request *rq = ctx;
	const struct download *d = rq->state;
	const struct av_http_header headers[] = {
	    {.name = AV_STR("content-type"),
	        .value = d->tar ? AV_STR("application/x-tar") : AV_STR("application/octet-stream")},
	    {.name = AV_STR("content-disposition"), .value = av_buf_str(&d->disposition)},
	    {.name = AV_STR("x-content-type-options"), .value = AV_STR("nosniff")},
	};

	(void)status; /* always 200 */
	/* A client may rest for as long as it likes: a window is all that waits for it. */
	av_res_set_write_timeout(rq->req, 0);
	api_started(rq, 200);
	(void)av_res_start(rq->req, 200, headers, d->disposition.n ? AV_ARRAY_LEN(headers) : 1,
	    content_length(h, n));
}

static void on_data(void *ctx, struct av_str data)
{
	struct api_request *rq = ctx;
	struct download *d = rq->state;
	int r = av_res_write(rq->req, data);

	rq->api->metrics.download_bytes += data.n;

	if (r > 0)
		node_stream_pause(d->stream, true);
	if (r >= 0)
		return;
	node_stream_cancel(AV_TAKE_PTR(d->stream));
	av_res_abort(rq->req);
}

static void on_end(void *ctx, const struct av_err *err)
{
	struct api_request *rq = ctx;
	struct download *d = rq->state;

	d->stream = NULL;
	if (!av_res_started(rq->req)) {
		if (err)
			api_send_err(rq, err);
		else
			api_send_empty(rq, 200);
	} else if (err) {
		av_res_abort(rq->req);
	} else {
		api_metrics_timed(&rq->api->metrics, API_TIMING_DOWNLOAD, av_req_start_ns(rq->req));
		(void)av_res_end(rq->req);
	}
}

static const struct node_stream_events download_events = {
    .on_head = on_head, .on_data = on_data, .on_end = on_end};

static void download_drain(struct api_request *rq)
{
	struct download *d = rq->state;

	if (d->stream)
		node_stream_pause(d->stream, false);
}

static void download(struct api_request *rq, struct av_str path, const char *user, bool tar)
{
	struct download *d;
	struct av_err err;

	if (path.n == 0 || path.n > AV_PATH_MAX) {
		(void)av_err_set(&err, AV_ERR_INVALID,
		    "'path' must name what to read, with 1 to %d bytes", AV_PATH_MAX);
		api_send_err(rq, &err);
		return;
	}
	d = calloc(1, sizeof *d);
	if (!d) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return;
	}
	d->tar = tar;
	av_buf_init(&d->disposition, DISPOSITION_MAX);
	if (rq->match.route->auth == API_AUTH_TOKEN) {
		(void)av_buf_append_c(&d->disposition, "attachment; filename*=UTF-8''");
		(void)av_percent_encode(&d->disposition, av_path_base(path), false);
	}
	if ((tar ? control_tar_read : control_file_read)(rq->api->control, &rq->actor, rq->id, path,
	        user, &download_events, rq, &d->stream, &err) < 0) {
		av_buf_clear(&d->disposition);
		free(d);
		api_send_err(rq, &err);
		return;
	}
	rq->state = d;
	rq->on_gone = download_gone;
	rq->on_drain = download_drain;
}

/* POST {"path","user"} */
void native_file_read(struct api_request *rq)
{
	const char *path = "", *user = NULL;
	struct av_err err;

	if (av_json_get_str(rq->body, "path", &path, &err) < 0 ||
	    av_json_get_str(rq->body, "user", &user, &err) < 0)
		api_send_err(rq, &err);
	else
		download(rq, av_str_c(path), user, false);
}

/* ?path=&user= */
static void download_query(struct api_request *rq, bool tar)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(AV_PATH_MAX + 1);
	AV_CLEANUP(av_buf_clear) struct av_buf user = AV_BUF_INIT(64);
	struct av_err err;
	int r = api_query(rq, "path", &path, &err);

	if (r == 0 || r == -ENOENT)
		r = api_query(rq, "user", &user, &err);
	if (r < 0 && r != -ENOENT)
		api_send_err(rq, &err);
	else
		download(rq, av_buf_str(&path), r == 0 ? av_buf_cstr(&user) : NULL, tar);
}

void native_file_get(struct api_request *rq)
{
	download_query(rq, false);
}

void native_tar_get(struct api_request *rq)
{
	download_query(rq, true);
}
