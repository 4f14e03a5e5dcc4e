/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main_log.c - the main command of a sandbox as its agent has it (see main_log.h)
 */
#include "node/main_log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/path.h"
#include "node/node_internal.h"
#include "proto/agent_api.h"

#include "base/banned.h"

#define ANSWER_MAX ((size_t)64 * 1024)

/* ---- start ---- */

struct starting {
	struct node_call call; /* first */
	struct node_call *inner;
	node_main_started_fn *fn;
	void *ctx;
};

static void starting_cancel(struct node_call *call)
{
	struct starting *s = AV_CONTAINER_OF(call, struct starting, call);

	node_call_cancel(s->inner);
	free(s);
}

static void on_started(void *ctx, const json_t *answer, const struct av_err *err)
{
	struct starting *s = ctx;
	json_int_t pid = json_integer_value(json_object_get(answer, "pid"));
	struct av_err bad;

	if (!err && (pid <= 0 || pid > INT32_MAX)) {
		(void)av_err_set(
		    &bad, AV_ERR_AGENT, "the sandbox's agent broke the protocol: no pid");
		err = &bad;
	}
	s->fn(s->ctx, err ? 0 : (uint32_t)pid, err);
	free(s);
}

static int start_body(const json_t *main, int64_t log_bytes, char **ret)
{
	AV_CLEANUP(av_json_decrefp) json_t *body = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *args = json_array();
	const json_t *command = json_object_get(main, "command");
	json_t *workdir = json_object_get(main, "workdir"), *user = json_object_get(main, "user");

	for (size_t i = 1; args && i < json_array_size(command); i++)
		if (json_array_append(args, json_array_get(command, i)) < 0)
			return -ENOMEM;
	body = json_pack("{s{sOsO}sI}", "process", "cmd", json_array_get(command, 0), "args", args,
	    "logBytes", (json_int_t)log_bytes);
	if (!body || (user && json_object_set(body, "user", user) < 0) ||
	    (workdir && json_object_set(json_object_get(body, "process"), "cwd", workdir) < 0))
		return -ENOMEM;
	*ret = json_dumps(body, JSON_COMPACT);
	return *ret ? 0 : -ENOMEM;
}

int node_main_start(struct node_sandbox *sb, const json_t *main, int64_t log_bytes,
    node_main_started_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	AV_CLEANUP(av_freep) char *body = NULL;
	struct starting *s = calloc(1, sizeof(*s));
	int r;

	if (!s || start_body(main, log_bytes, &body) < 0) {
		free(s);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	s->call.cancel = starting_cancel;
	s->fn = fn;
	s->ctx = ctx;
	r = node_rpc(
	    sb, AV_AGENT_PATH_MAIN, av_str_c(body), ANSWER_MAX, on_started, s, &s->inner, err);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret = &s->call;
	return 0;
}

static void on_signalled(void *ctx, const json_t *answer, const struct av_err *err)
{
	(void)ctx;
	(void)answer;
	(void)err; /* whoever signals waits for the end, and no longer than it likes */
}

int node_main_signal(struct node_sandbox *sb, int signo, struct av_err *err)
{
	char body[32];

	if (av_path_printf(body, sizeof(body), "{\"signal\":%d}", signo) < 0)
		return av_err_set(err, AV_ERR_INVALID, "no such signal");
	return node_rpc(sb, AV_AGENT_PATH_MAIN_SIGNAL, av_str_c(body), ANSWER_MAX, on_signalled,
	    NULL, NULL, err);
}

/* ---- log ---- */

struct node_main_log {
	struct node_stream *stream;
	struct av_mainlog_dec dec;
	struct node_main_log_events ev;
	void *ctx;
};

static void log_free(struct node_main_log *l)
{
	av_mainlog_dec_clear(&l->dec);
	free(l);
}

static void log_over(struct node_main_log *l, const struct av_err *err)
{
	l->ev.on_end(l->ctx, err);
	log_free(l);
}

static bool on_entry(void *ctx, const struct av_mainlog_entry *e)
{
	struct node_main_log *l = ctx;

	return l->ev.on_entry(l->ctx, e);
}

static void on_data(void *ctx, struct av_str data)
{
	struct node_main_log *l = ctx;
	struct av_err err;
	int r = av_mainlog_feed(&l->dec, data, on_entry, l, &err);

	if (r == 0) {
		if (l->ev.on_flush)
			l->ev.on_flush(l->ctx);
		return;
	}
	if (r == -ENOMEM)
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	node_stream_cancel(l->stream);
	log_over(l, r < 0 ? &err : NULL);
}

static void on_end(void *ctx, const struct av_err *err)
{
	struct node_main_log *l = ctx;
	struct av_err half;

	if (!err && !av_mainlog_dec_idle(&l->dec)) {
		(void)av_err_set(&half, AV_ERR_AGENT,
		    "the sandbox's agent broke the protocol of its log: it ends in the middle");
		err = &half;
	}
	log_over(l, err);
}

int node_main_log_open(struct node_sandbox *sb, const struct node_main_log_query *q,
    const struct node_main_log_events *ev, void *ctx, struct node_main_log **ret,
    struct av_err *err)
{
	static const struct node_stream_events events = {.on_data = on_data, .on_end = on_end};
	struct av_buf path = AV_BUF_INIT(512);
	struct node_stream_request rq = {
	    .method = "GET", .map_errors = true, .interactive = q->end_only, .passive = true};
	struct node_main_log *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	l->ev = *ev;
	l->ctx = ctx;
	av_mainlog_dec_init(&l->dec);
	(void)av_buf_printf(&path, AV_AGENT_PATH_MAIN_LOG "?from=%" PRIu64 "&follow=%d&end=%d",
	    q->from, q->follow, q->end_only);
	if (q->tail != UINT64_MAX)
		(void)av_buf_printf(&path, "&tail=%" PRIu64, q->tail);
	if (q->since_us != INT64_MIN)
		(void)av_buf_printf(&path, "&since=%" PRId64, AV_MAX(q->since_us, 0));
	rq.path = av_buf_str(&path);
	r = av_buf_error(&path) ? av_err_set(err, AV_ERR_NO_MEMORY, "out of memory")
	                        : node_stream_open(sb, &rq, &events, l, &l->stream, err);
	av_buf_clear(&path);
	if (r < 0) {
		log_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

void node_main_log_pause(struct node_main_log *l, bool paused)
{
	node_stream_pause(l->stream, paused);
}

void node_main_log_cancel(struct node_main_log *l)
{
	node_stream_cancel(l->stream);
	log_free(l);
}
