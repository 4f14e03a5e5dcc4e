/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ports.c - addresses of servers in sandboxes: POST …/url
 */
#include "api/native/native.h"

#include "api/proxy.h"
#include "api/public_url.h"
#include "api/request.h"
#include "base/avtime.h"
#include "control/ports.h"
#include "base/banned.h"

#define URL_MAX           16384
#define EXPIRES_DEFAULT_S 3600
#define EXPIRES_MAX_S     (7 * 24 * 3600)

/* What is asked for; text is lent by the body. */
struct wish {
	int64_t port, expires_s;
	const char *path;
};

static int parse(const json_t *body, struct wish *w, struct av_err *err)
{
	int r;

	*w = (struct wish){.expires_s = EXPIRES_DEFAULT_S, .path = "/"};
	if ((r = av_json_get_i64(body, "port", 1, 65535, &w->port, err)) < 0 ||
	    (r = av_json_get_i64(body, "expires_sec", 1, EXPIRES_MAX_S, &w->expires_s, err)) < 0 ||
	    (r = av_json_get_str(body, "path", &w->path, err)) < 0)
		return r;
	if (!w->port)
		return av_err_set(
		    err, AV_ERR_INVALID, "'port' is needed: a number from 1 to 65535");
	if (w->path[0] != '/' || !av_http_is_target(av_str_c(w->path)))
		return av_err_set(err, AV_ERR_INVALID,
		    "'path' must begin with '/' and be percent-encoded, without '#'");
	return 0;
}

static int find(
    const struct api_request *rq, const struct wish *w, bool *ret_public, struct av_err *err)
{
	struct control_port port;
	int r = control_port_find(rq->api->control, rq->id, (uint16_t)w->port, &port, err);

	if (r < 0)
		return r;
	if (strcmp(port.owner.team_id, rq->actor.team_id) != 0)
		return av_err_set(err, AV_ERR_NOT_FOUND, "there is no sandbox %s", rq->id);
	*ret_public = port.is_public;
	return 0;
}

static int write_url(const struct api_request *rq, const struct wish *w, const char *token,
    struct av_buf *out, struct av_err *err)
{
	int r = public_url_port(out, rq, (uint16_t)w->port, err);

	if (r < 0)
		return r;
	(void)av_buf_append_c(out, w->path);
	if (token)
		(void)av_buf_printf(
		    out, "%c" PROXY_TOKEN "=%s", strchr(w->path, '?') ? '&' : '?', token);
	if (av_buf_error(out))
		return av_err_set(err, AV_ERR_INVALID, "'path' is too long");
	return 0;
}

/* {"port","expires_sec","path"} -> {"url","port","public","expires_at"} */
void native_port_url(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(URL_MAX * 2);
	AV_CLEANUP(av_buf_clear) struct av_buf url = AV_BUF_INIT(URL_MAX);
	char token[CONTROL_TOKEN_SIZE], when[32];
	int64_t expires_s;
	bool is_public = false;
	struct av_err err;
	struct wish w;

	if (parse(rq->body, &w, &err) < 0 || find(rq, &w, &is_public, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	expires_s = av_real_ms() / 1000 + w.expires_s;
	control_port_sign(rq->api->control, rq->id, (uint16_t)w.port, expires_s, token);
	if (write_url(rq, &w, is_public ? NULL : token, &url, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	(void)av_buf_append_c(&out, "{\"url\":");
	(void)av_json_write_str(&out, av_buf_str(&url));
	(void)av_buf_printf(&out, ",\"port\":%u,\"public\":%s,\"expires_at\":", (unsigned)w.port,
	    is_public ? "true" : "false");
	av_rfc3339_ms(expires_s * 1000, when);
	if (is_public)
		(void)av_buf_append_c(&out, "null}");
	else
		(void)av_buf_printf(&out, "\"%s\"}", when);
	api_send_json(rq, 200, &out);
}
