/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs.c - GET /v1/sandboxes/{id}/logs: what the main command wrote, as text or as lines of JSON
 *
 * Entries are gathered in one buffer and leave it when those that came together are in it; a client
 * that does not read stops the agent, or the reading of what was saved. Text that breaks off breaks
 * the connection off; lines of JSON say how they end.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/request.h"
#include "base/avtime.h"
#include "base/codec.h"
#include "base/num.h"
#include "control/logs.h"

#include "base/banned.h"

#define KEPT    ((size_t)64 * 1024)
#define OUT_MAX ((size_t)32 * 1024 * 1024) /* what a window of the agent's can become as JSON */

struct logs {
	struct api_request *rq;
	struct control_log *log; /* NULL after its end */
	struct control_log_query q;
	struct av_buf out;
	uint8_t streams; /* bits 1 << AV_MAINLOG_OUT, _ERR */
	bool json, timestamps;
	bool mid_line; /* text: no newline was written last */
	bool blocked;
};

/* ---- entries ---- */

static void format_time(int64_t us, char dst[static 40])
{
	char ms[32];

	av_rfc3339_ms(us / 1000, ms);
	(void)snprintf(dst, 40, "%.23s%03dZ", ms, (int)(us % 1000));
}

static void write_text(struct logs *l, const struct av_mainlog_entry *e)
{
	char at[40];

	if (e->kind != AV_MAINLOG_LINE)
		return;
	/* A time stands at the beginning of a line only, so another stream's line needs its own. */
	if (l->timestamps && !(e->flags & AV_MAINLOG_CONT)) {
		if (l->mid_line)
			(void)av_buf_append_char(&l->out, '\n');
		format_time(e->time_us, at);
		(void)av_buf_printf(&l->out, "%s ", at);
	}
	(void)av_buf_append_str(&l->out, e->data);
	l->mid_line = e->flags & AV_MAINLOG_OPEN;
	if (!l->mid_line)
		(void)av_buf_append_char(&l->out, '\n');
}

static void write_line(struct logs *l, const struct av_mainlog_entry *e)
{
	struct av_buf *out = &l->out;
	char at[40];

	format_time(e->time_us, at);
	(void)av_buf_printf(out,
	    "{\"type\":\"line\",\"offset\":%" PRIu64 ",\"time\":\"%s\",\"stream\":\"%s\",",
	    e->offset, at, e->stream == AV_MAINLOG_OUT ? "stdout" : "stderr");
	if (av_utf8_valid(e->data)) {
		(void)av_buf_append_c(out, "\"text\":");
		(void)av_json_write_str(out, e->data);
	} else {
		(void)av_buf_append_c(out, "\"base64\":\"");
		(void)av_base64_encode(out, e->data.p, e->data.n);
		(void)av_buf_append_char(out, '"');
	}
	if (e->flags & AV_MAINLOG_OPEN)
		(void)av_buf_append_c(out, ",\"partial\":true");
	if (e->flags & AV_MAINLOG_CONT)
		(void)av_buf_append_c(out, ",\"continued\":true");
	(void)av_buf_append_c(out, "}\n");
}

static void write_json(struct logs *l, const struct av_mainlog_entry *e)
{
	char at[40];

	switch (e->kind) {
	case AV_MAINLOG_LINE:
		write_line(l, e);
		break;
	case AV_MAINLOG_GAP:
		(void)av_buf_printf(&l->out,
		    "{\"type\":\"gap\",\"offset\":%" PRIu64 ",\"dropped\":%" PRIu64 "}\n",
		    e->offset, e->dropped);
		break;
	case AV_MAINLOG_END:
		format_time(e->time_us, at);
		(void)av_buf_printf(&l->out,
		    "{\"type\":\"end\",\"offset\":%" PRIu64
		    ",\"time\":\"%s\",\"exit_code\":%" PRIu32,
		    e->offset, at, e->exit_code);
		if (e->signal)
			(void)av_buf_printf(&l->out, ",\"exit_signal\":%" PRIu32, e->signal);
		(void)av_buf_append_c(&l->out, "}\n");
		break;
	}
}

static void on_entry(void *ctx, const struct av_mainlog_entry *e)
{
	struct logs *l = ctx;

	if (e->kind == AV_MAINLOG_LINE && !(l->streams & 1U << e->stream))
		return;
	if (l->json)
		write_json(l, e);
	else
		write_text(l, e);
}

/* ---- the answer ---- */

static void start(struct logs *l)
{
	const struct av_http_header headers[] = {
	    {.name = AV_STR("content-type"),
	        .value =
	            l->json ? AV_STR("application/x-ndjson") : AV_STR("text/plain; charset=utf-8")},
	    {.name = AV_STR("x-content-type-options"), .value = AV_STR("nosniff")},
	    {.name = AV_STR("cache-control"), .value = AV_STR("no-store")},
	};

	if (av_res_started(l->rq->req))
		return;
	av_res_set_write_timeout(l->rq->req, 0);
	api_started(l->rq, 200);
	(void)av_res_start(l->rq->req, 200, headers, AV_ARRAY_LEN(headers), -1);
}

/* -errno: nothing can be written any more. */
static int put(struct logs *l)
{
	int r;

	start(l);
	if (av_buf_error(&l->out))
		return -ENOMEM;
	if (!l->out.n)
		return 0;
	r = av_res_write(l->rq->req, av_buf_str(&l->out));
	if (l->out.n > KEPT)
		av_buf_clear(&l->out);
	else
		av_buf_reset(&l->out);
	return r;
}

static void on_flush(void *ctx)
{
	struct logs *l = ctx;
	int r = put(l);

	if (r < 0) {
		control_log_cancel(AV_TAKE_PTR(l->log));
		av_res_abort(l->rq->req);
	} else if (r > 0) {
		l->blocked = true;
		control_log_pause(l->log, true);
	}
}

static void write_end(struct logs *l, const struct control_log_end *end, const struct av_err *err)
{
	if (err) {
		(void)av_buf_append_c(&l->out, "{\"type\":\"error\",");
		/* {"error":{...}} without its first brace */
		struct av_buf one = AV_BUF_INIT(16384);

		api_write_err(&one, err);
		if (one.n > 1)
			(void)av_buf_append(&l->out, one.p + 1, one.n - 1);
		(void)av_buf_append_char(&l->out, '\n');
		av_buf_clear(&one);
	} else if (!end->exited && end->reason[0]) {
		(void)av_buf_printf(&l->out, "{\"type\":\"end\",\"reason\":\"%s\"}\n", end->reason);
	}
}

static void on_end(void *ctx, const struct control_log_end *end, const struct av_err *err)
{
	struct logs *l = ctx;
	struct api_request *rq = l->rq;

	l->log = NULL;
	if (err && !av_res_started(rq->req)) {
		api_send_err(rq, err);
		return;
	}
	if (l->json)
		write_end(l, end, err);
	if (put(l) < 0 || (err && !l->json))
		av_res_abort(rq->req);
	else
		(void)av_res_end(rq->req);
}

static void on_drain(struct api_request *rq)
{
	struct logs *l = rq->state;

	if (!l->blocked)
		return;
	l->blocked = false;
	if (l->log)
		control_log_pause(l->log, false);
}

static void on_gone(struct api_request *rq, int status)
{
	struct logs *l = rq->state;

	(void)status;
	if (l->log)
		control_log_cancel(l->log);
	av_buf_clear(&l->out);
	free(l);
}

/* ---- what is asked for ---- */

static int wrong(struct av_err *err, const char *name, const char *what)
{
	return av_err_set(err, AV_ERR_INVALID, "query parameter '%s' must be %s", name, what);
}

static int take_bool(struct av_str v, const char *name, bool *ret, struct av_err *err)
{
	if (!av_str_eq_c(v, "true") && !av_str_eq_c(v, "1") && !av_str_eq_c(v, "false") &&
	    !av_str_eq_c(v, "0"))
		return wrong(err, name, "true or false");
	*ret = v.p[0] == 't' || v.p[0] == '1';
	return 0;
}

static int take_follow(struct logs *l, struct av_str v, struct av_err *err)
{
	return take_bool(v, "follow", &l->q.follow, err);
}

static int take_timestamps(struct logs *l, struct av_str v, struct av_err *err)
{
	return take_bool(v, "timestamps", &l->timestamps, err);
}

static int take_tail(struct logs *l, struct av_str v, struct av_err *err)
{
	if (av_str_eq_c(v, "all"))
		return 0;
	return av_parse_u64(v, 0, INT64_MAX, &l->q.tail) < 0
	           ? wrong(err, "tail", "a number of lines, or all")
	           : 0;
}

/* A time, seconds since 1970, how long ago, or where to go on. */
static int take_since(struct logs *l, struct av_str v, struct av_err *err)
{
	const struct av_str offset = AV_STR("offset:");
	uint64_t n = 0;
	int64_t ms = 0;

	if (av_str_starts(v, offset)) {
		v = av_str_n(v.p + offset.n, v.n - offset.n);
		if (av_parse_u64(v, 0, INT64_MAX, &l->q.from) == 0)
			return 0;
	} else if (av_rfc3339_parse(v, &ms) == 0) {
		l->q.since_us = AV_MAX(ms, 0) * 1000;
		return 0;
	} else if (av_parse_milli(v, INT64_MAX / 1000, &n) == 0) {
		l->q.since_us = (int64_t)n * 1000;
		return 0;
	} else if (av_parse_duration_ms(v, &n, NULL) == 0) {
		ms = av_real_ms();
		l->q.since_us = (n < (uint64_t)ms ? ms - (int64_t)n : 0) * 1000;
		return 0;
	}
	return wrong(err, "since",
	    "a time such as 2026-01-31T12:00:00Z, seconds since 1970, how long ago (90s, 15m, 2h), "
	    "or "
	    "offset:N");
}

static int take_format(struct logs *l, struct av_str v, struct av_err *err)
{
	if (!av_str_eq_c(v, "json") && !av_str_eq_c(v, "text"))
		return wrong(err, "format", "text or json");
	l->json = v.p[0] == 'j';
	return 0;
}

static int take_stream(struct logs *l, struct av_str v, struct av_err *err)
{
	if (av_str_eq_c(v, "stdout"))
		l->streams = 1U << AV_MAINLOG_OUT;
	else if (av_str_eq_c(v, "stderr"))
		l->streams = 1U << AV_MAINLOG_ERR;
	else if (!av_str_eq_c(v, "all"))
		return wrong(err, "stream", "stdout, stderr or all");
	return 0;
}

static const struct {
	const char *name;
	int (*take)(struct logs *l, struct av_str v, struct av_err *err);
} parameters[] = {
    {"follow", take_follow},
    {"timestamps", take_timestamps},
    {"tail", take_tail},
    {"since", take_since},
    {"format", take_format},
    {"stream", take_stream},
};

static int parse(struct logs *l, const struct api_request *rq, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf value = AV_BUF_INIT(128);
	struct av_str accept;
	int r = 0;

	l->json = av_req_header(rq->req, "accept", &accept) &&
	          av_str_starts(av_str_trim(accept), AV_STR("application/x-ndjson"));
	for (size_t i = 0; i < AV_ARRAY_LEN(parameters) && r == 0; i++) {
		av_buf_reset(&value);
		r = api_query(rq, parameters[i].name, &value, err);
		if (r == 0)
			r = parameters[i].take(l, av_buf_str(&value), err);
		else if (r == -ENOENT)
			r = 0;
		else
			av_err_prefix(err, "query parameter '%s'", parameters[i].name);
	}
	return r;
}

void native_sandbox_logs(struct api_request *rq)
{
	static const struct control_log_events events = {
	    .on_entry = on_entry, .on_flush = on_flush, .on_end = on_end};
	struct logs *l = calloc(1, sizeof(*l));
	struct av_err err;
	int r;

	if (!l) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return;
	}
	l->rq = rq;
	l->q.tail = UINT64_MAX;
	l->q.since_us = INT64_MIN;
	l->streams = 1U << AV_MAINLOG_OUT | 1U << AV_MAINLOG_ERR;
	av_buf_init(&l->out, OUT_MAX);
	r = parse(l, rq, &err);
	if (r == 0)
		r = control_log_open(
		    rq->api->control, &rq->actor, rq->id, &l->q, &events, l, &l->log, &err);
	if (r < 0) {
		free(l);
		api_send_err(rq, &err);
		return;
	}
	rq->state = l;
	rq->on_gone = on_gone;
	rq->on_drain = on_drain;
	rq->lasting = l->q.follow;
	/* Who follows a command that is silent learns at once that this works. */
	if (control_log_is_live(l->log))
		start(l);
}
