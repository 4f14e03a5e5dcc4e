/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - a request: its tries, its end (see request.h; one try: exchange.c)
 */
#include "client/request_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ids.h"
#include "base/json.h"

#include "base/banned.h"

#define PAUSE_MIN_MS       200
#define PAUSE_MAX_MS       2000
#define RETRY_AFTER_MAX_MS 10000

static void request_free(struct avc_request *rq)
{
	av_list_remove(&rq->link);
	avc_timer_stop(&rq->timer);
	avc_timer_stop(&rq->idle);
	avc_timer_stop(&rq->wake);
	if (rq->easy) {
		(void)curl_multi_remove_handle(rq->c->multi, rq->easy);
		curl_easy_cleanup(rq->easy);
	}
	curl_slist_free_all(rq->headers);
	curl_slist_free_all(rq->more);
	free(rq->path);
	free(rq->body);
	free(rq->idempotency_key);
	free(rq->sandbox_id);
	free(rq->file);
	if (rq->host_token)
		explicit_bzero(rq->host_token, strlen(rq->host_token));
	free(rq->host_token);
	free(rq->next_cursor);
	av_buf_clear(&rq->reply);
	av_buf_clear(&rq->head);
	free(rq);
}

/* ---- ends and repetitions ---- */

static void end(struct avc_request *rq, const struct avc_reply *reply)
{
	avc_reply_fn *fn = rq->fn;
	void *ctx = rq->ctx;

	/* Out of the list first: fn may start others, or free the handle that this belongs to. */
	av_list_remove(&rq->link);
	rq->fn = NULL;
	fn(ctx, reply);
	request_free(rq);
}

static void fail(
    struct avc_request *rq, int code, int status, const char *name, const char *message)
{
	const aviary_error e = {.code = code,
	    .http_status = status,
	    .retry_after_ms = rq->retry_after_ms,
	    .message = message && *message ? message : aviary_code_text(code),
	    .server_code = name ? name : "",
	    .sandbox_id = rq->sandbox_id ? rq->sandbox_id : "",
	    .request_id = rq->request_id,
	    .path = rq->file ? rq->file : ""};

	end(rq, &(struct avc_reply){
	            .code = code, .status = status, .body = av_buf_str(&rq->reply), .error = &e});
}

static void transmit(struct avc_request *rq);

static void on_pause_over(struct avc_timer *t)
{
	transmit(AV_CONTAINER_OF(t, struct avc_request, timer));
}

/* Whether it goes on: later. */
static bool try_later(struct avc_request *rq, int code, int status)
{
	bool passing = code == AVIARY_E_UNREACHABLE || code == AVIARY_E_BROKEN ||
	               code == AVIARY_E_TIMEOUT || status == 429 || status == 502 || status == 503;
	int64_t now = avc_now_ms(), pause_ms = PAUSE_MIN_MS;
	uint32_t random;

	if (code == AVIARY_E_TIMEOUT && rq->time_was_said)
		return false;
	if (!passing || !rq->again || rq->pushed || rq->c->retry_budget_ms < 0 || rq->c->closed)
		return false;
	if (!rq->give_up_ms)
		rq->give_up_ms = avc_deadline(rq->c->retry_budget_ms);
	for (int i = 1; i < rq->tries && pause_ms < PAUSE_MAX_MS; i++)
		pause_ms *= 2;
	av_random(&random, sizeof(random));
	pause_ms += random % (uint32_t)pause_ms;
	if (rq->retry_after_ms > pause_ms)
		pause_ms = AV_MIN(rq->retry_after_ms, (int64_t)RETRY_AFTER_MAX_MS);
	if (now + pause_ms > rq->give_up_ms || !avc_exchange_rewind(rq))
		return false;
	avc_timer_stop(&rq->idle);
	avc_timer_stop(&rq->wake);
	(void)curl_multi_remove_handle(rq->c->multi, rq->easy);
	curl_easy_cleanup(rq->easy);
	rq->easy = NULL;
	rq->timer.on_due = on_pause_over;
	avc_timer_start(rq->c, &rq->timer, pause_ms);
	return true;
}

/* As avc_credentials_find. -ECANCELED: the request was cancelled meanwhile, and is gone. */
static int find_credentials(struct avc_request *rq, bool refused, aviary_error *error)
{
	int r;

	rq->busy = true;
	r = avc_credentials_find(rq->c, refused, error);
	rq->busy = false;
	if (!rq->canceled)
		return r;
	request_free(rq);
	return -ECANCELED;
}

/* A 401 may be worth a look for other credentials, once. False: it is the answer. */
static bool try_with_others(struct avc_request *rq)
{
	aviary_error error;
	int r;

	if (rq->asked || rq->anonymous || !rq->c->ask)
		return false;
	rq->asked = true;
	if (!avc_exchange_rewind(rq))
		return false;
	r = find_credentials(rq, true, &error);
	if (r < 0)
		return r == -ECANCELED;
	(void)curl_multi_remove_handle(rq->c->multi, rq->easy);
	curl_easy_cleanup(rq->easy);
	rq->easy = NULL;
	transmit(rq);
	return true;
}

static void answered(struct avc_request *rq, int status)
{
	AV_CLEANUP(av_json_decrefp) json_t *json = NULL;
	struct av_str body = av_buf_str(&rq->reply);
	const char *name, *message;
	const json_t *e;
	int code = 0;

	if (body.n && !(rq->opaque && avc_exchange_is_answer(rq, status)))
		json = avc_json_load(body, &code);
	if (code == AVIARY_E_NO_MEMORY) {
		fail(rq, code, status, NULL, NULL);
		return;
	}
	if (avc_exchange_is_answer(rq, status)) {
		end(rq, &(struct avc_reply){.code = AVIARY_OK,
		            .status = status,
		            .json = json,
		            .body = body,
		            .headers = av_buf_str(&rq->head),
		            .next_cursor = rq->next_cursor});
		return;
	}
	e = json ? json_object_get(json, "error") : NULL;
	name = json_string_value(json_object_get(e, "code"));
	message = json_string_value(json_object_get(e, "message"));
	if (rq->own_error[0]) { /* of a port: plain text, unless JSON was asked for */
		while (rq->reply.n && rq->reply.p[rq->reply.off + rq->reply.n - 1] == '\n')
			rq->reply.n--;
		name = rq->own_error;
		message = message ? message : av_buf_cstr(&rq->reply);
	}
	code = rq->file ? avc_code_of_file(name, status, message)
	                : avc_code_of(name, status, rq->sandbox_id != NULL, false);
	if (status == 401 && try_with_others(rq))
		return;
	/* That nobody listens is an answer, too. */
	if ((!rq->own_error[0] || status != 502) && try_later(rq, code, status))
		return;
	if (!message)
		code = code == AVIARY_E_UNAVAILABLE ? code : AVIARY_E_PROTOCOL;
	fail(rq, code, status, name,
	    message ? message
	            : "the answer is not one of an Aviary; is the base URL that of its API?");
}

/* Source, sink or a limit ended it. */
static void stopped(struct avc_request *rq, int status)
{
	char text[200] = "";
	int code = rq->stopped;

	if (code == AVIARY_E_TOO_LARGE && !rq->pushed)
		(void)snprintf(text, sizeof(text), "the answer has more than %zu bytes",
		    rq->head_over || !rq->wants_head ? rq->reply.max : rq->head.max);
	else if (code == AVIARY_E_PROTOCOL && rq->head_bytes > AVC_HEADS_MAX)
		(void)snprintf(text, sizeof(text),
		    "the answer has no end of headers within %zu bytes", AVC_HEADS_MAX);
	else if (code == AVIARY_E_INVALID && rq->has_source)
		(void)snprintf(text, sizeof(text),
		    "what is to be sent ended after %llu of the %lld bytes that were announced",
		    (unsigned long long)rq->pulled, (long long)rq->source.size);
	fail(rq, code, status, NULL, text);
}

/* libcurl calls a line of the head that is longer than it takes "out of memory" as well. */
static CURLcode what_it_was(const struct avc_request *rq, CURLcode result, int status)
{
	void *room;

	if (result != CURLE_OUT_OF_MEMORY || !status || rq->head_over)
		return result;
	room = malloc(2 * (size_t)CURL_MAX_HTTP_HEADER);
	free(room);
	return room ? CURLE_WEIRD_SERVER_REPLY : result;
}

static void finished(struct avc_transfer *t, CURLcode result)
{
	struct avc_request *rq = AV_CONTAINER_OF(t, struct avc_request, transfer);
	int status = avc_exchange_status(rq), code;
	char text[AVC_EXPLANATION_SIZE];

	avc_timer_stop(&rq->idle);
	avc_timer_stop(&rq->wake);
	if (rq->stopped) {
		stopped(rq, status);
		return;
	}
	result = what_it_was(rq, result, status);
	/* A connection that was closed is no end of a file. */
	if (result == CURLE_OK && (rq->has_sink || rq->opaque) && !rq->has_length &&
	    avc_exchange_is_answer(rq, status) && !rq->any_status && status != 204)
		result = CURLE_PARTIAL_FILE;
	/* A refusal may come, and the connection end, before all of a body went out. */
	if (result == CURLE_OK || (status >= 300 && !avc_exchange_is_answer(rq, status))) {
		answered(rq, status);
		return;
	}
	code = avc_code_of_curl(result);
	if (try_later(rq, code, 0))
		return;
	avc_explain(rq->c, rq->easy, result, rq->curl_error, text, sizeof(text));
	fail(rq, code, 0, NULL, text);
}

static void on_idle(struct avc_timer *t)
{
	struct avc_request *rq = AV_CONTAINER_OF(t, struct avc_request, idle);
	int64_t now = avc_now_ms(), left;
	char text[120];

	if (rq->source_rests || rq->sink_rests)
		rq->moved_ms = now; /* it is we who make it wait */
	left = rq->moved_ms + rq->idle_ms - now;
	if (left > 0) {
		avc_timer_start(rq->c, &rq->idle, left);
		return;
	}
	(void)snprintf(text, sizeof(text), "the server did not move a byte for %lld s",
	    (long long)(rq->idle_ms / 1000));
	if (!try_later(rq, AVIARY_E_TIMEOUT, 0))
		fail(rq, AVIARY_E_TIMEOUT, 0, NULL, text);
}

static void on_resume(struct avc_timer *t)
{
	struct avc_request *rq = AV_CONTAINER_OF(t, struct avc_request, wake);

	rq->moved_ms = avc_now_ms();
	rq->source_rests = rq->sink_rests = false;
	if (rq->easy)
		(void)curl_easy_pause(rq->easy, CURLPAUSE_CONT);
}

void avc_request_resume(struct avc_request *rq)
{
	if (!rq || !rq->easy || (!rq->source_rests && !rq->sink_rests))
		return;
	rq->wake.on_due = on_resume;
	avc_timer_start(rq->c, &rq->wake, 0);
}

void avc_requests_finish(aviary_client *c)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(c->multi, &left))) {
		struct avc_transfer *t = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
		if (t)
			t->on_done(t, m->data.result);
	}
}

void avc_requests_end(aviary_client *c)
{
	struct avc_request *rq;

	while ((rq = AV_LIST_FIRST(&c->requests, struct avc_request, link)))
		fail(rq, AVIARY_E_CANCELED, 0, NULL, "the client was closed");
}

/* ---- sending ---- */

static void transmit(struct avc_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf url = AV_BUF_INIT(64 * (size_t)AV_KIB);
	aviary_client *c = rq->c;
	aviary_error error;
	int r = 0;

	rq->tries++;
	avc_exchange_begin(rq);
	free(AV_TAKE_PTR(rq->next_cursor));
	rq->pulled = rq->pushed = 0;
	rq->head_bytes = 0;
	rq->source_rests = rq->sink_rests = false;
	rq->stopped = 0;
	av_buf_reset(&rq->reply);
	if (!rq->anonymous && !c->has_credentials)
		r = find_credentials(rq, false, &error);
	if (r < 0) {
		if (r != -ECANCELED)
			fail(rq, error.code, 0, NULL, error.message);
		return;
	}
	(void)av_buf_printf(&url, "%s%s", c->base_url, rq->path);
	rq->easy = curl_easy_init();
	if (!rq->easy || !av_buf_cstr(&url) || !avc_exchange_set_up(rq, av_buf_cstr(&url)) ||
	    curl_multi_add_handle(c->multi, rq->easy) != CURLM_OK) {
		if (rq->easy)
			curl_easy_cleanup(AV_TAKE_PTR(rq->easy));
		fail(rq, AVIARY_E_NO_MEMORY, 0, NULL, NULL);
		return;
	}
	if (rq->idle_ms > 0) {
		rq->moved_ms = avc_now_ms();
		rq->idle.on_due = on_idle;
		avc_timer_start(c, &rq->idle, rq->idle_ms);
	}
}

static bool dup_headers(struct avc_request *rq, const struct avc_request_spec *spec)
{
	for (size_t i = 0; i < spec->n_headers; i++) {
		AV_CLEANUP(av_buf_clear) struct av_buf line = AV_BUF_INIT(AVC_HEADERS_MAX);
		const aviary_pair *h = &spec->headers[i];
		struct curl_slist *l = NULL;

		/* "Name;" is how libcurl is told to send one that is empty. */
		(void)av_buf_printf(&line, "%s%s%s", h->name, h->value[0] ? ": " : ";", h->value);
		if (av_buf_cstr(&line))
			l = curl_slist_append(rq->more, av_buf_cstr(&line));
		if (!l)
			return false;
		rq->more = l;
	}
	return true;
}

static void set_times(struct avc_request *rq, const struct avc_request_spec *spec)
{
	bool streams = spec->source || spec->sink || spec->watches_idle;

	rq->timeout_ms = spec->timeout_ms ? spec->timeout_ms
	                 : streams        ? -1
	                                  : rq->c->request_timeout_ms;
	if (streams)
		rq->idle_ms = AV_MIN(
		    spec->idle_ms ? spec->idle_ms : rq->c->request_timeout_ms, (int64_t)INT32_MAX);
	if (spec->source)
		rq->source = *spec->source;
	if (spec->sink)
		rq->sink = *spec->sink;
	rq->time_was_said = spec->timeout_ms > 0 || spec->idle_ms > 0;
	rq->has_source = spec->source != NULL;
	rq->has_sink = spec->sink != NULL;
	rq->source_type = spec->source_type;
	rq->any_status = spec->any_status;
	rq->opaque = spec->opaque || spec->any_status;
	rq->wants_head = spec->any_status || (spec->sink && spec->sink->begin);
}

struct avc_request *avc_request_start(
    aviary_client *c, const struct avc_request_spec *spec, avc_reply_fn *fn, void *ctx)
{
	struct avc_request *rq = calloc(1, sizeof(*rq));
	bool good;

	if (!rq) {
		json_decref(spec->body);
		return NULL;
	}
	av_list_init(&rq->link);
	av_list_init(&rq->timer.link);
	av_list_init(&rq->idle.link);
	av_list_init(&rq->wake.link);
	av_buf_init(&rq->reply, spec->reply_max ? spec->reply_max : AVC_REPLY_MAX);
	av_buf_init(&rq->head, AVC_HEADERS_MAX);
	rq->transfer.on_done = finished;
	rq->c = c;
	rq->fn = fn;
	rq->ctx = ctx;
	rq->method = spec->method;
	set_times(rq, spec);
	rq->anonymous = spec->anonymous || spec->host_token;
	rq->again =
	    !spec->never_again &&
	    (spec->idempotency_key || spec->repeatable || strcmp(spec->method, "GET") == 0 ||
	        strcmp(spec->method, "PUT") == 0 || strcmp(spec->method, "DELETE") == 0);
	good = avc_dup_text(&rq->path, spec->path) &&
	       avc_dup_text(&rq->host_token, spec->host_token) &&
	       avc_dup_text(&rq->idempotency_key, spec->idempotency_key) &&
	       avc_dup_text(&rq->sandbox_id, spec->sandbox_id) &&
	       avc_dup_text(&rq->file, spec->file);
	if (good && spec->body) {
		rq->body = avc_json_text(spec->body);
		good = rq->body != NULL;
		rq->body_size = good ? strlen(rq->body) : 0;
	}
	json_decref(spec->body);
	good = good && dup_headers(rq, spec);
	rq->content_type = spec->raw.p ? spec->content_type : "application/json";
	if (good && spec->raw.p) {
		rq->body = av_str_dup(spec->raw);
		good = rq->body != NULL;
		rq->body_size = spec->raw.n;
	}
	if (!good) {
		request_free(rq);
		return NULL;
	}
	av_list_append(&c->requests, &rq->link);
	/* The first try is made by whoever drives, so that fn never comes from inside the call. */
	rq->timer.on_due = on_pause_over;
	avc_timer_start(c, &rq->timer, 0);
	return rq;
}

void avc_request_cancel(struct avc_request *rq)
{
	if (!rq)
		return;
	rq->canceled = rq->busy;
	if (!rq->busy)
		request_free(rq);
}

bool avc_request_was_sent(const struct avc_request *rq)
{
	return rq->tries > 0;
}

void avc_request_hand_over(struct avc_request *rq, avc_reply_fn *fn, void *ctx)
{
	rq->fn = fn;
	rq->ctx = ctx;
}
