/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandboxes.c - create, get, change, stop, delete, pause, resume, ping, usage
 *
 * A client that goes away before its create was answered cannot know the sandbox it asked for:
 * unless an idempotency key lets it ask again, the sandbox is deleted as soon as it is there.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "api/audit.h"
#include "api/native/main_shapes.h"
#include "api/native/shapes.h"
#include "api/request.h"
#include "base/log.h"
#include "control/hosts.h"
#include "base/banned.h"

#define SANDBOX_JSON_MAX ((size_t)1 << 20)

static void send_sandbox(struct api_request *rq, int status, const struct sandbox_info *sb)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(SANDBOX_JSON_MAX);

	(void)native_write_sandbox(&out, sb);
	api_send_json(rq, status, &out);
}

/* ---- create ---- */

/* Lives from the call to its callback, with or without the request. */
struct create {
	struct api *api;
	struct api_request *rq; /* NULL: the client is gone */
	struct control_actor actor;
	bool replayable;
};

static void create_gone(struct api_request *rq, int status)
{
	struct create *c = rq->state;

	(void)status;
	if (c)
		c->rq = NULL;
}

static void on_unwanted_deleted(void *ctx, const struct av_err *err)
{
	(void)ctx;
	if (err)
		av_log(AV_LOG_WARN, "could not delete a sandbox whose creator went away", "error",
		    err->message, NULL);
}

void native_delete_unwanted(struct api *api, const struct control_actor *a, const char *id)
{
	av_log(AV_LOG_INFO, "deleting a sandbox whose creator went away before the answer",
	    "sandbox", id, NULL);
	(void)control_delete(api->control, a, id, on_unwanted_deleted, NULL, NULL, NULL);
}

static void on_created(void *ctx, const struct sandbox_info *sb, const struct av_err *err)
{
	struct create *c = ctx;
	struct api_request *rq = c->rq;

	if (rq) {
		rq->state = NULL;
		if (err) {
			api_send_err(rq, err);
		} else {
			api_audit_about(rq, sb->id);
			api_audit_note(rq, "template", sb->template_name);
			if (sb->replayed)
				api_audit_note(rq, "replayed", "true");
			send_sandbox(rq, 201, sb);
		}
	} else if (!err && !c->replayable && !sb->replayed) {
		native_delete_unwanted(c->api, &c->actor, sb->id);
	}
	free(c);
}

int native_idempotency_key(const struct api_request *rq, struct av_str *ret, struct av_err *err)
{
	struct av_str key;

	if (!av_req_header(rq->req, "idempotency-key", &key))
		return 0;
	for (size_t i = 0; i < key.n; i++)
		if (key.p[i] < 0x21 || key.p[i] > 0x7e)
			return av_err_set(err, AV_ERR_INVALID,
			    "Idempotency-Key may only hold visible ASCII characters");
	if (key.n == 0 || key.n > 255)
		return av_err_set(err, AV_ERR_INVALID,
		    "Idempotency-Key must have 1 to 255 characters, not %zu", key.n);
	*ret = key;
	return 0;
}

/* "host_id": only the one that there is. */
static int check_host(const struct api_request *rq, struct av_err *err)
{
	const char *id = NULL;
	int r = av_json_get_str(rq->body, "host_id", &id, err);

	if (r == 0 && id)
		r = control_host_placement(rq->api->control, &rq->actor, id, err);
	if (r < 0 && err->kind == AV_ERR_INVALID && id)
		av_err_prefix(err, "host_id");
	return r;
}

/* For clients whose dialect has no field for it; the body comes first. text holds it. */
static int take_isolation(
    struct api_request *rq, struct sandbox_params *params, char text[static 16], struct av_err *err)
{
	struct av_str value;

	if (!av_req_header(rq->req, "x-aviary-isolation", &value))
		return 0;
	if (av_str_copy(text, 16, value) < 0 || !text[0])
		return av_err_set(
		    err, AV_ERR_INVALID, "X-Aviary-Isolation must be \"jail\" or \"vm\"");
	if (params->isolation && strcmp(params->isolation, text) != 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "'isolation' is \"%.16s\" and X-Aviary-Isolation \"%s\"; say it once",
		    params->isolation, text);
	if (params->isolation)
		return 0;
	params->isolation = text;
	params->isolation_aside = true;
	return 0;
}

/* 0, or -errno with *err filled: nothing was begun. */
static int begin_create(struct api_request *rq, struct sandbox_params *params, struct av_err *err)
{
	struct create *c;
	int r;

	if ((r = native_idempotency_key(rq, &params->idempotency_key, err)) < 0 ||
	    (r = check_host(rq, err)) < 0)
		return r;
	params->request_body = rq->raw_body;
	c = malloc(sizeof *c);
	if (!c)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	*c = (struct create){.api = rq->api,
	    .rq = rq,
	    .actor = rq->actor,
	    .replayable = params->idempotency_key.n > 0};
	rq->state = c;
	rq->on_gone = create_gone;
	r = control_create(rq->api->control, &rq->actor, params, on_created, c, NULL, err);
	if (r < 0) {
		rq->state = NULL;
		free(c);
	}
	return r;
}

void native_sandbox_create(struct api_request *rq)
{
	struct sandbox_params params = {0};
	struct native_setup setup;
	char isolation[16];
	struct av_err err;
	int r = native_parse_create(rq->body, &params, &err);

	if (r == 0)
		r = take_isolation(rq, &params, isolation, &err);
	if (r == 0)
		r = native_parse_setup(rq->body, &setup, &params, &err);
	if (r == 0) {
		r = begin_create(rq, &params, &err);
		native_setup_clear(&setup);
	}
	if (r < 0)
		api_send_err(rq, &err);
}

/* ---- the others ---- */

static void on_got(void *ctx, const struct sandbox_info *sb, const struct av_err *err)
{
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err)
		api_send_err(rq, err);
	else
		send_sandbox(rq, 200, sb);
}

void native_sandbox_get(struct api_request *rq)
{
	struct av_err err;

	if (control_get(rq->api->control, &rq->actor, rq->id, on_got, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_sandbox_delete(struct api_request *rq)
{
	struct av_err err;

	if (control_delete(rq->api->control, &rq->actor, rq->id, api_on_done, rq, &rq->call, &err) <
	    0)
		api_send_err(rq, &err);
}

static void on_stopped(void *ctx, const struct sandbox_info *sb,
    const struct sandbox_stop_result *result, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(SANDBOX_JSON_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)av_buf_append_c(&out, "{\"sandbox\":");
	(void)native_write_sandbox(&out, sb);
	(void)av_buf_printf(
	    &out, ",\"grace_exceeded\":%s", result->grace_exceeded ? "true" : "false");
	if (result->snapshot) {
		(void)av_buf_append_c(&out, ",\"snapshot\":");
		(void)av_json_write_str(&out, av_str_c(result->snapshot));
	}
	(void)av_buf_append_char(&out, '}');
	api_send_json(rq, 200, &out);
}

void native_sandbox_stop(struct api_request *rq)
{
	struct sandbox_stop_params params;
	struct av_err err;

	if (native_parse_stop(rq->body, &params, &err) < 0 ||
	    control_sandbox_stop(
	        rq->api->control, &rq->actor, rq->id, &params, on_stopped, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_sandbox_update(struct api_request *rq)
{
	struct sandbox_update update;
	struct av_err err;

	if (native_parse_update(rq->body, &update, &err) < 0 ||
	    control_update(
	        rq->api->control, &rq->actor, rq->id, &update, on_got, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_sandbox_pause(struct api_request *rq)
{
	struct av_err err;

	if (control_pause(rq->api->control, &rq->actor, rq->id, on_got, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_sandbox_resume(struct api_request *rq)
{
	struct av_err err;

	if (control_resume(rq->api->control, &rq->actor, rq->id, on_got, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_sandbox_ping(struct api_request *rq)
{
	struct av_err err;

	if (control_ping(rq->api->control, &rq->actor, rq->id, &err) < 0)
		api_send_err(rq, &err);
	else
		api_send_empty(rq, 204);
}

static void on_usage(void *ctx, const struct sandbox_usage *u, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1024);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)av_buf_printf(&out,
	    "{\"sandbox_id\":\"%s\",\"memory_bytes\":%" PRIu64 ",\"memory_peak_bytes\":%" PRIu64
	    ",\"processes\":%" PRIu64 ",\"cpu_usec\":%" PRIu64 ",\"disk_used_bytes\":%" PRIu64
	    ",\"disk_limit_bytes\":%" PRIu64 ",\"oom_kills\":%" PRIu64 "}",
	    rq->id, u->memory_bytes, u->memory_peak_bytes, u->pids, u->cpu_usec, u->disk_used_bytes,
	    u->disk_limit_bytes, u->oom_kills);
	api_send_json(rq, 200, &out);
}

void native_sandbox_usage(struct api_request *rq)
{
	struct av_err err;

	if (control_usage(rq->api->control, &rq->actor, rq->id, on_usage, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}
