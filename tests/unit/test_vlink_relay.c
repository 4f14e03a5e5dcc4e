/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vlink_relay.c - connections over a port: both ends on one loop, and hostile ends
 *
 * A socketpair is the port. The outside relay has one end; the other has the inside relay, which
 * serves an echo, or the test itself, which plays a guest that lies.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vlink/port.h"
#include "vlink/relay.h"

#include "base/buf.h"
#include "base/fd.h"
#include "lib/tap.h"
#include "proto/vlink.h"

#include "base/banned.h"

#define LONG_MS 20000

struct world {
	uv_loop_t loop;
	uv_timer_t guard, tick;
	struct vlink_relay *outside, *inside;
	int guest;  /* the port's end of a guest that the test plays */
	int served; /* the inside's socket of the present connection, or -1 */
	int connections, idles, gones, why;
	int (*until)(struct world *w);
	bool late;
	/* port tests */
	int begins, ends;
	struct av_buf records;
};

static void pair(int fds[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		abort();
}

static void on_connection(void *ctx, int fd)
{
	struct world *w = ctx;

	av_close_fd(&w->served);
	w->served = fd;
	w->connections++;
}

static void on_idle(void *ctx, struct vlink_relay *r, int why)
{
	struct world *w = ctx;

	ok(!vlink_relay_busy(r), "idle is idle");
	w->idles++;
	w->why = why;
}

static void on_gone(void *ctx, struct vlink_relay *r, int why)
{
	struct world *w = ctx;

	(void)r;
	w->gones++;
	w->why = why;
}

static const struct vlink_relay_ops ops = {on_connection, on_idle, on_gone};

static void on_guard(uv_timer_t *t)
{
	struct world *w = t->data;

	w->late = true;
	uv_stop(&w->loop);
}

static void on_tick(uv_timer_t *t)
{
	struct world *w = t->data;

	if (w->until && w->until(w))
		uv_stop(&w->loop);
}

/* Runs the loop until until() is true. */
static bool run(struct world *w, int (*until)(struct world *))
{
	w->until = until;
	w->late = false;
	uv_timer_start(&w->guard, on_guard, LONG_MS, 0);
	uv_timer_start(&w->tick, on_tick, 0, 1);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	uv_timer_stop(&w->guard);
	uv_timer_stop(&w->tick);
	if (w->late)
		diag("nothing happened");
	return !w->late;
}

static struct vlink_relay *open_relay(struct world *w, int fd, enum av_vlink_role role)
{
	struct vlink_relay *r;

	if (vlink_relay_open(&w->loop, fd, role, &ops, w, &r) < 0)
		abort();
	return r;
}

static void world_open(struct world *w, bool with_inside)
{
	int fds[2];

	*w = (struct world){.guest = -1, .served = -1, .records = AV_BUF_INIT(1 << 20)};
	pair(fds);
	uv_loop_init(&w->loop);
	uv_timer_init(&w->loop, &w->guard);
	uv_timer_init(&w->loop, &w->tick);
	w->guard.data = w->tick.data = w;
	w->outside = open_relay(w, fds[0], AV_VLINK_OUTSIDE);
	if (with_inside)
		w->inside = open_relay(w, fds[1], AV_VLINK_INSIDE);
	else
		w->guest = fds[1];
}

static void world_close(struct world *w)
{
	vlink_relay_close(w->outside);
	vlink_relay_close(w->inside);
	av_close_fd(&w->guest);
	av_close_fd(&w->served);
	av_buf_clear(&w->records);
	uv_close((uv_handle_t *)&w->guard, NULL);
	uv_close((uv_handle_t *)&w->tick, NULL);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	is_int(uv_loop_close(&w->loop), 0, "nothing is left on the loop");
}

/* A connected socket of which the relay has the other end. */
static int connect_relay(struct world *w, uint64_t timeout_ms)
{
	int fds[2];

	pair(fds);
	if (vlink_relay_connect(w->outside, fds[1], timeout_ms) < 0)
		close(fds[1]);
	return fds[0];
}

static int is_served(struct world *w)
{
	return w->served >= 0;
}

static int is_idle(struct world *w)
{
	return w->idles > 0;
}

static int is_gone(struct world *w)
{
	return w->gones > 0;
}

static int soon(struct world *w)
{
	static int turns;

	(void)w;
	return ++turns % 20 == 0;
}

/* --- both ends --- */

struct flow {
	uint64_t sent, got, total;
	uint32_t out, in; /* what comes next */
	bool wrong, ended;
};

static void flow_send(struct flow *f, int fd)
{
	static uint8_t buf[100000];
	ssize_t n;

	do {
		size_t k = AV_MIN(f->total - f->sent, (uint64_t)(1 + f->out % sizeof(buf)));
		uint32_t x = f->out;

		for (size_t i = 0; i < k; i++)
			buf[i] = (uint8_t)(x++ * 2654435761u >> 24);
		n = k ? write(fd, buf, k) : 0;
		if (n > 0) {
			f->sent += (uint64_t)n;
			f->out += (uint32_t)n;
		}
	} while (n > 0);
}

static void flow_take(struct flow *f, int fd)
{
	static uint8_t buf[100000];
	ssize_t n;

	while ((n = read(fd, buf, 1 + f->in % sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			f->wrong |= buf[i] != (uint8_t)(f->in++ * 2654435761u >> 24);
		f->got += (uint64_t)n;
	}
	f->ended |= n == 0;
}

static struct flow there, back;
static int client;

static int both_done(struct world *w)
{
	if (w->served < 0)
		return 0;
	flow_send(&there, client);
	flow_take(&there, w->served);
	flow_send(&back, w->served);
	flow_take(&back, client);
	return there.got == there.total && back.got == back.total;
}

static int all_came(struct world *w)
{
	if (w->served >= 0)
		flow_take(&there, w->served);
	return there.ended;
}

static int all_came_back(struct world *w)
{
	(void)w;
	flow_take(&back, client);
	return back.ended;
}

static void test_both_ways(void)
{
	struct world w;
	uint64_t to, from;

	world_open(&w, true);
	for (int i = 1; i <= 3; i++) {
		w.idles = 0;
		there = (struct flow){.total = 3000000 + (uint64_t)i};
		back = (struct flow){.total = 5000000};
		client = connect_relay(&w, LONG_MS);
		ok(run(&w, both_done), "connection %d", i);
		ok(!there.wrong && !back.wrong, "every byte as it was");
		is_int(w.connections, i, "one connection inside");
		/* The last bytes before the end of either side arrive. */
		there.total += 150000;
		back.total += 150000;
		if (i % 2) {
			flow_send(&there, client);
			close(client);
			ok(run(&w, all_came) && there.got == there.sent, "the end from outside");
			av_close_fd(&w.served);
		} else {
			flow_send(&back, w.served);
			av_close_fd(&w.served);
			ok(run(&w, all_came_back) && back.got == back.sent, "the end from inside");
			close(client);
		}
		ok(w.idles || run(&w, is_idle), "idle again");
		is_int(w.why, 0, "in peace");
	}
	vlink_relay_counts(w.outside, &to, &from);
	ok(to > 9000000 && from > 15000000, "counted: %llu and %llu", (unsigned long long)to,
	    (unsigned long long)from);
	client = connect_relay(&w, LONG_MS);
	ok(vlink_relay_busy(w.outside), "the next");
	is_int(vlink_relay_connect(w.outside, 0, 1), -EBUSY, "one at a time");
	close(client);
	world_close(&w);
}

/* Who does not read holds its own connection up, after a bounded number of bytes. */
static void test_slow_reader(void)
{
	struct world w;
	int fds[2];

	world_open(&w, true);
	there = (struct flow){.total = 100000000};
	client = connect_relay(&w, LONG_MS);
	run(&w, is_served);
	for (int i = 0; i < 20; i++) {
		flow_send(&there, client);
		run(&w, soon);
	}
	ok(there.sent > 200000 && there.sent < 4000000, "%llu bytes are on their way, no more",
	    (unsigned long long)there.sent);
	/* Its client goes: that is noticed although nothing can be sent. */
	close(client);
	ok(run(&w, is_idle), "and the end of who waits is seen");
	/* What is left inside is read, or dropped, and the next connection begins. */
	pair(fds);
	w.served = (close(w.served), -1);
	is_int(vlink_relay_connect(w.outside, fds[1], LONG_MS), 0, "the next connection");
	ok(run(&w, is_served), "comes through");
	close(fds[0]);
	world_close(&w);
}

static int want_connections;

static int has_connections(struct world *w)
{
	return w->connections >= want_connections;
}

/* The next RESET is behind what nobody took, somewhere between the port and the stream. */
static void test_reset_behind_data(void)
{
	struct world w;
	int bad = 0, held = 0;

	world_open(&w, true);
	for (uint64_t n = 180000; n < 400000; n += 9973) {
		client = connect_relay(&w, LONG_MS);
		want_connections = w.connections + 1;
		bad += !run(&w, has_connections);
		there = (struct flow){.total = n};
		for (int i = 0; i < 4; i++) {
			flow_send(&there, client);
			run(&w, soon);
		}
		vlink_relay_drop(w.outside);
		close(client);
		client = connect_relay(&w, LONG_MS);
		run(&w, soon);
		want_connections++;
		if (w.connections < want_connections) {
			held++;
			av_close_fd(&w.served);
		}
		bad += !run(&w, has_connections);
		vlink_relay_drop(w.outside);
		close(client);
	}
	ok(bad == 0 && held > 3, "a RESET behind what nobody wanted begins (%d were held)", held);
	world_close(&w);
}

/* A new process outside on the same port, as after a restore, in the middle of everything. */
static void test_new_outside(void)
{
	struct world w;
	int fds[2], again;

	world_open(&w, false);
	vlink_relay_close(w.outside);
	av_close_fd(&w.guest);
	pair(fds);
	again = dup(fds[0]);
	w.outside = open_relay(&w, fds[0], AV_VLINK_OUTSIDE);
	w.inside = open_relay(&w, fds[1], AV_VLINK_INSIDE);
	for (int i = 1; i <= 5; i++) {
		there = (struct flow){.total = 400000};
		back = (struct flow){.total = 400000};
		client = connect_relay(&w, LONG_MS);
		while (w.connections < i)
			run(&w, soon);
		flow_send(&there, client);
		flow_send(&back, w.served);
		run(&w, soon);
		vlink_relay_close(w.outside);
		close(client);
		fds[0] = again;
		again = dup(fds[0]);
		w.outside = open_relay(&w, fds[0], AV_VLINK_OUTSIDE);
	}
	there = (struct flow){.total = 400000};
	back = (struct flow){.total = 400000};
	client = connect_relay(&w, LONG_MS);
	while (w.connections < 6)
		run(&w, soon);
	ok(run(&w, both_done) && !there.wrong && !back.wrong, "clean after five torn connections");
	close(client);
	close(again);
	world_close(&w);
}

/* --- guests that lie --- */

static void guest_write(struct world *w, const void *p, size_t n)
{
	const char *s = p;

	while (n) {
		ssize_t k = write(w->guest, s, n);

		if (k > 0) {
			s += k;
			n -= (size_t)k;
		} else {
			run(w, soon);
		}
	}
}

/* Reads as a guest does, up to the RESET, and leaves its nonce. */
static void guest_find_reset(struct world *w, struct av_vlink_in *in)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(1 << 22);
	struct av_str payload;
	char buf[4096];
	size_t used = 0;
	ssize_t n;

	av_vlink_in_init(in, AV_VLINK_INSIDE);
	for (int i = 0; i < 100; i++) {
		run(w, soon);
		while ((n = read(w->guest, buf, sizeof(buf))) > 0)
			av_buf_append(&b, buf, (size_t)n);
		while (in->state == AV_VLINK_LOST &&
		       (av_vlink_next(in, av_buf_str(&b), &used, &payload) != AV_VLINK_NEED_MORE ||
		           used))
			av_buf_consume(&b, used);
		if (in->state == AV_VLINK_OPEN)
			return;
	}
	ok(false, "the guest sees a RESET");
}

static void guest_echo(struct world *w)
{
	uint8_t echo[AV_VLINK_ECHO_SIZE];
	struct av_vlink_in in;

	guest_find_reset(w, &in);
	av_vlink_put_echo(echo, in.nonce);
	guest_write(w, echo, sizeof(echo));
}

static int client_ended(struct world *w)
{
	char c;

	(void)w;
	return read(client, &c, 1) == 0;
}

static void test_liars(void)
{
	static const struct {
		const char *bytes, *what;
		size_t n;
		int why;
	} lies[] = {{"\1\0x\0", "type 0", 4, -EPROTO}, {"\xff\xff", "a long record", 2, -EPROTO},
	    {"\0\0\3", "an empty record", 3, -EPROTO}, {"\1\0x\1", "a RESET", 4, -EPROTO},
	    {"\0\0\4", "an end", 3, 0}};
	struct world w;
	char got[4] = "", junk[4096];

	world_open(&w, false);
	for (size_t i = 0; i < AV_ARRAY_LEN(lies); i++) {
		w.idles = 0;
		client = connect_relay(&w, LONG_MS);
		guest_echo(&w);
		guest_write(&w, "\2\0hi\3", 5);
		guest_write(&w, lies[i].bytes, lies[i].n);
		ok(run(&w, is_idle), "the guest sends %s", lies[i].what);
		is_int(w.why, lies[i].why, "what became of it");
		ok(read(client, got, 3) == 2 && memcmp(got, "hi", 2) == 0,
		    "what came before is there");
		ok(run(&w, client_ended), "and its client hears of it");
		close(client);
	}
	/* It never answers, and writes all the time. */
	w.idles = 0;
	client = connect_relay(&w, 200);
	for (int i = 0; i < 100; i++)
		guest_write(&w, "\24\0AVL1 this is not the nonce \2\3\0abc\3", 37);
	ok(run(&w, is_idle), "a guest that does not answer");
	is_int(w.why, -ETIMEDOUT, "is late");
	ok(run(&w, client_ended), "and its client hears of it");
	close(client);
	/* Nobody listens: what it writes is not even read. */
	for (int i = 0; i < 4000; i++)
		if (write(w.guest, got, 4) < 0)
			break;
	while (read(w.guest, junk, sizeof(junk)) > 0)
		;
	client = connect_relay(&w, LONG_MS);
	guest_echo(&w);
	guest_write(&w, "\2\0ok\3", 5);
	run(&w, soon);
	ok(read(client, got, 3) == 2 && memcmp(got, "ok", 2) == 0, "the next connection is clean");
	close(client);
	world_close(&w);
}

/* A guest that takes nothing: its client goes, and is let go. */
static void test_deaf_guest(void)
{
	struct world w;

	world_open(&w, false);
	client = connect_relay(&w, LONG_MS);
	there = (struct flow){.total = 10000000};
	for (int i = 0; i < 10; i++) {
		flow_send(&there, client);
		run(&w, soon);
	}
	ok(there.sent < 2000000, "%llu bytes, no more", (unsigned long long)there.sent);
	close(client);
	ok(run(&w, is_idle), "a deaf guest keeps nobody");
	/* Half a record is in the port now. */
	w.idles = 0;
	client = connect_relay(&w, LONG_MS);
	ok(write(client, "new", 3) == 3, "something to say");
	guest_echo(&w);
	ok(!w.idles, "and when it hears again, it finds the next RESET");
	close(client);
	world_close(&w);
}

static void test_gone(void)
{
	struct world w;

	world_open(&w, false);
	av_close_fd(&w.guest);
	ok(run(&w, is_gone), "a guest that ends while nobody is connected");
	client = connect_relay(&w, LONG_MS);
	ok(!vlink_relay_busy(w.outside), "nothing begins any more");
	close(client);
	world_close(&w);

	world_open(&w, false);
	client = connect_relay(&w, LONG_MS);
	guest_echo(&w);
	av_close_fd(&w.guest);
	ok(run(&w, is_gone), "a guest that ends");
	ok(w.why < 0 && run(&w, client_ended), "its client hears of it");
	close(client);
	world_close(&w);
}

/* --- messages --- */

static void port_begin(void *ctx)
{
	((struct world *)ctx)->begins++;
}

static void port_record(void *ctx, struct av_str payload)
{
	struct world *w = ctx;

	av_buf_printf(
	    &w->records, "%zu:%.*s ", payload.n, (int)AV_MIN(payload.n, (size_t)4), payload.p);
}

static void port_end(void *ctx, int why)
{
	struct world *w = ctx;

	w->ends++;
	w->why = why;
}

static const struct vlink_port_ops port_ops = {port_begin, port_record, NULL, port_end};

static int has_begun(struct world *w)
{
	return w->begins > 1;
}

static int has_ended(struct world *w)
{
	return w->ends > 0;
}

static int has_record(struct world *w)
{
	return w->records.n > 0;
}

static void test_messages(void)
{
	struct vlink_port *out, *in;
	struct world w;
	int fds[2], sent = 0;
	char big[AV_VLINK_PAYLOAD_MAX] = "big";

	world_open(&w, false);
	pair(fds);
	is_int(
	    vlink_port_open(&w.loop, fds[0], AV_VLINK_OUTSIDE, &port_ops, &w, &out), 0, "outside");
	is_int(vlink_port_open(&w.loop, fds[1], AV_VLINK_INSIDE, &port_ops, &w, &in), 0, "inside");
	is_int(vlink_port_send(in, AV_STR("x")), -ENOTCONN, "nobody is there yet");
	for (int i = 0; i < 3; i++) {
		w.begins = w.ends = 0;
		is_int(vlink_port_begin(out, LONG_MS), 0, "begin");
		is_int(vlink_port_send(out, AV_STR("first")), 0, "a message without waiting");
		ok(run(&w, has_begun), "both have begun");
		av_buf_reset(&w.records);
		is_int(vlink_port_send(in, AV_STR("answer")), 0, "an answer");
		ok(run(&w, has_record), "comes");
		is_avstr(av_buf_str(&w.records), "6:answ ", "as it was");
		is_int(w.ends, i > 0, "inside, the end of the old one came first");
	}
	while (vlink_port_send(out, av_str_n(big, sizeof(big))) == 0)
		sent++;
	ok(sent > 3 && sent < 40, "%d messages fit", sent);
	vlink_port_end(in);
	ok(!vlink_port_connected(in) && run(&w, has_ended), "the end");
	is_int(w.why, 0, "of the other side");
	is_int(vlink_port_send(out, AV_STR("x")), -ENOTCONN, "is the end");
	w.ends = 0;
	vlink_port_close(in);
	ok(run(&w, has_ended) && w.why == -EPIPE, "and then the port is gone");
	vlink_port_close(out);
	world_close(&w);
}

int main(void)
{
	test_both_ways();
	test_slow_reader();
	test_reset_behind_data();
	test_new_outside();
	test_liars();
	test_deaf_guest();
	test_gone();
	test_messages();
	return tap_done();
}
