/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar_put.c - PUT /files/tar: a tar archive unpacked below a directory, as it comes
 *
 * Theory of operation. Body bytes are collected in blocks by the loop while a job of the thread
 * pool unpacks the blocks before (unpack.h); the client's window opens again only when its bytes
 * are dealt with, so at most one window is held. When the body has ended, directories get their
 * modes and times in slices.
 *
 * Answer: 200 {"entries","bytes","skipped"}. What an archive that is refused has unpacked so far
 * stays.
 *
 * States: receiving → settling → answered (rq is NULL). The struct lives as long as the stream or a
 * job needs it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/fsjob.h"
#include "agent/fsop.h"
#include "agent/handlers.h"
#include "agent/memory.h"
#include "base/avtime.h"
#include "tree/unpack.h"

#include "base/banned.h"

#define BLOCK_BYTES ((size_t)256 * 1024)

struct block {
	struct av_list node;
	size_t n;
	uint8_t data[BLOCK_BYTES];
};

struct tar_put {
	struct request *rq; /* NULL once answered or closed */
	uv_work_t work;
	bool working;
	struct agent_user user;
	char path[AV_PATH_MAX + 1];
	struct av_list blocks; /* collected by the loop */
	struct block *newest;  /* of them, or NULL */
	size_t bytes;          /* in them */
	bool body_ended;
	/* The job's while working: */
	struct av_list batch;
	size_t batch_bytes;
	bool last;   /* nothing comes behind the batch */
	bool opened; /* u is in use */
	bool settling, done;
	struct unpack unpack;
	int error;
	struct av_err err;
};

static void free_blocks(struct av_list *l)
{
	struct block *b;

	AV_LIST_FOREACH(b, l, struct block, node)
	free(b);
	av_list_init(l);
}

static void put_free(struct tar_put *t, struct agent *a)
{
	free_blocks(&t->blocks);
	free_blocks(&t->batch);
	memory_trim_later(a);
	fsjob_leave(a, t);
}

/* --- on a thread of the pool --- */

/* The directory, made with its parents when it is missing. */
static int open_dest(const char *path, struct av_err *err)
{
	int fd = fsop_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);

	if (fd == -ENOENT) {
		int r = fsop_make_parents(path);

		if (r < 0 || (mkdir(path, 0755) < 0 && errno != EEXIST))
			return fsop_explain(r < 0 ? r : errno, path, err);
		fd = fsop_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
	}
	return fd < 0 ? fsop_explain(fd, path, err) : fd;
}

static int unpack_batch(struct tar_put *t)
{
	static const struct unpack_options options = {.explain = fsop_explain};
	struct block *b;
	int r = 0;

	if (!t->opened) {
		t->opened = true;
		r = open_dest(t->path, &t->err);
		unpack_init(&t->unpack, r, &options);
		r = r < 0 ? r : 0;
	}
	AV_LIST_FOREACH(b, &t->batch, struct block, node)
	{
		if (r == 0)
			r = unpack_feed(&t->unpack, b->data, b->n, &t->err);
	}
	if (r == 0 && t->last) {
		r = unpack_end(&t->unpack, &t->err);
		t->settling = r == 0;
	}
	return r;
}

static void work_batch(uv_work_t *work)
{
	struct tar_put *t = AV_CONTAINER_OF(work, struct tar_put, work);
	int64_t until = av_mono_ns() + WALK_SLICE_NS;
	int r = fsop_become(&t->user);

	if (r < 0)
		t->error = fsop_explain(r, t->path, &t->err);
	else if (!t->settling)
		t->error = unpack_batch(t);
	while (t->settling && !t->done && av_mono_ns() < until)
		t->done = unpack_settle(&t->unpack) == 0;
	if ((t->error < 0 || t->done) && t->opened) {
		t->opened = false;
		unpack_close(&t->unpack);
	}
	fsop_become_self();
}

static void work_close(uv_work_t *work)
{
	struct tar_put *t = AV_CONTAINER_OF(work, struct tar_put, work);
	int r = fsop_become(&t->user);

	(void)r;
	unpack_close(&t->unpack);
	fsop_become_self();
}

/* --- on the loop --- */

static void after_close(uv_work_t *work, int status)
{
	(void)status;
	put_free(AV_CONTAINER_OF(work, struct tar_put, work),
	    AV_CONTAINER_OF(work->loop, struct agent, loop));
}

/* The stream is gone or answered and no job runs. */
static void put_release(struct tar_put *t, struct agent *a)
{
	if (t->opened && uv_queue_work(&a->loop, &t->work, work_close, after_close) == 0)
		return;
	if (t->opened)
		unpack_close(&t->unpack);
	put_free(t, a);
}

static void answer(struct tar_put *t)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(256);
	struct request *rq = AV_TAKE_PTR(t->rq);

	rq->data = NULL;
	free_blocks(&t->blocks);
	t->newest = NULL;
	if (t->error < 0) {
		request_fail_err(rq, &t->err);
		return;
	}
	av_buf_printf(&out,
	    "{\"entries\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"skipped\":%" PRIu64 "}",
	    t->unpack.entries, t->unpack.bytes, t->unpack.skipped);
	request_reply(rq, 200, AV_AGENT_CT_JSON, av_buf_str(&out));
}

static void after_batch(uv_work_t *work, int status);

static void run_batch(struct tar_put *t)
{
	if (t->working || (av_list_empty(&t->blocks) && !t->body_ended))
		return;
	while (!av_list_empty(&t->blocks)) {
		struct av_list *n = t->blocks.next;

		av_list_remove(n);
		av_list_append(&t->batch, n);
	}
	t->newest = NULL;
	t->batch_bytes = t->bytes;
	t->bytes = 0;
	t->last = t->body_ended;
	t->working = true;
	if (uv_queue_work(&t->rq->agent->loop, &t->work, work_batch, after_batch) < 0) {
		t->working = false;
		request_reset(t->rq, AV_HTTP2_INTERNAL_ERROR);
	}
}

static void after_batch(uv_work_t *work, int status)
{
	struct tar_put *t = AV_CONTAINER_OF(work, struct tar_put, work);
	struct agent *a = AV_CONTAINER_OF(work->loop, struct agent, loop);

	(void)status;
	t->working = false;
	free_blocks(&t->batch);
	if (t->rq && (t->error < 0 || t->done))
		answer(t);
	if (!t->rq) {
		put_release(t, a);
		return;
	}
	request_consume(t->rq, t->batch_bytes);
	t->batch_bytes = 0;
	run_batch(t);
}

static void put_body(struct request *rq, const uint8_t *p, size_t n)
{
	struct tar_put *t = rq->data;

	t->bytes += n;
	while (n) {
		struct block *b = t->newest;
		size_t take;

		if (!b || b->n == BLOCK_BYTES) {
			b = malloc(sizeof(*b));
			if (!b) {
				request_reset(rq, AV_HTTP2_INTERNAL_ERROR);
				return;
			}
			b->n = 0;
			av_list_append(&t->blocks, &b->node);
			t->newest = b;
		}
		take = AV_MIN(n, BLOCK_BYTES - b->n);
		memcpy(b->data + b->n, p, take);
		b->n += take;
		p += take;
		n -= take;
	}
	request_want_turn(rq);
}

static void put_turn(struct request *rq)
{
	run_batch(rq->data);
}

static void put_end(struct request *rq)
{
	struct tar_put *t = rq->data;

	t->body_ended = true;
	run_batch(t);
}

static void put_close(struct request *rq, uint32_t error)
{
	struct tar_put *t = rq->data;

	(void)error;
	t->rq = NULL;
	if (!t->working)
		put_release(t, rq->agent);
}

static const struct request_ops put_ops = {
    .on_body = put_body, .on_end = put_end, .on_turn = put_turn, .on_close = put_close};

void tar_put(struct request *rq)
{
	struct tar_put *t = fsjob_place_http(rq, sizeof(*t));

	if (!t)
		return;
	t->rq = rq;
	av_list_init(&t->blocks);
	av_list_init(&t->batch);
	if (!fs_query_target(rq, &t->user, t->path)) {
		put_free(t, rq->agent);
		return;
	}
	rq->data = t;
	rq->ops = &put_ops;
}
