/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream_frames.c - exec/stream and processes/{selector}/stream as binary messages of frames
 *
 * Each message holds whole frames (proto/frame.h). The first one of an exec begins with the CONTROL
 * frame that says what to run, or to attach to ("connect"); this is also how our own command line
 * has its terminals. A client that goes away detaches, with the consequence that it named itself
 * ("onDetach").
 */
#include "api/native/stream.h"

#include <errno.h>

#include "proto/frame.h"
#include "base/banned.h"

#define ERROR_JSON_MAX 8192

struct frames_stream {
	struct session s;
	struct stream_target target;
};

static void on_frame(void *ctx, struct av_str header, struct av_str payload)
{
	session_send2(ctx, false, header, payload);
}

static void on_end(void *ctx, const struct node_exec_end *end, const struct av_err *err)
{
	struct session *s = ctx;

	(void)end; /* its frame went through on_frame */
	s->exec = NULL;
	if (err)
		session_fail(s, err);
	else
		session_finish(s);
}

static const struct node_exec_events exec_events = {
    .on_frame = on_frame, .on_drain = session_on_exec_drain, .on_end = on_end};

static void send_error(struct session *s, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf json = AV_BUF_INIT(ERROR_JSON_MAX);
	AV_CLEANUP(av_buf_clear)
	struct av_buf frame = AV_BUF_INIT(ERROR_JSON_MAX + AV_FRAME_HEADER);

	api_write_err(&json, err);
	if (av_frame_write(&frame, AV_FRAME_CONTROL, av_buf_str(&json)) == 0)
		session_send(s, false, av_buf_str(&frame));
}

/* The first message: a CONTROL frame, and whatever else fits behind it. */
static int start(struct session *s, struct av_str *data, struct av_err *err)
{
	struct av_str first;
	uint32_t n;
	int r;

	if (data->n < AV_FRAME_HEADER || data->p[4] != AV_FRAME_CONTROL)
		goto bad;
	n = av_get_be32(data->p);
	if (n > AV_FRAME_CONTROL_MAX || n > data->n - AV_FRAME_HEADER)
		goto bad;
	first = av_str_n(data->p + AV_FRAME_HEADER, n);
	r = control_exec_frames(
	    s->api->control, &s->actor, s->id, first, &exec_events, s, &s->exec, err);
	if (r < 0)
		return r;
	data->p += AV_FRAME_HEADER + n;
	data->n -= AV_FRAME_HEADER + n;
	return 0;
bad:
	return av_err_set(err, AV_ERR_INVALID,
	    "the first message must begin with one whole CONTROL frame that says what to run");
}

static int on_message(struct session *s, bool text, struct av_str data, struct av_err *err)
{
	bool more = true;
	int r;

	if (text)
		return av_err_set(err, AV_ERR_INVALID, "binary messages are expected here");
	if (!s->exec && (r = start(s, &data, err)) < 0)
		return r;
	if (data.n == 0)
		return 0;
	if (node_exec_send_frames(s->exec, data, &more) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "a message must hold whole frames of channels CONTROL, STDIN or PTY");
	if (!more)
		session_pause_input(s);
	return 0;
}

static const struct session_kind exec_kind = {
    .size = sizeof(struct frames_stream), .on_message = on_message, .send_error = send_error};

void stream_frames_exec(struct api_request *rq)
{
	struct session *s = session_open(rq, &exec_kind, STREAM_FRAMES_PROTOCOL);

	if (s)
		session_run(s);
}

static int attach(struct session *s, struct av_err *err)
{
	const struct frames_stream *f = AV_CONTAINER_OF(s, struct frames_stream, s);

	return stream_target_attach(&f->target, s, &exec_events, err);
}

static const struct session_kind attach_kind = {.size = sizeof(struct frames_stream),
    .begin = attach,
    .on_message = on_message,
    .send_error = send_error};

void stream_frames_attach(struct api_request *rq, const struct stream_target *target)
{
	struct session *s = session_open(rq, &attach_kind, STREAM_FRAMES_PROTOCOL);

	if (!s)
		return;
	AV_CONTAINER_OF(s, struct frames_stream, s)->target = *target;
	session_run(s);
}
