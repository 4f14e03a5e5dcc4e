/* SPDX-License-Identifier: Apache-2.0 */
/*
 * outbound.h - requests to other servers, and mail: what whoever owns the sockets gives control
 *
 * control knows no sockets. It gets this table in control_config.outbound (the daemon's is
 * daemon/outbound.c over net/fetch.h and net/mail.h; tests bring their own) and uses it as it is:
 *
 *	const struct control_outbound *o = c->config.outbound;
 *	if (o && o->can_mail)
 *		r = o->mail(o->ctx, address, "Your account", text, on_mailed, me, &err);
 *
 * A call that returns non-zero (-errno, *err filled) has done nothing and never calls back; after 0
 * the callback comes exactly once, from the loop, unless it is cancelled. Nothing blocks. What is
 * given is copied. Limits are net/fetch.h's; who asks on behalf of a team brings its own on top.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct control_outbound_call;

struct control_http_header {
	const char *name, *value;
};

struct control_http {
	const char *method; /* NULL: POST with a body, else GET */
	const char *url;
	const struct control_http_header *headers;
	size_t n_headers;
	struct av_str body; /* p NULL: none */
	/* The URL is not the administrator's: only addresses that the option webhook-private
	 * allows, see net/reach.h. */
	bool guarded;
	uint32_t timeout_ms; /* 0: 10 s */
	size_t response_max; /* of the body; 0: 64 KiB */
	bool cut;            /* what is over is cut off, not an error */
};

/* Borrowed until the callback returns. Redirects are not followed. */
struct control_http_answer {
	int status;
	uint32_t retry_after_s; /* as the server asked for in seconds; 0: it did not */
	uint32_t elapsed_ms;
	struct av_str body;
};

/* err NULL: there was an answer, whatever its status. FORBIDDEN: an address that is not allowed;
 * REQUEST_TIMEOUT, TOO_LARGE, CANCELED, UNAVAILABLE, NO_MEMORY; UPSTREAM: all else. The message
 * shows no more of the URL than host and port. */
typedef void control_http_fn(
    void *ctx, const struct control_http_answer *answer, const struct av_err *err);
typedef void control_mail_fn(void *ctx, const struct av_err *err);

struct control_outbound {
	void *ctx;
	bool can_mail;            /* a mail server is configured */
	bool private_allowed;     /* webhook-private is not "no" */
	const char *telegram_url; /* "https://api.telegram.org" */
	/* ret (may be NULL) for cancel, valid until the callback. INVALID: URL or header. */
	int (*http)(void *ctx, const struct control_http *rq, control_http_fn *fn, void *fn_ctx,
	    struct control_outbound_call **ret, struct av_err *err);
	/* The callback will not come. */
	void (*cancel)(struct control_outbound_call *call);
	/* Whether http would take the URL, as guarded; resolves nothing. The message begins with
	 * "the URL". */
	int (*check_url)(void *ctx, const char *url, bool https_only, struct av_err *err);
	/* Plain text to one address, tried once. INVALID: the address. May be called only with
	 * can_mail. */
	int (*mail)(void *ctx, const char *to, const char *subject, struct av_str text,
	    control_mail_fn *fn, void *fn_ctx, struct av_err *err);
	/* Whether mail would take the address. */
	bool (*mail_address_valid)(struct av_str address);
};
