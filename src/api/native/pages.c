/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.c - /activate and /reset: where links lead when no other site is in front
 *
 * Two pages of plain HTML with one form each: no script, nothing from elsewhere, nothing kept. The
 * link itself changes nothing, as programs that look at mail follow links; the button does. Whoever
 * has the token may do what it is for, so that a form of another site could do no more than its
 * maker: no token against that is needed.
 */
#include "api/native/native.h"

#include <errno.h>
#include <stdio.h>

#include "api/audit.h"
#include "api/native/people.h"
#include "api/request.h"
#include "base/codec.h"
#include "base/banned.h"

#define PAGE_MAX  16384
#define FIELD_MAX 4096

static const char head[] =
    "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">"
    "<meta name=\"viewport\" content=\"width=device-width\"><title>Aviary</title>"
    "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:28rem;margin:4rem auto;padding:0 "
    "1rem}"
    "label,input,button{display:block;margin:.5rem 0;font:inherit}input{width:100%;padding:.4rem}"
    "button{padding:.4rem 1.2rem}</style></head><body><h1>Aviary</h1>";
/* Of the style above: printf '%s' "$style" | openssl dgst -sha256 -binary | base64 */
#define STYLE_HASH "sha256-YwwcbLx2uTk2NcuUtXEZfEeajJHCmUiEhmx8kCZdk08="

static void append_html(struct av_buf *out, struct av_str text)
{
	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i];

		if (c == '<' || c == '>' || c == '&' || c == '"' || c == '\'')
			(void)av_buf_printf(out, "&#%d;", c);
		else
			(void)av_buf_append_char(out, c);
	}
}

static void send_page(struct api_request *rq, int status, struct av_buf *body, int retry_after_s)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(PAGE_MAX);
	char seconds[16];
	int n = snprintf(seconds, sizeof seconds, "%d", retry_after_s);
	const struct av_http_header headers[] = {
	    {AV_STR("content-type"), AV_STR("text/html; charset=utf-8")},
	    {AV_STR("content-security-policy"),
	        AV_STR("default-src 'none'; style-src '" STYLE_HASH "'; form-action 'self'; "
	               "base-uri 'none'; frame-ancestors 'none'")},
	    {AV_STR("x-content-type-options"), AV_STR("nosniff")},
	    {AV_STR("referrer-policy"), AV_STR("no-referrer")},
	    {AV_STR("cache-control"), AV_STR("no-store")},
	    {AV_STR("retry-after"), av_str_n(seconds, (size_t)n)},
	};

	(void)av_buf_append_c(&out, head);
	(void)av_buf_append_str(&out, av_buf_str(body));
	(void)av_buf_append_c(&out, "</body></html>\n");
	api_started(rq, status);
	(void)av_res_send(rq->req, status, headers,
	    AV_ARRAY_LEN(headers) - (retry_after_s > 0 ? 0 : 1), av_buf_str(&out));
}

static void send_text(struct api_request *rq, int status, struct av_str text)
{
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(PAGE_MAX);

	(void)av_buf_append_c(&body, "<p>");
	append_html(&body, text);
	(void)av_buf_append_c(&body, "</p>");
	send_page(rq, status, &body, 0);
}

static void send_failure(struct api_request *rq, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(PAGE_MAX);

	rq->failed = err->kind;
	(void)av_buf_append_c(&body, "<p role=\"alert\">");
	append_html(&body, av_str_c(err->message));
	(void)av_buf_append_c(&body, "</p>");
	send_page(rq, av_err_http_status(err->kind), &body, err->retry_after_s);
}

/* ---- what the link shows ---- */

static void send_form(struct api_request *rq, const char *path, const char *fields)
{
	AV_CLEANUP(av_buf_clear) struct av_buf token = AV_BUF_INIT(FIELD_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(PAGE_MAX);
	struct av_err err;

	if (api_query(rq, "token", &token, &err) < 0 || !token.n) {
		(void)av_err_set(&err, AV_ERR_INVALID_TOKEN,
		    "this link is not whole; copy all of it from the mail");
		send_failure(rq, &err);
		return;
	}
	(void)av_buf_printf(&body,
	    "<form method=\"post\" action=\"%s\"><input type=\"hidden\" name=\"token\" value=\"",
	    path);
	append_html(&body, av_buf_str(&token));
	(void)av_buf_printf(&body, "\">%s</form>", fields);
	send_page(rq, 200, &body, 0);
}

void native_activate_page(struct api_request *rq)
{
	send_form(rq, "activate",
	    "<p>One more step: activate your account.</p><button>Activate</button>");
}

void native_reset_page(struct api_request *rq)
{
	send_form(rq, "reset",
	    "<label>New password, at least 8 characters<input type=\"password\" "
	    "name=\"new_password\" "
	    "autocomplete=\"new-password\" minlength=\"8\" maxlength=\"1024\" required></label>"
	    "<label>Once more<input type=\"password\" name=\"confirm_password\" "
	    "autocomplete=\"new-password\" required></label><button>Set password</button>");
}

/* Where oauth.c sends a browser when no other site is in front: it says what came out. */
void native_oauth_landing(struct api_request *rq)
{
	static const struct {
		const char *word, *text;
	} errors[] = {
	    {"access_denied", "You did not allow it."},
	    {"email_taken", "There is an account with your address, or another one is connected. "
	                    "Log in with your password "
	                    "and connect it to GitHub."},
	    {"no_account",
	        "There is no account for you here. Sign up first, or ask an administrator."},
	    {"account_deactivated", "Your account was deactivated by an administrator."},
	    {"exchange_failed", "GitHub could not be asked who you are. Try again."},
	    {"invalid_state", "This login was begun elsewhere, or too long ago. Try again."},
	};
	AV_CLEANUP(av_buf_clear) struct av_buf error = AV_BUF_INIT(64);
	const char *text = "It did not work. Try again.";
	struct av_err err;

	if (api_query(rq, "error", &error, &err) == -ENOENT) {
		send_text(
		    rq, 200, AV_STR("GitHub has told us who you are. You can close this page."));
		return;
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(errors); i++)
		if (av_str_eq_c(av_buf_str(&error), errors[i].word))
			text = errors[i].text;
	send_text(rq, 200, av_str_c(text));
}

/* ---- what the forms send ---- */

static void get_field(struct av_str form, const char *name, struct av_buf *out)
{
	/* A form is written like a query string. What is wrong in it reads as absent. */
	if (av_http_query_get(form, name, out) < 0)
		av_buf_reset(out);
}

static void on_activated(void *ctx, const struct control_login *l, const struct av_err *err)
{
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		send_failure(rq, err);
		return;
	}
	native_audit_login(rq, l);
	send_text(rq, 200, AV_STR("Your account is active. You can log in now."));
}

static void on_activate_form(void *ctx, struct av_req *req, struct av_str body)
{
	AV_CLEANUP(av_buf_clear) struct av_buf token = AV_BUF_INIT(FIELD_MAX);
	struct api_request *rq = ctx;
	struct av_err err;

	(void)req;
	get_field(body, "token", &token);
	if (control_activate(rq->api->control, av_buf_str(&token), api_client(rq), on_activated, rq,
	        &rq->call, &err) < 0)
		send_failure(rq, &err);
}

static void on_reset(void *ctx, const struct av_err *err)
{
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err)
		send_failure(rq, err);
	else
		send_text(rq, 200, AV_STR("Your password is set. You can log in with it now."));
}

static void on_reset_form(void *ctx, struct av_req *req, struct av_str body)
{
	AV_CLEANUP(av_buf_clear) struct av_buf token = AV_BUF_INIT(FIELD_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf password = AV_BUF_INIT(FIELD_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf confirm = AV_BUF_INIT(FIELD_MAX);
	struct api_request *rq = ctx;
	struct av_err err;
	int r = 0;

	(void)req;
	get_field(body, "token", &token);
	get_field(body, "new_password", &password);
	get_field(body, "confirm_password", &confirm);
	if (!av_str_eq_secret(av_buf_str(&password), av_buf_str(&confirm)))
		r = av_err_set(&err, AV_ERR_INVALID,
		    "the two passwords are not the same; go back and type them once more");
	if (r < 0 || control_reset_confirm(rq->api->control, av_buf_str(&token),
	                 av_buf_str(&password), api_client(rq), on_reset, rq, &rq->call, &err) < 0)
		send_failure(rq, &err);
	if (password.n)
		explicit_bzero(password.p + password.off, password.n);
	if (confirm.n)
		explicit_bzero(confirm.p + confirm.off, confirm.n);
}

void native_activate_form(struct api_request *rq)
{
	av_req_body_collect(rq->req, (size_t)rq->match.route->limit, on_activate_form);
}

void native_reset_form(struct api_request *rq)
{
	av_req_body_collect(rq->req, (size_t)rq->match.route->limit, on_reset_form);
}
