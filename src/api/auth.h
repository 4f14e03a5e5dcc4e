/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth.h - from request headers to an actor
 *
 * X-API-Key decides alone when it is present; else "Authorization: Bearer <key>". Nothing else
 * authenticates: no cookie, no query parameter, so that no page in a browser can act for a user.
 */
#pragma once

#include "api/request.h"

/* Whether the request brings a key at all, good or bad. */
bool api_has_credentials(const struct api_request *rq);
/* The actor that a key from anywhere else belongs to. -EACCES; counted as a failure. */
int api_verify_key(struct api *api, struct av_str key, struct control_actor *ret);
/* Fills rq->actor, or UNAUTHORIZED with a text that says where keys come from. */
int api_authenticate(struct api_request *rq, struct av_err *err);
