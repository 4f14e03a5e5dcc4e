/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - a wake-up from other threads and one timer, for layers that do not know libuv
 */
#pragma once

#include <stdint.h>

struct uv_loop_s;
struct node_loop;

struct node_loop_events {
	void (*on_wake)(void *ctx);  /* node_loop_wake was called, once or more often */
	void (*on_timer)(void *ctx); /* the time given to node_loop_wake_at has come */
};

int node_loop_new(struct uv_loop_s *loop, const struct node_loop_events *ev, void *ctx,
    struct node_loop **ret);
void node_loop_wake(void *l);                      /* any thread; l is a struct node_loop * */
void node_loop_wake_at(void *l, int64_t boot_ns);  /* loop thread; replaces the former; INT64_MAX: none */
/* Asynchronous: frees itself when libuv lets go of the handles. */
void node_loop_close(struct node_loop *l);
