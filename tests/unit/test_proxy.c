/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_proxy.c - which requests are for a port of a sandbox, and what of their heads may pass
 */
#include "api/proxy_where.h"
#include "base/ids.h"
#include "lib/tap.h"
#include "proto/http1.h"
#include "proto/proxy_head.h"
#include "base/banned.h"

#define ID "sb0123456789abcdefghijklmno"

static struct av_http_head head;
static struct proxy_where where;
static struct av_err err;

static void begin(const char *method, const char *authority, const char *target)
{
	av_http_head_clear(&head);
	if (av_http_head_request(&head, av_str_c(method), av_str_c(authority), av_str_c(target)) <
	    0)
		abort();
}

static void add(const char *name, const char *value)
{
	if (av_http_head_add_c(&head, name, value) < 0)
		abort();
}

static int find(const char *authority, const char *domain)
{
	begin("GET", authority, "/");
	return proxy_where(&head, domain, &where, &err);
}

static void test_hosts(void)
{
	static const char *const api[] = {"localhost", "127.0.0.1:7878", "[::1]:80", "example.com",
	    "3000.example.com", ID ".example.com", "x3000-" ID ".example.com",
	    "-" ID ".example.com", "10-0-0-5.nip.io", "3000-cl.example.com"};
	static const char *const bad[] = {"0-" ID ".localhost", "65536-" ID ".localhost",
	    "3000-" ID "x.localhost", "3000-sb.localhost", "3000-sb-x.localhost",
	    "18446744073709551617-" ID ".localhost", "3000-SB0123456789abcdefghijklmn_.x"};

	for (size_t i = 0; i < AV_ARRAY_LEN(api); i++)
		is_int(find(api[i], NULL), 0, api[i]);
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		ok(find(bad[i], NULL) < 0, "neither port nor API: %s", bad[i]);
	is_int(find("3000-" ID ".localhost:7878", NULL), 1, "a port");
	is_int(where.port, 3000, "its number");
	is_str(where.id, ID, "its sandbox");
	is_int(find("65535-SB0123456789ABCDEFGHIJKLMNO.Example.COM", NULL), 1, "in any case");
	is_str(where.id, ID, "the id is lower");
	is_int(find("1-" ID, NULL), 1, "without a domain");
}

static void test_domain(void)
{
	is_int(find("1-" ID ".ports.example", "ports.example:8443"), 1, "below the domain");
	is_int(find("1-" ID ".PORTS.example.:1", "ports.example"), 1, "dot at the end, other port");
	ok(find("1-" ID ".evil.example", "ports.example") < 0, "below another");
	ok(find("1-" ID ".x.ports.example", "ports.example") < 0, "two below");
	ok(find("1-" ID ".ports.example.evil", "ports.example") < 0, "the domain as a beginning");
	is_int(find("ports.example", "ports.example"), 0, "the domain itself is the API's");
}

static void test_by_headers(void)
{
	begin("GET", "localhost", "/");
	add("x-aviary-sandbox", ID);
	ok(proxy_where(&head, NULL, &where, &err) < 0, "one without the other");
	add("x-aviary-port", "80");
	is_int(proxy_where(&head, "ports.example", &where, &err), 1, "both, at any name");
	is_int(where.port, 80, "the port");
	is_int(where.host.n, 0, "no host of its own");
	add("x-aviary-port", "81");
	ok(proxy_where(&head, NULL, &where, &err) < 0, "twice");
}

static void is_host(const char *domain, const char *authority, const char *want)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(512);
	int r = proxy_where_host(&out, "sbx", 80, domain, av_str_c(authority));

	is_str(r < 0 ? "" : av_buf_cstr(&out), want, authority);
}

static void test_names(void)
{
	is_host(NULL, "localhost:7878", "80-sbx.localhost:7878");
	is_host(NULL, "127.0.0.1:7878", "80-sbx.localhost:7878");
	is_host(NULL, "[::1]:7878", "80-sbx.localhost:7878");
	is_host(NULL, "av.example", "80-sbx.av.example");
	is_host(NULL, "10.0.0.1:80", "");
	is_host(NULL, "[2001:db8::1]:80", "");
	is_host(NULL, "", "");
	is_host("ports.example:8443", "10.0.0.1:80", "80-sbx.ports.example:8443");
}

static const struct av_proxy_route route = {
    .port = 3000,
    .host = {.p = "3000-x.test", .n = 11},
    .scheme = "http",
    .target = {.p = "/t", .n = 2},
    .peer_ip = {.p = "1.2.3.4", .n = 7},
    .request_id = "id",
};

/* The head as it would be sent. */
static const char *passed_on(const struct av_proxy_route *r)
{
	static struct av_buf text = AV_BUF_INIT(65536);
	struct av_http_head out;

	av_buf_reset(&text);
	if (av_proxy_request_head(&out, &head, r) < 0)
		return "refused";
	if (av_http1_write_head(&text, &out) < 0)
		(void)av_buf_append_c(&text, "not written");
	av_http_head_clear(&out);
	return av_buf_cstr(&text);
}

static void test_request(void)
{
	struct av_proxy_route trusted = route, by_header = route;

	begin("GET", "3000-x.test", "/");
	add("accept", "*/*");
	is_str(passed_on(&route),
	    "GET /t HTTP/1.1\r\nhost: 3000-x.test\r\naccept: */*\r\nx-forwarded-for: 1.2.3.4\r\n"
	    "x-request-id: id\r\nx-forwarded-host: 3000-x.test\r\nx-forwarded-proto: http\r\n"
	    "connection: close\r\n\r\n",
	    "a request");
	add("x-forwarded-for", "6.6.6.6");
	add("x-api-key", "av_0123456789012345678901234567890123456789");
	add("authorization", "Bearer wrn_0123456789012345678901234567890123456789");
	add("x_anything", "cw_0123456789012345678901234567890123456789");
	ok(!strstr(passed_on(&route), "6.6.6.6"), "a client's own X-Forwarded-For");
	ok(!strstr(passed_on(&route), "0123456789"), "keys");
	add("authorization", "Bearer " AV_SESSION_PREFIX "e30.c2Vzc2lvbg");
	add("x-token", AV_SESSION_PREFIX "e30.c2Vzc2lvbg");
	add("cookie", "a=b; t=" AV_SESSION_PREFIX "e30.c2Vzc2lvbg");
	add("cookie", AV_SESSION_PREFIX "e30.c2Vzc2lvbg;");
	add("cookie", "=" AV_SESSION_PREFIX "e30.c2Vzc2lvbg; c=d");
	ok(!strstr(passed_on(&route), "c2Vzc2lvbg"), "sessions of ours");
	add("x-theirs", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.dGhlaXJz");
	ok(strstr(passed_on(&route), "dGhlaXJz"), "tokens of the application stay");
	trusted.keep_forwarded = true;
	ok(strstr(passed_on(&trusted), "x-forwarded-for: 6.6.6.6, 1.2.3.4\r\n"),
	    "a trusted proxy's stays");
	add("cookie", "a=b");
	by_header.host = AV_STR("");
	ok(strstr(passed_on(&by_header), "host: localhost:3000\r\n"),
	    "Host when routed by headers");
	ok(!strstr(passed_on(&by_header), "cookie"), "no cookie then");
	begin("GET", "av_0123456789012345678901234567890123456789", "/");
	ok(strstr(passed_on(&by_header), "host: localhost:3000\r\n") &&
	        !strstr(passed_on(&by_header), "0123456789"),
	    "nor a Host that is a key");
	begin("GET", "eyJhbGci.host", "/");
	ok(strstr(passed_on(&by_header), "x-forwarded-host: eyJhbGci.host\r\n"), "any other is");
}

static void test_upgrade(void)
{
	static const struct {
		const char *protocol;
		bool wanted;
	} cases[] = {{"websocket", true}, {"foo, bar/1", true}, {"h2c", false}, {"x, h2c", false},
	    {"HTTP/2.0", false}, {"TLS/1.2", false}, {",", false},
	    {"av_0123456789012345678901234567890123456789", false},
	    {"x, " AV_SESSION_PREFIX "e30.c2Vzc2lvbg", false}};

	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++) {
		begin("GET", "3000-x.test", "/");
		add("upgrade", cases[i].protocol);
		add("connection", "keep-alive, Upgrade");
		head.upgrade = true;
		is_int(av_proxy_wants_upgrade(&head), cases[i].wanted, cases[i].protocol);
		is_int(!!strstr(passed_on(&route), "upgrade"), cases[i].wanted, "in the head too");
	}
	head.has_body = true;
	ok(!av_proxy_wants_upgrade(&head), "with a body");
}

static void test_cookies(void)
{
	struct av_str value;

	begin("GET", "3000-x.test", "/");
	add("cookie", " a=1;aviary_port=x ; =aviary_port=q; b=2;; Aviary_Port=y");
	add("cookie", "aviary_port=z");
	ok(strstr(passed_on(&route), "\r\ncookie: a=1; b=2\r\nx-f"), "ours are taken out");
	ok(av_proxy_cookie(&head, "aviary_port", 0, &value) && av_str_eq_c(value, "x"), "first");
	ok(av_proxy_cookie(&head, "aviary_port", 1, &value) && av_str_eq_c(value, "z"), "second");
	ok(!av_proxy_cookie(&head, "aviary_port", 2, &value), "no third");
}

int main(void)
{
	av_http_head_init(&head);
	test_hosts();
	test_domain();
	test_by_headers();
	test_names();
	test_request();
	test_upgrade();
	test_cookies();
	av_http_head_clear(&head);
	return tap_done();
}
