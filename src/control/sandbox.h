/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.h - making, finding and deleting sandboxes
 */
#pragma once

#include "control/control.h"

#define SANDBOX_METADATA_MAX 64 /* entries; keys and values to 4 KiB in sum 64 KiB */
#define SANDBOX_ENVS_MAX     256
#define SANDBOX_TAGS_MAX     64 /* of 1 to SANDBOX_TAG_MAX bytes */
#define SANDBOX_TAG_MAX      128
#define SANDBOX_PORTS_MAX    64
#define SANDBOX_COMMAND_MAX  256 /* strings of a main command */
#define SANDBOX_FILES_MAX    64
#define SANDBOX_FILES_BYTES  ((size_t)1 << 20) /* of all contents together */
#define SANDBOX_GRACE_MAX_MS (600LL * 1000)

enum sandbox_state {
#define SANDBOX_STATE(name, text, final) SANDBOX_##name,
#include "control/states.def"
#undef SANDBOX_STATE
	SANDBOX_STATE_COUNT
};
enum sandbox_reason {
#define SANDBOX_REASON(name, text, why) SANDBOX_REASON_##name,
#include "control/states.def"
#undef SANDBOX_REASON
	SANDBOX_REASON_COUNT
};
const char *sandbox_state_text(enum sandbox_state s);
/* SANDBOX_STATE_COUNT when there is none of that name. */
enum sandbox_state sandbox_state_parse(const char *text);
const char *sandbox_reason_text(enum sandbox_reason r);
const char *sandbox_reason_why(enum sandbox_reason r);

/* The command that it was made for. */
struct sandbox_main_info {
	const json_t *command;      /* array of strings; NULL: it has none */
	const char *workdir, *user; /* NULL: the sandbox's own */
	bool keep_on_exit;          /* its end does not end the sandbox */
	const char *state;          /* "starting", "running", "exited", "killed" with the sandbox */
	int64_t pid;                /* 0: not started */
	int64_t started_ms, finished_ms; /* real time; 0: not yet */
	bool exited;                     /* then: */
	int exit_code;                   /* 128 + n after signal n */
	int exit_signal;                 /* 0: none */
	bool stopping; /* the sandbox is being stopped, and its main command has time to end */
};

/* A sandbox as anybody may see it. */
struct sandbox_info {
	const char *id;
	const char *team_id;
	const char *template_name;
	const char *template_note; /* another template answers for the name; or NULL */
	const char *isolation;
	enum sandbox_state state;
	enum sandbox_reason reason; /* NONE while it lives */
	const char *message;        /* more about reason; may be "" */
	int64_t cpu_milli, memory_bytes, disk_bytes, pids_max;
	bool sudo;
	bool idle_delete; /* out of idle time it is deleted; else paused */
	bool auto_resume;
	bool internet;
	int64_t idle_timeout_ms, max_lifetime_ms;                   /* 0: none */
	int64_t created_ms, started_ms, last_active_ms, stopped_ms; /* real time; 0: not yet */
	int64_t updated_ms;
	int64_t paused_ms; /* since when; 0: it is not */
	/* Processes of it that the kernel has killed for memory, as far as noticed (when an exec
	 * was killed, or somebody asked for the usage); 0 once it has ended. */
	uint64_t oom_kills;
	const json_t *metadata; /* object of strings, never NULL */
	const json_t *tags;     /* array of strings, never NULL */
	const json_t *ports;    /* array of numbers: open to everybody; never NULL */
	struct sandbox_main_info main;
	bool replayed; /* answer to a create whose idempotency key was used before */
};
typedef void sandbox_fn(void *ctx, const struct sandbox_info *sb, const struct av_err *err);
/* next: a cursor for what comes after these; NULL: nothing does. */
typedef void sandboxes_fn(
    void *ctx, const struct sandbox_info *v, size_t n, const char *next, const struct av_err *err);

/* Written before the main command starts and before anybody can use the sandbox. */
struct sandbox_file {
	const char *path; /* the agent resolves it, as those of file requests */
	struct av_str content;
	int mode; /* -1: 0644 by the umask */
};

struct template;
/* Zero numbers mean the default. Everything is borrowed for the call. */
struct sandbox_params {
	const char *template_name; /* NULL: "minimal" */
	const char *isolation;     /* NULL: what the template prefers, else the default */
	/* Only control itself: what is made is of this template, which has no name. */
	const struct template *own_template;
	int64_t cpu_milli;
	int64_t memory_bytes;
	int64_t disk_bytes;
	int64_t pids_max;
	bool no_sudo;
	bool idle_delete; /* what happens then; false: pause */
	bool auto_resume; /* a request that needs it running resumes it */
	bool internet;
	int64_t idle_timeout_ms; /* 0: never */
	int64_t max_lifetime_ms; /* 0: none */
	const json_t *envs;      /* object of strings, or NULL */
	const json_t *metadata;  /* object of strings, or NULL */
	const json_t *tags;      /* array of strings, or NULL */
	const json_t *ports;     /* array of ports that the proxy opens to everybody, or NULL */
	const json_t *command;   /* array of strings, or NULL: no main command */
	const char *workdir;     /* of the main command; NULL: the sandbox's own */
	const char *user;
	bool keep_on_exit; /* its end does not end the sandbox */
	const struct sandbox_file *files;
	size_t n_files;
	bool isolation_aside;          /* the isolation stands beside request_body */
	struct av_str idempotency_key; /* empty: none */
	struct av_str request_body;    /* what the key is bound to */
};

/* Answers when the sandbox runs (or failed; then the record stays, in state error). Limits outside
 * their bounds are INVALID and name limit, value and bounds. With an idempotency key: same key and
 * same body → the same sandbox; the same key with another body → CONFLICT; a duplicate that comes
 * while the first is still being made gets the first one's answer. */
int control_create(struct control *c, const struct control_actor *a, const struct sandbox_params *p,
    sandbox_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);

/* Any state, also long after its end. */
int control_get(struct control *c, const struct control_actor *a, const char *id, sandbox_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err);

#define SANDBOX_PAGE_MAX 1000

/* Newest first, in pages: each call looks at no more than SANDBOX_PAGE_MAX records of the past, so
 * that a page may have fewer than `limit`, or none, and still name a next one. The order does not
 * change while somebody turns the pages: nothing that was there all the time is left out or comes
 * twice. A cursor that no list gave is INVALID. */
struct sandbox_filter {
	uint32_t states;        /* bits 1 << enum sandbox_state; 0: all that are not final */
	const json_t *metadata; /* object of strings that must all match, or NULL */
	const json_t *tags;     /* array of strings that it must all have, or NULL */
	size_t limit;           /* to SANDBOX_PAGE_MAX; 0: all live ones that match */
	struct av_str cursor;   /* as `next` gave it; empty: from the newest on */
};
int control_list(struct control *c, const struct control_actor *a, const struct sandbox_filter *f,
    sandboxes_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);

/* Succeeds from every state, also the second time. Answers when it is dead and detached; what it
 * held is freed in the background. NOT_FOUND when there never was one. */
int control_delete(struct control *c, const struct control_actor *a, const char *id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);

/* Ends it, with time for its main command: SIGTERM to its process group, SIGKILL when the grace is
 * over, then a snapshot of the disk if a name is given, then its end (reason stopped). Answers when
 * it is gone; that it is to be stopped is on disk before anything is done, and the next daemon goes
 * on with it. What is gone already is answered at once. One that is being stopped is waited for,
 * and is stopped sooner if this grace is shorter. With an error it lives on, unless that says
 * otherwise. A paused one, or one without a main command that runs, is given no time. */
struct sandbox_stop_params {
	int64_t grace_ms;     /* 0 to SANDBOX_GRACE_MAX_MS */
	const char *snapshot; /* NULL: none */
};
struct sandbox_stop_result {
	bool grace_exceeded;  /* the main command had to be killed */
	const char *snapshot; /* that was made; or NULL */
};
typedef void sandbox_stop_fn(void *ctx, const struct sandbox_info *sb,
    const struct sandbox_stop_result *r, const struct av_err *err);
int control_sandbox_stop(struct control *c, const struct control_actor *a, const char *id,
    const struct sandbox_stop_params *p, sandbox_stop_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);

/* Freezes a running sandbox, with its memory and processes as they are, until control_resume.
 * INVALID_STATE unless it runs, UNSUPPORTED where there is no freezer. The answer shows it paused:
 * from then on it is so after a crash of Aviary too. Conversations that are open stall and go on
 * with the resume. */
int control_pause(struct control *c, const struct control_actor *a, const char *id, sandbox_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err);
/* INVALID_STATE unless it is paused. Its inactivity timeout begins anew. */
int control_resume(struct control *c, const struct control_actor *a, const char *id, sandbox_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err);

/* What to change of a sandbox that runs or is paused: only the values whose bits are set. Borrowed
 * for the call. */
enum sandbox_set {
	SANDBOX_SET_TIMEOUT = 1 << 0,
	SANDBOX_SET_LIFETIME = 1 << 1, /* counts from its creation */
	SANDBOX_SET_ON_TIMEOUT = 1 << 2,
	SANDBOX_SET_AUTO_RESUME = 1 << 3,
	SANDBOX_SET_METADATA = 1 << 4, /* merged: a null value takes its key away */
	SANDBOX_SET_TAGS = 1 << 5,
	SANDBOX_SET_PORTS = 1 << 6,
};
struct sandbox_update {
	uint32_t set; /* SANDBOX_SET_* */
	int64_t idle_timeout_ms, max_lifetime_ms;
	bool idle_delete, auto_resume;
	const json_t *metadata, *tags, *ports; /* NULL: nothing to merge, empty */
};
/* Answers with the sandbox as it is then. Counts as use. */
int control_update(struct control *c, const struct control_actor *a, const char *id,
    const struct sandbox_update *values, sandbox_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);

/* Something that no conversation with the agent shows uses it until control_activity_end: it is not
 * idle meanwhile. False (and nothing to end) when it is not there. Conversations count by
 * themselves. */
bool control_activity_begin(struct control *c, const char *id);
void control_activity_end(struct control *c, const char *id);

/* Somebody wants it awake: the inactivity timer begins anew. Only a running sandbox
 * (INVALID_STATE). Synchronous. */
int control_ping(
    struct control *c, const struct control_actor *a, const char *id, struct av_err *err);

/* What the machine measures: limits and use. Live sandboxes only. */
struct sandbox_usage {
	uint64_t memory_bytes, memory_peak_bytes, pids, cpu_usec;
	uint64_t disk_used_bytes, disk_limit_bytes, oom_kills;
};
typedef void sandbox_usage_fn(void *ctx, const struct sandbox_usage *u, const struct av_err *err);
/* Processes of it that were killed for memory, as far as noticed; 0 when there is no such sandbox.
 * Synchronous. */
uint64_t control_oom_kills(const struct control *c, const struct control_actor *a, const char *id);
/* Whether its metadata have this value. Synchronous. */
bool control_has_metadata(const struct control *c, const struct control_actor *a, const char *id,
    const char *key, const char *value);
int control_usage(struct control *c, const struct control_actor *a, const char *id,
    sandbox_usage_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
