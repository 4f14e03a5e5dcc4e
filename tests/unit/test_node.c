/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node.c - commands in sandboxes through agents: honest ones and many lying ones
 */
#include "node_world.h"

#include "lib/tap.h"
#include "base/banned.h"

static void test_exec(void)
{
	struct seen s = run("hello");

	ok(s.has_end && s.end.exited && s.end.exit_code == 3, "an exit code arrives");
	is_str(s.text, "hello", "output arrives");
	ok(s.started && s.pid == 7 && strcmp(s.tag, "t") == 0, "the start says pid and tag");
	is_str(s.end.status, "exit status 3", "the status is for people");
	is_int(inits, 1, "the agent was configured first");
	ok(strstr(init_body, "\"X\":\"1\"") && strstr(init_body, "envVars"),
	    "with the environment: %s", init_body);
	s = run("killed");
	ok(!s.end.exited && s.end.signal == 9 && s.end.exit_code == 137 && s.end.core_dumped &&
	        s.end.timed_out,
	    "a kill arrives with all its flags");
	s = run("gap");
	is_int(s.gap, 12, "a gap is told");
	s = run("newer");
	ok(s.has_end, "events of newer agents are passed over");
	s = run("refused");
	ok(!s.has_end && s.err.kind == AV_ERR_NOT_FOUND && strstr(s.err.message, "no such cwd"),
	    "an error of the agent arrives");
	s = run("status404");
	ok(s.err.kind == AV_ERR_NOT_FOUND && strstr(s.err.message, "no such process"),
	    "an HTTP error too");
	is_int(connections, 1, "all over one connection");
	ok(activities > 0, "it counts as activity");
}

static void test_lies(void)
{
	static const char *const lies[] = {"cut", "nothing", "early", "twice", "input", "badpid",
	    "badend", "nojson", "huge", "abort"};

	for (size_t i = 0; i < AV_ARRAY_LEN(lies); i++) {
		struct seen s = run(lies[i]);

		ok(!s.has_end && s.err.kind == AV_ERR_AGENT && s.calls == 1, "%s: %s", lies[i],
		    s.err.message);
	}
	ok(run("hello").has_end, "honest streams still work");
}

static void test_input(void)
{
	struct seen s = {0};
	struct node_exec_spec spec = {.cmd = "cat", .stdin_open = true};
	static char big[300000];
	bool more = true, any_full = false;

	memset(big, 'x', sizeof(big));
	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL) < 0)
		abort();
	for (int i = 0; i < 8; i++) {
		more = node_exec_send(s.exec, NODE_CH_STDIN, av_str_n(big, sizeof(big)));
		any_full = any_full || !more;
	}
	ok(any_full, "a full queue says stop");
	(void)run_until(&s.drained);
	ok(node_exec_close_stdin(s.exec), "after on_drain there is room");
	(void)run_until(&s.ended);
	is_int(s.bytes, 8 * sizeof(big), "every byte comes back");

	memset(&s, 0, sizeof(s));
	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL) < 0)
		abort();
	(void)run_until(&s.started);
	(void)node_exec_resize(s.exec, 132, 50);
	(void)node_exec_signal(s.exec, SIGTERM, true);
	(void)node_exec_close_stdin(s.exec);
	(void)run_until(&s.ended);
	is_str(s.text,
	    "{\"resize\":{\"cols\":132,\"rows\":50}}{\"signal\":\"SIGTERM\",\"scope\":\"group\"}",
	    "sizes and signals are sent");
}

static void test_raw(void)
{
	struct seen s = {0};
	struct av_buf b = AV_BUF_INIT(1024);
	bool more;

	if (node_exec_open_raw(sandbox, AV_STR("{\"process\":{\"cmd\":\"cat\"}}"), &raw_events, &s,
	        &s.exec, NULL) < 0)
		abort();
	frame(&b, AV_FRAME_STDIN, AV_STR("abc"));
	frame(&b, AV_FRAME_STDIN, AV_STR(""));
	is_int(node_exec_send_frames(s.exec, av_str_n("\0\0\0\5\1ab", 7), &more), -EINVAL,
	    "half a frame is refused");
	is_int(node_exec_send_frames(s.exec, av_str_n("\0\0\0\1\2a", 6), &more), -EINVAL,
	    "a frame of the agent's own channels too");
	is_int(node_exec_send_frames(s.exec, av_str_n("\xff\xff\xff\xff\1a", 6), &more), -EINVAL,
	    "and one that is too long");
	is_int(node_exec_send_frames(s.exec, av_buf_str(&b), &more), 0, "whole ones pass");
	(void)run_until(&s.ended);
	ok(s.has_end && s.frames == 3, "start, data and end come as frames");
	ok(node_exec_open_raw(sandbox, AV_STR("[]"), &raw_events, &s, &s.exec, &s.err) < 0 &&
	        s.err.kind == AV_ERR_INVALID,
	    "a first frame that is no object is refused");
	ok(node_exec_open_raw(
	       sandbox, AV_STR("{\"process\":{}}"), &raw_events, &s, &s.exec, &s.err) < 0,
	    "and one without a command");
	memset(&s, 0, sizeof(s));
	is_int(node_exec_open_raw(sandbox,
	           AV_STR("{\"connect\":{\"process\":{\"pid\":7}},\"replay\":true}"), &raw_events,
	           &s, &s.exec, NULL),
	    0, "a connect passes");
	(void)run_until(&s.ended);
	av_buf_clear(&b);
}

static void test_backpressure(void)
{
	struct seen s = {0};
	struct node_exec_spec spec = {.cmd = "flood"};
	size_t held;

	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL) < 0)
		abort();
	node_exec_pause(s.exec, true);
	run_for(200);
	held = s.bytes;
	ok(held <= 300 * 1024, "a paused reader gets no more than the window (%zu bytes)", held);
	run_for(50);
	is_int(s.bytes, held, "and then nothing");
	ok(run("hello").has_end, "others are not held up by it");
	node_exec_pause(s.exec, false);
	(void)run_until(&s.ended);
	is_int(s.bytes, 8 * 1024 * 1024, "then everything");
}

static void test_cancel(void)
{
	struct seen s = {0};
	struct node_exec_spec spec = {.cmd = "hang"};

	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL) < 0)
		abort();
	run_for(20);
	is_int(node_sandbox_busy(sandbox), 1, "an open conversation keeps the sandbox busy");
	node_exec_cancel(s.exec);
	is_int(node_sandbox_busy(sandbox), 0, "until it is cancelled");
	spec.cmd = "flood";
	s.cancel_on_output = true;
	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL) < 0)
		abort();
	run_for(100);
	ok(s.bytes > 0 && s.bytes <= 65536 && s.calls == 0,
	    "cancelling inside a callback ends it there");
}

int main(void)
{
	world_open();
	test_exec();
	test_lies();
	test_input();
	test_raw();
	test_backpressure();
	test_cancel();
	world_close();
	return tap_done();
}
