/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_url.c - signed URLs: making them, and reading or writing one file with no API key
 *
 * Who has the URL may do what it was made for, and nothing else: method, sandbox, user and path are
 * in the token's MAC (control/file_sign.h). What is read is a download, whatever it holds: a page
 * from a sandbox must not run with the origin of this API.
 */
#include "api/native/native.h"

#include <errno.h>

#include "api/public_url.h"
#include "api/request.h"
#include "base/avtime.h"
#include "base/codec.h"
#include "base/path.h"
#include "control/file_sign.h"
#include "base/banned.h"

#define URL_MAX_BYTES ((size_t)3 * AV_PATH_MAX + 1024)
#define USER_MAX      64
#define EXPIRES_S     3600

/* ---- making ---- */

static void write_url(struct av_buf *out, const struct api_request *rq,
    const struct control_file_url *url, const char *token)
{
	public_url_api(out, rq);
	(void)av_buf_printf(out, "/v1/sandboxes/%s/files/signed?path=", url->id);
	(void)av_percent_encode(out, url->path, true);
	if (url->user[0]) {
		(void)av_buf_append_c(out, "&user=");
		(void)av_percent_encode(out, av_str_c(url->user), false);
	}
	(void)av_buf_printf(out, "&token=%s", token);
}

static int parse_url(struct api_request *rq, struct control_file_url *ret, int64_t *ret_expires_s,
    struct av_err *err)
{
	const char *path = "", *method = "GET", *user = "";
	int64_t expires_s = EXPIRES_S;
	int r;

	if ((r = av_json_get_str(rq->body, "path", &path, err)) < 0 ||
	    (r = av_json_get_str(rq->body, "method", &method, err)) < 0 ||
	    (r = av_json_get_str(rq->body, "user", &user, err)) < 0 ||
	    (r = av_json_get_i64(
	         rq->body, "expires_sec", 1, CONTROL_FILE_URL_MAX_S, &expires_s, err)) < 0)
		return r;
	if (strlen(user) > USER_MAX)
		return av_err_set(err, AV_ERR_INVALID, "\"user\" has more than %d bytes", USER_MAX);
	if (strcmp(method, "GET") != 0 && strcmp(method, "PUT") != 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "\"method\" must be \"GET\" (to read the file) or \"PUT\" (to write it)");
	*ret = (struct control_file_url){
	    .id = rq->id, .write = method[0] == 'P', .user = user, .path = av_str_c(path)};
	*ret_expires_s = av_real_ms() / 1000 + expires_s;
	return 0;
}

/* POST {"path","method","user","expires_sec"} */
void native_file_url(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf url = AV_BUF_INIT(URL_MAX_BYTES);
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(2 * URL_MAX_BYTES);
	char token[CONTROL_TOKEN_SIZE] = "", when[32];
	struct control_file_url what = {.id = rq->id, .user = "", .path = AV_STR("")};
	struct av_err err;
	int64_t expires_s = 0;

	if (parse_url(rq, &what, &expires_s, &err) < 0 ||
	    control_file_sign(rq->api->control, &rq->actor, &what, expires_s, token, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	write_url(&url, rq, &what, token);
	av_rfc3339_ms(expires_s * 1000, when);
	(void)av_buf_append_c(&out, "{\"url\":");
	(void)av_json_write_str(&out, av_buf_str(&url));
	(void)av_buf_printf(
	    &out, ",\"method\":\"%s\",\"expires_at\":\"%s\"}", what.write ? "PUT" : "GET", when);
	if (av_buf_error(&url) < 0) {
		(void)av_err_set(&err, AV_ERR_INVALID, "the path is too long for a URL");
		api_send_err(rq, &err);
		return;
	}
	api_send_json(rq, 200, &out);
}

/* ---- using ---- */

/* True when the request may go on, on behalf of the sandbox's team. */
static bool admit(struct api_request *rq, bool write)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(AV_PATH_MAX + 1);
	AV_CLEANUP(av_buf_clear) struct av_buf user = AV_BUF_INIT(USER_MAX + 1);
	AV_CLEANUP(av_buf_clear) struct av_buf token = AV_BUF_INIT(CONTROL_TOKEN_SIZE);
	struct control_file_url url = {.id = rq->id, .write = write, .user = ""};
	struct av_err err;
	int r = api_query(rq, "path", &path, &err);

	if (r == 0 || r == -ENOENT)
		r = api_query(rq, "user", &user, &err);
	if (r == 0)
		url.user = av_buf_cstr(&user);
	if (r == 0 || r == -ENOENT)
		r = api_query(rq, "token", &token, &err);
	if (r == -ENOENT)
		r = av_err_set(&err, AV_ERR_FORBIDDEN,
		    "this URL has no token; make one with POST .../files/url");
	url.path = av_buf_str(&path);
	if (r == 0)
		r = url.user ? control_file_check(
		                   rq->api->control, &url, av_buf_str(&token), &rq->actor, &err)
		             : av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	if (r < 0) {
		rq->api->metrics.auth_failures += err.kind == AV_ERR_FORBIDDEN;
		api_send_err(rq, &err);
	}
	if (r == 0)
		api_request_trusted(rq);
	return r == 0;
}

void native_file_signed_get(struct api_request *rq)
{
	if (admit(rq, false))
		native_file_get(rq);
}

void native_file_signed_put(struct api_request *rq)
{
	if (admit(rq, true))
		native_file_put(rq);
}
