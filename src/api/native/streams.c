/* SPDX-License-Identifier: Apache-2.0 */
/*
 * streams.c - exec/stream and processes/{selector}/stream: which mode, which process
 *
 * Two modes, chosen in the handshake. Without a subprotocol: JSON text messages, as the clients of
 * this dialect know them (stream_text.c). With "aviary-frames.v1": binary messages of whole frames,
 * passed through both ways (stream_frames.c). What they share is in session.h.
 */
#include "api/native/native.h"

#include "api/native/shapes.h"
#include "api/native/stream.h"
#include "base/banned.h"

int stream_target_attach(const struct stream_target *t, struct session *s,
    const struct node_exec_events *ev, struct av_err *err)
{
	struct node_selector sel = native_parse_selector(t->selector);

	return control_exec_attach(
	    s->api->control, &s->actor, s->id, &sel, t->replay, true, ev, s, &s->exec, err);
}

static bool wants_frames(const struct api_request *rq)
{
	return av_req_ws_offers(rq->req, STREAM_FRAMES_PROTOCOL);
}

void native_exec_stream(struct api_request *rq)
{
	if (wants_frames(rq))
		stream_frames_exec(rq);
	else
		stream_text_exec(rq);
}

/* ?replay=false: only what comes from now on. */
static bool wants_replay(const struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(16);

	return av_http_query_get(av_req_query(rq->req), "replay", &text) < 0 ||
	       !av_str_eq_c(av_buf_str(&text), "false");
}

void native_process_stream(struct api_request *rq)
{
	struct stream_target target = {.replay = wants_replay(rq)};

	/* It has room for any path parameter, and those have no NUL. */
	if (av_str_copy(
	        target.selector, sizeof target.selector, av_str_c(api_param(rq, "selector"))) < 0)
		target.selector[0] = '\0';
	if (wants_frames(rq))
		stream_frames_attach(rq, &target);
	else
		stream_text_attach(rq, &target);
}
