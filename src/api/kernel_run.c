/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_run.c - one execution in a kernel of a sandbox, and calls about kernels (see kernel_run.h)
 */
#include "api/kernel_run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/avtime.h"
#include "base/json.h"
#include "control/sandbox.h"
#include "net/loop.h"
#include "proto/agent_api.h"
#include "base/banned.h"

#define REQUEST_MAX  ((size_t)16 << 20)
#define ANSWER_MAX   ((size_t)1 << 20)
#define FINISHED_MAX 8192
#define STATUS_MAX   16
#define MESSAGE_MAX  512

struct kernel_run {
	struct api *api;
	struct node_stream *stream; /* NULL once over */
	struct kernel_run_events ev;
	void *ctx;
	struct control_actor actor;
	char id[AV_ID_SIZE];
	struct av_buf line; /* begun, not whole */
	size_t counted;     /* of it, in api->kernel_bytes */
	uint64_t oom_kills; /* of the sandbox, when this was opened */
	bool finished;      /* the last line came: the rest is kept below */
	char status[STATUS_MAX], message[MESSAGE_MAX];
	struct kernel_run_end end;
	struct av_err *error;   /* owned: why it fails, told from the loop */
	struct node_call *call; /* asking for OOM kills */
	struct av_timer timer;  /* bounds that; or tells the error */
	int64_t begun_ns;
};

/* ---- the end ---- */

static void run_free(struct kernel_run *r)
{
	r->api->kernel_bytes -= r->counted;
	av_timer_stop(&r->timer);
	if (r->stream)
		node_stream_cancel(r->stream);
	node_call_cancel(r->call);
	av_buf_clear(&r->line);
	free(r->error);
	free(r);
}

static void count(const struct kernel_run *r, enum av_err_kind kind)
{
	if (kind == AV_ERR_NONE)
		api_metrics_timed(&r->api->metrics, API_TIMING_RUN_CODE, r->begun_ns);
	av_trace_part(&r->actor.trace, "run_code", r->begun_ns, av_mono_ns(), kind, r->id);
}

void kernel_run_cancel(struct kernel_run *run)
{
	count(run, AV_ERR_CANCELED);
	run_free(run);
}

void kernel_run_pause(struct kernel_run *run, bool paused)
{
	if (run->stream)
		node_stream_pause(run->stream, paused);
}

static void tell(struct kernel_run *r, const struct av_err *err)
{
	struct kernel_run_events ev = r->ev;
	struct kernel_run_end end = r->end;
	char status[STATUS_MAX], message[MESSAGE_MAX];
	struct av_err copy;
	void *ctx = r->ctx;

	count(r, err ? err->kind : AV_ERR_NONE);
	memcpy(status, r->status, sizeof(status));
	memcpy(message, r->message, sizeof(message));
	end.status = status;
	end.message = message;
	if (err)
		copy = *err;
	run_free(r);
	ev.on_end(ctx, err ? NULL : &end, err ? &copy : NULL);
}

static void on_timer(void *ctx)
{
	struct kernel_run *r = ctx;

	tell(r, r->error);
}

/* What the agent sends is wrong: the stream ends, and the owner is told from the loop. */
static void broken(struct kernel_run *r, enum av_err_kind kind, const char *what)
{
	r->error = calloc(1, sizeof(*r->error));
	if (r->error)
		(void)av_err_set(r->error, kind, "%s", what);
	if (r->stream)
		node_stream_cancel(AV_TAKE_PTR(r->stream));
	/* Without memory for the reason it looks as if it had failed without one. */
	(void)snprintf(r->status, sizeof(r->status), "failed");
	av_timer_start(&r->timer, 0);
}

static void on_usage(void *ctx, const struct sandbox_usage *u, const struct av_err *err)
{
	struct kernel_run *r = ctx;

	r->call = NULL;
	if (!err && u->oom_kills > r->oom_kills) {
		r->end.oom_killed = true;
		(void)snprintf(r->message, sizeof(r->message),
		    "the kernel's process was killed because the sandbox reached its memory limit; "
		    "what was defined is lost, use less memory or create the sandbox with more");
	}
	tell(r, NULL);
}

/* False: nobody need be asked, or nobody can. */
static bool ask(struct kernel_run *r)
{
	struct av_err err;

	if (strcmp(r->status, "died") != 0 || !r->finished ||
	    control_usage(r->api->control, &r->actor, r->id, on_usage, r, &r->call, &err) < 0)
		return false;
	av_timer_start(&r->timer, KERNEL_RUN_ASK_MS);
	return true;
}

/* ---- lines ---- */

static void take_finished(struct kernel_run *r, struct av_str content)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	const char *status = "", *message = "";
	int64_t count = 0, signal = 0;
	struct av_err err;

	if (content.n <= FINISHED_MAX)
		j = av_json_parse_object(content, &err);
	if (!j || av_json_get_str(j, "status", &status, &err) < 0 ||
	    av_json_get_str(j, "message", &message, &err) < 0 ||
	    av_json_get_i64(j, "execution_count", 0, UINT32_MAX, &count, &err) < 0 ||
	    av_json_get_i64(j, "signal", 0, 128, &signal, &err) < 0 ||
	    av_json_get_bool(j, "timed_out", &r->end.timed_out, &err) < 0 ||
	    av_str_copy(r->status, sizeof(r->status), av_str_c(status)) < 0) {
		broken(r, AV_ERR_AGENT, "the sandbox's agent ended the execution with nonsense");
		return;
	}
	(void)snprintf(r->message, sizeof(r->message), "%s", message);
	r->end.count = (uint32_t)count;
	r->finished = true;
}

static void take_line(struct kernel_run *r, struct av_str line)
{
	enum av_jupyter_line type;
	struct av_str content;

	if (r->finished || av_jupyter_line_parse(line, &type, &content) < 0)
		broken(r, AV_ERR_AGENT,
		    "the sandbox's agent sent something that is no line of an execution");
	else if (type == AV_JUPYTER_LINE_FINISHED)
		take_finished(r, content);
	else
		r->ev.on_line(r->ctx, type, content);
}

/* Keeps what has no end yet. */
static bool keep(struct kernel_run *r, struct av_str data)
{
	if (data.n > KERNEL_RUN_TOTAL_MAX - r->api->kernel_bytes) {
		broken(r, AV_ERR_RATE_LIMITED,
		    "results that are on their way have more than 256 MiB together; try again");
		return false;
	}
	if (av_buf_append_str(&r->line, data) < 0) {
		broken(r, AV_ERR_AGENT, "the sandbox's agent sent a line of more than 16 MiB");
		return false;
	}
	r->counted += data.n;
	r->api->kernel_bytes += data.n;
	return true;
}

static void on_data(void *ctx, struct av_str data)
{
	struct kernel_run *r = ctx;

	/* on_line may cancel only from the loop's next turn on (see kernel_run.h's users), but
	 * `broken` ends the stream. */
	while (data.n && r->stream) {
		ptrdiff_t end = av_str_chr(data, '\n');
		struct av_str piece = end < 0 ? data : av_str_n(data.p, (size_t)end);

		data = end < 0 ? AV_STR("") : av_str_n(data.p + end + 1, data.n - (size_t)end - 1);
		if (end < 0 || r->line.n) {
			if (!keep(r, piece) || end < 0)
				return;
			piece = av_buf_str(&r->line);
		}
		take_line(r, piece);
		r->api->kernel_bytes -= r->counted;
		r->counted = 0;
		av_buf_clear(&r->line);
	}
}

static void on_end(void *ctx, const struct av_err *err)
{
	struct kernel_run *r = ctx;
	struct av_err e;

	r->stream = NULL;
	if (err) {
		tell(r, err);
	} else if (!r->finished) {
		(void)av_err_set(&e, AV_ERR_AGENT, "the sandbox's agent broke the execution off");
		tell(r, &e);
	} else if (!ask(r)) {
		tell(r, NULL);
	}
}

static const struct node_stream_events stream_events = {.on_data = on_data, .on_end = on_end};

/* ---- the request ---- */

static void write_member(struct av_buf *out, const char *name, const char *value)
{
	if (!value)
		return;
	(void)av_buf_printf(out, ",\"%s\":", name);
	(void)av_json_write_str(out, av_str_c(value));
}

static int write_request(struct av_buf *out, const struct kernel_run_spec *spec)
{
	(void)av_buf_printf(out, "{\"silent\":%s,\"store_history\":%s",
	    spec->silent ? "true" : "false", spec->no_store ? "false" : "true");
	write_member(out, "code", spec->code);
	write_member(out, "context_id", spec->kernel_id);
	write_member(out, "language", spec->language);
	write_member(out, "shell", spec->shell);
	if (spec->timeout_ms)
		(void)av_buf_printf(out, ",\"timeout_ms\":%lld", (long long)spec->timeout_ms);
	if (spec->envs) {
		(void)av_buf_append_c(out, ",\"env_vars\":");
		(void)av_json_dump(out, spec->envs);
	}
	if (spec->formats) {
		(void)av_buf_append_c(out, ",\"figure_formats\":");
		(void)av_json_dump(out, spec->formats);
	}
	return av_buf_append_char(out, '}');
}

static int open_stream(struct kernel_run *r, const struct kernel_run_spec *spec, struct av_err *err)
{
	static const struct node_header headers[] = {
	    {AV_STR("content-type"), AV_STR(AV_AGENT_CT_JSON)},
	    {AV_STR("accept"), AV_STR(AV_AGENT_CT_KERNEL)},
	};
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(REQUEST_MAX);
	struct node_stream_request rq = {
	    .method = "POST",
	    .path = AV_STR(AV_AGENT_PATH_EXECUTE),
	    .headers = headers,
	    .n_headers = AV_ARRAY_LEN(headers),
	    .interactive = true,
	    .map_errors = true,
	};

	if (write_request(&body, spec) < 0)
		return av_err_set(err, AV_ERR_TOO_LARGE,
		    "code and environment have more than %zu bytes as JSON", REQUEST_MAX);
	rq.body = av_buf_str(&body);
	return control_stream(
	    r->api->control, &r->actor, r->id, &rq, &stream_events, r, &r->stream, err);
}

int kernel_run_open(struct api *api, const struct control_actor *actor, const char *id,
    const struct kernel_run_spec *spec, const struct kernel_run_events *ev, void *ctx,
    struct kernel_run **ret, struct av_err *err)
{
	struct kernel_run *r = calloc(1, sizeof(*r));
	int x;

	if (!r)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	r->api = api;
	r->actor = *actor;
	r->ev = *ev;
	r->ctx = ctx;
	(void)snprintf(r->id, sizeof(r->id), "%s", id);
	av_buf_init(&r->line, AV_AGENT_LINE_MAX);
	av_timer_init(&r->timer, api->loop, on_timer, r);
	r->begun_ns = av_mono_ns();
	r->oom_kills = control_oom_kills(api->control, actor, id);
	x = open_stream(r, spec, err);
	if (x < 0) {
		run_free(r);
		return x;
	}
	*ret = r;
	return 0;
}

/* ---- calls ---- */

struct kernel_call {
	struct node_stream *stream; /* NULL once over */
	struct av_buf body;
	bool listed;
	kernel_call_fn *fn;
	void *ctx;
};

static void call_free(struct kernel_call *c)
{
	if (c->stream)
		node_stream_cancel(c->stream);
	av_buf_clear(&c->body);
	free(c);
}

void kernel_call_cancel(struct kernel_call *call)
{
	if (call)
		call_free(call);
}

static void call_data(void *ctx, struct av_str data)
{
	struct kernel_call *c = ctx;

	/* Too much shows at the end, as an error that sticks. */
	(void)av_buf_append_str(&c->body, data);
}

static void call_end(void *ctx, const struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *answer = NULL;
	struct kernel_call *c = ctx;
	kernel_call_fn *fn = c->fn;
	void *fn_ctx = c->ctx;
	struct av_err e;

	c->stream = NULL;
	if (!err) {
		if (c->listed)
			(void)av_buf_append_char(&c->body, '}');
		if (av_buf_error(&c->body) == 0)
			answer = av_json_parse_object(av_buf_str(&c->body), NULL);
		if (!answer)
			(void)av_err_set(&e, AV_ERR_AGENT,
			    "the sandbox's agent answered with something that is no answer");
	} else {
		e = *err;
	}
	call_free(c);
	fn(fn_ctx, answer, answer ? NULL : &e);
}

static const struct node_stream_events call_events = {.on_data = call_data, .on_end = call_end};

int kernel_call_open(struct api *api, const struct control_actor *actor, const char *id,
    const char *method, const char *path, struct av_str body, kernel_call_fn *fn, void *ctx,
    struct kernel_call **ret, struct av_err *err)
{
	static const struct node_header headers[] = {
	    {AV_STR("content-type"), AV_STR(AV_AGENT_CT_JSON)}};
	struct kernel_call *c = calloc(1, sizeof(*c));
	struct node_stream_request rq = {
	    .method = method,
	    .headers = headers,
	    .n_headers = body.n ? 1 : 0,
	    .body = body,
	    .interactive = true,
	    .map_errors = true,
	};
	char full[128];
	int x;

	if (!c)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	(void)snprintf(full, sizeof(full), AV_AGENT_PATH_CONTEXTS "%s", path);
	rq.path = av_str_c(full);
	c->fn = fn;
	c->ctx = ctx;
	av_buf_init(&c->body, ANSWER_MAX);
	/* Arrays and null become a member of an object, which is what is parsed. */
	c->listed = !(method[0] == 'G' && path[0]) && !(method[0] == 'P' && !path[0]);
	if (c->listed)
		(void)av_buf_append_c(&c->body, "{\"list\":");
	x = control_stream(api->control, actor, id, &rq, &call_events, c, &c->stream, err);
	if (x < 0) {
		call_free(c);
		return x;
	}
	*ret = c;
	return 0;
}
