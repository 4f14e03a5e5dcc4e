/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork.c - POST .../fork and .../rollback
 *
 * Copies whose client went away before the answer are deleted, as what a create made (sandboxes.c),
 * unless an idempotency key lets it ask again.
 */
#include "api/native/native.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/audit.h"
#include "api/native/shapes.h"
#include "api/request.h"
#include "control/fork.h"
#include "base/banned.h"

#define SANDBOX_JSON_MAX ((size_t)1 << 20)
#define ANSWER_MAX       ((size_t)64 << 20)
#define SECONDS_MAX_MS   (365LL * 24 * 3600 * 1000)

/* Lives from the call to its callback, with or without the request. */
struct forks {
	struct api *api;
	struct api_request *rq; /* NULL: the client is gone */
	struct control_actor actor;
	bool replayable;
	size_t n, made;
	struct av_buf items[]; /* n: how each of them went */
};

static void forks_free(struct forks *f)
{
	for (size_t i = 0; i < f->n; i++)
		av_buf_clear(&f->items[i]);
	free(f);
}

static void gone(struct api_request *rq, int status)
{
	struct forks *f = rq->state;

	(void)status;
	if (f)
		f->rq = NULL;
}

static void on_item(void *ctx, size_t i, const struct sandbox_info *sb, const struct av_err *err)
{
	struct forks *f = ctx;
	struct av_buf *out = &f->items[i];

	f->made += sb != NULL;
	if (!f->rq && sb && !f->replayable && !sb->replayed) {
		native_delete_unwanted(f->api, &f->actor, sb->id);
		return;
	}
	if (err) {
		api_write_err(out, err);
		return;
	}
	(void)av_buf_append_c(out, "{\"sandbox\":");
	(void)native_write_sandbox(out, sb);
	(void)av_buf_append_char(out, '}');
}

static void answer(struct forks *f)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ANSWER_MAX);
	char made[24];

	(void)av_buf_append_char(&out, '[');
	for (size_t i = 0; i < f->n; i++) {
		if (i)
			(void)av_buf_append_char(&out, ',');
		(void)av_buf_append_str(&out, av_buf_str(&f->items[i]));
	}
	(void)av_buf_append_char(&out, ']');
	(void)snprintf(made, sizeof(made), "%zu", f->made);
	api_audit_note(f->rq, "made", made);
	api_send_json(f->rq, 201, &out);
}

static void on_done(void *ctx, const struct av_err *err)
{
	struct forks *f = ctx;
	struct api_request *rq = f->rq;

	if (rq)
		rq->state = NULL;
	if (rq && err)
		api_send_err(rq, err);
	else if (rq)
		answer(f);
	forks_free(f);
}

static int parse(const json_t *body, struct fork_params *ret, struct av_err *err)
{
	struct fork_params p = {.count = 1};
	int64_t count = 1;
	const json_t *idle = json_object_get(body, "timeout_sec");
	const json_t *lifetime = json_object_get(body, "max_lifetime_sec");

	if (av_json_get_i64(body, "count", 1, FORK_MAX, &count, err) < 0 ||
	    av_json_get_seconds_ms(body, "timeout_sec", SECONDS_MAX_MS, &p.idle_timeout_ms, err) <
	        0 ||
	    av_json_get_seconds_ms(
	        body, "max_lifetime_sec", SECONDS_MAX_MS, &p.max_lifetime_ms, err) < 0 ||
	    av_json_get_str_map(body, "metadata", SANDBOX_METADATA_MAX, &p.metadata, err) < 0)
		return -av_err_errno(err->kind);
	p.count = (size_t)count;
	p.has_idle_timeout = idle && !json_is_null(idle);
	p.has_lifetime = lifetime && !json_is_null(lifetime);
	*ret = p;
	return 0;
}

static struct forks *forks_new(struct api_request *rq, const struct fork_params *p)
{
	struct forks *f = calloc(1, sizeof(*f) + p->count * sizeof(f->items[0]));

	if (!f)
		return NULL;
	f->api = rq->api;
	f->rq = rq;
	f->actor = rq->actor;
	f->replayable = p->idempotency_key.n > 0;
	f->n = p->count;
	for (size_t i = 0; i < f->n; i++)
		av_buf_init(&f->items[i], SANDBOX_JSON_MAX);
	return f;
}

void native_sandbox_fork(struct api_request *rq)
{
	struct fork_params p;
	struct forks *f;
	struct av_err err;

	if (parse(rq->body, &p, &err) < 0 ||
	    native_idempotency_key(rq, &p.idempotency_key, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	p.request_body = rq->raw_body;
	f = forks_new(rq, &p);
	if (!f) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return;
	}
	rq->state = f;
	rq->on_gone = gone;
	if (control_fork(rq->api->control, &rq->actor, rq->id, &p, on_item, on_done, f, &err) == 0)
		return;
	rq->state = NULL;
	forks_free(f);
	api_send_err(rq, &err);
}

/* ---- back ---- */

static void on_rolled_back(void *ctx, const struct sandbox_info *sb, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(SANDBOX_JSON_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)native_write_sandbox(&out, sb);
	api_send_json(rq, 200, &out);
}

void native_sandbox_rollback(struct api_request *rq)
{
	const char *snapshot = NULL;
	struct av_err err;
	int r = av_json_get_str(rq->body, "snapshot", &snapshot, &err);

	if (r == 0 && (!snapshot || !snapshot[0]))
		r = av_err_set(&err, AV_ERR_INVALID,
		    "'snapshot' is missing: the name of what it is to go back to, such as POST "
		    "/v1/snapshots answered");
	if (r == 0) {
		api_audit_note(rq, "snapshot", snapshot);
		r = control_rollback(rq->api->control, &rq->actor, rq->id, snapshot, on_rolled_back,
		    rq, &rq->call, &err);
	}
	if (r < 0)
		api_send_err(rq, &err);
}
