/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_series.c - three rings of falling resolution keep what they promise, in bounded memory
 */
#include "control/series.h"

#include "lib/tap.h"

#include "base/banned.h"

#define BEGIN 1700000100u /* a multiple of 300 */

static struct series_point point(uint32_t at_s, uint16_t cpu, uint32_t memory)
{
	return (struct series_point){.at_s = at_s, .cpu = cpu, .memory_4k = memory, .disk_4k = 7};
}

static void fill(struct series *s, uint32_t from, uint32_t seconds)
{
	for (uint32_t i = 0; i < seconds; i++) {
		struct series_point p = point(from + i, (uint16_t)(i % 2 ? 100 : 300), 1000 + i);

		if (series_add(s, &p) < 0)
			abort();
	}
}

static void test_tiers(void)
{
	struct series_point v[SERIES_FINE_MAX + 1];
	struct series s = {0};

	is_int(series_last_s(&s), 0, "an empty one has no last second");
	is_int((long long)series_count(&s, SERIES_FINE), 0, "and no points");
	fill(&s, BEGIN, 3);
	is_int((long long)series_copy(&s, SERIES_FINE, v), 3, "three seconds are three points");
	is_int(v[2].memory_4k, 1002, "in their order");
	is_int((long long)series_copy(&s, SERIES_COARSE, v), 1, "and one that is not complete");
	is_int(v[0].at_s, BEGIN, "from the beginning of its five minutes");
	ok(s.ring[SERIES_FINE].cap <= 8, "a short life costs little memory");

	fill(&s, BEGIN + 3, 100000 - 3);
	is_int(
	    (long long)series_copy(&s, SERIES_FINE, v), SERIES_FINE_MAX, "ten minutes of seconds");
	is_int(v[0].at_s, BEGIN + 100000 - SERIES_FINE_MAX, "the newest ones");
	is_int(v[SERIES_FINE_MAX - 1].at_s, BEGIN + 100000 - 1, "up to the last");
	is_int((long long)series_copy(&s, SERIES_MIDDLE, v), SERIES_MIDDLE_MAX + 1,
	    "two hours of half minutes and the one that is not complete");
	is_int((long long)series_copy(&s, SERIES_COARSE, v), SERIES_COARSE_MAX + 1, "a day");
	is_int(v[1].at_s - v[0].at_s, 300, "in steps of five minutes");
	is_int(v[10].cpu, 200, "the mean of the CPU");
	is_int(v[10].memory_4k, 1000 + v[10].at_s + 299 - BEGIN - 3, "the maximum of the memory");
	is_int(v[10].disk_4k, 7, "and of the disk");
	series_clear(&s);
	ok(SERIES_BYTES_MAX < 20000, "a day costs %zu bytes", SERIES_BYTES_MAX);
}

static void test_clock(void)
{
	struct series_point p = point(BEGIN + 10, 1, 1), v[SERIES_FINE_MAX + 1];
	struct series s = {0};

	(void)series_add(&s, &p);
	(void)series_add(&s, &p);
	is_int((long long)series_count(&s, SERIES_FINE), 1, "one point a second");
	p.at_s -= 5;
	(void)series_add(&s, &p);
	is_int((long long)series_count(&s, SERIES_FINE), 1, "a small step back adds nothing");
	p.at_s -= 3600;
	(void)series_add(&s, &p);
	is_int((long long)series_copy(&s, SERIES_FINE, v), 1, "a large one begins anew");
	is_int(v[0].at_s, BEGIN + 5 - 3600, "at the new time");
	series_clear(&s);
}

static void test_restore(void)
{
	struct series_point old[4], v[SERIES_FINE_MAX + 1];
	struct series s = {0};

	fill(&s, BEGIN, 700);
	old[0] = point(BEGIN - 600, 20000, 5); /* no such share */
	old[1] = point(BEGIN - 300, 50, 5);
	old[2] = point(BEGIN - 900, 50, 5);  /* not in order */
	old[3] = point(BEGIN + 9000, 50, 5); /* of the future */
	is_int(series_restore(&s, old, 4), 0, "what comes from disk is taken up");
	is_int((long long)series_copy(&s, SERIES_COARSE, v), 4, "as far as it is plausible");
	is_int(v[0].at_s, BEGIN - 300, "below what is there");
	is_int(v[1].at_s, BEGIN, "which stays");
	fill(&s, BEGIN + 700, 100000);
	is_int((long long)series_count(&s, SERIES_COARSE), SERIES_COARSE_MAX + 1, "and goes on");
	is_int(series_restore(&s, v, 0), 0, "nothing may be restored as well");
	series_clear(&s);
}

int main(void)
{
	test_tiers();
	test_clock();
	test_restore();
	return tap_done();
}
