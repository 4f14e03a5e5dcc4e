/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_qmp.c - commands to QEMU against a peer that is none, slow, or hostile
 */
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "lib/tap.h"
#include "vm/qmp.h"

#include "base/banned.h"

#define GREETING                                                                                   \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "         \
	"\"package\": \"Debian\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define GUARD_MS 10000

struct world {
	uv_loop_t loop;
	struct qmp *q;
	int peer;
	unsigned ready, events, answers, refused, ended;
	char event[40], error[480];
};

static void on_ready(void *ctx, const struct qmp_version *v)
{
	struct world *w = ctx;

	w->ready++;
	is_int(v->major * 10000 + v->minor * 100 + v->micro, 70222, "version");
	uv_stop(&w->loop);
}

static void on_event(void *ctx, const char *name, const json_t *data)
{
	struct world *w = ctx;

	(void)data;
	w->events++;
	snprintf(w->event, sizeof(w->event), "%s", name);
	uv_stop(&w->loop);
}

static void on_end(void *ctx, const struct av_err *why)
{
	struct world *w = ctx;

	w->ended++;
	snprintf(w->error, sizeof(w->error), "%s", why->message);
	qmp_close(AV_TAKE_PTR(w->q));
	uv_stop(&w->loop);
}

static const struct qmp_ops ops = {on_ready, on_event, on_end};

static void on_reply(void *ctx, const json_t *ret, const struct av_err *err)
{
	struct world *w = ctx;

	if (err) {
		w->refused++;
		snprintf(w->error, sizeof(w->error), "%s", err->message);
	} else {
		w->answers++;
		ok(json_is_object(ret), "an answer has its object");
	}
	uv_stop(&w->loop);
}

static void world_open(struct world *w, uint64_t timeout_ms)
{
	int pair[2];

	*w = (struct world){0};
	uv_loop_init(&w->loop);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	w->peer = pair[1];
	if (qmp_open(&w->loop, pair[0], timeout_ms, &ops, w, &w->q) < 0)
		abort();
}

static void say(struct world *w, const char *text)
{
	if (av_write_full(w->peer, text, strlen(text)) < 0)
		abort();
}

static void world_close(struct world *w)
{
	qmp_close(w->q);
	av_close_fd(&w->peer);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	is_int(uv_loop_close(&w->loop), 0, "nothing is left on the loop");
}

/* Greeted, capabilities asked for and granted. */
static void world_ready(struct world *w)
{
	char buf[512];
	ssize_t n;

	world_open(w, GUARD_MS);
	say(w, GREETING "{\"return\": {}, \"id\": 1}\n");
	uv_run(&w->loop, UV_RUN_DEFAULT);
	is_int(w->ready, 1, "ready");
	n = read(w->peer, buf, sizeof(buf) - 1);
	buf[n > 0 ? n : 0] = '\0';
	is_str(buf, "{\"execute\":\"qmp_capabilities\",\"id\":1}\n", "capabilities asked for");
}

static void test_talk(void)
{
	struct world w;
	char buf[512];
	ssize_t n;

	world_ready(&w);
	is_int(qmp_call(w.q, "stop", json_pack("{s:s}", "a", "b\"\n"), GUARD_MS, on_reply, &w), 0,
	    "call");
	n = read(w.peer, buf, sizeof(buf) - 1);
	buf[n > 0 ? n : 0] = '\0';
	is_str(
	    buf, "{\"execute\":\"stop\",\"arguments\":{\"a\":\"b\\\"\\n\"},\"id\":2}\n", "command");
	/* an event in between, in two pieces */
	say(&w, "{\"event\": \"STOP\", \"timest");
	uv_run(&w.loop, UV_RUN_NOWAIT);
	say(&w, "amp\": {}}\n");
	uv_run(&w.loop, UV_RUN_DEFAULT);
	is_str(w.event, "STOP", "event");
	say(&w, "{\"return\": {}, \"id\": 2}\n");
	uv_run(&w.loop, UV_RUN_DEFAULT);
	is_int(w.answers, 1, "answer");
	is_int(qmp_call(w.q, "x", NULL, GUARD_MS, on_reply, &w), 0, "call");
	say(&w,
	    "{\"id\": 3, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u001b[1m\"}}\n");
	uv_run(&w.loop, UV_RUN_DEFAULT);
	is_str(w.error, "QEMU refuses \"x\": no?[1m", "error, printable");
	for (int i = 0; i < QMP_PENDING_MAX; i++)
		ok(qmp_call(w.q, "x", NULL, GUARD_MS, on_reply, &w) == 0, "command %d", i);
	is_int(qmp_call(w.q, "x", NULL, GUARD_MS, on_reply, &w), -EBUSY, "no more than that");
	world_close(&w);
}

static void test_hostile(void)
{
	static const struct {
		const char *what, *text;
	} cases[] = {
	    {"no JSON", "hello\n"},
	    {"no object", "[]\n"},
	    {"neither answer nor event", "{\"a\": 1}\n"},
	    {"an answer to nothing", "{\"return\": {}, \"id\": 1}\n"},
	    {"an answer without id", "{\"return\": {}}\n"},
	    {"id of another type", "{\"return\": {}, \"id\": \"2\"}\n"},
	    {"twice the same key", "{\"event\": \"A\", \"event\": \"B\"}\n"},
	};
	struct world w;

	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++) {
		world_ready(&w);
		say(&w, cases[i].text);
		uv_run(&w.loop, UV_RUN_DEFAULT);
		ok(w.ended == 1 && w.events == 0, "%s ends it", cases[i].what);
		world_close(&w);
	}
	world_open(&w, GUARD_MS);
	say(&w,
	    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": -1, \"minor\": 2, \"major\": 7}}}}\n");
	uv_run(&w.loop, UV_RUN_DEFAULT);
	is_int(w.ended, 1, "a greeting with a wrong version ends it");
	world_close(&w);
	world_ready(&w);
	qmp_call(w.q, "x", NULL, GUARD_MS, on_reply, &w) == 0 ? (void)0 : abort();
	av_close_fd(&w.peer);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	ok(w.ended == 1 && !w.refused, "the end is told once, and not to commands");
	world_close(&w);
}

static void test_floods(void)
{
	static char big[QMP_LINE_MAX + 8192];
	struct world w;

	world_ready(&w);
	memset(big, ' ', sizeof(big));
	memcpy(big, "{\"event\"", 8);
	/* As much as fits into the socket, then what the loop has made room for. */
	for (size_t at = 0; at < sizeof(big) && !w.ended;) {
		ssize_t n = send(w.peer, big + at, sizeof(big) - at, MSG_DONTWAIT | MSG_NOSIGNAL);

		at += n > 0 ? (size_t)n : 0;
		uv_run(&w.loop, UV_RUN_NOWAIT);
	}
	while (!w.ended)
		uv_run(&w.loop, UV_RUN_ONCE);
	ok(strstr(w.error, "too long") != NULL, "a line without an end: %s", w.error);
	world_close(&w);

	world_ready(&w);
	for (int i = 0; i < QMP_EVENTS_PER_S * 20 && !w.ended; i++) {
		say(&w, "{\"event\": \"RTC_CHANGE\"}\n");
		uv_run(&w.loop, UV_RUN_NOWAIT);
	}
	ok(w.ended == 1 && w.events >= QMP_EVENTS_PER_S, "%u events end it", w.events);
	ok(strstr(w.error, "too many events") != NULL, "and it says so: %s", w.error);
	world_close(&w);

	world_ready(&w);
	for (int i = 0; i < QMP_EVENTS_PER_S * 3 && !w.ended; i++) {
		say(&w, "{\"event\": \"BLOCK_IO_ERROR\"}\n");
		uv_run(&w.loop, UV_RUN_NOWAIT);
	}
	ok(w.ended == 0 && w.events == QMP_EVENTS_PER_S * 3, "writes to a full disk do not");
	world_close(&w);

	world_ready(&w);
	memset(big, '[', 1000);
	memcpy(big, "{\"event\":", 9);
	big[1000] = '\n';
	big[1001] = '\0';
	say(&w, big);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	is_int(w.ended, 1, "depth is bounded");
	world_close(&w);
}

static void test_silence(void)
{
	struct world w;

	world_open(&w, 20);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	is_str(w.error, "QEMU does not take commands", "no greeting");
	world_close(&w);
	world_ready(&w);
	is_int(qmp_call(w.q, "cont", NULL, 20, on_reply, &w), 0, "call");
	uv_run(&w.loop, UV_RUN_DEFAULT);
	is_str(w.error, "QEMU does not answer \"cont\"", "no answer");
	world_close(&w);
}

int main(void)
{
	alarm(60);
	signal(SIGPIPE, SIG_IGN);
	test_talk();
	test_hostile();
	test_floods();
	test_silence();
	return tap_done();
}
