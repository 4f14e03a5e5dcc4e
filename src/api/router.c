/* SPDX-License-Identifier: Apache-2.0 */
/*
 * router.c - from method and path to a route (see router.h)
 */
#include "api/router.h"

#include <errno.h>
#include <stdio.h>

#include "api/native/native.h"
#include "control/control.h"
#include "base/banned.h"

const struct api_route api_routes[API_ROUTE_COUNT] = {
#define API_ROUTE(id_, method_, pattern_, handler_, auth_, scope_, audit_, body_, limit_)          \
	[API_ROUTE_##id_] = {.id = API_ROUTE_##id_,                                                \
	    .method = API_##method_,                                                               \
	    .pattern = (pattern_),                                                                 \
	    .handler = (handler_),                                                                 \
	    .auth = API_AUTH_##auth_,                                                              \
	    .scope = CONTROL_SCOPE_##scope_,                                                       \
	    .audit = (audit_),                                                                     \
	    .body = API_BODY_##body_,                                                              \
	    .limit = (limit_)},
#include "api/routes.def"
#undef API_ROUTE
};

const struct api_route api_proxy_route = {.id = API_ROUTE_COUNT,
    .pattern = "{port}-{id}",
    .scope = CONTROL_SCOPE_SANDBOXES_WRITE,
    .audit = ""};

static const char *const method_text[API_METHOD_COUNT] = {[API_GET] = "GET",
    [API_POST] = "POST",
    [API_PUT] = "PUT",
    [API_PATCH] = "PATCH",
    [API_DELETE] = "DELETE"};

const char *api_method_text(enum api_method m)
{
	return method_text[m];
}

/* Both start with '/'. Fills the parameters of *m only when it returns true. */
static bool path_matches(const char *pattern, struct av_str path, struct api_match *m)
{
	struct av_str pat = av_str_c(pattern), want, got;
	struct api_match found = {.route = m->route};
	bool more_pat = true, more_path = true;

	while (more_pat && more_path) {
		more_pat = av_str_cut(&pat, '/', &want);
		more_path = av_str_cut(&path, '/', &got);
		if (want.n && want.p[0] == '{') {
			if (got.n == 0)
				return false;
			found.param_name[found.n_params] = want.p + 1;
			found.param[found.n_params++] = got;
		} else if (av_str_eq_c(want, "sandboxes") && av_str_eq_c(got, "capsules")) {
			found.capsules = true;
		} else if (!av_str_eq(want, got)) {
			return false;
		}
	}
	if (more_pat || more_path)
		return false;
	*m = found;
	return true;
}

static bool method_matches(const struct api_route *r, struct av_str method)
{
	if (av_str_eq_c(method, method_text[r->method]))
		return true;
	return r->method == API_GET &&
	       (r->auth == API_AUTH_OPEN || r->auth == API_AUTH_TOKEN ||
	           r->auth == API_AUTH_LOCAL) &&
	       av_str_eq_c(method, "HEAD");
}

int api_route_match(
    struct av_str method, struct av_str path, struct api_match *ret, char *ret_allow, size_t size)
{
	size_t n = 0;

	if (av_str_starts(path, AV_STR("/api/v1/"))) {
		path.p += 4;
		path.n -= 4;
	}
	for (size_t i = 0; i < API_ROUTE_COUNT; i++) {
		struct api_match m = {.route = &api_routes[i]};

		if (!path_matches(api_routes[i].pattern, path, &m))
			continue;
		if (method_matches(m.route, method)) {
			*ret = m;
			return 0;
		}
		if (n < size)
			n += (size_t)snprintf(ret_allow + n, size - n, "%s%s", n ? ", " : "",
			    method_text[m.route->method]);
	}
	return n ? -EOPNOTSUPP : -ENOENT;
}
