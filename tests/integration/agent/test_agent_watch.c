/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_agent_watch.c - watching directories through the real agent
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/agent_client.h"
#include "lib/tap.h"
#include "proto/connect.h"

#define HUGE_N 60000

static struct agent_proc agent;
static struct agent_client cl;
static char dir[64] = "/tmp/aviary-watch-XXXXXX";
static const char *const json[] = {"content-type", "application/json", NULL};
static const char *const octets[] = {"content-type", "application/octet-stream", NULL};

static const char *file(const char *name)
{
	static char text[512];

	snprintf(text, sizeof(text), "%s/%s", dir, name);
	return text;
}

static struct agent_stream *call(const char *method, const char *body)
{
	char path[96];

	snprintf(path, sizeof(path), "/filesystem.Filesystem/%s", method);
	return agent_call(&cl, "POST", path, json, body);
}

static void check(const char *method, const char *body, int status, const char *part)
{
	struct agent_stream *s = call(method, body);

	ok(s->status == status && agent_has(&s->body, part), "%s %s: %d %.*s", method, body,
	    s->status, AV_STR_ARG(av_buf_str(&s->body)));
	agent_stream_free(s);
}

static void create(const char *more, char id[static 64])
{
	struct agent_stream *s;
	char body[1024];
	const char *p;

	snprintf(body, sizeof(body), "{\"path\":\"%s\"%s}", dir, more);
	s = call("CreateWatcher", body);
	id[0] = '\0';
	av_buf_append_char(&s->body, '\0');
	p = s->body.p ? strstr(s->body.p + s->body.off, "watcherId\":\"") : NULL;
	ok(s->status == 200 && p, "a watcher");
	if (p)
		snprintf(id, 64, "%.32s", p + 12);
	agent_stream_free(s);
}

/* "CREATE a CHMOD a ..." of what is new. */
static void events(const char *id, const char *want, const char *what)
{
	AV_CLEANUP(av_buf_clear) struct av_buf got = AV_BUF_INIT(65536);
	struct agent_stream *s;
	char body[128];
	const char *p, *name;

	snprintf(body, sizeof(body), "{\"watcherId\":\"%s\"}", id);
	s = call("GetWatcherEvents", body);
	av_buf_append_char(&s->body, '\0');
	p = s->body.p + s->body.off;
	while ((name = strstr(p, "{\"name\":\""))) {
		const char *type = strstr(name, "EVENT_TYPE_");

		name += 9;
		type += 11;
		av_buf_printf(&got, "%s%.*s %.*s", got.n ? " " : "", (int)strcspn(type, "\""), type,
		    (int)strcspn(name, "\""), name);
		p = type;
	}
	is_avstr(av_buf_str(&got), want, what);
	agent_stream_free(s);
}

static void upload(const char *name)
{
	char url[1024];
	struct agent_stream *s;

	snprintf(url, sizeof(url), "/files?path=%s/%s", dir, name);
	s = agent_call(&cl, "POST", url, octets, "content");
	is_int(s->status, 200, "upload");
	agent_stream_free(s);
}

static void rpc_path(const char *method, const char *name)
{
	char body[1024];

	snprintf(body, sizeof(body), "{\"path\":\"%s\"}", file(name));
	check(method, body, 200, "");
}

static void remove_watcher(const char *id, int status)
{
	char body[128];

	snprintf(body, sizeof(body), "{\"watcherId\":\"%s\"}", id);
	check("RemoveWatcher", body, status, status == 200 ? "{}" : "not found");
}

/* The order and number of events that clients of this protocol count on. */
static void test_polling(void)
{
	char id[64], body[1024];

	create("", id);
	events(id, "", "nothing yet");
	upload("new.txt");
	events(
	    id, "CREATE new.txt CHMOD new.txt WRITE new.txt", "an upload is three events, at once");
	events(id, "", "told once");
	if (chmod(file("new.txt"), 0600) < 0)
		abort();
	events(id, "CHMOD new.txt", "a change of mode");
	snprintf(
	    body, sizeof(body), "{\"source\":\"%s/new.txt\",\"destination\":\"%s/b\"}", dir, dir);
	check("Move", body, 200, "");
	events(id, "RENAME new.txt CREATE b", "a rename");
	rpc_path("Remove", "b");
	events(id, "REMOVE b", "a removal");
	rpc_path("MakeDir", "sub");
	upload("sub/inside");
	events(id, "CREATE sub", "what is deeper is not told");
	remove_watcher(id, 200);
	remove_watcher(id, 404);
	check("GetWatcherEvents", "{\"watcherId\":\"x\"}", 404, "watcher with id x not found");
}

static void test_recursive(void)
{
	char id[64];

	create(",\"recursive\":true", id);
	upload("sub/two");
	events(id, "CREATE sub/two CHMOD sub/two WRITE sub/two", "in a directory that was there");
	rpc_path("MakeDir", "sub/x/y");
	upload("sub/x/y/f");
	events(id, "CREATE sub/x CREATE sub/x/y CREATE sub/x/y/f CHMOD sub/x/y/f WRITE sub/x/y/f",
	    "in directories made a moment ago");
	if (rename(file("sub/x"), "/tmp/aviary-watch-away") < 0 ||
	    unlink("/tmp/aviary-watch-away/y/f") < 0 ||
	    mkdir("/tmp/aviary-watch-away/y/z", 0755) < 0)
		abort();
	events(id, "RENAME sub/x", "what was moved out is not ours");
	if (rename("/tmp/aviary-watch-away", file("back")) < 0)
		abort();
	events(id, "CREATE back CREATE back/y CREATE back/y/z",
	    "what is moved in is told with what is in it");
	upload("back/y/z/g");
	events(id, "CREATE back/y/z/g CHMOD back/y/z/g WRITE back/y/z/g", "and watched");
	if (symlink("/etc", file("link")) < 0)
		abort();
	events(id, "CREATE link", "a link is not followed");
	rpc_path("Remove", "back");
	events(id, "REMOVE back/y/z/g REMOVE back/y/z REMOVE back/y REMOVE back", "a tree");
	remove_watcher(id, 200);
}

static void test_entry(void)
{
	char id[64], body[128];
	struct agent_stream *s;

	create(",\"includeEntry\":true", id);
	upload("e");
	snprintf(body, sizeof(body), "{\"watcherId\":\"%s\"}", id);
	s = call("GetWatcherEvents", body);
	ok(agent_has(&s->body, "\"entry\":{\"name\":\"e\",\"type\":\"FILE_TYPE_FILE\""), "%.*s",
	    AV_STR_ARG(av_buf_str(&s->body)));
	agent_stream_free(s);
	remove_watcher(id, 200);
}

static struct agent_stream *stream(const char *name, const char *more)
{
	static const char *const headers[] = {
	    "content-type", "application/connect+json", "keepalive-ping-interval", "1", NULL};
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);
	char body[1024];

	snprintf(body, sizeof(body), "{\"path\":\"%s\"%s}", file(name), more);
	if (av_connect_write(&out, 0, av_str_c(body)) < 0)
		abort();
	return agent_request(
	    &cl, "POST", "/filesystem.Filesystem/WatchDir", headers, av_buf_str(&out), true);
}

static void await(struct agent_stream *s, const char *part)
{
	for (int i = 0; i < 200 && !agent_has(&s->body, part); i++)
		agent_pump(&cl, 50);
	ok(agent_has(&s->body, part), "the stream says %s", part);
}

static void test_stream(void)
{
	struct agent_stream *s = stream("", ""), *bad;

	await(s, "{\"start\":{}}");
	upload("streamed");
	await(s, "{\"filesystem\":{\"name\":\"streamed\",\"type\":\"EVENT_TYPE_WRITE\"}}");
	await(s, "{\"keepalive\":{}}");
	agent_stream_free(s);
	bad = stream("missing", "");
	agent_wait_end(bad);
	ok(bad->status == 200 && agent_has(&bad->body, "\"code\":\"not_found\""),
	    "a missing directory");
	agent_stream_free(bad);
	bad = stream("streamed", "");
	agent_wait_end(bad);
	ok(agent_has(&bad->body, "\"code\":\"invalid_argument\""), "a file");
	agent_stream_free(bad);
}

/* A storm that nobody reads ends in an overflow, in bounded memory. */
static void test_overflow(void)
{
	struct agent_stream *s = stream("", ",\"overflow\":true");
	char id[64], body[128];

	await(s, "{\"start\":{}}");
	create("", id);
	s->hold = true;
	for (int i = 0; i < 30000; i++) {
		int fd = open(file("storm"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

		close(fd);
		unlink(file("storm"));
		if (i % 1000 == 0)
			agent_pump(&cl, 0);
	}
	snprintf(body, sizeof(body), "{\"watcherId\":\"%s\"}", id);
	check("GetWatcherEvents", body, 500, "more has changed");
	events(id, "", "afterwards it goes on");
	remove_watcher(id, 200);
	s->hold = false;
	if (s->received > s->body.n)
		diag("%llu bytes", (unsigned long long)s->received);
	av_http2_consume(s->stream, av_http2_unconsumed(s->stream));
	await(s, "{\"overflow\":{}}");
	agent_stream_free(s);
}

/* Processor time to read it. */
static int64_t reading_ms(const char *path)
{
	struct timespec a, b;
	DIR *d = opendir(path);

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
	while (d && readdir(d))
		;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
	if (d)
		closedir(d);
	return (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
}

/* The first look at a huge directory goes in slices of 3 ms: others are served between them. */
static void test_huge(void)
{
	struct agent_stream *s;
	char name[96];
	int served = 0;
	int64_t ms;

	if (mkdir(file("huge"), 0755) < 0)
		abort();
	for (int i = 0; i < HUGE_N; i++) {
		snprintf(name, sizeof(name), "%s/huge/%06d", dir, i);
		if (mknod(name, S_IFREG | 0600, 0) < 0)
			abort();
	}
	ms = reading_ms(file("huge"));
	s = stream("huge", ",\"recursive\":true");
	while (!agent_has(&s->body, "{\"start\":{}}") && served < 10000) {
		agent_stream_free(agent_call(&cl, "GET", "/health", NULL, ""));
		served++;
	}
	/* One that is sent with it, and one that comes while it is read, are served in any case. */
	ok((served >= 4 || ms < 12) && served < 10000,
	    "%d requests were served meanwhile, which took %lld ms", served, (long long)ms);
	upload("huge/new");
	await(s, "{\"filesystem\":{\"name\":\"new\",\"type\":\"EVENT_TYPE_CREATE\"}}");
	agent_stream_free(s);
}

static void test_limits(void)
{
	char id[64], body[1024];

	snprintf(body, sizeof(body), "{\"path\":\"%s\"}", dir);
	for (int i = 0; i < 64; i++)
		create("", id);
	check("CreateWatcher", body, 429, "64 watches");
	remove_watcher(id, 200);
	create("", id);
}

int main(void)
{
	if (!mkdtemp(dir))
		abort();
	agent_proc_start(&agent);
	agent_client_open(&cl, &agent);
	test_polling();
	test_recursive();
	test_entry();
	test_stream();
	test_overflow();
	test_huge();
	test_limits();
	rpc_path("Remove", "");
	ok(access(dir, F_OK) < 0, "cleaned up");
	agent_client_close(&cl);
	agent_proc_stop(&agent);
	return tap_done();
}
