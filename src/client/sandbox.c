/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.c - handles of sandboxes: made, started, waited for (see aviary/sandbox.h)
 *
 * Theory of operation. A handle asks the server one thing at a time (`asking`): the create, or,
 * once there is an id, how the sandbox is. Whoever needs it to run, or waits for its main command
 * to end, is a turn in `waiting`; as long as there is one that the last answer did not serve, it is
 * asked again every POLL_MS to POLL_MAX_MS, once for all of them.
 *
 * A create whose answer is lost may have made a sandbox (AVC_UNKNOWN): the same create with the
 * same idempotency key tells which. A create that nobody wants any more is not forgotten either:
 * its request lives on as an orphan, and what it made is deleted.
 */
#include "client/sandbox.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "base/ids.h"
#include "client/model_tables.h"
#include "client/session.h"
#include "client/spec.h"
#include "client/track.h"

#include "base/banned.h"

#define POLL_MS          200
#define POLL_MAX_MS      2000
#define START_TIMEOUT_MS 300000

bool avc_id_is_usable(const char *id)
{
	size_t n = id ? strlen(id) : 0;

	if (n == 0 || n >= AVC_ID_SIZE)
		return false;
	for (; *id; id++)
		if (!((*id >= 'a' && *id <= 'z') || (*id >= '0' && *id <= '9') || *id == '-'))
			return false;
	return true;
}

bool avc_id_is_whole(const char *id)
{
	return avc_id_is_usable(id) && strlen(id) == 27 && strncmp(id, "sb", 2) == 0;
}

/* ---- handles ---- */

/* With the lock. */
static aviary_sandbox *sandbox_new_locked(aviary_client *c)
{
	aviary_sandbox *sb = calloc(1, sizeof(*sb));

	if (!sb)
		return NULL;
	atomic_init(&sb->refs, 1);
	sb->c = avc_client_ref(c);
	sb->start_timeout_ms = START_TIMEOUT_MS;
	av_list_init(&sb->waiting);
	av_list_init(&sb->stops);
	av_list_init(&sb->poll.link);
	av_list_init(&sb->in_session);
	av_list_append(&c->sandboxes, &sb->in_client);
	return sb;
}

static aviary_sandbox *sandbox_new(aviary_client *c)
{
	aviary_sandbox *sb;

	avc_lock(c);
	sb = sandbox_new_locked(c);
	avc_unlock(c);
	return sb;
}

aviary_sandbox *aviary_sandbox_ref(aviary_sandbox *sb)
{
	if (sb)
		atomic_fetch_add(&sb->refs, 1);
	return sb;
}

/* ---- what nobody wants ---- */

/* A create, or a delete, of which no handle knows any more. */
struct orphan {
	aviary_client *c; /* borrowed: requests do not outlive it */
	struct avc_tracked *tracked;
};

static void orphan_free(struct orphan *o)
{
	avc_track_unref(o->tracked);
	free(o);
}

static void on_discarded(void *ctx, const struct avc_reply *reply)
{
	struct orphan *o = ctx;

	if (reply->code == 0 || reply->code == AVIARY_E_SANDBOX_NOT_FOUND)
		avc_track_gone(o->tracked);
	orphan_free(o);
}

/* Deletes the sandbox; o is the request's from now on. Without memory the clean-up, or its
 * lifetime, is left. */
static void discard(struct orphan *o, const char *id)
{
	char path[AVC_ID_SIZE + 32];
	struct avc_request_spec spec = {.method = "DELETE", .path = path, .sandbox_id = id};

	(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s", id);
	if (!avc_request_start(o->c, &spec, on_discarded, o))
		orphan_free(o);
}

static bool is_refusal(const struct avc_reply *reply)
{
	return reply->status >= 400 && reply->status < 500;
}

static void on_orphan_born(void *ctx, const struct avc_reply *reply)
{
	const char *id = json_string_value(json_object_get(reply->json, "id"));
	struct orphan *o = ctx;

	if (reply->code == 0 && avc_id_is_whole(id)) {
		avc_track_born(o->tracked, id);
		discard(o, id);
		return;
	}
	if (is_refusal(reply))
		avc_track_gone(o->tracked);
	orphan_free(o);
}

static struct orphan *orphan_new(struct aviary_sandbox *sb)
{
	struct orphan *o = calloc(1, sizeof(*o));

	if (o)
		*o = (struct orphan){.c = sb->c, .tracked = AV_TAKE_PTR(sb->tracked)};
	return o;
}

/* The handle goes, or nobody waits for what it is about to make. */
static void abandon_create(struct aviary_sandbox *sb)
{
	struct orphan *o = avc_request_was_sent(sb->asking) ? orphan_new(sb) : NULL;

	if (o) {
		avc_request_hand_over(AV_TAKE_PTR(sb->asking), on_orphan_born, o);
		return;
	}
	if (!avc_request_was_sent(sb->asking))
		avc_track_gone(sb->tracked);
	avc_request_cancel(AV_TAKE_PTR(sb->asking));
}

static void discard_unwanted(struct aviary_sandbox *sb)
{
	struct orphan *o = orphan_new(sb);

	sb->stopped = true;
	if (o)
		discard(o, sb->id);
}

/* ---- the end of a handle ---- */

static void destroy(struct aviary_sandbox *sb)
{
	av_list_remove(&sb->in_client);
	avc_timer_stop(&sb->poll);
	if (sb->asking && !sb->id[0])
		abandon_create(sb);
	avc_request_cancel(sb->asking);
	avc_request_cancel(sb->stopping);
	avc_track_unref(sb->tracked);
	json_decref(sb->known);
	json_decref(sb->create);
	json_decref(sb->stop_body);
	free(sb->refusal);
	free(sb);
}

void avc_sandbox_unref_locked(struct aviary_sandbox *sb)
{
	aviary_client *c = sb->c;

	if (atomic_fetch_sub(&sb->refs, 1) > 1)
		return;
	destroy(sb);
	avc_client_unref(c); /* never the last: the caller came by another */
}

void aviary_sandbox_free(aviary_sandbox *sb)
{
	aviary_client *c;

	if (!sb || atomic_fetch_sub(&sb->refs, 1) > 1)
		return;
	c = sb->c;
	avc_lock(c);
	destroy(sb);
	avc_unlock(c);
	avc_client_unref(c);
}

/* ---- the beginning of one ---- */

aviary_sandbox *avc_sandbox_attach_locked(aviary_client *c, const char *id)
{
	aviary_sandbox *sb = sandbox_new_locked(c);

	if (sb) {
		memcpy(sb->id, id, strlen(id) + 1);
		sb->birth = AVC_BORN;
	}
	return sb;
}

aviary_sandbox *aviary_sandbox_attach(aviary_client *c, const char *id)
{
	aviary_sandbox *sb = NULL;

	if (!avc_id_is_usable(id))
		return NULL;
	avc_lock(c);
	sb = avc_sandbox_attach_locked(c, id);
	avc_unlock(c);
	return sb;
}

aviary_sandbox *aviary_sandbox_attach_running(aviary_client *c, const char *id)
{
	aviary_sandbox *sb = aviary_sandbox_attach(c, id);

	if (!sb)
		return NULL;
	avc_lock(c);
	if (sb->status == AVIARY_STATUS_UNKNOWN)
		sb->status = AVIARY_STATUS_RUNNING;
	avc_unlock(c);
	return sb;
}

static bool set_key(aviary_sandbox *sb, const char *wanted)
{
	uint8_t random[16];

	if (wanted)
		return av_str_copy(sb->idempotency, sizeof(sb->idempotency), av_str_c(wanted)) == 0;
	av_random(random, sizeof(random));
	av_hex_encode(sb->idempotency, random, sizeof(random));
	return true;
}

aviary_sandbox *aviary_sandbox_new(aviary_client *c, const aviary_sandbox_spec *spec)
{
	aviary_sandbox *sb = sandbox_new(c);
	char text[AVC_SPEC_TEXT];
	aviary_sandbox_spec s;
	bool good;
	int r;

	if (!sb)
		return NULL;
	avc_spec_take(&s, spec);
	r = avc_spec_body(&s, &sb->create, text);
	if (r == AVIARY_E_INVALID)
		sb->refusal = av_str_dup(av_str_c(text));
	good = r == 0 ? set_key(sb, s.idempotency_key) : sb->refusal != NULL;
	if (s.start_timeout_ms && s.start_timeout_ms != AVIARY_SERVER_DEFAULT)
		sb->start_timeout_ms = s.start_timeout_ms;
	if (!good)
		aviary_sandbox_free(AV_TAKE_PTR(sb));
	return sb;
}

/* ---- what answers say ---- */

void avc_sandbox_take(struct aviary_sandbox *sb, json_t *json)
{
	const char *id = json_string_value(json_object_get(json, "id"));
	const char *status = json_string_value(json_object_get(json, "status"));
	const char *word = json_string_value(json_object_get(json, "reason"));
	const char *why = json_string_value(json_object_get(json, "reason_text"));
	const json_t *code = json_object_get(json, "exit_code");

	json_decref(sb->known);
	sb->known = json_incref(json);
	if (!sb->id[0] && avc_id_is_whole(id)) {
		memcpy(sb->id, id, strlen(id) + 1);
		sb->birth = AVC_BORN;
		avc_track_born(sb->tracked, id);
	}
	if (status)
		sb->status = (enum aviary_status)avc_word_find(&avc_status_words, status);
	if (word)
		(void)snprintf(sb->word, sizeof(sb->word), "%s", word);
	if (why)
		(void)snprintf(sb->reason, sizeof(sb->reason), "%s", why);
	if (json_is_integer(code)) {
		sb->has_exit_code = true;
		sb->exit_code = (int)json_integer_value(code);
	}
	if (sb->status == AVIARY_STATUS_STOPPED)
		avc_sandbox_gone(sb);
	else if (!av_list_empty(&sb->waiting))
		avc_timer_start(sb->c, &sb->poll, 0);
}

void avc_sandbox_error(
    const struct aviary_sandbox *sb, aviary_error *ret, int code, const char *text)
{
	*ret = avc_error_of(code, text);
	ret->sandbox_id = sb->id;
}

void avc_sandbox_gone(struct aviary_sandbox *sb)
{
	avc_track_gone(sb->tracked);
	avc_track_unref(AV_TAKE_PTR(sb->tracked));
	if (!av_list_empty(&sb->waiting))
		avc_timer_start(sb->c, &sb->poll, 0);
	avc_session_forget(sb);
}

/* ---- those who wait ---- */

/* Ended by its main command, and by nobody else. */
static bool is_complete(const struct aviary_sandbox *sb)
{
	/* While it is being stopped its command may have ended, and the reason is not written yet.
	 */
	if (!sb->word[0] && json_is_true(json_object_get(sb->known, "stopping")))
		return false;
	return sb->has_exit_code && (!sb->word[0] || strcmp(sb->word, "exited") == 0);
}

/* 0: it waits on; 1: it may go; a code: it cannot be. */
static int verdict(const struct aviary_sandbox *sb, const struct avc_turn *t)
{
	if (!sb->create && !sb->id[0])
		return AVIARY_E_INVALID;
	if (is_complete(sb))
		return 1;
	if (sb->stopped || sb->status == AVIARY_STATUS_STOPPED)
		return t->until_over && t->any_end ? 1 : AVIARY_E_SANDBOX_TERMINATED;
	if (sb->status == AVIARY_STATUS_ERROR)
		return AVIARY_E_SANDBOX_FAILED;
	if (!t->until_over &&
	    (sb->status == AVIARY_STATUS_RUNNING || sb->status == AVIARY_STATUS_PAUSED))
		return 1;
	return t->give_up_ms <= avc_now_ms() ? AVIARY_E_SANDBOX_TIMEOUT : 0;
}

static const char *text_of(const struct aviary_sandbox *sb, int code)
{
	if (code == AVIARY_E_INVALID)
		return sb->refusal;
	if (code == AVIARY_E_SANDBOX_TERMINATED && sb->stopped)
		return "the sandbox was stopped by this program";
	return code == AVIARY_E_SANDBOX_TIMEOUT ? NULL : sb->reason;
}

static void go(struct aviary_sandbox *sb, struct avc_turn *t, int code)
{
	aviary_error e;

	if (code > 0) {
		t->go(t, NULL);
		return;
	}
	avc_sandbox_error(sb, &e, code, text_of(sb, code));
	t->go(t, &e);
}

/* Those whose wait is over leave, in order; they may ask for more meanwhile, or leave together. */
static void settle(struct aviary_sandbox *sb)
{
	struct av_list due;
	struct avc_turn *t;

	av_list_init(&due);
	AV_LIST_FOREACH(t, &sb->waiting, struct avc_turn, link)
	{
		if (verdict(sb, t) == 0)
			continue;
		av_list_remove(&t->link);
		av_list_append(&due, &t->link);
	}
	while ((t = AV_LIST_FIRST(&due, struct avc_turn, link))) {
		int code = verdict(sb, t);

		av_list_remove(&t->link);
		if (code == 0) /* what another one did has changed it */
			av_list_append(&sb->waiting, &t->link);
		else
			go(sb, t, code);
	}
}

/* All who wait get this. */
static void release(struct aviary_sandbox *sb, const aviary_error *error)
{
	struct avc_turn *t;
	struct av_list due;

	av_list_init(&due);
	while ((t = AV_LIST_FIRST(&sb->waiting, struct avc_turn, link))) {
		av_list_remove(&t->link);
		av_list_append(&due, &t->link);
	}
	while ((t = AV_LIST_FIRST(&due, struct avc_turn, link))) {
		av_list_remove(&t->link);
		t->go(t, error);
	}
}

static void no_memory(struct aviary_sandbox *sb)
{
	aviary_error e;

	avc_sandbox_error(sb, &e, AVIARY_E_NO_MEMORY, NULL);
	release(sb, &e);
}

/* When the next look is due: to ask, or because somebody's time is over. */
static void arm(struct aviary_sandbox *sb)
{
	int64_t due = sb->asking ? INT64_MAX : sb->next_ask_ms;
	struct avc_turn *t;

	AV_LIST_FOREACH(t, &sb->waiting, struct avc_turn, link)
	due = AV_MIN(due, t->give_up_ms);
	if (due < INT64_MAX)
		avc_timer_start(sb->c, &sb->poll, due - avc_now_ms());
}

static void look(struct aviary_sandbox *sb)
{
	settle(sb);
	if (av_list_empty(&sb->waiting)) {
		sb->poll_ms = sb->next_ask_ms = 0;
		return;
	}
	if (!sb->asking && sb->next_ask_ms <= avc_now_ms() && !avc_sandbox_ask(sb)) {
		no_memory(sb);
		return;
	}
	arm(sb);
}

static void on_poll(struct avc_timer *t)
{
	struct aviary_sandbox *sb =
	    aviary_sandbox_ref(AV_CONTAINER_OF(t, struct aviary_sandbox, poll));

	look(sb);
	avc_sandbox_unref_locked(sb);
}

/* A create that failed: has it made something? */
static void take_failure(struct aviary_sandbox *sb, const struct avc_reply *reply)
{
	if (sb->id[0]) {
		if (reply->code == AVIARY_E_SANDBOX_NOT_FOUND)
			avc_sandbox_gone(sb);
	} else if (is_refusal(reply)) {
		sb->birth = AVC_UNBORN;
		avc_track_gone(sb->tracked);
		avc_track_unref(AV_TAKE_PTR(sb->tracked));
	}
	if (!av_list_empty(&sb->stops) && !sb->stopping)
		avc_sandbox_stop_now(sb, reply);
	release(sb, reply->error);
}

static void take_answer(struct aviary_sandbox *sb, const struct avc_reply *reply)
{
	aviary_error e;

	avc_sandbox_take(sb, reply->json);
	if (!sb->id[0]) {
		avc_sandbox_error(
		    sb, &e, AVIARY_E_PROTOCOL, "the server's answer names no sandbox");
		take_failure(sb, &(struct avc_reply){.code = e.code, .error = &e});
		return;
	}
	sb->poll_ms = sb->poll_ms ? AV_MIN(sb->poll_ms * 3 / 2, (int64_t)POLL_MAX_MS) : POLL_MS;
	sb->next_ask_ms = avc_now_ms() + sb->poll_ms;
	if (!av_list_empty(&sb->stops) && !sb->stopping)
		avc_sandbox_stop_now(sb, NULL);
	else if (sb->unwanted && av_list_empty(&sb->waiting) && !sb->stopped)
		discard_unwanted(sb);
	look(sb);
}

static void on_answer(void *ctx, const struct avc_reply *reply)
{
	struct aviary_sandbox *sb = aviary_sandbox_ref(ctx);

	sb->asking = NULL;
	if (reply->code < 0)
		take_failure(sb, reply);
	else
		take_answer(sb, reply);
	avc_sandbox_unref_locked(sb);
}

static bool ask_create(struct aviary_sandbox *sb)
{
	struct avc_request_spec spec = {.method = "POST",
	    .path = "/v1/sandboxes",
	    .body = json_incref(sb->create),
	    .idempotency_key = sb->idempotency,
	    .timeout_ms = sb->start_timeout_ms};

	if (!sb->tracked && !sb->detached &&
	    avc_track_create(sb->c, sb->idempotency, sb->create, &sb->tracked) < 0) {
		json_decref(spec.body);
		return false;
	}
	sb->birth = AVC_UNKNOWN;
	sb->asking = avc_request_start(sb->c, &spec, on_answer, sb);
	return sb->asking != NULL;
}

bool avc_sandbox_ask(struct aviary_sandbox *sb)
{
	char path[AVC_ID_SIZE + 32];
	struct avc_request_spec spec = {.method = "GET", .path = path, .sandbox_id = sb->id};

	if (sb->asking)
		return true;
	if (!sb->id[0])
		return ask_create(sb);
	(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s", sb->id);
	sb->asking = avc_request_start(sb->c, &spec, on_answer, sb);
	return sb->asking != NULL;
}

void avc_sandbox_need(struct aviary_sandbox *sb, struct avc_turn *t)
{
	av_list_append(&sb->waiting, &t->link);
	sb->poll.on_due = on_poll;
	avc_timer_start(sb->c, &sb->poll, 0);
}

void avc_turn_cancel(struct avc_turn *t)
{
	av_list_remove(&t->link);
}

/* ---- operations that wait ---- */

struct start {
	struct avc_turn turn; /* first */
	aviary_op *op;
	bool give; /* its result is the handle */
};

static void start_stop(aviary_op *op)
{
	struct start *st = op->work;
	struct aviary_sandbox *sb = op->sb;

	avc_turn_cancel(&st->turn);
	if (st->give) {
		sb->unwanted = true;
		if (sb->asking && !sb->id[0] && av_list_empty(&sb->waiting) &&
		    !avc_request_was_sent(sb->asking))
			abandon_create(sb);
	}
	free(st);
}

static void start_go(struct avc_turn *t, const aviary_error *error)
{
	struct start *st = AV_CONTAINER_OF(t, struct start, turn);
	aviary_op *op = st->op;

	if (!error && st->give)
		avc_op_give_sandbox(op, op->sb);
	if (error)
		avc_op_fail_with(op, error);
	else
		avc_op_end(op);
	free(st);
}

static void free_sandbox(void *result)
{
	aviary_sandbox_free(result);
}

static const struct avc_type sandbox_type = {"sandbox", free_sandbox};

void avc_op_give_sandbox(aviary_op *op, struct aviary_sandbox *sb)
{
	avc_op_give(op, &sandbox_type, aviary_sandbox_ref(sb));
}

aviary_sandbox *aviary_op_take_sandbox(aviary_op *op)
{
	return avc_op_take(op, &sandbox_type);
}

aviary_sandbox *aviary_await_sandbox(aviary_op *op, aviary_error *error)
{
	return avc_op_await(op, &sandbox_type, error);
}

aviary_op *avc_sandbox_wait(
    struct aviary_sandbox *sb, int64_t timeout_ms, const struct avc_turn *how, bool give)
{
	aviary_op *op = avc_op_new(sb->c);
	struct start *st = op->c ? calloc(1, sizeof(*st)) : NULL;

	if (!op->c)
		return op;
	avc_lock(sb->c);
	op->sb = aviary_sandbox_ref(sb);
	if (!st) {
		avc_op_fail(op, AVIARY_E_NO_MEMORY, "out of memory");
	} else if (sb->c->closed) {
		free(st);
		avc_op_fail(op, AVIARY_E_STATE, "the client was closed");
	} else {
		st->turn = *how;
		st->turn.go = start_go;
		st->turn.give_up_ms = avc_deadline(timeout_ms);
		av_list_init(&st->turn.link);
		st->op = op;
		st->give = give;
		op->work = st;
		op->stop = start_stop;
		avc_sandbox_need(sb, &st->turn);
	}
	avc_unlock(sb->c);
	return op;
}

/* ---- what is known ---- */

const char *aviary_sandbox_id(const aviary_sandbox *sb)
{
	return sb->id;
}

enum aviary_status aviary_sandbox_status(const aviary_sandbox *sb)
{
	enum aviary_status status;

	avc_lock(sb->c);
	status = sb->status;
	avc_unlock(sb->c);
	return status;
}

int aviary_sandbox_exit_code(const aviary_sandbox *sb, int *ret)
{
	bool known;

	avc_lock(sb->c);
	known = sb->has_exit_code;
	if (known)
		*ret = sb->exit_code;
	avc_unlock(sb->c);
	return known;
}

aviary_sandbox_info *aviary_sandbox_describe(const aviary_sandbox *sb)
{
	char text[AVC_MODEL_TEXT];
	void *info = NULL;
	int r = AVIARY_E_STATE;

	avc_lock(sb->c);
	if (sb->known)
		r = avc_model_decode(&avc_sandbox_info, sb->known, &info, text);
	avc_unlock(sb->c);
	return r == 0 ? info : NULL;
}
