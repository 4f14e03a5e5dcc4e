/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reverse_proxy.c - one request answered by a server behind a channel (see reverse_proxy.h)
 */
#include "net/reverse_proxy.h"

#include <errno.h>
#include <stdlib.h>

#include "net/http_server.h"
#include "net/loop.h"
#include "proto/http1.h"

#include "base/banned.h"

enum state { CONNECTING, WAITING, ANSWERING, TUNNEL, DONE };

struct av_rproxy {
	struct av_rproxy_config cfg;
	struct av_req *req;
	struct av_http1 *parser; /* owned */
	struct av_timer timer;
	enum state state;
	bool channel_open;   /* it may still be used and must be cancelled */
	bool channel_paused; /* the client does not take what comes */
	bool chunked;        /* the request body goes in chunks */
	bool upgrade;        /* the client asked for one */
	/* of the route; texts owned */
	struct av_proxy_route route;
	char *host;
	/* what the parser's callbacks found, for the one who fed it */
	bool answered; /* the end of the message came */
	bool tunnel;   /* a 101 */
	struct av_err err;
	bool failed;
};

/* ---- ends ---- */

static void drop_channel(struct av_rproxy *p)
{
	if (!p->channel_open)
		return;
	p->channel_open = false;
	p->cfg.channel->cancel(p->cfg.ctx);
}

static void over(struct av_rproxy *p)
{
	p->state = DONE;
	av_timer_stop(&p->timer);
	drop_channel(p);
}

static void fail(struct av_rproxy *p, const struct av_err *err)
{
	bool begun = av_res_started(p->req);

	if (p->state == DONE)
		return;
	over(p);
	if (begun)
		av_res_abort(p->req);
	else
		p->cfg.on_error(p->cfg.ctx, err);
}

static void on_timeout(void *ctx)
{
	struct av_rproxy *p = ctx;
	uint16_t port = p->route.port;
	struct av_err err;

	if (p->state == CONNECTING)
		(void)av_err_set(&err, AV_ERR_EXEC_TIMEOUT,
		    "the server at port %u of the sandbox did not take the connection within "
		    "%u ms",
		    port, p->cfg.connect_ms);
	else
		(void)av_err_set(&err, AV_ERR_EXEC_TIMEOUT,
		    "the server at port %u of the sandbox did not answer within %u s", port,
		    p->cfg.head_ms / 1000);
	fail(p, &err);
}

/* Something moved. */
static void restart_timer(struct av_rproxy *p)
{
	switch (p->state) {
	case CONNECTING:
	case DONE:
		break;
	case WAITING:
		av_timer_start(&p->timer, p->cfg.head_ms);
		break;
	case ANSWERING:
	case TUNNEL:
		av_timer_start(&p->timer, p->cfg.idle_ms);
		break;
	}
}

/* ---- the server's answer ---- */

static int refuse(struct av_rproxy *p, const char *what)
{
	(void)av_err_set(&p->err, AV_ERR_UPSTREAM, "the server at port %u of the sandbox %s",
	    p->route.port, what);
	p->failed = true;
	return -EPROTO;
}

static int start_tunnel(struct av_rproxy *p, struct av_http_head *head)
{
	int r;

	if (!p->upgrade || !av_http_head_get(head, "upgrade"))
		return refuse(p, "changed to a protocol that was not asked for");
	r = av_res_tunnel(p->req, head->headers, head->n_headers);
	if (r < 0)
		return refuse(p, "sent a head that cannot be passed on");
	p->tunnel = true;
	av_res_set_write_timeout(p->req, p->cfg.idle_ms);
	return av_req_body_start(p->req, UINT64_MAX);
}

static int start_answer(struct av_rproxy *p, const struct av_http_head *head)
{
	/* A client may rest for as long as it likes: a window is all that waits for it. */
	av_res_set_write_timeout(p->req, p->cfg.idle_ms);
	if (av_res_start(
	        p->req, head->status, head->headers, head->n_headers, head->content_length) < 0)
		return refuse(p, "sent a head that cannot be passed on");
	return 0;
}

static int on_head(void *ctx, struct av_http_head *head)
{
	struct av_rproxy *p = ctx;
	struct av_http_head out;
	int r;

	if (head->status < 200 && head->status != 101)
		return 0; /* the proxy has said 100 itself, the others are hints */
	r = av_proxy_response_head(&out, head, &p->route);
	if (r < 0)
		return refuse(p, "sent a head that cannot be passed on");
	if (!head->has_body && out.content_length < 0 && head->status >= 200 &&
	    !av_str_eq_c(av_req_head(p->req)->method, "HEAD"))
		out.content_length = 0;
	r = head->status == 101 ? start_tunnel(p, &out) : start_answer(p, &out);
	av_http_head_clear(&out);
	if (r == 0) {
		p->state = head->status == 101 ? TUNNEL : ANSWERING;
		p->cfg.on_started(p->cfg.ctx, head->status);
	}
	return r;
}

static void to_client(struct av_rproxy *p, struct av_str data)
{
	int r = av_res_write(p->req, data);

	if (r == 1 && !p->channel_paused) {
		p->channel_paused = true;
		p->cfg.channel->pause(p->cfg.ctx, true);
	}
	if (r < 0)
		over(p); /* the client is gone, or was broken off: on_close is on its way */
}

static int on_body(void *ctx, const uint8_t *data, size_t n)
{
	struct av_rproxy *p = ctx;

	to_client(p, av_str_n((const char *)data, n));
	return p->state == DONE ? -ECANCELED : 0;
}

static int on_end(void *ctx, struct av_http_head *trailers)
{
	struct av_rproxy *p = ctx;
	struct av_http_head out;

	if (p->tunnel)
		return 0;
	p->answered = true;
	if (!trailers || av_proxy_trailers(&out, trailers, &p->route) < 0) {
		(void)av_res_end(p->req);
		return 0;
	}
	(void)av_res_end_trailers(p->req, out.n_headers ? &out : NULL);
	av_http_head_clear(&out);
	return 0;
}

static const struct av_http1_events parser_events = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
};

static void parse_failed(struct av_rproxy *p, const struct av_err *err)
{
	if (!p->failed)
		(void)av_err_set(&p->err, AV_ERR_UPSTREAM,
		    "the server at port %u of the sandbox does not speak proper HTTP: %s",
		    p->route.port, err->message);
	fail(p, &p->err);
}

void av_rproxy_channel_connected(struct av_rproxy *p)
{
	if (p->state != CONNECTING)
		return;
	p->state = WAITING;
	restart_timer(p);
	if (av_req_has_body(p->req))
		(void)av_req_body_start(p->req, UINT64_MAX);
}

void av_rproxy_channel_data(struct av_rproxy *p, struct av_str data)
{
	struct av_err err = {0};
	size_t used = 0;

	if (p->state == DONE)
		return;
	/* Bytes of a tunnel that never said it is connected are none of the server's. */
	if (p->state == CONNECTING) {
		(void)av_err_set(&err, AV_ERR_AGENT, "the sandbox's agent broke the protocol");
		fail(p, &err);
		return;
	}
	while (p->state != TUNNEL && data.n) {
		int r = av_http1_feed(p->parser, data.p, data.n, &used, &err);

		if (p->state == DONE)
			return;
		if (r < 0) {
			parse_failed(p, &err);
			return;
		}
		data = av_str_n(data.p + used, data.n - used);
		if (p->answered) {
			over(p);
			return;
		}
	}
	/* Not while the head is incomplete, or one byte now and then would do for ever. */
	if (p->state != WAITING)
		restart_timer(p);
	if (data.n)
		to_client(p, data);
}

void av_rproxy_channel_end(struct av_rproxy *p, const struct av_err *err)
{
	struct av_err cut = {0};
	int r;

	if (p->state == DONE)
		return;
	p->channel_open = false;
	if (err) {
		fail(p, err);
		return;
	}
	if (p->state == TUNNEL) {
		(void)av_res_end(p->req);
		over(p);
		return;
	}
	r = av_http1_finish(p->parser, &cut);
	if (p->answered) {
		over(p);
		return;
	}
	if (r < 0 || p->state == ANSWERING)
		(void)refuse(p, "closed the connection in the middle of its answer");
	else
		(void)refuse(p, "closed the connection without an answer");
	fail(p, &p->err);
}

/* ---- the client's request ---- */

static void to_server(struct av_rproxy *p, struct av_str data)
{
	if (!p->cfg.channel->send(p->cfg.ctx, data))
		av_req_body_pause(p->req);
}

void av_rproxy_body(struct av_rproxy *p, struct av_str data)
{
	char head[18];

	if (!p->channel_open)
		return;
	restart_timer(p);
	if (p->chunked && p->state != TUNNEL) {
		to_server(p, av_str_n(head, av_http1_chunk_head(head, data.n)));
		to_server(p, data);
		to_server(p, AV_STR("\r\n"));
	} else {
		to_server(p, data);
	}
}

void av_rproxy_body_end(struct av_rproxy *p)
{
	if (!p->channel_open)
		return;
	restart_timer(p);
	if (p->state == TUNNEL)
		p->cfg.channel->finish(p->cfg.ctx);
	else if (p->chunked)
		to_server(p, AV_STR("0\r\n\r\n"));
	/* Not finish: many servers take the end of their input for a client that went away. */
}

void av_rproxy_drain(struct av_rproxy *p)
{
	if (!p->channel_open || !p->channel_paused)
		return;
	restart_timer(p);
	p->channel_paused = false;
	p->cfg.channel->pause(p->cfg.ctx, false);
}

void av_rproxy_channel_drain(struct av_rproxy *p)
{
	if (p->state == DONE)
		return;
	restart_timer(p);
	av_req_body_resume(p->req);
}

/* ---- life ---- */

static int send_head(struct av_rproxy *p, const struct av_proxy_route *route)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(512 * 1024);
	struct av_http_head head;
	int r = av_proxy_request_head(&head, av_req_head(p->req), route);

	if (r < 0)
		return r;
	p->upgrade = head.upgrade;
	p->chunked = head.chunked;
	av_http1_expect(p->parser, head.method);
	r = av_http1_write_head(&text, &head);
	av_http_head_clear(&head);
	if (r < 0)
		return r;
	p->channel_open = true;
	(void)p->cfg.channel->send(p->cfg.ctx, av_buf_str(&text));
	return 0;
}

int av_rproxy_new(const struct av_rproxy_config *config, const struct av_proxy_route *route,
    struct av_req *req, struct av_rproxy **ret)
{
	const struct av_http_limits limits = {.head_bytes = AV_RPROXY_HEAD_MAX,
	    .header_count = AV_RPROXY_HEADERS_MAX,
	    .target_bytes = AV_RPROXY_HEAD_MAX};
	struct av_rproxy *p = calloc(1, sizeof(*p));
	int r = -ENOMEM;

	if (!p)
		return -ENOMEM;
	p->cfg = *config;
	p->req = req;
	/* What the answer's head needs of it later; the rest is the caller's. */
	p->route = (struct av_proxy_route){.port = route->port, .scheme = route->scheme};
	av_timer_init(&p->timer, av_req_loop(req), on_timeout, p);
	p->parser = av_http1_new_response(&limits, &parser_events, p);
	p->host = av_str_dup(route->host);
	if (p->parser && p->host) {
		p->route.host = av_str_c(p->host);
		r = send_head(p, route);
	}
	if (r < 0) {
		av_rproxy_free(p);
		return r;
	}
	av_timer_start(&p->timer, p->cfg.connect_ms);
	*ret = p;
	return 0;
}

void av_rproxy_free(struct av_rproxy *p)
{
	if (!p)
		return;
	over(p);
	av_http1_free(p->parser);
	free(p->host);
	free(p);
}
