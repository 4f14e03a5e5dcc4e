/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy_head.c - heads on their way through a reverse proxy (see proxy_head.h)
 */
#include "proto/proxy_head.h"

#include <errno.h>
#include <stdio.h>

#include "base/ids.h"

#include "base/banned.h"

#define KEY_DIGITS 40

/* ---- what is never passed on ---- */

/* '_' is '-': programs that get headers through CGI or WSGI cannot tell them apart. */
static bool same_name(struct av_str name, const char *want)
{
	struct av_str w = av_str_c(want);

	if (name.n != w.n)
		return false;
	for (size_t i = 0; i < name.n; i++)
		if ((name.p[i] == '_' ? '-' : name.p[i]) != w.p[i])
			return false;
	return true;
}

static bool is_one_of(struct av_str name, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (same_name(name, list[i]))
			return true;
	return false;
}

static bool has_prefix(struct av_str name, const char *prefix)
{
	struct av_str p = av_str_c(prefix);

	return name.n > p.n && same_name(av_str_n(name.p, p.n), prefix);
}

static bool is_session(struct av_str value)
{
	if (!av_str_starts(value, AV_STR(AV_SESSION_PREFIX)))
		return false;
	for (size_t i = 0; i < value.n; i++) {
		char c = value.p[i];

		if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') &&
		    c != '-' && c != '_' && c != '.')
			return false;
	}
	return true;
}

bool av_proxy_is_key(struct av_str value)
{
	static const char *const prefixes[] = {"av_", "wrn_", "e2b_", "cw_"};
	struct av_str digits = AV_STR("");

	for (size_t i = 0; i < AV_ARRAY_LEN(prefixes) && !digits.n; i++) {
		struct av_str p = av_str_c(prefixes[i]);

		if (av_str_starts(value, p))
			digits = av_str_n(value.p + p.n, value.n - p.n);
	}
	if (digits.n != KEY_DIGITS)
		return is_session(value);
	for (size_t i = 0; i < digits.n; i++) {
		char c = digits.p[i];

		if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f'))
			return false;
	}
	return true;
}

/* The last word of a value: "Bearer av_..." as well as the bare key. */
static bool holds_key(struct av_str value)
{
	size_t i = value.n;

	while (i > 0 && value.p[i - 1] != ' ' && value.p[i - 1] != '\t')
		i--;
	return av_proxy_is_key(av_str_n(value.p + i, value.n - i));
}

static bool request_header_passes(const struct av_http_header *h, bool keep_forwarded)
{
	static const char *const never[] = {"expect", "forwarded", "http2-settings",
	    "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-forwarded-server",
	    "x-real-ip", "x-request-id", "e2b-sandbox-id", "e2b-sandbox-port"};
	bool forwarded_for = same_name(h->name, "x-forwarded-for");

	if (is_one_of(h->name, never, AV_ARRAY_LEN(never)) || has_prefix(h->name, "x-aviary-"))
		return false;
	if (forwarded_for && !keep_forwarded)
		return false;
	/* What frames a message is a field of the head; a second spelling of it must not pass. */
	if (same_name(h->name, "content-length") || same_name(h->name, "transfer-encoding") ||
	    same_name(h->name, "host"))
		return false;
	return !holds_key(h->value);
}

/* ---- cookies ---- */

/* The next of "a=b; c=d", trimmed. */
static bool next_cookie(struct av_str *rest, struct av_str *ret)
{
	while (rest->n) {
		(void)av_str_cut(rest, ';', ret);
		*ret = av_str_trim(*ret);
		if (ret->n)
			return true;
	}
	return false;
}

static bool is_own_cookie(struct av_str pair)
{
	struct av_str name;

	/* "=name=value" has no name for us and one for some readers. */
	while (pair.n && (pair.p[0] == '=' || pair.p[0] == ' ' || pair.p[0] == '\t'))
		pair = av_str_n(pair.p + 1, pair.n - 1);
	(void)av_str_cut(&pair, '=', &name);
	name = av_str_trim(name);
	/* Without '=' it is all name. */
	if (av_proxy_is_key(av_str_trim(pair)) || av_proxy_is_key(name))
		return true;
	return av_str_ieq(name, AV_STR(AV_PROXY_COOKIE)) ||
	       av_str_ieq(name, AV_STR(AV_PROXY_COOKIE_SECURE));
}

bool av_proxy_cookie(
    const struct av_http_head *client, const char *name, size_t n, struct av_str *ret)
{
	struct av_str pair, key;

	for (size_t i = 0; i < client->n_headers; i++) {
		struct av_str rest = client->headers[i].value;

		if (!av_str_eq_c(client->headers[i].name, "cookie"))
			continue;
		while (next_cookie(&rest, &pair)) {
			if (!av_str_cut(&pair, '=', &key) || !av_str_eq_c(key, name) || n-- > 0)
				continue;
			*ret = pair;
			return true;
		}
	}
	return false;
}

static int add_cookies(struct av_http_head *ret, struct av_str value)
{
	AV_CLEANUP(av_buf_clear) struct av_buf kept = AV_BUF_INIT(value.n * 2 + 2);
	struct av_str pair;

	while (next_cookie(&value, &pair)) {
		if (is_own_cookie(pair))
			continue;
		if (kept.n)
			(void)av_buf_append_c(&kept, "; ");
		(void)av_buf_append_str(&kept, pair);
	}
	if (av_buf_error(&kept))
		return av_buf_error(&kept);
	return kept.n ? av_http_head_add(ret, AV_STR("cookie"), av_buf_str(&kept)) : 0;
}

/* Without Domain: it is then for the one host that set it. */
static int add_set_cookie(struct av_http_head *ret, struct av_str value)
{
	AV_CLEANUP(av_buf_clear) struct av_buf kept = AV_BUF_INIT(value.n * 2 + 2);
	struct av_str pair, part, name;

	(void)av_str_cut(&value, ';', &pair);
	if (is_own_cookie(pair))
		return 0;
	(void)av_buf_append_str(&kept, pair);
	while (next_cookie(&value, &part)) {
		struct av_str rest = part;

		(void)av_str_cut(&rest, '=', &name);
		if (av_str_ieq(av_str_trim(name), AV_STR("domain")))
			continue;
		(void)av_buf_append_c(&kept, "; ");
		(void)av_buf_append_str(&kept, part);
	}
	if (av_buf_error(&kept))
		return av_buf_error(&kept);
	return av_http_head_add(ret, AV_STR("set-cookie"), av_buf_str(&kept));
}

/* ---- request ---- */

bool av_proxy_wants_upgrade(const struct av_http_head *client)
{
	size_t n = 0;

	if (!client->upgrade || client->has_body || client->minor_version != 1)
		return false;
	for (size_t i = 0; i < client->n_headers; i++) {
		struct av_str rest = client->headers[i].value, token;

		if (!av_str_eq_c(client->headers[i].name, "upgrade"))
			continue;
		while (rest.n) {
			(void)av_str_cut(&rest, ',', &token);
			token = av_str_trim(token);
			if (!token.n)
				continue;
			/* "HTTP/2.0", "h2c", "TLS/1.0": other ways to speak HTTP. */
			if (av_str_ieq(token, AV_STR("h2c")) || av_str_ieq(token, AV_STR("h2")) ||
			    (token.n >= 4 && (av_str_ieq(av_str_n(token.p, 4), AV_STR("http")) ||
			                         av_str_ieq(av_str_n(token.p, 4), AV_STR("tls/")))))
				return false;
			if (holds_key(token))
				return false;
			n++;
		}
	}
	return n > 0;
}

static int add_request_headers(
    struct av_http_head *ret, const struct av_http_head *client, const struct av_proxy_route *route)
{
	int r = 0;

	for (size_t i = 0; i < client->n_headers && r == 0; i++) {
		const struct av_http_header *h = &client->headers[i];

		if (!request_header_passes(h, route->keep_forwarded))
			continue;
		if (!av_str_eq_c(h->name, "cookie"))
			r = av_http_head_add(ret, h->name, h->value);
		else if (route->host.n)
			r = add_cookies(ret, h->value);
	}
	av_http_head_remove_hop_by_hop(ret);
	return r;
}

static int add_forwarded(
    struct av_http_head *ret, const struct av_http_head *client, const struct av_proxy_route *route)
{
	AV_CLEANUP(av_buf_clear) struct av_buf chain = AV_BUF_INIT(65536);
	struct av_str host = route->host.n ? route->host : client->authority;
	int r = 0;

	for (size_t i = 0; i < ret->n_headers; i++)
		if (av_str_eq_c(ret->headers[i].name, "x-forwarded-for"))
			(void)av_buf_printf(&chain, "%.*s, ", AV_STR_ARG(ret->headers[i].value));
	av_http_head_remove(ret, "x-forwarded-for");
	(void)av_buf_append_str(&chain, route->peer_ip.n ? route->peer_ip : AV_STR("unknown"));
	r = av_buf_error(&chain);
	if (r == 0)
		r = av_http_head_add(ret, AV_STR("x-forwarded-for"), av_buf_str(&chain));
	if (r == 0)
		r = av_http_head_add_c(ret, "x-request-id", route->request_id);
	/* A client may say anything for its Host where headers route it. */
	if (r == 0 && host.n && !av_proxy_is_key(host))
		r = av_http_head_add(ret, AV_STR("x-forwarded-host"), host);
	if (r == 0)
		r = av_http_head_add_c(ret, "x-forwarded-proto", route->scheme);
	return r;
}

static int add_upgrade(struct av_http_head *ret, const struct av_http_head *head)
{
	int r = av_http_head_add_c(ret, "connection", "Upgrade");

	for (size_t i = 0; i < head->n_headers && r == 0; i++)
		if (av_str_eq_c(head->headers[i].name, "upgrade"))
			r = av_http_head_add(ret, AV_STR("upgrade"), head->headers[i].value);
	return r;
}

/* A body of stated length, in chunks, or none; 0 is said where servers expect to be told. */
static void set_framing(struct av_http_head *ret, const struct av_http_head *client)
{
	bool usual = av_str_eq_c(client->method, "POST") || av_str_eq_c(client->method, "PUT") ||
	             av_str_eq_c(client->method, "PATCH");

	ret->content_length = client->content_length;
	ret->has_body = client->has_body && client->content_length != 0;
	ret->chunked = client->has_body && client->content_length < 0;
	if (!client->has_body && client->content_length < 0 && usual)
		ret->content_length = 0;
}

int av_proxy_request_head(
    struct av_http_head *ret, const struct av_http_head *client, const struct av_proxy_route *route)
{
	struct av_str authority = route->host;
	struct av_http_head h;
	char local[24];
	int r;

	av_http_head_init(&h);
	if (!authority.n) {
		(void)snprintf(local, sizeof local, "localhost:%u", route->port);
		authority = av_str_c(local);
	}
	r = av_http_head_request(&h, client->method, authority, route->target);
	if (r == 0)
		r = add_request_headers(&h, client, route);
	if (r == 0)
		r = add_forwarded(&h, client, route);
	if (r == 0) {
		set_framing(&h, client);
		h.keep_alive = h.upgrade = av_proxy_wants_upgrade(client);
		r = h.upgrade ? add_upgrade(&h, client) : 0;
	}
	if (r < 0) {
		av_http_head_clear(&h);
		return r;
	}
	*ret = h;
	return 0;
}

/* ---- response ---- */

/* True when the authority is the server's own, as it sees itself. */
static bool is_own_address(struct av_str authority, uint16_t default_port, uint16_t port)
{
	static const char *const names[] = {"localhost", "127.0.0.1", "0.0.0.0", "::1", "::"};
	struct av_str host;
	uint16_t p;

	if (av_http_split_authority(authority, default_port, &host, &p) < 0 || p != port)
		return false;
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++)
		if (av_str_ieq(host, av_str_c(names[i])))
			return true;
	return false;
}

/* "http://localhost:3000/x" becomes "https://3000-sb….example.com/x"; everything else stays. */
static int add_location(struct av_http_head *ret, struct av_str name, struct av_str value,
    const struct av_proxy_route *route)
{
	AV_CLEANUP(av_buf_clear)
	struct av_buf out = AV_BUF_INIT(value.n + route->host.n + 16);
	bool tls = av_str_starts(value, AV_STR("https://"));
	size_t scheme = tls ? 8 : 7, end;

	if (!tls && !av_str_starts(value, AV_STR("http://")))
		return av_http_head_add(ret, name, value);
	for (end = scheme; end < value.n && !strchr("/?#", value.p[end]); end++)
		;
	if (!is_own_address(av_str_n(value.p + scheme, end - scheme), tls ? 443 : 80, route->port))
		return av_http_head_add(ret, name, value);
	/* Routed by headers there is no address of ours to send a client to: it stays relative. */
	if (route->host.n)
		(void)av_buf_printf(&out, "%s://%.*s", route->scheme, AV_STR_ARG(route->host));
	if (end == value.n || value.p[end] != '/')
		(void)av_buf_append_char(&out, '/');
	(void)av_buf_append(&out, value.p + end, value.n - end);
	if (av_buf_error(&out))
		return av_buf_error(&out);
	return av_http_head_add(ret, name, av_buf_str(&out));
}

static int add_response_header(
    struct av_http_head *ret, const struct av_http_header *h, const struct av_proxy_route *route)
{
	static const char *const never[] = {"alt-svc", "clear-site-data", "x-aviary-error"};
	bool by_header = route->host.n == 0;

	for (size_t i = 0; i < AV_ARRAY_LEN(never); i++)
		if (av_str_eq_c(h->name, never[i]))
			return 0;
	if (by_header &&
	    (av_str_eq_c(h->name, "set-cookie") || av_str_eq_c(h->name, "cache-control") ||
	        av_str_eq_c(h->name, "service-worker-allowed")))
		return 0;
	if (av_str_eq_c(h->name, "set-cookie"))
		return add_set_cookie(ret, h->value);
	if (av_str_eq_c(h->name, "location") || av_str_eq_c(h->name, "content-location"))
		return add_location(ret, h->name, h->value, route);
	return av_http_head_add(ret, h->name, h->value);
}

static int add_response_headers(
    struct av_http_head *ret, const struct av_http_head *server, const struct av_proxy_route *route)
{
	int r = 0;

	for (size_t i = 0; i < server->n_headers && r == 0; i++)
		r = add_response_header(ret, &server->headers[i], route);
	av_http_head_remove_hop_by_hop(ret);
	return r;
}

int av_proxy_response_head(
    struct av_http_head *ret, const struct av_http_head *server, const struct av_proxy_route *route)
{
	struct av_http_head h;
	int r;

	av_http_head_response(&h, server->status);
	h.content_length = server->content_length;
	r = add_response_headers(&h, server, route);
	for (size_t i = 0; server->status == 101 && i < server->n_headers && r == 0; i++)
		if (av_str_eq_c(server->headers[i].name, "upgrade"))
			r = av_http_head_add(&h, AV_STR("upgrade"), server->headers[i].value);
	if (r == 0 && !route->host.n) {
		r = av_http_head_add_c(&h, "cache-control", "no-store");
		if (r == 0)
			r = av_http_head_add_c(&h, "content-security-policy", "sandbox");
	}
	if (r < 0) {
		av_http_head_clear(&h);
		return r;
	}
	*ret = h;
	return 0;
}

int av_proxy_trailers(
    struct av_http_head *ret, const struct av_http_head *server, const struct av_proxy_route *route)
{
	struct av_http_head h;
	int r;

	av_http_head_init(&h);
	r = add_response_headers(&h, server, route);
	if (r == 0)
		/* A cookie belongs in the head, where it was looked for. */
		av_http_head_remove(&h, "set-cookie");
	if (r < 0) {
		av_http_head_clear(&h);
		return r;
	}
	*ret = h;
	return 0;
}
