/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.h - what sandboxes used, over time: one sandbox, one team, one day
 *
 * While anything runs the machine is asked once a second what each sandbox uses (sampler.c); memory
 * for that is bounded (series.h), and what is coarse of it survives on disk. What a team has
 * reserved is added up exactly, at each change of a sandbox's state (usage.c): those sums belong to
 * hours of UTC and are what days are made of whenever somebody asks, so that there is no roll-up
 * that could be missed.
 */
#pragma once

#include "control/control.h"

struct control_point {
	int64_t at_s;   /* since 1970 */
	double cpu_pct; /* of all its processors: 0 to 100 */
	uint64_t memory_bytes, disk_bytes;
};
typedef void control_points_fn(
    void *ctx, const struct control_point *v, size_t n, const struct av_err *err);
/* Points of the last range_s seconds (up to 24 h), oldest first: one a second up to 10 minutes, one
 * for 30 s up to 2 hours, else one for 5 minutes. Of a sandbox that does not run the last range_s
 * of those in which it did; of one that has ended what is left is coarse. */
int control_points(struct control *c, const struct control_actor *a, const char *id,
    int64_t range_s, control_points_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);

/* Reserved by running sandboxes; memory also by paused ones, half of it. */
struct control_load {
	int64_t running, cpu_milli, memory_mib;
};
struct control_load_at {
	int64_t at_s;             /* beginning of the interval */
	struct control_load load; /* its maxima */
};
struct control_team_stats {
	struct control_load current;
	struct control_load peaks; /* of 30 days */
	const struct control_load_at *v;
	size_t n;
};
typedef void control_team_stats_fn(
    void *ctx, const struct control_team_stats *s, const struct av_err *err);
/* Intervals of step_s that cover the last range_s seconds up to now, oldest first. */
int control_team_stats(struct control *c, const struct control_actor *a, int64_t range_s,
    int64_t step_s, control_team_stats_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);

struct control_day {
	int64_t day; /* since 1970, UTC */
	double cpu_minutes, memory_mib_minutes;
};
typedef void control_days_fn(
    void *ctx, const struct control_day *v, size_t n, const struct av_err *err);
/* From first_day to last_day, both included; days on which nothing ran are left out. The present
 * one is up to date. */
int control_team_days(struct control *c, const struct control_actor *a, int64_t first_day,
    int64_t last_day, control_days_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
