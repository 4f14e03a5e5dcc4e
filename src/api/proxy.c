/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy.c - requests for ports of sandboxes (see proxy.h)
 */
#include "api/proxy.h"

#include <errno.h>
#include <stdlib.h>

#include "api/proxy_auth.h"
#include "api/proxy_where.h"
#include "api/public_url.h"
#include "control/exec.h"
#include "control/ports.h"
#include "net/reverse_proxy.h"
#include "base/banned.h"

#define TARGET_MAX 65536
#define ERROR_MAX  8192

/* A server may think for minutes; a page may keep a connection open for an hour without a word. */
#define CONNECT_MS 10000
#define HEAD_MS    (5 * 60 * 1000)
#define IDLE_MS    (60 * 60 * 1000)

/* rq->state of a request that a server in the sandbox answers. */
struct proxied {
	struct api_request *rq;
	struct av_rproxy *proxy;
	struct node_stream *tunnel; /* NULL once over */
	uint16_t port;
};

/* ---- answers of our own ---- */

static bool wants_json(const struct av_req *req)
{
	struct av_str accept, part;

	if (!av_req_header(req, "accept", &accept))
		return false;
	while (accept.n) {
		(void)av_str_cut(&accept, ',', &part);
		if (av_str_ieq(av_http_media_type(part), AV_STR("application/json")))
			return true;
	}
	return false;
}

static void send_error(struct api_request *rq, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(ERROR_MAX);
	bool json = wants_json(rq->req);
	struct av_http_header headers[5] = {
	    {AV_STR("content-type"),
	        json ? AV_STR("application/json") : AV_STR("text/plain; charset=utf-8")},
	    {AV_STR("x-content-type-options"), AV_STR("nosniff")},
	    {AV_STR("cache-control"), AV_STR("no-store")},
	    /* Tells it from an answer of the server, which cannot say this. */
	    {AV_STR("x-aviary-error"), av_str_c(av_err_code(err->kind))},
	};
	size_t n = 4;

	if (err->kind == AV_ERR_UNAUTHORIZED)
		headers[n++] =
		    (struct av_http_header){AV_STR("www-authenticate"), AV_STR("Bearer")};
	if (err->kind == AV_ERR_UNAVAILABLE)
		headers[n++] = (struct av_http_header){AV_STR("retry-after"), AV_STR("1")};
	if (json)
		api_write_err(&body, err);
	else
		(void)av_buf_printf(&body, "%s\n", err->message);
	api_started(rq, av_err_http_status(err->kind));
	(void)av_res_send(rq->req, rq->status, headers, n, av_buf_str(&body));
}

/* ---- the channel: a tunnel to the port ---- */

static bool channel_send(void *ctx, struct av_str data)
{
	struct proxied *px = ctx;

	return node_stream_send(px->tunnel, data);
}

static void channel_finish(void *ctx)
{
	struct proxied *px = ctx;

	node_stream_finish(px->tunnel);
}

static void channel_pause(void *ctx, bool paused)
{
	struct proxied *px = ctx;

	node_stream_pause(px->tunnel, paused);
}

static void channel_cancel(void *ctx)
{
	struct proxied *px = ctx;

	node_stream_cancel(AV_TAKE_PTR(px->tunnel));
}

static const struct av_rproxy_channel channel = {
    .send = channel_send,
    .finish = channel_finish,
    .pause = channel_pause,
    .cancel = channel_cancel,
};

static void tunnel_head(void *ctx, int status, const struct node_header *h, size_t n)
{
	struct proxied *px = ctx;
	struct av_err err;

	(void)h;
	(void)n;
	if (status == 200) {
		av_rproxy_channel_connected(px->proxy);
		return;
	}
	if (status == 502)
		(void)av_err_set(&err, AV_ERR_PORT_CLOSED,
		    "nothing listens on port %u in sandbox %s; start a server there, on 127.0.0.1, "
		    "0.0.0.0 or ::",
		    px->port, px->rq->id);
	else
		(void)av_err_set(&err, AV_ERR_AGENT,
		    "the sandbox's agent refused the connection to port %u with status %d",
		    px->port, status);
	node_stream_cancel(AV_TAKE_PTR(px->tunnel));
	av_rproxy_channel_end(px->proxy, &err);
}

static void tunnel_data(void *ctx, struct av_str data)
{
	struct proxied *px = ctx;

	av_rproxy_channel_data(px->proxy, data);
}

static void tunnel_drain(void *ctx)
{
	struct proxied *px = ctx;

	av_rproxy_channel_drain(px->proxy);
}

static void tunnel_end(void *ctx, const struct av_err *err)
{
	struct proxied *px = ctx;

	px->tunnel = NULL;
	av_rproxy_channel_end(px->proxy, err);
}

static const struct node_stream_events tunnel_events = {
    .on_head = tunnel_head,
    .on_data = tunnel_data,
    .on_drain = tunnel_drain,
    .on_end = tunnel_end,
};

/* ---- the request ---- */

static void proxied_gone(struct api_request *rq, int status)
{
	struct proxied *px = rq->state;

	(void)status;
	rq->api->metrics.proxied_open--;
	av_rproxy_free(px->proxy);
	free(px);
}

static void proxied_body(struct api_request *rq, struct av_str data)
{
	struct proxied *px = rq->state;

	av_rproxy_body(px->proxy, data);
}

static void proxied_body_end(struct api_request *rq)
{
	struct proxied *px = rq->state;

	av_rproxy_body_end(px->proxy);
}

static void proxied_drain(struct api_request *rq)
{
	struct proxied *px = rq->state;

	av_rproxy_drain(px->proxy);
}

static void on_error(void *ctx, const struct av_err *err)
{
	struct proxied *px = ctx;

	send_error(px->rq, err);
}

static void on_started(void *ctx, int status)
{
	struct proxied *px = ctx;

	api_started(px->rq, status);
	/* A page that is left open in a browser is no use of the sandbox; what it says is. */
	if (status == 101)
		node_stream_set_quiet(px->tunnel);
}

/* "127.0.0.1" of "127.0.0.1:40312", "::1" of "[::1]:40312". */
static struct av_str peer_ip(const struct av_req *req)
{
	struct av_str peer = av_str_c(av_req_peer(req)), host;
	uint16_t port;

	return av_http_split_authority(peer, 0, &host, &port) == 0 ? host : AV_STR("");
}

static int open_proxy(
    struct proxied *px, const struct proxy_where *where, struct av_str target, struct av_err *err)
{
	struct api_request *rq = px->rq;
	bool tls = public_url_is_tls(rq);
	const struct av_rproxy_config config = {
	    .channel = &channel,
	    .on_error = on_error,
	    .on_started = on_started,
	    .ctx = px,
	    .connect_ms = CONNECT_MS,
	    .head_ms = HEAD_MS,
	    .idle_ms = IDLE_MS,
	};
	const struct av_proxy_route route = {
	    .port = where->port,
	    .host = where->host,
	    .scheme = tls ? "https" : "http",
	    .target = target,
	    .peer_ip = peer_ip(rq->req),
	    .request_id = av_req_id(rq->req),
	    /* With TLS of our own nobody is in front. */
	    .keep_forwarded = tls && !av_req_is_tls(rq->req),
	};
	const struct node_stream_request tunnel = {.method = "", .tunnel_port = where->port};
	int r = control_stream(
	    rq->api->control, &rq->actor, rq->id, &tunnel, &tunnel_events, px, &px->tunnel, err);

	if (r < 0)
		return r;
	r = av_rproxy_new(&config, &route, rq->req, &px->proxy);
	if (r == 0)
		return 0;
	if (px->tunnel)
		node_stream_cancel(AV_TAKE_PTR(px->tunnel));
	return r == -ENOMEM ? av_err_set(err, AV_ERR_NO_MEMORY, "no memory for the request")
	                    : av_err_set(err, AV_ERR_INVALID,
	                          "the head of this request cannot be passed on");
}

static void answer_by_server(
    struct api_request *rq, const struct proxy_where *where, struct av_str target)
{
	struct proxied *px = calloc(1, sizeof *px);
	struct av_err err;

	if (!px) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the request");
		send_error(rq, &err);
		return;
	}
	px->rq = rq;
	px->port = where->port;
	if (open_proxy(px, where, target, &err) < 0) {
		free(px);
		send_error(rq, &err);
		return;
	}
	rq->api->metrics.proxied_open++;
	rq->state = px;
	rq->on_gone = proxied_gone;
	rq->on_body = proxied_body;
	rq->on_body_end = proxied_body_end;
	rq->on_drain = proxied_drain;
}

static bool answer_by_service(struct api_request *rq, uint16_t port)
{
	for (const struct proxy_service *s = proxy_services; s->port; s++)
		if (s->port == port && s->handle(rq))
			return true;
	return false;
}

static int check_method(const struct av_req *req, struct av_err *err)
{
	struct av_str method = av_req_head(req)->method;

	if (!av_str_eq_c(method, "CONNECT") && !av_str_eq_c(method, "TRACE"))
		return 0;
	return av_err_set(err, AV_ERR_METHOD_NOT_ALLOWED,
	    "method %.*s is not passed on to servers in sandboxes", AV_STR_ARG(method));
}

static void handle(struct api_request *rq, const struct proxy_where *where)
{
	AV_CLEANUP(av_buf_clear) struct av_buf token = AV_BUF_INIT(CONTROL_TOKEN_SIZE);
	AV_CLEANUP(av_buf_clear) struct av_buf target = AV_BUF_INIT(TARGET_MAX);
	struct av_err err;
	int r = check_method(rq->req, &err);

	if (r == 0)
		r = proxy_authorize(rq, where, &token, &err);
	if (r >= 0 && proxy_target(&target, rq->req) < 0)
		r = av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the request");
	if (r == PROXY_BY_TOKEN && where->host.n && proxy_is_navigation(rq->req)) {
		proxy_redirect(rq, av_buf_str(&target), av_buf_str(&token), public_url_is_tls(rq));
		return;
	}
	if (r >= 0)
		r = control_port_ready(rq->api->control, &rq->actor, rq->id, &err);
	if (r < 0)
		send_error(rq, &err);
	else if (!answer_by_service(rq, where->port))
		answer_by_server(rq, where, av_buf_str(&target));
}

bool proxy_claims(struct api_request *rq)
{
	struct proxy_where where;
	struct av_err err;
	int r = proxy_where(av_req_head(rq->req), rq->api->ports_domain, &where, &err);

	if (r == 0)
		return false;
	rq->match.route = &api_proxy_route;
	if (r > 0) {
		rq->param[0] = av_str_dup(av_str_c(where.id));
		rq->id = rq->param[0];
		if (!rq->id)
			r = av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the request");
	}
	if (r < 0)
		send_error(rq, &err);
	else
		handle(rq, &where);
	return true;
}
