/* SPDX-License-Identifier: Apache-2.0 */
/*
 * confine.c - which sandboxes are busy, and which CPUs they get
 */
#include "spawn/confine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/banned.h"

#define SPAN_MIN_NS (200 * AV_NS_PER_MS) /* shorter spans say nothing */
#define WORTH_MILLI 250                  /* less than this harms nobody */
#define QUIET_NS    (5 * AV_NS_PER_S)

int confine_open(struct confine *c, struct cgroups *cgroups)
{
	*c = (struct confine){.cgroups = cgroups};
	if (cgroups_cpus(cgroups, &c->all) < 0 || cgroup_cpus_count(&c->all) < 2) {
		c->all = (struct cgroup_cpus){0};
		return 0;
	}
	c->load = calloc(CGROUP_CPUS_MAX, sizeof(*c->load));
	return c->load ? 0 : -ENOMEM;
}

void confine_close(struct confine *c)
{
	free(c->load);
	*c = (struct confine){0};
}

void confine_recover(struct confine *c, const char *id)
{
	if (c->load)
		(void)cgroups_set_cpus(c->cgroups, id, NULL);
}

static void count(struct confine *c, const struct cgroup_cpus *cpus, int by)
{
	for (unsigned int i = 0; i < CGROUP_CPUS_MAX; i++)
		if (cgroup_cpus_has(cpus, i))
			c->load[i] = (uint16_t)(c->load[i] + by);
}

/* The CPU of `among` without those of `but` with the least load; with most: the most. -1: none. */
static int pick(const struct confine *c, const struct cgroup_cpus *among,
    const struct cgroup_cpus *but, bool most)
{
	int best = -1;
	for (int i = 0; i < CGROUP_CPUS_MAX; i++) {
		if (!cgroup_cpus_has(among, (unsigned int)i) ||
		    (but && cgroup_cpus_has(but, (unsigned int)i)))
			continue;
		if (best < 0 || (most ? c->load[i] > c->load[best] : c->load[i] < c->load[best]))
			best = i;
	}
	return best;
}

static void release(struct confine *c, const char *id, struct confined *s)
{
	if (!s->is)
		return;
	(void)cgroups_set_cpus(c->cgroups, id, NULL);
	confine_forget(c, s);
}

static void take(struct confine *c, const char *id, struct confined *s, unsigned int n)
{
	struct cgroup_cpus cpus = {0};
	for (unsigned int i = 0; i < n; i++) {
		int cpu = pick(c, &c->all, &cpus, false);
		if (cpu < 0)
			return;
		cgroup_cpus_add(&cpus, (unsigned int)cpu);
	}
	if (cgroups_set_cpus(c->cgroups, id, &cpus) < 0)
		return;
	s->is = true;
	s->cpus = cpus;
	count(c, &cpus, 1);
}

/* One CPU for another, if that evens out. */
static void even_out(struct confine *c, const char *id, struct confined *s)
{
	int from = pick(c, &s->cpus, NULL, true), to = pick(c, &c->all, &s->cpus, false);
	struct cgroup_cpus cpus = s->cpus;
	if (from < 0 || to < 0 || c->load[from] < c->load[to] + 2)
		return;
	cgroup_cpus_remove(&cpus, (unsigned int)from);
	cgroup_cpus_add(&cpus, (unsigned int)to);
	if (cgroups_set_cpus(c->cgroups, id, &cpus) < 0)
		return;
	count(c, &s->cpus, -1);
	s->cpus = cpus;
	count(c, &s->cpus, 1);
}

static void busy(struct confine *c, const char *id, struct confined *s, uint32_t limit_milli)
{
	unsigned int n = (limit_milli + 999) / 1000;
	if (s->is && cgroup_cpus_count(&s->cpus) != n)
		release(c, id, s); /* the limit was changed */
	if (n >= cgroup_cpus_count(&c->all))
		return;
	if (s->is)
		even_out(c, id, s);
	else
		take(c, id, s, n);
}

void confine_note(
    struct confine *c, const char *id, struct confined *s, uint64_t cpu_usec, int64_t now_ns)
{
	int64_t span = now_ns - s->at_ns;
	uint64_t used = cpu_usec - s->cpu_usec;
	if (!c->load || (s->at_ns && span < SPAN_MIN_NS))
		return;
	bool first = s->at_ns == 0 || cpu_usec < s->cpu_usec;
	s->at_ns = now_ns;
	s->cpu_usec = cpu_usec;
	if (first)
		return;
	uint64_t milli = used * AV_NS_PER_MS / (uint64_t)span;
	uint32_t limit = milli < WORTH_MILLI ? 0 : cgroups_cpu_limit(c->cgroups, id);
	if (limit && milli * 4 >= limit) {
		s->busy_ns = now_ns;
		busy(c, id, s, limit);
	} else if (s->is && now_ns - s->busy_ns > QUIET_NS) {
		release(c, id, s);
	}
}

void confine_forget(struct confine *c, struct confined *s)
{
	if (s->is)
		count(c, &s->cpus, -1);
	*s = (struct confined){0};
}
