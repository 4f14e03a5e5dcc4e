/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event_loop_uv - a client inside a libuv loop, beside the loop's own timers: nothing here waits
 *
 *     cc event_loop_uv.c $(pkg-config --cflags --libs aviary libuv)
 *
 * The adapter is attach() and the two callbacks above it: one descriptor and one timer. GLib and
 * others: see event_loop_poll.c for the same with poll(), and docs/libaviary.md.
 */
#include <aviary/aviary.h>
#include <stdio.h>
#include <uv.h>

struct loop {
	uv_poll_t poll;
	uv_timer_t due, tick;
	aviary_client *client;
	aviary_sandbox *sandbox;
	aviary_process *process;
	aviary_op *stop;
	int ticks, code;
};

static void on_due(uv_timer_t *t);

/* Lets the client do what it can, and asks when it wants to be called again. */
static void turn(struct loop *l)
{
	int ms;

	(void)aviary_client_dispatch(l->client, 0);
	ms = aviary_client_timeout(l->client);
	if (ms < 0)
		uv_timer_stop(&l->due);
	else
		uv_timer_start(&l->due, on_due, (uint64_t)ms, 0);
}

static void on_due(uv_timer_t *t)
{
	turn(t->data);
}

static void on_ready(uv_poll_t *p, int status, int events)
{
	(void)status;
	(void)events;
	turn(p->data);
}

static void attach(uv_loop_t *loop, struct loop *l)
{
	uv_poll_init(loop, &l->poll, aviary_client_fd(l->client));
	uv_timer_init(loop, &l->due);
	l->poll.data = l->due.data = l;
	uv_poll_start(&l->poll, UV_READABLE, on_ready);
	uv_timer_start(&l->due, on_due, 0, 0);
}

static void detach(struct loop *l)
{
	uv_close((uv_handle_t *)&l->poll, NULL);
	uv_close((uv_handle_t *)&l->due, NULL);
}

/* ---- the program ---- */

static void on_tick(uv_timer_t *t)
{
	struct loop *l = t->data;

	l->ticks++;
}

static void on_stopped(aviary_op *op, void *ctx)
{
	struct loop *l = ctx;

	if (aviary_op_code(op) != 0)
		fprintf(stderr, "%s\n", aviary_op_error(op)->message);
	uv_close((uv_handle_t *)&l->tick, NULL);
	detach(l);
}

static void on_exit_(aviary_op *op, void *ctx)
{
	struct loop *l = ctx;
	const aviary_exec_result *r = aviary_process_result(l->process);

	if (r)
		printf("%s", r->out);
	else
		fprintf(stderr, "%s\n", aviary_op_error(op)->message);
	l->code = r ? r->exit_code : 1;
	l->stop = aviary_sandbox_stop(l->sandbox, NULL);
	aviary_op_on_done(l->stop, on_stopped, l);
}

int main(void)
{
	uv_loop_t *loop = uv_default_loop();
	struct loop l = {.code = 1};

	if (aviary_client_new(&l.client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(l.client)->message);
		return 1;
	}
	attach(loop, &l);
	uv_timer_init(loop, &l.tick);
	l.tick.data = &l;
	uv_timer_start(&l.tick, on_tick, 50, 50);

	l.sandbox = aviary_sandbox_new(l.client, NULL);
	l.process = aviary_sandbox_shell(l.sandbox, "sleep 2; echo done in the sandbox");
	aviary_op_on_done(aviary_process_op(l.process), on_exit_, &l);
	uv_run(loop, UV_RUN_DEFAULT);
	printf("the loop's own timer came %s meanwhile\n", l.ticks > 2 ? "often" : "too rarely");

	uv_loop_close(loop);
	aviary_op_free(l.stop);
	aviary_process_free(l.process);
	aviary_sandbox_free(l.sandbox);
	aviary_client_free(l.client);
	return l.code;
}
