/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage.c - what teams have reserved: added up at each change, written down each ten seconds
 *
 * Theory of operation. Each sandbox counts for its team by its state (usage_recount). Before a
 * change of a team's load the time since the last one is added to its sums, so that they are exact
 * whatever the sandboxes do between two writes. A write adds the sums to the present hour's row and
 * tells the largest load since the last write when that is not what the last row says; a row that
 * holds is told again after half an hour, so that old rows can be forgotten.
 *
 * The daemon may be away while sandboxes run. "usage_until" in the settings says how far the sums
 * go; at start what was adopted is credited with the time since.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/num.h"
#include "control/control_internal.h"
#include "control/metrics.h"

#include "base/banned.h"

#define WRITE_NS     (10 * AV_NS_PER_S)
#define TELL_AGAIN_S 1800
#define LOADS_KEPT_S (26 * 3600)
#define HOUR_MS      (3600 * 1000LL)
#define DAY_HOURS    24
#define HOURS_KEPT   (100 * DAY_HOURS)
#define PEAK_HOURS   (30 * DAY_HOURS)
#define GAP_MAX_MS   (31 * DAY_HOURS * HOUR_MS)
#define FINE_RANGE_S 86400
#define BUCKETS_MAX  1000
#define UNTIL        "usage_until"

/* ---- loads ---- */

static bool is_zero(const struct team_load *l)
{
	return !l->running && !l->cpu_milli && !l->memory_kib;
}

static bool same(const struct team_load *a, const struct team_load *b)
{
	return a->running == b->running && a->cpu_milli == b->cpu_milli &&
	       a->memory_kib == b->memory_kib;
}

static void raise_to(struct team_load *l, const struct team_load *to)
{
	l->running = AV_MAX(l->running, to->running);
	l->cpu_milli = AV_MAX(l->cpu_milli, to->cpu_milli);
	l->memory_kib = AV_MAX(l->memory_kib, to->memory_kib);
}

static struct store_load stored(const struct team_load *l)
{
	return (struct store_load){
	    .running = l->running, .cpu_milli = l->cpu_milli, .memory_mib = l->memory_kib / 1024};
}

static struct team_usage *find(const struct control *c, const char *team_id)
{
	struct team_usage *t;

	AV_LIST_FOREACH(t, &c->usage.teams, struct team_usage, link)
	if (strcmp(t->team_id, team_id) == 0)
		return t;
	return NULL;
}

static struct team_usage *find_or_add(struct control *c, const char *team_id)
{
	struct team_usage *t = find(c, team_id);

	if (t)
		return t;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	memcpy(t->team_id, team_id, AV_ID_SIZE);
	t->since_ns = control_boot_ns(c);
	t->interval_s = control_real_ms(c) / 1000;
	av_list_append(&c->usage.teams, &t->link);
	return t;
}

static void add_up(struct control *c, struct team_usage *t)
{
	int64_t now = control_boot_ns(c), ms = (now - t->since_ns) / AV_NS_PER_MS;

	if (ms <= 0)
		return;
	t->since_ns += ms * AV_NS_PER_MS;
	t->cpu_milli_ms += t->now.cpu_milli * ms;
	t->memory_kib_ms += t->now.memory_kib * ms;
}

static struct team_load load_of(const struct sandbox *sb)
{
	struct team_load l = {0};

	switch (sb->state) {
	case SANDBOX_RUNNING:
		l.running = 1;
		l.cpu_milli = sb->rec.cpu_milli;
		l.memory_kib = sb->rec.memory_bytes / 1024;
		break;
	case SANDBOX_PAUSED:
		l.memory_kib = sb->rec.memory_bytes / 2048;
		break;
	default:
		break;
	}
	return l;
}

void usage_recount(struct sandbox *sb, bool gone)
{
	struct control *c = sb->c;
	struct team_load want = {0};
	struct team_usage *t;

	if (!gone)
		want = load_of(sb);
	if (same(&want, &sb->counted))
		return;
	t = find_or_add(c, sb->rec.team_id);
	if (!t)
		return;
	add_up(c, t);
	t->now.running += want.running - sb->counted.running;
	t->now.cpu_milli += want.cpu_milli - sb->counted.cpu_milli;
	t->now.memory_kib += want.memory_kib - sb->counted.memory_kib;
	raise_to(&t->peak, &t->now);
	sb->counted = want;
	if (c->usage.next_ns == INT64_MAX) {
		c->usage.next_ns = control_boot_ns(c) + WRITE_NS;
		control_wake(c, c->usage.next_ns);
	}
	if (want.running)
		sampler_wake(c);
}

/* ---- writing ---- */

struct write {
	struct control *c;
	struct store_usage u;
};

/* What could not be written is added to the next try. */
static void on_written(void *ctx, const struct av_err *err)
{
	struct write *w = ctx;
	struct team_usage *t = err ? find_or_add(w->c, w->u.team_id) : NULL;

	if (t) {
		t->cpu_milli_ms += w->u.cpu_milli_ms;
		t->memory_kib_ms += w->u.memory_mib_ms * 1024;
		t->written_s = 0;
	}
	free(w);
}

static void write_team(struct control *c, struct team_usage *t)
{
	int64_t now_ms = control_real_ms(c), now_s = now_ms / 1000;
	bool tell = !same(&t->peak, &t->written) ||
	            (!is_zero(&t->peak) && now_s - t->written_s >= TELL_AGAIN_S);
	struct write *w;

	add_up(c, t);
	if (!tell && t->cpu_milli_ms == 0 && t->memory_kib_ms < 1024)
		return;
	w = calloc(1, sizeof(*w));
	if (!w)
		return;
	w->c = c;
	w->u = (struct store_usage){
	    .hour = now_ms / HOUR_MS,
	    .cpu_milli_ms = t->cpu_milli_ms,
	    .memory_mib_ms = t->memory_kib_ms / 1024,
	    .peak = stored(&t->peak),
	    .at_s = tell ? t->interval_s : 0,
	    .load = stored(&t->peak),
	};
	memcpy(w->u.team_id, t->team_id, AV_ID_SIZE);
	if (store_usage_add(c->store, &w->u, on_written, w) < 0) {
		free(w);
		return;
	}
	t->cpu_milli_ms = 0;
	t->memory_kib_ms %= 1024;
	if (tell) {
		t->written = t->peak;
		t->written_s = now_s;
	}
	t->peak = t->now;
	t->interval_s = now_s;
}

void usage_write(struct control *c)
{
	struct team_usage *t;
	char text[24];
	bool any = false;

	AV_LIST_FOREACH(t, &c->usage.teams, struct team_usage, link)
	{
		any = true;
		write_team(c, t);
		if (is_zero(&t->now) && is_zero(&t->written) && !t->cpu_milli_ms &&
		    t->memory_kib_ms < 1024) {
			av_list_remove(&t->link);
			free(t);
		}
	}
	if (!any)
		return;
	(void)snprintf(text, sizeof(text), "%" PRId64, control_real_ms(c));
	(void)store_value_set(c->store, UNTIL, text, NULL, NULL);
}

void usage_tick(struct control *c, int64_t now_ns)
{
	if (now_ns < c->usage.next_ns)
		return;
	usage_write(c);
	c->usage.next_ns = av_list_empty(&c->usage.teams) ? INT64_MAX : now_ns + WRITE_NS;
}

void usage_prune(struct control *c)
{
	int64_t now_ms = control_real_ms(c);

	(void)store_usage_prune(
	    c->store, now_ms / 1000 - LOADS_KEPT_S, now_ms / HOUR_MS - HOURS_KEPT, NULL, NULL);
}

void usage_clear(struct control *c)
{
	struct team_usage *t;

	AV_LIST_FOREACH(t, &c->usage.teams, struct team_usage, link)
	{
		av_list_remove(&t->link);
		free(t);
	}
}

/* ---- the time without a daemon ---- */

static void credit(struct control *c, const struct sandbox *sb, int64_t from_ms, int64_t to_ms)
{
	from_ms = AV_MAX(from_ms, sb->rec.started_ms);
	for (int64_t at = from_ms, end; at < to_ms; at = end) {
		struct store_usage u = {.hour = at / HOUR_MS};

		end = AV_MIN(to_ms, (u.hour + 1) * HOUR_MS);
		u.cpu_milli_ms = sb->counted.cpu_milli * (end - at);
		u.memory_mib_ms = sb->counted.memory_kib / 1024 * (end - at);
		memcpy(u.team_id, sb->rec.team_id, AV_ID_SIZE);
		if (store_usage_add(c->store, &u, NULL, NULL) < 0)
			return;
	}
}

static void on_until(void *ctx, const char *value, const struct av_err *err)
{
	struct control *c = ctx;
	int64_t now = control_real_ms(c);
	struct sandbox *sb;
	uint64_t until;

	if (err || !value || av_parse_u64(av_str_c(value), 1, INT64_MAX, &until) < 0)
		return;
	if ((int64_t)until >= now || now - (int64_t)until > GAP_MAX_MS)
		return;
	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	if (!is_zero(&sb->counted))
		credit(c, sb, (int64_t)until, now);
}

void usage_start(struct control *c)
{
	(void)store_value_get(c->store, UNTIL, on_until, c);
}

/* ---- questions: a team over time ---- */

struct stats_work {
	struct control_load_at *v; /* owned */
	size_t n;
	int64_t step_s;
};

static void raise_load(struct control_load *l, const struct store_load *to)
{
	l->running = AV_MAX(l->running, to->running);
	l->cpu_milli = AV_MAX(l->cpu_milli, to->cpu_milli);
	l->memory_mib = AV_MAX(l->memory_mib, to->memory_mib);
}

/* The load holds from from_s to before to_s. */
static void spread(
    struct stats_work *k, int64_t from_s, int64_t to_s, const struct store_load *load)
{
	int64_t first = k->v[0].at_s;

	if (to_s <= first)
		return;
	from_s = AV_MAX(from_s, first);
	for (size_t i = (size_t)((from_s - first) / k->step_s); i < k->n; i++) {
		if (k->v[i].at_s >= to_s)
			break;
		raise_load(&k->v[i].load, load);
	}
}

static void stats_fail(struct waiter *w, const struct av_err *err)
{
	w->fn.team_stats(w->ctx, NULL, err);
	waiter_free(w);
}

static void on_hours(void *ctx, const struct store_hour_row *v, size_t n, const struct av_err *err)
{
	struct waiter *w = ctx;
	struct stats_work *k = w->work;
	struct team_usage *t;
	struct control_team_stats s = {0};

	if (!waiter_back(w))
		return;
	if (err) {
		stats_fail(w, err);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		raise_load(&s.peaks, &v[i].peak);
		if (w->range_s > FINE_RANGE_S)
			spread(k, v[i].hour * 3600, (v[i].hour + 1) * 3600, &v[i].peak);
	}
	t = find(w->c, w->team_id);
	if (t) {
		struct store_load now = stored(&t->now), peak = stored(&t->peak);

		raise_load(&s.peaks, &peak);
		raise_load(&k->v[k->n - 1].load, &peak);
		s.current = (struct control_load){now.running, now.cpu_milli, now.memory_mib};
	}
	s.v = k->v;
	s.n = k->n;
	w->fn.team_stats(w->ctx, &s, NULL);
	waiter_free(w);
}

static void ask_hours(struct waiter *w)
{
	int64_t hour = control_real_ms(w->c) / HOUR_MS;
	struct av_err err;

	waiter_away(w);
	if (store_hour_list(
	        w->c->store, w->team_id, hour - PEAK_HOURS + 1, hour + 1, on_hours, w) == 0)
		return;
	(void)av_err_set(&err, AV_ERR_UNAVAILABLE, "too many requests wait for the database");
	stats_fail(w, &err);
}

static void on_loads(void *ctx, const struct store_load_row *v, size_t n, const struct av_err *err)
{
	struct waiter *w = ctx;

	if (!waiter_back(w))
		return;
	if (err) {
		stats_fail(w, err);
		return;
	}
	for (size_t i = 0; i < n; i++)
		spread(w->work, v[i].at_s, i + 1 < n ? v[i + 1].at_s : control_real_ms(w->c) / 1000,
		    &v[i].load);
	ask_hours(w);
}

void stats_work_free(struct stats_work *k)
{
	if (k)
		free(k->v);
	free(k);
}

static struct stats_work *stats_work_new(int64_t now_s, int64_t range_s, int64_t step_s)
{
	struct stats_work *k = calloc(1, sizeof(*k));
	int64_t n = range_s / step_s;

	assert(n > 0 && n <= BUCKETS_MAX);
	if (!k)
		return NULL;
	k->step_s = step_s;
	k->n = (size_t)n;
	k->v = calloc(k->n, sizeof(*k->v));
	if (!k->v) {
		free(k);
		return NULL;
	}
	for (size_t i = 0; i < k->n; i++)
		k->v[i].at_s = (now_s / step_s - n + 1 + (int64_t)i) * step_s;
	return k;
}

void team_stats_answer(struct waiter *w)
{
	const struct stats_work *k = w->work;
	struct av_err err;

	if (w->range_s > FINE_RANGE_S) {
		ask_hours(w);
		return;
	}
	waiter_away(w);
	if (store_load_list(w->c->store, w->team_id, k->v[0].at_s, on_loads, w) == 0)
		return;
	(void)av_err_set(&err, AV_ERR_UNAVAILABLE, "too many requests wait for the database");
	stats_fail(w, &err);
}

int control_team_stats(struct control *c, const struct control_actor *a, int64_t range_s,
    int64_t step_s, control_team_stats_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	int r = control_check_open(c, err);
	struct waiter *w;

	if (r < 0)
		return r;
	w = waiter_new(c, WAIT_TEAM_STATS, ctx);
	if (w)
		w->work = stats_work_new(control_real_ms(c) / 1000, range_s, step_s);
	if (!w || !w->work) {
		if (w)
			waiter_free(w);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	w->fn.team_stats = fn;
	w->range_s = range_s;
	memcpy(w->team_id, a->team_id, AV_ID_SIZE);
	waiter_defer(w);
	if (ret)
		*ret = &w->call;
	return 0;
}

/* ---- questions: days ---- */

static void add_to_day(
    struct control_day *v, size_t *n, int64_t day, int64_t cpu_milli_ms, double memory_mib_ms)
{
	if (*n == 0 || v[*n - 1].day != day)
		v[(*n)++] = (struct control_day){.day = day};
	v[*n - 1].cpu_minutes += (double)cpu_milli_ms / 1000 / 60000;
	v[*n - 1].memory_mib_minutes += memory_mib_ms / 60000;
}

static void on_day_hours(
    void *ctx, const struct store_hour_row *v, size_t n, const struct av_err *err)
{
	struct waiter *w = ctx;
	struct control_day *days;
	struct team_usage *t;
	struct av_err own;
	int64_t today;
	size_t n_days = 0;

	if (!waiter_back(w))
		return;
	today = control_real_ms(w->c) / HOUR_MS / DAY_HOURS;
	days = calloc(n + 1, sizeof(*days));
	if (!err && !days) {
		(void)av_err_set(&own, AV_ERR_NO_MEMORY, "out of memory");
		err = &own;
	}
	for (size_t i = 0; !err && i < n; i++)
		add_to_day(days, &n_days, v[i].hour / DAY_HOURS, v[i].cpu_milli_ms,
		    (double)v[i].memory_mib_ms);
	t = find(w->c, w->team_id);
	if (!err && t && w->last_day >= today && w->first_day <= today) {
		add_up(w->c, t);
		if (t->cpu_milli_ms || t->memory_kib_ms)
			add_to_day(
			    days, &n_days, today, t->cpu_milli_ms, (double)t->memory_kib_ms / 1024);
	}
	w->fn.days(w->ctx, err ? NULL : days, err ? 0 : n_days, err);
	free(days);
	waiter_free(w);
}

int control_team_days(struct control *c, const struct control_actor *a, int64_t first_day,
    int64_t last_day, control_days_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	int r = control_check_open(c, err);
	struct waiter *w;

	if (r < 0)
		return r;
	w = waiter_new(c, WAIT_DAYS, ctx);
	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	w->fn.days = fn;
	w->first_day = first_day;
	w->last_day = last_day;
	memcpy(w->team_id, a->team_id, AV_ID_SIZE);
	waiter_away(w);
	if (store_hour_list(c->store, w->team_id, first_day * DAY_HOURS, (last_day + 1) * DAY_HOURS,
	        on_day_hours, w) < 0) {
		waiter_free(w);
		return av_err_set(
		    err, AV_ERR_UNAVAILABLE, "too many requests wait for the database");
	}
	if (ret)
		*ret = &w->call;
	return 0;
}
