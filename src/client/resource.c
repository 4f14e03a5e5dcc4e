/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resource.c - a request from a table and its arguments, its answer into a model (see resource.h)
 */
#include "client/resource.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "base/ids.h"
#include "base/json.h"
#include "client/call.h"

#include "base/banned.h"

#define WAIT_MAX_S     86400
#define PATH_MAX_BYTES ((size_t)32 * AV_KIB)

const struct avc_type avc_text_type = {"text", avc_model_free};

void aviary_text_free(aviary_text *p)
{
	avc_model_free(p);
}

/* What the request is made of, until it is asked. */
struct making {
	const struct avc_resource *r;
	const void *args;
	void *options; /* a copy of ours; owned */
	struct av_buf path;
	json_t *body;
	char *id, *key, *host_token; /* owned */
	const char *file;
	int code;
	char text[AVC_MODEL_TEXT];
};

static void making_clear(struct making *m)
{
	av_buf_clear(&m->path);
	json_decref(m->body);
	free(m->options);
	free(m->id);
	free(m->key);
	if (m->host_token)
		explicit_bzero(m->host_token, strlen(m->host_token));
	free(m->host_token);
}

static bool fail(struct making *m, int code, const char *name, const char *text)
{
	m->code = code;
	(void)snprintf(m->text, sizeof(m->text), "%.80s%s%s", name, *name ? ": " : "", text);
	return false;
}

static bool no_memory(struct making *m)
{
	return fail(m, AVIARY_E_NO_MEMORY, "", "out of memory");
}

/* ---- path and query ---- */

static const struct avc_field *find_arg(const struct making *m, struct av_str name)
{
	for (size_t i = 0; i < m->r->n_args; i++)
		if (m->r->args[i].place == AVC_PATH &&
		    av_str_eq(av_str_c(m->r->args[i].name), name))
			return &m->r->args[i];
	return NULL;
}

/* One part of the path. "." and ".." would name another one. */
static bool append_part(struct making *m, struct av_str name)
{
	const struct avc_field *f = find_arg(m, name);
	char *value = NULL;

	if (!f)
		return fail(
		    m, AVIARY_E_UNSUPPORTED, "", "the path of this call has no such parameter");
	m->code = avc_field_text(f, m->args, &value, m->text);
	if (m->code < 0)
		return false;
	if (!value || !*value || strcmp(value, ".") == 0 || strcmp(value, "..") == 0) {
		free(value);
		return fail(
		    m, AVIARY_E_INVALID, f->name, "is empty, \".\" or \"..\", which names nothing");
	}
	(void)av_percent_encode(&m->path, av_str_c(value), false);
	if (m->r->of_sandbox && av_str_eq(name, av_str_c("id")))
		m->id = AV_TAKE_PTR(value);
	free(value);
	return av_buf_error(&m->path) == 0 || no_memory(m);
}

static bool put_path(struct making *m)
{
	struct av_str rest = av_str_c(m->r->path), part;

	while (rest.n) {
		bool more = av_str_cut(&rest, '{', &part);

		(void)av_buf_append_str(&m->path, part);
		if (!more)
			break;
		(void)av_str_cut(&rest, '}', &part);
		if (!append_part(m, part))
			return false;
	}
	return av_buf_error(&m->path) == 0 || no_memory(m);
}

static bool append_query(struct making *m, const char *name, const char *value, bool *is_first)
{
	if (!av_utf8_valid(av_str_c(value)))
		return fail(m, AVIARY_E_INVALID, name, "is not UTF-8");
	(void)av_buf_append_char(&m->path, *is_first ? '?' : '&');
	(void)av_percent_encode(&m->path, av_str_c(name), false);
	(void)av_buf_append_char(&m->path, '=');
	(void)av_percent_encode(&m->path, av_str_c(value), false);
	*is_first = false;
	if (av_buf_error(&m->path) == 0)
		return true;
	return av_buf_str(&m->path).n < PATH_MAX_BYTES / 2
	           ? no_memory(m)
	           : fail(m, AVIARY_E_TOO_LARGE, name, "with it the address is longer than 32 KiB");
}

static bool put_query_field(
    struct making *m, const struct avc_field *f, const void *base, bool *is_first)
{
	aviary_strings list;
	char *value = NULL;
	bool good = true;

	if (!base)
		return true;
	if (f->kind == AVC_STRINGS) {
		memcpy(&list, (const char *)base + f->at, sizeof(list));
		for (size_t i = 0; good && list.items && i < list.n; i++)
			good = list.items[i]
			           ? append_query(m, f->name, list.items[i], is_first)
			           : fail(m, AVIARY_E_INVALID, f->name, "an item is NULL");
		return good;
	}
	m->code = avc_field_text(f, base, &value, m->text);
	good = m->code == 0 && (!value || append_query(m, f->name, value, is_first));
	free(value);
	return good;
}

/* ---- the whole ---- */

/* Whether it can be sent in a header; NULL is not sent. */
static bool is_header(const char *value)
{
	if (value && !*value)
		return false;
	for (; value && *value; value++)
		if (*value <= ' ' || *value > '~')
			return false;
	return true;
}

/* Parameters that are neither in the path nor in the body. */
static bool put_others(
    struct making *m, const struct avc_field *fields, size_t n, const void *base, bool *is_first)
{
	bool good = true;

	for (size_t i = 0; good && i < n; i++) {
		if (fields[i].place == AVC_QUERY)
			good = put_query_field(m, &fields[i], base, is_first);
		else if (fields[i].place == AVC_KEY || fields[i].place == AVC_HOST_TOKEN)
			m->code = avc_field_text(&fields[i], base,
			    fields[i].place == AVC_KEY ? &m->key : &m->host_token, m->text);
		good = good && m->code == 0;
		if (good && !(is_header(m->key) && is_header(m->host_token)))
			good = fail(m, AVIARY_E_INVALID, fields[i].name,
			    "is empty or has a character that is none of printable ASCII");
	}
	return good;
}

/* A create that carries a key is repeated safely, so it always does. */
static bool make_key(struct making *m)
{
	uint8_t random[16];
	char hex[33];

	for (size_t i = 0; i < m->r->n_options; i++) {
		if (m->r->options[i].place != AVC_KEY || m->key)
			continue;
		av_random(random, sizeof(random));
		av_hex_encode(hex, random, sizeof(random));
		m->key = av_str_dup(av_str_c(hex));
		if (!m->key)
			return no_memory(m);
	}
	return true;
}

static bool put_body(struct making *m)
{
	const struct avc_resource *r = m->r;

	if (!r->has_body)
		return true;
	m->body = json_object();
	if (!m->body)
		return no_memory(m);
	m->code = avc_fields_encode(m->body, r->args, r->n_args, m->args, m->text);
	if (m->code == 0 && m->options)
		m->code = avc_fields_encode(m->body, r->options, r->n_options, m->options, m->text);
	return m->code == 0;
}

static bool make(struct making *m, const void *options)
{
	const struct avc_resource *r = m->r;
	bool is_first = true;

	if (r->options_size) {
		m->options = malloc(r->options_size);
		if (!m->options)
			return no_memory(m);
		m->code = avc_options_copy(m->options, r->options_size, options, m->text);
		if (m->code < 0)
			return false;
	}
	if (r->file_at)
		memcpy(&m->file, (const char *)m->args + r->file_at - 1, sizeof(m->file));
	return put_path(m) && put_others(m, r->args, r->n_args, m->args, &is_first) &&
	       put_others(m, r->options, r->n_options, m->options, &is_first) && make_key(m) &&
	       put_body(m);
}

/* ---- answers ---- */

int avc_take_text(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	aviary_text *t;
	char *copy;

	(void)ctx;
	if (reply->code < 0)
		return reply->code;
	t = avc_model_new(sizeof(*t), reply->body.p, reply->body.n, &copy);
	if (!t)
		return AVIARY_E_NO_MEMORY;
	*t = (aviary_text){copy, reply->body.n};
	avc_op_give(op, &avc_text_type, t);
	return 0;
}

static int fail_answer(aviary_op *op, const struct avc_reply *reply, int code, const char *text)
{
	aviary_error e = avc_error_of(code, text);

	e.http_status = reply->status;
	avc_op_fail_with(op, &e);
	return code;
}

int avc_take_model(aviary_op *op, const struct avc_reply *reply, const struct avc_model *m)
{
	char text[AVC_MODEL_TEXT];
	void *model = NULL;
	int code;

	if (reply->code < 0)
		return reply->code;
	if (!reply->json)
		return fail_answer(op, reply, AVIARY_E_PROTOCOL,
		    "the server's answer is not JSON, or far too large");
	code = avc_model_decode(m, reply->json, &model, text);
	if (code == 0 && reply->next_cursor)
		code = avc_model_set_text(m, model, "next_cursor", reply->next_cursor);
	if (code == 0) {
		avc_op_give(op, &m->type, model);
		return 0;
	}
	if (model) {
		avc_model_free(model);
		return code;
	}
	return fail_answer(op, reply, code, text);
}

static int take(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	const struct avc_resource *r = ctx;

	if (r->is_text)
		return avc_take_text(op, reply, NULL);
	return r->model ? avc_take_model(op, reply, r->model) : reply->code;
}

/* Of one try. Requests that wait for something get the time of that on top. */
static int64_t timeout_of(const struct making *m, const aviary_client *c)
{
	int64_t wait_ms = m->r->wait_ms;
	double seconds;
	int has;

	if (m->r->wait_at) {
		memcpy(&seconds, (const char *)m->options + m->r->wait_at - 1, sizeof(seconds));
		memcpy(&has, (const char *)m->options + m->r->wait_has_at, sizeof(has));
		if (has || seconds > 0)
			wait_ms =
			    seconds < WAIT_MAX_S ? (int64_t)(seconds * 1000) : WAIT_MAX_S * 1000;
	}
	return wait_ms > 0 && c->request_timeout_ms > 0 ? c->request_timeout_ms + wait_ms : 0;
}

aviary_op *avc_resource_call(
    aviary_client *c, const struct avc_resource *r, const void *args, const void *options)
{
	struct making m = {.r = r, .args = args, .path = AV_BUF_INIT(PATH_MAX_BYTES)};
	struct avc_call_spec spec = {0};
	aviary_op *op;

	if (!make(&m, options) || !av_buf_cstr(&m.path)) {
		op = avc_op_failed(c, m.code ? m.code : AVIARY_E_NO_MEMORY, "%s", m.text);
		making_clear(&m);
		return op;
	}
	spec.method = r->method;
	spec.path = av_buf_cstr(&m.path);
	spec.sandbox_id = m.id;
	spec.file = m.file;
	spec.body = AV_TAKE_PTR(m.body);
	spec.idempotency_key = m.key;
	spec.anonymous = r->anonymous;
	spec.host_token = m.host_token;
	spec.timeout_ms = timeout_of(&m, c);
	spec.take = take;
	/* Only read. */
	memcpy(&spec.ctx, &r, sizeof(spec.ctx));
	op = avc_call(c, &spec);
	making_clear(&m);
	return op;
}

int avc_model_parse(
    const struct avc_model *m, const char *json, size_t n, void **ret, aviary_error *error)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	char text[AVC_MODEL_TEXT] = "it is not JSON";
	int code;

	j = avc_json_load(av_str_n(json, n), &code);
	if (j)
		code = avc_model_decode(m, j, ret, text);
	else if (code != AVIARY_E_PROTOCOL)
		(void)snprintf(text, sizeof(text), "%s", aviary_code_text(code));
	if (error)
		avc_error_copy(error, &(aviary_error){.code = code,
		                          .retry_after_ms = -1,
		                          .message = code ? text : "",
		                          .server_code = "",
		                          .sandbox_id = "",
		                          .request_id = "",
		                          .path = ""});
	return code;
}

int avc_resource_body(const struct avc_resource *r, const void *options, json_t **ret,
    char text[static AVC_MODEL_TEXT])
{
	json_t *body = json_object();
	int code;

	text[0] = '\0';
	if (!body)
		return AVIARY_E_NO_MEMORY;
	code = avc_fields_encode(body, r->options, r->n_options, options, text);
	if (code == 0)
		*ret = body;
	else
		json_decref(body);
	return code;
}
