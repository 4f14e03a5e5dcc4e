/* SPDX-License-Identifier: Apache-2.0 */
/*
 * change.c - pausing, resuming and changing a living sandbox: one at a time, durable before visible
 *
 * Theory of operation. Whoever wants a change is a waiter in the sandbox's queue; the first of the
 * queue becomes the change under way when the one before it is over. So a change always starts from
 * what is on disk, and no two write the same record. Ending a sandbox does not queue: it begins at
 * any moment, the change under way notices at its next step and gives up, and the queue hears why.
 *
 *   pause    frozen by the driver → paused is on disk → shown and answered
 *   resume   running is on disk → thawed by the driver → shown and answered
 *   update   the new values are on disk → shown and answered
 *   rollback see rollback.c
 *
 * So a sandbox of which anybody was told that it is paused is paused after a crash too, and one in
 * which anything ran again has a record that says running. What a crash leaves between the two
 * (frozen with a record that says running, or thawed with one that says paused) is put right by the
 * next start, which makes the machine fit the record (reconcile.c). A step that fails takes back
 * the one before it; what cannot be taken back either leaves `unsure` set, and the machine is made
 * to fit the record when the driver is ready again, or there may be room again.
 *
 * A pause that idleness asked for is given up when somebody uses the sandbox before it is on disk.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "control/isolations_internal.h"

#include "base/banned.h"

static void next_change(struct sandbox *sb);

/* ---- under way ---- */

static void answer(struct waiter *w, struct sandbox *sb, const struct av_err *err)
{
	struct sandbox_info info;

	if (w->fn.sandbox && sb && !err)
		sandbox_describe(sb, &info);
	if (w->fn.sandbox)
		w->fn.sandbox(w->ctx, err ? NULL : &info, err);
	waiter_free(w);
}

/* Requests that were let in because a resume was on its way. */
static void woken(struct sandbox *sb, const struct av_err *err)
{
	struct node_sandbox *handle = node_find(sb->c->node, sb->rec.id);

	sb->waking = false;
	if (err && handle)
		node_fail_waiting(handle, err);
}

void change_free(struct change *ch)
{
	sandbox_texts_clear(&ch->texts);
	sandbox_labels_clear(&ch->labels);
	free(ch);
}

static void timed(struct change *ch, const struct av_err *err)
{
	bool is_vm = isolation_is_vm(ch->sb->rec.isolation);
	enum control_timing which;

	if (ch->kind == CHANGE_ROLLBACK)
		which = CONTROL_TIMING_ROLLBACK;
	else if (ch->kind == CHANGE_PAUSE)
		which = is_vm ? CONTROL_TIMING_PAUSE_VM : CONTROL_TIMING_PAUSE;
	else
		which = is_vm ? CONTROL_TIMING_RESUME_VM : CONTROL_TIMING_RESUME;
	control_timed(
	    ch->sb->c, which, &ch->waiter->trace, ch->waiter->asked_ns, err, ch->sb->rec.id);
}

void change_over(struct change *ch, const struct av_err *err)
{
	struct sandbox *sb = ch->sb;
	struct control *c = sb->c;

	if (err ? ch->kind != CHANGE_UPDATE : ch->kind == CHANGE_ROLLBACK)
		timed(ch, err);
	if (err)
		event_change(ch, err);
	if (ch->wakes)
		woken(sb, err);
	if (ch->waiter->idle && err)
		sandbox_idle_failed(sb, err);
	if (waiter_back(ch->waiter))
		answer(ch->waiter, sb, err);
	sb->change = NULL;
	c->n_changes--;
	change_free(ch);
	c->next_deadline_ns = 0;
	control_wake(c, 0);
	next_change(sb);
	control_check_stopped(c);
}

bool change_gave_up(struct change *ch)
{
	struct sandbox *sb = ch->sb;
	struct av_err err;

	if (!sb->ending)
		return false;
	(void)av_err_set(&err, AV_ERR_INVALID_STATE, "sandbox %s was stopped meanwhile: %s",
	    sb->rec.id, sandbox_reason_why(sb->end_reason));
	change_over(ch, &err);
	return true;
}

static void change_fail(struct change *ch, enum av_err_kind kind, const char *message)
{
	struct av_err err;

	(void)av_err_set(&err, kind, "%s", message);
	change_over(ch, &err);
}

void change_begin_record(struct change *ch)
{
	ch->next = ch->sb->rec;
	ch->next.updated_ms = control_real_ms(ch->sb->c);
}

void change_record(struct change *ch, store_done_fn *fn)
{
	struct av_err err;

	ch->recording = true;
	if (store_sandbox_update(ch->sb->c->store, &ch->next, fn, ch) == 0)
		return;
	channels_withdraw(ch->sb->c);
	(void)av_err_set(&err, AV_ERR_UNAVAILABLE, "the database takes no more requests");
	fn(ch, &err);
}

/* ---- the machine made to fit the record ---- */

struct fitting {
	struct control *c;
	char id[AV_ID_SIZE];
	void (*on_done)(void *ctx);
	void *ctx;
};

static void on_fitted(void *ctx, const struct av_err *err)
{
	struct fitting *f = ctx;
	struct sandbox *sb = av_map_get(&f->c->sandboxes, av_str_c(f->id));

	struct node_sandbox *handle = sb ? node_find(f->c->node, f->id) : NULL;

	if (sb)
		sb->unsure =
		    err && (err->kind == AV_ERR_UNAVAILABLE || err->kind == AV_ERR_NO_SPACE);
	if (err && handle && sb->state == SANDBOX_RUNNING)
		node_fail_waiting(handle, err);
	if (err)
		av_log(AV_LOG_WARN, "cannot make a sandbox as paused or running as its record says",
		    "id", f->id, "error", err->message, NULL);
	if (f->on_done)
		f->on_done(f->ctx);
	free(f);
}

int sandbox_fit(struct sandbox *sb, void (*on_done)(void *ctx), void *ctx)
{
	struct control *c = sb->c;
	struct fitting *f = calloc(1, sizeof(*f));
	bool frozen = sb->state == SANDBOX_PAUSED;
	int r;

	if (!f)
		return -ENOMEM;
	f->c = c;
	f->on_done = on_done;
	f->ctx = ctx;
	memcpy(f->id, sb->rec.id, AV_ID_SIZE);
	r = (frozen ? node_freeze : node_thaw)(c->node, sb->rec.id, on_fitted, f);
	if (r < 0)
		free(f);
	return r;
}

/* A step was taken that the record does not say. */
static void take_back(struct sandbox *sb)
{
	if (sandbox_fit(sb, NULL, NULL) < 0)
		sb->unsure = true;
}

void sandboxes_fit_unsure(struct control *c)
{
	struct sandbox *sb;

	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	if (sb->unsure && !sb->ending && !sb->change) {
		sb->unsure = false; /* its end says whether it still is */
		take_back(sb);
	}
}

/* An answer of the driver. False: the change is over. */
static bool driver_did(struct change *ch, const struct av_err *err)
{
	struct sandbox *sb = ch->sb;
	struct av_err why;

	if (!err)
		return true;
	/* It lost its helper half-way: the step may have been taken. */
	sb->unsure = err->kind == AV_ERR_UNAVAILABLE || err->kind == AV_ERR_CANCELED;
	if (err->kind == AV_ERR_NOT_FOUND) {
		(void)av_err_set(
		    &why, AV_ERR_INVALID_STATE, "sandbox %s has just ended", sb->rec.id);
		err = &why;
	}
	change_over(ch, err);
	return false;
}

/* ---- pause ---- */

static void on_pause_recorded(void *ctx, const struct av_err *err)
{
	struct change *ch = ctx;
	struct sandbox *sb = ch->sb;

	if (change_gave_up(ch))
		return;
	if (err) {
		take_back(sb);
		change_over(ch, err);
		return;
	}
	(void)av_failpoint("pause.committed");
	sandbox_committed(sb, &ch->next);
	event_change(ch, NULL);
	sb->c->stats.pauses++;
	timed(ch, NULL);
	if (ch->waiter->idle) {
		sb->c->stats.idle_pauses++;
		av_log(AV_LOG_INFO, "sandbox paused: it was not used", "id", sb->rec.id, NULL);
	}
	change_over(ch, NULL);
	(void)av_failpoint("pause.answered");
}

static void on_frozen(void *ctx, const struct av_err *err)
{
	struct change *ch = ctx;
	struct sandbox *sb = ch->sb;

	if (change_gave_up(ch))
		return;
	if (!driver_did(ch, err))
		return;
	if (ch->used) {
		take_back(sb);
		change_fail(ch, AV_ERR_INVALID_STATE, "it is in use again");
		return;
	}
	(void)av_failpoint("pause.frozen");
	change_begin_record(ch);
	sandbox_set_state(&ch->next, SANDBOX_PAUSED);
	ch->next.paused_ms = ch->next.updated_ms;
	channels_announce(sb->c, sb->rec.team_id, "capsule.paused", "capsule", sb->rec.id,
	    ch->waiter->key_id,
	    ch->waiter->idle ? sandbox_reason_text(SANDBOX_REASON_TIMEOUT) : NULL);
	change_record(ch, on_pause_recorded);
}

static void begin_pause(struct change *ch)
{
	struct sandbox *sb = ch->sb;
	struct av_err err;

	if (sb->state != SANDBOX_RUNNING) {
		(void)av_err_set(&err, AV_ERR_INVALID_STATE, "sandbox %s is %s, not running",
		    sb->rec.id, sandbox_state_text(sb->state));
		change_over(ch, &err);
		return;
	}
	if (!isolation_can_pause(sb->c, sb->rec.isolation)) {
		change_fail(ch, AV_ERR_UNSUPPORTED,
		    "sandboxes cannot be paused here: the kernel's freezer cannot be used; "
		    "'aviary doctor' says why");
		return;
	}
	if (ch->waiter->idle && sandbox_in_use(sb)) {
		change_fail(ch, AV_ERR_INVALID_STATE, "it is in use again");
		return;
	}
	(void)av_failpoint("pause.checked");
	if (node_freeze(sb->c->node, sb->rec.id, on_frozen, ch) < 0)
		change_fail(ch, AV_ERR_NO_MEMORY, "out of memory");
}

/* ---- resume ---- */

static void on_thawed(void *ctx, const struct av_err *err)
{
	struct change *ch = ctx;
	struct sandbox *sb = ch->sb;

	if (change_gave_up(ch))
		return;
	/* rec still says paused: so it must say on disk again. Otherwise the next flush writes it.
	 */
	if (err) {
		channels_announce(
		    sb->c, sb->rec.team_id, "capsule.paused", "capsule", sb->rec.id, NULL, NULL);
		if (store_sandbox_update(sb->c->store, &sb->rec, NULL, NULL) < 0) {
			channels_withdraw(sb->c);
			sb->active_dirty = true;
		}
	}
	if (!driver_did(ch, err))
		return;
	(void)av_failpoint("resume.thawed");
	sandbox_committed(sb, &ch->next);
	event_change(ch, NULL);
	sb->c->stats.resumes++;
	timed(ch, NULL);
	change_over(ch, NULL);
	(void)av_failpoint("resume.answered");
}

static void on_resume_recorded(void *ctx, const struct av_err *err)
{
	struct change *ch = ctx;
	struct sandbox *sb = ch->sb;

	if (change_gave_up(ch))
		return;
	if (err) {
		change_over(ch, err);
		return;
	}
	(void)av_failpoint("resume.recorded");
	if (node_thaw(sb->c->node, sb->rec.id, on_thawed, ch) < 0) {
		struct av_err why;

		(void)av_err_set(&why, AV_ERR_NO_MEMORY, "out of memory");
		on_thawed(ch, &why);
	}
}

static void begin_resume(struct change *ch)
{
	struct sandbox *sb = ch->sb;
	struct av_err err;

	if (sb->state == SANDBOX_RUNNING && ch->wakes) {
		change_over(ch, NULL);
		return;
	}
	if (sb->state != SANDBOX_PAUSED) {
		(void)av_err_set(&err, AV_ERR_INVALID_STATE, "sandbox %s is %s, not paused",
		    sb->rec.id, sandbox_state_text(sb->state));
		change_over(ch, &err);
		return;
	}
	if (quota_check_resume(sb->c, sb, &err) < 0) {
		change_over(ch, &err);
		return;
	}
	(void)av_failpoint("resume.checked");
	change_begin_record(ch);
	sandbox_set_state(&ch->next, SANDBOX_RUNNING);
	ch->next.paused_ms = 0;
	ch->next.started_ms = ch->next.last_active_ms = ch->next.updated_ms;
	ch->next.last_active_boot_ns = control_boot_ns(sb->c);
	channels_announce(sb->c, sb->rec.team_id, "capsule.running", "capsule", sb->rec.id,
	    ch->waiter->key_id, NULL);
	change_record(ch, on_resume_recorded);
}

/* ---- the queue ---- */

static void begin(struct sandbox *sb, struct waiter *w)
{
	struct change *ch = calloc(1, sizeof(*ch));
	struct av_err err;

	if (!ch) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		if (w->wakes)
			woken(sb, &err);
		answer(w, NULL, &err);
		return;
	}
	ch->sb = sb;
	ch->kind = w->change;
	ch->wakes = w->wakes;
	ch->waiter = w;
	waiter_away(w);
	sb->change = ch;
	sb->c->n_changes++;
	switch (ch->kind) {
	case CHANGE_PAUSE:
		begin_pause(ch);
		break;
	case CHANGE_RESUME:
		begin_resume(ch);
		break;
	case CHANGE_UPDATE:
		update_begin(ch);
		break;
	case CHANGE_ROLLBACK:
		rollback_begin(ch);
		break;
	}
}

static void next_change(struct sandbox *sb)
{
	struct waiter *w;
	struct av_err err;

	while (!sb->change && (w = AV_LIST_FIRST(&sb->queue, struct waiter, link))) {
		av_list_remove(&w->link);
		if (!sb->ending) {
			begin(sb, w);
			continue;
		}
		(void)av_err_set(&err, AV_ERR_INVALID_STATE, "sandbox %s is being stopped: %s",
		    sb->rec.id, sandbox_reason_why(sb->end_reason));
		answer(w, NULL, &err);
	}
	if (sb->ending && !sb->change)
		sandbox_end_release(sb);
}

void change_answer_deferred(struct waiter *w)
{
	struct control_actor a = {0};
	struct sandbox *sb;
	struct av_err err;

	memcpy(a.team_id, w->team_id, AV_ID_SIZE);
	sb = sandbox_find(w->c, &a, w->id);
	if (!sb || sb->ending || w->c->stopping) {
		if (control_check_open(w->c, &err) == 0)
			(void)sandbox_not_running(w->c, &a, w->id, sb, &err);
		if (sb && w->wakes)
			woken(sb, &err);
		answer(w, NULL, &err);
		return;
	}
	av_list_remove(&w->link);
	av_list_append(&sb->queue, &w->link);
	next_change(sb);
}

/* Whether it can be asked for now; what becomes of it is seen when its turn comes. */
static int check(const struct control *c, const struct control_actor *a, const char *id,
    const struct sandbox *sb, struct av_err *err)
{
	int r = control_check_open(c, err);

	if (r < 0)
		return r;
	if (!sb || sb->ending || (sb->state != SANDBOX_RUNNING && sb->state != SANDBOX_PAUSED))
		return sandbox_not_running(c, a, id, sb, err);
	return 0;
}

static struct waiter *enqueue(struct sandbox *sb, enum change_kind kind, sandbox_fn *fn, void *ctx)
{
	struct waiter *w = waiter_new(sb->c, WAIT_CHANGE, ctx);

	if (!w)
		return NULL;
	w->fn.sandbox = fn;
	w->change = kind;
	memcpy(w->id, sb->rec.id, AV_ID_SIZE);
	memcpy(w->team_id, sb->rec.team_id, AV_ID_SIZE);
	waiter_defer(w);
	return w;
}

int change_request(struct control *c, const struct control_actor *a, const char *id,
    enum change_kind kind, sandbox_fn *fn, void *ctx, struct waiter **ret, struct av_err *err)
{
	struct sandbox *sb = sandbox_find(c, a, id);
	struct waiter *w;
	int r = check(c, a, id, sb, err);

	if (r < 0)
		return r;
	w = enqueue(sb, kind, fn, ctx);
	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	memcpy(w->key_id, control_actor_id(a), AV_ID_SIZE);
	w->trace = a->trace;
	*ret = w;
	return 0;
}

int control_pause(struct control *c, const struct control_actor *a, const char *id, sandbox_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err)
{
	struct waiter *w = NULL;
	int r = change_request(c, a, id, CHANGE_PAUSE, fn, ctx, &w, err);

	if (r == 0 && ret)
		*ret = &w->call;
	return r;
}

int control_resume(struct control *c, const struct control_actor *a, const char *id, sandbox_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err)
{
	struct waiter *w = NULL;
	int r = change_request(c, a, id, CHANGE_RESUME, fn, ctx, &w, err);

	if (r == 0 && ret)
		*ret = &w->call;
	return r;
}

/* ---- by itself ---- */

int sandbox_pause_idle(struct sandbox *sb)
{
	struct waiter *w = enqueue(sb, CHANGE_PAUSE, NULL, NULL);

	if (!w)
		return -ENOMEM;
	w->idle = true;
	return 0;
}

int change_redo_rollback(struct sandbox *sb)
{
	struct waiter *w = enqueue(sb, CHANGE_ROLLBACK, NULL, NULL);

	if (!w)
		return -ENOMEM;
	/* At the start nobody looks at what was put off. */
	av_list_remove(&w->link);
	av_list_append(&sb->queue, &w->link);
	next_change(sb);
	return 0;
}

bool sandbox_spare(struct sandbox *sb)
{
	struct change *ch = sb->change;

	if (!ch || ch->kind != CHANGE_PAUSE)
		return true;
	if (!ch->waiter->idle || ch->recording)
		return false;
	ch->used = true;
	return true;
}

int sandbox_need_running(struct sandbox *sb, const struct control_actor *a, struct av_err *err)
{
	struct change *ch = sb->change;
	bool pausing = ch && ch->kind == CHANGE_PAUSE;
	struct waiter *w;

	if (sb->ending || (sb->state != SANDBOX_RUNNING && sb->state != SANDBOX_PAUSED))
		return sandbox_not_running(sb->c, a, sb->rec.id, sb, err);
	if (sb->state == SANDBOX_RUNNING && sandbox_spare(sb))
		return 0;
	if (!sb->rec.auto_resume)
		return av_err_set(err, AV_ERR_INVALID_STATE,
		    "sandbox %s is %s, not running; resume it first, or let requests resume it "
		    "(auto_resume)",
		    sb->rec.id,
		    pausing      ? "being paused"
		    : sb->change ? "being resumed"
		                 : "paused");
	if (sb->waking)
		return 0;
	w = enqueue(sb, CHANGE_RESUME, NULL, NULL);
	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	w->wakes = sb->waking = true;
	return 0;
}
