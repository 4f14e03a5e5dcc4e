/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - one HTTP/2 stream as the handlers see it: dispatch, bodies, answers
 */
#include "agent/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/handlers.h"
#include "agent/server.h"
#include "agent/watch.h"
#include "base/codec.h"
#include "base/json.h"

#include "base/banned.h"

struct route {
	const char *method, *path;
	request_open_fn *open; /* or */
	request_body_fn *on_whole;
	size_t max_body;
};

static const struct route routes[] = {
#define AGENT_STREAM(m, p, fn) {.method = (m), .path = (p), .open = (fn)},
#define AGENT_UNARY(m, p, max, fn)                                                                 \
	{.method = (m), .path = (p), .on_whole = (fn), .max_body = (max)},
#include "agent/routes.def"
#undef AGENT_STREAM
#undef AGENT_UNARY
};

static bool path_fits(const char *pattern, struct av_str path)
{
	size_t n = strlen(pattern);

	if (pattern[n - 1] == '*')
		return av_str_starts(path, av_str_n(pattern, n - 1));
	return av_str_eq_c(path, pattern);
}

static const struct route *find_route(
    struct av_str method, struct av_str path, bool *ret_path_known)
{
	*ret_path_known = false;
	for (size_t i = 0; i < AV_ARRAY_LEN(routes); i++) {
		if (!path_fits(routes[i].path, path))
			continue;
		*ret_path_known = true;
		if (av_str_eq_c(method, routes[i].method))
			return &routes[i];
	}
	return NULL;
}

bool request_is_init(const struct request *rq)
{
	return av_str_eq_c(rq->path, AV_AGENT_PATH_INIT);
}

void request_dispatch(struct request *rq)
{
	bool path_known;

	watch_catch_up(rq->agent);
	if (av_str_eq_c(rq->head.method, "CONNECT")) {
		tunnel_open(rq);
		return;
	}
	rq->route = find_route(rq->head.method, rq->path, &path_known);
	if (!rq->route && path_known)
		request_fail(
		    rq, 405, "method %.*s is not allowed here", AV_STR_ARG(rq->head.method));
	else if (!rq->route)
		request_fail(rq, 404, "the agent has no route %.*s", AV_STR_ARG(rq->path));
	else if (rq->route->open)
		rq->route->open(rq);
	else
		request_collect(rq, rq->route->max_body, rq->route->on_whole);
}

void request_clear(struct request *rq)
{
	rq->agent->body_bytes -= rq->counted;
	rq->counted = 0;
	av_buf_clear(&rq->body);
	av_http_head_clear(&rq->head);
	av_list_remove(&rq->deferred);
	av_list_remove(&rq->turn);
}

/* --- bodies --- */

static void ignore_body(struct request *rq, const uint8_t *p, size_t n)
{
	(void)p;
	request_consume(rq, n);
}

static const struct request_ops ignore_ops = {.on_body = ignore_body};

void request_ignore_rest(struct request *rq)
{
	rq->ops = &ignore_ops;
	request_consume(rq, av_http2_unconsumed(rq->stream));
}

bool request_account(struct request *rq, size_t n)
{
	if (n > AGENT_BODY_TOTAL_MAX - rq->agent->body_bytes)
		return false;
	rq->agent->body_bytes += n;
	rq->counted += n;
	return true;
}

void request_consume(struct request *rq, size_t n)
{
	if (n)
		av_http2_consume(rq->stream, n);
	server_mark(rq->conn);
}

void request_bulk(struct request *rq)
{
	av_http2_set_window(rq->stream, AV_HTTP2_CONFIG_DEFAULT.window);
	server_mark(rq->conn);
}

void request_want_turn(struct request *rq)
{
	server_want_turn(rq->conn, &rq->turn);
}

static void collect_body(struct request *rq, const uint8_t *p, size_t n)
{
	request_consume(rq, n);
	if (n > rq->body.max - rq->body.n) {
		request_rpc_fail(rq, AV_CONNECT_RESOURCE_EXHAUSTED,
		    "request body is larger than %zu bytes", rq->body.max);
		return;
	}
	if (!request_account(rq, n) || av_buf_append(&rq->body, p, n) < 0)
		request_rpc_fail(rq, AV_CONNECT_RESOURCE_EXHAUSTED,
		    "the sandbox's agent holds too many request bodies; try again later");
}

static void collect_end(struct request *rq)
{
	rq->on_whole(rq, av_buf_str(&rq->body));
}

static const struct request_ops collect_ops = {.on_body = collect_body, .on_end = collect_end};

void request_collect(struct request *rq, size_t max, request_body_fn *fn)
{
	av_buf_init(&rq->body, max);
	rq->on_whole = fn;
	rq->ops = &collect_ops;
}

/* --- answers --- */

void request_reset(struct request *rq, uint32_t error)
{
	av_http2_reset(rq->stream, error);
	server_mark(rq->conn);
}

bool request_begin(struct request *rq, const struct av_http_head *head)
{
	int r = av_http2_respond(rq->stream, head, false);

	rq->responded = true;
	server_mark(rq->conn);
	if (r < 0)
		av_http2_reset(rq->stream, AV_HTTP2_INTERNAL_ERROR);
	return r == 0;
}

bool request_send(struct request *rq, const void *p, size_t n)
{
	int r = av_http2_write(rq->stream, p, n);

	server_mark(rq->conn);
	if (r < 0)
		av_http2_reset(rq->stream, AV_HTTP2_INTERNAL_ERROR);
	return r == 0;
}

bool request_send_block(struct request *rq, struct av_http2_block *b)
{
	int r = av_http2_write_block(rq->stream, b);

	server_mark(rq->conn);
	if (r < 0)
		av_http2_reset(rq->stream, AV_HTTP2_INTERNAL_ERROR);
	return r == 0;
}

void request_finish(struct request *rq)
{
	if (av_http2_end(rq->stream, NULL) == -ENOMEM)
		av_http2_reset(rq->stream, AV_HTTP2_INTERNAL_ERROR);
	server_mark(rq->conn);
}

/* The answer is complete and nothing more of the request is wanted: once all is sent, the client is
 * told to stop (RFC 9113 section 8.1). */
static void stop_client(struct request *rq)
{
	if (!av_http2_remote_ended(rq->stream))
		av_http2_reset(rq->stream, AV_HTTP2_NO_ERROR);
}

void request_finish_all(struct request *rq)
{
	request_finish(rq);
	stop_client(rq);
}

bool request_is_full(const struct request *rq)
{
	return av_http2_buffered(rq->stream) >= REQUEST_HIGH_MARK;
}

void request_reply(struct request *rq, int status, const char *content_type, struct av_str body)
{
	struct av_http_head head;
	int r = 0;

	request_ignore_rest(rq);
	if (rq->responded)
		return;
	rq->responded = true;
	av_http_head_response(&head, status);
	if (status != 204)
		head.content_length = (int64_t)body.n;
	if (content_type)
		r = av_http_head_add_c(&head, "content-type", content_type);
	if (r == 0)
		r = av_http2_respond(rq->stream, &head, body.n == 0);
	if (r == 0 && body.n)
		r = av_http2_write(rq->stream, body.p, body.n);
	if (r == 0 && body.n)
		r = av_http2_end(rq->stream, NULL);
	if (r < 0)
		av_http2_reset(rq->stream, AV_HTTP2_INTERNAL_ERROR);
	else
		stop_client(rq);
	av_http_head_clear(&head);
	server_mark(rq->conn);
}

static void fail_text(struct request *rq, int status, const char *message)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(16384);

	av_buf_printf(&out, "{\"code\":%d,\"message\":", status);
	av_json_write_str(&out, av_str_c(message));
	av_buf_append_char(&out, '}');
	request_reply(rq, status, "application/json; charset=utf-8", av_buf_str(&out));
}

void request_fail(struct request *rq, int status, const char *fmt, ...)
{
	char message[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	fail_text(rq, status, message);
}

void request_fail_err(struct request *rq, const struct av_err *err)
{
	fail_text(rq, av_err_http_status(err->kind), err->message);
}

void request_rpc_fail(struct request *rq, enum av_connect_code code, const char *fmt, ...)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(16384);
	char message[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	if (av_connect_write_error(&out, code, av_str_c(message)) < 0) {
		request_reset(rq, AV_HTTP2_INTERNAL_ERROR);
		return;
	}
	request_reply(rq, av_connect_http_status(code), AV_AGENT_CT_JSON, av_buf_str(&out));
}

void request_rpc_fail_err(struct request *rq, const struct av_err *err)
{
	request_rpc_fail(rq, av_connect_code_from_err(err->kind), "%s", err->message);
}

/* --- what requests have in common --- */

bool request_query(struct request *rq, const char *name, char *dst, size_t size)
{
	AV_CLEANUP(av_buf_clear) struct av_buf value = AV_BUF_INIT(8192);
	int r = av_http_query_get(rq->query, name, &value);

	dst[0] = '\0';
	if (r == -ENOENT)
		return true;
	if (r == 0)
		r = av_str_copy(dst, size, av_buf_str(&value));
	if (r < 0)
		request_fail(rq, 400, "query parameter %s is malformed or longer than %zu bytes",
		    name, size - 1);
	return r == 0;
}

int agent_find_user(
    const struct agent *a, const char *name, struct agent_user *ret, struct av_err *err)
{
	if (!name || !name[0])
		name = a->settings.user[0] ? a->settings.user : "root";
	return user_lookup(av_str_c(name), ret, err);
}

int request_rpc_user(struct request *rq, struct agent_user *ret, struct av_err *err)
{
	const struct av_str *h = av_http_head_get(&rq->head, "authorization");
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(512);
	char name[AGENT_USER_NAME_MAX + 1] = "";
	struct av_str rest, user;

	if (h && h->n > 6 && av_str_ieq(av_str_n(h->p, 6), AV_STR("Basic "))) {
		if (av_base64_decode(&text, av_str_trim(av_str_n(h->p + 6, h->n - 6))) < 0)
			return av_err_set(
			    err, AV_ERR_UNAUTHORIZED, "the Authorization header is not base64");
		rest = av_buf_str(&text);
		av_str_cut(&rest, ':', &user);
		if (av_str_copy(name, sizeof(name), user) < 0)
			return av_err_set(
			    err, AV_ERR_UNAUTHORIZED, "invalid username: '%.*s'", AV_STR_ARG(user));
	}
	return agent_find_user(rq->agent, name, ret, err);
}

/* What follows "~" and any slashes, or the home itself. */
static struct av_str below_home(struct av_str path, struct av_str home)
{
	do {
		path = av_str_n(path.p + 1, path.n - 1);
	} while (path.n && path.p[0] == '/');
	return path.n ? path : home;
}

int agent_resolve_path(const struct agent *a, const struct agent_user *u, struct av_str path,
    char *dst, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(AV_PATH_MAX);
	struct av_str base = av_str_c(u->home);
	int r;

	if (path.n == 0)
		path = a->settings.workdir[0] ? av_str_c(a->settings.workdir) : base;
	else if (path.p[0] == '~' && path.n > 1 && path.p[1] != '/')
		return av_err_set(err, AV_ERR_INVALID,
		    "path '%.*s': other users' homes cannot be "
		    "named with ~",
		    AV_STR_ARG(path));
	else if (path.p[0] == '~')
		path = below_home(path, base);
	r = av_path_clean(&out, base, path, err);
	if (r < 0)
		return r;
	if (av_str_copy(dst, AV_PATH_MAX + 1, av_buf_str(&out)) < 0)
		return av_err_set(err, AV_ERR_INVALID, "path is longer than %d bytes", AV_PATH_MAX);
	return 0;
}

int agent_make_env(const struct agent *a, const struct agent_user *u, const json_t *extra,
    struct env *env, struct av_err *err)
{
	int r = env_set(env, "PATH", AGENT_DEFAULT_PATH);

	if (r == 0)
		r = env_set(env, "HOME", u->home);
	if (r == 0)
		r = env_set(env, "USER", u->name);
	if (r == 0)
		r = env_set(env, "LOGNAME", u->name);
	if (r == 0)
		r = env_set(env, AV_AGENT_ENV_ID, a->id);
	if (r < 0)
		return av_err_sys(err, AV_ERR_NO_MEMORY, r, "environment");
	r = env_set_all(env, a->settings.envs, err);
	return r < 0 ? r : env_set_all(env, extra, err);
}

int agent_find_cwd(const struct agent *a, const struct agent_user *u, const char *wanted, char *dst,
    struct av_err *err)
{
	int r = agent_resolve_path(a, u, av_str_c(wanted), dst, err);

	if (r == 0 && (!wanted || !wanted[0]) && access(dst, F_OK) < 0)
		memcpy(dst, "/", 2);
	return r;
}
