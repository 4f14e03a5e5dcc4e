/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup.c - ending sandboxes with the program: at exit, on signals, by a watchdog (see
 * aviary/cleanup.h)
 *
 * Theory of operation. What belongs to the process (dispositions of signals, the exit handler) has
 * one state here, the only one of the library: there is one process. A handler does nothing but
 * count and write a byte to a pipe; a thread that blocks every signal reads it, stops what is
 * tracked, and passes the signal on:
 *
 *   IDLE      a signal comes: STOPPING, and the byte
 *   STOPPING  another one: _exit(128 + n)
 *             done: the default disposition is set, and the thread dies by the signal with all;
 *             ignored before: IDLE; a handler before: PASSING, and the signal is sent anew
 *   PASSING   it arrives in a thread of the program: IDLE, and the handler of before runs there,
 *             with what the first one brought
 *
 * exit() is STOPPING too, so that an impatient ^C ends it. A forked child has these handlers and no
 * thread; `owner` tells it from the process that installed them.
 */
#include <aviary/cleanup.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/tracker.h"

#include "base/banned.h"

#define TIMEOUT_MS 30000
#define GRACE_MS   10000
#define TIME_MAX   3600000
#define ALL_FLAGS  (AVIARY_CLEANUP_ATEXIT | AVIARY_CLEANUP_SIGNALS | AVIARY_CLEANUP_WATCHDOG)

enum phase { IDLE, STOPPING, PASSING };

static const int caught[] = {SIGINT, SIGTERM};

/* Of the process; see above. Without the lock only what the handler reads. */
static struct {
	struct av_list trackers;
	bool has_trackers; /* the list is set up */
	bool at_exit, caught;
	bool has_thread;
	pthread_t thread;
	pthread_mutex_t sweeping; /* one at a time */
	/* for the handler */
	_Atomic pid_t owner;
	atomic_int phase, passing, pipe_in;
	siginfo_t first;
	struct sigaction before[AV_ARRAY_LEN(caught)];
	int pipe_out;
} g = {.sweeping = PTHREAD_MUTEX_INITIALIZER, .pipe_in = -1, .pipe_out = -1};

/* ---- stopping all ---- */

struct sweep {
	struct avc_reap_job *jobs;
	struct avc_tracked ***entries; /* of each job; a reference each */
	size_t n;
	int64_t timeout_ms;
};

static bool gather_entries(struct sweep *s, size_t at, const struct avc_tracker *t)
{
	struct avc_tracked *e;
	size_t n = 0;

	s->jobs[at] = (struct avc_reap_job){.settings = json_deep_copy(t->settings),
	    .sandboxes = avc_tracker_list(t),
	    .grace_ms = t->grace_ms,
	    .ended = calloc(t->n ? t->n : 1, sizeof(bool))};
	s->entries[at] = calloc(t->n ? t->n : 1, sizeof(struct avc_tracked *));
	if (!s->jobs[at].settings || !s->jobs[at].sandboxes || !s->jobs[at].ended ||
	    !s->entries[at])
		return false;
	AV_LIST_FOREACH(e, &t->entries, struct avc_tracked, link)
	{
		atomic_fetch_add(&e->refs, 1);
		s->entries[at][n++] = e;
	}
	return true;
}

/* With the lock. What those with that flag have. */
static void gather(struct sweep *s, unsigned flag)
{
	struct avc_tracker *t;
	size_t count = av_list_count(&g.trackers);

	s->jobs = calloc(count ? count : 1, sizeof(*s->jobs));
	s->entries = calloc(count ? count : 1, sizeof(*s->entries));
	if (!s->jobs || !s->entries)
		return;
	AV_LIST_FOREACH(t, &g.trackers, struct avc_tracker, link)
	{
		if (!(t->flags & flag) || !t->n)
			continue;
		s->timeout_ms = AV_MAX(s->timeout_ms, t->timeout_ms);
		if (!gather_entries(s, s->n++, t))
			/* No memory: the watchdog is left. */
			json_decref(AV_TAKE_PTR(s->jobs[s->n - 1].sandboxes));
	}
}

/* With the lock. Those that ended are known to be gone. */
static void sweep_clear(struct sweep *s)
{
	for (size_t i = 0; i < s->n; i++) {
		size_t n = json_array_size(s->jobs[i].sandboxes);

		for (size_t k = 0; s->entries[i] && k < n; k++) {
			if (s->jobs[i].ended[k])
				avc_tracker_forget(s->entries[i][k]);
			avc_track_unref(s->entries[i][k]);
		}
		avc_settings_free(s->jobs[i].settings);
		json_decref(s->jobs[i].sandboxes);
		free(s->jobs[i].ended);
		free(s->entries[i]);
	}
	free(s->jobs);
	free(s->entries);
}

static void sweep(unsigned flag)
{
	struct sweep s = {0};

	pthread_mutex_lock(&g.sweeping);
	avc_track_lock();
	gather(&s, flag);
	avc_track_unlock();
	if (s.n)
		avc_reap(s.jobs, s.n, s.timeout_ms);
	avc_track_lock();
	sweep_clear(&s);
	avc_track_unlock();
	pthread_mutex_unlock(&g.sweeping);
}

static void at_exit(void)
{
	int idle = IDLE;

	if (g.owner != getpid())
		return;
	(void)atomic_compare_exchange_strong(&g.phase, &idle, STOPPING);
	sweep(AVIARY_CLEANUP_ATEXIT);
}

/* ---- signals: in the handler ---- */

static struct sigaction *before_of(int sig)
{
	size_t i = 0;

	while (i + 1 < AV_ARRAY_LEN(caught) && caught[i] != sig)
		i++;
	return &g.before[i];
}

static bool is_handler(const struct sigaction *a)
{
	return (a->sa_flags & SA_SIGINFO) || (a->sa_handler != SIG_DFL && a->sa_handler != SIG_IGN);
}

static void call_before(struct sigaction *a, int sig, siginfo_t *info, void *context)
{
	struct sigaction now = *a;

	if (now.sa_flags & SA_RESETHAND) {
		a->sa_flags = 0;
		a->sa_handler = SIG_DFL;
	}
	if (now.sa_flags & SA_SIGINFO)
		now.sa_sigaction(sig, info, context);
	else
		now.sa_handler(sig);
}

/* In a forked child: as if nothing had been installed. */
static void in_child(struct sigaction *a, int sig, siginfo_t *info, void *context)
{
	if (is_handler(a)) {
		call_before(a, sig, info, context);
	} else if (a->sa_handler == SIG_DFL) {
		(void)signal(sig, SIG_DFL);
		(void)raise(sig); /* when this handler returns */
	}
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	struct sigaction *a = before_of(sig);
	int saved = errno, phase = IDLE;
	unsigned char byte = (unsigned char)sig;

	if (g.owner != getpid()) {
		in_child(a, sig, info, context);
	} else if (atomic_compare_exchange_strong(&g.phase, &phase, STOPPING)) {
		g.first = *info;
		if (write(g.pipe_in, &byte, 1) != 1)
			_exit(128 + sig);
	} else if (phase == PASSING && g.passing == sig) {
		siginfo_t first = g.first;

		g.phase = IDLE;
		call_before(a, sig, &first, context);
	} else {
		_exit(128 + sig);
	}
	errno = saved;
}

/* ---- signals: in the thread ---- */

static void die_by(int sig)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	(void)sigaction(sig, &dfl, NULL);
	(void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	(void)raise(sig);
	_exit(128 + sig); /* not reached */
}

static void pass_on(int sig)
{
	const struct sigaction *a = before_of(sig);

	if (is_handler(a)) {
		g.passing = sig;
		g.phase = PASSING;
		(void)kill(getpid(), sig);
	} else if (a->sa_handler == SIG_IGN) {
		g.phase = IDLE;
	} else {
		die_by(sig);
	}
}

static void *run(void *ctx)
{
	unsigned char sig;

	(void)ctx;
	for (;;) {
		ssize_t n = read(g.pipe_out, &sig, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n != 1 || sig == 0)
			return NULL;
		sweep(AVIARY_CLEANUP_SIGNALS);
		pass_on(sig);
	}
}

static int start_thread(void)
{
	sigset_t all, old;
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return AVIARY_E_NO_MEMORY;
	g.pipe_out = fds[0];
	g.pipe_in = fds[1];
	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&g.thread, NULL, run, NULL);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	g.has_thread = r == 0;
	if (r == 0)
		return 0;
	close(fds[0]);
	close(fds[1]);
	g.pipe_in = g.pipe_out = -1;
	return AVIARY_E_NO_MEMORY;
}

/* With the lock. */
static int catch_signals(void)
{
	int r = g.has_thread ? 0 : start_thread();

	if (r < 0 || g.caught)
		return r;
	g.caught = true;
	g.phase = IDLE;
	for (size_t i = 0; i < AV_ARRAY_LEN(caught); i++) {
		struct sigaction mine = {.sa_sigaction = on_signal};
		struct sigaction *old = &g.before[i];

		(void)sigaction(caught[i], NULL, old);
		/* A handler of the program's keeps its mask, and whether calls are restarted. */
		mine.sa_mask = old->sa_mask;
		mine.sa_flags =
		    SA_SIGINFO | (old->sa_flags & (SA_ONSTACK | SA_RESTART | SA_NODEFER));
		if (!is_handler(old))
			mine.sa_flags |= SA_RESTART;
		(void)sigaction(caught[i], &mine, NULL);
	}
	return 0;
}

static bool is_ours(const struct sigaction *a)
{
	return (a->sa_flags & SA_SIGINFO) && a->sa_sigaction == on_signal;
}

/* With the lock. What somebody has set meanwhile stays. */
static void release_signals(void)
{
	g.caught = false;
	for (size_t i = 0; i < AV_ARRAY_LEN(caught); i++) {
		struct sigaction now;

		if (sigaction(caught[i], NULL, &now) == 0 && is_ours(&now))
			(void)sigaction(caught[i], &g.before[i], NULL);
	}
}

/* Without the lock: the thread may be sweeping. */
static void end_thread(void)
{
	unsigned char stop = 0;

	if (!g.has_thread || write(g.pipe_in, &stop, 1) != 1)
		return;
	(void)pthread_join(g.thread, NULL);
	g.has_thread = false;
	close(g.pipe_out);
	close(g.pipe_in);
	g.pipe_in = g.pipe_out = -1;
}

/* ---- installing ---- */

static int check(const aviary_cleanup_options *o, char text[300])
{
	if (o->flags & ~ALL_FLAGS)
		(void)snprintf(text, 300, "flags 0x%x has an unknown bit", o->flags);
	else if (o->grace_ms > TIME_MAX || o->timeout_ms > TIME_MAX || o->timeout_ms < 0)
		(void)snprintf(text, 300,
		    "grace_ms and timeout_ms may be up to %d, and timeout_ms not negative",
		    TIME_MAX);
	else
		return 0;
	return AVIARY_E_INVALID;
}

/* Credentials are looked for now: later there may be no time. */
static int find_credentials(aviary_client *c, json_t **ret_settings)
{
	aviary_error error;
	int r = 0;

	avc_lock(c);
	if (c->closed)
		r = avc_client_failed(AVIARY_E_STATE, "the client was closed");
	else if (c->tracker)
		r = avc_client_failed(AVIARY_E_STATE, "clean-up is installed for this client");
	else if (!c->has_credentials)
		r = avc_credentials_find(c, false, &error);
	if (r < 0 && !c->closed && !c->tracker)
		r = avc_client_failed(r, error.message);
	if (r == 0)
		*ret_settings = avc_settings_of(c);
	avc_unlock(c);
	if (r == 0 && !*ret_settings)
		r = avc_client_failed(AVIARY_E_NO_MEMORY, NULL);
	return r;
}

static const char *watchdog_path(const aviary_client *c, const aviary_cleanup_options *o)
{
	const char *env = c->no_env ? NULL : getenv("AVIARY_WATCHDOG");

	if (o->watchdog)
		return o->watchdog;
	return env && *env ? env : AVIARY_WATCHDOG_PATH;
}

/* With the client's lock. What it has created before. */
static int track_present(aviary_client *c)
{
	struct aviary_sandbox *sb;
	int r = 0;

	AV_LIST_FOREACH(sb, &c->sandboxes, struct aviary_sandbox, in_client)
	{
		bool ours = sb->create || sb->session;

		if (r < 0 || !ours || sb->tracked || sb->detached || sb->stopped ||
		    sb->status == AVIARY_STATUS_STOPPED)
			continue;
		if (sb->id[0])
			r = avc_track_adopt(c, sb->id, &sb->tracked);
		else if (sb->birth == AVC_UNKNOWN)
			r = avc_track_create(c, sb->idempotency, sb->create, &sb->tracked);
	}
	return r;
}

/* With both locks. */
static int enlist(struct avc_tracker *t)
{
	int r = t->flags & AVIARY_CLEANUP_SIGNALS ? catch_signals() : 0;

	if (r == 0 && (t->flags & AVIARY_CLEANUP_ATEXIT) && !g.at_exit) {
		g.at_exit = atexit(at_exit) == 0;
		r = g.at_exit ? 0 : AVIARY_E_NO_MEMORY;
	}
	if (r < 0)
		return r;
	g.owner = getpid();
	if (!g.has_trackers)
		av_list_init(&g.trackers);
	g.has_trackers = true;
	av_list_append(&g.trackers, &t->link);
	return 0;
}

static int install(aviary_client *c, struct avc_tracker *t)
{
	int r;

	avc_lock(c);
	r = c->tracker ? AVIARY_E_STATE : 0; /* another thread was faster */
	if (r == 0) {
		avc_track_lock();
		r = enlist(t);
		if (r == 0)
			c->tracker = t;
		avc_track_unlock();
	}
	if (r == 0)
		r = track_present(c);
	avc_unlock(c);
	return r;
}

int aviary_cleanup_install(aviary_client *c, const aviary_cleanup_options *options)
{
	aviary_cleanup_options o = AVIARY_CLEANUP_OPTIONS_INIT;
	struct avc_tracker *t;
	char text[300];
	int r;

	if (options)
		memcpy(&o, options, AV_MIN(options->struct_size, sizeof(o)));
	if (check(&o, text) < 0)
		return avc_client_failed(AVIARY_E_INVALID, text);
	t = avc_tracker_new();
	if (!t)
		return avc_client_failed(AVIARY_E_NO_MEMORY, NULL);
	t->flags = o.flags ? o.flags : AVIARY_CLEANUP_ATEXIT | AVIARY_CLEANUP_SIGNALS;
	t->grace_ms = o.grace_ms ? o.grace_ms : GRACE_MS;
	t->timeout_ms = o.timeout_ms ? o.timeout_ms : TIMEOUT_MS;
	r = find_credentials(c, &t->settings);
	if (r == 0 && (t->flags & AVIARY_CLEANUP_WATCHDOG)) {
		r = avc_watchdog_start(
		    watchdog_path(c, &o), t->settings, t->grace_ms, &t->dog_fd, text);
		if (r < 0)
			(void)avc_client_failed(r, text[0] ? text : NULL);
	}
	if (r < 0) {
		avc_tracker_free(t);
		return r;
	}
	r = install(c, t);
	if (r == 0)
		return 0;
	if (c->tracker == t)
		aviary_cleanup_remove(c);
	else
		avc_tracker_free(t);
	return avc_client_failed(r, NULL);
}

/* With the lock. Whether one is left that wants signals. */
static bool signals_are_wanted(void)
{
	const struct avc_tracker *t;

	AV_LIST_FOREACH(t, &g.trackers, struct avc_tracker, link)
	if (t->flags & AVIARY_CLEANUP_SIGNALS)
		return true;
	return false;
}

void aviary_cleanup_remove(aviary_client *c)
{
	bool last = false;

	avc_lock(c);
	avc_track_lock();
	if (c->tracker) {
		avc_tracker_free(AV_TAKE_PTR(c->tracker));
		last = g.caught && !signals_are_wanted();
		if (last)
			release_signals();
	}
	avc_track_unlock();
	avc_unlock(c);
	if (last)
		end_thread();
}

void aviary_sandbox_detach(aviary_sandbox *sb)
{
	avc_lock(sb->c);
	sb->detached = true;
	avc_track_gone(sb->tracked);
	avc_track_unref(AV_TAKE_PTR(sb->tracked));
	avc_unlock(sb->c);
}

size_t aviary_cleanup_count(aviary_client *c)
{
	size_t n = 0;

	avc_lock(c);
	avc_track_lock();
	if (c->tracker)
		n = c->tracker->n;
	avc_track_unlock();
	avc_unlock(c);
	return n;
}

int aviary_cleanup_is_watched(aviary_client *c)
{
	struct pollfd at = {.fd = -1};
	bool told = true;

	avc_lock(c);
	avc_track_lock();
	if (c->tracker) {
		at.fd = c->tracker->dog_fd;
		told = !c->tracker->dog_lost;
	}
	/* It never writes again: readable is its end. */
	if (at.fd >= 0 && poll(&at, 1, 0) >= 0 && (at.revents & (POLLHUP | POLLERR)))
		av_close_fd(&c->tracker->dog_fd);
	at.fd = c->tracker ? c->tracker->dog_fd : -1;
	avc_track_unlock();
	avc_unlock(c);
	return at.fd >= 0 && told;
}
