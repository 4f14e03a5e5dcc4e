/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_life.c - sandboxes from their making to their end: start, stop, list, main command,
 * properties
 */
#include <unistd.h>

#include "tests/sdk/c/sdk.h"

static aviary_sandbox_spec small(void)
{
	aviary_sandbox_spec s = AVIARY_SANDBOX_SPEC_INIT;

	s.memory_mb = 128;
	s.max_lifetime_ms = 600000;
	return s;
}

static size_t living(aviary_client *c)
{
	aviary_sandbox_handles *l = aviary_sandbox_list_sync(c, NULL, NULL);
	size_t n = l ? l->n : 9999;

	aviary_sandbox_handles_free(l);
	return n;
}

static bool is_gone(aviary_client *c, const char *id)
{
	aviary_sandbox *sb = aviary_sandbox_from_id_sync(c, id, NULL);
	bool gone = !sb || aviary_sandbox_status(sb) == AVIARY_STATUS_STOPPED;

	aviary_sandbox_free(sb);
	return gone;
}

static void test_start(aviary_client *c)
{
	aviary_sandbox_spec s = small();
	aviary_sandbox *sb = aviary_sandbox_new(c, &s);
	aviary_op *ops[20];
	aviary_error e;

	is_str(aviary_sandbox_id(sb), "", "no id before it is started");
	ok(!aviary_sandbox_describe(sb), "and nothing known");
	for (int i = 0; i < 20; i++)
		ops[i] = i % 2 ? aviary_sandbox_start(sb) : aviary_sandbox_wait_running(sb, 60000);
	is_int(aviary_wait(ops, 20, 0, 60000), 20, "20 starts at once");
	is_int(aviary_results(ops, 20, NULL), 0, "are all well");
	for (int i = 0; i < 20; i++)
		aviary_op_free(ops[i]);
	is_int((long long)living(c), 1, "and one sandbox");
	is_int(aviary_sandbox_start_sync(sb, &e), 0, "started again it is the same");
	is_int((long long)living(c), 1, "still one");
	sdk_remove(sb);
}

static void test_refused(aviary_client *c)
{
	aviary_sandbox_spec s = small();
	aviary_sandbox *sb;
	aviary_error e;
	int r;

	s.workdir = "relative";
	sb = aviary_sandbox_new(c, &s);
	is_int(aviary_sandbox_start_sync(sb, &e), AVIARY_E_INVALID, "a spec that cannot be");
	ok(strstr(e.message, "workdir"), "is said with its member: %s", e.message);
	is_int(aviary_sandbox_stop_sync(sb, NULL, &e), 0, "stopping it asks nobody");
	aviary_sandbox_free(sb);
	s.workdir = NULL;
	s.template_name = "there-is-no-such-template";
	sb = aviary_sandbox_new(c, &s);
	r = aviary_sandbox_start_sync(sb, &e);
	ok(r < 0, "refused by the server: %s", e.message);
	ok(aviary_sandbox_start_sync(sb, &e) < 0, "and again");
	is_int(aviary_sandbox_stop_sync(sb, NULL, &e), 0, "there is nothing to stop");
	aviary_sandbox_free(sb);
	is_int((long long)living(c), 0, "none was made");
}

static void test_stop(aviary_client *c)
{
	aviary_sandbox_spec s = small();
	aviary_sandbox *sb = aviary_sandbox_new(c, &s), *other;
	aviary_stop_options so = AVIARY_STOP_OPTIONS_INIT;
	aviary_op *ops[3];
	aviary_error e;

	is_int(aviary_sandbox_stop_sync(sb, NULL, &e), 0, "never started: only marked");
	is_int(aviary_sandbox_start_sync(sb, &e), AVIARY_E_SANDBOX_TERMINATED,
	    "and cannot be started any more");
	aviary_sandbox_free(sb);

	sb = sdk_sandbox(c);
	for (int i = 0; i < 3; i++)
		ops[i] = aviary_sandbox_stop(sb, NULL);
	is_int(aviary_wait(ops, 3, 0, 60000), 3, "three stops at once");
	is_int(aviary_results(ops, 3, NULL), 0, "share one");
	for (int i = 0; i < 3; i++)
		aviary_op_free(ops[i]);
	is_int(aviary_sandbox_stop_sync(sb, NULL, &e), 0, "stopped again: nothing to do");
	is_str(aviary_status_text(aviary_sandbox_status(sb)), "stopped", "it is stopped");
	is_int(aviary_sandbox_wait_running_sync(sb, 10000, &e), AVIARY_E_SANDBOX_TERMINATED,
	    "who needs it is told");
	aviary_sandbox_free(sb);

	sb = aviary_sandbox_attach(c, "sb0000000000000000000000000");
	other = aviary_sandbox_attach(c, "sb0000000000000000000000000");
	is_int(aviary_sandbox_stop_sync(sb, NULL, &e), AVIARY_E_SANDBOX_NOT_FOUND,
	    "one that is not there");
	so.missing_ok = 1;
	is_int(aviary_sandbox_stop_sync(other, &so, &e), 0, "which may be fine");
	aviary_sandbox_free(sb);
	aviary_sandbox_free(other);
	is_int(aviary_sandbox_delete_sync(c, "sb0000000000000000000000000", 0, &e),
	    AVIARY_E_SANDBOX_NOT_FOUND, "delete by id");
	is_int(aviary_sandbox_delete_sync(c, "sb0000000000000000000000000", 1, &e), 0,
	    "missing is fine");
	is_int(aviary_sandbox_delete_sync(c, "../x", 1, &e), AVIARY_E_INVALID, "no id");
	so.grace_ms = 600001;
	sb = sdk_sandbox(c);
	is_int(aviary_sandbox_stop_sync(sb, &so, &e), AVIARY_E_INVALID, "a grace that is too long");
	is_int(aviary_sandbox_delete_sync(c, aviary_sandbox_id(sb), 0, &e), 0, "deleted by id");
	ok(is_gone(c, aviary_sandbox_id(sb)), "it is gone");
	aviary_sandbox_free(sb);
}

/* A stop that comes while the create is under way waits for it; a run that is cancelled leaves
 * nothing. */
static void test_in_between(aviary_client *c)
{
	aviary_sandbox_spec s = small();
	aviary_sandbox *sb = aviary_sandbox_new(c, &s);
	aviary_op *start = aviary_sandbox_start(sb), *stop, *run;

	(void)aviary_op_wait(start, 1);
	stop = aviary_sandbox_stop(sb, NULL);
	is_int(aviary_op_wait(stop, 60000), 0, "a stop during the start");
	ok(aviary_op_wait(start, 60000) <= 0, "whose end is known: %s",
	    aviary_code_name(aviary_op_code(start)));
	ok(is_gone(c, aviary_sandbox_id(sb)), "it is gone");
	aviary_op_free(start);
	aviary_op_free(stop);
	aviary_sandbox_free(sb);

	run = aviary_sandbox_run(c, &s);
	(void)aviary_op_wait(run, 1); /* sent, and not answered */
	aviary_op_cancel(run);
	aviary_op_free(run);
	/* It may come only now, and goes again. */
	for (int i = 0, none = 0; i < 500 && none < 25; i++, usleep(20000))
		none = living(c) ? 0 : none + 1;
	is_int((long long)living(c), 0, "what a cancelled run makes is deleted");
}

static void test_main_command(aviary_client *c)
{
	static const char *const three[] = {"/bin/sh", "-c", "cat /etc/motd.test; exit 3"};
	static const char *const trap[] = {
	    "/bin/sh", "-c", "trap 'exit 7' TERM; touch /tmp/ready; while :; do sleep 0.05; done"};
	static const aviary_mounted_file file = {"/etc/motd.test", "x\0y", 3, 0600};
	aviary_sandbox_spec s = small();
	aviary_sandbox *sb;
	aviary_sandbox_info *info;
	aviary_process *p;
	aviary_op *ops[3];
	aviary_error e;
	int code = -1;

	s.command = (aviary_strings){three, 3};
	s.files = &file;
	s.n_files = 1;
	sb = aviary_sandbox_new(c, &s);
	for (int i = 0; i < 3; i++)
		ops[i] = aviary_sandbox_wait_complete(sb, 60000, 0);
	is_int(aviary_wait(ops, 3, 0, 60000), 3, "three wait for the main command");
	is_int(aviary_results(ops, 3, NULL), 0, "which ends");
	for (int i = 0; i < 3; i++)
		aviary_op_free(ops[i]);
	ok(aviary_sandbox_exit_code(sb, &code) == 1 && code == 3, "with its exit code: %d", code);
	info = aviary_sandbox_describe(sb);
	ok(info && info->reason && strcmp(info->reason, "exited") == 0 && info->stopped_at > 0,
	    "and a reason: %s", info && info->reason ? info->reason : "none");
	aviary_sandbox_info_free(info);
	is_int(aviary_sandbox_stop_sync(sb, NULL, &e), 0, "a stop afterwards is fine");
	aviary_sandbox_free(sb);

	s = small();
	s.command = (aviary_strings){trap, 3};
	sb = aviary_sandbox_run_sync(c, &s, &e);
	ok(sb, "another: %s", e.message);
	p = aviary_sandbox_shell(sb, "until test -e /tmp/ready; do sleep 0.05; done");
	is_int(aviary_op_wait(aviary_process_op(p), 60000), 0, "which catches SIGTERM");
	aviary_process_free(p);
	ok(aviary_sandbox_exit_code(sb, &code) == 0, "no exit code while it runs");
	ops[0] = aviary_sandbox_wait_complete(sb, 60000, 0);
	ops[1] = aviary_sandbox_wait_complete(sb, 60000, AVIARY_WAIT_ANY_END);
	ops[2] = aviary_sandbox_stop(sb, NULL);
	is_int(aviary_wait(ops, 3, 0, 60000), 3, "stopped with its grace");
	is_int(aviary_op_code(ops[0]), AVIARY_E_SANDBOX_TERMINATED, "who waits is told");
	is_int(aviary_op_code(ops[1]), 0, "or content with any end");
	is_int(aviary_op_code(ops[2]), 0, "the stop is fine");
	ok(aviary_sandbox_exit_code(sb, &code) == 1 && code == 7, "it could end by itself: %d",
	    code);
	for (int i = 0; i < 3; i++)
		aviary_op_free(ops[i]);
	aviary_sandbox_free(sb);
}

static void test_waits(aviary_client *c)
{
	aviary_sandbox *sb = sdk_sandbox(c);
	aviary_op *op = aviary_sandbox_wait_complete(sb, 50, 0);
	aviary_error e;

	is_int(aviary_op_wait(op, 30000), AVIARY_E_SANDBOX_TIMEOUT, "nothing ends in 50 ms");
	aviary_op_free(op);
	is_code(aviary_sandbox_wait_complete(sb, 50, 64), AVIARY_E_INVALID);
	op = aviary_sandbox_wait_complete(sb, -1, 0);
	is_int(aviary_op_wait(op, 20), AVIARY_E_AGAIN, "it goes on");
	aviary_op_cancel(op);
	aviary_op_free(op);
	op = aviary_sandbox_wait_complete(sb, -1, AVIARY_WAIT_ANY_END);
	is_int(
	    aviary_sandbox_delete_sync(c, aviary_sandbox_id(sb), 0, &e), 0, "somebody deletes it");
	is_int(aviary_op_wait(op, 30000), 0, "which is seen");
	aviary_op_free(op);
	sdk_remove(sb);
}

static void test_list(aviary_client *c)
{
	static const char *const tags[] = {"one", "a/b c&d=e"};
	static const aviary_pair meta[] = {{"for", "test & list"}};
	aviary_list_options o = AVIARY_LIST_OPTIONS_INIT;
	aviary_sandbox_spec s = small();
	aviary_sandbox *a, *b = sdk_sandbox(c), *found;
	aviary_sandbox_handles *l;
	aviary_error e;

	s.tags = (aviary_strings){tags, 2};
	s.metadata = (aviary_pairs){meta, 1};
	a = aviary_sandbox_run_sync(c, &s, &e);
	o.tags = s.tags;
	o.metadata = s.metadata;
	l = aviary_sandbox_list_sync(c, &o, &e);
	ok(l && l->n == 1 && strcmp(aviary_sandbox_id(l->items[0]), aviary_sandbox_id(a)) == 0,
	    "by tags and metadata");
	ok(l && aviary_sandbox_status(l->items[0]) == AVIARY_STATUS_RUNNING, "with their state");
	aviary_sandbox_handles_free(l);
	l = aviary_sandbox_list_sync(c, NULL, &e);
	ok(l && l->n == 2, "all that live");
	aviary_sandbox_handles_free(l);
	o = (aviary_list_options)AVIARY_LIST_OPTIONS_INIT;
	o.limit = 1;
	o.status = "running,paused";
	l = aviary_sandbox_list_sync(c, &o, &e);
	ok(l && l->n == 1, "no more than wanted");
	aviary_sandbox_handles_free(l);
	o.limit = 0;
	o.status = "stopped";
	l = aviary_sandbox_list_sync(c, &o, &e);
	ok(l && l->n >= 1 && aviary_sandbox_status(l->items[0]) == AVIARY_STATUS_STOPPED,
	    "those of the past");
	aviary_sandbox_handles_free(l);
	o.status = "running,asleep";
	is_code(aviary_sandbox_list(c, &o), AVIARY_E_INVALID);
	found = aviary_sandbox_from_id_sync(c, aviary_sandbox_id(a), &e);
	ok(found && aviary_sandbox_status(found) == AVIARY_STATUS_RUNNING, "by id");
	aviary_sandbox_free(found);
	found = aviary_sandbox_from_id_sync(c, "sb0000000000000000000000000", &e);
	ok(!found && e.code == AVIARY_E_SANDBOX_NOT_FOUND && strcmp(e.sandbox_id, "") != 0,
	    "none of that id: %s", e.message);
	is_code(aviary_sandbox_from_id(c, "NO ID"), AVIARY_E_INVALID);
	sdk_remove(a);
	sdk_remove(b);
}

static void test_change(aviary_client *c)
{
	static const char *const tags[] = {"new"};
	aviary_sandbox_spec s = AVIARY_SANDBOX_SPEC_INIT;
	aviary_sandbox *sb = sdk_sandbox(c);
	aviary_sandbox_info *info;
	aviary_error e;

	info = aviary_sandbox_describe(sb);
	ok(info && info->memory_mb == 128 && info->created_at > 0 && info->started_at > 0 &&
	        info->isolation != AVIARY_ISOLATION_UNKNOWN && info->template_name[0],
	    "what is known of it");
	aviary_sandbox_info_free(info);
	s.tags = (aviary_strings){tags, 1};
	s.idle_timeout_ms = 90500;
	is_int(aviary_sandbox_update_sync(sb, &s, &e), 0, "changed");
	info = aviary_sandbox_describe(sb);
	ok(info && info->tags.n == 1 && strcmp(info->tags.items[0], "new") == 0 &&
	        info->timeout_sec > 90.4 && info->timeout_sec < 90.6,
	    "and known");
	aviary_sandbox_info_free(info);
	s.cpus = 3;
	is_int(aviary_sandbox_update_sync(sb, &s, &e), AVIARY_E_INVALID, "what cannot change");
	is_int(aviary_sandbox_pause_sync(sb, &e), 0, "paused");
	is_int(aviary_sandbox_resume_sync(sb, &e), 0, "resumed");
	is_int(aviary_sandbox_ping_sync(sb, &e), 0, "pinged");
	is_int(aviary_sandbox_refresh_sync(sb, &e), 0, "asked anew");
	sdk_remove(sb);
}

static void test_snapshot(aviary_client *c)
{
	aviary_snapshots_create_options o = AVIARY_SNAPSHOTS_CREATE_OPTIONS_INIT;
	aviary_sandbox_spec s = small();
	aviary_sandbox *sb = aviary_sandbox_new(c, &s), *copy;
	aviary_stop_options stop = AVIARY_STOP_OPTIONS_INIT;
	aviary_template *t;
	aviary_process *p;
	aviary_op *plain;
	aviary_error e;
	char name[60], name2[60];

	(void)snprintf(name, sizeof(name), "life-%d", (int)getpid());
	(void)snprintf(name2, sizeof(name2), "life-%d-b", (int)getpid());
	o.name = name;
	is_code(aviary_sandbox_snapshot(sb, &o), AVIARY_E_SANDBOX_NOT_RUNNING);
	is_int(aviary_sandbox_start_sync(sb, &e), 0, "it runs");
	p = aviary_sandbox_shell(sb, "echo kept >/root/kept");
	is_int(aviary_op_wait(aviary_process_op(p), 60000), 0, "with a file");
	aviary_process_free(p);
	t = aviary_sandbox_snapshot_sync(sb, &o, &e);
	ok(t && strcmp(t->name, name) == 0, "a snapshot: %s", e.message);
	aviary_template_free(t);
	s.template_name = name;
	copy = aviary_sandbox_run_sync(c, &s, &e);
	ok(copy, "another sandbox from it: %s", e.message);
	p = aviary_sandbox_shell(copy, "cat /root/kept");
	ok(aviary_op_wait(aviary_process_op(p), 60000) == 0 &&
	        strcmp(aviary_process_result(p)->out, "kept\n") == 0,
	    "has the file");
	aviary_process_free(p);
	stop.snapshot = name2;
	is_int(aviary_sandbox_stop_sync(copy, &stop, &e), 0, "a stop that takes a snapshot");
	aviary_sandbox_free(copy);
	is_int(aviary_snapshots_delete_sync(c, name2, &e), 0, "which is there");
	stop.snapshot = name;
	is_int(aviary_sandbox_stop_sync(sb, &stop, &e), AVIARY_E_CONFLICT, "a name that is taken");
	plain = aviary_sandbox_stop(sb, NULL);
	is_code(aviary_sandbox_stop(sb, &stop), AVIARY_E_CONFLICT);
	is_int(aviary_op_wait(plain, 60000), 0, "the stop that failed is asked for again");
	aviary_op_free(plain);
	aviary_sandbox_free(sb);
	is_int(aviary_snapshots_delete_sync(c, name, &e), 0, "the snapshot goes too");
}

/* A main command that cannot be started: the create is refused, and the sandbox says why. */
static void test_failed(aviary_client *c)
{
	static const char *const none[] = {"/there/is/no/such/program"};
	aviary_list_options o = AVIARY_LIST_OPTIONS_INIT;
	aviary_sandbox_spec s = small();
	aviary_sandbox *sb;
	aviary_sandbox_handles *l = NULL;
	aviary_error e;
	int r;

	s.command = (aviary_strings){none, 1};
	sb = aviary_sandbox_new(c, &s);
	r = aviary_sandbox_start_sync(sb, &e);
	ok(r < 0, "refused: %s", e.message);
	aviary_sandbox_free(sb);
	o.status = "error";
	for (int i = 0; i < 100; i++, usleep(50000)) { /* once it is on disk */
		l = aviary_sandbox_list_sync(c, &o, &e);
		if (l && l->n)
			break;
		aviary_sandbox_handles_free(l);
		l = NULL;
	}
	ok(l && l->n >= 1, "one that failed is listed");
	if (l && l->n)
		is_int(aviary_sandbox_wait_running_sync(l->items[0], 10000, &e),
		    AVIARY_E_SANDBOX_FAILED, "who waits for it is told");
	if (l && l->n)
		is_int(aviary_sandbox_stop_sync(l->items[0], NULL, &e), 0, "and can stop it");
	aviary_sandbox_handles_free(l);
}

int main(void)
{
	aviary_client *c = sdk_client();

	test_start(c);
	test_refused(c);
	test_stop(c);
	test_in_between(c);
	test_main_command(c);
	test_waits(c);
	test_list(c);
	test_change(c);
	test_snapshot(c);
	test_failed(c);
	aviary_client_free(c);
	return tap_done();
}
