/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs.c - looking at and changing files of a sandbox: stat, list, mkdir, move, chmod, remove
 *
 * The agent does the work as the user asked for; what it says is checked and written anew. A
 * listing is a stream from end to end: an entry comes, is translated and leaves, and a client that
 * does not read stops the agent's walk, so the size of the tree costs no memory here. An error
 * before the first entry has its status; one in the middle breaks the answer off.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "api/native/entries.h"
#include "api/request.h"
#include "base/path.h"
#include "control/exec.h"
#include "proto/connect.h"
#include "base/banned.h"

#define CALL_JSON_MAX ((size_t)96 * 1024) /* two paths with every byte escaped, and names */
#define ENTRY_MAX     ((size_t)256 * 1024)
#define BATCH_MAX     ((size_t)4 << 20) /* what one piece from the agent can become */
#define USER_MAX      64
#define DEPTH_MAX     UINT32_MAX

/* ---- requests to the agent ---- */

static int get_path(const json_t *body, const char *field, const char **ret, struct av_err *err)
{
	int r = av_json_get_str(body, field, ret, err);

	if (r < 0)
		return r;
	if (!(*ret)[0] || strlen(*ret) > AV_PATH_MAX)
		return av_err_set(err, AV_ERR_INVALID, "\"%s\" must be a path of 1 to %d bytes",
		    field, AV_PATH_MAX);
	return 0;
}

static void add_text(struct av_buf *b, const char *name, const char *value)
{
	(void)av_buf_printf(b, "%s\"%s\":", b->n > 1 ? "," : "", name);
	(void)av_json_write_str(b, av_str_c(value));
}

/* Begins {"path":...,"user":...; the caller closes it. */
static int begin_call(
    struct av_buf *b, const json_t *body, const char *const *paths, struct av_err *err)
{
	const char *user = "";
	int r = av_json_get_str(body, "user", &user, err);

	if (r < 0)
		return r;
	if (strlen(user) > USER_MAX)
		return av_err_set(err, AV_ERR_INVALID, "\"user\" has more than %d bytes", USER_MAX);
	(void)av_buf_append_char(b, '{');
	for (; *paths; paths++) {
		const char *path = "";

		r = get_path(body, *paths, &path, err);
		if (r < 0)
			return r;
		add_text(b, *paths, path);
	}
	if (user[0])
		add_text(b, "user", user);
	return 0;
}

/* ---- unary ---- */

/* {"entry":{...}} */
static void on_entry(void *ctx, const json_t *answer, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ENTRY_MAX);
	struct api_request *rq = ctx;
	struct av_err own;

	rq->call = NULL;
	(void)av_buf_append_c(&out, "{\"entry\":");
	if (!err && native_write_entry(&out, json_object_get(answer, "entry"), &own) < 0)
		err = &own;
	(void)av_buf_append_char(&out, '}');
	if (err)
		api_send_err(rq, err);
	else
		api_send_json(rq, 200, &out);
}

static void on_empty(void *ctx, const json_t *answer, const struct av_err *err)
{
	struct api_request *rq = ctx;

	(void)answer;
	rq->call = NULL;
	if (err)
		api_send_err(rq, err);
	else
		api_send_empty(rq, 204);
}

static void call(struct api_request *rq, const char *method, const char *const *paths,
    const char *more, node_json_fn *fn)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(CALL_JSON_MAX);
	struct av_err err;
	int r = begin_call(&b, rq->body, paths, &err);

	(void)av_buf_append_c(&b, more);
	(void)av_buf_append_char(&b, '}');
	if (r == 0 && av_buf_error(&b) < 0)
		r = av_err_set(&err, AV_ERR_INVALID, "the paths are too long");
	if (r == 0)
		r = control_rpc(rq->api->control, &rq->actor, rq->id, method, av_buf_str(&b), fn,
		    rq, &rq->call, &err);
	if (r < 0)
		api_send_err(rq, &err);
}

static const char *const one_path[] = {"path", NULL};

void native_file_stat(struct api_request *rq)
{
	call(rq, "filesystem.Filesystem/Stat", one_path, "", on_entry);
}

void native_file_mkdir(struct api_request *rq)
{
	call(rq, "filesystem.Filesystem/MakeDir", one_path, "", on_entry);
}

void native_file_move(struct api_request *rq)
{
	static const char *const paths[] = {"source", "destination", NULL};

	call(rq, "filesystem.Filesystem/Move", paths, "", on_entry);
}

void native_file_remove(struct api_request *rq)
{
	call(rq, "filesystem.Filesystem/Remove", one_path, ",\"mustExist\":true", on_empty);
}

void native_file_chmod(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf more = AV_BUF_INIT(4096);
	const char *owner = "", *group = "";
	bool recursive = false;
	struct av_err err;
	int mode = -1, r;

	if ((r = native_parse_mode(rq->body, &mode, &err)) < 0 ||
	    (r = av_json_get_str(rq->body, "owner", &owner, &err)) < 0 ||
	    (r = av_json_get_str(rq->body, "group", &group, &err)) < 0 ||
	    (r = av_json_get_bool(rq->body, "recursive", &recursive, &err)) < 0) {
		api_send_err(rq, &err);
		return;
	}
	if (strlen(owner) > USER_MAX || strlen(group) > USER_MAX) {
		(void)av_err_set(&err, AV_ERR_INVALID,
		    "\"owner\" and \"group\" have at most %d bytes", USER_MAX);
		api_send_err(rq, &err);
		return;
	}
	(void)av_buf_printf(&more, ",\"recursive\":%s,\"owner\":", recursive ? "true" : "false");
	(void)av_json_write_str(&more, av_str_c(owner));
	(void)av_buf_append_c(&more, ",\"group\":");
	(void)av_json_write_str(&more, av_str_c(group));
	if (mode >= 0)
		(void)av_buf_printf(&more, ",\"mode\":%d", mode);
	call(rq, "filesystem.Filesystem/SetAttributes", one_path, av_buf_cstr(&more), on_empty);
}

/* ---- list ---- */

/* rq->state */
struct listing {
	struct api_request *rq;
	struct node_stream *stream; /* NULL after its end */
	struct av_connect_dec dec;
	struct av_buf out; /* of one piece from the agent */
	bool any, complete;
	struct av_err err; /* set when the agent said so, or broke the protocol */
};

static void listing_gone(struct api_request *rq, int status)
{
	struct listing *l = rq->state;

	(void)status;
	if (l->stream)
		node_stream_cancel(l->stream);
	av_connect_dec_clear(&l->dec);
	av_buf_clear(&l->out);
	free(l);
}

static void listing_fail(struct listing *l, const struct av_err *err)
{
	if (l->stream)
		node_stream_cancel(AV_TAKE_PTR(l->stream));
	if (av_res_started(l->rq->req))
		av_res_abort(l->rq->req);
	else
		api_send_err(l->rq, err);
}

static int broken(struct listing *l)
{
	return av_err_set(
	    &l->err, AV_ERR_AGENT, "the sandbox's agent broke the protocol while listing");
}

/* {} or {"error":{"code","message"}} */
static int on_last(struct listing *l, const json_t *message)
{
	const json_t *error = json_object_get(message, "error");
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *text = json_string_value(json_object_get(error, "message"));

	l->complete = true;
	if (!error)
		return 0;
	return av_err_set(&l->err,
	    code ? av_connect_code_to_err(av_connect_code_from_name(av_str_c(code))) : AV_ERR_AGENT,
	    "%s", text ? text : "the sandbox's agent could not list the directory");
}

static int on_message(void *ctx, bool end, struct av_str payload)
{
	AV_CLEANUP(av_json_decrefp) json_t *message = av_json_parse_object(payload, NULL);
	struct listing *l = ctx;

	if (!message)
		return broken(l);
	if (end)
		return on_last(l, message);
	(void)av_buf_append_c(&l->out, l->any ? "," : "{\"entries\":[");
	l->any = true;
	return native_write_entry(&l->out, json_object_get(message, "entry"), &l->err);
}

static int begin_answer(struct listing *l)
{
	const struct av_http_header type = {
	    .name = AV_STR("content-type"), .value = AV_STR("application/json")};

	if (av_res_started(l->rq->req))
		return 0;
	av_res_set_write_timeout(l->rq->req, 0);
	api_started(l->rq, 200);
	return av_res_start(l->rq->req, 200, &type, 1, -1);
}

static void send_out(struct listing *l)
{
	int r = av_buf_error(&l->out);

	if (r == 0 && l->out.n) {
		r = begin_answer(l);
		if (r >= 0)
			r = av_res_write(l->rq->req, av_buf_str(&l->out));
		if (r > 0 && l->stream)
			node_stream_pause(l->stream, true);
	}
	av_buf_clear(&l->out);
	if (r >= 0)
		return;
	if (l->stream)
		node_stream_cancel(AV_TAKE_PTR(l->stream));
	av_res_abort(l->rq->req);
}

static void on_list_head(void *ctx, int status, const struct node_header *h, size_t n)
{
	(void)ctx;
	(void)status;
	(void)h;
	(void)n;
}

static void on_list_data(void *ctx, struct av_str data)
{
	struct listing *l = ctx;

	if (av_connect_dec_feed(&l->dec, data.p, data.n, on_message, l) < 0) {
		if (l->err.kind == AV_ERR_NONE)
			(void)broken(l);
		listing_fail(l, &l->err);
		return;
	}
	send_out(l);
}

static void on_list_end(void *ctx, const struct av_err *err)
{
	struct listing *l = ctx;

	l->stream = NULL;
	if (!err && !l->complete) {
		(void)broken(l);
		err = &l->err;
	}
	if (err) {
		listing_fail(l, err);
		return;
	}
	(void)av_buf_append_c(&l->out, l->any ? "]}" : "{\"entries\":[]}");
	send_out(l);
	(void)av_res_end(l->rq->req);
}

static const struct node_stream_events list_events = {
    .on_head = on_list_head, .on_data = on_list_data, .on_end = on_list_end};

static void list_drain(struct api_request *rq)
{
	struct listing *l = rq->state;

	if (l->stream)
		node_stream_pause(l->stream, false);
}

static int list_open(struct listing *l, struct av_str message, struct av_err *err)
{
	static const struct node_header headers[] = {
	    {AV_STR("content-type"), AV_STR("application/connect+json")}};
	const struct node_stream_request nrq = {
	    .method = "POST",
	    .path = AV_STR("/filesystem.Filesystem/ListDir"),
	    .headers = headers,
	    .n_headers = AV_ARRAY_LEN(headers),
	    .has_body = true,
	    .map_errors = true,
	};
	struct api_request *rq = l->rq;
	int r = control_stream(
	    rq->api->control, &rq->actor, rq->id, &nrq, &list_events, l, &l->stream, err);

	if (r < 0)
		return r;
	(void)node_stream_send(l->stream, message);
	node_stream_finish(l->stream);
	return 0;
}

void native_file_list(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(CALL_JSON_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf framed = AV_BUF_INIT(CALL_JSON_MAX + 16);
	struct listing *l = calloc(1, sizeof *l);
	int64_t depth = 1;
	struct av_err err;
	int r;

	if (!l) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return;
	}
	if ((r = av_json_get_i64(rq->body, "depth", 0, DEPTH_MAX, &depth, &err)) == 0)
		r = begin_call(&b, rq->body, one_path, &err);
	(void)av_buf_printf(&b, ",\"depth\":%" PRId64 "}", depth);
	if (r == 0 && av_connect_write(&framed, 0, av_buf_str(&b)) < 0)
		r = av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	if (r == 0) {
		l->rq = rq;
		av_connect_dec_init(&l->dec, ENTRY_MAX);
		av_buf_init(&l->out, BATCH_MAX);
		r = list_open(l, av_buf_str(&framed), &err);
	}
	if (r < 0) {
		free(l);
		api_send_err(rq, &err);
		return;
	}
	rq->state = l;
	rq->on_gone = listing_gone;
	rq->on_drain = list_drain;
}
