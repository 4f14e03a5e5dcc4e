/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_net_loop.c - timers, deferred calls, work, posts, watches and signals of the loop
 */
#include <pthread.h>
#include <signal.h>

#include "net_util.h"

#include "base/banned.h"

#define TIMERS 2000

struct rec {
	struct av_timer t;
	uint64_t due;
	int fired;
};

static struct rec recs[TIMERS];
static int fired_total, out_of_order;
static uint64_t last_due;

static void on_rec(void *ctx)
{
	struct rec *r = ctx;
	r->fired++;
	fired_total++;
	if (r->due + 1 < last_due) /* what shares a millisecond has no order */
		out_of_order++;
	last_due = r->due;
}

static void test_timers(void)
{
	uint32_t seed = 12345;
	int expected = 0;
	uint64_t now = av_loop_now_ms(loop);
	for (int i = 0; i < TIMERS; i++) {
		av_timer_init(&recs[i].t, loop, on_rec, &recs[i]);
		seed = seed * 1664525 + 1013904223;
		recs[i].due = now + 20 + (seed >> 16) % 200;
		av_timer_start(&recs[i].t, recs[i].due - now);
	}
	for (int i = 0; i < TIMERS; i++) {
		seed = seed * 1664525 + 1013904223;
		switch ((seed >> 16) % 4) {
		case 0:
			av_timer_stop(&recs[i].t);
			av_timer_stop(&recs[i].t);
			recs[i].due = 0;
			continue;
		case 1:
			recs[i].due += 50;
			break;
		case 2:
			recs[i].due -= 10;
			break;
		default:
			break;
		}
		av_timer_start(&recs[i].t, recs[i].due - now);
		expected++;
	}
	ok(pump_until(fired_total >= expected), "all timers that were not stopped fire");
	is_int(fired_total, expected, "each of them once");
	is_int(out_of_order, 0, "in the order of their deadlines");
	int wrong = 0;
	for (int i = 0; i < TIMERS; i++)
		wrong += recs[i].fired != (recs[i].due != 0) || av_timer_active(&recs[i].t);
	is_int(wrong, 0, "stopped ones do not fire, none is left active");
}

static struct av_timer again;
static int again_n;

static void on_again(void *ctx)
{
	(void)ctx;
	if (++again_n < 3)
		av_timer_start(&again, 0);
}

static void test_restart(void)
{
	av_timer_init(&again, loop, on_again, NULL);
	av_timer_start(&again, 0);
	is_int(again_n, 0, "a timer never fires inside the call that starts it");
	ok(pump_until(again_n == 3), "a timer may be started again from its callback");
	int64_t t0 = av_mono_ns();
	again_n = 100;
	av_timer_start(&again, 10);
	av_timer_start(&again, 60);
	pump_until(again_n > 100);
	ok(av_mono_ns() - t0 >= 55 * AV_NS_PER_MS, "a timer moved later fires later");
}

static int late_n;

static void on_late(void *ctx)
{
	(void)ctx;
	late_n++;
}

/* The time-out may be over before the loop comes to wait; then it must not wait for what is due
 * next. */
static void test_run_once(void)
{
	struct av_timer late;
	av_timer_init(&late, loop, on_late, NULL);
	int fired = 0;
	for (unsigned i = 0; i < 20; i++) {
		late_n = 0;
		av_timer_start(&late, 3000);
		av_loop_run_once(loop, i % 2);
		fired += late_n;
		av_timer_stop(&late);
	}
	is_int(fired, 0, "one iteration does not wait beyond its time-out");
	int64_t t0 = av_mono_ns();
	av_loop_run_once(loop, 30);
	av_loop_run_once(loop, 30);
	ok(av_mono_ns() - t0 >= 25 * AV_NS_PER_MS, "but does wait");
}

static struct av_defer d1, d2, d3;
static char order[16];

static void on_defer(void *ctx)
{
	order[strlen(order)] = *(const char *)ctx;
	if (ctx == d1.ctx && strlen(order) < 3)
		av_defer_start(&d2, loop);
}

static void test_defer(void)
{
	static char a[] = "a", b[] = "b", c[] = "c";
	av_defer_init(&d1, on_defer, a);
	av_defer_init(&d2, on_defer, b);
	av_defer_init(&d3, on_defer, c);
	av_defer_start(&d1, loop);
	av_defer_start(&d1, loop);
	av_defer_start(&d3, loop);
	av_defer_stop(&d3);
	is_str(order, "", "deferred calls do not run at once");
	av_loop_run_once(loop, 20);
	is_str(order, "ab", "once each, also what a deferred call defers, not what was stopped");
}

static int work_runs, work_done_status = 1;
static pthread_t work_thread;

static void work(void *ctx)
{
	(void)ctx;
	work_thread = pthread_self();
	work_runs++;
}

static void work_done(void *ctx, int status)
{
	ok(ctx == &work_runs, "the context comes back");
	work_done_status = status;
}

static struct av_post posts[1000];
static int posted, post_disorder;

static void on_post(void *ctx)
{
	post_disorder += ctx != &posts[posted];
	posted++;
}

static void *poster(void *arg)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(posts); i++) {
		posts[i] = (struct av_post){.fn = on_post, .ctx = &posts[i]};
		av_loop_post(loop, &posts[i]);
	}
	return arg;
}

static void test_threads(void)
{
	is_int(av_loop_work(loop, work, work_done, &work_runs), 0, "work is taken");
	ok(pump_until(work_done_status != 1), "and done");
	is_int(work_done_status, 0, "with status 0");
	ok(!pthread_equal(work_thread, pthread_self()), "on another thread");
	is_int(av_loop_metrics(loop)->work_pending, 0, "none is pending");
	pthread_t t;
	pthread_create(&t, NULL, poster, NULL);
	ok(pump_until(posted == 1000), "posts from a thread arrive");
	pthread_join(t, NULL);
	is_int(post_disorder, 0, "in order");
}

static int watch_events, signals;

static void on_watch(void *ctx, int events)
{
	struct av_watch **w = ctx;
	watch_events |= events;
	av_watch_free(*w);
	*w = NULL;
}

static void on_signal(void *ctx, int signum)
{
	(void)ctx;
	signals += signum == SIGUSR1;
}

static void test_watch(void)
{
	int fds[2];
	struct av_watch *w = NULL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds) < 0)
		return;
	is_int(av_watch_new(loop, fds[0], on_watch, &w, &w), 0, "a watch on a seqpacket socket");
	av_watch_set(w, AV_WATCH_READ);
	pump(10);
	is_int(watch_events, 0, "nothing to read yet");
	ok(send(fds[1], "x", 1, 0) == 1 && pump_until(watch_events), "readable after a message");
	is_int(watch_events, AV_WATCH_READ, "only readable");
	ok(!w, "a watch may be freed in its callback");
	close(fds[0]);
	close(fds[1]);
	struct av_signal *s = NULL;
	is_int(av_signal_new(loop, SIGUSR1, on_signal, NULL, &s), 0, "a signal handler");
	raise(SIGUSR1);
	ok(pump_until(signals == 1), "sees the signal");
	av_signal_free(s);
}

static void on_stop(void *ctx)
{
	/* A stall that the histogram must show. */
	usleep(30000);
	av_loop_stop(ctx);
}

static void cancel_done(void *ctx, int status)
{
	(void)status;
	(*(int *)ctx)++;
}

static void slow_work(void *ctx)
{
	(void)ctx;
	usleep(20000);
}

int main(void)
{
	is_int(av_loop_new(&loop), 0, "a loop");
	test_timers();
	test_restart();
	test_run_once();
	test_defer();
	test_threads();
	test_watch();
	struct av_timer t;
	av_timer_init(&t, loop, on_stop, loop);
	av_timer_start(&t, 1);
	is_int(av_loop_run(loop), 0, "run returns after stop");
	av_loop_run_once(loop, 1);
	const struct av_loop_metrics *m = av_loop_metrics(loop);
	ok(m->stall_max_us >= 30000, "a long callback is a stall (%llu us)",
	    (unsigned long long)m->stall_max_us);
	uint64_t sum = 0;
	for (int i = 0; i < AV_LOOP_STALL_BUCKETS; i++)
		sum += m->stall_count[i];
	is_int(sum, m->iterations, "every iteration is in a bucket");
	int done = 0;
	for (int i = 0; i < 20; i++)
		if (av_loop_work(loop, slow_work, cancel_done, &done) < 0)
			done++;
	av_loop_free(loop);
	is_int(done, 20, "freeing the loop finishes or cancels all work");
	return tap_done();
}
