/* SPDX-License-Identifier: Apache-2.0 */
/*
 * followers.h - one reader of the team's events; for events.c and events_ws.c
 *
 * What is put is text as server-sent events have it: "id: ...\nevent: ...\ndata: {...}\n\n", and
 * for a comment or `retry` something without a line `data`.
 */
#pragma once

#include "api/events.h"
#include "api/request.h"

#define FOLLOWER_IDS_MAX 16

struct follower {
	struct event_stream stream;
	struct api *api;
	struct api_request *rq; /* NULL behind a WebSocket */
	struct control_actor actor;
	struct av_timer keepalive;
	/* Sends it. 1: taken, but wait for follower_drained; 0 else, with over set when nothing can
	 * be sent any more. */
	int (*put)(struct follower *f, struct av_str text);
	/* The last message was put. */
	void (*finish)(struct follower *f);
	uint64_t next;  /* number of the event to look at */
	uint32_t kinds; /* bits 1 << enum control_event_kind */
	size_t n_ids;   /* 0: of all sandboxes */
	char ids[FOLLOWER_IDS_MAX][AV_ID_SIZE];
	char last_id[64]; /* Last-Event-ID, or empty */
	bool open;        /* stream is */
	bool old;         /* what it has seen is of a former daemon */
	bool blocked;     /* until follower_drained */
	bool over;        /* nothing may be written any more */
};

/* Filters and the last id of the request. INVALID. */
int follower_parse(struct follower *f, struct api_request *rq, struct av_err *err);
/* Of the actor's team. As events_open; INVALID: the last id is none of this stream. Then it is not
 * open. */
int follower_open(struct follower *f, struct av_err *err);
/* Puts the first message; others follow. */
void follower_start(struct follower *f);
void follower_drained(struct follower *f);
/* Frees nothing. Again: ignored. */
void follower_close(struct follower *f);

/* events_ws.c; the request is a handshake. */
void native_events_socket(struct api_request *rq);
