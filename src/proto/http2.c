/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http2.c - HTTP/2 sessions: birth, end, and what can be asked about them
 */
#include "proto/http2_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/banned.h"

static void stream_free(struct av_http2_stream *s)
{
	av_list_remove(&s->link);
	av_list_remove(&s->drain_link);
	s->session->n_streams--;
	av_http2_queue_clear(&s->sendq);
	av_http2_block_unref(s->tail);
	if (s->head) {
		av_http_head_clear(s->head);
		free(s->head);
	}
	if (s->trailers) {
		av_http_head_clear(s->trailers);
		free(s->trailers);
	}
	free(s);
}

void av_http2_stream_gone(struct av_http2_stream *s, uint32_t error)
{
	struct av_http2 *h = s->session;
	/* From here on nothing can be written, and nghttp2 does not know the stream any more. */
	s->reset = true;
	s->unconsumed = 0;
	if (!s->hidden)
		h->events->on_close(h->ctx, s, error);
	stream_free(s);
}

static int options_new(const struct av_http2_config *config, nghttp2_option **ret)
{
	nghttp2_option *o;
	if (nghttp2_option_new(&o) != 0)
		return -ENOMEM;
	nghttp2_option_set_no_auto_window_update(o, 1);
	nghttp2_option_set_no_closed_streams(o, 1);
	nghttp2_option_set_max_outbound_ack(o, 1000);
	nghttp2_option_set_max_send_header_block_length(o, config->limits.head_bytes * 2);
#ifdef AV_HAVE_NGHTTP2_MAX_SETTINGS
	nghttp2_option_set_max_settings(o, 32);
#endif
#ifdef AV_HAVE_NGHTTP2_MAX_CONTINUATIONS
	nghttp2_option_set_max_continuations(o, 8);
#endif
#ifdef AV_HAVE_NGHTTP2_STREAM_RESET_RATE_LIMIT
	/* Its default (1,000, then 33 a second) would end a busy connection whose peer we trust. */
	if (config->reset_budget == 0)
		nghttp2_option_set_stream_reset_rate_limit(o, UINT64_MAX / 2, UINT32_MAX);
#endif
	*ret = o;
	return 0;
}

static int session_new(struct av_http2 *h)
{
	nghttp2_session_callbacks *cbs = NULL;
	nghttp2_option *option = NULL;
	int r = -ENOMEM;
	if (nghttp2_session_callbacks_new(&cbs) != 0 || options_new(&h->config, &option) < 0)
		goto out;
	av_http2_recv_callbacks(cbs);
	av_http2_send_callbacks(cbs);
	if (h->server)
		r = nghttp2_session_server_new2(&h->ng, cbs, h, option);
	else
		r = nghttp2_session_client_new2(&h->ng, cbs, h, option);
out:
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(cbs);
	return r != 0 ? -ENOMEM : 0;
}

static int session_settings(struct av_http2 *h)
{
	const struct av_http2_config *c = &h->config;
	nghttp2_settings_entry iv[5] = {
	    {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, c->window},
	    {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, c->max_frame},
	    {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)c->limits.head_bytes},
	    {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, c->max_streams},
	};
	size_t n = 4;
	if (!h->server)
		iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
	if (nghttp2_submit_settings(h->ng, NGHTTP2_FLAG_NONE, iv, n) != 0)
		return -ENOMEM;
	if (nghttp2_session_set_local_window_size(
	        h->ng, NGHTTP2_FLAG_NONE, 0, (int32_t)c->connection_window) != 0)
		return -ENOMEM;
	return 0;
}

static struct av_http2 *http2_new(const struct av_http2_config *config,
    const struct av_http2_events *events, void *ctx, bool server)
{
	assert(events->on_head && events->on_close);
	assert(config->window <= INT32_MAX && config->connection_window <= INT32_MAX);
	assert(config->max_frame >= 16384 && config->max_frame <= 1 << 20);
	struct av_http2 *h = calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	h->config = *config;
	h->events = events;
	h->ctx = ctx;
	h->server = server;
	av_list_init(&h->streams);
	av_list_init(&h->drained);
	if (session_new(h) < 0 || session_settings(h) < 0) {
		av_http2_free(h);
		return NULL;
	}
	return h;
}

struct av_http2 *av_http2_new_server(
    const struct av_http2_config *config, const struct av_http2_events *events, void *ctx)
{
	return http2_new(config, events, ctx, true);
}

struct av_http2 *av_http2_new_client(
    const struct av_http2_config *config, const struct av_http2_events *events, void *ctx)
{
	return http2_new(config, events, ctx, false);
}

void av_http2_eof(struct av_http2 *h)
{
	h->dead = true;
	struct av_http2_stream *s;
	AV_LIST_FOREACH(s, &h->streams, struct av_http2_stream, link)
	av_http2_stream_gone(s, AV_HTTP2_CANCEL);
}

void av_http2_free(struct av_http2 *h)
{
	if (!h)
		return;
	av_http2_eof(h);
	nghttp2_session_del(h->ng);
	av_http2_queue_clear(&h->out);
	av_http2_block_unref(h->out_tail);
	free(h);
}

bool av_http2_want_write(const struct av_http2 *h)
{
	if (h->dead)
		return false;
	return h->out.n || !av_list_empty(&h->drained) || nghttp2_session_want_write(h->ng);
}

bool av_http2_done(const struct av_http2 *h)
{
	if (h->dead || (h->goaway_sent && h->failed == -ENOMEM))
		return true;
	return !nghttp2_session_want_read(h->ng) && !nghttp2_session_want_write(h->ng) &&
	       h->out.n == 0;
}

size_t av_http2_buffered(const struct av_http2_stream *s)
{
	return s->sendq.bytes;
}

void av_http2_consume(struct av_http2_stream *s, size_t n)
{
	n = AV_MIN(n, s->unconsumed);
	if (n == 0 || s->session->dead)
		return;
	s->unconsumed -= n;
	if (s->session->config.own_windows)
		nghttp2_session_consume_stream(s->session->ng, s->id, n);
	else
		nghttp2_session_consume(s->session->ng, s->id, n);
}

void av_http2_set_window(struct av_http2_stream *s, uint32_t bytes)
{
	assert(bytes <= INT32_MAX);
	if (!s->session->dead && !s->reset)
		/* Fails without memory only: then it stays as it was. */
		(void)nghttp2_session_set_local_window_size(
		    s->session->ng, NGHTTP2_FLAG_NONE, s->id, (int32_t)bytes);
}

size_t av_http2_unconsumed(const struct av_http2_stream *s)
{
	return s->unconsumed;
}

bool av_http2_local_ended(const struct av_http2_stream *s)
{
	return s->local_ended;
}

bool av_http2_remote_ended(const struct av_http2_stream *s)
{
	return s->remote_ended;
}

void av_http2_tick(struct av_http2 *h)
{
	h->idle_frames = 0;
	h->resets /= 2;
}

void av_http2_goaway(struct av_http2 *h, uint32_t error)
{
	if (h->dead || h->goaway_sent)
		return;
	if (error != AV_HTTP2_NO_ERROR) {
		nghttp2_session_terminate_session(h->ng, error);
	} else {
		int32_t last = nghttp2_session_get_last_proc_stream_id(h->ng);
		nghttp2_submit_goaway(h->ng, NGHTTP2_FLAG_NONE, last, error, NULL, 0);
	}
	h->goaway_sent = true;
}

int av_http2_ping(struct av_http2 *h, uint64_t opaque)
{
	uint8_t bytes[8];
	if (h->dead || h->failed)
		return -EPIPE;
	memcpy(bytes, &opaque, sizeof(bytes));
	return nghttp2_submit_ping(h->ng, NGHTTP2_FLAG_NONE, bytes) == 0 ? 0 : -ENOMEM;
}

int32_t av_http2_stream_id(const struct av_http2_stream *s)
{
	return s->id;
}

struct av_http2 *av_http2_stream_session(const struct av_http2_stream *s)
{
	return s->session;
}

void *av_http2_stream_user(const struct av_http2_stream *s)
{
	return s->user;
}

void av_http2_stream_set_user(struct av_http2_stream *s, void *user)
{
	s->user = user;
}

size_t av_http2_stream_count(const struct av_http2 *h)
{
	return h->n_streams;
}

int av_http2_is_preface(const void *p, size_t n)
{
	size_t k = AV_MIN(n, (size_t)NGHTTP2_CLIENT_MAGIC_LEN);
	if (k && memcmp(p, NGHTTP2_CLIENT_MAGIC, k) != 0)
		return 0;
	return k == NGHTTP2_CLIENT_MAGIC_LEN ? 1 : -EAGAIN;
}
