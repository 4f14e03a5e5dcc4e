/* SPDX-License-Identifier: Apache-2.0 */
/*
 * end.c - how sandboxes end: three steps that are tried until they
 * succeed
 *
 *   stopping is on disk → it is destroyed → stopped (or error) is on disk
 *
 * A database that cannot be written does not keep a sandbox alive: the first step is then skipped,
 * and the last one is what is tried again. A driver that cannot destroy is asked again too. Whoever
 * waits hears the first failure and may ask again; the work goes on without them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "control/main_command.h"

#include "base/banned.h"

#define RETRY_FIRST_NS (100 * AV_NS_PER_MS)
#define RETRY_MAX_NS   (5 * AV_NS_PER_S)

/* A record on its way to the disk. */
struct step {
	struct sandbox *sb;
	struct store_sandbox next;
};

static void go_on(struct sandbox *sb);

static void answer_waiters(struct sandbox *sb, const struct av_err *err)
{
	struct waiter *w;

	while ((w = AV_LIST_FIRST(&sb->waiters, struct waiter, link))) {
		node_done_fn *done = w->fn.done;
		void *ctx = w->ctx;

		waiter_free(w);
		done(ctx, err);
	}
}

/* err NULL: whoever waits goes on waiting (also because we may be inside their call). */
static void try_later(struct sandbox *sb, const struct av_err *err)
{
	struct control *c = sb->c;

	sb->retry_delay_ns =
	    sb->retry_delay_ns ? AV_MIN(sb->retry_delay_ns * 2, RETRY_MAX_NS) : RETRY_FIRST_NS;
	sb->retry_ns = control_boot_ns(c) + sb->retry_delay_ns;
	c->next_retry_ns = AV_MIN(c->next_retry_ns, sb->retry_ns);
	control_wake(c, c->next_retry_ns);
	if (err)
		answer_waiters(sb, err);
}

static struct step *step_new(struct sandbox *sb)
{
	struct step *s = malloc(sizeof(*s));

	if (!s)
		return NULL;
	s->sb = sb;
	s->next = sb->rec;
	s->next.updated_ms = control_real_ms(sb->c);
	memset(s->next.reason, 0, sizeof(s->next.reason));
	memset(s->next.message, 0, sizeof(s->next.message));
	memcpy(s->next.reason, sandbox_reason_text(sb->end_reason),
	    strlen(sandbox_reason_text(sb->end_reason)));
	memcpy(s->next.message, sb->end_message, strlen(sb->end_message));
	return s;
}

static void begin_step(struct sandbox *sb)
{
	sb->busy = true;
	sb->step_ns = av_mono_ns();
}

/* ---- first: stopping ---- */

static void on_stop_recorded(void *ctx, const struct av_err *err)
{
	struct step *s = ctx;
	struct sandbox *sb = s->sb;

	sb->busy = false;
	sb->stop_recorded = true;
	control_timed(sb->c, CONTROL_TIMING_STOP, &sb->end_trace, sb->step_ns, err, sb->rec.id);
	if (err)
		av_log(AV_LOG_WARN, "cannot record that a sandbox stops; stopping it anyhow", "id",
		    sb->rec.id, "error", err->message, NULL);
	sandbox_committed(sb, &s->next);
	free(s);
	(void)av_failpoint("delete.recorded");
	go_on(sb);
}

static void record_stop(struct sandbox *sb)
{
	struct step *s = step_new(sb);

	if (s) {
		sandbox_set_state(&s->next, SANDBOX_STOPPING);
		begin_step(sb);
		if (store_sandbox_update(sb->c->store, &s->next, on_stop_recorded, s) == 0)
			return;
		sb->busy = false;
		free(s);
	}
	try_later(sb, NULL);
}

/* ---- second: destroyed ---- */

static void forget(struct sandbox *sb)
{
	struct node_sandbox *handle = node_find(sb->c->node, sb->rec.id);
	struct av_err why;

	if (!handle)
		return;
	(void)av_err_set(&why, AV_ERR_INVALID_STATE, "sandbox %s was stopped: %s", sb->rec.id,
	    sandbox_reason_why(sb->end_reason));
	node_forget(handle, &why);
}

static void on_destroyed(void *ctx, const struct av_err *err)
{
	struct sandbox *sb = ctx;

	sb->busy = false;
	control_timed(sb->c, CONTROL_TIMING_DESTROY, &sb->end_trace, sb->step_ns, err, sb->rec.id);
	forget(sb);
	if (err) {
		try_later(sb, err);
		return;
	}
	(void)av_failpoint("delete.destroyed");
	sb->destroyed = true;
	sb->retry_delay_ns = 0;
	go_on(sb);
}

static void destroy(struct sandbox *sb)
{
	forget(sb);
	begin_step(sb);
	if (node_destroy(sb->c->node, sb->rec.id, on_destroyed, sb) == 0)
		return;
	sb->busy = false;
	try_later(sb, NULL);
}

/* ---- third: stopped or error ---- */

void sandbox_end_release(struct sandbox *sb)
{
	struct control *c = sb->c;

	if (!sb->final_recorded || sb->creation || sb->change)
		return;
	sandbox_drop(sb);
	c->n_ending--;
	control_check_stopped(c);
	if (c->start)
		control_wake(c, 0);
}

static void on_final(void *ctx, const struct av_err *err)
{
	struct step *s = ctx;
	struct sandbox *sb = s->sb;

	sb->busy = false;
	control_timed(sb->c, CONTROL_TIMING_FINAL, &sb->end_trace, sb->step_ns, err, sb->rec.id);
	/* A record that is not there cannot be wrong. */
	if (err && err->kind != AV_ERR_NOT_FOUND) {
		free(s);
		try_later(sb, err);
		return;
	}
	(void)av_failpoint("delete.committed");
	sandbox_committed(sb, &s->next);
	free(s);
	av_log(AV_LOG_INFO, "sandbox ended", "id", sb->rec.id, "reason", sb->rec.reason, "message",
	    sb->rec.message, NULL);
	event_sandbox(sb, CONTROL_EVENT_SANDBOX_DESTROY, sb->end_key_id, sb->end_reason, NULL);
	control_timed(sb->c, CONTROL_TIMING_DELETE, &sb->end_trace, sb->end_ns, NULL, NULL);
	answer_waiters(sb, NULL);
	(void)av_failpoint("delete.answered");
	sb->final_recorded = true;
	sandbox_end_release(sb);
}

static void record_final(struct sandbox *sb)
{
	struct step *s = step_new(sb);

	if (s) {
		main_before_final(sb);
		sandbox_set_state(&s->next, sb->failed ? SANDBOX_ERROR : SANDBOX_STOPPED);
		s->next.release_key = sb->failed;
		s->next.stopped_ms = s->next.updated_ms;
		begin_step(sb);
		channels_announce(sb->c, sb->rec.team_id, "capsule.destroyed", "capsule",
		    sb->rec.id, sb->end_key_id, s->next.reason);
		if (store_sandbox_update(sb->c->store, &s->next, on_final, s) == 0)
			return;
		channels_withdraw(sb->c);
		sb->busy = false;
		free(s);
	}
	try_later(sb, NULL);
}

/* ---- together ---- */

/* A conversation with the agent told it: its connection cannot be closed right here. */
static void on_saved(struct sandbox *sb)
{
	struct control *c = sb->c;

	sb->busy = false;
	sb->retry_ns = control_boot_ns(c);
	c->next_retry_ns = AV_MIN(c->next_retry_ns, sb->retry_ns);
	control_wake(c, 0);
}

/* The log of its main command is fetched first, unless it is to be deleted at once. */
static bool save_log(struct sandbox *sb)
{
	if (sb->end_reason == SANDBOX_REASON_DELETED ||
	    sb->end_reason == SANDBOX_REASON_CREATE_FAILED || !main_save(sb, on_saved))
		return false;
	sb->busy = true;
	return true;
}

static void go_on(struct sandbox *sb)
{
	sb->retry_ns = 0;
	if (sb->busy || sb->final_recorded)
		return;
	if (!sb->stop_recorded)
		record_stop(sb);
	else if (!sb->destroyed && !sb->keep_disk) {
		if (!save_log(sb))
			destroy(sb);
	} else
		record_final(sb);
}

void sandbox_end(struct sandbox *sb, enum sandbox_reason reason, bool failed, const char *message)
{
	struct av_str text = av_str_c(message ? message : sandbox_reason_why(reason));

	if (sb->ending)
		return;
	sb->ending = true;
	sb->end_reason = reason;
	sb->end_ns = av_mono_ns();
	sb->failed = failed;
	sb->c->n_ending++;
	memcpy(sb->end_message, text.p, AV_MIN(text.n, sizeof(sb->end_message) - 1));
	go_on(sb);
}

void sandbox_end_resume(struct sandbox *sb)
{
	sb->ending = true;
	sb->stop_recorded = true;
	sb->end_reason = sb->reason;
	sb->failed =
	    sb->reason == SANDBOX_REASON_CREATE_FAILED || sb->reason == SANDBOX_REASON_INTERRUPTED;
	sb->c->n_ending++;
	memcpy(sb->end_message, sb->rec.message, sizeof(sb->end_message) - 1);
	go_on(sb);
}

void sandbox_end_retry(struct control *c, int64_t now_ns)
{
	int64_t next = INT64_MAX;
	struct sandbox *sb;

	/* Trying is asynchronous, or sets a time in the future: the list does not change here. */
	c->next_retry_ns = INT64_MAX;
	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	{
		if (!sb->ending || sb->busy || !sb->retry_ns)
			continue;
		if (sb->retry_ns <= now_ns)
			go_on(sb);
		if (sb->retry_ns)
			next = AV_MIN(next, sb->retry_ns);
	}
	c->next_retry_ns = AV_MIN(c->next_retry_ns, next);
}

/* ---- on request ---- */

static int not_found(struct av_err *err, const char *id)
{
	return av_err_set(err, AV_ERR_NOT_FOUND, "there is no sandbox %.64s", id);
}

static void on_deleted_before(
    void *ctx, const struct store_sandbox *v, size_t n, const struct av_err *err)
{
	struct waiter *w = ctx;
	node_done_fn *done;
	struct av_err own;
	void *done_ctx;

	if (!waiter_back(w))
		return;
	if (!err && (n == 0 || strcmp(v[0].team_id, w->team_id) != 0)) {
		(void)not_found(&own, w->id);
		err = &own;
	}
	done = w->fn.done;
	done_ctx = w->ctx;
	waiter_free(w);
	done(done_ctx, err);
}

static void delete_live(struct sandbox *sb, struct waiter *w)
{
	av_list_append(&sb->waiters, &w->link);
	if (sb->ending) {
		if (sb->retry_ns)
			go_on(sb);
		return;
	}
	sb->c->stats.deleted++;
	(void)av_failpoint("delete.checked");
	memcpy(sb->end_key_id, w->key_id, AV_ID_SIZE);
	sb->end_trace = w->trace;
	sandbox_end(sb, SANDBOX_REASON_DELETED, false, NULL);
}

int control_delete(struct control *c, const struct control_actor *a, const char *id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	int r = control_check_open(c, err);
	struct sandbox *sb;
	struct waiter *w;

	if (r < 0)
		return r;
	if (!av_id_valid(av_str_c(id), AV_ID_SANDBOX))
		return not_found(err, id);
	w = waiter_new(c, WAIT_DELETE, ctx);
	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	w->fn.done = fn;
	memcpy(w->id, id, AV_ID_SIZE);
	memcpy(w->team_id, a->team_id, AV_ID_SIZE);
	memcpy(w->key_id, control_actor_id(a), AV_ID_SIZE);
	w->trace = a->trace;
	sb = sandbox_find(c, a, id);
	if (sb && !sb->final_recorded) {
		delete_live(sb, w);
	} else {
		waiter_away(w);
		if (store_sandbox_get(c->store, id, on_deleted_before, w) < 0) {
			waiter_free(w);
			return av_err_set(
			    err, AV_ERR_UNAVAILABLE, "too many requests wait for the database");
		}
	}
	if (ret)
		*ret = &w->call;
	return 0;
}
