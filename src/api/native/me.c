/* SPDX-License-Identifier: Apache-2.0 */
/*
 * me.c - one's own account: /v1/me
 */
#include "api/native/native.h"

#include "api/audit.h"
#include "api/native/people.h"
#include "api/request.h"
#include "base/banned.h"

void native_me(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(8192);
	struct control_user u;
	struct av_err err;

	if (!control_user_get(rq->api->control, rq->actor.user_id, &u)) {
		(void)av_err_set(&err, AV_ERR_UNAUTHORIZED, "this account does not exist any more");
		api_send_err(rq, &err);
		return;
	}
	(void)av_buf_append_c(&out, "{\"name\":");
	(void)av_json_write_str(&out, av_str_c(u.name));
	(void)av_buf_append_c(&out, ",\"email\":");
	(void)av_json_write_str(&out, av_str_c(u.email));
	(void)av_buf_printf(&out,
	    ",\"has_password\":%s,\"providers\":[%s],\"user_id\":\"%s\",\"team_id\":\"%s\","
	    "\"role\":\"%s\",\"is_admin\":%s}",
	    u.has_password ? "true" : "false", u.has_github ? "\"github\"" : "", u.id,
	    rq->actor.team_id, control_role_text(rq->actor.role), u.is_admin ? "true" : "false");
	api_send_json(rq, 200, &out);
}

/* {"name"} */
void native_me_rename(struct api_request *rq)
{
	const char *name = "";
	struct av_err err;

	api_audit_about(rq, rq->actor.user_id);
	if (av_json_get_str(rq->body, "name", &name, &err) < 0 ||
	    control_me_rename(rq->api->control, &rq->actor, av_str_c(name), native_on_login, rq,
	        &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* {"current_password","new_password","confirm_password"} */
static int parse_password(
    struct api_request *rq, struct av_str *current, struct av_str *fresh, struct av_err *err)
{
	struct av_str confirm = AV_STR("");

	if (native_get_secret(rq, "current_password", current, err) < 0 ||
	    native_get_secret(rq, "new_password", fresh, err) < 0 ||
	    native_get_secret(rq, "confirm_password", &confirm, err) < 0)
		return -1;
	if (!confirm.n || av_str_eq_secret(confirm, *fresh))
		return 0;
	return av_err_set(
	    err, AV_ERR_INVALID, "'confirm_password' is not the same as 'new_password'");
}

void native_me_password(struct api_request *rq)
{
	struct av_str current = AV_STR(""), fresh = AV_STR("");
	struct av_err err;

	api_audit_about(rq, rq->actor.user_id);
	if (parse_password(rq, &current, &fresh, &err) < 0 ||
	    control_me_password(rq->api->control, &rq->actor, current, fresh, api_client(rq),
	        api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
	native_wipe_secrets(rq);
}

/* {"email"} */
void native_reset(struct api_request *rq)
{
	const char *email = "";
	struct av_err err;

	if (av_json_get_str(rq->body, "email", &email, &err) < 0 ||
	    control_reset_request(rq->api->control, av_str_c(email), api_client(rq), &err) < 0)
		api_send_err(rq, &err);
	else
		api_send_empty(rq, 204);
}

/* {"token","new_password"} */
void native_reset_confirm(struct api_request *rq)
{
	struct av_str token = AV_STR(""), password = AV_STR("");
	struct av_err err;

	if (native_get_secret(rq, "token", &token, &err) < 0 ||
	    native_get_secret(rq, "new_password", &password, &err) < 0 ||
	    native_need("token", token, &err) < 0 ||
	    control_reset_confirm(rq->api->control, token, password, api_client(rq), api_on_done,
	        rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
	native_wipe_secrets(rq);
}

/* {"confirmation"} */
void native_me_delete(struct api_request *rq)
{
	const char *confirmation = "";
	struct av_err err;

	api_audit_about(rq, rq->actor.user_id);
	if (av_json_get_str(rq->body, "confirmation", &confirmation, &err) < 0 ||
	    control_me_delete(rq->api->control, &rq->actor, av_str_c(confirmation), api_on_done, rq,
	        &rq->call, &err) < 0)
		api_send_err(rq, &err);
}
