/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop.c - ending a sandbox with time for its main command, and a snapshot of what it leaves
 *
 *   checked → the stop is on disk → SIGTERM → (its end, or the grace is over → SIGKILL → its end)
 *     → its log is saved → snapshot, if asked for → the sandbox ends (reason stopped) → answered
 *
 * The sandbox runs until the grace is over; that it is being stopped is seen (`stopping`). The next
 * daemon goes on with what is on disk: the grace ends when it would have ended. Nothing here waits
 * for a client, and nothing that the sandbox does or does not do holds it up: after the grace come
 * KILL_NS at most for the end to be told, and the two seconds of saving the log.
 *
 * A sandbox without a main command that runs, or one that is paused, has nothing to be given time
 * for. A snapshot that cannot be made leaves the sandbox: whoever asked hears why, and can delete
 * it or try again.
 *
 * A deletion, a death or a time-out meanwhile ends it at once; whoever waits hears what became of
 * it.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "control/main_command.h"
#include "control/templates_internal.h"

#include "base/banned.h"

#define KILL_NS (2 * AV_NS_PER_S)

enum phase { RECORDING, TERM, KILLED, SAVING, SNAPSHOT, ENDING };

/* Somebody who waits for it. */
struct stop_waiter {
	struct node_call call; /* first */
	struct av_list link;
	sandbox_stop_fn *fn;
	void *ctx;
};

/* Lives on when the sandbox has gone, until the snapshot is there and everybody was answered. */
struct stop {
	struct control *c;
	struct sandbox *sb; /* NULL: it has ended */
	char id[AV_ID_SIZE];
	struct control_actor actor;
	enum phase phase;
	int64_t deadline_ns; /* boot time: of the grace, or of the kill; 0: none */
	bool grace_exceeded;
	bool snapshotting; /* the snapshot's answer is still to come */
	bool snapshot_made;
	bool asking;                        /* control_get is */
	struct av_err failed;               /* of the snapshot */
	char snapshot[STORE_TEMPLATE_SIZE]; /* or empty */
	struct av_list waiters;             /* struct stop_waiter */
};

/* ---- answers ---- */

static void waiter_cancel(struct node_call *call)
{
	struct stop_waiter *w = AV_CONTAINER_OF(call, struct stop_waiter, call);

	av_list_remove(&w->link);
	free(w);
}

static void answer(struct stop *st, const struct sandbox_info *info, const struct av_err *err)
{
	const struct sandbox_stop_result result = {
	    .grace_exceeded = st->grace_exceeded,
	    .snapshot = st->snapshot_made ? st->snapshot : NULL,
	};
	struct stop_waiter *w;

	while ((w = AV_LIST_FIRST(&st->waiters, struct stop_waiter, link))) {
		sandbox_stop_fn *fn = w->fn;
		void *ctx = w->ctx;

		av_list_remove(&w->link);
		free(w);
		fn(ctx, err ? NULL : info, err ? NULL : &result, err);
	}
}

static void on_got(void *ctx, const struct sandbox_info *info, const struct av_err *err)
{
	struct stop *st = ctx;

	answer(st, info, err);
	free(st);
}

/* The sandbox has gone, and the snapshot, if there was to be one, is there or is not. */
static void over(struct stop *st)
{
	struct av_err err;

	if (st->sb || st->snapshotting || st->asking)
		return;
	if (st->failed.kind == AV_ERR_NONE && st->snapshot[0] && !st->snapshot_made)
		(void)av_err_set(&st->failed, AV_ERR_INVALID_STATE,
		    "sandbox %s ended before its snapshot '%.72s' could be made", st->id,
		    st->snapshot);
	st->asking = true;
	if (st->failed.kind == AV_ERR_NONE && !st->c->stopping &&
	    control_get(st->c, &st->actor, st->id, on_got, st, NULL, &err) == 0)
		return;
	if (st->failed.kind != AV_ERR_NONE)
		err = st->failed;
	else
		(void)av_err_set(&err, AV_ERR_UNAVAILABLE, "Aviary is shutting down");
	on_got(st, NULL, &err);
}

void stop_drop(struct sandbox *sb)
{
	struct stop *st = AV_TAKE_PTR(sb->stop);

	if (!st)
		return;
	st->sb = NULL;
	over(st);
}

/* It lives on. */
static void give_up(struct stop *st, const struct av_err *err)
{
	struct sandbox *sb = st->sb;

	sb->stop = NULL;
	sb->main_saved = false; /* its log goes on, if it was paused */
	sb->rec.main.stop_ms = 0;
	main_write(sb);
	av_log(AV_LOG_WARN, "a sandbox was not stopped", "id", sb->rec.id, "error", err->message,
	    NULL);
	answer(st, NULL, err);
	free(st);
}

/* ---- the end ---- */

static void end_now(struct stop *st)
{
	struct sandbox *sb = st->sb;

	st->phase = ENDING;
	memcpy(sb->end_key_id, control_actor_id(&st->actor), AV_ID_SIZE);
	sb->end_trace = st->actor.trace;
	sandbox_end(sb, SANDBOX_REASON_STOPPED, false, NULL);
}

static void snapshot_failed(struct stop *st, const struct av_err *err)
{
	bool lives = st->sb && !st->sb->ending;

	st->failed = *err;
	av_err_prefix(&st->failed, "the snapshot '%.72s' could not be made, and the sandbox %s",
	    st->snapshot, lives ? "was not stopped" : "is gone");
	if (lives) {
		const struct av_err why = st->failed;

		give_up(st, &why);
	} else {
		over(st);
	}
}

static void on_snapshot(void *ctx, const struct template_info *t, const struct av_err *err)
{
	struct stop *st = ctx;

	(void)t;
	st->snapshotting = false;
	if (err) {
		snapshot_failed(st, err);
		return;
	}
	st->snapshot_made = true;
	over(st);
}

static void finish(struct sandbox *sb)
{
	struct stop *st = sb->stop;
	const struct snapshot_params p = {.name = st ? st->snapshot : NULL, .stop = true};
	struct av_err err;

	if (!st || sb->ending)
		return;
	if (!st->snapshot[0]) {
		end_now(st);
		return;
	}
	st->phase = SNAPSHOT;
	st->snapshotting = true;
	if (control_snapshot(sb->c, &st->actor, sb->rec.id, &p, on_snapshot, st, NULL, &err) == 0)
		return;
	st->snapshotting = false;
	snapshot_failed(st, &err);
}

static void save(struct stop *st)
{
	st->phase = SAVING;
	st->deadline_ns = 0;
	if (!main_save(st->sb, finish))
		finish(st->sb);
}

/* ---- the main command ---- */

static void kill_main(struct stop *st, int64_t now)
{
	struct node_sandbox *handle = node_find(st->c->node, st->id);

	st->grace_exceeded = true;
	st->phase = KILLED;
	st->deadline_ns = now + KILL_NS;
	if (!handle || node_main_signal(handle, SIGKILL, NULL) < 0)
		save(st);
	else
		main_wake(st->c, st->deadline_ns);
}

static void begin(struct stop *st)
{
	struct sandbox *sb = st->sb;
	struct node_sandbox *handle = node_find(st->c->node, st->id);

	if (!main_is_running(sb) || sb->state != SANDBOX_RUNNING || !handle) {
		save(st);
		return;
	}
	st->phase = TERM;
	if (st->deadline_ns <= control_boot_ns(st->c) ||
	    node_main_signal(handle, SIGTERM, NULL) < 0) {
		kill_main(st, control_boot_ns(st->c));
		return;
	}
	(void)av_failpoint("stop.signalled");
	main_wake(st->c, st->deadline_ns);
}

bool stop_main_ended(struct sandbox *sb)
{
	struct stop *st = sb->stop;

	if (!st)
		return false;
	if (st->phase == TERM || st->phase == KILLED)
		save(st);
	return true;
}

int64_t stop_tick(struct sandbox *sb, int64_t now)
{
	struct stop *st = sb->stop;

	if (!st || sb->ending || (st->phase != TERM && st->phase != KILLED))
		return INT64_MAX;
	if (st->deadline_ns > now)
		return st->deadline_ns;
	if (st->phase == TERM)
		kill_main(st, now);
	else
		save(st);
	st = sb->stop;
	return st && st->deadline_ns ? st->deadline_ns : INT64_MAX;
}

static void on_recorded(void *ctx, const struct av_err *err)
{
	struct stop *st = ctx;

	st->asking = false;
	if (!st->sb) {
		over(st);
		return;
	}
	if (err && !st->sb->ending) {
		give_up(st, err);
		return;
	}
	(void)av_failpoint("stop.recorded");
	if (!st->sb->ending)
		begin(st);
}

static struct stop *stop_new(struct sandbox *sb)
{
	struct stop *st = calloc(1, sizeof(*st));

	if (!st)
		return NULL;
	st->c = sb->c;
	st->sb = sb;
	memcpy(st->id, sb->rec.id, AV_ID_SIZE);
	memcpy(st->actor.team_id, sb->rec.team_id, AV_ID_SIZE);
	av_list_init(&st->waiters);
	sb->stop = st;
	return st;
}

void stop_resume(struct sandbox *sb)
{
	const struct store_main *m = &sb->rec.main;
	int64_t left_ms;
	struct stop *st;

	if (!m->stop_ms || sb->stop || sb->ending)
		return;
	st = stop_new(sb);
	if (!st) {
		sandbox_end(sb, SANDBOX_REASON_STOPPED, false, NULL);
		return;
	}
	memcpy(st->actor.key_id, m->stop_by, AV_ID_SIZE);
	memcpy(st->snapshot, m->stop_snapshot, sizeof(st->snapshot));
	left_ms = AV_MIN(m->stop_ms - control_real_ms(sb->c), SANDBOX_GRACE_MAX_MS);
	st->deadline_ns = control_boot_ns(sb->c) + AV_MAX(left_ms, 0) * AV_NS_PER_MS;
	begin(st);
}

/* ---- on request ---- */

static int add_waiter(
    struct stop *st, sandbox_stop_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct stop_waiter *w = calloc(1, sizeof(*w));

	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	w->call.cancel = waiter_cancel;
	w->fn = fn;
	w->ctx = ctx;
	av_list_append(&st->waiters, &w->link);
	if (ret)
		*ret = &w->call;
	return 0;
}

/* A second wish can only make it sooner. */
static int join(struct stop *st, const struct sandbox_stop_params *p, struct av_err *err)
{
	int64_t deadline = control_boot_ns(st->c) + p->grace_ms * AV_NS_PER_MS;

	if (p->snapshot && strcmp(p->snapshot, st->snapshot) != 0)
		return av_err_set(err, AV_ERR_CONFLICT,
		    "sandbox %s is being stopped already, %s%.72s", st->id,
		    st->snapshot[0] ? "with the snapshot " : "without a snapshot", st->snapshot);
	if (st->phase <= TERM && deadline < st->deadline_ns) {
		st->deadline_ns = deadline;
		main_wake(st->c, deadline);
	}
	return 0;
}

static int begin_new(struct sandbox *sb, const struct control_actor *a,
    const struct sandbox_stop_params *p, struct av_err *err)
{
	struct store_main *m = &sb->rec.main;
	struct stop *st;

	if (p->snapshot && snapshot_check(sb, a, p->snapshot, err) < 0)
		return err ? -av_err_errno(err->kind) : -EINVAL;
	st = stop_new(sb);
	if (!st)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	st->actor = *a;
	st->deadline_ns = control_boot_ns(sb->c) + p->grace_ms * AV_NS_PER_MS;
	/* Nobody may be using a sandbox that ends. */
	(void)sandbox_spare(sb);
	m->stop_ms = control_real_ms(sb->c) + p->grace_ms;
	memset(m->stop_snapshot, 0, sizeof(m->stop_snapshot));
	if (p->snapshot)
		memcpy(m->stop_snapshot, p->snapshot, strlen(p->snapshot));
	memcpy(st->snapshot, m->stop_snapshot, sizeof(st->snapshot));
	memcpy(m->stop_by, control_actor_id(a), AV_ID_SIZE);
	st->asking = true;
	if (store_main_update(sb->c->store, sb->rec.id, m, on_recorded, st) == 0)
		return 0;
	sb->stop = NULL;
	m->stop_ms = 0;
	free(st);
	return av_err_set(err, AV_ERR_UNAVAILABLE, "the database takes no more requests");
}

/* One that is gone, or that ends without this: it is waited for, and shown. */
static int only_wait(struct control *c, const struct control_actor *a, const char *id,
    struct sandbox *sb, sandbox_stop_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct stop *st = sb ? stop_new(sb) : calloc(1, sizeof(*st));

	if (!st)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (!sb) {
		st->c = c;
		memcpy(st->id, id, AV_ID_SIZE);
		av_list_init(&st->waiters);
	}
	st->actor = *a;
	st->phase = ENDING;
	if (add_waiter(st, fn, ctx, ret, err) < 0) {
		if (sb)
			sb->stop = NULL;
		free(st);
		return -ENOMEM;
	}
	if (!sb) {
		st->asking = true;
		return control_get(c, a, id, on_got, st, NULL, err);
	}
	return 0;
}

int control_sandbox_stop(struct control *c, const struct control_actor *a, const char *id,
    const struct sandbox_stop_params *p, sandbox_stop_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct sandbox *sb = sandbox_find(c, a, id);
	int r = control_check_open(c, err);

	if (r == 0)
		r = control_check_number(
		    err, "grace_sec", " s", 1000, p->grace_ms, 0, SANDBOX_GRACE_MAX_MS);
	if (r < 0)
		return r;
	if (!av_id_valid(av_str_c(id), AV_ID_SANDBOX))
		return av_err_set(err, AV_ERR_NOT_FOUND, "there is no sandbox %.64s", id);
	if (!sb)
		return only_wait(c, a, id, NULL, fn, ctx, ret, err);
	if (!sb->stop && sb->ending)
		return only_wait(c, a, id, sb, fn, ctx, ret, err);
	if (!sb->stop && sb->state != SANDBOX_RUNNING && sb->state != SANDBOX_PAUSED)
		return sandbox_not_running(c, a, id, sb, err);
	r = sb->stop ? join(sb->stop, p, err) : begin_new(sb, a, p, err);
	if (r < 0)
		return r;
	assert(sb->stop);
	return add_waiter(sb->stop, fn, ctx, ret, err);
}

void stop_shutdown(struct control *c)
{
	struct sandbox *sb;
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_UNAVAILABLE,
	    "Aviary is shutting down; the stop goes on when it is started again");
	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	if (sb->stop)
		answer(sb->stop, NULL, &err);
}
