/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth.c - from request headers to an actor (see auth.h)
 */
#include "api/auth.h"

#include <errno.h>

#include "control/keys.h"
#include "base/banned.h"

#define KEY_MAX 128 /* bytes of a presented key; ours have less than 50 */

/* The presented key, or an empty string. */
static struct av_str presented_key(const struct api_request *rq)
{
	struct av_str value, scheme;

	if (av_req_header(rq->req, "x-api-key", &value))
		return av_str_trim(value);
	if (!av_req_header(rq->req, "authorization", &value))
		return AV_STR("");
	value = av_str_trim(value);
	if (!av_str_cut(&value, ' ', &scheme) || !av_str_ieq(scheme, AV_STR("Bearer")))
		return AV_STR("");
	return av_str_trim(value);
}

bool api_has_credentials(const struct api_request *rq)
{
	struct av_str value;

	return av_req_header(rq->req, "x-api-key", &value) ||
	       av_req_header(rq->req, "authorization", &value);
}

int api_verify_key(struct api *api, struct av_str key, struct control_actor *ret)
{
	if (key.n > 0 && key.n <= KEY_MAX && control_key_verify(api->control, key, ret, NULL) == 0)
		return 0;
	api->metrics.auth_failures++;
	return -EACCES;
}

int api_authenticate(struct api_request *rq, struct av_err *err)
{
	const char *hint = rq->api->credentials_hint;
	struct av_str key = presented_key(rq);

	if (api_verify_key(rq->api, key, &rq->actor) == 0)
		return 0;
	return av_err_set(err, AV_ERR_UNAUTHORIZED,
	    "%s; send 'X-API-Key: av_...' or 'Authorization: Bearer av_...'. aviaryd wrote a key "
	    "at its "
	    "first start%s%s",
	    key.n ? "this API key is not valid" : "an API key is needed", hint ? " to " : "",
	    hint ? hint : " to credentials.json in the configuration directory of who started it");
}
