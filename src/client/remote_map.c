/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_map.c - a remote function over many inputs (see remote.h)
 *
 * Theory of operation. There are at most max_sandboxes lanes. Each takes the next input that nobody
 * has, calls in its sandbox, and keeps that for the next one when all went well; else, or when each
 * input is to have a fresh one, it is deleted with the call and the lane makes another. A lane is a
 * flow whose operation nobody else sees; the map's own is done when the last lane is. Cancelling
 * cancels what the lanes do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/call.h"
#include "client/flow.h"
#include "client/remote.h"

#include "base/banned.h"

struct lane {
	struct avc_flow flow; /* first */
	struct map *map;
	struct aviary_sandbox *sb; /* the one in use, or NULL */
	bool delete_again;         /* there was no memory to ask for it */
	size_t input;              /* that is called */
};

struct results {
	aviary_remote_results pub; /* first */
	aviary_remote_result **items;
};

struct map {
	aviary_op *op; /* a reference */
	struct avc_setup *setup;
	aviary_bytes *inputs; /* encoded */
	size_t n, next;
	size_t n_lanes, open; /* lanes that are not over; those that free the map */
	struct lane **lanes;
	struct results *results;
};

/* ---- results ---- */

void aviary_remote_results_free(aviary_remote_results *pub)
{
	struct results *r = (struct results *)pub;

	if (!r)
		return;
	for (size_t i = 0; r->items && i < r->pub.n; i++)
		aviary_remote_result_free(r->items[i]);
	free(r->items);
	free(r);
}

static void free_results(void *results)
{
	aviary_remote_results_free(results);
}

static const struct avc_type results_type = {.name = "remotes", .free = free_results};

aviary_remote_results *aviary_op_take_remotes(aviary_op *op)
{
	return avc_op_take_any(op, &results_type);
}

aviary_remote_results *aviary_remote_map_sync(aviary_client *c, const aviary_function *fn,
    const void *in, size_t n, const aviary_remote_options *options, aviary_error *error)
{
	aviary_op *op = aviary_remote_map(c, fn, in, n, options);
	aviary_remote_results *r;

	(void)aviary_op_wait(op, -1);
	r = aviary_op_take_remotes(op);
	(void)aviary_await(op, error);
	return r;
}

/* A result for each input from the beginning, so that none can be missing at the end. */
static struct results *results_new(const aviary_function *fn, size_t n)
{
	struct results *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->pub.n = n;
	r->items = calloc(n ? n : 1, sizeof(*r->items));
	for (size_t i = 0; r->items && i < n; i++) {
		r->items[i] = (aviary_remote_result *)avc_result_new(fn);
		if (!r->items[i])
			break;
	}
	r->pub.items = r->items;
	if (r->items && (n == 0 || r->items[n - 1]))
		return r;
	aviary_remote_results_free(&r->pub);
	return NULL;
}

/* ---- the end ---- */

static void map_free(struct map *m)
{
	for (size_t i = 0; m->inputs && i < m->n; i++)
		aviary_bytes_clear(&m->inputs[i]);
	free(m->inputs);
	free(m->lanes);
	if (m->results)
		aviary_remote_results_free(&m->results->pub);
	avc_setup_unref(m->setup);
	aviary_op_free(m->op);
	free(m);
}

/* With the lock: the first failure in order of inputs is that of all. */
static void end_map(struct map *m)
{
	aviary_error first = {0};
	char text[1200];
	size_t at = 0;

	for (size_t i = m->n; i-- > 0;) {
		if (!m->results->items[i]->error.code)
			continue;
		m->results->pub.failed++;
		first = m->results->items[i]->error;
		at = i;
	}
	avc_op_give(m->op, &results_type, AV_TAKE_PTR(m->results));
	if (!first.code) {
		avc_op_end(m->op);
		return;
	}
	(void)snprintf(text, sizeof(text), "input %zu of %zu: %.1000s", at, m->n, first.message);
	first.message = text;
	avc_op_fail_with(m->op, &first);
}

static void lane_over(struct avc_flow *f)
{
	struct lane *l = AV_CONTAINER_OF(f, struct lane, flow);
	struct map *m = l->map;
	aviary_client *c = avc_client_ref(m->op->c);
	bool last;

	aviary_sandbox_free(l->sb);
	avc_lock(c);
	for (size_t i = 0; i < m->n_lanes; i++)
		if (m->lanes[i] == l)
			m->lanes[i] = NULL;
	last = --m->open == 0;
	if (last && !avc_op_done(m->op))
		end_map(m);
	avc_unlock(c);
	free(l);
	if (last)
		map_free(m);
	avc_client_unref(c);
}

static void map_stop(aviary_op *op)
{
	struct map *m = op->work;

	for (size_t i = 0; i < m->n_lanes; i++)
		if (m->lanes[i])
			avc_op_cancel(m->lanes[i]->flow.op);
}

/* ---- lanes ---- */

static void lane_next(struct avc_flow *f);

static void on_deleted(struct avc_flow *f)
{
	struct lane *l = AV_CONTAINER_OF(f, struct lane, flow);

	if (avc_flow_code(f) == AVIARY_E_NO_MEMORY && !l->delete_again) {
		l->delete_again = true;
		avc_flow_next(f, avc_discard(l->sb, AVIARY_E_NO_MEMORY), on_deleted);
		return;
	}
	l->delete_again = false;
	aviary_sandbox_free(AV_TAKE_PTR(l->sb));
	lane_next(f);
}

/* The lane's sandbox, where it has one, ends; then the lane goes on. */
static void delete_sandbox(struct lane *l, int why)
{
	if (!l->sb) {
		lane_next(&l->flow);
		return;
	}
	avc_flow_clean(&l->flow);
	avc_flow_next(&l->flow, avc_discard(l->sb, why), on_deleted);
}

static void keep_result(struct lane *l)
{
	aviary_remote_result *r = aviary_op_take_remote(l->flow.step);
	aviary_remote_result **at = &l->map->results->items[l->input];

	if (r) {
		aviary_remote_result_free(*at);
		*at = r;
	} else {
		avc_result_fail((struct avc_result *)*at, aviary_op_error(l->flow.step));
	}
}

static void on_called(struct avc_flow *f)
{
	struct lane *l = AV_CONTAINER_OF(f, struct lane, flow);
	struct map *m = l->map;
	bool again, ours = !m->setup->sb;

	avc_lock(m->op->c);
	again = m->next < m->n && !avc_op_done(m->op);
	avc_unlock(m->op->c);
	keep_result(l);
	if (ours && (!again || avc_flow_code(f) != 0 || m->setup->fresh))
		delete_sandbox(l, avc_flow_code(f));
	else
		lane_next(f);
}

/* The next input, if there is one. */
static void lane_next(struct avc_flow *f)
{
	struct lane *l = AV_CONTAINER_OF(f, struct lane, flow);
	struct map *m = l->map;
	bool done;
	int r = 0;

	avc_lock(m->op->c);
	done = m->next >= m->n || avc_op_done(m->op);
	if (!done)
		l->input = m->next++;
	f->cleaning = false;
	avc_unlock(m->op->c);
	if (done) {
		avc_flow_end(f);
		return;
	}
	if (!l->sb && m->setup->sb)
		l->sb = aviary_sandbox_ref(m->setup->sb);
	else if (!l->sb)
		r = avc_setup_sandbox(m->setup, m->n / m->n_lanes + 1, &l->sb);
	avc_flow_next(f,
	    r == 0 ? avc_remote_start(m->setup, l->sb, false, &m->inputs[l->input])
	           : avc_op_failed(m->op->c, r, "%s", avc_setup_why(r)),
	    on_called);
}

/* ---- beginning ---- */

/* NULL: no memory; *ret_code and text say what else. */
static struct map *map_new(
    struct avc_setup *s, const void *in, size_t n, int *ret_code, char text[static 512])
{
	struct map *m = calloc(1, sizeof(*m));
	const char *at = in;

	*ret_code = AVIARY_E_NO_MEMORY;
	(void)snprintf(text, 512, "out of memory");
	if (!m)
		return NULL;
	atomic_fetch_add(&s->refs, 1);
	m->setup = s;
	m->n = n;
	m->n_lanes = s->sb ? 1 : AV_MIN(n, s->max_sandboxes);
	m->inputs = calloc(n, sizeof(*m->inputs));
	m->lanes = calloc(m->n_lanes, sizeof(*m->lanes));
	m->results = results_new(s->fn, n);
	*ret_code = m->inputs && m->lanes && m->results ? 0 : AVIARY_E_NO_MEMORY;
	for (size_t i = 0; i < n && *ret_code == 0; i++)
		*ret_code = avc_setup_encode(s, at + i * s->fn->in->size, &m->inputs[i], text);
	if (*ret_code == 0)
		return m;
	m->op = NULL;
	map_free(m);
	return NULL;
}

/* All lanes, or none: then *m is as before. */
static bool make_lanes(struct map *m)
{
	for (size_t i = 0; i < m->n_lanes; i++) {
		struct lane *l = calloc(1, sizeof(*l));
		aviary_op *op = l ? avc_flow_init(&l->flow, m->op->c, lane_over) : NULL;

		if (!op || !op->c) {
			free(l);
			break;
		}
		aviary_op_free(op); /* nobody's but the flow's */
		l->map = m;
		m->lanes[i] = l;
		m->open++;
	}
	if (m->open == m->n_lanes)
		return true;
	for (size_t i = 0; i < m->open; i++) {
		avc_flow_end(&m->lanes[i]->flow);
		aviary_op_free(m->lanes[i]->flow.op);
		free(m->lanes[i]);
	}
	return false;
}

static aviary_op *begin(struct map *m, aviary_client *c)
{
	aviary_op *op = avc_op_new(c);
	struct lane **lanes;
	size_t n = m->n_lanes;

	m->op = op;
	if (!op->c || !make_lanes(m)) {
		avc_lock(c);
		if (op->c)
			avc_op_fail(aviary_op_ref(op), AVIARY_E_NO_MEMORY, "out of memory");
		avc_unlock(c);
		map_free(m);
		return op;
	}
	(void)aviary_op_ref(op);
	avc_lock(c);
	op->work = m;
	op->stop = map_stop;
	avc_unlock(c);
	/* The last lane may end, and free the map, before this is through. */
	lanes = m->lanes;
	for (size_t i = 0; i < n; i++) {
		struct lane *l = lanes[i];

		avc_flow_next(&l->flow, avc_flow_nothing(c), lane_next);
	}
	return op;
}

aviary_op *aviary_remote_map(aviary_client *c, const aviary_function *fn, const void *in, size_t n,
    const aviary_remote_options *options)
{
	aviary_op *op;
	struct avc_setup *s = avc_setup_new(c, fn, options, &op);
	struct map *m;
	char text[512];
	int code;

	if (!s)
		return op;
	if (n == 0 || n > SIZE_MAX / 2 / (s->fn->in->size + 1)) {
		op = avc_op_failed(
		    c, AVIARY_E_INVALID, "a map of %zu inputs: at least one, please", n);
	} else {
		m = map_new(s, in, n, &code, text);
		op = m ? begin(m, c) : avc_op_failed(c, code, "%s", text);
	}
	avc_setup_unref(s);
	return op;
}
