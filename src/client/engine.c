/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.c - a client: what is waited for, and who drives (see internal.h)
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/avtime.h"
#include "client/pipe.h"
#include "client/stream.h"
#include "client/track.h"

#include "base/banned.h"

#define EVENTS_AT_ONCE  64
#define CONNECTIONS_MAX 64
#define TIME_MAX_MS     ((int64_t)INT32_MAX) /* what libcurl takes, too */

int64_t avc_now_ms(void)
{
	return av_mono_ns() / AV_NS_PER_MS;
}

int64_t avc_deadline(int64_t timeout_ms)
{
	int64_t now = avc_now_ms();

	return timeout_ms < 0 || timeout_ms > INT64_MAX - now ? INT64_MAX : now + timeout_ms;
}

aviary_client *avc_client_ref(aviary_client *c)
{
	atomic_fetch_add(&c->refs, 1);
	return c;
}

/* ---- descriptors and timers ---- */

int avc_watch_set(aviary_client *c, struct avc_watch *w, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = w};
	int op = !w->events ? EPOLL_CTL_ADD : !events ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;

	if (events == w->events)
		return 0;
	if (epoll_ctl(c->epoll_fd, op, w->fd, &e) < 0 && events)
		return -errno;
	w->events = events;
	return 0;
}

void avc_timer_start(aviary_client *c, struct avc_timer *t, int64_t delay_ms)
{
	struct av_list *at;

	av_list_remove(&t->link); /* first: it may be the last one */
	at = c->timers.prev;
	t->due_ms = avc_deadline(AV_MAX(delay_ms, (int64_t)0));
	while (at != &c->timers && AV_CONTAINER_OF(at, struct avc_timer, link)->due_ms > t->due_ms)
		at = at->prev;
	av_list_append(at->next, &t->link); /* before its successor */
	avc_wake(c);
}

void avc_timer_stop(struct avc_timer *t)
{
	av_list_remove(&t->link);
}

static void on_wake(struct avc_watch *w, uint32_t events)
{
	uint64_t n;

	(void)events;
	AV_CONTAINER_OF(w, aviary_client, wake)->awake = false;
	if (read(w->fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		assert(!"an eventfd can be read");
}

void avc_wake(aviary_client *c)
{
	const uint64_t one = 1;

	/* Who drives looks at everything again before it waits. */
	if (c->awake || (c->driving && pthread_equal(c->driver, pthread_self())))
		return;
	c->awake = write(c->wake_fd, &one, sizeof(one)) == sizeof(one);
}

void avc_bury(aviary_client *c, struct avc_corpse *corpse)
{
	av_list_append(&c->corpses, &corpse->link);
	avc_wake(c);
}

/* ---- libcurl's sockets ---- */

/* Registered without a watch, so that there is nothing to allocate, which could fail, and nothing
 * that outlives its descriptor: the event names the descriptor, with a bit that no address of a
 * watch has. That libcurl knows nothing of a descriptor (any more) does no harm. */
#define CURL_TAG   1u
#define CURL_SHIFT 1
static char registered; /* what libcurl keeps for us with a descriptor that is */

static void on_curl_ready(aviary_client *c, int fd, uint32_t events)
{
	int what = (events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
	           (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
	           (events & EPOLLERR ? CURL_CSELECT_ERR : 0);
	int running;

	(void)curl_multi_socket_action(c->multi, fd, what, &running);
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *known)
{
	aviary_client *c = ctx;
	struct epoll_event e = {.events = (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0) |
	                                  (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0),
	    .data.u64 = (uint64_t)fd << CURL_SHIFT | CURL_TAG};

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		(void)epoll_ctl(c->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	if (epoll_ctl(c->epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e) < 0)
		return -1;
	(void)curl_multi_assign(c->multi, fd, &registered);
	return 0;
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *ctx)
{
	aviary_client *c = ctx;

	(void)multi;
	c->curl_due_ms = timeout_ms < 0 ? -1 : avc_now_ms() + timeout_ms;
	return 0;
}

/* ---- driving ---- */

static int64_t until(int64_t due_ms, int64_t now_ms, int64_t wait_ms)
{
	int64_t left = due_ms > now_ms ? due_ms - now_ms : 0;

	return wait_ms < 0 || left < wait_ms ? left : wait_ms;
}

/* How long there is nothing to do unless a descriptor gets ready; at most max_ms (-1: no bound). */
static int64_t time_left(const aviary_client *c, int64_t max_ms)
{
	int64_t now = avc_now_ms();

	if (!av_list_empty(&c->fired) || !av_list_empty(&c->corpses))
		return 0;
	if (c->curl_due_ms >= 0)
		max_ms = until(c->curl_due_ms, now, max_ms);
	if (!av_list_empty(&c->timers))
		max_ms = until(
		    AV_CONTAINER_OF(c->timers.next, struct avc_timer, link)->due_ms, now, max_ms);
	return max_ms;
}

/* How many were due. */
static int run_timers(aviary_client *c)
{
	int64_t now = avc_now_ms();
	struct avc_timer *t;
	long left = -1;
	int running, due = 0;

	if (c->curl_due_ms >= 0 && c->curl_due_ms <= now) {
		due++;
		c->curl_due_ms = -1;
		(void)curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
		/* It does not say again what it has said already, should its clock be behind. */
		if (c->curl_due_ms < 0 && curl_multi_timeout(c->multi, &left) == CURLM_OK &&
		    left >= 0)
			c->curl_due_ms = now + AV_MAX(left, 1L);
	}
	while ((t = AV_LIST_FIRST(&c->timers, struct avc_timer, link)) && t->due_ms <= now) {
		av_list_remove(&t->link);
		t->on_due(t);
		due++;
	}
	return due;
}

/* Callbacks of the operations that have ended by now. */
static void call_back(aviary_client *c)
{
	struct avc_corpse *corpse;
	aviary_op *op;

	while ((op = AV_LIST_FIRST(&c->fired, struct aviary_op, link))) {
		aviary_op_fn *fn = op->fn;
		void *ctx = op->ctx;

		av_list_remove(&op->link);
		op->fn = NULL;
		avc_unlock(c);
		if (fn)
			fn(op, ctx);
		aviary_op_free(op);
		avc_lock(c);
	}
	while ((corpse = AV_LIST_FIRST(&c->corpses, struct avc_corpse, link))) {
		av_list_remove(&corpse->link);
		avc_unlock(c);
		corpse->bury(corpse);
		avc_lock(c);
	}
}

/* Only once until the loop comes round. */
static void stir(aviary_client *c)
{
	const uint64_t one = 1;

	if (c->stirred)
		return;
	c->stirred = true;
	c->awake = write(c->wake_fd, &one, sizeof(one)) == sizeof(one) || c->awake;
}

/* looks: it is a call of the caller's that does not wait, and not its loop. */
static void drive(aviary_client *c, int64_t timeout_ms, bool looks)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	int64_t wait_ms = time_left(c, timeout_ms);
	int n, done = 0;

	avc_unlock(c);
	n = epoll_wait(c->epoll_fd, events, EVENTS_AT_ONCE,
	    wait_ms < 0 ? -1 : (int)AV_MIN(wait_ms, (int64_t)INT32_MAX));
	avc_lock(c);
	for (int i = 0; i < n; i++) {
		struct avc_watch *w = events[i].data.ptr;

		if (w == &c->wake && looks && c->stirred)
			continue; /* that is for the loop */
		done += w != &c->wake;
		if (events[i].data.u64 & CURL_TAG)
			on_curl_ready(c, (int)(events[i].data.u64 >> CURL_SHIFT), events[i].events);
		else if (w->on_ready)
			w->on_ready(w, events[i].events);
	}
	done += run_timers(c);
	avc_requests_finish(c);
	call_back(c);
	if (done && looks)
		stir(c);
}

static int drive_or_wait(aviary_client *c, int64_t timeout_ms, bool looks)
{
	struct timespec at;

	if (c->driving && pthread_equal(c->driver, pthread_self()))
		return AVIARY_E_STATE;
	if (!c->driving) {
		c->driving = true;
		c->driver = pthread_self();
		drive(c, timeout_ms, looks);
		c->driving = false;
		pthread_cond_broadcast(&c->changed);
		return 0;
	}
	if (timeout_ms < 0) {
		pthread_cond_wait(&c->changed, &c->lock);
		return 0;
	}
	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += timeout_ms / 1000;
	at.tv_nsec += (timeout_ms % 1000) * AV_NS_PER_MS;
	if (at.tv_nsec >= AV_NS_PER_S) {
		at.tv_sec++;
		at.tv_nsec -= AV_NS_PER_S;
	}
	(void)pthread_cond_timedwait(&c->changed, &c->lock, &at);
	return 0;
}

int avc_drive(aviary_client *c, int64_t timeout_ms)
{
	return drive_or_wait(c, timeout_ms, timeout_ms == 0 && !c->threaded);
}

int avc_drive_until(aviary_client *c, int64_t end_ms, bool *driven)
{
	int64_t left = end_ms == INT64_MAX ? -1 : AV_MAX(end_ms - avc_now_ms(), (int64_t)0);

	if (left == 0 && *driven)
		return AVIARY_E_AGAIN;
	*driven = true;
	return avc_drive(c, left);
}

bool avc_is_driver(aviary_client *c)
{
	bool is;

	avc_lock(c);
	is = c->driving && pthread_equal(c->driver, pthread_self());
	avc_unlock(c);
	return is;
}

static void *run(void *ctx)
{
	aviary_client *c = ctx;

	avc_lock(c);
	while (!c->stop)
		(void)avc_drive(c, -1);
	avc_unlock(c);
	return NULL;
}

/* ---- for event loops ---- */

int aviary_client_fd(aviary_client *c)
{
	return c->threaded ? AVIARY_E_STATE : c->epoll_fd;
}

int aviary_client_timeout(aviary_client *c)
{
	int64_t ms;

	avc_lock(c);
	ms = c->stirred ? 0 : time_left(c, -1);
	avc_unlock(c);
	return ms < 0 ? -1 : (int)AV_MIN(ms, (int64_t)INT32_MAX);
}

int aviary_client_dispatch(aviary_client *c, int64_t timeout_ms)
{
	int r;

	avc_lock(c);
	if (c->stirred)
		timeout_ms = 0;
	c->stirred = false;
	r = c->threaded ? AVIARY_E_STATE : drive_or_wait(c, timeout_ms, false);
	if (r == 0)
		r = (int)AV_MIN(c->n_open, (size_t)INT32_MAX);
	avc_unlock(c);
	return r;
}

/* ---- life ---- */

static int64_t or_default(int64_t value, int64_t otherwise)
{
	return value ? AV_MIN(value, TIME_MAX_MS) : otherwise;
}

static int take_options(aviary_client *c, const aviary_client_options *o)
{
	bool no_env = (o->flags & AVIARY_CLIENT_NO_ENV) != 0;
	const char *ca = o->ca_file ? o->ca_file : no_env ? NULL : getenv("AVIARY_CA");
	char agent[200];

	(void)snprintf(agent, sizeof(agent), "%.150s%slibaviary/" AVIARY_VERSION,
	    o->user_agent ? o->user_agent : "", o->user_agent ? " " : "");
	c->no_env = no_env;
	c->connect_timeout_ms = or_default(o->connect_timeout_ms, 10000);
	c->request_timeout_ms = or_default(o->request_timeout_ms, 60000);
	c->retry_budget_ms = or_default(o->retry_budget_ms, 30000);
	c->silence_timeout_ms = or_default(o->silence_timeout_ms, 90000);
	if (c->connect_timeout_ms < 0)
		c->connect_timeout_ms = TIME_MAX_MS;
	if (c->silence_timeout_ms < 0)
		c->silence_timeout_ms = INT64_MAX / 4;
	c->ask = o->credentials;
	c->ask_ctx = o->credentials_ctx;
	if (!avc_dup_text(&c->unix_socket, o->unix_socket) || !avc_dup_text(&c->proxy, o->proxy) ||
	    !avc_dup_text(&c->user_agent, agent) ||
	    !avc_dup_text(&c->ca_file, ca && ca[0] ? ca : NULL) ||
	    !avc_dup_text(&c->credentials.api_key, o->api_key) ||
	    !avc_dup_text(&c->credentials.session_token, o->session_token))
		return AVIARY_E_NO_MEMORY;
	c->has_credentials = o->api_key || o->session_token;
	if (c->has_credentials && !avc_dup_text(&c->credentials.source, "the options"))
		return AVIARY_E_NO_MEMORY;
	return 0;
}

static int open_engine(aviary_client *c, const aviary_client_options *o)
{
	long max = o->max_connections ? (long)o->max_connections : CONNECTIONS_MAX;
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &attr);
	pthread_condattr_destroy(&attr);
	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->wake = (struct avc_watch){.fd = c->wake_fd, .on_ready = on_wake};
	if (c->epoll_fd < 0 || c->wake_fd < 0 || avc_watch_set(c, &c->wake, EPOLLIN) < 0 ||
	    curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return AVIARY_E_NO_MEMORY;
	c->multi = curl_multi_init();
	if (!c->multi)
		return AVIARY_E_NO_MEMORY;
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	/* Those of streams count for libcurl too; streams stand in a line of their own. */
	c->streams_max = (size_t)max;
	curl_multi_setopt(c->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, 2 * max);
	curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, max);
	return 0;
}

static void free_client(aviary_client *c)
{
	if (c->multi)
		(void)curl_multi_cleanup(c->multi);
	if (c->epoll_fd >= 0)
		close(c->epoll_fd);
	if (c->wake_fd >= 0)
		close(c->wake_fd);
	avc_credentials_clear(&c->credentials);
	if (c->remote)
		c->free_remote(c->remote);
	free(c->base_url);
	free(c->unix_socket);
	free(c->ca_file);
	free(c->proxy);
	free(c->user_agent);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

void avc_client_unref(aviary_client *c)
{
	if (atomic_fetch_sub(&c->refs, 1) == 1)
		free_client(c);
}

/* The last failure of a function that was given a client; a thread deals with one at a time. */
static _Thread_local aviary_error client_error;

int avc_client_failed(int code, const char *message)
{
	return avc_error_fill(&client_error, code, message);
}

static int start_thread(aviary_client *c)
{
	sigset_t all, old;
	int r;

	/* Signals are the program's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&c->thread, NULL, run, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	c->threaded = r == 0;
	return r == 0 ? 0 : avc_client_failed(AVIARY_E_NO_MEMORY, "cannot start a thread");
}

int aviary_client_new(aviary_client **ret, const aviary_client_options *options)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_client *c = calloc(1, sizeof(*c));
	int r;

	*ret = c;
	if (!c)
		return avc_client_failed(AVIARY_E_NO_MEMORY, NULL);
	if (options)
		memcpy(&o, options, AV_MIN(options->struct_size, sizeof(o)));
	atomic_init(&c->refs, 1);
	pthread_mutex_init(&c->lock, NULL);
	c->epoll_fd = c->wake_fd = -1;
	c->curl_due_ms = -1;
	av_list_init(&c->timers);
	av_list_init(&c->requests);
	av_list_init(&c->streams);
	av_list_init(&c->streams_waiting);
	av_list_init(&c->followers);
	av_list_init(&c->corpses);
	av_list_init(&c->pipes);
	av_list_init(&c->fired);
	av_list_init(&c->open);
	av_list_init(&c->waiters);
	av_list_init(&c->sandboxes);
	r = open_engine(c, &o);
	if (r == 0)
		r = take_options(c, &o);
	if (r < 0)
		return avc_client_failed(r, NULL);
	r = avc_credentials_check(&c->credentials, &client_error);
	if (r == 0)
		r = avc_base_url_find(c, o.base_url, &client_error);
	if (r == 0 && (o.flags & AVIARY_CLIENT_THREADED))
		r = start_thread(c);
	return r;
}

void aviary_client_free(aviary_client *c)
{
	if (!c)
		return;
	avc_lock(c);
	assert(!(c->driving && pthread_equal(c->driver, pthread_self())));
	c->stop = true;
	avc_wake(c);
	avc_unlock(c);
	if (c->threaded)
		pthread_join(c->thread, NULL);
	avc_lock(c);
	/* Whoever waits for something of it drives, or waits for who does. */
	c->closed = true;
	while (c->driving) {
		avc_wake(c);
		pthread_cond_wait(&c->changed, &c->lock);
	}
	c->driving = true;
	c->driver = pthread_self();
	avc_requests_end(c);
	avc_streams_end(c);
	avc_pipes_end(c);
	avc_followers_end(c);
	avc_ops_end(c);
	call_back(c);
	avc_streams_end(c); /* those that callbacks have freed */
	c->driving = false;
	pthread_cond_broadcast(&c->changed);
	avc_track_client_gone(c);
	avc_unlock(c);
	avc_client_unref(c);
}

const aviary_error *aviary_client_error(aviary_client *c)
{
	(void)c;
	if (!client_error.message)
		(void)avc_client_failed(AVIARY_OK, NULL);
	return &client_error;
}

const char *aviary_client_base_url(aviary_client *c)
{
	return c->base_url ? c->base_url : "";
}

const char *aviary_client_credentials_source(aviary_client *c)
{
	return c->credentials.source ? c->credentials.source : "";
}
