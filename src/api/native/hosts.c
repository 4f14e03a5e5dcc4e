/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts.c - machines that run sandboxes: records, registration tokens, heartbeats
 *
 * Nothing is placed on other machines yet; what concerns them is real all the same.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "api/audit.h"
#include "base/avtime.h"
#include "control/hosts.h"
#include "base/banned.h"

#define HOST_JSON_MAX ((size_t)16 << 10)
#define LIST_JSON_MAX ((size_t)16 << 20)
#define IDS_MAX       1000 /* of sandboxes in one answer */

/* ---- as text ---- */

static void member(struct av_buf *out, const char *name, const char *value)
{
	(void)av_buf_printf(out, ",\"%s\":", name);
	if (value[0])
		(void)av_json_write_str(out, av_str_c(value));
	else
		(void)av_buf_append_c(out, "null");
}

static void number(struct av_buf *out, const char *name, int64_t n)
{
	if (n > 0)
		(void)av_buf_printf(out, ",\"%s\":%" PRId64, name, n);
	else
		(void)av_buf_printf(out, ",\"%s\":null", name);
}

static void moment(struct av_buf *out, const char *name, int64_t ms)
{
	char at[32] = "";

	if (ms)
		av_rfc3339_ms(ms, at);
	member(out, name, at);
}

static void write_host(struct av_buf *out, const struct control_host *h, bool with_team)
{
	(void)av_buf_printf(
	    out, "{\"id\":\"%s\",\"type\":\"%s\",\"status\":\"%s\"", h->id, h->type, h->status);
	member(out, "team_id", h->team_id);
	if (with_team)
		member(out, "team_name", h->team_name);
	member(out, "provider", h->provider);
	member(out, "availability_zone", h->zone);
	member(out, "arch", h->arch);
	number(out, "cpu_cores", h->cpu_cores);
	number(out, "memory_mb", h->memory_mb);
	number(out, "disk_gb", h->disk_gb);
	member(out, "address", h->address);
	moment(out, "last_heartbeat_at", h->heartbeat_ms);
	member(out, "created_by", h->created_by);
	moment(out, "created_at", h->created_ms);
	moment(out, "updated_at", h->updated_ms);
	(void)av_buf_printf(out, ",\"local\":%s}", h->is_local ? "true" : "false");
}

static bool is_admin(const struct api_request *rq)
{
	return rq->actor.is_admin && (rq->actor.scopes & CONTROL_SCOPE_ADMIN);
}

/* Whose log a change belongs to. */
static void audit_host(struct api_request *rq, const struct control_host *h)
{
	api_audit_about(rq, h->id);
	api_audit_team(rq, h->team_id);
}

/* Also of one that is deleted by what follows. */
static void audit_before(struct api_request *rq)
{
	struct control_host h;

	if (control_host_get(rq->api->control, &rq->actor, api_param(rq, "host"), &h, NULL) == 0)
		audit_host(rq, &h);
}

/* ---- people ---- */

static void send_with_token(struct api_request *rq, const struct control_host *h, const char *token)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(HOST_JSON_MAX);

	audit_host(rq, h);
	(void)av_buf_append_c(&out, "{\"host\":");
	write_host(&out, h, is_admin(rq));
	member(&out, "registration_token", token);
	(void)av_buf_append_char(&out, '}');
	api_send_json(rq, 201, &out);
}

static void on_registration(void *ctx, const struct control_host *h,
    const struct control_host_tokens *t, const struct av_err *err)
{
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err)
		api_send_err(rq, err);
	else
		send_with_token(rq, h, t->registration);
}

void native_host_create(struct api_request *rq)
{
	struct control_host_params p = {0};
	struct av_err err;

	if (av_json_get_str(rq->body, "type", &p.type, &err) < 0 ||
	    av_json_get_str(rq->body, "team_id", &p.team_id, &err) < 0 ||
	    av_json_get_str(rq->body, "provider", &p.provider, &err) < 0 ||
	    av_json_get_str(rq->body, "availability_zone", &p.zone, &err) < 0 ||
	    control_host_create(
	        rq->api->control, &rq->actor, &p, on_registration, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_host_token(struct api_request *rq)
{
	struct av_err err;

	audit_before(rq);
	if (control_host_token(rq->api->control, &rq->actor, api_param(rq, "host"), on_registration,
	        rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

struct listing {
	struct av_buf out;
	size_t n;
	bool with_team;
};

static void on_each(void *ctx, const struct control_host *h)
{
	struct listing *l = ctx;

	if (l->n++)
		(void)av_buf_append_char(&l->out, ',');
	write_host(&l->out, h, l->with_team);
}

void native_host_list(struct api_request *rq)
{
	struct listing l = {.out = AV_BUF_INIT(LIST_JSON_MAX), .with_team = is_admin(rq)};

	(void)av_buf_append_char(&l.out, '[');
	control_host_each(rq->api->control, &rq->actor, on_each, &l);
	(void)av_buf_append_char(&l.out, ']');
	api_send_json(rq, 200, &l.out);
	av_buf_clear(&l.out);
}

void native_host_get(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(HOST_JSON_MAX);
	struct control_host h;
	struct av_err err;

	if (control_host_get(rq->api->control, &rq->actor, api_param(rq, "host"), &h, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	write_host(&out, &h, is_admin(rq));
	api_send_json(rq, 200, &out);
}

/* ---- delete ---- */

static void on_sandbox(void *ctx, const char *id)
{
	struct listing *l = ctx;

	if (l->n < IDS_MAX)
		(void)av_buf_printf(&l->out, "%s\"%s\"", l->n ? "," : "", id);
	l->n++;
}

/* "id","id"; the first IDS_MAX of them. */
static int list_sandboxes(struct api_request *rq, struct listing *l, struct av_err *err)
{
	l->out = AV_BUF_INIT(HOST_JSON_MAX + IDS_MAX * (AV_ID_SIZE + 2));
	l->n = 0;
	return control_host_sandboxes(
	    rq->api->control, &rq->actor, api_param(rq, "host"), on_sandbox, l, err);
}

void native_host_delete_preview(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(LIST_JSON_MAX);
	struct listing l = {0};
	struct control_host h;
	struct av_err err;

	if (control_host_get(rq->api->control, &rq->actor, api_param(rq, "host"), &h, &err) < 0 ||
	    list_sandboxes(rq, &l, &err) < 0) {
		av_buf_clear(&l.out);
		api_send_err(rq, &err);
		return;
	}
	(void)av_buf_append_c(&out, "{\"host\":");
	write_host(&out, &h, is_admin(rq));
	(void)av_buf_printf(&out, ",\"sandbox_ids\":[%.*s]}", AV_STR_ARG(av_buf_str(&l.out)));
	api_send_json(rq, 200, &out);
	av_buf_clear(&l.out);
}

/* Clients of the one generation read the ids beside the error, those of the other inside. */
static void send_busy(struct api_request *rq, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(LIST_JSON_MAX);
	struct listing l = {0};
	struct av_str ids = AV_STR("");

	if (list_sandboxes(rq, &l, NULL) == 0)
		ids = av_buf_str(&l.out);
	(void)av_buf_append_c(&out, "{\"error\":{\"code\":");
	(void)av_json_write_str(&out, av_str_c(av_err_code(err->kind)));
	(void)av_buf_append_c(&out, ",\"message\":");
	(void)av_json_write_str(&out, av_str_c(err->message));
	(void)av_buf_printf(&out,
	    ",\"sandbox_ids\":[%.*s],\"capsule_ids\":[%.*s]},\"sandbox_ids\":[%.*s],"
	    "\"capsule_ids\":[%.*s]}",
	    AV_STR_ARG(ids), AV_STR_ARG(ids), AV_STR_ARG(ids), AV_STR_ARG(ids));
	rq->failed = err->kind;
	api_send_json(rq, av_err_http_status(err->kind), &out);
	av_buf_clear(&l.out);
}

static void on_changed(void *ctx, const struct control_host *h, const struct control_host_tokens *t,
    const struct av_err *err)
{
	struct api_request *rq = ctx;

	(void)h;
	(void)t;
	rq->call = NULL;
	if (err && err->kind == AV_ERR_HOST_BUSY)
		send_busy(rq, err);
	else if (err)
		api_send_err(rq, err);
	else
		api_send_empty(rq, 204);
}

static int parse_force(const struct api_request *rq, bool *ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(16);
	int r = api_query(rq, "force", &text, err);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	*ret = av_str_eq_c(av_buf_str(&text), "true") || av_str_eq_c(av_buf_str(&text), "1");
	if (!*ret && !av_str_eq_c(av_buf_str(&text), "false") &&
	    !av_str_eq_c(av_buf_str(&text), "0"))
		return av_err_set(
		    err, AV_ERR_INVALID, "query parameter 'force' must be true or false");
	return 0;
}

void native_host_delete(struct api_request *rq)
{
	bool force = false;
	struct av_err err;

	audit_before(rq);
	if (parse_force(rq, &force, &err) < 0 ||
	    control_host_delete(rq->api->control, &rq->actor, api_param(rq, "host"), force,
	        on_changed, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* ---- tags ---- */

void native_host_tag_list(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(HOST_JSON_MAX);
	struct control_host h;
	struct av_str rest, one;
	struct av_err err;
	bool more;

	if (control_host_get(rq->api->control, &rq->actor, api_param(rq, "host"), &h, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	rest = av_str_c(h.tags);
	(void)av_buf_append_char(&out, '[');
	for (more = rest.n > 0; more;) {
		more = av_str_cut(&rest, ',', &one);
		(void)av_json_write_str(&out, one);
		if (more)
			(void)av_buf_append_char(&out, ',');
	}
	(void)av_buf_append_char(&out, ']');
	api_send_json(rq, 200, &out);
}

static void change_tag(struct api_request *rq, const char *tag, bool add)
{
	struct av_err err;

	audit_before(rq);
	api_audit_note(rq, "tag", tag);
	if (control_host_tag(rq->api->control, &rq->actor, api_param(rq, "host"), tag, add,
	        on_changed, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_host_tag_add(struct api_request *rq)
{
	const char *tag = NULL;
	struct av_err err;

	if (av_json_get_str(rq->body, "tag", &tag, &err) < 0)
		api_send_err(rq, &err);
	else
		change_tag(rq, tag ? tag : "", true);
}

void native_host_tag_remove(struct api_request *rq)
{
	change_tag(rq, api_param(rq, "tag"), false);
}

/* ---- the host itself ---- */

static void send_credentials(struct api_request *rq, int status, const struct control_host *h,
    const struct control_host_tokens *t)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(HOST_JSON_MAX);

	api_audit_host(rq, h->id);
	audit_host(rq, h);
	(void)av_buf_append_c(&out, "{\"host\":");
	write_host(&out, h, false);
	member(&out, "token", t->token);
	member(&out, "refresh_token", t->refresh);
	/* Of connections to hosts, of which there are none yet. */
	(void)av_buf_append_c(&out, ",\"cert_pem\":null,\"key_pem\":null,\"ca_cert_pem\":null}");
	api_send_json(rq, status, &out);
}

static void on_registered(void *ctx, const struct control_host *h,
    const struct control_host_tokens *t, const struct av_err *err)
{
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err)
		api_send_err(rq, err);
	else
		send_credentials(rq, 201, h, t);
}

static void on_refreshed(void *ctx, const struct control_host *h,
    const struct control_host_tokens *t, const struct av_err *err)
{
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err)
		api_send_err(rq, err);
	else
		send_credentials(rq, 200, h, t);
}

void native_host_register(struct api_request *rq)
{
	struct control_host_facts f = {0};
	const char *token = NULL;
	struct av_err err;

	if (av_json_get_str(rq->body, "token", &token, &err) < 0 ||
	    av_json_get_str(rq->body, "address", &f.address, &err) < 0 ||
	    av_json_get_str(rq->body, "arch", &f.arch, &err) < 0 ||
	    av_json_get_i64(rq->body, "cpu_cores", 0, 65536, &f.cpu_cores, &err) < 0 ||
	    av_json_get_i64(rq->body, "memory_mb", 0, 1LL << 40, &f.memory_mb, &err) < 0 ||
	    av_json_get_i64(rq->body, "disk_gb", 0, 1LL << 40, &f.disk_gb, &err) < 0 ||
	    control_host_register(rq->api->control, token, &f, on_registered, rq, &rq->call, &err) <
	        0)
		api_send_err(rq, &err);
}

void native_host_refresh(struct api_request *rq)
{
	const char *token = NULL;
	struct av_err err;

	if (av_json_get_str(rq->body, "refresh_token", &token, &err) < 0 ||
	    control_host_refresh(rq->api->control, token, on_refreshed, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_host_heartbeat(struct api_request *rq)
{
	const char *id = api_param(rq, "host");
	struct av_err err;
	int r = 0;

	if (strcmp(id, rq->host_id) != 0)
		r = av_err_set(&err, AV_ERR_FORBIDDEN, "the host token is of host %s, not of %.64s",
		    rq->host_id, id);
	if (r == 0)
		r = control_host_heartbeat(rq->api->control, id, &err);
	if (r < 0)
		api_send_err(rq, &err);
	else
		api_send_empty(rq, 204);
}
