/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_req.c - requests: what both versions of HTTP share of body, response and lifetime
 */
#include <errno.h>
#include <stdlib.h>

#include "base/avtime.h"
#include "base/ids.h"
#include "base/jsontext.h"
#include "net/server_internal.h"

#include "base/banned.h"

static void on_body_idle(void *ctx)
{
	struct av_req *req = ctx;
	req->conn->server->metrics.timeouts++;
	struct av_err err = {0};
	av_err_set(&err, AV_ERR_REQUEST_TIMEOUT, "nothing of the request body came for %u ms",
	    req->conn->server->cfg.body_idle_timeout_ms);
	req->close_status = -ETIMEDOUT;
	if (!req_take(req, &err))
		req->ops->abort(req, -ETIMEDOUT);
	conn_schedule(req->conn);
}

static bool id_acceptable(struct av_str s)
{
	if (s.n == 0 || s.n > 64)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
		    c != '_' && c != '-' && c != '.')
			return false;
	}
	return true;
}

static void id_make(struct av_req *req)
{
	const struct av_str *given = av_http_head_get(&req->head, "x-request-id");
	if (given && id_acceptable(*given)) {
		memcpy(req->id, given->p, given->n);
		req->id[given->n] = 0;
		return;
	}
	uint8_t r[AV_REQ_ID_LEN];
	av_random(r, sizeof(r));
	for (size_t i = 0; i < sizeof(r); i++)
		req->id[i] = "0123456789abcdefghijklmnopqrstuvwxyz"[r[i] % 36];
	req->id[sizeof(r)] = 0;
}

struct av_req *req_new(struct conn *c, const struct req_ops *ops, struct av_http_head *head)
{
	struct av_req *req = calloc(1, sizeof(*req));
	if (!req)
		return NULL;
	req->conn = c;
	req->ops = ops;
	av_list_init(&req->link);
	av_http_head_init(&req->head);
	av_http_head_move(&req->head, head);
	av_http_split_target(req->head.target, &req->path, &req->query);
	av_timer_init(&req->body_timer, c->server->loop, on_body_idle, req);
	av_timer_init(&req->write_timer, c->server->loop, NULL, req);
	av_buf_init(&req->body, SERVER_H2_WINDOW);
	av_buf_init(&req->collected, 1);
	req->write_timeout_ms = c->server->cfg.write_timeout_ms;
	req->high_mark = c->server->cfg.high_watermark_bytes;
	req->low_mark = c->server->cfg.low_watermark_bytes;
	req->left = -1;
	req->start_ns = av_mono_ns();
	id_make(req);
	return req;
}

void req_dispatch(struct av_req *req)
{
	struct av_http_server *s = req->conn->server;
	s->metrics.requests_total++;
	s->metrics.requests_open++;
	s->cfg.on_request(s->cfg.ctx, req);
}

void req_free(struct av_req *req)
{
	req->conn->server->metrics.requests_open--;
	if (req->stream)
		av_http2_stream_set_user(req->stream, NULL);
	av_list_remove(&req->link);
	av_timer_stop(&req->body_timer);
	av_timer_stop(&req->write_timer);
	av_http_head_clear(&req->head);
	av_buf_clear(&req->body);
	av_buf_clear(&req->collected);
	free(req);
}

void req_close(struct av_req *req, int status)
{
	struct av_http_server_metrics *m = &req->conn->server->metrics;
	req->dead = true;
	if (req->close_status)
		status = req->close_status;
	if (status == -ECONNRESET)
		m->client_gone++;
	if (!req->status)
		m->responses[0]++;
	if (req->handler && req->handler->on_close)
		req->handler->on_close(req->ctx, req, status);
	req_free(req);
}

/* ---- the request ---- */

void av_req_set_handler(struct av_req *req, const struct av_req_handler *handler, void *ctx)
{
	req->handler = handler;
	req->ctx = ctx;
}

void *av_req_ctx(const struct av_req *req)
{
	return req->ctx;
}

const struct av_http_head *av_req_head(const struct av_req *req)
{
	return &req->head;
}

struct av_str av_req_path(const struct av_req *req)
{
	return req->path;
}

struct av_str av_req_query(const struct av_req *req)
{
	return req->query;
}

bool av_req_header(const struct av_req *req, const char *name, struct av_str *ret)
{
	struct av_str n = av_str_c(name);
	for (size_t i = 0; i < req->head.n_headers; i++) {
		if (!av_str_ieq(req->head.headers[i].name, n))
			continue;
		*ret = req->head.headers[i].value;
		return true;
	}
	return false;
}

const char *av_req_id(const struct av_req *req)
{
	return req->id;
}

const char *av_req_peer(const struct av_req *req)
{
	return req->conn->peer;
}

bool av_req_is_http2(const struct av_req *req)
{
	return req->stream;
}

bool av_req_is_tls(const struct av_req *req)
{
	return req->conn->tp.tls != NULL;
}

void av_req_set_traceparent(struct av_req *req, const char *text)
{
	if (av_str_copy(req->traceparent, sizeof(req->traceparent), av_str_c(text)) < 0)
		req->traceparent[0] = 0;
}

int64_t av_req_start_ns(const struct av_req *req)
{
	return req->start_ns;
}

struct av_loop *av_req_loop(const struct av_req *req)
{
	return req->conn->server->loop;
}

bool av_req_has_body(const struct av_req *req)
{
	return req->head.has_body && req->head.content_length != 0;
}

int64_t av_req_content_length(const struct av_req *req)
{
	return req->head.has_body ? req->head.content_length : 0;
}

/* ---- its body ---- */

bool req_wants_body(const struct av_req *req)
{
	return req->body_started && !req->body_paused && !req->ended && !req->taken && !req->dead;
}

void req_body_timer(struct av_req *req)
{
	if (req_wants_body(req) && !req->body_complete && !req->tunnel)
		av_timer_start(&req->body_timer, req->conn->server->cfg.body_idle_timeout_ms);
	else
		av_timer_stop(&req->body_timer);
}

bool req_deliver(struct av_req *req, struct av_str data)
{
	req->body_seen += data.n;
	req_body_timer(req);
	if (req->body_seen > req->body_max) {
		struct av_err err = {0};
		av_err_set(&err, AV_ERR_TOO_LARGE,
		    "the request body is larger than the %llu bytes that this call takes",
		    (unsigned long long)req->body_max);
		if (!req_take(req, &err))
			req->ops->abort(req, -EPROTO);
		return false;
	}
	if (req->on_collected) {
		if (av_buf_append(&req->collected, data.p, data.n) < 0) {
			struct av_err err = {0};
			av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory for the request body");
			if (!req_take(req, &err))
				req->ops->abort(req, -ENOMEM);
			return false;
		}
	} else if (req->handler && req->handler->on_body) {
		req->handler->on_body(req->ctx, req, data);
	}
	return true;
}

void req_deliver_end(struct av_req *req)
{
	if (!req->body_complete || req->body_end_told || !req_wants_body(req))
		return;
	req->body_end_told = true;
	av_timer_stop(&req->body_timer);
	if (req->on_collected)
		req->on_collected(req->ctx, req, av_buf_str(&req->collected));
	else if (req->handler && req->handler->on_body_end)
		req->handler->on_body_end(req->ctx, req);
}

int av_req_body_start(struct av_req *req, uint64_t max_bytes)
{
	if (req->dead || req->taken || req->ended)
		return -EPIPE;
	if (req->body_started)
		return -EALREADY;
	if (av_req_content_length(req) > 0 && (uint64_t)av_req_content_length(req) > max_bytes)
		return -EMSGSIZE;
	if (req->head.expect_continue && !req->status && !req->body_complete) {
		int rc = req->ops->proceed(req);
		if (rc < 0)
			return rc;
	}
	req->body_started = true;
	req->body_max = max_bytes;
	req_body_timer(req);
	conn_schedule(req->conn);
	return 0;
}

void av_req_body_pause(struct av_req *req)
{
	req->body_paused = true;
	req_body_timer(req);
	if (!req->stream && req->conn->h1)
		av_http1_pause(req->conn->h1);
}

void av_req_body_resume(struct av_req *req)
{
	if (!req->body_paused)
		return;
	req->body_paused = false;
	req_body_timer(req);
	conn_schedule(req->conn);
}

void av_req_body_collect(struct av_req *req, size_t max_bytes,
    void (*on_body)(void *ctx, struct av_req *req, struct av_str body))
{
	req->on_collected = on_body;
	av_buf_init(&req->collected, max_bytes ? max_bytes : 1);
	if (av_req_body_start(req, max_bytes) != -EMSGSIZE)
		return;
	struct av_err err = {0};
	av_err_set(&err, AV_ERR_TOO_LARGE,
	    "the request body is %lld bytes; this call takes at most %zu",
	    (long long)av_req_content_length(req), max_bytes);
	req_take(req, &err);
}

/* ---- the response ---- */

int server_headers(struct av_http_server *s, struct av_http_head *head, const struct av_req *req)
{
	time_t now = time(NULL);
	if (now != s->date_s) {
		struct tm tm;
		gmtime_r(&now, &tm);
		strftime(s->date, sizeof(s->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		s->date_s = now;
	}
	int rc = 0;
	if (!av_http_head_get(head, "date"))
		rc = av_http_head_add_c(head, "date", s->date);
	if (rc == 0 && !av_http_head_get(head, "server"))
		rc = av_http_head_add_c(head, "server", s->cfg.server_name);
	if (rc == 0 && req && !av_http_head_get(head, "x-request-id"))
		rc = av_http_head_add_c(head, "x-request-id", req->id);
	if (rc == 0 && req && req->traceparent[0] && !av_http_head_get(head, "traceparent"))
		rc = av_http_head_add_c(head, "traceparent", req->traceparent);
	return rc;
}

static int res_start(struct av_req *req, int status, const struct av_http_header *headers,
    size_t n_headers, int64_t content_length, bool empty)
{
	if (req->status || req->ended)
		return -EALREADY;
	if (req->dead)
		return -EPIPE;
	if (status < 200 || status > 599)
		return -EINVAL;
	struct av_http_head head;
	av_http_head_response(&head, status);
	int rc = 0;
	for (size_t i = 0; i < n_headers && rc == 0; i++)
		rc = av_http_head_add(&head, headers[i].name, headers[i].value);
	if (rc == 0)
		rc = server_headers(req->conn->server, &head, req);
	bool bodiless = status == 204 || status == 304;
	bool is_head = av_str_eq_c(req->head.method, "HEAD");
	if (rc == 0) {
		req->no_body = bodiless || is_head;
		req->left = bodiless ? -1 : content_length;
		head.content_length = req->left;
		rc = req->ops->start(req, &head, req->no_body || empty);
	}
	av_http_head_clear(&head);
	if (rc < 0)
		return rc;
	req->status = status;
	req->conn->server->metrics.responses[status / 100]++;
	conn_schedule(req->conn);
	return 0;
}

static int res_write(struct av_req *req, struct av_str data)
{
	if (req->dead)
		return -EPIPE;
	if (!req->status || req->ended)
		return -EINVAL;
	if (req->no_body || data.n == 0)
		return 0;
	if (req->left >= 0) {
		if (data.n > (uint64_t)req->left)
			return -EINVAL;
		req->left -= (int64_t)data.n;
	}
	if (req->ops->pending(req) + data.n > AV_RES_PENDING_MAX) {
		req->ops->abort(req, -ENOBUFS);
		return -ENOBUFS;
	}
	int rc = req->ops->write(req, data);
	if (rc < 0)
		return rc;
	req->written += data.n;
	conn_schedule(req->conn);
	if (req->ops->pending(req) <= req->high_mark)
		return 0;
	req->want_drain = true;
	return 1;
}

static int res_end(struct av_req *req, const struct av_http_head *trailers)
{
	if (req->dead)
		return -EPIPE;
	if (!req->status || req->ended)
		return -EINVAL;
	if (req->left > 0 && !req->no_body) {
		req->ops->abort(req, -ECANCELED);
		return -EINVAL;
	}
	int rc = req->ops->end(req, trailers);
	req->ended = true;
	req_body_timer(req);
	conn_schedule(req->conn);
	return rc;
}

static int res_send(struct av_req *req, int status, const struct av_http_header *headers,
    size_t n_headers, struct av_str body)
{
	int rc = res_start(req, status, headers, n_headers, (int64_t)body.n, body.n == 0);
	if (rc < 0)
		return rc;
	rc = res_write(req, body);
	if (rc < 0) {
		req->ops->abort(req, rc);
		return rc;
	}
	return res_end(req, NULL);
}

#define JSON_HEADER                                                                                \
	{                                                                                          \
		.name = {.p = "content-type", .n = 12}, .value = {                                 \
			.p = "application/json",                                                   \
			.n = 16                                                                    \
		}                                                                                  \
	}

int server_error_json(struct av_buf *out, const struct av_err *err)
{
	av_buf_append_c(out, "{\"error\":{\"code\":");
	av_json_write_str(out, av_str_c(av_err_code(err->kind)));
	av_buf_append_c(out, ",\"message\":");
	av_json_write_str(out, av_str_c(err->message));
	av_buf_append_c(out, "}}");
	return av_buf_error(out);
}

static int res_send_err(struct av_req *req, const struct av_err *err)
{
	static const struct av_http_header json[] = {JSON_HEADER};
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(16384);
	int rc = server_error_json(&body, err);
	if (rc < 0)
		return rc;
	return res_send(req, av_err_http_status(err->kind), json, 1, av_buf_str(&body));
}

bool req_take(struct av_req *req, const struct av_err *err)
{
	if (req->status || req->taken || req->dead)
		return false;
	req->taken = true;
	req->ops->poison(req);
	if (res_send_err(req, err) < 0)
		return false;
	return true;
}

void req_drained(struct av_req *req)
{
	req->want_drain = false;
	if (!req->ended && !req->taken && req->handler && req->handler->on_drain)
		req->handler->on_drain(req->ctx, req);
}

int av_res_send(struct av_req *req, int status, const struct av_http_header *headers,
    size_t n_headers, struct av_str body)
{
	return req->taken ? -EPIPE : res_send(req, status, headers, n_headers, body);
}

int av_res_send_json(struct av_req *req, int status, struct av_str json)
{
	static const struct av_http_header headers[] = {JSON_HEADER};
	return av_res_send(req, status, headers, 1, json);
}

int av_res_send_err(struct av_req *req, const struct av_err *err)
{
	return req->taken ? -EPIPE : res_send_err(req, err);
}

int av_res_start(struct av_req *req, int status, const struct av_http_header *headers,
    size_t n_headers, int64_t content_length)
{
	if (req->taken)
		return -EPIPE;
	return res_start(req, status, headers, n_headers, content_length, false);
}

int av_res_write(struct av_req *req, struct av_str data)
{
	return req->taken ? -EPIPE : res_write(req, data);
}

int av_res_end(struct av_req *req)
{
	return req->taken ? -EPIPE : res_end(req, NULL);
}

int av_res_end_trailers(struct av_req *req, const struct av_http_head *trailers)
{
	return req->taken ? -EPIPE : res_end(req, trailers);
}

int av_res_tunnel(struct av_req *req, const struct av_http_header *headers, size_t n_headers)
{
	if (req->status || req->ended)
		return -EALREADY;
	if (req->dead || req->taken)
		return -EPIPE;
	if (req->stream || !req->head.upgrade || !req->body_complete)
		return -EPROTO;
	struct av_http_head head;
	av_http_head_response(&head, 101);
	int rc = 0;
	for (size_t i = 0; i < n_headers && rc == 0; i++)
		rc = av_http_head_add(&head, headers[i].name, headers[i].value);
	if (rc == 0)
		rc = av_http_head_add_c(&head, "connection", "Upgrade");
	if (rc == 0)
		rc = server_headers(req->conn->server, &head, req);
	if (rc == 0)
		rc = h1_tunnel(req, &head);
	av_http_head_clear(&head);
	if (rc < 0)
		return rc;
	req->conn->server->metrics.responses[1]++;
	conn_schedule(req->conn);
	return 0;
}

void av_res_abort(struct av_req *req)
{
	if (req->dead || req->taken || req->ended)
		return;
	req->ops->abort(req, -ECANCELED);
	conn_schedule(req->conn);
}

void av_res_set_write_timeout(struct av_req *req, uint32_t timeout_ms)
{
	req->write_timeout_ms = timeout_ms;
}

void av_res_set_watermark(struct av_req *req, uint32_t high_bytes)
{
	req->high_mark = AV_MIN(req->high_mark, high_bytes);
	req->low_mark = AV_MIN(req->low_mark, high_bytes / 4);
}

bool av_res_started(const struct av_req *req)
{
	return req->status;
}

size_t av_res_pending(const struct av_req *req)
{
	return req->dead ? 0 : req->ops->pending(req);
}
