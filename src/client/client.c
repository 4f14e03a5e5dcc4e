/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.c - JSON calls over one keep-alive libcurl handle
 *
 * One easy handle is reused for all calls: libcurl keeps the connection open between them and opens
 * a new one when the daemon closed it meanwhile. Redirects are never followed and proxies from the
 * environment never used: the key goes to the host that the user named and nowhere else.
 */
#include "client/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "client/client_internal.h"

#include "base/banned.h"

/* What CURLINFO_SSL_VERIFYRESULT says: values of OpenSSL's x509_vfy.h, whose headers libcurl does
 * not need. */
#define X509_V_ERR_UNSPECIFIED        1 /* until libcurl has found that the name fits */
#define X509_V_ERR_CERT_NOT_YET_VALID 9
#define X509_V_ERR_CERT_HAS_EXPIRED   10

static void wipe_free(char **p)
{
	if (*p)
		explicit_bzero(*p, strlen(*p));
	free(*p);
	*p = NULL;
}

static void slist_freep(struct curl_slist **l)
{
	curl_slist_free_all(*l);
}

static bool url_is_usable(const char *url)
{
	struct av_str s = av_str_c(url);
	if (!av_str_starts(s, AV_STR("http://")) && !av_str_starts(s, AV_STR("https://")))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f || s.p[i] == '?' ||
		    s.p[i] == '#')
			return false;
	return !av_str_ends(s, AV_STR("//"));
}

static bool key_is_usable(const char *key)
{
	for (; *key; key++)
		if ((unsigned char)*key <= ' ' || (unsigned char)*key >= 0x7f)
			return false;
	return true;
}

int av_client_new(
    const struct av_client_options *options, struct av_client **ret, struct av_err *err)
{
	if (!url_is_usable(options->url))
		return av_err_set(err, AV_ERR_INVALID,
		    "'%s' is not a URL of a daemon; expected http://HOST:PORT", options->url);
	if (options->api_key && !key_is_usable(options->api_key))
		return av_err_set(
		    err, AV_ERR_INVALID, "the API key contains spaces or control characters");

	AV_CLEANUP(av_client_freep) struct av_client *c = calloc(1, sizeof(*c));
	if (!c)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "client");
	struct av_str url = av_str_c(options->url);
	while (url.n > 0 && url.p[url.n - 1] == '/')
		url.n--;
	c->url = av_str_dup(url);
	c->api_key = options->api_key ? av_str_dup(av_str_c(options->api_key)) : NULL;
	c->ca_file = options->ca_file ? av_str_dup(av_str_c(options->ca_file)) : NULL;
	c->user_agent = av_str_dup(
	    av_str_c(options->user_agent ? options->user_agent : "libaviary/" AVIARY_VERSION));
	c->is_canceled = options->is_canceled;
	c->ctx = options->ctx;
	/* OpenSSL costs milliseconds to set up: only when it is used. */
	if (!c->url || (options->api_key && !c->api_key) || !c->user_agent ||
	    (options->ca_file && !c->ca_file) ||
	    curl_global_init(client_is_tls(c) ? CURL_GLOBAL_SSL : CURL_GLOBAL_NOTHING) != 0)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "client");
	c->easy = curl_easy_init();
	if (!c->easy)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "client");
	*ret = AV_TAKE_PTR(c);
	return 0;
}

void av_client_free(struct av_client *c)
{
	if (!c)
		return;
	if (c->easy)
		curl_easy_cleanup(c->easy);
	free(c->url);
	wipe_free(&c->api_key);
	free(c->user_agent);
	free(c->ca_file);
	free(c);
}

void av_client_freep(struct av_client **c)
{
	av_client_free(*c);
	*c = NULL;
}

bool client_is_tls(const struct av_client *c)
{
	return av_str_starts(av_str_c(c->url), AV_STR("https://"));
}

const char *av_client_url(const struct av_client *c)
{
	return c->url;
}

bool av_client_is_unreachable(const struct av_client *c)
{
	return c->unreachable;
}

int av_client_last_status(const struct av_client *c)
{
	return c->last_status;
}

int client_add_header(
    struct curl_slist **headers, const char *name, const char *value, struct av_err *err)
{
	char line[512];
	int n = snprintf(line, sizeof(line), "%s: %s", name, value);
	struct curl_slist *l = NULL;
	if (n > 0 && (size_t)n < sizeof(line))
		l = curl_slist_append(*headers, line);
	explicit_bzero(line, sizeof(line));
	if (!l)
		return av_err_set(err, AV_ERR_INVALID, "the value of header %s is too long", name);
	*headers = l;
	return 0;
}

static int on_progress(
    void *ctx, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow)
{
	(void)dltotal, (void)dlnow, (void)ultotal, (void)ulnow;
	struct av_client *c = ctx;
	return c->is_canceled && c->is_canceled(c->ctx);
}

int client_prepare(struct av_client *c, CURL *easy, const char *path, struct curl_slist **headers,
    struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf url = AV_BUF_INIT(16 * AV_KIB);
	av_buf_printf(&url, "%s%s", c->url, path);
	if (av_buf_error(&url))
		return av_err_set(err, AV_ERR_INVALID, "the request's URL is too long");

	c->curl_error[0] = '\0';
	c->last_status = 0;
	c->unreachable = false;
	curl_easy_setopt(easy, CURLOPT_URL, av_buf_cstr(&url));
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, c->curl_error);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, c->user_agent);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CLIENT_CONNECT_MS);
	curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
	if (client_is_tls(c))
		curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (c->ca_file) {
		curl_easy_setopt(easy, CURLOPT_CAINFO, c->ca_file);
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL); /* instead of the system's */
	}
	if (c->is_canceled) {
		curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
		curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
		curl_easy_setopt(easy, CURLOPT_XFERINFODATA, c);
	}
	if (c->api_key)
		return client_add_header(headers, "X-API-Key", c->api_key, err);
	return 0;
}

/* The daemon's certificate does not do: why, and what helps. */
static int untrusted(struct av_client *c, CURL *easy, const char *detail, struct av_err *err)
{
	long why = 0;
	curl_easy_getinfo(easy, CURLINFO_SSL_VERIFYRESULT, &why);
	if (why == X509_V_ERR_CERT_HAS_EXPIRED || why == X509_V_ERR_CERT_NOT_YET_VALID)
		return av_err_set(err, AV_ERR_UNAVAILABLE,
		    "%s: its certificate is %s; the daemon's tls-cert must be renewed, or a clock "
		    "is "
		    "wrong",
		    c->url, why == X509_V_ERR_CERT_HAS_EXPIRED ? "expired" : "not valid yet");
	if (why <= X509_V_ERR_UNSPECIFIED)
		return av_err_set(err, AV_ERR_UNAVAILABLE,
		    "%s: its certificate is for another name (%s); begin --url with one of its "
		    "names",
		    c->url, detail);
	if (c->ca_file)
		return av_err_set(err, AV_ERR_UNAVAILABLE,
		    "%s: its certificate is not from an authority in %s: %s", c->url, c->ca_file,
		    detail);
	return av_err_set(err, AV_ERR_UNAVAILABLE,
	    "%s: its certificate is from nobody whom this machine trusts (%s); if it is yours, "
	    "name "
	    "the file of its authority, or of itself, with --ca FILE or AVIARY_CA",
	    c->url, detail);
}

int client_transport_error(struct av_client *c, CURL *easy, CURLcode code, struct av_err *err)
{
	const char *detail = c->curl_error[0] ? c->curl_error : curl_easy_strerror(code);
	switch (code) {
	case CURLE_ABORTED_BY_CALLBACK:
		return av_err_set(err, AV_ERR_CANCELED, "interrupted");
	case CURLE_OUT_OF_MEMORY:
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	case CURLE_PEER_FAILED_VERIFICATION:
		return untrusted(c, easy, detail, err);
	case CURLE_SSL_CACERT_BADFILE:
		return av_err_set(err, AV_ERR_INVALID,
		    "%s: no certificates in PEM form can be read from it",
		    c->ca_file ? c->ca_file : "the system's list of authorities");
	case CURLE_SSL_CONNECT_ERROR:
		return av_err_set(err, AV_ERR_UNAVAILABLE,
		    "%s: no TLS with it: %s; if it serves plain HTTP, begin --url with http://",
		    c->url, detail);
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		c->unreachable = true;
		return av_err_set(err, AV_ERR_UNAVAILABLE, "%s: %s", c->url, detail);
	case CURLE_OPERATION_TIMEDOUT:
		c->unreachable = c->last_status == 0;
		return av_err_set(
		    err, AV_ERR_UNAVAILABLE, "%s did not answer in time: %s", c->url, detail);
	default:
		return av_err_set(
		    err, AV_ERR_UNAVAILABLE, "the connection to %s broke: %s", c->url, detail);
	}
}

static enum av_err_kind kind_of_status(int status)
{
	switch (status) {
	case 401:
		return AV_ERR_UNAUTHORIZED;
	case 403:
		return AV_ERR_FORBIDDEN;
	case 404:
		return AV_ERR_NOT_FOUND;
	case 409:
		return AV_ERR_CONFLICT;
	case 501:
		return AV_ERR_UNSUPPORTED;
	case 502:
		return AV_ERR_AGENT;
	case 503:
		return AV_ERR_UNAVAILABLE;
	case 504:
		return AV_ERR_EXEC_TIMEOUT;
	case 507:
		return AV_ERR_NO_SPACE;
	default:
		return status >= 400 && status < 500 ? AV_ERR_INVALID : AV_ERR_INTERNAL;
	}
}

int client_reply_error(int status, struct av_str body, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = av_json_parse_object(body, NULL);
	const json_t *e = j ? json_object_get(j, "error") : NULL;
	const char *message = json_string_value(json_object_get(e, "message"));
	const char *code = json_string_value(json_object_get(e, "code"));
	enum av_err_kind kind = code ? av_err_from_code(code) : AV_ERR_NONE;
	if (kind == AV_ERR_NONE)
		kind = kind_of_status(status);
	if (message)
		return av_err_set(err, kind, "%s", message);
	return av_err_set(err, kind,
	    "HTTP status %d without Aviary's error body; is the URL that of an Aviary daemon?",
	    status);
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
	struct av_buf *body = ctx;
	return av_buf_append(body, p, size * n) ? 0 : size * n;
}

/* One transfer whose body is collected. */
static int perform(struct av_client *c, const struct av_client_request *request, struct av_str json,
    struct av_buf *body, struct av_err *err)
{
	AV_CLEANUP(slist_freep) struct curl_slist *headers = NULL;
	CURL *easy = c->easy;

	curl_easy_reset(easy);
	int r = client_prepare(c, easy, request->path, &headers, err);
	if (r < 0)
		return r;
	if (request->idempotency_key &&
	    (r = client_add_header(&headers, "Idempotency-Key", request->idempotency_key, err)) < 0)
		return r;
	if (request->body &&
	    (r = client_add_header(&headers, "Content-Type", "application/json", err)) < 0)
		return r;
	bool is_get = strcmp(request->method, "GET") == 0;
	if (!is_get && (r = client_add_header(&headers, "Expect", "", err)) < 0)
		return r;
	if (request->body || strcmp(request->method, "POST") == 0) {
		curl_easy_setopt(easy, CURLOPT_POST, 1L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, json.p);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)json.n);
	}
	if (!is_get)
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
	int64_t timeout_ms = request->timeout_ms ? request->timeout_ms : 60000;
	if (timeout_ms > 0)
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, body);

	CURLcode code = curl_easy_perform(easy);
	long status = 0;
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	c->last_status = (int)status;
	if (av_buf_error(body))
		return av_err_set(err, AV_ERR_TOO_LARGE, "the daemon's answer is too large");
	if (code != CURLE_OK)
		return client_transport_error(c, easy, code, err);
	if (status < 200 || status >= 300)
		return client_reply_error((int)status, av_buf_str(body), err);
	return 0;
}

int av_client_call(struct av_client *c, const struct av_client_request *request, json_t **ret_reply,
    struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf json = AV_BUF_INIT(CLIENT_REPLY_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(CLIENT_REPLY_MAX);

	if (request->body && av_json_dump(&json, request->body) < 0)
		return av_err_set(err, AV_ERR_TOO_LARGE, "the request is too large");
	int r = perform(c, request, av_buf_str(&json), &body, err);
	if (r < 0)
		return r;
	if (!ret_reply)
		return 0;
	if (body.n == 0) {
		*ret_reply = NULL;
		return 0;
	}
	json_error_t je;
	json_t *reply = json_loadb(body.p + body.off, body.n, JSON_REJECT_DUPLICATES, &je);
	if (!reply)
		return av_err_set(err, AV_ERR_INTERNAL,
		    "%s answered something that is not JSON; is that an Aviary daemon?", c->url);
	*ret_reply = reply;
	return 0;
}

int av_client_get_text(struct av_client *c, const char *path, char **ret_text, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(CLIENT_REPLY_MAX);
	struct av_client_request request = {.method = "GET", .path = path};
	int r = perform(c, &request, AV_STR(""), &body, err);
	if (r < 0)
		return r;
	char *text = av_str_dup(av_buf_str(&body));
	if (!text)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "answer");
	*ret_text = text;
	return 0;
}
