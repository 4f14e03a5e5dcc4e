/* SPDX-License-Identifier: Apache-2.0 */
/*
 * outbound.c - what control may send to other servers (see outbound.h)
 */
#include "daemon/outbound.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "daemon/secret_file.h"
#include "net/mail.h"

#include "base/banned.h"

#define RETRY_AFTER_MAX_S 86400
#define TELEGRAM_URL      "https://api.telegram.org" /* the default of options.def */

struct outbound {
	struct control_outbound table;
	struct av_fetch *fetch;
	struct av_reach reach;
	struct av_mail_server mail; /* of the configuration, but for the password */
	char password[SECRET_FILE_MAX + 2];
};

/* One request; the handle that control gets. */
struct control_outbound_call {
	struct av_fetch_call *fetch;
	control_http_fn *on_http;
	control_mail_fn *on_mail;
	void *ctx;
};

static void on_fetched(void *ctx, const struct av_fetch_response *res, const struct av_err *err)
{
	struct control_outbound_call *call = ctx;
	struct control_http_answer answer = {0};
	struct av_str text;
	uint64_t seconds;

	if (call->on_mail) {
		call->on_mail(call->ctx, err);
		free(call);
		return;
	}
	if (res) {
		answer = (struct control_http_answer){
		    .status = res->status, .elapsed_ms = res->elapsed_ms, .body = res->body};
		if (av_fetch_header(res, "retry-after", &text) &&
		    av_parse_u64(text, 0, RETRY_AFTER_MAX_S, &seconds) == 0)
			answer.retry_after_s = (uint32_t)seconds;
	}
	call->on_http(call->ctx, res ? &answer : NULL, err);
	free(call);
}

static int http(void *ctx, const struct control_http *rq, control_http_fn *fn, void *fn_ctx,
    struct control_outbound_call **ret, struct av_err *err)
{
	struct outbound *o = ctx;
	struct av_fetch_header headers[AV_FETCH_HEADERS_MAX];
	struct av_fetch_request request = {.method = rq->method,
	    .url = rq->url,
	    .headers = headers,
	    .n_headers = rq->n_headers,
	    .body = rq->body,
	    .reach = rq->guarded ? &o->reach : NULL,
	    .timeout_ms = rq->timeout_ms,
	    .response_max = rq->response_max,
	    .cut = rq->cut};
	struct control_outbound_call *call;
	int r;

	if (rq->n_headers > AV_ARRAY_LEN(headers))
		return av_err_set(
		    err, AV_ERR_INVALID, "more than %d headers", AV_FETCH_HEADERS_MAX);
	for (size_t i = 0; i < rq->n_headers; i++)
		headers[i] = (struct av_fetch_header){rq->headers[i].name, rq->headers[i].value};
	call = calloc(1, sizeof(*call));
	if (!call)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	*call = (struct control_outbound_call){.on_http = fn, .ctx = fn_ctx};
	r = av_fetch_start(o->fetch, &request, on_fetched, call, &call->fetch, err);
	if (r < 0)
		free(call);
	else if (ret)
		*ret = call;
	return r;
}

static void cancel(struct control_outbound_call *call)
{
	av_fetch_cancel(call->fetch);
	free(call);
}

static int check_url(void *ctx, const char *url, bool https_only, struct av_err *err)
{
	struct outbound *o = ctx;

	return av_fetch_check_url(url, https_only, &o->reach, err);
}

static int mail(void *ctx, const char *to, const char *subject, struct av_str text,
    control_mail_fn *fn, void *fn_ctx, struct av_err *err)
{
	const struct av_mail m = {.to = to, .subject = subject, .text = text};
	struct outbound *o = ctx;
	struct control_outbound_call *call = calloc(1, sizeof(*call));
	int r;

	if (!call)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	*call = (struct control_outbound_call){.on_mail = fn, .ctx = fn_ctx};
	r = av_mail_send(o->fetch, &o->mail, &m, on_fetched, call, &call->fetch, err);
	if (r < 0)
		free(call);
	return r;
}

/* ---- configuration ---- */

static int read_mail(struct outbound *o, const struct daemon_config *c, struct av_err *err)
{
	const char *file = daemon_config_get(c, DAEMON_OPT_SMTP_PASSWORD_FILE);
	int r;

	o->mail = (struct av_mail_server){.url = daemon_config_get(c, DAEMON_OPT_SMTP_URL),
	    .user = daemon_config_get(c, DAEMON_OPT_SMTP_USER),
	    .from = daemon_config_get(c, DAEMON_OPT_MAIL_FROM)};
	if (!o->mail.url) {
		if (o->mail.user || o->mail.from || file)
			return av_err_set(err, AV_ERR_INVALID,
			    "--smtp-url is missing, and without it --smtp-user, "
			    "--smtp-password-file "
			    "and --mail-from do nothing");
		return 0;
	}
	if (!o->mail.from)
		return av_err_set(err, AV_ERR_INVALID,
		    "--mail-from is missing: who mail comes from, as aviary@example.com");
	if (!o->mail.user != !file)
		return av_err_set(err, AV_ERR_INVALID,
		    "--smtp-user and --smtp-password-file must be given together, or neither");
	r = av_mail_check(&o->mail, err);
	if (r < 0) {
		av_err_prefix(err, "--smtp-url, --mail-from");
		return r;
	}
	o->table.can_mail = true;
	if (!file)
		return 0;
	o->mail.password = o->password;
	return secret_file_read(DAEMON_OPT_SMTP_PASSWORD_FILE, file, o->password, err);
}

static int read_options(struct outbound *o, const struct daemon_config *c, struct av_err *err)
{
	const char *telegram = daemon_config_get(c, DAEMON_OPT_TELEGRAM_URL);
	const char *reach = daemon_config_get(c, DAEMON_OPT_WEBHOOK_PRIVATE);
	int r = av_reach_parse(&o->reach, av_str_c(reach), err);

	if (r < 0) {
		av_err_prefix(err, "--webhook-private");
		return r;
	}
	/* Checking a URL opens libcurl: not for the one that is known to be good. */
	if (strcmp(telegram, TELEGRAM_URL) != 0)
		r = av_fetch_check_url(telegram, false, NULL, err);
	if (r == 0 && av_str_ends(av_str_c(telegram), AV_STR("/")))
		r = av_err_set(err, AV_ERR_INVALID, "the URL must not end with a slash");
	if (r < 0) {
		av_err_prefix(err, "--telegram-url");
		return r;
	}
	o->table.telegram_url = telegram;
	o->table.private_allowed = o->reach.private_too || o->reach.n > 0;
	return read_mail(o, c, err);
}

int outbound_new(struct av_loop *loop, const struct daemon_config *config, struct outbound **ret,
    struct av_err *err)
{
	struct outbound *o = calloc(1, sizeof(*o));
	int r;

	if (!o)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	r = read_options(o, config, err);
	if (r == 0 && av_fetch_new(loop, &o->fetch) < 0)
		r = av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (r < 0) {
		outbound_free(o);
		return r;
	}
	o->table.ctx = o;
	o->table.http = http;
	o->table.cancel = cancel;
	o->table.check_url = check_url;
	o->table.mail = mail;
	o->table.mail_address_valid = av_mail_address_valid;
	*ret = o;
	return 0;
}

void outbound_free(struct outbound *o)
{
	if (!o)
		return;
	av_fetch_free(o->fetch);
	explicit_bzero(o->password, sizeof(o->password));
	free(o);
}

const struct control_outbound *outbound_table(const struct outbound *o)
{
	return &o->table;
}

struct av_fetch *outbound_fetch(const struct outbound *o)
{
	return o->fetch;
}
