/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.h - what control, the store and the node count, for /metrics
 *
 * Everything here is a sum over the whole installation: nothing that a client, a guest or a team
 * names is in it.
 */
#pragma once

#include "base/hist.h"
#include "control/control.h"
#include "node/node.h"
#include "store/store.h"

/* What takes time, timed from the call to the answer; only what went well. See timings.def. */
enum control_timing {
#define CONTROL_TIMING(id, family, label, span) CONTROL_TIMING_##id,
#include "control/timings.def"
#undef CONTROL_TIMING
	CONTROL_TIMING_COUNT
};
/* Families of timings.def. */
enum control_timing_family { CONTROL_OPERATION, CONTROL_CREATE_PHASE };

/* Borrowed, changes with control. */
const struct av_hist *control_timing(const struct control *c, enum control_timing which);
enum control_timing_family control_timing_family(enum control_timing which);
const char *control_timing_label(enum control_timing which);

/* Queues and tables, now. Limits of 0: none of their own. */
struct control_queues {
	size_t creating;                 /* creates under way, those of the pool not included */
	size_t changes;                  /* pauses, resumes and updates under way */
	size_t changes_waiting;          /* behind another one of the same sandbox */
	size_t ending;                   /* sandboxes on their way out */
	size_t ending_retries;           /* of those, what did not work and is tried again */
	size_t sandboxes, sandboxes_max; /* alive, as the limit counts them */
	size_t templates, templates_max;
	size_t users, users_max;
	size_t teams;
	size_t keys;
	size_t account_changes; /* of users, teams and members: waiting and under way */
	size_t pool, pool_max;
	uint64_t pool_memory_max;
	size_t passwords, passwords_max;                 /* waiting to be hashed */
	size_t passwords_running, passwords_running_max; /* being hashed */
	size_t throttled, throttled_max;                 /* who is counted for rate limits */
	size_t audit, audit_max;                         /* records not written yet */
	size_t channels, channels_max;
	size_t audit_readers, audit_readers_max;
	size_t hosts, hosts_max;
	size_t host_changes;     /* waiting and under way */
	size_t backups;          /* under way: one at most */
	size_t channels_waiting; /* with something to send */
	size_t channels_sending, channels_sending_max;
	size_t stops;                                 /* that give a main command time */
	size_t logs_saving_bytes, logs_reading_bytes; /* room for logs that are fetched, and read */
	size_t logs_bytes_max;                        /* of each of the two */
};
void control_get_queues(const struct control *c, struct control_queues *ret);
void control_get_store_stats(const struct control *c, struct store_stats *ret);
void control_get_node_stats(const struct control *c, struct node_stats *ret);
/* As node_helper. -EOPNOTSUPP, -ENOMEM. */
int control_get_helper(const struct control *c, driver_helper_fn *fn, void *ctx);
