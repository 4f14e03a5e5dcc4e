/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_session.c - sessions: defaults, adoption, a close that says what it could not stop
 */
#include "tests/sdk/c/sdk.h"

static const char *const session_tags[] = {"session-test"};

static aviary_session *session(aviary_client *c)
{
	aviary_sandbox_spec d = AVIARY_SANDBOX_SPEC_INIT;
	aviary_session *s;

	d.memory_mb = 128;
	d.max_lifetime_ms = 600000;
	d.tags = (aviary_strings){session_tags, 1};
	s = aviary_session_new(c, &d);
	if (!s)
		exit(2);
	return s;
}

static void test_life(aviary_client *c)
{
	static const char *const more[] = {"more"};
	aviary_session *s = session(c);
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_sandbox *a = NULL, *b, *never = NULL;
	aviary_sandbox_info *info;
	aviary_sandbox_handles *l;
	aviary_error e;

	spec.tags = (aviary_strings){more, 1};
	is_int(aviary_session_sandbox(s, &spec, &a), 0, "a sandbox of the session");
	is_str(aviary_sandbox_id(a), "", "is not started");
	is_int((long long)aviary_session_count(s), 1, "and counted");
	is_int(aviary_sandbox_start_sync(a, &e), 0, "starts");
	info = aviary_sandbox_describe(a);
	ok(info && info->memory_mb == 128 && info->tags.n == 2, "with the defaults");
	aviary_sandbox_info_free(info);
	b = aviary_session_run_sync(s, NULL, &e);
	ok(b, "another at once");
	is_int(aviary_session_sandbox(s, NULL, &never), 0, "one that is never started");
	is_int((long long)aviary_session_count(s), 3, "three");
	l = aviary_session_list_sync(s, NULL, 0, &e);
	ok(l && l->n == 2, "listed by the session's tag");
	aviary_sandbox_handles_free(l);
	is_int(aviary_sandbox_stop_sync(b, NULL, &e), 0, "one is stopped");
	is_int((long long)aviary_session_count(s), 2, "and leaves");
	is_int(aviary_session_close_sync(s, NULL, &e), 0, "close");
	ok(aviary_session_is_closed(s) && aviary_session_count(s) == 0, "stops the others");
	is_str(aviary_status_text(aviary_sandbox_status(a)), "stopped", "this one");
	is_int(aviary_sandbox_start_sync(never, &e), AVIARY_E_SANDBOX_TERMINATED, "and this");
	is_int(aviary_session_close_sync(s, NULL, &e), 0, "closed again: nothing to do");
	is_int(aviary_session_sandbox(s, NULL, &b), AVIARY_E_STATE, "it makes none any more");
	is_code(aviary_session_run(s, NULL), AVIARY_E_STATE);
	is_int(aviary_session_adopt(s, a), AVIARY_E_STATE, "nor adopts one");
	aviary_sandbox_free(a);
	aviary_sandbox_free(b);
	aviary_sandbox_free(never);
	aviary_session_free(s);
}

static void test_adoption(aviary_client *c, aviary_client *other)
{
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_session *s = session(c), *t = session(c);
	aviary_sandbox *a, *x, *found;
	aviary_sandbox_handles *l;
	aviary_error e;

	spec.memory_mb = 128;
	spec.max_lifetime_ms = 600000;
	spec.tags = (aviary_strings){session_tags, 1};
	a = aviary_sandbox_run_sync(c, &spec, &e);
	ok(a, "one from outside");
	is_int(aviary_session_adopt(s, a), 0, "adopted");
	is_int(aviary_session_adopt(s, a), 0, "twice is once");
	is_int((long long)aviary_session_count(s), 1, "one");
	is_int(aviary_session_adopt(t, a), 0, "by another session");
	ok(aviary_session_count(s) == 0 && aviary_session_count(t) == 1, "it has changed sessions");
	x = aviary_sandbox_new(c, NULL);
	is_int(aviary_session_adopt(s, x), AVIARY_E_INVALID, "not one that was not started");
	aviary_sandbox_free(x);
	x = aviary_sandbox_attach(other, aviary_sandbox_id(a));
	is_int(aviary_session_adopt(s, x), AVIARY_E_INVALID, "nor one of another client");
	aviary_sandbox_free(x);
	found = aviary_session_from_id_sync(s, aviary_sandbox_id(a), 1, &e);
	ok(found && aviary_session_count(s) == 1, "adopted by id: another handle");
	aviary_session_release(s, found);
	is_int((long long)aviary_session_count(s), 0, "released");
	aviary_sandbox_free(found);
	l = aviary_session_list_sync(s, NULL, 1, &e);
	ok(l && l->n == 1 && aviary_session_count(s) == 1, "adopted by its tag");
	aviary_sandbox_handles_free(l);
	is_int(aviary_session_close_sync(s, NULL, &e), 0, "closed: %s");
	is_int(aviary_session_close_sync(t, NULL, &e), 0, "what is gone already is fine");
	found = aviary_session_from_id_sync(s, aviary_sandbox_id(a), 1, &e);
	ok(!found || aviary_session_count(s) == 0, "a closed one adopts nothing");
	aviary_sandbox_free(found);
	aviary_sandbox_free(a);
	aviary_session_free(s);
	aviary_session_free(t);
}

/* A stop that fails is told, its sandbox stays, and another close works. */
static void test_failures(aviary_client *c)
{
	aviary_stop_options bad = AVIARY_STOP_OPTIONS_INIT;
	aviary_session *s = session(c);
	aviary_sandbox *a = aviary_session_run_sync(s, NULL, NULL);
	aviary_sandbox *b = aviary_session_run_sync(s, NULL, NULL), *gone = NULL;
	const aviary_failures *f;
	aviary_error e;
	aviary_op *op;

	gone = aviary_sandbox_attach(c, "sb0000000000000000000000000");
	is_int(aviary_session_adopt(s, gone), 0, "one that is not there");
	op = aviary_session_close(s, NULL);
	is_int((long long)aviary_op_failures(op)->n, 0, "no failures yet");
	is_int(
	    aviary_op_wait(op, 60000), AVIARY_E_SANDBOX_NOT_FOUND, "the close tells of the first");
	f = aviary_op_failures(op);
	ok(f->n == 1 && f->items[0].sandbox == gone &&
	        f->items[0].error.code == AVIARY_E_SANDBOX_NOT_FOUND &&
	        strcmp(f->items[0].error.sandbox_id, aviary_sandbox_id(gone)) == 0,
	    "and whom it is about");
	aviary_op_free(op);
	is_str(aviary_status_text(aviary_sandbox_status(a)), "stopped", "the others are stopped");
	is_str(aviary_status_text(aviary_sandbox_status(b)), "stopped", "both");
	aviary_sandbox_free(gone);
	aviary_sandbox_free(a);
	aviary_sandbox_free(b);
	aviary_session_free(s);

	s = session(c);
	a = aviary_session_run_sync(s, NULL, NULL);
	bad.grace_ms = 700000;
	is_int(aviary_session_close_sync(s, &bad, &e), AVIARY_E_INVALID, "a stop that cannot be");
	ok(aviary_session_is_closed(s) && aviary_session_count(s) == 1, "leaves it in the session");
	bad.grace_ms = -1;
	is_int(aviary_session_close_sync(s, &bad, &e), 0, "for another close");
	is_int((long long)aviary_session_count(s), 0, "which stops it");
	aviary_sandbox_free(a);
	aviary_session_free(s);
}

static void test_many(aviary_client *c)
{
	aviary_session *s = session(c);
	aviary_op *ops[16], *close;

	for (int i = 0; i < 16; i++)
		ops[i] = aviary_session_run(s, NULL);
	is_int(aviary_wait(ops, 16, 8, 120000) >= 8, 1, "half of 16 run");
	close = aviary_session_close(s, NULL);
	aviary_session_free(s); /* it goes on */
	is_int(aviary_op_wait(close, 120000), 0, "a close while the others start stops all");
	aviary_op_free(close);
	for (int i = 0; i < 16; i++)
		aviary_op_free(ops[i]);
	s = session(c);
	close = aviary_session_close(s, NULL);
	aviary_op_cancel(close);
	is_int(aviary_op_wait(close, 30000), 0, "one without sandboxes is closed at once");
	aviary_op_free(close);
	aviary_session_free(s);
	aviary_session_free(NULL);
}

int main(void)
{
	aviary_client *c = sdk_client(), *other = sdk_client();

	test_life(c);
	test_adoption(c, other);
	test_failures(c);
	test_many(c);
	aviary_client_free(other);
	aviary_client_free(c);
	return tap_done();
}
