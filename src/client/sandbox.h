/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.h - only for libaviary: the inside of a sandbox's handle
 */
#pragma once

#include <aviary/sandbox.h>

#include "client/request.h"

#define AVC_ID_SIZE 64 /* ids are shorter; what is longer is none */

struct aviary_session;
struct avc_tracked; /* see track.h */

/* Something that waits for a sandbox to run, or for its main command to end. */
struct avc_turn {
	struct av_list link;
	/* With the lock, once, from where is driven; error NULL: it runs, or is over. */
	void (*go)(struct avc_turn *t, const aviary_error *error);
	int64_t give_up_ms; /* INT64_MAX: never */
	bool until_over;    /* not: until it runs */
	bool any_end;       /* with until_over: one that somebody ended is no failure */
};

/* What the answers tell of one that was created, as long as nobody has asked for it to end. */
enum avc_birth {
	AVC_UNBORN,  /* the server was not asked yet, or has refused */
	AVC_UNKNOWN, /* it was asked, and no answer came (yet): asking with the same key tells */
	AVC_BORN     /* there is an id */
};

struct aviary_sandbox {
	atomic_uint refs;
	aviary_client *c;
	struct av_list in_client; /* c->sandboxes */
	char id[AVC_ID_SIZE];     /* "" before it is created; written once */
	enum avc_birth birth;
	enum aviary_status status;
	bool has_exit_code;
	int exit_code;
	char word[32];    /* the server's for why it is over: "exited", "timeout", ... */
	char reason[256]; /* the same as a sentence */
	json_t *known;    /* what the last answer said; NULL */
	json_t *create; /* what to create it with; NULL: it was attached, or the spec is invalid */
	char *refusal;  /* why the spec is invalid */
	char idempotency[80];
	int64_t start_timeout_ms;
	bool stopped;               /* by us */
	bool detached;              /* clean-up leaves it alone */
	bool unwanted;              /* its run was cancelled */
	struct avc_request *asking; /* the create, or the question how it is */
	struct av_list waiting;     /* struct avc_turn */
	struct avc_timer poll;
	int64_t poll_ms, next_ask_ms; /* 0: none yet; at once */
	/* The stop under way, which several may have asked for: life.c. */
	struct av_list stops; /* struct stop */
	struct avc_request *stopping;
	json_t *stop_body; /* until it is sent */
	bool stop_saves;   /* takes a snapshot */
	int64_t stop_timeout_ms;
	struct aviary_session *session; /* NULL: none; shared, outlives its registry */
	struct av_list in_session;
	struct avc_tracked *tracked; /* for clean-up; NULL: not */
};

/* All with the lock, unless said. */

/* Calls t->go when it runs (or is over), from the next round of driving if it does; starts it where
 * that was not asked for yet. t's members but link are filled. */
void avc_sandbox_need(struct aviary_sandbox *sb, struct avc_turn *t);
/* It does not wait any more. */
void avc_turn_cancel(struct avc_turn *t);
/* What an answer says about it. Whoever waits looks anew. */
void avc_sandbox_take(struct aviary_sandbox *sb, json_t *json);
/* An error of this sandbox; text NULL or "": the code's. Strings are borrowed. */
void avc_sandbox_error(
    const struct aviary_sandbox *sb, aviary_error *ret, int code, const char *text);
/* It is no more: whoever waits looks anew, session and clean-up forget it. The caller holds a
 * reference. */
void avc_sandbox_gone(struct aviary_sandbox *sb);
/* Creates it, or, with an id, asks how it is, unless that is under way. False: no memory. */
bool avc_sandbox_ask(struct aviary_sandbox *sb);
/* As aviary_sandbox_attach, where the lock is held and id was checked. */
struct aviary_sandbox *avc_sandbox_attach_locked(aviary_client *c, const char *id);
/* One reference less, where the lock is held. */
void avc_sandbox_unref_locked(struct aviary_sandbox *sb);
/* life.c: the create that a stop waits for has been answered. error: it failed. */
void avc_sandbox_stop_now(struct aviary_sandbox *sb, const struct avc_reply *failed);

/* Without the lock. */

bool avc_id_is_usable(const char *id);
/* The same for an id in an answer: nothing but a whole one will do. */
bool avc_id_is_whole(const char *id);
/* An operation that waits for sb as how says; give: its result is the handle. */
aviary_op *avc_sandbox_wait(
    struct aviary_sandbox *sb, int64_t timeout_ms, const struct avc_turn *how, bool give);
/* The result of an operation that is a handle. */
void avc_op_give_sandbox(aviary_op *op, struct aviary_sandbox *sb);
