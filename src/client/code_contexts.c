/* SPDX-License-Identifier: Apache-2.0 */
/*
 * code_contexts.c - the interpreters of a sandbox, by the kernel API at its port 8888 (see
 * aviary/code.h)
 */
#include <aviary/code.h>

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/codec.h"
#include "client/call.h"
#include "client/pipe.h"
#include "client/texts.h"

#include "client/model.h"

#include "base/banned.h"

#define KERNELS_PORT  8888
#define PATH_SIZE_MAX ((size_t)1 << 10)

struct contexts {
	aviary_code_contexts pub; /* first */
	json_t *json;             /* whose strings are pointed at */
	aviary_code_context items[];
};

void aviary_code_contexts_free(aviary_code_contexts *contexts)
{
	struct contexts *x = contexts ? AV_CONTAINER_OF(contexts, struct contexts, pub) : NULL;

	if (!x)
		return;
	json_decref(x->json);
	free(x);
}

static void free_contexts(void *result)
{
	aviary_code_contexts_free(result);
}

static const struct avc_type contexts_type = {"contexts", free_contexts};

static const char *text_of(const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	return text ? text : "";
}

static void set_context(aviary_code_context *x, const json_t *o)
{
	*x = (aviary_code_context){.id = text_of(o, "id"),
	    .name = text_of(o, "name"),
	    .state = text_of(o, "execution_state")};
}

/* The server's not_found may be about the sandbox or the context. */
static int code_of(const aviary_op *op, const struct avc_reply *reply)
{
	if (reply->code == AVIARY_E_SANDBOX_NOT_FOUND && !strstr(reply->error->message, op->sb->id))
		return AVIARY_E_NOT_FOUND;
	return reply->code;
}

static int take_contexts(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	json_t *j = reply->json;
	size_t n = json_is_array(j) ? json_array_size(j) : 1, i;
	struct contexts *x;

	(void)ctx;
	if (reply->code < 0)
		return code_of(op, reply);
	if (!json_is_array(j) && !text_of(j, "id")[0])
		return AVIARY_E_PROTOCOL;
	x = calloc(1, sizeof(*x) + n * sizeof(x->items[0]));
	if (!x)
		return AVIARY_E_NO_MEMORY;
	x->json = json_incref(j);
	x->pub = (aviary_code_contexts){n, x->items};
	for (i = 0; i < n; i++)
		set_context(&x->items[i], json_is_array(j) ? json_array_get(j, i) : j);
	avc_op_give(op, &contexts_type, &x->pub);
	return 0;
}

static int take_done(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	(void)ctx;
	return code_of(op, reply);
}

/* body: NULL: none. */
static aviary_op *ask(aviary_sandbox *sb, const char *method, const char *path, const char *body,
    int (*take)(aviary_op *op, const struct avc_reply *reply, void *ctx))
{
	struct avc_pipe_spec spec = {.sb = sb, .port = KERNELS_PORT, .take = take, .size = -1};

	spec.rq = (struct avc_request_spec){.method = method, .path = path};
	if (body) {
		spec.size = (int64_t)strlen(body);
		spec.source = avc_end_memory(body, strlen(body));
		spec.failed = !spec.source;
		spec.rq.source_type = "application/json";
	}
	return avc_pipe(&spec);
}

aviary_op *aviary_code_list(aviary_sandbox *sb)
{
	return ask(sb, "GET", "/api/kernels", NULL, take_contexts);
}

aviary_op *aviary_code_create(aviary_sandbox *sb, const char *directory)
{
	AV_CLEANUP(av_json_decrefp) json_t *o = json_object();
	struct avc_texts texts = {0};
	char *body = NULL;
	aviary_op *op;

	avc_put_text(&texts, o, "path", directory);
	if (texts.code == 0)
		body = avc_json_text(o);
	if (texts.code == AVIARY_E_INVALID)
		return avc_op_failed(sb->c, AVIARY_E_INVALID, "the directory is not UTF-8");
	if (!body)
		return avc_op_failed(sb->c, AVIARY_E_NO_MEMORY, "out of memory");
	op = ask(sb, "POST", "/api/kernels", body, take_contexts);
	free(body);
	return op;
}

aviary_code_contexts *aviary_op_take_code_contexts(aviary_op *op)
{
	return avc_op_take(op, &contexts_type);
}

aviary_code_contexts *aviary_code_list_sync(aviary_sandbox *sb, aviary_error *error)
{
	return avc_op_await(aviary_code_list(sb), &contexts_type, error);
}

aviary_code_contexts *aviary_code_create_sync(
    aviary_sandbox *sb, const char *directory, aviary_error *error)
{
	return avc_op_await(aviary_code_create(sb, directory), &contexts_type, error);
}

static aviary_op *change(
    aviary_sandbox *sb, const char *method, const char *context, const char *verb)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(PATH_SIZE_MAX);

	(void)av_buf_append_c(&path, "/api/kernels/");
	(void)av_percent_encode(&path, av_str_c(context), false);
	(void)av_buf_append_c(&path, verb);
	if (!context[0] || !av_buf_cstr(&path))
		return avc_op_failed(
		    sb->c, AVIARY_E_INVALID, "\"%.60s\" is no id of a context", context);
	return ask(
	    sb, method, av_buf_cstr(&path), strcmp(method, "POST") == 0 ? "{}" : NULL, take_done);
}

aviary_op *aviary_code_interrupt(aviary_sandbox *sb, const char *context)
{
	return change(sb, "POST", context, "/interrupt");
}

aviary_op *aviary_code_restart(aviary_sandbox *sb, const char *context)
{
	return change(sb, "POST", context, "/restart");
}

aviary_op *aviary_code_delete(aviary_sandbox *sb, const char *context)
{
	return change(sb, "DELETE", context, "");
}

int aviary_code_interrupt_sync(aviary_sandbox *sb, const char *context, aviary_error *error)
{
	return aviary_await(aviary_code_interrupt(sb, context), error);
}

int aviary_code_restart_sync(aviary_sandbox *sb, const char *context, aviary_error *error)
{
	return aviary_await(aviary_code_restart(sb, context), error);
}

int aviary_code_delete_sync(aviary_sandbox *sb, const char *context, aviary_error *error)
{
	return aviary_await(aviary_code_delete(sb, context), error);
}
