/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy_auth.h - whether somebody may reach a port of a sandbox (see proxy.h for the rules)
 *
 * Only files of src/api include this.
 */
#pragma once

#include "api/proxy_where.h"
#include "api/request.h"

enum proxy_access {
	PROXY_ALLOWED = 1,
	PROXY_BY_TOKEN, /* allowed by a token in the query: *ret_token */
};

/* PROXY_*, then rq->actor is set, and *ret_token (appended to; needs CONTROL_TOKEN_SIZE) with
 * PROXY_BY_TOKEN. Else -errno: NOT_FOUND, INVALID_STATE, UNAUTHORIZED, FORBIDDEN. */
int proxy_authorize(struct api_request *rq, const struct proxy_where *where,
    struct av_buf *ret_token, struct av_err *err);
/* The target without the tokens in its query. -ENOMEM. */
int proxy_target(struct av_buf *out, const struct av_req *req);
/* Sends the browser on to the same address without the token, and sets the cookie. */
void proxy_redirect(struct api_request *rq, struct av_str target, struct av_str token, bool secure);
/* Whether a person's browser asks for a page. */
bool proxy_is_navigation(const struct av_req *req);
