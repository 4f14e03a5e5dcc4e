/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_agent_kernel.c - the real agent's kernels: state, output, errors, interrupts, deaths
 *
 * With the machine's python3 and the plain interpreter.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/json.h"
#include "lib/agent_client.h"
#include "lib/tap.h"
#include "proto/agent_api.h"

#define BEGUN 100 /* bytes: the first line, and some of the second */

static struct agent_proc agent;
static struct agent_client cl;
static const char *const lines_headers[] = {"accept", AV_AGENT_CT_KERNEL, NULL};

/* Begins an execution in the kernel ("" for the default one). */
static struct agent_stream *begin(const char *id, const char *code)
{
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(8 << 20);

	av_buf_append_c(&body, "{\"code\":");
	av_json_write_str(&body, av_str_c(code));
	av_buf_printf(&body, ",\"context_id\":\"%s\"}", id);
	return agent_request(&cl, "POST", "/execute", lines_headers, av_buf_str(&body), true);
}

static struct agent_stream *run(const char *id, const char *code)
{
	struct agent_stream *s = begin(id, code);

	agent_wait_end(s);
	return s;
}

/* Runs and checks that the answer has all of these (NULL at the end). */
static void expect(const char *id, const char *code, const char *const *parts, const char *what)
{
	struct agent_stream *s = run(id, code);
	bool good = s->status == 200;

	for (; *parts; parts++)
		if (!agent_has(&s->body, *parts)) {
			AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(1 << 24);

			av_json_write_str(&text, av_buf_str(&s->body));
			printf("# without %s: %.*s\n", *parts, (int)AV_MIN(text.n, (size_t)3000),
			    text.p);
			good = false;
		}
	ok(good, "%s", what);
	agent_stream_free(s);
}

#define EXPECT(id, code, what, ...) expect(id, code, (const char *const[]){__VA_ARGS__, NULL}, what)

static void create(const char *body, char id[static 37])
{
	struct agent_stream *s = agent_call(&cl, "POST", "/contexts", NULL, body);
	const char *at;

	is_int(s->status, 200, "a kernel");
	av_buf_append_char(&s->body, '\0');
	at = strstr(s->body.p + s->body.off, "\"id\":\"");
	snprintf(id, 37, "%.36s", at ? at + 6 : "");
	agent_stream_free(s);
}

static void test_values(void)
{
	EXPECT("", "x = 20\nx + 1", "the value of the last expression",
	    "execute_input {\"execution_count\":1,",
	    "execute_result "
	    "{\"data\":{\"text/plain\":\"21\"},\"metadata\":{},\"execution_count\":1}",
	    "finished {\"status\":\"ok\",\"execution_count\":1}");
	EXPECT("", "print('h\xc3\xa9', x)", "state lasts, and print() is one line",
	    "\"text\":\"h\xc3\xa9 20\\n\"");
	EXPECT("",
	    "import os, sys, subprocess, ctypes\nprint('self')\n"
	    "os.write(1, b'raw\\n')\nsubprocess.run(['echo', 'child'])\n"
	    "ctypes.CDLL(None).puts(b'stdio')\nprint('err', file=sys.stderr)\nNone",
	    "whoever writes is heard", "self\\n", "raw\\n", "child\\n", "stdio\\n",
	    "{\"name\":\"stderr\",\"text\":\"err\\n\"}");
	EXPECT("",
	    "class A:\n def _repr_html_(self): return '<b>'\n"
	    " def _repr_png_(self): return b'\\x89PNG'\n"
	    " def _repr_json_(self): return {'k': [1, '\xc3\xa9']}\n"
	    " def _repr_latex_(self): raise ValueError('no')\nA()",
	    "rich representations, and one that fails", "\"text/html\":\"<b>\"",
	    "\"image/png\":\"iVBORw==\"", "\"application/json\":{\"k\": [1, ",
	    "_repr_latex_ failed: ValueError: no");
	EXPECT("", "display(A()); display(3)", "display()", "display_data {\"data\":{\"text/html\"",
	    "display_data {\"data\":{\"text/plain\":\"3\"}");
	EXPECT("", "for i in range(3):\n print('p', i)\n display(i)",
	    "what is shown and printed keeps its order",
	    "\"text\":\"p 0\\n\"}\ndisplay_data {\"data\":{\"text/plain\":\"0\"},\"metadata\":{},"
	    "\"transient\":{}}\nstream {\"name\":\"stdout\",\"text\":\"p 1\\n\"}\ndisplay_data",
	    "\"text\":\"p 2\\n\"}\ndisplay_data");
	EXPECT("", "import asyncio\nawait asyncio.sleep(0.01)\nx", "await at the top", "\"20\"");
	EXPECT("", "  y = 1\n  y + 1", "an indented cell", "\"text/plain\":\"2\"");
	EXPECT("", "5;", "a semicolon hides the value", "finished {\"status\":\"ok\"");
}

static void test_errors(void)
{
	EXPECT("", "def f():\n  return 1/0\nf()", "an error",
	    "error {\"ename\":\"ZeroDivisionError\",\"evalue\":\"division by zero\"",
	    "Traceback (most recent call last)", "line 2, in f", "return 1/0",
	    "finished {\"status\":\"error\"");
	EXPECT("", "x = (", "an error of syntax", "\"ename\":\"SyntaxError\"");
	EXPECT("", "input('?')", "input() is refused", "\"ename\":\"EOFError\"", "not available");
	EXPECT("", "raise SystemExit(3)", "exit() is an error", "\"ename\":\"SystemExit\"");
	EXPECT("", "class E(Exception):\n def __str__(self): 1/0\nraise E",
	    "an error without a text", "\"ename\":\"E\"");
	EXPECT("", "import os\nif os.fork() == 0: raise ValueError('child')\nos.wait()[1] != 0",
	    "a fork's end is its own", "\"text/plain\":\"True\"", "ValueError: child");
	EXPECT("", "x", "and the kernel goes on", "\"20\"");
}

static void test_contexts(void)
{
	struct agent_stream *a, *b, *s;
	char one[37], two[37];

	create("{\"cwd\":\"/\"}", one);
	create("", two);
	EXPECT(one, "import os; os.getcwd()", "a kernel in its directory", "\"'/'\"");
	a = begin(one, "import time\nx = 'one'\ntime.sleep(0.5)\nprint(x)");
	b = begin(two, "x = 'two'\nprint(x)");
	agent_wait_end(b);
	ok(!a->ended && agent_has(&b->body, "two\\n"), "two run at the same time");
	s = run(one, "x");
	ok(a->ended && agent_has(&a->body, "one\\n") && agent_has(&s->body, "\"'one'\""),
	    "in one they wait for each other");
	agent_stream_free(a);
	agent_stream_free(b);
	agent_stream_free(s);
	EXPECT(two, "from __main__ import x\nx", "each has its own variables", "\"'two'\"");
	s = agent_call(
	    &cl, "POST", "/execute", lines_headers, "{\"code\":\"1\",\"context_id\":\"none\"}");
	ok(s->status == 404 && agent_has(&s->body, "Context none not found"), "no such kernel");
	agent_stream_free(s);
	s = agent_call(&cl, "POST", "/contexts", NULL, "{\"language\":\"cobol\"}");
	ok(s->status == 501 && agent_has(&s->body, "python"), "no such language");
	agent_stream_free(s);
	s = agent_call(&cl, "POST", "/contexts", NULL, "{\"cwd\":7}");
	is_int(s->status, 400, "a wrong type");
	agent_stream_free(s);
}

static void verb(const char *id, const char *method, const char *verb_, int status)
{
	char path[128];
	struct agent_stream *s;

	snprintf(path, sizeof(path), "/contexts/%s%s", id, verb_);
	s = agent_call(&cl, method, path, NULL, method[0] == 'P' ? "" : NULL);
	ok(s->status == status, "%s %s: %d", method, verb_[0] ? verb_ : "a kernel", s->status);
	agent_stream_free(s);
}

static void test_interrupts(void)
{
	struct agent_stream *s, *t;
	char id[37];

	create("", id);
	s = begin(id, "import time\nprint('on')\nwhile True: time.sleep(9)");
	agent_wait_body(s, BEGUN);
	verb(id, "POST", "/interrupt", 200);
	agent_wait_end(s);
	ok(agent_has(&s->body, "\"ename\":\"KeyboardInterrupt\""), "an interrupt is an exception");
	agent_stream_free(s);
	s = begin(id, "while True: time.sleep(9)");
	agent_wait_body(s, 1);
	verb(id, "POST", "/interrupt", 200);
	agent_wait_end(s);
	ok(agent_has(&s->body, "\"ename\":\"KeyboardInterrupt\""),
	    "also before the first line runs");
	agent_stream_free(s);
	verb(id, "POST", "/interrupt", 200);
	EXPECT(id, "'idle'", "an interrupt of an idle kernel does nothing", "idle");
	/* A client that goes away: at once, and in the middle. */
	s = begin(id, "while True: time.sleep(9)");
	agent_pump_for(&cl, 1);
	agent_stream_free(s);
	EXPECT(id, "'next'", "a client that left at once holds nothing up", "next");
	s = begin(id, "print('on')\nwhile True: time.sleep(9)");
	agent_wait_body(s, BEGUN);
	t = begin(id, "while True: time.sleep(9)");
	agent_pump_for(&cl, 20);
	agent_stream_free(t);
	agent_stream_free(s);
	EXPECT(id, "'after'", "nor do two that left", "after");
	s = begin(id, "print('on')\nwhile True: time.sleep(9)");
	t = begin(id, "'waits'");
	agent_wait_body(s, BEGUN);
	verb(id, "POST", "/restart", 200);
	agent_wait_end(s);
	agent_wait_end(t);
	ok(agent_has(&s->body, "finished {\"status\":\"restarted\"") &&
	        agent_has(&t->body, "finished {\"status\":\"restarted\""),
	    "a restart ends what runs and what waits");
	agent_stream_free(s);
	agent_stream_free(t);
	EXPECT(id, "'time' in globals()", "and begins anew", "False", "\"execution_count\":1}");
	s = begin(id, "print('on')\nimport time\ntime.sleep(99)");
	agent_wait_body(s, BEGUN);
	verb(id, "DELETE", "", 200);
	agent_wait_end(s);
	ok(agent_has(&s->body, "finished {\"status\":\"deleted\""), "so does a deletion");
	agent_stream_free(s);
	verb(id, "DELETE", "", 404);
	verb(id, "POST", "/restart", 404);
}

static void test_deaths(void)
{
	struct agent_stream *s;
	char id[37];

	create("", id);
	EXPECT(id, "x = 1\nimport os\nos._exit(3)", "a process that ends",
	    "finished {\"status\":\"died\"", "exit status 3");
	EXPECT(id, "'x' in globals()", "has a successor", "False", "\"execution_count\":1}");
	EXPECT(id, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "one that is killed",
	    "\"signal\":9");
	EXPECT(id, "import os\nos.write(3, b'\\xff' * 99)", "garbage for the agent",
	    "the kernel was killed: it sent a message over 8 MiB");
	EXPECT(id, "import os\nos.write(3, b'\\0\\0\\0\\1Zz')", "an unknown message",
	    "broke the protocol");
	EXPECT(id, "import os\nos.write(3, b'\\0\\0\\0\\4A\\0\\0\\0\\1')",
	    "a message at the wrong time", "broke the protocol");
	EXPECT(id, "import os, time\nos.close(3)\ntime.sleep(99)", "a closed socket",
	    "closed its connection");
	EXPECT(id,
	    "import os, threading, subprocess\nsubprocess.Popen(['sleep', '99'])\n"
	    "threading.Timer(0.1, lambda: os._exit(4)).start()",
	    "one that will end later", "\"status\":\"ok\"");
	agent_pump_for(&cl, 600);
	EXPECT(id, "1", "is told of with the next", "exit status 4; this is a fresh one");
	EXPECT(id, "import threading\nthreading.Timer(0.1, lambda: print('late')).start()",
	    "a thread that prints later", "\"status\":\"ok\"");
	agent_pump_for(&cl, 400);
	EXPECT(id, "2", "is heard with the next", "late\\n");
	s = agent_call(&cl, "GET", "/contexts", NULL, NULL);
	ok(s->status == 200 && agent_has(&s->body, id) && agent_has(&s->body, "\"state\":\"idle\""),
	    "the list");
	agent_stream_free(s);
	verb(id, "DELETE", "", 200);
}

/* What a process said last is read, but not for ever. */
static void test_last_words(void)
{
	struct agent_stream *s;
	char id[37];

	create("", id);
	EXPECT(id,
	    "import os\nfor i in range(9): os.write(3, b'\\0\\0\\0\\1C\\0')\n"
	    "display('last')\nos._exit(5)",
	    "the last messages come", "last", "exit status 5");
	s = begin(id, "import os\nif os.fork() == 0:\n"
	              "  while True: os.write(3, b'\\0\\0\\0\\1C\\0' * 10000)\n"
	              "import time\ntime.sleep(0.2)\nos._exit(6)");
	agent_wait_end(s);
	ok(agent_has(&s->body, "exit status 6"), "a child that has its socket and goes on is left");
	agent_stream_free(s);
	EXPECT(id, "7", "and the next runs", "7");
	verb(id, "DELETE", "", 200);
}

static void test_much(void)
{
	struct agent_stream *s;
	char id[37];

	create("", id);
	s = begin(id, "for i in range(200000): print(i, 'x' * 40)");
	s->discard = true;
	agent_wait_end(s);
	ok(s->received > (uint64_t)200000 * 46, "megabytes of lines come whole");
	agent_stream_free(s);
	s = begin(id, "print('y' * 30000000)");
	s->hold = s->discard = true;
	agent_pump_for(&cl, 300);
	ok(s->received < 8000000 && !s->ended, "a reader that rests stops the code");
	agent_stream_free(s);
	EXPECT(id, "'z' * 9000000", "a long value is cut", "more characters left out");
	EXPECT(id, "class B:\n _repr_png_ = lambda s: b'p' * 9000000\nB()",
	    "a result that is too large is left out", "image/png with 9000000 bytes left out",
	    "text/plain");
	verb(id, "DELETE", "", 200);
}

static void test_e2b(void)
{
	struct agent_stream *s = agent_call(&cl, "POST", "/execute", NULL,
	    "{\"code\":\"import os\\nprint(os.environ['V'], '\xc3\xa9')\\n{'a': '\xe2\x82\xac'}\","
	    "\"language\":null,\"env_vars\":{\"V\":\"v\"}}");

	ok(agent_has(&s->body, "{\"type\":\"number_of_executions\",\"execution_count\":") &&
	        agent_has(
	            &s->body, "{\"type\":\"stdout\",\"text\":\"v \\u00e9\\n\",\"timestamp\":\"") &&
	        agent_has(&s->body, "\"is_main_result\":true") &&
	        agent_has(&s->body, "\"json\":{\"a\": \"\\u20ac\"}") &&
	        agent_has(&s->body, "{\"type\":\"end_of_execution\"}\n"),
	    "lines as E2B has them");
	agent_stream_free(s);
	EXPECT("", "'V' in os.environ", "the variables of one call are gone after it", "False");
}

static void test_timeouts(void)
{
	struct agent_stream *s = agent_call(&cl, "POST", "/execute", lines_headers,
	    "{\"code\":\"import time\\nprint('on')\\ntime.sleep(60)\",\"timeout_ms\":200}");

	ok(agent_has(&s->body, "on\\n") && agent_has(&s->body, "\"ename\":\"KeyboardInterrupt\"") &&
	        agent_has(&s->body, "\"timed_out\":true"),
	    "what takes too long is interrupted");
	agent_stream_free(s);
	EXPECT("", "marker = 1", "and its kernel goes on", "\"status\":\"ok\"");
	s = agent_call(&cl, "POST", "/execute", lines_headers,
	    "{\"code\":\"import signal\\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\\n"
	    "while True: time.sleep(1)\",\"timeout_ms\":100}");
	ok(agent_has(&s->body, "\"status\":\"restarted\"") &&
	        agent_has(&s->body, "\"timed_out\":true"),
	    "what ignores that loses its kernel");
	agent_stream_free(s);
	EXPECT("", "'marker' in globals()", "for a fresh one", "False");
}

static void test_warm(void)
{
	struct agent_stream *s;
	char warm[37] = "", id[37];
	const char *at;

	s = agent_call(&cl, "POST", "/contexts/warm", NULL, "{\"wait\":true}");
	ok(s->status == 200 && agent_has(&s->body, "\"state\":\"idle\""), "a spare kernel");
	av_buf_append_char(&s->body, '\0');
	at = strstr(s->body.p + s->body.off, "\"id\":\"");
	snprintf(warm, sizeof(warm), "%.36s", at ? at + 6 : "");
	agent_stream_free(s);
	s = agent_call(&cl, "GET", "/contexts", NULL, NULL);
	ok(!agent_has(&s->body, warm), "is nobody's yet");
	agent_stream_free(s);
	s = agent_call(&cl, "POST", "/init", NULL, "{\"envVars\":{\"LATER\":\"set\"}}");
	agent_stream_free(s);
	create("{\"cwd\":\"/usr\"}", id);
	is_str(id, warm, "the next one that fits takes it over");
	EXPECT(id, "import os\nos.getcwd() + os.environ['LATER']",
	    "with the directory and the settings of its time", "'/usrset'");
}

int main(void)
{
	/* Wherever another python3 comes first: it must be one that starts fast. */
	setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1);
	agent_proc_start(&agent);
	agent_client_open(&cl, &agent);
	test_values();
	test_errors();
	test_contexts();
	test_interrupts();
	test_deaths();
	test_last_words();
	test_much();
	test_e2b();
	test_timeouts();
	test_warm();
	agent_client_close(&cl);
	agent_proc_stop(&agent);
	return tap_done();
}
