/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth.c - signing up, activating, logging in, and from team to team: /v1/auth/…
 */
#include "api/native/native.h"

#include "api/audit.h"
#include "api/native/people.h"
#include "api/request.h"
#include "control/login.h"
#include "base/banned.h"

void native_write_login(struct av_buf *out, const struct control_login *l)
{
	const struct {
		const char *name, *value;
	} members[] = {{"token", l->token}, {"user_id", l->user_id}, {"team_id", l->team_id},
	    {"email", l->email}, {"name", l->name}};

	for (size_t i = 0; i < AV_ARRAY_LEN(members); i++) {
		(void)av_buf_printf(out, "%s\"%s\":", i ? "," : "", members[i].name);
		(void)av_json_write_str(out, av_str_c(members[i].value));
	}
}

void native_audit_login(struct api_request *rq, const struct control_login *l)
{
	api_audit_user(rq, l->user_id);
	api_audit_team(rq, l->team_id);
	api_audit_about(rq, l->user_id);
}

void native_on_login(void *ctx, const struct control_login *l, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(NATIVE_LOGIN_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	native_audit_login(rq, l);
	(void)av_buf_append_char(&out, '{');
	native_write_login(&out, l);
	(void)av_buf_append_char(&out, '}');
	native_send_private(rq, 200, &out);
}

void native_send_private(struct api_request *rq, int status, struct av_buf *json)
{
	const struct av_http_header headers[] = {
	    {.name = AV_STR("content-type"), .value = AV_STR("application/json")},
	    {.name = AV_STR("cache-control"), .value = AV_STR("no-store")},
	};

	api_send_json_with(rq, status, headers, AV_ARRAY_LEN(headers), json);
	if (json->p)
		explicit_bzero(json->p + json->off, json->n);
}

int native_get_secret(
    struct api_request *rq, const char *field, struct av_str *ret, struct av_err *err)
{
	const char *text = NULL;
	int r = av_json_get_str(rq->body, field, &text, err);

	*ret = av_str_c(text);
	return r;
}

void native_wipe_secrets(struct api_request *rq)
{
	static const char *const fields[] = {
	    "password", "current_password", "new_password", "confirm_password", "token"};

	for (size_t i = 0; i < AV_ARRAY_LEN(fields); i++) {
		const json_t *v = json_object_get(rq->body, fields[i]);

		/* jansson's own copy, which nobody reads any more. */
		if (json_is_string(v))
			explicit_bzero(
			    (void *)(uintptr_t)json_string_value(v), json_string_length(v));
	}
}

int native_need(const char *field, struct av_str value, struct av_err *err)
{
	if (value.n)
		return 0;
	return av_err_set(err, AV_ERR_INVALID, "'%s' is needed", field);
}

/* ---- sign-up ---- */

static void on_signed_up(void *ctx, const struct control_login *l, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(NATIVE_LOGIN_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	native_audit_login(rq, l);
	(void)av_buf_append_c(&out, "{\"message\":");
	(void)av_json_write_str(&out,
	    strcmp(l->status, "active") == 0
	        ? AV_STR("Your account is active.")
	        : AV_STR("Your account is made. Follow the link that was sent to activate it."));
	(void)av_buf_append_char(&out, ',');
	native_write_login(&out, l);
	(void)av_buf_append_char(&out, '}');
	native_send_private(rq, 201, &out);
}

/* People type passwords into the wrong field. */
static void note_email(struct api_request *rq, const char *email)
{
	const char *at = email ? strchr(email, '@') : NULL;

	if (at && at != email && strchr(at, '.'))
		api_audit_note(rq, "email", email);
}

/* {"email","password","name"} */
void native_signup(struct api_request *rq)
{
	const char *email = NULL, *name = NULL;
	struct control_signup s = {.address = api_client(rq)};
	struct av_err err;

	if (av_json_get_str(rq->body, "email", &email, &err) < 0 ||
	    av_json_get_str(rq->body, "name", &name, &err) < 0 ||
	    native_get_secret(rq, "password", &s.password, &err) < 0)
		goto fail;
	s.email = av_str_c(email);
	s.name = av_str_c(name);
	note_email(rq, email);
	if (control_sign_up(rq->api->control, &s, on_signed_up, rq, &rq->call, &err) < 0)
		goto fail;
	native_wipe_secrets(rq);
	return;
fail:
	native_wipe_secrets(rq);
	api_send_err(rq, &err);
}

/* {"token"} */
void native_activate(struct api_request *rq)
{
	struct av_str token = AV_STR("");
	struct av_err err;

	if (native_get_secret(rq, "token", &token, &err) < 0 ||
	    native_need("token", token, &err) < 0 ||
	    control_activate(
	        rq->api->control, token, api_client(rq), native_on_login, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
	native_wipe_secrets(rq);
}

/* {"email","password"} */
void native_login(struct api_request *rq)
{
	struct av_str password = AV_STR("");
	const char *email = NULL;
	struct av_err err;

	if (av_json_get_str(rq->body, "email", &email, &err) == 0)
		note_email(rq, email);
	if (av_json_get_str(rq->body, "email", &email, &err) < 0 ||
	    native_get_secret(rq, "password", &password, &err) < 0 ||
	    native_need("password", password, &err) < 0 ||
	    control_log_in(rq->api->control, av_str_c(email), password, api_client(rq),
	        native_on_login, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
	native_wipe_secrets(rq);
}

/* {"team_id"} */
void native_switch_team(struct api_request *rq)
{
	const char *team = "";
	struct av_err err;

	if (av_json_get_str(rq->body, "team_id", &team, &err) < 0 ||
	    native_need("team_id", av_str_c(team), &err) < 0 ||
	    control_switch_team(
	        rq->api->control, &rq->actor, team, native_on_login, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}
