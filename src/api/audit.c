/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit.c - what a request did, for the audit log (see audit.h)
 */
#include "api/audit.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/auth.h"
#include "base/banned.h"

#define NOTE_MAX 160 /* bytes of a value */

struct api_audit {
	char about[136];
	char team_id[AV_ID_SIZE], user_id[AV_ID_SIZE], host_id[AV_ID_SIZE];
	struct av_buf notes; /* {"a":"b" */
};

static struct api_audit *extra(struct api_request *rq)
{
	if (!rq->audit) {
		rq->audit = calloc(1, sizeof(*rq->audit));
		if (rq->audit)
			av_buf_init(&rq->audit->notes, AUDIT_METADATA_MAX - 2);
	}
	return rq->audit;
}

void api_audit_free(struct api_audit *a)
{
	if (!a)
		return;
	av_buf_clear(&a->notes);
	free(a);
}

void api_audit_about(struct api_request *rq, const char *resource_id)
{
	if (extra(rq))
		(void)snprintf(rq->audit->about, sizeof(rq->audit->about), "%s", resource_id);
}

void api_audit_team(struct api_request *rq, const char *team_id)
{
	if (extra(rq))
		(void)snprintf(rq->audit->team_id, sizeof(rq->audit->team_id), "%s", team_id);
}

void api_audit_user(struct api_request *rq, const char *user_id)
{
	if (extra(rq))
		(void)snprintf(rq->audit->user_id, sizeof(rq->audit->user_id), "%s", user_id);
}

void api_audit_host(struct api_request *rq, const char *host_id)
{
	if (extra(rq))
		(void)snprintf(rq->audit->host_id, sizeof(rq->audit->host_id), "%s", host_id);
}

static struct av_str clip(struct av_str s)
{
	if (s.n > NOTE_MAX) {
		s.n = NOTE_MAX;
		s.n -= av_utf8_incomplete_tail(s);
	}
	return s;
}

void api_audit_note(struct api_request *rq, const char *name, const char *value)
{
	AV_CLEANUP(av_buf_clear) struct av_buf note = AV_BUF_INIT(AUDIT_METADATA_MAX - 2);
	struct api_audit *a = extra(rq);

	if (!a)
		return;
	(void)av_buf_append_char(&note, a->notes.n ? ',' : '{');
	(void)av_json_write_str(&note, av_str_c(name));
	(void)av_buf_append_char(&note, ':');
	(void)av_json_write_str(&note, clip(av_str_c(value)));
	if (av_buf_error(&note) == 0 && note.n <= a->notes.max - a->notes.n)
		(void)av_buf_append_str(&a->notes, av_buf_str(&note));
}

/* ---- the end of a request ---- */

static const char *resource_of(const struct api_request *rq)
{
	unsigned int i = 0;

	if (rq->audit && rq->audit->about[0])
		return rq->audit->about;
	if (rq->match.n_params > 1 &&
	    av_str_starts(av_str_c(rq->match.route->audit), AV_STR("member.")))
		i = rq->match.n_params - 1;
	return rq->param[i];
}

/* Administrators act on other teams by their ids. */
static const char *team_of(const struct api_request *rq)
{
	if (rq->audit && rq->audit->team_id[0])
		return rq->audit->team_id;
	if (av_str_starts(av_str_c(rq->match.route->pattern), AV_STR("/v1/admin/teams/{")) &&
	    rq->param[0] && av_id_valid(av_str_c(rq->param[0]), AV_ID_TEAM))
		return rq->param[0];
	return NULL;
}

/* A key or session is needed, and none that counts came. Where none came at all there is nobody to
 * write about. */
static bool lacks_key(const struct api_request *rq)
{
	enum api_auth auth = rq->match.route->auth;

	return !rq->actor.team_id[0] && !rq->host_id[0] &&
	       (rq->status == 401 || rq->status == 403) &&
	       (auth == API_AUTH_KEY || auth == API_AUTH_USER || auth == API_AUTH_FIRST ||
	           auth == API_AUTH_HOST);
}

static bool has_credentials(const struct api_request *rq)
{
	struct av_str token;

	return api_has_credentials(rq) || av_req_header(rq->req, "x-host-token", &token);
}

static void note_route(struct av_buf *out, const struct api_route *route)
{
	(void)av_buf_printf(
	    out, "{\"route\":\"%s %s\"}", api_method_text(route->method), route->pattern);
}

void api_audit_end(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf refused = AV_BUF_INIT(AUDIT_METADATA_MAX);
	const struct api_route *route = rq->match.route;
	struct control_audit what = {.http_status = rq->status,
	    .err = rq->failed,
	    .peer = av_req_peer(rq->req),
	    .request_id = av_req_id(rq->req)};

	if (!route || route == &api_proxy_route)
		return;
	if (lacks_key(rq) && has_credentials(rq)) {
		what.action = "auth.refuse";
		note_route(&refused, route);
		what.metadata = av_buf_cstr(&refused);
	} else if (route->audit[0] && !lacks_key(rq)) {
		what.action = route->audit;
		what.resource_id = resource_of(rq);
		what.team_id = team_of(rq);
		what.actor = rq->actor.team_id[0] ? &rq->actor : NULL;
	} else {
		return;
	}
	if (rq->audit) {
		what.user_id = rq->audit->user_id[0] ? rq->audit->user_id : NULL;
		what.host_id = rq->audit->host_id[0] ? rq->audit->host_id : NULL;
		if (rq->audit->notes.n) {
			(void)av_buf_append_char(&rq->audit->notes, '}');
			what.metadata = av_buf_cstr(&rq->audit->notes);
		}
	}
	control_audit(rq->api->control, &what);
}

/* ---- conversations ---- */

void api_audit_origin(const struct api_request *rq, struct api_audit_origin *ret)
{
	(void)snprintf(ret->peer, sizeof(ret->peer), "%s", av_req_peer(rq->req));
	(void)snprintf(ret->request_id, sizeof(ret->request_id), "%s", av_req_id(rq->req));
}

void api_audit_socket(struct api *api, const struct api_route *route,
    const struct control_actor *actor, const char *resource_id, const struct api_audit_origin *from,
    const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf refused = AV_BUF_INIT(AUDIT_METADATA_MAX);
	struct control_audit what = {.action = route->audit,
	    .resource_id = resource_id,
	    .actor = actor,
	    .http_status = err ? av_err_http_status(err->kind) : 101,
	    .err = err ? err->kind : AV_ERR_NONE,
	    .peer = from->peer,
	    .request_id = from->request_id};

	if (!actor) {
		what.action = "auth.refuse";
		what.resource_id = NULL;
		note_route(&refused, route);
		what.metadata = av_buf_cstr(&refused);
	}
	if (what.action[0])
		control_audit(api->control, &what);
}
