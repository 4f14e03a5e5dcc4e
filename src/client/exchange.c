/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exchange.c - one try of a request: what goes out, and what comes in (see request.h)
 */
#include "client/request_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

#include "base/banned.h"

#define STREAM_BUFFER (256 * 1024L)

int avc_exchange_status(const struct avc_request *rq)
{
	long status = 0;

	(void)curl_easy_getinfo(rq->easy, CURLINFO_RESPONSE_CODE, &status);
	return (int)status;
}

bool avc_exchange_is_answer(const struct avc_request *rq, int status)
{
	return (status >= 200 && status < 300) || (rq->any_status && !rq->own_error[0]);
}

/* ---- the head of an answer ---- */

static bool header_is(struct av_str line, const char *name, struct av_str *ret)
{
	struct av_str key;

	if (!av_str_cut(&line, ':', &key) || !av_str_ieq(key, av_str_c(name)))
		return false;
	while (line.n && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == '\n'))
		line.n--;
	*ret = av_str_trim(line);
	return true;
}

static void take_cursor(struct avc_request *rq, struct av_str value)
{
	free(rq->next_cursor);
	rq->next_cursor = value.n ? av_str_dup(value) : NULL;
	if (value.n && !rq->next_cursor)
		rq->stopped = AVIARY_E_NO_MEMORY;
}

void avc_exchange_begin(struct avc_request *rq)
{
	av_buf_reset(&rq->head);
	rq->head_over = rq->has_length = false;
	rq->length = -1;
	rq->own_error[0] = rq->request_id[0] = '\0';
	rq->retry_after_ms = -1;
}

/* False: it ends here. */
static bool head_is_over(struct avc_request *rq)
{
	int status = avc_exchange_status(rq), r = 0;

	rq->head_over = status >= 200;
	if (rq->head_over && rq->has_sink && rq->sink.begin && avc_exchange_is_answer(rq, status))
		r = rq->sink.begin(rq->sink.ctx, status, rq->length, av_buf_str(&rq->head));
	/* No bytes have to be had to know that they are too many. */
	if (r == 0 && rq->head_over && !rq->has_sink && status < 300 && rq->length >= 0 &&
	    (uint64_t)rq->length > rq->reply.max && strcmp(rq->method, "HEAD") != 0)
		r = AVIARY_E_TOO_LARGE;
	rq->stopped = r;
	return r == 0;
}

static void read_header(struct avc_request *rq, struct av_str line)
{
	struct av_str value;
	uint64_t number;

	if (header_is(line, "x-request-id", &value))
		(void)snprintf(rq->request_id, sizeof(rq->request_id), "%.*s", AV_STR_ARG(value));
	else if (header_is(line, "x-next-cursor", &value))
		take_cursor(rq, value);
	else if (rq->any_status && header_is(line, "x-aviary-error", &value))
		(void)snprintf(rq->own_error, sizeof(rq->own_error), "%.*s", AV_STR_ARG(value));
	else if (header_is(line, "retry-after", &value) &&
	         av_parse_u64(value, 0, 86400, &number) == 0)
		rq->retry_after_ms = (int64_t)number * 1000;
	else if (header_is(line, "transfer-encoding", &value))
		rq->has_length = true;
	else if (header_is(line, "content-length", &value) &&
	         av_parse_u64(value, 0, INT64_MAX, &number) == 0) {
		rq->has_length = true;
		rq->length = (int64_t)number;
	}
}

static size_t on_header(char *p, size_t size, size_t n, void *ctx)
{
	struct avc_request *rq = ctx;
	struct av_str line = av_str_n(p, size * n);

	rq->moved_ms = avc_now_ms();
	rq->head_bytes += line.n;
	if (rq->head_bytes > AVC_HEADS_MAX) {
		rq->stopped = AVIARY_E_PROTOCOL;
		return 0;
	}
	if (av_str_starts(line, AV_STR("HTTP/"))) {
		avc_exchange_begin(rq);
		return line.n;
	}
	if (rq->head_over) /* a trailer */
		return line.n;
	if (line.n <= 2 && (line.n == 0 || line.p[0] == '\r' || line.p[0] == '\n'))
		return head_is_over(rq) ? line.n : 0;
	read_header(rq, line);
	if (rq->stopped)
		return 0;
	if (rq->wants_head && av_buf_append_str(&rq->head, line) < 0) {
		rq->stopped =
		    av_buf_error(&rq->head) == -ENOMEM ? AVIARY_E_NO_MEMORY : AVIARY_E_TOO_LARGE;
		return 0;
	}
	return line.n;
}

/* ---- bodies ---- */

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
	struct avc_request *rq = ctx;
	int r;

	n *= size;
	rq->moved_ms = avc_now_ms();
	if (!rq->has_sink || !avc_exchange_is_answer(rq, avc_exchange_status(rq))) {
		r = av_buf_append(&rq->reply, p, n);
		rq->stopped = r == 0 ? 0 : r == -ENOMEM ? AVIARY_E_NO_MEMORY : AVIARY_E_TOO_LARGE;
		return r < 0 ? 0 : n;
	}
	r = rq->sink.push(rq->sink.ctx, p, n);
	if (r == AVC_LATER) {
		rq->sink_rests = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	if (r < 0) {
		rq->stopped = r;
		return 0;
	}
	rq->pushed += n;
	return n;
}

static size_t on_read(char *p, size_t size, size_t n, void *ctx)
{
	struct avc_request *rq = ctx;
	int64_t r;

	n *= size;
	if (rq->source.size >= 0)
		n = (size_t)AV_MIN((uint64_t)n, (uint64_t)rq->source.size - rq->pulled);
	r = n ? rq->source.pull(rq->source.ctx, p, n) : 0;
	rq->moved_ms = avc_now_ms();
	if (r == AVC_LATER) {
		rq->source_rests = true;
		return CURL_READFUNC_PAUSE;
	}
	/* Less than was promised would wait for the server, which waits for the rest. */
	if (r == 0 && n && rq->source.size >= 0)
		r = AVIARY_E_INVALID;
	if (r < 0) {
		rq->stopped = (int)r;
		return CURL_READFUNC_ABORT;
	}
	rq->pulled += (uint64_t)r;
	return (size_t)r;
}

bool avc_exchange_rewind(struct avc_request *rq)
{
	return !rq->has_source || rq->pulled == 0 ||
	       (rq->source.rewind && rq->source.rewind(rq->source.ctx));
}

/* libcurl sends anew what a kept connection did not take. */
static int on_seek(void *ctx, curl_off_t offset, int origin)
{
	struct avc_request *rq = ctx;

	if (offset != 0 || origin != SEEK_SET || !avc_exchange_rewind(rq))
		return CURL_SEEKFUNC_FAIL;
	rq->pulled = 0;
	return CURL_SEEKFUNC_OK;
}

/* ---- what is sent ---- */

static int add_line(struct avc_request *rq, const char *line)
{
	struct curl_slist *l = curl_slist_append(rq->headers, line);

	if (!l)
		return AVIARY_E_NO_MEMORY;
	rq->headers = l;
	return 0;
}

/* NULL or "": libcurl sends none of that name. */
static int add_header(struct avc_request *rq, const char *name, const char *value)
{
	char line[4300];
	int n = snprintf(line, sizeof(line), "%s: %s", name, value ? value : ""), r;

	r = n > 0 && (size_t)n < sizeof(line) ? add_line(rq, line) : AVIARY_E_NO_MEMORY;
	explicit_bzero(line, sizeof(line));
	return r;
}

static bool has_header(const struct curl_slist *l, const char *name)
{
	struct av_str value;

	for (; l; l = l->next)
		if (header_is(av_str_c(l->data), name, &value))
			return true;
	return false;
}

static int add_headers(struct avc_request *rq)
{
	static const struct avc_credentials none;
	const struct avc_credentials *cr = rq->anonymous ? &none : &rq->c->credentials;
	char bearer[4200];
	int r = 0;

	curl_slist_free_all(AV_TAKE_PTR(rq->headers));
	if (rq->host_token) {
		r = add_header(rq, "X-Host-Token", rq->host_token);
	} else if (cr->session_token) {
		(void)snprintf(bearer, sizeof(bearer), "Bearer %s", cr->session_token);
		r = add_header(rq, "Authorization", bearer);
		explicit_bzero(bearer, sizeof(bearer));
	} else if (cr->api_key) {
		r = add_header(rq, "X-API-Key", cr->api_key);
	}
	if (r == 0 && cr->entity)
		r = add_header(rq, "X-Entity-Id", cr->entity);
	if (r == 0 && cr->project)
		r = add_header(rq, "X-Project-Name", cr->project);
	if (r == 0 && rq->idempotency_key)
		r = add_header(rq, "Idempotency-Key", rq->idempotency_key);
	if (r == 0 && (rq->body || rq->has_source) && !has_header(rq->more, "content-type"))
		r = add_header(rq, "Content-Type", rq->body ? rq->content_type : rq->source_type);
	for (const struct curl_slist *h = rq->more; r == 0 && h; h = h->next)
		r = add_line(rq, h->data);
	return r == 0 ? add_header(rq, "Expect", "") : r;
}

bool avc_easy_options(const aviary_client *c, CURL *e, const char *url, char error[CURL_ERROR_SIZE])
{
	if (curl_easy_setopt(e, CURLOPT_URL, url) != CURLE_OK ||
	    curl_easy_setopt(e, CURLOPT_USERAGENT, c->user_agent) != CURLE_OK ||
	    curl_easy_setopt(e, CURLOPT_PROXY, c->proxy ? c->proxy : "") != CURLE_OK ||
	    curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, c->unix_socket) != CURLE_OK ||
	    (c->ca_file && curl_easy_setopt(e, CURLOPT_CAINFO, c->ca_file) != CURLE_OK))
		return false;
	if (c->ca_file)
		curl_easy_setopt(e, CURLOPT_CAPATH, NULL); /* instead of the system's */
	curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	error[0] = '\0';
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, error);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)c->connect_timeout_ms);
	return true;
}

static bool set_options(struct avc_request *rq, const char *url)
{
	CURL *e = rq->easy;

	if (!avc_easy_options(rq->c, e, url, rq->curl_error) ||
	    (strcmp(rq->method, "GET") != 0 &&
	        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, rq->method) != CURLE_OK))
		return false;
	if (strcmp(rq->method, "HEAD") == 0)
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	if (rq->has_sink)
		curl_easy_setopt(e, CURLOPT_BUFFERSIZE, STREAM_BUFFER);
	if (rq->has_source) {
		curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)rq->source.size);
		curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(e, CURLOPT_READDATA, rq);
		curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(e, CURLOPT_SEEKDATA, rq);
		curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, STREAM_BUFFER);
	} else if (rq->body || strcmp(rq->method, "POST") == 0) {
		curl_easy_setopt(e, CURLOPT_POST, 1L);
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, rq->body ? rq->body : "");
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body_size);
	}
	curl_easy_setopt(e, CURLOPT_PRIVATE, &rq->transfer);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, rq->headers);
	if (rq->timeout_ms > 0)
		curl_easy_setopt(
		    e, CURLOPT_TIMEOUT_MS, (long)AV_MIN(rq->timeout_ms, (int64_t)INT32_MAX));
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, rq);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, rq);
	return true;
}

bool avc_exchange_set_up(struct avc_request *rq, const char *url)
{
	return add_headers(rq) == 0 && set_options(rq, url);
}
