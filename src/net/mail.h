/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mail.h - plain text mail to one recipient, through the mail server that the administrator named
 *
 * smtps://HOST[:465] speaks TLS from the first byte; smtp://HOST[:25] must offer STARTTLS, with a
 * certificate that fits, unless HOST is this machine (127.0.0.1, [::1], localhost): then nothing is
 * encrypted and no other machine is connected to. smtp://HOST:587/name.example says name.example in
 * EHLO. The transfer is fetch.h's: one thread, bounded, MAIL_TIMEOUT_MS for all of it.
 *
 * A mail that was not taken is not tried again here: who asked for it is told.
 */
#pragma once

#include "net/fetch.h"

#define MAIL_TIMEOUT_MS  30000
#define MAIL_ADDRESS_MAX 254
#define MAIL_TEXT_MAX    ((size_t)64 * 1024)

struct av_mail_server {
	const char *url;
	const char *user, *password; /* NULL: no login; sent only when encrypted or on loopback */
	const char *from;            /* "aviary@example.com" or "Aviary <aviary@example.com>" */
};

struct av_mail {
	const char *to;      /* an address alone */
	const char *subject; /* UTF-8, one line of at most 200 bytes */
	struct av_str text;  /* UTF-8 of at most MAIL_TEXT_MAX bytes; lines end with LF */
};

/* INVALID naming what is wrong with the configuration; the password is not looked at. */
int av_mail_check(const struct av_mail_server *server, struct av_err *err);
/* Everything is copied. The callback as in fetch.h, err NULL: the server has taken the mail (res
 * says nothing). INVALID: an address or subject that cannot be written into a mail. */
int av_mail_send(struct av_fetch *f, const struct av_mail_server *server,
    const struct av_mail *mail, av_fetch_fn *fn, void *ctx, struct av_fetch_call **ret,
    struct av_err *err) AV_MUST_CHECK;
/* Whether it can stand in a mail as it is: printable ASCII, one '@', no white space, brackets,
 * quotes, commas, at most MAIL_ADDRESS_MAX bytes. */
bool av_mail_address_valid(struct av_str address);
