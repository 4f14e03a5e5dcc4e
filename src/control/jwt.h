/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jwt.h - JSON Web Tokens (RFC 7519) that this installation signs and checks itself; HS256
 *
 * Only one algorithm is made, and a token must begin with the very header of its kind: what a token
 * says about how to check it is never followed. The key is derived from the one of sign.h, another
 * one for each purpose, so that a token of one kind is none of another. What a payload says is the
 * business of whoever made it: its end is to be looked at, too.
 *
 * Synchronous, loop thread.
 */
#pragma once

#include <jansson.h>

#include "base/buf.h"
#include "base/str.h"

struct control;

#define JWT_MAX         4096
#define JWT_PAYLOAD_MAX 3072 /* bytes of JSON */

struct jwt_kind {
	const char *purpose; /* a literal, no other kind's */
	const char *header;  /* base64url, with the dot behind it */
};

/* Appends the token. -ENOMEM: no memory, or a payload over JWT_PAYLOAD_MAX. */
int jwt_issue(const struct control *c, const struct jwt_kind *kind, struct av_str payload,
    struct av_buf *out);
/* The payload, a new reference; NULL: it was not signed here as this kind. Constant time in the
 * signature. */
json_t *jwt_open(const struct control *c, const struct jwt_kind *kind, struct av_str token);
