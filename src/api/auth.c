/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth.c - from request headers to an actor (see auth.h)
 */
#include "api/auth.h"

#include <errno.h>

#include "control/accounts.h"
#include "control/hosts.h"
#include "control/keys.h"
#include "control/login.h"
#include "base/banned.h"

#define CREDENTIAL_MAX 4096 /* bytes; keys have less than 50, sessions under a thousand */

/* Sessions have dots, keys have none. */
static bool is_session(struct av_str credential)
{
	return memchr(credential.p, '.', credential.n) != NULL;
}

/* What comes as "Authorization: Bearer", or an empty string. */
static struct av_str bearer(const struct api_request *rq)
{
	struct av_str value, scheme;

	if (!av_req_header(rq->req, "authorization", &value))
		return AV_STR("");
	value = av_str_trim(value);
	if (!av_str_cut(&value, ' ', &scheme) || !av_str_ieq(scheme, AV_STR("Bearer")))
		return AV_STR("");
	return av_str_trim(value);
}

static struct av_str presented(const struct api_request *rq)
{
	struct av_str token = bearer(rq), key;

	if (rq->match.route->auth == API_AUTH_USER && is_session(token))
		return token;
	if (av_req_header(rq->req, "x-api-key", &key))
		return av_str_trim(key);
	return token;
}

bool api_has_credentials(const struct api_request *rq)
{
	struct av_str value;

	return av_req_header(rq->req, "x-api-key", &value) ||
	       av_req_header(rq->req, "authorization", &value);
}

static int unknown_key(const struct api *api, bool any, struct av_err *err)
{
	const char *hint = api->credentials_hint;

	return av_err_set(err, AV_ERR_UNAUTHORIZED,
	    "%s; send 'X-API-Key: av_...' or 'Authorization: Bearer av_...'. aviaryd wrote a key "
	    "at its "
	    "first start%s%s",
	    any ? "this API key is not valid" : "an API key is needed", hint ? " to " : "",
	    hint ? hint : " to credentials.json in the configuration directory of who started it");
}

/* Those that are not valid are counted, so that nobody tries them by the thousand. One that is
 * valid is let in however many were not: the neighbours of an attacker are not locked out. */
static int refuse(struct api *api, const char *client, struct av_err *err, int r)
{
	api->metrics.auth_failures++;
	if (!client || r != -av_err_errno(AV_ERR_UNAUTHORIZED))
		return r;
	return control_bad_credential(api->control, client, err) < 0 ? -EAGAIN : r;
}

int api_verify(struct api *api, const struct api_route *route, struct av_str credential,
    const char *client, struct control_actor *ret, struct av_err *err)
{
	int r;

	if (credential.n == 0 || credential.n > CREDENTIAL_MAX)
		r = unknown_key(api, credential.n > 0, err);
	else if (is_session(credential))
		r = control_session_verify(api->control, credential, ret, err);
	else
		r = control_key_verify(api->control, credential, ret, err);
	if (r == -ENOKEY)
		r = unknown_key(api, true, err);
	if (r == 0)
		r = control_need_scope(ret, route->scope, err);
	if (r == 0 && route->scope == CONTROL_SCOPE_ADMIN)
		r = control_need_admin(ret, err);
	return r < 0 ? refuse(api, credential.n ? client : NULL, err, r) : 0;
}

int api_authenticate(struct api_request *rq, struct av_err *err)
{
	int r =
	    api_verify(rq->api, rq->match.route, presented(rq), api_client(rq), &rq->actor, err);

	rq->actor.trace = av_trace_trust(&rq->trace, r == 0);
	return r;
}

/* ---- who asks from this machine ---- */

/* "localhost", "127.0.0.1:7878", "[::1]:7878". */
static bool is_loopback_name(struct av_str name)
{
	struct av_str host = name;

	if (av_str_starts(name, AV_STR("[")))
		return av_str_starts(name, AV_STR("[::1]"));
	(void)av_str_cut(&name, ':', &host);
	if (av_str_ieq(host, AV_STR("localhost")))
		return true;
	/* A number: 127.example.com is a name like any other. */
	for (size_t i = 0; i < host.n; i++)
		if (host.p[i] != '.' && (host.p[i] < '0' || host.p[i] > '9'))
			return false;
	return av_str_starts(host, AV_STR("127."));
}

static bool is_loopback_peer(struct av_str peer)
{
	return av_str_starts(peer, AV_STR("127.")) || av_str_starts(peer, AV_STR("[::1]:")) ||
	       av_str_starts(peer, AV_STR("[::ffff:127.")) || av_str_starts(peer, AV_STR("unix:"));
}

static bool comes_through_proxy(const struct api_request *rq)
{
	static const char *const added[] = {"forwarded", "via", "x-forwarded-for",
	    "x-forwarded-host", "x-forwarded-proto", "x-real-ip"};
	struct av_str value;

	for (size_t i = 0; i < AV_ARRAY_LEN(added); i++)
		if (av_req_header(rq->req, added[i], &value))
			return true;
	return rq->api->public_url || rq->api->ports_domain || rq->api->proxies.n;
}

static bool is_local(const struct api_request *rq)
{
	return is_loopback_peer(av_str_c(av_req_peer(rq->req))) && !comes_through_proxy(rq) &&
	       is_loopback_name(av_req_head(rq->req)->authority);
}

int api_authenticate_local(struct api_request *rq, struct av_err *err)
{
	int r;

	if (rq->api->metrics_public || is_local(rq))
		return 0;
	r = api_authenticate(rq, err);
	if (r == 0 && !rq->actor.is_admin)
		r = av_err_set(err, AV_ERR_FORBIDDEN,
		    "the metrics are of the whole of this Aviary: send a key that an administrator "
		    "made, with the scope metrics; or ask from the machine itself, by its loopback "
		    "address; or start aviaryd with --metrics-public");
	rq->api->metrics.metrics_refused += r < 0;
	return r;
}

int api_authenticate_host(struct api_request *rq, struct av_err *err)
{
	struct av_str token;
	int r;

	if (!av_req_header(rq->req, "x-host-token", &token))
		r = av_err_set(err, AV_ERR_UNAUTHORIZED,
		    "a host token is needed, as registering a host gave it; send it as "
		    "'X-Host-Token: ...'");
	else
		r = control_host_verify(rq->api->control, av_str_trim(token), rq->host_id, err);
	if (r < 0)
		rq->api->metrics.auth_failures++;
	return r;
}
