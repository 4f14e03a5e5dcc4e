/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch.c - requests to servers elsewhere: the queue, the thread, the way back (see fetch.h)
 */
#include "net/fetch.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "net/fetch_internal.h"

#include "base/banned.h"

#define POLL_MS 1000 /* how late a wait that is over is noticed */

struct av_fetch {
	struct av_loop *loop;
	bool threaded;
	bool dead; /* freed; what is left is the loop's post */
	pthread_t thread;
	CURLM *multi;
	struct av_list calls; /* all that are open */
	struct av_fetch_stats stats;

	pthread_mutex_t lock;    /* protects what follows */
	struct av_list incoming; /* struct av_fetch_call */
	struct av_list done;
	bool posted, stop, wake_canceled;
	struct av_post post;

	/* The thread's. */
	struct av_list waiting, running;
	size_t n_running;
};

static uint64_t now_ms(void)
{
	return (uint64_t)(av_mono_ns() / AV_NS_PER_MS);
}

/* ---- calls ---- */

struct av_fetch_call *fetch_call_new(
    struct av_fetch *f, av_fetch_fn *fn, void *ctx, int *ret_r, struct av_err *err)
{
	struct av_fetch_call *call;

	*ret_r = curl_lib_load(err);
	if (*ret_r < 0)
		return NULL;
	call = calloc(1, sizeof(*call));
	if (!call) {
		*ret_r = av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		return NULL;
	}
	av_list_init(&call->link);
	av_list_init(&call->all);
	call->f = f;
	call->fn = fn;
	call->ctx = ctx;
	av_buf_init(&call->body, AV_FETCH_BODY_MAX);
	av_buf_init(&call->head, AV_FETCH_HEAD_MAX);
	av_buf_init(&call->in, AV_FETCH_RESPONSE_MAX);
	return call;
}

static void wipe(char **p)
{
	if (*p)
		explicit_bzero(*p, strlen(*p));
	av_freep(p);
}

void fetch_call_free(struct av_fetch_call *call)
{
	if (!call)
		return;
	if (call->easy)
		curl_easy_cleanup(call->easy);
	curl_url_cleanup(call->parsed);
	curl_slist_free_all(call->headers);
	curl_slist_free_all(call->recipients);
	wipe(&call->method);
	wipe(&call->url);
	wipe(&call->user);
	wipe(&call->password);
	wipe(&call->from);
	av_buf_clear(&call->body);
	av_buf_clear(&call->head);
	av_buf_clear(&call->in);
	free(call);
}

/* ---- the thread ---- */

static void hand_back(struct av_fetch *f, struct av_fetch_call *call)
{
	pthread_mutex_lock(&f->lock);
	av_list_remove(&call->link);
	av_list_append(&f->done, &call->link);
	if (!f->posted) {
		f->posted = true;
		av_loop_post(f->loop, &f->post);
	}
	pthread_mutex_unlock(&f->lock);
}

static void end_running(struct av_fetch *f, struct av_fetch_call *call)
{
	curl_multi_remove_handle(f->multi, call->easy);
	curl_easy_cleanup(call->easy);
	call->easy = NULL;
	f->n_running--;
	hand_back(f, call);
}

static void take_incoming(struct av_fetch *f, bool *ret_stop, bool *ret_canceled)
{
	struct av_fetch_call *call;

	pthread_mutex_lock(&f->lock);
	AV_LIST_FOREACH(call, &f->incoming, struct av_fetch_call, link)
	{
		av_list_remove(&call->link);
		av_list_append(&f->waiting, &call->link);
	}
	*ret_stop = f->stop;
	*ret_canceled = f->wake_canceled;
	f->wake_canceled = false;
	pthread_mutex_unlock(&f->lock);
}

static void drop_canceled(struct av_fetch *f)
{
	struct av_fetch_call *call;

	AV_LIST_FOREACH(call, &f->waiting, struct av_fetch_call, link)
	if (atomic_load(&call->canceled))
		hand_back(f, call);
	AV_LIST_FOREACH(call, &f->running, struct av_fetch_call, link)
	if (atomic_load(&call->canceled))
		end_running(f, call);
}

static void begin_waiting(struct av_fetch *f)
{
	struct av_fetch_call *call;
	uint64_t now = now_ms();

	AV_LIST_FOREACH(call, &f->waiting, struct av_fetch_call, link)
	{
		if (f->n_running >= AV_FETCH_RUNNING_MAX) {
			if (now - call->queued_ms <= AV_FETCH_WAIT_MS)
				continue;
			(void)av_err_set(&call->err, AV_ERR_UNAVAILABLE,
			    "%d requests to other servers are under way, and this one waited "
			    "%d s for its turn",
			    AV_FETCH_RUNNING_MAX, AV_FETCH_WAIT_MS / 1000);
			hand_back(f, call);
			continue;
		}
		call->started_ms = now;
		if (!fetch_transfer_begin(call)) {
			hand_back(f, call);
			continue;
		}
		if (curl_multi_add_handle(f->multi, call->easy) != CURLM_OK) {
			(void)av_err_set(&call->err, AV_ERR_NO_MEMORY, "out of memory");
			hand_back(f, call);
			continue;
		}
		av_list_remove(&call->link);
		av_list_append(&f->running, &call->link);
		f->n_running++;
	}
}

static void take_results(struct av_fetch *f)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(f->multi, &left))) {
		struct av_fetch_call *call = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &call);
		fetch_transfer_end(call, m->data.result);
		end_running(f, call);
	}
}

static void *run(void *ctx)
{
	struct av_fetch *f = ctx;
	bool stop = false, canceled = false;
	int running;

	for (;;) {
		take_incoming(f, &stop, &canceled);
		if (stop)
			break;
		if (canceled)
			drop_canceled(f);
		begin_waiting(f);
		if (curl_multi_perform(f->multi, &running) != CURLM_OK)
			running = 0;
		take_results(f);
		/* Ended requests make room at once; else there is nothing to wait for but these. */
		if (!av_list_empty(&f->waiting) && f->n_running < AV_FETCH_RUNNING_MAX)
			continue;
		(void)curl_multi_poll(f->multi, NULL, 0,
		    av_list_empty(&f->waiting) && f->n_running == 0 ? INT32_MAX : POLL_MS, NULL);
	}
	struct av_fetch_call *call;
	AV_LIST_FOREACH(call, &f->running, struct av_fetch_call, link)
	{
		curl_multi_remove_handle(f->multi, call->easy);
		curl_easy_cleanup(call->easy);
		call->easy = NULL;
	}
	return NULL;
}

/* Signals are the loop's. libcurl's threads inherit the mask. */
static int start_thread(struct av_fetch *f, struct av_err *err)
{
	sigset_t all, old;
	int e;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return av_err_set(err, AV_ERR_INTERNAL, "cannot set up libcurl");
	f->multi = curl_multi_init();
	if (!f->multi) {
		curl_global_cleanup();
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	e = pthread_create(&f->thread, NULL, run, f);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e != 0) {
		curl_multi_cleanup(f->multi);
		f->multi = NULL;
		curl_global_cleanup();
		return av_err_sys(err, AV_ERR_UNAVAILABLE, e, "cannot start a thread");
	}
	f->threaded = true;
	return 0;
}

/* ---- the loop's side ---- */

static void answer(struct av_fetch *f, struct av_fetch_call *call)
{
	struct av_fetch_response res = {
	    .status = (int)call->status,
	    .head = av_buf_str(&call->head),
	    .body = av_buf_str(&call->in),
	    .elapsed_ms = call->started_ms ? (uint32_t)(now_ms() - call->started_ms) : 0,
	    .cut = call->cut,
	};
	bool failed = call->err.kind != AV_ERR_NONE;

	f->stats.open--;
	f->stats.failed += failed;
	f->stats.refused += call->err.kind == AV_ERR_FORBIDDEN;
	if (!call->muted)
		call->fn(call->ctx, failed ? NULL : &res, failed ? &call->err : NULL);
}

static void on_post(void *ctx)
{
	struct av_fetch *f = ctx;
	struct av_list now;
	struct av_fetch_call *call;

	if (f->dead) {
		free(f);
		return;
	}
	av_list_init(&now);
	pthread_mutex_lock(&f->lock);
	AV_LIST_FOREACH(call, &f->done, struct av_fetch_call, link)
	{
		av_list_remove(&call->link);
		av_list_append(&now, &call->link);
	}
	f->posted = false;
	pthread_mutex_unlock(&f->lock);
	while ((call = AV_LIST_FIRST(&now, struct av_fetch_call, link))) {
		av_list_remove(&call->link);
		av_list_remove(&call->all);
		answer(f, call);
		fetch_call_free(call);
	}
}

int av_fetch_new(struct av_loop *loop, struct av_fetch **ret)
{
	struct av_fetch *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->loop = loop;
	av_list_init(&f->calls);
	av_list_init(&f->incoming);
	av_list_init(&f->done);
	av_list_init(&f->waiting);
	av_list_init(&f->running);
	pthread_mutex_init(&f->lock, NULL);
	f->post = (struct av_post){.fn = on_post, .ctx = f};
	*ret = f;
	return 0;
}

void av_fetch_free(struct av_fetch *f)
{
	struct av_fetch_call *call;

	if (!f)
		return;
	if (f->threaded) {
		pthread_mutex_lock(&f->lock);
		f->stop = true;
		pthread_mutex_unlock(&f->lock);
		curl_multi_wakeup(f->multi);
		pthread_join(f->thread, NULL);
		curl_multi_cleanup(f->multi);
		curl_global_cleanup();
	}
	while ((call = AV_LIST_FIRST(&f->calls, struct av_fetch_call, all))) {
		av_list_remove(&call->all);
		av_list_remove(&call->link);
		(void)av_err_set(&call->err, AV_ERR_CANCELED, "Aviary is shutting down");
		answer(f, call);
		fetch_call_free(call);
	}
	pthread_mutex_destroy(&f->lock);
	f->dead = true;
	if (!f->posted)
		free(f);
}

int fetch_submit(
    struct av_fetch *f, struct av_fetch_call *call, struct av_fetch_call **ret, struct av_err *err)
{
	int r = 0;

	if (f->stats.open >= AV_FETCH_CALLS_MAX)
		r = av_err_set(err, AV_ERR_UNAVAILABLE,
		    "%d requests to other servers are under way; try again later",
		    AV_FETCH_CALLS_MAX);
	else if (!f->threaded)
		r = start_thread(f, err);
	if (r < 0) {
		fetch_call_free(call);
		return r;
	}
	call->queued_ms = now_ms();
	f->stats.open++;
	f->stats.started++;
	av_list_append(&f->calls, &call->all);
	pthread_mutex_lock(&f->lock);
	av_list_append(&f->incoming, &call->link);
	pthread_mutex_unlock(&f->lock);
	curl_multi_wakeup(f->multi);
	if (ret)
		*ret = call;
	return 0;
}

void av_fetch_cancel(struct av_fetch_call *call)
{
	struct av_fetch *f = call->f;

	call->muted = true;
	atomic_store(&call->canceled, true);
	pthread_mutex_lock(&f->lock);
	f->wake_canceled = true;
	pthread_mutex_unlock(&f->lock);
	if (f->threaded)
		curl_multi_wakeup(f->multi);
}

void av_fetch_get_stats(const struct av_fetch *f, struct av_fetch_stats *ret)
{
	*ret = f->stats;
}

/* ---- requests ---- */

static bool is_token(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if ((unsigned char)*s <= 0x20 || (unsigned char)*s >= 0x7f ||
		    strchr("()<>@,;:\\\"/[]?={}", *s))
			return false;
	return true;
}

static bool is_header_value(const char *s)
{
	for (; *s; s++)
		if (((unsigned char)*s < 0x20 && *s != '\t') || (unsigned char)*s == 0x7f)
			return false;
	return true;
}

static int add_header(
    struct av_fetch_call *call, const struct av_fetch_header *h, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf line = AV_BUF_INIT(AV_FETCH_HEAD_MAX);
	struct curl_slist *list = NULL;

	if (!is_token(h->name) || !is_header_value(h->value))
		return av_err_set(err, AV_ERR_INVALID, "a header holds bytes that none may hold");
	/* libcurl takes "name:" as a wish to leave the header out. */
	(void)av_buf_printf(&line, h->value[0] ? "%s: %s" : "%s;", h->name, h->value);
	if (av_buf_cstr(&line))
		list = curl_slist_append(call->headers, av_buf_cstr(&line));
	if (!list)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	call->headers = list;
	return 0;
}

static int fill_headers(
    struct av_fetch_call *call, const struct av_fetch_request *rq, struct av_err *err)
{
	/* Without it libcurl waits a second for leave to send a body of more than 1 MiB. */
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");
	int r = 0;

	if (!list)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	call->headers = list;
	if (rq->n_headers > AV_FETCH_HEADERS_MAX)
		return av_err_set(
		    err, AV_ERR_INVALID, "more than %d headers", AV_FETCH_HEADERS_MAX);
	for (size_t i = 0; i < rq->n_headers && r == 0; i++)
		r = add_header(call, &rq->headers[i], err);
	return r;
}

static int fill(struct av_fetch_call *call, const struct av_fetch_request *rq, struct av_err *err)
{
	static const char *const schemes[] = {"https", "http", NULL};
	const char *method = rq->method ? rq->method : rq->body.p ? "POST" : "GET";
	int r = fetch_parse_url(call, rq->url, schemes, rq->reach, err);

	if (r < 0)
		return r;
	if (!is_token(method))
		return av_err_set(err, AV_ERR_INVALID, "'%.40s' is no method", method);
	call->setup = fetch_setup_http;
	call->rule = rq->reach ? FETCH_REACH : FETCH_ANY;
	if (rq->reach)
		call->reach = *rq->reach;
	call->has_body = rq->body.p != NULL;
	call->timeout_ms = rq->timeout_ms ? rq->timeout_ms : AV_FETCH_TIMEOUT_MS;
	call->redirects = AV_MIN(rq->redirects, (uint32_t)AV_FETCH_REDIRECTS_MAX);
	call->response_max =
	    rq->response_max ? AV_MIN(rq->response_max, AV_FETCH_RESPONSE_MAX) : (size_t)64 * 1024;
	call->cut_wanted = rq->cut;
	call->method = av_str_dup(av_str_c(method));
	if (!call->method || av_buf_append_str(&call->body, rq->body) == -ENOMEM)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (av_buf_error(&call->body) < 0)
		return av_err_set(
		    err, AV_ERR_TOO_LARGE, "a body of more than %zu bytes", AV_FETCH_BODY_MAX);
	return fill_headers(call, rq, err);
}

int av_fetch_start(struct av_fetch *f, const struct av_fetch_request *rq, av_fetch_fn *fn,
    void *ctx, struct av_fetch_call **ret, struct av_err *err)
{
	int r = 0;
	struct av_fetch_call *call = fetch_call_new(f, fn, ctx, &r, err);

	if (!call)
		return r;
	r = fill(call, rq, err);
	if (r < 0) {
		fetch_call_free(call);
		return r;
	}
	return fetch_submit(f, call, ret, err);
}

bool av_fetch_header(const struct av_fetch_response *res, const char *name, struct av_str *ret)
{
	struct av_str rest = res->head, line, key;

	while (rest.n > 0) {
		(void)av_str_cut(&rest, '\n', &line);
		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		if (av_str_cut(&line, ':', &key) && av_str_ieq(key, av_str_c(name))) {
			*ret = av_str_trim(line);
			return true;
		}
	}
	return false;
}
