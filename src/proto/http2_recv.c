/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http2_recv.c - what comes from the peer: heads, bodies, resets, and the budgets against abuse
 *
 * nghttp2 checks the grammar of frames and most of HTTP's rules (pseudo-header order,
 * content-length against the body, connection-specific headers). Added here: limits on a head,
 * targets and authorities that every later layer can trust, and the flood budgets of http2.h. A
 * request head that breaks them is answered by the codec itself with 400 or 431, unseen by the
 * owner.
 */
#include "proto/http2_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/num.h"

#include "base/banned.h"

struct av_http2_stream *av_http2_stream_new(struct av_http2 *h, int32_t id)
{
	struct av_http2_stream *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->session = h;
	s->id = id;
	av_list_init(&s->drain_link);
	av_list_append(&h->streams, &s->link);
	h->n_streams++;
	return s;
}

static void over_budget(struct av_http2 *h)
{
	if (h->failed)
		return;
	h->failed = -EPROTO;
	nghttp2_session_terminate_session(h->ng, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void count_idle_frame(struct av_http2 *h)
{
	if (++h->idle_frames > h->config.idle_frame_budget && h->config.idle_frame_budget)
		over_budget(h);
}

static void drop_head(struct av_http2_stream *s)
{
	if (!s->head)
		return;
	av_http_head_clear(s->head);
	free(s->head);
	s->head = NULL;
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
	struct av_http2 *h = ctx;
	struct av_http2_stream *s;
	if (frame->hd.type != NGHTTP2_HEADERS)
		return 0;
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		if (!(s = av_http2_stream_new(h, frame->hd.stream_id)))
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		s->hidden = true;
		nghttp2_session_set_stream_user_data(ng, frame->hd.stream_id, s);
	} else {
		s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
		if (!s)
			return 0;
	}
	drop_head(s);
	if (!(s->head = malloc(sizeof(*s->head))))
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	av_http_head_init(s->head);
	s->head->minor_version = 2;
	s->head_bytes = 0;
	return 0;
}

static int set_authority(struct av_http2_stream *s, struct av_str value)
{
	struct av_http_head *head = s->head;
	/* :authority and Host may both stand there, but may not differ (RFC 9113 section 8.3.1). */
	if (head->authority.n && !av_str_ieq(head->authority, value))
		return -EINVAL;
	if (value.n && !av_http_is_authority(value))
		return -EINVAL;
	return av_http_head_copy(head, value, &head->authority);
}

static int set_target(struct av_http2_stream *s, struct av_str value)
{
	if (value.n > s->session->config.limits.target_bytes)
		return -EMSGSIZE;
	if (!av_http_is_target(value))
		return -EINVAL;
	return av_http_head_copy(s->head, value, &s->head->target);
}

static int add_header(struct av_http2_stream *s, struct av_str name, struct av_str value)
{
	struct av_http_head *head = s->head;
	uint64_t number;
	if (av_str_eq_c(name, ":method"))
		return av_http_head_copy(head, value, &head->method);
	if (av_str_eq_c(name, ":scheme"))
		return av_http_head_copy(head, value, &head->scheme);
	if (av_str_eq_c(name, ":path"))
		return set_target(s, value);
	if (av_str_eq_c(name, ":authority") || av_str_eq_c(name, "host"))
		return set_authority(s, value);
	if (av_str_eq_c(name, ":status")) {
		if (av_parse_u64(value, 100, 599, &number) < 0)
			return -EINVAL;
		head->status = (int)number;
		return 0;
	}
	if (av_str_eq_c(name, "content-length")) {
		if (av_parse_u64(value, 0, INT64_MAX, &number) < 0)
			return -EINVAL;
		head->content_length = (int64_t)number;
		return 0;
	}
	if (name.n && name.p[0] == ':')
		return -EINVAL;
	if (av_str_eq_c(name, "expect") && av_str_ieq(value, AV_STR("100-continue")))
		head->expect_continue = true;
	if (head->n_headers >= s->session->config.limits.header_count)
		return -EMSGSIZE;
	return av_http_head_add(head, name, value);
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
    size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *ctx)
{
	struct av_http2 *h = ctx;
	struct av_http2_stream *s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
	(void)flags;
	if (!s || !s->head || s->head_too_large || s->head_invalid)
		return 0;
	s->head_bytes += name_n + value_n + 32;
	int r = -EMSGSIZE;
	if (s->head_bytes <= h->config.limits.head_bytes)
		r = add_header(s, av_str_n((const char *)name, name_n),
		    av_str_n((const char *)value, value_n));
	if (r == -EMSGSIZE)
		s->head_too_large = true;
	else if (r == -EINVAL)
		s->head_invalid = true;
	else if (r < 0)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	return 0;
}

/* Answers a bad head without the owner. */
static void refuse_head(struct av_http2_stream *s)
{
	struct av_http2 *h = s->session;
	struct av_http_head answer;
	drop_head(s);
	if (!h->server || s->got_head) {
		av_http2_reset(s, AV_HTTP2_PROTOCOL_ERROR);
		return;
	}
	count_idle_frame(h);
	av_http_head_response(&answer, s->head_too_large ? 431 : 400);
	answer.content_length = 0;
	if (av_http2_respond(s, &answer, true) < 0)
		av_http2_reset(s, AV_HTTP2_INTERNAL_ERROR);
	else if (!s->remote_ended)
		av_http2_reset(s, AV_HTTP2_NO_ERROR);
}

static void deliver_end(struct av_http2_stream *s, struct av_http_head *trailers)
{
	s->remote_ended = true;
	if (!s->hidden && !s->reset && s->session->events->on_end)
		s->session->events->on_end(s->session->ctx, s, trailers);
}

static void deliver_head(struct av_http2_stream *s, bool end)
{
	struct av_http2 *h = s->session;
	struct av_http_head *head = s->head;
	s->head = NULL;
	s->got_head = true;
	s->hidden = false;
	head->has_body = !end;
	/* A message pays for the window updates and late frames that come with it. */
	h->idle_frames -= AV_MIN(h->idle_frames, 4u);
	h->events->on_head(h->ctx, s, head, end);
	av_http_head_clear(head);
	free(head);
	if (end)
		deliver_end(s, NULL);
}

static void headers_received(struct av_http2_stream *s, bool end)
{
	struct av_http2 *h = s->session;
	if (s->reset || h->failed || !s->head) {
		drop_head(s);
		s->remote_ended |= end;
		return;
	}
	bool trailers = s->got_head && (h->server || s->head->status == 0);
	if (s->head_too_large || s->head_invalid) {
		s->remote_ended |= end;
		refuse_head(s);
	} else if (trailers) {
		struct av_http_head *t = s->head;
		s->head = NULL;
		deliver_end(s, t);
		av_http_head_clear(t);
		free(t);
	} else if (!h->server && s->head->status < 200) {
		drop_head(s);
	} else {
		deliver_head(s, end);
	}
}

static void settings_received(struct av_http2 *h)
{
	if (h->ready) {
		count_idle_frame(h);
		return;
	}
	h->ready = true;
	if (h->events->on_ready)
		h->events->on_ready(h->ctx);
}

static void goaway_received(struct av_http2 *h, const nghttp2_goaway *frame)
{
	h->goaway_received = true;
	if (h->events->on_goaway)
		h->events->on_goaway(h->ctx, frame->error_code, frame->last_stream_id);
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
	struct av_http2 *h = ctx;
	struct av_http2_stream *s = NULL;
	uint64_t opaque = 0;
	if (frame->hd.stream_id)
		s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
	bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
		if (s)
			headers_received(s, end);
		break;
	case NGHTTP2_DATA:
		if (frame->hd.length == 0 && !end)
			count_idle_frame(h);
		if (s && end)
			deliver_end(s, NULL);
		break;
	case NGHTTP2_SETTINGS:
		if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
			settings_received(h);
		break;
	case NGHTTP2_PING:
		if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
			count_idle_frame(h);
		} else if (h->events->on_pong) {
			memcpy(&opaque, frame->ping.opaque_data, sizeof(opaque));
			h->events->on_pong(h->ctx, opaque);
		}
		break;
	case NGHTTP2_GOAWAY:
		goaway_received(h, &frame->goaway);
		break;
	case NGHTTP2_RST_STREAM:
		break; /* on_stream_close follows */
	default:       /* PRIORITY, WINDOW_UPDATE and what nghttp2 lets through */
		count_idle_frame(h);
		break;
	}
	return 0;
}

static int on_invalid_frame(
    nghttp2_session *ng, const nghttp2_frame *frame, int lib_error, void *ctx)
{
	(void)ng;
	(void)frame;
	(void)lib_error;
	count_idle_frame(ctx);
	return 0;
}

static int on_data_chunk(
    nghttp2_session *ng, uint8_t flags, int32_t stream_id, const uint8_t *p, size_t n, void *ctx)
{
	struct av_http2 *h = ctx;
	struct av_http2_stream *s = nghttp2_session_get_stream_user_data(ng, stream_id);
	(void)flags;
	h->idle_frames -= AV_MIN(h->idle_frames, 4u);
	if (!s || s->hidden || s->reset || !h->events->on_body) {
		nghttp2_session_consume(ng, stream_id, n);
		return 0;
	}
	s->unconsumed += n;
	if (h->config.own_windows)
		nghttp2_session_consume_connection(ng, n);
	h->events->on_body(h->ctx, s, p, n);
	return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t stream_id, uint32_t error, void *ctx)
{
	struct av_http2 *h = ctx;
	struct av_http2_stream *s = nghttp2_session_get_stream_user_data(ng, stream_id);
	if (!s)
		return 0;
	nghttp2_session_set_stream_user_data(ng, stream_id, NULL);
	if (h->server && error == NGHTTP2_NO_ERROR)
		h->resets -= AV_MIN(h->resets, 1u);
	else if (h->server && !s->reset && ++h->resets > h->config.reset_budget &&
	         h->config.reset_budget)
		over_budget(h);
	if (s->unconsumed && !h->config.own_windows)
		nghttp2_session_consume_connection(ng, s->unconsumed);
	av_http2_stream_gone(s, error);
	return 0;
}

void av_http2_recv_callbacks(nghttp2_session_callbacks *cbs)
{
	nghttp2_session_callbacks_set_on_begin_headers_callback(cbs, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cbs, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cbs, on_frame_recv);
	nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cbs, on_invalid_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cbs, on_data_chunk);
	nghttp2_session_callbacks_set_on_stream_close_callback(cbs, on_stream_close);
}

int av_http2_recv(struct av_http2 *h, const void *p, size_t n, struct av_err *err)
{
	if (h->dead)
		return av_err_set(err, AV_ERR_INVALID, "the HTTP/2 connection has ended"), -EPROTO;
	if (h->failed == 0) {
		ssize_t r = nghttp2_session_mem_recv(h->ng, p, n);
		if (r == NGHTTP2_ERR_NOMEM) {
			h->failed = -ENOMEM;
			nghttp2_session_terminate_session(h->ng, NGHTTP2_INTERNAL_ERROR);
		} else if (r < 0) {
			h->failed = -EPROTO;
			nghttp2_session_terminate_session(h->ng, NGHTTP2_PROTOCOL_ERROR);
			av_err_set(err, AV_ERR_INVALID, "HTTP/2 protocol error: %s",
			    nghttp2_strerror((int)r));
			return h->failed;
		}
	}
	if (h->failed == -ENOMEM)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory in an HTTP/2 session"),
		       -ENOMEM;
	if (h->failed)
		av_err_set(err, AV_ERR_INVALID,
		    "HTTP/2 peer exceeded its budget of resets or idle "
		    "frames");
	return h->failed;
}
