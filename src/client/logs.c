/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs.c - what the main command of a sandbox printed (see aviary/logs.h)
 *
 * The answer is a line of JSON for each line of the log. It is taken apart as it comes: what is not
 * a whole line yet is kept, up to LINE_MAX_BYTES, and a line that the caller does not take stays in
 * the pipe, which then rests.
 */
#include <aviary/logs.h>

#include <errno.h>
#include <string.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "base/json.h"
#include "base/jsontext.h"
#include "client/call.h"
#include "client/model.h"
#include "client/pipe.h"
#include "client/resource.h"

#include "base/banned.h"

#define LINE_MAX_BYTES AV_MIB /* the server's lines have 16 KiB, six bytes for each at most */
#define PATH_BYTES     4096

struct logs {
	struct avc_end end;
	aviary_log_fn *fn;
	void *ctx;
	struct av_buf begun; /* a line that is not whole yet */
};

/* ---- one line ---- */

static const char *text_of(const json_t *o, const char *member)
{
	const char *s = json_string_value(json_object_get(o, member));

	return s ? s : "";
}

/* What the server says went wrong in the middle. */
static int take_error(struct logs *l, const json_t *o)
{
	const json_t *e = json_object_get(o, "error");

	(void)snprintf(l->end.why, sizeof(l->end.why), "%s", text_of(e, "message"));
	return avc_code_of(text_of(e, "code"), 500, true, false);
}

static int take_text(const json_t *o, struct av_buf *bytes, aviary_log_entry *line)
{
	const json_t *text = json_object_get(o, "text");

	if (json_is_string(text)) {
		line->text = json_string_value(text);
		line->size = json_string_length(text);
		return 0;
	}
	if (av_base64_decode(bytes, av_str_c(text_of(o, "base64"))) < 0)
		return av_buf_error(bytes) ? AVIARY_E_NO_MEMORY : AVIARY_E_PROTOCOL;
	line->text = av_buf_cstr(bytes);
	line->size = av_buf_str(bytes).n;
	return line->text ? 0 : AVIARY_E_NO_MEMORY;
}

static void take_end(const json_t *o, aviary_log_entry *line)
{
	const json_t *code = json_object_get(o, "exit_code");
	json_int_t v = json_integer_value(code);

	line->kind = AVIARY_LOG_END;
	line->reason = text_of(o, "reason");
	line->has_exit_code = json_is_integer(code) && v >= 0 && v <= 255;
	line->exit_code = line->has_exit_code ? (int)v : 0;
}

static int give_object(struct logs *l, const json_t *o)
{
	AV_CLEANUP(av_buf_clear) struct av_buf bytes = AV_BUF_INIT(LINE_MAX_BYTES);
	aviary_log_entry line = {.text = "", .reason = "", .time = text_of(o, "time")};
	const char *type = text_of(o, "type");
	int r = 0;

	line.offset = json_integer_value(json_object_get(o, "offset"));
	if (av_rfc3339_parse(av_str_c(line.time), &line.time_ms) < 0)
		line.time_ms = 0;
	if (strcmp(type, "line") == 0) {
		line.channel =
		    strcmp(text_of(o, "stream"), "stderr") == 0 ? AVIARY_STDERR : AVIARY_STDOUT;
		line.partial = json_is_true(json_object_get(o, "partial"));
		line.continued = json_is_true(json_object_get(o, "continued"));
		r = take_text(o, &bytes, &line);
	} else if (strcmp(type, "gap") == 0) {
		line.kind = AVIARY_LOG_GAP;
		line.dropped = json_integer_value(json_object_get(o, "dropped"));
	} else if (strcmp(type, "end") == 0) {
		take_end(o, &line);
	} else if (strcmp(type, "error") == 0) {
		return take_error(l, o);
	} else {
		return 0; /* of a later server */
	}
	if (r < 0) {
		(void)snprintf(l->end.why, sizeof(l->end.why), "%s", aviary_code_text(r));
		return r;
	}
	r = l->fn(l->ctx, &line);
	if (r && r != AVIARY_E_AGAIN)
		(void)snprintf(l->end.why, sizeof(l->end.why), "the callback ended it");
	return r >= 0 ? 0 : r;
}

static int give_line(struct logs *l, const char *p, size_t n)
{
	AV_CLEANUP(av_json_decrefp) json_t *o = NULL;
	int code;

	if (n == 0)
		return 0;
	o = avc_json_load_with(av_str_n(p, n), AVC_JSON_NUL, &code);
	if (json_is_object(o))
		return give_object(l, o);
	(void)snprintf(
	    l->end.why, sizeof(l->end.why), "the server sent a line of the log that is none");
	return !o && code == AVIARY_E_NO_MEMORY ? code : AVIARY_E_PROTOCOL;
}

/* ---- the end of the pipe ---- */

static int64_t logs_move(struct avc_end *e, void *p, size_t n)
{
	struct logs *l = AV_CONTAINER_OF(e, struct logs, end);
	const char *text = p, *newline;
	size_t taken = 0, before = av_buf_str(&l->begun).n;

	while ((newline = memchr(text + taken, '\n', n - taken))) {
		size_t part = (size_t)(newline - text) - taken;
		int r;

		if (before) {
			/* Whole now; when it is not taken its beginning is as it was. */
			if (av_buf_append(&l->begun, text + taken, part) < 0)
				return av_buf_error(&l->begun) == -ENOMEM ? AVIARY_E_NO_MEMORY
				                                          : AVIARY_E_TOO_LARGE;
			r = give_line(l, av_buf_str(&l->begun).p, av_buf_str(&l->begun).n);
			if (r == AVIARY_E_AGAIN)
				l->begun.n = before;
			else
				av_buf_reset(&l->begun);
		} else {
			r = give_line(l, text + taken, part);
		}
		if (r == AVIARY_E_AGAIN)
			return taken ? (int64_t)taken : AVC_LATER;
		if (r < 0)
			return r;
		taken += part + 1;
		before = 0;
	}
	if (av_buf_append(&l->begun, text + taken, n - taken) == 0)
		return (int64_t)n;
	(void)snprintf(
	    e->why, sizeof(e->why), "a line of the log has more than a MiB, or there is no memory");
	return av_buf_error(&l->begun) == -ENOMEM ? AVIARY_E_NO_MEMORY : AVIARY_E_TOO_LARGE;
}

static void logs_free(struct avc_end *e)
{
	struct logs *l = AV_CONTAINER_OF(e, struct logs, end);

	av_buf_clear(&l->begun);
	free(l);
}

static struct avc_end *logs_new(aviary_log_fn *fn, void *ctx)
{
	struct logs *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->end = (struct avc_end){.move = logs_move, .free = logs_free, .fd = -1};
	l->fn = fn;
	l->ctx = ctx;
	l->begun = (struct av_buf)AV_BUF_INIT(LINE_MAX_BYTES);
	return &l->end;
}

/* ---- asking ---- */

static aviary_logs_options known(const aviary_logs_options *options)
{
	aviary_logs_options o = AVIARY_LOGS_OPTIONS_INIT;

	if (options)
		memcpy(&o, options, AV_MIN(options->struct_size, sizeof(o)));
	return o;
}

static void append_query(struct av_buf *out, const aviary_logs_options *o, bool text)
{
	(void)av_buf_printf(out, "/logs?format=%s", text ? "text" : "json");
	if (o->follow && !text)
		(void)av_buf_append_c(out, "&follow=true");
	if (o->has_tail)
		(void)av_buf_printf(out, "&tail=%lld", (long long)o->tail);
	if (o->since) {
		(void)av_buf_append_c(out, "&since=");
		(void)av_percent_encode(out, av_str_c(o->since), false);
	}
	if (o->stream) {
		(void)av_buf_append_c(out, "&stream=");
		(void)av_percent_encode(out, av_str_c(o->stream), false);
	}
	if (o->timestamps && text)
		(void)av_buf_append_c(out, "&timestamps=true");
}

static struct avc_pipe_spec pipe_spec(aviary_sandbox *sb, struct av_buf *query)
{
	return (struct avc_pipe_spec){.sb = sb,
	    .rq = {.method = "GET", .path = av_buf_cstr(query), .timeout_ms = -1, .opaque = true},
	    .as_it_is = true,
	    .size = -1,
	    .failed = av_buf_error(query) < 0};
}

aviary_op *aviary_sandbox_logs(
    aviary_sandbox *sb, const aviary_logs_options *options, aviary_log_fn *fn, void *ctx)
{
	AV_CLEANUP(av_buf_clear) struct av_buf query = AV_BUF_INIT(PATH_BYTES);
	const aviary_logs_options o = known(options);
	struct avc_pipe_spec spec;

	append_query(&query, &o, false);
	spec = pipe_spec(sb, &query);
	/* Nothing may come for as long as the command is silent. */
	spec.rq.idle_ms = o.follow ? -1 : 0;
	spec.sink = logs_new(fn, ctx);
	spec.failed = spec.failed || !spec.sink;
	return avc_pipe(&spec);
}

aviary_op *aviary_sandbox_logs_text(aviary_sandbox *sb, const aviary_logs_options *options)
{
	AV_CLEANUP(av_buf_clear) struct av_buf query = AV_BUF_INIT(PATH_BYTES);
	const aviary_logs_options o = known(options);
	struct avc_pipe_spec spec;

	append_query(&query, &o, true);
	spec = pipe_spec(sb, &query);
	spec.rq.watches_idle = true;
	spec.take = avc_take_text;
	return avc_pipe(&spec);
}

aviary_text *aviary_sandbox_logs_text_sync(
    aviary_sandbox *sb, const aviary_logs_options *options, aviary_error *error)
{
	return avc_op_await(aviary_sandbox_logs_text(sb, options), &avc_text_type, error);
}
