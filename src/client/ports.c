/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ports.c - servers in a sandbox, and what it uses (see aviary/ports.h)
 *
 * Requests are routed by headers, so that no name has to resolve. What the library itself and the
 * server's proxy decide by is not the caller's to set: framing, routes and credentials.
 */
#include <aviary/ports.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/file_internal.h"
#include "client/model_tables.h"
#include "client/resource.h"

#include "base/banned.h"

#define BODY_MAX     ((size_t)16 << 20)
#define LIFETIME_MAX ((int64_t)7 * 86400 * 1000)

static aviary_op *no_port(aviary_sandbox *sb, unsigned port)
{
	return avc_op_failed(sb->c, AVIARY_E_INVALID, "port %u is none: from 1 to 65535", port);
}

static bool path_is_usable(const char *path)
{
	if (*path != '/')
		return false;
	for (; *path; path++)
		if ((unsigned char)*path <= ' ' || (unsigned char)*path >= 0x7f || *path == '#')
			return false;
	return true;
}

static aviary_op *bad_path(aviary_sandbox *sb, const char *path)
{
	return avc_op_failed(sb->c, AVIARY_E_INVALID,
	    "path \"%.200s\" is none: it begins with / and is percent-encoded, without #", path);
}

/* ---- addresses ---- */

static int take_url(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	(void)ctx;
	return avc_take_model(op, reply, &avc_port_url);
}

aviary_op *aviary_sandbox_url(
    aviary_sandbox *sb, unsigned port, const char *path, int64_t lifetime_ms)
{
	struct avc_texts texts = {0};
	json_t *body;

	if (port < 1 || port > 65535)
		return no_port(sb, port);
	if (path && !path_is_usable(path))
		return bad_path(sb, path);
	if (lifetime_ms < 0 || lifetime_ms > LIFETIME_MAX)
		return avc_op_failed(sb->c, AVIARY_E_INVALID,
		    "a URL cannot live for %lld ms: from 1000 to 604800000, 0 for an hour",
		    (long long)lifetime_ms);
	body = json_object();
	avc_put(&texts, body, "port", json_integer((json_int_t)port));
	avc_put_text(&texts, body, "path", path ? path : "/");
	avc_put(&texts, body, "expires_sec",
	    json_integer((json_int_t)(lifetime_ms ? (lifetime_ms + 999) / 1000 : 3600)));
	return avc_call(sb->c, &(struct avc_call_spec){.method = "POST",
	                           .path = "/url",
	                           .sb = sb,
	                           .needs_running = true,
	                           .body = body,
	                           .texts = &texts,
	                           .repeatable = true,
	                           .take = take_url});
}

aviary_port_url *aviary_sandbox_url_sync(
    aviary_sandbox *sb, unsigned port, const char *path, int64_t lifetime_ms, aviary_error *error)
{
	return avc_op_await(
	    aviary_sandbox_url(sb, port, path, lifetime_ms), &avc_port_url.type, error);
}

/* ---- requests ---- */

static void free_response(void *result)
{
	free(result);
}

static const struct avc_type response_type = {"http_response", free_response};

static int take_response(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	aviary_http_response *r;
	char *text;

	(void)ctx;
	if (reply->code < 0)
		return reply->code;
	r = malloc(sizeof(*r) + reply->headers.n + reply->body.n + 2);
	if (!r)
		return AVIARY_E_NO_MEMORY;
	text = (char *)(r + 1);
	*r = (aviary_http_response){.status = reply->status,
	    .headers = text,
	    .body = text + reply->headers.n + 1,
	    .size = reply->body.n};
	if (reply->headers.n)
		memcpy(text, reply->headers.p, reply->headers.n);
	text[reply->headers.n] = '\0';
	text += reply->headers.n + 1;
	if (reply->body.n)
		memcpy(text, reply->body.p, reply->body.n);
	text[reply->body.n] = '\0';
	avc_op_give(op, &response_type, r);
	return 0;
}

aviary_http_response *aviary_op_take_http_response(aviary_op *op)
{
	return avc_op_take(op, &response_type);
}

void aviary_http_response_free(aviary_http_response *response)
{
	free(response);
}

int64_t aviary_http_header(const aviary_http_response *response, const char *name, const char **ret)
{
	struct av_str rest = av_str_c(response->headers), line, key;

	while (rest.n) {
		(void)av_str_cut(&rest, '\n', &line);
		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		if (!av_str_cut(&line, ':', &key) || !av_str_ieq(key, av_str_c(name)))
			continue;
		line = av_str_trim(line);
		*ret = line.p;
		return (int64_t)line.n;
	}
	return -1;
}

int aviary_op_http_status(const aviary_op *op)
{
	int status;

	if (!op->c)
		return 0;
	avc_lock(op->c);
	status = op->status;
	avc_unlock(op->c);
	return status;
}

static const char *method_of(const char *text)
{
	static const char *const methods[] = {
	    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};

	for (size_t i = 0; i < AV_ARRAY_LEN(methods); i++)
		if (strcmp(text, methods[i]) == 0)
			return methods[i];
	return NULL;
}

static bool name_is_usable(const char *name)
{
	static const char *const never[] = {"host", "connection", "keep-alive", "proxy-connection",
	    "upgrade", "te", "trailer", "transfer-encoding", "content-length", "expect",
	    "x-api-key", "x-aviary-sandbox", "x-aviary-port"};
	struct av_str n = av_str_c(name);

	for (size_t i = 0; i < n.n; i++)
		if (!((n.p[i] >= 'a' && n.p[i] <= 'z') || (n.p[i] >= 'A' && n.p[i] <= 'Z') ||
		        (n.p[i] >= '0' && n.p[i] <= '9') || strchr("!#$%&'*+-.^_`|~", n.p[i])))
			return false;
	for (size_t i = 0; i < AV_ARRAY_LEN(never); i++)
		if (av_str_ieq(n, av_str_c(never[i])))
			return false;
	return n.n > 0;
}

static bool value_is_usable(const char *value)
{
	for (; *value; value++)
		if (((unsigned char)*value < ' ' && *value != '\t') || *value == 0x7f)
			return false;
	return true;
}

/* NULL: all is well. */
static aviary_op *check(aviary_sandbox *sb, unsigned port, const aviary_http_request *q)
{
	if (port < 1 || port > 65535)
		return no_port(sb, port);
	if (!path_is_usable(q->path))
		return bad_path(sb, q->path);
	if (!method_of(q->method))
		return avc_op_failed(sb->c, AVIARY_E_INVALID,
		    "method \"%.40s\" is not one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
		    q->method);
	if (q->source && q->body)
		return avc_op_failed(
		    sb->c, AVIARY_E_INVALID, "a body and a source: one of them is meant");
	for (size_t i = 0; i < q->headers.n; i++)
		if (!name_is_usable(q->headers.items[i].name) ||
		    !value_is_usable(q->headers.items[i].value))
			return avc_op_failed(sb->c, AVIARY_E_INVALID,
			    "header \"%.80s\" cannot be set: it is of the connection or of Aviary, "
			    "or "
			    "has bytes that no header may have",
			    q->headers.items[i].name);
	return NULL;
}

aviary_op *aviary_sandbox_http(
    aviary_sandbox *sb, unsigned port, const aviary_http_request *request)
{
	aviary_http_request q = AVIARY_HTTP_REQUEST_INIT;
	struct avc_pipe_spec spec = {.sb = sb, .port = port, .size = -1, .take = take_response};
	aviary_op *refused;

	if (request)
		memcpy(&q, request, AV_MIN(request->struct_size, sizeof(q)));
	q.method = q.method ? q.method : "GET";
	q.path = q.path ? q.path : "/";
	refused = check(sb, port, &q);
	if (refused)
		return refused;
	spec.rq = (struct avc_request_spec){.method = method_of(q.method),
	    .path = q.path,
	    .headers = q.headers.items,
	    .n_headers = q.headers.n,
	    .timeout_ms = q.timeout_ms ? q.timeout_ms : -1,
	    .idle_ms = q.idle_timeout_ms,
	    .watches_idle = true,
	    .repeatable = strcmp(q.method, "HEAD") == 0 || strcmp(q.method, "OPTIONS") == 0,
	    .any_status = true,
	    .reply_max = q.max_bytes ? q.max_bytes : BODY_MAX};
	if (q.source) {
		spec.source = avc_end_reader(q.source, q.source_ctx);
		spec.size = q.source_size > 0 ? q.source_size : -1;
		spec.failed = !spec.source;
	} else if (q.body) {
		spec.source = avc_end_memory(q.body, q.body_size);
		spec.size = (int64_t)q.body_size;
		spec.failed = !spec.source;
	}
	if (q.sink) {
		spec.sink = avc_end_writer(q.sink, q.sink_ctx);
		spec.failed = spec.failed || !spec.sink;
	}
	return avc_pipe(&spec);
}

aviary_http_response *aviary_sandbox_http_sync(
    aviary_sandbox *sb, unsigned port, const aviary_http_request *request, aviary_error *error)
{
	return avc_op_await(aviary_sandbox_http(sb, port, request), &response_type, error);
}

/* ---- what it uses ---- */

static int take_metrics(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	(void)ctx;
	return avc_take_model(op, reply, &avc_metrics);
}

aviary_op *aviary_sandbox_metrics(aviary_sandbox *sb, enum aviary_metrics_range range)
{
	char path[64];

	if (!range)
		range = AVIARY_METRICS_RANGE_10M;
	if ((int)range < 0 || range > AVIARY_METRICS_RANGE_24H)
		return avc_op_failed(
		    sb->c, AVIARY_E_INVALID, "%d is no range of metrics", (int)range);
	(void)snprintf(path, sizeof(path), "/metrics?range=%s", aviary_metrics_range_text(range));
	return avc_call(sb->c,
	    &(struct avc_call_spec){.method = "GET", .path = path, .sb = sb, .take = take_metrics});
}

aviary_metrics *aviary_sandbox_metrics_sync(
    aviary_sandbox *sb, enum aviary_metrics_range range, aviary_error *error)
{
	return avc_op_await(aviary_sandbox_metrics(sb, range), &avc_metrics.type, error);
}
