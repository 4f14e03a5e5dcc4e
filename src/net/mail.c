/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mail.c - mail by SMTP (see mail.h): the message of RFC 5322, the transfer of libcurl
 *
 * The text goes as base64, as then neither the length of a line nor a dot at its beginning nor what
 * a server makes of 8-bit bytes matters.
 */
#include "net/mail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "base/ids.h"
#include "net/fetch_internal.h"

#include "base/banned.h"

#define SUBJECT_MAX 200
#define LINE_BYTES  57 /* 76 digits, RFC 2045 section 6.8 */

static const char *const schemes[] = {"smtps", "smtp", NULL};

/* ---- checks ---- */

bool av_mail_address_valid(struct av_str a)
{
	size_t ats = 0;

	if (a.n < 3 || a.n > MAIL_ADDRESS_MAX || a.p[0] == '@' || a.p[a.n - 1] == '@')
		return false;
	for (size_t i = 0; i < a.n; i++) {
		if (a.p[i] <= 0x20 || a.p[i] >= 0x7f || strchr("<>()[]\\,;:\"", a.p[i]))
			return false;
		ats += a.p[i] == '@';
	}
	return ats == 1;
}

/* "Name <address>" or an address; *ret_name is empty without one. */
static bool split_from(const char *from, struct av_str *ret_name, struct av_str *ret_address)
{
	struct av_str s = av_str_trim(av_str_c(from)), name;

	*ret_name = AV_STR("");
	*ret_address = s;
	if (av_str_ends(s, AV_STR(">"))) {
		s.n--;
		if (!av_str_cut(&s, '<', &name))
			return false;
		*ret_name = av_str_trim(name);
		*ret_address = s;
	}
	for (size_t i = 0; i < ret_name->n; i++)
		if (ret_name->p[i] < 0x20 || ret_name->p[i] >= 0x7f ||
		    strchr("<>()[]\\,;:@\"", ret_name->p[i]))
			return false;
	return ret_name->n <= 100 && av_mail_address_valid(*ret_address);
}

static bool is_line(const char *s)
{
	size_t n = strnlen(s, SUBJECT_MAX + 1);

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return n <= SUBJECT_MAX && av_utf8_valid(av_str_n(s, n));
}

static int check_server(
    struct av_fetch_call *call, const struct av_mail_server *server, struct av_err *err)
{
	struct av_str name, address;
	int r = fetch_parse_url(call, server->url, schemes, NULL, err);

	if (r < 0)
		return r;
	if (!server->from || !split_from(server->from, &name, &address))
		return av_err_set(err, AV_ERR_INVALID,
		    "the sender '%.100s' must be an address in ASCII, alone or as "
		    "Aviary <aviary@example.com>",
		    server->from ? server->from : "");
	return 0;
}

int av_mail_check(const struct av_mail_server *server, struct av_err *err)
{
	int r = 0;
	struct av_fetch_call *call = fetch_call_new(NULL, NULL, NULL, &r, err);

	if (!call)
		return r;
	r = check_server(call, server, err);
	fetch_call_free(call);
	return r;
}

/* ---- the message ---- */

static void write_subject(struct av_buf *out, const char *subject)
{
	struct av_str rest = av_str_c(subject);
	bool ascii = true;

	for (size_t i = 0; i < rest.n; i++)
		ascii = ascii && rest.p[i] > 0;
	if (ascii) {
		(void)av_buf_append_str(out, rest);
		return;
	}
	/* Words of at most 75 characters, cut between characters: RFC 2047 section 5. */
	while (rest.n > 0) {
		size_t n = 0, c;

		while (n < rest.n && (c = av_utf8_char(av_str_n(rest.p + n, rest.n - n))) > 0 &&
		       n + c <= 45)
			n += c;
		(void)av_buf_append_c(out, "=?UTF-8?B?");
		(void)av_base64_encode(out, rest.p, n);
		rest = av_str_n(rest.p + n, rest.n - n);
		(void)av_buf_append_c(out, rest.n ? "?=\r\n " : "?=");
	}
}

static void write_date(struct av_buf *out)
{
	static const char days[] = "SunMonTueWedThuFriSat",
	                  months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	time_t now = (time_t)(av_real_ms() / 1000);
	struct tm tm;

	if (!gmtime_r(&now, &tm))
		return;
	(void)av_buf_printf(out, "Date: %.3s, %02d %.3s %04d %02d:%02d:%02d +0000\r\n",
	    days + 3 * tm.tm_wday, tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900,
	    tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static int write_text(struct av_buf *out, struct av_str text)
{
	AV_CLEANUP(av_buf_clear) struct av_buf lines = AV_BUF_INIT(2 * MAIL_TEXT_MAX + 2);
	struct av_str line, rest;
	int r = 0;

	while (text.n > 0) {
		(void)av_str_cut(&text, '\n', &line);
		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		(void)av_buf_append_str(&lines, line);
		(void)av_buf_append_c(&lines, "\r\n");
	}
	rest = av_buf_str(&lines);
	while (rest.n > 0 && r == 0) {
		size_t n = AV_MIN(rest.n, (size_t)LINE_BYTES);

		r = av_base64_encode(out, rest.p, n);
		(void)av_buf_append_c(out, "\r\n");
		rest = av_str_n(rest.p + n, rest.n - n);
	}
	return av_buf_error(&lines) < 0 ? av_buf_error(&lines) : av_buf_error(out);
}

static int write_message(
    struct av_buf *out, const struct av_mail *mail, struct av_str name, struct av_str address)
{
	struct av_str domain = address, local;
	uint8_t id[12];
	char hex[2 * sizeof(id) + 1];

	(void)av_str_cut(&domain, '@', &local);
	av_random(id, sizeof(id));
	av_hex_encode(hex, id, sizeof(id));
	write_date(out);
	if (name.n)
		(void)av_buf_printf(
		    out, "From: %.*s <%.*s>\r\n", AV_STR_ARG(name), AV_STR_ARG(address));
	else
		(void)av_buf_printf(out, "From: %.*s\r\n", AV_STR_ARG(address));
	(void)av_buf_printf(
	    out, "To: %s\r\nMessage-ID: <%s@%.*s>\r\nSubject: ", mail->to, hex, AV_STR_ARG(domain));
	write_subject(out, mail->subject);
	/* RFC 3834: so that no holiday notice comes back. */
	(void)av_buf_append_c(out,
	    "\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
	    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n");
	return write_text(out, mail->text);
}

/* ---- sending ---- */

static size_t on_read(char *p, size_t size, size_t n, void *ctx)
{
	struct av_fetch_call *call = ctx;
	struct av_str body = av_buf_str(&call->body);

	n = AV_MIN(n * size, body.n - call->sent);
	memcpy(p, body.p + call->sent, n);
	call->sent += n;
	return n;
}

static CURLcode setup_mail(struct av_fetch_call *call)
{
	CURL *e = call->easy;
	CURLcode r = curl_easy_setopt(e, CURLOPT_CURLU, call->parsed);

#if LIBCURL_VERSION_NUM >= 0x075500
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
#else
	if (r == CURLE_OK)
		r = curl_easy_setopt(
		    e, CURLOPT_PROTOCOLS, (long)(CURLPROTO_SMTP | CURLPROTO_SMTPS));
#endif
	if (r == CURLE_OK)
		r = curl_easy_setopt(
		    e, CURLOPT_USE_SSL, call->plain ? (long)CURLUSESSL_NONE : (long)CURLUSESSL_ALL);
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_MAIL_FROM, call->from);
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_MAIL_RCPT, call->recipients);
	if (r == CURLE_OK && call->user)
		r = curl_easy_setopt(e, CURLOPT_USERNAME, call->user);
	if (r == CURLE_OK && call->password)
		r = curl_easy_setopt(e, CURLOPT_PASSWORD, call->password);
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(e, CURLOPT_READDATA, call);
	return r;
}

static bool names_loopback(struct av_fetch_call *call)
{
	char *host = NULL, *scheme = NULL;
	bool yes;

	(void)curl_url_get(call->parsed, CURLUPART_HOST, &host, 0);
	(void)curl_url_get(call->parsed, CURLUPART_SCHEME, &scheme, 0);
	yes = host && scheme && strcmp(scheme, "smtp") == 0 &&
	      (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
	          strncmp(host, "127.", 4) == 0);
	curl_free(host);
	curl_free(scheme);
	return yes;
}

static int fill(struct av_fetch_call *call, const struct av_mail_server *server,
    const struct av_mail *mail, struct av_err *err)
{
	struct av_str name, address;
	int r = check_server(call, server, err);

	if (r < 0)
		return r;
	(void)split_from(server->from, &name, &address);
	if (!av_mail_address_valid(av_str_c(mail->to)))
		return av_err_set(err, AV_ERR_INVALID,
		    "'%.100s' is not an address that mail can be sent to", mail->to);
	if (!is_line(mail->subject) || mail->text.n > MAIL_TEXT_MAX)
		return av_err_set(err, AV_ERR_INVALID, "the subject or text of a mail is too long");
	call->setup = setup_mail;
	call->timeout_ms = MAIL_TIMEOUT_MS;
	call->response_max = (size_t)64 * 1024;
	call->plain = names_loopback(call);
	call->rule = call->plain ? FETCH_LOOPBACK : FETCH_ANY;
	call->from = av_str_dup(address);
	call->recipients = curl_slist_append(NULL, mail->to);
	if (server->user) {
		call->user = av_str_dup(av_str_c(server->user));
		call->password = av_str_dup(av_str_c(server->password));
	}
	if (!call->from || !call->recipients ||
	    (server->user && (!call->user || !call->password)) ||
	    write_message(&call->body, mail, name, address) < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return 0;
}

int av_mail_send(struct av_fetch *f, const struct av_mail_server *server,
    const struct av_mail *mail, av_fetch_fn *fn, void *ctx, struct av_fetch_call **ret,
    struct av_err *err)
{
	int r = 0;
	struct av_fetch_call *call = fetch_call_new(f, fn, ctx, &r, err);

	if (!call)
		return r;
	r = fill(call, server, mail, err);
	if (r < 0) {
		fetch_call_free(call);
		return r;
	}
	return fetch_submit(f, call, ret, err);
}
