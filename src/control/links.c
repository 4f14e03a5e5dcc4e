/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links.c - links that activate an account or set its password (see login.h)
 *
 * A token is "<user id>.<expiry>.<mac>". The mac covers the epoch, so a new password voids all
 * that were made before it; a link for activation is void for whoever is active.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/avtime.h"
#include "base/log.h"
#include "control/login_internal.h"
#include "control/outbound.h"
#include "control/sign.h"

#include "base/banned.h"

#define URL_MAX 512

static const struct {
	const char *purpose, *path, *subject, *what;
} kinds[] = {
    [CONTROL_LINK_ACTIVATE] = {"activate", "/activate", "Activate your account",
        "Somebody, most likely you, made an account with this address.\n"
        "Follow this link to activate it:"},
    [CONTROL_LINK_RESET] = {"reset", "/reset", "Set a new password",
        "Somebody, most likely you, asked for a new password for your account.\n"
        "Follow this link to set one:"},
};

static void subject_of(const struct user *u, char ret[static 64])
{
	(void)snprintf(ret, 64, "%s %" PRId64, u->rec.id, u->rec.epoch);
}

void link_token(const struct control *c, const struct user *u, enum control_link_kind kind,
    int64_t expires_s, char ret[static CONTROL_LINK_TOKEN_MAX])
{
	char subject[64], signed_part[CONTROL_TOKEN_SIZE];

	static_assert(AV_ID_SIZE + CONTROL_TOKEN_SIZE < CONTROL_LINK_TOKEN_MAX, "a token fits");
	subject_of(u, subject);
	control_sign(c, kinds[kind].purpose, av_str_c(subject), expires_s, signed_part);
	(void)snprintf(ret, CONTROL_LINK_TOKEN_MAX, "%s.%s", u->rec.id, signed_part);
}

static int not_valid(enum control_link_kind kind, struct av_err *err)
{
	return av_err_set(err, AV_ERR_INVALID_TOKEN,
	    "this link is not valid, was used already, or has expired; %s",
	    kind == CONTROL_LINK_RESET ? "ask for a new one" : "sign up again");
}

static int check_state(const struct user *u, enum control_link_kind kind, struct av_err *err)
{
	const char *status = u->rec.status;

	if (strcmp(status, "disabled") == 0)
		return av_err_set(err, AV_ERR_ACCOUNT_DISABLED,
		    "this account was deactivated by an administrator");
	if (kind == CONTROL_LINK_ACTIVATE && strcmp(status, "inactive") != 0)
		return av_err_set(err, AV_ERR_ALREADY_ACTIVATED,
		    "this account is active already; log in with your password");
	if (kind == CONTROL_LINK_RESET && strcmp(status, "active") != 0)
		return not_valid(kind, err);
	return 0;
}

struct user *link_check(const struct control *c, struct av_str token, enum control_link_kind kind,
    int *ret_r, struct av_err *err)
{
	char subject[64], id[AV_ID_SIZE];
	struct av_str rest = token, head;
	struct user *u = NULL;

	if (token.n < CONTROL_LINK_TOKEN_MAX && av_str_cut(&rest, '.', &head) &&
	    av_id_valid(head, AV_ID_USER) && av_str_copy(id, sizeof(id), head) == 0)
		u = user_find(c, id);
	if (u) {
		subject_of(u, subject);
		if (control_sign_check(c, kinds[kind].purpose, av_str_c(subject), rest, NULL) < 0)
			u = NULL;
	}
	*ret_r = u ? check_state(u, kind, err) : not_valid(kind, err);
	return *ret_r < 0 ? NULL : u;
}

void control_set_link_base(struct control *c, const char *url)
{
	size_t n = strlen(url);

	while (n > 0 && url[n - 1] == '/')
		n--;
	if (av_str_copy(c->accounts.link_base, sizeof(c->accounts.link_base), av_str_n(url, n)) < 0)
		c->accounts.link_base[0] = '\0';
}

const char *control_link_base(const struct control *c)
{
	return c->accounts.link_base;
}

int link_make(const struct control *c, const struct user *u, enum control_link_kind kind,
    int64_t lasts_s, struct av_buf *url, struct control_link *ret)
{
	int64_t expires_s = control_real_ms(c) / 1000 + lasts_s;
	char token[CONTROL_LINK_TOKEN_MAX];

	link_token(c, u, kind, expires_s, token);
	(void)av_buf_printf(url, "%s%s?token=%s", c->accounts.link_base, kinds[kind].path, token);
	explicit_bzero(token, sizeof(token));
	if (!av_buf_cstr(url))
		return -ENOMEM;
	*ret = (struct control_link){
	    .kind = kind, .url = av_buf_cstr(url), .expires_ms = expires_s * 1000};
	return 0;
}

static void on_mailed(void *ctx, const struct av_err *err)
{
	(void)ctx;
	if (err)
		av_log(AV_LOG_WARN, "a link was not mailed; `aviary users link` makes another",
		    "error", err->message, NULL);
}

static int mail(
    struct control *c, const struct user *u, const struct control_link *link, int64_t lasts_s)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(4096);
	const struct control_outbound *o = c->config.outbound;
	struct av_err err;
	int r;

	(void)av_buf_printf(&text,
	    "%s\n\n    %s\n\nThe link works once, within %" PRId64
	    " minutes. If it was not you, do nothing.\n",
	    kinds[link->kind].what, link->url, lasts_s / 60);
	if (av_buf_error(&text) < 0)
		return -ENOMEM;
	r = o->mail(o->ctx, u->rec.email, kinds[link->kind].subject, av_buf_str(&text), on_mailed,
	    NULL, &err);
	explicit_bzero(text.p, text.n);
	return r;
}

void link_send(struct control *c, const struct user *u, enum control_link_kind kind)
{
	AV_CLEANUP(av_buf_clear) struct av_buf url = AV_BUF_INIT(URL_MAX);
	int64_t lasts_s = kind == CONTROL_LINK_RESET ? CONTROL_RESET_S : CONTROL_ACTIVATION_S;
	struct control_link link;
	int r = link_make(c, u, kind, lasts_s, &url, &link);

	if (r == 0 && c->config.outbound && c->config.outbound->can_mail) {
		r = mail(c, u, &link, lasts_s);
	} else if (r == 0) {
		av_log(AV_LOG_INFO,
		    kind == CONTROL_LINK_RESET
		        ? "no mail server is configured: hand this link for a new password on"
		        : "no mail server is configured: hand this link for activation on",
		    "user", u->rec.id, "email", u->rec.email, "link", link.url, NULL);
	}
	if (r < 0)
		av_log(AV_LOG_WARN, "a link could not be sent; `aviary users link` makes another",
		    "user", u->rec.id, "error", strerrordesc_np(-r), NULL);
	if (url.p)
		explicit_bzero(url.p + url.off, url.n);
}
