/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reverse_proxy.h - one request of a client, answered by an HTTP/1.1 server behind a channel
 *
 * Theory of operation. The client's side is a struct av_req (HTTP/1.1 or 2), the server's side a
 * channel of bytes that the owner opens (a tunnel into a sandbox) and hands in as functions. Heads
 * are written anew (proto/proxy_head.h), the server's answer is parsed by proto/http1.h, and bodies
 * flow through at the pace of the slower side: nothing is collected. After a 101 both bodies are
 * raw bytes (WebSocket and whatever else).
 *
 *   CONNECTING ─connected→ WAITING ─head→ ANSWERING ─end of the message→ DONE
 *                             └───────101→ TUNNEL ───either side ends──→ DONE
 *   any ─lost, time out, malformed→ DONE: on_error when no answer was begun, else the answer is
 *   broken off so that the client notices
 *
 * One channel carries one request and is cancelled when it is over: what the server sends behind
 * its answer is never looked at, so no answer can be taken for another request's.
 *
 * Time-outs: CONNECTING connect_ms; WAITING head_ms after the last byte of the request moved, and
 * ANSWERING, TUNNEL idle_ms without a byte in either direction. A request body that the client does
 * not send is the HTTP server's matter (body_idle_timeout_ms).
 *
 * Attacker: the server behind the channel, and the client. Head and framing of the answer are held
 * to the rules of http1.h and to AV_RPROXY_HEAD_MAX bytes; what breaks them becomes on_error.
 *
 * Rules of lifetime:
 *  1. The proxy belongs to the owner from av_rproxy_new() to av_rproxy_free(). The owner calls
 *     av_rproxy_free() when the request's on_close comes, and passes on the request's other events
 *     and the channel's events.
 *  2. The channel belongs to the owner, who forgets it when the proxy calls cancel.
 *  3. on_error is called at most once, never from av_rproxy_new(); the owner then answers.
 *  4. Events of the request that come after DONE are ignored, those of the channel must not come.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "proto/proxy_head.h"

struct av_loop;
struct av_req;
struct av_rproxy;

#define AV_RPROXY_HEAD_MAX    65536 /* bytes of the server's head */
#define AV_RPROXY_HEADERS_MAX 256

struct av_rproxy_channel {
	/* Queues bytes. False: taken, but wait for av_rproxy_channel_drain(). */
	bool (*send)(void *ctx, struct av_str data);
	/* No more bytes follow. */
	void (*finish)(void *ctx);
	/* Stop delivering (as soon as it can), go on. */
	void (*pause)(void *ctx, bool paused);
	/* The channel is not needed any more: no event of it may come. */
	void (*cancel)(void *ctx);
};

struct av_rproxy_config {
	const struct av_rproxy_channel *channel;
	/* Nothing was answered yet and nothing will be: UPSTREAM or EXEC_TIMEOUT. */
	void (*on_error)(void *ctx, const struct av_err *err);
	/* The answer has begun with this status; 101: raw bytes from here on. */
	void (*on_started)(void *ctx, int status);
	void *ctx; /* of channel and the two above */
	uint32_t connect_ms, head_ms, idle_ms;
};

/* Builds the head for the server and queues it in the channel, which may still be connecting. The
 * strings in route are copied. -ENOMEM, -EINVAL: nothing was sent, the request is untouched. */
int av_rproxy_new(const struct av_rproxy_config *config, const struct av_proxy_route *route,
    struct av_req *req, struct av_rproxy **ret) AV_MUST_CHECK;
/* Cancels the channel if it is still used. NULL is allowed. Never calls on_error. */
void av_rproxy_free(struct av_rproxy *p);

/* Events of the request (struct av_req_handler). */
void av_rproxy_body(struct av_rproxy *p, struct av_str data);
void av_rproxy_body_end(struct av_rproxy *p);
void av_rproxy_drain(struct av_rproxy *p);

/* Events of the channel. */
void av_rproxy_channel_connected(struct av_rproxy *p);
void av_rproxy_channel_data(struct av_rproxy *p, struct av_str data);
void av_rproxy_channel_drain(struct av_rproxy *p);
/* The last one: the server closed (err NULL), or the channel failed. It is not cancelled then. */
void av_rproxy_channel_end(struct av_rproxy *p, const struct av_err *err);
