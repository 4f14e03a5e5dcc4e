/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node_jail.c - the jail driver against a worker that dies, lies, and is slow to come
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"
#include "driver_seen.h"
#include "lib/run_loop.h"
#include "lib/tap.h"
#include "net/loop.h"
#include "node/jail/jail.h"
#include "spawn/wire.h"

#include "base/banned.h"

static char dir[] = "/tmp/aviary-jail-XXXXXX";
static char path[100];
static struct av_loop *loop;
static struct driver *driver;

/* ---- the worker: a socket that the test itself reads and answers ---- */

static int listener = -1, conn = -1;

static void worker_listen(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	memcpy(addr.sun_path, path, sizeof(path));
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 8) < 0)
		abort();
}

static void run_for(int64_t ms)
{
	run_loop_for(loop, ms);
}

static bool receive(struct spawn_request *rq)
{
	int64_t end = av_mono_ns() + 5 * AV_NS_PER_S;

	while (av_mono_ns() < end) {
		if (conn < 0)
			conn = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (conn >= 0 && recv(conn, rq, sizeof(*rq), 0) == (ssize_t)sizeof(*rq))
			return true;
		run_for(2);
	}
	return false;
}

static void reply(const struct spawn_request *rq, struct spawn_reply *rep, int fd)
{
	rep->op = rq->op;
	rep->seq = rq->seq;
	if (av_send_fds(conn, rep, sizeof(*rep), &fd, fd >= 0 ? 1 : 0, 0) != (ssize_t)sizeof(*rep))
		diag("the reply could not be sent");
}

static void hello_while(uint32_t preparing)
{
	struct spawn_request rq = {0};
	struct spawn_reply rep = {0};

	ok(receive(&rq) && rq.op == SPAWN_HELLO && rq.u.protocol == SPAWN_PROTOCOL,
	    "the driver says hello");
	rep.u.hello.protocol = SPAWN_PROTOCOL;
	rep.u.hello.can = SPAWN_CAN_MEMORY | SPAWN_CAN_SUDO;
	rep.u.hello.isolation = SPAWN_ISOLATION_ROOT;
	rep.u.hello.disk_default_bytes = 12345;
	rep.u.hello.preparing = preparing;
	memcpy(rep.u.hello.boot_id, "boot-1", 7);
	reply(&rq, &rep, -1);
	run_for(20);
}

static void hello(void)
{
	hello_while(0);
}

static void die(void)
{
	av_close_fd(&conn);
	run_for(30);
}

/* ---- what comes back ---- */

static const char id1[] = "sb0000000000000000000000001";

static void test_create(void)
{
	struct driver_spec spec = {.memory_bytes = 1 << 20, .cpu_milli = 500, .sudo = false};
	struct spawn_request rq = {0};
	struct spawn_reply rep = {0};
	struct seen s = {0};
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	memcpy(spec.id, id1, sizeof(id1));
	memcpy(spec.template_id, "host", 5);
	(void)driver->ops->create(driver, &spec, on_alive, &s);
	is_int(s.calls, 0, "no callback inside the call");
	ok(receive(&rq) && rq.op == SPAWN_CREATE && strcmp(rq.id, id1) == 0 &&
	        rq.u.create.memory_bytes == 1 << 20 && rq.u.create.flags == SPAWN_CREATE_NO_SUDO &&
	        strcmp(rq.u.create.template_id, "host") == 0,
	    "the request carries the limits");
	rep.u.create.pid = 77;
	rep.u.create.start_ticks = 88;
	rep.u.create.pidns_ino = 99;
	reply(&rq, &rep, fd);
	run_for(20);
	ok(s.calls == 1 && s.kind == 0 && s.ev.pid == 77 && s.ev.start_ticks == 88 &&
	        s.ev.pidns_inode == 99 && s.pidfd >= 0 && strcmp(s.ev.boot_id, "boot-1") == 0,
	    "the answer carries evidence and a pidfd");
	(void)driver->ops->create(driver, &spec, on_alive, &s);
	(void)receive(&rq);
	reply(&rq, &rep, -1);
	run_for(20);
	ok(s.calls == 2 && s.kind == AV_ERR_INTERNAL, "without a pidfd it is an error: %s",
	    s.message);
	(void)driver->ops->create(driver, &spec, on_alive, &s);
	(void)receive(&rq);
	rep = (struct spawn_reply){.error = ENOSPC};
	memset(rep.text, 'x', sizeof(rep.text));
	reply(&rq, &rep, -1);
	run_for(20);
	ok(s.calls == 3 && s.kind == AV_ERR_NO_SPACE, "an errno becomes a kind");
	close(fd);
}

static void test_out_of_order(void)
{
	struct spawn_request a = {0}, b = {0};
	struct spawn_reply rep = {0};
	struct seen s1 = {0}, s2 = {0};

	(void)driver->ops->inspect(driver, id1, on_status, &s1);
	(void)driver->ops->freeze(driver, id1, on_done, &s2);
	ok(receive(&a) && receive(&b) && a.op == SPAWN_INSPECT && b.op == SPAWN_FREEZE,
	    "requests are pipelined in order");
	reply(&b, &rep, -1);
	run_for(20);
	ok(s1.calls == 0 && s2.calls == 1, "replies may come in another order");
	rep.u.inspect.oom_kills = 4;
	rep.u.inspect.exit_bytes = 4000000;
	reply(&a, &rep, -1);
	run_for(20);
	ok(s1.calls == 1 && s1.st.oom_kills == 4 && s1.st.exit_record_len == SPAWN_EXIT_SIZE,
	    "lengths are bounded");
	a.seq = 424242;
	reply(&a, &rep, -1);
	run_for(20);
	is_int(s1.calls, 1, "a reply to nothing is passed over");
}

static void test_list(void)
{
	struct spawn_request rq = {0};
	struct spawn_reply rep = {0};
	struct seen s = {0};

	(void)driver->ops->list(driver, on_list, &s);
	(void)receive(&rq);
	rep.u.list.count = 2;
	rep.u.list.more = 1;
	memcpy(rep.u.list.entries[0].id, id1, sizeof(id1));
	memcpy(rep.u.list.entries[1].id, "../../etc", 10);
	reply(&rq, &rep, -1);
	ok(receive(&rq) && strcmp(rq.u.after, "../../etc") == 0, "the next page is asked for");
	rep.u.list.more = 0;
	rep.u.list.count = 1000;
	reply(&rq, &rep, -1);
	run_for(20);
	ok(s.calls == 1 && s.n == 2 && strcmp(s.last, id1) == 0,
	    "only good ids come through, of as many as there can be");
}

static void test_adopt(void)
{
	struct driver_evidence ev = {
	    .pid = 5, .start_ticks = 6, .pidns_inode = 7, .boot_id = "boot-1"};
	struct spawn_request rq = {0};
	struct spawn_reply rep = {.error = ESTALE};
	struct seen s = {0};

	(void)driver->ops->adopt(driver, id1, &ev, on_alive, &s);
	ok(receive(&rq) && rq.op == SPAWN_ADOPT && rq.u.adopt.pid == 5 &&
	        rq.u.adopt.start_ticks == 6,
	    "evidence is sent");
	reply(&rq, &rep, -1);
	run_for(20);
	is_int(s.kind, AV_ERR_INVALID_STATE, "another process has its number");
	memcpy(ev.boot_id, "boot-0", 7);
	(void)driver->ops->adopt(driver, id1, &ev, on_alive, &s);
	run_for(20);
	ok(s.calls == 2 && s.kind == AV_ERR_NOT_FOUND, "after another boot nothing is asked");
}

static void test_worker_death(void)
{
	struct driver_spec spec = {.memory_bytes = 1};
	struct spawn_request rq = {0};
	struct spawn_reply rep = {0};
	struct seen c = {0}, d = {0}, w = {0};

	memcpy(spec.id, id1, sizeof(id1));
	(void)driver->ops->create(driver, &spec, on_alive, &c);
	(void)driver->ops->destroy(driver, id1, on_done, &d);
	(void)receive(&rq);
	(void)receive(&rq);
	is_int(rq.op, SPAWN_DESTROY, "both were sent");
	die();
	ok(c.calls == 1 && c.kind == AV_ERR_UNAVAILABLE, "the create fails for certain: %s",
	    c.message);
	is_int(d.calls, 0, "the destroy waits");
	ok(!driver->ops->is_ready(driver), "the driver is not ready");
	(void)driver->ops->create(driver, &spec, on_alive, &w);
	hello();
	ok(driver->ops->is_ready(driver), "it connects to the next worker");
	ok(receive(&rq) && rq.op == SPAWN_DESTROY, "the destroy is said again, first");
	reply(&rq, &rep, -1);
	ok(receive(&rq) && rq.op == SPAWN_CREATE, "then the create that waited");
	rep.error = EUSERS;
	reply(&rq, &rep, -1);
	run_for(20);
	ok(d.calls == 1 && d.kind == 0 && w.calls == 1 && w.kind == AV_ERR_QUOTA,
	    "both are answered");

	(void)driver->ops->destroy(driver, id1, on_done, &d);
	for (int i = 0; i < 3; i++) {
		(void)receive(&rq);
		die();
		if (i < 2)
			hello();
	}
	ok(d.calls == 2 && d.kind == AV_ERR_UNAVAILABLE, "what kills three workers is given up");
	hello();
}

static void test_bad_packets(void)
{
	struct spawn_request rq = {0};
	struct spawn_reply rep = {0};
	struct seen s = {0};

	(void)driver->ops->inspect(driver, id1, on_status, &s);
	(void)receive(&rq);
	(void)send(conn, "short", 5, 0);
	run_for(20);
	ok(!driver->ops->is_ready(driver), "a packet of another size ends the connection");
	av_close_fd(&conn);
	hello();
	ok(receive(&rq) && rq.op == SPAWN_INSPECT, "and the request is said again");
	reply(&rq, &rep, -1);
	run_for(20);
	ok(s.calls == 1 && s.kind == 0, "until it is answered");
}

static void set_flag(void *ctx)
{
	*(bool *)ctx = true;
}

static void test_close(void)
{
	struct seen s = {0};
	bool closed = false;

	(void)driver->ops->inspect(driver, id1, on_status, &s);
	driver->ops->close(driver, set_flag, &closed);
	ok(!closed, "closing does not call back inside the call");
	run_for(20);
	ok(closed && s.calls >= 1 && s.kind == AV_ERR_CANCELED, "what was under way is cancelled");
}

static bool ready;

/* A worker that makes template host is asked again until it has it. */
static void test_preparing(void)
{
	die();
	ready = false;
	hello_while(1);
	ok(driver->ops->is_ready(driver) && driver->ops->caps(driver)->preparing,
	    "ready, but preparing itself");
	ok(ready, "somebody was told");
	ready = false;
	run_for(150);
	hello_while(1);
	run_for(150);
	hello();
	ok(driver->ops->is_ready(driver) && !driver->ops->caps(driver)->preparing,
	    "now it is done");
	ok(!ready, "which is no new worker");
	struct spawn_request rq;
	run_for(150);
	ok(recv(conn, &rq, sizeof(rq), MSG_DONTWAIT) < 0, "and it is not asked any more");
}

int main(void)
{
	struct jail_config config = {.spawn_socket = path, .run_dir = dir};
	struct av_err err;
	char too_long[200];
	int fd;

	if (!mkdtemp(dir) || av_path_printf(path, sizeof(path), "%s/spawn.sock", dir) < 0 ||
	    av_loop_new(&loop) < 0)
		return 1;
	config.loop = loop;
	memset(too_long, 'a', sizeof(too_long) - 1);
	too_long[sizeof(too_long) - 1] = '\0';
	ok(jail_driver_new(
	       &(struct jail_config){.loop = loop, .spawn_socket = path, .run_dir = too_long},
	       &driver, &err) < 0,
	    "a path too long for sockets is refused: %.60s", err.message);
	if (jail_driver_new(&config, &driver, &err) < 0)
		return 1;
	driver->on_ready = set_flag;
	driver->on_ready_ctx = &ready;
	run_for(100);
	ok(!driver->ops->is_ready(driver), "without a worker it is not ready");
	worker_listen();
	hello();
	ok(ready && driver->ops->is_ready(driver), "with one it is");
	ok(driver->ops->caps(driver)->flags == (DRIVER_LIMIT_MEMORY | DRIVER_SUDO) &&
	        driver->ops->caps(driver)->disk_default_bytes == 12345,
	    "its abilities are known: %s", driver->ops->caps(driver)->detail);
	test_preparing();
	test_create();
	test_out_of_order();
	test_list();
	test_adopt();
	ok(driver->ops->agent_connect(driver, id1, &fd, &err) < 0 && err.kind == AV_ERR_AGENT,
	    "no agent, no connection: %s", err.message);
	test_worker_death();
	test_bad_packets();
	test_close();
	av_close_fd(&conn);
	av_close_fd(&listener);
	(void)unlink(path);
	(void)rmdir(dir);
	av_loop_free(loop);
	return tap_done();
}
