/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_agent_ring.c - the ring against a plain model: every byte is read, or counted as dropped
 */
#include "agent/ring.h"
#include "lib/tap.h"

#define MAX_BYTES (64 * 1024)

static struct ring_budget budget = {.max = 1024 * 1024};
static char record[RING_RECORD_MAX];

/* Byte number i of the stream that the tests write. */
static char byte_at(uint64_t i)
{
	return (char)(i * 2654435761u >> 7);
}

static void write_bytes(struct ring *r, uint8_t channel, uint64_t *at, size_t n)
{
	static char buf[300000];

	for (size_t i = 0; i < n; i++)
		buf[i] = byte_at(*at + i);
	ring_append(r, channel, buf, n);
	*at += n;
}

/* Reads to the end; true if what was read and missed adds up, byte for byte. */
static bool drain(struct ring *r, struct ring_cursor *c, uint64_t *pos, uint64_t *gap)
{
	uint8_t channel;
	uint64_t n;

	for (;;) {
		switch (ring_read(r, c, &channel, record, &n)) {
		case RING_END:
			return true;
		case RING_GAP:
			*gap += n;
			*pos += n;
			break;
		case RING_RECORD:
			for (uint64_t i = 0; i < n; i++)
				if (record[i] != byte_at(*pos + i))
					return false;
			*pos += n;
			break;
		}
	}
}

static void test_small(void)
{
	struct ring_cursor c = {0};
	struct ring r;
	uint8_t channel = 0;
	uint64_t n = 0;

	ring_init(&r, &budget, MAX_BYTES);
	ok(ring_read(&r, &c, &channel, record, &n) == RING_END, "empty");
	ring_append(&r, 2, "one", 3);
	ring_append(&r, 2, "two", 3);
	ring_append(&r, 3, "err", 3);
	ok(ring_read(&r, &c, &channel, record, &n) == RING_RECORD && n == 6 && channel == 2 &&
	        memcmp(record, "onetwo", 6) == 0,
	    "bytes of one channel join");
	ok(ring_read(&r, &c, &channel, record, &n) == RING_RECORD && n == 3 && channel == 3,
	    "channels stay in order");
	ring_append(&r, 3, "more", 4);
	ok(ring_read(&r, &c, &channel, record, &n) == RING_RECORD && n == 4,
	    "a record that was read does not grow");
	ok(ring_read(&r, &c, &channel, record, &n) == RING_END, "end");
	ring_clear(&r);
	is_int(budget.used, 0, "the budget gets it back");
}

static void test_overflow(void)
{
	struct ring_cursor late = {0}, live = {0};
	uint64_t at = 0, pos = 0, gap = 0, live_pos = 0, live_gap = 0;
	bool good = true;
	struct ring r;

	ring_init(&r, &budget, MAX_BYTES);
	for (int i = 0; i < 400; i++) {
		write_bytes(&r, (uint8_t)(2 + i % 2), &at, (size_t)(i * 37 % 3000));
		if (i % 7 == 0)
			good = good && drain(&r, &live, &live_pos, &live_gap);
	}
	ok(good && drain(&r, &live, &live_pos, &live_gap) && live_pos == at && live_gap == 0,
	    "a reader that keeps up misses nothing");
	ok(drain(&r, &late, &pos, &gap) && pos == at && gap > 0 && gap == r.dropped,
	    "a late one gets the newest and the count");
	ok(at - gap > MAX_BYTES / 2 && r.cap == MAX_BYTES, "the ring is used well");
	write_bytes(&r, 2, &at, 250000);
	ok(drain(&r, &late, &pos, &gap) && pos == at, "one write larger than the ring");
	ring_clear(&r);
}

static void test_budget(void)
{
	struct ring_budget tight = {.max = 20 * 1024};
	struct ring a, b;
	struct ring_cursor ca = {0}, cb = {0};
	uint64_t at = 0, bt = 0, pos = 0, gap = 0;

	ring_init(&a, &tight, MAX_BYTES);
	ring_init(&b, &tight, MAX_BYTES);
	write_bytes(&a, 2, &at, 15000);
	ok(tight.used <= tight.max && drain(&a, &ca, &pos, &gap) && pos == at, "first ring");
	write_bytes(&b, 2, &bt, 5000);
	pos = gap = 0;
	ok(b.cap == 0 && drain(&b, &cb, &pos, &gap) && gap == 5000,
	    "no memory left: all is counted");
	write_bytes(&a, 2, &at, 100000);
	pos = 15000;
	gap = 0;
	ok(a.cap == 16384 && drain(&a, &ca, &pos, &gap) && pos == at && gap > 0,
	    "a ring that may not grow goes on in what it has");
	ring_clear(&a);
	ring_clear(&b);
	is_int(tight.used, 0, "all given back");
}

int main(void)
{
	test_small();
	test_overflow();
	test_budget();
	return tap_done();
}
