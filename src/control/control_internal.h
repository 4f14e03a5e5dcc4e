/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_internal.h - only for src/control/(*.c): live sandboxes, keys, and who waits for what
 *
 * Theory of operation. A live sandbox (struct sandbox) mirrors its record. `rec` is what is on disk
 * and what anybody may see; a transition builds the next record in a copy, queues it, and `rec`
 * takes it over when the store says that it is committed. One transition at a time:
 *
 *   recording ─insert committed→ starting ─driver made it→ committing ─update committed→ running
 *        └ (not in the table yet)    └──────────────┬──────────────┴──────────────┐
 *                                                ending: stopping committed → destroyed → final
 * committed
 *
 * While it runs or is paused, changes (pause, resume, new time-outs) queue up: change.c.
 *
 * Ending can begin at any point after the insert (delete, time-out, death, a failed create) and
 * wins over everything that is under way: answers that come later find sb->ending set and do
 * nothing but give up. A sandbox leaves the table when its final record is committed.
 *
 * Everybody who waits is a struct waiter; the handle they were given is its first member.
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "control/channels.h"
#include "control/control.h"
#include "control/events.h"
#include "control/keys.h"
#include "control/metrics.h"
#include "control/passwords.h"
#include "control/pool.h"
#include "control/quota.h"
#include "control/sandbox.h"
#include "control/series.h"
#include "control/stats.h"
#include "control/templates.h"
#include "control/throttle.h"
#include "node/node.h"
#include "store/store.h"

#define CONTROL_ENDED_MAX 1024
#define CONTROL_KEY_BYTES 32

enum waiter_kind {
	WAIT_CREATE,     /* in a creation's list */
	WAIT_DELETE,     /* in a sandbox's list, or deferred when it is gone already */
	WAIT_GET,        /* deferred, or with the store */
	WAIT_LIST,       /* deferred, or with the store */
	WAIT_USAGE,      /* with the node */
	WAIT_POINTS,     /* deferred, or with the store */
	WAIT_TEAM_STATS, /* deferred, then with the store */
	WAIT_DAYS,       /* with the store */
	WAIT_TEMPLATE,   /* with the store or the node */
	WAIT_CHANGE,     /* deferred, in a sandbox's queue, or its change's (away) */
};

enum change_kind { CHANGE_PAUSE, CHANGE_RESUME, CHANGE_UPDATE, CHANGE_ROLLBACK };

/* What a change of kind CHANGE_UPDATE sets; owned. */
struct update {
	struct sandbox_update values; /* without JSON */
	json_t *metadata;             /* to be merged, or NULL */
	char *tags, *ports;           /* texts, or NULL */
};

struct waiter {
	struct node_call call; /* first */
	struct av_list link;
	struct control *c;
	enum waiter_kind kind;
	union {
		sandbox_fn *sandbox;
		sandboxes_fn *sandboxes;
		node_done_fn *done;
		sandbox_usage_fn *usage;
		control_points_fn *points;
		control_team_stats_fn *team_stats;
		control_days_fn *days;
		template_fn *template;
	} fn;
	void *ctx;
	bool away; /* the store or the node holds it: cancelling only mutes it */
	bool cancelled;
	bool replayed;
	char id[AV_ID_SIZE];
	char team_id[AV_ID_SIZE];
	char key_id[AV_ID_SIZE]; /* of who asked for a change or an end; or empty */
	uint32_t states;         /* list */
	size_t limit, scan;
	int64_t before_ms;       /* list: older than (before_ms, id); 0: all */
	json_t *metadata, *tags; /* list: owned */
	int64_t range_s, step_s, first_day, last_day;
	struct stats_work *work; /* team stats: owned */
	enum change_kind change;
	struct update *update;                 /* CHANGE_UPDATE: owned */
	char rollback_to[STORE_TEMPLATE_SIZE]; /* CHANGE_ROLLBACK: the name of a template */
	bool idle;                             /* a pause because of idleness */
	bool wakes;                            /* a resume for requests that wait */
	int64_t asked_ns;                      /* monotonic */
	struct av_trace trace;                 /* of who asked */
};

/* The JSON texts of a record as the store keeps them; owned. */
struct sandbox_texts {
	char *envs, *metadata, *tags, *ports;
	char *main; /* NULL: no main command */
};

/* What of them is shown; owned, never NULL once parsed. */
struct sandbox_labels {
	json_t *metadata, *tags, *ports;
	json_t *main; /* what the main command is; NULL: there is none */
};

/* Which bound refused something: enum control_quota_of, enum control_quota_limit. */
struct quota_refusal {
	uint8_t of, limit;
};

struct setup; /* see main_command.h, as those of struct sandbox */

/* A create under way. */
struct creation {
	struct av_list link; /* c->creating */
	struct sandbox *sb;  /* NULL until recorded */
	struct control *c;
	struct store_sandbox rec;   /* its texts are those below */
	struct sandbox_texts texts; /* owned until sb takes them */
	char actor_id[AV_ID_SIZE];  /* who asked: a key or a user */
	char *idem_key;             /* owned, NULL: none; "<team>:<key>" */
	uint8_t request_hash[STORE_HASH_SIZE];
	bool requested;      /* the driver was asked */
	bool made;           /* and answered: made_err or evidence */
	bool discarded;      /* the record could not be written */
	bool pooled;         /* made ahead of time: it runs already */
	struct setup *setup; /* owned; NULL: nothing is to be set up */
	bool set_up;         /* that is done, or failed: made_err */
	struct av_err made_err;
	struct av_err
	    refused; /* a quota does not let it: it may only turn out to be a repetition */
	struct quota_refusal refusal;
	bool orphan; /* its team was deleted */
	struct store_evidence evidence;
	struct av_list waiters; /* struct waiter; may become empty */
	struct av_trace trace;
	int64_t asked_ns;  /* monotonic, as the following: the call */
	int64_t insert_ns; /* the record went to the store */
	int64_t step_ns;   /* the node was asked, or the commit went to the store */
};

/* What is known of the use of a sandbox. */
struct sampling {
	struct series series;
	int64_t last_ns; /* monotonic time of the last reading; 0: the next one begins anew */
	uint64_t last_cpu_usec;
	uint32_t saved_s; /* the last point on disk, or the first one */
};

struct sampler {
	bool under_way;
	int64_t next_ns;  /* boot time of the next round; INT64_MAX: nothing lives */
	int64_t begun_ns; /* monotonic: the round under way */
	uint64_t seen_round, memory_round, disk_round; /* of the round under way */
	struct control_sampling stats;
};

struct team_load {
	int64_t running, cpu_milli, memory_kib;
};

struct team_usage {
	char team_id[AV_ID_SIZE];
	struct av_list link;
	struct team_load now, peak;          /* peak: since the last write */
	struct team_load written;            /* the last row */
	int64_t written_s;                   /* when */
	int64_t interval_s;                  /* of the last write */
	int64_t since_ns;                    /* boot time up to which is added up */
	int64_t cpu_milli_ms, memory_kib_ms; /* not written yet */
};

struct usage {
	struct av_list teams; /* struct team_usage */
	int64_t next_ns;      /* INT64_MAX: nothing to write */
};

/* A change of a living sandbox that is under way; see change.c. */
struct change {
	struct sandbox *sb;
	enum change_kind kind;
	struct waiter *waiter; /* away; answered at its end */
	bool wakes;
	bool used;      /* a pause because of idleness: somebody came meanwhile */
	bool recording; /* next is on its way to the disk */
	struct store_sandbox next;
	struct sandbox_texts texts; /* new labels, as next points to them */
	struct sandbox_labels labels;
};

struct sandbox {
	struct store_sandbox rec; /* committed; JSON texts owned */
	enum sandbox_state state;
	enum sandbox_reason reason;
	struct sandbox_labels labels;
	struct control *c;
	struct av_list link;       /* c->live, oldest first */
	struct creation *creation; /* while it is made; owned by the create path */
	bool active_dirty;         /* last_active is newer than on disk */
	struct change *change;     /* under way: one at a time */
	struct av_list queue;      /* struct waiter, WAIT_CHANGE: those to come */
	bool waking;               /* a resume for requests that wait is queued or under way */
	bool unsure;               /* frozen or not, the machine may differ from the record */
	unsigned int holds;        /* control_activity_begin */
	struct node_call *asking;  /* the agent, for its processes */
	int64_t asking_until_ns, idle_retry_ns;
	uint64_t oom_kills; /* as the node told */
	int64_t oom_audited_ns;
	/* main command: */
	struct main_watch *main_watch; /* waits for its end; owned */
	struct main_save *main_save;   /* fetches its log; owned */
	struct stop *stop;             /* a stop with time for it; see stop.c */
	int64_t main_retry_ns, main_retry_delay_ns;
	bool main_saved; /* the log was fetched, or is being */
	bool main_oom;   /* the kernel has killed for memory, and it was killed */
	bool main_dirty; /* what is known of it is not on its way to the disk */
	/* ending: */
	bool ending;
	bool stop_recorded;
	bool destroyed;
	bool busy;           /* a step of the ending is under way */
	bool failed;         /* the final state is error */
	bool keep_disk;      /* nothing runs; what is on disk is swept later */
	bool final_recorded; /* only the creation holds it back */
	enum sandbox_reason end_reason;
	char end_key_id[AV_ID_SIZE]; /* of who asked for it; empty: nobody */
	char end_message[256];
	int64_t end_ns, step_ns;   /* monotonic: since when; the step under way */
	struct av_trace end_trace; /* of who asked for it */
	int64_t retry_ns;          /* boot time of the next try; 0: none */
	int64_t retry_delay_ns;
	struct av_list waiters; /* struct waiter, WAIT_DELETE */
	/* metrics: */
	struct sampling *sampling; /* owned; NULL before the first sample */
	struct team_load counted;  /* what of it is in its team's load */
};

struct account_op;
struct accounts {
	struct av_map users_by_id, users_by_email, teams_by_id;
	struct av_list users, teams;  /* see accounts_internal.h */
	struct av_list queue;         /* struct account_op */
	struct account_op *under_way; /* with the store */
	struct av_list preparing;     /* struct account_op: their passwords are being hashed */
	size_t n_unactivated;         /* users in state "inactive" */
	int64_t forget_ns;            /* room among them is made from this boot time on again */
	char link_base[256];          /* see login.h */
};

struct key {
	struct store_key rec;
	struct av_list link; /* c->keys, oldest first */
	uint32_t scopes;
	bool dirty;         /* last_used_ms is newer than on disk */
	bool ended;         /* whoever showed it was told so */
	int64_t creates_ns; /* see quota.c */
};

/* One that ended a short while ago, to say so instead of "not found". */
struct ended {
	char id[AV_ID_SIZE];
	char team_id[AV_ID_SIZE];
	enum sandbox_state state;
	enum sandbox_reason reason;
};

struct channels {
	struct av_list all;     /* struct channel, see channels_internal.h */
	struct av_list turned;  /* of them: who had its turn in the round under way */
	struct av_list leaving; /* deleted ones that the store has not let go yet */
	struct av_list ops;     /* struct channel_op */
	size_t n, creating, sending;
	bool dirty;      /* to be looked at by the next tick */
	int64_t next_ns; /* boot time; INT64_MAX: nothing is due */
	struct control_channel_stats stats;
};

struct start;
struct audit;
struct hosts;

struct control {
	struct control_config config;
	struct store *store;
	struct node *node;
	struct control_limits limits;

	struct av_map sandboxes; /* id -> struct sandbox */
	struct av_list live;
	struct av_map creations;  /* idem_key -> struct creation */
	struct av_list creating;  /* struct creation, all of them */
	struct av_list templates; /* struct template, oldest first */
	size_t n_ending, n_changes;

	uint8_t sign_key[CONTROL_KEY_BYTES]; /* see sign.h */
	struct av_map keys_by_hash, keys_by_id;
	struct av_list keys;
	struct accounts accounts;
	struct passwords passwords;
	struct throttle throttle;

	struct ended ended[CONTROL_ENDED_MAX];
	size_t ended_next;

	struct av_list deferred; /* struct waiter */
	struct av_list away;     /* struct waiter with `away` set */

	int64_t last_created_ms;
	int64_t clock_offset_ms; /* real time minus boot time, when last looked; 0: never */
	int64_t forget_from_ns;  /* boot time: see clock.c */
	int64_t wake_ns;         /* what the clock was told */
	int64_t next_deadline_ns, next_flush_ns, next_sweep_ns, next_retry_ns;
	int64_t next_main_ns;   /* see main_tick() */
	size_t saving_bytes;    /* memory of logs that are being fetched */
	size_t reading_bytes;   /* saved logs that are being read */
	struct av_list reading; /* struct control_log, those who hold one */
	bool collect_templates; /* somebody who used one is gone */
	bool sweeping;          /* a sweep is under way */
	bool has_sign_key;
	bool started;
	bool stopping;
	bool stop_flushing;
	bool forgetting_keys;

	struct start *start; /* while control_start goes on */
	int64_t stop_deadline_ns;
	void (*on_stopped)(void *ctx);
	void *on_stopped_ctx;

	struct sampler sampler;
	struct usage usage;
	struct control_backup *backup; /* under way, or ended and waited for; NULL: none */
	struct pool pool;
	struct channels channels;
	struct hosts *hosts; /* owned, see hosts_internal.h */
	struct audit *audit; /* owned, see audit_internal.h */

	const struct control_listener *listener; /* NULL: none */
	void *listener_ctx;

	struct control_stats stats;
	struct av_hist timings[CONTROL_TIMING_COUNT];
	uint64_t quota_refused[CONTROL_QUOTA_OF_COUNT][CONTROL_QUOTA_COUNT];
};

/* ---- clock.c ---- */

/* Whether the clock on the wall was set since the last look. */
void clock_look(struct control *c);
/* Whether what is old may be forgotten for that. */
bool clock_may_forget(const struct control *c);

/* ---- control.c ---- */

int64_t control_boot_ns(const struct control *c);
int64_t control_real_ms(const struct control *c);
/* Makes sure that a tick comes at that boot time or before; 0: as soon as possible. */
void control_wake(struct control *c, int64_t boot_ns);
/* -errno with *err when the API may not change anything (not started, stopping). */
int control_check_open(const struct control *c, struct av_err *err);
/* After a creation or an ending is over: control_stop may be waiting. */
void control_check_stopped(struct control *c);
/* Something that began at since_ns (monotonic) is over: counted when it went well, and a part of
 * the trace in any case. sandbox_id may be NULL. */
void control_timed(struct control *c, enum control_timing which, const struct av_trace *trace,
    int64_t since_ns, const struct av_err *err, const char *sandbox_id);

struct waiter *waiter_new(struct control *c, enum waiter_kind kind, void *ctx);
/* Out of its list and freed. */
void waiter_free(struct waiter *w);
/* To be answered by the next tick. */
void waiter_defer(struct waiter *w);
/* Given to the store or the node; waiter_back says whether anybody still wants the answer (and
 * frees it when not). */
void waiter_away(struct waiter *w);
bool waiter_back(struct waiter *w);

/* ---- sandbox.c ---- */

struct sandbox *sandbox_find(
    const struct control *c, const struct control_actor *a, const char *id);
/* Copies rec, without its texts; takes these over on success (and empties *texts). In the table and
 * the list. */
int sandbox_add(struct control *c, const struct store_sandbox *rec, struct sandbox_texts *texts,
    struct sandbox **ret);
/* Out of the table; freed. Remembered in c->ended. */
void sandbox_drop(struct sandbox *sb);
/* The store says that next is on disk. */
void sandbox_committed(struct sandbox *sb, const struct store_sandbox *next);
void sandbox_set_state(struct store_sandbox *rec, enum sandbox_state state);
void sandbox_describe(const struct sandbox *sb, struct sandbox_info *ret);
/* labels stay the caller's, and must live as long as *ret. */
void record_describe(
    const struct store_sandbox *rec, const struct sandbox_labels *labels, struct sandbox_info *ret);
void sandbox_touch(struct sandbox *sb);
/* NOT_FOUND or INVALID_STATE with the reason, for an id that does not run. */
int sandbox_not_running(const struct control *c, const struct control_actor *a, const char *id,
    const struct sandbox *sb, struct av_err *err);
void sandbox_answer_deferred(struct waiter *w);
bool sandbox_state_final(enum sandbox_state s);

/* ---- list.c ---- */

void list_begin(struct waiter *w);

/* ---- labels.c ---- */

void sandbox_texts_clear(struct sandbox_texts *t);
/* The pointers of rec to texts. */
void sandbox_texts_point(struct store_sandbox *rec, const struct sandbox_texts *texts);
/* -ENOMEM; a text that does not parse reads as empty. */
int sandbox_labels_parse(struct sandbox_labels *l, const struct store_sandbox *rec);
void sandbox_labels_clear(struct sandbox_labels *l);
/* New metadata, tags and ports; what was there is freed, and what is given is emptied. */
void sandbox_labels_replace(
    struct sandbox *sb, struct sandbox_texts *texts, struct sandbox_labels *labels);

/* Check what a request says and write it as the text that the store keeps (*ret, owned). NULL means
 * empty. INVALID or TOO_LARGE naming the field and what is allowed. */
int labels_take_metadata(const json_t *map, char **ret, struct av_err *err);
int labels_take_envs(const json_t *map, char **ret, struct av_err *err);
int labels_take_tags(const json_t *tags, char **ret, struct av_err *err);
int labels_take_ports(const json_t *ports, char **ret, struct av_err *err);
/* INVALID naming the bounds, shown in units of scale. */
int control_check_number(struct av_err *err, const char *name, const char *unit, int64_t scale,
    int64_t value, int64_t min, int64_t max);

/* ---- create_params.c ---- */

/* The record, texts, setup, idempotency key and times of cr, from what was asked for. -errno with
 * *err: cr is to be freed. */
int create_take_params(struct creation *cr, const struct control_actor *a,
    const struct sandbox_params *p, struct av_err *err) AV_MUST_CHECK;
/* What the agent of this sandbox is told; *ret_envs is owned. */
int sandbox_agent_envs(const struct control *c, const struct store_sandbox *rec, char **ret_envs);
/* What the driver is told of it. */
void create_spec_of(
    const struct control *c, const struct store_sandbox *rec, struct driver_spec *ret);
/* What the driver is told for a create that wishes nothing; id empty. */
int create_default_spec(struct control *c, struct driver_spec *ret) AV_MUST_CHECK;

/* ---- create.c ---- */

void create_take_evidence(struct store_evidence *dst, const struct driver_evidence *ev);
/* Lives, or is being made: what the machine has under this id is no orphan. */
bool control_knows(const struct control *c, const char *id);
/* Its sandbox ended before it ran: answers with err. */
void creation_fail(struct creation *cr, const struct av_err *err);

/* ---- end.c ---- */

/* Begins to end it, or does nothing when it is ending. message NULL: the reason's own text. */
void sandbox_end(struct sandbox *sb, enum sandbox_reason reason, bool failed, const char *message);
/* Goes on with an ending that an earlier daemon began. */
void sandbox_end_resume(struct sandbox *sb);
/* The creation is over: frees a sandbox that ended meanwhile. */
void sandbox_end_release(struct sandbox *sb);
void sandbox_end_retry(struct control *c, int64_t now_ns);

/* ---- change.c ---- */

/* A change that somebody waits for: into the queue by the next tick. The call is *ret's. */
int change_request(struct control *c, const struct control_actor *a, const char *id,
    enum change_kind kind, sandbox_fn *fn, void *ctx, struct waiter **ret, struct av_err *err);
void change_answer_deferred(struct waiter *w);
/* next becomes a copy of what is on disk. */
void change_begin_record(struct change *ch);
/* fn(ch, err) when next is on disk, or cannot be; perhaps from inside the call. */
void change_record(struct change *ch, store_done_fn *fn);
/* True when the sandbox is being ended: then the change is over. */
bool change_gave_up(struct change *ch);
/* Answers, frees, and begins the next one. */
void change_over(struct change *ch, const struct av_err *err);
void change_free(struct change *ch);
/* Because of idleness. -ENOMEM. */
int sandbox_pause_idle(struct sandbox *sb);
/* 0: conversations may be opened, now or as something that waits for the resume that this began.
 * INVALID_STATE when it does not run and will not by itself. */
int sandbox_need_running(struct sandbox *sb, const struct control_actor *a, struct av_err *err);
/* Somebody uses it: a pause for idleness that is under way is given up, if it still can be. False:
 * it is being paused. */
bool sandbox_spare(struct sandbox *sb);
/* Freezes or thaws, so that the machine is as the record says. on_done (may be NULL) comes in any
 * case, also when sb is gone by then. -ENOMEM. */
int sandbox_fit(struct sandbox *sb, void (*on_done)(void *ctx), void *ctx);
/* Those of which it is not known. */
void sandboxes_fit_unsure(struct control *c);

/* Goes on with a rollback that an earlier daemon recorded. -ENOMEM. */
int change_redo_rollback(struct sandbox *sb);

/* ---- rollback.c ---- */

void rollback_begin(struct change *ch);

/* ---- update.c ---- */

void update_begin(struct change *ch);
void update_free(struct update *u);

/* ---- idle.c ---- */

/* Time-outs and lifetimes. */
void control_check_deadlines(struct control *c, int64_t now_ns);
void control_flush(struct control *c, bool all);
/* Its inactivity timeout is not over, or begins anew with the next look. */
bool sandbox_in_use(const struct sandbox *sb);
void sandbox_idle_failed(struct sandbox *sb, const struct av_err *err);
/* Before sb goes. */
void sandbox_stop_asking(struct sandbox *sb);

/* ---- reconcile.c ---- */

void control_driver_ready(struct control *c);
void start_tick(struct control *c);
/* Destroys what the machine has and no record claims. */
void control_sweep(struct control *c);

/* ---- sampler.c ---- */

void sampler_tick(struct control *c, int64_t now_ns);
/* Something lives: rounds are to go on. */
void sampler_wake(struct control *c);
/* Live sandboxes get back what was saved. */
void sampler_start(struct control *c);
/* Writes its coarse points. */
void sampler_save(struct sandbox *sb);
/* The same, and forgets it. */
void sampler_drop(struct sandbox *sb);
void points_answer(struct waiter *w);

/* ---- usage.c ---- */

/* Its state may have changed; gone: it counts for nothing from now on. */
void usage_recount(struct sandbox *sb, bool gone);
void usage_tick(struct control *c, int64_t now_ns);
void usage_write(struct control *c);
void usage_prune(struct control *c);
/* Credits what was adopted with the time without a daemon. */
void usage_start(struct control *c);
void usage_clear(struct control *c);
void team_stats_answer(struct waiter *w);
struct stats_work;
void stats_work_free(struct stats_work *k);

/* ---- sign.c ---- */

/* Asks the store for the key, or makes it. -errno of the store. */
int sign_load(struct control *c);

/* ---- events.c ---- */

/* Each tells the listener, if there is one. key_id NULL or empty: nobody asked for it. */
void event_sandbox(const struct sandbox *sb, enum control_event_kind kind, const char *key_id,
    enum sandbox_reason reason, const struct av_err *err);
/* It was in state `from`. */
void event_state(const struct sandbox *sb, enum sandbox_state from);
/* A pause or resume is over; its waiter is still there. Others are not told. */
void event_change(const struct change *ch, const struct av_err *err);
void event_template(struct control *c, enum control_event_kind kind, const char *team_id,
    const char *name, const char *key_id, const struct av_err *err);
/* team_id empty: of no team. */
void event_host(
    struct control *c, enum control_event_kind kind, const char *team_id, const char *id);
void event_key_deleted(struct control *c, const char *key_id);
void event_stopping(struct control *c);

void event_channel_disabled(
    struct control *c, const char *team_id, const char *id, const char *why);
/* Of a key or a user; NULL: not known any more. */
const char *actor_name(const struct control *c, const char *id);
/* Who does something, for records: the key, else the user whose session it is. */
const char *control_actor_id(const struct control_actor *a);

/* ---- channels.c, channel_queue.c ---- */

struct store_channel;
void channels_init(struct control *c);
/* Frees everything; the store and the network are closed or know nothing of it any more. */
void channels_clear(struct control *c);
/* As the store has them. -ENOMEM. */
int channels_load(struct control *c, const struct store_channel *v, size_t n);
void channels_tick(struct control *c, int64_t now_ns);
/* What is under way is left for the next daemon. */
void channels_stop(struct control *c);
/* The team is no more, in the store either. */
void channels_drop_team(struct control *c, const char *team_id);
/* What the next request of the store makes true is told to the channels of the team that want it:
 * it is written with that request or not at all. To be called right before it. actor_id NULL or
 * empty: nobody; reason NULL: none. */
void channels_announce(struct control *c, const char *team_id, const char *event, const char *type,
    const char *resource_id, const char *actor_id, const char *reason);
/* That request was not made after all. */
void channels_withdraw(struct control *c);
/* What no record tells of, to the channels of one team (empty: of every team). */
void channels_tell_all(struct control *c, const char *team_id, const char *event, const char *type,
    const char *resource_id);

/* ---- keys.c ---- */

int key_add(struct control *c, const struct store_key *rec);
/* The same, or takes over name, end and quota. */
int key_put(struct control *c, const struct store_key *rec);
void key_gone(struct control *c, const char *id); /* absent: fine */
struct key *key_find(const struct control *c, const char *id);
bool key_is_expired(const struct control *c, const struct key *k);
/* Id, hash and prefix of a new key; secret: "av_" and the digits. */
void key_secret_make(struct store_key *rec, char *secret, size_t size);
void keys_clear(struct control *c);
/* What stands with a team or a user (NULL: any) is no more. */
void keys_drop(struct control *c, const char *team_id, const char *user_id);
void keys_flush(struct control *c);
/* Expired ones end what they opened, and old ones are forgotten. */
void keys_check_ends(struct control *c);

/* ---- teams.c ---- */

/* Ends what belongs to teams that are no more. */
void teams_sweep(struct control *c);

/* ---- key_ops.c ---- */

/* Forgets a key that expired CONTROL_KEY_KEEP_MS ago; then the next one. */
void key_forget_old(struct control *c);
/* Of its own. */
bool key_has_quota(const struct key *k);

/* ---- quota.c ---- */

/* 0: cr may take its place among the creates, and has paid for the minute; QUOTA (or RATE_LIMITED)
 * with what refused it in cr->refusal. */
int quota_check_create(struct control *c, struct creation *cr, struct av_err *err);
int quota_check_resume(struct control *c, const struct sandbox *sb, struct av_err *err);
/* What a create may ask for at most. */
struct create_bounds {
	int64_t cpu_max, memory_max, disk_max;
};
void create_bounds_get(const struct control *c, struct create_bounds *ret);
/* A refusal was answered. */
void quota_count_refusal(struct control *c, struct quota_refusal r);
struct control_quota quota_of_store(const struct store_quota *q);
void quota_apply(struct store_quota *q, const struct control_quota_update *u);
/* INVALID naming the value. */
int quota_check_values(const struct control_quota_update *u, struct av_err *err);
