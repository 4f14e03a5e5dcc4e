/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oauth.c - logging in with GitHub: /auth/oauth/…, and connecting an account to it
 *
 * Theory of operation. A browser is sent to GitHub with a random state, which also lies in a cookie
 * of ten minutes:
 * "<state>.<intent>.<expiry>.<mac>". When it comes back, the two must be the same and the mac must
 * hold, so that nobody is logged in to an account of somebody else's choosing (login CSRF). The mac
 * covers intent and, where an account is to be connected, that account. The verifier of RFC 7636 is
 * derived from the state under our key: nothing is stored for a browser that is away.
 *
 * Where a browser is sent afterwards comes from the configuration alone, never from a request. What
 * came out is told in cookies of a minute, for pages below /auth/ of this very host, or in ?error=.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "api/audit.h"
#include "api/native/people.h"
#include "api/public_url.h"
#include "api/request.h"
#include "base/avtime.h"
#include "base/codec.h"
#include "base/ids.h"
#include "control/accounts.h"
#include "control/sign.h"
#include "proto/proxy_head.h"
#include "base/banned.h"

#define STATE_BYTES   16
#define STATE_SIZE    (2 * STATE_BYTES + 1)
#define SUBJECT_SIZE  (STATE_SIZE + 96)
#define STATE_S       600
#define RESULT_S      60
#define URL_MAX       4096
#define COOKIE_MAX    8192
#define HEADERS_MAX   12
#define STATE_COOKIE  "oauth_state"
#define LINK_COOKIE   "oauth_link_user_id"
#define SIGN_OAUTH    "oauth"
#define SIGN_VERIFIER "pkce"

/* Headers that are being written; texts owned. */
struct reply {
	struct av_http_header h[HEADERS_MAX];
	struct av_buf text[HEADERS_MAX];
	size_t n;
	bool secure; /* cookies for HTTPS only */
};

static void reply_clear(struct reply *r)
{
	for (size_t i = 0; i < r->n; i++) {
		if (r->text[i].p)
			explicit_bzero(r->text[i].p, r->text[i].cap);
		av_buf_clear(&r->text[i]);
	}
}

static struct av_buf *reply_add(struct reply *r, struct av_str name)
{
	assert(r->n < HEADERS_MAX);
	r->h[r->n].name = name;
	r->text[r->n] = AV_BUF_INIT(COOKIE_MAX);
	return &r->text[r->n++];
}

/* max_age_s 0: it goes. */
static void set_cookie(
    struct reply *r, const char *name, const char *value, int max_age_s, bool script)
{
	struct av_buf *out = reply_add(r, AV_STR("set-cookie"));

	(void)av_buf_printf(out, "%s=", name);
	(void)av_percent_encode(out, av_str_c(value), false);
	(void)av_buf_printf(out, "; Path=/auth/; Max-Age=%d; SameSite=Lax%s%s", max_age_s,
	    script ? "" : "; HttpOnly", r->secure ? "; Secure" : "");
}

static void send_reply(struct api_request *rq, struct reply *r, int status, struct av_str body)
{
	struct av_err err;

	(void)av_buf_append_c(reply_add(r, AV_STR("cache-control")), "no-store");
	(void)av_buf_append_c(reply_add(r, AV_STR("referrer-policy")), "no-referrer");
	for (size_t i = 0; i < r->n; i++) {
		r->h[i].value = av_buf_str(&r->text[i]);
		if (av_buf_error(&r->text[i]) == 0)
			continue;
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the answer");
		api_send_err(rq, &err);
		return;
	}
	api_started(rq, status);
	(void)av_res_send(rq->req, status, r->h, r->n, body);
}

static bool check_provider(struct api_request *rq)
{
	struct av_err err;

	if (strcmp(api_param(rq, "provider"), "github") == 0 &&
	    control_github_enabled(rq->api->control))
		return true;
	(void)av_err_set(&err, AV_ERR_PROVIDER_NOT_FOUND,
	    "nobody logs in with '%.40s' here; 'github' can be configured with github-client-id",
	    api_param(rq, "provider"));
	api_send_err(rq, &err);
	return false;
}

/* ---- there ---- */

struct trip {
	char state[STATE_SIZE];
	const char *intent;  /* "login", "signup", "link" */
	const char *user_id; /* "link": the account; else "" */
};

/* With the account's epoch: a new password voids what a session of before began. */
static void write_subject(
    const struct api_request *rq, const struct trip *t, char ret[static SUBJECT_SIZE])
{
	struct control_user u = {0};

	(void)control_user_get(rq->api->control, t->user_id, &u);
	(void)snprintf(
	    ret, SUBJECT_SIZE, "%s %s %s %" PRId64, t->state, t->intent, t->user_id, u.epoch);
}

static void sign_trip(
    const struct api_request *rq, const struct trip *t, char ret[static CONTROL_TOKEN_SIZE])
{
	char subject[SUBJECT_SIZE];

	write_subject(rq, t, subject);
	control_sign(
	    rq->api->control, SIGN_OAUTH, av_str_c(subject), av_real_ms() / 1000 + STATE_S, ret);
}

/* 64 digits. */
static void make_verifier(
    const struct api_request *rq, const char *state, char ret[static CONTROL_TOKEN_SIZE])
{
	char token[CONTROL_TOKEN_SIZE];

	control_sign(rq->api->control, SIGN_VERIFIER, av_str_c(state), 0, token);
	(void)snprintf(ret, CONTROL_TOKEN_SIZE, "%s", strchr(token, '.') + 1);
}

static int redirect_uri(const struct api_request *rq, struct av_buf *out)
{
	public_url_api(out, rq);
	(void)av_buf_append_c(out, "/auth/oauth/github/callback");
	return av_buf_cstr(out) ? 0 : -ENOMEM;
}

/* Writes cookies into r and the URL at GitHub into *url. */
static int depart(struct api_request *rq, struct trip *t, struct reply *r, struct av_buf *url)
{
	AV_CLEANUP(av_buf_clear) struct av_buf back = AV_BUF_INIT(URL_MAX);
	char mac[CONTROL_TOKEN_SIZE], verifier[CONTROL_TOKEN_SIZE];
	char value[STATE_SIZE + 16 + CONTROL_TOKEN_SIZE];
	uint8_t random[STATE_BYTES];

	av_random(random, sizeof random);
	av_hex_encode(t->state, random, sizeof random);
	sign_trip(rq, t, mac);
	make_verifier(rq, t->state, verifier);
	if (redirect_uri(rq, &back) < 0)
		return -ENOMEM;
	r->secure = av_str_starts(av_buf_str(&back), AV_STR("https://"));
	(void)snprintf(value, sizeof value, "%s.%s.%s", t->state, t->intent, mac);
	set_cookie(r, STATE_COOKIE, value, STATE_S, false);
	set_cookie(r, LINK_COOKIE, t->user_id, t->user_id[0] ? STATE_S : 0, false);
	return control_github_authorize_url(
	    rq->api->control, t->state, verifier, av_buf_cstr(&back), url);
}

static void send_no_memory(struct api_request *rq)
{
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the answer");
	api_send_err(rq, &err);
}

void native_oauth_begin(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf intent = AV_BUF_INIT(16);
	AV_CLEANUP(av_buf_clear) struct av_buf url = AV_BUF_INIT(URL_MAX);
	AV_CLEANUP(reply_clear) struct reply r = {.n = 0};
	struct trip t = {.intent = "login", .user_id = ""};
	struct av_err err;
	int q;

	if (!check_provider(rq))
		return;
	q = api_query(rq, "intent", &intent, &err);
	if (q == 0 && av_str_eq_c(av_buf_str(&intent), "signup"))
		t.intent = "signup";
	else if (q != -ENOENT && !av_str_eq_c(av_buf_str(&intent), "login")) {
		(void)av_err_set(&err, AV_ERR_INVALID, "'intent' is login or signup");
		api_send_err(rq, &err);
		return;
	}
	if (depart(rq, &t, &r, &url) < 0) {
		send_no_memory(rq);
		return;
	}
	(void)av_buf_append_str(reply_add(&r, AV_STR("location")), av_buf_str(&url));
	send_reply(rq, &r, 302, AV_STR(""));
}

/* -> {"auth_url"} */
void native_oauth_connect(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf url = AV_BUF_INIT(URL_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(2 * URL_MAX);
	AV_CLEANUP(reply_clear) struct reply r = {.n = 0};
	struct trip t = {.intent = "link", .user_id = rq->actor.user_id};
	struct av_err err;

	if (!check_provider(rq))
		return;
	if (rq->actor.key_id[0]) {
		(void)av_err_set(
		    &err, AV_ERR_FORBIDDEN, "this is for people in a browser: log in, no API key");
		api_send_err(rq, &err);
		return;
	}
	if (depart(rq, &t, &r, &url) < 0) {
		send_no_memory(rq);
		return;
	}
	(void)av_buf_append_c(&body, "{\"auth_url\":");
	(void)av_json_write_str(&body, av_buf_str(&url));
	(void)av_buf_append_char(&body, '}');
	(void)av_buf_append_c(reply_add(&r, AV_STR("content-type")), "application/json");
	send_reply(rq, &r, 200, av_buf_str(&body));
}

void native_oauth_disconnect(struct api_request *rq)
{
	struct av_err err;

	api_audit_about(rq, rq->actor.user_id);
	if (!check_provider(rq))
		return;
	if (control_me_disconnect_github(
	        rq->api->control, &rq->actor, api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* ---- and back ---- */

/* To the page that tells people; error NULL: it went well. */
static void arrive(struct api_request *rq, struct reply *r, const char *error, bool linked)
{
	AV_CLEANUP(av_buf_clear) struct av_buf api = AV_BUF_INIT(URL_MAX);
	struct av_buf *to = reply_add(r, AV_STR("location"));

	public_url_api(&api, rq);
	r->secure = av_str_starts(av_buf_str(&api), AV_STR("https://"));
	(void)av_buf_printf(to, "%s/auth/github/callback%s%s%s",
	    control_link_base(rq->api->control), error ? "?error=" : "", error ? error : "",
	    linked ? "?connected=github" : "");
	set_cookie(r, STATE_COOKIE, "", 0, false);
	set_cookie(r, LINK_COOKIE, "", 0, false);
	send_reply(rq, r, 302, AV_STR(""));
}

static void arrive_failed(struct api_request *rq, const char *error)
{
	AV_CLEANUP(reply_clear) struct reply r = {.n = 0};

	rq->failed = AV_ERR_UNAUTHORIZED;
	arrive(rq, &r, error, false);
}

static const char *word_of(const struct av_err *err)
{
	switch (err->kind) {
	case AV_ERR_EMAIL_TAKEN:
		return "email_taken";
	case AV_ERR_NOT_FOUND:
	case AV_ERR_FORBIDDEN:
		return "no_account";
	case AV_ERR_ACCOUNT_DEACTIVATED:
		return "account_deactivated";
	case AV_ERR_UPSTREAM:
	case AV_ERR_REQUEST_TIMEOUT:
	case AV_ERR_TOO_LARGE:
	case AV_ERR_RATE_LIMITED:
		return "exchange_failed";
	case AV_ERR_UNAVAILABLE:
	case AV_ERR_NO_SPACE:
		return "db_error";
	default:
		return "internal_error";
	}
}

static void on_finished(void *ctx, const struct control_login *l, const struct av_err *err)
{
	AV_CLEANUP(reply_clear) struct reply r = {.n = 0};
	AV_CLEANUP(av_buf_clear) struct av_buf api = AV_BUF_INIT(URL_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_audit_note(rq, "error", err->message);
		arrive_failed(rq, word_of(err));
		return;
	}
	if (l) {
		native_audit_login(rq, l);
		public_url_api(&api, rq);
		r.secure = av_str_starts(av_buf_str(&api), AV_STR("https://"));
		set_cookie(&r, "wrenn_oauth_token", l->token, RESULT_S, true);
		set_cookie(&r, "wrenn_oauth_user_id", l->user_id, RESULT_S, true);
		set_cookie(&r, "wrenn_oauth_team_id", l->team_id, RESULT_S, true);
		set_cookie(&r, "wrenn_oauth_email", l->email, RESULT_S, true);
		set_cookie(&r, "wrenn_oauth_name", l->name, RESULT_S, true);
	}
	arrive(rq, &r, NULL, !l);
}

static bool is_intent(struct av_str word, const char **ret)
{
	static const char *const intents[] = {"login", "signup", "link"};

	for (size_t i = 0; i < AV_ARRAY_LEN(intents); i++) {
		if (!av_str_eq_c(word, intents[i]))
			continue;
		*ret = intents[i];
		return true;
	}
	return false;
}

/* Whether this browser left from here, and the state it brings is the one it left with. user_id:
 * room for the account to connect. */
static bool check_state(struct api_request *rq, struct trip *t, char user_id[static AV_ID_SIZE])
{
	AV_CLEANUP(av_buf_clear) struct av_buf state = AV_BUF_INIT(STATE_SIZE);
	const struct av_http_head *head = av_req_head(rq->req);
	struct av_str cookie, rest, nonce, intent;
	char subject[SUBJECT_SIZE];

	if (api_query(rq, "state", &state, NULL) < 0 ||
	    !av_proxy_cookie(head, STATE_COOKIE, 0, &cookie))
		return false;
	rest = cookie;
	if (!av_str_cut(&rest, '.', &nonce) || !av_str_cut(&rest, '.', &intent) ||
	    !av_str_eq_secret(nonce, av_buf_str(&state)) ||
	    av_str_copy(t->state, sizeof t->state, nonce) < 0 || !is_intent(intent, &t->intent))
		return false;
	user_id[0] = '\0';
	if (strcmp(t->intent, "link") == 0 && (!av_proxy_cookie(head, LINK_COOKIE, 0, &cookie) ||
	                                          av_str_copy(user_id, AV_ID_SIZE, cookie) < 0))
		return false;
	t->user_id = user_id;
	write_subject(rq, t, subject);
	return control_sign_check(rq->api->control, SIGN_OAUTH, av_str_c(subject), rest, NULL) == 0;
}

void native_oauth_callback(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf code = AV_BUF_INIT(1024);
	AV_CLEANUP(av_buf_clear) struct av_buf error = AV_BUF_INIT(256);
	AV_CLEANUP(av_buf_clear) struct av_buf back = AV_BUF_INIT(URL_MAX);
	char verifier[CONTROL_TOKEN_SIZE], user_id[AV_ID_SIZE];
	struct control_github_code g = {.verifier = verifier, .address = api_client(rq)};
	struct trip t;
	struct av_err err;

	if (!check_provider(rq))
		return;
	if (!check_state(rq, &t, user_id)) {
		arrive_failed(rq, "invalid_state");
		return;
	}
	if (api_query(rq, "error", &error, NULL) != -ENOENT) {
		arrive_failed(rq, "access_denied");
		return;
	}
	if (api_query(rq, "code", &code, NULL) < 0 || code.n == 0) {
		arrive_failed(rq, "missing_code");
		return;
	}
	make_verifier(rq, t.state, verifier);
	if (redirect_uri(rq, &back) < 0) {
		arrive_failed(rq, "internal_error");
		return;
	}
	g.code = av_buf_str(&code);
	g.redirect_uri = av_buf_cstr(&back);
	g.may_sign_up = strcmp(t.intent, "signup") == 0;
	g.user_id = user_id[0] ? user_id : NULL;
	if (g.user_id) {
		api_audit_user(rq, g.user_id);
		api_audit_about(rq, g.user_id);
		api_audit_note(rq, "intent", t.intent);
	}
	if (control_github_finish(rq->api->control, &g, on_finished, rq, &rq->call, &err) < 0)
		arrive_failed(rq, word_of(&err));
}
