/* SPDX-License-Identifier: Apache-2.0 */
/*
 * call.c - an operation that is one request (see call.h), and any request of the caller's
 */
#include "client/call.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#include "base/banned.h"

#define PATH_SIZE_MAX ((size_t)64 * AV_KIB)

struct call {
	struct avc_turn turn; /* while it waits for the sandbox */
	aviary_op *op;
	struct avc_request *rq; /* NULL: not asked yet */
	struct avc_request_spec spec;
	char *path, *file, *key, *raw, *id, *host_token; /* spec's */
	avc_take_fn *take;
	void *ctx;
	void (*free_ctx)(void *ctx);
};

static void call_free(struct call *cl)
{
	json_decref(cl->spec.body);
	free(cl->raw);
	free(cl->path);
	free(cl->file);
	free(cl->key);
	free(cl->id);
	if (cl->host_token)
		explicit_bzero(cl->host_token, strlen(cl->host_token));
	free(cl->host_token);
	if (cl->free_ctx)
		cl->free_ctx(cl->ctx);
	free(cl);
}

static void call_stop(aviary_op *op)
{
	struct call *cl = op->work;

	avc_turn_cancel(&cl->turn);
	avc_request_cancel(cl->rq);
	call_free(cl);
}

static void on_reply(void *ctx, const struct avc_reply *reply)
{
	struct call *cl = ctx;
	aviary_op *op = cl->op;
	bool kept = avc_op_keep_body(op, reply->body);
	int r = reply->code;

	if (cl->take)
		r = cl->take(op, reply, cl->ctx);
	if (r == 0 && !kept)
		r = AVIARY_E_NO_MEMORY;
	if (r == 0)
		avc_op_end(op);
	else if (reply->error && reply->error->code == r)
		avc_op_fail_with(op, reply->error);
	else
		avc_op_fail(op, r, "%s", aviary_code_text(r));
	call_free(cl);
}

/* The path, whole. */
static char *path_of(const struct call *cl)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(PATH_SIZE_MAX);
	const struct aviary_sandbox *sb = cl->op->sb;

	if (av_buf_printf(&b, "%s%s%s", sb ? "/v1/sandboxes/" : "", sb ? sb->id : "", cl->path) < 0)
		return NULL;
	return av_str_dup(av_buf_str(&b));
}

static void fail(struct call *cl, int code, const char *text)
{
	aviary_op *op = cl->op;

	call_free(cl);
	avc_op_fail(op, code, "%s", text ? text : aviary_code_text(code));
}

static void ask(struct call *cl)
{
	aviary_client *c = cl->op->c;
	char *path = path_of(cl);

	cl->spec.path = path;
	cl->spec.sandbox_id = cl->op->sb ? cl->op->sb->id : cl->id;
	if (path) {
		cl->rq = avc_request_start(c, &cl->spec, on_reply, cl);
		cl->spec.body = NULL; /* stolen */
	}
	free(path);
	if (!cl->rq)
		fail(cl, AVIARY_E_NO_MEMORY, NULL);
}

static void on_running(struct avc_turn *t, const aviary_error *error)
{
	struct call *cl = AV_CONTAINER_OF(t, struct call, turn);
	aviary_op *op = cl->op;

	if (!error) {
		ask(cl);
		return;
	}
	call_free(cl);
	avc_op_fail_with(op, error);
}

/* Everything of spec that outlives the call. NULL: no memory, and nothing of spec was taken. */
static struct call *call_new(aviary_op *op, const struct avc_call_spec *spec)
{
	struct call *cl = calloc(1, sizeof(*cl));

	if (!cl)
		return NULL;
	av_list_init(&cl->turn.link);
	cl->op = op;
	if (!avc_dup_text(&cl->path, spec->path) || !avc_dup_text(&cl->file, spec->file) ||
	    !avc_dup_text(&cl->key, spec->idempotency_key) ||
	    !avc_dup_text(&cl->id, spec->sandbox_id) ||
	    !avc_dup_text(&cl->host_token, spec->host_token) ||
	    (spec->raw.p && !(cl->raw = av_str_dup(spec->raw)))) {
		call_free(cl);
		return NULL;
	}
	cl->spec.method = spec->method;
	cl->spec.body = spec->body;
	cl->spec.raw = cl->raw ? av_str_n(cl->raw, spec->raw.n) : (struct av_str){0};
	cl->spec.content_type = spec->content_type;
	cl->spec.idempotency_key = cl->key;
	cl->spec.file = cl->file;
	cl->spec.host_token = cl->host_token;
	cl->spec.source = spec->source;
	cl->spec.source_type = spec->source_type;
	cl->spec.timeout_ms = spec->timeout_ms;
	cl->spec.never_again = spec->never_again;
	cl->spec.anonymous = spec->anonymous;
	cl->spec.repeatable = spec->repeatable;
	cl->take = spec->take;
	cl->ctx = spec->ctx;
	cl->free_ctx = spec->free_ctx;
	return cl;
}

static void fail_body(struct call *cl, const struct avc_texts *t)
{
	char text[80];

	(void)snprintf(text, sizeof(text), "%.60s is not UTF-8", t->what);
	fail(cl, t->code, t->code == AVIARY_E_INVALID ? text : NULL);
}

/* With the lock. */
static void begin(aviary_client *c, struct call *cl, const struct avc_call_spec *spec)
{
	aviary_op *op = cl->op;

	op->work = cl;
	op->stop = call_stop;
	if (c->closed) {
		fail(cl, AVIARY_E_STATE, "the client was closed");
	} else if (spec->texts && spec->texts->code) {
		fail_body(cl, spec->texts);
	} else if (spec->sb && spec->needs_running) {
		cl->turn.go = on_running;
		cl->turn.give_up_ms = avc_deadline(spec->sb->start_timeout_ms);
		avc_sandbox_need(spec->sb, &cl->turn);
	} else if (spec->sb && !spec->sb->id[0]) {
		fail(cl, AVIARY_E_SANDBOX_NOT_RUNNING, "the sandbox was not started yet");
	} else {
		ask(cl);
	}
}

aviary_op *avc_call(aviary_client *c, const struct avc_call_spec *spec)
{
	aviary_op *op = avc_op_new(c);
	struct call *cl = op->c ? call_new(op, spec) : NULL;

	if (!cl) {
		json_decref(spec->body);
		if (spec->free_ctx)
			spec->free_ctx(spec->ctx);
		if (op->c) {
			avc_lock(c);
			avc_op_fail(op, AVIARY_E_NO_MEMORY, "out of memory");
			avc_unlock(c);
		}
		return op;
	}
	avc_lock(c);
	op->sb = aviary_sandbox_ref(spec->sb);
	begin(c, cl, spec);
	avc_unlock(c);
	return op;
}

aviary_op *avc_op_failed(aviary_client *c, int code, const char *format, ...)
{
	aviary_op *op = avc_op_new(c);
	char text[1024];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (op->c) {
		avc_lock(c);
		avc_op_fail(op, code, "%s", text);
		avc_unlock(c);
	}
	return op;
}

/* ---- any request ---- */

static const char *method_of(const char *text)
{
	static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"};

	for (size_t i = 0; text && i < AV_ARRAY_LEN(methods); i++)
		if (strcmp(text, methods[i]) == 0)
			return methods[i];
	return NULL;
}

bool avc_path_is_usable(const char *path)
{
	if (!path || *path != '/')
		return false;
	for (; *path; path++)
		if ((unsigned char)*path <= ' ' || *path == 0x7f)
			return false;
	return true;
}

aviary_op *aviary_client_request(aviary_client *c, const aviary_request *request)
{
	aviary_request q = AVIARY_REQUEST_INIT;
	struct avc_call_spec spec = {0};

	memcpy(&q, request, AV_MIN(request->struct_size, sizeof(q)));
	spec.method = method_of(q.method ? q.method : "GET");
	spec.path = q.path;
	if (!spec.method)
		return avc_op_failed(c, AVIARY_E_INVALID,
		    "method \"%.40s\" is not one of GET, POST, PUT, PATCH, DELETE, HEAD", q.method);
	if (!avc_path_is_usable(q.path))
		return avc_op_failed(c, AVIARY_E_INVALID,
		    "path \"%.200s\" is none: it begins with / and is percent-encoded",
		    q.path ? q.path : "");
	for (const char *p = q.idempotency_key; p && *p; p++)
		if (*p <= ' ' || *p > '~')
			return avc_op_failed(c, AVIARY_E_INVALID,
			    "idempotency_key has a byte that is not printable ASCII");
	if (q.body) {
		spec.raw = av_str_n(q.body, q.body_size ? q.body_size : strlen(q.body));
		spec.content_type = "application/json";
	}
	spec.idempotency_key = q.idempotency_key;
	spec.timeout_ms = q.timeout_ms;
	spec.anonymous = q.anonymous != 0;
	return avc_call(c, &spec);
}
