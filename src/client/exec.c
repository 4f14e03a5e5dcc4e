/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - the agent's frames over a WebSocket of the daemon
 *
 * The first message is one CONTROL frame that says what to start or attach to; the daemon passes
 * frames through in both directions. Frames from the daemon are checked all the same: a sandbox's
 * agent wrote them.
 */
#include "client/exec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/num.h"
#include "client/socket.h"
#include "proto/agent_api.h"
#include "proto/frame.h"

#include "base/banned.h"

struct av_exec {
	struct av_socket *socket; /* owned */
	struct av_frame_dec decoder;
	const struct av_exec_events *events;
	void *ctx;
	bool has_pty;
	bool has_ended;
	bool is_attached;      /* an attach that may end without an end event */
	int refusal;           /* exit code for a program that could not be started, or 0 */
	struct av_err failure; /* of the stream, when kind is not NONE */
};

static void fail(struct av_exec *e, enum av_err_kind kind, const char *message)
{
	if (e->failure.kind == AV_ERR_NONE)
		av_err_set(&e->failure, kind, "%s", message);
}

static void take_end(struct av_exec *e, const json_t *j)
{
	struct av_exec_end end = {0};
	int64_t code = 0, sig = 0;
	const char *error = NULL;
	if (av_json_get_i64(j, "exitCode", INT32_MIN, INT32_MAX, &code, &e->failure) < 0 ||
	    av_json_get_i64(j, "signal", 0, 128, &sig, &e->failure) < 0 ||
	    av_json_get_bool(j, "exited", &end.exited, &e->failure) < 0 ||
	    av_json_get_bool(j, "coreDumped", &end.core_dumped, &e->failure) < 0 ||
	    av_json_get_bool(j, "timedOut", &end.timed_out, &e->failure) < 0 ||
	    av_json_get_bool(j, "oomKilled", &end.oom_killed, &e->failure) < 0 ||
	    av_json_get_str(j, "error", &error, &e->failure) < 0)
		return;
	end.exit_code = (int)code;
	end.signal = (int)sig;
	snprintf(end.error, sizeof(end.error), "%s", error ? error : "");
	e->has_ended = true;
	if (e->events->on_end)
		e->events->on_end(e->ctx, &end);
}

static void take_error(struct av_exec *e, const json_t *j)
{
	const char *code = json_string_value(json_object_get(j, "code"));
	const char *message = json_string_value(json_object_get(j, "message"));
	enum av_err_kind kind = code ? av_err_from_code(code) : AV_ERR_NONE;
	int64_t exit_code = 0;
	if (av_json_get_i64(j, "exitCode", 0, 255, &exit_code, &e->failure) < 0)
		return;
	e->refusal = (int)exit_code;
	fail(e, kind == AV_ERR_NONE ? AV_ERR_AGENT : kind, message ? message : "refused");
}

static int on_control(void *ctx, struct av_str payload)
{
	struct av_exec *e = ctx;
	AV_CLEANUP(av_json_decrefp) json_t *j = av_json_parse_object(payload, &e->failure);
	if (!j)
		return 0;
	const json_t *o = NULL;
	int64_t n = 0;
	if ((o = json_object_get(j, "start"))) {
		if (av_json_get_i64(o, "pid", 0, INT64_MAX, &n, &e->failure) == 0 &&
		    e->events->on_start)
			e->events->on_start(e->ctx, n);
	} else if ((o = json_object_get(j, "gap"))) {
		if (av_json_get_i64(o, "dropped", 0, INT64_MAX, &n, &e->failure) == 0 &&
		    e->events->on_gap)
			e->events->on_gap(e->ctx, (uint64_t)n);
	} else if ((o = json_object_get(j, "end"))) {
		take_end(e, o);
	} else if ((o = json_object_get(j, "error"))) {
		take_error(e, o);
	}
	/* Others are of a later protocol, and not for us. */
	return 0;
}

static int on_data(void *ctx, enum av_frame_channel ch, const uint8_t *p, size_t n, bool last)
{
	(void)last;
	struct av_exec *e = ctx;
	enum av_exec_channel channel = ch == AV_FRAME_STDERR ? AV_EXEC_STDERR
	                               : ch == AV_FRAME_PTY  ? AV_EXEC_PTY
	                                                     : AV_EXEC_STDOUT;
	if (n > 0 && ch != AV_FRAME_STDIN && e->events->on_output)
		e->events->on_output(e->ctx, channel, (const char *)p, n);
	return 0;
}

static const struct av_frame_events frame_events = {
    .on_control = on_control,
    .on_data = on_data,
};

static void on_message(void *ctx, bool is_text, const uint8_t *p, size_t n)
{
	struct av_exec *e = ctx;
	if (e->failure.kind != AV_ERR_NONE)
		return;
	if (is_text) {
		/* Before the stream begins the daemon speaks JSON: an error. */
		AV_CLEANUP(av_json_decrefp)
		json_t *j = av_json_parse_object(av_str_n((const char *)p, n), NULL);
		const char *text = j ? json_string_value(json_object_get(j, "data")) : NULL;
		fail(e, AV_ERR_AGENT, text ? text : "unexpected text message");
		return;
	}
	ssize_t r = av_frame_dec_feed(&e->decoder, p, n, &frame_events, e);
	if (r < 0)
		fail(e, AV_ERR_AGENT, "the sandbox's agent broke the protocol");
}

static const struct av_socket_events socket_events = {.on_message = on_message};

static int send_control(struct av_exec *e, const json_t *j)
{
	uint8_t head[AV_FRAME_HEADER];
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(AV_FRAME_CONTROL_MAX);
	int r = av_json_dump(&body, j);
	if (r < 0)
		return r;
	av_frame_header(head, AV_FRAME_CONTROL, body.n);
	return av_socket_send(
	    e->socket, av_str_n((const char *)head, sizeof(head)), av_buf_str(&body));
}

static int open_stream(struct av_client *c, const char *sandbox_id, const json_t *first,
    const struct av_exec_events *events, void *ctx, struct av_exec **ret, struct av_err *err)
{
	char path[256];
	int n = snprintf(path, sizeof(path), "/v1/sandboxes/%s/exec/stream", sandbox_id);
	if (n < 0 || (size_t)n >= sizeof(path))
		return av_err_set(err, AV_ERR_INVALID, "the sandbox id is too long");
	AV_CLEANUP(av_exec_freep) struct av_exec *e = calloc(1, sizeof(*e));
	if (!e)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "stream");
	av_frame_dec_init(&e->decoder);
	e->events = events;
	e->ctx = ctx;
	int r = av_socket_open(c, path, AV_AGENT_WS_PROTOCOL, &socket_events, e, &e->socket, err);
	if (r < 0)
		return r;
	r = send_control(e, first);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INVALID, r,
		    "the command line with its environment is too long (at most %d bytes)",
		    AV_FRAME_CONTROL_MAX);
	*ret = AV_TAKE_PTR(e);
	return 0;
}

static json_t *start_request(const struct av_exec_options *o)
{
	json_t *args = json_array();
	for (size_t i = 1; i < o->argc; i++)
		json_array_append_new(args, json_string(o->argv[i]));
	json_t *process = json_pack("{s:s, s:o}", "cmd", o->argv[0], "args", args);
	if (o->envs)
		json_object_set(process, "envs", o->envs);
	if (o->cwd)
		json_object_set_new(process, "cwd", json_string(o->cwd));
	json_t *j = json_pack("{s:o, s:b, s:b, s:s}", "process", process, "stdin", o->has_stdin,
	    "killGroup", 1, "onDetach", o->kill_on_detach ? "kill" : "keep");
	if (o->has_pty)
		json_object_set_new(j, "pty",
		    json_pack("{s:{s:i, s:i}}", "size", "cols", o->cols, "rows", o->rows));
	if (o->tag)
		json_object_set_new(j, "tag", json_string(o->tag));
	if (o->user)
		json_object_set_new(j, "user", json_string(o->user));
	if (o->timeout_ms > 0)
		json_object_set_new(j, "timeoutMs", json_integer(o->timeout_ms));
	return j;
}

int av_exec_start(struct av_client *c, const char *sandbox_id,
    const struct av_exec_options *options, const struct av_exec_events *events, void *ctx,
    struct av_exec **ret, struct av_err *err)
{
	for (size_t i = 0; i < options->argc; i++)
		if (!av_utf8_valid(av_str_c(options->argv[i])))
			return av_err_set(err, AV_ERR_INVALID,
			    "argument %zu of the command is not valid UTF-8", i);
	AV_CLEANUP(av_json_decrefp) json_t *first = start_request(options);
	if (!first)
		return av_err_set(err, AV_ERR_INVALID,
		    "the command, its directory, user or environment is not valid UTF-8");
	int r = open_stream(c, sandbox_id, first, events, ctx, ret, err);
	if (r == 0)
		(*ret)->has_pty = options->has_pty;
	return r;
}

int av_exec_attach(struct av_client *c, const char *sandbox_id, const char *selector, bool replay,
    bool follow, const struct av_exec_events *events, void *ctx, struct av_exec **ret,
    struct av_err *err)
{
	uint64_t pid;
	bool is_pid = av_parse_u64(av_str_c(selector), 0, UINT32_MAX, &pid) == 0;
	AV_CLEANUP(av_json_decrefp)
	json_t *which = is_pid ? json_pack("{s:I}", "pid", (json_int_t)pid)
	                       : json_pack("{s:s}", "tag", selector);
	AV_CLEANUP(av_json_decrefp)
	json_t *first = json_pack(
	    "{s:{s:O}, s:b, s:b}", "connect", "process", which, "replay", replay, "follow", follow);
	if (!which || !first)
		return av_err_set(err, AV_ERR_INVALID, "the tag is not valid UTF-8");
	int r = open_stream(c, sandbox_id, first, events, ctx, ret, err);
	if (r == 0)
		(*ret)->is_attached = true;
	return r;
}

void av_exec_free(struct av_exec *e)
{
	if (!e)
		return;
	if (e->socket) {
		av_socket_close(e->socket);
		av_socket_step(e->socket, false, NULL);
	}
	av_socket_free(e->socket);
	av_frame_dec_clear(&e->decoder);
	free(e);
}

void av_exec_freep(struct av_exec **e)
{
	av_exec_free(*e);
	*e = NULL;
}

int av_exec_fd(const struct av_exec *e)
{
	return av_socket_fd(e->socket);
}

bool av_exec_wants_write(const struct av_exec *e)
{
	return av_socket_wants_write(e->socket);
}

bool av_exec_has_pending(const struct av_exec *e)
{
	return av_socket_has_pending(e->socket);
}

size_t av_exec_buffered(const struct av_exec *e)
{
	return av_socket_buffered(e->socket);
}

bool av_exec_has_ended(const struct av_exec *e)
{
	return e->has_ended;
}

int av_exec_write(struct av_exec *e, const char *p, size_t n)
{
	while (n > 0) {
		uint8_t head[AV_FRAME_HEADER];
		size_t piece = AV_MIN(n, (size_t)AV_FRAME_DATA_MAX);
		av_frame_header(head, e->has_pty ? AV_FRAME_PTY : AV_FRAME_STDIN, piece);
		int r = av_socket_send(
		    e->socket, av_str_n((const char *)head, sizeof(head)), av_str_n(p, piece));
		if (r < 0)
			return r;
		p += piece;
		n -= piece;
	}
	return 0;
}

int av_exec_close_stdin(struct av_exec *e)
{
	uint8_t head[AV_FRAME_HEADER];
	av_frame_header(head, AV_FRAME_STDIN, 0);
	return av_socket_send(e->socket, av_str_n((const char *)head, sizeof(head)), AV_STR(""));
}

int av_exec_resize(struct av_exec *e, uint16_t cols, uint16_t rows)
{
	AV_CLEANUP(av_json_decrefp)
	json_t *j = json_pack("{s:{s:i, s:i}}", "resize", "cols", cols, "rows", rows);
	return j ? send_control(e, j) : -ENOMEM;
}

int av_exec_signal(struct av_exec *e, const char *name, bool to_group)
{
	AV_CLEANUP(av_json_decrefp)
	json_t *j =
	    json_pack("{s:s, s:s}", "signal", name, "scope", to_group ? "group" : "process");
	return j ? send_control(e, j) : -ENOMEM;
}

int av_exec_step(struct av_exec *e, bool may_read, int *ret_exit_code, struct av_err *err)
{
	struct av_err transport = {0};
	int r = av_socket_step(e->socket, may_read, &transport);
	if (ret_exit_code)
		*ret_exit_code = e->refusal;
	if (e->failure.kind != AV_ERR_NONE) {
		if (err)
			*err = e->failure;
		return -av_err_errno(e->failure.kind);
	}
	if (e->has_ended)
		return 1;
	if (r == 1 && e->is_attached)
		return 1;
	if (r == 1)
		return av_err_set(err, AV_ERR_AGENT,
		    "the sandbox ended before its process could say how it ended");
	if (r < 0 && err)
		*err = transport;
	return r;
}
