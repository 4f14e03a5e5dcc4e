/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth.h - from request headers to an actor
 *
 * An API key comes as X-API-Key or as "Authorization: Bearer <key>", the session of a user as
 * "Authorization: Bearer <token>". On routes for keys (KEY in routes.def) X-API-Key decides alone
 * when it is there; on routes for people (USER) a session does, as clients that have both send both
 * everywhere. Nothing else authenticates: no cookie, no query parameter, so that no page in a
 * browser can act for a user.
 */
#pragma once

#include "api/request.h"

/* For routes that are LOCAL in routes.def: 0 when the request comes from this machine, or
 * metrics_public is set; else as api_authenticate, and FORBIDDEN unless the key was made by an
 * administrator of this Aviary.
 *
 * "From this machine" is: a loopback address or a unix socket; asked for under a loopback name, so
 * that no page in a browser can ask (a name that was bound to 127.0.0.1 afterwards is another one);
 * and nothing speaks for a proxy that asks for somebody else: no header that proxies add, and the
 * daemon was told neither of proxies, a public URL nor a domain, for which one may be in front. */
int api_authenticate_local(struct api_request *rq, struct av_err *err);
/* Whether the request brings a key or session at all, good or bad. */
bool api_has_credentials(const struct api_request *rq);
/* The actor that a key or session from anywhere else belongs to, and whether the route's scope is
 * among what it may; routes of scope ADMIN are for administrators of this Aviary. -errno with *err;
 * counted as a failure, of `client` (api_client()). */
int api_verify(struct api *api, const struct api_route *route, struct av_str credential,
    const char *client, struct control_actor *ret, struct av_err *err);
/* Fills rq->actor; else UNAUTHORIZED with a text that says where keys come from, or FORBIDDEN. */
int api_authenticate(struct api_request *rq, struct av_err *err);
/* Fills rq->host_id from X-Host-Token; else UNAUTHORIZED. */
int api_authenticate_host(struct api_request *rq, struct av_err *err);
