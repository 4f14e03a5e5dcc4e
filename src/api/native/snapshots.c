/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshots.c - templates, and snapshots that become one
 *
 * To existing clients the two are one thing: what a sandbox can be made from, by name.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "api/audit.h"
#include "api/native/shapes.h"
#include "api/request.h"
#include "control/templates.h"
#include "base/banned.h"

#define TEMPLATE_JSON_MAX ((size_t)64 << 10)
#define LIST_JSON_MAX     ((size_t)16 << 20)

static void send_template(struct api_request *rq, int status, const struct template_info *t)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(TEMPLATE_JSON_MAX);

	(void)native_write_template(&out, t);
	api_send_json(rq, status, &out);
}

/* ---- take ---- */

static void on_taken(void *ctx, const struct template_info *t, const struct av_err *err)
{
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	api_audit_about(rq, t->name);
	api_audit_note(rq, "template_id", t->id);
	send_template(rq, 201, t);
}

/* ?overwrite=true */
static int parse_overwrite(const struct api_request *rq, bool *ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(16);
	int r = api_query(rq, "overwrite", &text, err);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (av_str_eq_c(av_buf_str(&text), "true") || av_str_eq_c(av_buf_str(&text), "1"))
		*ret = true;
	else if (!av_str_eq_c(av_buf_str(&text), "false") && !av_str_eq_c(av_buf_str(&text), "0"))
		return av_err_set(
		    err, AV_ERR_INVALID, "query parameter 'overwrite' must be true or false");
	return 0;
}

void native_snapshot_create(struct api_request *rq)
{
	struct snapshot_params params = {0};
	const char *id = NULL;
	struct av_err err;

	int r = native_parse_snapshot(rq->body, &params, &id, &err);

	if (r == 0) {
		api_audit_about(rq, params.name ? params.name : "");
		api_audit_note(rq, "sandbox_id", id ? id : "");
	}
	if (r < 0 || parse_overwrite(rq, &params.overwrite, &err) < 0 ||
	    control_snapshot(
	        rq->api->control, &rq->actor, id, &params, on_taken, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* ---- look ---- */

struct listing {
	struct av_buf out;
	size_t n;
};

static void on_each(void *ctx, const struct template_info *t, const struct av_err *err)
{
	struct listing *l = ctx;

	(void)err;
	if (l->n++)
		(void)av_buf_append_char(&l->out, ',');
	(void)native_write_template(&l->out, t);
}

void native_snapshot_list(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf kind = AV_BUF_INIT(64);
	struct listing l = {.out = AV_BUF_INIT(LIST_JSON_MAX)};
	struct av_err err;
	int r = api_query(rq, "type", &kind, &err);

	if (r < 0 && r != -ENOENT) {
		api_send_err(rq, &err);
		return;
	}
	(void)av_buf_append_char(&l.out, '[');
	control_template_each(
	    rq->api->control, &rq->actor, r == 0 ? av_buf_cstr(&kind) : NULL, on_each, &l);
	(void)av_buf_append_char(&l.out, ']');
	api_send_json(rq, 200, &l.out);
	av_buf_clear(&l.out);
}

static void on_got(void *ctx, const struct template_info *t, const struct av_err *err)
{
	struct api_request *rq = ctx;

	if (err)
		api_send_err(rq, err);
	else
		send_template(rq, 200, t);
}

void native_snapshot_get(struct api_request *rq)
{
	control_template_get(rq->api->control, &rq->actor, api_param(rq, "name"), on_got, rq);
}

/* ---- delete ---- */

static void on_deleted(void *ctx, const struct av_err *err)
{
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err)
		api_send_err(rq, err);
	else
		api_send_empty(rq, 204);
}

void native_snapshot_delete(struct api_request *rq)
{
	struct av_err err;

	if (control_template_delete(rq->api->control, &rq->actor, api_param(rq, "name"), on_deleted,
	        rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* ---- not here ---- */

void native_builds(struct api_request *rq)
{
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_UNSUPPORTED,
	    "templates are not built from recipes or OCI images over the API: `aviary template "
	    "build` builds base and code-interpreter on the machine itself, and POST /v1/snapshots "
	    "makes a template of any sandbox");
	api_send_err(rq, &err);
}
