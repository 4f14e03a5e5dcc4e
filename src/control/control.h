/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - the domain: who may have which sandbox, and what becomes of it
 *
 * control owns the rules and mirrors every live sandbox and every key in memory. Each change is on
 * disk (store) before anybody sees it or gets an answer; the kernel's truth (node) wins at
 * start-up.
 *
 * Conventions of all control headers:
 *  - one thread, the loop's; nothing blocks.
 *  - a function that returns non-zero (-errno, *err filled) has done nothing and never calls back;
 *    after 0 the callback comes exactly once, never from inside the call, unless the call is
 * cancelled with node_call_cancel.
 *  - `ret` (struct node_call **) may be NULL when the caller will not cancel. The handle is valid
 * until the callback has returned.
 *  - what callbacks are given is borrowed until they return.
 *  - another team's things do not exist: NOT_FOUND.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hist.h"
#include "base/ids.h"
#include "base/trace.h"
#include "node/stream.h"

struct control;
struct control_github;
struct control_outbound; /* control/outbound.h */
struct node;
struct store;

/* Time as control sees it; tests bring their own. */
struct control_clock {
	void *ctx;
	int64_t (*boot_ns)(void *ctx); /* NULL: CLOCK_BOOTTIME */
	int64_t (*real_ms)(void *ctx); /* NULL: CLOCK_REALTIME */
	/* Arrange that control_tick runs at this boot time or soon after; replaces the former wish;
	 * INT64_MAX: not at all. A time that has passed means as soon as possible, from the loop.
	 */
	void (*wake_at)(void *ctx, int64_t boot_ns);
};

struct control_limits {
	int64_t cpu_milli_default, cpu_milli_max;
	int64_t memory_default, memory_min, memory_max; /* bytes */
	int64_t disk_default, disk_min, disk_max;
	int64_t pids_default, pids_max;
	int64_t timeout_max_ms, lifetime_max_ms;
	int64_t sandboxes_max; /* alive at once on this host, those being made included */
	/* Of a team that has no bounds of its own, see quota.h; 0: none. */
	int64_t sandboxes_per_team_max, team_cpu_milli_max, team_memory_max, team_disk_max;
	int64_t team_creates_per_minute_max;
};
/* The defaults: 1 cpu, 512 MiB, 5120 MiB of disk, 1024 processes, … */
void control_limits_init(struct control_limits *l);

/* The machine that this Aviary runs on; 0: not known. */
struct control_local {
	char arch[16]; /* "amd64", "arm64" */
	int64_t cpu_cores, memory_mb, disk_gb;
};

enum control_signup_policy {
	CONTROL_SIGNUP_ACTIVATION, /* anybody, with a link that shows that the address is theirs */
	CONTROL_SIGNUP_OPEN,       /* anybody, at once */
	CONTROL_SIGNUP_CLOSED      /* administrators make accounts */
};

struct control_config {
	struct store *store; /* borrowed; closed by the owner after control_free */
	struct node *node;   /* borrowed; closed by the owner before control_free */
	struct control_clock clock;
	struct control_limits limits;
	int64_t history_ms;     /* how long stopped sandboxes are remembered; 0: 7 days */
	int64_t history_max;    /* how many; 0: 10000 */
	int64_t idempotency_ms; /* how long idempotency keys are; 0: 24 h */
	struct control_local local;
	int64_t audit_days; /* how long records of the audit log are kept; 0: as long as they fit */
	int64_t audit_max;  /* how many, see audit.h; 0: AUDIT_MAX */
	int64_t log_max;    /* bytes kept of the log of a main command; 0: 1 MiB */
	int64_t logs_total_max; /* bytes of all saved logs; 0: 256 MiB */
	const char *isolation;  /* of creates without a wish, borrowed; NULL: the node's first */
	int64_t pool_max;       /* sandboxes made ahead of time; 0: none */
	int64_t pool_memory_bytes;
	int64_t vm_pool_max; /* the same of virtual machines */
	int64_t vm_pool_memory_bytes;
	/* Runs work(arg) on another thread, then done(arg, 0), or done(arg, -ECANCELED) without
	 * having run it, on the loop. -errno: neither. NULL: long work is done at once. */
	int (*work)(
	    void *ctx, void (*work)(void *arg), void (*done)(void *arg, int status), void *arg);
	void *work_ctx;
	/* Requests to other servers, and mail; borrowed until control_free. NULL: there are none.
	 */
	const struct control_outbound *outbound;
	/* How people get accounts by themselves. */
	enum control_signup_policy signup;
	const struct control_github *github; /* see login.h; NULL: not configured */
	/* argon2id: passes and bytes for a password; 0: libsodium's "interactive", 64 MiB. */
	unsigned long long password_ops;
	size_t password_memory;
	bool pool_untried; /* tests whose sandboxes have no agent: members run nothing first */
};

int control_new(const struct control_config *config, struct control **ret, struct av_err *err);

/* Loads keys and sandboxes, waits for the driver, compares records with the kernel: adopts what
 * runs, finishes what was stopping, removes what has no record. Calls on_started once: with err
 * NULL the API may be served; otherwise the daemon should say why and end. */
struct control_start_report {
	size_t adopted, finished, lost, removed;
};
int control_start(struct control *c,
    void (*on_started)(void *ctx, const struct control_start_report *r, const struct av_err *err),
    void *ctx);

/* First start: when there is no user yet, makes one administrator, one team ("default") and one
 * key. on_secret is called with the full key ("av_" and 40 digits) before it is committed, so that
 * a crash between the two leaves a file with a dead key (overwritten at the next start) and never a
 * key that nobody knows; it returns 0 or -errno when the secret could not be handed on, which fails
 * the call. To be called after on_started; on_done says whether anything was made. */
int control_first_start(struct control *c, int (*on_secret)(void *ctx, const char *secret),
    void (*on_done)(void *ctx, bool made, const struct av_err *err), void *ctx);

/* Runs what is due. The owner of the clock calls it. */
void control_tick(struct control *c);

/* No new sandboxes or conversations from now on (UNAVAILABLE, "shutting down"); writes what was
 * only in memory (last use) and calls on_stopped when creates under way are answered and all is on
 * disk. Sandboxes go on running. Afterwards close the node, then free. */
int control_stop(struct control *c, void (*on_stopped)(void *ctx), void *ctx);
/* The node is closed before (its last callbacks come here), the store afterwards. */
void control_free(struct control *c);

/* Whether the API can do real work, and if not why ("worker is not connected"). For /ready. */
bool control_is_ready(const struct control *c, const char **ret_why);
/* "jail"; and one line about how it is enforced here ("" while unknown). */
const char *control_isolation(const struct control *c);
const char *control_isolation_detail(const struct control *c);

struct control_stats {
	size_t pending, running, paused, stopping; /* now (pending includes starting) */
	uint64_t created, create_failed, deleted, died, timed_out, lifetime_ended, adopted;
	uint64_t execs, idempotent_hits;
	uint64_t snapshots, snapshots_failed;
	uint64_t pauses, idle_pauses, resumes; /* idle_pauses: those of the inactivity timeout */
	uint64_t oom_kills; /* processes that the kernel killed for memory, as far as noticed */
};
void control_get_stats(const struct control *c, struct control_stats *ret);

/* Sandboxes made ahead of time. */
struct control_pool_stats {
	size_t ready, making, wanted; /* now; wanted: as far as the bounds allow */
	uint64_t hits, misses;        /* creates that got one, and that did not */
	uint64_t made, discarded, lost, failures;
	uint64_t memory_bytes;
};
void control_get_pool(const struct control *c, struct control_pool_stats *ret);

/* Sums over the sandboxes that run, as of the last round of sampling. */
struct control_sampling {
	uint64_t rounds, failures;
	uint64_t busy_ns; /* spent here on taking samples in */
	uint64_t sandboxes;
	uint64_t memory_bytes, disk_bytes;
	uint64_t cpu_usec; /* used, as far as seen; only grows */
	uint64_t reserved_cpu_milli, reserved_memory_bytes;
	struct av_hist round; /* from its question to the last answer */
};
void control_get_sampling(const struct control *c, struct control_sampling *ret);

/* What a member of a team may; each includes those before it. */
enum control_role {
	CONTROL_ROLE_NONE,
	CONTROL_ROLE_MEMBER,
	CONTROL_ROLE_ADMIN,
	CONTROL_ROLE_OWNER
};

/* What a key may be good for: bits, see scopes.def and accounts.h. */
enum control_scope_bit {
#define CONTROL_SCOPE(name, text, help) CONTROL_SCOPE_BIT_##name,
#include "control/scopes.def"
#undef CONTROL_SCOPE
	CONTROL_SCOPE_COUNT
};
enum control_scope {
	CONTROL_SCOPE_NONE = 0,
#define CONTROL_SCOPE(name, text, help) CONTROL_SCOPE_##name = 1 << CONTROL_SCOPE_BIT_##name,
#include "control/scopes.def"
#undef CONTROL_SCOPE
	CONTROL_SCOPE_ALL = (1 << CONTROL_SCOPE_COUNT) - 1
};

/* Who asks: what a verified key, or the session of a user, stands for. */
struct control_actor {
	char team_id[AV_ID_SIZE];
	char user_id[AV_ID_SIZE]; /* with a key: who made it */
	char key_id[AV_ID_SIZE];  /* empty: a session */
	enum control_role role;   /* of the user in the team */
	bool is_admin;            /* of this Aviary: the user is one */
	uint32_t scopes;          /* all of them with a session */
	struct av_trace trace;    /* of the request; what is done for it is recorded there */
};
