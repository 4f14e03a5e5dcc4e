/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_prune.c - how many records each team has, and which of them go (see audit.h)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "control/audit_internal.h"

#include "base/banned.h"

#define AT_ONCE 200
#define SLACK   64 /* to be pruned in pieces, not one by one */
#define DAY_MS  (24LL * 3600 * 1000)

struct audit_team *audit_team_get(struct control *c, const char *id)
{
	struct audit_team *t = av_map_get(&c->audit->teams, av_str_c(id));

	if (t)
		return t;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	(void)snprintf(t->id, sizeof(t->id), "%s", id);
	t->tokens_ms = (int64_t)AUDIT_FAILURES_BURST * AUDIT_FAILURES_EVERY_MS;
	t->filled_ns = control_boot_ns(c);
	if (av_map_put(&c->audit->teams, av_str_c(t->id), t) < 0) {
		free(t);
		return NULL;
	}
	return t;
}

void audit_teams_clear(struct audit *a)
{
	struct audit_team *t;
	size_t pos = 0;

	while ((t = av_map_next(&a->teams, &pos)))
		free(t);
	av_map_clear(&a->teams);
}

void audit_kept(struct control *c, const char *team_id, int64_t n)
{
	struct audit_team *t = audit_team_get(c, team_id);

	c->audit->total += n;
	if (t)
		t->n += n;
}

static void drop_empty(struct audit *a, const char *team_id)
{
	struct audit_team *t = av_map_get(&a->teams, av_str_c(team_id));

	if (t && t->n <= 0 && !t->omitted) {
		(void)av_map_remove(&a->teams, av_str_c(t->id));
		free(t);
	}
}

static struct audit_team *largest(const struct audit *a)
{
	struct audit_team *t, *best = NULL;
	size_t pos = 0;

	while ((t = av_map_next(&a->teams, &pos)))
		if (t->n > 0 && (!best || t->n > best->n))
			best = t;
	return best;
}

static void on_pruned(
    void *ctx, const struct store_audit_count *v, size_t n, const struct av_err *err)
{
	struct control *c = ctx;
	struct audit *a = c->audit;

	a->pruning = false;
	for (size_t i = 0; i < n; i++) {
		audit_kept(c, v[i].team_id, -v[i].n);
		drop_empty(a, v[i].team_id);
	}
	a->pruning_old = a->pruning_old && n == AT_ONCE;
	/* What failed is tried again by whoever comes next. */
	if (!err && n > 0)
		audit_prune(c);
}

void audit_prune(struct control *c)
{
	const int64_t slack = c->config.audit_max / 1000 + SLACK;
	struct audit *a = c->audit;
	const struct audit_team *t = NULL;
	int64_t before = INT64_MAX;

	if (!a->counted || a->pruning || c->stopping)
		return;
	if (a->total > c->config.audit_max + slack)
		t = largest(a);
	else if (a->pruning_old)
		before = (control_real_ms(c) - c->config.audit_days * DAY_MS)
		         << STORE_AUDIT_SEQ_SHIFT;
	else
		return;
	a->pruning =
	    store_audit_prune(c->store, t ? t->id : NULL, before, AT_ONCE, on_pruned, c) == 0;
}

static void on_counted(
    void *ctx, const struct store_audit_count *v, size_t n, const struct av_err *err)
{
	struct control *c = ctx;
	struct audit *a = c->audit;
	struct audit_team *t;
	size_t pos = 0;

	if (err)
		return; /* audit_prune_old asks again */
	while ((t = av_map_next(&a->teams, &pos)))
		t->n = 0;
	a->total = 0;
	for (size_t i = 0; i < n; i++)
		audit_kept(c, v[i].team_id, v[i].n);
	a->counted = true;
	audit_prune(c);
}

void audit_prune_old(struct control *c)
{
	struct audit *a = c->audit;

	if (!a->counted)
		(void)store_audit_count(c->store, on_counted, c);
	a->pruning_old = c->config.audit_days > 0 && clock_may_forget(c);
	audit_prune(c);
}

void audit_prune_start(struct control *c)
{
	(void)store_audit_count(c->store, on_counted, c);
}
