/* SPDX-License-Identifier: Apache-2.0 */
/*
 * code.c - code in a sandbox's interpreter, as it runs (see aviary/code.h)
 *
 * Theory of operation. The answer is lines of JSON, one for each thing that happens; they are read
 * from a pipe, one by one, and while a callback has one the answer waits. What is kept for the
 * result is bounded: each output by collect_max, all values together by VALUES_MAX, one line by
 * LINE_MAX_BYTES. The last line says how it ended; an answer without it was cut.
 */
#include <aviary/code.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "base/json.h"
#include "client/call.h"
#include "client/model.h"
#include "client/pipe.h"
#include "client/texts.h"

#include "base/banned.h"

#define LINE_MAX_BYTES  ((size_t)17 << 20) /* the agent's are 16 MiB at most */
#define VALUES_MAX      ((size_t)64 << 20)
#define COLLECT_DEFAULT ((size_t)4 << 20)
#define COLLECT_MOST    ((size_t)1 << 30)
#define TIMEOUT_MS      30000
#define GUARD_MS        15000 /* for an interrupt that does not help, and the way back */

static const char *const statuses[] = {
    [AVIARY_CODE_UNKNOWN] = "",
    [AVIARY_CODE_OK] = "ok",
    [AVIARY_CODE_ERROR] = "error",
    [AVIARY_CODE_TIMEOUT] = "timeout",
    [AVIARY_CODE_OOM] = "oom",
    [AVIARY_CODE_DIED] = "died",
    [AVIARY_CODE_RESTARTED] = "restarted",
    [AVIARY_CODE_DELETED] = "deleted",
};

/* A value and what its items point at: strings of data, or owned. */
struct value {
	json_t *data;
	char **owned; /* one for each item; may be NULL */
	aviary_code_item *items;
};

struct result {
	aviary_code_result pub; /* first */
	struct av_buf text[2];
	struct value *values; /* as many as pub.n_values */
	aviary_code_value *shown;
	size_t room, values_bytes;
	json_t *error, *end; /* the lines; NULL: did not come */
	const char **traceback;
};

/* What the pipe's end and the operation share. */
struct run {
	struct avc_end end; /* first */
	unsigned refs;
	aviary_code_output_fn *on_output;
	aviary_code_value_fn *on_value;
	void *ctx;
	bool check;
	size_t collect_max;
	struct av_buf line;
	struct result *result;
};

/* ---- values ---- */

static void value_clear(struct value *v, size_t n)
{
	for (size_t i = 0; v->owned && i < n; i++)
		free(v->owned[i]);
	free(v->owned);
	free(v->items);
	json_decref(v->data);
}

static bool is_binary(const char *mime)
{
	return (strncmp(mime, "image/", 6) == 0 && strcmp(mime, "image/svg+xml") != 0) ||
	       strcmp(mime, "application/pdf") == 0;
}

/* 0, or a code. */
static int make_item(aviary_code_item *item, char **owned, const char *mime, const json_t *j)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(LINE_MAX_BYTES);
	struct av_str text = av_str_n(json_string_value(j), json_string_length(j));

	item->mime = mime;
	item->data = text.p;
	item->size = text.n;
	if (json_is_string(j) && !is_binary(mime))
		return 0;
	if (json_is_string(j)) {
		if (av_base64_decode(&b, text) < 0)
			return av_buf_error(&b) == -ENOMEM ? AVIARY_E_NO_MEMORY : AVIARY_E_PROTOCOL;
		*owned = malloc(b.n + 1);
		item->size = b.n;
		if (*owned) {
			memcpy(*owned, av_buf_str(&b).p, b.n);
			(*owned)[b.n] = '\0';
		}
	} else {
		*owned = avc_json_text(j);
		item->size = *owned ? strlen(*owned) : 0;
	}
	item->data = *owned;
	return *owned ? 0 : AVIARY_E_NO_MEMORY;
}

/* *ret_bytes: what it takes. Of the line only what items point at is kept. */
static int make_value(
    struct value *v, aviary_code_value *shown, json_t *line, bool is_main, size_t *ret_bytes)
{
	json_t *data = json_object_get(line, "data"), *j;
	size_t n = json_object_size(data), i = 0, bytes = sizeof(*v) + sizeof(*shown);
	const char *mime;
	int r = 0;

	*v = (struct value){.data = n ? json_incref(data) : NULL,
	    .owned = calloc(n + 1, sizeof(*v->owned)),
	    .items = calloc(n + 1, sizeof(*v->items))};
	if (!v->owned || !v->items)
		r = AVIARY_E_NO_MEMORY;
	*shown = (aviary_code_value){.is_main = is_main, .text = "", .items = v->items};
	json_object_foreach (data, mime, j) {
		if (r == 0)
			r = make_item(&v->items[i], &v->owned[i], mime, j);
		if (r < 0)
			break;
		if (strcmp(mime, "text/plain") == 0)
			shown->text = v->items[i].data;
		if (v->owned[i])
			(void)json_object_iter_set_new(
			    data, json_object_key_to_iter(mime), json_null());
		bytes += sizeof(v->items[i]) + strlen(mime) + v->items[i].size;
		i++;
	}
	shown->n = i;
	*ret_bytes = bytes;
	if (r < 0)
		value_clear(v, n);
	return r;
}

const aviary_code_item *aviary_code_find(const aviary_code_value *value, const char *mime)
{
	for (size_t i = 0; i < value->n; i++)
		if (strcmp(value->items[i].mime, mime) == 0)
			return &value->items[i];
	return NULL;
}

/* ---- results ---- */

static void drop_values(struct result *x)
{
	for (size_t i = 0; i < x->pub.n_values; i++)
		value_clear(&x->values[i], x->shown[i].n);
	x->pub.n_values = 0;
	x->values_bytes = 0;
}

void aviary_code_result_free(aviary_code_result *result)
{
	struct result *x = result ? AV_CONTAINER_OF(result, struct result, pub) : NULL;

	if (!x)
		return;
	drop_values(x);
	free(x->values);
	free(x->shown);
	free(x->traceback);
	json_decref(x->error);
	json_decref(x->end);
	av_buf_clear(&x->text[0]);
	av_buf_clear(&x->text[1]);
	free(x);
}

static void free_result(void *result)
{
	aviary_code_result_free(result);
}

static const struct avc_type result_type = {"code result", free_result};

static struct result *result_new(size_t collect_max)
{
	struct result *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	av_buf_init(&x->text[0], collect_max + 1);
	av_buf_init(&x->text[1], collect_max + 1);
	return x;
}

static int more_room(struct result *x)
{
	size_t room = x->room ? 2 * x->room : 8;
	struct value *values;
	aviary_code_value *shown;

	if (x->pub.n_values < x->room)
		return 0;
	values = realloc(x->values, room * sizeof(*values));
	x->values = values ? values : x->values;
	shown = values ? realloc(x->shown, room * sizeof(*shown)) : NULL;
	x->shown = shown ? shown : x->shown;
	x->room = shown ? room : x->room;
	return shown ? 0 : AVIARY_E_NO_MEMORY;
}

static const char *text_of(const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	return text ? text : "";
}

static int take_traceback(struct result *x)
{
	const json_t *lines = json_object_get(x->error, "traceback"), *line;
	size_t i, n = json_array_size(lines);

	x->traceback = calloc(n + 1, sizeof(*x->traceback));
	if (!x->traceback)
		return AVIARY_E_NO_MEMORY;
	json_array_foreach (lines, i, line)
		x->traceback[i] = json_string_value(line) ? json_string_value(line) : "";
	x->pub.traceback = (aviary_strings){x->traceback, n};
	return 0;
}

/* All that is known, when it is over. */
static int fill(struct result *x)
{
	aviary_code_result *r = &x->pub;

	r->status_text = text_of(x->end, "status");
	for (size_t i = 1; i < AV_ARRAY_LEN(statuses); i++)
		if (strcmp(statuses[i], r->status_text) == 0)
			r->status = (enum aviary_code_status)i;
	r->out = av_buf_cstr(&x->text[0]);
	r->err = av_buf_cstr(&x->text[1]);
	r->out_size = x->text[0].n;
	r->err_size = x->text[1].n;
	r->values = x->shown;
	r->error_name = text_of(x->error, "ename");
	r->error_value = text_of(x->error, "evalue");
	r->context = text_of(x->end, "kernel_id");
	r->message = text_of(x->end, "message");
	r->execution_count = json_integer_value(json_object_get(x->end, "execution_count"));
	r->duration_ms = json_integer_value(json_object_get(x->end, "duration_ms"));
	return r->out && r->err ? take_traceback(x) : AVIARY_E_NO_MEMORY;
}

/* ---- lines ---- */

static int take_text(struct run *run, const json_t *line)
{
	bool is_err = strcmp(text_of(line, "name"), "stderr") == 0;
	const json_t *j = json_object_get(line, "text");
	struct av_str text = av_str_n(json_string_value(j), json_string_length(j));
	struct av_buf *to = &run->result->text[is_err];
	size_t room = run->collect_max - to->n, n = text.n;

	if (!text.n)
		return 0;
	if (n > room) {
		n = room - av_utf8_incomplete_tail(av_str_n(text.p, room));
		*(is_err ? &run->result->pub.err_truncated : &run->result->pub.out_truncated) = 1;
	}
	if (av_buf_append(to, text.p, n) < 0)
		return AVIARY_E_NO_MEMORY;
	if (run->on_output)
		run->on_output(run->ctx, is_err ? AVIARY_STDERR : AVIARY_STDOUT, text.p, text.n);
	return 0;
}

static int take_value(struct run *run, json_t *line, bool is_main)
{
	struct result *x = run->result;
	aviary_code_value shown = {0};
	struct value v = {0};
	size_t bytes = 0;
	int r = more_room(x);

	if (r == 0)
		r = make_value(&v, &shown, line, is_main, &bytes);
	if (r < 0)
		return r;
	if (run->on_value)
		run->on_value(run->ctx, &shown);
	if (bytes > VALUES_MAX - x->values_bytes) {
		x->pub.values_truncated = 1;
		value_clear(&v, shown.n);
		return 0;
	}
	x->values_bytes += bytes;
	x->values[x->pub.n_values] = v;
	x->shown[x->pub.n_values++] = shown;
	return 0;
}

static void set_line(json_t **to, json_t *line)
{
	json_decref(*to);
	*to = json_incref(line);
}

static int take_line(struct run *run, struct av_str text)
{
	int code = 0;
	AV_CLEANUP(av_json_decrefp) json_t *line = avc_json_load_with(text, AVC_JSON_NUL, &code);
	const char *type = text_of(line, "type");
	struct result *x = run->result;

	if (!json_is_object(line) || x->end)
		return code < 0 ? code : AVIARY_E_PROTOCOL;
	if (strcmp(type, "stream") == 0)
		return take_text(run, line);
	if (strcmp(type, "execute_result") == 0)
		return take_value(run, line, true);
	if (strcmp(type, "display_data") == 0 || strcmp(type, "update_display_data") == 0)
		return take_value(run, line, false);
	if (strcmp(type, "clear_output") == 0) {
		av_buf_reset(&x->text[0]);
		av_buf_reset(&x->text[1]);
		drop_values(x);
	} else if (strcmp(type, "error") == 0) {
		set_line(&x->error, line);
	} else if (strcmp(type, "finished") == 0) {
		set_line(&x->end, line);
	}
	return 0; /* others are of a later protocol */
}

/* ---- the pipe's end ---- */

static int broke(struct run *run, int code)
{
	if (code == AVIARY_E_PROTOCOL)
		(void)snprintf(run->end.why, sizeof(run->end.why),
		    "a line of the answer is not one of an Aviary");
	return code;
}

static int keep_part(struct run *run, struct av_str part)
{
	int r = av_buf_append_str(&run->line, part);

	return r == 0 ? 0 : broke(run, r == -ENOMEM ? AVIARY_E_NO_MEMORY : AVIARY_E_PROTOCOL);
}

static int64_t run_move(struct avc_end *e, void *p, size_t n)
{
	struct run *run = AV_CONTAINER_OF(e, struct run, end);
	struct av_str rest = av_str_n(p, n), head;
	ptrdiff_t at;
	int r;

	while ((at = av_str_chr(rest, '\n')) >= 0) {
		head = av_str_n(rest.p, (size_t)at);
		rest = av_str_n(rest.p + at + 1, rest.n - (size_t)at - 1);
		if (run->line.n) {
			r = keep_part(run, head);
			if (r < 0)
				return r;
			head = av_buf_str(&run->line);
		}
		r = take_line(run, head);
		av_buf_clear(&run->line);
		if (r < 0)
			return broke(run, r);
	}
	r = keep_part(run, rest);
	return r < 0 ? r : (int64_t)n;
}

static int check(struct run *run)
{
	const aviary_code_result *r = &run->result->pub;
	bool raised = r->status == AVIARY_CODE_ERROR;

	if (!run->check || r->status == AVIARY_CODE_OK)
		return 0;
	(void)snprintf(run->end.why, sizeof(run->end.why), "%.100s%s%.250s",
	    raised ? r->error_name : "the code did not end well: ", raised ? ": " : "",
	    raised          ? r->error_value
	    : r->message[0] ? r->message
	                    : r->status_text);
	return r->status == AVIARY_CODE_TIMEOUT ? AVIARY_E_EXEC_TIMEOUT : AVIARY_E_EXEC_FAILED;
}

static int run_finish(struct avc_end *e)
{
	struct run *run = AV_CONTAINER_OF(e, struct run, end);
	const json_t *end = run->result->end;
	const char *code = json_string_value(json_object_get(end, "code"));
	int r;

	if (!end) {
		(void)snprintf(
		    e->why, sizeof(e->why), "the answer ended before it said how the code did");
		return AVIARY_E_BROKEN;
	}
	if (strcmp(text_of(end, "status"), "failed") == 0) {
		(void)snprintf(e->why, sizeof(e->why), "%.390s", text_of(end, "message"));
		r = code ? avc_code_of(code, 502, true, false) : AVIARY_E_SANDBOX_FAILED;
		return r;
	}
	r = fill(run->result);
	return r < 0 ? r : check(run);
}

static void run_unref(struct run *run)
{
	if (--run->refs > 0)
		return;
	if (run->result)
		aviary_code_result_free(&run->result->pub);
	av_buf_clear(&run->line);
	free(run);
}

static void run_end_free(struct avc_end *e)
{
	run_unref(AV_CONTAINER_OF(e, struct run, end));
}

static void run_ctx_free(void *ctx)
{
	run_unref(ctx);
}

static int take_run(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	struct run *run = ctx;

	if (reply->code < 0)
		return reply->code;
	avc_op_give(op, &result_type, &run->result->pub);
	run->result = NULL;
	return 0;
}

/* ---- the call ---- */

/* NULL: t says why. */
static char *make_body(const char *code, const aviary_code_options *o, struct avc_texts *t)
{
	AV_CLEANUP(av_json_decrefp) json_t *body = json_object();
	json_t *envs = json_object(), *formats = json_array();
	int64_t timeout_ms = o->timeout_ms == 0 ? TIMEOUT_MS : o->timeout_ms;
	char *text;

	avc_put_text(t, body, "code", code);
	avc_put(t, body, "stream", json_true());
	for (size_t i = 0; i < o->envs.n; i++)
		avc_put_pair(t, envs, "environment", o->envs.items[i].name, o->envs.items[i].value);
	avc_put(t, body, "envs", envs);
	for (size_t i = 0; i < o->figure_formats.n; i++)
		avc_append_text(t, formats, "figure format", o->figure_formats.items[i]);
	if (o->figure_formats.n)
		avc_put(t, body, "figure_formats", formats);
	else
		json_decref(formats);
	avc_put(t, body, "timeout_sec", json_real(timeout_ms < 0 ? 0 : (double)timeout_ms / 1000));
	avc_put_text(t, body, "kernel_id", o->context);
	avc_put_text(t, body, "language", o->language);
	avc_put_text(t, body, "shell", o->shell);
	if (o->flags & AVIARY_CODE_SILENT)
		avc_put(t, body, "silent", json_true());
	if (o->flags & AVIARY_CODE_NO_HISTORY)
		avc_put(t, body, "store_history", json_false());
	text = t->code == 0 ? avc_json_text(body) : NULL;
	if (!text && t->code == 0)
		t->code = AVIARY_E_NO_MEMORY;
	return text;
}

static struct run *run_new(const aviary_code_options *o)
{
	struct run *run = calloc(1, sizeof(*run));

	if (!run)
		return NULL;
	run->refs = 2;
	run->end.move = run_move;
	run->end.finish = run_finish;
	run->end.free = run_end_free;
	run->end.fd = -1;
	run->on_output = o->on_output;
	run->on_value = o->on_value;
	run->ctx = o->ctx;
	run->check = (o->flags & AVIARY_CODE_CHECK) != 0;
	run->collect_max = o->collect_max ? AV_MIN(o->collect_max, COLLECT_MOST) : COLLECT_DEFAULT;
	av_buf_init(&run->line, LINE_MAX_BYTES);
	run->result = result_new(run->collect_max);
	if (run->result)
		return run;
	free(run);
	return NULL;
}

static int64_t guard_of(int64_t timeout_ms)
{
	if (timeout_ms < 0 || timeout_ms > INT32_MAX)
		return -1;
	return (timeout_ms ? timeout_ms : TIMEOUT_MS) + GUARD_MS;
}

aviary_op *aviary_sandbox_run_code(
    aviary_sandbox *sb, const char *code, const aviary_code_options *options)
{
	aviary_code_options o = {0};
	struct avc_pipe_spec spec = {.sb = sb, .take = take_run};
	struct avc_texts t = {0};
	struct run *run;
	char *body;

	if (options)
		memcpy(&o, options, AV_MIN(options->struct_size, sizeof(o)));
	body = make_body(code, &o, &t);
	if (!body)
		return avc_op_failed(sb->c, t.code, "%s%s",
		    t.code == AVIARY_E_INVALID ? t.what : "out of memory",
		    t.code == AVIARY_E_INVALID ? " is not UTF-8" : "");
	run = run_new(&o);
	spec.size = (int64_t)strlen(body);
	spec.source = avc_end_memory(body, strlen(body));
	free(body);
	spec.failed = !run || !spec.source;
	spec.sink = run ? &run->end : NULL;
	spec.ctx = run;
	spec.free_ctx = run ? run_ctx_free : NULL;
	spec.rq = (struct avc_request_spec){.method = "POST",
	    .path = "/run_code",
	    .source_type = "application/json",
	    .timeout_ms = guard_of(o.timeout_ms),
	    .idle_ms = -1,
	    .never_again = true};
	return avc_pipe(&spec);
}

aviary_code_result *aviary_op_take_code_result(aviary_op *op)
{
	return avc_op_take(op, &result_type);
}

aviary_code_result *aviary_sandbox_run_code_sync(
    aviary_sandbox *sb, const char *code, const aviary_code_options *options, aviary_error *error)
{
	return avc_op_await(aviary_sandbox_run_code(sb, code, options), &result_type, error);
}
