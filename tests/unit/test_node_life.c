/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node_life.c - what becomes of conversations: kills for memory, freezing, hostile
 * connections, deaths
 */
#include "node_world.h"

#include <signal.h>

#include "lib/tap.h"
#include "base/banned.h"

/* Opens it, then the kernel kills so many more, then the process ends as the script says. */
static struct seen run_oom(const char *cmd, uint64_t kills)
{
	struct seen s = {0};
	struct node_exec_spec spec = {.cmd = cmd, .tag = "t"};

	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, &s.err) < 0)
		abort();
	box_of(sandbox)->oom_kills += kills;
	(void)run_until(&s.ended);
	return s;
}

static void test_oom(void)
{
	struct node_exec_spec spec = {.cmd = "sigkill"};
	struct seen s = {0};

	ok(!run_oom("sigkill", 0).end.oom_killed, "a kill alone is no OOM kill");
	s = run_oom("sigkill", 2);
	ok(s.end.oom_killed && s.end.signal == 9 && s.calls == 1, "an OOM kill is told");
	ok(oom_kills == 2 && oom_more == 2, "and the node's owner hears of it");
	ok(!run_oom("sigkill", 0).end.oom_killed, "the next kill is none again");
	ok(run_oom("child", 1).end.oom_killed, "exit status 137 is a kill too");
	ok(oom_kills == 3 && oom_more == 1, "with what is new");
	ok(!run_oom("hello", 1).end.oom_killed, "who ended by itself was not killed");
	(void)run_oom("sigkill", 0);
	is_int(oom_kills, 4, "what others noticed late");

	memset(&s, 0, sizeof(s));
	(void)node_exec_open_raw(
	    sandbox, AV_STR("{\"process\":{\"cmd\":\"sigkill\"}}"), &raw_events, &s, &s.exec, NULL);
	box_of(sandbox)->oom_kills++;
	(void)run_until(&s.ended);
	ok(s.has_end && s.end.oom_killed && frames_say_oom, "the end frame says it");

	machine.hold = true;
	memset(&s, 0, sizeof(s));
	(void)node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL);
	run_for(300);
	is_int(s.calls, 0, "the end waits for the machine's answer");
	node_exec_cancel(s.exec);
	s = run_oom("sigkill", 1);
	ok(s.has_end && !s.end.oom_killed, "but not for long");
	machine.hold = false;
	av_timer_start(&driver->timer, 0);
	run_for(50);
	is_int(s.calls, 1, "late answers are for nobody");
	is_int(oom_kills, 6, "but are news");
}

static bool froze;

static void on_freezer(void *ctx, const struct av_err *err)
{
	froze = true;
	*(enum av_err_kind *)ctx = err ? err->kind : AV_ERR_NONE;
}

static enum av_err_kind freezer(int (*fn)(struct node *, const char *, node_done_fn *, void *))
{
	enum av_err_kind kind = AV_ERR_NONE;

	froze = false;
	(void)fn(node, box_of(sandbox)->id, on_freezer, &kind);
	(void)run_until(&froze);
	return kind;
}

static void on_count(void *ctx, size_t n, const struct av_err *err)
{
	struct seen *s = ctx;

	take(s, err);
	s->bytes = n;
}

static void test_freeze(void)
{
	struct node_exec_spec spec = {.cmd = "hang", .timeout_ms = 1};
	struct seen s = {0}, count = {0};
	struct av_err why;
	int before = activities;

	make_sandbox();
	machine.fail_freeze = AV_ERR_UNAVAILABLE;
	is_int(freezer(node_freeze), AV_ERR_UNAVAILABLE, "a freeze may fail");
	machine.fail_freeze = AV_ERR_NONE;
	is_int(freezer(node_freeze), AV_ERR_NONE, "or not");
	ok(box_of(sandbox)->frozen, "the driver froze it");
	(void)node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL);
	(void)av_err_set(&why, AV_ERR_NO_SPACE, "no thaw today");
	node_fail_waiting(sandbox, &why);
	is_int(s.calls, 0, "nobody is called from inside");
	(void)run_until(&s.ended);
	is_int(s.err.kind, AV_ERR_NO_SPACE, "who waits for a thaw hears that there is none");
	is_int(freezer(node_thaw), AV_ERR_NONE, "thawed");
	ok(!box_of(sandbox)->frozen, "the driver thawed it");
	memset(&s, 0, sizeof(s));
	(void)node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL);
	node_fail_waiting(sandbox, &why);
	run_for(20);
	is_int(s.calls, 0, "who waits for no thaw is left alone");
	node_exec_cancel(s.exec);

	list_answer = "{\"processes\":[{\"pid\":5,\"config\":{\"cmd\":\"a\"}}]}";
	run_for(1100);
	before = activities;
	(void)node_count_processes(sandbox, on_count, &count, NULL, NULL);
	is_int(node_sandbox_busy(sandbox), 0, "a count keeps nothing busy");
	(void)run_until(&count.ended);
	ok(count.bytes == 1 && count.err.kind == AV_ERR_NONE, "processes are counted");
	is_int(activities, before, "and is no activity");
}

/* An isolation whose pause leaves no processes: what was open ends with it. */
static void test_freeze_to_disk(void)
{
	struct node_exec_spec hang = {.cmd = "hang"}, hello = {.cmd = "hello"};
	struct seen s = {0}, next = {0};
	int before;

	driver->caps.flags |= DRIVER_MEMORY_SNAPSHOT;
	make_sandbox();
	(void)node_exec_open(sandbox, &hang, &exec_events, &s, &s.exec, NULL);
	run_for(30);
	is_int(freezer(node_freeze), AV_ERR_NONE, "paused to the disk");
	ok(s.ended && s.err.kind == AV_ERR_INVALID_STATE && strstr(s.err.message, "attached"),
	    "streams end with that: %s", s.err.message);
	before = connections;
	(void)node_exec_open(sandbox, &hello, &exec_events, &next, &next.exec, NULL);
	is_int(freezer(node_thaw), AV_ERR_NONE, "resumed");
	(void)run_until(&next.ended);
	ok(next.has_end && next.end.exited && connections == before + 1,
	    "and is answered on a connection of its own");
	driver->caps.flags &= ~(uint32_t)DRIVER_MEMORY_SNAPSHOT;
}

static void test_hostile_connections(void)
{
	struct seen s;

	raw_garbage = true;
	make_sandbox();
	s = run("hello");
	raw_garbage = false;
	ok(s.err.kind == AV_ERR_AGENT, "an agent that speaks no HTTP/2: %s", s.err.message);
	ok(run("hello").has_end, "the next connection is tried afresh");
	init_status = 400;
	make_sandbox();
	s = run("hang");
	init_status = 204;
	ok(s.err.kind == AV_ERR_AGENT && s.calls == 1, "one that refuses its configuration: %s",
	    s.err.message);
}

static void test_death(void)
{
	struct node_exec_spec spec = {.cmd = "hang"};
	struct seen s = {0};
	char id[AV_ID_SIZE];

	make_sandbox();
	(void)node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL);
	for (struct av_list *n = machine.boxes.next; n != &machine.boxes; n = n->next) {
		struct fake_box *b = AV_CONTAINER_OF(n, struct fake_box, link);

		if (node_find(node, b->id) == sandbox) {
			memcpy(id, b->id, AV_ID_SIZE);
			b->oom_kills = 1;
			(void)kill(b->pid, SIGKILL);
		}
	}
	(void)run_until(&died);
	is_int(death, NODE_DEATH_OOM, "a death comes with its reason");
	ok(s.calls == 1 && s.err.kind == AV_ERR_INVALID_STATE && strstr(s.err.message, "memory"),
	    "and so do its conversations: %s", s.err.message);
	ok(node_find(node, id) == NULL, "it is gone from the node");
}

static void test_close(void)
{
	struct node_exec_spec spec = {.cmd = "hang"};
	static struct seen s; /* of the close, which comes later */

	make_sandbox();
	(void)node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, NULL);
	run_for(20);
	world_close();
	ok(s.calls == 1 && s.err.kind == AV_ERR_UNAVAILABLE &&
	        strstr(s.err.message, "shutting down"),
	    "closing ends conversations and says so: %s", s.err.message);
}

int main(void)
{
	world_open();
	test_oom();
	test_freeze();
	test_freeze_to_disk();
	test_hostile_connections();
	test_death();
	test_close();
	return tap_done();
}
