/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.c - one HTTP request to an agent, with bodies that stream both ways
 *
 * The agent's head is checked by the codec; what goes on from here to clients is written anew by
 * whoever answers them. Bulk bodies use the bulk link, tunnels to ports one of their own: a client
 * that stops reading a proxied page must not hold up a file.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "node/node_internal.h"
#include "proto/agent_api.h"

#include "base/banned.h"

#define HEADERS_MAX    64
#define PATH_MAX_BYTES 16384

struct node_stream {
	struct conv conv; /* first */
	struct node_stream_events ev;
	void *ctx;
	bool map_errors, passive;
	int bad_status;
	struct av_buf error_body;
	bool paused;
	size_t owed;
};

static struct node_stream *to_stream(struct conv *c)
{
	return AV_CONTAINER_OF(c, struct node_stream, conv);
}

static void stream_on_response(struct conv *c, const struct av_http_head *head)
{
	struct node_stream *s = to_stream(c);
	struct node_header headers[HEADERS_MAX];
	char length[24];
	size_t n = 0;

	if (s->map_errors && head->status >= 400) {
		s->bad_status = head->status;
		return;
	}
	if (head->content_length >= 0 &&
	    snprintf(length, sizeof(length), "%lld", (long long)head->content_length) > 0)
		headers[n++] = (struct node_header){AV_STR("content-length"), av_str_c(length)};
	for (size_t i = 0; i < head->n_headers && n < HEADERS_MAX; i++)
		headers[n++] = (struct node_header){head->headers[i].name, head->headers[i].value};
	if (s->ev.on_head)
		s->ev.on_head(s->ctx, head->status, headers, n);
}

static void give_back(struct node_stream *s, size_t n)
{
	if (s->paused)
		s->owed += n;
	else if (s->conv.h2s)
		av_h2s_consume(s->conv.h2s, n);
}

static void stream_on_data(struct conv *c, struct av_str data)
{
	struct node_stream *s = to_stream(c);

	if (c->quiet && !s->passive && c->sb)
		node_sandbox_activity(c->sb);
	if (s->bad_status)
		(void)av_buf_append_str(&s->error_body, data);
	else if (s->ev.on_data)
		s->ev.on_data(s->ctx, data);
	give_back(s, data.n);
}

static void stream_on_complete(struct conv *c)
{
	struct node_stream *s = to_stream(c);
	struct av_err err;

	if (s->bad_status) {
		agent_error(&err, s->bad_status, av_buf_str(&s->error_body));
		conv_fail(c, &err);
		return;
	}
	conv_end(c, true);
	s->ev.on_end(s->ctx, NULL);
}

static void stream_on_writable(struct conv *c)
{
	struct node_stream *s = to_stream(c);

	if (s->ev.on_drain)
		s->ev.on_drain(s->ctx);
}

static void stream_fail(struct conv *c, const struct av_err *err)
{
	struct node_stream *s = to_stream(c);

	s->ev.on_end(s->ctx, err);
}

static void stream_free(struct conv *c)
{
	struct node_stream *s = to_stream(c);

	av_buf_clear(&s->error_body);
	free(s);
}

static const struct conv_ops stream_ops = {
    .on_response = stream_on_response,
    .on_data = stream_on_data,
    .on_complete = stream_on_complete,
    .on_writable = stream_on_writable,
    .fail = stream_fail,
    .free = stream_free,
};

int node_stream_open(struct node_sandbox *sb, const struct node_stream_request *rq,
    const struct node_stream_events *ev, void *ctx, struct node_stream **ret, struct av_err *err)
{
	struct av_http_header headers[HEADERS_MAX];
	struct av_h2s_request h2 = {
	    .method = av_str_c(rq->method),
	    .path = rq->path,
	    .authority = AV_STR(AV_AGENT_AUTHORITY),
	    .headers = headers,
	    .n_headers = rq->n_headers,
	    .has_body = rq->has_body,
	    .body = rq->body,
	};
	bool tunnel = rq->tunnel_port;
	struct node_stream *s;
	char authority[24];
	int r;

	if (tunnel) {
		(void)snprintf(authority, sizeof(authority), "localhost:%u", rq->tunnel_port);
		h2 = (struct av_h2s_request){
		    .method = AV_STR("CONNECT"),
		    .authority = av_str_c(authority),
		    .has_body = true,
		};
		sb->node->stats.tunnels_refused += sb->n_tunnels >= TUNNELS_MAX;
		if (sb->n_tunnels >= TUNNELS_MAX)
			return av_err_set(err, AV_ERR_RATE_LIMITED,
			    "%d connections to ports of this sandbox are open, and no more can be; "
			    "close some or try later",
			    TUNNELS_MAX);
	} else if (rq->n_headers > HEADERS_MAX || rq->path.n > PATH_MAX_BYTES)
		return av_err_set(err, AV_ERR_HEAD_TOO_LARGE,
		    "at most %d headers and a path of %d bytes can be passed on", HEADERS_MAX,
		    PATH_MAX_BYTES);
	for (size_t i = 0; i < h2.n_headers; i++)
		headers[i] = (struct av_http_header){rq->headers[i].name, rq->headers[i].value};
	s = calloc(1, sizeof(*s));
	if (!s)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	s->ev = *ev;
	s->ctx = ctx;
	s->map_errors = rq->map_errors;
	s->passive = s->conv.quiet = rq->passive;
	av_buf_init(&s->error_body, ERROR_BODY_MAX);
	r = conv_open(&s->conv, sb,
	    tunnel            ? LINK_PORTS
	    : rq->interactive ? LINK_INTERACTIVE
	                      : LINK_BULK,
	    &stream_ops, &h2, err);
	if (r < 0) {
		free(s);
		return r;
	}
	s->conv.tunnel = tunnel;
	sb->n_tunnels += tunnel;
	*ret = s;
	return 0;
}

bool node_stream_send(struct node_stream *s, struct av_str data)
{
	struct av_err err;
	int r;

	if (!s->conv.h2s || s->conv.over || s->conv.pending)
		return true;
	if (s->conv.quiet && !s->passive && s->conv.sb)
		node_sandbox_activity(s->conv.sb);
	r = av_h2s_write(s->conv.h2s, data);
	if (r == -ENOMEM) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		conv_abort(&s->conv, &err);
	}
	return r != 1;
}

void node_stream_finish(struct node_stream *s)
{
	if (s->conv.h2s && !s->conv.over)
		av_h2s_end(s->conv.h2s);
}

void node_stream_pause(struct node_stream *s, bool paused)
{
	size_t owed = s->owed;

	s->paused = paused;
	if (paused || !owed)
		return;
	s->owed = 0;
	if (s->conv.h2s)
		av_h2s_consume(s->conv.h2s, owed);
}

void node_stream_set_quiet(struct node_stream *s)
{
	struct node_sandbox *sb = s->conv.sb;

	if (!sb || s->conv.quiet)
		return;
	s->conv.quiet = true;
	sb->n_quiet++;
	node_sandbox_activity(sb);
}

void node_stream_cancel(struct node_stream *s)
{
	conv_end(&s->conv, false);
}
