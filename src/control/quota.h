/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quota.h - how much teams and keys may use at once
 *
 * Theory of operation. A team's bound is its own one, else this Aviary's for teams (struct
 * control_limits); a key's is its own or none, and it counts what that key created. Nothing is kept
 * beside the records: each look adds up the living sandboxes and the creates under way, in the same
 * turn of the loop in which a create takes its place among them, so that no two can share the last
 * one, and a restart begins with what the disk says.
 *
 * Sandboxes count until they are gone, paused ones too, with their memory and disk: both stay where
 * they are. Only processors count while it runs; so a resume can be refused. Creates per minute are
 * a bucket as large as one minute's, full at the start of the daemon, on the boot-time clock. A
 * create that is repeated with its idempotency key costs nothing and is never refused.
 */
#pragma once

#include "control/control.h"

enum control_quota_limit {
#define CONTROL_QUOTA(name, member, text, unit, scale) CONTROL_QUOTA_##name,
#include "control/quota.def"
#undef CONTROL_QUOTA
	CONTROL_QUOTA_COUNT
};

/* Whose bound it is. */
enum control_quota_of {
	CONTROL_QUOTA_OF_SERVER,
	CONTROL_QUOTA_OF_TEAM,
	CONTROL_QUOTA_OF_KEY,
	CONTROL_QUOTA_OF_COUNT
};
/* "server", "team", "key" */
const char *control_quota_of_text(enum control_quota_of of);

#define CONTROL_QUOTA_MAX INT64_C(1000000000000000) /* no bound is larger, in units of records */

/* In units of records (thousandths of a CPU, bytes); 0: no bound of its own. */
struct control_quota {
	int64_t v[CONTROL_QUOTA_COUNT];
};
/* Only the values whose bits (1 << enum control_quota_limit) are set. */
struct control_quota_update {
	uint32_t set;
	struct control_quota values;
};
/* "memory_mb"; and how many units of the record are one of it. */
const char *control_quota_text(enum control_quota_limit limit);
int64_t control_quota_scale(enum control_quota_limit limit);

/* Creates and resumes that were refused, since the start. */
uint64_t control_quota_refused(
    const struct control *c, enum control_quota_of of, enum control_quota_limit limit);

/* A bound that holds for somebody. */
struct control_limit {
	const char *name, *unit;
	const char *of;     /* what it bounds: "server", "team", "key", "sandbox", "request" */
	const char *origin; /* who set it: "server", "team", "key" */
	double value;
	double used; /* < 0: nothing to say */
};
/* Calls fn for each bound of control that holds for a. Synchronous. */
void control_limits_each(struct control *c, const struct control_actor *a,
    void (*fn)(void *ctx, const struct control_limit *l), void *ctx);
