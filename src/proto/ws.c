/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ws.c - WebSocket messages over wslay
 *
 * wslay parses, joins fragments, checks UTF-8 and answers PING and CLOSE. Messages of ours are
 * framed here, straight into the output, so that bulk output is copied once; wslay's own frames are
 * flushed into the same output after every call, so the order is that of the calls.
 */
#include "proto/ws.h"

#include <errno.h>
#include <stdlib.h>
#include <wslay/wslay.h>

#include "base/ids.h"

#include "base/banned.h"

#define OUTPUT_MAX  ((size_t)256 << 20) /* ceiling of waiting output; users stop far earlier */
#define SLICE       4096                /* what wslay takes in at once */
#define CONTROL_MAX 125
#define REASON_MAX  123

struct av_ws {
	wslay_event_context_ptr ws; /* owned */
	struct av_ws_config config;
	const struct av_ws_events *events; /* borrowed */
	void *ctx;
	const uint8_t *in; /* borrowed during av_ws_recv */
	size_t in_n;
	struct av_buf out;
	bool paused;
	bool close_queued;
	bool close_own;  /* it was framed here, not by wslay */
	int close_error; /* 0, or what is wrong with the CLOSE of the peer */
};

static ssize_t on_recv(wslay_event_context_ptr ws, uint8_t *buf, size_t len, int flags, void *ctx)
{
	struct av_ws *w = ctx;
	size_t n = AV_MIN(len, w->in_n);
	(void)flags;
	if (n == 0) {
		wslay_event_set_error(ws, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	memcpy(buf, w->in, n);
	w->in += n;
	w->in_n -= n;
	return (ssize_t)n;
}

static ssize_t on_send(wslay_event_context_ptr ws, const uint8_t *p, size_t n, int flags, void *ctx)
{
	struct av_ws *w = ctx;
	(void)flags;
	if (av_buf_append(&w->out, p, n) < 0) {
		wslay_event_set_error(ws, WSLAY_ERR_CALLBACK_FAILURE);
		return -1;
	}
	return (ssize_t)n;
}

static int on_mask(wslay_event_context_ptr ws, uint8_t *buf, size_t n, void *ctx)
{
	(void)ws;
	(void)ctx;
	av_random(buf, n);
	return 0;
}

static struct av_str close_reason(const struct wslay_event_on_msg_recv_arg *arg)
{
	if (arg->msg_length <= 2)
		return AV_STR("");
	return av_str_n((const char *)arg->msg + 2, arg->msg_length - 2);
}

/* RFC 6455 section 7.4: codes that may stand in a CLOSE, and a reason in UTF-8. */
static int check_close(const struct wslay_event_on_msg_recv_arg *arg)
{
	uint16_t c = arg->status_code;
	if (arg->msg_length == 0)
		return 0;
	if (arg->msg_length < 2)
		return -EPROTO;
	if (!av_utf8_valid(close_reason(arg)))
		return -EILSEQ;
	if ((c >= 1000 && c <= 1003) || (c >= 1007 && c <= 1014) || (c >= 3000 && c <= 4999))
		return 0;
	return -EPROTO;
}

static void on_msg(
    wslay_event_context_ptr ws, const struct wslay_event_on_msg_recv_arg *arg, void *ctx)
{
	struct av_ws *w = ctx;
	(void)ws;
	switch (arg->opcode) {
	case WSLAY_TEXT_FRAME:
	case WSLAY_BINARY_FRAME:
		w->events->on_message(
		    w->ctx, (enum av_ws_opcode)arg->opcode, arg->msg, arg->msg_length);
		break;
	case WSLAY_PONG:
		if (w->events->on_pong)
			w->events->on_pong(w->ctx, arg->msg, arg->msg_length);
		break;
	case WSLAY_CONNECTION_CLOSE:
		w->close_queued = true;
		w->close_error = check_close(arg);
		if (w->events->on_close && w->close_error == 0)
			w->events->on_close(w->ctx,
			    arg->status_code ? arg->status_code : AV_WS_CLOSE_NO_STATUS,
			    close_reason(arg));
		break;
	default:
		break;
	}
}

struct av_ws *av_ws_new(
    const struct av_ws_config *config, const struct av_ws_events *events, void *ctx)
{
	static const struct wslay_event_callbacks callbacks = {
	    .recv_callback = on_recv,
	    .send_callback = on_send,
	    .genmask_callback = on_mask,
	    .on_msg_recv_callback = on_msg,
	};
	assert(events->on_message);
	struct av_ws *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->config = *config;
	w->events = events;
	w->ctx = ctx;
	av_buf_init(&w->out, OUTPUT_MAX);
	int r = config->client ? wslay_event_context_client_init(&w->ws, &callbacks, w)
	                       : wslay_event_context_server_init(&w->ws, &callbacks, w);
	if (r != 0) {
		free(w);
		return NULL;
	}
	wslay_event_config_set_max_recv_msg_length(w->ws, config->max_message);
	return w;
}

void av_ws_set_max_message(struct av_ws *w, size_t bytes)
{
	wslay_event_config_set_max_recv_msg_length(w->ws, bytes);
}

void av_ws_free(struct av_ws *w)
{
	if (!w)
		return;
	wslay_event_context_free(w->ws);
	av_buf_clear(&w->out);
	free(w);
}

static int flush(struct av_ws *w)
{
	return wslay_event_want_write(w->ws) && wslay_event_send(w->ws) != 0 ? -ENOMEM : 0;
}

static int violation(uint16_t code)
{
	switch (code) {
	case AV_WS_CLOSE_TOO_BIG:
		return -EMSGSIZE;
	case AV_WS_CLOSE_BAD_DATA:
		return -EILSEQ;
	default:
		return -EPROTO;
	}
}

/* For what wslay would answer with a CLOSE without a code. */
static void close_own(struct av_ws *w, uint16_t code)
{
	uint8_t frame[8] = {0x80 | WSLAY_CONNECTION_CLOSE, 2};
	size_t k = 2;
	wslay_event_shutdown_write(w->ws);
	if (w->close_queued)
		return;
	w->close_queued = w->close_own = true;
	if (w->config.client) {
		frame[1] |= 0x80;
		av_random(frame + k, 4);
		k += 4;
	}
	for (unsigned i = 0; i < 2; i++) {
		uint8_t mask = w->config.client ? frame[2 + i] : 0;
		frame[k + i] = (uint8_t)(code >> (8 - 8 * i)) ^ mask;
	}
	/* Without memory for these bytes the connection just ends. */
	av_buf_append(&w->out, frame, k + 2);
}

/* Feeds one slice to wslay. 0, or the violation. */
static int recv_slice(struct av_ws *w)
{
	int r = wslay_event_recv(w->ws);
	if (r != 0) {
		close_own(w, r == WSLAY_ERR_NOMEM ? AV_WS_CLOSE_INTERNAL : AV_WS_CLOSE_PROTOCOL);
		return r == WSLAY_ERR_NOMEM ? -ENOMEM : -EPROTO;
	}
	if (flush(w) < 0)
		return -ENOMEM;
	/* wslay stops reading after a CLOSE that came, and after one that it made of a violation.
	 */
	if (!wslay_event_get_read_enabled(w->ws) && !wslay_event_get_close_received(w->ws)) {
		w->close_queued = true;
		return violation(wslay_event_get_status_code_sent(w->ws));
	}
	return w->close_error;
}

ssize_t av_ws_recv(struct av_ws *w, const void *p, size_t n)
{
	size_t used = 0;
	do {
		if (w->paused || w->out.n > w->config.high_mark)
			break;
		if (!wslay_event_get_read_enabled(w->ws))
			break;
		size_t slice = AV_MIN(n - used, (size_t)SLICE);
		w->in = slice ? (const uint8_t *)p + used : NULL;
		w->in_n = slice;
		int r = recv_slice(w);
		used += slice - w->in_n;
		w->in = NULL;
		w->in_n = 0;
		if (r < 0)
			return r;
	} while (used < n);
	return (ssize_t)used;
}

void av_ws_pause(struct av_ws *w)
{
	w->paused = true;
}

void av_ws_resume(struct av_ws *w)
{
	w->paused = false;
}

static size_t frame_header(
    uint8_t dst[static AV_WS_HEADER_MAX], enum av_ws_opcode op, size_t n, bool mask)
{
	size_t k = 2;
	dst[0] = (uint8_t)(0x80 | op);
	dst[1] = mask ? 0x80 : 0;
	if (n < 126) {
		dst[1] |= (uint8_t)n;
	} else if (n <= 0xffff) {
		dst[1] |= 126;
		dst[k++] = (uint8_t)(n >> 8);
		dst[k++] = (uint8_t)n;
	} else {
		dst[1] |= 127;
		for (int shift = 56; shift >= 0; shift -= 8)
			dst[k++] = (uint8_t)((uint64_t)n >> shift);
	}
	return k;
}

size_t av_ws_header(uint8_t dst[static AV_WS_HEADER_MAX], enum av_ws_opcode op, size_t n)
{
	return frame_header(dst, op, n, false);
}

int av_ws_append(struct av_ws *w, struct av_str bytes)
{
	return av_buf_append_str(&w->out, bytes);
}

int av_ws_send2(struct av_ws *w, enum av_ws_opcode op, struct av_str head, struct av_str body)
{
	uint8_t header[14], mask[4] = {0};
	size_t n;
	char *to;
	if (__builtin_add_overflow(head.n, body.n, &n))
		return -EINVAL;
	if ((op == AV_WS_PING || op == AV_WS_PONG) && n > CONTROL_MAX)
		return -EINVAL;
	if (w->close_queued)
		return -EPIPE;
	size_t k = frame_header(header, op, n, w->config.client);
	if (w->config.client) {
		av_random(mask, sizeof(mask));
		memcpy(header + k, mask, sizeof(mask));
		k += sizeof(mask);
	}
	if (n > OUTPUT_MAX || w->out.n + k + n > OUTPUT_MAX || av_buf_error(&w->out) ||
	    av_buf_reserve(&w->out, k + n, &to) < 0)
		return -ENOMEM;
	memcpy(to, header, k);
	if (head.n)
		memcpy(to + k, head.p, head.n);
	if (body.n)
		memcpy(to + k + head.n, body.p, body.n);
	if (w->config.client)
		for (size_t i = 0; i < n; i++)
			to[k + i] = (char)((uint8_t)to[k + i] ^ mask[i % 4]);
	av_buf_commit(&w->out, k + n);
	return 0;
}

int av_ws_send(struct av_ws *w, enum av_ws_opcode op, const void *p, size_t n)
{
	return av_ws_send2(w, op, AV_STR(""), av_str_n(p, n));
}

int av_ws_close(struct av_ws *w, uint16_t code, const char *reason)
{
	struct av_str text = av_str_c(code ? reason : NULL);
	if (w->close_queued)
		return 0;
	w->close_queued = true;
	text.n = AV_MIN(text.n, (size_t)REASON_MAX);
	text.n -= av_utf8_incomplete_tail(text);
	int r = wslay_event_queue_close(w->ws, code, (const uint8_t *)text.p, text.n);
	if (r == WSLAY_ERR_NOMEM)
		return -ENOMEM;
	return r == 0 ? flush(w) : -EINVAL;
}

struct av_str av_ws_output(const struct av_ws *w)
{
	return av_buf_str(&w->out);
}

void av_ws_output_done(struct av_ws *w, size_t n)
{
	av_buf_consume(&w->out, n);
	/* A connection that is idle holds no output memory. */
	if (w->out.n == 0)
		av_buf_clear(&w->out);
}

size_t av_ws_buffered(const struct av_ws *w)
{
	return w->out.n;
}

bool av_ws_done(const struct av_ws *w)
{
	return av_ws_close_sent(w) && av_ws_close_received(w);
}

bool av_ws_close_sent(const struct av_ws *w)
{
	return w->close_own || wslay_event_get_close_sent(w->ws);
}

bool av_ws_close_received(const struct av_ws *w)
{
	return wslay_event_get_close_received(w->ws);
}
