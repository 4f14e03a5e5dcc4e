/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_internal.h - insides of the HTTP server; included by
 * src/net/{http_server,server_*,wsock}.c
 *
 * Theory of operation. A connection is handled by entry points only: readiness of its socket, its
 * timers, its deferred work. Each ends in conn_settle(), the one place that flushes, delivers what
 * became due and frees the connection. Calls by handlers never do any of it: they change state, set
 * conn.error when they find the connection broken, and schedule the deferred work. So no handler is
 * called from inside its own call, and no connection disappears under a callback.
 *
 *   DETECT -> H1 or H2 (first bytes) ; H1 -> WS (upgrade)
 *   any -> (closing: flush) -> LINGER -> freed, or directly freed on error
 */
#pragma once

#include <time.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/trace.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "net/transport.h"
#include "proto/http1.h"
#include "proto/http2.h"

/* Unread body after the response that is still read and dropped to keep the connection. */
#define SERVER_DISCARD_MAX (256 * 1024)
/* How long a closed connection's last bytes are waited for (RST would destroy our answer). */
#define SERVER_LINGER_MS 2000
/* Connections over the limit that are answered with 503; more are just closed. */
#define SERVER_REFUSED_MAX          64
#define SERVER_H2_WINDOW            (512 * 1024)
#define SERVER_H2_CONNECTION_WINDOW (2 * 1024 * 1024)

struct av_http_server {
	struct av_loop *loop;
	struct av_http_server_config cfg;
	struct av_http_server_metrics metrics;
	struct av_list listeners;
	struct av_list conns;
	uint32_t n_conns; /* without refused ones */
	uint32_t n_refused;
	time_t date_s; /* second that date[] says */
	char date[32];
	char keep_alive[32]; /* "timeout=74" */
	bool stopping;
	void (*on_stopped)(void *ctx);
	void *stopped_ctx;
	struct av_timer grace;
	struct av_defer stopped;
};

enum conn_proto { CONN_DETECT, CONN_H1, CONN_H2, CONN_WS, CONN_LINGER };

/* What the read timer waits for. */
enum conn_phase { PHASE_NONE, PHASE_HEAD, PHASE_KEEPALIVE, PHASE_DISCARD, PHASE_LINGER };

struct conn {
	struct av_list link;
	struct av_http_server *server; /* borrowed; outlives the connection */
	struct transport tp;
	enum conn_proto proto;
	enum conn_phase phase;
	struct av_buf in;  /* received, not parsed yet */
	struct av_buf out; /* to send, before anything a codec holds */
	struct av_defer work;
	struct av_timer read_timer;
	struct av_timer write_timer;
	int error;      /* why it must be freed; 0 while all is well */
	bool reset;     /* free it with RST */
	bool refused;   /* over the limit of connections */
	bool blocked;   /* the socket took not all; wait until it is writable */
	bool drop_read; /* readable, but nobody wants bytes now */
	bool hangup;    /* the peer's FIN was seen */
	bool closing;   /* flush, then linger */
	char peer[80];

	/* HTTP/1 */
	struct av_http1 *h1;
	struct av_req *req;   /* owned: the one that is served */
	struct av_req *fresh; /* head just parsed, not given to the handler yet */
	bool served;          /* at least one request came before */
	bool discarding;      /* the present message's body has no reader any more */
	size_t discarded;

	/* HTTP/2 */
	struct av_http2 *h2;
	struct av_list reqs; /* owned */

	struct av_wsock *ws; /* owned until its on_close */
	uint32_t ws_write_timeout_ms;
};

struct req_ops {
	/* end: no body follows. */
	int (*start)(struct av_req *req, struct av_http_head *head, bool end);
	int (*write)(struct av_req *req, struct av_str data);
	int (*end)(struct av_req *req, const struct av_http_head *trailers);
	void (*abort)(struct av_req *req, int status);
	size_t (*pending)(const struct av_req *req);
	/* Interim 100 (Continue). */
	int (*proceed)(struct av_req *req);
	/* The message cannot go on being read: the connection is not used again. */
	void (*poison)(struct av_req *req);
};

struct av_req {
	struct av_list link; /* conn.reqs of HTTP/2 */
	struct conn *conn;
	const struct req_ops *ops;
	struct av_http2_stream *stream; /* HTTP/2 */
	struct av_http_head head;
	struct av_str path, query;
	char id[65];
	char traceparent[AV_TRACEPARENT_SIZE]; /* empty: none is sent */
	int64_t start_ns;
	const struct av_req_handler *handler;
	void *ctx;

	/* body */
	bool body_started, body_paused;
	bool body_complete; /* the last byte was received */
	bool body_end_told;
	uint64_t body_max, body_seen;
	size_t discarded;   /* HTTP/2: came after the response */
	struct av_buf body; /* HTTP/2: received while nobody wanted it */
	struct av_timer body_timer;
	struct av_buf collected;
	void (*on_collected)(void *ctx, struct av_req *req, struct av_str body);

	/* response */
	int status;   /* 0 until started */
	bool taken;   /* the server answers itself; the handler's calls fail */
	bool no_body; /* HEAD, 204, 304 */
	bool chunked;
	bool keep_alive;
	bool tunnel; /* HTTP/1: 101 was sent, both bodies are raw bytes */
	bool ended;
	bool want_drain;
	bool dead;    /* connection or stream lost */
	int64_t left; /* bytes to come of content_length, or -1 */
	uint64_t written;
	uint64_t sent_mark;          /* HTTP/2: sent when the write timer was started */
	struct av_timer write_timer; /* HTTP/2 */
	uint32_t write_timeout_ms;
	uint32_t high_mark, low_mark; /* of response bytes waiting */
	int close_status;             /* overrides what on_close says, if not 0 */
};

/* ---- server_conn.c ---- */

/* Takes over fd on success. tls: NULL for plain HTTP. */
int conn_new(struct av_http_server *s, int fd, bool refused, struct av_tls *tls);
/* Every request gets on_close(status), then all is freed. From entry points and server_free only.
 */
void conn_destroy(struct conn *c, int status);
void conn_schedule(struct conn *c);
/* First reason wins. */
void conn_fail(struct conn *c, int error);
void conn_settle(struct conn *c);
/* Writes out what conn.out holds. False when the socket is full or broken. */
bool conn_flush_out(struct conn *c);
/* Bytes went to the socket: count, restart the stall timer. */
void conn_wrote(struct conn *c, size_t n, bool left, uint32_t timeout_ms);
void conn_set_phase(struct conn *c, enum conn_phase phase);
/* Graceful stop of this connection. */
void conn_stop(struct conn *c);
uint32_t conn_write_timeout(const struct conn *c);

/* ---- server_h1.c ---- */

extern const struct req_ops h1_ops;
int h1_begin(struct conn *c);
/* Parses; returns how many bytes were used. */
size_t h1_consume(struct conn *c, const char *p, size_t n);
bool h1_can_read(const struct conn *c);
void h1_eof(struct conn *c);
/* One step of settling; true when something changed and it wants another. */
bool h1_step(struct conn *c);
void h1_head_timeout(struct conn *c);
/* 101 and from then on raw bytes; the caller has checked the state of the request. */
int h1_tunnel(struct av_req *req, struct av_http_head *head);
/* An error answer outside of any request, then the connection closes. */
void h1_refuse(struct conn *c, const struct av_err *err);

/* ---- server_h2.c ---- */

extern const struct req_ops h2_ops;
int h2_begin(struct conn *c);
int h2_receive(struct conn *c, const char *p, size_t n);
bool h2_step(struct conn *c);

/* ---- server_req.c ---- */

struct av_req *req_new(struct conn *c, const struct req_ops *ops, struct av_http_head *head);
/* Gives it to the server's handler. */
void req_dispatch(struct av_req *req);
/* Without a callback. */
void req_free(struct av_req *req);
/* Last callback, then free. */
void req_close(struct av_req *req, int status);
bool req_wants_body(const struct av_req *req);
/* A piece of the body for the handler; false when it went over the limit (answered). */
bool req_deliver(struct av_req *req, struct av_str data);
/* Delivers on_body_end if it is due. */
void req_deliver_end(struct av_req *req);
/* Starts, restarts or stops the body's idle timer as the state demands. */
void req_body_timer(struct av_req *req);
void req_drained(struct av_req *req);
/* The server answers itself: JSON error, the handler is out. False if a response had started. */
bool req_take(struct av_req *req, const struct av_err *err);
/* Date and Server, and of req (may be NULL) X-Request-Id and traceparent; those that are not there.
 */
int server_headers(struct av_http_server *s, struct av_http_head *head, const struct av_req *req);
/* Appends {"error":{...}}. */
int server_error_json(struct av_buf *out, const struct av_err *err);

/* ---- wsock.c ---- */

void ws_receive(struct conn *c, const char *p, size_t n, size_t *ret_used);
bool ws_can_read(const struct conn *c);
bool ws_step(struct conn *c);
/* on_close(ABNORMAL or the peer's code) and free. */
void ws_lost(struct conn *c);
/* The peer sends nothing any more, though perhaps not all of it was read. */
void ws_hangup(struct conn *c);
void ws_stop(struct conn *c);
