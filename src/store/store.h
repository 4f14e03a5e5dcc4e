/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h - what Aviary remembers: sandboxes, templates, keys, idempotency keys; written before
 * answered (users and teams: accounts.h)
 *
 * One SQLite database (WAL) that one thread of the store's own uses. Requests are
 * queued from the loop thread, and all that wait are written in one transaction (group commit);
 * each is isolated by a savepoint, so that one that fails does not fail its neighbours. A callback
 * runs only after the transaction that holds the change is written: a daemon that is killed loses
 * nothing that it answered. Against a machine that loses its power, keys, templates and settings
 * are on disk as well by then; what sandboxes do follows as soon as nothing waits, a tenth of a
 * second later at most (docs/decisions/0009).
 *
 * Threads: every function below is for one thread, the loop's. When callbacks are due the store's
 * thread calls config.wake (which must be safe from any thread, as av_loop_post is), and the loop
 * then calls store_dispatch(), which runs them. Wake is not called again before that. A callback
 * never runs inside the call that asked for it. Callbacks of one store run in the order of the
 * requests.
 *
 * Errors: a request returns -ENOMEM or -EAGAIN (STORE_QUEUE_MAX requests wait) when it could not be
 * queued, and then no callback follows. Everything else arrives in the callback as `err` (NULL on
 * success). A disk that is full or broken fails the requests it hits with NO_SPACE or INTERNAL;
 * later ones are tried afresh.
 *
 * Strings in records given to a request are copied before it returns. Records handed to a callback
 * are valid until it returns.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hist.h"
#include "base/ids.h"

struct store;

#define STORE_QUEUE_MAX           65536
#define STORE_STATE_SIZE          16
#define STORE_REASON_SIZE         24
#define STORE_TEMPLATE_SIZE       72
#define STORE_BOOT_ID_SIZE        40
#define STORE_HASH_SIZE           32 /* SHA-256 */
#define STORE_NAME_SIZE           136
#define STORE_IDEMPOTENCY_KEY_MAX 255

struct store_config {
	const char *path;        /* of the database file; its directory exists */
	void (*wake)(void *ctx); /* any thread */
	void *wake_ctx;
};

/* Opens or creates the database, applies the migrations that are missing, starts the thread.
 * Blocks. AV_ERR_CONFLICT: a newer Aviary wrote the database; nothing is changed.
 * AV_ERR_FORBIDDEN: the file is not the daemon's. Both say so, and neither goes away by itself. */
int store_open(const struct store_config *config, struct store **ret, struct av_err *err);
/* Finishes what is queued, joins the thread, closes. Callbacks that did not run yet never will.
 * Blocks. NULL is fine. */
void store_close(struct store *s);
/* Runs the callbacks that are due. */
void store_dispatch(struct store *s);

/* Counters since store_open, for metrics. */
struct store_stats {
	uint64_t transactions;
	uint64_t requests;
	uint64_t errors;
	uint64_t queued; /* waiting now */
	uint64_t synced; /* transactions that were answered first and brought to the disk then */
	struct av_hist wait;        /* of each request, from its queueing to its transaction */
	struct av_hist transaction; /* begin to written, with all that is in it */
	struct av_hist sync;        /* of those counted in synced */
	uint64_t database_bytes, wal_bytes; /* on disk; 0: not known */
};
/* Looks at two files. */
void store_get_stats(struct store *s, struct store_stats *ret);

typedef void store_done_fn(void *ctx, const struct av_err *err);

/* ---- sandboxes ---- */

/* What identifies the sandbox's first process beyond doubt (and, for another isolation, what its
 * driver put there). pid 0: never started. */
struct store_evidence {
	int64_t pid;
	uint64_t start_ticks;
	uint64_t pidns_inode;
	char boot_id[STORE_BOOT_ID_SIZE];
};

/* How the main command of a sandbox goes on, and the stop of a sandbox that waits for it. */
struct store_main {
	char state[12]; /* empty: there is none; "starting", "running", "exited", "killed" */
	int64_t pid;
	int64_t exit_code, exit_signal; /* with "exited" */
	int64_t started_ms, finished_ms;
	int64_t stop_ms;                         /* real time; 0: no stop is under way */
	char stop_snapshot[STORE_TEMPLATE_SIZE]; /* or empty */
	char stop_by[AV_ID_SIZE];                /* a key or a user; or empty */
};

struct store_sandbox {
	char id[AV_ID_SIZE];
	char team_id[AV_ID_SIZE];
	char key_id[AV_ID_SIZE];                 /* who created it */
	char template_name[STORE_TEMPLATE_SIZE]; /* as asked for */
	char template_id[STORE_TEMPLATE_SIZE];   /* as resolved */
	/* It is being made again from template_id, and stood on this one; else empty. */
	char rollback_from[STORE_TEMPLATE_SIZE];
	char isolation[8]; /* "jail", "vm" */
	char state[STORE_STATE_SIZE];
	char reason[STORE_REASON_SIZE]; /* empty while it lives */
	char message[256];              /* for people; may be empty */
	int64_t cpu_milli;
	int64_t memory_bytes;
	int64_t disk_bytes;
	int64_t pids_max;
	bool sudo;
	bool release_key;  /* update: forget the idempotency key, so that it can be used afresh */
	bool write_labels; /* update: metadata, tags and public_ports are to be written as well */
	bool final;        /* state will not change any more: history */
	bool idle_delete;  /* out of idle time it is deleted; else paused */
	bool auto_resume;  /* a request that needs it running resumes it */
	bool internet;
	int64_t idle_timeout_ms; /* 0: never */
	int64_t max_lifetime_ms; /* 0: none */
	int64_t created_ms, started_ms, last_active_ms, stopped_ms,
	    updated_ms;                               /* real time; 0: not yet */
	int64_t created_boot_ns, last_active_boot_ns; /* boot-time clock of boot_id below */
	struct store_evidence evidence;
	int64_t paused_ms;      /* since when; 0: it is not paused */
	struct store_main main; /* not written by store_sandbox_update; inserted: its state only */
	const char *main_json;  /* what it is, an object; NULL or empty: there is none */
	const char *envs_json;  /* objects; NULL reads as "{}" */
	const char *metadata_json;
	const char *tags_json; /* arrays, of strings and of numbers; NULL reads as "[]" */
	const char *ports_json;
};

/* Who asked for this before: the row that made an insert conflict. */
struct store_idempotency {
	const char *key; /* 1 to STORE_IDEMPOTENCY_KEY_MAX bytes; unique in its team */
	uint8_t request_hash[STORE_HASH_SIZE];
	char sandbox_id[AV_ID_SIZE];
	/* insert: nothing is to be recorded, it is only asked whether the key is taken. */
	bool only_look;
};

/* err->kind CONFLICT with existing != NULL: the idempotency key is taken; existing says by whom.
 * NOT_FOUND when it was only looked, and it is free. */
typedef void store_insert_fn(
    void *ctx, const struct store_idempotency *existing, const struct av_err *err);
/* One change: the sandbox and, unless idem is NULL, its idempotency key (sandbox_id in it is not
 * read). A key older than keep_ms is as if it were not there. */
int store_sandbox_insert(struct store *s, const struct store_sandbox *rec,
    const struct store_idempotency *idem, int64_t keep_ms, store_insert_fn *fn, void *ctx);

/* Writes everything that may change: state, reason, message, final, timestamps, evidence,
 * time-outs and what they do, isolation, limits and template; with write_labels also metadata, tags
 * and public ports. fn may be NULL for a change nobody waits for. NOT_FOUND when there is no such
 * record. */
int store_sandbox_update(
    struct store *s, const struct store_sandbox *rec, store_done_fn *fn, void *ctx);

/* fn may be NULL. No error when there is no such sandbox. */
int store_main_update(struct store *s, const char *sandbox_id, const struct store_main *rec,
    store_done_fn *fn, void *ctx);
/* Replaces the saved log of a sandbox; it goes with the record, and is not kept without one. When
 * all have more than total_max bytes, the oldest of the team that has the most go first. fn may be
 * NULL. */
int store_log_put(struct store *s, const char *sandbox_id, const void *log, size_t size,
    int64_t total_max, store_done_fn *fn, void *ctx);
/* Size 0 when there is none. */
typedef void store_log_fn(void *ctx, const void *log, size_t size, const struct av_err *err);
int store_log_get(struct store *s, const char *sandbox_id, store_log_fn *fn, void *ctx);

/* v has n records, newest first. */
typedef void store_sandboxes_fn(
    void *ctx, const struct store_sandbox *v, size_t n, const struct av_err *err);
/* One by id, any team: n is 0 or 1. */
int store_sandbox_get(struct store *s, const char *id, store_sandboxes_fn *fn, void *ctx);
/* All that are not final, of every team. */
int store_sandbox_live(struct store *s, store_sandboxes_fn *fn, void *ctx);
/* Final ones of one team, in pages. Costs what the page costs, however many there are. */
struct store_page {
	const char *team_id;
	int64_t before_ms;     /* 0: from the newest on; else strictly older than (before_ms, */
	const char *before_id; /* before_id) in the order of (created_ms, id) */
	size_t limit;          /* at most; 1 to 10000 */
};
int store_sandbox_history(
    struct store *s, const struct store_page *page, store_sandboxes_fn *fn, void *ctx);

/* Forgets history: final sandboxes that stopped before stopped_before_ms or are not among the
 * newest keep_newest, and idempotency keys made before keys_before_ms; of each kind at most `max`,
 * so that no other request waits for long. n is how many were forgotten: 0 when there is no more.
 */
typedef void store_count_fn(void *ctx, size_t n, const struct av_err *err);
int store_prune(struct store *s, int64_t stopped_before_ms, int64_t keep_newest,
    int64_t keys_before_ms, size_t max, store_count_fn *fn, void *ctx);

/* ---- templates ---- */

#define STORE_TEMPLATE_NAME_SIZE 72
#define STORE_TEMPLATE_ENVS_SIZE 8192

struct store_template {
	char id[AV_ID_SIZE];
	char team_id[AV_ID_SIZE];
	bool platform; /* every team sees it */
	char name[STORE_TEMPLATE_NAME_SIZE];
	char kind[12];  /* "base", "snapshot" */
	char state[12]; /* "creating", "ready", "deleted" */
	char sandbox_id[AV_ID_SIZE];
	char parent_id[STORE_TEMPLATE_SIZE];
	uint8_t seal[STORE_HASH_SIZE];
	char host_fingerprint[32]; /* when it stands on template host */
	char isolation[8];
	int64_t size_bytes, depth;
	int64_t cpu_milli, memory_bytes, disk_bytes; /* defaults of its sandboxes; 0: none */
	char default_user[64], workdir[512];         /* empty: none */
	char envs_json[STORE_TEMPLATE_ENVS_SIZE];    /* an object; empty reads as "{}" */
	char start_command[1024];                    /* empty: none */
	bool kernel_warm;
	int64_t created_ms;
	int64_t saved_vcpus, saved_memory_bytes; /* of the machine whose memory it holds; 0: none */
	char prefers[8]; /* isolation of sandboxes that ask for none; empty: the default */
};
/* Oldest first; all states. */
typedef void store_templates_fn(
    void *ctx, const struct store_template *v, size_t n, const struct av_err *err);
int store_template_list(struct store *s, store_templates_fn *fn, void *ctx);
/* user_id: who wants it. FORBIDDEN when it is to be platform's and the user is no administrator. */
int store_template_insert(struct store *s, const struct store_template *rec, const char *user_id,
    store_done_fn *fn, void *ctx);
/* In one change: what is known since it was made (seal, parent, size, …) is written, rec becomes
 * ready, replaced (NULL: none) becomes deleted. CONFLICT when another ready one has the name. With
 * the state "deleted" it gets no name: it is there as long as somebody uses it. */
int store_template_publish(struct store *s, const struct store_template *rec, const char *replaced,
    store_done_fn *fn, void *ctx);
/* It loses its name. */
int store_template_mark_deleted(struct store *s, const char *id, store_done_fn *fn, void *ctx);
/* Its row goes. fn may be NULL. */
int store_template_remove(struct store *s, const char *id, store_done_fn *fn, void *ctx);

/* ---- keys, teams, users ---- */

/* Bounds of a team or a key; 0: none of its own. */
struct store_quota {
	int64_t sandboxes, cpu_milli, memory_bytes, disk_bytes;
	int64_t creates_per_minute;
};

#define STORE_SCOPES_SIZE 256

struct store_key {
	char id[AV_ID_SIZE];
	char team_id[AV_ID_SIZE];
	char user_id[AV_ID_SIZE]; /* who made it */
	char name[STORE_NAME_SIZE];
	char prefix[16];                /* first characters of the secret, to recognise it by */
	uint8_t hash[STORE_HASH_SIZE];  /* SHA-256 of the AV_KEY_SECRET_LEN digits */
	char scopes[STORE_SCOPES_SIZE]; /* words between spaces; "*": all */
	int64_t expires_ms;             /* 0: never */
	struct store_quota quota;
	int64_t created_ms, last_used_ms;
};

typedef void store_keys_fn(
    void *ctx, const struct store_key *v, size_t n, const struct av_err *err);
int store_key_list(struct store *s, store_keys_fn *fn, void *ctx); /* every team's */
/* They are made, changed and deleted with the accounts: store_account_change. */
int store_key_touch(struct store *s, const char *id, int64_t last_used_ms);

/* ---- settings ---- */

/* One short value by name, e.g. the boot id the last daemon ran under. value is NULL when unset. */
typedef void store_value_fn(void *ctx, const char *value, const struct av_err *err);
int store_value_get(struct store *s, const char *name, store_value_fn *fn, void *ctx);
int store_value_set(
    struct store *s, const char *name, const char *value, store_done_fn *fn, void *ctx);

/* ---- usage ---- */

#define STORE_POINTS_MAX 65536

/* The points of a sandbox that outlive its memory: bytes, replaced as a whole. fn may be NULL. */
int store_points_put(struct store *s, const char *sandbox_id, const void *points, size_t size,
    store_done_fn *fn, void *ctx);
/* size 0 when there are none. Aligned as malloc does. */
typedef void store_points_fn(void *ctx, const void *points, size_t size, const struct av_err *err);
int store_points_get(struct store *s, const char *sandbox_id, store_points_fn *fn, void *ctx);

/* What a team has reserved. */
struct store_load {
	int64_t running, cpu_milli, memory_mib;
};
/* Adds to one hour of one team, and says what holds from at_s on. */
struct store_usage {
	char team_id[AV_ID_SIZE];
	int64_t hour; /* since 1970 */
	int64_t cpu_milli_ms, memory_mib_ms;
	struct store_load peak;
	int64_t at_s; /* since 1970; 0: load is as in the row before */
	struct store_load load;
};
int store_usage_add(struct store *s, const struct store_usage *u, store_done_fn *fn, void *ctx);

struct store_load_row {
	int64_t at_s;
	struct store_load load; /* until the next row */
};
/* Oldest first; the first one may be older than from_s: it holds then. */
typedef void store_loads_fn(
    void *ctx, const struct store_load_row *v, size_t n, const struct av_err *err);
int store_load_list(
    struct store *s, const char *team_id, int64_t from_s, store_loads_fn *fn, void *ctx);

struct store_hour_row {
	int64_t hour;
	int64_t cpu_milli_ms, memory_mib_ms;
	struct store_load peak;
};
/* Hours from from_hour to before to_hour that have data, oldest first. */
typedef void store_hours_fn(
    void *ctx, const struct store_hour_row *v, size_t n, const struct av_err *err);
int store_hour_list(struct store *s, const char *team_id, int64_t from_hour, int64_t to_hour,
    store_hours_fn *fn, void *ctx);

/* Forgets loads and hours before these. (Points go with the record of their sandbox.) */
int store_usage_prune(
    struct store *s, int64_t loads_before_s, int64_t hours_before, store_done_fn *fn, void *ctx);

/* ---- copies ---- */

#define STORE_MARK_RESTORED "restored_from_ms" /* setting of a copy: when it was made */

/* A copy of the database as it is when fn is called, for a backup: one file without a name, mode
 * 0600, to be read from its beginning; the callee owns fd. The copy differs in the setting
 * STORE_MARK_RESTORED. It is made in steps between other requests: fn comes after the callbacks of
 * all that the copy holds, and of what was asked for later as well. CONFLICT: one is being made. */
typedef void store_copy_fn(void *ctx, int fd, uint64_t bytes, const struct av_err *err);
int store_copy(struct store *s, store_copy_fn *fn, void *ctx);
