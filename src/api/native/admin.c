/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.c - what administrators of this Aviary may: all teams and their quotas, templates for
 * everybody
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>

#include "api/native/quotas.h"
#include "api/native/shapes.h"
#include "api/request.h"
#include "base/num.h"
#include "control/teams.h"
#include "control/templates.h"
#include "base/banned.h"

#define LIST_JSON_MAX ((size_t)16 << 20)
#define PAGE_SIZE     100

/* ---- teams ---- */

struct page {
	struct av_buf out;
	size_t n;
};

static void write_text(struct av_buf *out, const char *name, const char *text)
{
	(void)av_buf_printf(out, ",\"%s\":", name);
	(void)av_json_write_str(out, av_str_c(text));
}

static bool on_team(void *ctx, const struct control_team_summary *t)
{
	struct page *p = ctx;

	(void)av_buf_printf(&p->out, "%s{\"id\":\"%s\"", p->n ? "," : "", t->team.id);
	write_text(&p->out, "name", t->team.name);
	write_text(&p->out, "slug", t->team.slug);
	(void)av_buf_printf(&p->out, ",\"is_byoc\":%s", t->team.is_byoc ? "true" : "false");
	native_write_ms(&p->out, "created_at", t->team.created_ms);
	write_text(&p->out, "owner_name", t->owner_name);
	write_text(&p->out, "owner_email", t->owner_email);
	(void)av_buf_printf(&p->out,
	    ",\"member_count\":%zu,\"active_sandbox_count\":%zu,\"quota\":", t->members,
	    t->sandboxes);
	(void)native_write_quota(&p->out, &t->team.quota);
	(void)av_buf_append_char(&p->out, '}');
	return ++p->n < PAGE_SIZE;
}

/* ?page=, from 1 on. */
static int parse_page(const struct api_request *rq, uint64_t *ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(32);
	int r = api_query(rq, "page", &text, err);

	*ret = 1;
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (av_parse_u64(av_buf_str(&text), 1, 1000000, ret) < 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "query parameter 'page' must be a number from 1 on");
	return 0;
}

void native_admin_teams(struct api_request *rq)
{
	struct page p = {.out = AV_BUF_INIT(LIST_JSON_MAX)};
	size_t total = control_team_count(rq->api->control);
	uint64_t page = 1;
	struct av_err err;

	if (parse_page(rq, &page, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	(void)av_buf_append_c(&p.out, "{\"teams\":[");
	control_admin_teams(rq->api->control, (size_t)(page - 1) * PAGE_SIZE, on_team, &p);
	(void)av_buf_printf(&p.out,
	    "],\"total\":%zu,\"page\":%" PRIu64 ",\"per_page\":%d,\"total_pages\":%zu}", total,
	    page, PAGE_SIZE, (total + PAGE_SIZE - 1) / PAGE_SIZE);
	api_send_json(rq, 200, &p.out);
	av_buf_clear(&p.out);
}

void native_admin_team_byoc(struct api_request *rq)
{
	bool enabled = false;
	struct av_err err;

	if (av_json_get_bool(rq->body, "enabled", &enabled, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	if (!enabled) {
		(void)av_err_set(&err, AV_ERR_INVALID,
		    "'enabled' must be true: hosts of its own are not taken from a team again");
		api_send_err(rq, &err);
		return;
	}
	if (control_admin_team_byoc(rq->api->control, &rq->actor, api_param(rq, "team"),
	        api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_admin_team_quota(struct api_request *rq)
{
	struct control_quota_update quota;
	struct av_err err;

	if (native_parse_quota(rq->body, &quota, &err) < 0 ||
	    control_admin_team_quota(rq->api->control, &rq->actor, api_param(rq, "team"), &quota,
	        api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_admin_team_delete(struct api_request *rq)
{
	struct av_err err;

	if (control_admin_team_delete(rq->api->control, &rq->actor, api_param(rq, "team"),
	        api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* ---- templates ---- */

static void on_template(void *ctx, const struct template_info *t, const struct av_err *err)
{
	struct page *p = ctx;

	(void)err;
	if (!t->platform)
		return;
	if (p->n++)
		(void)av_buf_append_char(&p->out, ',');
	(void)native_write_template(&p->out, t);
}

void native_admin_templates(struct api_request *rq)
{
	struct page p = {.out = AV_BUF_INIT(LIST_JSON_MAX)};

	(void)av_buf_append_char(&p.out, '[');
	control_template_each(rq->api->control, &rq->actor, NULL, on_template, &p);
	(void)av_buf_append_char(&p.out, ']');
	api_send_json(rq, 200, &p.out);
	av_buf_clear(&p.out);
}

void native_admin_template_delete(struct api_request *rq)
{
	struct av_err err;

	if (control_admin_template_delete(rq->api->control, &rq->actor, api_param(rq, "name"),
	        api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* ---- not here ---- */

void native_admin_sandboxes(struct api_request *rq)
{
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_UNSUPPORTED,
	    "there are no sandboxes of the platform here: make one in a team of your own with POST "
	    "/v1/sandboxes, and a template for every team of it with POST /v1/snapshots and "
	    "\"platform\":true");
	api_send_err(rq, &err);
}
