/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.c - GET /v1/sandboxes: filters and pages
 *
 * The answer is a bare array, as older clients want it; the cursor of the next page is in the
 * header X-Next-Cursor.
 */
#include "api/native/native.h"

#include <errno.h>

#include "api/native/shapes.h"
#include "api/request.h"
#include "base/num.h"
#include "base/banned.h"

#define LIST_JSON_MAX  ((size_t)64 << 20)
#define QUERY_TEXT_MAX 8192 /* of one value */

/* The filter and what it points to. */
struct query {
	struct sandbox_filter filter;
	json_t *metadata, *tags;
	struct av_buf cursor;
};

static void query_clear(struct query *q)
{
	json_decref(q->metadata);
	json_decref(q->tags);
	av_buf_clear(&q->cursor);
}

/* ---- what is asked for ---- */

/* One or several, as ?status=a,b or ?status=a&status=b. */
static int take_states(struct query *q, struct av_str value, struct av_err *err)
{
	struct av_str one;
	bool more = true;

	if (av_str_eq_c(value, "all")) {
		q->filter.states = (1U << SANDBOX_STATE_COUNT) - 1;
		return 0;
	}
	while (more) {
		enum sandbox_state state;
		char name[32] = "";

		more = av_str_cut(&value, ',', &one);
		if (av_str_has_nul(one) || av_str_copy(name, sizeof name, one) < 0)
			name[0] = '\0';
		state = sandbox_state_parse(name);
		if (state == SANDBOX_STATE_COUNT)
			return av_err_set(err, AV_ERR_INVALID,
			    "query parameter 'status': '%.40s' is not a state; write 'all' or a "
			    "list of pending, "
			    "starting, running, paused, stopping, stopped, error, missing",
			    name[0] || one.n == 0 ? name : "(too long)");
		q->filter.states |= 1U << state;
	}
	return 0;
}

static int take_metadata(struct query *q, struct av_str value, struct av_err *err)
{
	struct av_str key;
	AV_CLEANUP(av_freep) char *name = NULL;

	if (!av_str_cut(&value, '=', &key) || key.n == 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'metadata' must be KEY=VALUE with its '=' as %%3D, such as "
		    "metadata=owner%%3Dme");
	if (!q->metadata && !(q->metadata = json_object()))
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	name = av_str_dup(key);
	if (!name)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (json_object_set_new(q->metadata, name, json_stringn(value.p, value.n)) < 0)
		return av_err_set(err, AV_ERR_INVALID, "query parameter 'metadata' is not UTF-8");
	if (json_object_size(q->metadata) > SANDBOX_METADATA_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'metadata' may come at most %d times", SANDBOX_METADATA_MAX);
	q->filter.metadata = q->metadata;
	return 0;
}

static int take_tag(struct query *q, struct av_str value, struct av_err *err)
{
	if (value.n == 0 || value.n > SANDBOX_TAG_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'tag' must be text of 1 to %d bytes", SANDBOX_TAG_MAX);
	if (!q->tags && !(q->tags = json_array()))
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (json_array_append_new(q->tags, json_stringn(value.p, value.n)) < 0)
		return av_err_set(err, AV_ERR_INVALID, "query parameter 'tag' is not UTF-8");
	if (json_array_size(q->tags) > SANDBOX_TAGS_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'tag' may come at most %d times", SANDBOX_TAGS_MAX);
	q->filter.tags = q->tags;
	return 0;
}

static int take_limit(struct query *q, struct av_str value, struct av_err *err)
{
	uint64_t n;

	if (av_parse_u64(value, 1, SANDBOX_PAGE_MAX, &n) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'limit' must be a number from 1 to %d", SANDBOX_PAGE_MAX);
	q->filter.limit = (size_t)n;
	return 0;
}

static int take_cursor(struct query *q, struct av_str value, struct av_err *err)
{
	if (value.n == 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'cursor' is empty; leave it out for the first page");
	av_buf_reset(&q->cursor);
	if (av_buf_append_str(&q->cursor, value) < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	q->filter.cursor = av_buf_str(&q->cursor);
	return 0;
}

static const struct {
	const char *name;
	int (*take)(struct query *q, struct av_str value, struct av_err *err);
} parameters[] = {
    {"status", take_states},
    {"metadata", take_metadata},
    {"tag", take_tag},
    {"limit", take_limit},
    {"cursor", take_cursor},
};

static int parse(const struct api_request *rq, struct query *q, struct av_err *err)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(parameters); i++) {
		AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(QUERY_TEXT_MAX);
		struct av_str rest = api_query_string(rq);
		int r;

		while ((r = api_query_next(&rest, parameters[i].name, &text, err)) == 0) {
			r = parameters[i].take(q, av_buf_str(&text), err);
			if (r < 0)
				return r;
			av_buf_reset(&text);
		}
		if (r != -ENOENT)
			return r;
	}
	return 0;
}

/* ---- the answer ---- */

static void on_listed(
    void *ctx, const struct sandbox_info *v, size_t n, const char *next, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(LIST_JSON_MAX);
	struct av_http_header headers[] = {
	    {AV_STR("content-type"), AV_STR("application/json")},
	    {AV_STR("x-next-cursor"), av_str_c(next ? next : "")},
	};
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)av_buf_append_char(&out, '[');
	for (size_t i = 0; i < n; i++) {
		if (i)
			(void)av_buf_append_char(&out, ',');
		(void)native_write_sandbox(&out, &v[i]);
	}
	(void)av_buf_append_char(&out, ']');
	api_send_json_with(rq, 200, headers, next ? 2 : 1, &out);
}

void native_sandbox_list(struct api_request *rq)
{
	AV_CLEANUP(query_clear) struct query q = {.cursor = AV_BUF_INIT(256)};
	struct av_err err;

	if (parse(rq, &q, &err) < 0 || control_list(rq->api->control, &rq->actor, &q.filter,
	                                   on_listed, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}
