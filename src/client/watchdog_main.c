/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watchdog_main.c - aviary-watchdog: ends a program's sandboxes when the program has ended
 *
 * Theory of operation. Started by libaviary (watchdog.c) with descriptor 3, a socket on which the
 * program tells what it has, and 4, a pidfd of the program. It forks, so that it is nobody's child
 * there, and from then on only listens. When the program is no more, or its end of the socket is
 * shut (it executed another program), what was told and not taken back is stopped; a server that
 * does not answer is asked again for GIVE_UP_MS. It reacts to no signal that a terminal or a
 * service manager sends to a whole group: it outlives the program on purpose.
 *
 * Messages are lines of JSON:
 *   {"op": "settings", "settings": {...}, "grace_ms": N}   answered with one byte, the first time
 *   {"op": "add", "n": N, "id": ID} or {"op": "add", "n": N, "key": KEY, "body": JSON as text}
 *   {"op": "born", "n": N, "id": ID}      {"op": "gone", "n": N}      {"op": "bye"}
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/json.h"
#include "client/reap.h"

#include "base/banned.h"

#define LINE_MAX_BYTES ((size_t)8 << 20)
#define ENTRIES_MAX    ((size_t)100000)
#define TRY_MS         60000
#define GIVE_UP_MS     600000
#define PAUSE_MIN_MS   500
#define PAUSE_MAX_MS   30000

enum { SOCK = 3, PROGRAM = 4 };

struct watchdog {
	struct av_buf in;
	json_t *settings;
	json_t *entries; /* {"N": {"id"} or {"key", "body"}} */
	int64_t grace_ms;
	bool greeted, over, bye;
};

/* ---- messages ---- */

static void on_settings(struct watchdog *w, const json_t *m)
{
	json_t *settings = json_object_get(m, "settings");
	json_int_t grace_ms = json_integer_value(json_object_get(m, "grace_ms"));

	if (!json_is_object(settings))
		return;
	avc_settings_free(w->settings);
	w->settings = json_deep_copy(settings);
	if (grace_ms)
		w->grace_ms = grace_ms;
	if (!w->greeted && w->settings)
		w->greeted = send(SOCK, "R", 1, MSG_NOSIGNAL) == 1;
}

static void on_entry(struct watchdog *w, const json_t *m, const char *op)
{
	char number[24];
	json_t *e;

	(void)snprintf(
	    number, sizeof(number), "%lld", (long long)json_integer_value(json_object_get(m, "n")));
	if (strcmp(op, "gone") == 0) {
		(void)json_object_del(w->entries, number);
		return;
	}
	if (json_object_size(w->entries) >= ENTRIES_MAX)
		return;
	e = json_object();
	for (size_t i = 0; i < 3; i++) {
		static const char *const names[] = {"id", "key", "body"};
		json_t *text = json_object_get(m, names[i]);

		if (json_is_string(text))
			(void)json_object_set(e, names[i], text);
	}
	(void)json_object_set_new(w->entries, number, e);
}

static void on_line(struct watchdog *w, struct av_str line)
{
	AV_CLEANUP(av_json_decrefp) json_t *m = av_json_parse_object(line, NULL);
	const char *op = json_string_value(json_object_get(m, "op"));

	if (!op)
		return;
	if (strcmp(op, "settings") == 0)
		on_settings(w, m);
	else if (strcmp(op, "bye") == 0)
		w->bye = true;
	else if (strcmp(op, "add") == 0 || strcmp(op, "born") == 0 || strcmp(op, "gone") == 0)
		on_entry(w, m, op);
}

/* What is there. False: nothing comes any more. */
static bool take(struct watchdog *w)
{
	char *p, *end;
	ssize_t n;

	if (av_buf_reserve(&w->in, 65536, &p) < 0)
		return false;
	n = recv(SOCK, p, 65536, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		return false;
	av_buf_commit(&w->in, (size_t)n);
	while (!w->bye && (end = memchr(w->in.p + w->in.off, '\n', w->in.n))) {
		size_t size = (size_t)(end - (w->in.p + w->in.off));

		on_line(w, av_str_n(w->in.p + w->in.off, size));
		explicit_bzero(w->in.p + w->in.off, size);
		av_buf_consume(&w->in, size + 1);
	}
	return true;
}

/* Until the program is no more, or says that it needs nobody. */
static void listen_to_it(struct watchdog *w)
{
	struct pollfd at[2] = {{.fd = SOCK, .events = POLLIN}, {.fd = PROGRAM, .events = POLLIN}};

	while (!w->bye) {
		if (poll(at, 2, -1) < 0) {
			if (errno != EINTR)
				return;
			continue;
		}
		if (at[0].revents && !take(w))
			return;
		if (at[1].revents && !at[0].revents)
			return; /* it is over, and all it had written was read */
	}
}

/* ---- the end ---- */

static json_t *list_of(const struct watchdog *w)
{
	json_t *list = json_array(), *e;
	const char *number;

	json_object_foreach (w->entries, number, e)
		(void)json_array_append(list, e);
	return list;
}

/* Those that ended leave the entries. False: some did not. */
static bool try_once(struct watchdog *w)
{
	AV_CLEANUP(av_json_decrefp) json_t *list = list_of(w);
	size_t n = json_array_size(list), i = 0;
	bool *ended = calloc(n ? n : 1, sizeof(bool));
	struct avc_reap_job job = {
	    .settings = w->settings, .sandboxes = list, .grace_ms = w->grace_ms, .ended = ended};
	const char *number;
	void *next;
	json_t *e;

	if (!list || !ended) {
		free(ended);
		return false;
	}
	avc_reap(&job, 1, TRY_MS);
	json_object_foreach_safe(w->entries, next, number, e)
	{
		(void)e;
		if (ended[i++])
			(void)json_object_del(w->entries, number);
	}
	free(ended);
	return json_object_size(w->entries) == 0;
}

static void finish(struct watchdog *w)
{
	int64_t end_ms = avc_now_ms() + GIVE_UP_MS, pause_ms = PAUSE_MIN_MS;

	while (w->settings && json_object_size(w->entries) > 0 && !try_once(w) &&
	       avc_now_ms() < end_ms) {
		(void)poll(NULL, 0, (int)pause_ms);
		pause_ms = AV_MIN(pause_ms * 2, (int64_t)PAUSE_MAX_MS);
	}
}

static void ignore_signals(void)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGTSTP};

	for (size_t i = 0; i < AV_ARRAY_LEN(signals); i++)
		(void)signal(signals[i], SIG_IGN);
}

int main(void)
{
	struct watchdog w = {.in = AV_BUF_INIT(LINE_MAX_BYTES)};
	pid_t pid;

	ignore_signals();
	(void)prctl(PR_SET_DUMPABLE, 0); /* it holds credentials */
	pid = fork();
	if (pid != 0)
		_exit(pid < 0);
	if (chdir("/") < 0)
		return 1;
	w.entries = json_object();
	if (!w.entries)
		return 1;
	listen_to_it(&w);
	close(SOCK);
	if (!w.bye)
		finish(&w);
	avc_settings_free(w.settings);
	json_decref(w.entries);
	av_buf_clear(&w.in);
	return 0;
}
