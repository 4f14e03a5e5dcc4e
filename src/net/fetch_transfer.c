/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch_transfer.c - one request as libcurl sees it (see fetch.h); on the client's thread
 */
#include "net/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/avtime.h"
#include "net/fetch_internal.h"

#include "base/banned.h"

/* The address is the one that this socket is connected to; libcurl asks for each it tries. */
static curl_socket_t on_open(void *ctx, curlsocktype purpose, struct curl_sockaddr *a)
{
	static const struct av_reach none;
	struct av_fetch_call *call = ctx;
	const char *why = "not a loopback address";
	bool allowed;

	if (purpose != CURLSOCKTYPE_IPCXN)
		return CURL_SOCKET_BAD;
	if (call->rule == FETCH_LOOPBACK)
		allowed = av_address_is_loopback(&a->addr);
	else if (call->rule == FETCH_REACH)
		allowed = av_reach_allows(&call->reach, &a->addr, &why);
	else
		allowed = a->family == AF_INET || a->family == AF_INET6 ||
		          av_reach_allows(&none, &a->addr, &why);
	if (!allowed) {
		call->refused = why;
		return CURL_SOCKET_BAD;
	}
	return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static size_t on_head(char *p, size_t size, size_t n, void *ctx)
{
	struct av_fetch_call *call = ctx;

	n *= size;
	call->head_bytes += n;
	if (call->head_bytes > AV_FETCH_HEAD_MAX) {
		call->head_too_large = true;
		return 0;
	}
	/* Another answer begins: after a redirect, or a 1xx. */
	if (n >= 5 && memcmp(p, "HTTP/", 5) == 0)
		av_buf_reset(&call->head);
	return av_buf_append(&call->head, p, n) < 0 ? 0 : n;
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
	struct av_fetch_call *call = ctx;
	size_t room = call->response_max - call->in.n;

	n *= size;
	if (n <= room)
		return av_buf_append(&call->in, p, n) < 0 ? 0 : n;
	call->cut = call->cut_wanted;
	call->too_large = !call->cut_wanted;
	(void)av_buf_append(&call->in, p, room);
	return 0;
}

CURLcode fetch_setup_http(struct av_fetch_call *call)
{
	CURL *e = call->easy;
	struct av_str body = av_buf_str(&call->body);
	CURLcode r = curl_easy_setopt(e, CURLOPT_CURLU, call->parsed);

#if LIBCURL_VERSION_NUM >= 0x075500
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, "https");
#else
	if (r == CURLE_OK)
		r = curl_easy_setopt(
		    e, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS, (long)CURLPROTO_HTTPS);
#endif
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, call->redirects ? 1L : 0L);
	curl_easy_setopt(e, CURLOPT_MAXREDIRS, (long)call->redirects);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "Aviary/" AVIARY_VERSION);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_head);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, call);
	if (strcmp(call->method, "HEAD") == 0)
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	if (r == CURLE_OK && call->has_body) {
		curl_easy_setopt(e, CURLOPT_POST, 1L);
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.n);
		r = curl_easy_setopt(e, CURLOPT_POSTFIELDS, body.p);
	}
	/* A method that is set goes on through redirects, which only GET survives. */
	if (r == CURLE_OK && strcmp(call->method, call->has_body ? "POST" : "GET") != 0 &&
	    strcmp(call->method, "HEAD") != 0)
		r = curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, call->method);
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_HTTPHEADER, call->headers);
	return r;
}

static CURLcode setup(struct av_fetch_call *call)
{
	CURL *e = call->easy;
	CURLcode r = call->setup(call);

	curl_easy_setopt(e, CURLOPT_PRIVATE, call);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, call->curl_error);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, call);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, call);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)call->timeout_ms);
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
#endif
	curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L);
	curl_easy_setopt(e, CURLOPT_DNS_CACHE_TIMEOUT, 0L);
	/* What follows must hold, or nothing is sent. */
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_open);
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_PROXY, "");
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	if (r == CURLE_OK)
		r = curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	return r;
}

bool fetch_transfer_begin(struct av_fetch_call *call)
{
	CURLcode r = CURLE_OUT_OF_MEMORY;

	call->easy = curl_easy_init();
	if (call->easy)
		r = setup(call);
	if (r == CURLE_OK)
		return true;
	(void)av_err_set(&call->err, r == CURLE_OUT_OF_MEMORY ? AV_ERR_NO_MEMORY : AV_ERR_INTERNAL,
	    "cannot set up the request: %s", curl_easy_strerror(r));
	if (call->easy)
		curl_easy_cleanup(call->easy);
	call->easy = NULL;
	return false;
}

/* Only host and port: paths and queries may be secrets. */
static void where(struct av_fetch_call *call, char *dst, size_t size)
{
	char *host = NULL, *port = NULL;

	(void)curl_url_get(call->parsed, CURLUPART_HOST, &host, 0);
	(void)curl_url_get(call->parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
	(void)snprintf(dst, size, "%.200s:%.5s", host ? host : "?", port ? port : "?");
	curl_free(host);
	curl_free(port);
}

static void explain(struct av_fetch_call *call, CURLcode result)
{
	struct av_err *err = &call->err;
	char at[220];

	where(call, at, sizeof(at));
	if (call->too_large || call->head_too_large) {
		(void)av_err_set(err, AV_ERR_TOO_LARGE,
		    "%s: the %s of the answer is over %zu bytes", at,
		    call->too_large ? "body" : "head",
		    call->too_large ? call->response_max : AV_FETCH_HEAD_MAX);
	} else if (call->refused && result == CURLE_COULDNT_CONNECT) {
		(void)av_err_set(err, AV_ERR_FORBIDDEN,
		    call->rule == FETCH_LOOPBACK
		        ? "%s is %s, and without TLS nothing is sent to another machine"
		        : "%s is %s, and only public ones are allowed; an administrator may allow "
		          "others with the option webhook-private",
		    at, call->refused);
	} else if (result == CURLE_OUT_OF_MEMORY) {
		(void)av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	} else if (result == CURLE_OPERATION_TIMEDOUT) {
		(void)av_err_set(err, AV_ERR_REQUEST_TIMEOUT, "%s: no answer within %u s", at,
		    (call->timeout_ms + 999) / 1000);
	} else if (result == CURLE_COULDNT_RESOLVE_HOST) {
		(void)av_err_set(err, AV_ERR_UPSTREAM, "%s: the name has no address", at);
	} else if (result == CURLE_COULDNT_CONNECT) {
		(void)av_err_set(err, AV_ERR_UPSTREAM, "%s: cannot connect", at);
	} else {
		(void)av_err_set(err, AV_ERR_UPSTREAM, "%s: %s", at, curl_easy_strerror(result));
	}
}

void fetch_transfer_end(struct av_fetch_call *call, CURLcode result)
{
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &call->status);
	if (result == CURLE_OK || (call->cut && result == CURLE_WRITE_ERROR))
		return;
	explain(call, result);
}
