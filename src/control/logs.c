/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs.c - reading the log of a main command (see logs.h)
 *
 * Theory of operation
 *
 *   live ──its END, or all there is──> told
 *     └──the sandbox is gone, or its agent──> looking
 *   looking (its record is read) ──it is being taken down──> waiting for that ──> looking
 *     ├──it lives after all──> told, with what broke the conversation off
 *     └──it is over──> fetching what was saved ──> saved ──> told
 *
 * Who was reading when the sandbox went goes on with what was saved of it, behind the last entry it
 * has seen. Saved logs are held in memory while they are read, MAIN_LOGS_BYTES_MAX of all readers
 * and MAIN_LOGS_TEAM_BYTES_MAX of a team's: a reader may rest for as long as it likes, which must
 * not keep other teams from theirs.
 */
#include "control/logs.h"

#include <errno.h>
#include <stdlib.h>

#include "control/main_command.h"

#include "base/banned.h"

#define PIECE ((size_t)64 * 1024)

struct control_log {
	struct control *c;
	char id[AV_ID_SIZE], team_id[AV_ID_SIZE];
	struct control_log_query q;
	struct control_log_events ev;
	void *ctx;
	struct node_main_log *live; /* or NULL */
	struct node_call *waiting;  /* for its end; or NULL */
	bool with_store;            /* which will call back */
	bool pumping;               /* callbacks are under way: it is freed behind them */
	bool cancelled, paused;
	bool has_ended; /* END was given */
	bool begun;     /* an entry was given */
	bool skip_gaps; /* what is missing was not asked for */
	struct av_err broken;
	struct control_log_end end;
	char reason[STORE_REASON_SIZE];
	struct store_main main; /* of the record */
	char *blob;             /* owned: what was saved */
	size_t n, pos;
	struct av_list link; /* c->reading, with a blob */
	struct av_mainlog_dec dec;
};

static void look(struct control_log *l);

static void log_free(struct control_log *l)
{
	if (l->blob) {
		l->c->reading_bytes -= l->n;
		av_list_remove(&l->link);
	}
	free(l->blob);
	av_mainlog_dec_clear(&l->dec);
	free(l);
}

static void over(struct control_log *l, const struct av_err *err)
{
	l->end.exited = l->has_ended;
	l->end.reason = l->reason;
	l->ev.on_end(l->ctx, err ? NULL : &l->end, err);
	log_free(l);
}

static void give(struct control_log *l, const struct av_mainlog_entry *e)
{
	if (e->kind == AV_MAINLOG_END)
		l->has_ended = true;
	else if (e->kind == AV_MAINLOG_LINE)
		l->q.from = e->offset + 1;
	l->begun = true;
	l->ev.on_entry(l->ctx, e);
}

/* ---- saved ---- */

/* What a first reading of the whole finds. */
struct seeking {
	const struct control_log_query *q;
	uint64_t lines, skip, seen;
	uint64_t from; /* where to begin */
	bool found;
};

static bool on_count(void *ctx, const struct av_mainlog_entry *e)
{
	struct seeking *s = ctx;

	s->lines += e->kind == AV_MAINLOG_LINE && !(e->flags & AV_MAINLOG_CONT);
	return true;
}

static bool on_seek(void *ctx, const struct av_mainlog_entry *e)
{
	struct seeking *s = ctx;

	if (e->kind != AV_MAINLOG_LINE)
		return true;
	s->seen += !(e->flags & AV_MAINLOG_CONT);
	s->found = e->offset >= s->q->from && s->seen >= s->skip && e->time_us >= s->q->since_us;
	s->from = s->found ? e->offset : e->offset + 1;
	return !s->found;
}

static int scan(const struct control_log *l, av_mainlog_fn *fn, struct seeking *s)
{
	struct av_mainlog_dec dec;
	int r;

	av_mainlog_dec_init(&dec);
	r = av_mainlog_feed(&dec, av_str_n(l->blob, l->n), fn, s, NULL);
	av_mainlog_dec_clear(&dec);
	return r;
}

/* Where what is asked for begins. */
static int seek(struct control_log *l)
{
	struct seeking s = {.q = &l->q};
	bool all = l->q.tail == UINT64_MAX && l->q.since_us == INT64_MIN;
	int r = scan(l, on_count, &s);

	if (r < 0 || all || l->begun)
		return r;
	if (l->q.tail < s.lines)
		s.skip = l->q.tail ? s.lines - l->q.tail + 1 : UINT64_MAX;
	else if (l->q.tail == 0)
		s.skip = UINT64_MAX;
	r = scan(l, on_seek, &s);
	l->q.from = AV_MAX(l->q.from, s.from);
	l->skip_gaps = true;
	return r < 0 ? r : 0;
}

static bool on_saved_entry(void *ctx, const struct av_mainlog_entry *e)
{
	struct control_log *l = ctx;
	struct av_mainlog_entry gap = *e;

	if (e->kind == AV_MAINLOG_GAP && e->offset > l->q.from && !l->skip_gaps) {
		gap.dropped = AV_MIN(e->dropped, e->offset - l->q.from);
		l->ev.on_entry(l->ctx, &gap);
	} else if (e->kind == AV_MAINLOG_LINE && e->offset >= l->q.from) {
		give(l, e);
	}
	return !l->cancelled;
}

static void finish_saved(struct control_log *l)
{
	const struct av_mainlog_entry e = {
	    .kind = AV_MAINLOG_END,
	    .offset = l->q.from,
	    .time_us = l->main.finished_ms * 1000,
	    .exit_code = (uint32_t)l->main.exit_code,
	    .signal = (uint32_t)l->main.exit_signal,
	};

	if (strcmp(l->main.state, MAIN_EXITED) == 0) {
		give(l, &e);
		l->ev.on_flush(l->ctx);
	}
	l->pumping = false;
	if (l->cancelled)
		log_free(l);
	else
		over(l, NULL);
}

/* Until the reader is full, or all was given. */
static void pump(struct control_log *l)
{
	struct av_err err;

	l->pumping = true;
	while (!l->paused && !l->cancelled && l->pos < l->n) {
		size_t n = AV_MIN(PIECE, l->n - l->pos);
		int r = av_mainlog_feed(
		    &l->dec, av_str_n(l->blob + l->pos, n), on_saved_entry, l, &err);

		if (r < 0) {
			l->pumping = false;
			over(l, &err);
			return;
		}
		l->pos += n;
		if (!l->cancelled)
			l->ev.on_flush(l->ctx);
	}
	if (!l->cancelled && l->pos == l->n) {
		finish_saved(l);
		return;
	}
	l->pumping = false;
	if (l->cancelled)
		log_free(l);
}

static size_t team_reads(const struct control_log *l)
{
	const struct control_log *other;
	size_t sum = 0;

	AV_LIST_FOREACH(other, &l->c->reading, const struct control_log, link)
	sum += strcmp(other->team_id, l->team_id) == 0 ? other->n : 0;
	return sum;
}

static int take_log(struct control_log *l, const void *log, size_t size, struct av_err *err)
{
	size_t mine = team_reads(l);

	if (mine && mine + size > MAIN_LOGS_TEAM_BYTES_MAX)
		return av_err_set(err, AV_ERR_RATE_LIMITED,
		    "this team is reading saved logs of %zu MiB already, of which %zu are allowed; "
		    "finish reading one of them first",
		    mine >> 20, MAIN_LOGS_TEAM_BYTES_MAX >> 20);
	if (l->c->reading_bytes + size > MAIN_LOGS_BYTES_MAX)
		return av_err_set(err, AV_ERR_RATE_LIMITED,
		    "too many saved logs are being read; try again later");
	l->blob = av_mem_dup(size ? log : "", size);
	if (!l->blob)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	l->n = size;
	l->c->reading_bytes += size;
	av_list_append(&l->c->reading, &l->link);
	if (seek(l) < 0)
		return av_err_set(err, AV_ERR_INTERNAL,
		    "the saved log of sandbox %s is not one that Aviary wrote", l->id);
	return 0;
}

static void on_log(void *ctx, const void *log, size_t size, const struct av_err *err)
{
	struct control_log *l = ctx;
	struct av_err why;

	l->with_store = false;
	if (l->cancelled) {
		log_free(l);
		return;
	}
	if (!err && take_log(l, log, size, &why) < 0)
		err = &why;
	if (err)
		over(l, err);
	else
		pump(l);
}

/* ---- gone, or going ---- */

static void unavailable(struct control_log *l)
{
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_UNAVAILABLE, "too many requests wait for the database");
	over(l, &err);
}

static void on_gone(void *ctx, const struct av_err *err)
{
	struct control_log *l = ctx;

	l->waiting = NULL;
	if (err)
		over(l, err);
	else
		look(l);
}

static void wait_for_end(struct control_log *l, struct sandbox *sb)
{
	struct waiter *w = waiter_new(l->c, WAIT_DELETE, l);

	if (!w) {
		unavailable(l);
		return;
	}
	w->fn.done = on_gone;
	av_list_append(&sb->waiters, &w->link);
	l->waiting = &w->call;
}

static void no_command(struct av_err *err, const char *id)
{
	(void)av_err_set(err, AV_ERR_INVALID_STATE,
	    "sandbox %s was made without a main command ('command'), and has no log", id);
}

/* The record of one that is over. */
static void take_record(struct control_log *l, const struct store_sandbox *rec)
{
	struct av_err err;

	if (!rec || strcmp(rec->team_id, l->team_id) != 0) {
		(void)av_err_set(&err, AV_ERR_NOT_FOUND, "there is no sandbox %.64s", l->id);
		over(l, &err);
		return;
	}
	if (!rec->main_json || !rec->main_json[0]) {
		no_command(&err, l->id);
		over(l, &err);
		return;
	}
	memcpy(l->reason, rec->reason, sizeof(l->reason));
	l->main = rec->main;
	l->with_store = true;
	if (store_log_get(l->c->store, l->id, on_log, l) < 0) {
		l->with_store = false;
		unavailable(l);
	}
}

static void on_record(void *ctx, const struct store_sandbox *v, size_t n, const struct av_err *err)
{
	struct control_log *l = ctx;
	struct sandbox *sb = av_map_get(&l->c->sandboxes, av_str_c(l->id));

	l->with_store = false;
	if (l->cancelled) {
		log_free(l);
		return;
	}
	if (sb && strcmp(sb->rec.team_id, l->team_id) != 0)
		sb = NULL; /* the record says so too */
	if (err)
		over(l, err);
	else if (sb && !sb->ending && l->broken.kind != AV_ERR_NONE)
		over(l, &l->broken);
	else if (sb && !sb->final_recorded)
		wait_for_end(l, sb);
	else
		take_record(l, n ? &v[0] : NULL);
}

static void look(struct control_log *l)
{
	l->with_store = true;
	if (store_sandbox_get(l->c->store, l->id, on_record, l) == 0)
		return;
	l->with_store = false;
	unavailable(l);
}

/* ---- live ---- */

static bool on_live_entry(void *ctx, const struct av_mainlog_entry *e)
{
	give(ctx, e);
	return true;
}

static void on_live_flush(void *ctx)
{
	struct control_log *l = ctx;

	l->ev.on_flush(l->ctx);
}

static void on_live_end(void *ctx, const struct av_err *err)
{
	struct control_log *l = ctx;

	l->live = NULL;
	if (l->has_ended || (!err && !l->q.follow)) {
		over(l, NULL);
		return;
	}
	if (err)
		l->broken = *err;
	else
		(void)av_err_set(&l->broken, AV_ERR_AGENT,
		    "the sandbox's agent ended the log before the command has ended");
	if (l->c->stopping || l->broken.kind == AV_ERR_UNAVAILABLE)
		over(l, &l->broken);
	else
		look(l);
}

static int open_live(
    struct control_log *l, struct sandbox *sb, const struct control_actor *a, struct av_err *err)
{
	static const struct node_main_log_events events = {
	    .on_entry = on_live_entry, .on_flush = on_live_flush, .on_end = on_live_end};
	const struct node_main_log_query q = {
	    .from = l->q.from, .tail = l->q.tail, .since_us = l->q.since_us, .follow = l->q.follow};
	struct node_sandbox *handle = node_find(l->c->node, l->id);
	int r;

	if (!sb->labels.main) {
		no_command(err, l->id);
		return -EINVAL;
	}
	r = sandbox_need_running(sb, a, err);
	if (r < 0)
		return r;
	if (!handle)
		return av_err_set(err, AV_ERR_INVALID_STATE, "sandbox %s has just ended", l->id);
	return node_main_log_open(handle, &q, &events, l, &l->live, err);
}

int control_log_open(struct control *c, const struct control_actor *a, const char *id,
    const struct control_log_query *q, const struct control_log_events *ev, void *ctx,
    struct control_log **ret, struct av_err *err)
{
	struct sandbox *sb = sandbox_find(c, a, id);
	struct control_log *l;
	int r = control_check_open(c, err);

	if (r < 0)
		return r;
	if (!av_id_valid(av_str_c(id), AV_ID_SANDBOX))
		return av_err_set(err, AV_ERR_NOT_FOUND, "there is no sandbox %.64s", id);
	l = calloc(1, sizeof(*l));
	if (!l)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	*l = (struct control_log){.c = c, .q = *q, .ev = *ev, .ctx = ctx};
	memcpy(l->id, id, AV_ID_SIZE);
	memcpy(l->team_id, a->team_id, AV_ID_SIZE);
	av_mainlog_dec_init(&l->dec);
	if (sb && !sb->ending) {
		r = open_live(l, sb, a, err);
	} else {
		l->with_store = true;
		r = store_sandbox_get(c->store, id, on_record, l);
		if (r < 0)
			r = av_err_set(
			    err, AV_ERR_UNAVAILABLE, "too many requests wait for the database");
	}
	if (r < 0) {
		log_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

bool control_log_is_live(const struct control_log *l)
{
	return l->live != NULL;
}

void control_log_pause(struct control_log *l, bool paused)
{
	bool was = l->paused;

	l->paused = paused;
	if (l->live)
		node_main_log_pause(l->live, paused);
	else if (was && !paused && l->blob && !l->pumping)
		pump(l);
}

void control_log_cancel(struct control_log *l)
{
	if (l->live)
		node_main_log_cancel(AV_TAKE_PTR(l->live));
	node_call_cancel(AV_TAKE_PTR(l->waiting));
	if (l->with_store || l->pumping)
		l->cancelled = true;
	else
		log_free(l);
}
