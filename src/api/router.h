/* SPDX-License-Identifier: Apache-2.0 */
/*
 * router.h - from method and path to a route; pure text work, no request in sight
 *
 * The table comes from routes.def. A path is split at '/' first; segments are compared as sent and
 * parameters are handed out as sent, to be percent-decoded by the caller: so "%2F" inside an id can
 * never become a separator. There is no normalisation: "//", "." and ".." match nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

struct api_request;

enum api_method { API_GET, API_POST, API_PUT, API_PATCH, API_DELETE, API_METHOD_COUNT };
enum api_auth {
	API_AUTH_OPEN,
	API_AUTH_KEY,
	API_AUTH_USER,
	API_AUTH_FIRST,
	API_AUTH_HOST,
	API_AUTH_TOKEN,
	API_AUTH_LOCAL
};
enum api_body { API_BODY_NONE, API_BODY_JSON, API_BODY_STREAM, API_BODY_SOCKET };

enum api_route_id {
#define API_ROUTE(id, method, pattern, handler, auth, scope, audit, body, limit) API_ROUTE_##id,
#include "api/routes.def"
#undef API_ROUTE
	API_ROUTE_COUNT
};

struct api_route {
	unsigned int id; /* enum api_route_id */
	enum api_method method;
	const char *pattern; /* also the label of the metrics */
	void (*handler)(struct api_request *rq);
	enum api_auth auth;
	uint32_t scope;    /* enum control_scope */
	const char *audit; /* never NULL */
	enum api_body body;
	uint64_t limit; /* bytes of body; 0: none */
};

extern const struct api_route api_routes[API_ROUTE_COUNT];
/* Stands for every request to a port of a sandbox; id API_ROUTE_COUNT, matches no path. */
extern const struct api_route api_proxy_route;

const char *api_method_text(enum api_method m);

#define API_PARAMS_MAX 2

struct api_match {
	const struct api_route *route;
	struct av_str param[API_PARAMS_MAX];    /* as sent, in the order of the pattern */
	const char *param_name[API_PARAMS_MAX]; /* points into the pattern, ends at '}' */
	unsigned int n_params;
	bool capsules; /* the path says "capsules": the younger generation of that dialect's clients
	                */
};

/* 0; -ENOENT when no route has this path; -EOPNOTSUPP when one has it with another method, then
 * *ret_allow (of size bytes, at least 64) is "GET, POST" for the Allow header. HEAD matches GET on
 * routes that need no key. */
int api_route_match(
    struct av_str method, struct av_str path, struct api_match *ret, char *ret_allow, size_t size);
