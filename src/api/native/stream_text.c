/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream_text.c - exec/stream and processes/{selector}/stream as JSON text messages
 *
 * Text is cut between characters only; bytes that are not UTF-8 become U+FFFD. What exec/stream
 * started ends with its group when the client goes away, unless it said "on_disconnect":"keep";
 * what was only attached to lives on.
 */
#include "api/native/stream.h"

#include <errno.h>
#include <inttypes.h>

#include "api/native/shapes.h"
#include "base/textcut.h"
#include "base/banned.h"

#define START_JSON_MAX 4096
#define ROOM           8192

struct text_stream {
	struct session s;
	struct stream_target target;
	bool stdin_closed;        /* it was started without stdin */
	struct av_textcut cut[2]; /* of stdout and stderr */
};

static struct text_stream *to_text(struct session *s)
{
	return AV_CONTAINER_OF(s, struct text_stream, s);
}

/* ---- from the process ---- */

static void on_start(void *ctx, uint32_t pid, const char *tag)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(START_JSON_MAX);
	struct session *s = ctx;

	s->pid = pid;
	(void)av_buf_printf(&out, "{\"type\":\"start\",\"pid\":%" PRIu32, pid);
	if (tag && tag[0]) {
		(void)av_buf_append_c(&out, ",\"tag\":");
		(void)av_json_write_str(&out, av_str_c(tag));
	}
	(void)av_buf_append_char(&out, '}');
	session_send_json(s, &out);
}

static void send_data(struct session *s, enum node_channel ch, struct av_str a, struct av_str b)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(SESSION_MESSAGE_MAX);
	char *room;

	if (a.n + b.n == 0)
		return;
	/* Room for lines of ordinary text at once; more escapes make it grow. */
	if (av_buf_reserve(&out, (a.n + b.n) / 8 * 9 + ROOM, &room) < 0) {
		session_send_json(s, &out);
		return;
	}
	(void)av_buf_append_c(&out, ch == NODE_CH_STDERR ? "{\"type\":\"stderr\",\"data\":\""
	                                                 : "{\"type\":\"stdout\",\"data\":\"");
	(void)av_json_write_part(&out, a);
	(void)av_json_write_part(&out, b);
	(void)av_buf_append_c(&out, "\"}");
	session_send_json(s, &out);
}

static void on_output(void *ctx, enum node_channel ch, struct av_str data)
{
	struct session *s = ctx;
	struct av_str head;

	data = av_textcut_feed(&to_text(s)->cut[ch == NODE_CH_STDERR], data, &head);
	send_data(s, ch, head, data);
}

static void on_gap(void *ctx, uint64_t dropped)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(256);

	(void)av_buf_printf(&out, "{\"type\":\"gap\",\"dropped\":%" PRIu64 "}", dropped);
	session_send_json(ctx, &out);
}

static void on_end(void *ctx, const struct node_exec_end *end, const struct av_err *err)
{
	struct session *s = ctx;

	s->exec = NULL;
	send_data(s, NODE_CH_STDOUT, av_textcut_end(&to_text(s)->cut[0]), AV_STR(""));
	send_data(s, NODE_CH_STDERR, av_textcut_end(&to_text(s)->cut[1]), AV_STR(""));
	if (err)
		session_fail(s, err);
	else {
		session_send_exit(s, end);
		session_finish(s);
	}
}

static const struct node_exec_events exec_events = {.on_start = on_start,
    .on_output = on_output,
    .on_gap = on_gap,
    .on_drain = session_on_exec_drain,
    .on_end = on_end};

/* ---- from the client ---- */

/* {"type":"start","cmd","args","envs","cwd","user","tag","timeout_sec","stdin":bool,
 * "on_disconnect":"kill"|"keep"} */
static int start(struct session *s, const json_t *message, struct av_err *err)
{
	struct node_exec_spec spec = {0};
	const char *type = "", *gone = "kill";
	int r;

	if ((r = av_json_get_str(message, "type", &type, err)) < 0)
		return r;
	if (!av_str_eq_c(AV_STR("start"), type))
		return av_err_set(err, AV_ERR_INVALID,
		    "the first message must be {\"type\":\"start\",\"cmd\":...}");
	if ((r = native_parse_exec(message, 0, &spec, err)) < 0 ||
	    (r = av_json_get_bool(message, "stdin", &spec.stdin_open, err)) < 0 ||
	    (r = av_json_get_str(message, "on_disconnect", &gone, err)) < 0)
		return r;
	spec.keep_on_detach = av_str_eq_c(AV_STR("keep"), gone);
	if (!spec.keep_on_detach && !av_str_eq_c(AV_STR("kill"), gone))
		return av_err_set(err, AV_ERR_INVALID,
		    "'on_disconnect' is '%.40s'; allowed are kill (the default) and keep", gone);
	to_text(s)->stdin_closed = !spec.stdin_open;
	return control_exec_stream(
	    s->api->control, &s->actor, s->id, &spec, &exec_events, s, &s->exec, err);
}

static int send_stdin(struct session *s, const char *data, struct av_err *err)
{
	if (to_text(s)->stdin_closed)
		return av_err_set(err, AV_ERR_INVALID,
		    "the process has no stdin; ask for it with \"stdin\":true in the first "
		    "message");
	if (data[0] && !node_exec_send(s->exec, NODE_CH_STDIN, av_str_c(data)))
		session_pause_input(s);
	return 0;
}

/* {"type":"stop"}, {"type":"stdin","data":text}, {"type":"stdin_close"}; others are ignored. */
static int later(struct session *s, const json_t *message, struct av_err *err)
{
	const char *type = "", *data = "";
	int r;

	if ((r = av_json_get_str(message, "type", &type, err)) < 0)
		return r;
	if (av_str_eq_c(AV_STR("stop"), type))
		session_kill(s);
	else if (av_str_eq_c(AV_STR("stdin_close"), type) && !to_text(s)->stdin_closed)
		(void)node_exec_close_stdin(s->exec);
	else if (av_str_eq_c(AV_STR("stdin"), type) &&
	         (r = av_json_get_str(message, "data", &data, err)) == 0)
		r = send_stdin(s, data, err);
	return r;
}

static int on_message(struct session *s, bool text, struct av_str data, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *message = NULL;

	if (!text)
		return av_err_set(err, AV_ERR_INVALID,
		    "text messages are expected here; for bytes ask for the subprotocol %s",
		    STREAM_FRAMES_PROTOCOL);
	message = av_json_parse_object(data, err);
	if (!message)
		return -EINVAL;
	return s->exec ? later(s, message, err) : start(s, message, err);
}

static void send_error(struct session *s, const struct av_err *err)
{
	session_send_error(s, err, NULL);
}

static const struct session_kind exec_kind = {
    .size = sizeof(struct text_stream), .on_message = on_message, .send_error = send_error};

void stream_text_exec(struct api_request *rq)
{
	struct session *s = session_open(rq, &exec_kind, NULL);

	if (s)
		session_run(s);
}

/* ---- attaching ---- */

static int attach(struct session *s, struct av_err *err)
{
	return stream_target_attach(&to_text(s)->target, s, &exec_events, err);
}

static const struct session_kind attach_kind = {.size = sizeof(struct text_stream),
    .begin = attach,
    .on_message = on_message,
    .send_error = send_error};

void stream_text_attach(struct api_request *rq, const struct stream_target *target)
{
	struct session *s = session_open(rq, &attach_kind, NULL);

	if (!s)
		return;
	to_text(s)->target = *target;
	session_run(s);
}
