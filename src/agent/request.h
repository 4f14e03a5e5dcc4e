/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.h - one HTTP/2 stream as the handlers see it
 *
 * A handler is called with the request's head. It answers at once, or asks for the whole body
 * (request_collect), or installs ops and is called as bytes come and go. Rules:
 *   1. Bytes given to on_body must be given back with request_consume(), at once or later: that is
 *      the backpressure on the client.
 *   2. on_close is the last call for a request, exactly once if ops were installed, whatever ended
 *      it; afterwards the pointer is dead. A handler that still works for a request then (thread
 *      pool) keeps its own state and forgets the request.
 *   3. Nothing here calls back into the handler from within; events come from the loop.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/agent.h"
#include "agent/env.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "base/str.h"
#include "proto/connect.h"
#include "proto/http2.h"

/* Above this many bytes waiting to be sent a producer should stop until on_drain. */
#define REQUEST_HIGH_MARK ((size_t)256 * 1024)
/* With fewer than this on_drain comes. */
#define REQUEST_LOW_MARK ((size_t)128 * 1024)

struct request;

struct request_ops {
	void (*on_body)(struct request *rq, const uint8_t *p, size_t n);
	void (*on_end)(struct request *rq);   /* the client's side has ended; may be NULL */
	void (*on_drain)(struct request *rq); /* there is room to send again; may be NULL */
	void (*on_turn)(struct request *rq);  /* asked for by request_want_turn(); may be NULL */
	void (*on_close)(struct request *rq, uint32_t error); /* may be NULL */
};

/* The whole body; borrowed for the call. */
typedef void request_body_fn(struct request *rq, struct av_str body);
typedef void request_open_fn(struct request *rq);

struct request {
	struct agent *agent;
	struct conn *conn; /* private to server.c */
	struct av_http2_stream *stream;
	struct av_http_head head;
	struct av_str path, query;     /* of head.target; not decoded */
	const struct request_ops *ops; /* never NULL after the handler has returned */
	void *data;                    /* the handler's */
	bool responded;
	/* private to request.c and server.c */
	struct av_list turn;     /* in the server's list, or alone */
	struct av_list deferred; /* in the connection's list while an /init is being received */
	struct av_buf body;
	size_t counted; /* part of agent->body_bytes */
	bool body_ended;
	request_body_fn *on_whole;
	const struct route *route;
};

/* Finds the handler and calls it; answers 404 and 405 itself. */
void request_dispatch(struct request *rq);
/* True for the route that other requests of a connection wait for. */
bool request_is_init(const struct request *rq);
/* Frees what the request owns, not the struct. */
void request_clear(struct request *rq);

/* Collects the body up to max bytes and calls fn once; answers too large ones itself. */
void request_collect(struct request *rq, size_t max, request_body_fn *fn);
/* Counts n more bytes held for this request; false if all requests together hold too much. */
bool request_account(struct request *rq, size_t n);
/* n received bytes are dealt with. */
void request_consume(struct request *rq, size_t n);

/* Lets the client send further ahead: for routes that take much and are few. */
void request_bulk(struct request *rq);

/* on_turn once, when all events of this turn of the loop were handled: for work that is better done
 * on all that has arrived than on each piece. */
void request_want_turn(struct request *rq);

/* Answers with a whole body; content_type may be NULL when body is empty. What the client still
 * sends is dropped from now on (ops are replaced, so on_close does not come). */
void request_reply(struct request *rq, int status, const char *content_type, struct av_str body);
/* {"code": status, "message": ...} */
void request_fail(struct request *rq, int status, const char *fmt, ...) AV_PRINTF(3, 4);
void request_fail_err(struct request *rq, const struct av_err *err);
/* Error of a unary RPC: HTTP status of the code, {"code":"not_found","message":...}. */
void request_rpc_fail(struct request *rq, enum av_connect_code code, const char *fmt, ...)
    AV_PRINTF(3, 4);
void request_rpc_fail_err(struct request *rq, const struct av_err *err);
/* Drops the rest of the client's bytes without further calls to the handler, on_close included. */
void request_ignore_rest(struct request *rq);
/* RST_STREAM; on_close follows. */
void request_reset(struct request *rq, uint32_t error);

/* Begins a response with a body to come; head is the caller's to clear. False if the stream is
 * dead. */
bool request_begin(struct request *rq, const struct av_http_head *head);
/* Sends body bytes (copied). False if the stream is dead or memory is short: it was reset. */
bool request_send(struct request *rq, const void *p, size_t n);
/* The same for a block, which is taken over. */
bool request_send_block(struct request *rq, struct av_http2_block *b);
/* Ends our side; the client may go on sending. */
void request_finish(struct request *rq);
/* Ends our side and tells the client to stop sending. */
void request_finish_all(struct request *rq);
/* True when a producer should wait for on_drain. */
bool request_is_full(const struct request *rq);

/* A query parameter, decoded; "" when absent. False if it is malformed or too long: answered 400.
 */
bool request_query(struct request *rq, const char *name, char *dst, size_t size);
/* User named by "Authorization: Basic base64(user:)", else the sandbox's default user. */
int request_rpc_user(struct request *rq, struct agent_user *ret, struct av_err *err);
/* Looks up name, or the sandbox's default user when it is empty. */
int agent_find_user(
    const struct agent *a, const char *name, struct agent_user *ret, struct av_err *err);
/* Paths of requests: empty is the sandbox's workdir or the user's home, "~" the home,
 * relative ones start there; cleaned lexically into dst (AV_PATH_MAX + 1 bytes). */
int agent_resolve_path(const struct agent *a, const struct agent_user *u, struct av_str path,
    char *dst, struct av_err *err);
/* The environment of a process of u: what every one has, what /init set, extra (may be NULL); later
 * ones win. */
int agent_make_env(const struct agent *a, const struct agent_user *u, const json_t *extra,
    struct env *env, struct av_err *err);
/* The directory to start in (AV_PATH_MAX + 1 bytes). One that nobody asked for (a home that was
 * never made) must not be in the way, so then "/" serves. */
int agent_find_cwd(const struct agent *a, const struct agent_user *u, const char *wanted, char *dst,
    struct av_err *err);
