/* SPDX-License-Identifier: Apache-2.0 */
/*
 * life.c - what is asked of sandboxes that are there: stop, pause, list and the like (see
 * aviary/sandbox.h)
 *
 * Theory of operation of a stop. All who ask for one join the list `stops` of the handle; the first
 * decides how, and one request is made for all. While the create is under way, or its answer was
 * lost, the stop waits for that: there is no id before. When the stop fails all are told, the list
 * is empty, and the next one begins anew.
 */
#include <aviary/resources.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/call.h"
#include "client/model_tables.h"
#include "client/resource.h"
#include "client/spec.h"

#include "base/banned.h"

#define GRACE_MS        10000
#define GRACE_MAX_MS    600000
#define STOP_TIMEOUT_MS 60000 /* beyond the grace */

/* ---- stop ---- */

struct stop {
	struct av_list link; /* sb->stops */
	aviary_op *op;
	bool missing_ok;
};

static void stop_end(struct stop *s, const aviary_error *error)
{
	aviary_op *op = s->op;
	bool fine = !error || (s->missing_ok && error->code == AVIARY_E_SANDBOX_NOT_FOUND);

	av_list_remove(&s->link);
	free(s);
	if (fine)
		avc_op_end(op);
	else
		avc_op_fail_with(op, error);
}

static void stops_end(struct aviary_sandbox *sb, const aviary_error *error)
{
	struct stop *s;

	json_decref(AV_TAKE_PTR(sb->stop_body));
	while ((s = AV_LIST_FIRST(&sb->stops, struct stop, link)))
		stop_end(s, error);
}

static void mark_stopped(struct aviary_sandbox *sb)
{
	sb->stopped = true;
	sb->status = AVIARY_STATUS_STOPPED;
	avc_sandbox_gone(sb);
}

static void on_stopped(void *ctx, const struct avc_reply *reply)
{
	struct aviary_sandbox *sb = aviary_sandbox_ref(ctx);

	sb->stopping = NULL;
	if (json_is_object(json_object_get(reply->json, "sandbox")))
		avc_sandbox_take(sb, json_object_get(reply->json, "sandbox"));
	if (reply->code == 0 || reply->code == AVIARY_E_SANDBOX_NOT_FOUND)
		mark_stopped(sb);
	stops_end(sb, reply->error);
	avc_sandbox_unref_locked(sb);
}

static void stop_failed(struct aviary_sandbox *sb, int code)
{
	aviary_error e;

	avc_sandbox_error(sb, &e, code, NULL);
	stops_end(sb, &e);
}

/* There is an id: the request. */
static void stop_send(struct aviary_sandbox *sb)
{
	char path[AVC_ID_SIZE + 32];
	struct avc_request_spec spec = {.method = "POST",
	    .path = path,
	    .sandbox_id = sb->id,
	    .timeout_ms = sb->stop_timeout_ms,
	    .body = AV_TAKE_PTR(sb->stop_body),
	    .repeatable = !sb->stop_saves};

	(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s/stop", sb->id);
	sb->stopping = avc_request_start(sb->c, &spec, on_stopped, sb);
	if (!sb->stopping)
		stop_failed(sb, AVIARY_E_NO_MEMORY);
}

void avc_sandbox_stop_now(struct aviary_sandbox *sb, const struct avc_reply *failed)
{
	if (!failed) {
		stop_send(sb);
	} else if (sb->birth == AVC_UNBORN) { /* there is none, and nothing to stop */
		mark_stopped(sb);
		stops_end(sb, NULL);
	} else {
		stops_end(sb, failed->error);
	}
}

static void stop_begin(struct aviary_sandbox *sb)
{
	if (sb->id[0])
		stop_send(sb);
	else if (!avc_sandbox_ask(sb)) /* goes on in avc_sandbox_stop_now */
		stop_failed(sb, AVIARY_E_NO_MEMORY);
}

static json_t *stop_body(const aviary_stop_options *o)
{
	int64_t grace_ms = o->grace_ms < 0 ? 0 : o->grace_ms ? o->grace_ms : GRACE_MS;
	aviary_sandboxes_stop_options q = AVIARY_SANDBOXES_STOP_OPTIONS_INIT;
	char text[AVC_MODEL_TEXT];
	json_t *body = NULL;

	q.has_grace_sec = 1;
	q.grace_sec = (double)grace_ms / 1000;
	q.snapshot = o->snapshot;
	(void)avc_resource_body(&avc_sandboxes_stop_resource, &q, &body, text);
	return body;
}

static void stop_leave(aviary_op *op)
{
	struct stop *s = op->work;
	struct aviary_sandbox *sb = op->sb;

	av_list_remove(&s->link);
	free(s);
	if (av_list_empty(&sb->stops)) {
		avc_request_cancel(AV_TAKE_PTR(sb->stopping));
		json_decref(AV_TAKE_PTR(sb->stop_body));
	}
}

/* True: s waits for a stop, which is under way. */
static bool stop_join(struct aviary_sandbox *sb, struct stop *s, const aviary_stop_options *o)
{
	bool first = av_list_empty(&sb->stops);

	if (!first && o->snapshot && !sb->stop_saves) {
		avc_op_fail(s->op, AVIARY_E_CONFLICT,
		    "a stop without a snapshot is under way; take the snapshot before the stop");
		return false;
	}
	if (first) {
		sb->stop_body = stop_body(o);
		sb->stop_saves = o->snapshot != NULL;
		sb->stop_timeout_ms =
		    (o->grace_ms < 0 ? 0 : AV_MAX(o->grace_ms, (int64_t)GRACE_MS)) +
		    (o->snapshot ? 10 : 1) * STOP_TIMEOUT_MS;
		if (!sb->stop_body) {
			avc_op_fail(s->op, AVIARY_E_NO_MEMORY, "out of memory");
			return false;
		}
	}
	s->missing_ok = o->missing_ok;
	s->op->work = s;
	s->op->stop = stop_leave;
	av_list_append(&sb->stops, &s->link);
	if (first)
		stop_begin(sb);
	return true;
}

static void stop(struct aviary_sandbox *sb, struct stop *s, const aviary_stop_options *o)
{
	aviary_op *op = s->op;

	if (sb->c->closed) {
		avc_op_fail(op, AVIARY_E_STATE, "the client was closed");
	} else if (sb->stopped) {
		avc_op_end(op);
	} else if (sb->birth == AVC_UNBORN) {
		/* Whoever waits for it and has not asked yet never will. */
		mark_stopped(sb);
		avc_op_end(op);
	} else if (stop_join(sb, s, o)) {
		return; /* s is the list's */
	}
	free(s);
}

aviary_op *aviary_sandbox_stop(aviary_sandbox *sb, const aviary_stop_options *options)
{
	aviary_stop_options o = AVIARY_STOP_OPTIONS_INIT;
	aviary_op *op;
	struct stop *s;

	if (options)
		memcpy(&o, options, AV_MIN(options->struct_size, sizeof(o)));
	if (o.grace_ms > GRACE_MAX_MS)
		return avc_op_failed(sb->c, AVIARY_E_INVALID,
		    "grace_ms is %lld; it may be up to %d", (long long)o.grace_ms, GRACE_MAX_MS);
	if (o.snapshot && !av_utf8_valid(av_str_c(o.snapshot)))
		return avc_op_failed(sb->c, AVIARY_E_INVALID, "snapshot is not UTF-8");
	op = avc_op_new(sb->c);
	s = op->c ? calloc(1, sizeof(*s)) : NULL;
	if (!op->c)
		return op;
	avc_lock(sb->c);
	op->sb = aviary_sandbox_ref(sb);
	if (s) {
		av_list_init(&s->link);
		s->op = op;
		stop(sb, s, &o);
	} else {
		avc_op_fail(op, AVIARY_E_NO_MEMORY, "out of memory");
	}
	avc_unlock(sb->c);
	return op;
}

/* ---- by id ---- */

struct by_id {
	bool missing_ok;
};

static int take_deleted(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	const struct by_id *d = ctx;

	(void)op;
	return reply->code == AVIARY_E_SANDBOX_NOT_FOUND && d->missing_ok ? 0 : reply->code;
}

/* The handle is there only for the request: its path, and the error's id. */
static aviary_op *call_by_id(aviary_client *c, const char *id, struct avc_call_spec *spec)
{
	aviary_sandbox *sb;
	aviary_op *op;

	if (!avc_id_is_usable(id)) {
		free(spec->ctx);
		return avc_op_failed(
		    c, AVIARY_E_INVALID, "\"%.80s\" is not the id of a sandbox", id ? id : "");
	}
	sb = aviary_sandbox_attach(c, id);
	if (!sb) {
		free(spec->ctx);
		return avc_op_none();
	}
	spec->sb = sb;
	spec->path = "";
	op = avc_call(c, spec);
	aviary_sandbox_free(sb);
	return op;
}

aviary_op *aviary_sandbox_delete(aviary_client *c, const char *id, int missing_ok)
{
	struct by_id *d = calloc(1, sizeof(*d));

	if (!d)
		return avc_op_none();
	d->missing_ok = missing_ok;
	return call_by_id(c, id,
	    &(struct avc_call_spec){
	        .method = "DELETE", .take = take_deleted, .ctx = d, .free_ctx = free});
}

/* Answers are sandboxes. */
static int take_state(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	(void)ctx;
	if (reply->code == 0 && reply->json)
		avc_sandbox_take(op->sb, reply->json);
	return reply->code;
}

/* ---- one request ---- */

static aviary_op *call(aviary_sandbox *sb, const char *method, const char *path, avc_take_fn *take)
{
	return avc_call(
	    sb->c, &(struct avc_call_spec){.method = method, .path = path, .sb = sb, .take = take});
}

aviary_op *aviary_sandbox_refresh(aviary_sandbox *sb)
{
	return call(sb, "GET", "", take_state);
}

aviary_op *aviary_sandbox_pause(aviary_sandbox *sb)
{
	return call(sb, "POST", "/pause", take_state);
}

aviary_op *aviary_sandbox_resume(aviary_sandbox *sb)
{
	return call(sb, "POST", "/resume", take_state);
}

aviary_op *aviary_sandbox_ping(aviary_sandbox *sb)
{
	return call(sb, "POST", "/ping", NULL);
}

aviary_op *aviary_sandbox_update(aviary_sandbox *sb, const aviary_sandbox_spec *spec)
{
	char text[AVC_SPEC_TEXT];
	aviary_sandbox_spec s;
	json_t *body = NULL;
	int r;

	avc_spec_take(&s, spec);
	r = avc_spec_changes(&s, &body, text);
	if (r == AVIARY_E_INVALID)
		return avc_op_failed(sb->c, r, "%s", text);
	if (r < 0)
		return avc_op_none();
	return avc_call(
	    sb->c, &(struct avc_call_spec){
	               .method = "PATCH", .path = "", .sb = sb, .body = body, .take = take_state});
}

aviary_op *aviary_sandbox_snapshot(
    aviary_sandbox *sb, const aviary_snapshots_create_options *options)
{
	if (!sb->id[0])
		return avc_op_failed(sb->c, AVIARY_E_SANDBOX_NOT_RUNNING,
		    "the sandbox was not started yet: there is nothing to make a snapshot of");
	return aviary_snapshots_create(sb->c, sb->id, options);
}

aviary_template *aviary_sandbox_snapshot_sync(
    aviary_sandbox *sb, const aviary_snapshots_create_options *options, aviary_error *error)
{
	return avc_op_await(aviary_sandbox_snapshot(sb, options), &avc_template.type, error);
}

static const struct avc_turn until_running = {0};

aviary_op *aviary_sandbox_start(aviary_sandbox *sb)
{
	return avc_sandbox_wait(sb, sb->start_timeout_ms, &until_running, false);
}

aviary_op *aviary_sandbox_wait_running(aviary_sandbox *sb, int64_t timeout_ms)
{
	return avc_sandbox_wait(sb, timeout_ms, &until_running, false);
}

aviary_op *aviary_sandbox_wait_complete(aviary_sandbox *sb, int64_t timeout_ms, unsigned flags)
{
	if (flags & ~AVIARY_WAIT_ANY_END)
		return avc_op_failed(
		    sb->c, AVIARY_E_INVALID, "flags 0x%x has an unknown bit", flags);
	return avc_sandbox_wait(sb, timeout_ms,
	    &(struct avc_turn){.until_over = true, .any_end = flags & AVIARY_WAIT_ANY_END}, false);
}

aviary_op *aviary_sandbox_run(aviary_client *c, const aviary_sandbox_spec *spec)
{
	aviary_sandbox *sb = aviary_sandbox_new(c, spec);
	aviary_op *op;

	if (!sb)
		return avc_op_none();
	op = avc_sandbox_wait(sb, sb->start_timeout_ms, &until_running, true);
	aviary_sandbox_free(sb);
	return op;
}
