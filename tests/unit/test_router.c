/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_router.c - which path and method finds which route, and with what parameters
 */
#include "api/router.h"

#include <errno.h>

#include "api/native/native.h"
#include "lib/tap.h"
#include "base/banned.h"

static struct api_match m;
static char allow[64];

static int match(const char *method, const char *path)
{
	m = (struct api_match){0};
	memset(allow, 0, sizeof allow);
	return api_route_match(av_str_c(method), av_str_c(path), &m, allow, sizeof allow);
}

static void test_found(void)
{
	is_int(match("GET", "/health"), 0, "open route");
	is_int(m.route->id, API_ROUTE_HEALTH, "health");
	is_int(match("HEAD", "/health"), 0, "HEAD of an open route");
	is_int(match("POST", "/v1/sandboxes"), 0, "create");
	is_int(m.route->id, API_ROUTE_SANDBOX_CREATE, "create's id");
	ok(!m.capsules, "not by the other name");
	is_int(match("POST", "/api/v1/capsules"), 0, "the other name, the other prefix");
	is_int(m.route->id, API_ROUTE_SANDBOX_CREATE, "the same route");
	ok(m.capsules, "by the other name");
	is_int(match("DELETE", "/v1/sandboxes/sb1/processes/a%2Fb"), 0, "two parameters");
	is_int((int)m.n_params, 2, "both are there");
	ok(av_str_eq_c(m.param[0], "sb1"), "id as sent");
	ok(av_str_eq_c(m.param[1], "a%2Fb"), "selector as sent, not a separator");
	is_int(match("GET", "/v1/sandboxes/x/exec/stream"), 0, "below exec");
	is_int(m.route->id, API_ROUTE_EXEC_STREAM, "stream");
	is_int(match("POST", "/v1/sandboxes/x/files/stream/write"), 0, "below files");
	is_int(m.route->id, API_ROUTE_FILE_STREAM_WRITE, "stream write");
}

static void test_not_found(void)
{
	static const char *const paths[] = {"", "/", "/v1", "/v1/", "/v1/sandboxes/",
	    "/v1//sandboxes", "/v1/sandboxes/x/", "/v1/sandboxes//exec", "/v1/sandboxes/x/exec/",
	    "/api/health", "/api/api/v1/sandboxes", "/v1/sandboxes/../sandboxes", "/V1/sandboxes",
	    "*", "/v1/%73andboxes", "/v1/sandboxes/x/processes/y/z"};

	for (size_t i = 0; i < AV_ARRAY_LEN(paths); i++)
		is_int(match("GET", paths[i]), -ENOENT, paths[i]);
}

static void test_wrong_method(void)
{
	is_int(match("PATCH", "/v1/sandboxes"), -EOPNOTSUPP, "no PATCH");
	is_str(allow, "POST, GET", "what is allowed");
	is_int(match("GET", "/v1/sandboxes/x/exec"), -EOPNOTSUPP, "no GET of exec");
	is_str(allow, "POST", "only POST");
	is_int(match("get", "/health"), -EOPNOTSUPP, "methods are case-sensitive");
	is_int(match("HEAD", "/v1/sandboxes"), -EOPNOTSUPP, "no HEAD where a key is needed");
	is_int(match("", "/health"), -EOPNOTSUPP, "empty method");
}

static bool is_way_in(unsigned int id)
{
	return id == API_ROUTE_SIGNUP || id == API_ROUTE_ACTIVATE || id == API_ROUTE_LOGIN ||
	       id == API_ROUTE_RESET || id == API_ROUTE_RESET_CONFIRM ||
	       id == API_ROUTE_HOST_REGISTER || id == API_ROUTE_HOST_REFRESH;
}

static void test_table(void)
{
	for (size_t i = 0; i < API_ROUTE_COUNT; i++) {
		const struct api_route *r = &api_routes[i];

		ok(r->pattern && r->handler, "%s",
		    r->pattern ? r->pattern : "a row without a pattern");
		ok(r->auth != API_AUTH_OPEN || strncmp(r->pattern, "/v1/", 4) != 0 ||
		        is_way_in(r->id),
		    "everything below /v1 needs a key, but the ways to get one");
		ok(r->body != API_BODY_JSON || r->limit > 0, "a JSON body has a limit");
	}
}

/* The table names the handlers, some of them more than once, and this test calls none: all are this
 * one, which the assembler says, as to the compiler a function is no other's alias twice. */
void nobody(struct api_request *rq);
void nobody(struct api_request *rq)
{
	(void)rq;
	ok(false, "a handler was called");
}
#define API_ROUTE(id, method, pattern, handler, auth, scope, audit, body, limit)                   \
	__asm__(".globl " #handler "\n.set " #handler ", nobody");
#include "api/routes.def"
#undef API_ROUTE

int main(void)
{
	test_found();
	test_not_found();
	test_wrong_method();
	test_table();
	return tap_done();
}
