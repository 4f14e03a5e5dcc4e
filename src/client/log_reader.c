/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log_reader.c - a log that is asked for entry by entry (see aviary/logs.h)
 *
 * Theory of operation. aviary_sandbox_logs() brings entries, which are copied into `queue`; above
 * QUEUE_MAX it is told to come again when half of them were taken. A followed log ends with an
 * entry of how it ended: one that ends without that has broken off, and is asked for again behind
 * the last offset, TRIES times without an entry in between.
 *
 * The operation at work (a start, or a log) has a reference to the reader until it is done.
 */
#include <aviary/files.h>
#include <aviary/logs.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/sandbox.h"

#include "base/banned.h"

#define QUEUE_MAX 1024
#define TRIES     3
#define AGAIN_MS  500

struct item {
	struct av_list link;
	aviary_log_entry entry;
	char *texts; /* of entry, one after the other */
};

struct aviary_log_reader {
	atomic_uint refs;
	aviary_client *c;
	aviary_sandbox *sb;
	aviary_logs_options o;
	char *since, *stream; /* of o */
	char behind[40];      /* "offset:N", when there was an entry */
	aviary_op *op;        /* at work, or the last one; NULL: none */
	struct avc_timer again;
	int tries;
	bool ended; /* the entry of the end was there */
	bool over;  /* nothing comes any more */
	bool resting, freed;
	struct av_list queue; /* struct item */
	size_t n;
	struct item *given;
};

/* ---- entries ---- */

static void item_free(struct item *it)
{
	if (it)
		free(it->texts);
	free(it);
}

static struct item *item_new(const aviary_log_entry *e)
{
	size_t n_time = strlen(e->time) + 1, n_reason = strlen(e->reason) + 1;
	struct item *it = calloc(1, sizeof(*it));

	if (it)
		it->texts = malloc(n_time + n_reason + e->size + 1);
	if (!it || !it->texts) {
		free(it);
		return NULL;
	}
	av_list_init(&it->link);
	it->entry = *e;
	memcpy(it->texts, e->time, n_time);
	memcpy(it->texts + n_time, e->reason, n_reason);
	if (e->size)
		memcpy(it->texts + n_time + n_reason, e->text, e->size);
	it->texts[n_time + n_reason + e->size] = '\0';
	it->entry.time = it->texts;
	it->entry.reason = it->texts + n_time;
	it->entry.text = it->texts + n_time + n_reason;
	return it;
}

/* With the lock. */
static int take(aviary_log_reader *r, const aviary_log_entry *e)
{
	struct item *it;

	if (r->freed)
		return AVIARY_E_CANCELED;
	if (r->n >= QUEUE_MAX) {
		r->resting = true;
		return AVIARY_E_AGAIN;
	}
	it = item_new(e);
	if (!it)
		return AVIARY_E_NO_MEMORY;
	av_list_append(&r->queue, &it->link);
	r->n++;
	r->tries = 0;
	r->ended = r->ended || e->kind == AVIARY_LOG_END;
	if (e->kind == AVIARY_LOG_LINE)
		(void)snprintf(r->behind, sizeof(r->behind), "offset:%" PRId64, e->offset + 1);
	pthread_cond_broadcast(&r->c->changed);
	return 0;
}

/* aviary_log_fn */
static int on_line(void *ctx, const aviary_log_entry *e)
{
	aviary_log_reader *r = ctx;
	int code;

	avc_lock(r->c);
	code = take(r, e);
	avc_unlock(r->c);
	return code;
}

/* ---- life ---- */

/* Without the lock. */
static void unref(aviary_log_reader *r)
{
	struct item *it;
	aviary_client *c = r->c;

	if (atomic_fetch_sub(&r->refs, 1) > 1)
		return;
	while ((it = AV_LIST_FIRST(&r->queue, struct item, link))) {
		av_list_remove(&it->link);
		item_free(it);
	}
	item_free(r->given);
	aviary_op_free(r->op);
	aviary_sandbox_free(r->sb);
	free(r->since);
	free(r->stream);
	free(r);
	avc_client_unref(c);
}

static void read_on(aviary_log_reader *r);

static bool passes(int code)
{
	return (aviary_error_is(code, AVIARY_GROUP_TRANSPORT) && code != AVIARY_E_PROTOCOL) ||
	       code == AVIARY_E_TIMEOUT || code == AVIARY_E_UNAVAILABLE;
}

/* With the lock. What a log that is over means. */
static void judge(aviary_log_reader *r, int code)
{
	bool broken = r->o.follow && !r->ended && (code == 0 || passes(code));

	if (broken && r->tries < TRIES && !r->freed && !r->c->closed) {
		avc_timer_start(r->c, &r->again, (int64_t)AGAIN_MS << r->tries);
		r->tries++;
	} else {
		r->over = true;
	}
	pthread_cond_broadcast(&r->c->changed);
}

static void on_over(aviary_op *op, void *ctx)
{
	aviary_log_reader *r = ctx;

	avc_lock(r->c);
	judge(r, op->code);
	avc_unlock(r->c);
	unref(r);
}

static void on_started(aviary_op *op, void *ctx)
{
	aviary_log_reader *r = ctx;
	bool go_on;

	/* One that is over already has a log too. */
	avc_lock(r->c);
	go_on = (op->code == 0 || r->sb->id[0]) && !r->freed;
	r->over = !go_on;
	pthread_cond_broadcast(&r->c->changed);
	avc_unlock(r->c);
	if (go_on)
		read_on(r);
	unref(r);
}

/* With the lock. The operation that may bring more again; NULL: it does not rest. */
static aviary_op *wake_up(aviary_log_reader *r)
{
	if (!r->resting || r->n > QUEUE_MAX / 2 || !r->op || avc_op_done(r->op))
		return NULL;
	r->resting = false;
	return aviary_op_ref(r->op);
}

/* Without the lock: the next operation, of which fn gets the end. */
static void work(aviary_log_reader *r, aviary_op *op, aviary_op_fn *fn)
{
	aviary_op *last, *rested;
	bool freed;

	if (op->c)
		atomic_fetch_add(&r->refs, 1);
	avc_lock(r->c);
	last = r->op;
	r->op = aviary_op_ref(op);
	r->over = !op->c; /* no memory: nobody calls back */
	freed = r->freed;
	rested = wake_up(r);
	avc_unlock(r->c);
	aviary_op_free(last);
	aviary_op_on_done(op, fn, r);
	if (rested)
		aviary_transfer_resume(rested);
	aviary_op_free(rested);
	if (freed)
		aviary_op_cancel(op);
	aviary_op_free(op);
}

static void read_on(aviary_log_reader *r)
{
	aviary_logs_options o = r->o;

	if (r->behind[0]) {
		o.since = r->behind;
		o.has_tail = 0;
	}
	work(r, aviary_sandbox_logs(r->sb, &o, on_line, r), on_over);
}

static void on_again(struct avc_timer *t)
{
	aviary_log_reader *r = AV_CONTAINER_OF(t, aviary_log_reader, again);
	aviary_client *c = r->c;

	atomic_fetch_add(&r->refs, 1);
	avc_unlock(c);
	read_on(r);
	unref(r);
	avc_lock(c);
}

static bool dup_text(char **dst, const char **text)
{
	if (!*text)
		return true;
	*dst = av_str_dup(av_str_c(*text));
	*text = *dst;
	return *dst != NULL;
}

aviary_log_reader *aviary_sandbox_read_logs(aviary_sandbox *sb, const aviary_logs_options *options)
{
	aviary_log_reader *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	atomic_init(&r->refs, 1);
	r->c = avc_client_ref(sb->c);
	r->sb = aviary_sandbox_ref(sb);
	r->o.struct_size = sizeof(r->o);
	if (options)
		memcpy(&r->o, options, AV_MIN(options->struct_size, sizeof(r->o)));
	r->o.struct_size = sizeof(r->o);
	av_list_init(&r->queue);
	av_list_init(&r->again.link);
	r->again.on_due = on_again;
	if (!dup_text(&r->since, &r->o.since) || !dup_text(&r->stream, &r->o.stream)) {
		unref(r);
		return NULL;
	}
	if (sb->id[0])
		read_on(r);
	else
		work(r, aviary_sandbox_start(sb), on_started);
	return r;
}

void aviary_log_reader_free(aviary_log_reader *r)
{
	aviary_op *op;

	if (!r)
		return;
	avc_lock(r->c);
	r->freed = true;
	avc_timer_stop(&r->again);
	op = aviary_op_ref(r->op);
	avc_unlock(r->c);
	if (op)
		aviary_op_cancel(op);
	aviary_op_free(op);
	unref(r);
}

const aviary_error *aviary_log_reader_error(aviary_log_reader *r)
{
	static const aviary_error none = {.retry_after_ms = -1,
	    .message = "",
	    .server_code = "",
	    .sandbox_id = "",
	    .request_id = "",
	    .path = ""};
	const aviary_error *e = &none;

	avc_lock(r->c);
	if (r->over && r->op)
		e = &r->op->error;
	avc_unlock(r->c);
	return e;
}

/* ---- reading ---- */

/* With the lock: until there is an entry, or none comes any more. */
static int wait_for_one(aviary_log_reader *r, int64_t timeout_ms)
{
	int64_t end_ms = avc_deadline(timeout_ms);
	bool driven = false;
	int code = 0;

	while (code == 0 && r->n == 0 && !r->over && !r->c->closed)
		code = avc_drive_until(r->c, end_ms, &driven);
	return code;
}

int aviary_log_reader_next(aviary_log_reader *r, const aviary_log_entry **ret, int64_t timeout_ms)
{
	aviary_op *rested = NULL;
	struct item *it;
	int code;

	avc_lock(r->c);
	code = wait_for_one(r, timeout_ms);
	it = code == 0 ? AV_LIST_FIRST(&r->queue, struct item, link) : NULL;
	if (it) {
		item_free(r->given);
		av_list_remove(&it->link);
		r->n--;
		r->given = it;
		*ret = &it->entry;
		code = 1;
		rested = wake_up(r);
	} else if (code == 0) {
		code = r->over && r->op ? r->op->code : AVIARY_E_CANCELED;
		code = code == 0 && r->o.follow && !r->ended ? AVIARY_E_BROKEN : code;
	}
	avc_unlock(r->c);
	if (rested)
		aviary_transfer_resume(rested);
	aviary_op_free(rested);
	return code;
}
