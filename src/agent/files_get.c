/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files_get.c - GET /files: downloads, whole or one range
 *
 * A thread of the pool opens the file and reads blocks of BLOCK_BYTES; the loop sends each without
 * a copy and asks for the next one while fewer than AHEAD_BYTES wait, so that reading and sending
 * overlap and memory stays constant. The length is promised from the file's size; a file that
 * shrinks meanwhile ends in a reset. Files without a size (procfs) are read to their end, up to
 * UNSIZED_MAX, and sent without a length.
 *
 * States: opening → sending (a read may be under way) → closed. The struct lives as long as the
 * stream or a job of the pool needs it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/fsop.h"
#include "agent/handlers.h"
#include "agent/memory.h"
#include "base/codec.h"
#include "base/fd.h"
#include "base/num.h"

#include "base/banned.h"

#define BLOCK_BYTES ((size_t)256 * 1024)
#define AHEAD_BYTES ((size_t)512 * 1024)
#define UNSIZED_MAX ((size_t)64 * 1024 * 1024)

struct download {
	struct request *rq; /* NULL once the stream is closed */
	uv_work_t work;
	bool working; /* a job of the pool has the struct */
	bool begun;   /* the response has its head */
	bool unsized;
	struct agent_user user;
	char path[AV_PATH_MAX + 1];
	int fd;
	struct stat st;
	int64_t at, end;              /* next byte to read, and behind the last one */
	struct av_http2_block *block; /* what the job has read */
	int error;                    /* of the job, -errno; err says it in words */
	struct av_err err;
};

static void download_free(struct download *d)
{
	av_close_fd(&d->fd);
	if (d->block)
		av_http2_block_unref(d->block);
	free(d);
}

/* --- on a thread of the pool --- */

static void read_block(struct download *d)
{
	int64_t want = AV_MIN((int64_t)BLOCK_BYTES, d->end - d->at);
	struct av_http2_block *b;
	ssize_t n;

	if (want <= 0)
		return;
	b = av_http2_block_new((uint32_t)want);
	if (!b) {
		d->error = -ENOMEM;
		return;
	}
	do {
		n = pread(d->fd, b->data, (size_t)want, d->at);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		d->error = -errno;
		av_http2_block_unref(b);
		return;
	}
	b->n = (uint32_t)n;
	d->at += n;
	d->block = b;
}

/* The first job: opens, and reads a block where no range can be meant. */
static void work_open(uv_work_t *work)
{
	struct download *d = AV_CONTAINER_OF(work, struct download, work);

	d->error = fsop_open_read(&d->user, d->path, &d->fd, &d->st, &d->err);
	if (d->error < 0)
		return;
	d->unsized = d->st.st_size == 0;
	d->end = d->unsized ? (int64_t)UNSIZED_MAX : d->st.st_size;
	if (!d->unsized)
		return;
	read_block(d);
	if (d->error < 0)
		av_err_sys(&d->err, AV_ERR_INTERNAL, d->error, "path '%s'", d->path);
}

static void work_read(uv_work_t *work)
{
	read_block(AV_CONTAINER_OF(work, struct download, work));
}

/* --- on the loop --- */

static void after_read(uv_work_t *work, int status);

static void next_block(struct download *d)
{
	if (d->working || d->at >= d->end || av_http2_buffered(d->rq->stream) > AHEAD_BYTES)
		return;
	d->working = true;
	if (uv_queue_work(&d->rq->agent->loop, &d->work, work_read, after_read) < 0) {
		d->working = false;
		request_reset(d->rq, AV_HTTP2_INTERNAL_ERROR);
	}
}

/* Sends what was read; false when the body is complete or the stream was reset. */
static bool send_block(struct download *d)
{
	struct av_http2_block *b = AV_TAKE_PTR(d->block);
	uint32_t n = b ? b->n : 0;

	if (n == 0 && b)
		av_http2_block_unref(b);
	if (n && !request_send_block(d->rq, b))
		return false;
	if (d->unsized ? n && d->at >= d->end : n == 0 && d->at < d->end) {
		/* Longer than we read without knowing the size, or shorter than promised. */
		request_reset(d->rq, AV_HTTP2_INTERNAL_ERROR);
		return false;
	}
	if (n == 0 || d->at >= d->end) {
		request_finish_all(d->rq);
		return false;
	}
	return true;
}

static void after_read(uv_work_t *work, int status)
{
	struct download *d = AV_CONTAINER_OF(work, struct download, work);

	(void)status;
	d->working = false;
	if (!d->rq) {
		download_free(d);
		return;
	}
	if (d->error < 0)
		request_reset(d->rq, AV_HTTP2_INTERNAL_ERROR);
	else if (send_block(d))
		next_block(d);
}

/* "bytes=a-b", "bytes=a-", "bytes=-n": 1 and the bounds; 0 to send everything (no header, or a form
 * that need not be honoured); -ERANGE when nothing of the file is in it. */
static int parse_range(const struct av_str *h, int64_t size, int64_t *ret_at, int64_t *ret_end)
{
	struct av_str last, first;
	uint64_t a = 0, b = INT64_MAX - 1;

	if (!h || !av_str_starts(*h, AV_STR("bytes=")))
		return 0;
	last = av_str_n(h->p + 6, h->n - 6);
	if (!av_str_cut(&last, '-', &first) || (first.n == 0 && last.n == 0))
		return 0;
	if ((first.n && av_parse_u64(first, 0, INT64_MAX - 1, &a) < 0) ||
	    (last.n && av_parse_u64(last, 0, INT64_MAX - 1, &b) < 0))
		return 0;
	if (first.n == 0) {
		a = (int64_t)b < size ? (uint64_t)size - b : 0;
		b = b ? (uint64_t)size - 1 : 0;
	}
	if ((int64_t)a >= size)
		return -ERANGE;
	if (b < a)
		return 0;
	*ret_at = (int64_t)a;
	*ret_end = (int64_t)b + 1 < size ? (int64_t)b + 1 : size;
	return 1;
}

/* inline; filename*=UTF-8''percent-encoded: any byte a file name can have survives it. */
static int add_disposition(struct av_http_head *head, const char *path)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1024);

	av_buf_append_c(&out, "inline; filename*=UTF-8''");
	av_percent_encode(&out, av_path_base(av_str_c(path)), false);
	if (av_buf_error(&out) < 0)
		return 0;
	return av_http_head_add(head, AV_STR("content-disposition"), av_buf_str(&out));
}

static void refuse_range(struct download *d)
{
	struct av_http_head head;
	char text[48];

	snprintf(text, sizeof(text), "bytes */%lld", (long long)d->st.st_size);
	av_http_head_response(&head, 416);
	head.content_length = 0;
	if (av_http_head_add_c(&head, "content-range", text) < 0 || !request_begin(d->rq, &head))
		request_reset(d->rq, AV_HTTP2_INTERNAL_ERROR);
	else
		request_finish_all(d->rq);
	av_http_head_clear(&head);
}

static void begin_response(struct download *d)
{
	const struct av_str *range = av_http_head_get(&d->rq->head, "range");
	int partial = d->unsized ? 0 : parse_range(range, d->st.st_size, &d->at, &d->end);
	struct av_http_head head;
	char text[80];
	int r;

	if (partial == -ERANGE) {
		d->at = d->end = 0;
		refuse_range(d);
		return;
	}
	av_http_head_response(&head, partial ? 206 : 200);
	if (!d->unsized)
		head.content_length = d->end - d->at;
	else if (d->at == 0)
		head.content_length = 0;
	r = av_http_head_add_c(&head, "content-type", "application/octet-stream");
	if (r == 0 && !d->unsized)
		r = av_http_head_add_c(&head, "accept-ranges", "bytes");
	if (r == 0 && partial) {
		snprintf(text, sizeof(text), "bytes %lld-%lld/%lld", (long long)d->at,
		    (long long)d->end - 1, (long long)d->st.st_size);
		r = av_http_head_add_c(&head, "content-range", text);
	}
	if (r == 0)
		r = add_disposition(&head, d->path);
	if (r < 0 || !request_begin(d->rq, &head))
		request_reset(d->rq, AV_HTTP2_INTERNAL_ERROR);
	else if (!d->unsized || send_block(d))
		next_block(d);
	av_http_head_clear(&head);
}

static void after_open(uv_work_t *work, int status)
{
	struct download *d = AV_CONTAINER_OF(work, struct download, work);

	(void)status;
	d->working = false;
	if (!d->rq) {
		download_free(d);
		return;
	}
	if (d->error < 0) {
		struct request *rq = d->rq;

		request_fail_err(rq, &d->err);
		download_free(d);
		return;
	}
	d->begun = true;
	begin_response(d);
}

static void get_body(struct request *rq, const uint8_t *p, size_t n)
{
	(void)p;
	request_consume(rq, n);
}

static void get_drain(struct request *rq)
{
	struct download *d = rq->data;

	if (d->begun)
		next_block(d);
}

static void get_close(struct request *rq, uint32_t error)
{
	struct download *d = rq->data;

	(void)error;
	d->rq = NULL;
	memory_trim_later(rq->agent);
	if (!d->working)
		download_free(d);
}

static const struct request_ops get_ops = {
    .on_body = get_body,
    .on_drain = get_drain,
    .on_close = get_close,
};

void files_get(struct request *rq)
{
	char name[AGENT_USER_NAME_MAX + 1], path[AV_PATH_MAX + 1];
	struct download *d;
	struct av_err err;

	if (!request_query(rq, "username", name, sizeof(name)) ||
	    !request_query(rq, "path", path, sizeof(path)))
		return;
	d = calloc(1, sizeof(*d));
	if (!d) {
		request_fail(rq, 503, "out of memory in the sandbox's agent");
		return;
	}
	d->rq = rq;
	d->fd = -1;
	if (agent_find_user(rq->agent, name, &d->user, &err) < 0) {
		request_fail(
		    rq, 401, "error looking up user '%s': user: unknown user %s", name, name);
		free(d);
		return;
	}
	if (agent_resolve_path(rq->agent, &d->user, av_str_c(path), d->path, &err) < 0) {
		request_fail_err(rq, &err);
		free(d);
		return;
	}
	rq->data = d;
	rq->ops = &get_ops;
	d->working = true;
	if (uv_queue_work(&rq->agent->loop, &d->work, work_open, after_open) < 0) {
		request_fail(rq, 503, "the sandbox cannot start a thread");
		free(d);
	}
}
