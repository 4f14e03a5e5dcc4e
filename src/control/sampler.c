/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sampler.c - asks the machine once a second what each sandbox uses, and remembers it
 *
 * Theory of operation. A round begins each second while anything lives, unless the last one is
 * still under way: a slow machine is asked less often and nothing queues. The CPU's share is the
 * difference of two readings by the clock of the readings; after a pause the first reading only
 * begins anew, so that the first point after a resume says what was used since. Coarse points go to
 * disk when a sandbox is paused or ends, once an hour, and when the daemon stops; they come back
 * when it starts.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "control/control_internal.h"
#include "control/metrics.h"

#include "base/banned.h"

#define ROUND_NS    AV_NS_PER_S
#define SAVE_S      3600
#define CPU_FULL    10000
#define UNIT_4K     4096
#define RANGE_MAX_S 86400

/* ---- rounds ---- */

static struct sampling *sampling_of(struct sandbox *sb)
{
	if (!sb->sampling)
		sb->sampling = calloc(1, sizeof(*sb->sampling));
	return sb->sampling;
}

static uint32_t units(uint64_t bytes)
{
	return (uint32_t)AV_MIN(bytes / UNIT_4K, (uint64_t)UINT32_MAX);
}

/* Share of all its processors between two readings, in 1/100 %. */
static uint16_t cpu_share(const struct sandbox *sb, uint64_t usec, int64_t ns)
{
	double cpus = (double)AV_MAX(sb->rec.cpu_milli, (int64_t)1) / 1000;
	double share = (double)usec * 1000 / (double)ns / cpus * CPU_FULL;

	return (uint16_t)(share > CPU_FULL ? CPU_FULL : share);
}

static void take_sample(struct sandbox *sb, int64_t mono_ns, const struct driver_sample *v)
{
	struct sampler *sm = &sb->c->sampler;
	struct sampling *g = sampling_of(sb);
	struct series_point p = {
	    .at_s = (uint32_t)(control_real_ms(sb->c) / 1000),
	    .memory_4k = units(v->memory_bytes),
	    .disk_4k = units(v->disk_used_bytes),
	};
	bool comparable;

	if (!g)
		return;
	sm->memory_round += v->memory_bytes;
	sm->disk_round += v->disk_used_bytes;
	comparable = g->last_ns && mono_ns > g->last_ns && v->cpu_usec >= g->last_cpu_usec;
	if (comparable) {
		p.cpu = cpu_share(sb, v->cpu_usec - g->last_cpu_usec, mono_ns - g->last_ns);
		sm->stats.cpu_usec += v->cpu_usec - g->last_cpu_usec;
	}
	g->last_ns = mono_ns;
	g->last_cpu_usec = v->cpu_usec;
	if ((comparable || !v->has_cpu) && series_add(&g->series, &p) < 0)
		sm->stats.failures++;
	if (!g->saved_s)
		g->saved_s = p.at_s;
	if (p.at_s - g->saved_s >= SAVE_S && p.at_s > g->saved_s)
		sampler_save(sb);
}

static void on_samples(void *ctx, int64_t mono_ns, const struct driver_sample *v, size_t n,
    bool more, const struct av_err *err)
{
	struct control *c = ctx;
	struct sampler *sm = &c->sampler;
	int64_t begun = av_mono_ns();

	for (size_t i = 0; i < n; i++) {
		struct sandbox *sb = av_map_get(&c->sandboxes, av_str_c(v[i].id));

		if (sb && sb->state == SANDBOX_RUNNING && !sb->ending)
			take_sample(sb, mono_ns, &v[i]);
		else if (sb && sb->sampling)
			sb->sampling->last_ns = 0;
		else if (!sb)
			pool_sampled(c, v[i].id, v[i].memory_bytes);
	}
	sm->seen_round += n;
	sm->stats.busy_ns += (uint64_t)(av_mono_ns() - begun);
	if (more)
		return;
	sm->under_way = false;
	if (err) {
		sm->stats.failures++;
		return;
	}
	sm->stats.rounds++;
	av_hist_add(&sm->stats.round, av_mono_ns() - sm->begun_ns);
	sm->stats.sandboxes = sm->seen_round;
	sm->stats.memory_bytes = sm->memory_round;
	sm->stats.disk_bytes = sm->disk_round;
}

void sampler_tick(struct control *c, int64_t now_ns)
{
	struct sampler *sm = &c->sampler;

	if (now_ns < sm->next_ns)
		return;
	if (av_list_empty(&c->live)) {
		sm->next_ns = INT64_MAX;
		sm->stats.sandboxes = 0;
		sm->stats.memory_bytes = sm->stats.disk_bytes = 0;
		return;
	}
	sm->next_ns = AV_MAX(sm->next_ns + ROUND_NS, now_ns + ROUND_NS / 2);
	if (sm->under_way || !node_is_ready(c->node))
		return;
	sm->seen_round = sm->memory_round = sm->disk_round = 0;
	sm->begun_ns = av_mono_ns();
	sm->under_way = node_sample(c->node, on_samples, c) == 0;
}

void sampler_wake(struct control *c)
{
	if (c->sampler.next_ns != INT64_MAX)
		return;
	c->sampler.next_ns = control_boot_ns(c) + ROUND_NS;
	control_wake(c, c->sampler.next_ns);
}

/* ---- on disk ---- */

void sampler_save(struct sandbox *sb)
{
	struct series_point v[SERIES_COARSE_MAX + 1];
	struct sampling *g = sb->sampling;
	size_t n;

	/* What lived for seconds leaves nothing that anybody would look at. */
	if (!g || (!g->series.ring[SERIES_MIDDLE].n && !g->series.ring[SERIES_COARSE].n) ||
	    g->saved_s == series_last_s(&g->series))
		return;
	n = series_copy(&g->series, SERIES_COARSE, v);
	g->saved_s = series_last_s(&g->series);
	if (store_points_put(sb->c->store, sb->rec.id, v, n * sizeof(v[0]), NULL, NULL) < 0)
		sb->c->sampler.stats.failures++;
}

void sampler_drop(struct sandbox *sb)
{
	sampler_save(sb);
	if (sb->sampling)
		series_clear(&sb->sampling->series);
	free(sb->sampling);
	sb->sampling = NULL;
}

struct restore {
	struct control *c;
	char id[AV_ID_SIZE];
};

static void on_restored(void *ctx, const void *points, size_t size, const struct av_err *err)
{
	struct restore *r = ctx;
	struct sandbox *sb = av_map_get(&r->c->sandboxes, av_str_c(r->id));
	struct sampling *g = sb && !err && size ? sampling_of(sb) : NULL;

	if (g && series_restore(&g->series, points, size / sizeof(struct series_point)) < 0)
		r->c->sampler.stats.failures++;
	free(r);
}

void sampler_start(struct control *c)
{
	struct sandbox *sb;

	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	{
		struct restore *r = calloc(1, sizeof(*r));

		if (!r)
			return;
		r->c = c;
		memcpy(r->id, sb->rec.id, AV_ID_SIZE);
		if (store_points_get(c->store, r->id, on_restored, r) < 0)
			free(r);
	}
	if (!av_list_empty(&c->live))
		sampler_wake(c);
}

/* ---- questions ---- */

static int tier_of(int64_t range_s)
{
	if (range_s <= SERIES_FINE_MAX * series_step_s(SERIES_FINE))
		return SERIES_FINE;
	return range_s <= SERIES_MIDDLE_MAX * series_step_s(SERIES_MIDDLE) ? SERIES_MIDDLE
	                                                                   : SERIES_COARSE;
}

/* Those of v that are younger than from_s. */
static size_t translate(
    const struct series_point *v, size_t n, int64_t from_s, struct control_point *ret)
{
	size_t m = 0;

	for (size_t i = 0; i < n; i++)
		if (v[i].at_s > from_s)
			ret[m++] = (struct control_point){
			    .at_s = v[i].at_s,
			    .cpu_pct = (double)v[i].cpu / 100,
			    .memory_bytes = (uint64_t)v[i].memory_4k * UNIT_4K,
			    .disk_bytes = (uint64_t)v[i].disk_4k * UNIT_4K,
			};
	return m;
}

static void answer(struct waiter *w, const struct series *s, bool running)
{
	struct series_point v[SERIES_FINE_MAX + 1];
	struct control_point points[SERIES_FINE_MAX + 1];
	int64_t end = running ? control_real_ms(w->c) / 1000 : (int64_t)series_last_s(s);
	size_t n = 0;

	static_assert(SERIES_FINE_MAX >= SERIES_COARSE_MAX, "the largest ring");
	/* What is too young or too old for its ring is looked for in the next one. */
	for (int tier = tier_of(w->range_s); n == 0 && tier < SERIES_TIERS; tier++) {
		int64_t from = end - w->range_s - (series_step_s((unsigned int)tier) - 1);

		n = series_copy(s, (unsigned int)tier, v);
		n = translate(v, n, AV_MAX(from, (int64_t)0), points);
	}
	w->fn.points(w->ctx, points, n, NULL);
	waiter_free(w);
}

void points_answer(struct waiter *w)
{
	static const struct series none;
	const struct sandbox *sb = av_map_get(&w->c->sandboxes, av_str_c(w->id));
	bool has = sb && sb->sampling;

	answer(w, has ? &sb->sampling->series : &none, sb && sb->state == SANDBOX_RUNNING);
}

static void fail(struct waiter *w, const struct av_err *err)
{
	w->fn.points(w->ctx, NULL, 0, err);
	waiter_free(w);
}

static void on_points(void *ctx, const void *points, size_t size, const struct av_err *err)
{
	struct waiter *w = ctx;
	struct series s = {0};
	struct av_err own;

	if (!waiter_back(w))
		return;
	if (!err && series_restore(&s, points, size / sizeof(struct series_point)) < 0) {
		(void)av_err_set(&own, AV_ERR_NO_MEMORY, "out of memory");
		err = &own;
	}
	if (err)
		fail(w, err);
	else
		answer(w, &s, false);
	series_clear(&s);
}

static void on_owner(void *ctx, const struct store_sandbox *v, size_t n, const struct av_err *err)
{
	struct waiter *w = ctx;
	struct av_err own;

	if (!waiter_back(w))
		return;
	if (!err && (n == 0 || strcmp(v[0].team_id, w->team_id) != 0)) {
		(void)av_err_set(&own, AV_ERR_NOT_FOUND, "there is no sandbox %.64s", w->id);
		err = &own;
	}
	if (err) {
		fail(w, err);
		return;
	}
	waiter_away(w);
	if (store_points_get(w->c->store, w->id, on_points, w) < 0) {
		(void)av_err_set(
		    &own, AV_ERR_UNAVAILABLE, "too many requests wait for the database");
		fail(w, &own);
	}
}

int control_points(struct control *c, const struct control_actor *a, const char *id,
    int64_t range_s, control_points_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	int r = control_check_open(c, err);
	struct waiter *w;

	if (r < 0)
		return r;
	w = waiter_new(c, WAIT_POINTS, ctx);
	if (!w || av_str_copy(w->id, sizeof(w->id), av_str_c(id)) < 0) {
		if (w)
			waiter_free(w);
		return av_err_set(err, w ? AV_ERR_NOT_FOUND : AV_ERR_NO_MEMORY,
		    w ? "there is no such sandbox" : "out of memory");
	}
	w->fn.points = fn;
	w->range_s = AV_MIN(range_s, (int64_t)RANGE_MAX_S);
	memcpy(w->team_id, a->team_id, AV_ID_SIZE);
	if (sandbox_find(c, a, id)) {
		waiter_defer(w);
	} else {
		waiter_away(w);
		if (store_sandbox_get(c->store, id, on_owner, w) < 0) {
			waiter_free(w);
			return av_err_set(
			    err, AV_ERR_UNAVAILABLE, "too many requests wait for the database");
		}
	}
	if (ret)
		*ret = &w->call;
	return 0;
}
