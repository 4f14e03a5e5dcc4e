/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quota.c - how much teams and keys may use at once (see quota.h)
 */
#include "control/quota.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/avtime.h"
#include "control/accounts_internal.h"
#include "control/templates.h"

#include "base/banned.h"

#define MINUTE_NS (60 * AV_NS_PER_S)

static const struct {
	const char *text, *unit;
	int64_t scale;
} limits[CONTROL_QUOTA_COUNT] = {
#define CONTROL_QUOTA(name, member, text, unit, scale)                                             \
	[CONTROL_QUOTA_##name] = {(text), (unit), (scale)},
#include "control/quota.def"
#undef CONTROL_QUOTA
};

static const char *const of_texts[CONTROL_QUOTA_OF_COUNT] = {[CONTROL_QUOTA_OF_SERVER] = "server",
    [CONTROL_QUOTA_OF_TEAM] = "team",
    [CONTROL_QUOTA_OF_KEY] = "key"};

const char *control_quota_of_text(enum control_quota_of of)
{
	return of_texts[of];
}

const char *control_quota_text(enum control_quota_limit limit)
{
	return limits[limit].text;
}

int64_t control_quota_scale(enum control_quota_limit limit)
{
	return limits[limit].scale;
}

uint64_t control_quota_refused(
    const struct control *c, enum control_quota_of of, enum control_quota_limit limit)
{
	return c->quota_refused[of][limit];
}

void quota_count_refusal(struct control *c, struct quota_refusal r)
{
	c->quota_refused[r.of][r.limit]++;
}

/* ---- values ---- */

struct control_quota quota_of_store(const struct store_quota *q)
{
	return (struct control_quota){{
#define CONTROL_QUOTA(name, member, text, unit, scale) [CONTROL_QUOTA_##name] = q->member,
#include "control/quota.def"
#undef CONTROL_QUOTA
	}};
}

void quota_apply(struct store_quota *q, const struct control_quota_update *u)
{
#define CONTROL_QUOTA(name, member, text, unit, scale)                                             \
	if (u->set & 1u << CONTROL_QUOTA_##name)                                                   \
		q->member = u->values.v[CONTROL_QUOTA_##name];
#include "control/quota.def"
#undef CONTROL_QUOTA
}

int quota_check_values(const struct control_quota_update *u, struct av_err *err)
{
	for (int i = 0; i < CONTROL_QUOTA_COUNT; i++)
		if (u->set & 1u << i && (u->values.v[i] < 0 || u->values.v[i] > CONTROL_QUOTA_MAX))
			return av_err_set(err, AV_ERR_INVALID,
			    "quota.%s must be from 0 (none of its own) to %lld", limits[i].text,
			    (long long)(CONTROL_QUOTA_MAX / limits[i].scale));
	return 0;
}

/* ---- use ---- */

struct use {
	int64_t v[CONTROL_QUOTA_COUNT];
};

static void add(struct use *u, const struct store_sandbox *rec, bool runs)
{
	u->v[CONTROL_QUOTA_SANDBOXES]++;
	u->v[CONTROL_QUOTA_CPU] += runs ? rec->cpu_milli : 0;
	u->v[CONTROL_QUOTA_MEMORY] += rec->memory_bytes;
	u->v[CONTROL_QUOTA_DISK] += rec->disk_bytes;
}

static bool runs(const struct sandbox *sb)
{
	return sb->state != SANDBOX_PAUSED || (sb->change && sb->change->kind == CHANGE_RESUME);
}

/* Whoever asks is left out: asking is one of the creates, or a sandbox that is to run again. */
static void sum_up(const struct control *c, const char *team_id, const char *key_id,
    const struct creation *asking, const struct sandbox *resuming,
    struct use ret[CONTROL_QUOTA_OF_COUNT])
{
	const struct store_sandbox *rec;
	const struct creation *cr;
	const struct sandbox *sb;

	memset(ret, 0, sizeof(*ret) * CONTROL_QUOTA_OF_COUNT);
	AV_LIST_FOREACH(sb, &c->live, const struct sandbox, link)
	{
		rec = &sb->rec;
		if (sb == resuming || sb->final_recorded)
			continue;
		add(&ret[CONTROL_QUOTA_OF_SERVER], rec, runs(sb));
		if (strcmp(rec->team_id, team_id) == 0)
			add(&ret[CONTROL_QUOTA_OF_TEAM], rec, runs(sb));
		if (key_id[0] && strcmp(rec->key_id, key_id) == 0)
			add(&ret[CONTROL_QUOTA_OF_KEY], rec, runs(sb));
	}
	AV_LIST_FOREACH(cr, &c->creating, const struct creation, link)
	{
		rec = &cr->rec;
		if (cr->sb || cr == asking || cr->refused.kind != AV_ERR_NONE)
			continue;
		add(&ret[CONTROL_QUOTA_OF_SERVER], rec, true);
		if (strcmp(rec->team_id, team_id) == 0)
			add(&ret[CONTROL_QUOTA_OF_TEAM], rec, true);
		if (key_id[0] && strcmp(rec->key_id, key_id) == 0)
			add(&ret[CONTROL_QUOTA_OF_KEY], rec, true);
	}
}

/* ---- bounds ---- */

/* A bound, whom it is for, and who set it; value 0: none. */
struct bound {
	int64_t value;
	enum control_quota_of origin;
};

static struct bound bound_of(const struct control *c, const struct team *t, const struct key *k,
    enum control_quota_of of, int limit)
{
	const struct control_quota server = {{
	    [CONTROL_QUOTA_SANDBOXES] = c->limits.sandboxes_per_team_max,
	    [CONTROL_QUOTA_CPU] = c->limits.team_cpu_milli_max,
	    [CONTROL_QUOTA_MEMORY] = c->limits.team_memory_max,
	    [CONTROL_QUOTA_DISK] = c->limits.team_disk_max,
	    [CONTROL_QUOTA_CREATES] = c->limits.team_creates_per_minute_max,
	}};
	struct control_quota own = {0};

	if (of == CONTROL_QUOTA_OF_SERVER)
		return (struct bound){
		    limit == CONTROL_QUOTA_SANDBOXES ? c->limits.sandboxes_max : 0, of};
	if (of == CONTROL_QUOTA_OF_TEAM && t)
		own = quota_of_store(&t->rec.quota);
	if (of == CONTROL_QUOTA_OF_KEY && k)
		own = quota_of_store(&k->rec.quota);
	if (own.v[limit] || of == CONTROL_QUOTA_OF_KEY)
		return (struct bound){own.v[limit], of};
	return (struct bound){server.v[limit], CONTROL_QUOTA_OF_SERVER};
}

static const char *whose(enum control_quota_of of)
{
	return of == CONTROL_QUOTA_OF_SERVER ? "this Aviary"
	       : of == CONTROL_QUOTA_OF_TEAM ? "your team"
	                                     : "this API key";
}

static const char *cure(enum control_quota_of of)
{
	return of == CONTROL_QUOTA_OF_SERVER ? "have its administrator raise the limit"
	       : of == CONTROL_QUOTA_OF_TEAM
	           ? "have an administrator of this Aviary raise the quota of the team"
	           : "raise the quota of the key";
}

static const char *what_to_free(int limit)
{
	return limit == CONTROL_QUOTA_SANDBOXES ? "delete some"
	       : limit == CONTROL_QUOTA_CPU     ? "pause or delete some, ask for fewer"
	                                        : "delete some, ask for less";
}

static int refuse(enum control_quota_of of, int limit, int64_t used, int64_t more, int64_t value,
    struct quota_refusal *ret, struct av_err *err)
{
	double scale = (double)limits[limit].scale;

	*ret = (struct quota_refusal){.of = (uint8_t)of, .limit = (uint8_t)limit};
	return av_err_set(err, AV_ERR_QUOTA,
	    "quota '%s' of %s: %.15g%s in use and %.15g more asked for, where %.15g are allowed; "
	    "%s, or %s",
	    limits[limit].text, whose(of), (double)used / scale, limits[limit].unit,
	    (double)more / scale, (double)value / scale, what_to_free(limit), cure(of));
}

/* ---- creates per minute ---- */

/* The generic cell rate algorithm: *at is when the bucket is full again. How long to wait; 0: not.
 */
static int64_t rate_wait_ns(int64_t at, int64_t per_minute, int64_t now)
{
	int64_t step = AV_MAX(MINUTE_NS / per_minute, (int64_t)1);

	return AV_MAX(at - (MINUTE_NS - step) - now, (int64_t)0);
}

static void rate_take(int64_t *at, int64_t per_minute, int64_t now)
{
	if (per_minute)
		*at = AV_MAX(*at, now) + AV_MAX(MINUTE_NS / per_minute, (int64_t)1);
}

static int refuse_rate(enum control_quota_of of, int64_t per_minute, int64_t wait_ns,
    struct quota_refusal *ret, struct av_err *err)
{
	int64_t seconds = (wait_ns + AV_NS_PER_S - 1) / AV_NS_PER_S;
	int r = av_err_set(err, AV_ERR_QUOTA,
	    "quota '%s' of %s: %lld creates a minute are allowed and were used; try again in %lld "
	    "s, or %s",
	    limits[CONTROL_QUOTA_CREATES].text, whose(of), (long long)per_minute,
	    (long long)seconds, cure(of));

	if (err)
		err->retry_after_s = (int)seconds;
	*ret = (struct quota_refusal){.of = (uint8_t)of, .limit = CONTROL_QUOTA_CREATES};
	return r;
}

/* Both buckets are asked before one is drawn from. */
static int check_rate(
    struct control *c, struct team *t, struct key *k, struct creation *cr, struct av_err *err)
{
	int64_t *at[CONTROL_QUOTA_OF_COUNT] = {
	    [CONTROL_QUOTA_OF_TEAM] = t ? &t->creates_ns : NULL,
	    [CONTROL_QUOTA_OF_KEY] = k ? &k->creates_ns : NULL,
	};
	int64_t per_minute[CONTROL_QUOTA_OF_COUNT] = {0}, now = control_boot_ns(c), wait;

	for (int of = CONTROL_QUOTA_OF_TEAM; of < CONTROL_QUOTA_OF_COUNT; of++) {
		if (!at[of])
			continue;
		per_minute[of] =
		    bound_of(c, t, k, (enum control_quota_of)of, CONTROL_QUOTA_CREATES).value;
		wait = per_minute[of] ? rate_wait_ns(*at[of], per_minute[of], now) : 0;
		if (wait)
			return refuse_rate(
			    (enum control_quota_of)of, per_minute[of], wait, &cr->refusal, err);
	}
	for (int of = CONTROL_QUOTA_OF_TEAM; of < CONTROL_QUOTA_OF_COUNT; of++)
		if (at[of])
			rate_take(at[of], per_minute[of], now);
	return 0;
}

void create_bounds_get(const struct control *c, struct create_bounds *ret)
{
	const struct control_limits *l = &c->limits;
	const struct driver_caps *caps = node_caps(c->node);

	ret->cpu_max =
	    l->cpu_milli_max ? l->cpu_milli_max : AV_MAX((int64_t)caps->host_cpus, 1) * 1000;
	ret->memory_max = l->memory_max             ? l->memory_max
	                  : caps->host_memory_bytes ? (int64_t)caps->host_memory_bytes
	                                            : INT64_MAX;
	ret->disk_max =
	    caps->disk_max_bytes ? AV_MIN((int64_t)caps->disk_max_bytes, l->disk_max) : l->disk_max;
}

/* ---- asked ---- */

int quota_check_create(struct control *c, struct creation *cr, struct av_err *err)
{
	const struct store_sandbox *rec = &cr->rec;
	struct team *t = team_find(c, rec->team_id);
	struct key *k = rec->key_id[0] ? key_find(c, rec->key_id) : NULL;
	struct use use[CONTROL_QUOTA_OF_COUNT], more = {0};
	struct bound b;

	sum_up(c, rec->team_id, rec->key_id, cr, NULL, use);
	add(&more, rec, true);
	for (int of = 0; of < CONTROL_QUOTA_OF_COUNT; of++)
		for (int i = 0; i < CONTROL_QUOTA_CREATES; i++) {
			b = bound_of(c, t, k, (enum control_quota_of)of, i);
			if (b.value && use[of].v[i] + more.v[i] > b.value)
				return refuse((enum control_quota_of)of, i, use[of].v[i], more.v[i],
				    b.value, &cr->refusal, err);
		}
	return check_rate(c, t, k, cr, err);
}

int quota_check_resume(struct control *c, const struct sandbox *sb, struct av_err *err)
{
	const struct store_sandbox *rec = &sb->rec;
	const struct team *t = team_find(c, rec->team_id);
	const struct key *k = rec->key_id[0] ? key_find(c, rec->key_id) : NULL;
	struct use use[CONTROL_QUOTA_OF_COUNT];
	struct quota_refusal refusal;

	sum_up(c, rec->team_id, rec->key_id, NULL, sb, use);
	for (int of = 0; of < CONTROL_QUOTA_OF_COUNT; of++) {
		struct bound b = bound_of(c, t, k, (enum control_quota_of)of, CONTROL_QUOTA_CPU);
		int64_t used = use[of].v[CONTROL_QUOTA_CPU];
		int r;

		if (!b.value || used + rec->cpu_milli <= b.value)
			continue;
		r = refuse((enum control_quota_of)of, CONTROL_QUOTA_CPU, used, rec->cpu_milli,
		    b.value, &refusal, err);
		quota_count_refusal(c, refusal);
		return r;
	}
	return 0;
}

/* ---- shown ---- */

struct each {
	void (*fn)(void *ctx, const struct control_limit *l);
	void *ctx;
};

static void tell(const struct each *e, const char *of, const char *name, const char *unit,
    double value, double used)
{
	const struct control_limit l = {
	    .name = name, .unit = unit, .of = of, .origin = "server", .value = value, .used = used};

	e->fn(e->ctx, &l);
}

/* Creates of this minute that are not there any more. */
static double rate_used(int64_t at, int64_t per_minute, int64_t now)
{
	double full = (double)AV_MAX(at - now, (int64_t)0) / (double)MINUTE_NS;

	return AV_MIN(ceil(full * (double)per_minute), (double)per_minute);
}

static void tell_quotas(struct control *c, const struct control_actor *a, const struct each *e)
{
	const struct team *t = team_find(c, a->team_id);
	const struct key *k = a->key_id[0] ? key_find(c, a->key_id) : NULL;
	int64_t now = control_boot_ns(c);
	struct use use[CONTROL_QUOTA_OF_COUNT];

	sum_up(c, a->team_id, a->key_id, NULL, NULL, use);
	for (int of = CONTROL_QUOTA_OF_TEAM; of < CONTROL_QUOTA_OF_COUNT; of++)
		for (int i = 0; i < CONTROL_QUOTA_COUNT; i++) {
			struct bound b = bound_of(c, t, k, (enum control_quota_of)of, i);
			struct control_limit l = {.name = limits[i].text,
			    .unit = limits[i].unit,
			    .of = of_texts[of],
			    .origin = of_texts[b.origin]};
			int64_t at = of == CONTROL_QUOTA_OF_KEY ? (k ? k->creates_ns : 0)
			             : t                        ? t->creates_ns
			                                        : 0;

			if (!b.value)
				continue;
			l.value = (double)b.value / (double)limits[i].scale;
			l.used = i == CONTROL_QUOTA_CREATES
			             ? rate_used(at, b.value, now)
			             : (double)use[of].v[i] / (double)limits[i].scale;
			e->fn(e->ctx, &l);
		}
}

/* Units, rounded down: what is told is allowed. */
static double whole(int64_t n, int64_t unit)
{
	int64_t units = n / unit;

	return (double)units;
}

static void tell_of_sandboxes(const struct control *c, const struct each *e)
{
	const struct control_limits *l = &c->limits;
	struct create_bounds b;

	create_bounds_get(c, &b);
	tell(e, "sandbox", "cpus_max", "", (double)b.cpu_max / 1000, -1);
	tell(e, "sandbox", "memory_mb_min", " MiB", whole(l->memory_min, AV_MIB), -1);
	if (b.memory_max != INT64_MAX)
		tell(e, "sandbox", "memory_mb_max", " MiB", whole(b.memory_max, AV_MIB), -1);
	tell(e, "sandbox", "disk_mb_min", " MiB", whole(l->disk_min, AV_MIB), -1);
	tell(e, "sandbox", "disk_mb_max", " MiB", whole(b.disk_max, AV_MIB), -1);
	tell(e, "sandbox", "pids_max", "", (double)l->pids_max, -1);
	tell(e, "sandbox", "timeout_sec_max", " s", whole(l->timeout_max_ms, 1000), -1);
	tell(e, "sandbox", "max_lifetime_sec_max", " s", whole(l->lifetime_max_ms, 1000), -1);
	tell(e, "sandbox", "metadata_entries", "", SANDBOX_METADATA_MAX, -1);
	tell(e, "sandbox", "envs_entries", "", SANDBOX_ENVS_MAX, -1);
	tell(e, "sandbox", "tags", "", SANDBOX_TAGS_MAX, -1);
	tell(e, "sandbox", "public_ports", "", SANDBOX_PORTS_MAX, -1);
}

static void tell_of_team(
    const struct control *c, const struct control_actor *a, const struct each *e)
{
	double keys = 0;
	const struct team *t = team_find(c, a->team_id);
	const struct key *k;

	AV_LIST_FOREACH(k, &c->keys, const struct key, link)
	keys += strcmp(k->rec.team_id, a->team_id) == 0;
	tell(e, "team", "api_keys", "", CONTROL_KEYS_MAX, keys);
	tell(e, "team", "members", "", CONTROL_MEMBERS_MAX,
	    t ? (double)av_list_count(&t->members) : -1);
	tell(e, "server", "sandboxes", "", (double)c->limits.sandboxes_max, -1);
	tell(e, "server", "templates", "", TEMPLATES_MAX, -1);
	tell(e, "team", "idempotency_key_sec", " s", whole(c->config.idempotency_ms, 1000), -1);
	tell(e, "team", "history_sec", " s", whole(c->config.history_ms, 1000), -1);
}

void control_limits_each(struct control *c, const struct control_actor *a,
    void (*fn)(void *ctx, const struct control_limit *l), void *ctx)
{
	const struct each e = {fn, ctx};

	tell_quotas(c, a, &e);
	tell_of_team(c, a, &e);
	tell_of_sandboxes(c, &e);
}
