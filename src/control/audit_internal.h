/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_internal.h - only for src/control/(*.c): the audit log inside control
 */
#pragma once

#include "control/audit.h"
#include "control/control_internal.h"
#include "store/audit.h"

static_assert(AUDIT_METADATA_MAX == STORE_AUDIT_METADATA_SIZE, "metadata fits");

struct audit_entry {
	struct av_list link;
	struct store_audit rec;
};

/* What is known of the records of a team; "" is that of those who belong to none. */
struct audit_team {
	char id[AV_ID_SIZE];
	int64_t n;         /* on disk */
	int64_t tokens_ms; /* of failures that may be written, in milliseconds of waiting */
	int64_t filled_ns; /* boot time */
	uint64_t omitted;
};

/* One page that is read. */
struct audit_reader {
	struct node_call call; /* first */
	struct av_list link;   /* c->audit.readers, unless it is the one at work */
	struct control *c;
	control_audit_fn *fn;
	void *ctx;
	bool cancelled;
	char team_id[AV_ID_SIZE]; /* of who reads */
	struct store_audit_query query;
	size_t want, looked, n;
	struct store_audit *v; /* owned, want of them */
};

/* On its way to the store. */
struct audit_batch {
	struct av_list link;
	struct control *c;
	size_t n;
	struct store_audit v[];
};

struct audit {
	struct av_list waiting; /* struct audit_entry, oldest first */
	size_t n_waiting;
	size_t n_sent;          /* in batches that the store has not answered */
	struct av_list batches; /* struct audit_batch */
	int64_t flush_ns;       /* boot time; INT64_MAX: nothing waits */
	int64_t retry_ns;       /* nothing is written before; 0: the last time went well */
	int64_t tell_ns;        /* of what was left out; INT64_MAX: nothing was */
	int64_t last_seq;
	uint64_t lost_untold;

	struct av_map teams; /* id -> struct audit_team */
	int64_t total;       /* of all teams */
	bool counted, pruning, pruning_old;

	struct av_list readers;      /* struct audit_reader that wait for their turn */
	struct audit_reader *reader; /* with the store */
	size_t n_readers;

	struct control_audit_stats stats;
};

/* ---- audit.c ---- */

int audit_init(struct control *c);
/* The store is open still: writes what waits, without an answer. */
void audit_clear(struct control *c);
/* Also before the start is over and while stopping. */
void audit_tick(struct control *c, int64_t now_ns);
/* What waits is on its way to the disk, before anything asked of the store from now on. */
void audit_flush(struct control *c);
/* Into dst (size bytes), whole characters only; what a terminal would act on, or is no UTF-8,
 * becomes '?'. */
void audit_text(char *dst, size_t size, const char *text);

/* What Aviary does by itself to a sandbox. reason "": none. */
void audit_sandbox(
    const struct sandbox *sb, const char *action, const char *reason, const struct av_err *err);
/* Processes in it were killed for memory; at most one record a minute and sandbox. */
void audit_oom(struct sandbox *sb, uint64_t more);

/* ---- audit_prune.c ---- */

struct audit_team *audit_team_get(struct control *c, const char *id);
/* n more of a team are on disk. */
void audit_kept(struct control *c, const char *team_id, int64_t n);
void audit_prune_start(struct control *c);
/* What is too much goes, in small pieces. */
void audit_prune(struct control *c);
/* Also what is too old; once in a while. */
void audit_prune_old(struct control *c);
void audit_teams_clear(struct audit *a);

/* ---- audit_read.c ---- */

/* Goes on reading. */
void audit_read_tick(struct control *c);
void audit_read_clear(struct control *c);
