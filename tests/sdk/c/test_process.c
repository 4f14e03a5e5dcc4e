/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_process.c - programs in a sandbox: results, streams, input, terminals, taking up again
 */
#include <fcntl.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "tests/sdk/c/sdk.h"

#define SOON 20000

static aviary_process *start(aviary_sandbox *sb, unsigned flags, const char *script)
{
	const char *const command[] = {"/bin/sh", "-c", script};
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;

	o.flags = flags;
	o.command = (aviary_strings){command, 3};
	return aviary_sandbox_exec(sb, &o);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Reads to the end; how many bytes. */
static int64_t drain(aviary_process *p, enum aviary_channel ch)
{
	char buf[65536];
	int64_t n, all = 0;

	while ((n = aviary_process_read(p, ch, buf, sizeof(buf), SOON)) > 0)
		all += n;
	return n < 0 ? n : all;
}

static void test_results(aviary_sandbox *sb)
{
	const char *const command[] = {"sh", "-c", "pwd; echo $X $(id -un) >&2; exit 3"};
	const aviary_pair envs[] = {{"X", "y=z"}};
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;
	const aviary_exec_result *r;
	aviary_exec_result *own;
	aviary_process *p;
	aviary_error e;
	int code = -1;

	o.command = (aviary_strings){command, 3};
	o.envs = (aviary_pairs){envs, 1};
	o.cwd = "/usr/lib";
	o.user = "root";
	own = aviary_sandbox_exec_sync(sb, &o, &e);
	ok(own && own->exit_code == 3, "an exit code");
	is_str(own ? own->out : "", "/usr/lib\n", "a directory");
	is_str(own ? own->err : "", "y=z root\n", "environment and user");
	aviary_exec_result_free(own);

	o.flags = AVIARY_EXEC_CHECK;
	own = aviary_sandbox_exec_sync(sb, &o, &e);
	ok(!own && e.code == AVIARY_E_EXEC_FAILED && strstr(e.message, "3: y=z root"), "check: %s",
	    e.message);

	p = start(sb, AVIARY_EXEC_COLLECT, "printf 'a\\0b'; kill -SEGV $$");
	r = aviary_await_process(p, &e);
	ok(r && r->exit_code == 139 && r->signal == 11, "a signal");
	ok(r && r->out_size == 3 && memcmp(r->out, "a\0b", 4) == 0, "bytes, with a NUL behind");
	ok(aviary_process_poll(p, &code) == 1 && code == 139, "poll");
	ok(aviary_process_pid(p) > 0, "it had a pid");
	aviary_process_free(p);

	p = start(sb, AVIARY_EXEC_COLLECT | AVIARY_EXEC_MERGE, "echo a; echo b >&2; echo c");
	r = aviary_await_process(p, &e);
	ok(r && r->out_size == 6 && r->err_size == 0, "merged");
	aviary_process_free(p);

	memset(&o, 0, sizeof(o));
	o.struct_size = sizeof(o);
	o.flags = AVIARY_EXEC_COLLECT;
	o.collect_max = 1000;
	o.command = (aviary_strings){(const char *const[]){"sh", "-c", "seq 100000; seq 5 >&2"}, 3};
	p = aviary_sandbox_exec(sb, &o);
	r = aviary_await_process(p, &e);
	ok(r && r->out_size == 1000 && r->out_truncated && memcmp(r->out, "1\n2\n", 4) == 0,
	    "the first bytes are kept, and it is said");
	ok(r && !r->err_truncated && r->err_size == 10, "of that one all");
	aviary_process_free(p);

	o.collect_max = 0;
	o.timeout_ms = 300;
	o.command = (aviary_strings){(const char *const[]){"sh", "-c", "echo x; sleep 100"}, 3};
	p = aviary_sandbox_exec(sb, &o);
	r = aviary_await_process(p, &e);
	ok(!r && e.code == AVIARY_E_EXEC_TIMEOUT, "a time-out: %s", e.message);
	r = aviary_process_result(p);
	ok(r && r->timed_out && strcmp(r->out, "x\n") == 0, "with what it said");
	aviary_process_free(p);
}

static void test_refusals(aviary_client *c, aviary_sandbox *sb)
{
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;
	aviary_sandbox *none = aviary_sandbox_attach(c, "sb0000000000000000000000000");
	aviary_process *p;
	char *large = malloc(300000);

	o.command = (aviary_strings){(const char *const[]){"/no/such/program"}, 1};
	p = aviary_sandbox_exec(sb, &o);
	is_int(aviary_op_wait(aviary_process_op(p), SOON), AVIARY_E_EXEC_NOT_FOUND, "no program");
	is_code(aviary_process_started(p), AVIARY_E_EXEC_NOT_FOUND);
	aviary_process_free(p);
	o.command = (aviary_strings){(const char *const[]){"/etc/passwd"}, 1};
	p = aviary_sandbox_exec(sb, &o);
	is_int(aviary_op_wait(aviary_process_op(p), SOON), AVIARY_E_EXEC_NOT_EXECUTABLE,
	    "no program either");
	aviary_process_free(p);
	o.command = (aviary_strings){(const char *const[]){"echo", "\xff"}, 2};
	p = aviary_sandbox_exec(sb, &o);
	is_int(aviary_op_wait(aviary_process_op(p), SOON), AVIARY_E_INVALID, "not UTF-8");
	aviary_process_free(p);
	o.command.n = 0;
	p = aviary_sandbox_exec(sb, &o);
	is_int(aviary_op_wait(aviary_process_op(p), SOON), AVIARY_E_INVALID, "no command");
	ok(!aviary_process_result(p), "and no result");
	is_int(aviary_process_signal(p, "SIGTERM"), AVIARY_E_STATE, "nothing to signal");
	aviary_process_free(p);
	memset(large, 'x', 299999);
	large[299999] = '\0';
	o.command = (aviary_strings){(const char *const[]){"echo", large}, 2};
	p = aviary_sandbox_exec(sb, &o);
	is_int(
	    aviary_op_wait(aviary_process_op(p), SOON), AVIARY_E_TOO_LARGE, "too long a command");
	aviary_process_free(p);
	free(large);
	p = start(none, 0, "true");
	is_int(
	    aviary_op_wait(aviary_process_op(p), SOON), AVIARY_E_SANDBOX_NOT_FOUND, "no sandbox");
	aviary_process_free(p);
	aviary_sandbox_free(none);
	p = aviary_sandbox_connect(sb, "no-such-tag");
	is_int(aviary_op_wait(aviary_process_op(p), SOON), AVIARY_E_EXEC_NOT_FOUND, "no process");
	aviary_process_free(p);
	is_code(aviary_sandbox_kill(sb, "no-such-tag", NULL), AVIARY_E_EXEC_NOT_FOUND);
	aviary_process_free(NULL);
}

static void test_streams(aviary_sandbox *sb)
{
	const void *data;
	const char *line;
	char buf[16];
	aviary_process *p;
	int64_t n, lines = 0;

	p = start(sb, 0, "echo one; echo two >&2; printf three; sleep 0.1; printf 'x\\nfour'");
	is_int(aviary_process_read_line(p, AVIARY_STDOUT, &line, SOON), 4, "a line");
	is_str(line, "one\n", "with its newline");
	is_int(
	    aviary_process_read_line(p, AVIARY_STDOUT, &line, SOON), 7, "one that came in pieces");
	is_str(line, "threex\n", "whole");
	n = aviary_process_read_line(p, AVIARY_STDOUT, &line, SOON);
	ok(n == 4 && strcmp(line, "four") == 0, "the last without one");
	is_int(aviary_process_read_line(p, AVIARY_STDOUT, &line, SOON), 0, "the end");
	is_int(aviary_process_read(p, AVIARY_STDERR, buf, 2, SOON), 2, "bytes");
	n = aviary_process_peek(p, AVIARY_STDERR, &data, SOON);
	ok(n == 2 && memcmp(data, "o\n", 2) == 0, "a look");
	is_int(aviary_process_consume(p, AVIARY_STDERR, 3), AVIARY_E_INVALID,
	    "not more than there is");
	is_int(aviary_process_consume(p, AVIARY_STDERR, 2), 0, "taken");
	is_int(aviary_process_peek(p, AVIARY_STDERR, &data, SOON), 0, "the end of that one");
	aviary_process_free(p);

	p = start(sb, 0, "sleep 100");
	n = now_ms();
	is_int(aviary_process_read(p, AVIARY_STDOUT, buf, 1, 100), AVIARY_E_AGAIN, "nothing yet");
	ok(now_ms() - n >= 95, "after its time");
	is_int(aviary_process_poll(p, NULL), 0, "it runs");
	aviary_op_cancel(aviary_process_op(p));
	is_int(aviary_process_read(p, AVIARY_STDOUT, buf, 1, SOON), AVIARY_E_CANCELED, "cancelled");
	aviary_process_free(p);

	/* A line of more than 1 MiB, and one that is just shorter. */
	p = start(
	    sb, 0, "head -c 1048570 /dev/zero; echo; head -c 1100000 /dev/zero; echo; echo z");
	is_int(aviary_process_read_line(p, AVIARY_STDOUT, &line, SOON), 1048571, "a long line");
	is_int(aviary_process_read_line(p, AVIARY_STDOUT, &line, SOON), AVIARY_E_TOO_LARGE,
	    "too long a line");
	n = drain(p, AVIARY_STDOUT);
	ok(n == 1100003, "which can be read: %lld", (long long)n);
	aviary_process_free(p);

	/* Nobody reads: the program waits, and all is there afterwards. */
	p = start(sb, 0, "i=0; while [ $i -lt 40 ]; do head -c 100000 /dev/zero; i=$((i+1)); done");
	is_int(
	    aviary_op_wait(aviary_process_op(p), 300), AVIARY_E_AGAIN, "it waits for its reader");
	n = drain(p, AVIARY_STDOUT);
	ok(n == 4000000, "who gets all: %lld", (long long)n);
	aviary_process_free(p);

	/* Collected, and read as well. */
	p = start(sb, AVIARY_EXEC_COLLECT, "seq 1000; seq 300000 >&2");
	while ((n = aviary_process_read_line(p, AVIARY_STDOUT, &line, SOON)) > 0)
		lines++;
	ok(n == 0 && lines == 1000, "lines of what is collected");
	is_int(
	    aviary_op_wait(aviary_process_op(p), SOON), 0, "and the other output holds nobody up");
	ok(aviary_process_result(p)->out_size == 3893 &&
	        aviary_process_result(p)->err_size == 1988895,
	    "both are kept");
	aviary_process_free(p);
}

struct sink {
	int64_t n;
	int calls, hold, freed;
	aviary_process *p;
	pthread_t thread;
};

static int to_sink(void *ctx, aviary_process *p, enum aviary_channel ch, const void *data, size_t n)
{
	struct sink *s = ctx;

	(void)p, (void)ch, (void)data;
	__atomic_add_fetch(&s->n, (int64_t)n, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&s->calls, 1, __ATOMIC_SEQ_CST);
	return s->hold;
}

static int free_it(void *ctx, aviary_process *p, enum aviary_channel ch, const void *data, size_t n)
{
	struct sink *s = ctx;

	(void)ch, (void)data, (void)n;
	__atomic_add_fetch(&s->calls, 1, __ATOMIC_SEQ_CST);
	aviary_process_free(p);
	__atomic_store_n(&s->freed, 1, __ATOMIC_SEQ_CST);
	return 0;
}

static int cancel_it(
    void *ctx, aviary_process *p, enum aviary_channel ch, const void *data, size_t n)
{
	char c;

	(void)ch, (void)data, (void)n;
	++*(int *)ctx;
	aviary_op_cancel(aviary_process_op(p));
	if (aviary_process_read(p, AVIARY_STDOUT, &c, 1, -1) != AVIARY_E_CANCELED)
		*(int *)ctx += 100;
	return 0;
}

static void test_callbacks(aviary_client *c, aviary_sandbox *sb)
{
	struct sink s = {.hold = 1};
	aviary_process *p;
	int64_t end;
	int called = 0;

	p = start(sb, 0, "head -c 3000000 /dev/zero");
	aviary_process_on_output(p, to_sink, &s);
	is_int(aviary_op_wait(aviary_process_op(p), 500), AVIARY_E_AGAIN, "a callback holds it up");
	is_int(__atomic_load_n(&s.calls, __ATOMIC_SEQ_CST), 1, "and gets nothing more");
	for (end = now_ms() + SOON; !aviary_op_is_done(aviary_process_op(p)) && now_ms() < end;) {
		aviary_process_resume(p);
		(void)aviary_op_wait(aviary_process_op(p), 1);
	}
	is_int(aviary_op_code(aviary_process_op(p)), 0, "until it says go on");
	is_int(s.n, 3000000, "and it got all");
	aviary_process_free(p);

	/* Set when all has come. */
	s = (struct sink){0};
	p = start(sb, AVIARY_EXEC_COLLECT, "seq 10");
	is_int(aviary_op_wait(aviary_process_op(p), SOON), 0, "over");
	aviary_process_on_output(p, to_sink, &s);
	is_code(aviary_sandbox_refresh(sb), 0);
	is_int(__atomic_load_n(&s.n, __ATOMIC_SEQ_CST), 21, "what came before comes first");
	aviary_process_free(p);

	s = (struct sink){0};
	aviary_process_on_output(start(sb, 0, "while echo x; do :; done"), free_it, &s);
	for (end = now_ms() + SOON; !__atomic_load_n(&s.freed, __ATOMIC_SEQ_CST) && now_ms() < end;)
		(void)aviary_await(aviary_sandbox_refresh(sb), NULL);
	is_int(s.calls, 1, "freed from its callback");

	p = start(sb, 0, "echo x; sleep 100");
	aviary_process_on_output(p, cancel_it, &called);
	is_int(aviary_op_wait(aviary_process_op(p), SOON), AVIARY_E_CANCELED, "cancelled from it");
	aviary_process_free(p);
	is_int(called, 1, "which may not wait");
	(void)c;
}

static void test_input(aviary_sandbox *sb)
{
	static char block[100000];
	aviary_process *p;
	char pid[16];
	int64_t n, all = 0;

	p = start(sb, AVIARY_EXEC_STDIN | AVIARY_EXEC_COLLECT, "wc -c");
	for (int i = 0; i < 30; i++)
		all += aviary_process_write(p, block, sizeof(block), SOON);
	is_int(aviary_process_close_stdin(p), 0, "closed");
	is_int(aviary_process_write(p, "x", 1, SOON), AVIARY_E_EXEC_STDIN, "nothing after that");
	is_int(aviary_op_wait(aviary_process_op(p), SOON), 0, "it ends");
	is_str(aviary_process_result(p)->out, "3000000\n", "and got all");
	aviary_process_free(p);
	is_int(all, 3000000, "all was taken");

	/* Before it runs. */
	p = start(sb, AVIARY_EXEC_STDIN | AVIARY_EXEC_COLLECT, "cat; echo end");
	is_int(aviary_process_close_stdin(p), 0, "closed at once");
	is_int(aviary_op_wait(aviary_process_op(p), SOON), 0, "it ends as well");
	is_str(aviary_process_result(p)->out, "end\n", "with nothing");
	aviary_process_free(p);

	p = start(sb, AVIARY_EXEC_STDIN, "sleep 100");
	is_code(aviary_process_started(p), 0);
	all = 0;
	while ((n = aviary_process_write(p, block, sizeof(block), 200)) > 0 && all < (64 << 20))
		all += n;
	ok(n == AVIARY_E_AGAIN && all < (32 << 20), "who does not read stops the writer (%lld)",
	    (long long)all);
	is_int(aviary_process_signal(p, "SIGNAL"), AVIARY_E_INVALID, "no such signal");
	(void)snprintf(pid, sizeof(pid), "%d", (int)aviary_process_pid(p));
	is_code(aviary_sandbox_kill(sb, pid, NULL), 0);
	is_int(aviary_op_wait(aviary_process_op(p), SOON), 0, "killed past what waits");
	is_int(aviary_process_result(p)->signal, 9, "by SIGKILL");
	aviary_process_free(p);

	p = start(sb, 0, "trap 'echo got; exit 7' TERM; while :; do sleep 0.05; done");
	is_int(aviary_process_write(p, "x", 1, 0), AVIARY_E_EXEC_STDIN, "no input was asked for");
	is_code(aviary_process_started(p), 0);
	usleep(200000);
	is_int(aviary_process_signal(p, "SIGTERM"), 0, "signalled");
	is_int(aviary_op_wait(aviary_process_op(p), SOON), 0, "it ends");
	ok(aviary_process_result(p)->exit_code == 7 || aviary_process_result(p)->signal == 15,
	    "by it");
	aviary_process_free(p);
}

/* Until its output has said text; true if it did. */
static bool until(aviary_process *p, const char *text)
{
	static char all[200000];
	size_t n = 0;
	int64_t r;

	while (n < sizeof(all) - 1 && (r = aviary_process_read(p, AVIARY_STDOUT, all + n,
	                                   sizeof(all) - 1 - n, SOON)) > 0) {
		n += (size_t)r;
		all[n] = '\0';
		if (strstr(all, text))
			return true;
	}
	diag("not %s but %.*s", text, (int)n, all);
	return false;
}

static void say(aviary_process *p, const char *text)
{
	if (aviary_process_write(p, text, strlen(text), SOON) != (int64_t)strlen(text))
		ok(false, "write %s", text);
}

static void test_terminal(aviary_sandbox *sb)
{
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;
	aviary_process *p, *again;
	char tag[64];

	o.flags = AVIARY_EXEC_DETACH;
	o.cols = 100;
	o.rows = 30;
	p = aviary_sandbox_terminal(sb, &o);
	say(p, "stty size; echo $TERM\n");
	ok(until(p, "30 100\r\nxterm-256color"), "a terminal has its size and kind");
	is_int(aviary_process_resize(p, 120, 40), 0, "resized");
	is_int(aviary_process_resize(p, 70000, 40), AVIARY_E_INVALID, "not to that");
	say(p, "stty size\n");
	ok(until(p, "40 120"), "and it knows");
	say(p, "MARK=there\n");
	snprintf(tag, sizeof(tag), "%s", aviary_process_tag(p));
	ok(strncmp(tag, "term-", 5) == 0, "it has a tag");
	is_int(aviary_process_detach(p), 0, "detach");
	is_int(aviary_op_wait(aviary_process_op(p), SOON), 0, "let go of");
	ok(!aviary_process_result(p), "it is not over");
	aviary_process_free(p);

	o.cols = 90;
	o.rows = 20;
	again = aviary_sandbox_connect_with(sb, tag, &o);
	say(again, "echo $MARK; stty size\n");
	ok(until(again, "there\r\n20 90"), "taken up again, with another size");
	aviary_process_free(again);
	again = aviary_sandbox_connect(sb, tag);
	say(again, "exit 5\n");
	is_int(aviary_op_wait(aviary_process_op(again), SOON), 0, "over");
	is_int(aviary_process_result(again)->exit_code, 5, "by itself");
	aviary_process_free(again);

	p = aviary_sandbox_terminal(sb, NULL);
	is_code(aviary_process_started(p), 0);
	snprintf(tag, sizeof(tag), "%s", aviary_process_tag(p));
	is_int(aviary_process_detach(p), AVIARY_E_STATE, "one that is bound cannot be detached");
	aviary_process_free(p);
	for (int i = 0; i < 100 && aviary_sandbox_kill_sync(sb, tag, NULL, NULL) == 0; i++)
		usleep(50000);
	is_code(aviary_sandbox_kill(sb, tag, NULL), AVIARY_E_EXEC_NOT_FOUND);
}

/* Whether one with the tag lives. */
static bool lives(aviary_sandbox *sb, const char *tag, bool check)
{
	aviary_op *op = aviary_sandbox_processes(sb);
	aviary_processes *l = aviary_op_wait(op, SOON) == 0 ? aviary_op_take_processes(op) : NULL;
	bool found = false;

	for (size_t i = 0; l && i < l->n_processes; i++) {
		const aviary_process_info *info = l->processes[i];

		if (!info->tag || strcmp(info->tag, tag) != 0)
			continue;
		found = true;
		if (check)
			ok(strcmp(info->cmd, "sh") == 0 && info->args.n == 2 &&
			        strcmp(info->args.items[0], "-c") == 0,
			    "it is listed with what it is");
	}
	aviary_processes_free(l);
	aviary_op_free(op);
	return found;
}

/* Within some seconds. */
static bool becomes(aviary_sandbox *sb, const char *tag, bool alive)
{
	for (int i = 0; i < 100; i++) {
		if (lives(sb, tag, false) == alive)
			return true;
		usleep(50000);
	}
	return false;
}

static void test_detached(aviary_sandbox *sb)
{
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;
	aviary_process *p;
	const char *line;
	int64_t n = 0, r;

	/* Its handle is freed before it was even started. */
	o.flags = AVIARY_EXEC_DETACH;
	o.tag = "daemon";
	o.command = (aviary_strings){
	    (const char *const[]){"sh", "-c", "sleep 0.5; seq 500000; echo end; sleep 100"}, 3};
	aviary_process_free(aviary_sandbox_exec(sb, &o));
	ok(becomes(sb, "daemon", true), "a detached one is started");
	(void)lives(sb, "daemon", true);
	usleep(1200000);

	p = aviary_sandbox_connect(sb, "daemon");
	while ((r = aviary_process_read_line(p, AVIARY_STDOUT, &line, SOON)) > 0) {
		n += r;
		if (strcmp(line, "end\n") == 0)
			break;
	}
	ok(r == 4 && n > 900000, "what it has said last: %lld bytes", (long long)n);
	is_int(aviary_process_dropped(p), 3388895 + 4 - n, "what is missing before");
	is_code(aviary_process_started(p), 0);
	ok(aviary_process_pid(p) > 0, "its pid");
	aviary_process_free(p);
	p = aviary_sandbox_connect(sb, "daemon");
	is_code(aviary_process_started(p), 0);
	aviary_op_cancel(aviary_process_op(p));
	aviary_process_free(p);
	is_code(aviary_sandbox_kill(sb, "daemon", "SIGTERM"), 0);

	/* Cancelling what was started kills it. */
	o.tag = "cancelled";
	o.command = (aviary_strings){(const char *const[]){"sleep", "100"}, 2};
	p = aviary_sandbox_exec(sb, &o);
	is_code(aviary_process_started(p), 0);
	aviary_op_cancel(aviary_process_op(p));
	aviary_process_free(p);
	ok(becomes(sb, "cancelled", false), "a cancelled one is gone");
}

static void test_utf8(void)
{
	const char text[] =
	    "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z\xff\xe2\x82|\xed\xa0\x80|\xf0\x9f";
	const char want[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z\xef\xbf\xbd\xef\xbf\xbd|"
	                    "\xef\xbf\xbd\xef\xbf\xbd"
	                    "\xef\xbf\xbd|\xef\xbf\xbd";
	bool good = true;

	for (size_t piece = 1; piece < sizeof(text); piece++) {
		aviary_utf8 u = {{0}, 0};
		char out[AVIARY_UTF8_ROOM(sizeof(text))], all[200];
		size_t n = 0, r;

		for (size_t i = 0; i < sizeof(text) - 1; i += piece) {
			size_t k = sizeof(text) - 1 - i < piece ? sizeof(text) - 1 - i : piece;

			r = aviary_utf8_decode(&u, text + i, k, out);
			memcpy(all + n, out, r);
			n += r;
		}
		n += aviary_utf8_finish(&u, all + n);
		good = good && n == sizeof(want) - 1 && memcmp(all, want, n) == 0;
	}
	ok(good, "characters that are cut anywhere");
}

/* More processes at once than connections, and requests beside them. */
static void test_many(aviary_client *c, aviary_sandbox *sb)
{
	aviary_process *p[90];
	aviary_op *ops[90], *mine[90];
	int good = 0;

	for (int i = 0; i < 90; i++) {
		p[i] = start(sb, i < 64 ? AVIARY_EXEC_STDIN : AVIARY_EXEC_COLLECT,
		    i < 64 ? "cat" : "echo x");
		ops[i] = mine[i] = aviary_process_op(p[i]);
	}
	for (int i = 0; i < 64; i++)
		good += aviary_process_write(p[i], "x\n", 2, SOON) == 2;
	is_int(good, 64, "64 processes at once");
	is_code(aviary_sandbox_refresh(sb), 0);
	ok(!aviary_op_is_done(mine[64]), "what is more waits");
	for (int i = 0; i < 64; i++)
		good += aviary_process_close_stdin(p[i]) == 0;
	for (int i = 0; i < 64; i++)
		good += drain(p[i], AVIARY_STDOUT) == 2;
	is_int(good, 192, "they end");
	is_int(aviary_wait(ops, 90, 0, SOON), 90, "and then those that waited");
	is_int(aviary_results(ops, 90, NULL), 0, "all well");
	for (int i = 0; i < 90; i++)
		aviary_process_free(p[i]);
	(void)c;
}

/* The sandbox goes away under them. */
static void test_loss(aviary_client *c)
{
	aviary_sandbox *sb = sdk_sandbox(c);
	aviary_process *p = start(sb, 0, "echo x; sleep 100");
	char buf[8];
	int r;

	is_int(aviary_process_read(p, AVIARY_STDOUT, buf, sizeof(buf), SOON), 2, "it runs");
	sdk_remove(aviary_sandbox_ref(sb));
	r = aviary_op_wait(aviary_process_op(p), SOON);
	ok(r == AVIARY_E_SANDBOX_TERMINATED || aviary_process_result(p),
	    "the end of the sandbox is told: %s", aviary_code_name(r));
	aviary_process_free(p);
	aviary_sandbox_free(sb);
}

int main(void)
{
	aviary_client *c = sdk_client(), *other = sdk_client();
	aviary_sandbox *sb = sdk_sandbox(c), *its;
	aviary_process *p, *q;

	test_results(sb);
	test_refusals(c, sb);
	test_streams(sb);
	test_callbacks(c, sb);
	test_input(sb);
	test_terminal(sb);
	test_detached(sb);
	test_many(c, sb);
	test_utf8();
	test_loss(c);

	its = aviary_sandbox_attach(other, aviary_sandbox_id(sb));
	p = start(its, 0, "sleep 100");
	q = start(its, 0, "yes");
	is_code(aviary_process_started(p), 0);
	aviary_client_free(other);
	ok(aviary_op_is_done(aviary_process_op(p)) && aviary_op_is_done(aviary_process_op(q)),
	    "a client that is freed leaves no process open");
	is_int(aviary_process_signal(p, "SIGTERM"), AVIARY_E_STATE, "nor does it answer");
	aviary_process_free(p);
	aviary_process_free(q);
	aviary_sandbox_free(its);
	sdk_remove(sb);
	aviary_client_free(c);
	return tap_done();
}
