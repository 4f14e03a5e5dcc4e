/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy.h - requests for ports of sandboxes: who may, who answers
 *
 * Only files of src/api include this.
 *
 * Theory of operation. api_on_request() asks proxy_claims() before it looks at a path: what
 * proxy_where.h finds to be for a port never reaches a route of the API, and the other way round.
 * Then, in this order, each with an error of its own: is there such a sandbox (404, 409 when it has
 * ended); may this visitor (401, 403); is it ready (503 while it starts); who answers. That is the
 * port's service when proxy_services.c names one and it accepts, else whatever listens there in the
 * sandbox, through net/reverse_proxy.h (502 at once when nothing does).
 *
 * May: everybody, when the port is public; an API key of the sandbox's team as X-API-Key or
 * Authorization: Bearer; the token of a signed URL, in the query or in the cookie. A browser that
 * comes with a token in the query is sent on to the same address without it and gets the cookie, so
 * that further requests of the page, and its WebSockets, are let in; other clients are answered at
 * once. Neither key, token nor cookie is passed on to the server.
 *
 * Answers of our own are plain text, or JSON for those who accept application/json.
 */
#pragma once

#include <stdint.h>

#include "api/request.h"

/* Query parameter of a signed URL. */
#define PROXY_TOKEN "aviary_token"

/* Takes the request if it is for a port of a sandbox; then true, and it will be answered. */
bool proxy_claims(struct api_request *rq);

/* ---- services: ports that Aviary itself can answer for a sandbox ---- */

struct proxy_service {
	uint16_t port; /* the logical port */
	/* Called on the loop with a request that is allowed: rq->id is the sandbox, rq->actor may
	 * use it, path and query as av_req_path() and av_req_query() (a token may still be in the
	 * query), the body not read yet, a WebSocket handshake possibly in it. True: the service
	 * answers, by the rules of request.h. False: nothing was done, whatever listens on that
	 * port in the sandbox answers. */
	bool (*handle)(struct api_request *rq);
};

/* The table, ended by port 0; in proxy_services.c. */
extern const struct proxy_service proxy_services[];
