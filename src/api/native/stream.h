/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.h - the two modes of exec/stream and processes/{selector}/stream; for streams.c,
 * stream_text.c and stream_frames.c
 */
#pragma once

#include "api/native/session.h"
#include "proto/agent_api.h"

#define STREAM_FRAMES_PROTOCOL AV_AGENT_WS_PROTOCOL

/* Which process to attach to, kept until the client is known. */
struct stream_target {
	char selector[API_PARAM_MAX + 1];
	bool replay; /* what was kept of its output comes first */
};

/* Sets s->exec. */
int stream_target_attach(const struct stream_target *t, struct session *s,
    const struct node_exec_events *ev, struct av_err *err);

/* Handlers. They answer or upgrade rq. */
void stream_text_exec(struct api_request *rq);
void stream_text_attach(struct api_request *rq, const struct stream_target *target);
void stream_frames_exec(struct api_request *rq);
void stream_frames_attach(struct api_request *rq, const struct stream_target *target);
