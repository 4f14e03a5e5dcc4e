/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy_auth.c - whether somebody may reach a port of a sandbox (see proxy_auth.h)
 */
#include "api/proxy_auth.h"

#include <errno.h>

#include "api/proxy.h"
#include "base/avtime.h"
#include "base/num.h"
#include "control/accounts.h"
#include "control/keys.h"
#include "control/login.h"
#include "control/ports.h"
#include "proto/proxy_head.h"
#include "base/banned.h"

#define COOKIES_TRIED 8 /* of our name; other hosts of the domain may have set some */

/* ---- what the visitor shows ---- */

/* The n-th header value that has the form of a key or session. What does not may be meant for the
 * server. */
static bool next_key(const struct av_http_head *head, size_t *at, struct av_str *ret)
{
	for (; *at < head->n_headers; ++*at) {
		const struct av_http_header *h = &head->headers[*at];
		struct av_str value = h->value, scheme = AV_STR("Bearer");

		if (av_str_eq_c(h->name, "authorization"))
			(void)av_str_cut(&value, ' ', &scheme);
		else if (!av_str_eq_c(h->name, "x-api-key"))
			continue;
		value = av_str_trim(value);
		if (!av_str_ieq(scheme, AV_STR("Bearer")) || !av_proxy_is_key(value))
			continue;
		++*at;
		*ret = value;
		return true;
	}
	return false;
}

/* 0: none was shown. */
static int by_key(struct api_request *rq, const struct control_port *port, struct av_err *err)
{
	const struct av_http_head *head = av_req_head(rq->req);
	struct control_actor actor;
	struct av_str key;
	bool bad = false;
	size_t at = 0;
	int r = 0;

	while (next_key(head, &at, &key)) {
		r = memchr(key.p, '.', key.n)
		        ? control_session_verify(rq->api->control, key, &actor, err)
		        : control_key_verify(rq->api->control, key, &actor, err);
		bad = bad || r == -ENOKEY || r == -EACCES;
		if (r < 0)
			continue;
		if (strcmp(actor.team_id, port->owner.team_id) == 0) {
			r = control_need_scope(&actor, api_proxy_route.scope, err);
			if (r < 0)
				continue;
			rq->actor = actor;
			api_request_trusted(rq);
			return PROXY_ALLOWED;
		}
		r = av_err_set(
		    err, AV_ERR_NOT_FOUND, "the team of this API key has no such sandbox");
	}
	if (r < 0 && bad && control_bad_credential(rq->api->control, api_client(rq), err) < 0)
		return -EAGAIN;
	return r;
}

/* Says how to get another. */
static int refuse_token(const struct proxy_where *w, struct av_err *err)
{
	const struct av_err why = *err;

	return av_err_set(
	    err, why.kind, "%s; `aviary url %s %u` prints a new one", why.message, w->id, w->port);
}

static int by_query(
    struct api_request *rq, const struct proxy_where *w, struct av_buf *token, struct av_err *err)
{
	int r = av_http_query_get(av_req_query(rq->req), PROXY_TOKEN, token);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return av_err_set(err, AV_ERR_FORBIDDEN, "the token of this URL is malformed");
	r = control_port_check(rq->api->control, w->id, w->port, av_buf_str(token), err);
	return r < 0 ? refuse_token(w, err) : PROXY_BY_TOKEN;
}

/* "https://3000-sb….example.com" is the host's own, whatever the scheme: a proxy in front may have
 * another. "null" is nobody's. */
static bool is_origin_of(struct av_str origin, struct av_str host)
{
	bool tls = av_str_starts(origin, AV_STR("https://"));
	size_t n = tls ? 8 : 7;

	if (!tls && !av_str_starts(origin, AV_STR("http://")))
		return false;
	return av_str_ieq(av_str_n(origin.p + n, origin.n - n), host);
}

/* A browser sends a cookie along whoever makes it ask. Hosts of one domain count as one site, so
 * SameSite does not keep the page of another sandbox from using it: that the request comes from
 * a page of this very host, or from a person who follows a link, does. */
static bool is_by_visitor(const struct av_req *req, struct av_str host)
{
	struct av_str v, mode, dest;

	if (av_req_header(req, "origin", &v) && !is_origin_of(v, host))
		return false;
	if (!av_req_header(req, "sec-fetch-site", &v) || av_str_eq_c(v, "same-origin") ||
	    av_str_eq_c(v, "none"))
		return true;
	return av_req_header(req, "sec-fetch-mode", &mode) && av_str_eq_c(mode, "navigate") &&
	       av_req_header(req, "sec-fetch-dest", &dest) && av_str_eq_c(dest, "document") &&
	       av_str_eq_c(av_req_head(req)->method, "GET");
}

static int by_cookie(struct api_request *rq, const struct proxy_where *w, struct av_err *err)
{
	static const char *const names[] = {AV_PROXY_COOKIE_SECURE, AV_PROXY_COOKIE};
	const struct av_http_head *head = av_req_head(rq->req);
	struct av_str token;
	int r = 0;

	for (size_t i = 0; i < AV_ARRAY_LEN(names) && w->host.n; i++)
		for (size_t n = 0; n < COOKIES_TRIED && av_proxy_cookie(head, names[i], n, &token);
		     n++) {
			r = control_port_check(rq->api->control, w->id, w->port, token, err);
			if (r == 0 && is_by_visitor(rq->req, w->host))
				return PROXY_ALLOWED;
			if (r == 0)
				return av_err_set(err, AV_ERR_FORBIDDEN,
				    "a page of another host made this request, for which the "
				    "cookie "
				    "of this private port does not count");
		}
	return r < 0 ? refuse_token(w, err) : r;
}

int proxy_authorize(struct api_request *rq, const struct proxy_where *where,
    struct av_buf *ret_token, struct av_err *err)
{
	struct control_port port;
	int r = control_port_find(rq->api->control, where->id, where->port, &port, err);

	if (r < 0)
		return r;
	rq->actor = port.owner;
	rq->actor.trace = av_trace_trust(&rq->trace, false);
	r = by_key(rq, &port, err);
	/* Also where everybody may: the token must leave the address. */
	if (r == 0)
		r = by_query(rq, where, ret_token, err);
	if (port.is_public)
		return r == PROXY_BY_TOKEN ? r : PROXY_ALLOWED;
	if (r == 0)
		r = by_cookie(rq, where, err);
	if (r > 0) {
		api_request_trusted(rq);
		return r;
	}
	rq->api->metrics.auth_failures++;
	if (r == 0)
		return av_err_set(err, AV_ERR_UNAUTHORIZED,
		    "port %u of sandbox %s is private. Send an API key or a session of its team as "
		    "'X-API-Key: av_...' or 'Authorization: Bearer av_...', or open the URL that "
		    "`aviary url %s %u` prints",
		    where->port, where->id, where->id, where->port);
	return r;
}

/* ---- the token leaves the address ---- */

static bool is_token(struct av_str pair)
{
	AV_CLEANUP(av_buf_clear) struct av_buf value = AV_BUF_INIT(pair.n + 1);

	return av_http_query_get(pair, PROXY_TOKEN, &value) != -ENOENT;
}

int proxy_target(struct av_buf *out, const struct av_req *req)
{
	struct av_str query = av_req_query(req), pair;
	bool more = av_req_head(req)->target.n > av_req_path(req).n; /* there is a '?' */
	bool first = true;

	(void)av_buf_append_str(out, av_req_path(req));
	while (more) {
		more = av_str_cut(&query, '&', &pair);
		if (is_token(pair))
			continue;
		(void)av_buf_append_char(out, first ? '?' : '&');
		(void)av_buf_append_str(out, pair);
		first = false;
	}
	return av_buf_error(out);
}

bool proxy_is_navigation(const struct av_req *req)
{
	const struct av_http_head *head = av_req_head(req);
	struct av_str mode, accept, part;

	if (!av_str_eq_c(head->method, "GET") || head->upgrade)
		return false;
	if (av_req_header(req, "sec-fetch-mode", &mode))
		return av_str_eq_c(mode, "navigate");
	if (!av_req_header(req, "accept", &accept))
		return false;
	while (accept.n) {
		(void)av_str_cut(&accept, ',', &part);
		if (av_str_ieq(av_http_media_type(part), AV_STR("text/html")))
			return true;
	}
	return false;
}

/* Seconds until the token is over; it was checked. */
static int64_t token_age(struct av_str token)
{
	struct av_str expiry;
	uint64_t s = 0;

	(void)av_str_cut(&token, '.', &expiry);
	(void)av_parse_u64(expiry, 0, INT64_MAX / 1000, &s);
	return s ? AV_MAX((int64_t)s - av_real_ms() / 1000, 1LL) : 400LL * 24 * 3600;
}

void proxy_redirect(struct api_request *rq, struct av_str target, struct av_str token, bool secure)
{
	AV_CLEANUP(av_buf_clear) struct av_buf cookie = AV_BUF_INIT(512);
	AV_CLEANUP(av_buf_clear) struct av_buf location = AV_BUF_INIT(target.n + 4);
	struct av_err err;

	/* For this host only (no Domain), not for scripts, not for requests of other sites. */
	(void)av_buf_printf(&cookie, "%s=%.*s; Path=/; Max-Age=%lld; HttpOnly; SameSite=Lax%s",
	    secure ? AV_PROXY_COOKIE_SECURE : AV_PROXY_COOKIE, AV_STR_ARG(token),
	    (long long)token_age(token), secure ? "; Secure" : "");
	/* "//x" would name another host, and so would "/\x" in a browser. */
	if (target.n > 1 && (target.p[1] == '/' || target.p[1] == '\\'))
		(void)av_buf_append_c(&location, "/.");
	(void)av_buf_append_str(&location, target);
	if (av_buf_error(&cookie) || av_buf_error(&location)) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return;
	}
	const struct av_http_header headers[] = {
	    {AV_STR("location"), av_buf_str(&location)},
	    {AV_STR("set-cookie"), av_buf_str(&cookie)},
	    {AV_STR("cache-control"), AV_STR("no-store")},
	    {AV_STR("referrer-policy"), AV_STR("no-referrer")},
	};

	api_started(rq, 303);
	(void)av_res_send(rq->req, 303, headers, AV_ARRAY_LEN(headers), AV_STR(""));
}
