/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_list.c - ListDir: what is in a directory, to any depth, as a stream
 *
 * Theory of operation. A thread of the pool walks and writes entries into a batch, at most
 * BATCH_BYTES or one slice of time; the loop sends it and asks for the next when the client has
 * taken enough. So memory does not depend on how much there is, except for the names of the
 * directories that are open (walk.h). The same walk speaks two codecs: one JSON object, as E2B's
 * clients know it (content type application/json), or, for our own daemon, a Connect stream with
 * one message for each entry (application/connect+json).
 *
 * An error before the first entry is an ordinary one. Later ones end the stream with it, or reset
 * the JSON body. Entries that vanish meanwhile and directories that the user may not read are left
 * out.
 *
 * States: opening → sending (a batch may be under way) → closed. The struct lives as long as the
 * stream or a job of the pool needs it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/entry.h"
#include "agent/fsjob.h"
#include "agent/fsop.h"
#include "agent/handlers.h"
#include "agent/memory.h"
#include "base/avtime.h"
#include "base/fd.h"

#include "base/banned.h"

#define BATCH_BYTES ((size_t)64 * 1024)
#define ENTRY_BYTES ((size_t)64 * 1024) /* one entry: two paths, every byte escaped */

struct list {
	struct request *rq; /* NULL once the stream is closed */
	uv_work_t work;
	bool working;
	bool connect; /* the codec */
	bool begun;   /* the response has its head */
	struct agent_user user;
	char path[AV_PATH_MAX + 1];
	uint32_t depth;
	/* The job's while working: */
	bool opened, done, any;
	struct walk walk;
	struct entry_names names;
	struct entry entry;
	struct av_buf batch;
	int error;
	struct av_err err;
};

static void list_free(struct list *l, struct agent *a)
{
	if (l->opened)
		walk_close(&l->walk);
	entry_names_clear(&l->names);
	av_buf_clear(&l->batch);
	fsjob_leave(a, l);
}

/* --- on a thread of the pool --- */

static int open_root(struct list *l)
{
	int fd = fsop_openat(AT_FDCWD, l->path, O_RDONLY | O_DIRECTORY, 0);
	int r = fd < 0 ? fd : walk_open(&l->walk, fd, WALK_SORTED);

	l->opened = r == 0;
	if (r == -ENOTDIR)
		return av_err_set(&l->err, AV_ERR_INVALID, "path is not a directory: %s", l->path);
	if (r == -ELOOP)
		return av_err_sys(&l->err, AV_ERR_INVALID_STATE, r, "path '%s'", l->path);
	return r < 0 ? fsop_explain(r, l->path, &l->err) : 0;
}

static int write_entry(struct list *l, struct av_str below)
{
	char path[AV_PATH_MAX + 1];
	size_t at;

	/* A path over the limit is one that no call could name. */
	if (av_path_printf(path, sizeof(path), "%s/%.*s",
	        av_str_eq_c(av_str_c(l->path), "/") ? "" : l->path, AV_STR_ARG(below)) < 0)
		return 0;
	if (!l->connect) {
		if (l->any)
			av_buf_append_char(&l->batch, ',');
		l->any = true;
		return entry_write(&l->batch, &l->entry, av_str_c(path), &l->names);
	}
	at = l->batch.n;
	av_buf_append(&l->batch, "\0\0\0\0\0", AV_CONNECT_HEADER);
	av_buf_append_c(&l->batch, "{\"entry\":");
	entry_write(&l->batch, &l->entry, av_str_c(path), &l->names);
	if (av_buf_append_char(&l->batch, '}') < 0)
		return av_buf_error(&l->batch);
	av_connect_header((uint8_t *)l->batch.p + l->batch.off + at, 0,
	    (uint32_t)(l->batch.n - at - AV_CONNECT_HEADER));
	return 0;
}

static int list_item(struct list *l, const struct walk_item *it)
{
	int r;

	if (it->leave)
		return 0;
	r = entry_look(it->dirfd, it->name, &l->entry);
	if (r < 0)
		return 0; /* it vanished, or the directory may be read but not searched */
	r = write_entry(l, it->path);
	if (r == 0 && it->depth < l->depth && S_ISDIR(l->entry.st.st_mode)) {
		r = walk_enter(&l->walk);
		if (r == -ENOTDIR || r == -ENOENT || r == -EACCES || r == -EPERM)
			r = 0;
	}
	return r;
}

static int fill_batch(struct list *l)
{
	int64_t until = av_mono_ns() + WALK_SLICE_NS;
	struct walk_item it;
	int r;

	do {
		r = walk_next(&l->walk, &it);
		l->done = r == 0;
		if (r == 1)
			r = list_item(l, &it);
		if (r < 0)
			return fsop_explain(r, l->path, &l->err);
	} while (!l->done && l->batch.n < BATCH_BYTES && av_mono_ns() < until);
	return 0;
}

static void work_batch(uv_work_t *work)
{
	struct list *l = AV_CONTAINER_OF(work, struct list, work);
	int r = fsop_become(&l->user);

	l->error = 0;
	if (r < 0)
		l->error = fsop_explain(r, l->path, &l->err);
	else if (!l->opened)
		l->error = open_root(l);
	if (l->error == 0)
		l->error = fill_batch(l);
	fsop_become_self();
}

/* --- on the loop --- */

static void after_batch(uv_work_t *work, int status);

static void next_batch(struct list *l)
{
	if (l->working || l->done || request_is_full(l->rq))
		return;
	l->working = true;
	if (uv_queue_work(&l->rq->agent->loop, &l->work, work_batch, after_batch) < 0) {
		l->working = false;
		request_reset(l->rq, AV_HTTP2_INTERNAL_ERROR);
	}
}

static bool begin(struct list *l)
{
	struct av_http_head head;
	bool good;

	if (l->begun)
		return true;
	l->begun = true;
	av_http_head_response(&head, 200);
	good = av_http_head_add_c(&head, "content-type",
	           l->connect ? AV_AGENT_CT_CONNECT : AV_AGENT_CT_JSON) == 0 &&
	       request_begin(l->rq, &head);
	av_http_head_clear(&head);
	if (!good)
		request_reset(l->rq, AV_HTTP2_INTERNAL_ERROR);
	return good && (l->connect || request_send(l->rq, "{\"entries\":[", 12));
}

/* The last bytes: of a whole answer, or with the error that ended it. */
static void finish(struct list *l)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(FSJOB_REPLY_MAX);
	enum av_connect_code code =
	    l->error < 0 ? av_connect_code_from_err(l->err.kind) : AV_CONNECT_OK;

	if (!l->connect && l->error < 0) {
		request_reset(l->rq, AV_HTTP2_INTERNAL_ERROR);
		return;
	}
	if ((l->connect ? av_connect_write_end(&out, code, av_str_c(l->err.message))
	                : av_buf_append_c(&out, "]}")) < 0)
		request_reset(l->rq, AV_HTTP2_INTERNAL_ERROR);
	else if (request_send(l->rq, av_buf_str(&out).p, out.n))
		request_finish_all(l->rq);
}

/* True when there is more to come. */
static bool send_batch(struct list *l)
{
	if (!l->begun && !l->connect && l->error < 0) {
		request_rpc_fail_err(l->rq, &l->err);
		return false;
	}
	if (!begin(l))
		return false;
	if (l->batch.n && !request_send(l->rq, av_buf_str(&l->batch).p, l->batch.n))
		return false;
	av_buf_reset(&l->batch);
	if (l->error < 0 || l->done) {
		finish(l);
		return false;
	}
	return true;
}

static void after_batch(uv_work_t *work, int status)
{
	struct list *l = AV_CONTAINER_OF(work, struct list, work);
	struct agent *a = AV_CONTAINER_OF(work->loop, struct agent, loop);

	(void)status;
	l->working = false;
	if (l->rq && send_batch(l)) {
		next_batch(l);
		return;
	}
	if (l->rq) {
		/* Answered: nothing of the request is wanted any more. */
		struct request *rq = AV_TAKE_PTR(l->rq);

		rq->data = NULL;
		request_ignore_rest(rq);
	}
	memory_trim_later(a);
	list_free(l, a);
}

static void on_body(struct request *rq, const uint8_t *p, size_t n)
{
	(void)p;
	request_consume(rq, n);
}

static void on_drain(struct request *rq)
{
	next_batch(rq->data);
}

static void on_close(struct request *rq, uint32_t error)
{
	struct list *l = rq->data;

	(void)error;
	l->rq = NULL;
	memory_trim_later(rq->agent);
	if (!l->working)
		list_free(l, rq->agent);
}

static const struct request_ops list_ops = {
    .on_body = on_body, .on_drain = on_drain, .on_close = on_close};

static int parse(struct list *l, struct request *rq, struct av_str body, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *json = av_json_parse_object(body, err);
	int64_t depth = 1;
	int r;

	if (!json)
		return -EINVAL;
	if ((r = fs_request_user(rq, json, &l->user, err)) < 0 ||
	    (r = fs_request_path(rq, &l->user, json, "path", l->path, err)) < 0 ||
	    (r = av_json_get_i64(json, "depth", 0, UINT32_MAX, &depth, err)) < 0)
		return r;
	l->depth = depth ? (uint32_t)depth : 1;
	return 0;
}

void fs_list(struct request *rq, struct av_str body)
{
	const struct av_str *type = av_http_head_get(&rq->head, "content-type");
	struct av_err err = {0};
	struct list *l = fsjob_place(rq->agent, sizeof(*l));

	if (!l) {
		request_rpc_fail(rq, AV_CONNECT_RESOURCE_EXHAUSTED,
		    "the sandbox's agent is at too many file operations; try again later");
		return;
	}
	l->rq = rq;
	l->connect = type && av_str_eq_c(av_http_media_type(*type), AV_AGENT_CT_CONNECT);
	av_buf_init(&l->batch, BATCH_BYTES + ENTRY_BYTES);
	if (parse(l, rq, l->connect ? fs_unframe(body) : body, &err) < 0) {
		request_rpc_fail_err(rq, &err);
		list_free(l, rq->agent);
		return;
	}
	rq->data = l;
	rq->ops = &list_ops;
	next_batch(l);
}
