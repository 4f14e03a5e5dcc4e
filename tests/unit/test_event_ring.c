/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_event_ring.c - what is kept of events, and what readers see of what is not
 */
#include "api/event_ring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/tap.h"

#include "base/banned.h"

static struct event_ring ring;

static void push_number(uint64_t n)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "event %llu", (unsigned long long)n);
	event_ring_push(&ring, (uint32_t)(n % 7), "", av_str_c(text));
}

static bool has(uint64_t n)
{
	const struct event_item *it = event_ring_get(&ring, n);
	char text[32];

	(void)snprintf(text, sizeof(text), "event %llu", (unsigned long long)n);
	return it && it->kind == n % 7 && av_str_eq_c(av_str_n(it->text, it->n), text);
}

static void test_numbers(void)
{
	bool right = true;

	event_ring_init(&ring);
	ok(!event_ring_get(&ring, 0) && !event_ring_get(&ring, 1) &&
	        !event_ring_get(&ring, UINT64_MAX),
	    "an empty ring has nothing");
	for (uint64_t n = 1; n <= 5000; n++) {
		push_number(n);
		right = right && has(n) && has(ring.first) && !has(n + 1) && !has(ring.first - 1) &&
		        ring.next == n + 1 && ring.next - ring.first <= EVENT_RING_MAX;
	}
	ok(right, "the newest are there under their numbers");
	is_int((long)(ring.next - ring.first), EVENT_RING_MAX, "as many as are allowed");
	event_ring_clear(&ring);
	is_int((long)ring.bytes, 0, "nothing is left of the text");
	push_number(5001);
	ok(has(5001) && ring.first == 5001, "numbers go on");
	event_ring_clear(&ring);
}

static void test_bytes(void)
{
	size_t n = 300 * 1024;
	char *text = malloc(EVENT_RING_BYTES + 1);
	bool right = true;

	memset(text, 'x', EVENT_RING_BYTES + 1);
	event_ring_init(&ring);
	for (int i = 0; i < 100; i++) {
		event_ring_push(&ring, 0, "sb", av_str_n(text, n));
		right =
		    right && ring.bytes <= EVENT_RING_BYTES && event_ring_get(&ring, ring.next - 1);
	}
	ok(right, "the text has a bound");
	is_int(
	    (long)(ring.next - ring.first), (long)(EVENT_RING_BYTES / n), "as many as fit into it");
	event_ring_push(&ring, 0, "", av_str_n(text, EVENT_RING_BYTES));
	ok(ring.next - ring.first == 1 && ring.bytes == EVENT_RING_BYTES, "one may fill it");
	event_ring_push(&ring, 0, "", av_str_n(text, EVENT_RING_BYTES + 1));
	ok(ring.first == 103 && ring.next == 103 && ring.bytes == 0,
	    "one that is larger leaves a hole that is seen");
	event_ring_lose(&ring);
	event_ring_push(&ring, 3, "", AV_STR("event 104"));
	ok(ring.first == 104 && event_ring_get(&ring, 104), "so does one that cannot be written");
	ok(event_ring_cost(&ring) > ring.bytes, "what it holds is counted");
	event_ring_clear(&ring);
	ok(event_ring_cost(&ring) == 0 && ring.first == 105 && !event_ring_get(&ring, 104),
	    "an emptied one holds nothing, and its numbers go on");
	event_ring_push(&ring, 3, "", AV_STR("event 105"));
	ok(event_ring_get(&ring, 105), "with the next one");
	event_ring_clear(&ring);
	free(text);
}

int main(void)
{
	test_numbers();
	test_bytes();
	return tap_done();
}
