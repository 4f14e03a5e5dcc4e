/* SPDX-License-Identifier: Apache-2.0 */
/*
 * teams.c - teams, their members, and finding users
 *
 * The team in the path must be the one that the session or key is for: clients switch with
 * POST /v1/auth/switch-team. Another one is FORBIDDEN, whether it exists or not.
 */
#include "control/teams.h"

#include <errno.h>
#include <string.h>

#include "api/audit.h"
#include "api/native/native.h"
#include "api/native/quotas.h"
#include "api/request.h"
#include "base/banned.h"

#define TEAM_JSON_MAX ((size_t)4 << 10)
#define LIST_JSON_MAX ((size_t)4 << 20)

static int check_team(const struct api_request *rq, struct av_err *err)
{
	const char *id = api_param(rq, "team");

	if (!av_id_valid(av_str_c(id), AV_ID_TEAM))
		return av_err_set(err, AV_ERR_INVALID,
		    "'%.64s' is not the id of a team; ids are '" AV_ID_TEAM
		    "' and 25 characters of 0-9 and a-z",
		    id);
	if (strcmp(id, rq->actor.team_id) != 0)
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "this session or key is for team %s; switch teams with POST "
		    "/v1/auth/switch-team",
		    rq->actor.team_id);
	return 0;
}

/* ---- out ---- */

static void write_text(struct av_buf *out, const char *name, const char *text)
{
	(void)av_buf_printf(out, "\"%s\":", name);
	(void)av_json_write_str(out, av_str_c(text));
}

static void write_team(struct av_buf *out, const struct control_team *t, const char *role)
{
	(void)av_buf_printf(out, "{\"id\":\"%s\",", t->id);
	write_text(out, "name", t->name);
	(void)av_buf_append_char(out, ',');
	write_text(out, "slug", t->slug);
	(void)av_buf_printf(out, ",\"is_byoc\":%s", t->is_byoc ? "true" : "false");
	native_write_ms(out, "created_at", t->created_ms);
	if (role)
		(void)av_buf_printf(out, ",\"role\":\"%s\"", role);
	(void)av_buf_append_c(out, ",\"quota\":");
	(void)native_write_quota(out, &t->quota);
	(void)av_buf_append_char(out, '}');
}

static void write_member(struct av_buf *out, const struct control_member *m)
{
	(void)av_buf_printf(out, "{\"user_id\":\"%s\",", m->user.id);
	write_text(out, "name", m->user.name);
	(void)av_buf_append_char(out, ',');
	write_text(out, "email", m->user.email);
	(void)av_buf_printf(out, ",\"role\":\"%s\"", m->role);
	native_write_ms(out, "joined_at", m->joined_ms);
	(void)av_buf_append_char(out, '}');
}

struct listing {
	struct av_buf out;
	size_t n;
};

static void separate(struct listing *l)
{
	if (l->n++)
		(void)av_buf_append_char(&l->out, ',');
}

static bool on_team(void *ctx, const struct control_member *m)
{
	struct listing *l = ctx;

	separate(l);
	write_team(&l->out, &m->team, m->role);
	return true;
}

static bool on_member(void *ctx, const struct control_member *m)
{
	struct listing *l = ctx;

	separate(l);
	write_member(&l->out, m);
	return true;
}

static void send_listing(struct api_request *rq, struct listing *l)
{
	api_send_json(rq, 200, &l->out);
	av_buf_clear(&l->out);
}

/* ---- teams ---- */

void native_team_list(struct api_request *rq)
{
	struct listing l = {.out = AV_BUF_INIT(LIST_JSON_MAX)};

	(void)av_buf_append_char(&l.out, '[');
	control_members_of_user(rq->api->control, rq->actor.user_id, on_team, &l);
	(void)av_buf_append_char(&l.out, ']');
	send_listing(rq, &l);
}

static void on_created(void *ctx, const struct control_member *m, const struct av_err *err)
{
	struct av_buf out = AV_BUF_INIT(TEAM_JSON_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	api_audit_about(rq, m->team.id);
	write_team(&out, &m->team, m->role);
	api_send_json(rq, 201, &out);
	av_buf_clear(&out);
}

/* A member of the body that must be there. */
static int need_text(
    const struct api_request *rq, const char *name, const char **ret, struct av_err *err)
{
	int r = av_json_get_str(rq->body, name, ret, err);

	if (r == 0 && !*ret)
		return av_err_set(err, AV_ERR_INVALID, "'%s' is missing", name);
	return r;
}

void native_team_create(struct api_request *rq)
{
	const char *name = NULL;
	struct av_err err;

	if (need_text(rq, "name", &name, &err) < 0 ||
	    control_team_create(
	        rq->api->control, &rq->actor, av_str_c(name), on_created, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_team_get(struct api_request *rq)
{
	struct listing l = {.out = AV_BUF_INIT(LIST_JSON_MAX)};
	struct control_member own;
	struct av_err err;

	if (check_team(rq, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	if (!control_member_get(rq->api->control, rq->actor.team_id, rq->actor.user_id, &own)) {
		(void)av_err_set(&err, AV_ERR_NOT_FOUND, "the team is gone");
		api_send_err(rq, &err);
		return;
	}
	(void)av_buf_append_c(&l.out, "{\"team\":");
	write_team(&l.out, &own.team, own.role);
	(void)av_buf_append_c(&l.out, ",\"members\":[");
	control_members_of_team(rq->api->control, rq->actor.team_id, on_member, &l);
	(void)av_buf_append_c(&l.out, "]}");
	send_listing(rq, &l);
}

void native_team_rename(struct api_request *rq)
{
	const char *name = NULL;
	struct av_err err;

	if (check_team(rq, &err) < 0 || need_text(rq, "name", &name, &err) < 0 ||
	    control_team_rename(
	        rq->api->control, &rq->actor, av_str_c(name), api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_team_delete(struct api_request *rq)
{
	struct av_err err;

	if (check_team(rq, &err) < 0 ||
	    control_team_delete(rq->api->control, &rq->actor, api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_team_leave(struct api_request *rq)
{
	struct av_err err;

	api_audit_about(rq, rq->actor.user_id);
	if (check_team(rq, &err) < 0 ||
	    control_team_leave(rq->api->control, &rq->actor, api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* ---- members ---- */

void native_member_list(struct api_request *rq)
{
	struct listing l = {.out = AV_BUF_INIT(LIST_JSON_MAX)};
	struct av_err err;

	if (check_team(rq, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	(void)av_buf_append_char(&l.out, '[');
	control_members_of_team(rq->api->control, rq->actor.team_id, on_member, &l);
	(void)av_buf_append_char(&l.out, ']');
	send_listing(rq, &l);
}

static void on_added(void *ctx, const struct control_member *m, const struct av_err *err)
{
	struct av_buf out = AV_BUF_INIT(TEAM_JSON_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	api_audit_about(rq, m->user.id);
	write_member(&out, m);
	api_send_json(rq, 201, &out);
	av_buf_clear(&out);
}

void native_member_add(struct api_request *rq)
{
	const char *email = NULL;
	struct av_err err;

	if (check_team(rq, &err) < 0 || need_text(rq, "email", &email, &err) < 0 ||
	    control_member_add(
	        rq->api->control, &rq->actor, av_str_c(email), on_added, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_member_role(struct api_request *rq)
{
	const char *role = NULL;
	struct av_err err;

	if (check_team(rq, &err) < 0 || need_text(rq, "role", &role, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	api_audit_note(rq, "role", role);
	if (control_member_set_role(rq->api->control, &rq->actor, api_param(rq, "user"),
	        control_role_parse(av_str_c(role)), api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_member_remove(struct api_request *rq)
{
	struct av_err err;

	if (check_team(rq, &err) < 0 ||
	    control_member_remove(rq->api->control, &rq->actor, api_param(rq, "user"), api_on_done,
	        rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* ---- users ---- */

static bool on_user(void *ctx, const struct control_user *u)
{
	struct listing *l = ctx;

	separate(l);
	(void)av_buf_printf(&l->out, "{\"user_id\":\"%s\",", u->id);
	write_text(&l->out, "email", u->email);
	(void)av_buf_append_char(&l->out, '}');
	return true;
}

void native_users_search(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(512);
	struct listing l = {.out = AV_BUF_INIT(LIST_JSON_MAX)};
	struct av_err err;
	int r = api_query(rq, "email", &text, &err);

	(void)av_buf_append_char(&l.out, '[');
	if ((r < 0 && r != -ENOENT) ||
	    control_users_search(rq->api->control, av_buf_str(&text), on_user, &l, &err) < 0) {
		av_buf_clear(&l.out);
		api_send_err(rq, &err);
		return;
	}
	(void)av_buf_append_char(&l.out, ']');
	send_listing(rq, &l);
}
