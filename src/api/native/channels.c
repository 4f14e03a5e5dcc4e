/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channels.c - channels of the team: webhooks and chats that are told what happens
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "api/native/shapes.h"
#include "api/audit.h"
#include "api/request.h"
#include "base/avtime.h"
#include "base/num.h"
#include "control/channels.h"
#include "base/banned.h"

#define LIST_JSON_MAX ((size_t)1 << 20)
#define CONFIG_FIELDS 8
#define EVENT_NAMES   64
#define LIMIT_DEFAULT 50
#define LIMIT_MAX     100

/* ---- shapes ---- */

static void write_time(struct av_buf *out, const char *name, int64_t ms)
{
	char at[32];

	if (ms == 0) {
		(void)av_buf_printf(out, ",\"%s\":null", name);
		return;
	}
	av_rfc3339_ms(ms, at);
	(void)av_buf_printf(out, ",\"%s\":\"%s\"", name, at);
}

static void write_text(struct av_buf *out, const char *name, const char *value)
{
	(void)av_buf_printf(out, "\"%s\":", name);
	(void)av_json_write_str(out, av_str_c(value));
}

static void write_events(struct av_buf *out, struct av_str words)
{
	struct av_str word;
	size_t n = 0;

	(void)av_buf_append_c(out, ",\"events\":[");
	while (words.n > 0) {
		(void)av_str_cut(&words, ' ', &word);
		if (word.n == 0)
			continue;
		if (n++)
			(void)av_buf_append_char(out, ',');
		(void)av_json_write_str(out, word);
	}
	(void)av_buf_append_char(out, ']');
}

static void write_channel(struct av_buf *out, const struct control_channel *ch)
{
	(void)av_buf_append_char(out, '{');
	write_text(out, "id", ch->id);
	(void)av_buf_append_char(out, ',');
	write_text(out, "team_id", ch->team_id);
	(void)av_buf_append_char(out, ',');
	write_text(out, "name", ch->name);
	(void)av_buf_append_char(out, ',');
	write_text(out, "provider", ch->provider);
	write_events(out, av_str_c(ch->events));
	write_time(out, "created_at", ch->created_ms);
	write_time(out, "updated_at", ch->updated_ms);
	(void)av_buf_printf(out, ",\"enabled\":%s", ch->disabled_ms ? "false" : "true");
	write_time(out, "disabled_at", ch->disabled_ms);
	if (ch->disabled_ms) {
		(void)av_buf_append_char(out, ',');
		write_text(out, "disabled_reason", ch->disabled_reason);
	}
	write_time(out, "failing_since", ch->failing_ms);
	write_time(out, "last_delivered_at", ch->delivered_ms);
	(void)av_buf_printf(
	    out, ",\"pending\":%" PRId64 ",\"dropped\":%" PRId64, ch->pending, ch->dropped);
	if (ch->secret) {
		(void)av_buf_append_char(out, ',');
		write_text(out, "secret", ch->secret);
	}
	(void)av_buf_append_char(out, '}');
}

static void write_delivery(struct av_buf *out, const struct control_delivery *d)
{
	(void)av_buf_append_char(out, '{');
	write_text(out, "id", d->id);
	(void)av_buf_append_char(out, ',');
	write_text(out, "event", d->event);
	(void)av_buf_append_char(out, ',');
	write_text(out, "state", d->state);
	(void)av_buf_printf(out, ",\"attempts\":%" PRId64, d->attempts);
	write_time(out, "created_at", d->created_ms);
	write_time(out, "last_attempt_at", d->last_ms);
	write_time(out, "next_attempt_at", strcmp(d->state, "pending") == 0 ? d->next_ms : 0);
	if (d->status)
		(void)av_buf_printf(out, ",\"status\":%" PRId64, d->status);
	else
		(void)av_buf_append_c(out, ",\"status\":null");
	(void)av_buf_printf(out, ",\"duration_ms\":%" PRId64, d->duration_ms);
	if (d->error[0]) {
		(void)av_buf_append_char(out, ',');
		write_text(out, "error", d->error);
	}
	(void)av_buf_append_char(out, '}');
}

/* ---- requests ---- */

static int parse_params(
    const struct api_request *rq, struct channel_params *p, bool *enabled, struct av_err *err)
{
	const json_t *flag = json_object_get(rq->body, "enabled");
	int r;

	*p = (struct channel_params){0};
	if ((r = av_json_get_str(rq->body, "name", &p->name, err)) < 0 ||
	    (r = av_json_get_str(rq->body, "provider", &p->provider, err)) < 0 ||
	    (r = av_json_get_str_map(rq->body, "config", CONFIG_FIELDS, &p->config, err)) < 0 ||
	    (r = av_json_get_str_array(rq->body, "events", EVENT_NAMES, &p->events, err)) < 0 ||
	    (r = av_json_get_bool(rq->body, "enabled", enabled, err)) < 0)
		return r;
	if (flag && !json_is_null(flag))
		p->enabled = enabled;
	return 0;
}

static int need(const void *value, const char *field, struct av_err *err)
{
	return value ? 0 : av_err_set(err, AV_ERR_INVALID, "field '%s': missing", field);
}

static void send_one(
    struct api_request *rq, int status, const struct control_channel *v, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(LIST_JSON_MAX);

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	write_channel(&out, v);
	api_send_json(rq, status, &out);
}

static void on_created(
    void *ctx, const struct control_channel *v, size_t n, const struct av_err *err)
{
	(void)n;
	if (!err)
		api_audit_about(ctx, v->id);
	send_one(ctx, 201, v, err);
}

static void on_one(void *ctx, const struct control_channel *v, size_t n, const struct av_err *err)
{
	(void)n;
	send_one(ctx, 200, v, err);
}

static void on_list(void *ctx, const struct control_channel *v, size_t n, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(LIST_JSON_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)av_buf_append_char(&out, '[');
	for (size_t i = 0; i < n; i++) {
		if (i)
			(void)av_buf_append_char(&out, ',');
		write_channel(&out, &v[i]);
	}
	(void)av_buf_append_char(&out, ']');
	api_send_json(rq, 200, &out);
}

void native_channel_create(struct api_request *rq)
{
	struct channel_params p;
	struct av_err err;
	bool enabled = true;

	if (parse_params(rq, &p, &enabled, &err) < 0 ||
	    control_channel_create(
	        rq->api->control, &rq->actor, &p, on_created, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_channel_list(struct api_request *rq)
{
	struct av_err err;

	if (control_channel_list(rq->api->control, &rq->actor, NULL, on_list, rq, &rq->call, &err) <
	    0)
		api_send_err(rq, &err);
}

void native_channel_get(struct api_request *rq)
{
	struct av_err err;

	if (control_channel_list(rq->api->control, &rq->actor, api_param(rq, "channel"), on_one, rq,
	        &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_channel_update(struct api_request *rq)
{
	struct channel_params p;
	struct av_err err;
	bool enabled = true;

	if (parse_params(rq, &p, &enabled, &err) < 0 || need(p.name, "name", &err) < 0 ||
	    need(p.events, "events", &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	p.config = NULL;
	if (control_channel_update(rq->api->control, &rq->actor, api_param(rq, "channel"), &p,
	        on_one, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_channel_configure(struct api_request *rq)
{
	struct channel_params p, config = {0};
	struct av_err err;
	bool enabled = true;

	if (parse_params(rq, &p, &enabled, &err) < 0 || need(p.config, "config", &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	config.config = p.config;
	if (control_channel_update(rq->api->control, &rq->actor, api_param(rq, "channel"), &config,
	        on_one, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_channel_delete(struct api_request *rq)
{
	struct av_err err;

	if (control_channel_delete(rq->api->control, &rq->actor, api_param(rq, "channel"),
	        api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

static void on_tested(void *ctx, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(64);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)av_buf_append_c(&out, "{\"status\":\"ok\"}");
	api_send_json(rq, 200, &out);
}

void native_channel_test(struct api_request *rq)
{
	struct channel_params p;
	struct av_err err;
	bool enabled = true;

	if (parse_params(rq, &p, &enabled, &err) < 0 ||
	    control_channel_test(rq->api->control, &rq->actor, &p, on_tested, rq, &rq->call, &err) <
	        0)
		api_send_err(rq, &err);
}

/* ---- deliveries ---- */

static int query_number(
    struct api_request *rq, const char *name, uint64_t max, uint64_t *ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(64);
	int r = api_query(rq, name, &text, err);

	if (r == -ENOENT)
		return 0;
	if (r == 0 && av_parse_u64(av_buf_str(&text), 1, max, ret) < 0)
		r = av_err_set(err, AV_ERR_INVALID,
		    "query parameter '%s' must be a number from 1 to %" PRIu64, name, max);
	return r;
}

static void on_deliveries(
    void *ctx, const struct control_delivery *v, size_t n, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(LIST_JSON_MAX);
	struct api_request *rq = ctx;
	uint64_t limit = LIMIT_DEFAULT;
	bool more;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)query_number(rq, "limit", LIMIT_MAX, &limit, NULL);
	more = n > limit;
	n = more ? (size_t)limit : n;
	(void)av_buf_append_c(&out, "{\"deliveries\":[");
	for (size_t i = 0; i < n; i++) {
		if (i)
			(void)av_buf_append_char(&out, ',');
		write_delivery(&out, &v[i]);
	}
	if (more)
		(void)av_buf_printf(&out, "],\"next_cursor\":\"%" PRId64 "\"}", v[n - 1].seq);
	else
		(void)av_buf_append_c(&out, "],\"next_cursor\":null}");
	api_send_json(rq, 200, &out);
}

void native_channel_deliveries(struct api_request *rq)
{
	uint64_t limit = LIMIT_DEFAULT, before = 0;
	struct av_err err;

	if (query_number(rq, "limit", LIMIT_MAX, &limit, &err) < 0 ||
	    query_number(rq, "cursor", INT64_MAX, &before, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	/* One more tells whether there is another page. */
	if (control_channel_deliveries(rq->api->control, &rq->actor, api_param(rq, "channel"),
	        (int64_t)before, (size_t)limit + 1, on_deliveries, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_channel_redeliver(struct api_request *rq)
{
	struct av_err err;

	if (control_channel_redeliver(rq->api->control, &rq->actor, api_param(rq, "channel"),
	        api_param(rq, "delivery"), api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}
