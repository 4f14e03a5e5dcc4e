/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http2_send.c - what goes to the peer: requests, responses, bodies, and the output queue
 *
 * Bodies wait in a queue of the stream. When nghttp2 asks for a DATA frame, it gets only a length
 * (NGHTTP2_DATA_FLAG_NO_COPY); the frame's nine bytes and references to the body's blocks then go
 * to the output queue. Everything else nghttp2 writes is copied there.
 */
#include "proto/http2_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/banned.h"

#define OUT_BLOCK    1024  /* bytes of a block of frame headers and small frames */
#define BODY_BLOCK   2048  /* smallest block of copied body bytes */
#define FRAME_MAX    65536 /* largest DATA frame we make */
#define FRAME_HEADER 9
#define PSEUDO_MAX   4

static ssize_t on_send(nghttp2_session *ng, const uint8_t *p, size_t n, int flags, void *ctx)
{
	struct av_http2 *h = ctx;
	(void)ng;
	(void)flags;
	if (h->out.bytes >= h->out_limit)
		return NGHTTP2_ERR_WOULDBLOCK;
	if (av_http2_queue_copy(&h->out, &h->out_tail, p, n, OUT_BLOCK) < 0)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	return (ssize_t)n;
}

static void took_bytes(struct av_http2_stream *s)
{
	struct av_http2 *h = s->session;
	h->idle_frames -= AV_MIN(h->idle_frames, 4u);
	if (s->sendq.bytes == 0) {
		/* The output has its own references. */
		av_http2_queue_clear(&s->sendq);
		av_http2_block_unref(s->tail);
		s->tail = NULL;
	}
	if (!s->drain_armed || s->sendq.bytes >= h->config.low_mark)
		return;
	s->drain_armed = false;
	av_list_remove(&s->drain_link);
	av_list_append(&h->drained, &s->drain_link);
}

static int on_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *header, size_t n,
    nghttp2_data_source *source, void *ctx)
{
	struct av_http2 *h = ctx;
	struct av_http2_stream *s = source->ptr;
	(void)ng;
	(void)frame;
	if (h->out.bytes >= h->out_limit)
		return NGHTTP2_ERR_WOULDBLOCK;
	/* Two for the header, then the body's: nothing can fail once the header is in. */
	if (av_http2_queue_reserve(&h->out, 2 + av_http2_queue_segments(&s->sendq, n)) < 0 ||
	    av_http2_queue_copy(&h->out, &h->out_tail, header, FRAME_HEADER, OUT_BLOCK) < 0)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	s->promised = 0;
	av_http2_queue_move(&h->out, &s->sendq, n);
	took_bytes(s);
	return 0;
}

static ssize_t on_read_length(nghttp2_session *ng, uint8_t frame_type, int32_t stream_id,
    int32_t session_window, int32_t stream_window, uint32_t max_frame, void *ctx)
{
	struct av_http2_stream *s = nghttp2_session_get_stream_user_data(ng, stream_id);
	(void)frame_type;
	(void)session_window;
	(void)stream_window;
	(void)ctx;
	/* nghttp2 makes room for a frame of this size even if the bytes never go through it. */
	size_t n = s ? AV_MAX(s->sendq.bytes, (size_t)1) : 1;
	n = AV_MIN(n, (size_t)FRAME_MAX);
	return (ssize_t)AV_MIN(n, (size_t)max_frame);
}

/* Fills nv from a head; numbers are the caller's buffers of 24 bytes. Returns the count. */
static size_t fill_nv(
    nghttp2_nv *nv, const struct av_http_head *h, char status[static 24], char length[static 24])
{
	size_t n = 0;
	struct av_http_header pseudo[PSEUDO_MAX + 1];
	if (h->status) {
		snprintf(status, 24, "%d", h->status);
		pseudo[n++] = (struct av_http_header){AV_STR(":status"), av_str_c(status)};
	} else if (h->method.n) {
		bool connect = av_str_eq_c(h->method, "CONNECT");
		struct av_str scheme = h->scheme.n ? h->scheme : AV_STR("http");
		pseudo[n++] = (struct av_http_header){AV_STR(":method"), h->method};
		if (!connect)
			pseudo[n++] = (struct av_http_header){AV_STR(":scheme"), scheme};
		if (h->authority.n)
			pseudo[n++] = (struct av_http_header){AV_STR(":authority"), h->authority};
		if (!connect)
			pseudo[n++] = (struct av_http_header){AV_STR(":path"), h->target};
	}
	if (h->content_length >= 0) {
		snprintf(length, 24, "%lld", (long long)h->content_length);
		pseudo[n++] = (struct av_http_header){AV_STR("content-length"), av_str_c(length)};
	}
	for (size_t i = 0; i < n + h->n_headers; i++) {
		const struct av_http_header *f = i < n ? &pseudo[i] : &h->headers[i - n];
		/* nghttp2 takes plain pointers and copies. */
		nv[i] = (nghttp2_nv){
		    .name = (uint8_t *)(uintptr_t)f->name.p,
		    .namelen = f->name.n,
		    .value = (uint8_t *)(uintptr_t)f->value.p,
		    .valuelen = f->value.n,
		};
	}
	return n + h->n_headers;
}

enum submit_kind { SUBMIT_REQUEST, SUBMIT_RESPONSE, SUBMIT_INTERIM, SUBMIT_TRAILERS };

static ssize_t on_read(nghttp2_session *ng, int32_t stream_id, uint8_t *buf, size_t length,
    uint32_t *flags, nghttp2_data_source *source, void *ctx);

/* A stream id (requests) or 0, or -ENOMEM, -EINVAL, -EPIPE. */
static int submit(
    struct av_http2_stream *s, enum submit_kind kind, const struct av_http_head *head, bool end)
{
	nghttp2_session *ng = s->session->ng;
	nghttp2_data_provider provider = {.source.ptr = s, .read_callback = on_read};
	char status[24], length[24];
	int r = 0;
	nghttp2_nv *nv = calloc(head->n_headers + PSEUDO_MAX + 1, sizeof(*nv));
	if (!nv)
		return -ENOMEM;
	size_t n = fill_nv(nv, head, status, length);
	const nghttp2_data_provider *body = end ? NULL : &provider;
	switch (kind) {
	case SUBMIT_REQUEST:
		r = nghttp2_submit_request(ng, NULL, nv, n, body, s);
		break;
	case SUBMIT_RESPONSE:
		r = nghttp2_submit_response(ng, s->id, nv, n, body);
		break;
	case SUBMIT_INTERIM:
		r = nghttp2_submit_headers(ng, NGHTTP2_FLAG_NONE, s->id, NULL, nv, n, NULL);
		break;
	case SUBMIT_TRAILERS:
		r = nghttp2_submit_trailer(ng, s->id, nv, n);
		break;
	}
	free(nv);
	if (r == NGHTTP2_ERR_NOMEM)
		return -ENOMEM;
	if (r == NGHTTP2_ERR_INVALID_ARGUMENT)
		return -EINVAL;
	return r < 0 ? -EPIPE : r;
}

static ssize_t on_read(nghttp2_session *ng, int32_t stream_id, uint8_t *buf, size_t length,
    uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
	struct av_http2_stream *s = source->ptr;
	(void)ng;
	(void)stream_id;
	(void)buf;
	(void)ctx;
	size_t n = AV_MIN(length, s->sendq.bytes);
	if (n == 0 && !s->local_ended) {
		s->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	if (n)
		*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	s->promised = n;
	if (n == s->sendq.bytes && s->local_ended) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		if (s->trailers) {
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
			if (submit(s, SUBMIT_TRAILERS, s->trailers, true) < 0)
				return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		}
	}
	return (ssize_t)n;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *ctx)
{
	struct av_http2 *h = ctx;
	if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
		h->goaway_sent = true;
	if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS)
		return 0;
	if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	struct av_http2_stream *s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
	if (!s)
		return 0;
	s->end_sent = true;
	if (s->reset_after_end && !s->remote_ended)
		nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
	return 0;
}

void av_http2_send_callbacks(nghttp2_session_callbacks *cbs)
{
	nghttp2_session_callbacks_set_send_callback(cbs, on_send);
	nghttp2_session_callbacks_set_send_data_callback(cbs, on_send_data);
	nghttp2_session_callbacks_set_data_source_read_length_callback(cbs, on_read_length);
	nghttp2_session_callbacks_set_on_frame_send_callback(cbs, on_frame_send);
}

int av_http2_request(struct av_http2 *h, const struct av_http_head *head, bool end, void *user,
    struct av_http2_stream **ret)
{
	if (h->server || head->method.n == 0 ||
	    (head->target.n == 0) != av_str_eq_c(head->method, "CONNECT"))
		return -EINVAL;
	if (h->dead || h->failed || h->goaway_received || h->goaway_sent)
		return -EPIPE;
	struct av_http2_stream *s = av_http2_stream_new(h, 0);
	if (!s)
		return -ENOMEM;
	s->user = user;
	int r = submit(s, SUBMIT_REQUEST, head, end);
	if (r < 0) {
		s->hidden = true;
		av_http2_stream_gone(s, AV_HTTP2_NO_ERROR);
		return r;
	}
	s->id = r;
	s->responded = true;
	s->has_source = !end;
	s->local_ended = end;
	*ret = s;
	return 0;
}

int av_http2_respond(struct av_http2_stream *s, const struct av_http_head *head, bool end)
{
	bool interim = head->status >= 100 && head->status < 200;
	if (!s->session->server || head->status < 100 || head->status > 599 || head->status == 101)
		return -EINVAL;
	if (s->responded)
		return -EALREADY;
	if (s->reset || s->session->dead)
		return -EPIPE;
	if (interim)
		return submit(s, SUBMIT_INTERIM, head, false);
	int r = submit(s, SUBMIT_RESPONSE, head, end);
	if (r < 0)
		return r;
	s->responded = true;
	s->has_source = !end;
	s->local_ended = end;
	return 0;
}

static bool may_write(const struct av_http2_stream *s)
{
	return !s->session->dead && !s->reset && !s->local_ended && s->has_source;
}

static void resume(struct av_http2_stream *s)
{
	if (!s->deferred)
		return;
	s->deferred = false;
	/* The only errors are a stream that is not there or not deferred: nothing to resume. */
	nghttp2_session_resume_data(s->session->ng, s->id);
}

int av_http2_write(struct av_http2_stream *s, const void *p, size_t n)
{
	if (!may_write(s))
		return -EPIPE;
	if (n == 0)
		return 0;
	int r = av_http2_queue_copy(&s->sendq, &s->tail, p, n, BODY_BLOCK);
	if (r < 0)
		return r;
	s->drain_armed = true;
	resume(s);
	return 0;
}

int av_http2_write_block(struct av_http2_stream *s, struct av_http2_block *b)
{
	int r = 0;
	assert(b->off <= b->cap && b->n <= b->cap - b->off);
	if (!may_write(s)) {
		r = -EPIPE;
	} else if (b->n && (r = av_http2_queue_reserve(&s->sendq, 1)) == 0) {
		av_http2_queue_push(&s->sendq, b, b->data + b->off, b->n);
		s->drain_armed = true;
		resume(s);
	}
	av_http2_block_unref(b);
	return r;
}

static int copy_trailers(struct av_http2_stream *s, const struct av_http_head *trailers)
{
	struct av_http_head *t = malloc(sizeof(*t));
	if (!t)
		return -ENOMEM;
	av_http_head_init(t);
	for (size_t i = 0; i < trailers->n_headers; i++) {
		int r = av_http_head_add(t, trailers->headers[i].name, trailers->headers[i].value);
		if (r < 0) {
			av_http_head_clear(t);
			free(t);
			return r;
		}
	}
	s->trailers = t;
	return 0;
}

int av_http2_end(struct av_http2_stream *s, const struct av_http_head *trailers)
{
	if (!may_write(s))
		return -EPIPE;
	if (trailers && trailers->n_headers) {
		int r = copy_trailers(s, trailers);
		if (r < 0)
			return r;
	}
	s->local_ended = true;
	resume(s);
	return 0;
}

void av_http2_reset(struct av_http2_stream *s, uint32_t error)
{
	if (s->reset || s->session->dead)
		return;
	if (error == AV_HTTP2_NO_ERROR && s->local_ended && !s->end_sent) {
		s->reset_after_end = true;
		return;
	}
	s->reset = true;
	/* A DATA frame that is half way out still takes its bytes. */
	av_http2_queue_truncate(&s->sendq, s->promised);
	s->drain_armed = false;
	av_list_remove(&s->drain_link);
	nghttp2_submit_rst_stream(s->session->ng, NGHTTP2_FLAG_NONE, s->id, error);
}

static void fire_drained(struct av_http2 *h)
{
	while (!av_list_empty(&h->drained)) {
		struct av_http2_stream *s =
		    AV_LIST_FIRST(&h->drained, struct av_http2_stream, drain_link);
		av_list_remove(&s->drain_link);
		if (!s->hidden && !s->reset && h->events->on_drain)
			h->events->on_drain(h->ctx, s);
	}
}

int av_http2_output(struct av_http2 *h, struct iovec *iov, int max_iov, size_t max_bytes)
{
	int count = 0;
	if (h->dead)
		return 0;
	h->out_limit = AV_MAX(max_bytes, (size_t)1);
	bool again;
	do {
		int r = nghttp2_session_send(h->ng);
		if (r < 0) {
			h->failed = -ENOMEM;
			h->goaway_sent = true;
			return -ENOMEM;
		}
		again = !av_list_empty(&h->drained) && h->out.bytes < h->out_limit;
		fire_drained(h);
	} while (again && nghttp2_session_want_write(h->ng));
	for (size_t i = 0; i < h->out.n && count < max_iov; i++) {
		const struct h2_seg *seg = &h->out.v[h->out.head + i];
		iov[count++] = (struct iovec){
		    .iov_base = (void *)(uintptr_t)seg->p,
		    .iov_len = seg->n,
		};
	}
	return count;
}

void av_http2_output_done(struct av_http2 *h, size_t n)
{
	av_http2_queue_consume(&h->out, n);
	if (h->out.n)
		return;
	/* Idle sessions hold no output memory. */
	av_http2_queue_clear(&h->out);
	if (h->out_tail && h->out_tail->cap > OUT_BLOCK) {
		av_http2_block_unref(h->out_tail);
		h->out_tail = NULL;
	}
}
