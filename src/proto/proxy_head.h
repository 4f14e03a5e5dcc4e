/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy_head.h - heads on their way through a reverse proxy: what a server in a sandbox may learn
 * of a client's request, and what a client may be told by that server
 *
 * Theory of operation. Neither head is forwarded: both were parsed into struct av_http_head, and a
 * new one is built here from what may pass. The server is untrusted and must not learn what
 * authenticates the client to Aviary; the client's browser must not be told anything that reaches
 * beyond the one origin it asked. Removed or rewritten:
 *
 * request   what concerns the connection (RFC 9110 section 7.6.1), Expect (the proxy answers it);
 *           every Aviary key and session, in whatever header that can carry one; Aviary's cookies;
 * the headers of Aviary and of other dialects that route; X-Forwarded-* and their kin, which are
 * set anew, also when spelled with '_' (CGI makes both the same) response  what concerns the
 * connection; cookies of Aviary's names; the Domain of other cookies, so that no sandbox sets one
 * for another; Alt-Svc and Clear-Site-Data, which act on more than the origin; X-Aviary-Error,
 * which only our own answers have; a Location that names the server by its own address is rewritten
 *
 * A request that was routed by headers shares its origin with the API: then no cookie passes in
 * either direction, nothing may be stored, and nothing may run in a browser.
 */
#pragma once

#include "proto/http_msg.h"

/* Name of the cookie that holds the token of a signed URL: the first over plain HTTP, the second,
 * which browsers guard against other hosts, over HTTPS. */
#define AV_PROXY_COOKIE        "aviary_port"
#define AV_PROXY_COOKIE_SECURE "__Host-aviary_port"

/* Everything is borrowed for the call. */
struct av_proxy_route {
	uint16_t port;         /* in the sandbox */
	struct av_str host;    /* as the client sees it, "host[:port]"; empty: routed by headers */
	const char *scheme;    /* as the client sees it: "http" or "https" */
	struct av_str target;  /* what to ask for; may differ from the client's */
	struct av_str peer_ip; /* address of the client; empty: not known */
	const char *request_id;
	bool
	    keep_forwarded; /* a trusted proxy is in front: what it says in X-Forwarded-For stays */
};

/* The head for the server. With upgrade (the client wants one that may be had, see
 * av_proxy_wants_upgrade) it keeps Upgrade, otherwise it says Connection: close. ret is
 * initialised by the call; on failure empty. -ENOMEM, -EINVAL. */
int av_proxy_request_head(struct av_http_head *ret, const struct av_http_head *client,
    const struct av_proxy_route *route) AV_MUST_CHECK;
/* An HTTP/1.1 request without a body for any protocol but another HTTP (h2c would open a way around
 * this file). */
bool av_proxy_wants_upgrade(const struct av_http_head *client);
/* The head for the client: status and headers (those of framing are fields). Upgrade is kept in a
 * 101. ret as above. */
int av_proxy_response_head(struct av_http_head *ret, const struct av_http_head *server,
    const struct av_proxy_route *route) AV_MUST_CHECK;
/* As the headers of a response. */
int av_proxy_trailers(struct av_http_head *ret, const struct av_http_head *server,
    const struct av_proxy_route *route) AV_MUST_CHECK;

/* A value that looks like one of our API keys, valid or not: prefix and 40 hex digits; or like a
 * session of a user of an Aviary: it begins with AV_SESSION_PREFIX. Other JSON Web Tokens are the
 * application's. */
bool av_proxy_is_key(struct av_str value);
/* Value of the n-th cookie of that name in all Cookie headers; false when there are fewer. */
bool av_proxy_cookie(
    const struct av_http_head *client, const char *name, size_t n, struct av_str *ret);
