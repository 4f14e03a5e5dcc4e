/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ops.c - operations: waiting for some, for those of many clients, callbacks, every order of
 * letting go, and loops of others
 */
#include <poll.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <unistd.h>

#include "tests/sdk/c/forwarder.h"
#include "tests/sdk/c/sdk.h"

static aviary_client *client(unsigned flags)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_client *c;

	o.flags = flags;
	if (aviary_client_new(&c, &o) == 0)
		return c;
	printf("Bail out! %s\n", aviary_client_error(c)->message);
	exit(2);
}

static aviary_op *ask(aviary_client *c, const char *path)
{
	aviary_request q = AVIARY_REQUEST_INIT;

	q.path = path;
	return aviary_client_request(c, &q);
}

/* One that is not done before it is cancelled: nothing in the sandbox ends. */
static aviary_op *pending(aviary_sandbox *sb)
{
	return aviary_sandbox_wait_complete(sb, -1, 0);
}

static aviary_sandbox *taken(aviary_client *c)
{
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_sandbox *sb;
	aviary_op *op;

	spec.memory_mb = 128;
	spec.max_lifetime_ms = 600000;
	op = aviary_sandbox_run(c, &spec);
	ok(!aviary_op_take_sandbox(op), "nothing to take before it is done");
	is_int(aviary_op_wait(op, 60000), 0, "done");
	ok(!aviary_op_take_sandbox_handles(op), "a result is of its own type");
	sb = aviary_op_take_sandbox(op);
	ok(sb && !aviary_op_take_sandbox(op), "and taken once");
	aviary_op_free(op);
	return sb;
}

static void test_wait(aviary_client *c)
{
	aviary_sandbox *sb = taken(c);
	aviary_op *slow = pending(sb), *slow2 = pending(sb), *bad = ask(c, "no path"),
	          *good = ask(c, "/v1/limits");
	aviary_op *ops[5] = {slow, good, slow2, bad, good}, *null[1] = {NULL};
	size_t failed = 99;

	is_int(aviary_wait(ops, 5, 3, INT64_MAX), 3, "three of five, failures and duplicates too");
	ok(ops[0] == good && ops[1] == bad && ops[2] == good && ops[3] == slow && ops[4] == slow2,
	    "in order, those that are done first");
	is_int(aviary_wait(ops, 5, 0, 20), 3, "all would take longer");
	ok(ops[3] == slow && ops[4] == slow2, "and nothing is cancelled");
	is_int(aviary_wait(ops, 0, 0, 1000), 0, "none of none");
	is_int(aviary_wait(null, 1, 0, 0), AVIARY_E_INVALID, "NULL is no operation");
	is_int(aviary_results(ops, 3, &failed), AVIARY_E_INVALID, "the first that failed");
	is_int((long long)failed, 1, "by its place");
	aviary_op_cancel(slow);
	is_int(aviary_op_wait(slow, 1000), AVIARY_E_CANCELED, "cancelled");
	aviary_op_cancel(slow);
	aviary_op_cancel(good);
	is_int(aviary_op_code(good), 0, "one that is done cannot be");
	aviary_op_free(slow);
	aviary_op_free(good);
	aviary_op_free(bad);
	aviary_op_free(slow2); /* not done: goes on unseen, until the client goes */
	sdk_remove(sb);
}

static void test_many_clients(void)
{
	aviary_client *cs[6];
	aviary_op *ops[60];

	for (int i = 0; i < 6; i++)
		cs[i] = client(i % 2 ? AVIARY_CLIENT_THREADED : 0);
	for (int i = 0; i < 60; i++)
		ops[i] = ask(cs[i % 6], "/v1/limits");
	is_int(aviary_wait(ops, 60, 0, 60000), 60, "of six clients, with and without threads");
	is_int(aviary_results(ops, 60, NULL), 0, "all well");
	for (int i = 0; i < 60; i++)
		aviary_op_free(ops[i]);
	for (int i = 0; i < 12; i++)
		ops[i] = ask(cs[i % 6], "/v1/limits");
	ok(aviary_wait(ops, 12, 1, 60000) >= 1, "one of them");
	is_int(aviary_wait(ops, 12, 0, 60000), 12, "then the others");
	for (int i = 0; i < 12; i++)
		aviary_op_free(ops[i]);
	for (int i = 0; i < 6; i++)
		aviary_client_free(cs[i]);
}

struct seen {
	int calls, code;
	atomic_int over; /* those calls that have returned: what they did can be looked at */
	aviary_op *next;
	aviary_client *c;
};

static void on_done(aviary_op *op, void *ctx)
{
	struct seen *s = ctx;

	s->calls++;
	s->code = aviary_op_code(op);
	ok(aviary_op_user(op) == s, "a callback finds what the caller left");
	if (s->c) {
		aviary_op *ops[1];

		s->next = ops[0] = ask(s->c, "/v1/limits"); /* from inside */
		ok(aviary_op_wait(s->next, 10) == AVIARY_E_STATE || aviary_op_is_done(s->next),
		    "which must not wait");
		ok(aviary_wait(ops, 1, 0, 10) != 0, "nor for several");
	}
	aviary_op_free(op); /* the caller's, from inside */
	s->over++;
}

static void test_callbacks(aviary_client *c)
{
	struct seen s = {.c = c};
	aviary_op *op = ask(c, "/v1/limits"), *again;
	int code;

	aviary_op_set_user(op, &s);
	aviary_op_on_done(op, on_done, &s);
	again = aviary_op_ref(op);
	code = aviary_op_wait(again, 60000);
	for (int i = 0; i < 500 && !s.over; i++)
		if (aviary_client_dispatch(c, 10) < 0)
			usleep(10000);
	is_int(code, 0, "done");
	is_int(s.calls, 1, "called once");
	is_int(aviary_op_wait(s.next, 60000), 0, "what it began goes on");
	aviary_op_free(s.next);
	s = (struct seen){0};
	aviary_op_set_user(again, &s);
	aviary_op_on_done(aviary_op_ref(again), on_done, &s); /* it is done already */
	for (int i = 0; i < 500 && !s.over; i++)
		if (aviary_client_dispatch(c, 10) < 0)
			usleep(10000);
	is_int(s.calls, 1, "one that is done calls back too");
	aviary_op_free(again);
}

static void forget(aviary_op *op, void *ctx)
{
	(void)op;
	++*(int *)ctx;
}

static void test_client_first(void)
{
	for (unsigned flags = 0; flags <= AVIARY_CLIENT_THREADED; flags += AVIARY_CLIENT_THREADED) {
		aviary_client *c = client(flags);
		aviary_sandbox *sb = sdk_sandbox(c), *other;
		aviary_op *ops[4] = {pending(sb), aviary_sandbox_wait_complete(sb, -1, 0),
		    ask(c, "/v1/limits"), aviary_sandbox_refresh(sb)};
		char id[80];
		int called = 0;
		aviary_client *late = client(0);

		(void)snprintf(id, sizeof(id), "%s", aviary_sandbox_id(sb));
		for (int i = 0; i < 4; i++)
			aviary_op_on_done(ops[i], forget, &called);
		aviary_op_free(ops[0]); /* nobody looks at it any more */
		aviary_client_free(c);
		is_int(called, 4, "a client that goes ends all its operations");
		is_int(aviary_op_wait(ops[1], -1), AVIARY_E_CANCELED, "also one that only waited");
		ok(aviary_op_error(ops[1])->message[0], "with a reason");
		is_code(aviary_sandbox_refresh(sb), AVIARY_E_STATE);
		is_code(aviary_sandbox_stop(sb, NULL), AVIARY_E_STATE);
		is_code(pending(sb), AVIARY_E_STATE);
		aviary_sandbox_free(sb);
		for (int i = 1; i < 4; i++)
			aviary_op_free(ops[i]);
		other = aviary_sandbox_attach(late, id);
		sdk_remove(other);
		aviary_client_free(late);
	}
}

/* 20 requests driven by a loop of the program's. */
static void drive(aviary_client *c, const char *how, int (*wait)(int fd, int timeout_ms))
{
	aviary_op *ops[20];
	int called = 0, turns = 0;

	for (int i = 0; i < 20; i++) {
		ops[i] = ask(c, "/v1/limits");
		aviary_op_on_done(ops[i], forget, &called);
	}
	while (called < 20 && turns++ < 10000) {
		(void)wait(aviary_client_fd(c), aviary_client_timeout(c));
		if (aviary_client_dispatch(c, 0) < 0)
			break;
	}
	is_int(called, 20, how);
	is_int(aviary_client_dispatch(c, 0), 0, "nothing is open");
	for (int i = 0; i < 20; i++)
		aviary_op_free(ops[i]);
}

static int by_poll(int fd, int timeout_ms)
{
	struct pollfd at = {.fd = fd, .events = POLLIN};

	return poll(&at, 1, timeout_ms);
}

static int by_select(int fd, int timeout_ms)
{
	struct timeval tv = {timeout_ms / 1000, (timeout_ms % 1000) * 1000};
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return select(fd + 1, &set, NULL, NULL, timeout_ms < 0 ? NULL : &tv);
}

static int by_epoll(int fd, int timeout_ms)
{
	struct epoll_event e = {.events = EPOLLIN};
	int ep = epoll_create1(EPOLL_CLOEXEC), n;

	(void)epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	n = epoll_wait(ep, &e, 1, timeout_ms);
	close(ep);
	return n;
}

static void test_loops(void)
{
	aviary_client *c = client(0), *t = client(AVIARY_CLIENT_THREADED);

	drive(c, "by poll", by_poll);
	drive(c, "by select", by_select);
	drive(c, "by epoll", by_epoll);
	is_int(aviary_client_fd(t), AVIARY_E_STATE, "a client with a thread has none");
	is_int(aviary_client_dispatch(t, 0), AVIARY_E_STATE, "and is driven by that");
	aviary_client_free(c);
	aviary_client_free(t);
}

static void test_unix_socket(void)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	struct forwarder f;
	aviary_client *c;
	char path[100];

	(void)snprintf(path, sizeof(path), "%s/daemon.sock", getenv("AVIARY_TEST_DIR"));
	unlink(path);
	ok(forwarder_start(&f, path), "a unix socket");
	o.unix_socket = path;
	o.base_url = "http://aviary.invalid";
	is_int(aviary_client_new(&c, &o), 0, "a client by it");
	is_code(ask(c, "/v1/limits"), 0);
	ok(atomic_load(&f.connections) > 0, "goes through it");
	aviary_client_free(c);
	forwarder_stop(&f);
	unlink(path);
}

int main(void)
{
	aviary_client *c = sdk_client();

	test_wait(c);
	test_callbacks(c);
	aviary_client_free(c);
	test_many_clients();
	test_client_first();
	test_loops();
	test_unix_socket();
	return tap_done();
}
