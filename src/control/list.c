/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.c - what there is and was, newest first
 */
#include <stdlib.h>
#include <string.h>

#include "control/control_internal.h"

#include "base/banned.h"

#define HISTORY_LIST_MAX 1000

struct listing {
	struct sandbox_info *v;
	struct sandbox_labels *owned; /* of history */
	size_t n, cap;
};

static bool metadata_matches(const json_t *have, const json_t *want)
{
	const char *key;
	json_t *v;

	json_object_foreach ((json_t *)(uintptr_t)want, key, v) {
		const char *h = json_string_value(json_object_get(have, key));

		if (!h || strcmp(h, json_string_value(v)) != 0)
			return false;
	}
	return true;
}

static bool wanted(const struct waiter *w, const struct sandbox_info *info)
{
	return (w->states & (1u << info->state)) && strcmp(info->team_id, w->team_id) == 0 &&
	       (!w->metadata || metadata_matches(info->metadata, w->metadata));
}

/* By creation, newest first. */
static int by_age(const void *a, const void *b)
{
	const struct sandbox_info *x = a, *y = b;

	return x->created_ms < y->created_ms ? 1 : x->created_ms > y->created_ms ? -1 : 0;
}

static void add_live(const struct waiter *w, struct listing *l)
{
	const struct av_list *head = &w->c->live;

	for (struct av_list *n = head->prev; n != head; n = n->prev) {
		sandbox_describe(AV_CONTAINER_OF(n, struct sandbox, link), &l->v[l->n]);
		if (wanted(w, &l->v[l->n]))
			l->n++;
	}
}

static void add_history(
    const struct waiter *w, struct listing *l, const struct store_sandbox *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct sandbox_labels labels = {0};

		/* It may have been live when the list was begun and final when it was read. */
		if (av_map_get(&w->c->sandboxes, av_str_c(v[i].id)) ||
		    sandbox_labels_parse(&labels, &v[i]) < 0)
			continue;
		record_describe(&v[i], &labels, &l->v[l->n]);
		if (!wanted(w, &l->v[l->n])) {
			sandbox_labels_clear(&labels);
			continue;
		}
		l->owned[l->n++] = labels;
	}
}

static void answer_list(struct waiter *w, const struct store_sandbox *v, size_t n)
{
	struct listing l = {.cap = w->c->sandboxes.n + n + 1};
	struct av_err err;
	size_t shown;

	l.v = calloc(l.cap, sizeof(*l.v));
	l.owned = calloc(l.cap, sizeof(*l.owned));
	if (l.v && l.owned) {
		add_live(w, &l);
		add_history(w, &l, v, n);
		if (n)
			qsort(l.v, l.n, sizeof(*l.v), by_age);
		shown = w->limit ? AV_MIN(w->limit, l.n) : l.n;
		w->fn.sandboxes(w->ctx, l.v, shown, NULL);
	} else {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		w->fn.sandboxes(w->ctx, NULL, 0, &err);
	}
	for (size_t i = 0; l.owned && i < l.cap; i++)
		sandbox_labels_clear(&l.owned[i]);
	free(l.owned);
	free(l.v);
	waiter_free(w);
}

static void on_history(void *ctx, const struct store_sandbox *v, size_t n, const struct av_err *err)
{
	struct waiter *w = ctx;

	if (!waiter_back(w))
		return;
	if (err) {
		w->fn.sandboxes(w->ctx, NULL, 0, err);
		waiter_free(w);
		return;
	}
	answer_list(w, v, n);
}

void list_begin(struct waiter *w)
{
	const uint32_t final_states = 1u << SANDBOX_STOPPED | 1u << SANDBOX_ERROR;
	struct store_query q = {
	    .team_id = w->team_id, .final_only = true, .limit = HISTORY_LIST_MAX};
	struct av_err err;

	if (!(w->states & final_states)) {
		answer_list(w, NULL, 0);
		return;
	}
	waiter_away(w);
	if (store_sandbox_list(w->c->store, &q, on_history, w) < 0) {
		(void)av_err_set(
		    &err, AV_ERR_UNAVAILABLE, "too many requests wait for the database");
		w->fn.sandboxes(w->ctx, NULL, 0, &err);
		waiter_free(w);
	}
}

int control_list(struct control *c, const struct control_actor *a, const struct sandbox_filter *f,
    sandboxes_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct waiter *w = waiter_new(c, WAIT_LIST, ctx);

	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	w->fn.sandboxes = fn;
	memcpy(w->team_id, a->team_id, AV_ID_SIZE);
	w->states = f->states;
	if (!w->states)
		for (unsigned int i = 0; i < SANDBOX_STATE_COUNT; i++)
			if (!sandbox_state_final((enum sandbox_state)i))
				w->states |= 1u << i;
	w->limit = f->limit;
	if (f->metadata && json_object_size(f->metadata)) {
		w->metadata = json_deep_copy(f->metadata);
		if (!w->metadata) {
			waiter_free(w);
			return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		}
	}
	waiter_defer(w);
	if (ret)
		*ret = &w->call;
	return 0;
}
