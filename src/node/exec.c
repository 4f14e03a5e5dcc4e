/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - a process inside a sandbox as a conversation of frames
 *
 * Theory of operation. The request and the answer are both open streams of frames (proto/frame.h).
 * Ours begins with one CONTROL frame that says what to start or what to attach to; theirs with
 * CONTROL
 * {"start"} and ends with CONTROL {"end"} or {"error"}, after which the answer must be complete. A
 * data frame may arrive in pieces; each piece is passed on at once (as a frame of its own to
 * on_frame), so that nothing of a frame's size is ever held. While the owner paused, the stream's
 * window is not refilled: the agent stalls, and with it the process.
 *
 * Nobody inside can tell who sent a SIGKILL. When a process ended by one that was not ours, the
 * machine is asked for its count of OOM kills before the owner hears of the end (`asking`): the
 * conversation is over by then, and only the memory of the exec waits for the answer, for ASK_MS.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/json.h"
#include "base/num.h"
#include "base/path.h"
#include "node/node_internal.h"
#include "proto/agent_api.h"
#include "proto/frame.h"

#include "base/banned.h"

#define FIRST_MAX (4UL * 1024 * 1024)
#define SAFETY_MS 10000 /* beyond the process's own time-out */
#define ASK_MS    2000

struct node_exec {
	struct conv conv; /* first */
	struct node_exec_events ev;
	void *ctx;
	struct av_frame_dec dec;
	struct av_buf error_body; /* of an answer that is not 200 */
	int bad_status;
	bool started;
	bool have_end;
	bool snapshot; /* without following: the stream ends while the process goes on */
	bool paused;
	size_t owed;        /* bytes not given back to the window */
	bool we_killed;     /* by node_exec_signal */
	bool asking;        /* on_inspected will come */
	bool told;          /* while asking: the owner heard the end, or cancelled */
	bool closed;        /* while asking: the stream is gone, free when it is over */
	uint64_t oom_kills; /* of the sandbox, when this was opened */
	struct node_exec_end end;
	json_t *end_event;        /* owned: what on_frame gets at the end */
	struct av_err *agent_err; /* owned: from an "error" frame */
	struct av_timer safety;   /* also bounds the asking */
	int64_t frozen_ns;        /* node_sandbox_frozen_ns when the time began to count */
	int64_t opened_ns;        /* 0: its time was counted, or it is no start of a process */
	struct av_trace trace;
};

static_assert(NODE_CH_CONTROL == (int)AV_FRAME_CONTROL && NODE_CH_STDIN == (int)AV_FRAME_STDIN &&
                  NODE_CH_STDOUT == (int)AV_FRAME_STDOUT &&
                  NODE_CH_STDERR == (int)AV_FRAME_STDERR && NODE_CH_PTY == (int)AV_FRAME_PTY &&
                  NODE_FRAME_MAX == AV_FRAME_DATA_MAX,
    "stream.h repeats the numbers of frame.h");

static struct node_exec *to_exec(struct conv *c)
{
	return AV_CONTAINER_OF(c, struct node_exec, conv);
}

static void exec_free(struct conv *c);

/* It is over, in whatever way; only the first call counts. */
static void count_end(struct node_exec *e, enum av_err_kind kind)
{
	struct node_sandbox *sb = e->conv.sb;
	int64_t now = av_mono_ns();

	if (!e->opened_ns)
		return;
	if (sb && e->have_end)
		av_hist_add(&sb->node->stats.exec, now - e->opened_ns);
	av_trace_part(&e->trace, "exec", e->opened_ns, now, kind, sb ? sb->id : NULL);
	e->opened_ns = 0;
}

/* ---- frames from the agent ---- */

static bool is_over(const struct node_exec *e)
{
	return e->conv.over || e->conv.pending;
}

static void broken(struct node_exec *e, const char *what)
{
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_AGENT, "the sandbox's agent broke the protocol: %s", what);
	conv_abort(&e->conv, &err);
}

static void pass_frame(struct node_exec *e, enum av_frame_channel ch, struct av_str payload)
{
	uint8_t header[AV_FRAME_HEADER];

	av_frame_header(header, ch, payload.n);
	e->ev.on_frame(e->ctx, av_str_n((const char *)header, sizeof(header)), payload);
}

/* The end frame, for owners of frames. */
static void pass_end(struct node_exec *e)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(AV_FRAME_CONTROL_MAX);

	if (!e->end_event)
		return;
	if (e->end.oom_killed)
		(void)json_object_set_new(
		    json_object_get(e->end_event, "end"), "oomKilled", json_true());
	if (av_json_dump(&text, e->end_event) < 0)
		broken(e, "an end that does not fit into memory");
	else
		pass_frame(e, AV_FRAME_CONTROL, av_buf_str(&text));
}

static void take_start(struct node_exec *e, const json_t *start)
{
	json_int_t pid = json_integer_value(json_object_get(start, "pid"));
	const char *tag = json_string_value(json_object_get(start, "tag"));

	if (e->started || pid <= 0 || pid > UINT32_MAX) {
		broken(e, "bad start event");
		return;
	}
	e->started = true;
	if (e->opened_ns)
		av_hist_add(&e->conv.sb->node->stats.exec_start, av_mono_ns() - e->opened_ns);
	if (!e->ev.on_frame && e->ev.on_start)
		e->ev.on_start(e->ctx, (uint32_t)pid, tag ? tag : "");
}

static void take_end(struct node_exec *e, const json_t *end)
{
	json_int_t code = json_integer_value(json_object_get(end, "exitCode"));
	json_int_t sig = json_integer_value(json_object_get(end, "signal"));
	const char *status = json_string_value(json_object_get(end, "status"));

	if (code < -1 || code > 255 || sig < 0 || sig > 64) {
		broken(e, "bad end event");
		return;
	}
	e->end.exited = json_is_true(json_object_get(end, "exited"));
	e->end.signal = e->end.exited ? 0 : (int)sig;
	e->end.exit_code = e->end.exited ? (int)AV_MAX(code, 0) : 128 + (int)sig;
	e->end.core_dumped = json_is_true(json_object_get(end, "coreDumped"));
	e->end.timed_out = json_is_true(json_object_get(end, "timedOut"));
	if (status)
		memcpy(e->end.status, status, strnlen(status, sizeof(e->end.status) - 1));
	e->have_end = true;
}

static void take_error(struct node_exec *e, const json_t *error)
{
	if (e->agent_err)
		return;
	e->agent_err = calloc(1, sizeof(*e->agent_err));
	if (e->agent_err)
		agent_error_json(e->agent_err, error);
}

static int on_control(void *ctx, struct av_str payload)
{
	struct node_exec *e = ctx;
	AV_CLEANUP(av_json_decrefp) json_t *j = av_json_parse_object(payload, NULL);
	const json_t *v;

	if (!j) {
		broken(e, "an event that is no JSON object");
		return 1;
	}
	v = json_object_get(j, "end");
	if (v)
		take_end(e, v);
	else if (e->ev.on_frame)
		pass_frame(e, AV_FRAME_CONTROL, payload);
	if (is_over(e))
		return 1;
	if (v && e->ev.on_frame) {
		json_decref(e->end_event);
		e->end_event = AV_TAKE_PTR(j);
	}
	if (v)
		return 0;
	if ((v = json_object_get(j, "start")))
		take_start(e, v);
	else if ((v = json_object_get(j, "error")))
		take_error(e, v);
	else if ((v = json_object_get(j, "gap")) && !e->ev.on_frame && e->ev.on_gap)
		e->ev.on_gap(
		    e->ctx, (uint64_t)AV_MAX(json_integer_value(json_object_get(v, "dropped")), 0));
	return is_over(e) ? 1 : 0;
}

static int on_frame_data(void *ctx, enum av_frame_channel ch, const uint8_t *p, size_t n, bool last)
{
	struct node_exec *e = ctx;
	struct av_str data = av_str_n((const char *)p, n);

	(void)last;
	if ((ch != AV_FRAME_STDOUT && ch != AV_FRAME_STDERR && ch != AV_FRAME_PTY) || !e->started) {
		broken(e, e->started ? "input from the wrong side" : "output before the start");
		return 1;
	}
	if (n == 0 || e->have_end)
		return 0;
	if (e->ev.on_frame)
		pass_frame(e, ch, data);
	else if (e->ev.on_output)
		e->ev.on_output(e->ctx, (enum node_channel)ch, data);
	return is_over(e) ? 1 : 0;
}

static const struct av_frame_events frame_events = {
    .on_control = on_control,
    .on_data = on_frame_data,
};

/* ---- the stream below ---- */

static void give_back(struct node_exec *e, size_t n)
{
	if (e->paused)
		e->owed += n;
	else if (e->conv.h2s)
		av_h2s_consume(e->conv.h2s, n);
}

static void exec_on_response(struct conv *c, const struct av_http_head *head)
{
	struct node_exec *e = to_exec(c);

	if (head->status != 200)
		e->bad_status = head->status;
}

static void exec_on_data(struct conv *c, struct av_str data)
{
	struct node_exec *e = to_exec(c);
	ssize_t used;

	if (e->bad_status) {
		(void)av_buf_append_str(&e->error_body, data);
		give_back(e, data.n);
		return;
	}
	used = av_frame_dec_feed(&e->dec, data.p, data.n, &frame_events, e);
	if (used < 0 && !is_over(e))
		broken(e, "a frame that is none");
	give_back(e, data.n);
}

static void tell_end(struct node_exec *e)
{
	struct node_exec_end end = e->end;

	e->ev.on_end(e->ctx, e->have_end ? &end : NULL, NULL);
}

/* ---- was it the OOM killer ---- */

/* Shells hand a child's death on as an exit status. */
static bool may_be_oom(const struct node_exec *e)
{
	bool killed = e->end.exited ? e->end.exit_code == 128 + SIGKILL : e->end.signal == SIGKILL;

	return e->have_end && killed && !e->end.timed_out && !e->we_killed;
}

static void tell_asked(struct node_exec *e)
{
	if (e->told)
		return;
	pass_end(e);
	if (e->told)
		return; /* on_frame cancelled it */
	e->told = true;
	tell_end(e);
}

static void on_inspected(void *ctx, const struct driver_status *st, const struct av_err *err)
{
	struct node_exec *e = ctx;

	av_timer_stop(&e->safety);
	e->end.oom_killed = !err && st->oom_kills > e->oom_kills;
	tell_asked(e);
	e->asking = false;
	if (e->closed)
		exec_free(&e->conv);
}

static void on_ask_late(void *ctx)
{
	tell_asked(ctx);
}

/* False: not worth it, or not possible now. */
static bool ask(struct node_exec *e)
{
	struct node_sandbox *sb = e->conv.sb;

	if (!may_be_oom(e) || node_inspect(sb->node, sb->id, on_inspected, e) < 0)
		return false;
	e->asking = true;
	av_timer_init(&e->safety, sb->node->loop, on_ask_late, e);
	av_timer_start(&e->safety, ASK_MS);
	return true;
}

static void exec_on_complete(struct conv *c)
{
	struct node_exec *e = to_exec(c);
	struct av_err err;

	if (e->bad_status) {
		agent_error(&err, e->bad_status, av_buf_str(&e->error_body));
		conv_fail(c, &err);
	} else if (e->agent_err) {
		err = *e->agent_err;
		conv_fail(c, &err);
	} else if ((!e->have_end && !e->snapshot) || !av_frame_dec_idle(&e->dec)) {
		(void)av_err_set(&err, AV_ERR_AGENT,
		    "the sandbox's agent left without saying how the process ended");
		conv_fail(c, &err);
	} else {
		(void)av_failpoint("exec.ended");
		count_end(e, AV_ERR_NONE);
		av_timer_stop(&e->safety);
		if (ask(e)) {
			conv_end(c, true);
			return;
		}
		pass_end(e);
		if (is_over(e))
			return;    /* on_frame cancelled it */
		conv_end(c, true); /* the memory lives until the stream is closed */
		tell_end(e);
	}
}

static void exec_on_writable(struct conv *c)
{
	struct node_exec *e = to_exec(c);

	if (e->ev.on_drain)
		e->ev.on_drain(e->ctx);
}

static void exec_fail(struct conv *c, const struct av_err *err)
{
	struct node_exec *e = to_exec(c);

	av_timer_stop(&e->safety);
	count_end(e, err->kind);
	e->ev.on_end(e->ctx, NULL, err);
}

static void exec_free(struct conv *c)
{
	struct node_exec *e = to_exec(c);

	e->closed = true;
	if (e->asking)
		return;
	av_timer_stop(&e->safety);
	json_decref(e->end_event);
	av_frame_dec_clear(&e->dec);
	av_buf_clear(&e->error_body);
	free(e->agent_err);
	free(e);
}

static const struct conv_ops exec_ops = {
    .on_response = exec_on_response,
    .on_data = exec_on_data,
    .on_complete = exec_on_complete,
    .on_writable = exec_on_writable,
    .fail = exec_fail,
    .free = exec_free,
};

/* Time in which nothing ran does not count. */
static void on_safety(void *ctx)
{
	struct node_exec *e = ctx;
	int64_t more_ns = node_sandbox_frozen_ns(e->conv.sb) - e->frozen_ns;
	struct av_err err;

	if (more_ns > 0) {
		e->frozen_ns += more_ns;
		av_timer_start(&e->safety, (uint64_t)(more_ns / AV_NS_PER_MS) + SAFETY_MS);
		return;
	}
	(void)av_err_set(&err, AV_ERR_EXEC_TIMEOUT,
	    "the sandbox's agent did not end the process when its time was over");
	conv_fail(&e->conv, &err);
}

/* ---- opening ---- */

static int open_frames(struct node_sandbox *sb, const char *path, struct av_str first,
    const struct node_exec_events *ev, void *ctx, struct node_exec **ret, struct av_err *err)
{
	const struct av_http_header headers[] = {
	    {AV_STR("content-type"), AV_STR(AV_AGENT_CT_FRAMES)},
	};
	const struct av_h2s_request rq = {
	    .method = AV_STR("POST"),
	    .path = av_str_c(path),
	    .authority = AV_STR(AV_AGENT_AUTHORITY),
	    .headers = headers,
	    .n_headers = AV_ARRAY_LEN(headers),
	    .has_body = true,
	};
	struct node_exec *e;
	int r;

	if (first.n > AV_FRAME_CONTROL_MAX)
		return av_err_set(err, AV_ERR_TOO_LARGE,
		    "command, arguments and environment are %zu bytes; at most %d are allowed",
		    first.n, AV_FRAME_CONTROL_MAX);
	e = calloc(1, sizeof(*e));
	if (!e)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	e->ev = *ev;
	e->ctx = ctx;
	av_frame_dec_init(&e->dec);
	av_buf_init(&e->error_body, ERROR_BODY_MAX);
	av_timer_init(&e->safety, sb->node->loop, on_safety, e);
	e->oom_kills = sb->oom_kills;
	e->frozen_ns = node_sandbox_frozen_ns(sb);
	r = conv_open(&e->conv, sb, LINK_INTERACTIVE, &exec_ops, &rq, err);
	if (r < 0) {
		exec_free(&e->conv);
		return r;
	}
	(void)node_exec_send(e, NODE_CH_CONTROL, first);
	(void)av_failpoint("exec.opened");
	*ret = e;
	return 0;
}

/* A copy of v under name, or nothing when v is NULL. False when out of memory. */
static bool put(json_t *obj, const char *name, const json_t *v)
{
	return !v || json_object_set_new(obj, name, json_deep_copy(v)) == 0;
}

static bool put_str(json_t *obj, const char *name, const char *v)
{
	return !v || json_object_set_new(obj, name, json_string(v)) == 0;
}

static json_t *start_request(const struct node_exec_spec *s)
{
	AV_CLEANUP(av_json_decrefp) json_t *rq = json_object();
	json_t *process = json_object();
	bool good = rq && process && json_object_set_new(rq, "process", process) == 0;

	good = good && put_str(process, "cmd", s->cmd) && put(process, "args", s->args) &&
	       put(process, "envs", s->envs) && put_str(process, "cwd", s->cwd);
	good = good && put_str(rq, "tag", s->tag) && put_str(rq, "user", s->user);
	good = good && json_object_set_new(rq, "stdin", json_boolean(s->stdin_open)) == 0 &&
	       json_object_set_new(rq, "killGroup", json_true()) == 0 &&
	       put_str(rq, "onDetach", s->keep_on_detach ? "keep" : "kill");
	if (s->unattended)
		good = good && json_object_set_new(rq, "follow", json_false()) == 0;
	if (s->timeout_ms > 0)
		good =
		    good && json_object_set_new(rq, "timeoutMs", json_integer(s->timeout_ms)) == 0;
	if (s->pty_cols && s->pty_rows)
		good =
		    good && json_object_set_new(rq, "pty",
		                json_pack("{s:{s:I,s:I}}", "size", "cols", (json_int_t)s->pty_cols,
		                    "rows", (json_int_t)s->pty_rows)) == 0;
	return good ? AV_TAKE_PTR(rq) : NULL;
}

static int open_json(struct node_sandbox *sb, const char *path, const json_t *first,
    const struct node_exec_events *ev, void *ctx, struct node_exec **ret, struct av_err *err)
{
	struct av_buf b = AV_BUF_INIT(FIRST_MAX);
	struct node_exec *e = NULL;
	int r;

	if (!first || (av_json_dump(&b, first) < 0 && av_buf_error(&b) != -EMSGSIZE)) {
		(void)av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		r = -ENOMEM;
	} else if (av_buf_error(&b)) {
		(void)av_err_set(err, AV_ERR_TOO_LARGE,
		    "command, arguments and environment are more than %lu bytes", FIRST_MAX);
		r = -EMSGSIZE;
	} else {
		r = open_frames(sb, path, av_buf_str(&b), ev, ctx, &e, err);
	}
	av_buf_clear(&b);
	if (!e)
		return r;
	e->snapshot = json_is_false(json_object_get(first, "follow"));
	if (strcmp(path, AV_AGENT_PATH_START) == 0)
		e->opened_ns = av_mono_ns();
	*ret = e;
	return 0;
}

int node_exec_open(struct node_sandbox *sb, const struct node_exec_spec *spec,
    const struct node_exec_events *ev, void *ctx, struct node_exec **ret, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *rq = NULL;
	struct node_exec *e = NULL;
	int r;

	if (!spec->cmd || !spec->cmd[0])
		return av_err_set(err, AV_ERR_INVALID, "cmd is required");
	rq = start_request(spec);
	r = open_json(sb, AV_AGENT_PATH_START, rq, ev, ctx, &e, err);
	if (r < 0)
		return r;
	if (spec->timeout_ms > 0)
		av_timer_start(&e->safety, (uint64_t)spec->timeout_ms + SAFETY_MS);
	if (spec->trace)
		e->trace = *spec->trace;
	*ret = e;
	return 0;
}

void node_exec_set_trace(struct node_exec *e, const struct av_trace *trace)
{
	e->trace = *trace;
}

int node_exec_attach(struct node_sandbox *sb, const struct node_selector *sel, bool replay,
    bool follow, const struct node_exec_events *ev, void *ctx, struct node_exec **ret,
    struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *rq = NULL;

	if (sel->pid)
		rq = json_pack("{s:{s:I},s:b,s:b}", "process", "pid", (json_int_t)sel->pid,
		    "replay", replay, "follow", follow);
	else
		rq = json_pack("{s:{s:s},s:b,s:b}", "process", "tag", sel->tag ? sel->tag : "",
		    "replay", replay, "follow", follow);
	if (!rq)
		return av_err_set(err, AV_ERR_INVALID, "the tag is not valid text");
	return open_json(sb, AV_AGENT_PATH_CONNECT, rq, ev, ctx, ret, err);
}

int node_exec_open_raw(struct node_sandbox *sb, struct av_str first,
    const struct node_exec_events *ev, void *ctx, struct node_exec **ret, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *rq = av_json_parse_object(first, err);
	AV_CLEANUP(av_json_decrefp) json_t *connect = NULL;

	if (!rq)
		return -EINVAL;
	connect = json_incref(json_object_get(rq, "connect"));
	if (!connect) {
		const json_t *process = json_object_get(rq, "process");

		if (!json_is_string(json_object_get(process, "cmd")))
			return av_err_set(err, AV_ERR_INVALID, "process.cmd is required");
		return open_json(sb, AV_AGENT_PATH_START, rq, ev, ctx, ret, err);
	}
	if (!json_is_object(connect))
		return av_err_set(err, AV_ERR_INVALID, "connect must be an object");
	/* {"connect":{"process":…},"replay":…} and {"connect":{"process":…,"replay":…}} mean the
	 * same. */
	(void)json_object_del(rq, "connect");
	if (json_object_update_missing(rq, connect) < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return open_json(sb, AV_AGENT_PATH_CONNECT, rq, ev, ctx, ret, err);
}

/* ---- towards the agent ---- */

/* False when nothing more should be sent now. */
static bool write_out(struct node_exec *e, struct av_str bytes)
{
	struct av_err err;
	int r;

	if (!e->conv.h2s || is_over(e))
		return true;
	r = av_h2s_write(e->conv.h2s, bytes);
	if (r == -ENOMEM) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		conv_abort(&e->conv, &err);
	}
	return r != 1;
}

static bool write_frame(struct node_exec *e, enum node_channel ch, struct av_str payload)
{
	uint8_t header[AV_FRAME_HEADER];
	bool more;

	av_frame_header(header, (enum av_frame_channel)ch, payload.n);
	more = write_out(e, av_str_n((const char *)header, sizeof(header)));
	if (payload.n)
		more = write_out(e, payload);
	return more;
}

bool node_exec_send(struct node_exec *e, enum node_channel channel, struct av_str data)
{
	size_t max = channel == NODE_CH_CONTROL ? AV_FRAME_CONTROL_MAX : AV_FRAME_DATA_MAX;
	bool more = true;

	if (data.n == 0)
		return write_frame(e, channel, data);
	while (data.n) {
		size_t n = AV_MIN(data.n, max);

		more = write_frame(e, channel, av_str_n(data.p, n));
		data.p += n;
		data.n -= n;
	}
	return more;
}

int node_exec_send_frames(struct node_exec *e, struct av_str frames, bool *ret_more)
{
	struct av_str rest = frames;

	while (rest.n) {
		size_t n, max;

		if (rest.n < AV_FRAME_HEADER)
			return -EINVAL;
		n = av_get_be32(rest.p);
		if (rest.p[4] != AV_FRAME_CONTROL && rest.p[4] != AV_FRAME_STDIN &&
		    rest.p[4] != AV_FRAME_PTY)
			return -EINVAL;
		max = rest.p[4] == AV_FRAME_CONTROL ? AV_FRAME_CONTROL_MAX : AV_FRAME_DATA_MAX;
		if (n > max || n > rest.n - AV_FRAME_HEADER)
			return -EINVAL;
		rest.p += AV_FRAME_HEADER + n;
		rest.n -= AV_FRAME_HEADER + n;
	}
	*ret_more = frames.n ? write_out(e, frames) : true;
	return 0;
}

bool node_exec_close_stdin(struct node_exec *e)
{
	return node_exec_send(e, NODE_CH_STDIN, AV_STR(""));
}

bool node_exec_resize(struct node_exec *e, uint32_t cols, uint32_t rows)
{
	char text[96];

	if (av_path_printf(
	        text, sizeof(text), "{\"resize\":{\"cols\":%u,\"rows\":%u}}", cols, rows) < 0)
		return true;
	return node_exec_send(e, NODE_CH_CONTROL, av_str_c(text));
}

bool node_exec_signal(struct node_exec *e, int signo, bool group)
{
	const char *name = sigabbrev_np(signo);
	char text[96];

	if (!name || av_path_printf(text, sizeof(text), "{\"signal\":\"SIG%s\",\"scope\":\"%s\"}",
	                 name, group ? "group" : "process") < 0)
		return true;
	e->we_killed |= signo == SIGKILL;
	return node_exec_send(e, NODE_CH_CONTROL, av_str_c(text));
}

bool node_exec_is_backed_up(const struct node_exec *e)
{
	return e->conv.h2s && av_h2s_pending(e->conv.h2s) > 0;
}

void node_exec_pause(struct node_exec *e, bool paused)
{
	size_t owed = e->owed;

	e->paused = paused;
	if (paused || !owed)
		return;
	e->owed = 0;
	if (e->conv.h2s && !e->conv.over)
		av_h2s_consume(e->conv.h2s, owed);
}

void node_exec_cancel(struct node_exec *e)
{
	av_timer_stop(&e->safety);
	count_end(e, AV_ERR_CANCELED);
	/* What was typed, or a signal, just before the client went is for the process. */
	if (!e->asking && e->conv.h2s)
		av_h2s_flush(e->conv.h2s);
	if (e->asking)
		e->told = true; /* over already; on_inspected frees it */
	else
		conv_end(&e->conv, false);
}
