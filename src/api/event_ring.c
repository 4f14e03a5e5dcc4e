/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event_ring.c - the newest events of a team (see event_ring.h)
 */
#include "api/event_ring.h"

#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

static struct event_item *slot(struct event_ring *r, uint64_t number)
{
	return &r->items[number % EVENT_RING_MAX];
}

static void drop_first(struct event_ring *r)
{
	struct event_item *it = slot(r, r->first++);

	r->bytes -= it->n;
	free(it->text);
	*it = (struct event_item){0};
}

void event_ring_init(struct event_ring *r)
{
	memset(r, 0, sizeof(*r));
	r->first = r->next = 1;
}

void event_ring_clear(struct event_ring *r)
{
	while (r->first < r->next)
		drop_first(r);
	av_freep(&r->items);
}

size_t event_ring_cost(const struct event_ring *r)
{
	return r->items ? r->bytes + EVENT_RING_MAX * sizeof(*r->items) : 0;
}

void event_ring_lose(struct event_ring *r)
{
	event_ring_clear(r);
	r->first = ++r->next;
}

void event_ring_push(struct event_ring *r, uint32_t kind, const char *about, struct av_str text)
{
	char *copy = text.n <= EVENT_RING_BYTES ? av_str_dup(text) : NULL;
	struct event_item *it;

	if (copy && !r->items)
		r->items = calloc(EVENT_RING_MAX, sizeof(*r->items));
	if (!copy || !r->items) {
		free(copy);
		event_ring_lose(r);
		return;
	}
	while (r->next - r->first == EVENT_RING_MAX ||
	       (r->first < r->next && r->bytes + text.n > EVENT_RING_BYTES))
		drop_first(r);
	it = slot(r, r->next++);
	it->text = copy;
	it->n = (uint32_t)text.n;
	it->kind = kind;
	if (av_str_copy(it->about, sizeof(it->about), av_str_c(about)) < 0)
		it->about[0] = '\0';
	r->bytes += text.n;
}

const struct event_item *event_ring_get(const struct event_ring *r, uint64_t number)
{
	if (number < r->first || number >= r->next)
		return NULL;
	return &r->items[number % EVENT_RING_MAX];
}
