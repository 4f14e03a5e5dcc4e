/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files_post.c - POST /files: uploads, as raw body or multipart/form-data
 *
 * Theory of operation
 *
 * The body is turned into a list of steps: open a file, write a block, close. While a job of the
 * thread pool runs one batch of steps, the loop collects the next. The client's window opens again
 * only when its bytes are written, so at most one window of bytes is held and memory stays
 * constant. Small files come as one block, hence one write(2), as watchers inside expect.
 *
 * A file is written under its final name, since watchers of E2B's clients count the events that
 * this gives. If the upload does not come to its end (client gone, disk full), a file that it
 * created is removed and one that was there before is left empty: half a file never stays behind.
 *
 * States: receiving → answered (rq is NULL; after a failure the rest of the body is dropped). The
 * struct lives as long as it is receiving or a job needs it.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/fsop.h"
#include "agent/handlers.h"
#include "agent/memory.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/map.h"
#include "proto/multipart.h"

#include "base/banned.h"

#define BLOCK_BYTES ((size_t)256 * 1024)
#define PAGE_BYTES  ((size_t)4096)
#define ANSWER_MAX  ((size_t)8 * 1024 * 1024)

enum step_kind { STEP_OPEN, STEP_WRITE, STEP_CLOSE };

struct step {
	struct av_list node;
	enum step_kind kind;
	size_t n, cap;
	char data[]; /* the path with NUL, or bytes to write */
};

struct upload {
	struct request *rq; /* NULL once the stream is closed */
	uv_work_t work;
	bool working;
	atomic_bool broken_off; /* the stream was closed within the body: nobody wants the rest */
	struct agent_user user;
	char path[AV_PATH_MAX + 1];     /* of the query, resolved; "" if there was none */
	struct av_multipart *multipart; /* owned; NULL for a raw body */
	bool in_part, body_ended;
	struct av_list steps; /* collected by the loop */
	struct step *last;    /* of steps, or NULL */
	uint64_t collected;   /* bytes of the current file that are in steps or were */
	size_t bytes;         /* body bytes that stand for steps */
	struct av_buf answer; /* JSON of the files so far */
	size_t nfiles;
	struct av_map targets; /* paths of this request; keys are copies owned here */
	/* The job's while working: */
	struct av_list batch;
	size_t batch_bytes;
	int fd; /* of the file being written */
	bool created;
	char *open_path; /* owned */
	int error;       /* -errno; err says it in words */
	struct av_err err;
};

static void free_steps(struct av_list *steps)
{
	struct step *s;

	AV_LIST_FOREACH(s, steps, struct step, node)
	free(s);
	av_list_init(steps);
}

static void upload_free(struct upload *u)
{
	size_t pos = 0;
	char *path;

	free_steps(&u->steps);
	free_steps(&u->batch);
	while ((path = av_map_next(&u->targets, &pos)))
		free(path);
	av_map_clear(&u->targets);
	av_multipart_free(u->multipart);
	av_buf_clear(&u->answer);
	av_close_fd(&u->fd);
	free(u->open_path);
	free(u);
}

/* --- on a thread of the pool --- */

static int step_open(struct upload *u, const struct step *s)
{
	int r;

	free(u->open_path);
	u->open_path = av_str_dup(av_str_c(s->data));
	if (!u->open_path)
		return av_err_set(
		    &u->err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	r = fsop_open_write(&u->user, s->data, &u->fd, &u->created, &u->err);
	return r;
}

static int step_write(struct upload *u, const struct step *s)
{
	int r = av_write_full(u->fd, s->data, s->n);

	return r < 0 ? fsop_explain(r, u->open_path, &u->err) : 0;
}

static int step_close(struct upload *u)
{
	int r = fsop_close_write(AV_TAKE_FD(u->fd));

	return r < 0 ? fsop_explain(r, u->open_path, &u->err) : 0;
}

static void work_batch(uv_work_t *work)
{
	struct upload *u = AV_CONTAINER_OF(work, struct upload, work);
	struct step *s;

	AV_LIST_FOREACH(s, &u->batch, struct step, node)
	{
		/* On a disk that is behind each block may take long. */
		if (atomic_load(&u->broken_off))
			break;
		switch (s->kind) {
		case STEP_OPEN:
			u->error = step_open(u, s);
			break;
		case STEP_WRITE:
			u->error = step_write(u, s);
			break;
		case STEP_CLOSE:
			u->error = step_close(u);
			break;
		}
		if (u->error < 0)
			break;
	}
	if (u->error < 0 && u->fd >= 0)
		fsop_abandon(&u->user, u->open_path, AV_TAKE_FD(u->fd), u->created);
}

static void work_abandon(uv_work_t *work)
{
	struct upload *u = AV_CONTAINER_OF(work, struct upload, work);

	fsop_abandon(&u->user, u->open_path, AV_TAKE_FD(u->fd), u->created);
}

/* --- on the loop --- */

static void after_abandon(uv_work_t *work, int status)
{
	(void)status;
	upload_free(AV_CONTAINER_OF(work, struct upload, work));
}

/* The stream is gone and no job runs: takes back a file that is still open, then frees. */
static void upload_release(struct upload *u, uv_loop_t *loop)
{
	if (u->fd < 0 || uv_queue_work(loop, &u->work, work_abandon, after_abandon) < 0)
		upload_free(u);
}

static void fail(struct upload *u, const struct av_err *err)
{
	if (!u->rq)
		return;
	free_steps(&u->steps);
	u->last = NULL;
	request_fail_err(u->rq, err);
	/* request_fail_err() ends the calls of the request; this struct must go with it all the
	 * same. */
	u->rq->data = NULL;
	u->rq = NULL;
}

/* --- steps --- */

static struct step *new_step(enum step_kind kind, const void *p, size_t n, size_t cap)
{
	struct step *s = malloc(sizeof(*s) + cap);

	if (!s)
		return NULL;
	*s = (struct step){.kind = kind, .n = n, .cap = cap};
	if (n)
		memcpy(s->data, p, n);
	return s;
}

static struct step *add_step(
    struct upload *u, enum step_kind kind, const void *p, size_t n, size_t cap)
{
	struct step *s = new_step(kind, p, n, cap);

	if (!s)
		return NULL;
	av_list_append(&u->steps, &s->node);
	u->last = s;
	return s;
}

static int no_memory(struct av_err *err)
{
	return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
}

static void after_batch(uv_work_t *work, int status);

/* Room of the block that holds the file's byte at pos: blocks end at multiples of their size. */
static size_t block_room(uint64_t pos)
{
	return BLOCK_BYTES - (size_t)(pos % BLOCK_BYTES);
}

/* A write that ends within a page costs some file systems a read when the rest of the page comes.
 * So what lies beyond the last whole page of a long block waits for the next batch, unless there is
 * nothing else to write. Returns a step that is not in a list, or NULL. */
static struct step *take_tail(struct upload *u)
{
	struct step *s = u->last, *t;
	size_t n = (size_t)(u->collected % PAGE_BYTES);

	if (!s || s->kind != STEP_WRITE || n == 0 || s->n <= n)
		return NULL;
	t = new_step(STEP_WRITE, s->data + s->n - n, n, block_room(u->collected - n));
	if (t)
		s->n -= n;
	return t;
}

static void run_batch(struct upload *u)
{
	struct step *tail;

	if (u->working || av_list_empty(&u->steps))
		return;
	tail = take_tail(u);
	while (!av_list_empty(&u->steps)) {
		struct av_list *n = u->steps.next;

		av_list_remove(n);
		av_list_append(&u->batch, n);
	}
	u->last = tail;
	u->batch_bytes = u->bytes - (tail ? tail->n : 0);
	u->bytes -= u->batch_bytes;
	if (tail)
		av_list_append(&u->steps, &tail->node);
	u->working = true;
	if (uv_queue_work(&u->rq->agent->loop, &u->work, work_batch, after_batch) < 0) {
		struct av_err err;

		u->working = false;
		av_err_set(&err, AV_ERR_NO_MEMORY, "the sandbox cannot start a thread");
		fail(u, &err);
	}
}

static void answer(struct upload *u)
{
	struct request *rq = u->rq;

	av_buf_append_char(&u->answer, ']');
	if (av_buf_error(&u->answer) < 0)
		request_fail(rq, 503, "out of memory in the sandbox's agent");
	else
		request_reply(rq, 200, "application/json", av_buf_str(&u->answer));
	rq->data = NULL;
	u->rq = NULL;
}

static void after_batch(uv_work_t *work, int status)
{
	struct upload *u = AV_CONTAINER_OF(work, struct upload, work);
	uv_loop_t *loop = work->loop;

	(void)status;
	u->working = false;
	free_steps(&u->batch);
	if (u->rq && u->error < 0)
		fail(u, &u->err);
	if (!u->rq) {
		upload_release(u, loop);
		return;
	}
	request_consume(u->rq, u->batch_bytes);
	u->batch_bytes = 0;
	if (!av_list_empty(&u->steps)) {
		run_batch(u);
	} else if (u->body_ended) {
		answer(u);
		upload_release(u, loop);
	}
}

/* --- data --- */

/* Appends to the last block as far as it has room. */
static int add_data(struct upload *u, const uint8_t *p, size_t n, struct av_err *err)
{
	while (n) {
		struct step *s = u->last;
		size_t room = s && s->kind == STEP_WRITE ? s->cap - s->n : 0;
		size_t take = AV_MIN(n, room);

		if (take == 0) {
			size_t cap = block_room(u->collected);

			take = AV_MIN(n, cap);
			if (!add_step(u, STEP_WRITE, p, take, cap))
				return no_memory(err);
		} else {
			memcpy(s->data + s->n, p, take);
			s->n += take;
		}
		u->collected += take;
		p += take;
		n -= take;
	}
	return 0;
}

/* Remembers the path; one that was there already is refused. */
static int add_target(struct upload *u, const char *path, struct av_err *err)
{
	char *copy = av_str_dup(av_str_c(path));
	int r = copy ? av_map_put(&u->targets, av_str_c(copy), copy) : -ENOMEM;

	if (r < 0)
		free(copy);
	if (r == -EEXIST)
		return av_err_set(
		    err, AV_ERR_INVALID, "path '%s' is uploaded twice in one request", path);
	return r < 0 ? no_memory(err) : 0;
}

static int begin_file(struct upload *u, const char *path, struct av_err *err)
{
	int r = add_target(u, path, err);

	if (r < 0)
		return r;
	av_buf_append_c(&u->answer, u->nfiles++ ? ",{\"name\":" : "{\"name\":");
	av_json_write_str(&u->answer, av_path_base(av_str_c(path)));
	av_buf_append_c(&u->answer, ",\"path\":");
	av_json_write_str(&u->answer, av_str_c(path));
	av_buf_append_c(&u->answer, ",\"type\":\"file\"}");
	if (av_buf_error(&u->answer) < 0)
		return no_memory(err);
	u->collected = 0;
	return add_step(u, STEP_OPEN, path, strlen(path) + 1, strlen(path) + 1) ? 0
	                                                                        : no_memory(err);
}

static int end_file(struct upload *u, struct av_err *err)
{
	return add_step(u, STEP_CLOSE, NULL, 0, 0) ? 0 : no_memory(err);
}

/* --- multipart --- */

/* Context of one feed: the error is the caller's. */
struct feed {
	struct upload *u;
	struct av_err *err;
};

static int on_part(void *ctx, const struct av_multipart_part *part)
{
	struct feed *f = ctx;
	struct upload *u = f->u;
	char path[AV_PATH_MAX + 1];
	int r;

	u->in_part = av_str_eq_c(part->name, "file");
	if (!u->in_part)
		return 0;
	if (u->path[0])
		return begin_file(u, u->path, f->err);
	if (!part->has_filename || part->filename.n == 0)
		return av_err_set(f->err, AV_ERR_INVALID,
		    "a part has no filename and the request no path query parameter");
	r = agent_resolve_path(u->rq->agent, &u->user, part->filename, path, f->err);
	return r < 0 ? r : begin_file(u, path, f->err);
}

static int on_part_data(void *ctx, const uint8_t *p, size_t n)
{
	struct feed *f = ctx;

	return f->u->in_part ? add_data(f->u, p, n, f->err) : 0;
}

static int on_part_end(void *ctx)
{
	struct feed *f = ctx;
	bool in_part = f->u->in_part;

	f->u->in_part = false;
	return in_part ? end_file(f->u, f->err) : 0;
}

static const struct av_multipart_events part_events = {
    .on_part = on_part,
    .on_data = on_part_data,
    .on_part_end = on_part_end,
};

/* --- the client's side --- */

static void post_body(struct request *rq, const uint8_t *p, size_t n)
{
	struct upload *u = rq->data;
	struct av_err err = {0};
	struct feed f = {u, &err};
	int r;

	r = u->multipart ? av_multipart_feed(u->multipart, p, n, &part_events, &f, &err)
	                 : add_data(u, p, n, &err);
	if (r < 0) {
		uv_loop_t *loop = &rq->agent->loop;

		fail(u, &err);
		if (!u->working)
			upload_release(u, loop);
		return;
	}
	if (av_list_empty(&u->steps)) {
		request_consume(rq, n);
		return;
	}
	u->bytes += n;
	/* What else this turn brings goes into the same blocks: small files become one write. */
	request_want_turn(rq);
}

static void post_turn(struct request *rq)
{
	run_batch(rq->data);
}

static void post_end(struct request *rq)
{
	struct upload *u = rq->data;
	uv_loop_t *loop = &rq->agent->loop;
	struct av_err err = {0};
	int r;

	u->body_ended = true;
	r = u->multipart ? av_multipart_finish(u->multipart, &err) : end_file(u, &err);
	if (r < 0)
		fail(u, &err);
	else
		run_batch(u);
	if (u->working)
		return;
	/* Nothing was to be written (no part called "file"), or it failed. */
	if (u->rq)
		answer(u);
	upload_release(u, loop);
}

static void post_close(struct request *rq, uint32_t error)
{
	struct upload *u = rq->data;

	(void)error;
	u->rq = NULL;
	if (!u->body_ended)
		atomic_store(&u->broken_off, true);
	memory_trim_later(rq->agent);
	if (!u->working)
		upload_release(u, &rq->agent->loop);
}

static const struct request_ops post_ops = {
    .on_body = post_body,
    .on_end = post_end,
    .on_turn = post_turn,
    .on_close = post_close,
};

/* Chooses the codec; a raw body is one file from the start. */
static int choose_codec(struct upload *u, struct request *rq, struct av_err *err)
{
	const struct av_str *type = av_http_head_get(&rq->head, "content-type");
	const struct av_str *encoding = av_http_head_get(&rq->head, "content-encoding");
	struct av_str media = type ? av_http_media_type(*type) : AV_STR("");

	if (encoding && !av_str_ieq(*encoding, AV_STR("identity")))
		return av_err_set(err, AV_ERR_INVALID, "content encoding '%.*s' is not supported",
		    AV_STR_ARG(*encoding));
	if (type && av_str_ieq(media, AV_STR("multipart/form-data")))
		return av_multipart_new(*type, &u->multipart, err);
	if (!av_str_ieq(media, AV_STR(AV_AGENT_CT_BYTES)))
		return av_err_set(err, AV_ERR_INVALID,
		    "content type '%.*s' is not supported; use multipart/form-data or %s",
		    AV_STR_ARG(media), AV_AGENT_CT_BYTES);
	if (!u->path[0])
		return av_err_set(
		    err, AV_ERR_INVALID, "path query parameter is required for raw body upload");
	return begin_file(u, u->path, err);
}

static struct upload *upload_new(struct request *rq)
{
	struct upload *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	u->rq = rq;
	u->fd = -1;
	av_list_init(&u->steps);
	av_list_init(&u->batch);
	av_map_init(&u->targets);
	av_buf_init(&u->answer, ANSWER_MAX);
	av_buf_append_char(&u->answer, '[');
	return u;
}

void files_post(struct request *rq)
{
	char name[AGENT_USER_NAME_MAX + 1], path[AV_PATH_MAX + 1];
	struct upload *u;
	struct av_err err = {0};
	int r = 0;

	if (!request_query(rq, "username", name, sizeof(name)) ||
	    !request_query(rq, "path", path, sizeof(path)))
		return;
	u = upload_new(rq);
	if (!u) {
		request_fail(rq, 503, "out of memory in the sandbox's agent");
		return;
	}
	if (agent_find_user(rq->agent, name, &u->user, &err) < 0) {
		request_fail(
		    rq, 401, "error looking up user '%s': user: unknown user %s", name, name);
		upload_free(u);
		return;
	}
	if (path[0])
		r = agent_resolve_path(rq->agent, &u->user, av_str_c(path), u->path, &err);
	if (r == 0)
		r = choose_codec(u, rq, &err);
	if (r < 0) {
		request_fail_err(rq, &err);
		upload_free(u);
		return;
	}
	rq->data = u;
	rq->ops = &post_ops;
	request_bulk(rq);
}
