/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - sessions: defaults, a registry, and a close (see aviary/session.h)
 *
 * Theory of operation. A sandbox is in one session at most, which has a reference to it; it leaves
 * when it is stopped, by whomever. A close starts one stop for each that is there, as anybody
 * could, and is done with the last of them; what is in the registry then has failed, and stays.
 */
#include "client/session.h"

#include <stdlib.h>
#include <string.h>

#include "client/call.h"
#include "client/list.h"
#include "client/track.h"

#include "base/banned.h"

struct aviary_session {
	atomic_uint refs; /* the caller's, and one for each close under way */
	aviary_client *c;
	aviary_sandbox_spec *defaults;
	bool closed;
	struct av_list sandboxes; /* struct aviary_sandbox, with a reference each */
	size_t n;
};

/* ---- the registry ---- */

/* With the lock. */
static void enter(aviary_session *s, struct aviary_sandbox *sb)
{
	if (sb->session == s)
		return;
	aviary_sandbox_ref(sb);
	avc_session_forget(sb);
	sb->session = s;
	av_list_append(&s->sandboxes, &sb->in_session);
	s->n++;
}

void avc_session_forget(struct aviary_sandbox *sb)
{
	if (!sb->session)
		return;
	sb->session->n--;
	sb->session = NULL;
	av_list_remove(&sb->in_session);
	avc_sandbox_unref_locked(sb);
}

aviary_session *aviary_session_new(aviary_client *c, const aviary_sandbox_spec *defaults)
{
	aviary_session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->defaults = aviary_spec_merge(defaults, NULL);
	if (!s->defaults) {
		free(s);
		return NULL;
	}
	atomic_init(&s->refs, 1);
	s->c = avc_client_ref(c);
	av_list_init(&s->sandboxes);
	return s;
}

/* With the lock. */
static void destroy(aviary_session *s)
{
	struct aviary_sandbox *sb;

	while ((sb = AV_LIST_FIRST(&s->sandboxes, struct aviary_sandbox, in_session)))
		avc_session_forget(sb);
	aviary_spec_free(s->defaults);
	free(s);
}

void aviary_session_free(aviary_session *s)
{
	aviary_client *c;

	if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
		return;
	c = s->c;
	avc_lock(c);
	destroy(s);
	avc_unlock(c);
	avc_client_unref(c);
}

static int enter_new(aviary_session *s, struct aviary_sandbox *sb)
{
	int r;

	avc_lock(s->c);
	r = s->closed || s->c->closed ? AVIARY_E_STATE : 0;
	if (r == 0)
		enter(s, sb);
	avc_unlock(s->c);
	return r;
}

int aviary_session_sandbox(aviary_session *s, const aviary_sandbox_spec *spec, aviary_sandbox **ret)
{
	aviary_sandbox_spec *merged = aviary_spec_merge(s->defaults, spec);
	aviary_sandbox *sb = merged ? aviary_sandbox_new(s->c, merged) : NULL;
	int r = sb ? enter_new(s, sb) : AVIARY_E_NO_MEMORY;

	aviary_spec_free(merged);
	if (r == 0)
		*ret = sb;
	else
		aviary_sandbox_free(sb);
	return r;
}

aviary_op *aviary_session_run(aviary_session *s, const aviary_sandbox_spec *spec)
{
	static const struct avc_turn until_running = {0};
	aviary_sandbox *sb;
	aviary_op *op;
	int r = aviary_session_sandbox(s, spec, &sb);

	if (r == AVIARY_E_STATE)
		return avc_op_failed(s->c, r, "the session was closed");
	if (r < 0)
		return avc_op_none();
	op = avc_sandbox_wait(sb, sb->start_timeout_ms, &until_running, true);
	aviary_sandbox_free(sb);
	return op;
}

/* With the lock. */
static int adopt(aviary_session *s, struct aviary_sandbox *sb)
{
	if (s->closed || s->c->closed)
		return AVIARY_E_STATE;
	if (sb->c != s->c || !sb->id[0])
		return AVIARY_E_INVALID;
	if (sb->stopped || sb->status == AVIARY_STATUS_STOPPED)
		return 0;
	if (!sb->tracked && !sb->detached) {
		int r = avc_track_adopt(s->c, sb->id, &sb->tracked);

		if (r < 0)
			return r;
	}
	enter(s, sb);
	return 0;
}

int aviary_session_adopt(aviary_session *s, aviary_sandbox *sb)
{
	int r;

	avc_lock(s->c);
	r = adopt(s, sb);
	avc_unlock(s->c);
	return r;
}

void aviary_session_release(aviary_session *s, aviary_sandbox *sb)
{
	avc_lock(s->c);
	if (sb->session == s)
		avc_session_forget(sb);
	avc_unlock(s->c);
}

size_t aviary_session_count(const aviary_session *s)
{
	size_t n;

	avc_lock(s->c);
	n = s->n;
	avc_unlock(s->c);
	return n;
}

int aviary_session_is_closed(const aviary_session *s)
{
	int closed;

	avc_lock(s->c);
	closed = s->closed;
	avc_unlock(s->c);
	return closed;
}

/* ---- finding ---- */

/* What a list or a look by id does with each handle; ctx is a reference to the session. */
static int adopt_found(void *ctx, struct aviary_sandbox *sb)
{
	return adopt(ctx, sb);
}

/* With the lock. */
static void unref_found(void *ctx)
{
	aviary_session *s = ctx;
	aviary_client *c = s->c;

	if (atomic_fetch_sub(&s->refs, 1) > 1)
		return;
	destroy(s);
	avc_client_unref(c); /* never the last: the caller came by another */
}

static aviary_session *session_ref(aviary_session *s)
{
	atomic_fetch_add(&s->refs, 1);
	return s;
}

static struct avc_list_found found_by(aviary_session *s, int adopt)
{
	if (!adopt)
		return (struct avc_list_found){0};
	return (struct avc_list_found){
	    .each = adopt_found, .ctx = session_ref(s), .free_ctx = unref_found};
}

aviary_op *aviary_session_list(aviary_session *s, const aviary_list_options *options, int adopt)
{
	aviary_list_options o = AVIARY_LIST_OPTIONS_INIT;
	aviary_sandbox_spec wanted = AVIARY_SANDBOX_SPEC_INIT, tags = AVIARY_SANDBOX_SPEC_INIT;
	aviary_sandbox_spec *merged;
	struct avc_list_found found;
	aviary_op *op;

	if (options)
		memcpy(&o, options, AV_MIN(options->struct_size, sizeof(o)));
	tags.tags = s->defaults->tags;
	wanted.tags = o.tags;
	merged = aviary_spec_merge(&tags, &wanted);
	if (!merged)
		return avc_op_none();
	o.tags = merged->tags;
	found = found_by(s, adopt);
	op = avc_list(s->c, &o, &found);
	aviary_spec_free(merged);
	return op;
}

aviary_op *aviary_session_from_id(aviary_session *s, const char *id, int adopt)
{
	struct avc_list_found found = found_by(s, adopt);

	return avc_from_id(s->c, id, &found);
}

/* ---- close ---- */

/* The errors' strings live with the operations of the stops. */
struct failures {
	aviary_failures list;
	aviary_failure *items;
	aviary_op **stops;
};

static void failures_free(void *result)
{
	struct failures *f = result;

	for (size_t i = 0; i < f->list.n; i++) {
		aviary_sandbox_free(f->items[i].sandbox);
		aviary_op_free(f->stops[i]);
	}
	free(f->items);
	free(f->stops);
	free(f);
}

static const struct avc_type failures_type = {"failures", failures_free};

static struct failures *failures_new(size_t n)
{
	struct failures *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->items = calloc(n, sizeof(*f->items));
	f->stops = calloc(n, sizeof(aviary_op *));
	f->list.items = f->items;
	if (f->items && f->stops)
		return f;
	failures_free(f);
	return NULL;
}

struct closing {
	aviary_op *op; /* a reference */
	aviary_session *s;
	size_t n;
	aviary_op **stops;
	aviary_sandbox **sandboxes; /* whom each is about; references */
	atomic_size_t open;         /* stops that are not over, and whoever starts them */
};

/* Without the lock, as all of this. */
static void closing_free(struct closing *cl)
{
	for (size_t i = 0; i < cl->n; i++) {
		aviary_op_free(cl->stops[i]);
		aviary_sandbox_free(cl->sandboxes[i]);
	}
	free(cl->stops);
	free(cl->sandboxes);
	aviary_session_free(cl->s);
	aviary_op_free(cl->op);
	free(cl);
}

static void add_failure(struct failures *f, aviary_sandbox *sb, aviary_op *stop)
{
	f->items[f->list.n].sandbox = aviary_sandbox_ref(sb);
	f->items[f->list.n].error = *aviary_op_error(stop);
	f->stops[f->list.n++] = aviary_op_ref(stop);
}

/* What the close gives: 0, or the code of the first failure. *ret: all of them, if there is memory.
 */
static int sum_up(const struct closing *cl, struct failures **ret, const aviary_error **ret_error)
{
	int r = 0;

	for (size_t i = 0; i < cl->n; i++) {
		if (aviary_op_code(cl->stops[i]) == 0)
			continue;
		if (r == 0) {
			*ret = failures_new(cl->n);
			*ret_error = aviary_op_error(cl->stops[i]);
			r = aviary_op_code(cl->stops[i]);
		}
		if (*ret)
			add_failure(*ret, cl->sandboxes[i], cl->stops[i]);
	}
	return r;
}

static void one_is_over(struct closing *cl)
{
	const aviary_error *error = NULL;
	struct failures *f = NULL;
	aviary_op *op = cl->op;

	if (atomic_fetch_sub(&cl->open, 1) > 1)
		return;
	(void)sum_up(cl, &f, &error);
	avc_lock(op->c);
	if (!avc_op_done(op)) { /* else it was cancelled; the stops went on */
		if (f)
			avc_op_give(op, &failures_type, AV_TAKE_PTR(f));
		if (error)
			avc_op_fail_with(op, error);
		else
			avc_op_end(op);
	}
	avc_unlock(op->c);
	if (f)
		failures_free(f);
	closing_free(cl);
}

static void on_stop(aviary_op *op, void *ctx)
{
	(void)op;
	one_is_over(ctx);
}

/* Whom there is to stop. False: no memory, and nothing has changed. */
static bool gather(aviary_session *s, struct closing *cl)
{
	struct aviary_sandbox *sb;

	cl->stops = calloc(s->n ? s->n : 1, sizeof(aviary_op *));
	cl->sandboxes = calloc(s->n ? s->n : 1, sizeof(aviary_sandbox *));
	if (!cl->stops || !cl->sandboxes)
		return false;
	AV_LIST_FOREACH(sb, &s->sandboxes, struct aviary_sandbox, in_session)
	cl->sandboxes[cl->n++] = aviary_sandbox_ref(sb);
	return true;
}

static void stop_all(struct closing *cl, const aviary_stop_options *options)
{
	atomic_init(&cl->open, cl->n + 1);
	for (size_t i = 0; i < cl->n; i++) {
		cl->stops[i] = aviary_sandbox_stop(cl->sandboxes[i], options);
		if (cl->stops[i]->c)
			aviary_op_on_done(cl->stops[i], on_stop, cl);
		else
			one_is_over(cl); /* for want of memory: nobody calls back */
	}
	one_is_over(cl);
}

aviary_op *aviary_session_close(aviary_session *s, const aviary_stop_options *options)
{
	struct closing *cl = calloc(1, sizeof(*cl));
	aviary_op *op = cl ? avc_op_new(s->c) : avc_op_none();
	bool good;

	if (!cl || !op->c) {
		free(cl);
		return op;
	}
	cl->op = aviary_op_ref(op);
	cl->s = session_ref(s);
	avc_lock(s->c);
	good = gather(s, cl);
	s->closed = s->closed || good;
	if (!good)
		avc_op_fail(op, AVIARY_E_NO_MEMORY, "out of memory");
	avc_unlock(s->c);
	if (good)
		stop_all(cl, options);
	else
		closing_free(cl);
	return op;
}

const aviary_failures *aviary_op_failures(const aviary_op *op)
{
	static const aviary_failures none = {0};

	if (!aviary_op_is_done(op) || op->type != &failures_type || !op->result)
		return &none;
	return &((const struct failures *)op->result)->list;
}
