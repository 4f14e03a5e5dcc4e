/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.c - what there is and was, newest first and in pages
 *
 * Theory of operation. Living sandboxes are in memory, those of the past in the database; both are
 * put in one order, that of (created_ms, id), which never changes. A cursor is the key of the last
 * sandbox that was shown or looked at. History is read by an index from there on, at most w->scan
 * records; when there may be more of it, living sandboxes older than the last record read are left
 * for the next page, since history between them has not been seen.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "control/control_internal.h"

#include "base/banned.h"

#define CURSOR_SIZE (24 + AV_ID_SIZE)

struct listing {
	struct sandbox_info *v;
	struct sandbox_labels *owned; /* of history */
	size_t n, cap;
};

/* ---- which ---- */

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

static bool has_tag(const json_t *have, const char *tag)
{
	const json_t *v;
	size_t i;

	json_array_foreach (have, i, v)
		if (strcmp(json_string_value(v) ? json_string_value(v) : "", tag) == 0)
			return true;
	return false;
}

static bool tags_match(const json_t *have, const json_t *want)
{
	const json_t *v;
	size_t i;

	json_array_foreach (want, i, v)
		if (!has_tag(have, json_string_value(v)))
			return false;
	return true;
}

/* Positive when (a_ms, a) is older than (b_ms, b), that is, comes later in a list. */
static int older(int64_t a_ms, const char *a, int64_t b_ms, const char *b)
{
	if (a_ms != b_ms)
		return a_ms < b_ms ? 1 : -1;
	return strcmp(b, a);
}

static bool wanted(const struct waiter *w, const struct sandbox_info *info)
{
	return (w->states & (1u << info->state)) && strcmp(info->team_id, w->team_id) == 0 &&
	       (!w->before_ms || older(info->created_ms, info->id, w->before_ms, w->id) > 0) &&
	       (!w->metadata || metadata_matches(info->metadata, w->metadata)) &&
	       tags_match(info->tags, w->tags);
}

static int by_age(const void *a, const void *b)
{
	const struct sandbox_info *x = a, *y = b;

	return older(x->created_ms, x->id, y->created_ms, y->id);
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

/* ---- pages ---- */

static int make_cursor(char dst[static CURSOR_SIZE], int64_t created_ms, const char *id)
{
	return snprintf(dst, CURSOR_SIZE, "%" PRId64 "-%s", created_ms, id);
}

static int take_cursor(struct waiter *w, struct av_str cursor, struct av_err *err)
{
	struct av_str rest = cursor, ms;
	uint64_t n = 0;

	if (!cursor.n)
		return 0;
	if (!av_str_cut(&rest, '-', &ms) || av_parse_u64(ms, 1, INT64_MAX, &n) < 0 ||
	    !av_id_valid(rest, AV_ID_SANDBOX))
		return av_err_set(
		    err, AV_ERR_INVALID, "cursor: it must be one that a list answered with");
	w->before_ms = (int64_t)n;
	return av_str_copy(w->id, sizeof(w->id), rest);
}

/* What of l is shown; *ret_next is where the next page begins, empty for nowhere. */
static size_t cut(const struct waiter *w, struct listing *l, const struct store_sandbox *last_read,
    char ret_next[static CURSOR_SIZE])
{
	size_t n = 0;

	qsort(l->v, l->n, sizeof(*l->v), by_age);
	while (n < l->n && (!last_read || older(l->v[n].created_ms, l->v[n].id,
	                                      last_read->created_ms, last_read->id) <= 0))
		n++;
	if (w->limit && n > w->limit) {
		n = w->limit;
		(void)make_cursor(ret_next, l->v[n - 1].created_ms, l->v[n - 1].id);
	} else if (last_read) {
		(void)make_cursor(ret_next, last_read->created_ms, last_read->id);
	}
	return n;
}

static void answer_list(struct waiter *w, const struct store_sandbox *v, size_t n)
{
	struct listing l = {.cap = w->c->sandboxes.n + n + 1};
	char next[CURSOR_SIZE] = "";
	struct av_err err;

	l.v = calloc(l.cap, sizeof(*l.v));
	l.owned = calloc(l.cap, sizeof(*l.owned));
	if (l.v && l.owned) {
		/* History first: its labels are owned in the order of before the sorting. */
		add_history(w, &l, v, n);
		add_live(w, &l);
		n = cut(w, &l, n && n >= w->scan ? &v[n - 1] : NULL, next);
		w->fn.sandboxes(w->ctx, l.v, n, next[0] ? next : NULL, NULL);
	} else {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		w->fn.sandboxes(w->ctx, NULL, 0, NULL, &err);
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
		w->fn.sandboxes(w->ctx, NULL, 0, NULL, err);
		waiter_free(w);
		return;
	}
	answer_list(w, v, n);
}

void list_begin(struct waiter *w)
{
	const uint32_t final_states = 1u << SANDBOX_STOPPED | 1u << SANDBOX_ERROR;
	bool picks = w->metadata || w->tags || (w->states & final_states) != final_states;
	struct store_page page = {
	    .team_id = w->team_id, .before_ms = w->before_ms, .before_id = w->id};
	struct av_err err;

	if (!(w->states & final_states)) {
		answer_list(w, NULL, 0);
		return;
	}
	/* One more than is shown tells whether there is more. */
	w->scan = page.limit = w->limit && !picks ? w->limit + 1 : SANDBOX_PAGE_MAX;
	waiter_away(w);
	if (store_sandbox_history(w->c->store, &page, on_history, w) < 0) {
		(void)av_err_set(
		    &err, AV_ERR_UNAVAILABLE, "too many requests wait for the database");
		w->fn.sandboxes(w->ctx, NULL, 0, NULL, &err);
		waiter_free(w);
	}
}

/* ---- asked for ---- */

static int take_filter(struct waiter *w, const struct sandbox_filter *f, struct av_err *err)
{
	if (f->limit > SANDBOX_PAGE_MAX)
		return av_err_set(err, AV_ERR_INVALID, "limit is %zu; it must be from 1 to %d",
		    f->limit, SANDBOX_PAGE_MAX);
	w->states = f->states;
	if (!w->states)
		for (unsigned int i = 0; i < SANDBOX_STATE_COUNT; i++)
			if (!sandbox_state_final((enum sandbox_state)i))
				w->states |= 1u << i;
	w->limit = f->limit;
	if (json_object_size(f->metadata) && !(w->metadata = json_deep_copy(f->metadata)))
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (json_array_size(f->tags) && !(w->tags = json_deep_copy(f->tags)))
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return take_cursor(w, f->cursor, err);
}

int control_list(struct control *c, const struct control_actor *a, const struct sandbox_filter *f,
    sandboxes_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct waiter *w = waiter_new(c, WAIT_LIST, ctx);
	int r;

	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	w->fn.sandboxes = fn;
	memcpy(w->team_id, a->team_id, AV_ID_SIZE);
	r = take_filter(w, f, err);
	if (r < 0) {
		waiter_free(w);
		return r;
	}
	waiter_defer(w);
	if (ret)
		*ret = &w->call;
	return 0;
}
