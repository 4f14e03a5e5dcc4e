/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_server.h - HTTP/1.1, HTTP/2 (prior knowledge, or ALPN) and WebSocket server on one port
 *
 * Theory of operation. A server has listeners and connections; a connection speaks HTTP/2 when its
 * first bytes are the client preface, else HTTP/1.1. Each request becomes a `struct av_req`, the
 * same for both versions, and is given to on_request as soon as its head is complete. The handler
 * answers at once or later, in any order with the body; body and response are independent streams.
 *
 * Rules of lifetime:
 *  1. A request is valid from on_request until its on_close returns, or until av_req_upgrade_ws()
 *     succeeds. Everything av_req_*() returns is borrowed for as long.
 *  2. on_close is called exactly once for each request whose on_request was called, always last,
 *     and never from inside a call that the handler makes: 0 after the whole response was handed
 *     to the kernel, -ECONNRESET when the client went away (also while nothing is sent or read, so
 *     a long foreground exec notices), -ETIMEDOUT when a phase's time ran out, -ECANCELED after
 *     av_res_abort() or a forced stop of the server, -EPROTO when the client broke the protocol
 *     in its body.
 *  3. After the response was ended or aborted no callback but on_close comes.
 *  4. Calls on a request whose connection is already lost do nothing and return -EPIPE; on_close
 *     is then on its way. So a handler that answers late needs no check of its own, only rule 1.
 *
 * Backpressure. The body is delivered only after av_req_body_start(); av_req_body_pause() stops
 * reading from the socket (HTTP/1) or giving window (HTTP/2), so at most one read of 64 KiB or one
 * stream window is in memory. A response write that leaves more than the high watermark waiting
 * returns 1: the handler should stop until on_drain. Writes never refuse, but what waits is
 * bounded by AV_RES_PENDING_MAX (-ENOBUFS aborts the response), so a handler that ignores the
 * signal loses its response, not the daemon.
 *
 * Attacker: anybody who can connect. All that a peer can grow has a limit in struct
 * av_http_server_config, every phase has a time-out, and framing that two parsers could read
 * differently is refused in src/proto with 400 and the connection closed. Requests that a client
 * pipelines on HTTP/1.1 are handled one after the other. EOF from an HTTP/1.1 client while its
 * request runs counts as "went away" (rule 2), even though it might still be reading.
 *
 * TLS: with a struct av_tls in the configuration what comes over TCP must speak it (net/tls.h), and
 * what ALPN says is the protocol. The handshake counts as part of the wait for the first head. One
 * who speaks plain HTTP to such a port is answered 400 in plain HTTP.
 *
 * Nothing here logs; struct av_http_server_metrics counts.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/str.h"
#include "net/wsock.h"
#include "proto/http_msg.h"

struct av_loop;
struct av_http_server;
struct av_req;
struct av_tls;

#define AV_REQ_ID_LEN 24 /* [0-9a-z] */

struct av_http_server_metrics {
	uint64_t connections_total;
	uint64_t connections_open;    /* now */
	uint64_t connections_max;     /* the limit */
	uint64_t connections_refused; /* over it, answered with 503 */
	uint64_t requests_total;
	uint64_t requests_open;   /* now; upgraded ones not counted */
	uint64_t responses[6];    /* by status / 100; index 0: ended without a status sent */
	uint64_t protocol_errors; /* heads or bodies refused by the parser */
	uint64_t timeouts;        /* any phase, idle keep-alive not counted */
	uint64_t client_gone;     /* requests ended with -ECONNRESET */
	uint64_t bytes_in, bytes_out;
	uint64_t websockets_total;
	uint64_t websockets_open; /* now */
};

/* 0 in any number means the default behind it. */
struct av_http_server_config {
	/* Called with each request. ctx is the one below. */
	void (*on_request)(void *ctx, struct av_req *req);
	void *ctx;
	const char *server_name; /* Server header; "aviary". Borrowed for the server's life */

	struct av_tls *tls;       /* for TCP listeners; borrowed. NULL: plain HTTP */
	uint32_t max_connections; /* 4096 */
	uint32_t max_streams;     /* concurrent HTTP/2 streams a connection: 256 */
	uint32_t max_head_bytes;  /* 65536; over it 431 */
	uint32_t max_headers;     /* 128; over it 431 */
	uint32_t
	    head_timeout_ms; /* first byte to end of the head, and connect to first byte: 10 s */
	uint32_t
	    body_idle_timeout_ms; /* while the body is wanted and nothing comes: 30 s, then 408 */
	uint32_t keepalive_timeout_ms; /* idle between requests: 75 s, announced one second lower */
	uint32_t write_timeout_ms;     /* the client reads nothing of what waits: 30 s */
	uint32_t high_watermark_bytes; /* response bytes waiting per request: 1 MiB; per WebSocket
	                                  at most 256 KiB */
	uint32_t low_watermark_bytes;  /* a quarter of the high one */
};

/* Copies *config. -ENOMEM, -EINVAL (no on_request). Blocks nowhere; loop thread only, as all here.
 */
int av_http_server_new(struct av_loop *loop, const struct av_http_server_config *config,
    struct av_http_server **ret) AV_MUST_CHECK;
/* Listens on a numeric IPv4 or IPv6 address ("127.0.0.1", "::1", "0.0.0.0"); port 0 takes any.
 * *ret_port (may be NULL) gets the port. *err says which address and why. */
int av_http_server_listen_tcp(struct av_http_server *s, const char *address, uint16_t port,
    uint16_t *ret_port, struct av_err *err) AV_MUST_CHECK;
/* Listens on a unix socket, replacing a socket file that is there; mode is set before anybody can
 * connect. The file is removed when the server stops. */
int av_http_server_listen_unix(
    struct av_http_server *s, const char *path, mode_t mode, struct av_err *err) AV_MUST_CHECK;
/* Takes over a connected stream socket as if it had been accepted. On success the descriptor
 * belongs to the server. */
int av_http_server_adopt(struct av_http_server *s, int fd) AV_MUST_CHECK;
/* Graceful stop: closes listeners and idle connections at once, tells the others (Connection:
 * close, GOAWAY, WebSocket close 1001) and waits for requests that run; after grace_ms they are
 * reset. on_stopped (may be NULL) is called once when no connection is left. */
void av_http_server_stop(
    struct av_http_server *s, uint32_t grace_ms, void (*on_stopped)(void *ctx), void *ctx);
/* Resets everything that is left (each request gets its on_close during this call) and frees.
 * NULL is allowed. Not from inside a callback of the same server, except on_stopped. */
void av_http_server_free(struct av_http_server *s);
/* Borrowed; changes with the server. */
const struct av_http_server_metrics *av_http_server_metrics(const struct av_http_server *s);
/* The one of the configuration, or NULL. */
const struct av_tls *av_http_server_tls(const struct av_http_server *s);

/* ---- the request ---- */

struct av_req_handler {
	/* A piece of the body (never empty), borrowed until return. */
	void (*on_body)(void *ctx, struct av_req *req, struct av_str data);
	/* The whole body has been delivered. Also comes, once, for requests without one. */
	void (*on_body_end)(void *ctx, struct av_req *req);
	/* The response's waiting bytes fell under the low watermark after a write returned 1. */
	void (*on_drain)(void *ctx, struct av_req *req);
	/* Rule 2 above. */
	void (*on_close)(void *ctx, struct av_req *req, int status);
};

/* Any member may be NULL. *handler is borrowed until on_close (make it static const). */
void av_req_set_handler(struct av_req *req, const struct av_req_handler *handler, void *ctx);
void *av_req_ctx(const struct av_req *req);

/* Method, target and headers, already checked by the codec. For HTTP/2 the authority is there as
 * host too, cookie crumbs joined, pseudo headers not in the list. */
const struct av_http_head *av_req_head(const struct av_req *req);
/* "/a/b" as sent (not decoded) and what follows '?' (empty when there is none). */
struct av_str av_req_path(const struct av_req *req);
struct av_str av_req_query(const struct av_req *req);
/* First header of this name in any case; false when absent. */
bool av_req_header(const struct av_req *req, const char *name, struct av_str *ret);
/* Id of the request, also sent as X-Request-Id: the client's own if it sent one of 1 to 64
 * characters [A-Za-z0-9_.-], else AV_REQ_ID_LEN random ones. */
const char *av_req_id(const struct av_req *req);
/* Sent with the answer, unless that has one of its own (W3C Trace Context; at most 55 characters).
 */
void av_req_set_traceparent(struct av_req *req, const char *text);
/* "127.0.0.1:40312", "[::1]:40312", or "unix:pid=1,uid=0" of the connection. */
const char *av_req_peer(const struct av_req *req);
bool av_req_is_http2(const struct av_req *req);
/* It came through our own TLS. */
bool av_req_is_tls(const struct av_req *req);
/* Nanoseconds of CLOCK_MONOTONIC when the head was complete. */
int64_t av_req_start_ns(const struct av_req *req);
struct av_loop *av_req_loop(const struct av_req *req);
/* False when the head says that no body follows. Content-Length, or -1 when not known. */
bool av_req_has_body(const struct av_req *req);
int64_t av_req_content_length(const struct av_req *req);

/* Starts delivery: sends 100 Continue if the client waits for it, then on_body (from the next
 * iteration on, or later) and on_body_end. A body over max_bytes is answered with 413 by the
 * server itself when no response has been started (then on_close), else the request ends with
 * -EPROTO; a Content-Length over it is refused before anything is read: -EMSGSIZE is returned and
 * nothing else done. A body nobody starts is discarded after the response (up to 256 KiB; over it
 * the connection is closed). */
int av_req_body_start(struct av_req *req, uint64_t max_bytes);
/* No on_body after pause returns until resume. Nested calls do not count up. */
void av_req_body_pause(struct av_req *req);
void av_req_body_resume(struct av_req *req);
/* Convenience for JSON handlers: collects the whole body, at most max_bytes, and calls on_body
 * once with it (borrowed until return). Larger ones are answered with 413 and on_body is not
 * called; nor is it when the client goes away (only the handler's on_close is). Replaces the
 * on_body and on_body_end members; set_handler may be called before for the others. */
void av_req_body_collect(struct av_req *req, size_t max_bytes,
    void (*on_body)(void *ctx, struct av_req *req, struct av_str body));

/* ---- the response ---- */

#define AV_RES_PENDING_MAX (64 * 1024 * 1024) /* bytes waiting; a write past it is -ENOBUFS */

/* A whole response; headers and body are copied. Content-Length and Connection are added (do not
 * give them); Date, Server and X-Request-Id too, unless given. 204 and 304 and answers to HEAD send
 * no body.
 * -EPIPE: connection lost; -EALREADY: a response was started; -EINVAL: a header with bad bytes
 * (nothing sent); -ENOMEM. Errors need no handling beyond giving up: on_close follows or another
 * response may be tried. */
int av_res_send(struct av_req *req, int status, const struct av_http_header *headers,
    size_t n_headers, struct av_str body);
/* As av_res_send with content-type application/json. */
int av_res_send_json(struct av_req *req, int status, struct av_str json);
/* {"error":{"code","message"}} with the status of the kind. */
int av_res_send_err(struct av_req *req, const struct av_err *err);

/* Streaming: start, writes, end. content_length -1 means not known (chunked). Errors as
 * av_res_send. The head leaves with the first write or at the end of the loop's iteration. */
int av_res_start(struct av_req *req, int status, const struct av_http_header *headers,
    size_t n_headers, int64_t content_length);
/* Copies what the kernel does not take at once. 0: go on; 1: taken, but wait for on_drain;
 * -EPIPE, -ENOMEM, -ENOBUFS; -EINVAL: more than content_length or not started. */
int av_res_write(struct av_req *req, struct av_str data);
/* -EINVAL when less than content_length was written: the response is then aborted. */
int av_res_end(struct av_req *req);
/* As av_res_end, with trailers (only the headers count; NULL: none; copied). They reach clients of
 * HTTP/2 and those to whom the body goes in chunks; nobody else. */
int av_res_end_trailers(struct av_req *req, const struct av_http_head *trailers);
/* Breaks the response off so that the client notices: HTTP/1 resets the connection (RST, no final
 * chunk), HTTP/2 sends RST_STREAM(INTERNAL_ERROR). Before av_res_start() too. */
void av_res_abort(struct av_req *req);
/* Replaces the configured write time-out for this request; 0: none. For streams to people, whose
 * reader may be a pager; dead peers are then found by TCP keep-alive only. */
void av_res_set_write_timeout(struct av_req *req, uint32_t timeout_ms);
/* Lowers the high watermark of this response (the low one is a quarter of it): for many streams
 * that few read. More than the configured one has no effect. */
void av_res_set_watermark(struct av_req *req, uint32_t high_bytes);
bool av_res_started(const struct av_req *req);
/* Bytes written that the kernel has not taken yet. */
size_t av_res_pending(const struct av_req *req);

/* ---- raw bytes after 101 ---- */

/* Answers an HTTP/1.1 request that has `upgrade` in its head and no body with 101 (headers: copied;
 * Upgrade among them, Connection is added) and makes raw streams of both bodies: on_body gets what
 * the client sends (after av_req_body_start()), on_body_end comes at its FIN; av_res_write() sends
 * bytes as they are, av_res_end() ends our side and with it, once all has left, the request.
 * Backpressure and rules of lifetime stay; the body's idle time-out does not hold, the write
 * time-out does. -EPROTO: not such a request; -EALREADY, -EPIPE, -EINVAL, -ENOMEM as
 * av_res_send(). */
int av_res_tunnel(
    struct av_req *req, const struct av_http_header *headers, size_t n_headers) AV_MUST_CHECK;

/* ---- WebSocket ---- */

/* A well-formed RFC 6455 handshake over HTTP/1.1 (Upgrade, Connection, Key, Version 13). */
bool av_req_is_websocket(const struct av_req *req);
/* True when the client offers this subprotocol. */
bool av_req_ws_offers(const struct av_req *req, const char *subprotocol);
/* Answers 101 (with subprotocol unless NULL: it must have been offered) and turns the connection
 * into a session. On success the request is gone without on_close and *ret belongs to the handler
 * until the session's on_close. -EPROTO: not a handshake (answer 400 or 426), -EPIPE, -EALREADY,
 * -ENOMEM: the request is still there. */
int av_req_upgrade_ws(struct av_req *req, const char *subprotocol,
    const struct av_wsock_handler *handler, void *ctx, struct av_wsock **ret) AV_MUST_CHECK;
