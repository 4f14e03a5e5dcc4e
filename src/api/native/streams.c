/* SPDX-License-Identifier: Apache-2.0 */
/*
 * streams.c - WebSocket conversations with a process: exec/stream and processes/{selector}/stream
 *
 * Theory of operation
 * -------------------
 * Two modes, chosen in the handshake. Without a subprotocol: JSON text messages, as the clients of
 * this dialect know them. With "aviary-frames.v1": binary messages, each of whole frames
 * (proto/frame.h), passed through both ways; the first one from the client begins with the CONTROL
 * frame that says what to run or attach to. Either way:
 *  - a client that does not read stops the process (socket → our watermark → the agent's window →
 *    its pipe), and a process that does not read stops the client. Nothing is dropped.
 *  - text is cut between characters only; bytes that are not UTF-8 become U+FFFD (text mode).
 *  - the last message is definite: exit, or error with its reason (also when the sandbox dies or
 * the daemon stops); then the session is closed with 1000.
 *  - a client that goes away detaches: what exec/stream started in text mode is killed with its
 *    group; in frames mode as its "onDetach" says; what was only attached to lives on.
 *
 * States: waiting (for the client's first message; exec/stream only, at most 30 s) → talking (exec
 * is set) → closing (exec is NULL again). The session ends in on_close, which frees the stream.
 *
 * A sandbox that does not exist or does not run is refused before the upgrade with 404 or 409. Only
 * the younger clients (those that say "capsules") in text mode expect an error message after it.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>

#include "api/native/shapes.h"
#include "api/request.h"
#include "control/sandbox.h"
#include "net/loop.h"
#include "net/wsock.h"
#include "proto/agent_api.h"
#include "proto/frame.h"
#include "proto/ws.h"
#include "base/banned.h"

#define FIRST_MESSAGE_MS 30000
#define MESSAGE_JSON_MAX ((size_t)1 << 20)
#define CARRY_MAX        4

struct stream {
	struct api *api;
	struct av_wsock *ws;
	struct node_exec *exec; /* NULL while waiting and closing */
	struct control_actor actor;
	char id[AV_ID_SIZE];
	bool frames; /* binary mode */
	bool waiting;
	bool input_paused;     /* the process does not read: the client must wait */
	struct av_timer timer; /* for the first message */
	/* text mode: the begun character at the end of stdout and stderr */
	struct {
		char p[CARRY_MAX];
		size_t n;
	} carry[2];
};

static void stream_free(struct stream *s)
{
	av_timer_stop(&s->timer);
	if (s->exec)
		node_exec_cancel(s->exec);
	s->api->metrics.streams_open--;
	free(s);
}

/* ---- to the client ---- */

static void after_send(struct stream *s, int r)
{
	if (r > 0 && s->exec)
		node_exec_pause(s->exec, true);
}

static void send_text(struct stream *s, struct av_buf *message)
{
	if (av_buf_error(message) < 0)
		av_wsock_abort(s->ws);
	else
		after_send(s, av_wsock_send(s->ws, true, av_buf_str(message)));
}

static void send_text_data(struct stream *s, const char *type, struct av_str data)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(MESSAGE_JSON_MAX);

	(void)av_buf_printf(&out, "{\"type\":\"%s\",\"data\":", type);
	(void)av_json_write_str(&out, data);
	(void)av_buf_append_char(&out, '}');
	send_text(s, &out);
}

/* The definite last message of a conversation that failed. */
static void send_failure(struct stream *s, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf json = AV_BUF_INIT(8192);
	AV_CLEANUP(av_buf_clear) struct av_buf frame = AV_BUF_INIT(8192 + AV_FRAME_HEADER);

	if (!s->frames) {
		send_text_data(s, "error", av_str_c(err->message));
	} else {
		api_write_err(&json, err);
		if (av_frame_write(&frame, AV_FRAME_CONTROL, av_buf_str(&json)) == 0)
			(void)av_wsock_send(s->ws, false, av_buf_str(&frame));
	}
}

static void stream_finish(struct stream *s)
{
	av_timer_stop(&s->timer);
	s->waiting = false;
	av_wsock_close(s->ws, AV_WS_CLOSE_NORMAL, NULL);
}

static void stream_fail(struct stream *s, const struct av_err *err)
{
	if (s->exec)
		node_exec_cancel(AV_TAKE_PTR(s->exec));
	send_failure(s, err);
	stream_finish(s);
}

/* ---- from the process ---- */

static void on_start(void *ctx, uint32_t pid, const char *tag)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(MESSAGE_JSON_MAX);
	struct stream *s = ctx;

	(void)av_buf_printf(&out, "{\"type\":\"start\",\"pid\":%" PRIu32, pid);
	if (tag && tag[0]) {
		(void)av_buf_append_c(&out, ",\"tag\":");
		(void)av_json_write_str(&out, av_str_c(tag));
	}
	(void)av_buf_append_char(&out, '}');
	send_text(s, &out);
}

static const char *channel_type(enum node_channel ch)
{
	return ch == NODE_CH_STDERR ? "stderr" : "stdout";
}

static void flush_carry(struct stream *s, enum node_channel ch)
{
	size_t i = ch == NODE_CH_STDERR;

	if (s->carry[i].n == 0)
		return;
	send_text_data(s, channel_type(ch), av_str_n(s->carry[i].p, s->carry[i].n));
	s->carry[i].n = 0;
}

static void on_output(void *ctx, enum node_channel ch, struct av_str data)
{
	AV_CLEANUP(av_buf_clear) struct av_buf joined = AV_BUF_INIT(NODE_FRAME_MAX + CARRY_MAX);
	struct stream *s = ctx;
	size_t i = ch == NODE_CH_STDERR, tail;

	if (s->carry[i].n) {
		if (av_buf_append(&joined, s->carry[i].p, s->carry[i].n) < 0 ||
		    av_buf_append_str(&joined, data) < 0) {
			av_wsock_abort(s->ws);
			return;
		}
		data = av_buf_str(&joined);
	}
	tail = av_utf8_incomplete_tail(data);
	memcpy(s->carry[i].p, data.p + data.n - tail, tail);
	s->carry[i].n = tail;
	data.n -= tail;
	if (data.n)
		send_text_data(s, channel_type(ch), data);
}

static void on_gap(void *ctx, uint64_t dropped)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(256);

	(void)av_buf_printf(&out, "{\"type\":\"gap\",\"dropped\":%" PRIu64 "}", dropped);
	send_text(ctx, &out);
}

static void send_exit(struct stream *s, const struct node_exec_end *end)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1024);

	(void)av_buf_printf(&out, "{\"type\":\"exit\",\"exit_code\":%d", end->exit_code);
	if (end->signal)
		(void)av_buf_printf(&out, ",\"signal\":%d", end->signal);
	if (end->timed_out)
		(void)av_buf_append_c(&out, ",\"timed_out\":true");
	if (end->oom_killed)
		(void)av_buf_append_c(&out, ",\"oom_killed\":true");
	(void)av_buf_append_char(&out, '}');
	send_text(s, &out);
}

static void on_end(void *ctx, const struct node_exec_end *end, const struct av_err *err)
{
	struct stream *s = ctx;

	s->exec = NULL;
	if (!s->frames) {
		flush_carry(s, NODE_CH_STDOUT);
		flush_carry(s, NODE_CH_STDERR);
	}
	if (err)
		send_failure(s, err);
	else if (!s->frames)
		send_exit(s, end);
	stream_finish(s);
}

static void on_frame(void *ctx, struct av_str frame)
{
	struct stream *s = ctx;

	after_send(s, av_wsock_send(s->ws, false, frame));
}

static void on_exec_drain(void *ctx)
{
	struct stream *s = ctx;

	s->input_paused = false;
	av_wsock_resume(s->ws);
}

static const struct node_exec_events text_events = {.on_start = on_start,
    .on_output = on_output,
    .on_gap = on_gap,
    .on_drain = on_exec_drain,
    .on_end = on_end};
static const struct node_exec_events frame_events = {
    .on_frame = on_frame, .on_drain = on_exec_drain, .on_end = on_end};

/* ---- from the client ---- */

static void pause_input(struct stream *s)
{
	if (s->input_paused)
		return;
	s->input_paused = true;
	av_wsock_pause(s->ws);
}

/* {"type":"start","cmd","args","envs","cwd","user","tag","timeout_sec","stdin":bool} */
static int text_start(struct stream *s, const json_t *message, struct av_err *err)
{
	struct node_exec_spec spec = {0};
	const char *type = "";
	int r;

	if ((r = av_json_get_str(message, "type", &type, err)) < 0)
		return r;
	if (!av_str_eq_c(av_str_c(type), "start"))
		return av_err_set(err, AV_ERR_INVALID,
		    "the first message must be {\"type\":\"start\",\"cmd\":...}");
	if ((r = native_parse_exec(message, 0, &spec, err)) < 0 ||
	    (r = av_json_get_bool(message, "stdin", &spec.stdin_open, err)) < 0)
		return r;
	return control_exec_stream(
	    s->api->control, &s->actor, s->id, &spec, &text_events, s, &s->exec, err);
}

/* {"type":"stop"}, {"type":"stdin","data":text}, {"type":"stdin_close"}; others are ignored. */
static int text_later(struct stream *s, const json_t *message, struct av_err *err)
{
	const char *type = "", *data = "";
	int r;

	if ((r = av_json_get_str(message, "type", &type, err)) < 0 ||
	    (r = av_json_get_str(message, "data", &data, err)) < 0)
		return r;
	if (av_str_eq_c(av_str_c(type), "stop"))
		(void)node_exec_signal(s->exec, SIGKILL, true);
	else if (av_str_eq_c(av_str_c(type), "stdin_close"))
		(void)node_exec_close_stdin(s->exec);
	else if (av_str_eq_c(av_str_c(type), "stdin") && data[0] &&
	         !node_exec_send(s->exec, NODE_CH_STDIN, av_str_c(data)))
		pause_input(s);
	return 0;
}

static int text_message(struct stream *s, struct av_str data, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *message = av_json_parse_object(data, err);

	if (!message)
		return -EINVAL;
	return s->exec ? text_later(s, message, err) : text_start(s, message, err);
}

/* The first message: a CONTROL frame, and whatever else fits behind it. */
static int frames_start(struct stream *s, struct av_str *data, struct av_err *err)
{
	struct av_str first;
	uint32_t n;
	int r;

	if (data->n < AV_FRAME_HEADER || data->p[4] != AV_FRAME_CONTROL)
		goto bad;
	n = av_get_be32(data->p);
	if (n > AV_FRAME_CONTROL_MAX || n > data->n - AV_FRAME_HEADER)
		goto bad;
	first = av_str_n(data->p + AV_FRAME_HEADER, n);
	r = control_exec_frames(
	    s->api->control, &s->actor, s->id, first, &frame_events, s, &s->exec, err);
	if (r < 0)
		return r;
	data->p += AV_FRAME_HEADER + n;
	data->n -= AV_FRAME_HEADER + n;
	return 0;
bad:
	return av_err_set(err, AV_ERR_INVALID,
	    "the first message must begin with one whole CONTROL frame that says what to run");
}

static int frames_message(struct stream *s, struct av_str data, struct av_err *err)
{
	bool more = true;
	int r;

	if (!s->exec && (r = frames_start(s, &data, err)) < 0)
		return r;
	if (data.n == 0)
		return 0;
	if (node_exec_send_frames(s->exec, data, &more) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "a message must hold whole frames of channels CONTROL, STDIN or PTY");
	if (!more)
		pause_input(s);
	return 0;
}

static void on_message(void *ctx, struct av_wsock *ws, bool text, struct av_str data)
{
	struct stream *s = ctx;
	struct av_err err;
	int r;

	(void)ws;
	if (!s->exec && !s->waiting)
		return; /* closing: what crosses our last message is dropped */
	if (text == s->frames)
		r = av_err_set(&err, AV_ERR_INVALID, "%s messages are expected here",
		    s->frames ? "binary" : "text");
	else
		r = s->frames ? frames_message(s, data, &err) : text_message(s, data, &err);
	if (r < 0) {
		stream_fail(s, &err);
		return;
	}
	s->waiting = false;
	av_timer_stop(&s->timer);
}

static void on_ws_drain(void *ctx, struct av_wsock *ws)
{
	struct stream *s = ctx;

	(void)ws;
	if (s->exec)
		node_exec_pause(s->exec, false);
}

static void on_ws_close(void *ctx, struct av_wsock *ws, int code)
{
	(void)ws;
	(void)code;
	stream_free(ctx);
}

static const struct av_wsock_handler ws_handler = {
    .on_message = on_message, .on_drain = on_ws_drain, .on_close = on_ws_close};

static void on_first_message_late(void *ctx)
{
	struct stream *s = ctx;
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_REQUEST_TIMEOUT,
	    "no message within %d s; the first one says what to run", FIRST_MESSAGE_MS / 1000);
	stream_fail(s, &err);
}

/* ---- handshake ---- */

/* Answers 4xx by itself and returns NULL, or upgrades; then rq is gone. */
static struct stream *stream_open(struct api_request *rq, struct av_err *ret_late)
{
	bool frames = av_req_ws_offers(rq->req, AV_AGENT_WS_PROTOCOL);
	struct stream *s = NULL;
	struct av_err err;
	int r;

	av_err_clear(ret_late);
	if (!av_req_is_websocket(rq->req)) {
		(void)av_err_set(&err, AV_ERR_INVALID,
		    "this path speaks WebSocket; open it with a handshake (RFC 6455, version 13)");
		api_send_err(rq, &err);
		return NULL;
	}
	r = control_ping(rq->api->control, &rq->actor, rq->id, &err);
	if (r < 0 && (frames || !rq->match.capsules)) {
		api_send_err(rq, &err);
		return NULL;
	}
	if (r < 0)
		*ret_late = err;
	s = calloc(1, sizeof *s);
	if (!s || av_req_upgrade_ws(
	              rq->req, frames ? AV_AGENT_WS_PROTOCOL : NULL, &ws_handler, s, &s->ws) < 0) {
		free(s);
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the session");
		api_send_err(rq, &err);
		return NULL;
	}
	/* A pager, a suspended terminal: a client may rest for as long as it likes. */
	av_wsock_set_write_timeout(s->ws, 0);
	s->api = rq->api;
	s->actor = rq->actor;
	s->frames = frames;
	memcpy(s->id, rq->id, sizeof s->id);
	s->api->metrics.streams_open++;
	av_timer_init(&s->timer, s->api->loop, on_first_message_late, s);
	return s;
}

void native_exec_stream(struct api_request *rq)
{
	struct av_err late;
	struct stream *s = stream_open(rq, &late);

	if (!s)
		return;
	api_request_release(rq);
	if (late.kind != AV_ERR_NONE) {
		stream_fail(s, &late);
		return;
	}
	s->waiting = true;
	av_timer_start(&s->timer, FIRST_MESSAGE_MS);
}

/* ?replay=false: only what comes from now on. */
static bool wants_replay(const struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(16);

	return av_http_query_get(av_req_query(rq->req), "replay", &text) < 0 ||
	       !av_str_eq_c(av_buf_str(&text), "false");
}

void native_process_stream(struct api_request *rq)
{
	bool replay = wants_replay(rq);
	char selector[API_PARAM_MAX + 1];
	struct node_selector sel;
	struct av_err late;
	struct stream *s;

	/* It must outlive the request. */
	if (av_str_copy(selector, sizeof selector, av_str_c(api_param(rq, "selector"))) < 0)
		selector[0] = '\0';
	s = stream_open(rq, &late);
	if (!s)
		return;
	api_request_release(rq);
	sel = native_parse_selector(selector);
	if (late.kind == AV_ERR_NONE)
		(void)control_exec_attach(s->api->control, &s->actor, s->id, &sel, replay, true,
		    s->frames ? &frame_events : &text_events, s, &s->exec, &late);
	if (!s->exec)
		stream_fail(s, &late);
}
