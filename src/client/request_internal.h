/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request_internal.h - only for request.c and exchange.c: a request's inside
 */
#pragma once

#include "client/request.h"

#define AVC_HEADS_MAX ((size_t)128 << 10) /* all heads and trailers of one try */

struct avc_request {
	struct avc_transfer transfer; /* first */
	struct av_list link;          /* c->requests */
	aviary_client *c;
	CURL *easy; /* NULL: between two tries */
	struct curl_slist *headers;
	const char *method;
	char *path, *body, *idempotency_key, *sandbox_id, *file;
	size_t body_size;
	const char *content_type;
	int64_t timeout_ms;
	bool again; /* it may be sent again */
	bool anonymous;
	bool asked;    /* others were asked for after a 401 */
	bool busy;     /* a callback looks for credentials, without the lock */
	bool canceled; /* meanwhile */
	char *host_token, *next_cursor;
	int tries;
	int64_t give_up_ms; /* 0: the first try has not failed yet */
	struct avc_timer timer;
	struct av_buf reply, head; /* head: of the answer, where somebody wants it */
	char request_id[72], own_error[40];
	int64_t retry_after_ms;                 /* -1: not said */
	struct curl_slist *more;                /* headers of the caller's */
	bool any_status, opaque, time_was_said; /* said: by the caller */
	/* Of this try: */
	bool wants_head, head_over, has_length;
	size_t head_bytes; /* of all heads and trailers */
	int64_t length;    /* of the answer; -1: not said */
	/* Streams: */
	struct avc_source source;
	struct avc_sink sink;
	bool has_source, has_sink, source_rests, sink_rests;
	const char *source_type;
	uint64_t pulled, pushed; /* bytes of this try */
	int64_t idle_ms, moved_ms;
	struct avc_timer idle, wake;
	int stopped; /* the code that source, sink or the reply's limit ended it with */
	char curl_error[CURL_ERROR_SIZE];
	avc_reply_fn *fn;
	void *ctx;
};

/* ---- exchange.c: one try; all with the lock ---- */

/* The head of an answer begins: nothing of it is known. */
void avc_exchange_begin(struct avc_request *rq);
/* easy gets what is sent, and what takes the answer. False: no memory. */
bool avc_exchange_set_up(struct avc_request *rq, const char *url);
/* Of the answer; 0: none yet. */
int avc_exchange_status(const struct avc_request *rq);
/* Whether an answer is what was asked for, and no error. */
bool avc_exchange_is_answer(const struct avc_request *rq, int status);
/* Whether what is sent can be sent again, from its beginning. */
bool avc_exchange_rewind(struct avc_request *rq);
