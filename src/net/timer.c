/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timer.c - all timers of a loop in one pairing heap over one uv_timer_t
 *
 * A timer that is moved later stays where it is in the heap (due_ms) and is put back when it comes
 * to the front too early (want_ms). Pairing heap: Fredman et al. 1986; insertion and merging are
 * O(1), removal O(log n) amortised, and nodes need no array that could fail to grow.
 */
#include "net/loop.h"

#include "net/loop_internal.h"

#include "base/banned.h"

#define DELAY_MAX_MS (365ULL * 24 * 3600 * 1000)

static struct av_timer *merge(struct av_timer *a, struct av_timer *b)
{
	if (!a)
		return b;
	if (!b)
		return a;
	if (b->due_ms < a->due_ms) {
		struct av_timer *t = a;
		a = b;
		b = t;
	}
	b->next = a->child;
	if (a->child)
		a->child->prev = b;
	b->prev = a;
	a->child = b;
	return a;
}

/* Merges a list of siblings in pairs, then the pairs from the last to the first; iterative, as a
 * thousand siblings are usual. */
static struct av_timer *merge_siblings(struct av_timer *first)
{
	struct av_timer *pairs = NULL; /* chained by next, last pair first */
	while (first) {
		struct av_timer *a = first, *b = a->next;
		first = b ? b->next : NULL;
		a->next = a->prev = NULL;
		if (b)
			b->next = b->prev = NULL;
		a = merge(a, b);
		a->next = pairs;
		pairs = a;
	}
	struct av_timer *root = NULL;
	while (pairs) {
		struct av_timer *t = pairs;
		pairs = t->next;
		t->next = t->prev = NULL;
		root = merge(root, t);
	}
	return root;
}

static void heap_insert(struct av_loop *l, struct av_timer *t)
{
	t->child = t->next = t->prev = NULL;
	l->heap = merge(l->heap, t);
}

static void heap_remove(struct av_loop *l, struct av_timer *t)
{
	struct av_timer *rest = merge_siblings(t->child);
	if (l->heap == t) {
		l->heap = rest;
	} else {
		if (t->prev->child == t)
			t->prev->child = t->next;
		else
			t->prev->next = t->next;
		if (t->next)
			t->next->prev = t->prev;
		l->heap = merge(l->heap, rest);
	}
	t->child = t->next = t->prev = NULL;
}

static void on_uv_timer(uv_timer_t *h)
{
	struct av_loop *l = h->data;
	l->armed_ms = UINT64_MAX;
	loop_timers_run(l);
}

static void arm(struct av_loop *l)
{
	if (l->firing)
		return;
	if (!l->heap) {
		if (l->armed_ms != UINT64_MAX)
			uv_timer_stop(&l->timer);
		l->armed_ms = UINT64_MAX;
		return;
	}
	if (l->armed_ms == l->heap->due_ms)
		return;
	uint64_t now = uv_now(&l->uv);
	l->armed_ms = l->heap->due_ms;
	uv_timer_start(&l->timer, on_uv_timer, l->armed_ms > now ? l->armed_ms - now : 0, 0);
}

void loop_timers_run(struct av_loop *l)
{
	uint64_t now = uv_now(&l->uv);
	l->firing = true;
	while (l->heap && l->heap->due_ms <= now) {
		struct av_timer *t = l->heap;
		heap_remove(l, t);
		if (t->want_ms > t->due_ms) {
			t->due_ms = t->want_ms;
			heap_insert(l, t);
			continue;
		}
		t->active = false;
		t->on_fire(t->ctx);
	}
	l->firing = false;
	arm(l);
}

void av_timer_init(struct av_timer *t, struct av_loop *l, void (*on_fire)(void *ctx), void *ctx)
{
	*t = (struct av_timer){.loop = l, .on_fire = on_fire, .ctx = ctx};
}

void av_timer_start(struct av_timer *t, uint64_t delay_ms)
{
	struct av_loop *l = t->loop;
	/* Within a run, zero would fire in the same run and could starve the loop. */
	if (delay_ms == 0 && l->firing)
		delay_ms = 1;
	uint64_t due = uv_now(&l->uv) + AV_MIN(delay_ms, (uint64_t)DELAY_MAX_MS);
	if (t->active && due >= t->due_ms) {
		t->want_ms = due;
		return;
	}
	if (t->active)
		heap_remove(l, t);
	t->active = true;
	t->due_ms = t->want_ms = due;
	heap_insert(l, t);
	arm(l);
}

void av_timer_stop(struct av_timer *t)
{
	if (!t->active)
		return;
	t->active = false;
	heap_remove(t->loop, t);
	arm(t->loop);
}
