/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_clock.c - the host's clock is set a year forth and back: nothing ends for it, nothing is
 * forgotten for it, time-outs go on, and lists hold each sandbox once
 */
#include "control_world.h"

#include "base/banned.h"

#define HOUR_S 3600LL
#define YEAR_S (365 * 24 * HOUR_S)

/* Time passes, on both clocks. */
static void pass(struct world *w, int64_t seconds)
{
	w->skew_ns += seconds * AV_NS_PER_S;
	w->real_skew_ms += seconds * 1000;
	control_tick(w->control);
	run_for(w, 60);
}

/* Somebody sets the clock on the wall. */
static void set_clock(struct world *w, int64_t seconds)
{
	w->real_skew_ms += seconds * 1000;
	pass(w, 11);
}

static struct answer make(struct world *w, int64_t idle_s, int64_t life_s)
{
	const struct sandbox_params p = {
	    .idle_timeout_ms = idle_s * 1000, .max_lifetime_ms = life_s * 1000};

	return create(w, &p);
}

static void is_state(struct world *w, const char *id, enum sandbox_state state, const char *what)
{
	struct answer a = get(w, id);

	ok(a.kind == AV_ERR_NONE && a.state == state, "%s", what);
}

/* Every sandbox of the past and of now, in pages of two: how many, in how many pages. */
static void count_pages(struct world *w, size_t want)
{
	struct sandbox_filter f = {.limit = 2};
	struct answer a = {0};
	char cursor[80] = "";
	size_t total = 0;

	for (unsigned int i = 0; i < SANDBOX_STATE_COUNT; i++)
		f.states |= 1u << i;
	for (int page = 0; page < 50; page++) {
		f.cursor = av_str_c(cursor);
		a = list(w, &f);
		total += a.n;
		memcpy(cursor, a.next, sizeof(cursor));
		if (!cursor[0])
			break;
	}
	ok(total == want, "pages hold each of %zu sandboxes once: %zu", want, total);
}

static void test_jumps(struct world *w)
{
	struct answer forever = make(w, 0, 0), idle = make(w, 7200, 0), life = make(w, 0, 7200);
	struct answer past = make(w, 0, 0);
	size_t made = 4;

	(void)delete (w, past.id);
	pass(w, 11);
	for (int i = 0; i < 2; i++) {
		set_clock(w, i ? -2 * YEAR_S : YEAR_S);
		diag("%s", i ? "a year back" : "a year forth");
		is_state(w, forever.id, SANDBOX_RUNNING, "one without time-outs runs");
		is_state(w, idle.id, SANDBOX_RUNNING, "one with an inactivity time-out runs");
		is_state(w, life.id, SANDBOX_RUNNING, "one with a lifetime runs");
		struct answer other = make(w, 0, 0);
		is_int(other.kind, AV_ERR_NONE, "others can be made");
		(void)delete (w, other.id);
		(void)make(w, 0, 0);
		made += 2;
		pass(w, HOUR_S / 4);
		is_int(get(w, past.id).kind, AV_ERR_NONE, "what ended before is remembered");
		is_int(get(w, other.id).kind, AV_ERR_NONE, "what ended since, too");
		count_pages(w, made);
		control_tick(w->control);
	}
	set_clock(w, YEAR_S);
	pass(w, HOUR_S);
	is_int(get(w, past.id).kind, AV_ERR_NONE, "the clock is right again: nothing is forgotten");
	pass(w, HOUR_S);
	pass(w, 60);
	is_state(w, life.id, SANDBOX_STOPPED, "a lifetime ends when it has passed, and not before");
	is_state(w, forever.id, SANDBOX_RUNNING, "the first one still runs");
}

static void test_forgetting_goes_on(struct world *w)
{
	struct answer past = make(w, 0, 0);

	(void)delete (w, past.id);
	pass(w, 25 * HOUR_S);
	is_int(get(w, past.id).kind, AV_ERR_NONE, "a day old is not too old");
	for (int day = 0; day < 9; day++)
		pass(w, 24 * HOUR_S);
	run_for(w, 200);
	is_int(get(w, past.id).kind, AV_ERR_NOT_FOUND, "more than a week old is");
}

static void test_keys(struct world *w)
{
	struct control_actor actor;

	set_clock(w, 10 * YEAR_S);
	is_int(control_key_verify(w->control, av_str_c(w->secret), &actor, NULL), 0,
	    "a key without an end works in ten years");
	set_clock(w, -20 * YEAR_S);
	is_int(control_key_verify(w->control, av_str_c(w->secret), &actor, NULL), 0,
	    "and ten years ago");
	set_clock(w, 10 * YEAR_S);
}

int main(void)
{
	struct fake_machine m;
	struct world w;
	char secret[64];

	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	world_first(&w);
	test_jumps(&w);
	test_keys(&w);
	memcpy(secret, w.secret, sizeof(secret));
	world_close(&w, true);
	/* Another daemon, at another time: it takes the clock as it finds it. */
	world_open(&w, &m, NULL);
	is_int(control_key_verify(w.control, av_str_c(secret), &w.actor, NULL), 0, "the key works");
	test_forgetting_goes_on(&w);
	world_close(&w, true);
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
