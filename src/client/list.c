/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.c - sandboxes that the server has: by tags and states, and by id (see aviary/sandbox.h)
 *
 * Theory of operation. A list asks for page after page, each beginning where the one before said;
 * it ends with a page that names no next one, with the caller's limit, or, as the server is not
 * trusted to come to an end, after PAGES_MAX pages or a page that leads to itself. A look by id is
 * a list of one.
 */
#include "base/codec.h"
#include "client/list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/call.h"

#include "base/banned.h"

#define LIST_MAX    ((size_t)100000)
#define PAGE_SIZE   ((size_t)1000)
#define PAGES_MAX   200
#define QUERY_MAX   ((size_t)64 * AV_KIB)
#define CURSOR_SIZE 1024

struct find {
	aviary_op *op;
	struct avc_request *rq;
	struct avc_list_found found;
	char *query; /* of every page, without limit and cursor; NULL: by id */
	char cursor[CURSOR_SIZE];
	char id[AVC_ID_SIZE];
	aviary_sandbox_handles *list;
	size_t cap, limit;
	int pages;
};

/* ---- results ---- */

void aviary_sandbox_handles_free(aviary_sandbox_handles *list)
{
	for (size_t i = 0; list && i < list->n; i++)
		aviary_sandbox_free(list->items[i]);
	if (list)
		free(list->items);
	free(list);
}

static void free_list(void *result)
{
	aviary_sandbox_handles_free(result);
}

static const struct avc_type list_type = {"sandboxes", free_list};

aviary_sandbox_handles *aviary_op_take_sandbox_handles(aviary_op *op)
{
	return avc_op_take(op, &list_type);
}

aviary_sandbox_handles *avc_await_list(aviary_op *op, aviary_error *error)
{
	return avc_op_await(op, &list_type, error);
}

/* With the lock. */
static void find_free(struct find *f)
{
	for (size_t i = 0; f->list && i < f->list->n; i++)
		avc_sandbox_unref_locked(f->list->items[i]);
	if (f->list)
		free(f->list->items);
	free(f->list);
	if (f->found.free_ctx)
		f->found.free_ctx(f->found.ctx);
	free(f->query);
	free(f);
}

static void find_stop(aviary_op *op)
{
	struct find *f = op->work;

	avc_request_cancel(f->rq);
	find_free(f);
}

static void find_fail(struct find *f, int code, const char *text)
{
	aviary_op *op = f->op;

	find_free(f);
	avc_op_fail(op, code, "%s", text ? text : aviary_code_text(code));
}

/* ---- pages ---- */

static bool grow(struct find *f)
{
	size_t cap = f->cap ? f->cap * 2 : 64;
	aviary_sandbox **items;

	if (f->list->n < f->cap)
		return true;
	items = reallocarray(f->list->items, cap, sizeof(aviary_sandbox *));
	if (!items)
		return false;
	f->list->items = items;
	f->cap = cap;
	return true;
}

/* One of the server's objects as a handle. */
static int take_one(struct find *f, json_t *json)
{
	const char *id = json_string_value(json_object_get(json, "id"));
	aviary_sandbox *sb;

	if (!avc_id_is_whole(id))
		return AVIARY_E_PROTOCOL;
	sb = grow(f) ? avc_sandbox_attach_locked(f->op->c, id) : NULL;
	if (!sb)
		return AVIARY_E_NO_MEMORY;
	f->list->items[f->list->n++] = sb;
	avc_sandbox_take(sb, json);
	return f->found.each ? f->found.each(f->found.ctx, sb) : 0;
}

static int take_page(struct find *f, const struct avc_reply *reply)
{
	size_t i;
	json_t *item;
	int r = 0;

	if (!f->query)
		return take_one(f, reply->json);
	if (!json_is_array(reply->json))
		return AVIARY_E_PROTOCOL;
	json_array_foreach (reply->json, i, item) {
		if (f->list->n >= f->limit)
			break;
		r = take_one(f, item);
		if (r < 0)
			return r;
	}
	return 0;
}

/* 1: f->cursor is where the next page begins; 0: there is none. */
static int next_page(struct find *f, const struct avc_reply *reply)
{
	const char *next = reply->next_cursor;

	if (!f->query || f->list->n >= f->limit || !next)
		return 0;
	if (strcmp(next, f->cursor) == 0 || ++f->pages >= PAGES_MAX ||
	    av_str_copy(f->cursor, sizeof(f->cursor), av_str_c(next)) < 0)
		return AVIARY_E_PROTOCOL;
	return 1;
}

static bool ask(struct find *f);

static void finish(struct find *f)
{
	aviary_op *op = f->op;

	if (f->query) {
		avc_op_give(op, &list_type, AV_TAKE_PTR(f->list));
	} else {
		avc_op_give_sandbox(op, f->list->items[0]);
	}
	find_free(f);
	avc_op_end(op);
}

static void on_page(void *ctx, const struct avc_reply *reply)
{
	struct find *f = ctx;
	aviary_op *op = f->op;
	int r = reply->code;

	f->rq = NULL;
	if (r < 0) {
		find_free(f);
		avc_op_fail_with(op, reply->error);
		return;
	}
	r = take_page(f, reply);
	r = r == 0 ? next_page(f, reply) : r;
	if (r == 0)
		finish(f);
	else if (r == AVIARY_E_PROTOCOL)
		find_fail(f, r, "the server's list of sandboxes cannot be understood");
	else if (r == AVIARY_E_STATE)
		find_fail(f, r, "the session was closed");
	else if (r < 0)
		find_fail(f, r, NULL);
	else if (!ask(f))
		find_fail(f, AVIARY_E_NO_MEMORY, NULL);
}

static bool ask(struct find *f)
{
	AV_CLEANUP(av_buf_clear)
	struct av_buf path = AV_BUF_INIT(QUERY_MAX + CURSOR_SIZE * 3 + 100);
	struct avc_request_spec spec = {.method = "GET"};

	if (f->query) {
		(void)av_buf_printf(&path, "/v1/sandboxes?limit=%zu%s",
		    AV_MIN(PAGE_SIZE, f->limit - f->list->n), f->query);
		if (f->cursor[0]) {
			(void)av_buf_append_c(&path, "&cursor=");
			(void)av_percent_encode(&path, av_str_c(f->cursor), false);
		}
	} else {
		(void)av_buf_printf(&path, "/v1/sandboxes/%s", f->id);
		spec.sandbox_id = f->id;
	}
	spec.path = av_buf_cstr(&path);
	f->rq = spec.path ? avc_request_start(f->op->c, &spec, on_page, f) : NULL;
	return f->rq != NULL;
}

/* ---- queries ---- */

static bool status_is_known(struct av_str word)
{
	if (av_str_eq_c(word, "hibernated"))
		return true;
	for (int s = AVIARY_STATUS_PENDING; s <= AVIARY_STATUS_ERROR; s++)
		if (av_str_eq_c(word, aviary_status_text((enum aviary_status)s)))
			return true;
	return false;
}

/* The word of text that is no state; its n is 0 when all are. */
static struct av_str bad_status(const char *text)
{
	struct av_str rest = av_str_c(text), word;
	bool more = rest.n && strcmp(text, "all") != 0;

	while (more) {
		more = av_str_cut(&rest, ',', &word);
		if (!status_is_known(word))
			return word.n ? word : AV_STR("(nothing)");
	}
	return av_str_n("", 0);
}

static int build_query(const aviary_list_options *o, struct av_buf *q)
{
	if (o->status && *o->status) {
		(void)av_buf_append_c(q, "&status=");
		(void)av_percent_encode(q, av_str_c(o->status), false);
	}
	for (size_t i = 0; o->tags.items && i < o->tags.n; i++) {
		(void)av_buf_append_c(q, "&tag=");
		(void)av_percent_encode(
		    q, av_str_c(o->tags.items[i] ? o->tags.items[i] : ""), false);
	}
	for (size_t i = 0; o->metadata.items && i < o->metadata.n; i++) {
		const aviary_pair *p = &o->metadata.items[i];

		(void)av_buf_append_c(q, "&metadata=");
		(void)av_percent_encode(q, av_str_c(p->name ? p->name : ""), false);
		(void)av_buf_append_c(q, "%3D");
		(void)av_percent_encode(q, av_str_c(p->value ? p->value : ""), false);
	}
	return av_buf_error(q);
}

/* ---- operations ---- */

static aviary_op *find_start(aviary_client *c, struct find *f)
{
	aviary_op *op = avc_op_new(c);

	avc_lock(c);
	f->op = op;
	if (!op->c) {
		find_free(f);
	} else if (c->closed) {
		find_fail(f, AVIARY_E_STATE, "the client was closed");
	} else {
		op->work = f;
		op->stop = find_stop;
		if (!ask(f))
			find_fail(f, AVIARY_E_NO_MEMORY, NULL);
	}
	avc_unlock(c);
	return op;
}

/* Without the lock. NULL: no memory, and found's ctx is gone. */
static struct find *find_new(aviary_client *c, const struct avc_list_found *found)
{
	struct find *f = calloc(1, sizeof(*f));

	if (f) {
		f->found = *found;
		f->list = calloc(1, sizeof(*f->list));
	}
	if (f && f->list)
		return f;
	avc_lock(c);
	if (f)
		find_free(f);
	else if (found->free_ctx)
		found->free_ctx(found->ctx);
	avc_unlock(c);
	return NULL;
}

static aviary_op *refuse(aviary_client *c, struct find *f, const char *what, const char *text)
{
	char message[400];

	avc_lock(c);
	find_free(f);
	avc_unlock(c);
	(void)snprintf(message, sizeof(message), "%s%.120s", what, text);
	return avc_op_failed(c, AVIARY_E_INVALID, "%s", message);
}

aviary_op *avc_list(
    aviary_client *c, const aviary_list_options *options, const struct avc_list_found *found)
{
	AV_CLEANUP(av_buf_clear) struct av_buf query = AV_BUF_INIT(QUERY_MAX);
	struct find *f = find_new(c, found);
	struct av_str bad;
	char word[60];
	int r;

	if (!f)
		return avc_op_none();
	bad = bad_status(options->status);
	if (bad.n) {
		(void)snprintf(word, sizeof(word), "%.*s", AV_STR_ARG(bad));
		return refuse(c, f,
		    "status may be \"all\" or states separated by commas (pending, starting, "
		    "running, paused, hibernated, stopped, missing, error), and not ",
		    word);
	}
	r = build_query(options, &query);
	if (r == -EMSGSIZE)
		return refuse(c, f, "tags and metadata are too long for a query", "");
	f->query = r < 0 ? NULL : av_str_dup(av_buf_str(&query));
	f->limit = options->limit ? AV_MIN(options->limit, LIST_MAX) : LIST_MAX;
	if (f->query)
		return find_start(c, f);
	avc_lock(c);
	find_free(f);
	avc_unlock(c);
	return avc_op_none();
}

aviary_op *avc_from_id(aviary_client *c, const char *id, const struct avc_list_found *found)
{
	struct find *f = find_new(c, found);

	if (!f)
		return avc_op_none();
	if (!avc_id_is_usable(id))
		return refuse(c, f, "this is not the id of a sandbox: ", id ? id : "NULL");
	memcpy(f->id, id, strlen(id) + 1);
	return find_start(c, f);
}

aviary_op *aviary_sandbox_list(aviary_client *c, const aviary_list_options *options)
{
	aviary_list_options o = AVIARY_LIST_OPTIONS_INIT;

	if (options)
		memcpy(&o, options, AV_MIN(options->struct_size, sizeof(o)));
	return avc_list(c, &o, &(struct avc_list_found){0});
}

aviary_op *aviary_sandbox_from_id(aviary_client *c, const char *id)
{
	return avc_from_id(c, id, &(struct avc_list_found){0});
}
