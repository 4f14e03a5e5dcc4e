/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - WebSocket conversations with processes: handshake, first message, end (see session.h)
 */
#include "api/native/session.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "api/auth.h"
#include "control/sandbox.h"
#include "proto/ws.h"
#include "base/banned.h"

#define AUTH_MESSAGE_MAX 4096
#define ERROR_JSON_MAX   8192
#define EXIT_JSON_MAX    256

static void stop(struct session *s)
{
	av_timer_stop(&s->timer);
	if (s->exec)
		node_exec_cancel(AV_TAKE_PTR(s->exec));
	if (s->kind->stop)
		s->kind->stop(s);
}

/* ---- to the client ---- */

void session_send2(struct session *s, bool text, struct av_str head, struct av_str body)
{
	s->api->metrics.stream_bytes_out += head.n + body.n;
	if (av_wsock_send2(s->ws, text, head, body) > 0 && s->exec)
		node_exec_pause(s->exec, true);
}

void session_send(struct session *s, bool text, struct av_str message)
{
	session_send2(s, text, AV_STR(""), message);
}

void session_send_json(struct session *s, const struct av_buf *json)
{
	if (av_buf_error(json) < 0)
		av_wsock_abort(s->ws);
	else
		session_send(s, true, av_buf_str(json));
}

void session_send_error(struct session *s, const struct av_err *err, const bool *fatal)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ERROR_JSON_MAX);

	(void)av_buf_append_c(&out, "{\"type\":\"error\",\"data\":");
	(void)av_json_write_str(&out, av_str_c(err->message));
	if (fatal)
		(void)av_buf_printf(&out, ",\"fatal\":%s", *fatal ? "true" : "false");
	(void)av_buf_append_char(&out, '}');
	session_send_json(s, &out);
}

void session_send_exit(struct session *s, const struct node_exec_end *end)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(EXIT_JSON_MAX);

	(void)av_buf_printf(&out, "{\"type\":\"exit\",\"exit_code\":%d", end->exit_code);
	if (end->signal)
		(void)av_buf_printf(&out, ",\"signal\":%d", end->signal);
	if (end->timed_out)
		(void)av_buf_append_c(&out, ",\"timed_out\":true");
	if (end->oom_killed)
		(void)av_buf_append_c(&out, ",\"oom_killed\":true");
	(void)av_buf_append_char(&out, '}');
	session_send_json(s, &out);
}

/* ---- the end ---- */

static void close_now(struct session *s)
{
	s->state = SESSION_OVER;
	stop(s);
	av_wsock_close(s->ws, AV_WS_CLOSE_NORMAL, NULL);
}

void session_finish(struct session *s)
{
	if (!s->kind->lingers || s->state < SESSION_FIRST) {
		close_now(s);
		return;
	}
	s->state = SESSION_OVER;
	stop(s);
	/* What the client still sends is read and dropped, so that its Close is seen. */
	av_wsock_resume(s->ws);
	av_timer_start(&s->timer, SESSION_LINGER_MS);
}

void session_fail(struct session *s, const struct av_err *err)
{
	if (s->exec)
		node_exec_cancel(AV_TAKE_PTR(s->exec));
	s->kind->send_error(s, err);
	session_finish(s);
}

static void on_timer(void *ctx)
{
	struct session *s = ctx;
	struct av_err err;

	switch (s->state) {
	case SESSION_AUTH:
		(void)av_err_set(&err, AV_ERR_REQUEST_TIMEOUT,
		    "authentication failed: no key came in the handshake, and no "
		    "{\"type\":\"auth\",\"token\":...} within %d s",
		    SESSION_AUTH_MS / 1000);
		session_fail(s, &err);
		break;
	case SESSION_FIRST:
		(void)av_err_set(&err, AV_ERR_REQUEST_TIMEOUT,
		    "no message within %d s; the first one says what to run",
		    SESSION_FIRST_MS / 1000);
		session_fail(s, &err);
		break;
	case SESSION_OPEN:
		break;
	case SESSION_OVER:
		close_now(s);
		break;
	}
}

/* ---- from the client ---- */

void session_pause_input(struct session *s)
{
	if (s->input_paused)
		return;
	s->input_paused = true;
	av_wsock_pause(s->ws);
}

static void on_killed(void *ctx, const struct av_err *err)
{
	(void)ctx;
	(void)err; /* it has ended, which the stream tells */
}

void session_kill(struct session *s)
{
	struct node_selector sel = {.pid = s->pid};
	struct node_call *call = NULL;
	bool late = node_exec_is_backed_up(s->exec);
	struct av_err err;

	(void)node_exec_signal(s->exec, SIGKILL, true);
	if (!late || !s->pid)
		return;
	/* That waits behind the input. Nobody waits for the answer to this. */
	(void)control_process_signal(
	    s->api->control, &s->actor, s->id, &sel, SIGKILL, on_killed, NULL, &call, &err);
}

void session_on_exec_drain(void *ctx)
{
	struct session *s = ctx;

	s->input_paused = false;
	av_wsock_resume(s->ws);
}

/* The client is known: on to what it wants. */
static void enter(struct session *s)
{
	struct av_err err;
	int r = control_expect(s->api->control, &s->actor, s->id, &err);

	s->state = SESSION_FIRST;
	/* A pager, a suspended terminal: a client may rest for as long as it likes. */
	av_wsock_set_write_timeout(s->ws, 0);
	if (r == 0 && s->kind->begin)
		r = s->kind->begin(s, &err);
	api_audit_socket(s->api, s->route, &s->actor, s->id, &s->origin, r < 0 ? &err : NULL);
	if (r < 0)
		session_fail(s, &err);
	else if (s->exec)
		s->state = SESSION_OPEN;
	else if (s->state == SESSION_FIRST)
		av_timer_start(&s->timer, SESSION_FIRST_MS);
}

/* {"type":"auth","token":KEY} */
static int check_token(struct session *s, bool text, struct av_str data, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *message = NULL;
	const char *type = "", *token = "";

	if (text)
		message = av_json_parse_object(data, NULL);
	if (!message || av_json_get_str(message, "type", &type, NULL) < 0 ||
	    av_json_get_str(message, "token", &token, NULL) < 0 ||
	    !av_str_eq_c(AV_STR("auth"), type))
		token = "";
	return api_verify(s->api, s->route, av_str_c(token), s->client, &s->actor, err);
}

static void authenticate(struct session *s, bool text, struct av_str data)
{
	struct av_err err;

	av_timer_stop(&s->timer);
	if (check_token(s, text, data, &err) == 0) {
		s->actor.trace = av_trace_trust(&s->trace, true);
		av_wsock_set_message_max(s->ws, AV_WSOCK_MESSAGE_MAX);
		enter(s);
		return;
	}
	api_audit_socket(
	    s->api, s->route, s->actor.team_id[0] ? &s->actor : NULL, s->id, &s->origin, &err);
	if (err.kind == AV_ERR_UNAUTHORIZED)
		(void)av_err_set(&err, AV_ERR_UNAUTHORIZED, "authentication failed");
	session_fail(s, &err);
}

static void on_message(void *ctx, struct av_wsock *ws, bool text, struct av_str data)
{
	struct session *s = ctx;
	struct av_err err;

	(void)ws;
	s->api->metrics.stream_bytes_in += data.n;
	if (s->state == SESSION_OVER)
		return; /* what crosses our last message is dropped */
	if (s->state == SESSION_AUTH) {
		authenticate(s, text, data);
		return;
	}
	if (s->kind->on_message(s, text, data, &err) < 0) {
		session_fail(s, &err);
		return;
	}
	if (s->state == SESSION_FIRST && s->exec) {
		s->state = SESSION_OPEN;
		av_timer_stop(&s->timer);
	}
}

static void on_drain(void *ctx, struct av_wsock *ws)
{
	struct session *s = ctx;

	(void)ws;
	if (s->exec)
		node_exec_pause(s->exec, false);
	if (s->kind->on_drain)
		s->kind->on_drain(s);
}

static void on_close(void *ctx, struct av_wsock *ws, int code)
{
	struct session *s = ctx;

	(void)ws;
	(void)code;
	stop(s);
	s->api->metrics.streams_open--;
	free(s);
}

static const struct av_wsock_handler ws_handler = {
    .on_message = on_message, .on_drain = on_drain, .on_close = on_close};

/* ---- handshake ---- */

/* Whether the conversation may go on to the upgrade. *ret_known: with a good key. The younger
 * clients (those that say "capsules") expect what is wrong after the upgrade, as an error message;
 * those that speak frames, and the older ones, before it. */
static int check_client(struct api_request *rq, bool frames, bool *ret_known, struct av_err *err)
{
	bool early = frames || !rq->match.capsules;
	int r;

	*ret_known = false;
	if (!api_has_credentials(rq))
		return 0;
	if ((r = api_authenticate(rq, err)) < 0)
		return early ? r : 0;
	*ret_known = true;
	r = control_expect(rq->api->control, &rq->actor, rq->id, err);
	return early ? r : 0;
}

struct session *session_open(
    struct api_request *rq, const struct session_kind *kind, const char *subprotocol)
{
	const char *client = api_client(rq);
	struct session *s = NULL;
	bool known = false;
	struct av_err err;
	int r = 0;

	if (!av_req_is_websocket(rq->req))
		r = av_err_set(&err, AV_ERR_INVALID,
		    "this path speaks WebSocket; open it with a handshake (RFC 6455, version 13)");
	if (r == 0)
		r = check_client(rq, subprotocol != NULL, &known, &err);
	if (r == 0 && !(s = calloc(1, kind->size)))
		r = av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the session");
	if (r == 0 && s)
		api_audit_origin(rq, &s->origin);
	if (r == 0 && av_req_upgrade_ws(rq->req, subprotocol, &ws_handler, s, &s->ws) < 0) {
		free(s);
		r = av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the session");
	}
	if (r < 0) {
		api_send_err(rq, &err);
		return NULL;
	}
	assert(s);
	s->kind = kind;
	s->api = rq->api;
	s->route = rq->match.route;
	memcpy(s->client, client, sizeof s->client);
	if (known)
		s->actor = rq->actor;
	s->trace = rq->trace;
	s->state = known ? SESSION_FIRST : SESSION_AUTH;
	memcpy(s->id, rq->id, sizeof s->id);
	s->api->metrics.streams_open++;
	av_timer_init(&s->timer, s->api->loop, on_timer, s);
	api_request_release(rq);
	return s;
}

void session_run(struct session *s)
{
	if (s->state == SESSION_FIRST) {
		enter(s);
		return;
	}
	av_wsock_set_message_max(s->ws, AUTH_MESSAGE_MAX);
	av_timer_start(&s->timer, SESSION_AUTH_MS);
}
