/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - one request on its way through the API (see request.h)
 */
#include "api/request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/audit.h"
#include "api/auth.h"
#include "api/events.h"
#include "api/proxy.h"
#include "api/scrape.h"
#include "base/avtime.h"
#include "base/codec.h"
#include "base/log.h"
#include "base/self.h"
#include "net/otlp.h"
#include "base/banned.h"

#define ERROR_BODY_MAX 8192

int api_new(const struct api_config *config, struct api **ret, struct av_err *err)
{
	struct av_self self;
	struct api *a = calloc(1, sizeof *a);

	if (!a)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	a->loop = config->loop;
	a->control = config->control;
	a->version = config->version;
	a->credentials_hint = config->credentials_hint;
	a->ports_domain = config->ports_domain;
	a->ports_tls = config->ports_tls;
	a->public_url = config->public_url;
	if (trusted_proxies_parse(config->trusted_proxies, &a->proxies, err) < 0) {
		free(a);
		return -EINVAL;
	}
	a->metrics_public = config->metrics_public;
	av_self_read(-1, &self);
	a->start_ms = av_self_start_ms(&self);
	av_list_init(&a->audit_exports);
	a->otlp = config->otlp;
	a->fetch = config->fetch;
	if (scraper_new(a->loop, a->control, &a->scraper) < 0 || events_new(a, &a->events) < 0) {
		scraper_free(a->scraper);
		free(a);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	*ret = a;
	return 0;
}

void api_free(struct api *a)
{
	if (!a)
		return;
	assert(a->metrics.in_flight == 0);
	events_free(a->events);
	scraper_free(a->scraper);
	free(a);
}

void api_set_server(struct api *a, const struct av_http_server *server)
{
	a->server = server;
}

/* ---- answers ---- */

void api_write_err(struct av_buf *out, const struct av_err *err)
{
	(void)av_buf_append_c(out, "{\"error\":{\"code\":");
	(void)av_json_write_str(out, av_str_c(av_err_code(err->kind)));
	(void)av_buf_append_c(out, ",\"message\":");
	(void)av_json_write_str(out, av_str_c(err->message));
	(void)av_buf_append_c(out, "}}");
}

static void log_failure(const struct api_request *rq, const struct av_err *err)
{
	int status = av_err_http_status(err->kind);
	char trace[AV_TRACE_ID_SIZE];

	/* The server's own trouble; what a client or a sandbox did wrong is theirs to read. */
	if (status < 500 || err->kind == AV_ERR_EXEC_TIMEOUT || err->kind == AV_ERR_UNSUPPORTED)
		return;
	av_trace_write_id(&rq->trace, trace);
	/* Nobody fills the log without a key: /ready says 503 to whoever asks. */
	av_log(rq->actor.user_id[0] ? AV_LOG_WARN : AV_LOG_DEBUG, "request failed", "request",
	    av_req_id(rq->req), "route", rq->match.route ? rq->match.route->pattern : "", "sandbox",
	    rq->id ? rq->id : "", "code", av_err_code(err->kind), "error", err->message,
	    trace[0] ? "trace" : NULL, trace, NULL);
}

void api_send_err(struct api_request *rq, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ERROR_BODY_MAX);
	struct av_http_header headers[] = {
	    {AV_STR("content-type"), AV_STR("application/json")},
	    {AV_STR("retry-after"), AV_STR("")},
	};
	char after[16];

	log_failure(rq, err);
	rq->api->metrics.errors[err->kind]++;
	(void)snprintf(after, sizeof after, "%d", err->retry_after_s);
	headers[1].value = av_str_c(after);
	rq->status = av_err_http_status(err->kind);
	rq->failed = err->kind;
	api_write_err(&out, err);
	(void)av_res_send(
	    rq->req, rq->status, headers, err->retry_after_s > 0 ? 2 : 1, av_buf_str(&out));
}

void api_send_json_with(struct api_request *rq, int status, const struct av_http_header *headers,
    size_t n_headers, struct av_buf *json)
{
	struct av_err err;

	if (av_buf_error(json) < 0) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the answer");
		api_send_err(rq, &err);
		return;
	}
	rq->status = status;
	(void)av_res_send(rq->req, status, headers, n_headers, av_buf_str(json));
}

void api_send_json(struct api_request *rq, int status, struct av_buf *json)
{
	const struct av_http_header type = {AV_STR("content-type"), AV_STR("application/json")};

	api_send_json_with(rq, status, &type, 1, json);
}

void api_send_empty(struct api_request *rq, int status)
{
	rq->status = status;
	(void)av_res_send(rq->req, status, NULL, 0, AV_STR(""));
}

void api_started(struct api_request *rq, int status)
{
	rq->status = status;
}

void api_on_done(void *ctx, const struct av_err *err)
{
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err)
		api_send_err(rq, err);
	else
		api_send_empty(rq, 204);
}

const char *api_client(struct api_request *rq)
{
	if (!rq->client[0])
		client_addr(
		    &rq->api->proxies, av_req_peer(rq->req), av_req_head(rq->req), rq->client);
	return rq->client;
}

/* ---- parameters ---- */

const char *api_param(const struct api_request *rq, const char *name)
{
	size_t n = strlen(name);

	for (unsigned int i = 0; i < rq->match.n_params; i++)
		if (strncmp(rq->match.param_name[i], name, n) == 0 &&
		    rq->match.param_name[i][n] == '}')
			return rq->param[i];
	assert(!"no such parameter in the pattern");
	return "";
}

struct av_str api_query_string(const struct api_request *rq)
{
	return av_req_query(rq->req);
}

int api_query(
    const struct api_request *rq, const char *name, struct av_buf *out, struct av_err *err)
{
	struct av_str query = api_query_string(rq);

	return api_query_next(&query, name, out, err);
}

int api_query_next(struct av_str *rest, const char *name, struct av_buf *out, struct av_err *err)
{
	int r = av_http_query_next(rest, name, out);

	if (r == -EINVAL)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter '%s': bad percent-encoding, or a NUL byte", name);
	if (r < 0 && r != -ENOENT)
		return av_err_set(err, AV_ERR_INVALID, "query parameter '%s' is too long", name);
	return r;
}

static int decode_param(struct api_request *rq, unsigned int i, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(API_PARAM_MAX);

	if (av_percent_decode(&text, rq->match.param[i], false) < 0 || av_buf_error(&text) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "a part of the path has a bad percent-encoding or more than %d bytes",
		    API_PARAM_MAX);
	if (av_str_has_nul(av_buf_str(&text)) || !av_utf8_valid(av_buf_str(&text)))
		return av_err_set(
		    err, AV_ERR_INVALID, "a part of the path has a NUL byte or is not UTF-8");
	rq->param[i] = av_str_dup(av_buf_str(&text));
	if (!rq->param[i])
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return 0;
}

static int decode_params(struct api_request *rq, struct av_err *err)
{
	for (unsigned int i = 0; i < rq->match.n_params; i++) {
		int r = decode_param(rq, i, err);

		if (r < 0)
			return r;
		if (!av_str_starts(av_str_c(rq->match.param_name[i]), AV_STR("id}")))
			continue;
		if (!av_id_valid(av_str_c(rq->param[i]), AV_ID_SANDBOX))
			return av_err_set(err, AV_ERR_INVALID,
			    "'%.64s' is not a sandbox id; ids are '" AV_ID_SANDBOX
			    "' and 25 characters of 0-9 and a-z",
			    rq->param[i]);
		rq->id = rq->param[i];
	}
	return 0;
}

/* ---- life ---- */

static void request_free(struct api_request *rq)
{
	for (unsigned int i = 0; i < API_PARAMS_MAX; i++)
		free(rq->param[i]);
	json_decref(rq->body);
	api_audit_free(rq->audit);
	free(rq);
}

/* ---- traces ---- */

static void trace_begin(struct api_request *rq)
{
	struct av_tracer *tracer = rq->api->otlp ? av_otlp_tracer(rq->api->otlp) : NULL;
	struct av_str parent = AV_STR("");
	char text[AV_TRACEPARENT_SIZE];

	if (!tracer)
		return;
	(void)av_req_header(rq->req, "traceparent", &parent);
	av_trace_begin(tracer, parent, &rq->trace);
	av_trace_write_parent(&rq->trace, text);
	av_req_set_traceparent(rq->req, text);
	rq->trace_start_ns = av_req_start_ns(rq->req);
	if (av_str_copy(rq->trace_request_id, sizeof(rq->trace_request_id),
	        av_str_c(av_req_id(rq->req))) < 0)
		rq->trace_request_id[0] = '\0';
	rq->actor.trace = av_trace_trust(&rq->trace, false);
}

void api_request_trusted(struct api_request *rq)
{
	rq->actor.trace = av_trace_trust(&rq->trace, true);
}

static void trace_end(const struct api_request *rq)
{
	const struct api_route *route = rq->match.route;
	struct av_span span = {.name = "request",
	    .start_ns = rq->trace_start_ns,
	    .end_ns = av_mono_ns(),
	    .error = rq->failed,
	    .route = route ? route->pattern : "other",
	    .method = route && route != &api_proxy_route ? api_method_text(route->method) : NULL,
	    .status = rq->status};

	if (!rq->actor.trace.tracer)
		return;
	memcpy(span.request_id, rq->trace_request_id, sizeof(span.request_id));
	if (rq->id && av_str_copy(span.sandbox_id, sizeof(span.sandbox_id), av_str_c(rq->id)) < 0)
		span.sandbox_id[0] = '\0';
	av_trace_end(&rq->actor.trace, &rq->trace, &span);
}

static void request_count(struct api_request *rq)
{
	int64_t ns = av_mono_ns() - av_req_start_ns(rq->req);
	struct av_str path = av_req_path(rq->req);
	char ms[32], status[16], short_path[128], method[24], trace[AV_TRACE_ID_SIZE];

	rq->api->metrics.in_flight--;
	/* A connection that was upgraded lasts as long as somebody looks at it: no latency. */
	api_metrics_request(&rq->api->metrics, rq->match.route, rq->status,
	    rq->status && rq->status != 101 && !rq->lasting ? ns : -1);
	trace_end(rq);
	av_trace_write_id(&rq->trace, trace);
	(void)snprintf(ms, sizeof ms, "%.3f", (double)ns / 1e6);
	(void)snprintf(status, sizeof status, "%d", rq->status);
	/* Without the query: it may hold what a user would not want in a log. */
	(void)snprintf(
	    short_path, sizeof short_path, "%.*s", (int)AV_MIN(path.n, (size_t)120), path.p);
	(void)snprintf(method, sizeof method, "%.*s", AV_STR_ARG(av_req_head(rq->req)->method));
	av_log(AV_LOG_DEBUG, "request", "request", av_req_id(rq->req), "peer", av_req_peer(rq->req),
	    "method", method, "sandbox", rq->id ? rq->id : "", "path", short_path, "status", status,
	    "ms", ms, "key", rq->actor.key_id, trace[0] ? "trace" : NULL, trace, NULL);
}

static void on_close(void *ctx, struct av_req *req, int status)
{
	struct api_request *rq = ctx;

	(void)req;
	if (rq->on_gone)
		rq->on_gone(rq, status);
	if (rq->call)
		node_call_cancel(AV_TAKE_PTR(rq->call));
	/* The server answers bodies over the limit by itself. */
	if (rq->status == 0 && status == 0) {
		rq->status = av_err_http_status(AV_ERR_TOO_LARGE);
		rq->failed = AV_ERR_TOO_LARGE;
	}
	request_count(rq);
	api_audit_end(rq);
	request_free(rq);
}

void api_request_release(struct api_request *rq)
{
	/* The connection lives on as a session; req is gone, so nothing of it may be read. */
	rq->api->metrics.in_flight--;
	api_metrics_request(&rq->api->metrics, rq->match.route, 101, -1);
	rq->status = 101;
	trace_end(rq);
	request_free(rq);
}

static void on_body(void *ctx, struct av_req *req, struct av_str data)
{
	struct api_request *rq = ctx;

	(void)req;
	if (rq->on_body)
		rq->on_body(rq, data);
}

static void on_body_end(void *ctx, struct av_req *req)
{
	struct api_request *rq = ctx;

	(void)req;
	if (rq->on_body_end)
		rq->on_body_end(rq);
}

static void on_drain(void *ctx, struct av_req *req)
{
	struct api_request *rq = ctx;

	(void)req;
	if (rq->on_drain)
		rq->on_drain(rq);
}

static const struct av_req_handler request_handler = {
    .on_body = on_body, .on_body_end = on_body_end, .on_drain = on_drain, .on_close = on_close};

static void on_json(void *ctx, struct av_req *req, struct av_str body)
{
	struct api_request *rq = ctx;
	struct av_err err;

	(void)req;
	rq->raw_body = body;
	if (av_str_trim(body).n == 0) {
		rq->body = json_object();
		if (!rq->body)
			(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	} else {
		rq->body = av_json_parse_object(body, &err);
	}
	if (rq->body)
		rq->match.route->handler(rq);
	else
		api_send_err(rq, &err);
	/* rq is alive: on_close never comes from inside. */
	rq->raw_body = AV_STR("");
}

static void dispatch(struct api_request *rq)
{
	const struct api_route *route = rq->match.route;

	if (route->body == API_BODY_JSON)
		av_req_body_collect(rq->req, (size_t)route->limit, on_json);
	else
		route->handler(rq);
}

static void send_method_not_allowed(struct api_request *rq, const char *allow)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ERROR_BODY_MAX);
	const struct av_http_header headers[] = {
	    {.name = AV_STR("allow"), .value = av_str_c(allow)},
	    {.name = AV_STR("content-type"), .value = AV_STR("application/json")},
	};
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_METHOD_NOT_ALLOWED,
	    "method %.*s is not served here; allowed: %s",
	    (int)AV_MIN(av_req_head(rq->req)->method.n, (size_t)32), av_req_head(rq->req)->method.p,
	    allow);
	api_write_err(&out, &err);
	rq->api->metrics.errors[err.kind]++;
	rq->status = 405;
	(void)av_res_send(rq->req, 405, headers, AV_ARRAY_LEN(headers), av_buf_str(&out));
}

void api_on_request(void *api, struct av_req *req)
{
	struct api_request *rq = calloc(1, sizeof *rq);
	struct av_str path = av_req_path(req);
	struct av_err err;
	char allow[64];
	int r;

	if (!rq) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the request");
		(void)av_res_send_err(req, &err);
		return;
	}
	rq->api = api;
	rq->req = req;
	rq->api->metrics.in_flight++;
	av_req_set_handler(req, &request_handler, rq);
	trace_begin(rq);
	if (proxy_claims(rq))
		return;
	r = api_route_match(av_req_head(req)->method, path, &rq->match, allow, sizeof allow);
	if (r == -EOPNOTSUPP) {
		send_method_not_allowed(rq, allow);
		return;
	}
	if (r < 0) {
		(void)av_err_set(&err, AV_ERR_NOT_FOUND, "nothing is served at %.*s",
		    (int)AV_MIN(path.n, (size_t)200), path.p);
		api_send_err(rq, &err);
		return;
	}
	if ((rq->match.route->auth == API_AUTH_LOCAL && api_authenticate_local(rq, &err) < 0) ||
	    ((rq->match.route->auth == API_AUTH_KEY || rq->match.route->auth == API_AUTH_USER) &&
	        api_authenticate(rq, &err) < 0) ||
	    (rq->match.route->auth == API_AUTH_HOST && api_authenticate_host(rq, &err) < 0) ||
	    decode_params(rq, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	dispatch(rq);
}
