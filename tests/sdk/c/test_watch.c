/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_watch.c - watching directories of a sandbox through libaviary
 */
#include <unistd.h>

#include "tests/sdk/c/sdk.h"

static void shell(aviary_sandbox *sb, const char *script)
{
	aviary_process *p = aviary_sandbox_shell(sb, script);
	aviary_error e;
	const aviary_exec_result *r = aviary_await_process(p, &e);

	if (!r || r->exit_code != 0)
		ok(false, "%s: %s %s", script, e.message, r ? r->err : "");
	aviary_process_free(p);
}

/* Until an event of that type and name comes; others are passed over. */
static bool comes(aviary_watch *w, enum aviary_watch_type type, const char *name)
{
	aviary_watch_event e;
	int r;

	while ((r = aviary_watch_next(w, &e, 30000)) == 1)
		if (e.type == type && (!name || strcmp(e.name, name) == 0))
			return true;
	diag("%s instead of %d \"%s\": %s", aviary_code_name(r), (int)type, name ? name : "",
	    aviary_op_error(aviary_watch_op(w))->message);
	return false;
}

static void test_events(aviary_sandbox *sb)
{
	aviary_watch *w;
	aviary_watch_event e;

	shell(sb, "mkdir -p /root/w");
	w = aviary_file_watch(sb, "w", NULL);
	ok(comes(w, AVIARY_WATCH_STARTED, ""), "it begins");
	is_int(aviary_watch_next(w, &e, 50), AVIARY_E_AGAIN, "nothing yet");
	shell(sb, "cd /root/w && echo x >f && mv f g && chmod 600 g && rm g && mkdir d && echo y "
	          ">d/below");
	ok(comes(w, AVIARY_WATCH_CREATED, "f") && comes(w, AVIARY_WATCH_WRITTEN, "f"),
	    "created and written");
	ok(comes(w, AVIARY_WATCH_RENAMED, "f") && comes(w, AVIARY_WATCH_CREATED, "g"), "renamed");
	ok(comes(w, AVIARY_WATCH_CHANGED, "g") && comes(w, AVIARY_WATCH_REMOVED, "g"),
	    "changed and removed");
	ok(comes(w, AVIARY_WATCH_CREATED, "d"), "a directory");
	while (aviary_watch_next(w, &e, 100) == 1)
		ok(!strstr(e.name, "below"), "but not what is in it (%s)", e.name);
	is_int(aviary_op_code(aviary_watch_op(w)), AVIARY_E_AGAIN, "it goes on");
	aviary_watch_free(w);
}

struct seen {
	int started, created;
	bool free_it, freed;
};

static void on_event(void *ctx, aviary_watch *w, const aviary_watch_event *e)
{
	struct seen *s = ctx;

	s->started += e->type == AVIARY_WATCH_STARTED;
	s->created += e->type == AVIARY_WATCH_CREATED;
	if (s->created && s->free_it) {
		s->freed = true;
		aviary_watch_free(w);
	}
}

/* Waits until n were. */
static void created(aviary_watch *w, const struct seen *s, int n)
{
	for (int i = 0; i < 500 && s->created < n; i++)
		(void)aviary_op_wait(aviary_watch_op(w), 20);
}

static void test_callback(aviary_sandbox *sb)
{
	aviary_file_options o = AVIARY_FILE_OPTIONS_INIT;
	struct seen s = {0};
	aviary_watch *w;
	aviary_op *op;

	o.recursive = 1;
	shell(sb, "mkdir -p /root/r/a");
	w = aviary_file_watch(sb, "/root/r", &o);
	aviary_watch_on_event(w, on_event, &s);
	while (!s.started && aviary_op_wait(aviary_watch_op(w), 20) == AVIARY_E_AGAIN)
		;
	shell(sb, "cd /root/r && echo x >a/f && mkdir -p b/c && sleep 0.1 && echo y >b/c/g");
	created(w, &s, 4);
	is_int(s.created, 4, "what is below is told, and what is below what appears");
	shell(sb, "cd /root/r && i=0 && while [ $i -lt 100 ]; do mkdir -p m$i/n; i=$((i+1)); done");
	created(w, &s, 204);
	is_int(s.created, 204, "at any moment");
	s.free_it = true;
	op = aviary_op_ref(aviary_watch_op(w));
	shell(sb, "echo z >/root/r/z");
	is_int(
	    aviary_op_wait(op, 30000), AVIARY_E_CANCELED, "one that frees itself in its callback");
	aviary_op_free(op);
	ok(s.freed, "is gone");
}

static void test_errors(aviary_client *c, aviary_sandbox *sb)
{
	const struct {
		const char *path;
		int code;
	} bad[] = {{"/nosuch", AVIARY_E_FILE_NOT_FOUND},
	    {"/etc/passwd", AVIARY_E_FILE_NOT_DIRECTORY}, {"", AVIARY_E_INVALID}};
	aviary_client *other = sdk_client();
	aviary_sandbox *same = aviary_sandbox_attach(other, aviary_sandbox_id(sb)), *victim;
	aviary_watch_event e;
	aviary_watch *w;
	int code;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		w = aviary_file_watch(sb, bad[i].path, NULL);
		code = aviary_watch_next(w, &e, 30000);
		ok(code == bad[i].code &&
		        strcmp(aviary_op_error(aviary_watch_op(w))->path, bad[i].path) == 0,
		    "watch \"%s\": %s: %s", bad[i].path, aviary_code_name(code),
		    aviary_op_error(aviary_watch_op(w))->message);
		is_int(aviary_watch_next(w, &e, 0), code, "which stays so");
		aviary_watch_free(w);
	}
	victim = sdk_sandbox(c);
	w = aviary_file_watch(victim, "/tmp", NULL);
	ok(comes(w, AVIARY_WATCH_STARTED, ""), "a watch of a sandbox");
	sdk_remove(victim);
	code = aviary_watch_next(w, &e, 30000);
	ok(code < 0 && code != AVIARY_E_AGAIN, "that is removed ends: %s: %s",
	    aviary_code_name(code), aviary_op_error(aviary_watch_op(w))->message);
	aviary_watch_free(w);
	w = aviary_file_watch(same, "/tmp", NULL);
	ok(comes(w, AVIARY_WATCH_STARTED, ""), "a watch of a client");
	aviary_client_free(other);
	is_int(aviary_watch_next(w, &e, 1000), AVIARY_E_CANCELED, "that is freed ends");
	aviary_watch_free(w);
	aviary_sandbox_free(same);
}

/* Whether "after" comes, or that something was missed again; or a code. */
static int after(aviary_watch *w)
{
	aviary_watch_event e;
	int r;

	while ((r = aviary_watch_next(w, &e, 30000)) == 1)
		if (e.type == AVIARY_WATCH_OVERFLOW ||
		    (e.type == AVIARY_WATCH_CREATED && strcmp(e.name, "after") == 0))
			return (int)e.type;
	return r;
}

static void test_overflow(aviary_sandbox *sb)
{
	aviary_watch *w;
	int type;

	shell(sb, "mkdir -p /tmp/many");
	w = aviary_file_watch(sb, "/tmp/many", NULL);
	ok(comes(w, AVIARY_WATCH_STARTED, ""), "a watch that nobody reads");
	shell(sb, "cd /tmp/many && n=$(printf 'n%.0s' $(seq 1 240)) && i=0 && while [ $i -lt 80000 "
	          "]; do : >$n$i; i=$((i+1)); done");
	ok(comes(w, AVIARY_WATCH_OVERFLOW, ""), "tells that it missed something");
	/* Perhaps more than once: both the agent and, behind it, the kernel forget. */
	do {
		shell(sb, "rm -f /tmp/many/after && touch /tmp/many/after");
		type = after(w);
	} while (type == AVIARY_WATCH_OVERFLOW);
	is_int(type, AVIARY_WATCH_CREATED, "and goes on");
	aviary_watch_free(w);
}

int main(void)
{
	aviary_client *c = sdk_client();
	aviary_sandbox *sb = sdk_sandbox(c);

	test_events(sb);
	test_callback(sb);
	test_errors(c, sb);
	test_overflow(sb);
	sdk_remove(sb);
	aviary_client_free(c);
	return tap_done();
}
