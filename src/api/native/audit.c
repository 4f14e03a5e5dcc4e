/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit.c - GET /v1/audit-logs, its export as JSON lines, and both over all teams
 *
 * Theory of operation of the export. Pages of the log are read one after the other, oldest first,
 * up to the moment of the request; each is written, and the next one is asked for when the client
 * has taken enough of it. So an export needs the memory of one page however long it is, and a
 * client that reads slowly costs nothing but its connection.
 */
#include "api/native/native.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/audit.h"
#include "base/avtime.h"
#include "base/num.h"
#include "base/banned.h"

#define LIST_JSON_MAX ((size_t)2 << 20)
#define QUERY_MAX     512
#define LIMIT_DEFAULT 50
#define WAITING_MAX   (256 * 1024)
#define EXPORTS_MAX   16
#define EXPORTS_TEAM  4

/* ---- what is asked for ---- */

enum { Q_TYPE, Q_ACTION, Q_RESOURCE, Q_ACTOR, Q_STATUS, Q_TEAM, Q_FROM, Q_COUNT };
static const char *const names[Q_FROM] = {
    "resource_type", "action", "resource_id", "actor", "status", "team_id"};

/* The filter and what it points to. */
struct query {
	struct control_audit_filter filter;
	struct av_buf text[Q_COUNT];
};

static void query_clear(struct query *q)
{
	for (size_t i = 0; i < Q_COUNT; i++)
		av_buf_clear(&q->text[i]);
}

/* A moment; *ret stays as it is when the parameter is absent. */
static int take_time(
    const struct api_request *rq, const char *name, int64_t *ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(64);
	int r = api_query(rq, name, &text, err);

	if (r == -ENOENT)
		return 0;
	if (r == 0 && av_rfc3339_parse(av_buf_str(&text), ret) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter '%s' must be a time with its zone, such as "
		    "2026-08-21T20:00:22Z (a '+' in it written as %%2B)",
		    name);
	return r;
}

static int take_limit(const struct api_request *rq, size_t *ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(32);
	int r = api_query(rq, "limit", &text, err);
	uint64_t n = LIMIT_DEFAULT;

	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && av_parse_u64(av_buf_str(&text), 1, AUDIT_PAGE_MAX, &n) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'limit' must be a number from 1 to %d", AUDIT_PAGE_MAX);
	*ret = (size_t)n;
	return 0;
}

static int take_query(const struct api_request *rq, struct query *q, struct av_err *err)
{
	struct control_audit_filter *f = &q->filter;
	const char *from = f->oldest_first ? "after_id" : "before_id";
	struct av_str *const texts[Q_COUNT] = {&f->types, &f->action, &f->resource_id, &f->actor,
	    &f->status, &f->team_id, &f->after_id};
	int r = 0;

	for (size_t i = 0; i < Q_COUNT; i++) {
		av_buf_init(&q->text[i], QUERY_MAX);
		if (i == Q_TEAM && !f->all_teams)
			continue;
		r = api_query(rq, i == Q_FROM ? from : names[i], &q->text[i], err);
		if (r < 0 && r != -ENOENT)
			return r;
		*texts[i] = av_buf_str(&q->text[i]);
	}
	if (take_time(rq, "since", &f->since_ms, err) < 0 ||
	    take_time(rq, "until", &f->until_ms, err) < 0 ||
	    take_time(rq, "before", &f->before_ms, err) < 0)
		return -EINVAL;
	/* A record's own time comes with its id, which is finer. */
	if (f->after_id.n)
		f->before_ms = 0;
	return 0;
}

/* ---- as text ---- */

static void member(struct av_buf *out, const char *name, const char *value)
{
	if (!value[0])
		return;
	(void)av_buf_printf(out, ",\"%s\":", name);
	(void)av_json_write_str(out, av_str_c(value));
}

static void write_record(struct av_buf *out, const struct control_audit_record *a)
{
	char at[32];

	av_rfc3339_ms(a->at_ms, at);
	(void)av_buf_printf(out, "{\"id\":\"%s\",\"created_at\":\"%s\"", a->id, at);
	member(out, "team_id", a->team_id);
	member(out, "actor_type", a->actor_type);
	member(out, "actor_id", a->actor_id);
	member(out, "actor_name", a->actor_name);
	member(out, "user_id", a->user_id);
	member(out, "user_name", a->user_name);
	member(out, "resource_type", a->resource_type);
	member(out, "resource_id", a->resource_id);
	member(out, "action", a->action);
	member(out, "scope", a->scope);
	member(out, "status", a->status);
	if (a->http_status)
		(void)av_buf_printf(out, ",\"http_status\":%d", a->http_status);
	member(out, "code", a->code);
	member(out, "peer", a->peer);
	member(out, "request_id", a->request_id);
	if (a->metadata[0])
		(void)av_buf_printf(out, ",\"metadata\":%s", a->metadata);
	(void)av_buf_append_char(out, '}');
}

/* ---- a page ---- */

static void on_page(void *ctx, const struct control_audit_record *v, size_t n, const char *next,
    const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(LIST_JSON_MAX);
	struct api_request *rq = ctx;
	int64_t next_ms = 0;
	char at[32];

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)av_buf_append_c(&out, "{\"items\":[");
	for (size_t i = 0; i < n; i++) {
		if (i)
			(void)av_buf_append_char(&out, ',');
		write_record(&out, &v[i]);
	}
	(void)av_buf_append_char(&out, ']');
	if (next && control_audit_id_ms(av_str_c(next), &next_ms) == 0) {
		av_rfc3339_ms(next_ms, at);
		(void)av_buf_printf(
		    &out, ",\"next_before\":\"%s\",\"next_before_id\":\"%s\"", at, next);
	}
	(void)av_buf_append_char(&out, '}');
	api_send_json(rq, 200, &out);
}

static void list(struct api_request *rq, bool all_teams)
{
	struct query q = {.filter = {.all_teams = all_teams}};
	struct av_err err;

	if (take_query(rq, &q, &err) < 0 || take_limit(rq, &q.filter.limit, &err) < 0 ||
	    control_audit_read(
	        rq->api->control, &rq->actor, &q.filter, on_page, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
	query_clear(&q);
}

void native_audit_list(struct api_request *rq)
{
	list(rq, false);
}

void native_admin_audit_list(struct api_request *rq)
{
	list(rq, true);
}

/* ---- export ---- */

/* rq->state */
struct exporter {
	struct av_list link; /* api->audit_exports */
	char team_id[AV_ID_SIZE];
	struct query query;
	char after_id[AV_ID_SIZE];
	bool more; /* a page is to be asked for on the next drain */
};

static void exporter_gone(struct api_request *rq, int status)
{
	struct exporter *e = rq->state;

	(void)status;
	av_list_remove(&e->link);
	query_clear(&e->query);
	free(e);
}

/* What was sent cannot be taken back: the client sees that the end is missing. */
static void give_up(struct api_request *rq, const struct av_err *err)
{
	if (!av_res_started(rq->req)) {
		api_send_err(rq, err);
		return;
	}
	rq->failed = err->kind;
	av_res_abort(rq->req);
}

static void on_lines(void *ctx, const struct control_audit_record *v, size_t n, const char *next,
    const struct av_err *err);

static void ask(struct api_request *rq)
{
	struct exporter *e = rq->state;
	struct av_err err;

	e->more = false;
	if (control_audit_read(
	        rq->api->control, &rq->actor, &e->query.filter, on_lines, rq, &rq->call, &err) < 0)
		give_up(rq, &err);
}

static void exporter_drain(struct api_request *rq)
{
	struct exporter *e = rq->state;

	if (e->more)
		ask(rq);
}

static void start(struct api_request *rq)
{
	const struct av_http_header headers[] = {
	    {.name = AV_STR("content-type"), .value = AV_STR("application/x-ndjson")},
	    {.name = AV_STR("cache-control"), .value = AV_STR("no-store")},
	};

	rq->lasting = true;
	av_res_set_watermark(rq->req, WAITING_MAX);
	api_started(rq, 200);
	(void)av_res_start(rq->req, 200, headers, AV_ARRAY_LEN(headers), -1);
}

static void on_lines(void *ctx, const struct control_audit_record *v, size_t n, const char *next,
    const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(LIST_JSON_MAX);
	struct api_request *rq = ctx;
	struct exporter *e = rq->state;
	struct av_err own;
	int r;

	rq->call = NULL;
	for (size_t i = 0; !err && i < n; i++) {
		write_record(&out, &v[i]);
		(void)av_buf_append_char(&out, '\n');
	}
	if (!err && av_buf_error(&out) < 0) {
		(void)av_err_set(&own, AV_ERR_NO_MEMORY, "no memory for the answer");
		err = &own;
	}
	if (err) {
		give_up(rq, err);
		return;
	}
	if (!av_res_started(rq->req))
		start(rq);
	r = out.n ? av_res_write(rq->req, av_buf_str(&out)) : 0;
	if (r < 0) {
		av_res_abort(rq->req);
		return;
	}
	if (!next) {
		(void)av_res_end(rq->req);
		return;
	}
	(void)snprintf(e->after_id, sizeof(e->after_id), "%s", next);
	e->query.filter.after_id = av_str_c(e->after_id);
	e->query.filter.goes_on = true;
	e->more = r > 0;
	if (!e->more)
		ask(rq);
}

static int check_exports(const struct api_request *rq, struct av_err *err)
{
	const struct exporter *e;
	size_t n = 0, of_team = 0;

	AV_LIST_FOREACH(e, &rq->api->audit_exports, const struct exporter, link)
	{
		n++;
		of_team += strcmp(e->team_id, rq->actor.team_id) == 0;
	}
	if (n < EXPORTS_MAX && of_team < EXPORTS_TEAM)
		return 0;
	return av_err_set(err, AV_ERR_RATE_LIMITED,
	    "%zu exports of your team and %zu of all are under way; %d and %d may at once: try "
	    "again when one is over",
	    of_team, n, EXPORTS_TEAM, EXPORTS_MAX);
}

static void export(struct api_request *rq, bool all_teams)
{
	struct exporter *e = calloc(1, sizeof(*e));
	struct av_err err;

	if (!e) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return;
	}
	av_list_init(&e->link);
	(void)snprintf(e->team_id, sizeof(e->team_id), "%s", rq->actor.team_id);
	rq->state = e;
	rq->on_gone = exporter_gone;
	rq->on_drain = exporter_drain;
	e->query.filter = (struct control_audit_filter){
	    .all_teams = all_teams, .oldest_first = true, .limit = AUDIT_PAGE_MAX};
	if (take_query(rq, &e->query, &err) < 0 || check_exports(rq, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	av_list_append(&rq->api->audit_exports, &e->link);
	/* Otherwise it would follow its own tail. */
	if (!e->query.filter.until_ms)
		e->query.filter.until_ms = av_real_ms();
	ask(rq);
}

void native_audit_export(struct api_request *rq)
{
	export(rq, false);
}

void native_admin_audit_export(struct api_request *rq)
{
	export(rq, true);
}
