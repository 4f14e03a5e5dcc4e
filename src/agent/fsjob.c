/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsjob.c - a unary file operation: read on the loop, done on the thread pool, answered on the loop
 */
#include "agent/fsjob.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/fsop.h"
#include "agent/memory.h"
#include "base/avtime.h"
#include "base/num.h"
#include "proto/agent_api.h"

#include "base/banned.h"

void *fsjob_place(struct agent *a, size_t size)
{
	void *p = a->fsjobs < FSJOBS_MAX ? calloc(1, size) : NULL;

	if (p)
		a->fsjobs++;
	return p;
}

void fsjob_leave(struct agent *a, void *p)
{
	a->fsjobs--;
	free(p);
}

void *fsjob_place_http(struct request *rq, size_t size)
{
	void *p = fsjob_place(rq->agent, size);

	if (!p)
		request_fail(
		    rq, 503, "the sandbox's agent is at too many file operations; try again later");
	return p;
}

static void fsjob_free(struct fsjob *j, struct agent *a)
{
	if (j->walking)
		walk_close(&j->walk);
	av_buf_clear(&j->answer);
	fsjob_leave(a, j);
}

bool fsjob_slice_over(const struct fsjob *j)
{
	return av_mono_ns() >= j->slice_ends_ns;
}

static void work_slice(uv_work_t *work)
{
	struct fsjob *j = AV_CONTAINER_OF(work, struct fsjob, work);
	int r = fsop_become(&j->user);

	j->again = false;
	j->slice_ends_ns = av_mono_ns() + WALK_SLICE_NS;
	j->error = r < 0 ? fsop_explain(r, j->path, &j->err) : j->op->run(j);
	fsop_become_self();
}

static void after_slice(uv_work_t *work, int status);

static int queue(struct fsjob *j, uv_loop_t *loop)
{
	int r = uv_queue_work(loop, &j->work, work_slice, after_slice);

	j->working = r == 0;
	return r == 0 ? 0
	              : av_err_set(&j->err, AV_ERR_NO_MEMORY, "the sandbox cannot start a thread");
}

static void rpc_fail(struct request *rq, const struct av_err *err)
{
	request_rpc_fail_err(rq, err);
}

static void answer(struct fsjob *j)
{
	struct request *rq = j->rq;

	j->rq = NULL;
	rq->data = NULL;
	if (j->error == 0 && av_buf_error(&j->answer) < 0)
		j->error =
		    av_err_set(&j->err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	if (j->error < 0)
		rpc_fail(rq, &j->err);
	else
		request_reply(
		    rq, 200, AV_AGENT_CT_JSON, j->answer.n ? av_buf_str(&j->answer) : AV_STR("{}"));
}

static void after_slice(uv_work_t *work, int status)
{
	struct fsjob *j = AV_CONTAINER_OF(work, struct fsjob, work);
	struct agent *a = AV_CONTAINER_OF(work->loop, struct agent, loop);

	(void)status;
	j->working = false;
	if (j->rq && j->error == 0 && j->again) {
		/* Once it is queued, error is the pool's again. */
		if (queue(j, work->loop) == 0)
			return;
		j->error = -ENOMEM;
	}
	if (j->rq)
		answer(j);
	memory_trim_later(a);
	fsjob_free(j, a);
}

static void on_body(struct request *rq, const uint8_t *p, size_t n)
{
	(void)p;
	request_consume(rq, n);
}

static void on_close(struct request *rq, uint32_t error)
{
	struct fsjob *j = rq->data;

	(void)error;
	/* It is with the pool: after_slice frees it. */
	j->rq = NULL;
}

static const struct request_ops fsjob_ops = {.on_body = on_body, .on_close = on_close};

int fs_request_user(
    struct request *rq, const json_t *body, struct agent_user *ret, struct av_err *err)
{
	const char *name = NULL;
	int r = av_json_get_str(body, "user", &name, err);

	if (r < 0)
		return r;
	if (name && name[0] && !av_http_head_get(&rq->head, "authorization"))
		return agent_find_user(rq->agent, name, ret, err);
	return request_rpc_user(rq, ret, err);
}

int fs_request_path(struct request *rq, const struct agent_user *u, const json_t *body,
    const char *field, char *dst, struct av_err *err)
{
	const char *path = "";
	int r = av_json_get_str(body, field, &path, err);

	return r < 0 ? r : agent_resolve_path(rq->agent, u, av_str_c(path), dst, err);
}

struct av_str fs_unframe(struct av_str body)
{
	if (body.n < AV_CONNECT_HEADER || body.p[0] ||
	    av_get_be32(body.p + 1) != body.n - AV_CONNECT_HEADER)
		return AV_STR("");
	return av_str_n(body.p + AV_CONNECT_HEADER, body.n - AV_CONNECT_HEADER);
}

bool fs_query_target(
    struct request *rq, struct agent_user *ret_user, char ret_path[AV_PATH_MAX + 1])
{
	char name[AGENT_USER_NAME_MAX + 1], path[AV_PATH_MAX + 1];
	struct av_err err = {0};

	if (!request_query(rq, "username", name, sizeof(name)) ||
	    !request_query(rq, "path", path, sizeof(path)))
		return false;
	if (!path[0]) {
		request_fail(rq, 400, "query parameter path must name a directory");
		return false;
	}
	if (agent_find_user(rq->agent, name, ret_user, &err) == 0 &&
	    agent_resolve_path(rq->agent, ret_user, av_str_c(path), ret_path, &err) == 0)
		return true;
	request_fail_err(rq, &err);
	return false;
}

void fsjob_start(struct request *rq, struct av_str body, const struct fsjob_op *op)
{
	AV_CLEANUP(av_json_decrefp) json_t *json = NULL;
	struct agent *a = rq->agent;
	struct av_err err = {0};
	struct fsjob *j;
	int r = -EINVAL;

	if (a->fsjobs >= FSJOBS_MAX) {
		request_rpc_fail(rq, AV_CONNECT_RESOURCE_EXHAUSTED,
		    "the sandbox is at %d file operations, which is all that are done at a time; "
		    "try "
		    "again later",
		    FSJOBS_MAX);
		return;
	}
	j = fsjob_place(a, sizeof(*j));
	if (!j) {
		request_rpc_fail(
		    rq, AV_CONNECT_RESOURCE_EXHAUSTED, "out of memory in the sandbox's agent");
		return;
	}
	j->rq = rq;
	j->op = op;
	av_buf_init(&j->answer, FSJOB_REPLY_MAX);
	json = av_json_parse_object(body, &err);
	if (json)
		r = fs_request_user(rq, json, &j->user, &err);
	if (r == 0)
		r = fs_request_path(rq, &j->user, json, "path", j->path, &err);
	if (r == 0 && op->needs_path && !json_string_length(json_object_get(json, "path")))
		r = av_err_set(&err, AV_ERR_INVALID, "\"path\" must not be empty");
	if (r == 0 && op->parse)
		r = op->parse(j, json, &err);
	if (r == 0 && (r = queue(j, &a->loop)) < 0)
		err = j->err;
	if (r < 0) {
		rpc_fail(rq, &err);
		fsjob_free(j, a);
		return;
	}
	rq->data = j;
	rq->ops = &fsjob_ops;
}
