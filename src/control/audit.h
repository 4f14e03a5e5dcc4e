/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit.h - who changed what, when, with which result: written down, read again, forgotten in time
 *
 * Theory of operation. Whoever answers a request that was to change something adds a record, and so
 * does control for what Aviary does by itself. Records gather in memory for AUDIT_LAG_MS at most
 * and are then written together, so that no request waits for them; a daemon that is killed loses
 * those of that time, and whoever reads the log has them written first. While the database cannot
 * be written they wait, AUDIT_WAITING_MAX of them; what is lost beyond is counted and told by a
 * record as soon as one can be written.
 *
 * What is kept is bounded by age and by number. When there are too many, the oldest go of that team
 * which has the most: nobody can push out what others did. A clock that was set
 * makes nothing old for a day (clock.c).
 *
 * Attacker: whoever can send a request. Each text is bounded, made valid UTF-8 without control
 * characters, and only ever shown as a JSON string. Refusals and failures are written at a bounded
 * rate for each team, and one for all who belong to none; the rest of them is counted, and the
 * number written. Readers look at AUDIT_STEP records at a time and take turns, so that a search
 * through a million records delays nobody else by more than one step.
 */
#pragma once

#include "control/control.h"

#define AUDIT_LAG_MS      100
#define AUDIT_WAITING_MAX 4096
#define AUDIT_STEP        1000
#define AUDIT_LOOK_MAX    200000 /* records looked at for one page */
#define AUDIT_PAGE_MAX    200
#define AUDIT_READERS_MAX 64 /* at once, of all teams */
#define AUDIT_DAYS        90
#define AUDIT_MAX         1000000
#define AUDIT_MAX_MIN     1000
#define AUDIT_MAX_MAX     100000000

/* Refusals and failures of one team that are written: so many at once, then one in so many
 * milliseconds. */
#define AUDIT_FAILURES_BURST    200
#define AUDIT_FAILURES_EVERY_MS 500

/* What happened. Everything is copied; NULL reads as "". */
struct control_audit {
	const char
	    *action; /* "kind.what"; what stands before the '.' is the type of the resource */
	const char *resource_id;
	/* Who: a verified key, or the session of a user. NULL: user_id or host_id, or Aviary itself
	 * (by_system), or nobody known. */
	const struct control_actor *actor;
	const char *user_id, *host_id;
	bool by_system;
	const char *team_id; /* whose log it belongs to; NULL: the actor's */
	int http_status; /* 0: there was no answer: its client went away, or there was no request */
	enum av_err_kind err;
	const char *peer, *request_id;
	const char *metadata; /* a JSON object of strings, less than AUDIT_METADATA_MAX bytes */
};

#define AUDIT_METADATA_MAX 768

void control_audit(struct control *c, const struct control_audit *what);

/* One record, as it is shown; borrowed. Empty strings: nothing to say. */
struct control_audit_record {
	char id[AV_ID_SIZE];
	int64_t at_ms;
	const char *team_id;
	const char *actor_type, *actor_id, *actor_name, *user_id, *user_name;
	char resource_type[24];
	const char *resource_id, *action;
	const char *scope;  /* "team", "admin" */
	const char *status; /* "success", "failure", "unknown" */
	int http_status;
	const char *code, *peer, *request_id, *metadata;
};

struct control_audit_filter {
	bool all_teams;        /* for administrators only; else the actor's team */
	struct av_str team_id; /* with all_teams: of one */
	bool oldest_first;
	bool goes_on; /* no first page: never refused because others read */
	size_t limit; /* 1 to AUDIT_PAGE_MAX */
	/* Where to go on: the id of a record, itself not included. Or "": from the newest (the
	 * oldest) on. */
	struct av_str after_id;
	int64_t before_ms;          /* strictly older; 0: any */
	int64_t since_ms, until_ms; /* both included; until 0: any */
	struct av_str types;        /* "sandbox,key" */
	struct av_str action, resource_id, actor, status;
};

/* next: the id to go on from, NULL when there is no more. There may be more also when v is empty:
 * AUDIT_LOOK_MAX records were looked at. */
typedef void control_audit_fn(void *ctx, const struct control_audit_record *v, size_t n,
    const char *next, const struct av_err *err);
/* One page. Members see records of scope team, owners and admins all of their team. INVALID naming
 * the filter, FORBIDDEN, RATE_LIMITED when too many read. */
int control_audit_read(struct control *c, const struct control_actor *a,
    const struct control_audit_filter *f, control_audit_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);

/* The time that stands in the id of a record. -EINVAL: it is none. */
int control_audit_id_ms(struct av_str id, int64_t *ret_ms);

struct control_audit_stats {
	uint64_t written, omitted, lost; /* since the start */
	uint64_t waiting, kept;          /* now; kept: 0 until counted */
};
void control_audit_stats(const struct control *c, struct control_audit_stats *ret);
